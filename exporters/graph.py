"""The ONNX graph of a prompted encoder, written straight from the weights; its tasks are inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.task import Kind
from exporters.tensors import TensorFile
from exporters.weights import EncoderWeights, Floats, Layer, Linear, Norm
from harness.features import MASK_POSITION
from harness.heads import HeadKind, Pooling
from harness.placement import Placement, Positions

OPSET = 24
"""The first with `nonpad_kv_seqlen` in Attention, which needs no mask for rows that are padded on the right."""

Output = Literal["sequence_logits", "token_logits", "embedding"]

OUTPUTS: Mapping[Kind, Output] = {
    Kind.CLASSIFICATION: "sequence_logits",
    Kind.REGRESSION: "sequence_logits",
    Kind.CHOICE: "sequence_logits",
    Kind.TAGGING: "token_logits",
    Kind.SPAN: "token_logits",
    Kind.RETRIEVAL: "embedding",
}
"""Which output of the graph answers for a kind of task."""


@dataclass(frozen=True)
class Blueprint:
    """What a graph depends on beside the weights of the encoder.

    Attributes:
        placement: where prompts enter; None: there are none.
        pooling: what linear sequence heads read.
        readout: what stands before the heads of the sequence tasks that read it: nothing (linear), the encoder's
            pooler, or its masked-LM head.
    """

    placement: Placement | None
    pooling: Pooling = Pooling.CLS
    readout: HeadKind = HeadKind.LINEAR


@dataclass(frozen=True)
class Graph:
    """A graph and the file that it refers to. Neither depends on the tasks.

    Attributes:
        model: outputs `sequence_logits` [batch, labels], `token_logits` [batch, seq, labels], `embedding` [batch,
            hidden]; a runtime computes what is asked for. Inputs: `input_ids` [batch, seq], `lengths` [batch],
            `task_id` [batch] and, where the backbone has token types, `token_type_ids` [batch, seq], all int64; and
            the tensors of the tasks, see `exporters.tasks.task_tensors`. Columns beyond the labels of a row's task are
            zero. Rows are padded on the right.
        backbone: weights of the encoder.
    """

    model: onnx.ModelProto
    backbone: TensorFile


def build_graph(weights: EncoderWeights, blueprint: Blueprint) -> Graph:
    """Write the graph of an encoder."""
    return Writer(weights, blueprint).write()


class Writer:
    """Grows the graph node by node; a tensor in the graph is known by its name."""

    ids, types = "input_ids", "token_type_ids"
    """Pieces and their types, [rows, seq]."""

    def __init__(self, weights: EncoderWeights, blueprint: Blueprint) -> None:
        self.weights, self.placement, self.blueprint = weights, blueprint.placement, blueprint
        self.backbone = TensorFile("backbone.bin")
        self.nodes: list[onnx.NodeProto] = []
        self.named: set[str] = set()
        self.initializers: dict[str, TensorProto] = {}
        self.inputs: dict[str, onnx.ValueInfoProto] = {}

    def write(self) -> Graph:
        """The graph."""
        for name in ("input_ids", "token_type_ids"):
            if name == "input_ids" or self.weights.token_types:
                self.given(name, ["batch", "seq"], TensorProto.INT64)
        for name in ("lengths", "task_id"):
            self.given(name, ["batch"], TensorProto.INT64)
        states = self.encoder()
        results = [self.sequence_logits(states), self.token_logits(states), self.unit_vector(self.mean(states))]
        parts = (list(self.inputs.values()), results, list(self.initializers.values()))
        graph = helper.make_graph(self.nodes, "polyprompt", *parts)
        opset = helper.make_opsetid("", OPSET)
        version = helper.find_min_ir_version_for([opset])
        model = helper.make_model(graph, opset_imports=[opset], ir_version=version, producer_name="polyprompt")
        return Graph(model, self.backbone)

    def encoder(self) -> str:
        """Hidden states of the last layer, [batch, seq, hidden]."""
        row = None if self.placement is None else self.of_task("task_prompt")
        lengths, keys = self.real()
        vectors = self.placement is not None and self.placement.layers is None
        if vectors:
            lengths = keys  # the prompt is a part of every row
        states = self.embeddings(row)
        for number, layer in enumerate(self.weights.layers):
            name = f"layer.{number}"
            mixed = self.attention(name, number, layer, states, row, lengths, keys)
            mixed = self.linear(f"{name}.attention_output", mixed, layer.attention_output)
            states = self.norm(f"{name}.attention_norm", self.node("Add", [mixed, states]), layer.attention_norm)
            inner = self.gelu(self.linear(f"{name}.ffn_in", states, layer.ffn_in))
            outer = self.linear(f"{name}.ffn_out", inner, layer.ffn_out)
            states = self.norm(f"{name}.ffn_norm", self.node("Add", [outer, states]), layer.ffn_norm)
        if not vectors:
            return states
        cut = [self.slots(), self.integers([np.iinfo(np.int64).max]), self.integers([1])]
        return self.node("Slice", [states, *cut], "pieces")

    def real(self) -> tuple[str, str]:
        """What `attend` is told about which pieces are real, and the same with a prompt in front of them."""
        if self.placement is None:
            return "lengths", "lengths"
        return "lengths", self.node("Add", ["lengths", self.slots()], "key_lengths")

    def slots(self) -> str:
        """Prompt length, [1]."""
        bank = "prompt" if self.placement.layers is None else f"layer.{self.placement.layers[0]}.prefix_key"
        return self.node("Shape", [self.bank(bank)], "slots", start=1, end=2)

    def bank(self, name: str) -> str:
        """An input with a part of all prompts, [prompt, slot, width]."""
        width = self.weights.word.shape[1] if name == "prompt" else self.weights.hidden
        return self.given(name, ["prompts", "slots", width])

    def embeddings(self, row: str | None) -> str:
        """Normalised sum of the embeddings of piece, position and type, at hidden width.

        Args:
            row: of the bank of prompts, [batch].

        Returns:
            [batch, seq, hidden]; [batch, slots + seq, hidden] where prompts are vectors in front.
        """
        weights = self.weights
        total = self.node("Gather", [self.frozen("word", weights.word), self.ids], "word_embedding")
        table = self.frozen("position", weights.position)
        begin = self.integers([weights.first_position])
        if self.placement is not None and self.placement.positions is Positions.SHIFTED:
            begin = self.node("Add", [self.slots(), begin])
        total = self.node("Add", [total, self.positions(table, begin)])
        kind = None
        if weights.token_type is not None:
            kind = self.frozen("token_type", weights.token_type)
            types = self.node("Gather", [kind, self.types]) if weights.token_types else kind
            total = self.node("Add", [total, types])
        if self.placement is not None and self.placement.layers is None:
            front = self.node("Gather", [self.bank("prompt"), row])
            total = self.node("Concat", [self.in_front(front, table, kind), total], axis=1)
        total = self.norm("embedding_norm", total, weights.embedding_norm)
        return total if weights.projection is None else self.linear("projection", total, weights.projection)

    def positions(self, table: str, begin: str) -> str:
        """The embedding of each piece's position.

        Args:
            table: of all positions. begin: row of the table of a row's first piece, [1].
        """
        end = self.node("Add", [self.node("Shape", [self.ids], start=1, end=2), begin])
        return self.node("Slice", [table, begin, end], "position_embedding")

    def in_front(self, vectors: str, table: str, kind: str | None) -> str:
        """Vectors [batch, slots, embedding] with what their positions and their type add to them."""
        begin = self.integers([self.weights.first_position])
        end = self.integers([self.weights.first_position + 1])
        if self.placement.positions is Positions.SHIFTED:
            end = self.node("Add", [self.slots(), begin])
        total = self.node("Add", [vectors, self.node("Slice", [table, begin, end], "prompt_position")])
        if kind is None:
            return total
        return self.node("Add", [total, self.node("Slice", [kind, self.integers([0]), self.integers([1])])])

    def attention(
        self, name: str, number: int, layer: Layer, states: str, row: str | None, lengths: str, keys: str
    ) -> str:
        """Self-attention of one layer, with the prefix of each row's task where the layer has one.

        Args:
            states: [batch, seq, hidden]. row: of the prefix bank, [batch]. lengths, keys: see `real`.
        """
        qkv = self.linear(f"{name}.qkv", states, layer.qkv)
        query, key, value = self.split(qkv)
        if self.placement is None or number not in (self.placement.layers or ()):
            return self.attend(f"{name}.attention", query, key, value, lengths)
        prefix_key, prefix_value = (
            self.node("Gather", [self.bank(f"{name}.prefix_{kind}"), row]) for kind in ("key", "value")
        )
        if self.placement.gated:
            own = self.attend(f"{name}.attention", query, key, value, lengths)
            return self.node("Add", [own, self.attend(f"{name}.prefix_attention", query, prefix_key, prefix_value)])
        key = self.node("Concat", [prefix_key, key], axis=1)
        value = self.node("Concat", [prefix_value, value], axis=1)
        return self.attend(f"{name}.attention", query, key, value, keys)

    def attend(self, name: str, query: str, key: str, value: str, lengths: str | None = None) -> str:
        """Attention over all keys, or with `lengths` over those that `real` says."""
        inputs = [query, key, value] if lengths is None else [query, key, value, "", "", "", lengths]
        heads = self.weights.heads
        return self.node("Attention", inputs, name, q_num_heads=heads, kv_num_heads=heads)

    def mean(self, states: str) -> str:
        """Mean of the hidden states over real pieces, [batch, 1, hidden]."""
        if "mean" in self.named:
            return "mean"
        seq = self.node("Squeeze", [self.node("Shape", [self.ids], start=1, end=2)])
        places = self.node("Range", [self.integers(0), seq, self.integers(1)])
        lengths = self.node("Unsqueeze", ["lengths", self.integers([1])])
        real = self.node("Cast", [self.node("Less", [places, lengths])], to=TensorProto.FLOAT)
        share = self.node("Div", [real, self.node("Cast", [lengths], to=TensorProto.FLOAT)])
        return self.node("MatMul", [self.node("Unsqueeze", [share, self.integers([1])]), states], "mean")

    def piece(self, states: str, position: int) -> str:
        """The state of one piece, [batch, 1, hidden]; of the last one where all rows are shorter and none reads it."""
        begin = self.node("Slice", [states, *(self.integers([n]) for n in (0, position + 1, 1))])
        return self.node("Slice", [begin, *(self.integers([n]) for n in (-1, position + 1, 1))]) if position else begin

    def sequence_logits(self, states: str) -> onnx.ValueInfoProto:
        """Scores of tasks whose answer is one for the row, [batch, labels]."""
        read = self.piece(states, 0) if self.blueprint.pooling is Pooling.CLS else self.mean(states)
        logits = self.heads("sequence_logits", read)
        if self.blueprint.readout is not HeadKind.LINEAR:
            width = self.weights.hidden if self.blueprint.readout is HeadKind.POOLER else "width"
            behind = self.heads("sequence_logits.readout", self.read_out(states, width), width)
            plain = self.given("sequence_logits.plain", ["tasks", 1, 1], TensorProto.BOOL)
            logits = self.node("Where", [self.node("Gather", [plain, "task_id"]), logits, behind])
        self.node("Squeeze", [logits, self.integers([1])], "sequence_logits")
        return helper.make_tensor_value_info("sequence_logits", TensorProto.FLOAT, ["batch", "labels"])

    def token_logits(self, states: str) -> onnx.ValueInfoProto:
        """Scores of each piece, [batch, seq, labels]."""
        self.heads("token_logits", states, name="token_logits")
        return helper.make_tensor_value_info("token_logits", TensorProto.FLOAT, ["batch", "seq", "token_labels"])

    def read_out(self, states: str, width: int | str) -> str:
        """What heads behind a readout get, [batch, 1, width]."""
        masked = self.blueprint.readout is HeadKind.VERBALISER
        read = self.piece(states, MASK_POSITION if masked else 0)
        dense = self.node("MatMul", [read, self.given("readout.dense.weight", [self.weights.hidden, width])])
        dense = self.node("Add", [dense, self.given("readout.dense.bias", [width])], "readout.dense")
        if not masked:
            return self.node("Tanh", [dense])
        norm = [self.given(f"readout.norm.{part}", [width]) for part in ("scale", "shift")]
        return self.normalised("readout.norm", [self.gelu(dense), *norm])

    def heads(self, bank: str, states: str, width: int | str | None = None, name: str | None = None) -> str:
        """The head of each row's task on states [batch, rows, width].

        Args:
            bank: name of the weights. width: of the states; None: hidden. name: of the result.
        """
        row = self.of_task(f"{bank}.head")
        # Names of sizes: a runtime may put tensors of equal ones into one place, so what differs has another name.
        heads, labels = f"{bank}.heads", "token_labels" if bank == "token_logits" else "labels"
        weight = self.given(f"{bank}.weight", [heads, width or self.weights.hidden, labels])
        bias = self.given(f"{bank}.bias", [heads, 1, labels])
        product = self.node("MatMul", [states, self.node("Gather", [weight, row])])
        return self.node("Add", [product, self.node("Gather", [bias, row])], name)

    def unit_vector(self, mean: str) -> onnx.ValueInfoProto:
        """The mean [batch, 1, hidden] at length one."""
        vector = self.node("Squeeze", [mean, self.integers([1])])
        length = self.node("ReduceL2", [vector, self.integers([1])], keepdims=1)
        floor = self.constant("least_length", np.array(1e-12, np.float32))  # as torch.nn.functional.normalize
        self.node("Div", [vector, self.node("Max", [length, floor])], "embedding")
        return helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self.weights.hidden])

    def of_task(self, rows: str) -> str:
        """Each batch row's entry of a bank by its task, [batch].

        Args:
            rows: name of the input that says it, [tasks].
        """
        return self.node("Gather", [self.given(rows, ["tasks"], TensorProto.INT64), "task_id"])

    def given(self, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        """An input of the graph."""
        if name not in self.inputs:
            self.inputs[name] = helper.make_tensor_value_info(name, kind, shape)
        return name

    def split(self, qkv: str) -> list[str]:
        """Queries, keys and values."""
        names = [f"{qkv}.{part}" for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", [qkv], names, name=f"{qkv}.split", axis=-1, num_outputs=3))
        return names

    def linear(self, name: str, states: str, linear: Linear) -> str:
        """A linear layer of the encoder."""
        product = self.node("MatMul", [states, self.frozen(f"{name}.weight", linear.weight)])
        return self.node("Add", [product, self.frozen(f"{name}.bias", linear.bias)], name)

    def norm(self, name: str, states: str, norm: Norm) -> str:
        """A normalisation of the encoder."""
        parts = {"scale": norm.scale, "shift": norm.shift}
        return self.normalised(name, [states, *(self.frozen(f"{name}.{part}", array) for part, array in parts.items())])

    def gelu(self, states: str) -> str:
        """The activation."""
        return self.node("Gelu", [states])

    def normalised(self, name: str, inputs: list[str]) -> str:
        """Normalised states, from states, scale and shift."""
        return self.node("LayerNormalization", inputs, name, axis=-1, epsilon=self.weights.epsilon)

    def frozen(self, name: str, array: Floats) -> str:
        """A weight of the encoder."""
        return self.constant(name, array, self.backbone)

    def integers(self, values: int | Sequence[int]) -> str:
        """A small int64 constant in the graph itself, where shape inference can see it."""
        return self.constant(f"int64:{values}", np.array(values, np.int64))

    def constant(self, name: str, array: NDArray[Any], file: TensorFile | None = None) -> str:
        """A tensor in the graph itself, or in a file beside it."""
        if name not in self.initializers:
            tensor = numpy_helper.from_array(array, name) if file is None else file.add(name, array)
            self.initializers[name] = tensor
        return name

    def node(self, operator: str, inputs: list[str], name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, which has the node's name; a named one is there once."""
        name = name or f"{operator}_{len(self.nodes)}"
        if name in self.named:
            return name
        self.named.add(name)
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name
