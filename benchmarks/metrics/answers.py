"""Exact match and F1 of answers as SQuAD's official scripts compute them, evaluate-v1.1.py and evaluate-v2.0.py."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

Gold = Sequence[tuple[str, ...]]
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
    return _mean_of_best(gold, predicted, version2, lambda right, given: float(right == given))


def answer_f1(gold: Gold, predicted: Sequence[str], version2: bool = False) -> float:
    """Mean over questions of the best F1 between the words of the answer and those of an accepted one, 0..1.

    Args:
        gold: accepted answers of each question.
        predicted: the answer to each question, "" for "it has none".
        version2: by the rules of version 2.0, where questions may have no answer.
    """
    # Version 1.1 gives 0 when nothing is left of both answers ("the" against "a"), version 2.0 gives 1.
    both_empty = float(version2)
    return _mean_of_best(gold, predicted, version2, lambda right, given: _word_f1(right, given, both_empty))


def _mean_of_best(gold: Gold, predicted: Sequence[str], version2: bool, compare: Callable[[str, str], float]) -> float:
    total = 0.0
    for answers, answer in zip(gold, predicted, strict=True):
        accepted = [normalise(text) for text in answers]
        if version2:  # answers of which nothing is left do not count; without any, "" is the right one
            accepted = [text for text in accepted if text] or [""]
        given = normalise(answer)
        total += max(compare(text, given) for text in accepted)
    return total / len(gold)


def _word_f1(right: str, given: str, both_empty: float) -> float:
    if not right and not given:
        return both_empty
    right_words, given_words = right.split(), given.split()
    same = (Counter(right_words) & Counter(given_words)).total()
    return 2 * same / (len(right_words) + len(given_words))
