"""Answers without their words: predictions of questions that can be scored again and hold no text of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.errors import PolypromptError
from benchmarks.metrics.answers import normalise
from benchmarks.metrics.mlqa import words_of
from benchmarks.records import Prediction, Value
from benchmarks.scoring import score
from benchmarks.task import Kind, TaskCard

FIRST = (0xE000, 0xF0000)
"""Where the characters of private use begin, which stand for words: those of the basic plane, and those of plane 15."""

LAST = 0xF8FF
"""Of the basic plane."""

BY_CHARACTERS = frozenset({"chrf", "f1_characters"})
"""Metrics that read the characters of answers."""


def is_veiled(card: TaskCard) -> bool:
    """Whether the answers of a task are texts, for which signs have to stand."""
    return card.kind is Kind.SPAN or (card.kind is Kind.CHOICE and "em" in card.metrics)


def holds_signs(rows: Sequence[Prediction]) -> bool:
    """Whether signs stand for the words of some answers."""
    first = chr(FIRST[0])  # the first word of a file that has any
    texts = (
        text for row in rows for value in (row.value, row.gold) if isinstance(value, str | tuple) for text in value
    )
    return any(first in text for text in texts)


def veiled_card(card: TaskCard) -> TaskCard:
    """The task with those metrics that can be computed of signs: not those that read characters.

    Raises:
        PolypromptError: the task's main metric is not among them.
    """
    by_rules = [name for name in card.metrics if name.endswith("_mlqa")]
    kept = tuple(by_rules or (name for name in card.metrics if name not in BY_CHARACTERS))
    if not kept or kept[0] != card.metrics[0]:
        raise PolypromptError(f"{card.name}: {card.metrics[0]} cannot be computed again without the texts of answers")
    return card.model_copy(update={"metrics": kept})


def veiled(card: TaskCard, rows: Sequence[Prediction], language: str) -> list[Prediction]:
    """Predictions in which each different word of an answer is a character of Unicode's private use.

    The metrics of answers ask which words are equal, how often each occurs and in which order they stand, and not what
    they are. Words are what the task's metrics take for such, in lower case and without punctuation and articles. They
    are numbered by their first appearance in the file.

    Args:
        card: of `veiled_card`. rows: of one language and split. language: BCP-47 code.

    Raises:
        PolypromptError: a metric is another one afterwards.
    """
    words = words_of(language) if card.metrics[0].endswith("_mlqa") else _words
    signs: dict[str, str] = {}

    def sign(text: str) -> str:
        return " ".join(signs.setdefault(word, _sign(len(signs))) for word in words(text))

    found = [
        replace(
            row,
            value=_each(row.value, sign),
            gold=None if row.gold is None else _each(row.gold, sign),
            best=row.best and sign(row.best),
        )
        for row in rows
    ]
    before, after = (score(card, part, language) for part in (rows, found))
    changed = [name for name in before if abs(before[name] - after[name]) > 1e-9]
    if changed:
        raise PolypromptError(f"{card.name} in {language}: {', '.join(changed)} would change without texts of answers")
    return found


def _words(text: str) -> list[str]:
    return normalise(text).split()


def _sign(number: int) -> str:
    basic = LAST - FIRST[0] + 1
    return chr(FIRST[0] + number if number < basic else FIRST[1] + number - basic)


def _each(value: Value, sign: Callable[[str], str]) -> Value:
    if isinstance(value, str):
        return sign(value)
    return tuple(map(sign, value)) if isinstance(value, tuple) else value
