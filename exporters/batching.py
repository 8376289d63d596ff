"""Rows of different lengths in batches that cost least: padding, packing, and the price of one more batch."""

from __future__ import annotations

import itertools
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


Form = Literal["padded", "packed", "native", "packed-streams", "native-streams"]
"""Of rows that differ in length: filled up to the longest; one behind the other but for attention, see
`exporters.packed`; nowhere filled up, over a compiled operator, see `exporters.native_form`; and these two with parts
of the rows side by side, in streams of the engine."""

GRAPHS: Mapping[Form, Form] = {"packed-streams": "packed", "native-streams": "native"}
"""Forms for which an engine is opened with streams, and the form of the graph that it opens."""

COMPILED: frozenset[Form] = frozenset({"native", "native-streams"})
"""Forms of the graph with the compiled operator."""

PARTS = 3
"""Of a batch in the packed form, each of which attention pads to its own longest row. Of rows whose lengths are spread
widely three parts leave a quarter to a third of the work; each part more costs every layer a dozen small operators."""


class Pace(BaseModel):
    """What an engine takes to compute a graph, in microseconds on the machine of `exporters.pace`.

    A batch takes `batch + piece * pieces + pair * pairs`. In the padded form all places are pieces, and pairs are those
    of the places of a row. In the native form pieces and pairs are the real ones; in the packed form pieces are the
    real ones, and pairs those of places in its parts, see `PARTS`. Where rows are computed side by side, in `streams`,
    a batch takes at least what its longest row does in one of them. Bundles of earlier versions have other numbers
    beside these, which are left out.

    Attributes:
        opening: to open the graph, once.
        batch: for each batch: a graph's many operators each have to be begun.
        piece, pair, streams: see above.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    opening: float = 0
    batch: float
    piece: float
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

    Args:
        lengths: of the rows, ascending.
        most: pieces of a batch if it has more than one row; in the padded form places.
        paces: what each form takes that there is; one that is not the packed one at least.
    """
    sizes = Sizes(lengths)
    ends, longest = sizes.ends, sizes.longest
    cost = np.zeros(len(ends), np.float64)
    begins, forms = np.zeros(len(ends), np.int64), np.zeros(len(ends), np.int64)
    for end in range(1, len(ends)):
        taken = np.stack([_taken(form, pace, sizes, end, most) for form, pace in paces.items()])
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
        if form == "padded":
            parts = _parts(first, last, max(1, most // max(1, int(longest[end - 1]))))
        else:
            parts = _filled(np.asarray(lengths[first:last], np.int64), most, first)
        flat = next((name for name in names if name != "packed"), form)  # for parts of a batch that have no padding
        found += [Batch(part, flat if form == "packed" and _even(lengths, part) else form) for part in parts]
    return Plan(found, float(cost[-1]))


class Sizes:
    """What counts of batches of neighbouring rows of ascending length.

    Args:
        lengths: of the rows.

    Attributes:
        longest: the different lengths, ascending. ends: behind how many rows each of them ends, and 0 in front.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.longest, counts = np.unique(np.asarray(lengths, np.int64), return_counts=True)
        self.ends = np.concatenate([[0], np.cumsum(counts)])
        self._pieces = np.concatenate([[0], np.cumsum(counts * self.longest)])
        self._pairs = np.concatenate([[0], np.cumsum(counts * self.longest**2)])

    def places(self, end: int) -> Ints:
        """Rows times the longest of them, of batches that begin at each length and end behind this one, [end]."""
        places: Ints = (self.ends[end] - self.ends[:end]) * self.longest[end - 1]
        return places

    def of(self, form: Form, end: int, streams: int = 1) -> tuple[Ints, Ints]:
        """Pieces and pairs of the same batches in a form, as `Pace` counts them, [end] each."""
        longest = int(self.longest[end - 1])
        if form == "padded":
            places = self.places(end)
            return places, places * longest
        pieces = self._pieces[end] - self._pieces[:end]
        pairs = self._pairs[end] - self._pairs[:end] if form in COMPILED else self._in_parts(end)
        return side_by_side(pieces, streams, longest), side_by_side(pairs, streams, longest**2)

    def _in_parts(self, end: int) -> Ints:
        """Pairs of places in the parts of a packed batch."""
        limits = np.arange(1, PARTS) * self.longest[end - 1] // PARTS
        cuts = [0, *np.searchsorted(self.longest[:end], limits, side="right").tolist(), end]
        pairs = np.zeros(end, np.int64)
        for first, last in itertools.pairwise(cuts):
            rows = self.ends[last] - self.ends[np.maximum(first, np.arange(end))]
            pairs += np.maximum(rows, 0) * self.longest[last - 1] ** 2
        return pairs


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


def _taken(form: Form, pace: Pace, sizes: Sizes, end: int, most: int) -> NDArray[np.float64]:
    """What the batches of `Sizes.of` take, infinite where the form is not for them."""
    pieces, pairs = sizes.of(form, end, pace.streams)
    taken = pace.batch * np.ceil(sizes.of(form, end)[0] / most) + pace.piece * pieces + pace.pair * pairs
    return np.where(pieces < sizes.places(end), taken, np.inf) if form == "packed" else taken


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
