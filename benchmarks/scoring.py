"""Scores of stored predictions by the official metrics, what ignoring the input would score, and official averages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from benchmarks.errors import PolypromptError
from benchmarks.metrics.answers import answer_f1, character_f1, exact_match
from benchmarks.metrics.chrf import chrf, chrf_signature
from benchmarks.metrics.constant import Chunk, constant_accuracy, constant_f1, entities
from benchmarks.metrics.labels import accuracy, f1_macro, f1_of, matthews, parity, whole_groups
from benchmarks.metrics.mining import pair_f1
from benchmarks.metrics.mlqa import mlqa_exact_match, mlqa_f1
from benchmarks.metrics.numbers import pearson, spearman
from benchmarks.metrics.srl import argument_f1, arguments
from benchmarks.metrics.tags import Tags, chunk_f1, token_accuracy
from benchmarks.records import Prediction
from benchmarks.results import ResultRecord
from benchmarks.task import Kind, Suite, Task, TaskCard
from benchmarks.thresholds import with_threshold


@dataclass(frozen=True)
class Scored:
    """Labelled rows of one task, language and split, as metrics take them.

    Attributes:
        card: the task. language: BCP-47 code. rows: with gold values, at least one.
    """

    card: TaskCard
    language: str
    rows: Sequence[Prediction]

    @cached_property
    def gold(self) -> list[Any]:
        """Gold values, in the forms that `Prediction` has for the kind."""
        return [row.gold for row in self.rows]

    @cached_property
    def predicted(self) -> list[Any]:
        """Predicted values."""
        return [row.value for row in self.rows]

    @cached_property
    def groups(self) -> list[str]:
        """Groups of the rows; a row without one is a group of its own."""
        return [row.group or f"row {row.id}" for row in self.rows]


@dataclass(frozen=True)
class Metric:
    """A metric of one kind of task.

    Attributes:
        compute: labelled rows -> a score of at most 1; None where no row is of those that it counts.
        signature: what decides the number beside the rows, such as the version of a library; None when nothing does.
        constant: tagging: the score of the best single tag for every token.
    """

    compute: Callable[[Scored], float | None]
    signature: Callable[[Scored], str | None] = lambda scored: None
    constant: Callable[[Scored], float] | None = None


Answers = Callable[[list[Any], list[Any], bool], float]


def _plain(metric: Callable[[list[Any], list[Any]], float]) -> Metric:
    return Metric(lambda scored: metric(scored.gold, scored.predicted))


def _answers(metric: Answers) -> Metric:
    return Metric(lambda scored: metric(scored.gold, scored.predicted, scored.card.no_answer))


def _at_zero(metric: Answers) -> Metric:
    """As P-Tuning v2's code scores SQuAD 2.0: "no answer" wherever it scores higher than the best answer."""

    def compute(scored: Scored) -> float | None:
        if any(row.best is None or len(row.scores) < 2 for row in scored.rows):
            return None  # predictions of others, which tell the answer alone
        return metric(scored.gold, [row.value for row in with_threshold(scored.card, scored.rows, 0.0)], True)

    return Metric(compute)


def _of_part(metric: Answers, answerable: bool) -> Metric:
    """Over the questions that have an answer, or over those that have none, as evaluate-v2.0.py does."""

    def compute(scored: Scored) -> float | None:
        rows = [row for row in scored.rows if bool(row.gold) is answerable]
        return metric([row.gold for row in rows], [row.value for row in rows], True) if rows else None

    return Metric(compute)


def _chunks(
    metric: Callable[[Tags, Tags], float],
    chunks: Callable[[Sequence[str]], Collection[Chunk]],
    signature: Callable[[Scored], str | None] = lambda scored: None,
) -> Metric:
    """Micro F1 over chunks, and what the chunks of a sentence are."""
    return Metric(lambda s: metric(s.gold, s.predicted), signature, lambda s: constant_f1(_tags_of(s), s.gold, chunks))


def _seqeval(scored: Scored) -> str:
    return f"seqeval {version('seqeval')}"


def _tags_of(scored: Scored) -> Sequence[str]:
    """The tags that may be given."""
    return scored.card.labels or sorted({tag for tags in scored.gold for tag in tags})


_SEQEVAL_F1 = _chunks(chunk_f1, entities, _seqeval)


_LAST_LABEL_F1 = Metric(lambda s: f1_of(s.card.labels[-1], s.gold, s.predicted))

METRICS: Mapping[Kind, Mapping[str, Metric]] = {
    Kind.CLASSIFICATION: {
        "accuracy": _plain(accuracy),
        "matthews": _plain(matthews),
        # The last label is the positive one ("equivalent", "duplicate", "True").
        "f1": _LAST_LABEL_F1,
        "f1a": _LAST_LABEL_F1,  # over all answers to all questions (MultiRC)
        "f1_macro": Metric(lambda s: f1_macro(s.card.labels, s.gold, s.predicted)),
        "em": Metric(lambda s: whole_groups(s.groups, s.gold, s.predicted)),
        "parity": Metric(lambda s: parity(s.groups, s.predicted)),
    },
    Kind.REGRESSION: {"pearson": _plain(pearson), "spearman": _plain(spearman)},
    Kind.CHOICE: {"accuracy": _plain(accuracy), "f1": _answers(answer_f1), "em": _answers(exact_match)},
    Kind.TAGGING: {
        "f1": _chunks(chunk_f1, entities),
        "f1_seqeval": _SEQEVAL_F1,
        "f1_official": _chunks(argument_f1, arguments),
        "f1_paper": _SEQEVAL_F1,  # P-Tuning v2's code counts the given predicate, too
        "accuracy": Metric(
            lambda s: token_accuracy(s.gold, s.predicted),
            constant=lambda s: constant_accuracy(_tags_of(s), s.gold),
        ),
    },
    Kind.SPAN: {
        "f1": _answers(answer_f1),
        "em": _answers(exact_match),
        "f1_official": _answers(answer_f1),
        "em_official": _answers(exact_match),
        "f1_paper": _at_zero(answer_f1),
        "em_paper": _at_zero(exact_match),
        "f1_answerable": _of_part(answer_f1, True),
        "em_answerable": _of_part(exact_match, True),
        "em_unanswerable": _of_part(exact_match, False),
        "f1_mlqa": Metric(lambda s: mlqa_f1(s.gold, s.predicted, s.language)),
        "em_mlqa": Metric(lambda s: mlqa_exact_match(s.gold, s.predicted, s.language)),
        "f1_characters": _plain(character_f1),
        "chrf": Metric(lambda s: chrf(s.gold, s.predicted, s.language), lambda s: chrf_signature(s.language)),
    },
    Kind.RETRIEVAL: {"accuracy": _plain(accuracy), "f1": _plain(pair_f1)},
}
"""Kind -> name -> metric. Where rules disagree, `_official` and `_paper` stand side by side: see docs/metrics.md."""


def score(card: TaskCard, predictions: Sequence[Prediction], language: str = "en") -> dict[str, float]:
    """The task's metrics over the labelled rows.

    Args:
        card: the task; its metrics are computed in their order, the main one first.
        predictions: of one language and split.
        language: BCP-47 code; some metrics read words by the rules of the language.

    Returns:
        Metric -> points, 0..100; correlations -100..100. A metric that counts none of the rows is left out.

    Raises:
        PolypromptError: no labelled row, a prediction of a wrong form, or a metric that the kind does not have.
    """
    scored = Scored(card, language, _labelled(card, predictions))
    found = {name: _metric(card, name).compute(scored) for name in card.metrics}
    return {name: 100 * value for name, value in found.items() if value is not None}


def signatures(card: TaskCard, predictions: Sequence[Prediction], language: str = "en") -> dict[str, str]:
    """What decides the task's scores beside the predictions: metric -> version or signature, for metrics that have one.

    Args:
        card, predictions, language: as for `score`.
    """
    scored = Scored(card, language, _labelled(card, predictions))
    known = {name: _metric(card, name).signature(scored) for name in card.metrics}
    return {name: signature for name, signature in known.items() if signature is not None}


def chance(card: TaskCard, predictions: Sequence[Prediction], language: str = "en") -> dict[str, float]:
    """The same metrics for the best answer that ignores the input, chosen with the gold values in sight.

    Classification, multiple choice: the most frequent label. Multiple choice among texts: any of them. Regression: a
    constant, so correlations of 0. Tagging: for each metric the best single tag for every token. Span extraction:
    always "no answer". Retrieval: any candidate, or none where a row may have none.

    Args:
        card, predictions, language: as for `score`.

    Returns:
        Metric -> points, as `score`.

    Raises:
        PolypromptError: as `score`.
    """
    scored = Scored(card, language, _labelled(card, predictions))
    guess = _guess(scored)
    if guess is not None:
        return dict.fromkeys(card.metrics, 100 * guess)
    constants = [replace(scored, rows=rows) for rows in _constants(scored)]
    found = {}
    for name in card.metrics:
        metric = _metric(card, name)
        values = [metric.constant(scored)] if metric.constant else [metric.compute(rows) for rows in constants]
        known = [value for value in values if value is not None]
        if known:
            found[name] = 100 * max(known)
    return found


def _guess(scored: Scored) -> float | None:
    """The expected score of guessing, where no constant answer exists; None where one does."""
    if scored.card.kind is Kind.RETRIEVAL and not scored.card.no_answer:
        return sum(1 / _candidates(scored.card, row) for row in scored.rows) / len(scored.rows)
    if scored.card.kind is Kind.CHOICE and any(isinstance(gold, tuple) for gold in scored.gold):
        # Exact match; F1 gives more for a wrong choice that shares a word with a right one.
        return sum(len(set(gold)) / len(row.scores) for gold, row in zip(scored.gold, scored.rows, strict=True)) / len(
            scored.rows
        )
    return None


def _constants(scored: Scored) -> Iterable[Sequence[Prediction]]:
    """The predictions among which the best one that ignores the input is."""
    rows = scored.rows
    match scored.card.kind:
        case Kind.REGRESSION:
            yield [replace(row, value=0.0) for row in rows]
        case Kind.SPAN | Kind.RETRIEVAL:
            yield [replace(row, value="", best="", scores=(1.0, 1.0)) for row in rows]
        case Kind.TAGGING:
            return  # trying every tag takes too long where there are many: see `Metric.constant`
        case Kind.CLASSIFICATION:
            for label in scored.card.labels or tuple(dict.fromkeys(scored.gold)):
                yield [replace(row, value=label) for row in rows]
        case _:
            label = Counter(scored.gold).most_common(1)[0][0]
            yield [replace(row, value=label) for row in rows]


def average(suite: Suite, records: Iterable[ResultRecord]) -> dict[str, float | None]:
    """The official average of a suite's tasks, over the records of one run.

    A task's value is the mean over its metrics, then over its languages; a category's is the mean over its tasks, and
    the suite's the mean over all tasks, not over categories (XTREME's evaluate.py). Matched and mismatched MNLI count
    as one task, and diagnostic sets do not count (GLUE, SuperGLUE).

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
    counted = suite.averaged or tuple((name,) for name in values)
    return result | {"average": _mean(_mean(values.get(name) for name in group) for group in counted)}


def gap(task: Task, records: Iterable[ResultRecord], metric: str = "", trained: Sequence[str] = ()) -> float | None:
    """The cross-lingual transfer gap: the score in the training language minus the mean of the others (XTREME).

    Args:
        task: trained in one of its languages.
        records: of one run, the task in its reported split; those of other tasks and splits are left out.
        metric: one metric alone; empty: the mean over those that count in the official average.
        trained: the languages that it was trained in, whose mean is then taken; empty: its usual one.

    Returns:
        Points, 0 when nothing is lost in transfer; None where a language is missing, or none is trained in.
    """
    found = {r.language: r for r in records if r.task == task.name and r.split == task.eval_split}
    averaged = (metric,) if metric else task.averaged or task.card.metrics
    trained = trained or (task.card.train_language or "",)
    others = [language for language in task.card.languages if language not in trained]
    own = _mean(value for language in trained for value in _values(found.get(language), averaged))
    far = _mean(value for language in others for value in _values(found.get(language), averaged))
    return None if own is None or far is None else own - far


def _task_average(task: Task, by_language: Mapping[tuple[str, str], ResultRecord]) -> float | None:
    averaged = task.averaged or task.card.metrics
    found = [by_language.get((task.name, language)) for language in task.card.languages]
    return _mean(value for record in found for value in _values(record, averaged))


def _values(record: ResultRecord | None, metrics: Iterable[str]) -> list[float | None]:
    return [None if record is None else record.scores.get(name) for name in metrics]


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    if not known or None in known:
        return None
    return math.fsum(value for value in known if value is not None) / len(known)


def _metric(card: TaskCard, name: str) -> Metric:
    known = METRICS[card.kind]
    if name not in known:
        raise PolypromptError(f"{card.name}: no metric {name!r} for {card.kind}; there are {', '.join(known)}")
    return known[name]


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
        case Kind.CHOICE:
            return isinstance(value, str) and isinstance(gold, str | tuple)
        case _:
            return isinstance(value, str) and isinstance(gold, str)
