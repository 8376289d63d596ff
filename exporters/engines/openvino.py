"""OpenVINO on the CPU; it opens the same ONNX files."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError
from exporters.engines.interface import Arrays, EngineCard

DEVICE = "CPU"


@cache
def has_bf16() -> bool:
    """Whether this processor computes products in bf16."""
    return "BF16" in openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


class OpenVino:
    """An ONNX file in OpenVINO.

    The runtime always computes all outputs of what it compiled. So each set of outputs that is asked for is compiled
    apart, when it is first asked for.

    Args:
        model: the file.
        threads: None: one a core.
        bf16: products in bf16 in place of fp32.

    Raises:
        PolypromptError: OpenVINO cannot open the file, or the processor has no bf16.
    """

    def __init__(self, model: Path, threads: int | None, bf16: bool) -> None:
        if bf16 and not has_bf16():
            raise PolypromptError("--engine openvino-bf16: this processor has no bf16; take --engine openvino")
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(model)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PolypromptError(f"{model}: OpenVINO cannot open it ({reason})") from None
        self._compiled: dict[frozenset[str], openvino.CompiledModel] = {}
        self._lock = threading.Lock()
        self._kept: dict[str, openvino.Tensor] = {}
        self._version = 0
        self._mine = threading.local()
        self.card = EngineCard(
            name="openvino",
            version=openvino.__version__.split("-")[0],
            device="cpu",
            threads=threads,
            precision="bf16" if bf16 else "fp32",
            attention="the plugin's choice, known once it is compiled",
        )

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        # in place: the arrays live as long as the tensors that show them
        self._kept = {name: openvino.Tensor(np.ascontiguousarray(a), shared_memory=True) for name, a in tensors.items()}
        self._version += 1

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        request, inputs = self._request(frozenset(names))
        fed = {name: array for name, array in feeds.items() if name in inputs}
        results = request.infer(fed, share_inputs=True, share_outputs=True)
        return {name: results[name] for name in names}

    def _request(self, names: frozenset[str]) -> tuple[openvino.InferRequest, set[str]]:
        """A request of this thread with the kept tensors in place, and the names of its inputs."""
        mine: dict[frozenset[str], tuple[int, openvino.InferRequest, set[str]]] = self._mine.__dict__
        version, request, inputs = mine.get(names, (-1, None, set()))
        if request is None:
            compiled = self._compile(names)
            request, inputs = compiled.create_infer_request(), {n for port in compiled.inputs for n in port.names}
        if version != self._version:
            for name, tensor in self._kept.items():
                if name in inputs:
                    request.set_tensor(name, tensor)
            mine[names] = self._version, request, inputs
        return request, inputs

    def _compile(self, names: frozenset[str]) -> openvino.CompiledModel:
        with self._lock:
            if names not in self._compiled:
                part = self._part(names)
                self._compiled[names] = self._core.compile_model(part, DEVICE, self._settings)
                self.card = self.card.model_copy(update={"attention": _attention(self._compiled[names])})
            return self._compiled[names]

    def _part(self, names: frozenset[str]) -> openvino.Model:
        """The graph with these outputs and the inputs that they need; it shares its constants with the whole one."""
        copy = self._model.clone()
        results = [port.node for port in copy.outputs if port.names & names]
        reached, ahead = set(), list(results)
        while ahead:
            node = ahead.pop()
            if node.get_friendly_name() not in reached:
                reached.add(node.get_friendly_name())
                ahead += [value.get_node() for value in node.input_values()]
        inputs = [node for node in copy.get_parameters() if node.get_friendly_name() in reached]
        return openvino.Model(results, inputs, "polyprompt")


def _attention(compiled: openvino.CompiledModel) -> str:
    """What the compiled graph has for it."""
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    if "ScaledDotProductAttention" in kinds:
        return f"ScaledDotProductAttention, {kinds.count('ScaledDotProductAttention')} nodes"
    return f"matrix products and softmax, {kinds.count('Softmax')} nodes of it"
