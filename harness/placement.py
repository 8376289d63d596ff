"""Where a prompt enters an encoder. Free of torch: what trains a prompt, stores it and exports it says it alike."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Positions(StrEnum):
    """Where the positions of the real tokens begin.

    `own`: at 0, as without a prompt. `shifted`: behind the prompt, as in the code of P-Tuning v2 and in peft, where
    the prompt comes in as past keys and values; a row may then be shorter by the length of the prompt.
    """

    OWN = "own"
    SHIFTED = "shifted"


class Placement(BaseModel):
    """How the tensor of a prompt is read.

    Attributes:
        layers: indices of the layers in whose attention keys and values are added, ascending; the tensor is then
            [layer, 2, head, slot, head_dim], 2 = key, value. None: vectors in front of the word embeddings, [slot,
            embedding], and nothing in the layers.
        gated: see `harness.attention.Prefix`.
        positions: of the real tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[int, ...] | None
    gated: bool = False
    positions: Positions = Positions.OWN
