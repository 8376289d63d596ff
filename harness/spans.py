"""The best answers of span extraction: begin and end in the context, at most so many pieces apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError

Floats = NDArray[np.float32]

Number = TypeVar("Number", np.float32, np.float64)

MAX_ANSWER_PIECES = 30
"""Longest answer, as in the SQuAD script of BERT (run_squad.py, `max_answer_length`)."""

TOGETHER = 1 << 15
"""Pieces of windows that are searched at once: few enough for the processor's caches."""

FAR = 600.0
"""Below the sum of the best begin and the best end of a window exp() of any span's score may be zero."""


@dataclass(frozen=True)
class Spans:
    """The best spans of one window, the best first; of equal ones the shortest, and of those the first.

    Attributes:
        begins, ends: first and last piece, counted in the window's context, [found].
        scores: sums of the logits of begin and end, [found]. Spans with the score -inf are not found.
        total: of all spans in the window the sum of exp(score - scores[0]); 0 where nothing is found.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    scores: Floats
    total: float


def best_spans(windows: Sequence[Floats], count: int = 1) -> list[Spans]:
    """The best spans of each window.

    Args:
        windows: logits of begin and end of each piece of the context, [pieces, 2]; -inf: cannot be.
        count: at most so many of each.

    Raises:
        PolypromptError: a logit is not a number, or plus infinity.
    """
    found: dict[int, Spans] = {}
    for part in _parts([len(window) for window in windows]):
        found.update(zip(part, _search([windows[number] for number in part], count), strict=True))
    return [found[number] for number in range(len(windows))]


def _parts(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Windows of like length, as many at once as fit."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    while order:
        size = max(1, TOGETHER // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _search(windows: Sequence[Floats], count: int) -> Iterator[Spans]:
    """Of windows of which the longest comes first.

    A span is no better than the best one with its begin. So the best `count` spans are found among those that are not
    worse than what `count` begins offer, and few are.
    """
    longest = max(1, len(windows[0]))
    begin = np.full((len(windows), longest), -np.inf, np.float32)
    end = np.full((len(windows), longest + MAX_ANSWER_PIECES - 1), -np.inf, np.float32)
    for row, window in enumerate(windows):
        begin[row, : len(window)], end[row, : len(window)] = window[:, 0], window[:, 1]
    if not bool((begin < np.inf).all() and (end < np.inf).all()):
        raise PolypromptError("a score of an answer is not a number or plus infinity; the model cannot be used")
    offered = begin + _over_ends(end, np.maximum)
    most = offered.max(1)
    totals = _totals(begin, end, most)
    least = most if count == 1 else -np.partition(-offered, min(count, longest) - 1)[:, min(count, longest) - 1]
    rows, first = np.nonzero((offered >= least[:, None]) & (offered > -np.inf))
    scores = begin[rows, first, None] + sliding_window_view(end, MAX_ANSWER_PIECES, 1)[rows, first]
    one, more = np.nonzero((scores >= least[rows, None]) & (scores > -np.inf))
    rows, first, scores = rows[one], first[one], scores[one, more]
    order = np.lexsort((first, more, -scores, rows))
    starts = np.searchsorted(rows, np.arange(len(windows) + 1))
    for row, (start, stop) in enumerate(pairwise(starts.tolist())):
        best = order[start : min(stop, start + count)]
        yield Spans(first[best], (first + more)[best], scores[best], float(totals[row]))


def _over_ends(ends: NDArray[Number], combine: Callable[..., NDArray[Number]]) -> NDArray[Number]:
    """What all ends within reach of each begin come to, [rows, pieces], by ends of 1, 2, 4, ... neighbours."""
    pieces, size, done, result = ends.shape[1] - MAX_ANSWER_PIECES + 1, 1, 0, None
    while done < MAX_ANSWER_PIECES:
        if MAX_ANSWER_PIECES & size:
            part = ends[:, done : done + pieces]
            result, done = part if result is None else combine(result, part), done + size
        ends, size = combine(ends[:, :-size], ends[:, size:]), 2 * size
    assert result is not None
    return result


def _totals(begin: Floats, end: Floats, most: Floats) -> NDArray[np.float64]:
    """Of all spans of each window the sum of exp(score - most)."""
    shift = [np.where(np.isinf(part.max(1)), 0, part.max(1)).astype(np.float64) for part in (begin, end)]
    weights = [np.exp(part - each[:, None]) for part, each in zip((begin, end), shift, strict=True)]
    found = most > -np.inf
    gap = np.where(found, shift[0] + shift[1] - np.where(found, most, 0), 0)
    totals = (weights[0] * _over_ends(weights[1], np.add)).sum(1) * np.exp(np.minimum(gap, FAR))
    for row in np.flatnonzero(gap > FAR):
        scores = begin[row] + sliding_window_view(end[row], begin.shape[1])
        totals[row] = np.exp(scores - np.float64(most[row])).sum()
    return totals
