"""SuperGLUE (Wang et al. 2019, arXiv 1905.00537): English, one JSON object a line."""

from __future__ import annotations

from benchmarks.hub import Hub
from benchmarks.readers.rows import BadRow, Row, text_of
from benchmarks.readers.tables import JsonLines
from benchmarks.records import Example
from benchmarks.sources import in_all_splits
from benchmarks.task import Kind, Suite, Task, TaskCard

# COPA's question is one word; encoders were trained on sentences.
_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_RIGHT_CHOICE = {"0": "0", "1": "1", "choice1": "0", "choice2": "1"}  # the official files and the hub's names


def copa(card: TaskCard, row: Row, index: int) -> Example:
    """A COPA record as multiple choice: the premise and the question in words, and two alternatives; a `RowMapper`."""
    question = text_of(row, "question")
    if question not in _QUESTIONS:
        raise BadRow(f"question is {question!r}; it must be one of {', '.join(_QUESTIONS)}")
    label = row.get("label")
    if label is not None and str(label) not in _RIGHT_CHOICE:
        raise BadRow(f"unknown label {label!r}; it must be 0 or 1")
    return Example(
        id=str(row.get("idx", index)),
        text=f"{text_of(row, 'premise')} {_QUESTIONS[question]}",
        choices=(text_of(row, "choice1"), text_of(row, "choice2")),
        label=None if label is None else _RIGHT_CHOICE[str(label)],
    )


COPA = Task(
    card=TaskCard(name="copa", suite="superglue", kind=Kind.CHOICE, metrics=("accuracy",)),
    source=in_all_splits(
        "superglue/COPA/{split}.jsonl", JsonLines(copa), Hub("aps/super_glue", copa, config="copa"), dev="val"
    ),
    title="COPA",
    licence="BSD 2-clause",
    url="https://people.ict.usc.edu/~gordon/copa.html",
    how_to_get="The archive is linked on https://super.gluebenchmark.com/tasks; "
    "unpack it into superglue/ of the data folder.",
)

SUITE = Suite(name="superglue", title="SuperGLUE (1 of its 8 tasks)", tasks=(COPA,), categories={})
