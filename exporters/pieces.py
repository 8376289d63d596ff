"""Graphs whose rows are without padding from the embeddings on: real pieces, one behind the other."""

from __future__ import annotations

from exporters.graph import Rows, Writer
from harness.heads import HeadKind


class Pieces(Writer):
    """States behind the embeddings are [1, pieces, hidden].

    The first axis is for OpenVINO, which takes much longer to quantise a matrix than a stack of one.
    """

    places_of_pieces, stands = "pieces.places", "pieces.stands"
    """Of each real piece its place among the padded ones, and in its row, [pieces]."""

    def lower_layers(self) -> Rows:
        """See `Writer`."""
        longest = self.node("Shape", ["input_ids"], start=1, end=2)
        real = self.node("Less", [self.numbers(longest), self.column("lengths")])
        self.true_places([real], self.places_of_pieces)
        self.node("Mod", [self.places_of_pieces, longest], self.stands)
        return super().lower_layers()

    def taken(self, places: str) -> str:
        """See `Writer`; [1, pieces]."""
        flat = self.node("Reshape", [places, self.integers([-1])])
        return self.stacked(self.node("Gather", [flat, self.places_of_pieces]))

    def along(self, row: str) -> str:
        """See `Writer`; [pieces, width]."""
        return self.node("Gather", [row, self.stands])

    def flat(self, states: str) -> str:
        """[pieces, width] of [1, pieces, width]"""
        return self.node("Squeeze", [states, self.integers([0])])

    def stacked(self, states: str) -> str:
        """[1, pieces, width] of [pieces, width], or [1, pieces] of [pieces]"""
        return self.node("Unsqueeze", [states, self.integers([0])])

    def read_piece(self, rows: Rows, first: str) -> str:
        """The piece that each row's task reads, [rows]: the first one or its mask.

        Args:
            first: of each row, [rows].
        """
        if self.blueprint.readout is not HeadKind.VERBALISER:
            return first
        last = self.node("Sub", [rows.lengths, self.integers([1])])
        return self.node("Add", [first, self.node("Min", [self.of_task("read_position", rows.task), last])])

    def column(self, name: str) -> str:
        """[rows, 1] of [rows]"""
        return self.node("Unsqueeze", [name, self.integers([1])])

    def numbers(self, longest: str) -> str:
        """The places of a row, [seq].

        Args:
            longest: so many, [1].
        """
        return self.node("Range", [self.integers(0), self.node("Squeeze", [longest]), self.integers(1)])

    def true_places(self, truths: list[str], name: str | None = None) -> str:
        """Of some tensors, one behind the other, the places that are true, counted row by row, [true places]."""
        flat = [self.node("Reshape", [truth, self.integers([-1])]) for truth in truths]
        truth = flat[0] if len(flat) == 1 else self.node("Concat", flat, axis=0)
        return self.node("Squeeze", [self.node("NonZero", [truth]), self.integers([0])], name)
