"""Rows of different lengths in batches that cost least: padding, packing, and the price of one more batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Ints = NDArray[np.int64]


def _is_zero(value: float) -> bool:
    return value == 0


def _is_one(number: float) -> bool:
    return number == 1


Form = Literal["padded", "packed", "native", "streams", "queued"]
"""Of rows that differ in length: filled up to the longest; one behind the other but for attention, see
`exporters.packed`; nowhere filled up, over a compiled operator, see `exporters.native_form`; the same with parts of the
rows side by side, in streams of the engine; or padded, with a batch in each stream."""

COMPILED: frozenset[Form] = frozenset({"native", "streams"})
"""Forms of the graph with the compiled operator."""

SIDE_BY_SIDE: frozenset[Form] = frozenset({"streams", "queued"})
"""Forms for which an engine is opened with streams."""


class Pace(BaseModel):
    """What an engine takes to compute a graph, in microseconds on the machine of `exporters.pace`.

    A batch of `pieces` in `places`, which is rows times the longest of them, takes `batch + piece * pieces + place *
    places + pair * pairs`. In the padded form all places are pieces; in the packed form places cost attention alone; in
    the native form there are no places, and attention costs each row the square of its pieces, which are its pairs.
    Where rows are computed side by side, in `streams`, a batch takes at least what its longest row does in one of them.
    Of queued batches it is what one takes while all other streams have one too.

    Attributes:
        opening: to open the graph, once.
        batch: for each batch: a graph's many operators each have to be begun.
        piece, place, pair, streams: see above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    opening: float = 0
    batch: float
    piece: float
    place: float = 0
    pair: float = Field(default=0, exclude_if=_is_zero)
    streams: int = Field(default=1, ge=1, exclude_if=_is_one)


ASSUMED = Pace(batch=100, piece=1)
"""Of an engine that was not measured: a batch costs as much as this many pieces."""


class Batch(NamedTuple):
    """Neighbouring rows that are computed together, in one form."""

    rows: slice
    form: Form


class Plan(NamedTuple):
    """Batches, and what they take in microseconds."""

    batches: list[Batch]
    cost: float


def plan(lengths: Sequence[int], most: int, paces: Mapping[Form, Pace]) -> Plan:
    """Cut rows of ascending length into batches that together take least.

    Between rows of the same length there is no cut, but where a batch would be too large. A batch without padding is
    not computed in the packed form, which has nothing to gain there.

    Batches are queued all or none: then they are done when the last stream is, which begin with the largest.

    Args:
        lengths: of the rows, ascending.
        most: places of a batch if it has more than one row; in the native form pieces.
        paces: what each form takes that there is; one that is neither the packed nor the queued one at least.
    """
    best = _plan(lengths, most, {form: pace for form, pace in paces.items() if form != "queued"})
    if "queued" in paces and len(lengths) > 1:
        best = min(best, _queued(lengths, most, paces["queued"]), key=lambda found: found.cost)
    return best


def _queued(lengths: Sequence[int], most: int, pace: Pace) -> Plan:
    """Padded batches in streams; see `plan`. None is so large that streams would have nothing to do meanwhile."""
    found = []
    for parts in (pace.streams, 2 * pace.streams):
        share = max(-(-sum(lengths) // parts), lengths[-1])
        batches = [Batch(rows, "queued") for rows, _ in _plan(lengths, min(most, share), {"padded": pace}).batches]
        places = [(rows.stop - rows.start) * lengths[rows.stop - 1] for rows, _ in batches]
        order = sorted(range(len(batches)), key=lambda batch: -places[batch])
        streams = [0.0] * pace.streams
        for batch in order:
            streams[streams.index(min(streams))] += pace.batch + (pace.piece + pace.place) * places[batch]
        found.append(Plan([batches[batch] for batch in order], max(streams)))
    return min(found, key=lambda plan: plan.cost)


def _plan(lengths: Sequence[int], most: int, paces: Mapping[Form, Pace]) -> Plan:
    longest, counts = np.unique(np.asarray(lengths, np.int64), return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    pieces = np.concatenate([[0], np.cumsum(counts * longest)])
    pairs = np.concatenate([[0], np.cumsum(counts * longest**2)])
    cost = np.zeros(len(ends), np.float64)
    begins, forms = np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
    for end in range(1, len(ends)):
        places = (ends[end] - ends[:end]) * longest[end - 1]
        real = pieces[end] - pieces[:end], pairs[end] - pairs[:end]
        last = int(longest[end - 1])
        taken = np.stack([_taken(form, pace, places, *real, last, most) for form, pace in paces.items()])
        best = taken.argmin(0)
        total = cost[:end] + taken[best, np.arange(end)]
        begins[end] = total.argmin()
        cost[end], forms[end] = total[begins[end]], best[begins[end]]
    cuts = [len(longest)]
    while cuts[-1]:
        cuts.append(int(begins[cuts[-1]]))
    found: list[Batch] = []
    names = list(paces)
    for begin, end in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        first, last, form = int(ends[begin]), int(ends[end]), names[forms[end]]
        if form in COMPILED:
            parts = _filled(np.asarray(lengths[first:last], np.int64), most, first)
        else:
            parts = _parts(first, last, max(1, most // max(1, int(longest[end - 1]))))
        flat = next((name for name in names if name != "packed"), form)  # for parts of a batch that have no padding
        found += [Batch(part, flat if form == "packed" and _even(lengths, part) else form) for part in parts]
    return Plan(found, float(cost[-1]))


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Rows in parts of about as many pieces, to be computed side by side.

    Args:
        lengths: of the rows. count: of parts; there are fewer where there are fewer rows.

    Returns:
        The places of each part's rows, ascending.
    """
    parts: list[list[int]] = [[] for _ in range(max(1, min(count, len(lengths))))]
    pieces = [0] * len(parts)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        least = pieces.index(min(pieces))
        parts[least].append(row)
        pieces[least] += lengths[row]
    return [sorted(part) for part in parts]


def side_by_side(whole: Ints | int, streams: int, longest: int) -> Ints:
    """What counts of pieces, or of pairs, that are computed in streams: all, but at least what all streams together
    could have done while one of them computes the longest row.

    Args:
        whole: of all rows of a batch. longest: of the longest row.
    """
    return np.maximum(whole, streams * longest)


def _taken(
    form: Form, pace: Pace, places: Ints, pieces: Ints, pairs: Ints, longest: int, most: int
) -> NDArray[np.float64]:
    """What some batches take, of which the longest row is one, infinite where the form is not for them."""
    if form == "padded":
        return pace.batch * np.ceil(places / most) + (pace.piece + pace.place) * places
    if form in COMPILED:
        taken = pace.piece * side_by_side(pieces, pace.streams, longest)
        taken = taken + pace.pair * side_by_side(pairs, pace.streams, longest**2)
        return pace.batch * np.ceil(pieces / most) + taken
    taken = pace.batch * np.ceil(places / most) + pace.piece * pieces + pace.place * places
    return np.where(pieces < places, taken, np.inf)


def _even(lengths: Sequence[int], rows: slice) -> bool:
    """Whether ascending rows are of one length."""
    return lengths[rows.start] == lengths[rows.stop - 1]


def _parts(begin: int, end: int, most: int) -> Iterator[slice]:
    """About equal parts of at most so many rows."""
    count = -(-(end - begin) // most)
    for part in range(count):
        yield slice(begin + part * (end - begin) // count, begin + (part + 1) * (end - begin) // count)


def _filled(lengths: Ints, most: int, first: int) -> Iterator[slice]:
    """Parts of at most so many pieces, or of one row, as few as there can be and about equal.

    Args:
        lengths: of the rows. first: number of the first one.
    """
    ends, begin = np.cumsum(lengths), 0
    while begin < len(lengths):
        before = int(ends[begin - 1]) if begin else 0
        left = int(ends[-1]) - before
        share = left / -(-left // most)
        end = max(begin + 1, int(np.searchsorted(ends, before + share, side="right")))
        yield slice(first + begin, first + end)
        begin = end
