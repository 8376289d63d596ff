"""What is learned: targets and loss of each kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.records import Example
from benchmarks.task import Kind, TaskCard
from harness.features import Feature

Gold = TypeVar("Gold")
Target = int | float | tuple[int, int] | NDArray[np.int64]

IGNORED = -100
"""Class index that cross-entropy skips: padding and pieces that are not the first of their word."""


def make_targets(card: TaskCard, examples: Sequence[Example], features: Sequence[Feature]) -> list[Target]:
    """The target of every row.

    Returns:
        One a feature. Classification: index of the label. Regression: the number. Multiple choice: 1 for a right
        alternative, 0 for a wrong one. Tagging: indices of the tags of the words read in this row.
        Span extraction: first and last piece of the first answer, (0, 0) when it is not wholly in this window.
    """
    index = {label: number for number, label in enumerate(card.labels)}
    targets: list[Target] = []
    place = 0
    for row, feature in enumerate(features):
        example = examples[feature.example]
        place = place + 1 if row and features[row - 1].example == feature.example else 0
        if card.kind is Kind.CLASSIFICATION:
            targets.append(index[_given(example, example.label)])
        elif card.kind is Kind.REGRESSION:
            targets.append(_given(example, example.target))
        elif card.kind is Kind.CHOICE:
            targets.append(int(_is_right(example, place)))
        elif card.kind is Kind.TAGGING:
            tags = _given(example, example.tags)
            assert feature.words is not None
            targets.append(np.array([index[tags[word]] for word in feature.words], np.int64))
        else:
            targets.append(_answer_pieces(example, feature))
    return targets


def _given(example: Example, gold: Gold | None) -> Gold:
    if gold is None:
        raise ValueError(f"example {example.id} of a training split is not labelled")
    return gold


def _is_right(example: Example, place: int) -> bool:
    """Whether a choice is right: by its index, or by its text where the accepted ones are texts."""
    if example.answers is None:
        return str(place) == _given(example, example.label)
    return example.choices[place] in {answer.text for answer in example.answers}


def _answer_pieces(example: Example, feature: Feature) -> tuple[int, int]:
    answers = _given(example, example.answers)
    spans = feature.spans
    assert spans is not None
    if not answers:
        return 0, 0
    start, end = answers[0].start, answers[0].start + len(answers[0].text)
    inside = (spans[:, 0] >= 0) & (spans[:, 1] > start) & (spans[:, 0] < end)
    pieces = np.flatnonzero(inside)
    whole = len(pieces) and spans[pieces[0], 0] <= start and spans[pieces[-1], 1] >= end
    return (int(pieces[0]), int(pieces[-1])) if whole else (0, 0)


def collate(card: TaskCard, features: Sequence[Feature], targets: Sequence[Target], seq: int) -> Tensor:
    """Targets of a batch as a tensor.

    Returns:
        Classification: [rows] int64. Regression: [rows] float32. Multiple choice: [examples, most choices] int64, 1
        right, 0 wrong, `IGNORED` where an example has fewer. Tagging: [rows, seq] int64 with `IGNORED` where nothing is
        read. Span extraction: [rows, 2] int64.
    """
    if card.kind is Kind.TAGGING:
        tags = torch.full((len(features), seq), IGNORED)
        for row, (feature, target) in enumerate(zip(features, targets, strict=True)):
            tags[row, torch.from_numpy(np.asarray(feature.positions, np.int64))] = torch.from_numpy(np.asarray(target))
        return tags
    if card.kind is Kind.CHOICE:
        groups = [list(group) for _, group in groupby(range(len(features)), lambda row: features[row].example)]
        right = torch.full((len(groups), max(map(len, groups))), IGNORED)
        for number, group in enumerate(groups):
            right[number, : len(group)] = torch.tensor([targets[row] for row in group])
        return right
    return torch.tensor(np.array(targets), dtype=torch.float32 if card.kind is Kind.REGRESSION else torch.int64)


@dataclass(frozen=True)
class Loss:
    """What a pass over some rows of a batch lost.

    Attributes:
        total: sum over what was counted, a scalar with gradients.
        right: how many of them are right, None for regression.
    """

    total: Tensor
    right: int | None


def count(card: TaskCard, targets: Tensor) -> int:
    """Over how many the loss of a batch is the mean: examples, words, numbers; for spans begins and ends."""
    if card.kind is Kind.CHOICE:
        return len(targets)
    return int((targets != IGNORED).sum()) if card.kind is Kind.TAGGING else targets.numel()


def loss_of(card: TaskCard, outputs: Tensor, targets: Tensor, lengths: Tensor) -> Loss:
    """The loss of some rows.

    Args:
        card: the task.
        outputs: of `PromptedModel.outputs`.
        targets: of `collate`.
        lengths: real pieces a row, [rows].

    Returns:
        Sum of cross-entropies (regression: of squared errors; several right choices: of any of them), and how many
        labels, words or whole spans are right.
    """
    outputs = outputs.float()
    if card.kind is Kind.REGRESSION:
        return Loss(functional.mse_loss(outputs[:, 0], targets, reduction="sum"), None)
    if card.kind is Kind.CHOICE:  # outputs of an example's choices stand one behind the other, row by row
        logits = outputs.new_full(targets.shape, -torch.inf).masked_scatter(targets != IGNORED, outputs[:, 0])
        accepted = logits.masked_fill(targets != 1, -torch.inf)
        chosen = logits.detach().argmax(-1, keepdim=True)
        return Loss((logits.logsumexp(-1) - accepted.logsumexp(-1)).sum(), int((targets.gather(-1, chosen) == 1).sum()))
    if card.kind is Kind.SPAN:
        padding = torch.arange(outputs.shape[1], device=outputs.device) >= lengths[:, None]
        logits = outputs.masked_fill(padding[..., None], torch.finfo(outputs.dtype).min).transpose(1, 2)
        right = (logits.detach().argmax(-1) == targets).all(-1)
        return Loss(
            functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), int(right.sum())
        )
    if card.kind is Kind.TAGGING:
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
    right = outputs.detach().argmax(-1) == targets  # never where it is ignored
    return Loss(functional.cross_entropy(outputs, targets, ignore_index=IGNORED, reduction="sum"), int(right.sum()))
