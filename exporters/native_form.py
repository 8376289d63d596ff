"""The graph for rows of different lengths over a compiled operator: nothing at all is computed for padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from exporters.graph import ZERO, Blueprint, Graph, Place, Rows
from exporters.operator import DOMAIN, NAME, VERSION
from exporters.pieces import Pieces
from exporters.weights import EncoderWeights, Linear
from harness.anatomy import FAMILIES
from harness.heads import Pooling


def can_be_native(blueprint: Blueprint, family: str) -> bool:
    """Whether the operator computes the attention of a family: scores have no bias, and no prompts are in the input."""
    in_input = blueprint.placement is not None and blueprint.placement.layers is None
    return not (in_input or FAMILIES[family].disentangled)


def build_native(weights: EncoderWeights, blueprint: Blueprint) -> Graph:
    """The graph of `exporters.graph.build_graph` with the same inputs, outputs and file of weights, without padding.

    Pieces of all rows stand one behind the other, [1, pieces, hidden], from the embeddings to the last layer. Attention
    is the project's own operator (`exporters.operator`), which reads each row's queries, keys and values where they
    lie, and its prefix in the bank. Inputs: `query` [queries, at least hidden], whose first columns count; `key_value`
    [pieces, at least 2 * hidden], whose last columns count; `prefix_key` and `prefix_value` [prompts, slots, hidden];
    `query_starts` and `key_starts` [rows + 1]; `prompt` [rows]; `prompt_lengths` [prompts]. Output: [queries, hidden].

    Of the last layer those queries are computed that are read. Rows are padded only for heads that answer for all of
    their pieces.
    """
    return _Native(weights, blueprint).write()


class _Native(Pieces):
    def __init__(self, weights: EncoderWeights, blueprint: Blueprint) -> None:
        super().__init__(weights, blueprint)
        self.shapes: list[onnx.ValueInfoProto] = []

    starts = "native.starts"
    """Of each row its first piece, and behind them the number of pieces, [batch + 1]."""

    def model(self, results: Sequence[onnx.ValueInfoProto], version: int) -> onnx.ModelProto:
        """See `Nodes`."""
        model = super().model(results, version)
        model.graph.value_info.extend(self.shapes)
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
        return model

    def lower_layers(self) -> Rows:
        """See `Writer`."""
        self.starts_of("lengths", self.starts)
        return super().lower_layers()

    def places(self, rows: Rows, begin: int, end: int) -> list[Place | None]:
        """See `Writer`; the operator reads prefixes where they lie."""
        return [None] * (end - begin)

    def starts_of(self, counts: str, name: str) -> str:
        """Where each of some rows begins that stand one behind the other, and where the last one ends, [rows + 1]."""
        ends = self.node("CumSum", [counts, self.integers(0)])
        return self.node("Concat", [self.integers([0]), ends], name, axis=0)

    def layer(self, number: int, rows: Rows, place: Place | None) -> str:
        """See `Writer`; [1, pieces, hidden]."""
        triple = self.flat(self.linear(f"layer.{number}.qkv", rows.states, self.weights.layers[number].qkv))
        mixed = self.packed_attention(number, rows, triple, triple, self.starts)
        return self.behind_attention(number, self.stacked(mixed), rows.states)

    def packed_attention(self, number: int, rows: Rows, query: str, pair: str, starts: str) -> str:
        """Self-attention of one layer, [queries, hidden].

        Args:
            query: of which the first columns are queries. pair: of all pieces, whose last columns are keys and values.
            starts: of each row's queries, [batch + 1].
        """
        name, hidden = f"layer.{number}", self.weights.hidden
        # of a prefix without slots there is one all the same: OpenVINO takes a tensor without elements for a number
        none = self.constant("no_prefix", np.zeros((1, 1, hidden), np.float32))
        nowhere = self.node("ConstantOfShape", [self.node("Shape", [rows.task])], "native.no_prompt", value=ZERO)
        without = [none, none], nowhere, self.integers([0])

        def attend(name: str, pair: str, keys: str, banks: list[str], prompt: str, lengths: str) -> str:
            inputs = [query, pair, *banks, starts, keys, prompt, lengths]
            heads, scale = self.weights.heads, self.weights.scaling
            # Runtimes do not know the operator's shapes. Sizes of equal names are equal ones.
            size = "native.pieces" if starts == self.starts else "native.queries"
            self.shapes.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, hidden]))
            return self.node(NAME, inputs, name, domain=DOMAIN, heads=heads, scale=scale)

        if self.placement is None or self.placement.layers is None or number not in self.placement.layers:
            return attend(f"{name}.attention", pair, self.starts, *without)
        assert rows.prompt is not None  # where there is a placement
        lengths = self.given("prompt_lengths", [len(self.placement.layers), "prompts"], TensorProto.INT64)
        lengths = self.node("Gather", [lengths, self.integers(self.placement.layers.index(number))])
        own = [self.bank(f"{name}.prefix_{kind}") for kind in ("key", "value")], rows.prompt, lengths
        if not self.placement.gated:
            return attend(f"{name}.attention", pair, self.starts, *own)
        begin = self.integers([0])
        no_keys = self.node("Slice", [pair, begin, begin, begin])
        no_starts = self.node("ConstantOfShape", [self.node("Shape", [self.starts])], "native.no_starts", value=ZERO)
        both = [
            attend(f"{name}.attention", pair, self.starts, *without),
            attend(f"{name}.prefix_attention", no_keys, no_starts, *own),
        ]
        return self.node("Add", both)

    def last_layer(self, rows: Rows) -> list[Rows]:
        """See `Writer`. A row has as queries the piece that is read, if one is, and then all, if they are."""
        number, hidden = len(self.weights.layers) - 1, self.weights.hidden
        qkv, name = self.weights.layers[number].qkv, f"layer.{number}"
        rest = Linear(qkv.weight[:, hidden:], qkv.bias[hidden:])
        pair = self.flat(self.linear(f"{name}.key_value", rows.states, rest))
        first = self.node("CumSum", ["lengths", self.integers(0)], exclusive=1)
        whole = self.asked("whole_rows")
        one = self.asked("sequence_rows") if self.blueprint.pooling is Pooling.CLS else None
        counts = self.node("Mul", [whole, "lengths"])
        numbers = self.numbers(rows.longest)
        real = self.node("Less", [numbers, self.column("lengths")])
        asked = self.node("And", [real, self.node("Cast", [self.column(whole)], to=TensorProto.BOOL)])
        pieces = self.node("Add", [self.column(first), numbers])
        if one is not None:
            counts = self.node("Add", [one, counts])
            read = self.node("Cast", [self.column(one)], to=TensorProto.BOOL)
            asked = self.node("Concat", [read, asked], axis=1)
            pieces = self.node("Concat", [self.column(self.read_piece(rows, first)), pieces], axis=1)
        chosen = self.node("Gather", [self.node("Reshape", [pieces, self.integers([-1])]), self.true_places([asked])])
        starts = self.starts_of(counts, "native.query_starts")
        states = self.stacked(self.node("Gather", [self.flat(rows.states), chosen]))
        query = self.linear(f"{name}.query", states, Linear(qkv.weight[:, :hidden], qkv.bias[:hidden]))
        mixed = self.packed_attention(number, rows, self.flat(query), pair, starts)
        states = self.flat(self.behind_attention(number, self.stacked(mixed), states))

        def chosen_rows(name: str, states: str) -> Rows:
            task, lengths = (self.node("Gather", [of, name]) for of in ("task_id", "lengths"))
            return Rows(states, task, lengths, None, rows.longest, self.node("Shape", [name]))

        begin = self.node("Gather", [starts, "whole_rows"])
        if one is not None:
            begin = self.node("Add", [begin, self.node("Gather", [one, "whole_rows"])])
        last = self.node("Sub", [self.node("Gather", ["lengths", "whole_rows"]), self.integers([1])])
        place = self.node("Min", [numbers, self.column(last)])  # behind a row's end its last piece again
        place = self.node("Add", [self.column(begin), place])
        whole = chosen_rows("whole_rows", self.node("Gather", [states, place]))
        if rows.below:
            begin = self.node("Gather", [first, "whole_rows"])
            place = self.node("Add", [self.column(begin), self.node("Min", [numbers, self.column(last)])])
            place = self.node("Unsqueeze", [place, self.integers([-1])])
            # GatherND, see below
            below = (self.node("GatherND", [self.flat(states), place]) for states in rows.below)
            whole = whole._replace(below=tuple(below))
        found = [whole]
        if one is not None:
            place = self.node("Unsqueeze", [self.node("Gather", [starts, "sequence_rows"]), self.integers([1, 2])])
            # no second Gather of the same states: ONNX Runtime looks for pairs that split them, and fails in that
            found.append(chosen_rows("sequence_rows", self.node("GatherND", [states, place])))
        return found

    def asked(self, name: str) -> str:
        """How often each row is asked for, once or not at all, [batch].

        Args:
            name: of the input that says which are.
        """
        self.given(name, [name.replace("_rows", "s")], TensorProto.INT64)
        none = self.node("ConstantOfShape", [self.node("Shape", ["lengths"])], value=ZERO)
        ones = helper.make_tensor("one", TensorProto.INT64, [1], [1])
        ones_ = self.node("ConstantOfShape", [self.node("Shape", [name])], value=ones)
        return self.node("ScatterElements", [none, name, ones_], axis=0)
