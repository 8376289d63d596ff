"""The graph for rows of different lengths: all but attention and the last layer is computed for real pieces alone."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from exporters.graph import Blueprint, Graph, Place, Rows, Writer
from exporters.weights import EncoderWeights


def can_pack(blueprint: Blueprint, layers: int) -> bool:
    """Whether a graph has anything to pack: layers below the last one, and no prompts among the pieces of its rows."""
    return layers > 1 and (blueprint.placement is None or blueprint.placement.layers is not None)


def build_packed(weights: EncoderWeights, blueprint: Blueprint) -> Graph:
    """The graph of `exporters.graph.build_graph` with the same inputs, outputs and file of weights, in packed form.

    Pieces of all rows stand one behind the other, [pieces, hidden], and are put into padded rows only where attention
    looks at them. Where little is padding this costs a few percent, see `tests/speed/inference.py`.
    """
    return _Packed(weights, blueprint).write()


class _Packed(Writer):
    places_of_pieces, rows_of_pieces = "packed.places", "packed.rows"
    """Of each real piece its place among the padded ones, [pieces]; of each of these the piece there, [batch, seq]:
    behind a row's end the last one before it."""

    inside = False
    """Whether states are packed where the writer is."""

    def layers(self, rows: Rows, places: Sequence[Place | None]) -> Rows:
        """See `Writer`."""
        if not can_pack(self.blueprint, len(self.weights.layers)):
            return super().layers(rows, places)
        piece = self.node("Range", [self.integers(0), self.node("Squeeze", [rows.longest]), self.integers(1)])
        real = self.node("Less", [piece, self.node("Unsqueeze", [rows.lengths, self.integers([1])])])
        flat = self.node("Reshape", [real, self.integers([-1])])
        self.node("Squeeze", [self.node("NonZero", [flat]), self.integers([0])], self.places_of_pieces)
        count = self.node("CumSum", [self.node("Cast", [flat], to=TensorProto.INT64), self.integers(0)])
        number = self.node("Sub", [count, self.integers([1])])
        self.node("Reshape", [number, self.node("Shape", ["input_ids"])], self.rows_of_pieces)
        self.inside = True
        rows = super().layers(rows._replace(states=self.packed(rows.states)), places)
        rows = rows._replace(states=self.padded(rows.states))
        self.inside = False
        return rows

    def padded(self, states: str) -> str:
        """See `Writer`; [batch, seq, width] of [pieces, width]."""
        return self.node("Gather", [states, self.rows_of_pieces]) if self.inside else states

    def packed(self, states: str) -> str:
        """See `Writer`; [pieces, width] of [batch, seq, width]."""
        if not self.inside:
            return states
        shape = self.integers([-1, self.weights.hidden])
        return self.node("Gather", [self.node("Reshape", [states, shape]), self.places_of_pieces])
