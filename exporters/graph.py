"""The ONNX graph of a prompted encoder, written straight from the weights; its tasks are inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.task import Kind
from exporters.disentangled import distance_bias, read_stands, stands, stands_behind
from exporters.nodes import Nodes
from exporters.tensors import TensorFile
from exporters.weights import EncoderWeights, Linear
from harness.heads import HeadKind, HeadLayers, Pooling
from harness.placement import Placement, Positions

OPSET = 24
"""The first with `nonpad_kv_seqlen` in Attention, which needs no mask for rows that are padded on the right."""

KEYS = ("key", "value")

ZERO = helper.make_tensor("zero", TensorProto.INT64, [1], [0])

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
        head_layers: what the heads of tags and answers read.
    """

    placement: Placement | None
    pooling: Pooling = Pooling.CLS
    readout: HeadKind = HeadKind.LINEAR
    head_layers: HeadLayers = HeadLayers.LAST


@dataclass(frozen=True)
class Graph:
    """A graph and the file that it refers to. Neither depends on the tasks.

    Attributes:
        model: Inputs: `input_ids` [batch, seq], `lengths` [batch], `task_id` [batch] and, where the backbone has token
            types, `token_type_ids` [batch, seq]; `sequence_rows` [sequences] and `whole_rows` [wholes], the rows that
            are answered from one piece and from all, of which the last layer computes no more than that; all int64.
            And the tensors of the tasks, see `exporters.tasks.task_tensors`. Outputs: `sequence_logits` [sequences,
            labels], `token_logits` [wholes, seq, labels], `embedding` [wholes, hidden]. With mean pooling sequences
            are read from all pieces too: there are no `sequence_rows`, and `sequence_logits` is [wholes, labels].
            Columns beyond the labels of a row's task are zero. Rows are padded on the right. A row may be in both
            lists or in none.
        backbone: weights of the encoder.
    """

    model: onnx.ModelProto
    backbone: TensorFile


def build_graph(weights: EncoderWeights, blueprint: Blueprint) -> Graph:
    """Write the graph of an encoder."""
    return Writer(weights, blueprint).write()


class Rows(NamedTuple):
    """Rows on their way through the encoder.

    Attributes:
        states: [rows, seq, hidden]. task: [rows]. lengths: pieces, [rows]. prompt: row of the prompts, [rows].
        longest: number of pieces that any row has, [1]. asked: how many rows are asked for, [1]: where it is none,
            one piece of one row is computed all the same, since Attention refuses an empty batch.
        below: what entered each layer, [rows, seq, hidden]; nothing where no head reads it.
    """

    states: str
    task: str
    lengths: str
    prompt: str | None
    longest: str
    asked: str
    below: tuple[str, ...] = ()


class Place(NamedTuple):
    """Where the prefixes of rows stand in one layer.

    A row's prefix may be shorter than the bank is wide. Since the order of keys does not matter, the gap behind it is
    filled with the row's own last keys, so that what counts stays in one piece. Where there are no gaps, nothing moves.

    Attributes:
        slots: of each row's prefix, [rows]. keys: of prefix and row, [rows].
        moved: own keys that fill gaps, counted through all rows, [rows, gap]. gaps: where to, as row and key,
            [rows, gap, 2]; both are empty names where no prefix is shorter than another.
    """

    slots: str
    keys: str
    moved: str
    gaps: str


class Writer(Nodes):
    """Writes the graph of all tasks."""

    def __init__(self, weights: EncoderWeights, blueprint: Blueprint) -> None:
        super().__init__(weights, "backbone.bin")
        self.placement, self.blueprint = blueprint.placement, blueprint

    def write(self) -> Graph:
        """The graph."""
        for name in ("input_ids", "token_type_ids"):
            if name == "input_ids" or self.weights.token_types:
                self.given(name, ["batch", "seq"], TensorProto.INT64)
        for name in ("lengths", "task_id"):
            self.given(name, ["batch"], TensorProto.INT64)
        results = self.outputs(self.lower_layers())
        return Graph(self.model(results, OPSET), self.backbone)

    def lower_layers(self) -> Rows:
        """All rows behind all layers but the last."""
        prompt = None if self.placement is None else self.of_task("task_prompt", "task_id")
        longest = self.node("Shape", ["input_ids"], start=1, end=2)
        rows = Rows(self.embeddings(prompt), "task_id", "lengths", prompt, longest, "")
        return self.layers(rows)

    def layers(self, rows: Rows) -> Rows:
        """Rows behind the embeddings, behind all layers but the last."""
        for number, place in enumerate(self.places(rows, 0, len(self.weights.layers) - 1)):
            rows = self.entering(rows)._replace(states=self.layer(number, rows, place))
        return rows

    def entering(self, rows: Rows) -> Rows:
        """Rows that keep what enters the next layer, where heads read it."""
        if self.blueprint.head_layers is HeadLayers.LAST:
            return rows
        return rows._replace(below=(*rows.below, rows.states))

    def outputs(self, rows: Rows) -> list[onnx.ValueInfoProto]:
        """The last layer, of each row what is read, and the heads."""
        whole, *some = self.last_layer(self.entering(rows))
        if self.placement is not None and self.placement.layers is None:
            limits = self.integers([0]), whole.longest, self.integers([1])
            below = tuple(self.node("Slice", [states, *limits]) for states in whole.below)
            whole = whole._replace(states=self.node("Slice", [whole.states, *limits], "pieces"), below=below)
        if some:
            states = plain = some[0]
        else:
            states, plain = whole._replace(states=self.piece(whole)), whole._replace(states=self.mean(whole))
        return [self.sequence_logits(plain, states), self.token_logits(whole), self.unit_vector(whole)]

    def last_layer(self, rows: Rows) -> list[Rows]:
        """Rows that are read whole, and, but for mean pooling, those of which one piece is read, behind the last layer.

        It has its queries apart from keys and values: of some rows it needs those of one piece alone.
        """
        number, hidden = len(self.weights.layers) - 1, self.weights.hidden
        qkv, name = self.weights.layers[number].qkv, f"layer.{number}"
        first = Linear(qkv.weight[:, :hidden], qkv.bias[:hidden])
        rest = Linear(qkv.weight[:, hidden:], qkv.bias[hidden:])
        pair = self.split(self.linear(f"{name}.key_value", rows.states, rest), KEYS)
        chosen = [self.chosen("whole_rows", rows, pair)]
        if self.blueprint.pooling is Pooling.CLS:
            chosen.append(self.chosen("sequence_rows", rows, pair, one=True))
        parts = [some for some, _ in chosen]
        states = [some.states for some in parts]
        queries = self.jointly(lambda piece: self.linear(f"{name}.query", piece, first), states)
        mixed = [
            self.attention(number, some, *self.places(some, number, number + 1), [query, *keys], mark, bool(mark))
            for mark, (some, keys), query in zip(("", "read."), chosen, queries, strict=False)
        ]
        behind = self.jointly(lambda *pieces: self.behind_attention(number, *pieces), mixed, states)
        return [some._replace(states=found) for some, found in zip(parts, behind, strict=True)]

    def jointly(self, made: Callable[..., str], *given: Sequence[str]) -> list[str]:
        """What is made of each piece by itself, of several tensors at once, so that its weights are read once.

        Args:
            made: of [pieces, hidden]. given: for each of its arguments the tensors, [rows, seq, hidden].
        """
        if len(given[0]) == 1:
            return [made(*(some for (some,) in given))]
        hidden = self.integers([self.weights.hidden])
        flat = self.integers([-1, self.weights.hidden])
        pieces = [[self.node("Reshape", [name, flat]) for name in some] for some in given]
        sizes = self.node("Concat", [self.node("Shape", [name], start=0, end=1) for name in pieces[0]], axis=0)
        found = made(*(self.node("Concat", some, axis=0) for some in pieces))
        names = [f"{found}.{number}" for number in range(len(given[0]))]
        self.nodes.append(helper.make_node("Split", [found, sizes], names, name=f"{found}.split", axis=0))
        shapes = [self.node("Shape", [name], start=0, end=2) for name in given[0]]
        return [
            self.node("Reshape", [name, self.node("Concat", [shape, hidden], axis=0)])
            for name, shape in zip(names, shapes, strict=True)
        ]

    def chosen(self, name: str, rows: Rows, pair: Sequence[str], one: bool = False) -> tuple[Rows, list[str]]:
        """Some of the rows and their keys and values; one row of one piece where none is asked for.

        Args:
            name: of the input that says which. pair: keys and values of all, both [rows, seq, hidden]. one: of the
                states those of the piece that is read.
        """
        count = self.node("Shape", [self.given(name, [name.replace("_rows", "s")], TensorProto.INT64)])
        lacking = self.node("Sub", [self.integers([1]), self.node("Min", [count, self.integers([1])])])
        which = self.node("Concat", [name, self.node("ConstantOfShape", [lacking], value=ZERO)], axis=0)
        longest = self.node("Where", [self.node("Cast", [lacking], to=TensorProto.BOOL), lacking, rows.longest])
        size = longest
        if self.placement is not None and self.placement.layers is None:
            size = self.node("Add", [longest, self.slots()])

        states = self.read_of(rows, which) if one else self.some(rows.states, which, size)
        below = () if one else tuple(self.some(states, which, size) for states in rows.below)
        keys = [self.some(states, which, size) for states in pair]
        lengths = self.node("Min", [self.node("Gather", ["lengths", which]), longest])
        prompt = None if rows.prompt is None else self.node("Gather", [rows.prompt, which])
        return Rows(states, self.node("Gather", ["task_id", which]), lengths, prompt, longest, count, below), keys

    def layer(self, number: int, rows: Rows, place: Place | None) -> str:
        """One layer of the encoder but the last, [rows, seq, hidden].

        Args:
            place: of the prefixes in this layer; None: it has none.
        """
        triple = self.linear(f"layer.{number}.qkv", rows.states, self.weights.layers[number].qkv)
        mixed = self.attention(number, rows, place, self.split(triple, ("query", *KEYS)))
        return self.behind_attention(number, mixed, rows.states)

    def some(self, states: str, which: str, size: str) -> str:
        """Some rows of what goes through a layer, and the first pieces of them, [chosen, size, hidden].

        Args:
            which: [chosen]. size: [1].
        """
        some = self.node("Slice", [self.node("Gather", [states, which]), self.integers([0]), size, self.integers([1])])
        shape = self.integers([0, 0, self.weights.hidden])  # Slice hides the width from inference
        return self.node("Reshape", [some, shape])

    def read_of(self, rows: Rows, which: str) -> str:
        """What `piece` is of some rows on their way, [chosen, 1, hidden].

        Args:
            which: [chosen].
        """
        return self.node("Gather", [self.piece(rows), which])

    def slots(self) -> str:
        """Length of the longest prompt that is given as vectors, [1]."""
        return self.node("Shape", [self.bank("prompt")], "slots", start=1, end=2)

    def bank(self, name: str) -> str:
        """An input with a part of all prompts, [prompt, slot, width]."""
        width = self.weights.word.shape[1] if name == "prompt" else self.weights.hidden
        return self.given(name, ["prompts", f"{name}.slots", width])

    def prompt_lengths(self, prompt: str, begin: int = 0, end: int | None = None) -> str:
        """Prompt length of each row in some layers, [layers, rows]; vectors in front have it once, [1, rows].

        Args:
            prompt: [rows]. begin, end: of the layers, by their place among those that have prompts.
        """
        layers = self.placement.layers or (0,)
        lengths = self.given("prompt_lengths", [len(layers), "prompts"], TensorProto.INT64)
        if (begin, end) != (0, None) and (begin, end) != (0, len(layers)):
            lengths = self.node("Slice", [lengths, *(self.integers([n]) for n in (begin, end, 0))])
        return self.node("Gather", [lengths, prompt], axis=1)

    def places(self, rows: Rows, begin: int, end: int) -> list[Place | None]:
        """Of the prefixes in some layers; None for layers without.

        Args:
            begin, end: of the layers.
        """
        if self.placement is None:
            return [None] * (end - begin)
        if self.placement.layers is None:
            lengths = self.node("Squeeze", [self.prompt_lengths(rows.prompt), self.integers([0])])
            keys = self.node("Add", [lengths, rows.lengths])
            return [Place("", keys, "", "")] * (end - begin)
        inside = [number for number in range(begin, end) if number in self.placement.layers]
        if not inside:
            return [None] * (end - begin)
        first = self.placement.layers.index(inside[0])
        slots = self.prompt_lengths(rows.prompt, first, first + len(inside))
        found = [slots, self.node("Add", [slots, rows.lengths])]
        flat = self.integers([-1])
        parts = [self.parts(self.node("Reshape", [name, flat]), len(inside)) for name in found]
        if not self.placement.gated:
            parts += [self.parts(name, len(inside)) for name in self.moves(rows, slots, inside)]
        else:
            parts += [[""] * len(inside)] * 2
        places = dict(zip(inside, (Place(*names) for names in zip(*parts, strict=True)), strict=True))
        return [places.get(number) for number in range(begin, end)]

    def parts(self, name: str, count: int) -> list[str]:
        """What stands side by side on the first axis."""
        if count == 1:
            return [name]
        names = [f"{name}.{number}" for number in range(count)]
        self.nodes.append(helper.make_node("Split", [name], names, name=f"{name}.split", axis=0, num_outputs=count))
        return names

    def moves(self, rows: Rows, slots: str, layers: Sequence[int]) -> tuple[str, str]:
        """`moved` and `gaps` of `Place` for some layers, [layers * rows, gap] and [layers * rows, gap, 2].

        Args:
            slots: of each row's prefix, [layers, rows].
        """
        zero, one, last = self.integers(0), self.integers(1), self.integers([-1])
        shape, column = self.node("Shape", [slots]), self.integers([-1, 1])
        widths = [self.node("Shape", [self.bank(f"layer.{number}.prefix_key")], start=1, end=2) for number in layers]
        width = self.node("Unsqueeze", [self.node("Concat", widths, axis=0), last])
        number = self.node("Range", [zero, self.node("Size", [rows.task]), one])
        spread = [self.node("Expand", [name, shape]) for name in (width, rows.lengths, number)]
        slot, width, length, number = (self.node("Reshape", [name, column]) for name in (slots, *spread))
        gap = self.node("Sub", [width, slot])
        place = self.node("Range", [zero, self.node("ReduceMax", [gap], keepdims=0), one])  # [gap]
        inside = self.node("Less", [place, gap])  # [layers * rows, gap]
        own = self.node("Max", [self.node("Sub", [self.node("Sub", [length, one]), place]), zero])
        # Where another row or layer has a wider gap, the first own key is written to where it is.
        moved = self.node("Where", [inside, own, zero])
        gaps = self.node("Where", [inside, self.node("Add", [slot, place]), width])
        moved = self.node("Add", [moved, self.node("Mul", [number, rows.longest])])
        number = self.node("Expand", [number, self.node("Shape", [gaps])])
        gaps, number = (self.node("Unsqueeze", [name, last]) for name in (gaps, number))
        return moved, self.node("Concat", [number, gaps], axis=2)

    def embeddings(self, prompt: str | None) -> str:
        """Normalised sum of the embeddings of piece, position and type, at hidden width.

        Args:
            prompt: row of the prompts, [batch].

        Returns:
            [batch, seq, hidden]; [batch, seq + slots, hidden] where prompts are vectors, which stand behind each row's
            own pieces: positions are in the vectors, and attention does not ask for the order.
        """
        weights = self.weights
        total = self.node("Gather", [self.frozen("word", weights.word), self.taken("input_ids")], "word_embedding")
        if weights.position is not None:
            total = self.node("Add", [total, self.positions(prompt)])
        if weights.token_type is not None:
            kind = self.frozen("token_type", weights.token_type)
            types = self.node("Gather", [kind, self.taken("token_type_ids")]) if weights.token_types else kind
            total = self.node("Add", [total, types])
        if self.placement is not None and self.placement.layers is None:
            total = self.behind(total, self.vectors(prompt), prompt)
        total = self.norm("embedding_norm", total, weights.embedding_norm)
        return total if weights.projection is None else self.linear("projection", total, weights.projection)

    def positions(self, prompt: str | None) -> str:
        """Embeddings of the positions, [seq, embedding], or [batch, seq, embedding] where prompts shift them."""
        table, begin = self.frozen("position", self.weights.position), self.weights.first_position
        longest = self.node("Shape", ["input_ids"], start=1, end=2)
        if self.placement is None or self.placement.positions is not Positions.SHIFTED:
            end = self.node("Add", [longest, self.integers([begin])]) if begin else longest
            return self.along(self.node("Slice", [table, self.integers([begin]), end], "position_embedding"))
        shift = self.node("ReduceMax", [self.prompt_lengths(prompt), self.integers([0])], keepdims=0)
        shift = self.node("Unsqueeze", [self.node("Add", [shift, self.integers([begin])]), self.integers([1])])
        place = self.node("Range", [self.integers(0), self.node("Squeeze", [longest]), self.integers(1)])
        return self.node("Gather", [table, self.taken(self.node("Add", [shift, place]))], "position_embedding")

    def taken(self, places: str) -> str:
        """What is computed, of something for each place of the batch, [batch, seq]; here all of it."""
        return places

    def along(self, row: str) -> str:
        """What is computed, of something for each place of any row, [seq, width]; here it stands for all rows."""
        return row

    def vectors(self, prompt: str) -> str:
        """Each row's vectors with what their positions and their type add to them, [batch, slots, embedding]."""
        begin = self.integers([self.weights.first_position])
        end = self.integers([self.weights.first_position + 1])
        if self.placement.positions is Positions.SHIFTED:
            end = self.node("Add", [self.slots(), begin])
        total = self.node("Gather", [self.bank("prompt"), prompt])
        if self.weights.position is not None:
            total = self.node("Add", [total, self.node("Slice", ["position", begin, end], "prompt_position")])
        if self.weights.token_type is None:
            return total
        return self.node("Add", [total, self.node("Slice", ["token_type", self.integers([0]), self.integers([1])])])

    def behind(self, pieces: str, vectors: str, prompt: str) -> str:
        """Pieces [batch, seq, width] and directly behind each row's own the vectors, [batch, seq + slots, width]."""
        seq, size = (self.node("Shape", [name], start=1, end=2) for name in (pieces, vectors))
        both = self.node("Concat", [pieces, vectors], axis=1)
        total = self.node("Squeeze", [self.node("Shape", [both], start=1, end=2)])
        place = self.node("Range", [self.integers(0), total, self.integers(1)])
        lengths = self.node("Unsqueeze", ["lengths", self.integers([1])])
        own = self.node("Less", [place, lengths])
        slot = self.node("Min", [self.node("Sub", [place, lengths]), self.node("Sub", [size, self.integers([1])])])
        which = self.node("Where", [own, place, self.node("Add", [slot, seq])])
        return self.node("GatherND", [both, self.node("Unsqueeze", [which, self.integers([-1])])], batch_dims=1)

    def attention(
        self, number: int, rows: Rows, place: Place | None, states: Sequence[str], mark: str = "", one: bool = False
    ) -> str:
        """Self-attention of one layer, with the prefix of each row's task where the layer has one.

        Args:
            states: queries, keys and values, [rows, seq, hidden]. mark: stands in front of the names, where a layer has
                more than one. one: queries are those of the one piece that is read, [rows, 1, hidden].
        """
        query, key, value = states
        name = f"layer.{number}"
        attention = f"{mark}{name}.attention"
        shown = asked = None
        if self.weights.distances is not None:
            shown = stands(self, rows._replace(states=key), place)
            asked = read_stands(self, rows, shown) if one else shown

        def mixed(key: str, value: str, lengths: str) -> str:
            bias = "" if shown is None else distance_bias(self, number, query, key, asked, shown)
            return self.attend(attention, query, key, value, lengths, bias)

        if place is None:
            return mixed(key, value, rows.lengths)
        if self.placement.layers is None:
            return mixed(key, value, place.keys)
        banks = [self.bank(f"{name}.prefix_{kind}") for kind in ("key", "value")]
        prefix = [self.node("Gather", [bank, rows.prompt]) for bank in banks]
        if self.placement.gated:
            own = mixed(key, value, rows.lengths)
            return self.node("Add", [own, self.attend(f"{mark}{name}.prefix_attention", query, *prefix, place.slots)])
        hidden = self.weights.hidden
        key, value = (self.in_front(*pair, place, hidden) for pair in zip(prefix, (key, value), strict=True))
        if shown is not None:
            shown = stands_behind(self, prefix[0], shown, place)
        return mixed(key, value, place.keys)

    def in_front(self, prefix: str, own: str, place: Place, width: int) -> str:
        """Prefix [rows, slots, width] and a row's own keys or values, [rows, slots + seq, width]."""
        both = self.node("Concat", [prefix, own], axis=1)
        if not place.gaps:
            return both
        flat = self.node("Reshape", [own, self.integers([-1, width])])
        return self.node("ScatterND", [both, place.gaps, self.node("Gather", [flat, place.moved])])

    def attend(self, name: str, query: str, key: str, value: str, lengths: str, bias: str = "") -> str:
        """Attention over the keys that are real, see `Rows.lengths` and `Place.keys`.

        Args:
            bias: what is added to the scores, [rows, heads, queries, keys]; empty: nothing.
        """
        heads, inputs = self.weights.heads, [query, key, value, bias, "", "", lengths]
        return self.node("Attention", inputs, name, q_num_heads=heads, kv_num_heads=heads, scale=self.weights.scaling)

    def mean(self, rows: Rows) -> str:
        """Mean of the hidden states over real pieces, [rows, 1, hidden]."""
        if "mean" in self.named:
            return "mean"
        longest = self.node("Squeeze", [rows.longest])
        places = self.node("Range", [self.integers(0), longest, self.integers(1)])
        lengths = self.node("Unsqueeze", [rows.lengths, self.integers([1])])
        real = self.node("Cast", [self.node("Less", [places, lengths])], to=TensorProto.FLOAT)
        share = self.node("Div", [real, self.node("Cast", [lengths], to=TensorProto.FLOAT)])
        return self.node("MatMul", [self.node("Unsqueeze", [share, self.integers([1])]), rows.states], "mean")

    def piece(self, rows: Rows) -> str:
        """The state of the piece that each row's task reads, [rows, 1, hidden]: the first one or its mask."""
        if self.blueprint.readout is not HeadKind.VERBALISER:
            return self.node("Slice", [rows.states, *(self.integers([n]) for n in (0, 1, 1))])
        place = self.of_task("read_position", rows.task)
        place = self.node("Min", [place, self.node("Sub", [rows.longest, self.integers([1])])])
        place = self.node("Unsqueeze", [place, self.integers([1, 2])])
        return self.node("GatherND", [rows.states, place], batch_dims=1)

    def sequence_logits(self, plain: Rows, read: Rows) -> onnx.ValueInfoProto:
        """Scores of tasks whose answer is one for the row, [sequences, labels].

        Args:
            plain: with the states that linear heads read, [rows, 1, hidden]. read: with those of one piece.
        """
        logits = self.heads("sequence_logits", plain)
        if self.blueprint.readout is not HeadKind.LINEAR:
            width = self.weights.hidden if self.blueprint.readout is HeadKind.POOLER else "width"
            behind = self.heads("sequence_logits.readout", self.read_out(read, width), width)
            is_plain = self.given("sequence_logits.plain", ["tasks", 1, "plain"], TensorProto.BOOL)
            logits = self.node("Where", [self.node("Gather", [is_plain, plain.task]), logits, behind])
        self.asked_for(self.node("Squeeze", [logits, self.integers([1])]), plain, "sequence_logits")
        rows = "sequences" if self.blueprint.pooling is Pooling.CLS else "wholes"
        return helper.make_tensor_value_info("sequence_logits", TensorProto.FLOAT, [rows, "labels"])

    def token_logits(self, rows: Rows) -> onnx.ValueInfoProto:
        """Scores of each piece, [wholes, seq, labels]."""
        states, width = rows.states, None
        if rows.below:
            states = self.node("Concat", [*rows.below, rows.states], axis=-1)
            width = self.blueprint.head_layers.width(self.weights.hidden, len(self.weights.layers))
        self.asked_for(self.heads("token_logits", rows._replace(states=states), width), rows, "token_logits")
        return helper.make_tensor_value_info("token_logits", TensorProto.FLOAT, ["wholes", "pieces", "token_labels"])

    def asked_for(self, states: str, rows: Rows, name: str) -> str:
        """What was computed without the row that stands in for none."""
        return self.node("Slice", [states, self.integers([0]), rows.asked, self.integers([0])], name)

    def read_out(self, rows: Rows, width: int | str) -> Rows:
        """What heads behind a readout get, [rows, 1, width]."""
        dense = self.node("MatMul", [rows.states, self.given("readout.dense.weight", [self.weights.hidden, width])])
        dense = self.node("Add", [dense, self.given("readout.dense.bias", [width])], "readout.dense")
        if self.blueprint.readout is HeadKind.POOLER:
            return rows._replace(states=self.node("Tanh", [dense]))
        norm = [self.given(f"readout.norm.{part}", [width]) for part in ("scale", "shift")]
        return rows._replace(states=self.normalised("readout.norm", [self.gelu(dense), *norm]))

    def heads(self, bank: str, rows: Rows, width: int | str | None = None) -> str:
        """The head of each row's task, [rows, seq, labels].

        Args:
            bank: name of the weights. width: of the states; None: hidden.
        """
        row = self.of_task(f"{bank}.head", rows.task)
        # Names of sizes: a runtime may put tensors of equal ones into one place, so what differs has another name.
        heads, labels = f"{bank}.heads", "token_labels" if bank == "token_logits" else "labels"
        weight = self.given(f"{bank}.weight", [heads, width or self.weights.hidden, labels])
        bias = self.given(f"{bank}.bias", [heads, 1, labels])
        product = self.node("MatMul", [rows.states, self.node("Gather", [weight, row])])
        return self.node("Add", [product, self.node("Gather", [bias, row])])

    def unit_vector(self, rows: Rows) -> onnx.ValueInfoProto:
        """The mean over pieces at length one, [wholes, hidden]."""
        vector = self.node("Squeeze", [self.mean(rows), self.integers([1])])
        length = self.node("ReduceL2", [vector, self.integers([1])], keepdims=1)
        floor = self.constant("least_length", np.array(1e-12, np.float32))  # as torch.nn.functional.normalize
        vector = self.node("Div", [vector, self.node("Max", [length, floor])])
        self.asked_for(vector, rows, "embedding")
        return helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["wholes", self.weights.hidden])

    def of_task(self, name: str, task: str) -> str:
        """What a table says of each row's task, [rows].

        Args:
            name: of the input with the table, [tasks]. task: [rows].
        """
        return self.node("Gather", [self.given(name, ["tasks"], TensorProto.INT64), task])
