"""From a record with named fields, be it of a table, a JSON line or a hub dataset, to an `Example`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.errors import DataError
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard

Row = Mapping[str, Any]
"""A record: field name -> value as the file holds it."""


class BadRow(Exception):
    """What is wrong with a row and what to do; whoever knows the file and line puts them in front."""


RowMapper = Callable[[TaskCard, Row, int], Example]
"""Makes an example of a record; the number counts the rows of the split from 0. Raises `BadRow`."""

Reader = Callable[[TaskCard, Sequence[Path]], Split]
"""Reads the files of one split. Raises `DataError`."""


@dataclass(frozen=True)
class Columns:
    """The fields of a record that make an example. A field that the file does not have leaves the row unlabelled.

    A card without labels takes every label and tag.

    Attributes:
        text, text_pair: names of the text fields.
        label: of the label; must be one of the task's labels, after `names` where that is given.
        target: of the gold number.
        tokens, tags: of the lists of words and of their tags.
        id: of the identifier; rows are numbered from 0 where the file has none.
        names: how the file writes labels -> the task's labels, e.g. {"0": "negative"}.
        unlabelled: the value of `label` or `target` that stands for "not labelled", beside None.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    target: str | None = None
    tokens: str | None = None
    tags: str | None = None
    id: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    unlabelled: object = None

    def __call__(self, card: TaskCard, row: Row, index: int) -> Example:
        """See `RowMapper`."""
        tokens: tuple[str, ...] = ()
        tags = None
        if self.tokens is not None:
            tokens = tuple(value_of(row, self.tokens))
            tags = self._tags(card, row, tokens)
        return Example(
            id=str(row[self.id]) if self.id is not None and self.id in row else str(index),
            text="" if self.text is None else text_of(row, self.text),
            text_pair=None if self.text_pair is None else text_of(row, self.text_pair),
            label=self._label(card, row),
            target=self._target(row),
            tokens=tokens,
            tags=tags,
        )

    def _label(self, card: TaskCard, row: Row) -> str | None:
        value = row.get(self.label) if self.label is not None else None
        if value is None or value == self.unlabelled:
            return None
        label = self.names.get(str(value)) if self.names else value
        if label not in card.labels and (card.labels or not label):
            known = f"one of {', '.join(self.names or card.labels)}" if self.names or card.labels else "a word"
            raise BadRow(f"unknown label {value!r}; it must be {known}")
        return label

    def _target(self, row: Row) -> float | None:
        value = row.get(self.target) if self.target is not None else None
        if value is None or value == self.unlabelled:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadRow(f"{self.target} is {value!r}; it must be a number")
        return number

    def _tags(self, card: TaskCard, row: Row, tokens: tuple[str, ...]) -> tuple[str, ...] | None:
        value = row.get(self.tags) if self.tags is not None else None
        if value is None:
            return None
        tags = tuple(value)
        if len(tags) != len(tokens):
            raise BadRow(f"{len(tokens)} tokens but {len(tags)} tags; every token needs one tag")
        for tag in tags:
            if tag not in card.labels and (card.labels or not tag):
                raise unknown_tag(card, tag)
        return tags


def unknown_tag(card: TaskCard, tag: object) -> BadRow:
    """The error for a tag that the task does not have."""
    known = f"one of {', '.join(card.labels)}" if card.labels else "a word such as O"
    return BadRow(f"unknown tag {tag!r}; it must be {known}")


def value_of(row: Row, name: str) -> Any:
    """A field of a record. Raises `BadRow` when it is not there."""
    try:
        return row[name]
    except KeyError:
        raise BadRow(f"no {name!r} here; the fields are {', '.join(map(str, row)) or 'none'}") from None


def text_of(row: Row, name: str) -> str:
    """A text field of a record. Raises `BadRow` when it is not there or no text."""
    value = value_of(row, name)
    if not isinstance(value, str):
        raise BadRow(f"{name!r} is {value!r}; it must be text")
    return value


class RepeatedId(DataError):
    """Rows with one identifier, which nothing can be scored by.

    Attributes:
        examples: all rows; what repeats an identifier has a number behind it, so that these can be trained on.
    """

    def __init__(self, message: str, examples: tuple[Example, ...]) -> None:
        super().__init__(message)
        self.examples = examples


def to_examples(card: TaskCard, rows: Iterable[tuple[object, Row]], mapper: RowMapper) -> tuple[Example, ...]:
    """Make examples of records and check that no identifier comes twice.

    Args:
        card: the task.
        rows: records, each with the place where it stands; `str(place)` is "file:line".
        mapper: makes an example of a record.

    Raises:
        DataError: a row is malformed. RepeatedId: two have one identifier.
    """
    examples: list[Example] = []
    repeated = ""
    places: dict[str, object] = {}
    for place, row in rows:
        try:
            example = mapper(card, row, len(examples))
        except BadRow as error:
            raise DataError(f"{place}: {error}") from None
        if example.id in places:
            repeated = (
                repeated or f"{place}: the id {example.id!r} stands at {places[example.id]} already; make ids unique"
            )
            numbered = (f"{example.id}#{number}" for number in count(2))
            example = replace(example, id=next(name for name in numbered if name not in places))
        places[example.id] = place
        examples.append(example)
    if repeated:
        raise RepeatedId(repeated, tuple(examples))
    return tuple(examples)
