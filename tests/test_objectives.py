"""Losses beside sums written out."""

import math

import numpy as np
import pytest
import torch

from benchmarks.records import Answer, Example
from benchmarks.task import Kind, TaskCard
from harness.features import Feature
from harness.objectives import IGNORED, collate, count, loss_of, make_targets

CHOICE = TaskCard(name="t", suite="s", kind=Kind.CHOICE, metrics=("accuracy",))


def row(example: int) -> Feature:
    return Feature(example, np.zeros(3, np.int32), np.zeros(3, np.int32))


def test_choices_of_different_numbers_with_several_right_ones():
    examples = [
        Example("a", "x", choices=("p", "q"), label="1"),
        Example("b", "x", choices=("p", "q", "r", "s"), answers=(Answer("q", 0), Answer("s", 0), Answer("absent", 0))),
        Example("c", "x", choices=("p",), label="0"),
    ]
    features = [row(owner) for owner, example in enumerate(examples) for _ in example.choices]
    targets = make_targets(CHOICE, examples, features)
    assert targets == [0, 1, 0, 1, 0, 1, 1]
    matrix = collate(CHOICE, features, targets, 3)
    pad = IGNORED
    assert matrix.tolist() == [[0, 1, pad, pad], [0, 1, 0, 1], [1, pad, pad, pad]]
    logits = [0.3, -1.2, 2.0, 0.5, 0.1, 1.0, -4.0]
    outputs = torch.tensor(logits, requires_grad=True)
    loss = loss_of(CHOICE, outputs[:, None], matrix, torch.full((7,), 3))
    e = [math.exp(value) for value in logits]
    first = -math.log(e[1] / (e[0] + e[1]))
    second = -math.log((e[3] + e[5]) / (e[2] + e[3] + e[4] + e[5]))
    assert count(CHOICE, matrix) == 3
    assert float(loss.total.detach()) == pytest.approx(first + second + 0, rel=1e-6)
    assert loss.right == 1, "the first and the second choose a wrong one"
    loss.total.backward()
    assert torch.isfinite(outputs.grad).all()
    assert float(outputs.grad[0]) == pytest.approx(e[0] / (e[0] + e[1]), rel=1e-5)
