"""The threshold between an answer and "no answer": chosen on rows that are not reported, applied to stored scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.metrics.answers import exact_match
from benchmarks.records import Prediction
from benchmarks.task import Kind, TaskCard


def with_threshold(card: TaskCard, predictions: Sequence[Prediction], threshold: float) -> list[Prediction]:
    """The predictions of a task with `no_answer` at a threshold; others are returned as they are.

    Args:
        card: the task.
        predictions: with `best` and scores. Span extraction: "no answer" where it scores higher than the best answer
            by more than the threshold. Retrieval: none where the cosine of the best is below the threshold.
        threshold: in units of those scores.
    """
    if not card.no_answer:
        return list(predictions)
    most = _sign(card) * threshold
    return [replace(row, value=(row.best or "") if _doubt(card, row) <= most else "") for row in predictions]


def choose_threshold(card: TaskCard, predictions: Sequence[Prediction]) -> float:
    """The threshold at which most is right.

    Span extraction: most rows whose answer is right as a text (exact match; evaluate-v2.0.py chooses so too).
    Retrieval: the highest F1 of the pairs that are given (BUCC's own script). In the middle between two rows' scores,
    so that it does not hang on one row; among equals the first.

    Args:
        card: a task with `no_answer`. predictions: labelled, with `best` and scores.

    Returns:
        In the units of `with_threshold`; 0 when no row is labelled.
    """
    rows = [row for row in predictions if row.gold is not None]
    if not rows:
        return 0.0
    doubts = np.array([_doubt(card, row) for row in rows])
    right = np.array([_is_right(card, row) for row in rows])
    empty = np.array([not row.gold for row in rows])
    order = np.argsort(doubts, kind="stable")
    given = np.arange(len(rows) + 1)
    hits = np.concatenate([[0], np.cumsum(right[order])])
    if card.kind is Kind.SPAN:
        gain = hits + empty.sum() - np.concatenate([[0], np.cumsum(empty[order])])
    else:
        gain = 2 * hits / np.maximum(given + (~empty).sum(), 1)
    # Rows up to a cut are answered; between equal scores there is none.
    cuts = np.concatenate([[-np.inf], doubts[order], [np.inf]])
    best = int(np.argmax(np.where(cuts[:-1] < cuts[1:], gain, -np.inf)))
    low, high = cuts[best], cuts[best + 1]
    if np.isinf(low):  # no row is answered
        low = high - 1.0
    return _sign(card) * float(low if np.isinf(high) else (low + high) / 2)


def cross_fitted(card: TaskCard, predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions where no other rows are there to choose a threshold on: each half by that of the other half."""
    halves = [list(predictions[side::2]) for side in (0, 1)]
    limits = [choose_threshold(card, half) for half in halves]
    decided = [with_threshold(card, half, limits[1 - side]) for side, half in enumerate(halves)]
    return [decided[number % 2][number // 2] for number in range(len(predictions))]


def _sign(card: TaskCard) -> float:
    return 1.0 if card.kind is Kind.SPAN else -1.0


def _doubt(card: TaskCard, row: Prediction) -> float:
    """How much speaks for "no answer"."""
    return row.scores[1] if card.kind is Kind.SPAN else -row.scores[0]


def _is_right(card: TaskCard, row: Prediction) -> bool:
    """Whether the best answer is right."""
    if card.kind is Kind.SPAN:
        return bool(row.gold) and exact_match([row.gold], [row.best or ""], version2=True) == 1  # type: ignore[list-item]
    return bool(row.gold) and row.best == row.gold
