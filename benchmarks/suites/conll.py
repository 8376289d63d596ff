"""Named entities in CoNLL columns."""

from __future__ import annotations

from benchmarks.readers.conll import Conll
from benchmarks.sources import in_all_splits
from benchmarks.task import Kind, Suite, Task, TaskCard


def bio(*types: str) -> tuple[str, ...]:
    """The tags of a chunking task: "O", then "B-" and "I-" of each type."""
    return ("O", *(f"{prefix}-{name}" for name in types for prefix in "BI"))


CONLL04 = Task(
    card=TaskCard(
        name="conll04",
        suite="conll",
        kind=Kind.TAGGING,
        labels=bio("Loc", "Org", "Other", "Peop"),
        metrics=("f1",),
    ),
    source=in_all_splits("ner/conll04/{split}.conll", Conll()),
    title="CoNLL04",
    licence="none stated by the authors; research use",
    url="https://cogcomp.seas.upenn.edu/page/resource_view/43",
    how_to_get="Turn the files of https://cogcomp.seas.upenn.edu/page/resource_view/43 into two columns, token and "
    "tag, in ner/conll04/ of the data folder.",
    eval_split="test",
)

SUITE = Suite(name="conll", title="CoNLL named entities", tasks=(CONLL04,), categories={})
