"""Exact match and F1 of answers as MLQA's script computes them, by the rules of each language (mlqa_evaluation_v1.py).

XTREME scores MLQA so. In order: lower case, no punctuation of any script, no articles; then words at blanks, and in
Chinese each character as a word of its own. F1 is 0 where nothing is left of both answers.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

from benchmarks.errors import PolypromptError
from benchmarks.metrics.answers import Gold, bag_f1, mean_of_best

_ARTICLES = {
    # The article is a prefix of the word. The script cuts it out wherever its letters stand, inside of words too.
    "ar": "ال",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "hi": "",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "zh": "",
}
_WORD = re.compile(r"\S+")
_WORD_OR_HAN = re.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")


def mlqa_exact_match(gold: Gold, predicted: Sequence[str], language: str) -> float:
    """Share of questions whose answer has the words of an accepted one, in their order, 0..1.

    Args:
        gold: accepted answers of each question.
        predicted: the answer to each question.
        language: of the answers, one of MLQA's seven.

    Raises:
        PolypromptError: MLQA has no rules for the language.
    """
    words = words_of(language)
    return mean_of_best(gold, predicted, lambda right, given: float(words(right) == words(given)))


def mlqa_f1(gold: Gold, predicted: Sequence[str], language: str) -> float:
    """Mean over questions of the best F1 between the words of the answer and those of an accepted one, 0..1.

    Args:
        gold, predicted, language: as for `mlqa_exact_match`.

    Raises:
        PolypromptError: as `mlqa_exact_match`.
    """
    words = words_of(language)
    return mean_of_best(gold, predicted, lambda right, given: bag_f1(words(right), words(given)))


def words_of(language: str) -> Callable[[str], list[str]]:
    """What divides an answer into the words that count."""
    if language not in _ARTICLES:
        raise PolypromptError(f"the rules of MLQA are for {', '.join(_ARTICLES)}; {language!r} needs another metric")
    article = re.compile(_ARTICLES[language]) if _ARTICLES[language] else None
    word = _WORD_OR_HAN if language == "zh" else _WORD

    def words(answer: str) -> list[str]:
        kept = answer.lower().translate(_punctuation())
        return word.findall(article.sub(" ", kept) if article else kept)

    return words


@cache
def _punctuation() -> dict[int, None]:
    """Every punctuation mark of Unicode, and those of ASCII that Unicode calls symbols."""
    marks = (code for code in range(sys.maxunicode) if unicodedata.category(chr(code)).startswith("P"))
    return dict.fromkeys([*marks, *map(ord, string.punctuation)])
