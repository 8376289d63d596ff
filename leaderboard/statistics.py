"""How sure a score is: 95 % intervals from a bootstrap over the stored predictions.

A metric is written as a function of sums over rows: accuracy needs (right, 1) of each row, seqeval's F1 the entities
that are right, predicted and gold, Pearson's r five power sums. Drawing n rows with replacement then comes down to how
often each *distinct* row was drawn, and those counts are multinomial. The distribution is that of drawing row by row,
and a thousand resamples of thousands of rows cost milliseconds.

What is drawn: examples, within each language apart; a mean over languages is taken in each resample. Runs that differ
in nothing but the seed share the draw, and their mean is taken. The interval is the percentile interval (Efron and
Tibshirani 1993, section 13.3). It tells how far a score depends on which examples were asked, not on the seed of the
training; where every row counts the same (all right, all wrong) it has no width.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from benchmarks.records import Prediction
from benchmarks.task import Kind

Array = NDArray[np.float64]
Scorer = Callable[[Sequence[Prediction]], float]
"""Gives one metric of labelled predictions, in points."""

RESAMPLES = 1000
SEED = 2021
"""Seed of all draws; a cell's task, language and split are mixed in, so that no cell depends on another."""
FAST_ROWS, SLOW_ROWS = 20_000_000, 200_000
"""Rows that the resamples of one cell may hold, all together, by sums and by a scorer: larger cells get fewer."""


@dataclass(frozen=True)
class Rows:
    """What the bootstrap needs of each predicted row.

    Attributes:
        values: `[rows, columns]`, the numbers of a row that the metric depends on.
        score: from values and how often each row was drawn, `[resamples, rows]`, to points, `[resamples]`.
        budget: rows that all resamples together may hold.
        ids: digest of the rows' ids in their order: equal digests mean the same examples.
    """

    values: Array
    score: Callable[[Array, Array], Array]
    budget: int
    ids: str


@dataclass(frozen=True)
class Interval:
    """The 95 % percentile interval of a score, in points."""

    low: float
    high: float


def rows_of(predictions: Sequence[Prediction], kind: Kind, metric: str, scorer: Scorer) -> Rows:
    """Prepare one task, language and split for the bootstrap of one metric.

    Args:
        predictions: labelled rows, at least one.
        kind: of the task.
        metric: its name.
        scorer: the metric itself. What is known of the metric here is checked against it on all rows; where they do
            not agree, or nothing is known, each resample is given to the scorer.
    """
    ids = hashlib.sha256("\0".join(row.id for row in predictions).encode("utf-8", "surrogatepass")).hexdigest()
    known = _by_sums(predictions, kind, metric, scorer)
    if known is not None:
        values, score = known
        if np.isclose(score(values, np.ones((1, len(values))))[0], scorer(predictions), rtol=0, atol=1e-6):
            return Rows(values, score, FAST_ROWS, ids)

    def resampled(values: Array, counts: Array) -> Array:
        drawn = (np.repeat(values[:, 0].astype(int), row.astype(int)) for row in counts)
        return np.array([scorer([predictions[i] for i in rows]) for rows in drawn])

    return Rows(np.arange(len(predictions), dtype=np.float64)[:, None], resampled, SLOW_ROWS, ids)


def replicates(seeds: Sequence[Rows], stream: str) -> Array:
    """Scores of the resamples of one task, language and split.

    Args:
        seeds: the rows of runs that differ in nothing but the seed; one for a single run.
        stream: names the draw, e.g. "xnli.de.test".

    Returns:
        `[resamples]`, the mean over the seeds in each resample. Runs that were asked the same examples share the draw;
        others are drawn apart.
    """
    rng = np.random.default_rng([SEED, int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big")])
    if len({rows.ids for rows in seeds}) > 1:
        return mean([_draw([rows], rng) for rows in seeds])
    return _draw(seeds, rng)


def mean(parts: Sequence[Array]) -> Array:
    """The mean of replicates of independent parts, e.g. languages; `[resamples]` of the shortest part."""
    resamples = min(len(part) for part in parts)
    return np.asarray(np.mean([part[:resamples] for part in parts], axis=0))


def interval(scores: Array) -> Interval | None:
    """The percentile interval of replicates, `[resamples]`; None when the metric is undefined in some of them."""
    if not np.isfinite(scores).all():
        return None
    low, high = np.quantile(scores, [0.025, 0.975])
    return Interval(float(low), float(high))


def _draw(seeds: Sequence[Rows], rng: np.random.Generator) -> Array:
    joint = np.concatenate([rows.values for rows in seeds], axis=1)
    distinct, often = np.unique(joint, axis=0, return_counts=True)
    resamples = int(np.clip(min(rows.budget for rows in seeds) // len(distinct), 20, RESAMPLES))
    counts = rng.multinomial(len(joint), often / len(joint), size=resamples).astype(np.float64)
    starts = np.cumsum([0, *(rows.values.shape[1] for rows in seeds)])
    columns = (distinct[:, start:end] for start, end in pairwise(starts))
    return np.asarray(np.mean([rows.score(part, counts) for rows, part in zip(seeds, columns, strict=True)], axis=0))


def _by_sums(
    predictions: Sequence[Prediction], kind: Kind, metric: str, scorer: Scorer
) -> tuple[Array, Callable[[Array, Array], Array]] | None:
    """Row values and score of a metric that is a function of sums over rows, or of ranks; None for any other."""
    match kind, metric:
        case ((Kind.CLASSIFICATION | Kind.CHOICE | Kind.RETRIEVAL), "accuracy"):
            return np.array([[row.value == row.gold] for row in predictions], np.float64), _mean
        case Kind.SPAN, _:
            return np.array([[scorer([row])] for row in predictions]) / 100, _mean
        case Kind.TAGGING, "accuracy":
            right = [sum(p == g for p, g in zip(row.value, row.gold, strict=True)) for row in predictions]  # type: ignore[arg-type]
            return np.array([right, [len(row.gold) for row in predictions]], np.float64).T, _ratio  # type: ignore[arg-type]
        case Kind.TAGGING, "f1" | "f1_seqeval":
            return np.array([_entities(row) for row in predictions], np.float64), _ratio
        case Kind.REGRESSION, "pearson" | "spearman":
            pairs = np.array([[row.value, row.gold] for row in predictions], np.float64)
            return pairs, _pearson if metric == "pearson" else _spearman
    return None


def _entities(row: Prediction) -> tuple[int, int]:
    """Twice the right entities of a sentence, and predicted plus gold ones: the parts of seqeval's micro F1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval's "seems not to be NE tag"
        predicted, gold = set(get_entities(list(row.value))), set(get_entities(list(row.gold)))  # type: ignore[arg-type]
    return 2 * len(predicted & gold), len(predicted) + len(gold)


def _mean(values: Array, counts: Array) -> Array:
    return np.asarray(100 * (counts @ values[:, 0]) / counts.sum(axis=1))


def _ratio(values: Array, counts: Array) -> Array:
    part, whole = (counts @ values).T
    return np.asarray(100 * part / np.where(whole == 0, 1, whole))


def _pearson(values: Array, counts: Array) -> Array:
    x, y = values.T - values.mean(axis=0)[:, None]  # centred once, which keeps the power sums small
    return _correlation(x, y, counts)


def _spearman(values: Array, counts: Array) -> Array:
    return _correlation(_ranks(values[:, 0], counts), _ranks(values[:, 1], counts), counts)


def _ranks(values: Array, counts: Array) -> Array:
    """Mid-ranks `[resamples, rows]` of values `[rows]` that were drawn counts `[resamples, rows]` times."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], first, axis=1)
    ranks = np.cumsum(drawn, axis=1) - (drawn - 1) / 2
    middle = (counts.sum(axis=1, keepdims=True) + 1) / 2
    return np.asarray((ranks - middle)[:, group])


def _correlation(x: Array, y: Array, counts: Array) -> Array:
    """Pearson's r in points; x and y are `[rows]` or `[resamples, rows]`."""
    n = counts.sum(axis=1)
    sx, sy, sxx, syy, sxy = (np.sum(counts * part, axis=1) / n for part in (x, y, x * x, y * y, x * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * (sxy - sx * sy) / np.sqrt((sxx - sx * sx) * (syy - sy * sy)))
