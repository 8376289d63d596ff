"""Times of several ways to do the same, taken in turn, and how many times one is faster than another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """A number that was measured several times.

    Attributes:
        value: the median. low, high: the 10th and the 90th percentile.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    @property
    def record(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Of numbers in any order, at least one."""
    low, value, high = np.percentile(values, [10, 50, 90]).tolist()
    return Spread(value, low, high)


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of two ways, round by round: what changes on the machine between rounds changes both."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def interleave(ways: Mapping[str, Callable[[], float]], seconds: float, least: int = 1) -> dict[str, list[float]]:
    """Measure all ways in turn, every other round in the reverse order, until a next round would end too late.

    Args:
        ways: name -> does it once and says what it took. seconds: for all rounds. least: rounds, whatever they take.

    Returns:
        Name -> a value for each round.
    """
    began, rounds, found = time.perf_counter(), 0, {name: [] for name in ways}
    while rounds < least or (time.perf_counter() - began) * (rounds + 1) / rounds < seconds:
        for name in list(ways)[:: -1 if rounds % 2 else 1]:
            found[name].append(ways[name]())
        rounds += 1
    return found
