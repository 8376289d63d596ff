"""Rows of different lengths in batches that cost least: padding, packing, and the price of one more batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict


class Pace(BaseModel):
    """What an engine takes to compute a graph, in microseconds on the machine of `exporters.pace`.

    A batch of `pieces` in `places`, which is rows times the longest of them, takes `batch + piece * pieces + place *
    places`. In the padded form all places are pieces; in the packed form places cost attention alone.

    Attributes:
        opening: to open the graph and begin, once.
        batch: for each batch: a graph's many operators each have to be begun.
        piece, place: see above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    opening: float = 0
    batch: float
    piece: float
    place: float = 0


ASSUMED = Pace(batch=100, piece=1)
"""Of an engine that was not measured: a batch costs as much as this many pieces."""


class Batch(NamedTuple):
    """Neighbouring rows that are computed together, padded or packed."""

    rows: slice
    packed: bool


class Plan(NamedTuple):
    """Batches, and what they take in microseconds."""

    batches: list[Batch]
    cost: float


def plan(lengths: Sequence[int], most: int, padded: Pace = ASSUMED, packed: Pace | None = None) -> Plan:
    """Cut rows of ascending length into batches that together take least.

    Between rows of the same length there is no cut, but where a batch would be too large. A batch without padding is
    computed in the padded form.

    Args:
        lengths: of the rows, ascending. most: places of a batch, if it has more than one row.
        padded: what the padded form takes. packed: what the packed form takes; None: there is none.
    """
    longest, counts = np.unique(np.asarray(lengths, np.int64), return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    pieces = np.concatenate([[0], np.cumsum(counts * longest)])
    cost = np.zeros(len(ends), np.float64)
    begins, forms = np.zeros(len(ends), np.int64), np.zeros(len(ends), bool)
    for end in range(1, len(ends)):
        places = (ends[end] - ends[:end]) * longest[end - 1]
        real, batches = pieces[end] - pieces[:end], np.ceil(places / most)
        taken = padded.batch * batches + (padded.piece + padded.place) * places
        pack = np.zeros(end, bool)
        if packed is not None:
            other = packed.batch * batches + packed.piece * real + packed.place * places
            pack = (real < places) & (other < taken)
            taken = np.where(pack, other, taken)
        total = cost[:end] + taken
        begins[end] = total.argmin()
        cost[end], forms[end] = total[begins[end]], pack[begins[end]]
    cuts = [len(longest)]
    while cuts[-1]:
        cuts.append(int(begins[cuts[-1]]))
    found: list[Batch] = []
    for begin, end in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        parts = _parts(int(ends[begin]), int(ends[end]), max(1, most // max(1, int(longest[end - 1]))))
        found += [Batch(part, bool(forms[end]) and lengths[part.start] < lengths[part.stop - 1]) for part in parts]
    return Plan(found, float(cost[-1]))


def _parts(begin: int, end: int, most: int) -> Iterator[slice]:
    """About equal parts of at most so many rows."""
    count = -(-(end - begin) // most)
    for part in range(count):
        yield slice(begin + part * (end - begin) // count, begin + (part + 1) * (end - begin) // count)
