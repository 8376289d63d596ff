"""Outputs of the encoder to predictions, the same in evaluation and in deployment; needs numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import PLACEHOLDER, Example, Prediction
from benchmarks.task import Kind, TaskCard
from harness.features import Feature

Floats = NDArray[np.float32]

RETRIEVED_TOGETHER = 64
"""Vectors that are compared with all candidates at once: one product a block, in bounded memory."""

MAX_ANSWER_PIECES = 30
"""Longest answer, as in the SQuAD script of BERT (run_squad.py, `max_answer_length`)."""


def decode(
    card: TaskCard,
    examples: Sequence[Example],
    features: Sequence[Feature],
    outputs: Sequence[Floats],
    candidates: Floats | None = None,
    candidate_ids: Sequence[str] = (),
) -> list[Prediction]:
    """Predictions of a split, one an example, in order.

    Args:
        card: the task.
        examples: the rows of the benchmark.
        features: their rows for the encoder, rows of an example side by side.
        outputs: what the model gave for each feature. Classification: logits [labels]. Regression and multiple choice:
            [1]. Tagging: logits [seq, labels]. Span extraction: logits of begin and end [seq, 2]. Retrieval: unit
            vector [hidden].
        candidates: retrieval: unit vectors of the candidates, [candidates, hidden].
        candidate_ids: retrieval: their ids; empty: "0".."n-1".

    Returns:
        Predictions with gold values copied from the examples. "No answer" is given where it scores higher than the best
        answer, and never in retrieval; see `benchmarks.thresholds` for other limits.
    """
    predictions = []
    rows = list(zip(features, outputs, strict=True))
    found = _nearest(outputs, candidates) if card.kind is Kind.RETRIEVAL else []
    for index, group in _by_example(rows):
        example, best = examples[index], None
        if card.kind is Kind.CLASSIFICATION:
            probabilities = softmax(group[0][1])
            value, scores = card.labels[int(probabilities.argmax())], tuple(probabilities.tolist())
        elif card.kind is Kind.REGRESSION:
            value, scores = float(group[0][1][0]), ()
        elif card.kind is Kind.CHOICE:
            probabilities = softmax(np.array([output[0] for _, output in group]))
            place, scores = int(probabilities.argmax()), tuple(probabilities.tolist())
            # accepted choices are texts in a cloze, which an unlabelled row shows by its placeholder alone
            texts = example.answers is not None or PLACEHOLDER in (example.text_pair or "")
            value = example.choices[place] if texts else str(place)
        elif card.kind is Kind.TAGGING:
            value, scores = _tags(card, example, group)
        elif card.kind is Kind.SPAN:
            value, best, scores = _answer(card, example, group)
        else:
            nearest, cosine, count = found[len(predictions)]
            value = candidate_ids[nearest] if candidate_ids else str(nearest)
            best, scores = value, (cosine, float(count))
        if not card.no_answer:
            best = None
        predictions.append(Prediction(example.id, value, example.gold, scores, best, example.group))
    return predictions


def _nearest(outputs: Sequence[Floats], candidates: Floats | None) -> list[tuple[int, float, int]]:
    """Nearest candidate of each vector, its cosine, and among how many it was found; the first of equals."""
    if candidates is None:
        raise ValueError("retrieval needs the vectors of the candidates")
    found = []
    for start in range(0, len(outputs), RETRIEVED_TOGETHER):
        cosines = np.stack(outputs[start : start + RETRIEVED_TOGETHER]) @ candidates.T
        places = cosines.argmax(1)
        best = np.take_along_axis(cosines, places[:, None], 1)[:, 0]
        found += [(int(place), float(cosine), len(candidates)) for place, cosine in zip(places, best, strict=True)]
    return found


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    result: Floats = shifted / shifted.sum(-1, keepdims=True)
    return result


def locate(card: TaskCard, group: Sequence[tuple[Feature, Floats]]) -> tuple[tuple[int, int] | None, float, float]:
    """The best answer over all windows of one example of span extraction.

    Every span of up to `MAX_ANSWER_PIECES` pieces is considered. "No answer" is worth what the first piece gets in the
    window where that is least (as run_squad.py does: one window may lack an answer that another one has).

    Args:
        card: tells whether "no answer" is allowed.
        group: windows of the example with their logits [seq, 2].

    Returns:
        Begin and end in characters of the context (None: the context is empty), probability among all spans and, where
        it is allowed, "no answer"; and the score of "no answer" minus that of the best answer.
    """
    best, best_score, where = None, -np.inf, (0, 0)
    all_scores: list[Floats] = []
    no_answer = min(float(output[0].sum()) for _, output in group)
    for feature, output in group:
        assert feature.spans is not None
        inside = np.flatnonzero(feature.spans[:, 0] >= 0)
        if not len(inside):
            continue
        begin, end = output[inside, 0], output[inside, 1]
        for more in range(min(MAX_ANSWER_PIECES, len(inside))):
            scores = begin[: len(begin) - more] + end[more:]
            all_scores.append(scores)
            top = int(scores.argmax())
            if scores[top] > best_score:
                best_score, best, where = float(scores[top]), feature, (inside[top], inside[top + more])
    if best is None or best.spans is None:
        return None, 0.0, np.inf
    rivals = np.concatenate([*all_scores, np.array([no_answer] if card.no_answer else [], np.float32)])
    probability = float(1 / np.exp(rivals.astype(np.float64) - best_score).sum())
    return (int(best.spans[where[0], 0]), int(best.spans[where[1], 1])), probability, no_answer - best_score


def _answer(
    card: TaskCard, example: Example, group: Sequence[tuple[Feature, Floats]]
) -> tuple[str, str, tuple[float, ...]]:
    span, probability, difference = locate(card, group)
    text = "" if span is None or example.text_pair is None else example.text_pair[span[0] : span[1]].strip()
    return "" if card.no_answer and difference > 0 else text, text, (probability, difference)


def _tags(
    card: TaskCard, example: Example, group: Sequence[tuple[Feature, Floats]]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    # A word of which the tokenizer keeps nothing (a control character) is read nowhere: it is outside of everything.
    blank = card.labels.index("O") if "O" in card.labels else 0
    tags, scores = np.full(len(example.tokens), blank), np.zeros(len(example.tokens))
    for feature, output in group:
        probabilities = softmax(output[feature.positions])
        tags[feature.words] = probabilities.argmax(-1)
        scores[feature.words] = probabilities.max(-1)
    return tuple(card.labels[tag] for tag in tags), tuple(scores.tolist())


def _by_example(
    rows: Sequence[tuple[Feature, Floats]],
) -> Iterator[tuple[int, list[tuple[Feature, Floats]]]]:
    for index, group in groupby(rows, key=lambda row: row[0].example):
        yield index, list(group)
