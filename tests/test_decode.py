"""Outputs to predictions, beside loops written out."""

import numpy as np
import pytest

from benchmarks.records import Answer, Example
from benchmarks.task import Kind, TaskCard
from harness.decode import decode
from harness.features import Feature
from harness.spans import MAX_ANSWER_PIECES


def row(example: int, length: int, **more: np.ndarray) -> Feature:
    return Feature(example, np.zeros(length, np.int32), np.zeros(length, np.int32), **more)


def card(kind: Kind, **more: object) -> TaskCard:
    return TaskCard(name="task", suite="test", kind=kind, metrics=("f1",), **more)


@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_best_span_as_a_plain_loop_finds_it(seed, no_answer):
    random = np.random.default_rng(seed)
    text = "".join(random.choice(list("abcdefgh"), 240))
    rows, outputs = [], []
    for begin in (0, 30):  # two windows of 50 pieces of 3 letters, behind 4 pieces of question
        spans = np.full((55, 2), -1, np.int32)
        spans[4:54] = [[3 * (begin + n), 3 * (begin + n) + 3] for n in range(50)]
        rows.append(row(0, 55, spans=spans))
        outputs.append(random.normal(size=(55, 2)).astype(np.float32))
    outputs[1][0] += random.normal() * 4
    best, rivals = (-np.inf, ""), []
    for feature, output in zip(rows, outputs, strict=True):
        for first in range(55):
            for last in range(first, 55):
                if feature.spans[first, 0] < 0 or feature.spans[last, 0] < 0 or last - first >= MAX_ANSWER_PIECES:
                    continue
                score = output[first, 0] + output[last, 1]
                rivals.append(score)
                best = max(best, (score, text[feature.spans[first, 0] : feature.spans[last, 1]]))
    null = min(output[0].sum() for output in outputs)
    expected = best[1]
    if no_answer:
        rivals.append(null)
        expected = "" if null > best[0] else best[1]
    [got] = decode(card(Kind.SPAN, no_answer=no_answer), [Example("1", "q", text)], rows, outputs)
    assert got.value == expected
    assert got.best == (best[1] if no_answer else None)
    assert got.scores[0] == pytest.approx(np.exp(best[0]) / np.exp(np.array(rivals, np.float64)).sum(), rel=1e-4)
    assert got.scores[1] == pytest.approx(null - best[0], rel=1e-4)


def test_an_empty_context_has_no_answer():
    spans = np.full((4, 2), -1, np.int32)
    [got] = decode(card(Kind.SPAN), [Example("1", "q", "")], [row(0, 4, spans=spans)], [np.zeros((4, 2), np.float32)])
    assert got.value == ""


def test_choices_classes_numbers_and_vectors():
    outputs = [np.array([value], np.float32) for value in (0.1, 2.0, 1.0, 3.0, -1.0)]
    examples = [Example("1", choices=("a", "b", "c"), label="1"), Example("2", choices=("a", "b"), label="1")]
    got = decode(card(Kind.CHOICE), examples, [row(0, 2)] * 3 + [row(1, 2)] * 2, outputs)
    assert [(p.value, p.gold) for p in got] == [("1", "1"), ("0", "1")]
    assert got[1].scores == pytest.approx((1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))))

    labels = card(Kind.CLASSIFICATION, labels=("no", "yes"))
    [label] = decode(labels, [Example("1", "x", label="no")], [row(0, 2)], [np.array([0.0, np.log(3)], np.float32)])
    assert (label.value, label.gold) == ("yes", "no")
    assert label.scores == pytest.approx((0.25, 0.75))

    [number] = decode(card(Kind.REGRESSION), [Example("1", "x", target=2.5)], [row(0, 2)], [np.array([1.5])])
    assert (number.value, number.gold, number.scores) == (1.5, 2.5, ())

    candidates = np.eye(3, dtype=np.float32)
    vector = np.array([0.6, 0.8, 0.0], np.float32)
    [found] = decode(card(Kind.RETRIEVAL), [Example("1", "x", label="2")], [row(0, 2)], [vector], candidates)
    assert (found.value, found.gold) == ("1", "2")
    assert found.scores == pytest.approx((0.8, 3))


def test_tags_of_two_windows_come_together():
    task = card(Kind.TAGGING, labels=("O", "B-X", "I-X"))
    rows = [
        row(0, 6, words=np.array([0, 1]), positions=np.array([1, 3])),
        row(0, 5, words=np.array([2]), positions=np.array([2])),
    ]
    outputs = [np.zeros((6, 3), np.float32), np.zeros((5, 3), np.float32)]
    outputs[0][1, 1] = outputs[0][3, 2] = outputs[1][2, 0] = 5
    outputs[0][2, 0] = outputs[1][1, 1] = 9  # other pieces: not read
    [got] = decode(task, [Example("1", tokens=("a", "b", "c"))], rows, outputs)
    assert got.value == ("B-X", "I-X", "O")
    assert got.scores == pytest.approx((np.exp(5) / (np.exp(5) + 2),) * 3, rel=1e-5)


def test_choices_that_count_as_texts():
    example = Example("1", "x", choices=("ada", "bob"), answers=(Answer("bob", 0), Answer("eve", 0)), group="q7")
    outputs = [np.array([0.0], np.float32), np.array([1.0], np.float32)]
    [got] = decode(card(Kind.CHOICE), [example], [row(0, 3), row(0, 3)], outputs)
    assert (got.value, got.gold, got.group, got.best) == ("bob", ("bob", "eve"), "q7", None)


def test_retrieval_names_the_candidate_by_its_id():
    vectors = np.eye(3, dtype=np.float32)
    found = decode(
        card(Kind.RETRIEVAL, no_answer=True), [Example("1", "x", label="")], [row(0, 3)], [vectors[2]], vectors, "pqr"
    )
    assert [(got.value, got.gold, got.best, got.scores) for got in found] == [("r", "", "r", (1.0, 3.0))]


def test_retrieval_finds_what_a_loop_finds():
    """More rows than are compared at once, and two candidates that are equal."""
    random = np.random.default_rng(0)
    vectors, candidates = (random.normal(size=(n, 5)).astype(np.float32) for n in (150, 40))
    candidates[30] = candidates[7]
    examples = [Example(str(n), "x", label="0") for n in range(150)]
    found = decode(card(Kind.RETRIEVAL), examples, [row(n, 3) for n in range(150)], list(vectors), candidates)
    for vector, got in zip(vectors, found, strict=True):
        cosines = [float(sum(a * b for a, b in zip(vector, candidate, strict=True))) for candidate in candidates]
        assert got.scores == pytest.approx((max(cosines), 40), rel=1e-5)
        assert cosines[int(got.value)] == pytest.approx(max(cosines), rel=1e-5)
        assert got.value != "30"
