"""Which task gives the next batch, and how far the training is then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """The share that each task gets of what is counted, [tasks], summing to 1."""
    exponent = {
        Sampling.PROPORTIONAL: 1.0,
        Sampling.SQUARE_ROOT: 0.5,
        Sampling.TEMPERATURE: 1 / temperature,
        Sampling.UNIFORM: 0.0,
    }[sampling]
    weights = np.asarray(sizes, np.float64) ** exponent
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def schedule(share: NDArray[np.float64], total: int, seed: int) -> NDArray[np.int32]:
    """The task that each one of what a training counts is due to, [total].

    They follow a golden-ratio sequence through the shares (a low-discrepancy sequence): tasks alternate without a
    period, and after any number each task had its share to within a few. Independent draws would leave small tasks to
    luck.

    Args:
        share: of each task. total: what the training counts. seed: where the sequence begins.
    """
    begin, ends = np.random.default_rng([seed, 1]).random(), np.cumsum(share)
    due = np.empty(total, np.int32)
    for first in range(0, total, _BLOCK):
        points = (begin + np.arange(first, min(total, first + _BLOCK)) * _GOLDEN) % 1.0
        due[first : first + _BLOCK] = np.minimum(np.searchsorted(ends, points, side="right"), len(share) - 1)
    return due


@dataclass(frozen=True)
class Course:
    """The steps of a training, and what is counted on the way: batches of a fixed size, or else examples.

    Attributes:
        tasks: the task of every step, [steps].
        seen: what was counted before every step, and after the last one, [steps + 1].
        total: where the training ends; its last batch may go beyond.
        epoch: what an epoch of all tasks counts.
    """

    tasks: NDArray[np.int64]
    seen: NDArray[np.int64]
    total: int
    epoch: int

    def __len__(self) -> int:
        """Steps."""
        return len(self.tasks)

    def epochs(self, step: int) -> int:
        """Whole epochs before a step."""
        return int(self.seen[step]) // self.epoch


def course(
    due: NDArray[np.int32], counts: Sequence[Callable[[int], NDArray[np.int64]]], epoch: int, max_steps: int | None
) -> Course:
    """Batches in the order of a schedule: a task gives its next one when more is due to it than it has given.

    A batch that counts more than 1 is paid for by what is due to its task afterwards. So a task is never behind what is
    due to it and ahead by less than a batch, however unequal the batches of the tasks are.

    Args:
        due: of `schedule`. counts: of each task, what each of its batches counts (`TrainingRows.counts`).
        epoch: what an epoch of all tasks counts. max_steps: at most so many; the training then ends there.
    """
    places, sizes, tasks = [], [], []
    for task, counts_of in enumerate(counts):
        mine = np.flatnonzero(due == task)
        size = counts_of(len(mine))
        places.append(mine[size.cumsum() - size])
        sizes.append(size)
        tasks.append(np.full(len(size), task))
    order = np.argsort(np.concatenate(places))
    seen = np.concatenate([[0], np.concatenate(sizes)[order].cumsum()])
    steps = int(np.searchsorted(seen, len(due)))
    if max_steps is not None:
        steps = min(steps, max_steps)
    return Course(np.concatenate(tasks)[order[:steps]], seen[: steps + 1], min(len(due), int(seen[steps])), epoch)


_GOLDEN = (5**0.5 - 1) / 2
_BLOCK = 1 << 16
