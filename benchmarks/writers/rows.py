"""From an `Example` back to a record with named fields: the counterpart of `benchmarks.readers.rows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import PolypromptError
from benchmarks.readers.rows import Columns, Row, RowMapper
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard


class Unwritable(PolypromptError):
    """The official format cannot be written, or cannot hold the rows; the message says why."""


@dataclass(frozen=True)
class Content:
    """One split of a task as a dataset on the hub has it.

    Attributes:
        card: the task.
        files: the official files that are to hold it, in the order that the reader wants.
        split: its examples.
        records: what they were made of.
        mapper: what made them; None when the examples are not those of the records any more.
    """

    card: TaskCard
    files: tuple[str, ...]
    split: Split
    records: Sequence[Row]
    mapper: RowMapper | None


def records_for(row: RowMapper, content: Content) -> list[dict[str, Any]]:
    """Records of which a reader's row mapper makes the examples; a field without a value is left out.

    These are the records of the hub where the same mapper made the examples of them: the official file has then the
    same fields. Else the examples are taken apart, which is possible where `Columns` put them together.

    Args:
        row: the reader's.
        content: what is written.

    Raises:
        Unwritable: neither of the two holds.
    """
    if row == content.mapper:
        return [{name: value for name, value in record.items() if value is not None} for record in content.records]
    if isinstance(row, Columns):
        return [_record(row, example) for example in content.split.examples]
    raise Unwritable("its rows are made in a way that has no counterpart for writing")


def _record(columns: Columns, example: Example) -> dict[str, Any]:
    """The counterpart of `Columns`."""
    spelling = {label: written for written, label in reversed(list(columns.names.items()))}
    label = example.label if example.label is None else spelling.get(example.label, example.label)
    fields = (
        (columns.id, example.id),
        (columns.text, example.text),
        (columns.text_pair, example.text_pair),
        (columns.tokens, list(example.tokens)),
        (columns.tags, None if example.tags is None else list(example.tags)),
        (columns.label, columns.unlabelled if label is None else label),
        (columns.target, columns.unlabelled if example.target is None else example.target),
    )
    return {name: value for name, value in fields if name is not None and value is not None}
