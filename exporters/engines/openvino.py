"""OpenVINO on the CPU; it opens the same ONNX files."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import openvino
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError
from exporters.engines.interface import Arrays, Batch, EngineCard
from exporters.engines.narrow import narrow
from exporters.engines.slim import slim

DEVICE = "CPU"

KERNELS = 100
"""Kernels that are remembered by the shape that they are made for. OpenVINO's own bound is so wide that a service,
which sees ever new shapes, would take gigabytes before it stops growing; and it answers no faster."""


@cache
def core() -> openvino.Core:
    """The one of this process.

    Each brings a stack for signals and puts back the one before when it goes: of two that go in the order in which they
    came, a stack is left that is gone, and the next Ctrl-C is a segmentation fault.
    """
    return openvino.Core()


@cache
def extend(library: Path) -> None:
    """Let all graphs have the operators of a library; once is enough."""
    core().add_extension(str(library))


@cache
def has_bf16() -> bool:
    """Whether this processor computes products in bf16."""
    return "BF16" in core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


STREAMS = 2
"""Parts of a batch that are computed side by side, where they are. Threads that share a product wait for each other at
its end, and have parts of it that are not of one size; with a part of the rows each, they hardly do."""


@cache
def cores() -> int:
    """Of the machine, as many as OpenVINO would make streams of."""
    return int(core().get_property(DEVICE, "RANGE_FOR_STREAMS")[1])


def settings(threads: int | None, bf16: bool, streams: int = 1) -> dict[str, Any]:
    """What a graph is compiled with; see `OpenVino`."""
    found: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    found["CPU_RUNTIME_CACHE_CAPACITY"] = KERNELS
    if threads is not None:
        found["INFERENCE_NUM_THREADS"] = threads
    if streams > 1:
        found["NUM_STREAMS"] = streams
    return found


class OpenVino:
    """An ONNX file in OpenVINO.

    All outputs are computed, whichever are asked for: what a batch does not read has no rows in it, and each set of
    outputs compiled apart would lay out the weights in memory once more.

    Args:
        model: the file.
        threads: None: one a core.
        bf16: products in bf16 in place of fp32.
        extension: library of an operator that the graph has.
        side_by_side: compute `STREAMS` batches side by side, where there are as many threads; each has a share of them.

    Attributes:
        streams: so many batches.

    Raises:
        PolypromptError: OpenVINO cannot open the file, or the processor has no bf16.
    """

    def __init__(
        self, model: Path, threads: int | None, bf16: bool, extension: Path | None = None, side_by_side: bool = False
    ) -> None:
        if bf16 and not has_bf16():
            raise PolypromptError("--engine openvino-bf16: this processor has no bf16; take --engine openvino")
        self.streams = STREAMS if side_by_side and (threads or cores()) >= STREAMS else 1
        try:
            if extension is not None:
                extend(extension)
            read = core().read_model(model)
            slim(read)
            if bf16:
                narrow(read)
            self._compiled = core().compile_model(read, DEVICE, settings(threads, bf16, self.streams))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PolypromptError(f"{model}: OpenVINO cannot open it ({reason})") from None
        self._inputs = {name: port.element_type for port in self._compiled.inputs for name in port.names}
        self._kept: dict[str, openvino.Tensor] = {}
        self._version = 0
        self._mine = threading.local()
        self.card = EngineCard(
            name="openvino",
            version=openvino.__version__.split("-")[0],
            device="cpu",
            threads=threads,
            precision="bf16" if bf16 else "fp32",
            attention=_attention(self._compiled),
        )

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        self._kept = {name: tensor_of(array, self._inputs.get(name)) for name, array in tensors.items()}
        self._version += 1

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        return self.run_side_by_side([(names, feeds)])[0]

    def run_side_by_side(self, batches: Sequence[Batch]) -> list[dict[str, NDArray[Any]]]:
        """See `Streams`."""
        requests = self._requests(len(batches))
        fed = [self._fed(feeds) for _, feeds in batches]
        # With one thread OpenVINO drops what an operator raises in a synchronous request, and later ones can crash.
        try:
            for request, given in zip(requests, fed, strict=True):
                request.start_async(given, share_inputs=True)
        finally:
            failures = [failure for request in requests if (failure := _failure(request))]
        if failures:
            raise failures[0]
        return [
            {name: request.get_tensor(name).data for name in names}
            for request, (names, _) in zip(requests, batches, strict=True)
        ]

    def _fed(self, feeds: Arrays) -> dict[str, Any]:
        """Those of some arrays that the graph reads, as it takes them."""
        return {
            name: array if self._inputs[name] != openvino.Type.bf16 else tensor_of(array, openvino.Type.bf16)
            for name, array in feeds.items()
            if name in self._inputs
        }

    def _requests(self, count: int) -> list[openvino.InferRequest]:
        """So many requests of this thread with the kept tensors in place."""
        mine: list[tuple[int, openvino.InferRequest]] = getattr(self._mine, "requests", [])
        for number in range(count):
            version, request = mine[number] if number < len(mine) else (-1, self._compiled.create_infer_request())
            if version != self._version:
                for name in self._kept.keys() & self._inputs:
                    request.set_tensor(name, self._kept[name])
                mine[number : number + 1] = [(self._version, request)]
        self._mine.requests = mine
        return [request for _, request in mine[:count]]


def tensor_of(array: NDArray[Any], kind: openvino.Type | None) -> openvino.Tensor:
    """An array as an input of this kind takes it: in place, where it lives as long as the tensor that shows it."""
    if kind != openvino.Type.bf16:
        return openvino.Tensor(np.ascontiguousarray(array), shared_memory=True)
    tensor = openvino.Tensor(kind, openvino.Shape(array.shape))
    numbers = tensor.data.view(np.uint16)  # shown as fp16, which it is not
    numbers[...] = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    return tensor


def _failure(request: openvino.InferRequest) -> RuntimeError | None:
    """Wait for a request, which reads the caller's arrays until it is done; why it failed."""
    try:
        request.wait()
    except RuntimeError as error:
        return error
    return None


def _attention(compiled: openvino.CompiledModel) -> str:
    """What the compiled graph has for it."""
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    if "ScaledDotProductAttention" in kinds:
        return f"ScaledDotProductAttention, {kinds.count('ScaledDotProductAttention')} nodes"
    return f"matrix products and softmax, {kinds.count('Softmax')} nodes of it"
