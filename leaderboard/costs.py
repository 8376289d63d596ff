"""The columns of cost beside the scores: what is shown, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leaderboard.board import Cost, Row
from leaderboard.names import duration, share, size, thousands


@dataclass(frozen=True)
class Amount:
    """What one column says of one row: the number that it sorts by, its text, and small print."""

    value: float
    text: str
    small: str = ""


@dataclass(frozen=True)
class CostColumn:
    """A column of cost.

    Attributes:
        key: in addresses. title, note, full: heading, small print, in words.
        of: a row's amount; None where it is not known.
        axis: the same as the title of an axis.
        usual: whether a table shows it unless the reader says otherwise.
    """

    key: str
    title: str
    note: str
    full: str
    of: Callable[[Cost], Amount | None]
    axis: str
    usual: bool = False


def _share(cost: Cost) -> Amount | None:
    small = "" if cost.trainable is None else thousands(cost.trainable)
    return None if cost.share is None else Amount(cost.share, share(cost.share), small)


def _stored(cost: Cost) -> Amount | None:
    return None if cost.stored_bytes is None else Amount(cost.stored_bytes, size(cost.stored_bytes))


def _seconds(cost: Cost) -> Amount | None:
    return None if cost.train_seconds is None else Amount(cost.train_seconds, duration(cost.train_seconds))


def _memory(cost: Cost) -> Amount | None:
    return None if cost.train_memory is None else Amount(cost.train_memory, thousands(cost.train_memory))


def _latency(batch: int) -> Callable[[Cost], Amount | None]:
    def of(cost: Cost) -> Amount | None:
        ratio = cost.latency.get(batch)
        return None if ratio is None else Amount(ratio, f"{ratio:.2f}×")

    return of


COSTS = (
    CostColumn(
        "trained",
        "Trained",
        "% of all",
        "parameters trained, of all parameters",
        _share,
        "parameters trained, % of all",
        usual=True,
    ),
    CostColumn(
        "stored",
        "Stored",
        "beside the encoder",
        "bytes that one more run adds beside its encoder",
        _stored,
        "bytes stored beside the encoder",
    ),
    CostColumn(
        "training",
        "Training",
        "seconds",
        "training time in seconds, mean over seeds",
        _seconds,
        "training time in seconds",
        usual=True,
    ),
    CostColumn(
        "memory",
        "Memory",
        "MiB in training",
        "the most memory that training held, in MiB",
        _memory,
        "memory of training in MiB",
    ),
    CostColumn(
        "latency-1",
        "Latency",
        "batch 1",
        "time of a batch of one row, as a ratio to the fastest system of the same backbone",
        _latency(1),
        "time of a batch of 1, in times of the fastest of its backbone",
    ),
    CostColumn(
        "latency-32",
        "Latency",
        "batch 32",
        "time of a batch of 32 rows, as a ratio to the fastest system of the same backbone",
        _latency(32),
        "time of a batch of 32, in times of the fastest of its backbone",
    ),
)
"""All of them, in their order."""


def known(rows: tuple[Row, ...]) -> tuple[CostColumn, ...]:
    """The columns that say something about at least one of the rows."""
    return tuple(column for column in COSTS if any(column.of(row.cost) for row in rows))
