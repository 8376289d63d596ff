"""How sure a score is: a paired bootstrap over the stored predictions, examples within language within task, and seeds.

A metric is written as a function of sums over what is drawn: accuracy needs the share of right rows, seqeval's F1 the
entities that are right, predicted and gold, Matthews' correlation the cells of the confusion matrix, Pearson's r five
power sums. How often each example is drawn is one matrix, `[resamples, units]`, for all systems that were asked the
same examples: their sums are one matrix product, and their replicates are paired, so that what two systems have in
common (hard and easy examples) leaves their difference.

What is drawn: examples, within each language of each task apart. Languages and tasks are the benchmark's own and are
not drawn; means over them are taken in each resample. Where examples belong to a group, as the answers to one question
of MultiRC do, whole groups are drawn: they are right or wrong together, and alone would seem to say more than they do.

Crossed with seeds: see `across_seeds`. A score of one seed says nothing about other seeds.

Sources: Efron and Tibshirani 1993, section 13.3 (percentile interval); Banerjee 1961 (each part of a variance with a
Student's t of its own); Owen 2007 (what rows and columns have in common is counted twice if both are drawn).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq

import numpy as np
from numpy.typing import NDArray
from scipy import special
from seqeval.metrics.sequence_labeling import get_entities

from benchmarks.metrics.srl import argument_sums
from benchmarks.records import Prediction, Value
from benchmarks.task import Kind, TaskCard

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Scorer = Callable[[Sequence[Prediction]], float]
"""Gives one metric of labelled predictions, in points; nan where it counts none of them."""

Unit = Sequence[Prediction]
"""What is drawn as a whole: a row, or the rows of a group."""

RESAMPLES = 1000
SEED = 2021
"""Seed of all draws; task, language, split and examples of a cell are mixed in, so that no cell depends on another."""
BLOCK = 8_000_000
"""Draws that are held at a time."""
SLOW_ROWS = 200_000
"""Rows that the resamples of a metric of which nothing is known may hold, all together."""
NORMAL = float(special.ndtri(0.975))


@dataclass(frozen=True, eq=False)
class Sums:
    """What a metric depends on, for each unit.

    Attributes:
        formula: a name in `FORMULAS`, "spearman"; "scorer": nothing is known; "drawn": see `by_scorer`.
        values: `[units, columns]`; "spearman": prediction and gold; "scorer": no columns; "drawn": `[resamples, 1]`.
    """

    formula: str
    values: NDArray[np.generic]


def units_of(predictions: Sequence[Prediction]) -> list[Unit]:
    """What is drawn as a whole, in the order of the ids, so that the order in a file does not matter."""
    units: dict[tuple[str, str], list[Prediction]] = {}
    for number, row in enumerate(predictions):
        units.setdefault(("group", row.group) if row.group else ("row", str(number)), []).append(row)
    return sorted(units.values(), key=lambda unit: (unit[0].group, unit[0].id))


def identity(units: Sequence[Unit]) -> int:
    """A number that is equal where the examples are."""
    text = "\1".join("\0".join((unit[0].group, *(row.id for row in unit))) for unit in units)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)


def sums_of(units: Sequence[Unit], card: TaskCard, metric: str, scorer: Scorer) -> Sums:
    """Prepare one task, language and split for the bootstrap of one metric.

    Args:
        units: of labelled rows, at least one.
        card: the task.
        metric: its name.
        scorer: the metric itself. What is known of the metric here is checked against it on all rows; where they do
            not agree, or nothing is known, the sums have no columns, and each resample is for the scorer.
    """
    known = _known(units, card, metric, scorer)
    if known is not None:
        found = scored(known, np.ones((1, len(units)), np.float32))[0]
        if np.isclose(found, scorer([row for unit in units for row in unit]), rtol=0, atol=1e-4):
            return known
    return Sums("scorer", np.zeros((len(units), 0)))


def draws(stream: str, examples: int, units: int, resamples: int) -> Iterator[Single]:
    """How often each unit is drawn, in blocks `[some, units]` of all resamples.

    Args:
        stream: names the draw, e.g. "xnli.de.test".
        examples: `identity` of what is drawn from.
        units, resamples: how many.
    """
    name = int.from_bytes(hashlib.sha256(stream.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    rng = np.random.default_rng([SEED, name, examples % 2**64])
    some = max(1, BLOCK // units)
    for begin in range(0, resamples, some):
        count = min(some, resamples - begin)
        drawn = rng.integers(0, units, (count, units), np.int32).astype(np.int64)
        drawn += np.arange(count)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float32)


def replicates(cells: Sequence[Sums], stream: str, examples: int, resamples: int = RESAMPLES) -> Single:
    """Scores of the resamples of one metric on one task, language and split.

    Args:
        cells: of several runs that were asked the same examples.
        stream, examples, resamples: as for `draws`.

    Returns:
        `[cells, resamples]`, points; nan where a metric is not defined in a resample, and for those of which nothing is
        known.
    """
    found = np.full((len(cells), resamples), np.nan, np.float32)
    groups: dict[tuple[str, int], list[int]] = {}
    for number, cell in enumerate(cells):
        groups.setdefault((cell.formula, cell.values.shape[1]), []).append(number)
    for (formula, _), numbers in groups.items():
        values = np.stack([cells[number].values for number in numbers])
        found[numbers] = replicated(formula, values, stream, examples, resamples)
    return found


def replicated(
    formula: str, values: NDArray[np.generic], stream: str, examples: int, resamples: int = RESAMPLES
) -> Single:
    """As `replicates`, of cells of one formula.

    Args:
        formula: as in `Sums`. values: `[cells, units, columns]`.
        stream, examples, resamples: as for `draws`.
    """
    cells, units, width = values.shape
    if formula == "drawn":
        return np.resize(values[:, :, 0].astype(np.float32).T, (resamples, cells)).T
    found = np.full((cells, resamples), np.nan, np.float32)
    if formula == "scorer":
        return found
    exact = np.float64 if formula == "pearson" else np.float32
    columns = values.transpose(0, 2, 1).reshape(cells * width, units).astype(exact)
    begin = 0
    for counts in draws(stream, examples, units, resamples):
        end = begin + len(counts)
        if formula == "spearman":
            for number in range(cells):
                found[number, begin:end] = scored(Sums(formula, values[number]), counts)
        else:
            sums = np.matmul(columns, counts.T).reshape(cells, width, len(counts))
            found[:, begin:end] = FORMULAS[formula](np.moveaxis(sums, 1, -1), units)
        begin = end
    return found


def scored(cell: Sums, counts: NDArray[np.floating]) -> Array:
    """The metric in points, `[resamples]`, where each unit occurs as often as `counts` `[resamples, units]` says."""
    values = cell.values.astype(np.float64)
    if cell.formula == "spearman":
        weights = counts.astype(np.float64)
        return _correlation(_ranks(values[:, 0], weights), _ranks(values[:, 1], weights), weights)
    return np.asarray(FORMULAS[cell.formula](counts.astype(np.float64) @ values, counts.sum(axis=1)), np.float64)


def by_scorer(units: Sequence[Unit], scorer: Scorer, stream: str, resamples: int = RESAMPLES) -> Single:
    """As `replicates`, for one run and a metric of which nothing is known: each resample is given to the scorer.

    The replicates are repeated where `SLOW_ROWS` do not allow so many.
    """
    rows = sum(map(len, units))
    some = int(np.clip(SLOW_ROWS // rows, 20, resamples))
    drawn = (
        np.repeat(np.arange(len(units)), row.astype(int))
        for counts in draws(stream, identity(units), len(units), some)
        for row in counts
    )
    found = [scorer(joined([units[int(i)] for i in numbers])) for numbers in drawn]
    return np.resize(np.array(found, np.float32), resamples)


def joined(units: Sequence[Unit]) -> list[Prediction]:
    """The rows of a resample; a group that was drawn twice is two groups."""
    return [replace(row, group=str(number)) for number, unit in enumerate(units) for row in unit]


def normals(stream: str, seeds: int, resamples: int) -> Single:
    """What moves each seed of a row in each resample, `[seeds, resamples]`: the same in all of its columns."""
    name = int.from_bytes(hashlib.sha256(stream.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return np.random.default_rng([SEED, name]).standard_normal((seeds, resamples), np.float32)


def across_seeds(replicated: NDArray[np.floating], scores: Array, normal: NDArray[np.floating]) -> Single:
    """Replicates of the mean over seeds, as a sample of all seeds that there might be.

    The examples move the mean as they move all seeds together. The seeds move it by a normal variable with the variance
    of a mean of so many. Few seeds tell little of that variance: it is widened by the square of q, the 97.5 % point of
    Student's t for so many seeds over that of the normal distribution. What seeds differ by for drawing examples alone
    is a part of it, and was counted with the examples. Taken off as it is, the interval covers at least 95 % whatever
    seeds differ by (Banerjee 1961), and 98.5 % where three do not differ; widened by q**2 as well, 91 % at worst. Times
    q**1.25 it is 93 to 97 % from three seeds on, by simulation (tests/test_board.py), and 93 to 98 % with two.

    Args:
        replicated: `[seeds, resamples]`, of each seed over the examples.
        scores: `[seeds]`.
        normal: `[seeds, resamples]`, see `normals`.

    Returns:
        `[resamples]`; of one seed its own replicates.
    """
    seeds = len(scores)
    middle = np.mean(replicated, axis=0, dtype=np.float64)
    if seeds == 1:
        return np.asarray(middle, np.float32)
    away = scores - scores.mean()
    between = float(np.sum(away**2)) / (seeds * (seeds - 1))
    apart = float(np.mean(np.var(replicated - middle, axis=1, dtype=np.float64))) / (seeds - 1)
    wider = float(special.stdtrit(seeds - 1, 0.975)) / NORMAL
    own = wider**2 * between - wider**1.25 * apart
    if not own > 0:
        return np.asarray(middle, np.float32)
    return np.asarray(middle + np.sqrt(own) * (away @ normal) / np.sqrt(np.sum(away**2)), np.float32)


def intervals(found: NDArray[np.floating]) -> tuple[Array, Array]:
    """The 95 % percentile intervals of replicates `[..., resamples]`; nan where a metric is not defined in some."""
    resamples = found.shape[-1]
    place = np.array([0.025, 0.975]) * (resamples - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, resamples - 1)
    ordered = np.sort(found, axis=-1)  # faster in numpy than to partition at four places
    low, high = (
        ordered[..., one] + (ordered[..., other] - ordered[..., one]) * part
        for one, other, part in zip(below, above, place - below, strict=True)
    )
    undefined = np.isnan(found.sum(axis=-1))
    return np.where(undefined, np.nan, low).astype(np.float64), np.where(undefined, np.nan, high).astype(np.float64)


def exact_end(units: int) -> float:
    """How far from 0 or 100 the 95 % interval reaches where all units are wrong, or all right: the binomial's, points.

    No resample of such units differs from another, which says nothing of the units that were not asked.
    """
    return float(100 * (1 - 0.025 ** (1 / units)))


def _known(units: Sequence[Unit], card: TaskCard, metric: str, scorer: Scorer) -> Sums | None:
    """The sums of a metric that is a function of sums over units, or of ranks; None for any other."""
    labels = card.labels
    match card.kind, metric:
        case ((Kind.CLASSIFICATION | Kind.CHOICE | Kind.RETRIEVAL), "accuracy"):
            return _ratio_of(_summed(units, lambda row: (row.value == row.gold, 1)))
        case Kind.CLASSIFICATION, "f1" | "f1a":
            return _ratio_of(_summed(units, lambda row: _f1_parts(row, labels[-1])))
        case Kind.CLASSIFICATION, "f1_macro":
            return Sums("ratios", _summed(units, lambda row: [part for x in labels for part in _f1_parts(row, x)]))
        case Kind.CLASSIFICATION, "matthews":
            return Sums("matthews", _summed(units, lambda row: _confusion(row, labels)))
        case Kind.CLASSIFICATION, "em":
            return Sums("mean", _whole(all(row.value == row.gold for row in unit) for unit in units))
        case Kind.CLASSIFICATION, "parity":
            return Sums("mean", _whole(len({row.value for row in unit}) == 1 for unit in units))
        case Kind.RETRIEVAL, "f1":
            return _ratio_of(
                _summed(units, lambda row: (2 * (row.value == row.gold != ""), (row.value != "") + (row.gold != "")))
            )
        case (Kind.SPAN, _) | (Kind.CHOICE, "f1" | "em"):
            return _ratio_of(_summed(units, lambda row: _own_score(row, scorer)))
        case Kind.TAGGING, "accuracy":
            return _ratio_of(_summed(units, _right_tags))
        case Kind.TAGGING, "f1" | "f1_seqeval" | "f1_paper":
            return _ratio_of(_summed(units, _entities))
        case Kind.TAGGING, "f1_official":
            return _ratio_of(_summed(units, _arguments))
        case Kind.REGRESSION, "pearson" | "spearman" if max(map(len, units)) == 1:
            pairs = np.array([[row.value, row.gold] for (row,) in units], np.float64)
            return Sums("spearman", pairs) if metric == "spearman" else Sums("pearson", _powers(pairs))
    return None


def _summed(units: Sequence[Unit], parts: Callable[[Prediction], Sequence[float]]) -> Array:
    """What the rows of each unit add up to, `[units, columns]`."""
    return np.array(
        [np.sum([parts(row) for row in unit], axis=0) if len(unit) > 1 else parts(unit[0]) for unit in units], float
    )


def _whole(right: Iterable[bool]) -> Array:
    return np.array(list(right), np.float64)[:, None]


def _ratio_of(values: Array) -> Sums:
    """Part and whole of each unit; the mean of the parts where every whole is 1."""
    return Sums("mean", values[:, :1]) if np.all(values[:, 1] == 1) else Sums("ratio", values)


def _powers(pairs: Array) -> Array:
    """Five power sums of standardised pairs, which keeps them small: a correlation does not depend on it."""
    spread = pairs.std(axis=0)
    x, y = ((pairs - pairs.mean(axis=0)) / np.where(spread == 0, 1, spread)).T
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


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


# Formulas: sums `[..., columns]` and how many units were drawn -> points `[...]`.


def _mean(sums: NDArray[np.floating], drawn: object) -> NDArray[np.floating]:
    return np.asarray(100 * sums[..., 0] / drawn)  # type: ignore[operator]


def _ratio(sums: NDArray[np.floating], drawn: object) -> NDArray[np.floating]:
    part, whole = sums[..., 0], sums[..., 1]
    return np.asarray(100 * part / np.where(whole == 0, 1, whole))


def _mean_of_ratios(sums: NDArray[np.floating], drawn: object) -> NDArray[np.floating]:
    """Over the labels that occur in a resample, the mean of their F1."""
    part, whole = sums[..., ::2], sums[..., 1::2]
    return np.asarray(100 * np.sum(part / np.where(whole == 0, 1, whole), axis=-1) / np.sum(whole > 0, axis=-1))


def _matthews(sums: NDArray[np.floating], drawn: object) -> NDArray[np.floating]:
    """The correlation of Gorodkin 2004 for any number of labels; 0 when one side is constant."""
    sums = sums.astype(np.float64)
    right, n = sums[..., 0], sums[..., 1]
    gold, given = np.split(sums[..., 2:], 2, axis=-1)
    covariance, in_gold, in_given = (
        n * of_all - np.sum(one * other, axis=-1)
        for of_all, one, other in ((right, gold, given), (n, gold, gold), (n, given, given))
    )
    spread = np.sqrt(in_gold * in_given)
    return np.asarray(100 * covariance / np.where(spread == 0, 1, spread))


def _pearson(sums: NDArray[np.floating], drawn: object) -> NDArray[np.floating]:
    x, y, xx, yy, xy = np.moveaxis(sums / (drawn if np.isscalar(drawn) else np.asarray(drawn)[..., None]), -1, 0)  # type: ignore[operator]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y)))


FORMULAS: Mapping[str, Callable[[NDArray[np.floating], object], NDArray[np.floating]]] = {
    "mean": _mean,
    "ratio": _ratio,
    "ratios": _mean_of_ratios,
    "matthews": _matthews,
    "pearson": _pearson,
}


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
    """Pearson's r in points; x and y are `[resamples, rows]`."""
    n = counts.sum(axis=1)
    sx, sy, sxx, syy, sxy = (np.sum(counts * part, axis=1) / n for part in (x, y, x * x, y * y, x * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * (sxy - sx * sy) / np.sqrt((sxx - sx * sx) * (syy - sy * sy)))
