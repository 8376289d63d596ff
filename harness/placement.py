"""How a prompt begins, who shares it, where it enters. Free of torch: settings, training and export say it alike."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Init(StrEnum):
    """How a prompt begins.

    `normal`: keys and values drawn from N(0, 1), as the authors' embedding is; vectors before the input with the
    spread of the word embeddings.
    `kv`: the frozen encoder's own keys and values of real tokens, so that training begins at states it has seen;
    before the input their word embeddings.
    `zero-gated`: a softmax of its own for the prefix, its result scaled by a gate a head that begins at 0, so that the
    untrained prompt changes nothing (arXiv 2303.16199). A zero prefix alone would still take attention away.
    """

    NORMAL = "normal"
    KV = "kv"
    ZERO_GATED = "zero-gated"


class Sharing(StrEnum):
    """How tasks share a prompt.

    `shared`: one prompt, a head each. `specialise`: one prompt first, then each task goes on alone from it (the
    multi-task variant of P-Tuning v2, MPT-2). `low-rank`: one prompt, and a part of low rank a task and a language on
    top of it. `separate`: a prompt a task.
    """

    SHARED = "shared"
    SPECIALISE = "specialise"
    LOW_RANK = "low-rank"
    SEPARATE = "separate"


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
