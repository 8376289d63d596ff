"""The deep prompt: trained keys and values in front of a layer's own (P-Tuning v2, arXiv 2110.07602)."""

from __future__ import annotations

import re
from enum import StrEnum

import torch
from torch import Tensor, nn

from benchmarks.errors import PolypromptError

MLP_WIDTH = 512
"""Hidden width of the reparameterisation, as in the authors' code."""


class Init(StrEnum):
    """How a prompt begins.

    `normal`: keys and values drawn from N(0, 1), as the authors' embedding is.
    `kv`: the frozen encoder's own keys and values of real tokens, so that training begins at states it has seen.
    `zero-gated`: a softmax of its own for the prefix, its result scaled by a gate a head that begins at 0, so that the
    untrained prompt changes nothing (arXiv 2303.16199). A zero prefix alone would still take attention away.
    """

    NORMAL = "normal"
    KV = "kv"
    ZERO_GATED = "zero-gated"


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


class DeepPrompt(nn.Module):
    """Trained prefixes for some layers of a frozen encoder.

    Args:
        layers: indices of the prompted layers, ascending.
        heads: attention heads. slots: prefix length. head_dim: width of a head.
        init: see `Init`.
        states: with `Init.KV`: keys and values of real tokens, [layer, 2, head, slot, head_dim].
        reparameterise: make the prefix by an MLP from an embedding of each slot. The MLP is folded away on saving.
        dropout: on keys and values while training, as the authors do.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        heads: int,
        slots: int,
        head_dim: int,
        init: Init = Init.NORMAL,
        states: Tensor | None = None,
        reparameterise: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.gated = init is Init.ZERO_GATED
        self.shape = (len(layers), 2, heads, slots, head_dim)
        self.dropout = nn.Dropout(dropout)
        start = torch.randn(self.shape) if states is None else states.reshape(self.shape).clone()
        self.gate = nn.Parameter(torch.zeros(len(layers), heads, 1, 1)) if self.gated else None
        self.mlp: nn.Module | None = None
        if reparameterise:
            hidden = heads * head_dim
            self.slots = nn.Parameter(torch.randn(slots, hidden))
            self.mlp = nn.Sequential(
                nn.Linear(hidden, MLP_WIDTH), nn.Tanh(), nn.Linear(MLP_WIDTH, len(layers) * 2 * hidden)
            )
            # What the MLP adds to: real states stay the point of departure whatever its random weights give.
            self.register_buffer("offset", start if init is Init.KV else torch.zeros(()))
        else:
            self.slots = nn.Parameter(start)

    @classmethod
    def of_states(cls, states: Tensor, layers: tuple[int, ...], gated: bool = False) -> DeepPrompt:
        """A prompt that begins at given keys and values, [layer, 2, head, slot, head_dim], a gate folded in."""
        _, _, heads, slots, head_dim = states.shape
        prompt = cls(layers, heads, slots, head_dim, Init.KV, states)
        prompt.gated = gated  # the separate softmax remains
        return prompt

    def tensor(self) -> Tensor:
        """Keys and values with MLP and gate folded in, [layer, 2, head, slot, head_dim]."""
        keys_values = self.slots
        if self.mlp is not None:
            count, _, heads, slots, head_dim = self.shape
            made = self.mlp(self.slots).view(slots, count, 2, heads, head_dim)
            keys_values = made.permute(1, 2, 3, 0, 4) + self.offset
        keys_values = self.dropout(keys_values)
        if self.gate is None:
            return keys_values
        return torch.stack([keys_values[:, 0], keys_values[:, 1] * self.gate], 1)
