"""Batches of rows of similar length, so that little is spent on padding; each is found again by its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.features import Feature

WINDOW = 32
"""Batches that are sorted by length together: large enough to pad little, small enough to stay well shuffled."""


class TrainingRows:
    """The training rows of one task, grouped into batches; batch number n is the same whenever it is asked for.

    Rows of a multiple-choice example stay together; windows of a long text are rows of their own.

    Args:
        features: all rows of the split. together: True when rows of one example must share a batch.
        batch: examples (or windows) a batch.
        seed: of the shuffling; epochs are shuffled differently.
    """

    def __init__(self, features: Sequence[Feature], together: bool, batch: int, seed: Sequence[int]) -> None:
        self.batch = batch
        self.seed = list(seed)
        owners = [feature.example if together else row for row, feature in enumerate(features)]
        starts = [row for row, owner in enumerate(owners) if row == 0 or owners[row - 1] != owner]
        self.units = [list(range(a, b)) for a, b in zip(starts, [*starts[1:], len(features)], strict=True)]
        self.lengths = np.array([max(len(features[row]) for row in unit) for unit in self.units])
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        """Units (examples or windows)."""
        return len(self.units)

    @property
    def per_epoch(self) -> int:
        """Batches an epoch."""
        return -(-len(self.units) // self.batch)

    def rows(self, number: int) -> list[list[int]]:
        """Indices of the rows of batch `number`, counted over epochs: one list for rows that stay together."""
        epoch, index = divmod(number, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches(epoch))
        return [self.units[unit] for unit in self._epoch[1][index]]

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([*self.seed, epoch])
        order = random.permutation(len(self.units))
        batches: list[NDArray[np.int64]] = []
        size = self.batch * WINDOW
        for start in range(0, len(order), size):
            window = order[start : start + size]
            window = window[np.argsort(self.lengths[window], kind="stable")]
            batches.extend(window[first : first + self.batch] for first in range(0, len(window), self.batch))
        return [batches[index] for index in random.permutation(len(batches))]


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
