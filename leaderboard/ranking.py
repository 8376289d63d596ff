"""Which systems differ: two of them with interval and win probability, many as intervals of ranks and groups of ties.

All of it comes from paired replicates, see `bootstrap`. A difference is divided by the standard deviation of the
differences of the replicates, and the quotient held against the normal distribution: shares of a thousand replicates
alone could not tell the small probabilities that are left after correcting for many comparisons. Those are corrected
with Holm's method (Holm 1979), which holds whatever depends on what.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from leaderboard.bootstrap import NORMAL, Array

LEVEL = 0.05
"""Probability that any of a family of comparisons is called a difference and is none."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same examples.

    Attributes:
        difference: first minus second, in points.
        low, high: its 95 % interval, uncorrected.
        win: probability that the first one is better: the share of replicates, ties counting half.
        p: two-sided probability of such a difference where there is none, uncorrected.
    """

    difference: float
    low: float
    high: float
    win: float
    p: float


def compare(first: float, second: float, ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Comparison:
    """Compare two systems.

    Args:
        first, second: their scores. ours, theirs: their replicates `[resamples]`, paired.
    """
    difference = first - second
    apart = ours.astype(np.float64) - theirs
    error = float(np.std(apart, ddof=1))
    win = float(np.mean(apart > 0) + np.mean(apart == 0) / 2)
    p = float(2 * special.ndtr(-abs(difference) / error)) if error else float(difference == 0)
    return Comparison(difference, difference - NORMAL * error, difference + NORMAL * error, win, p)


def holm(p: Array) -> Array:
    """Probabilities `[comparisons]`, corrected for their number by Holm's method."""
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def ranks(scores: Array, found: NDArray[np.floating]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Ranks that the data allow, and groups of systems that they cannot tell apart.

    The best rank of a system is 1 plus the number of systems that are better for certain, the worst one the number of
    all less those that are worse for certain: with 95 % probability its true rank lies between (Mogstad, Romano, Shaikh
    and Wilhelm 2024, with Holm's correction over the comparisons of each system). A group is led by its best
    system and has those behind it that cannot be told from the leader; the first that can be leads the next one.

    Args:
        scores: `[systems]`. found: their replicates, `[systems, resamples]`.

    Returns:
        Best rank, worst rank and group, each `[systems]`, counted from 1.
    """
    systems = len(scores)
    if systems < 2:
        ones = np.ones(systems, np.int32)
        return ones, ones, ones
    away = found.astype(np.float32) - found.mean(axis=1, dtype=np.float64)[:, None].astype(np.float32)
    shared = (away @ away.T) / (found.shape[1] - 1)
    own = np.diag(shared)
    variance = np.maximum(own[:, None] + own - 2 * shared, 0)
    # Rounding leaves a trace of variance where two systems answer alike.
    variance[variance <= 1e-6 * (own[:, None] + own)] = 0
    difference = (scores[:, None] - scores).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.nan_to_num(difference / np.sqrt(variance), nan=0.0, posinf=np.inf, neginf=-np.inf)
    certain = np.abs(quotient) >= _critical(np.abs(quotient))[:, None]
    worse = certain & (quotient > 0)  # of the column's system
    better = certain & (quotient < 0)
    low = (1 + better.sum(axis=1)).astype(np.int32)
    high = (systems - worse.sum(axis=1)).astype(np.int32)
    return low, high, _groups(scores, worse)


def _critical(sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each system the least size of a quotient that Holm's method calls certain; inf: none is.

    Args:
        sizes: `[systems, systems]`, 0 on the diagonal.
    """
    family = len(sizes) - 1
    ordered = -np.sort(-sizes, axis=1)[:, :family]
    limits = -special.ndtri(LEVEL / 2 / np.arange(family, 0, -1)).astype(np.float32)
    passed = np.logical_and.accumulate(ordered >= limits, axis=1).sum(axis=1)
    least = np.take_along_axis(ordered, np.maximum(passed - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(passed > 0, least, np.float32(np.inf))


def _groups(scores: Array, worse: NDArray[np.bool_]) -> NDArray[np.int32]:
    groups = np.empty(len(scores), np.int32)
    leader, group = -1, 0
    for system in np.argsort(-scores, kind="stable"):
        if leader < 0 or worse[leader, system]:
            leader, group = system, group + 1
        groups[system] = group
    return groups
