"""The ONNX graph of a prompted encoder with every task's head, written straight from the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.task import Kind, TaskCard
from exporters.tensors import TensorFile
from exporters.weights import EncoderWeights, Floats, Layer, Linear, Norm
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

    @property
    def slots(self) -> int:
        """Prompt length."""
        return int(self.bank.shape[-2])

    @property
    def shift(self) -> int:
        """How far the positions of the real pieces are shifted."""
        return self.slots if self.placement.positions is Positions.SHIFTED else 0


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
        position: of the piece.
        dense: [hidden, width].
        norm: of a masked-LM head, `norm(gelu(dense(x)))`, with the encoder's epsilon; None: of a pooler,
            `tanh(dense(x))`.
    """

    tasks: frozenset[str]
    position: int
    dense: Linear
    norm: Norm | None


@dataclass(frozen=True)
class Graph:
    """A graph and the two files that it refers to.

    Attributes:
        model: inputs `input_ids` [batch, seq], `lengths` [batch], `task_id` [batch] and, where the backbone has token
            types, `token_type_ids` [batch, seq], all int64. Outputs, those that some task needs: `sequence_logits`
            [batch, most labels], `token_logits` [batch, seq, most labels], `embedding` [batch, hidden]. Columns
            beyond the labels of a row's task are zero. Rows are padded on the right.
        backbone: weights of the encoder; their bytes do not depend on the tasks.
        tasks: bank of prompts, heads, and what stands before them.
    """

    model: onnx.ModelProto
    backbone: TensorFile
    tasks: TensorFile


def build_graph(
    weights: EncoderWeights,
    cards: Sequence[TaskCard],
    heads: Mapping[str, Head],
    prompt: Prompt | None,
    pooling: str,
    readout: Readout | None = None,
) -> Graph:
    """Write the graph.

    Args:
        weights: the frozen encoder.
        cards: the place in this sequence is the `task_id`. A task stands there as often as it has prompts: once, and
            once for each language with a prompt of its own.
        heads: task name -> head, for every task that has one of its own.
        prompt: prompts; None for a plain encoder.
        pooling: what sequence heads read: "cls" (the first piece) or "mean" (over real pieces).
        readout: what some of them read instead.
    """
    return _Writer(weights, cards, heads, prompt, pooling, readout).write()


class _Writer:
    """Grows the graph node by node; a tensor in the graph is known by its name."""

    def __init__(
        self,
        weights: EncoderWeights,
        cards: Sequence[TaskCard],
        heads: Mapping[str, Head],
        prompt: Prompt | None,
        pooling: str,
        readout: Readout | None,
    ) -> None:
        self.weights, self.cards, self.heads, self.prompt, self.pooling = weights, cards, heads, prompt, pooling
        self.readout = readout
        self.backbone, self.tasks = TensorFile("backbone.bin"), TensorFile("tasks.bin")
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def write(self) -> Graph:
        states = self.encoder()
        kinds = {OUTPUTS[card.kind] for card in self.cards}
        results = []
        if "sequence_logits" in kinds:
            results.append(self.sequence_logits(states))
        if "token_logits" in kinds:
            cards = self.answered("token_logits")
            width = self.width(cards)
            self.heads_of("token_logits", cards, states, width, "token_logits")
            results.append(helper.make_tensor_value_info("token_logits", TensorProto.FLOAT, ["batch", "seq", width]))
        if "embedding" in kinds:
            results.append(self.unit_vector(self.mean(states)))
        ids = ["input_ids", "token_type_ids"] if self.weights.token_types else ["input_ids"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"]) for name in ids]
        inputs += [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch"]) for n in ("lengths", "task_id")]
        graph = helper.make_graph(self.nodes, "polyprompt", inputs, results, list(self.initializers.values()))
        opset = helper.make_opsetid("", OPSET)
        version = helper.find_min_ir_version_for([opset])
        model = helper.make_model(graph, opset_imports=[opset], ir_version=version, producer_name="polyprompt")
        return Graph(model, self.backbone, self.tasks)

    def encoder(self) -> str:
        """Hidden states of the last layer, [batch, seq, hidden]."""
        row, lengths, keys = None, "lengths", "lengths"
        if self.prompt is not None:
            row = self.row_of_task("task_prompt", self.prompt.rows)
            keys = self.node("Add", ["lengths", self.integers([self.prompt.slots])], "key_lengths")
        vectors = self.prompt is not None and self.prompt.placement.layers is None
        if vectors:
            lengths = keys  # the prompt is a part of every row
        states = self.embeddings(row if vectors else None)
        for number, layer in enumerate(self.weights.layers):
            name = f"layer.{number}"
            mixed = self.attention(name, number, layer, states, row, lengths, keys)
            mixed = self.linear(f"{name}.attention_output", mixed, layer.attention_output)
            states = self.norm(f"{name}.attention_norm", self.node("Add", [mixed, states]), layer.attention_norm)
            inner = self.node("Gelu", [self.linear(f"{name}.ffn_in", states, layer.ffn_in)])
            outer = self.linear(f"{name}.ffn_out", inner, layer.ffn_out)
            states = self.norm(f"{name}.ffn_norm", self.node("Add", [outer, states]), layer.ffn_norm)
        if not vectors:
            return states
        cut = [self.integers([self.prompt.slots]), self.integers([np.iinfo(np.int64).max]), self.integers([1])]
        return self.node("Slice", [states, *cut], "pieces")

    def embeddings(self, row: str | None) -> str:
        """Normalised sum of the embeddings of piece, position and type, at hidden width.

        Args:
            row: of the bank of vectors that stand in front, [batch]; None where there are none.

        Returns:
            [batch, seq, hidden], or [batch, slots + seq, hidden].
        """
        weights = self.weights
        total = self.node("Gather", [self.frozen("word", weights.word), "input_ids"], "word_embedding")
        table = self.frozen("position", weights.position)
        begin = weights.first_position + (0 if self.prompt is None else self.prompt.shift)
        end = self.node("Shape", ["input_ids"], start=1, end=2)
        if begin:
            end = self.node("Add", [end, self.integers([begin])])
        position = self.node("Slice", [table, self.integers([begin]), end], "position_embedding")
        total = self.node("Add", [total, position])
        if weights.token_type is not None:
            kind = self.frozen("token_type", weights.token_type)
            total = self.node(
                "Add", [total, self.node("Gather", [kind, "token_type_ids"]) if weights.token_types else kind]
            )
        if row is not None:
            front = self.node("Gather", [self.trained("prompt", self.vectors()), row])
            total = self.node("Concat", [front, total], axis=1)
        total = self.norm("embedding_norm", total, weights.embedding_norm)
        return total if weights.projection is None else self.linear("projection", total, weights.projection)

    def vectors(self) -> Floats:
        """The bank of vectors with what their positions and their type add to them, [prompt, slot, embedding]."""
        assert self.prompt is not None
        begin = self.weights.first_position
        bank = self.prompt.bank + self.weights.position[begin : begin + (self.prompt.shift or 1)]
        return bank if self.weights.token_type is None else bank + self.weights.token_type[0]

    def attention(
        self, name: str, number: int, layer: Layer, states: str, row: str | None, lengths: str, keys: str
    ) -> str:
        """Self-attention of one layer, with the prefix of each row's task where the layer has one.

        Args:
            states: [batch, seq, hidden]. row: of the prefix bank, [batch]. lengths: of the rows, [batch].
            keys: the same where a prefix is in front of a row's own keys, [batch].
        """
        qkv = self.linear(f"{name}.qkv", states, layer.qkv)
        query, key, value = self.split(qkv)
        if self.prompt is None or row is None or number not in (self.prompt.placement.layers or ()):
            return self.attend(f"{name}.attention", query, key, value, lengths)
        place = self.prompt.placement.layers.index(number)
        prompts, _, _, heads, slots, head_dim = self.prompt.bank.shape
        flat = self.prompt.bank[:, place].transpose(1, 0, 3, 2, 4).reshape(2, prompts, slots, heads * head_dim)
        prefix_key, prefix_value = (
            self.node("Gather", [self.trained(f"{name}.prefix_{kind}", bank), row])
            for kind, bank in zip(("key", "value"), flat, strict=True)
        )
        if self.prompt.placement.gated:
            own = self.attend(f"{name}.attention", query, key, value, lengths)
            return self.node("Add", [own, self.attend(f"{name}.prefix_attention", query, prefix_key, prefix_value)])
        key = self.node("Concat", [prefix_key, key], axis=1)
        value = self.node("Concat", [prefix_value, value], axis=1)
        return self.attend(f"{name}.attention", query, key, value, keys)

    def attend(self, name: str, query: str, key: str, value: str, lengths: str | None = None) -> str:
        inputs = [query, key, value] if lengths is None else [query, key, value, "", "", "", lengths]
        heads = self.weights.heads
        return self.node("Attention", inputs, name, q_num_heads=heads, kv_num_heads=heads)

    def mean(self, states: str) -> str:
        """Mean of the hidden states over real pieces, [batch, 1, hidden]; it is computed once."""
        if any(node.name == "mean" for node in self.nodes):
            return "mean"
        seq = self.node("Squeeze", [self.node("Shape", ["input_ids"], start=1, end=2)])
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
        """Scores of tasks whose answer is one for the row, [batch, most labels]."""
        cards = self.answered("sequence_logits")
        width = self.width(cards)
        plain = [card for card in cards if self.readout is None or card.name not in self.readout.tasks]
        logits = []
        if plain:
            read = self.piece(states, 0) if self.pooling == "cls" else self.mean(states)
            logits.append(self.heads_of("sequence_logits", plain, read, width))
        if self.readout is not None and len(plain) < len(cards):
            rest = [card for card in cards if card not in plain]
            read = self.read_out(self.readout, states)
            logits.append(self.heads_of("sequence_logits.readout", rest, read, width))
        if len(logits) == 2:
            is_plain = np.array([card in plain for card in self.cards]).reshape(-1, 1, 1)
            choice = self.node("Gather", [self.constant("sequence_logits.plain", is_plain), "task_id"])
            logits = [self.node("Where", [choice, *logits])]
        self.node("Squeeze", [*logits, self.integers([1])], "sequence_logits")
        return helper.make_tensor_value_info("sequence_logits", TensorProto.FLOAT, ["batch", width])

    def read_out(self, readout: Readout, states: str) -> str:
        """What heads behind a readout get, [batch, 1, width]."""
        dense = self.linear("readout.dense", self.piece(states, readout.position), readout.dense, self.tasks)
        if readout.norm is None:
            return self.node("Tanh", [dense])
        return self.norm("readout.norm", self.node("Gelu", [dense]), readout.norm, self.tasks)

    def answered(self, output: str) -> list[TaskCard]:
        """The tasks that an output answers for."""
        return [card for card in self.cards if OUTPUTS[card.kind] == output]

    def width(self, cards: Sequence[TaskCard]) -> int:
        """Columns of the widest head."""
        return max(len(self.heads[card.answered_by].bias) for card in cards)

    def heads_of(self, bank: str, cards: Sequence[TaskCard], states: str, width: int, name: str | None = None) -> str:
        """The head of each row's task on states [batch, rows, hidden], with `width` columns.

        Args:
            bank: name of the weights. cards: the tasks that read these states. name: of the result.
        """
        names = list(dict.fromkeys(card.answered_by for card in cards))
        weight = np.zeros((len(names), self.heads[names[0]].weight.shape[1], width), np.float32)
        bias = np.zeros((len(names), 1, width), np.float32)
        for number, head in enumerate(self.heads[owner] for owner in names):
            weight[number, :, : len(head.bias)], bias[number, :, : len(head.bias)] = head.weight.T, head.bias
        # Another task has no row here: its result is not read, row 0 stands in.
        rows = [names.index(card.answered_by) if card in cards else 0 for card in self.cards]
        row = self.row_of_task(f"{bank}.head", rows)
        product = self.node("MatMul", [states, self.node("Gather", [self.trained(f"{bank}.weight", weight), row])])
        return self.node("Add", [product, self.node("Gather", [self.trained(f"{bank}.bias", bias), row])], name)

    def unit_vector(self, mean: str) -> onnx.ValueInfoProto:
        """The mean [batch, 1, hidden] at length one."""
        vector = self.node("Squeeze", [mean, self.integers([1])])
        length = self.node("ReduceL2", [vector, self.integers([1])], keepdims=1)
        floor = self.constant("least_length", np.array(1e-12, np.float32))  # as torch.nn.functional.normalize
        self.node("Div", [vector, self.node("Max", [length, floor])], "embedding")
        return helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self.weights.hidden])

    def row_of_task(self, name: str, rows: Sequence[int]) -> str:
        """Look up each batch row's entry of a bank by its task, [batch].

        The map is in the graph itself: shape inference wants the values of integers and reads no other file.
        """
        return self.node("Gather", [self.constant(name, np.array(rows, np.int64)), "task_id"])

    def split(self, qkv: str) -> list[str]:
        names = [f"{qkv}.{part}" for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", [qkv], names, name=f"{qkv}.split", axis=-1, num_outputs=3))
        return names

    def linear(self, name: str, states: str, linear: Linear, file: TensorFile | None = None) -> str:
        product = self.node("MatMul", [states, self.frozen(f"{name}.weight", linear.weight, file)])
        return self.node("Add", [product, self.frozen(f"{name}.bias", linear.bias, file)], name)

    def norm(self, name: str, states: str, norm: Norm, file: TensorFile | None = None) -> str:
        parts = {"scale": norm.scale, "shift": norm.shift}
        inputs = [states, *(self.frozen(f"{name}.{part}", array, file) for part, array in parts.items())]
        return self.node("LayerNormalization", inputs, name, axis=-1, epsilon=self.weights.epsilon)

    def frozen(self, name: str, array: Floats, file: TensorFile | None = None) -> str:
        return self.constant(name, array, file or self.backbone)

    def trained(self, name: str, array: Floats) -> str:
        return self.constant(name, array, self.tasks)

    def integers(self, values: int | Sequence[int]) -> str:
        """A small int64 constant in the graph itself, where shape inference can see it."""
        return self.constant(f"int64:{values}", np.array(values, np.int64))

    def constant(self, name: str, array: NDArray[Any], file: TensorFile | None = None) -> str:
        if name not in self.initializers:
            tensor = numpy_helper.from_array(array, name) if file is None else file.add(name, array)
            self.initializers[name] = tensor
        return name

    def node(self, operator: str, inputs: list[str], name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, which has the node's name."""
        name = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name
