"""Narrower numbers for the frozen weights of an exported graph; what is trained stays in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from benchmarks.errors import PolypromptError
from exporters.graph import Graph
from exporters.tensors import Made, TensorFile
from harness.compiled import compiled_part

Floats = NDArray[np.float32]


class Precision(StrEnum):
    """Of the frozen weights and of the products with them.

    int8: weights with a scale a column, states quantised as they come with a scale a batch, products in integers;
    embeddings with a scale a row. int4: weights and embeddings in blocks with a scale each, for size. fp16: for GPUs.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


BLOCK = 32
"""Neighbouring weights that share a scale in int4."""

TRIED = np.arange(1.0, 0.7, -0.05, np.float32)
"""Scales of int4 that are tried: parts of the one by which the largest value of a block fits."""

TOGETHER = 256
"""Rows of int4 that numpy quantises at once: few enough for the processor's caches."""

ROWS = 1024
"""Rows of a tensor that are made at once when it is written."""

PACKING = 1
"""Interface of the compiled part that is called here."""

Shape = tuple[int, ...]

LARGE = 1 << 14
"""Values of the smallest table of embeddings that is quantised: types of pieces are a few rows, and stay."""

NARROWING = ("Concat", "ScatterND", "Attention")
"""Operators that take what is wider in fp16: keys and values in front join those of the pieces."""

CONTRIB = "com.microsoft"
"""ONNX Runtime's own operators, of which OpenVINO knows MatMulNBits."""


@dataclass(frozen=True)
class Quantised:
    """Integers that stand for weights: `(values - middle) * scales`.

    Attributes:
        values: int8 of the shape of the weights; int4: 0..15 in uint8, [outer, blocks, block].
        scales: of each column [out], each row [rows, 1], or each block [outer, blocks].
        middle: the integer of zero.
    """

    values: NDArray[Any]
    scales: Floats
    middle: int = 0


def quantise_columns(weight: Floats) -> Quantised:
    """int8 with a scale for each output of a linear map, weight [in, out]."""
    scales = _scales(np.abs(weight).max(0))
    return Quantised(_int8(weight / scales), scales)


def quantise_rows(table: Floats) -> Quantised:
    """int8 with a scale for each row of a table of embeddings, [rows, width]."""
    scales = _scales(np.abs(table).max(1, keepdims=True))
    return Quantised(_int8(table / scales), scales)


def quantise_blocks(rows: Floats) -> Quantised:
    """int4 with a scale for each `BLOCK` neighbours in a row; a last block that is not full has zeros behind.

    Each block gets the scale, of a few near that of its largest value, with which the sum of squared errors is least.

    Args:
        rows: [outer, inner], finite.
    """
    outer, inner = rows.shape
    if inner % BLOCK:
        rows = np.pad(rows, ((0, 0), (0, -inner % BLOCK)))
    blocks = np.ascontiguousarray(rows, np.float32).reshape(outer, -(-inner // BLOCK), BLOCK)
    values, scales = np.empty(blocks.shape, np.uint8), np.empty(blocks.shape[:2], np.float32)
    native = compiled()
    for start in range(0, outer, TOGETHER) if native is None else ():
        part = slice(start, start + TOGETHER)
        values[part], scales[part] = blocks_by_numpy(blocks[part])
    if native is not None:
        native.quantise_blocks(blocks, TRIED, values, scales)
    return Quantised(values, scales, middle=8)


def blocks_by_numpy(blocks: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Values and scales of `quantise_blocks` without the compiled part, of blocks [outer, blocks, `BLOCK`]."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(2)[..., None], 2)[..., 0]
    best = np.full(largest.shape, np.inf, np.float32)
    values, scales = np.full(blocks.shape, 8, np.uint8), np.ones_like(largest)
    for part in TRIED:
        tried = largest * part / -8  # the largest value becomes -8, the integer that has no opposite
        tried[tried == 0] = 1
        whole = np.clip(np.rint(blocks / tried[..., None]), -8, 7)
        squares = np.square(whole * tried[..., None] - blocks).reshape(*largest.shape, 4, 8)
        error = squares[..., 0, :] + squares[..., 1, :] + squares[..., 2, :] + squares[..., 3, :]
        while error.shape[-1] > 1:  # in this order, which the compiled part has too
            error = error[..., ::2] + error[..., 1::2]
        better = error[..., 0] < best
        best[better], scales[better] = error[..., 0][better], tried[better]
        values[better] = (whole[better] + 8).astype(np.uint8)
    return values, scales


def compiled() -> ModuleType | None:
    """The compiled part; None where it was not built, or with another version of this file."""
    return compiled_part("PACKING", PACKING)


class _Part:
    """A few rows that are quantised when they are written; their scales, which come behind all values, are kept."""

    def __init__(self, make: Callable[[], tuple[NDArray[Any], NDArray[Any]]]) -> None:
        self._make, self._scales, self._making = make, np.zeros(0), Lock()

    def values(self) -> NDArray[Any]:
        with self._making:
            values, self._scales = self._make()
        return values

    def scales(self) -> NDArray[Any]:
        with self._making:
            return self._scales if len(self._scales) else self._make()[1]


def _parts_of(rows: int, make: Callable[[slice], tuple[NDArray[Any], NDArray[Any]]]) -> list[_Part]:
    return [_Part(partial(make, slice(start, start + ROWS))) for start in range(0, rows, ROWS)]


def _made(
    parts: Sequence[_Part], values: tuple[Shape, DTypeLike], scales: tuple[Shape, DTypeLike]
) -> tuple[Made, Made]:
    """Tensors of values and of scales, by their shapes and types."""
    return (
        Made(values[0], np.dtype(values[1]), [part.values for part in parts]),
        Made(scales[0], np.dtype(scales[1]), [part.scales for part in parts]),
    )


def _scales(largest: Floats) -> Floats:
    """Of int8, by the largest absolute value; what is all zero has any."""
    return np.where(largest > 0, largest / 127, 1).astype(np.float32)


def _int8(ratios: Floats) -> NDArray[np.int8]:
    return np.clip(np.rint(ratios), -127, 127).astype(np.int8)


def _from_blocks(found: Quantised, inner: int) -> Floats:
    rows = (found.values.astype(np.float32) - found.middle) * found.scales[..., None]
    return rows.reshape(len(rows), -1)[:, :inner]


def approximate_linear(weight: Floats, precision: Precision) -> Floats:
    """What a precision makes of the weight of a linear map, [in, out]."""
    if precision is Precision.INT8:
        found = quantise_columns(weight)
        return found.values * found.scales
    if precision is Precision.INT4:
        return _from_blocks(quantise_blocks(weight.T), weight.shape[0]).T
    return weight.astype(np.float16).astype(np.float32) if precision is Precision.FP16 else weight


def approximate_table(table: Floats, precision: Precision) -> Floats:
    """What a precision makes of a table of embeddings, [rows, width]."""
    if precision is Precision.INT8 and table.size >= LARGE:
        found = quantise_rows(table)
        return found.values * found.scales
    if precision is Precision.INT4 and table.size >= LARGE:
        found = quantise_blocks(table)
        return _from_blocks(replace(found, scales=found.scales.astype(np.float16).astype(np.float32)), table.shape[1])
    return table.astype(np.float16).astype(np.float32) if precision is Precision.FP16 else table


def in_precision(graph: Graph, precision: Precision) -> Graph:
    """The graph with its frozen weights in another precision.

    Args:
        graph: in fp32.
        precision: of the result. Inputs and outputs stay as they are.

    Raises:
        PolypromptError: a table whose width int4 cannot halve.
    """
    if precision is Precision.FP32:
        return graph
    rewriter = _Half if precision is Precision.FP16 else _Int8 if precision is Precision.INT8 else _Int4
    return rewriter(graph).write()


def approximated(graph: Graph, precision: Precision) -> dict[str, Floats]:
    """What int8 or int4 makes of those frozen weights of a graph that it quantises, by their names there."""
    found = _Approximated(graph, precision)
    found.write()
    return found.weights


def with_ranges(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> onnx.ModelProto:
    """An int8 graph whose states are quantised within ranges that are known before.

    It refers to the same weights. A runtime that looks for pairs of QuantizeLinear and DequantizeLinear, as OpenVINO
    does, computes its products in integers; and a row's outputs do not depend on the other rows of its batch.

    Args:
        model: as `in_precision` writes it.
        ranges: state -> its least and largest value, for each of `quantised_states`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, inputs: list[str], name: str, **more: Any) -> None:
        nodes.append(helper.make_node(operator, inputs, [name], name=name, **more))

    for node in model.graph.node:
        name = node.output[0]
        if node.op_type == "DynamicQuantizeLinear":
            low, high = (float(end) for end in ranges[node.input[0]])
            low, high = min(low, 0.0), max(high, 0.0)
            scale = np.float32((high - low) / 255 or 1)
            zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
            for constant, value in zip(node.output[1:], (scale, zero), strict=True):
                result.graph.initializer.append(numpy_helper.from_array(np.array(value), constant))
            add("QuantizeLinear", [node.input[0], *node.output[1:]], name)
            add("DequantizeLinear", list(node.output), f"{name}.float")
        elif node.op_type == "MatMulInteger":
            product, weight = name.removesuffix(".integers"), node.input[1]
            add("DequantizeLinear", [weight, f"{weight.removesuffix('.int8')}.scales"], f"{product}.weight", axis=1)
            add("MatMul", [f"{node.input[0]}.float", f"{product}.weight"], product)
        elif not any(one.endswith(DYNAMIC) for one in (name, *node.input)):
            nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


DYNAMIC = (".integers", ".integers.float", ".integers.scale")
"""Ends of the names between a product of integers and its result."""


def quantised_states(model: onnx.ModelProto) -> list[str]:
    """The states that an int8 graph quantises."""
    return [node.input[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]


def state_of_each_weight(model: onnx.ModelProto) -> dict[str, str]:
    """Weight of a product of an int8 graph -> the state that is quantised for it."""
    integers = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"}
    return {node.input[1]: integers[node.input[0]] for node in model.graph.node if node.op_type == "MatMulInteger"}


class _Rewriter:
    """Copies a graph node by node. What a node becomes is up to the subclasses."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.frozen = {name: array for name, array in graph.backbone.tensors.items() if not isinstance(array, Made)}
        self.file = TensorFile(graph.backbone.name)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.inside = {
            tensor.name: tensor for tensor in graph.model.graph.initializer if tensor.name not in self.frozen
        }
        self.contrib = False

    def write(self) -> Graph:
        for node in self.graph.model.graph.node:
            self.rewrite(node)
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.initializers.values())
        if self.contrib:
            model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        return Graph(model, self.file)

    def rewrite(self, node: onnx.NodeProto) -> None:
        if node.op_type == "MatMul" and self.is_weight(node.input[1]):
            self.linear(node.input[0], node.input[1], node.output[0])
        elif node.op_type == "Gather" and self.is_weight(node.input[0]) and self.frozen[node.input[0]].size >= LARGE:
            self.rows(node.input[0], node.input[1], node.output[0])
        else:
            self.keep(node)

    def linear(self, states: str, weight: str, result: str) -> None:
        raise AssertionError  # of subclasses that quantise

    def rows(self, table: str, places: str, result: str) -> None:
        raise AssertionError

    def is_weight(self, name: str) -> bool:
        return name in self.frozen and self.frozen[name].ndim == 2

    def keep(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            if name in self.frozen:
                self.tensor(name, self.frozen[name])
            elif name in self.inside:
                self.initializers[name] = self.inside[name]
        self.nodes.append(node)

    def tensor(self, name: str, array: NDArray[Any] | Made) -> str:
        if name not in self.initializers:
            self.initializers[name] = self.file.add(name, array)
        return name

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A small one in the graph itself."""
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], outputs: str | list[str], domain: str = "", **more: Any) -> str:
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], domain=domain, **more))
        return outputs[0]


class _Approximated(_Rewriter):
    """Notes what is quantised in place of writing it."""

    def __init__(self, graph: Graph, precision: Precision) -> None:
        super().__init__(graph)
        self.precision = precision
        self.weights: dict[str, Floats] = {}

    def linear(self, states: str, weight: str, result: str) -> None:
        if weight not in self.weights:
            self.weights[weight] = approximate_linear(self.frozen[weight], self.precision)

    def rows(self, table: str, places: str, result: str) -> None:
        self.weights[table] = approximate_table(self.frozen[table], self.precision)


class _Int8(_Rewriter):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.states: dict[str, list[str]] = {}

    def linear(self, states: str, weight: str, result: str) -> None:
        if f"{weight}.int8" not in self.initializers:
            array = self.frozen[weight]

            def make(array: Floats = array) -> tuple[NDArray[Any], Floats]:
                found = quantise_columns(array)
                return found.values, found.scales

            values, scales = _made([_Part(make)], (array.shape, np.int8), (array.shape[1:], np.float32))
            self.tensor(f"{weight}.int8", values)
            self.tensor(f"{weight}.scales", scales)
        if states not in self.states:
            self.states[states] = [f"{states}.uint8", f"{states}.uint8.scale", f"{states}.uint8.zero"]
            self.node("DynamicQuantizeLinear", [states], self.states[states])
        integers, scale, zero = self.states[states]
        # in the order that ONNX Runtime makes one operator of
        product = self.node("MatMulInteger", [integers, f"{weight}.int8", zero], f"{result}.integers")
        product = self.node("Cast", [product], f"{result}.integers.float", to=TensorProto.FLOAT)
        scales = self.node("Mul", [scale, f"{weight}.scales"], f"{result}.integers.scale")
        self.node("Mul", [product, scales], result)

    def rows(self, table: str, places: str, result: str) -> None:
        array = self.frozen[table]

        def make(rows: slice) -> tuple[NDArray[Any], Floats]:
            found = quantise_rows(array[rows])
            return found.values, found.scales

        size = len(array)
        whole, each = _made(_parts_of(size, make), (array.shape, np.int8), ((size, 1), np.float32))
        values = self.node("Gather", [self.tensor(f"{table}.int8", whole), places], f"{result}.int8")
        scales = self.node("Gather", [self.tensor(f"{table}.scales", each), places], f"{result}.scales")
        self.node("Mul", [self.node("Cast", [values], f"{result}.float", to=TensorProto.FLOAT), scales], result)


class _Int4(_Rewriter):
    def linear(self, states: str, weight: str, result: str) -> None:
        inner, outer = self.frozen[weight].shape
        if f"{weight}.int4" not in self.initializers:
            rows, blocks = self.frozen[weight].T, -(-inner // BLOCK)

            def make(part: slice, rows: Floats = rows) -> tuple[NDArray[Any], Floats]:
                found = quantise_blocks(rows[part])
                return found.values[..., ::2] | found.values[..., 1::2] << 4, found.scales

            shape = outer, blocks, BLOCK // 2
            values, scales = _made(_parts_of(outer, make), (shape, np.uint8), ((outer, blocks), np.float32))
            self.tensor(f"{weight}.int4", values)
            self.tensor(f"{weight}.scales", scales)
        inputs = [states, f"{weight}.int4", f"{weight}.scales"]
        self.contrib = True
        self.node("MatMulNBits", inputs, result, CONTRIB, K=inner, N=outer, bits=4, block_size=BLOCK)

    def rows(self, table: str, places: str, result: str) -> None:
        """No operator for it is common to all runtimes, so standard ones take the halves of each byte apart."""
        array = self.frozen[table]
        size, width = array.shape
        if width % BLOCK:
            raise PolypromptError(f"--precision int4: embeddings of {width} values are not whole blocks of {BLOCK}")

        def make(rows: slice) -> tuple[NDArray[Any], NDArray[np.float16]]:
            found = quantise_blocks(array[rows])
            flat = found.values.reshape(len(found.values), 2, -1)  # a byte holds a value of each half of the row
            return flat[:, 0] | flat[:, 1] << 4, found.scales.astype(np.float16)

        of_values, of_scales = ((size, width // 2), np.uint8), ((size, width // BLOCK), np.float16)
        whole, each = _made(_parts_of(size, make), of_values, of_scales)
        packed, scales = self.tensor(f"{table}.int4", whole), self.tensor(f"{table}.scales", each)
        pairs = self.node("Gather", [packed, places], f"{result}.pairs")
        low = self.node("BitwiseAnd", [pairs, self.constant("uint8:15", np.array(15, np.uint8))], f"{result}.low")
        high = self.node("BitwiseAnd", [pairs, self.constant("uint8:240", np.array(240, np.uint8))], f"{result}.high")
        low = self.node("Cast", [low], f"{result}.low.float", to=TensorProto.FLOAT)
        high = self.node("Cast", [high], f"{result}.high.float", to=TensorProto.FLOAT)
        sixteenth = self.constant("float:1/16", np.array(1 / 16, np.float32))  # OpenVINO's shift of bits is not exact
        high = self.node("Mul", [high, sixteenth], f"{result}.high.shifted")
        both = self.node("Concat", [low, high], f"{result}.float", axis=-1)
        whole = self.node("Sub", [both, self.constant("float:8", np.array(8, np.float32))], f"{result}.whole")
        # places are [batch, seq] or [pieces]
        blocks = self.node("Reshape", [whole, self.constant("blocks", np.array([-1, BLOCK]))], f"{result}.blocks")
        scale = self.node("Gather", [scales, places], f"{result}.scales")
        scale = self.node("Cast", [scale], f"{result}.scales.float", to=TensorProto.FLOAT)
        scale = self.node(
            "Reshape", [scale, self.constant("block scales", np.array([-1, 1]))], f"{result}.scales.block"
        )
        product = self.node("Mul", [blocks, scale], f"{result}.product")
        self.node("Reshape", [product, self.node("Shape", [both], f"{result}.shape")], result)


def _halved(array: Floats) -> Made:
    """In fp16."""

    def make(rows: slice) -> NDArray[np.float16]:
        return array[rows].astype(np.float16)

    parts = [partial(make, slice(start, start + ROWS)) for start in range(0, len(array), ROWS)]
    return Made(array.shape, np.dtype(np.float16), parts)


class _Half(_Rewriter):
    """Weights, and what is computed with them, in fp16; what is computed with inputs of the graph alone in fp32.

    LayerNormalization computes its mean and its variance in fp32 by its default.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        inferred = shape_inference.infer_shapes(graph.model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.half: set[str] = set()
        self.casts: set[str] = set()
        self.results = {value.name for value in inferred.output}

    def rewrite(self, node: onnx.NodeProto) -> None:
        kinds = {name: name in self.half for name in node.input if name in self.floats}
        weights = [name for name in node.input if name in self.frozen and self.frozen[name].dtype == np.float32]
        half = bool(weights) or all(kinds.values()) or (node.op_type in NARROWING and any(kinds.values()))
        if node.op_type == "Cast" or not (kinds or weights):
            self.keep(node)
            return
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in weights:
                self.tensor(name, _halved(self.frozen[name]))
            elif name in self.inside and half and self.inside[name].data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(self.inside[name]).astype(np.float16)
                new.input[place] = self.constant(f"{name}.half", array)
            elif name in self.inside:
                self.initializers[name] = self.inside[name]
            elif name in kinds and kinds[name] != half:
                new.input[place] = self.cast(name, half)
        self.nodes.append(new)
        for place, name in enumerate(node.output):
            if name in self.floats and half:
                self.half.add(name)
                if name in self.results:
                    new.output[place] = f"{name}.half"
                    self.node("Cast", [f"{name}.half"], name, to=TensorProto.FLOAT)

    def cast(self, name: str, half: bool) -> str:
        """The same in the other precision; it is made once."""
        other = f"{name}.{'half' if half else 'float'}"
        if other not in self.casts:
            self.casts.add(other)
            self.node("Cast", [name], other, to=TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        return other
