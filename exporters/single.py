"""The graph of one task alone: prompt and head are constants, inputs and outputs have the names of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.task import Kind, TaskCard
from exporters.disentangled import NOWHERE, distance_bias
from exporters.graph import Blueprint, Graph
from exporters.nodes import Nodes
from exporters.weights import EncoderWeights, Linear
from harness.features import MASK_POSITION
from harness.heads import HeadKind, HeadLayers, Pooling
from harness.placement import Positions

OPSET = 18
"""Old enough for the runtimes of other tools (ONNX Runtime 1.14 and newer). It has neither Attention nor Gelu: both are
written out, in the forms that ONNX Runtime fuses where it can."""

DATA = "model.onnx_data"
"""The file of the weights where they are too many for one ONNX file."""

LOWEST = float(np.finfo(np.float32).min)
"""Added to the score of a key that is not real; not infinite, so that a row without real pieces gives numbers too."""


def build_single(
    weights: EncoderWeights,
    blueprint: Blueprint,
    card: TaskCard,
    tensors: Mapping[str, NDArray[Any]],
    mask_id: int | None = None,
) -> Graph:
    """Write the graph of one task.

    Inputs are `input_ids`, `attention_mask` (1: real) and, where the backbone has token types, `token_type_ids`, all
    int64 [batch, seq], in multiple choice [batch, choices, seq]. A piece that is not real is as if it were not there,
    wherever it stands: positions and the first piece are counted over the real ones, so rows may be padded on either
    side. Outputs by kind: `logits` [batch, labels], in regression [batch, 1], in multiple choice [batch, choices], in
    tagging [batch, seq, labels]; span extraction `start_logits` and `end_logits` [batch, seq]; retrieval
    `last_hidden_state` [batch, seq, hidden] and `sentence_embedding`, unit vectors [batch, hidden].

    Args:
        weights: the encoder. blueprint: with the readout of this task, and the prompts that it has. card: the task.
        tensors: `exporters.tasks.task_tensors` of this task alone.
        mask_id: the piece at which the task is answered; the graph puts it into each row.
    """
    return _Single(weights, blueprint, card, tensors, mask_id).write()


class _Single(Nodes):
    """Writes the graph of a task. What stands in front of a row elsewhere stands behind it here, where no place in the
    row moves; attention does not ask for the order."""

    def __init__(
        self,
        weights: EncoderWeights,
        blueprint: Blueprint,
        card: TaskCard,
        tensors: Mapping[str, NDArray[Any]],
        mask_id: int | None,
    ) -> None:
        super().__init__(weights, DATA)
        self.blueprint, self.card, self.tensors, self.mask_id = blueprint, card, tensors, mask_id

    def write(self) -> Graph:
        self.read_inputs()
        states = self.embeddings()
        bias = self.node("Where", [self.is_real(), self.number(0.0), self.number(LOWEST)])
        self.mask = self.node("Unsqueeze", [bias, self.integers([1, 2])], "mask")
        if self.slots:
            self.wide_mask = self.node("Pad", [self.mask, self.integers([0] * 7 + [self.slots])], "wide_mask")
        entered = [states]
        for number in range(len(self.weights.layers) - 1):
            entered.append(self.layer(number, entered[-1]))
        return Graph(self.model(self.results(entered), OPSET), self.backbone)

    @property
    def slots(self) -> int:
        """Prompt length."""
        sizes = [array.shape[1] for name, array in self.tensors.items() if name == "prompt" or "prefix_key" in name]
        return max(sizes, default=0)

    @property
    def position(self) -> int:
        """Of the piece that a task with one answer for the row reads."""
        return MASK_POSITION if self.blueprint.readout is HeadKind.VERBALISER else 0

    def read_inputs(self) -> None:
        """Set `ids`, `types` and `places` [rows, seq]: the number of each real piece in its row from 0, else -1."""
        choice = self.card.kind is Kind.CHOICE
        shape = ["batch_size", *(["num_choices"] if choice else []), "sequence_length"]
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self.weights.token_types else [])]
        rows = [self.given(name, shape, TensorProto.INT64) for name in names]
        if choice:
            rows = [self.node("Flatten", [name], axis=2) for name in rows]
        self.ids, mask, *types = rows
        count = self.node("Mul", [self.node("CumSum", [mask, self.integers(1)]), mask])
        self.places = self.node("Sub", [count, self.integers(1)])
        if self.mask_id is not None:
            # It takes its place and moves those behind it; where it stands in the tensor changes nothing.
            behind = self.node("GreaterOrEqual", [self.places, self.integers(MASK_POSITION)])
            self.places = self.node("Add", [self.places, self.node("Cast", [behind], to=TensorProto.INT64)])
            self.places = self.with_piece(self.places, MASK_POSITION)
            self.ids = self.with_piece(self.ids, self.mask_id)
            types = [self.with_piece(name, 0) for name in types]
        self.types = types[0] if types else None

    def with_piece(self, rows: str, value: int) -> str:
        return self.node("Pad", [rows, self.integers([0, 0, 0, 1]), self.integers(value)])

    def is_real(self) -> str:
        return self.node("GreaterOrEqual", [self.places, self.integers(0)], "is_real")

    def embeddings(self) -> str:
        """What enters the first layer, [rows, seq, hidden]; [rows, seq + slots, hidden] where prompts are vectors."""
        weights, placement = self.weights, self.blueprint.placement
        total = self.node("Gather", [self.frozen("word", weights.word), self.ids], "word_embedding")
        shift = self.slots if placement is not None and placement.positions is Positions.SHIFTED else 0
        begin = weights.first_position
        places = self.node("Max", [self.places, self.integers(0)])
        places = self.node("Add", [places, self.integers(begin + shift)])
        if weights.position is not None:
            total = self.node("Add", [total, self.node("Gather", [self.frozen("position", weights.position), places])])
        if weights.token_type is not None:
            kinds = self.frozen("token_type", weights.token_type)
            total = self.node("Add", [total, kinds if self.types is None else self.node("Gather", [kinds, self.types])])
        if placement is not None and placement.layers is None:
            vectors = self.tensors["prompt"]
            if weights.position is not None:
                vectors = vectors + weights.position[begin : begin + (shift or 1)]
            if weights.token_type is not None:
                vectors = vectors + weights.token_type[0]
            total = self.node("Concat", [total, self.for_each_row("prompt", vectors)], axis=1)
        total = self.norm("embedding_norm", total, weights.embedding_norm)
        return total if weights.projection is None else self.linear("projection", total, weights.projection)

    def for_each_row(self, name: str, array: NDArray[Any]) -> str:
        """A constant [1, slots, width] as [rows, slots, width]."""
        zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
        first = self.node(
            "ConstantOfShape", [self.node("Shape", [self.ids], "rows", start=0, end=1)], "first", value=zero
        )
        return self.node("Gather", [self.constant(name, array), first])

    def layer(self, number: int, states: str, read: str | None = None) -> str:
        """One layer.

        Args:
            read: states of the one piece a row that is needed behind it, [rows, 1, hidden]; None: of all.
        """
        name, qkv, hidden = f"layer.{number}", self.weights.layers[number].qkv, self.weights.hidden
        if read is None:
            query, key, value = self.split(self.linear(f"{name}.qkv", states, qkv), ("query", "key", "value"))
        else:
            query = self.linear(f"{name}.query", read, Linear(qkv.weight[:, :hidden], qkv.bias[:hidden]))
            rest = Linear(qkv.weight[:, hidden:], qkv.bias[hidden:])
            key, value = self.split(self.linear(f"{name}.key_value", states, rest), ("key", "value"))
        return self.behind_attention(
            number, self.attention(number, query, key, value, read is not None), read or states
        )

    def attention(self, number: int, query: str, key: str, value: str, read: bool) -> str:
        """Attention over what is real, and over the prefix where the layer has one.

        Args:
            read: the query is that of the one piece a row that is read.
        """
        name, placement = f"layer.{number}", self.blueprint.placement

        def mixed(key: str, value: str, mask: str, behind: int = 0) -> str:
            if self.weights.distances is not None:
                asked, shown = self.stands(read, behind)
                bias = distance_bias(self, number, query, key, asked, shown)
                mask = self.node("Add", [bias, mask]) if bias else mask
            return self.attend(query, key, value, mask)

        if placement is not None and placement.layers is None:
            return mixed(key, value, self.wide_mask)
        if placement is None or number not in placement.layers:
            return mixed(key, value, self.mask)
        banks = [f"{name}.prefix_{kind}" for kind in ("key", "value")]
        prefix = [self.for_each_row(bank, self.tensors[bank]) for bank in banks]
        if placement.gated:
            return self.node("Add", [mixed(key, value, self.mask), self.attend(query, *prefix)])
        key, value = (self.node("Concat", list(pair), axis=1) for pair in zip((key, value), prefix, strict=True))
        return mixed(key, value, self.wide_mask, self.slots)

    def stands(self, read: bool, behind: int) -> tuple[str, str]:
        """Where queries and keys stand, see `exporters.disentangled`; vectors stand in front.

        Args:
            read: see `attention`. behind: so many keys of a prefix.
        """
        place, shown, first = self.blueprint.placement, self.places, 0
        if place is not None and place.layers is None:
            first, vectors = self.slots, np.arange(self.slots, dtype=np.int64)[None]
            shown = self.node("Add", [self.places, self.integers(first)])
            shown = self.node("Concat", [shown, self.for_each_row("vector_places", vectors)], axis=1)
        asked = self.integers([[first + self.position]]) if read else shown
        if behind:
            shown = self.node("Pad", [shown, self.integers([0, 0, 0, behind]), self.integers(NOWHERE)])
        return asked, shown

    def attend(self, query: str, key: str, value: str, bias: str | None = None) -> str:
        hidden = self.weights.hidden
        scaled = self.node("Mul", [query, self.number(self.weights.scaling)])
        scores = self.node("MatMul", [self.by_head(scaled, [0, 2, 1, 3]), self.by_head(key, [0, 2, 3, 1])])
        if bias is not None:
            scores = self.node("Add", [scores, bias])
        mixed = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), self.by_head(value, [0, 2, 1, 3])])
        mixed = self.node("Transpose", [mixed], perm=[0, 2, 1, 3])
        return self.node("Reshape", [mixed, self.integers([0, 0, hidden])])

    def by_head(self, states: str, order: Sequence[int]) -> str:
        shape = self.integers([0, 0, self.weights.heads, self.weights.hidden // self.weights.heads])
        return self.node("Transpose", [self.node("Reshape", [states, shape])], perm=order)

    def gelu(self, states: str) -> str:
        root, one, half = (self.number(value) for value in (math.sqrt(2), 1.0, 0.5))
        share = self.node("Add", [self.node("Erf", [self.node("Div", [states, root])]), one])
        return self.node("Mul", [self.node("Mul", [states, share]), half])

    def results(self, entered: Sequence[str]) -> list[onnx.ValueInfoProto]:
        """The last layer and the outputs of the kind of task.

        Args:
            entered: what entered each layer, [rows, seq, hidden]
        """
        states = entered[-1]
        last = len(self.weights.layers) - 1
        batch, seq, hidden = "batch_size", "sequence_length", self.weights.hidden
        if self.card.kind in (Kind.CLASSIFICATION, Kind.REGRESSION, Kind.CHOICE):
            return [self.sequence_logits(last, states)]
        states = self.pieces(self.layer(last, states))
        if self.card.kind is Kind.RETRIEVAL:
            self.node("Identity", [states], "last_hidden_state")
            self.unit_vector(self.mean(states))
            return [_floats("last_hidden_state", [batch, seq, hidden]), _floats("sentence_embedding", [batch, hidden])]
        if self.blueprint.head_layers is HeadLayers.ALL:
            states = self.node("Concat", [*map(self.pieces, entered), states], axis=-1)
        if self.card.kind is Kind.TAGGING:
            self.head("token_logits", states, "logits")
            return [_floats("logits", [batch, seq, self.columns("token_logits")])]
        both, names = self.head("token_logits", states), ("start_logits", "end_logits")
        for column, name in enumerate(names):
            self.node("Gather", [both, self.integers(column)], name, axis=2)
        return [_floats(name, [batch, seq]) for name in names]

    def sequence_logits(self, last: int, states: str) -> onnx.ValueInfoProto:
        bank, linear = "sequence_logits", self.blueprint.readout is HeadKind.LINEAR
        if linear and self.blueprint.pooling is Pooling.MEAN:
            read = self.mean(self.pieces(self.layer(last, states)))
        else:
            read = self.layer(last, states, self.piece(states, self.position))
        if not linear:
            bank, read = "sequence_logits.readout", self.read_out(read)
        logits = self.head(bank, read)
        if self.card.kind is Kind.CHOICE:
            self.node("Reshape", [logits, self.node("Shape", ["input_ids"], start=0, end=2)], "logits")
            return _floats("logits", ["batch_size", "num_choices"])
        self.node("Squeeze", [logits, self.integers([1])], "logits")
        return _floats("logits", ["batch_size", self.columns(bank)])

    def pieces(self, states: str) -> str:
        """States without those of vectors behind the row."""
        if self.blueprint.placement is None or self.blueprint.placement.layers is not None:
            return states
        return self.node("Slice", [states, *(self.integers([n]) for n in (0, -self.slots, 1))])

    def piece(self, states: str, position: int) -> str:
        """The state of a real piece by its number in the row, [rows, 1, hidden]."""
        here = self.node("Cast", [self.node("Equal", [self.places, self.integers(position)])], to=TensorProto.FLOAT)
        place = self.node("ArgMax", [here], axis=1, keepdims=1)
        return self.node("GatherND", [states, self.node("Unsqueeze", [place, self.integers([2])])], batch_dims=1)

    def mean(self, states: str) -> str:
        """Mean over real pieces, [rows, 1, hidden]."""
        real = self.node("Cast", [self.is_real()], to=TensorProto.FLOAT)
        count = self.node("ReduceSum", [real, self.integers([1])], keepdims=1)
        share = self.node("Div", [real, self.node("Max", [count, self.number(1.0)])])
        return self.node("MatMul", [self.node("Unsqueeze", [share, self.integers([1])]), states])

    def unit_vector(self, mean: str) -> str:
        vector = self.node("Squeeze", [mean, self.integers([1])])
        length = self.node("ReduceL2", [vector, self.integers([1])], keepdims=1)
        # the least length as in torch.nn.functional.normalize
        return self.node("Div", [vector, self.node("Max", [length, self.number(1e-12)])], "sentence_embedding")

    def read_out(self, states: str) -> str:
        """What a head behind a readout gets, [rows, 1, width]."""
        weight, bias = (
            self.constant(name, self.tensors[name]) for name in ("readout.dense.weight", "readout.dense.bias")
        )
        dense = self.node("Add", [self.node("MatMul", [states, weight]), bias])
        if self.blueprint.readout is HeadKind.POOLER:
            return self.node("Tanh", [dense])
        norm = [self.constant(name, self.tensors[name]) for name in ("readout.norm.scale", "readout.norm.shift")]
        return self.normalised("readout.norm", [self.gelu(dense), *norm])

    def head(self, bank: str, states: str, name: str | None = None) -> str:
        weight, bias = (
            self.constant(f"{bank}.{part}", self.tensors[f"{bank}.{part}"][0]) for part in ("weight", "bias")
        )
        return self.node("Add", [self.node("MatMul", [states, weight]), bias], name)

    def columns(self, bank: str) -> int:
        """Labels of a head."""
        return int(self.tensors[f"{bank}.bias"].shape[-1])

    def number(self, value: float) -> str:
        return self.constant(f"float:{value}", np.array(value, np.float32))


def _floats(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
