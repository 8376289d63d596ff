"""The graph for rows of different lengths: all but attention and the last layer is computed for real pieces alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onnx import TensorProto

from exporters.batching import PARTS
from exporters.graph import KEYS, Blueprint, Graph, Place, Rows, Writer
from exporters.pieces import Pieces
from exporters.weights import EncoderWeights


def can_pack(blueprint: Blueprint, layers: int) -> bool:
    """Whether a graph has anything to pack: layers below the last one, and no prompts among the pieces of its rows."""
    return layers > 1 and (blueprint.placement is None or blueprint.placement.layers is not None)


def build_packed(weights: EncoderWeights, blueprint: Blueprint) -> Graph:
    """The graph of `exporters.graph.build_graph` with the same inputs, outputs and file of weights, in packed form.

    Pieces of all rows stand one behind the other, [1, pieces, hidden], and are put into padded rows only where
    attention looks at them: neighbouring rows in `PARTS` parts, each as wide as its longest row. The parts end in
    front of the first row that is longer than a third, and than two thirds, of the longest one, so that rows should
    come by length; in any order they are answered alike. Where little is padding this costs a few percent, see
    `tests/speed/inference.py`.
    """
    packs = can_pack(blueprint, len(weights.layers))
    return (_Packed if packs else Writer)(weights, blueprint).write()


class _Part(NamedTuple):
    """Neighbouring rows that attention pads together.

    Attributes:
        rows: without states. pieces: what stands in each of their places, see `_Packed.pieces`.
        places: of their prefixes in each layer.
    """

    rows: Rows
    pieces: str
    places: list[Place | None]


class _Packed(Pieces):
    places_in_parts = "packed.places"
    """Of each real piece its place among those of all parts, one behind the other, [pieces]."""

    first_pieces, pieces_of_batch = "packed.first_pieces", "packed.pieces"
    """Of each row its first piece, [batch]; and `pieces` of all rows."""

    def layers(self, rows: Rows) -> Rows:
        """See `Writer`."""
        self.node("CumSum", [rows.lengths, self.integers(0)], self.first_pieces, exclusive=1)
        self.pieces(rows, self.first_pieces, self.pieces_of_batch)
        cut = self.parts_of(rows)
        for number in range(len(self.weights.layers) - 1):
            rows = self.entering(rows)._replace(states=self.packed_layer(number, rows, cut))
        return rows

    def packed_layer(self, number: int, rows: Rows, cut: Sequence[_Part]) -> str:
        """One layer of the encoder but the last, [1, pieces, hidden]."""
        triple = self.linear(f"layer.{number}.qkv", rows.states, self.weights.layers[number].qkv)
        flat = [self.flat(states) for states in self.split(triple, ("query", *KEYS))]
        shape, found = self.integers([-1, self.weights.hidden]), []
        for count, part in enumerate(cut):
            states = [self.node("Gather", [states, part.pieces]) for states in flat]
            mixed = self.attention(number, part.rows, part.places[number], states, f"part.{count}.")
            found.append(self.node("Reshape", [mixed, shape]))
        mixed = self.node("Gather", [self.node("Concat", found, axis=0), self.places_in_parts])
        return self.behind_attention(number, self.stacked(mixed), rows.states)

    def some(self, states: str, which: str, size: str) -> str:
        """See `Writer`."""
        pieces = self.node("Gather", [self.pieces_of_batch, which])
        pieces = self.node("Slice", [pieces, self.integers([0]), size, self.integers([1])])
        return self.node("Gather", [self.flat(states), pieces])

    def read_of(self, rows: Rows, which: str) -> str:
        """See `Writer`."""
        pieces = self.node("Gather", [self.read_piece(rows, self.first_pieces), which])
        return self.node("Gather", [self.flat(rows.states), self.column(pieces)])

    def parts_of(self, rows: Rows) -> tuple[_Part, ...]:
        """The parts of a batch. In place of one without rows is a row of one piece, which nothing reads."""
        one, column = self.integers([1]), self.integers([PARTS - 1, 1])
        shares = self.node("Reshape", [self.integers(list(range(1, PARTS))), column])
        limits = self.node("Mul", [shares, self.node("ReduceMax", [rows.lengths])])
        longer = self.node("Less", [limits, self.node("Mul", [rows.lengths, self.integers([PARTS])])])
        # ArgMax takes the first one that is longer, and there always is one: the longest.
        ends = self.node("ArgMax", [self.node("Cast", [longer], to=TensorProto.INT32)], axis=1, keepdims=0)
        begins = self.node("Concat", [self.integers([0]), ends], axis=0)
        ends = self.node("Concat", [ends, self.node("Shape", [rows.lengths])], axis=0)
        some = self.node("Min", [self.node("Sub", [ends, begins]), one])  # 0 where there are none
        begins, ends = self.node("Mul", [begins, some]), self.node("Max", [self.node("Mul", [ends, some]), one])
        found, real = [], []
        for begin, end, is_some in zip(*(self.parts(name, PARTS) for name in (begins, ends, some)), strict=True):
            lengths, task, first = (
                self.node("Slice", [name, begin, end]) for name in (rows.lengths, rows.task, self.first_pieces)
            )
            prompt = None if rows.prompt is None else self.node("Slice", [rows.prompt, begin, end])
            there = self.node("Mul", [lengths, is_some])
            longest = self.node("Max", [self.node("ReduceMax", [there]), one])
            part = Rows("", task, self.node("Min", [lengths, longest]), prompt, longest, "")
            real.append(self.node("Less", [self.numbers(longest), self.column(there)]))
            places = self.places(part, 0, len(self.weights.layers) - 1)
            found.append(_Part(part, self.pieces(part, first), places))
        self.true_places(real, self.places_in_parts)
        return tuple(found)

    def pieces(self, rows: Rows, first: str, name: str | None = None) -> str:
        """The piece in each place of rows, [rows, seq]; behind a row's end its last one again.

        Args:
            first: of each row, [rows].
        """
        last = self.column(self.node("Sub", [rows.lengths, self.integers([1])]))
        place = self.node("Min", [self.numbers(rows.longest), last])
        return self.node("Add", [self.column(first), place], name)
