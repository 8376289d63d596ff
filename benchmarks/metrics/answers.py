"""Exact match and F1 of answers as SQuAD's official scripts compute them, evaluate-v1.1.py and evaluate-v2.0.py."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Gold = Sequence[Sequence[str]]
"""The accepted answers of each question; empty: it has none."""


def normalise(answer: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single blanks; the same for every language."""
    return " ".join(_ARTICLE.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(gold: Gold, predicted: Sequence[str], version2: bool = False) -> float:
    """Share of questions whose answer equals an accepted one after normalisation, 0..1.

    Args:
        gold: accepted answers of each question.
        predicted: the answer to each question, "" for "it has none".
        version2: by the rules of version 2.0, where questions may have no answer.
    """
    accepted, given = _normalised(gold, predicted, version2)
    return mean_of_best(accepted, given, lambda right, answer: float(right == answer))


def answer_f1(gold: Gold, predicted: Sequence[str], version2: bool = False) -> float:
    """Mean over questions of the best F1 between the words of the answer and those of an accepted one, 0..1.

    Args:
        gold: accepted answers of each question.
        predicted: the answer to each question, "" for "it has none".
        version2: by the rules of version 2.0, where questions may have no answer.
    """
    # Version 1.1 gives 0 when nothing is left of both answers ("the" against "a"), version 2.0 gives 1.
    both_empty = float(version2)
    accepted, given = _normalised(gold, predicted, version2)
    return mean_of_best(accepted, given, lambda right, answer: bag_f1(right.split(), answer.split(), both_empty))


def character_f1(gold: Gold, predicted: Sequence[str]) -> float:
    """Mean over questions of the best F1 between the characters of two answers, blanks left out, 0..1 (JaQuAD)."""
    return mean_of_best(
        gold, predicted, lambda right, given: bag_f1("".join(right.split()), "".join(given.split()), 1.0)
    )


def mean_of_best(gold: Gold, predicted: Sequence[str], compare: Callable[[str, str], float]) -> float:
    """Mean over questions of how like the answer is to the accepted one that it is most like.

    Args:
        gold: accepted answers of each question; where there are none, "" is accepted.
        predicted: the answer to each question.
        compare: (accepted, given) -> a number, the higher the more alike.
    """
    pairs = zip(gold, predicted, strict=True)
    return sum(max(compare(right, given) for right in answers or ("",)) for answers, given in pairs) / len(gold)


def bag_f1(right: Sequence[str], given: Sequence[str], both_empty: float = 0.0) -> float:
    """F1 between two bags of words, or of characters: how often each occurs counts, their order does not.

    Args:
        right, given: the words.
        both_empty: the value where neither side has any.
    """
    if not right and not given:
        return both_empty
    return 2 * (Counter(right) & Counter(given)).total() / (len(right) + len(given))


def _normalised(gold: Gold, predicted: Sequence[str], version2: bool) -> tuple[Gold, Sequence[str]]:
    accepted = [[normalise(text) for text in answers] for answers in gold]
    if version2:  # answers of which nothing is left do not count
        accepted = [[text for text in answers if text] for answers in accepted]
    return accepted, [normalise(answer) for answer in predicted]
