"""SuperGLUE (Wang et al. 2019, arXiv 1905.00537): English, one JSON object a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.hub import Hub
from benchmarks.readers import superglue
from benchmarks.readers.rows import Columns, Row, RowMapper
from benchmarks.readers.tables import JsonLines
from benchmarks.sources import OfficialSource, SplitFiles, in_all_splits
from benchmarks.task import Kind, Published, Source, Suite, Task, TaskCard

_HUB = "aps/super_glue"
_HOW_TO_GET = (
    "The archive is linked on https://super.gluebenchmark.com/tasks; unpack it into superglue/ of the data folder."
)
_REIMPLEMENTED = "github.com/THUDM/P-tuning-v2, README (re-implementation)"
_ENTAILMENT = ("entailment", "not_entailment")
_TRUTH = ("False", "True")


def _task(
    name: str,
    title: str,
    source: Source,
    licence: str,
    url: str,
    labels: Sequence[str] = (),
    metrics: Sequence[str] = ("accuracy",),
    max_length: int = 128,
    large: tuple[float, float] | None = None,
    eval_split: str = "dev",
    head: str = "",
) -> Task:
    """A task of SuperGLUE.

    Args:
        name, title, source, licence, url, eval_split: as in `Task`.
        labels, metrics, max_length, head: as in `TaskCard`; without labels it is a multiple choice.
        large: the main metric of P-Tuning v2 on the dev set, with BERT-large and with RoBERTa-large.
    """
    return Task(
        card=TaskCard(
            name=name,
            suite="superglue",
            kind=Kind.CLASSIFICATION if labels else Kind.CHOICE,
            labels=tuple(labels),
            train_language=None if head else "en",
            metrics=tuple(metrics),
            max_length=max_length,
            head=head,
        ),
        source=source,
        title=title,
        licence=licence,
        url=url,
        how_to_get=_HOW_TO_GET,
        eval_split=eval_split,
        published=tuple(
            Published("P-Tuning v2", backbone, metrics[0], value, "dev", _REIMPLEMENTED)
            for backbone, value in zip(("BERT-large", "RoBERTa-large"), large or (), strict=large is not None)
        ),
    )


def _source(
    folder: str, config: str, row: RowMapper, unfold: Callable[[Row], Iterable[Row]] | None = None
) -> OfficialSource:
    return in_all_splits(
        f"superglue/{folder}/{{split}}.jsonl", JsonLines(row, unfold), Hub(_HUB, row, config=config), dev="val"
    )


def _diagnostics(folder: str, config: str, row: RowMapper) -> OfficialSource:
    """A labelled set to evaluate on, in one file."""
    hub = Hub(_HUB, row, config=config)
    return OfficialSource({"test": SplitFiles((f"superglue/{folder}/{folder}.jsonl",), JsonLines(row), hub)})


_NLI = Columns(text="premise", text_pair="hypothesis", label="label", id="idx")

BOOLQ = _task(
    "boolq",
    "BoolQ",
    _source(
        "BoolQ",
        "boolq",
        Columns(text="question", text_pair="passage", label="label", id="idx", names=superglue.TRUTH),
    ),
    licence="CC BY-SA 3.0",
    url="https://github.com/google-research-datasets/boolean-questions",
    labels=_TRUTH,
    max_length=256,
    large=(74.3, 84.0),
)

CB = _task(
    "cb",
    "CommitmentBank",
    _source("CB", "cb", _NLI),
    licence="none stated by the authors; research use",
    url="https://github.com/mcdm/CommitmentBank",
    labels=("entailment", "contradiction", "neutral"),
    metrics=("accuracy", "f1_macro"),
    max_length=256,
)

COPA = _task(
    "copa",
    "COPA",
    _source("COPA", "copa", superglue.copa),
    licence="BSD 2-clause",
    url="https://people.ict.usc.edu/~gordon/copa.html",
    large=(77.0, 92.0),
)

MULTIRC = _task(
    "multirc",
    "MultiRC",
    _source("MultiRC", "multirc", superglue.multirc, superglue.multirc_answers),
    licence="of its own, for research; see its site",
    url="https://cogcomp.seas.upenn.edu/multirc/",
    labels=_TRUTH,
    metrics=("f1a", "em"),
    max_length=512,
)

RECORD = _task(
    "record",
    "ReCoRD",
    _source("ReCoRD", "record", superglue.record, superglue.record_queries),
    licence="text of CNN and the Daily Mail; research use",
    url="https://sheng-z.github.io/ReCoRD-explorer/",
    metrics=("f1", "em"),
    max_length=384,
)

RTE = _task(
    "superglue-rte",
    "RTE",
    _source("RTE", "rte", _NLI),
    licence="none stated by the authors; research use",
    url="https://super.gluebenchmark.com/tasks",
    labels=_ENTAILMENT,
    max_length=256,
    large=(80.1, 86.6),
)

WIC = _task(
    "wic",
    "WiC",
    _source("WiC", "wic", superglue.wic),
    licence="CC BY-NC 4.0 (not for commercial use)",
    url="https://pilehvar.github.io/wic/",
    labels=_TRUTH,
    large=(75.1, 73.7),
)

WSC = _task(
    "wsc",
    "WSC",
    _source("WSC", "wsc.fixed", superglue.wsc),
    licence="CC BY 4.0",
    url="https://cs.nyu.edu/~davise/papers/WinogradSchemas/WS.html",
    labels=_TRUTH,
    large=(68.3, 64.4),
)

AXB = _task(
    "axb",
    "AX-b, broad-coverage diagnostics",
    _diagnostics("AX-b", "axb", Columns(text="sentence1", text_pair="sentence2", label="label", id="idx")),
    licence="none stated by the authors; research use",
    url="https://gluebenchmark.com/diagnostics",
    labels=_ENTAILMENT,
    metrics=("matthews",),
    max_length=256,
    eval_split="test",
    head="superglue-rte",
)

AXG = _task(
    "axg",
    "AX-g, Winogender diagnostics",
    _diagnostics("AX-g", "axg", superglue.winogender),
    licence="MIT",
    url="https://github.com/rudinger/winogender-schemas",
    labels=_ENTAILMENT,
    metrics=("accuracy", "parity"),
    max_length=256,
    eval_split="test",
    head="superglue-rte",
)

SUITE = Suite(
    name="superglue",
    title="SuperGLUE",
    tasks=(BOOLQ, CB, COPA, MULTIRC, RECORD, RTE, WIC, WSC, AXB, AXG),
    averaged=(("boolq",), ("cb",), ("copa",), ("multirc",), ("record",), ("superglue-rte",), ("wic",), ("wsc",)),
)
