"""Labels that a declaration leaves out: they are those of the training rows."""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.errors import PolypromptError
from benchmarks.records import Split
from benchmarks.task import Kind, Task, TaskCard

LABELLED = (Kind.CLASSIFICATION, Kind.TAGGING)
"""The kinds that have labels."""

_CHUNK_TAG = re.compile(r"O|[BIESLU]-.+")


def labelled(task: Task, train: Split) -> Task:
    """A task with the labels of its training rows, sorted, where its declaration names none.

    Raises:
        PolypromptError: the rows have fewer than two labels, or tags that a metric cannot read.
    """
    card = task.card
    if card.labels or card.kind not in LABELLED:
        return task
    found = sorted({label for row in train.examples for label in row.tags or (row.label,) if label is not None})
    if len(found) < 2:
        raise PolypromptError(f"task {task.name!r}: its training rows have {len(found)} labels; it takes two to learn")
    card = card.model_copy(update={"labels": tuple(found)})
    check_tags(card, f"task {task.name!r}")
    return replace(task, card=card)


def check_tags(card: TaskCard, place: str) -> None:
    """Check that F1 of chunks is asked of tags of chunks alone: it would see some in parts of speech too.

    Args:
        card: any task. place: what an error begins with.

    Raises:
        PolypromptError: the task has another tag.
    """
    if card.kind is Kind.TAGGING and "f1" in card.metrics:
        for tag in card.labels:
            if not _CHUNK_TAG.fullmatch(tag):
                raise PolypromptError(
                    f"{place}: metrics: f1 counts chunks, tagged O, B-X and I-X, but there is a tag {tag!r}; "
                    'write metrics = ["accuracy"]'
                )
