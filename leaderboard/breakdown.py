"""Which errors are made on a task: a table of labels, what became of each type of chunk, or outcomes of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.metrics.answers import normalise
from benchmarks.metrics.constant import entities
from benchmarks.metrics.srl import arguments
from benchmarks.records import Prediction
from benchmarks.task import Kind, TaskCard

MOST_LABELS = 64
"""A table of more labels than this is none that anybody reads."""

OUTCOMES = ("right", "partly right", "wrong", "not answered", "answered, has none")
"""Of a question, an alternative or a search; the last but one: though there is an answer."""


@dataclass(frozen=True)
class Errors:
    """Counts of what was right and wrong.

    Attributes:
        kind, labels: as in `leaderboard.board.Breakdown`.
        counts: likewise, as lists.
    """

    kind: str
    labels: tuple[str, ...]
    counts: list[list[int]]


def errors_of(card: TaskCard, rows: Sequence[Prediction]) -> Errors | None:
    """The errors in labelled rows; None where there is nothing to count (regression, or too many labels)."""
    match card.kind:
        case Kind.CLASSIFICATION if len(card.labels) <= MOST_LABELS:
            pairs = Counter((row.gold, row.value) for row in rows)
            table = [[pairs[gold, given] for given in card.labels] for gold in card.labels]
            return Errors("confusion", card.labels, table)
        case Kind.TAGGING:
            return _of_chunks(card, rows)
        case Kind.SPAN | Kind.CHOICE | Kind.RETRIEVAL:
            often = Counter(_outcome(row) for row in rows)
            return Errors("answers", OUTCOMES, [[often[outcome]] for outcome in OUTCOMES])
    return None


def joined(one: Errors, other: Errors) -> Errors:
    """The errors of both."""
    labels = tuple(dict.fromkeys((*one.labels, *other.labels)))
    if one.labels == other.labels:
        pairs = zip(one.counts, other.counts, strict=True)
        return Errors(one.kind, labels, [[a + b for a, b in zip(*rows, strict=True)] for rows in pairs])
    counts: dict[str, list[int]] = {}
    for part in (one, other):
        for label, row in zip(part.labels, part.counts, strict=True):
            counts[label] = [a + b for a, b in zip(counts.get(label, [0] * len(row)), row, strict=True)]
    return Errors(one.kind, labels, [counts[label] for label in labels])


def _of_chunks(card: TaskCard, rows: Sequence[Prediction]) -> Errors:
    """For each type: right, given and gold chunks; of parts of speech, which are no chunks, tokens."""
    by_token = card.metrics[0] == "accuracy" or "f1_seqeval" in card.metrics
    read = arguments if card.metrics[0] == "f1_official" else entities
    right: Counter[str] = Counter()
    given: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    for row in rows:
        if not isinstance(row.value, tuple) or not isinstance(row.gold, tuple):
            continue
        if by_token:
            right.update(a for a, b in zip(row.value, row.gold, strict=False) if a == b)
            given.update(row.value)
            gold.update(row.gold)
        else:
            ours, theirs = read(row.value), read(row.gold)
            right.update(str(chunk[0]) for chunk in ours & theirs)
            given.update(str(chunk[0]) for chunk in ours)
            gold.update(str(chunk[0]) for chunk in theirs)
    labels = tuple(sorted({*given, *gold}))
    return Errors("types", labels, [[right[label], given[label], gold[label]] for label in labels])


def _outcome(row: Prediction) -> str:
    accepted = [row.gold] if isinstance(row.gold, str) else [*row.gold] if isinstance(row.gold, tuple) else []
    accepted = [text for text in accepted if text]
    given = str(row.value)
    if given in accepted or (not given and not accepted):
        return "right"
    if not given:
        return "not answered"
    if not accepted:
        return "answered, has none"
    if not isinstance(row.gold, tuple):
        return "wrong"
    words, wanted = normalise(given), [normalise(text) for text in accepted]
    if words in wanted:
        return "right"
    shared = any(set(words.split()) & set(text.split()) or text in words for text in wanted if text)
    return "partly right" if shared else "wrong"
