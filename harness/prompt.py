"""The trained prompt: keys and values in front of a layer's own (arXiv 2110.07602), or vectors before the input."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

from benchmarks.errors import PolypromptError
from harness.placement import Placement

MLP_WIDTH = 512
"""Hidden width of the reparameterisation, as in the authors' code."""


def parse_layers(text: str, layers: int) -> tuple[int, ...]:
    """Which layers get a prefix.

    Args:
        text: "all", "top:N", "bottom:N", or indices and ranges from 0 such as "6-11" and "0,2,4-5".
        layers: how many the encoder has.

    Returns:
        Ascending indices.

    Raises:
        PolypromptError: not of that form, empty, or beyond the encoder.
    """
    help_text = f'use "all", "top:N", "bottom:N" or indices from 0 to {layers - 1} such as "0,2,4-5"'
    if text == "all":
        return tuple(range(layers))
    if match := re.fullmatch(r"(top|bottom):(\d+)", text):
        count = int(match[2])
        if not 1 <= count <= layers:
            raise PolypromptError(f"--prompt-layers {text}: the backbone has {layers} layers; {help_text}")
        return tuple(range(layers - count, layers) if match[1] == "top" else range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < layers:
            raise PolypromptError(f"--prompt-layers {text}: {part!r} is no layer of this backbone; {help_text}")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


class TrainedPrompt(nn.Module):
    """A prompt while it is trained: deep, or of the input alone, as its placement says.

    Args:
        placement: where it enters.
        start: what it begins at, as `Placement.layers` describes it. With an MLP: what the MLP's result is added to.
        gate: scale the values by a gate a head that begins at 0; needs a placement that is gated.
        reparameterise: make the prompt by an MLP from an embedding of each slot. The MLP is folded away on saving.
        dropout: on the prompt while training, as the authors do.
    """

    def __init__(
        self,
        placement: Placement,
        start: Tensor,
        gate: bool = False,
        reparameterise: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.placement = placement
        self.shape = tuple(start.shape)
        self.dropout = nn.Dropout(dropout)
        self.gate = nn.Parameter(torch.zeros(len(start), start.shape[2], 1, 1)) if gate else None
        self.mlp: nn.Module | None = None
        if reparameterise:
            slots = start.shape[-2]
            width = start.numel() // slots
            hidden = width // math.prod(start.shape[:-3])  # a deep prompt has keys and values of several layers
            self.slots = nn.Parameter(torch.randn(slots, hidden))
            self.mlp = nn.Sequential(nn.Linear(hidden, MLP_WIDTH), nn.Tanh(), nn.Linear(MLP_WIDTH, width))
            self.start = nn.Buffer(start)
        else:
            self.slots = nn.Parameter(start)

    def tensor(self) -> Tensor:
        """The prompt with MLP and gate folded in, of the shape of `start`."""
        states = self.slots
        if self.mlp is not None:
            states = by_slot(self.mlp(self.slots), self.shape) + self.start
        states = self.dropout(states)
        if self.gate is None:
            return states
        return torch.stack([states[:, 0], states[:, 1] * self.gate], 1)


def by_slot(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A row for each slot, [slot, width], as a prompt of the given shape, whose last axis but one is that of slots."""
    return rows.view(shape[-2], *shape[:-2], shape[-1]).movedim(0, -2)
