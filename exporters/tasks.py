"""The tensors of the tasks: prompts, heads, and what stands before them, as the graph takes them on every call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.task import TaskCard
from exporters.graph import OUTPUTS, Output
from exporters.weights import Floats, Linear, Norm
from harness.features import MASK_POSITION
from harness.placement import Placement

TASKS = "tasks.safetensors"
"""The file of these tensors in a bundle, under the names of the graph's inputs."""

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Prompt:
    """Trained prompts in their folded form.

    Attributes:
        bank: [prompt, ...], each as its placement describes it.
        placement: where they enter.
        rows: `task_id` -> its row of the bank; None: it has no prompt.
    """

    bank: Floats
    placement: Placement
    rows: Sequence[int | None]


@dataclass(frozen=True)
class Head:
    """A linear head: weight [labels, hidden], bias [labels], as torch keeps them."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Readout:
    """Frozen layers between the state of one piece and the heads of sequence tasks.

    Attributes:
        tasks: names of the tasks that have them; the heads of other ones read the state itself.
        dense: [hidden, width].
        norm: of a masked-LM head, `norm(gelu(dense(x)))`, with the encoder's epsilon; None: of a pooler,
            `tanh(dense(x))`.
    """

    tasks: frozenset[str]
    dense: Linear
    norm: Norm | None


def task_tensors(
    cards: Sequence[TaskCard],
    heads: Mapping[str, Head],
    hidden: int,
    prompt: Prompt | None = None,
    readout: Readout | None = None,
    layers: Sequence[int] = (),
) -> Tensors:
    """Inputs of the graph by their names.

    Args:
        cards: `task_id` -> task; one that is known by several ids, a language each, is there several times.
        heads: by task. hidden: width of the encoder.
        prompt: prompts of all tasks. readout: layers that some of them read instead.
        layers: those in which the graph has room for prompts; none where prompts are vectors in front.

    Returns:
        `task_prompt` [tasks], row of the prompts; `layer.N.prefix_key` and `prefix_value` [prompt, slot, hidden], or
        `prompt` [prompt, slot, embedding]; `prompt_lengths` [layer, prompt], how many of these slots a prompt has,
        where vectors in front count as one layer. For both kinds of logits `KIND.head` [tasks], row of the heads,
        `KIND.weight` [head, hidden, labels] and `KIND.bias` [head, 1, labels]; with a readout the same as
        `sequence_logits.readout`, `sequence_logits.plain` [tasks, 1, 1], false for the tasks that read it, its own
        layers, and of a masked-LM head `read_position` [tasks], the piece that is read.
    """
    behind = [card for card in cards if readout is not None and card.name in readout.tasks]
    tensors: Tensors = {} if prompt is None else _prompts(prompt, layers)
    plain = [card for card in _answered(cards, "sequence_logits") if card not in behind]
    tensors |= _bank("sequence_logits", cards, plain, heads, hidden)
    tensors |= _bank("token_logits", cards, _answered(cards, "token_logits"), heads, hidden)
    if readout is not None:
        tensors["readout.dense.weight"], tensors["readout.dense.bias"] = readout.dense.weight, readout.dense.bias
        if readout.norm is not None:
            tensors["readout.norm.scale"], tensors["readout.norm.shift"] = readout.norm.scale, readout.norm.shift
            tensors["read_position"] = np.array([MASK_POSITION * (card in behind) for card in cards], np.int64)
        tensors |= _bank("sequence_logits.readout", cards, behind, heads, readout.dense.weight.shape[1])
        tensors["sequence_logits.plain"] = np.array([card not in behind for card in cards]).reshape(-1, 1, 1)
        _widen(tensors, "sequence_logits", "sequence_logits.readout")
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _prompts(prompt: Prompt, layers: Sequence[int]) -> Tensors:
    bank, placement = prompt.bank, prompt.placement
    if None in prompt.rows:  # one more prompt, without slots
        bank = np.concatenate([bank, np.zeros_like(bank[:1])])
    rows = [len(bank) - 1 if row is None else row for row in prompt.rows]
    lengths = np.full((len(layers) or 1, len(bank)), bank.shape[-2], np.int64)
    lengths[:, len(prompt.bank) :] = 0
    tensors: Tensors = {"task_prompt": np.array(rows, np.int64), "prompt_lengths": lengths}
    if placement.layers is None:
        return tensors | {"prompt": bank}
    prompts, _, _, heads, slots, head_dim = bank.shape
    for place, layer in enumerate(layers):
        flat = np.zeros((2, prompts, 0, heads * head_dim), np.float32)
        if layer in placement.layers:
            own = bank[:, placement.layers.index(layer)]
            flat = own.transpose(1, 0, 3, 2, 4).reshape(2, prompts, slots, heads * head_dim)
        lengths[place] = np.minimum(lengths[place], flat.shape[2])
        tensors |= {f"layer.{layer}.prefix_{kind}": part for kind, part in zip(("key", "value"), flat, strict=True)}
    return tensors


def _answered(cards: Sequence[TaskCard], output: Output) -> list[TaskCard]:
    """The tasks that an output answers for."""
    return [card for card in cards if OUTPUTS[card.kind] == output]


def _bank(
    name: str, cards: Sequence[TaskCard], answered: Sequence[TaskCard], heads: Mapping[str, Head], width: int
) -> Tensors:
    """The heads of some tasks, as wide as the widest; one head of zeros where there is none."""
    owners = list(dict.fromkeys(card.answered_by for card in answered))
    labels = max((len(heads[owner].bias) for owner in owners), default=1)
    weight = np.zeros((max(len(owners), 1), width, labels), np.float32)
    bias = np.zeros((max(len(owners), 1), 1, labels), np.float32)
    for number, head in enumerate(heads[owner] for owner in owners):
        weight[number, :, : len(head.bias)], bias[number, :, : len(head.bias)] = head.weight.T, head.bias
    # Another task has no row here: its result is not read, row 0 stands in.
    rows = [owners.index(card.answered_by) if card in answered else 0 for card in cards]
    return {f"{name}.head": np.array(rows, np.int64), f"{name}.weight": weight, f"{name}.bias": bias}


def _widen(tensors: Tensors, *banks: str) -> None:
    """Give banks the width of the widest: their scores go into one output."""
    widest = max(tensors[f"{bank}.bias"].shape[-1] for bank in banks)
    for name in (f"{bank}.{part}" for bank in banks for part in ("weight", "bias")):
        tensor = tensors[name]
        tensors[name] = np.pad(tensor, [(0, 0), (0, 0), (0, widest - tensor.shape[-1])])
