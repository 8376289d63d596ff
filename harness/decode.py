"""Outputs of the encoder to predictions, the same in evaluation and in deployment; needs numpy only."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import PLACEHOLDER, Example, Prediction, Value
from benchmarks.task import Kind, TaskCard
from harness.features import Feature
from harness.spans import FAR, best_spans
from harness.viterbi import best, constraints_of

Floats = NDArray[np.float32]

RETRIEVED_TOGETHER = 64
"""Vectors that are compared with all candidates at once: one product a block, in bounded memory."""

ROWS_TOGETHER = 4096
"""Rows of tagging that are decoded at once: bounds the memory where tags are many."""

Found = tuple[Value, tuple[float, ...]]
"""What is predicted, and its scores."""

Group = Sequence[tuple[Feature, Floats]]
"""Rows of one example with their outputs."""


@dataclass(frozen=True, slots=True)
class Located:
    """The best answer of an example of span extraction.

    Attributes:
        span: begin and end in characters of the context; None: the context is empty.
        probability: among all spans and, where it is allowed, "no answer".
        difference: score of "no answer" minus that of the best answer.
    """

    span: tuple[int, int] | None
    probability: float
    difference: float


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
    groups = list(_by_example(list(zip(features, outputs, strict=True))))
    asked = [examples[index] for index, _ in groups]
    if card.kind is Kind.SPAN:
        return answers(card, asked, locate(card, features, outputs))
    if card.kind is Kind.CLASSIFICATION:
        logits = np.array([group[0][1] for _, group in groups], np.float32).reshape(len(groups), -1)
        found = _labels(card, logits)
    elif card.kind is Kind.REGRESSION:
        found = [(float(group[0][1][0]), ()) for _, group in groups]
    elif card.kind is Kind.CHOICE:
        found = [_choice(example, group) for example, (_, group) in zip(asked, groups, strict=True)]
    elif card.kind is Kind.TAGGING:
        found = _tags(card, asked, [group for _, group in groups])
    else:
        found = _retrieved(outputs, candidates, candidate_ids)
    return [
        Prediction(example.id, value, example.gold, scores, value if card.no_answer else None, example.group)
        for example, (value, scores) in zip(asked, found, strict=True)
    ]


def answers(card: TaskCard, examples: Sequence[Example], located: Sequence[Located]) -> list[Prediction]:
    """Predictions of span extraction, by what was located in each example."""
    predictions = []
    for example, found in zip(examples, located, strict=True):
        span, context = found.span, example.text_pair
        text = "" if span is None or context is None else context[span[0] : span[1]].strip()
        value = "" if card.no_answer and found.difference > 0 else text
        scores = found.probability, found.difference
        predictions.append(
            Prediction(example.id, value, example.gold, scores, text if card.no_answer else None, example.group)
        )
    return predictions


def _labels(card: TaskCard, logits: Floats) -> list[Found]:
    """Of classification, by logits [examples, labels]."""
    probabilities = softmax(logits)
    places = probabilities.argmax(-1).tolist() if len(logits) else []
    return [(card.labels[place], tuple(row)) for place, row in zip(places, probabilities.tolist(), strict=True)]


def _choice(example: Example, group: Group) -> Found:
    probabilities = softmax(np.array([output[0] for _, output in group]))
    place = int(probabilities.argmax())
    # accepted choices are texts in a cloze, which an unlabelled row shows by its placeholder alone
    texts = example.answers is not None or PLACEHOLDER in (example.text_pair or "")
    return example.choices[place] if texts else str(place), tuple(probabilities.tolist())


def _retrieved(outputs: Sequence[Floats], candidates: Floats | None, ids: Sequence[str]) -> list[Found]:
    return [
        (ids[nearest] if ids else str(nearest), (cosine, float(count)))
        for nearest, cosine, count in _nearest(outputs, candidates)
    ]


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


def locate(card: TaskCard, features: Sequence[Feature], outputs: Sequence[Floats]) -> list[Located]:
    """The best answer of each example of span extraction, over all of its windows.

    Every span of up to `harness.spans.MAX_ANSWER_PIECES` pieces is considered; of equal ones it is the first window's,
    there the shortest, and of those the first. "No answer" is worth what the first piece gets in the window where that
    is least (as run_squad.py does: one window may lack an answer that another one has).

    Args:
        card: tells whether "no answer" is allowed.
        features: windows. outputs: their logits of begin and end, [seq, 2].

    Raises:
        PolypromptError: a logit is not a number, or plus infinity.
    """
    context = [_context(feature) for feature in features]
    spans = best_spans([output[inside] for inside, output in zip(context, outputs, strict=True)])
    located = []
    for _, rows in groupby(range(len(features)), key=lambda row: features[row].example):
        windows = list(rows)
        no_answer = min(float(outputs[row][0].sum()) for row in windows)
        best = max(
            (row for row in windows if len(spans[row].scores)), key=lambda row: spans[row].scores[0], default=None
        )
        if best is None:
            located.append(Located(None, 0.0, np.inf))
            continue
        found, most = spans[best], float(spans[best].scores[0])
        rivals = sum(spans[row].total * math.exp(spans[row].scores[0] - most) for row in windows if spans[row].total)
        if card.no_answer:
            rivals += math.exp(min(no_answer - most, FAR))
        pieces, at = features[best].spans, np.flatnonzero(context[best])
        assert pieces is not None
        span = int(pieces[at[found.begins[0]], 0]), int(pieces[at[found.ends[0]], 1])
        located.append(Located(span, 1 / rivals, no_answer - most))
    return located


def _context(feature: Feature) -> NDArray[np.bool_]:
    assert feature.spans is not None
    inside: NDArray[np.bool_] = feature.spans[:, 0] >= 0
    return inside


def _tags(card: TaskCard, examples: Sequence[Example], groups: Sequence[Group]) -> list[Found]:
    found: list[Found] = []
    start = 0
    while start < len(groups):
        stop = start + ROWS_TOGETHER
        found += _tags_together(card, examples[start:stop], groups[start:stop])
        start = stop
    return found


def _tags_together(card: TaskCard, examples: Sequence[Example], groups: Sequence[Group]) -> list[Found]:
    starts = np.cumsum([0, *(len(example.tokens) for example in examples)])
    # A word of which the tokenizer keeps nothing (a control character) is read nowhere: it is outside of everything.
    blank = card.labels.index("O") if "O" in card.labels else 0
    logits = np.full((int(starts[-1]), len(card.labels)), -np.inf, np.float32)
    logits[:, blank] = 0
    read = np.zeros(len(logits), bool)
    rows = [(start, row) for start, group in zip(starts.tolist(), groups, strict=False) for row in group]
    words = np.concatenate([start + feature.words for start, (feature, _) in rows])  # type: ignore[operator]
    logits[words] = np.concatenate([output[feature.positions] for _, (feature, output) in rows])
    read[words] = True
    probabilities = softmax(logits)
    if card.decoding == "viterbi":
        tags = best(logits, starts, constraints_of(card), os.cpu_count() or 1)
    else:
        tags = probabilities.argmax(-1)
    scores = np.where(read, np.take_along_axis(probabilities, tags[:, None], 1)[:, 0], 0).tolist()
    names = [card.labels[tag] for tag in tags.tolist()]
    return [(tuple(names[begin:end]), tuple(scores[begin:end])) for begin, end in pairwise(starts.tolist())]


def _by_example(
    rows: Sequence[tuple[Feature, Floats]],
) -> Iterator[tuple[int, list[tuple[Feature, Floats]]]]:
    for index, group in groupby(rows, key=lambda row: row[0].example):
        yield index, list(group)
