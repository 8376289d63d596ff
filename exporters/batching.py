"""Rows of different lengths in batches that cost least: padding against the price of one more batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

OVERHEAD = 100
"""What a batch costs beside its pieces, in pieces: a graph's many operators each have to be begun."""


def split(lengths: Sequence[int], pieces: int, overhead: int = OVERHEAD) -> list[slice]:
    """Cut rows of ascending length into batches whose padded pieces, with the overhead of each batch, are fewest.

    Between rows of the same length there is no cut, but where a batch would be too large.

    Args:
        lengths: of the rows, ascending. pieces: most of a batch, if it has more than one row.
        overhead: pieces that another batch costs.
    """
    longest, counts = np.unique(np.asarray(lengths, np.int64), return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    cost = np.zeros(len(ends), np.float64)
    begins = np.zeros(len(ends), np.int64)
    for end in range(1, len(ends)):
        padded = (ends[end] - ends[:end]) * longest[end - 1]
        total = cost[:end] + padded + overhead * np.ceil(padded / pieces)
        begins[end] = total.argmin()
        cost[end] = total[begins[end]]
    cuts = [len(longest)]
    while cuts[-1]:
        cuts.append(int(begins[cuts[-1]]))
    found: list[slice] = []
    for begin, end in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        found += _parts(int(ends[begin]), int(ends[end]), max(1, pieces // max(1, int(longest[end - 1]))))
    return found


def _parts(begin: int, end: int, most: int) -> Iterator[slice]:
    """About equal parts of at most so many rows."""
    count = -(-(end - begin) // most)
    for part in range(count):
        yield slice(begin + part * (end - begin) // count, begin + (part + 1) * (end - begin) // count)
