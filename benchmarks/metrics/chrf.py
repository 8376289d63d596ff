"""chrF of answers, for languages that put no blanks between words: there, words are no unit to compare by."""

from __future__ import annotations

from collections.abc import Sequence

from sacrebleu.metrics.chrf import CHRF

from benchmarks.metrics.answers import Gold, mean_of_best

UNSPACED = frozenset(("bo", "dz", "hak", "ja", "km", "lo", "lzh", "my", "nan", "th", "wuu", "yue", "zh"))
"""Languages, without script and region, whose usual writing has no blanks between words."""


def chrf(gold: Gold, predicted: Sequence[str], language: str) -> float | None:
    """Mean over questions of the best sentence chrF of the answer against an accepted one, 0..1.

    sacrebleu's default, chrF2: n-grams of 1 to 6 characters, blanks left out, recall counts twice; orders that one of
    the two texts is too short for are left out. The texts are compared as they stand, nothing is normalised.

    Args:
        gold: accepted answers of each question; a question without any wants "" and gets 1 for it.
        predicted: the answer to each question.
        language: BCP-47 code.

    Returns:
        None for languages with blanks between words.
    """
    if not _counts(language):
        return None
    metric = CHRF()

    def compare(right: str, given: str) -> float:
        return metric.sentence_score(given, [right]).score / 100 if right or given else 1.0

    return mean_of_best(gold, predicted, compare)


def chrf_signature(language: str) -> str | None:
    """sacrebleu's signature, the settings and the version of the library; None where `chrf` has no value."""
    if not _counts(language):
        return None
    metric = CHRF()
    metric.sentence_score("", [""])  # the number of references, part of the signature, is that of the last call
    return str(metric.get_signature().format())


def _counts(language: str) -> bool:
    return language.partition("-")[0].lower() in UNSPACED
