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
        rows: `task_id` -> its row of the bank.
    """

    bank: Floats
    placement: Placement
    rows: Sequence[int]


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
) -> Tensors:
    """Inputs of the graph by their names.

    Args:
        cards: `task_id` -> task; one that is known by several ids, a language each, is there several times.
        heads: by task. hidden: width of the encoder.
        prompt: prompts of all tasks. readout: layers that some of them read instead.

    Returns:
        `task_prompt` [tasks], row of the prompts; `layer.N.prefix_key` and `prefix_value` [prompt, slot, hidden], or
        `prompt` [prompt, slot, embedding]. For both kinds of logits `KIND.head` [tasks], row of the heads,
        `KIND.weight` [head, hidden, labels] and `KIND.bias` [head, 1, labels]; with a readout the same as
        `sequence_logits.readout`, `sequence_logits.plain` [tasks, 1, 1], false for the tasks that read it, and its
        own layers.
    """
    behind = [card for card in cards if readout is not None and card.name in readout.tasks]
    tensors: Tensors = {} if prompt is None else _prompts(prompt)
    plain = [card for card in _answered(cards, "sequence_logits") if card not in behind]
    tensors |= _bank("sequence_logits", cards, plain, heads, hidden)
    tensors |= _bank("token_logits", cards, _answered(cards, "token_logits"), heads, hidden)
    if readout is not None:
        tensors["readout.dense.weight"], tensors["readout.dense.bias"] = readout.dense.weight, readout.dense.bias
        if readout.norm is not None:
            tensors["readout.norm.scale"], tensors["readout.norm.shift"] = readout.norm.scale, readout.norm.shift
        tensors |= _bank("sequence_logits.readout", cards, behind, heads, readout.dense.weight.shape[1])
        tensors["sequence_logits.plain"] = np.array([card not in behind for card in cards]).reshape(-1, 1, 1)
        _widen(tensors, "sequence_logits", "sequence_logits.readout")
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _prompts(prompt: Prompt) -> Tensors:
    tensors: Tensors = {"task_prompt": np.array(prompt.rows, np.int64)}
    if prompt.placement.layers is None:
        return tensors | {"prompt": prompt.bank}
    prompts, _, _, heads, slots, head_dim = prompt.bank.shape
    for place, layer in enumerate(prompt.placement.layers):
        flat = prompt.bank[:, place].transpose(1, 0, 3, 2, 4).reshape(2, prompts, slots, heads * head_dim)
        tensors |= {f"layer.{layer}.prefix_{kind}": bank for kind, bank in zip(("key", "value"), flat, strict=True)}
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
