"""Metrics of labels: classification, multiple choice and retrieval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeVar

from sklearn import metrics as sklearn

Labels = Sequence[str]
Item = TypeVar("Item")


def accuracy(gold: Sequence[object], predicted: Sequence[object]) -> float:
    """Share of rows whose predicted value is the gold one, 0..1."""
    return sum(right == given for right, given in zip(gold, predicted, strict=True)) / len(gold)


def matthews(gold: Labels, predicted: Labels) -> float:
    """Matthews' correlation, -1..1, for any number of labels; 0 when one side is constant (GLUE's CoLA and AX)."""
    constant = len(set(gold)) == 1 or len(set(predicted)) == 1
    return 0.0 if constant else float(sklearn.matthews_corrcoef(gold, predicted))


def f1_of(positive: str, gold: Labels, predicted: Labels) -> float:
    """F1 of one label, 0..1; 0 when it is neither right nor given anywhere (GLUE's MRPC and QQP)."""
    return float(sklearn.f1_score(gold, predicted, labels=[positive], average="micro", zero_division=0))


def f1_macro(labels: Labels, gold: Labels, predicted: Labels) -> float:
    """Mean over labels of their F1, 0..1; a label that occurs on neither side does not count (SuperGLUE's CB)."""
    occurring = [label for label in labels if label in {*gold, *predicted}]
    return float(sklearn.f1_score(gold, predicted, labels=occurring, average="macro", zero_division=0))


def whole_groups(groups: Sequence[str], gold: Labels, predicted: Labels) -> float:
    """Share of groups all of whose rows are right, 0..1: exact match over the questions of MultiRC (EM)."""
    right = _by_group(groups, [a == b for a, b in zip(gold, predicted, strict=True)])
    return sum(map(all, right.values())) / len(right)


def parity(groups: Sequence[str], predicted: Labels) -> float:
    """Share of groups all of whose rows got one label, 0..1: the gender parity of Winogender (AX-g)."""
    given = _by_group(groups, predicted)
    return sum(len(set(labels)) == 1 for labels in given.values()) / len(given)


def _by_group(groups: Sequence[str], items: Sequence[Item]) -> Mapping[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for group, item in zip(groups, items, strict=True):
        found[group].append(item)
    return found
