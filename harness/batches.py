"""Batches of rows of similar length, so that little is spent on padding; each is found again by its number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.features import Feature

WINDOW = 32
"""Batches that are sorted by length together: large enough to pad little, small enough to stay well shuffled."""


class TrainingRows:
    """The training rows of one task, grouped into batches; batch number n is the same whenever it is asked for.

    Rows of a multiple-choice example stay together; windows of a long text are rows of their own. Both are units here.

    A training does not count steps but what its batches count. One of a fixed number of units counts 1, and so does the
    smaller one at the end of an epoch. One that is filled up to a number of pieces counts its units.

    Args:
        features: all rows of the split. together: True when rows of one example must share a batch.
        batch: units a batch; None: as many as `pieces` has room for.
        seed: of the shuffling; epochs are shuffled differently.
        pieces: at most so many a batch with padding (rows times longest), but at least one unit.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        together: bool,
        batch: int | None,
        seed: Sequence[int],
        pieces: int | None = None,
    ) -> None:
        self.fixed = pieces is None
        self.limit = batch if pieces is None else pieces
        assert self.limit is not None
        self.seed = list(seed)
        owners = [feature.example if together else row for row, feature in enumerate(features)]
        starts = [row for row, owner in enumerate(owners) if row == 0 or owners[row - 1] != owner]
        self.units = [list(range(a, b)) for a, b in zip(starts, [*starts[1:], len(features)], strict=True)]
        self.lengths = np.array([max(len(features[row]) for row in unit) for unit in self.units])
        # What has room in a batch is decided by its height times its width: a fixed number of units is one of units
        # that all are one high and one wide.
        self._height = np.array([1 if self.fixed else len(unit) for unit in self.units])
        self._width = np.ones_like(self.lengths) if self.fixed else self.lengths
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        self._counts: list[NDArray[np.int64]] = []
        self._first = [0]

    def __len__(self) -> int:
        """Units (examples or windows)."""
        return len(self.units)

    @property
    def per_epoch(self) -> int:
        """What the batches of an epoch count together."""
        return -(-len(self.units) // self.limit) if self.fixed else len(self.units)

    @property
    def most(self) -> int:
        """No batch has more units."""
        return self.limit // int((self._height * self._width).min(initial=self.limit))

    def counts(self, total: int) -> NDArray[np.int64]:
        """What each batch counts, over epochs, up to the one with which all together count `total` or more."""
        epochs = -(-total // max(1, self.per_epoch))
        counts = np.concatenate([np.zeros(0, np.int64), *(self._counted(epoch) for epoch in range(epochs))])
        return counts[: np.searchsorted(counts.cumsum(), total) + 1]

    def rows(self, number: int) -> list[list[int]]:
        """Indices of the rows of batch `number`, counted over epochs: one list for rows that stay together."""
        while self._first[-1] <= number:
            self._first.append(self._first[-1] + len(self._counted(len(self._first) - 1)))
        epoch = bisect_right(self._first, number) - 1
        return [self.units[unit] for unit in self._batches(epoch)[number - self._first[epoch]]]

    def _counted(self, epoch: int) -> NDArray[np.int64]:
        """What each batch of an epoch counts."""
        if self.fixed:  # without looking at them
            return np.ones(self.per_epoch, np.int64)
        while len(self._counts) <= epoch:
            self._counts.append(np.array([len(units) for units in self._packed(len(self._counts))], np.int64))
        return self._counts[epoch]

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._packed(epoch))
        return self._epoch[1]

    def _packed(self, epoch: int) -> list[NDArray[np.int64]]:
        """The units of each batch of an epoch."""
        random = np.random.default_rng([*self.seed, epoch])
        order = random.permutation(len(self.units))
        batches: list[NDArray[np.int64]] = []
        size = max(1, round(WINDOW * self.limit / (self._height * self._width).mean()))
        for start in range(0, len(order), size):
            window = order[start : start + size]
            window = window[np.argsort(self.lengths[window], kind="stable")]
            batches.extend(self._cut(window))
        return [batches[index] for index in random.permutation(len(batches))]

    def _cut(self, window: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Batches of units that are sorted by length, each as full as it can be."""
        heights, widths = self._height[window].cumsum(), self._width[window]
        first, below = 0, 0
        while first < len(window):
            room = np.searchsorted((heights[first:] - below) * widths[first:], self.limit, side="right")
            end = first + max(1, int(room))
            yield window[first:end]
            first, below = end, heights[end - 1]


def evaluation_batches(features: Sequence[Feature], pieces: int) -> Iterator[list[int]]:
    """Indices of all rows, longest first, in batches of at most `pieces` pieces with padding (at least one row)."""
    batch: list[int] = []
    for row in sorted(range(len(features)), key=lambda row: (-len(features[row]), row)):
        if batch and len(features[batch[0]]) * (len(batch) + 1) > pieces:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
