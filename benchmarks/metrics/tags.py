"""Metrics of tags; chunks are counted as seqeval's default mode and conlleval.pl do, without a loop over tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import end_of_chunk, start_of_chunk

from benchmarks.metrics.labels import accuracy

Tags = Sequence[Sequence[str]]
"""One sequence of tags a sentence."""


def token_accuracy(gold: Tags, predicted: Tags) -> float:
    """Share of tokens, over all sentences, whose predicted tag is the gold one, 0..1."""
    return accuracy([tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags])


def chunk_f1(gold: Tags, predicted: Tags) -> float:
    """Micro F1 over chunks (type, first token, last token), 0..1; 0 when neither side has a chunk.

    Where a chunk begins and ends is asked of seqeval's own rules, once for each pair of neighbouring tags, so the value
    is that of `seqeval.metrics.f1_score` of the installed version. That holds for tags that are no chunk tags too:
    seqeval reads a part-of-speech tag as one letter of position and a type, so neighbours merge and CCONJ equals SCONJ;
    XTREME's official "F1" of UDPOS is that number.

    Args:
        gold: tags of each sentence.
        predicted: as many tags for each of the same sentences.
    """
    vocabulary = sorted({"O"}.union(*gold, *predicted))
    in_gold, in_predicted = _chunks(gold, vocabulary), _chunks(predicted, vocabulary)
    both = np.intersect1d(in_gold, in_predicted, assume_unique=True).size
    return 2 * both / max(in_gold.size + in_predicted.size, 1)


def _chunks(sentences: Tags, vocabulary: Sequence[str]) -> NDArray[np.int64]:
    """A number for each chunk `[chunks]`: equal numbers mean equal type, first and last token; each occurs once."""
    code_of = {tag: code for code, tag in enumerate(vocabulary)}
    outside = code_of["O"]
    # seqeval puts an "O" behind each sentence and one more at the very end.
    codes = np.array([code for tags in sentences for code in (*map(code_of.__getitem__, tags), outside)] + [outside])
    before = np.concatenate(([outside], codes[:-1]))

    read = [(tag[0], tag[1:].split("-", maxsplit=1)[-1]) for tag in vocabulary]
    pairs = [[(left, right, of_left, of_right) for right, of_right in read] for left, of_left in read]
    ends = np.array([[end_of_chunk(*pair) for pair in row] for row in pairs])[before, codes]
    starts = np.array([[start_of_chunk(*pair) for pair in row] for row in pairs])[before, codes]
    types = sorted({kind for _, kind in read})
    type_of = np.array([types.index(kind) for _, kind in read])

    last = np.flatnonzero(ends) - 1
    first = np.maximum.accumulate(np.where(starts, np.arange(codes.size), 0))[last]
    chunks: NDArray[np.int64] = (type_of[codes[last]] * codes.size + first) * codes.size + last
    return chunks
