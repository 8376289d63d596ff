"""Tables of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from tabulate import tabulate

from exporters.bundle import TaskParity


def table(columns: Mapping[str, Literal["left", "right"]], rows: Sequence[Sequence[object]]) -> str:
    """Values under headers, written as they come.

    Args:
        columns: header -> the side that its values stand at. rows: a value a column.
    """
    sides = tuple(columns.values()) if rows else None  # of no rows tabulate knows no sides
    return tabulate(rows, headers=tuple(columns), disable_numparse=True, colalign=sides)


AGREEMENT: Mapping[str, Literal["left", "right"]] = {
    "rows": "right",
    "languages": "left",
    "largest difference": "right",
    "equal predictions": "right",
    "PyTorch": "right",
    "score": "right",
}
"""Columns of `agreement`."""


def agreement(part: TaskParity) -> tuple[object, ...]:
    """How a task agrees with PyTorch."""
    points = ("" if score is None else f"{score:.1f}" for score in (part.original, part.score))
    languages, equal = " ".join(part.languages), f"{100 * part.agreement:.1f} %"
    return part.examples, languages, f"{part.difference:.1e}", equal, *points
