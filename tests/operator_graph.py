"""An ONNX graph of nothing but the operator of packed graphs, for its tests and for how fast it is."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from exporters.operator import DOMAIN, NAME, VERSION

INPUTS = {
    "query": 2,
    "key_value": 2,
    "prefix_key": 3,
    "prefix_value": 3,
    "query_starts": 1,
    "key_starts": 1,
    "prompt": 1,
    "prompt_lengths": 1,
}
"""Input -> its rank."""

RANKS = tuple(INPUTS.values())


def operator_graph(
    heads: int, scale: float, kind: int = TensorProto.FLOAT, ranks: Sequence[int] = RANKS
) -> onnx.ModelProto:
    """The graph. Nothing is known of shapes but ranks, so that all checks are the operator's.

    Args:
        kind: of the numbers. ranks: of the inputs.
    """
    inputs = []
    for (name, wanted), rank in zip(INPUTS.items(), ranks, strict=True):
        number = TensorProto.INT64 if wanted == 1 else kind
        inputs.append(helper.make_tensor_value_info(name, number, [f"{name}{axis}" for axis in range(rank)]))
    node = helper.make_node(NAME, list(INPUTS), ["mixed"], domain=DOMAIN, heads=heads, scale=scale)
    outputs = [helper.make_tensor_value_info("mixed", kind, ["queries", "hidden"])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    graph = helper.make_graph([node], "attention", inputs, outputs)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
