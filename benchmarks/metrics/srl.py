"""Semantic roles as srl-eval.pl counts them, the official script of CoNLL-2005 and 2012 (Carreras, Marquez 2005)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.tags import Tags

VERB = "V"
"""The role of the predicate itself. It is given, so it does not count."""

CONTINUED = "C-"
"""In front of the role of a later piece of an argument."""

Argument = tuple[str, tuple[tuple[int, int], ...]]
"""Role and pieces, each from its first to its last token."""


def arguments(tags: Sequence[str]) -> set[Argument]:
    """The arguments of one predicate.

    A piece "C-A1" joins the nearest argument before it that is an A1, in whatever way that began; without one it is an
    A1 of its own. "R-" arguments are arguments like others. The verb, with its own continuations, is left out. Pieces
    begin and end by the rules of conlleval.pl, so every sequence of BIO tags can be read.

    Args:
        tags: one a token, as "B-A0", "I-C-A1" or "O".
    """
    nearest: dict[str, list[tuple[int, int]]] = {}
    found: list[tuple[str, list[tuple[int, int]]]] = []
    for role, first, last in _pieces(tags):
        name = role.removeprefix(CONTINUED)
        if name == role or name not in nearest:
            nearest[name] = []
            found.append((name, nearest[name]))
        nearest[name].append((first, last))
    return {(role, tuple(pieces)) for role, pieces in found if role != VERB}


def argument_sums(gold: Tags, predicted: Tags) -> NDArray[np.int64]:
    """What each predicate adds to `argument_f1`: twice its right arguments, and its gold and predicted ones, [rows, 2].

    An argument is right when its role and all of its pieces are.

    Args:
        gold: the tags of each predicate's sentence.
        predicted: as many tags for each of the same.
    """
    sums = np.zeros((len(gold), 2), np.int64)
    for row, (right, given) in enumerate(zip(gold, predicted, strict=True)):
        in_gold, in_predicted = arguments(right), arguments(given)
        sums[row] = 2 * len(in_gold & in_predicted), len(in_gold) + len(in_predicted)
    return sums


def argument_f1(gold: Tags, predicted: Tags) -> float:
    """Micro F1 over the arguments of all predicates, 0..1; 0 when neither side has an argument.

    Args:
        gold, predicted: as for `argument_sums`.
    """
    twice_right, both = argument_sums(gold, predicted).sum(axis=0)
    return float(twice_right / max(both, 1))


def _pieces(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Role, first and last token of each chunk, in order."""
    role, first = "", 0
    for at, tag in enumerate(tags):
        name = tag[2:]  # "" outside
        if name != role or tag.startswith("B-"):
            if role:
                yield role, first, at - 1
            role, first = name, at
    if role:
        yield role, first, len(tags) - 1
