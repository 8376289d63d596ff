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
        bank: [prompt, ...], each as its placement describes it; None: there is none.
        placement: where they enter.
        rows: `task_id` -> its row of the bank; None: it has no prompt.
    """

    bank: Floats | None
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
    token_width: int | None = None,
) -> Tensors:
    """Inputs of the graph by their names.

    Args:
        cards: `task_id` -> task; one that is known by several ids, a language each, is there several times.
        heads: by task. hidden: width of the encoder.
        prompt: prompts of all tasks. readout: layers that some of them read instead.
        layers: those in which the graph has room for prompts; none where prompts are vectors in front.
        token_width: of what the graph gives the heads of tags and answers, of which a head that is narrower reads the
            last columns; None: hidden.

    Returns:
        `task_prompt` [tasks], row of the prompts; `layer.N.prefix_key` and `prefix_value` [prompt, slot, hidden], or
        `prompt` [prompt, slot, embedding]; `prompt_lengths` [layer, prompt], how many of these slots a prompt has,
        where vectors in front count as one layer. For both kinds of logits `KIND.head` [tasks], row of the heads,
        `KIND.weight` [head, width, labels] and `KIND.bias` [head, 1, labels]; with a readout the same as
        `sequence_logits.readout`, `sequence_logits.plain` [tasks, 1, 1], false for the tasks that read it, its own
        layers, and of a masked-LM head `read_position` [tasks], the piece that is read.
    """
    behind = [card for card in cards if readout is not None and card.name in readout.tasks]
    tensors: Tensors = {} if prompt is None else _prompts(prompt, layers, hidden)
    plain = [card for card in _answered(cards, "sequence_logits") if card not in behind]
    tensors |= _bank("sequence_logits", cards, plain, heads, hidden)
    tensors |= _bank("token_logits", cards, _answered(cards, "token_logits"), heads, token_width or hidden)
    if readout is not None:
        tensors["readout.dense.weight"], tensors["readout.dense.bias"] = readout.dense.weight, readout.dense.bias
        if readout.norm is not None:
            tensors["readout.norm.scale"], tensors["readout.norm.shift"] = readout.norm.scale, readout.norm.shift
            tensors["read_position"] = np.array([MASK_POSITION * (card in behind) for card in cards], np.int64)
        tensors |= _bank("sequence_logits.readout", cards, behind, heads, readout.dense.weight.shape[1])
        tensors["sequence_logits.plain"] = np.array([card not in behind for card in cards]).reshape(-1, 1, 1)
        _widen(tensors, "sequence_logits", "sequence_logits.readout")
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _prompts(prompt: Prompt, layers: Sequence[int], hidden: int) -> Tensors:
    parts = _parts(prompt, layers, hidden)
    count = 0 if prompt.bank is None else len(prompt.bank)
    lengths = np.array([[part.shape[1]] * count for part in parts.values()], np.int64).reshape(len(parts), count)
    if None in prompt.rows:  # one more prompt, without slots
        parts = {
            name: np.concatenate([part, np.zeros_like(part, shape=(1, *part.shape[1:]))])
            for name, part in parts.items()
        }
        lengths = np.pad(lengths, [(0, 0), (0, 1)])
    rows = [count if row is None else row for row in prompt.rows]
    lengths = lengths if prompt.placement.layers is None else lengths[::2]  # keys and values
    return {"task_prompt": np.array(rows, np.int64), "prompt_lengths": lengths, **parts}


def _parts(prompt: Prompt, layers: Sequence[int], hidden: int) -> Tensors:
    """Input -> its part of all prompts, [prompt, slot, width]; keys and values of a layer are neighbours."""
    if prompt.placement.layers is None:
        return {"prompt": np.zeros((0, 0, hidden), np.float32) if prompt.bank is None else prompt.bank}
    tensors: Tensors = {}
    for layer in layers:
        flat = np.zeros((2, 0 if prompt.bank is None else len(prompt.bank), 0, hidden), np.float32)
        if prompt.bank is not None and layer in prompt.placement.layers:
            own = prompt.bank[:, prompt.placement.layers.index(layer)]
            flat = own.transpose(1, 0, 3, 2, 4).reshape(2, len(own), own.shape[3], hidden)
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
        weight[number, -head.weight.shape[1] :, : len(head.bias)] = head.weight.T
        bias[number, :, : len(head.bias)] = head.bias
    # Another task has no row here: its result is not read, row 0 stands in.
    rows = [owners.index(card.answered_by) if card in answered else 0 for card in cards]
    return {f"{name}.head": np.array(rows, np.int64), f"{name}.weight": weight, f"{name}.bias": bias}


def _widen(tensors: Tensors, *banks: str) -> None:
    """Give banks the width of the widest: their scores go into one output."""
    widest = max(tensors[f"{bank}.bias"].shape[-1] for bank in banks)
    for name in (f"{bank}.{part}" for bank in banks for part in ("weight", "bias")):
        tensor = tensors[name]
        tensors[name] = np.pad(tensor, [(0, 0), (0, 0), (0, widest - tensor.shape[-1])])


def merge(parts: Sequence[Tensors]) -> tuple[Tensors, list[int]]:
    """The tensors of tasks that came separately, as the graph takes them together.

    Banks are as wide as the widest. Frozen layers are those of the first part: they are the same in all.

    Args:
        parts: each with all inputs of one graph.

    Returns:
        The tensors, and for each part what is added to its task ids.
    """
    sizes = [len(part["token_logits.head"]) for part in parts]
    offsets = [sum(sizes[:number]) for number in range(len(parts))]
    if len(parts) == 1:
        return dict(parts[0]), offsets
    merged: Tensors = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if _is_frozen(name):
            merged[name] = arrays[0]
        elif name == "prompt_lengths":
            merged[name] = np.concatenate(arrays, axis=1)
        elif name in _TABLES:
            begin = np.cumsum([0, *(_rows(part, name) for part in parts)])
            merged[name] = np.concatenate([array + first for array, first in zip(arrays, begin, strict=False)])
        else:
            widest = np.max([array.shape[1:] for array in arrays], axis=0, initial=0)
            merged[name] = np.concatenate([_padded(array, widest) for array in arrays])
    if "readout.dense.bias" in merged:
        _widen(merged, "sequence_logits", "sequence_logits.readout")
    return merged, offsets


def select(tensors: Tensors, tasks: Sequence[int]) -> Tensors:
    """The tensors of some tasks, without what only others use.

    Args:
        tasks: their ids, which become 0, 1, ...
    """
    chosen: Tensors = {}
    kept = {table: np.unique(tensors[table][tasks], return_inverse=True) for table in _TABLES if table in tensors}
    for name, tensor in tensors.items():
        if _is_frozen(name):
            chosen[name] = tensor
        elif name in _TABLES:
            chosen[name] = kept[name][1].astype(np.int64)
        elif name == "prompt_lengths":
            chosen[name] = tensor[:, kept["task_prompt"][0]]
        else:
            table = _table_of(name)
            chosen[name] = tensor[list(tasks) if table is None else kept[table][0]]
    return {name: np.ascontiguousarray(tensor) for name, tensor in chosen.items()}


_TABLES = ("task_prompt", "sequence_logits.head", "sequence_logits.readout.head", "token_logits.head")
"""Inputs that say which row of a bank each task has."""


def _rows(tensors: Tensors, table: str) -> int:
    """How many rows the bank of a table has."""
    if table == "task_prompt":
        return tensors["prompt_lengths"].shape[1]
    return len(tensors[table.replace(".head", ".weight")])


def _table_of(bank: str) -> str | None:
    """The table that says whose the rows of a bank are; None where they are the tasks themselves."""
    if bank == "prompt" or bank.startswith("layer."):
        return "task_prompt"
    kind, _, part = bank.rpartition(".")
    return f"{kind}.head" if part in ("weight", "bias") else None


def _is_frozen(name: str) -> bool:
    return name.startswith("readout.")


def _padded(array: NDArray[Any], widest: Sequence[int]) -> NDArray[Any]:
    """An array with zeros up to a size, apart from its first axis."""
    return np.pad(array, [(0, 0), *((0, wide - size) for wide, size in zip(widest, array.shape[1:], strict=True))])
