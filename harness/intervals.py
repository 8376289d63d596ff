"""How sure the mean of several seeds is, on rows that somebody else might have drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from benchmarks.records import Prediction
from benchmarks.scoring import score
from benchmarks.task import TaskCard

_ROWS = 400_000
"""Rows that all resamples together score, so that it takes seconds."""

_FEW = 20_000
"""The same where many are asked for and one digit is enough."""


def interval(card: TaskCard, seeds: Sequence[Sequence[Prediction]], language: str, rng: int = 2021) -> float:
    """Half of the 95 % interval of the mean over seeds of a main metric, in points.

    Two things were drawn: the rows, whose part comes from a bootstrap in which all seeds get the same rows (those of a
    group together), and the seeds, whose part is that of their mean with Student's t. Each part has a quantile of its
    own (Cochran 1964), and the squares add up. Of one seed the second part is not known and left out.

    Args:
        card: the task. seeds: labelled predictions of each seed, of the same rows in one order. language: of the rows.
        rng: seed of the bootstrap.
    """
    of_rows = stats.norm.ppf(0.975) * _of_rows(card, seeds, language, rng, _ROWS)
    if len(seeds) == 1:
        return float(of_rows)
    spread = np.std([_main(card, rows, language) for rows in seeds], ddof=1) / np.sqrt(len(seeds))
    return float(np.hypot(of_rows, stats.t.ppf(0.975, len(seeds) - 1) * spread))


def standard_error(card: TaskCard, rows: Sequence[Prediction], language: str, rng: int = 2021) -> float:
    """The standard error of the main metric of one model on rows that were drawn, in points.

    Args:
        card: the task. rows: labelled predictions. language: of the rows. rng: seed of the bootstrap.
    """
    return _of_rows(card, [rows], language, rng, _FEW)


def _of_rows(card: TaskCard, seeds: Sequence[Sequence[Prediction]], language: str, rng: int, most: int) -> float:
    """The standard deviation of the mean over seeds when rows, those of a group together, are drawn anew."""
    units: dict[str, list[int]] = {}
    for number, row in enumerate(seeds[0]):
        units.setdefault(row.group or f"row {number}", []).append(number)
    groups, random = list(units.values()), np.random.default_rng(rng)
    resamples = int(np.clip(most // max(1, len(seeds) * len(seeds[0])), 50, 500))
    means = []
    for _ in range(resamples):
        drawn = [row for unit in random.integers(len(groups), size=len(groups)) for row in groups[unit]]
        means.append(np.mean([_main(card, [rows[row] for row in drawn], language) for rows in seeds]))
    return float(np.nanstd(means, ddof=1))


def _main(card: TaskCard, rows: Sequence[Prediction], language: str) -> float:
    return next(iter(score(card, list(rows), language).values()))
