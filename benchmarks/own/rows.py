"""From a row of a user's table to an example, strict: every column that a task file names must be there."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.readers.rows import BadRow, Columns, Row, text_of, value_of
from benchmarks.records import Example
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class OwnRow:
    """Makes an example of a row; a `RowMapper`. Labels and tags may be numbers or truth values of JSON.

    Attributes:
        columns: what holds what. Tokens and tags are lists, or texts divided at blanks; `names` is for tags too.
        choices: multiple choice: the columns of the alternatives; one alone holds the list of them.
    """

    columns: Columns
    choices: tuple[str, ...] = ()

    def __call__(self, card: TaskCard, row: Row, index: int) -> Example:
        """See `RowMapper`."""
        asked = self.columns
        named = (asked.text, asked.text_pair, asked.label, asked.target, asked.tokens, asked.tags, asked.id)
        values = {name: _value(row, name) for name in (*named, *self.choices) if name is not None}
        if asked.tokens is not None and asked.tags is not None:
            values[asked.tokens] = [_word(token, asked.tokens) for token in _items(values, asked.tokens)]
            values[asked.tags] = [self._tag(_word(tag, asked.tags)) for tag in _items(values, asked.tags)]
        if asked.label is not None and values[asked.label] is not None:
            values[asked.label] = _word(values[asked.label], asked.label)
        if asked.target is not None and not isinstance(values[asked.target], int | float | str | None):
            raise BadRow(f"{asked.target} is {values[asked.target]!r}; it must be a number")
        if not self.choices:
            return asked(card, values, index)
        choices = self._choices(values)
        indices = tuple(str(number) for number in range(len(choices)))
        return replace(asked(card.model_copy(update={"labels": indices}), values, index), choices=choices)

    def _tag(self, written: str) -> str:
        known = self.columns.names
        if known and written not in known:
            raise BadRow(f"unknown tag {written!r}; it must be one of {', '.join(known)}")
        return known.get(written, written)

    def _choices(self, values: Row) -> tuple[str, ...]:
        if len(self.choices) > 1:
            return tuple(text_of(values, name) for name in self.choices)
        name = self.choices[0]
        items = values[name]
        if not isinstance(items, list) or len(items) < 2 or not all(isinstance(item, str) for item in items):
            raise BadRow(f"{name!r} is {items!r}; it must be a list of at least two texts")
        return tuple(items)


def _value(row: Row, name: str) -> Any:
    try:
        return value_of(row, name)
    except BadRow as error:
        raise BadRow(f"{error}; let columns in the task file say which is meant") from None


def _word(value: Any, name: str) -> str:
    """A label or token as text: numbers and truth values as JSON writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return json.dumps(value)
    raise BadRow(f"{name!r} holds {value!r}; it must be text or a number")


def _items(values: Row, name: str) -> list[Any]:
    value = values[name]
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise BadRow(f"{name!r} is {value!r}; it must be a list of words, or words that are divided at blanks")
    return items
