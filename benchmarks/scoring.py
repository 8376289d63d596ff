"""Scores of stored predictions by the official metrics, what ignoring the input would score, and official averages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.chunks import chunk_f1
from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.results import ResultRecord
from benchmarks.squad_metric import answer_f1, exact_match
from benchmarks.task import Kind, Suite, Task, TaskCard

Metric = Callable[[Sequence[Any], Sequence[Any]], float]
"""From gold and predicted values, in the forms that `Prediction` has for the kind, to a score of at most 1."""


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Share of rows whose predicted value is the gold one; in retrieval, whose nearest candidate is the right one."""
    return sum(right == given for right, given in zip(gold, predicted, strict=True)) / len(gold)


def token_accuracy(gold: Sequence[tuple[str, ...]], predicted: Sequence[tuple[str, ...]]) -> float:
    """Share of tokens, over all sentences, whose predicted tag is the gold one."""
    return accuracy([tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags])


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation, -1..1; 0 when one side is constant, where it is not defined."""
    return 0.0 if _constant(gold, predicted) else float(stats.pearsonr(gold, predicted).statistic)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Spearman's rank correlation, -1..1; 0 when one side is constant, where it is not defined."""
    return 0.0 if _constant(gold, predicted) else float(stats.spearmanr(gold, predicted).statistic)


def _constant(*columns: Sequence[float]) -> bool:
    return any(np.ptp(column) == 0 for column in columns)


_METRICS: Mapping[Kind, Mapping[str, Metric]] = {
    Kind.CLASSIFICATION: {"accuracy": accuracy},
    Kind.REGRESSION: {"pearson": pearson, "spearman": spearman},
    Kind.CHOICE: {"accuracy": accuracy},
    Kind.TAGGING: {"f1": chunk_f1, "f1_seqeval": chunk_f1, "accuracy": token_accuracy},
    Kind.SPAN: {"f1": answer_f1, "em": exact_match},
    Kind.RETRIEVAL: {"accuracy": accuracy},
}

# The official average of a task is the mean of all its metrics (GLUE; XTREME's question answering), but for these.
_AVERAGED = {"udpos": ("f1_seqeval",)}


def score(card: TaskCard, predictions: Sequence[Prediction]) -> dict[str, float]:
    """The task's metrics over the labelled rows.

    Args:
        card: the task; its metrics are computed in their order, the main one first.
        predictions: of one language and split.

    Returns:
        Metric -> points, 0..100; correlations -100..100.

    Raises:
        PolypromptError: no labelled row, a prediction of a wrong form, or a metric that the kind does not have.
    """
    rows = _labelled(card, predictions)
    gold, predicted = [row.gold for row in rows], [row.value for row in rows]
    return {name: 100 * _metric(card, name)(gold, predicted) for name in card.metrics}


def chance(card: TaskCard, predictions: Sequence[Prediction]) -> dict[str, float]:
    """The same metrics for the best answer that ignores the input, chosen with the gold values in sight.

    Classification, multiple choice: the most frequent label. Regression: a constant, so correlations of 0. Tagging: for
    each metric the best single tag for every token. Span extraction: always "no answer". Retrieval: any candidate.

    Args:
        card: the task.
        predictions: of one language and split.

    Returns:
        Metric -> points, as `score`.

    Raises:
        PolypromptError: as `score`.
    """
    rows = _labelled(card, predictions)
    gold = [row.gold for row in rows]
    if card.kind is Kind.RETRIEVAL:
        guess = sum(1 / _candidates(card, row) for row in rows) / len(rows)
        return dict.fromkeys(card.metrics, 100 * guess)
    return {
        name: 100 * max(_metric(card, name)(gold, constant) for constant in _constants(card, gold))
        for name in card.metrics
    }


def average(suite: Suite, records: Iterable[ResultRecord]) -> dict[str, float | None]:
    """The official average of a suite's tasks, over the records of one run.

    A task's value is the mean over its metrics, then over its languages; a category's is the mean over its tasks, and
    the suite's the mean over all tasks, not over categories (XTREME's evaluate.py; GLUE).

    Args:
        suite: which tasks, and which categories.
        records: of one run, each task in its reported split; those of other suites and splits are left out.

    Returns:
        Each category and "average" -> points; None where a task, language or metric is missing: an average over fewer
        would not compare.
    """
    by_language = {
        (record.task, record.language): record
        for record in records
        if any(record.task == task.name and record.split == task.eval_split for task in suite.tasks)
    }
    values = {task.name: _task_average(task, by_language) for task in suite.tasks}
    result = {category: _mean(values.get(name) for name in names) for category, names in suite.categories.items()}
    return result | {"average": _mean(values.values())}


def _task_average(task: Task, by_language: Mapping[tuple[str, str], ResultRecord]) -> float | None:
    averaged = _AVERAGED.get(task.name, task.card.metrics)
    found = [by_language.get((task.name, language)) for language in task.card.languages]
    return _mean(None if record is None else record.scores.get(name) for record in found for name in averaged)


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    if not known or None in known:
        return None
    return math.fsum(value for value in known if value is not None) / len(known)


def _metric(card: TaskCard, name: str) -> Metric:
    known = _METRICS[card.kind]
    if name not in known:
        raise PolypromptError(f"{card.name}: no metric {name!r} for {card.kind}; there are {', '.join(known)}")
    return known[name]


def _constants(card: TaskCard, gold: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """The predictions among which the best one that ignores the input is."""
    match card.kind:
        case Kind.REGRESSION:
            yield [0.0] * len(gold)
        case Kind.SPAN:
            yield [""] * len(gold)
        case Kind.TAGGING:
            for tag in card.labels:
                yield [(tag,) * len(tags) for tags in gold]
        case _:
            yield [Counter(gold).most_common(1)[0][0]] * len(gold)


def _candidates(card: TaskCard, row: Prediction) -> float:
    if len(row.scores) < 2 or row.scores[1] < 1:
        raise PolypromptError(f"{card.name}: prediction {row.id!r} does not say among how many candidates it chose")
    return row.scores[1]


def _labelled(card: TaskCard, predictions: Sequence[Prediction]) -> list[Prediction]:
    """The rows that have a gold value, checked to have the forms of the task's kind."""
    rows = [row for row in predictions if row.gold is not None]
    if not rows:
        raise PolypromptError(f"{card.name}: none of {len(predictions)} rows is labelled; there is nothing to score")
    for row in rows:
        if not _fits(card.kind, row):
            raise PolypromptError(
                f"{card.name}: prediction {row.id!r}: {row.value!r} for {row.gold!r} is not of the form of {card.kind}"
            )
    return rows


def _fits(kind: Kind, row: Prediction) -> bool:
    value, gold = row.value, row.gold
    match kind:
        case Kind.REGRESSION:
            return all(isinstance(number, int | float) and math.isfinite(number) for number in (value, gold))
        case Kind.TAGGING:
            return isinstance(value, tuple) and isinstance(gold, tuple) and len(value) == len(gold)
        case Kind.SPAN:
            return isinstance(value, str) and isinstance(gold, tuple)
        case _:
            return isinstance(value, str) and isinstance(gold, str)
