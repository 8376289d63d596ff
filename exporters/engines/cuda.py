"""ONNX Runtime on an NVIDIA GPU: rows in blocks of few shapes, so that each shape is one CUDA graph.

Written from ONNX Runtime's documentation and source. The part that binds and pads is tested on the CPU.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, shape_inference
from onnxruntime import OrtValue

from exporters.engines.interface import Arrays, EngineCard
from exporters.engines.onnxruntime import open_session

SHORTEST = 16
"""Pieces of the shortest rows; longer ones have twice as many, four times, ..."""

FLASH_HEAD = 256
"""Widest head that flash attention has a kernel for."""

OWN_LAUNCHES = "-1"
"""In place of a graph's number: launch each kernel by itself."""


def open_cuda(model: Path, longest: int | None = None) -> BoundRuntime:
    """Open a file on the GPU.

    Raises:
        PolypromptError: it is no file for ONNX Runtime, or there is no CUDA.
    """
    session = open_session(model, "CUDAExecutionProvider", {"enable_cuda_graph": "1"}, None)
    graph = onnx.load(model, load_external_data=False)
    against = without_flash(graph)
    card = EngineCard(
        name="onnxruntime",
        version=onnxruntime.__version__,
        device="cuda",
        threads=None,
        precision="fp16" if TensorProto.FLOAT16 in _attention_types(graph) else "fp32",
        attention=f"no flash kernel: {'; '.join(against)}" if against else "flash on GPUs that have it (SM 80 on)",
    )
    return BoundRuntime(session, card, "cuda", longest, graphs=True)


def block(rows: int, length: int, longest: int | None = None) -> tuple[int, int]:
    """Rows and pieces of the block for so many: the next powers of two, but no more pieces than `longest`."""
    pieces = max(SHORTEST, 1 << (length - 1).bit_length())
    return 1 << max(rows - 1, 0).bit_length(), pieces if longest is None else max(length, min(pieces, longest))


def without_flash(model: onnx.ModelProto) -> list[str]:
    """Why ONNX Runtime's CUDA provider would take no flash kernel for the Attention nodes of a graph.

    The conditions are those of its operator for standard Attention since 1.31: float16, no mask, no past, the rows'
    lengths as `nonpad_kv_seqlen`, heads of at most `FLASH_HEAD`.

    Returns:
        What is against it, each reason once; empty: nothing.
    """
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.input)}
    reasons = []
    for node in inferred.node:
        if node.op_type != "Attention":
            continue
        mask, past_key, past_value, lengths = [*node.input[3:], "", "", "", ""][:4]
        query = types.get(node.input[0])
        if query is None or query.elem_type != TensorProto.FLOAT16:
            reasons.append("queries, keys and values are not float16")
        if mask:
            reasons.append("it has a mask")
        if past_key or past_value:
            reasons.append("it has a past")
        if not lengths:
            reasons.append("it has no nonpad_kv_seqlen")
        heads = next(a.i for a in node.attribute if a.name == "q_num_heads")
        width = query.shape.dim[-1].dim_value if query is not None and query.shape.dim else 0
        if not width:
            reasons.append("the width of its heads is not known")
        elif width // heads > FLASH_HEAD:
            reasons.append(f"its heads are wider than {FLASH_HEAD}")
    return list(dict.fromkeys(reasons))


def _attention_types(model: onnx.ModelProto) -> set[int]:
    inferred = shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    return {types.get(node.input[0], 0) for node in inferred.node if node.op_type == "Attention"}


@dataclass
class _Block:
    """Buffers of one shape on the device, bound to the session."""

    binding: onnxruntime.IOBinding
    inputs: dict[str, OrtValue]
    options: onnxruntime.RunOptions
    names: list[str]


class BoundRuntime:
    """An ONNX file whose inputs and outputs stay in buffers on a device.

    A CUDA graph repeats what it recorded, at the addresses that it recorded. So every shape has buffers of its own,
    which are filled anew for each run; rows and pieces are padded up to one of few shapes.

    Args:
        session: the opened file. card: what computes it.
        device: "cuda"; or "cpu", which needs none of it, for tests.
        longest: pieces up to which rows may be filled up: the encoder has no more positions. None: any number.
        graphs: record a CUDA graph a shape.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        card: EngineCard,
        device: str,
        longest: int | None = None,
        graphs: bool = False,
    ) -> None:
        self.card = card
        self._session, self._device, self._longest, self._graphs = session, device, longest, graphs
        self._inputs = {value.name for value in session.get_inputs()}
        self._kept: dict[str, OrtValue] = {}
        self._blocks: dict[tuple[frozenset[str], tuple[tuple[int, ...], ...]], _Block] = {}
        self._recorded = itertools.count(1)  # numbers of CUDA graphs, never the same twice
        self._lock = threading.Lock()  # the buffers are one set

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        with self._lock:
            self._kept = {
                name: OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)
                for name, array in tensors.items()
                if name in self._inputs
            }
            self._blocks.clear()  # they are bound to the old ones

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        rows, length = feeds["input_ids"].shape
        shape = block(rows, length, self._longest)
        filled = {name: padded(name, array, shape) for name, array in feeds.items() if name in self._inputs}
        with self._lock:
            place = frozenset(names), tuple(array.shape for array in filled.values())
            if place not in self._blocks:
                self._blocks[place] = self._bind(sorted(names), filled)
            found = self._blocks[place]
            for name, array in filled.items():
                found.inputs[name].update_inplace(array)
            self._session.run_with_iobinding(found.binding, found.options)
            outputs = dict(zip(found.names, found.binding.copy_outputs_to_cpu(), strict=True))
        asked = {name: len(array) for name, array in feeds.items() if name.endswith("_rows")}
        whole = asked["whole_rows"]
        counts = {"sequence_logits": asked.get("sequence_rows", whole)}
        return {name: _cut(array, counts.get(name, whole), length) for name, array in outputs.items()}

    def _bind(self, names: list[str], filled: Arrays) -> _Block:
        """Buffers for inputs like these, and for the outputs, whose shapes a first run tells."""
        binding = self._session.io_binding()
        inputs = {name: OrtValue.ortvalue_from_numpy(array, self._device, 0) for name, array in filled.items()}
        for name, value in (self._kept | inputs).items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, self._device, 0)
        options = onnxruntime.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", OWN_LAUNCHES)
        self._session.run_with_iobinding(binding, options)
        found = binding.get_outputs()
        binding.clear_binding_outputs()
        for name, value in zip(names, found, strict=True):
            binding.bind_ortvalue_output(name, value)  # where it lies now it stays
        options = onnxruntime.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(next(self._recorded)))
        return _Block(binding, inputs, options, names)


def padded(name: str, array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """An input in the shape of its block.

    Rows that fill it up have one piece, since none would divide by zero. Lists of rows end with the first row again.
    """
    if name.endswith("_rows"):
        shape = (block(len(array), 1)[0],)
    more = [(0, shape[axis] - size) for axis, size in enumerate(array.shape)]
    return np.pad(array, more, constant_values=1 if name == "lengths" else 0)


def _cut(array: NDArray[Any], rows: int, length: int) -> NDArray[Any]:
    """An output without what filled the block up; the second of three axes are pieces."""
    return array[:rows, :length] if array.ndim == 3 else array[:rows]
