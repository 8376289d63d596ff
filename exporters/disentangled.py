"""Disentangled attention (DeBERTa) in a graph: what distances add to the scores, as a bias of ordinary attention.

See `harness.disentangled` for what is computed. Here every key says where it stands, and one of a prefix that it stands
nowhere: it is scored with a column of zeros. So keys may come in any order, as they do where prefixes have gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from harness.distances import Distances

if TYPE_CHECKING:
    from exporters.graph import Place, Rows, Writer
    from exporters.nodes import Nodes

Floats = NDArray[np.float32]

NOWHERE = -1
"""In place of where a key of a prefix stands."""


@dataclass(frozen=True)
class Table:
    """What a layer makes of distances, scaled, and behind it zeros, [head, head_dim, 2 * span + 1].

    Attributes:
        keys: for `c2p`. queries: for `p2c`. None: it is not scored.
    """

    keys: Floats | None
    queries: Floats | None


def make_table(distances: Distances, rows: Floats, heads: int, linear: Callable[[str], tuple[Floats, Floats]]) -> Table:
    """That of a layer.

    Args:
        rows: the table of all layers, normalised where it has to be, [at least 2 * span, hidden].
        linear: weight [hidden, hidden] and bias of a map of the layer, by its name in `harness.anatomy`.
    """

    def made(name: str) -> Floats:
        weight, bias = linear(name if distances.shared else f"distance_{name}")
        mapped = (rows[: 2 * distances.span] @ weight.T + bias) * np.float32(distances.scaling)
        by_head = mapped.reshape(len(mapped), heads, -1).transpose(1, 2, 0)
        return np.pad(by_head, ((0, 0), (0, 0), (0, 1)))

    return Table(
        *(made(name) if part in distances.parts else None for name, part in (("key", "c2p"), ("query", "p2c")))
    )


def distance_bias(nodes: Nodes, number: int, query: str, key: str, asked: str, shown: str) -> str:
    """What is added to the scores of a layer, [rows, heads, queries, keys]; an empty name where nothing is.

    Args:
        number: of the layer. query: [rows, queries, hidden]. key: [rows, keys, hidden].
        asked, shown: where they stand, [rows, queries] and [rows, keys].
    """
    table, node, found = nodes.weights.layers[number].table, nodes.node, []
    row = _row(nodes, asked, shown) if nodes.weights.distances.parts else ""
    if table.keys is not None:
        weight = nodes.frozen(f"layer.{number}.distance_key", table.keys)
        scores = node("MatMul", [_by_head(nodes, query), weight])
        found.append(node("GatherElements", [scores, _of_heads(nodes, row)], axis=3))
    if table.queries is not None:
        weight = nodes.frozen(f"layer.{number}.distance_query", table.queries)
        scores, back = node("MatMul", [_by_head(nodes, key), weight]), node("Transpose", [row], perm=[0, 2, 1])
        picked = node("GatherElements", [scores, _of_heads(nodes, back)], axis=3)
        found.append(node("Transpose", [picked], perm=[0, 1, 3, 2]))
    return node("Add", found) if len(found) == 2 else "".join(found)


def _row(nodes: Nodes, asked: str, shown: str) -> str:
    """The row of the table for each pair of query and key, [rows, queries, keys]."""
    node, integers, distances = nodes.node, nodes.integers, nodes.weights.distances
    query, key = node("Unsqueeze", [asked, integers([2])]), node("Unsqueeze", [shown, integers([1])])
    longest = distances.longest
    distance = node("Clip", [node("Sub", [query, key]), integers(-longest), integers(longest)])
    table = nodes.constant("distance_row", distances.rows().astype(np.int64))
    row = node("Gather", [table, node("Add", [distance, integers(longest)])])
    row = node("Where", [node("Less", [key, integers(0)]), integers(2 * distances.span), row])
    return node("Cast", [row], to=TensorProto.INT32)


def _of_heads(nodes: Nodes, row: str) -> str:
    """The same rows for each head, [rows, heads, ., .]."""
    heads = nodes.integers([1, nodes.weights.heads, 1, 1])
    return nodes.node("Expand", [nodes.node("Unsqueeze", [row, nodes.integers([1])]), heads])


def _by_head(nodes: Nodes, states: str) -> str:
    """[rows, seq, hidden] to [rows, heads, seq, head_dim]"""
    shape = nodes.integers([0, 0, nodes.weights.heads, -1])
    return nodes.node("Transpose", [nodes.node("Reshape", [states, shape])], perm=[0, 2, 1, 3])


# Where pieces stand in the graph of all tasks


def stands(writer: Writer, rows: Rows, place: Place | None) -> str:
    """Where each piece stands, [rows, seq]; vectors stand in front, and behind the row's pieces in the tensor."""
    node, integers = writer.node, writer.integers
    vectors = place is not None and not place.slots
    size = node("Shape", [rows.states], start=1, end=2) if vectors else rows.longest
    number = node("Range", [integers(0), node("Squeeze", [size]), integers(1)])
    if vectors:
        lengths, keys = (node("Unsqueeze", [name, integers([1])]) for name in (rows.lengths, place.keys))
        own = node("Add", [number, node("Sub", [keys, lengths])])
        return node("Where", [node("Less", [number, lengths]), own, node("Sub", [number, lengths])])
    return node("Expand", [number, node("Concat", [node("Shape", [rows.task]), size], axis=0)])


def read_stands(writer: Writer, rows: Rows, stands: str) -> str:
    """Where the one piece stands that is read of each row, [rows, 1]."""
    column = writer.node("Unsqueeze", [stands, writer.integers([-1])])
    return writer.node("Squeeze", [writer.piece(rows._replace(states=column)), writer.integers([-1])])


def stands_behind(writer: Writer, prefix: str, stands: str, place: Place) -> str:
    """Where keys stand behind those of a prefix [rows, slots, hidden]; [rows, slots + seq]."""
    node, last = writer.node, writer.integers([-1])
    nowhere = numpy_helper.from_array(np.array([NOWHERE], np.int64))
    front = node("ConstantOfShape", [node("Shape", [prefix], start=0, end=2)], value=nowhere)
    both = [node("Unsqueeze", [name, last]) for name in (front, stands)]
    return node("Squeeze", [writer.in_front(*both, place, 1), last])
