"""F1 of sentence pairs that were mined from two texts (BUCC 2018)."""

from __future__ import annotations

from collections.abc import Sequence


def pair_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """F1 between the pairs that were given and the right ones, 0..1; 0 when no pair is right.

    Args:
        gold: id of the right partner of each sentence, "" for none.
        predicted: id of the given partner, "" for none.
    """
    right = sum(a == b != "" for a, b in zip(gold, predicted, strict=True))
    return 2 * right / max(sum(map(bool, gold)) + sum(map(bool, predicted)), 1)
