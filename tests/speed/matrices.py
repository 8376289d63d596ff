"""The matrix products that training a prompt cannot do without, and how fast the processor does such products.

With hidden states of width H, feed-forward layers of width F, k slots, layers 0 to n-1 and the first prompted one f, a
row of s pieces takes, in multiplications and additions (two for each weight that is met):

forward, each layer from f on (a trunk below may be cached; without one, from 0 on)
    queries, keys, values and attention's output   2 s (4 H^2)
    feed-forward                                   2 s (2 H F)
    attention: scores and mixture                  4 s (s + k) H
back to activations, each layer above f
    as much as forward through the weights, and twice as much through attention
back in layer f
    feed-forward and attention's output            2 s (H^2 + 2 H F)
    attention: the weights' gradient, and that of the slots' keys and values alone     2 s (s + k + 2 k) H

No product is for gradients of frozen weights. Where a task reads the first piece alone, the last layer takes one piece
in place of s for queries, attention and all behind it; keys and values are of all s. Padding is not counted: what is
spent on it is lost. Heads, embeddings, normalisation, softmax and the optimiser are no products, or too small to count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Of an encoder with a prompt.

    Attributes:
        layers: of the encoder. hidden: H. inner: F. slots: k. first: the first layer with a prompt.
        computed: the first layer that is computed: 0, or `first` where the layers below are cached.
        reads_first: whether the first piece of a row is all that is read in the end.
    """

    layers: int
    hidden: int
    inner: int
    slots: int
    first: int = 0
    computed: int = 0
    reads_first: bool = True


@dataclass(frozen=True)
class Products:
    """Operations of matrix products; a multiplication with its addition is two.

    Attributes:
        weights: with weights of the layers. attention: within attention.
    """

    weights: int = 0
    attention: int = 0

    def __add__(self, other: Products) -> Products:
        return Products(self.weights + other.weights, self.attention + other.attention)

    @property
    def all(self) -> int:
        """Both."""
        return self.weights + self.attention


def row_products(shape: Shape, pieces: int) -> Products:
    """What one row takes in training, forward and back."""
    total, hidden, keys = Products(), shape.hidden, pieces + shape.slots
    for layer in range(shape.computed, shape.layers):
        asked = 1 if shape.reads_first and layer == shape.layers - 1 else pieces
        behind = 2 * asked * (hidden**2 + 2 * hidden * shape.inner)
        before = 2 * hidden**2 * (asked + 2 * pieces)
        mixing = 4 * asked * keys * hidden
        total += Products(before + behind, mixing)
        if layer > shape.first:
            total += Products(before + behind, 2 * mixing)
        elif layer == shape.first:
            total += Products(behind, 2 * asked * (keys + 2 * shape.slots) * hidden)
    return total


def batch_seconds(
    shape: Shape, rows: int, pieces: int, repeats: int = 3, kind: torch.dtype = torch.bfloat16
) -> tuple[int, float]:
    """How long products of a batch's pieces with the weights of one layer take, forward and back.

    Args:
        shape: of the encoder. rows, pieces: of the batch, padded. repeats: the fastest counts.
        kind: type of states and weights.

    Returns:
        Operations, and seconds.
    """
    tokens, operations, seconds = rows * pieces, 0, 0.0
    hidden, inner = shape.hidden, shape.inner
    for wide, narrow in ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)):
        for out, into in ((wide, narrow), (narrow, wide)):
            states = torch.randn(tokens, into, dtype=kind)
            weight = torch.randn(out, into, dtype=kind)
            times = []
            for _ in range(repeats + 1):
                began = time.perf_counter()
                functional.linear(states, weight)
                times.append(time.perf_counter() - began)
            operations += 2 * tokens * out * into
            seconds += min(times[1:])  # the first prepares
    return operations, seconds


def peak(shape: Shape, batches: Sequence[tuple[int, int]], kind: torch.dtype = torch.bfloat16) -> float:
    """Operations a second of products, over batches of the given rows and pieces."""
    found = [batch_seconds(shape, rows, pieces, kind=kind) for rows, pieces in batches]
    return sum(operations for operations, _ in found) / sum(seconds for _, seconds in found)
