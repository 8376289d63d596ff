"""How sure a score is: 95 % intervals from a bootstrap over the stored predictions.

A metric is written as a function of sums over rows: accuracy needs (right, 1) of each row, seqeval's F1 the entities
that are right, predicted and gold, Matthews' correlation the cells of the confusion matrix, Pearson's r five power
sums. Drawing n rows with replacement then comes down to how often each *distinct* row was drawn, and those counts are
multinomial. The distribution is that of drawing row by row, and a thousand resamples of thousands of rows cost
milliseconds.

What is drawn: examples, within each language apart; a mean over languages is taken in each resample. Where examples
belong to a group, as the answers to one question of MultiRC do, whole groups are drawn: they are right or wrong
together, and alone would seem to say more than they do. Runs that differ in nothing but the seed share the draw, and
their mean is taken. The interval is the percentile interval (Efron and
Tibshirani 1993, section 13.3). It tells how far a score depends on which examples were asked, not on the seed of the
training; where every row counts the same (all right, all wrong) it has no width.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import eq

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from benchmarks.metrics.srl import argument_sums
from benchmarks.records import Prediction, Value
from benchmarks.task import Kind, TaskCard

Array = NDArray[np.float64]
Scorer = Callable[[Sequence[Prediction]], float]
"""Gives one metric of labelled predictions, in points; nan where it counts none of them."""

Unit = Sequence[Prediction]
"""What is drawn as a whole: a row, or the rows of a group."""

RESAMPLES = 1000
SEED = 2021
"""Seed of all draws; a cell's task, language and split are mixed in, so that no cell depends on another."""
FAST_ROWS, SLOW_ROWS = 20_000_000, 200_000
"""Rows that the resamples of one cell may hold, all together, by sums and by a scorer: larger cells get fewer."""


@dataclass(frozen=True)
class Rows:
    """What the bootstrap needs of each predicted row, or group of rows where the task has groups.

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


def rows_of(predictions: Sequence[Prediction], card: TaskCard, metric: str, scorer: Scorer) -> Rows:
    """Prepare one task, language and split for the bootstrap of one metric.

    Args:
        predictions: labelled rows, at least one.
        card: the task.
        metric: its name.
        scorer: the metric itself. What is known of the metric here is checked against it on all rows; where they do
            not agree, or nothing is known, each resample is given to the scorer.
    """
    ids = hashlib.sha256("\0".join(row.id for row in predictions).encode("utf-8", "surrogatepass")).hexdigest()
    units = _units(predictions)
    known = _by_sums(units, card, metric, scorer)
    if known is not None:
        values, score = known
        if np.isclose(score(values, np.ones((1, len(values))))[0], scorer(predictions), rtol=0, atol=1e-6):
            return Rows(values, score, FAST_ROWS, ids)

    def resampled(values: Array, counts: Array) -> Array:
        drawn = (np.repeat(values[:, 0].astype(int), row.astype(int)) for row in counts)
        return np.array([scorer(_joined([units[i] for i in numbers])) for numbers in drawn])

    numbers = np.arange(len(units), dtype=np.float64)[:, None]
    return Rows(numbers, resampled, SLOW_ROWS * len(units) // len(predictions), ids)


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


def _units(predictions: Sequence[Prediction]) -> list[Unit]:
    units: dict[tuple[str, int], list[Prediction]] = {}
    for number, row in enumerate(predictions):
        units.setdefault((row.group, 0 if row.group else number), []).append(row)
    return list(units.values())


def _joined(units: Sequence[Unit]) -> list[Prediction]:
    """The rows of a resample; a group that was drawn twice is two groups."""
    return [replace(row, group=str(number)) for number, unit in enumerate(units) for row in unit]


def _by_sums(
    units: Sequence[Unit], card: TaskCard, metric: str, scorer: Scorer
) -> tuple[Array, Callable[[Array, Array], Array]] | None:
    """Unit values and score of a metric that is a function of sums over units, or of ranks; None for any other."""

    def summed(parts: Callable[[Prediction], Sequence[float]]) -> Array:
        return np.array([np.sum([parts(row) for row in unit], axis=0) for unit in units], np.float64)

    labels = card.labels
    match card.kind, metric:
        case ((Kind.CLASSIFICATION | Kind.CHOICE | Kind.RETRIEVAL), "accuracy"):
            return summed(lambda row: (row.value == row.gold, 1)), _ratio
        case Kind.CLASSIFICATION, "f1" | "f1a":
            return summed(lambda row: _f1_parts(row, labels[-1])), _ratio
        case Kind.CLASSIFICATION, "f1_macro":
            return summed(lambda row: [part for label in labels for part in _f1_parts(row, label)]), _mean_of_ratios
        case Kind.CLASSIFICATION, "matthews":
            return summed(lambda row: _confusion(row, labels)), _matthews
        case Kind.CLASSIFICATION, "em":
            return np.array([[all(row.value == row.gold for row in unit), 1] for unit in units], np.float64), _ratio
        case Kind.CLASSIFICATION, "parity":
            return np.array([[len({row.value for row in unit}) == 1, 1] for unit in units], np.float64), _ratio
        case Kind.RETRIEVAL, "f1":
            return summed(lambda row: (2 * (row.value == row.gold != ""), (row.value != "") + (row.gold != ""))), _ratio
        case (Kind.SPAN, _) | (Kind.CHOICE, "f1" | "em"):
            return summed(lambda row: _own_score(row, scorer)), _ratio
        case Kind.TAGGING, "accuracy":
            return summed(_right_tags), _ratio
        case Kind.TAGGING, "f1" | "f1_seqeval" | "f1_paper":
            return summed(_entities), _ratio
        case Kind.TAGGING, "f1_official":
            return summed(_arguments), _ratio
        case Kind.REGRESSION, "pearson" | "spearman" if max(map(len, units)) == 1:
            pairs = np.array([[row.value, row.gold] for (row,) in units], np.float64)
            return pairs, _pearson if metric == "pearson" else _spearman
    return None


def _arguments(row: Prediction) -> Sequence[float]:
    """Twice the right arguments of a predicate, and predicted plus gold ones, as srl-eval.pl counts them."""
    parts: Sequence[float] = argument_sums([row.gold], [row.value])[0]  # type: ignore[list-item]
    return parts


def _f1_parts(row: Prediction, label: str) -> tuple[int, int]:
    """Of a label: twice whether it is right, and how often it is given and gold."""
    given, gold = row.value == label, row.gold == label
    return 2 * (given and gold), given + gold


def _confusion(row: Prediction, labels: Sequence[str]) -> list[float]:
    """Whether a row is right, 1, and for each label whether it is gold, and given."""
    return [
        row.value == row.gold,
        1,
        *(row.gold == label for label in labels),
        *(row.value == label for label in labels),
    ]


def _own_score(row: Prediction, scorer: Scorer) -> tuple[float, float]:
    """The score of a row alone, 0..1, and 1; zeros for one that the metric does not count."""
    score = scorer([row]) / 100
    return (0.0, 0.0) if np.isnan(score) else (score, 1.0)


def _right_tags(row: Prediction) -> tuple[int, int]:
    """The right tags of a sentence, and all."""
    value, gold = _tags(row.value), _tags(row.gold)
    return sum(map(eq, value, gold)), len(gold)


def _entities(row: Prediction) -> tuple[int, int]:
    """Twice the right entities of a sentence, and predicted plus gold ones: the parts of seqeval's micro F1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval's "seems not to be NE tag"
        predicted, gold = set(get_entities([*_tags(row.value)])), set(get_entities([*_tags(row.gold)]))
    return 2 * len(predicted & gold), len(predicted) + len(gold)


def _tags(value: Value | None) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


def _ratio(values: Array, counts: Array) -> Array:
    part, whole = (counts @ values).T
    return np.asarray(100 * part / np.where(whole == 0, 1, whole))


def _mean_of_ratios(values: Array, counts: Array) -> Array:
    """Over the labels that occur in a resample, the mean of their F1."""
    sums = counts @ values
    part, whole = sums[:, ::2], sums[:, 1::2]
    return np.asarray(100 * np.sum(part / np.where(whole == 0, 1, whole), axis=1) / np.sum(whole > 0, axis=1))


def _matthews(values: Array, counts: Array) -> Array:
    """The correlation of Gorodkin 2004 for any number of labels; 0 when one side is constant."""
    sums = counts @ values
    right, n = sums[:, 0], sums[:, 1]
    gold, given = np.split(sums[:, 2:], 2, axis=1)
    covariance, in_gold, in_given = (
        n * of_all - np.sum(one * other, axis=1)
        for of_all, one, other in ((right, gold, given), (n, gold, gold), (n, given, given))
    )
    spread = np.sqrt(in_gold * in_given)
    return np.asarray(100 * covariance / np.where(spread == 0, 1, spread))


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
