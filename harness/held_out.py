"""Which rows of a training split train, and which are held out to select: an epoch, a rate, a threshold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np

from benchmarks.records import Example, Split
from benchmarks.task import Kind, TaskCard

MOST = 500
"""At most so many rows, and at most a tenth of those to train on, are held out."""


class Selection(StrEnum):
    """What chooses among epochs and learning rates.

    `held-out`: rows of the training split that are not trained on; never those that are reported. `paper`: the
    reported rows themselves, as P-Tuning v2's code does: the score is then the best of many looks at them, and marked.
    `last`: nothing, the last epoch counts.
    """

    HELD_OUT = "held-out"
    PAPER = "paper"
    LAST = "last"


def hold_out(card: TaskCard, train: Split, limit: int | None, seed: int) -> tuple[Split, Split]:
    """Divide a training split.

    Args:
        card: the task. train: all rows.
        limit: at most so many will be trained on (None: all), which bounds what is worth holding out.
        seed: of the choice.

    Returns:
        Rows to train on, and rows held out. Rows of one context (a passage, a sentence) stay on one side.
    """
    most = min(MOST, min(len(train.examples), limit or len(train.examples)) // 10)
    sizes = Counter(_context(card, example) for example in train.examples)
    contexts = list(sizes)
    chosen: set[Hashable] = set()
    count = 0
    for number in np.random.default_rng(seed).permutation(len(contexts)):
        if count + sizes[contexts[number]] <= most:
            chosen.add(contexts[number])
            count += sizes[contexts[number]]
    sides = [
        tuple(example for example in train.examples if (_context(card, example) in chosen) is held)
        for held in (False, True)
    ]
    return replace(train, examples=sides[0]), replace(train, examples=sides[1])


def few_shot(card: TaskCard, train: Split, shots: int, seed: int) -> tuple[Split, Split]:
    """Few training rows, and as many others to select with, as FewGLUE has them (arXiv 2009.07118; FewGLUE_32dev).

    Args:
        card: the task. train: all rows. shots: of each side. seed: of the choice.

    Returns:
        Rows to train on and rows held out; labels in turn as far as there are rows of each.
    """
    order = np.random.default_rng(seed).permutation(len(train.examples))
    by_label: dict[str | None, list[int]] = defaultdict(list)
    for row in order:
        example = train.examples[row]
        by_label[example.label if card.kind in (Kind.CLASSIFICATION, Kind.CHOICE) else None].append(int(row))
    rounds = _in_turn(list(by_label.values()))
    sides = [[row for rows in rounds[side::2] for row in rows][:shots] for side in (0, 1)]
    kept = [tuple(train.examples[row] for row in sorted(rows)) for rows in sides]
    return replace(train, examples=kept[0]), replace(train, examples=kept[1])


def folds(card: TaskCard, few: Split, count: int, seed: int) -> list[tuple[Split, Split]]:
    """Divide few rows for cross-validation.

    Args:
        card: the task. few: all rows. count: of folds. seed: of the choice.

    Returns:
        For each fold the rows to train on and those to score; each row is scored in one of them. Labels are spread over
        the folds, and rows of one context stay together.
    """
    contexts: dict[Hashable, list[int]] = defaultdict(list)
    for row in np.random.default_rng(seed).permutation(len(few.examples)):
        contexts[_context(card, few.examples[row])].append(int(row))
    by_label: dict[str | None, list[list[int]]] = defaultdict(list)
    for rows in contexts.values():
        by_label[few.examples[rows[0]].label].append(rows)
    place: dict[int, int] = {}
    dealt = (rows for group in by_label.values() for rows in group)
    for number, rows in enumerate(dealt):
        place |= dict.fromkeys(rows, number % count)
    return [
        tuple(  # type: ignore[misc]
            replace(few, examples=tuple(row for n, row in enumerate(few.examples) if (place[n] == fold) is scored))
            for scored in (False, True)
        )
        for fold in range(count)
    ]


def _in_turn(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rounds of one of each group, as long as there are any."""
    longest = max(map(len, groups), default=0)
    return [[group[place] for group in groups if place < len(group)] for place in range(longest)]


def _context(card: TaskCard, example: Example) -> Hashable:
    """What rows have in common that must not be on both sides."""
    if card.kind is Kind.SPAN:
        return example.text_pair
    if card.kind is Kind.TAGGING and example.marked is not None:
        return example.tokens
    return example.text if example.group else example.id
