"""Layers of a frozen encoder in OpenVINO, for runs on a processor; `harness.engines` finds it where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks import cache
from benchmarks.errors import PolypromptError
from exporters import disentangled, graph, nodes, weights
from exporters.engines.openvino import DEVICE, core, has_bf16, settings
from exporters.graph import OPSET, Blueprint, Place, Rows, Writer
from exporters.weights import EncoderWeights, Floats, Linear, read_weights
from harness.backbone import Backbone
from harness.inference import Layers, Part
from harness.placement import Placement

LARGEST = 2**31 - 2**20
"""Bytes of a graph in memory; no ONNX file may be larger."""

_CODE = [Path(__file__), *(Path(module.__file__ or "") for module in (disentangled, graph, nodes, weights))]


class OpenVino:
    """See `harness.inference.InferenceEngine`."""

    name = "openvino"

    @property
    def identity(self) -> str:
        """Version of the runtime and of the code that writes its graph."""
        return f"{self.name} {openvino.__version__} {cache.source_hash(*_CODE)}"

    def compile(self, backbone: Backbone, part: Part, bf16: bool, threads: int) -> Layers:
        """See `harness.inference.InferenceEngine`."""
        if bf16 and not has_bf16():
            raise PolypromptError("OpenVINO has no bf16 on this processor")
        state = {name: weight.float().cpu().numpy() for name, weight in backbone.model.state_dict().items()}
        config = backbone.model.config.to_dict()
        model = layers_graph(read_weights(config, state, backbone.first_position, backbone.token_types), part)
        try:
            compiled = core().compile_model(core().read_model(model), DEVICE, settings(threads, bf16))
        except RuntimeError as error:
            raise PolypromptError(f"OpenVINO: {str(error).strip().splitlines()[-1]}") from None

        request = compiled.create_infer_request()

        def run(feeds: Mapping[str, NDArray[Any]]) -> Floats:
            return np.asarray(request.infer(feeds, share_inputs=True, share_outputs=True)[0])

        return run


def layers_graph(weights: EncoderWeights, part: Part) -> bytes:
    """An ONNX file with its weights inside. Its inputs and its output are those of `harness.inference.Layers`.

    Raises:
        PolypromptError: it would be too large.
    """
    return _Layers(weights, part).file()


class _Layers(Writer):
    """Writes some layers alone, with one prefix for all rows.

    Args:
        weights: of the encoder. part: which layers.
    """

    def __init__(self, weights: EncoderWeights, part: Part) -> None:
        super().__init__(weights, Blueprint(Placement(layers=part.prompted) if part.prompted else None))
        self.part = part

    def file(self) -> bytes:
        """The whole file."""
        states = self.given("states", ["batch", "seq", self.weights.hidden])
        lengths = self.given("lengths", ["batch"], TensorProto.INT64)
        longest = self.node("Shape", [states], start=1, end=2)
        prompt = self.node("ConstantOfShape", [self.node("Shape", [lengths])], value=graph.ZERO)
        rows = Rows(states, "", lengths, prompt, longest, "")
        for number in range(self.part.first, self.part.end):
            place, last = self.place(number, rows), number == self.part.end - 1
            found = self.read(number, rows, place) if self.part.reads and last else self.layer(number, rows, place)
            rows = rows._replace(states=found)
        pieces = "read" if self.part.reads else "seq"
        result = helper.make_tensor_value_info(rows.states, TensorProto.FLOAT, ["batch", pieces, self.weights.hidden])
        model: onnx.ModelProto = self.model([result], OPSET)
        if self.backbone.bytes > LARGEST:
            raise PolypromptError(f"its layers are {self.backbone.bytes / 2**30:.1f} GiB, too many for one ONNX file")
        self.backbone.inline(model.graph.initializer)
        return model.SerializeToString()

    def read(self, number: int, rows: Rows, place: Place | None) -> str:
        """The last layer for the one piece that is read, [batch, 1, hidden]."""
        begin = self.given("read", [1], TensorProto.INT64)
        end = self.node("Add", [begin, self.integers([1])])
        asked = self.node("Slice", [rows.states, begin, end, self.integers([1])])
        qkv, hidden, name = self.weights.layers[number].qkv, self.weights.hidden, f"layer.{number}"
        query = self.linear(f"{name}.query", asked, Linear(qkv.weight[:, :hidden], qkv.bias[:hidden]))
        pair = self.linear(f"{name}.key_value", rows.states, Linear(qkv.weight[:, hidden:], qkv.bias[hidden:]))
        mixed = self.attention(number, rows, place, [query, *self.split(pair, ("key", "value"))])
        return self.behind_attention(number, mixed, asked)

    def place(self, number: int, rows: Rows) -> Place | None:
        """Of the prefix in a layer; there are no gaps behind one that all rows have."""
        if number not in self.part.prompted:
            return None
        slots = self.node("Shape", [self.bank(f"layer.{number}.prefix_key")], start=1, end=2)
        return Place(slots, self.node("Add", [rows.lengths, slots]), "", "")
