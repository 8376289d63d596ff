"""Metrics of numbers: regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation, -1..1; 0 when one side is constant, where it is not defined."""
    return 0.0 if _constant(gold, predicted) else float(stats.pearsonr(gold, predicted).statistic)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Spearman's rank correlation, -1..1; 0 when one side is constant, where it is not defined."""
    return 0.0 if _constant(gold, predicted) else float(stats.spearmanr(gold, predicted).statistic)


def _constant(*columns: Sequence[float]) -> bool:
    return any(np.ptp(column) == 0 for column in columns)
