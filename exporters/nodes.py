"""ONNX nodes of an encoder, one by one: what every form of its graph is written with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.tensors import TensorFile
from exporters.weights import EncoderWeights, Floats, Linear, Norm


class Nodes:
    """A graph that grows node by node; a tensor in it is known by its name.

    Args:
        weights: of the encoder. file: name of the file for them.
    """

    def __init__(self, weights: EncoderWeights, file: str) -> None:
        self.weights = weights
        self.backbone = TensorFile(file)
        self.nodes: list[onnx.NodeProto] = []
        self.named: set[str] = set()
        self.initializers: dict[str, TensorProto] = {}
        self.inputs: dict[str, onnx.ValueInfoProto] = {}

    def model(self, results: Sequence[onnx.ValueInfoProto], version: int) -> onnx.ModelProto:
        """The whole graph.

        Args:
            results: its outputs. version: of the set of standard operators.
        """
        parts = (list(self.inputs.values()), results, list(self.initializers.values()))
        graph = helper.make_graph(self.nodes, "polyprompt", *parts)
        opset = helper.make_opsetid("", version)
        ir_version = helper.find_min_ir_version_for([opset])
        return helper.make_model(graph, opset_imports=[opset], ir_version=ir_version, producer_name="polyprompt")

    def behind_attention(self, number: int, mixed: str, states: str) -> str:
        """The rest of a layer.

        Args:
            number: of the layer. mixed: what its attention gives, [rows, seq, hidden]. states: what it was given.
        """
        layer, name = self.weights.layers[number], f"layer.{number}"
        mixed = self.linear(f"{name}.attention_output", mixed, layer.attention_output)
        states = self.norm(f"{name}.attention_norm", self.node("Add", [mixed, states]), layer.attention_norm)
        inner = self.gelu(self.linear(f"{name}.ffn_in", states, layer.ffn_in))
        outer = self.linear(f"{name}.ffn_out", inner, layer.ffn_out)
        return self.norm(f"{name}.ffn_norm", self.node("Add", [outer, states]), layer.ffn_norm)

    def given(self, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        """An input of the graph."""
        if name not in self.inputs:
            self.inputs[name] = helper.make_tensor_value_info(name, kind, shape)
        return name

    def split(self, states: str, parts: Sequence[str]) -> list[str]:
        """What stands side by side on the last axis."""
        names = [f"{states}.{part}" for part in parts]
        count = len(parts)
        self.nodes.append(
            helper.make_node("Split", [states], names, name=f"{states}.split", axis=-1, num_outputs=count)
        )
        return names

    def linear(self, name: str, states: str, linear: Linear, weights: str | None = None) -> str:
        """A linear layer of the encoder.

        Args:
            name: of the node. weights: of the weights, where two nodes share them.
        """
        weights = weights or name
        product = self.node("MatMul", [states, self.frozen(f"{weights}.weight", linear.weight)])
        return self.node("Add", [product, self.frozen(f"{weights}.bias", linear.bias)], name)

    def norm(self, name: str, states: str, norm: Norm, weights: str | None = None) -> str:
        """A normalisation of the encoder, as `linear`."""
        parts = {"scale": norm.scale, "shift": norm.shift}
        frozen = [self.frozen(f"{weights or name}.{part}", array) for part, array in parts.items()]
        return self.normalised(name, [states, *frozen])

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
