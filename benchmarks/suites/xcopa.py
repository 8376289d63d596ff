"""XCOPA (Ponti et al. 2020, arXiv 2005.00333): COPA in eleven languages, in the files of XTREME-R."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.hub import Hub
from benchmarks.readers.superglue import copa
from benchmarks.readers.tables import JsonLines
from benchmarks.records import Split
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.task import Kind, Suite, Task, TaskCard

_LANGUAGES = tuple("et ht id it qu sw ta th tr vi zh".split())
_HUB = Hub("cambridgeltl/xcopa", copa, config="{language}")


def _test(card: TaskCard, paths: Sequence[Path]) -> Split:
    """A `Reader`. XTREME's script writes 0 for the label of every test row, which would pass for an answer."""
    split = JsonLines(copa)(card, paths)
    if len(split.examples) > 1 and all(example.label == "0" for example in split.examples):
        raise DataError(
            f"{paths[0]}:1: every label is 0, as XTREME's script leaves them; "
            "take the test files of https://github.com/cambridgeltl/xcopa"
        )
    return split


XCOPA = Task(
    card=TaskCard(name="xcopa", suite="xcopa", kind=Kind.CHOICE, languages=_LANGUAGES, metrics=("accuracy",)),
    source=OfficialSource(
        {
            # COPA's own English rows. A head shared with `copa` would tie this suite to SuperGLUE.
            "train": SplitFiles(
                ("xtreme/download/xcopa/train-{language}.jsonl|superglue/COPA/train.jsonl",),
                JsonLines(copa),
                Hub("aps/super_glue", copa, config="copa"),
                languages=("en",),
            ),
            "dev": SplitFiles(("xtreme/download/xcopa/val-{language}.jsonl",), JsonLines(copa), _HUB, _LANGUAGES),
            "test": SplitFiles(("xtreme/download/xcopa/test-{language}.jsonl",), _test, _HUB, _LANGUAGES),
        }
    ),
    title="XCOPA",
    licence="CC BY 4.0; COPA: BSD 2-clause",
    url="https://github.com/cambridgeltl/xcopa",
    how_to_get="scripts/download_data.sh of https://github.com/google-research/xtreme fills download/; put it under "
    "xtreme/ of the data folder. It leaves the labels of the test files out: put test.xx.jsonl of "
    "https://github.com/cambridgeltl/xcopa in their places, as test-xx.jsonl.",
    eval_split="test",
)

SUITE = Suite(name="xcopa", title="XCOPA (of XTREME-R)", tasks=(XCOPA,))
