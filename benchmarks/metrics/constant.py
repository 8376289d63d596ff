"""What a tagger scores that gives every token the same tag."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities

from benchmarks.metrics.tags import Tags

Chunk = tuple[Any, ...]
"""Its type, and where it is."""


def entities(tags: Sequence[str]) -> set[Chunk]:
    """The chunks of a sentence as seqeval's default mode reads them: type, first and last token."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part of speech "seems not to be NE tag"
        return set(get_entities(list(tags)))


def constant_accuracy(labels: Sequence[str], gold: Tags) -> float:
    """The best token accuracy of one tag for every token, 0..1.

    Args:
        labels: the tags to choose from.
        gold: tags of each sentence.
    """
    often = Counter(tag for tags in gold for tag in tags)
    return max(often[label] for label in labels) / often.total()


def constant_f1(labels: Sequence[str], gold: Tags, chunks: Callable[[Sequence[str]], Collection[Chunk]]) -> float:
    """The best micro F1 over chunks of one tag for every token, 0..1.

    The chunks of such an answer depend on the length of the sentence alone, so they are made once a length, and a tag
    is not tried where even all gold chunks of its type would not be enough to win.

    Args:
        labels: the tags to choose from.
        gold: tags of each sentence.
        chunks: the chunks of a sentence, by the rules of the metric.
    """
    lengths = Counter(map(len, gold))
    in_gold = Counter((len(tags), chunk) for tags in gold for chunk in chunks(tags))
    of_type: Counter[str] = Counter()
    for (_, chunk), often in in_gold.items():
        of_type[chunk[0]] += often
    most = {label: sum(of_type[chunk[0]] for chunk in chunks((label,))) for label in labels}
    best = 0.0
    for label in sorted(labels, key=most.__getitem__, reverse=True):
        if 2 * most[label] <= best * in_gold.total():
            break
        right = given = 0
        for length, often in lengths.items():
            found = chunks((label,) * length)
            given += often * len(found)
            right += sum(in_gold[length, chunk] for chunk in found)
        best = max(best, 2 * right / (given + in_gold.total()))
    return best
