"""Which task gives the next batch."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Sampling(StrEnum):
    """How often a task is drawn, by the number n of its training rows.

    `proportional`: n. `square-root`: n ** 0.5. `temperature`: n ** (1 / T). `uniform`: 1.
    """

    PROPORTIONAL = "proportional"
    SQUARE_ROOT = "square-root"
    TEMPERATURE = "temperature"
    UNIFORM = "uniform"


def shares(sizes: Sequence[int], sampling: Sampling, temperature: float) -> NDArray[np.float64]:
    """The share of batches that each task gets, [tasks], summing to 1."""
    exponent = {
        Sampling.PROPORTIONAL: 1.0,
        Sampling.SQUARE_ROOT: 0.5,
        Sampling.TEMPERATURE: 1 / temperature,
        Sampling.UNIFORM: 0.0,
    }[sampling]
    weights = np.asarray(sizes, np.float64) ** exponent
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def schedule(share: NDArray[np.float64], steps: int, seed: int) -> NDArray[np.int64]:
    """The task of every step, [steps].

    Steps follow a golden-ratio sequence through the shares (a low-discrepancy sequence): tasks alternate without a
    period, and after any number of steps each task had its share to within a few batches. Independent draws would
    leave small tasks to luck.

    Args:
        share: of each task. steps: length of the training. seed: where the sequence begins.
    """
    begin = np.random.default_rng([seed, 1]).random()
    points = (begin + np.arange(steps) * _GOLDEN) % 1.0
    return np.minimum(np.searchsorted(np.cumsum(share), points, side="right"), len(share) - 1)


_GOLDEN = (5**0.5 - 1) / 2
