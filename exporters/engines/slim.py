"""What OpenVINO makes of an attention node, made cheaper before it is compiled."""

from __future__ import annotations

import numpy as np
import openvino
from openvino import Node, Output
from openvino import opset13 as operators


def slim(model: openvino.Model) -> None:
    """Take out of a model what its attention does not need; its results stay, but for rounding.

    The reader of ONNX files writes each attention node as products, a softmax and a search for queries that see no key.
    All see one, since each row has a piece; and what is left without the search OpenVINO computes in one go. Queries,
    keys and values that one product gives are copied apart behind it, so each gets a product of its own.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Split":
            _divide(node)
        elif node.get_type_name() == "Select":
            _without_search(node)


def _source(node: Node, place: int, kind: str) -> Node | None:
    """What gives an input of a node, if it is of this kind."""
    if place >= len(node.inputs()):
        return None
    found = node.input_value(place).get_node()
    return found if found.get_type_name() == kind else None


def _divide(split: Node) -> None:
    """One product and its bias in front of a split along the last axis become one for each part."""
    add = _source(split, 0, "Add")
    product = None if add is None else _source(add, 0, "MatMul")
    if add is None or product is None or len(add.output(0).get_target_inputs()) > 1:
        return
    if any(product.get_attributes().values()):  # one side is transposed
        return
    weights, biases = (_columns(node.input_value(1), len(split.outputs())) for node in (product, add))
    if not weights or not biases:
        return
    for output, columns, shift in zip(split.outputs(), weights, biases, strict=True):
        found = operators.matmul(product.input_value(0), columns, False, False)
        _replace(output, operators.add(found, shift).output(0))


def _columns(values: Output, parts: int) -> list[Output]:
    """A constant row or matrix in parts along its last axis, and where it is quantised by columns, what is made of it.

    Returns:
        The parts; nothing where it is made of something else.
    """
    node, kind = values.get_node(), values.get_element_type()
    match node.get_type_name():
        case "Constant" if (shape := values.get_shape()) and shape[-1] % parts == 0:
            return [operators.constant(part).output(0) for part in np.split(node.data, parts, axis=-1)]
        case "Convert":
            return [operators.convert(part, kind).output(0) for part in _columns(node.input_value(0), parts)]
        case "Multiply":
            pairs = zip(*(_columns(source, parts) for source in node.input_values()), strict=False)
            return [operators.multiply(*pair).output(0) for pair in pairs]
        case "Reshape" if (scales := _source(node, 0, "Constant")) and len(scales.get_output_shape(0)) == 1:
            row = operators.constant([1, -1])
            return [operators.reshape(part, row, False).output(0) for part in _columns(scales.output(0), parts)]
    return []


def _without_search(select: Node) -> None:
    """Of a softmax with zeros where it is no number, the softmax."""
    isnan = _source(select, 0, "IsNaN")
    if isnan is not None and _source(isnan, 0, "Softmax") is not None:
        _replace(select.output(0), isnan.input_value(0))


def _replace(old: Output, new: Output) -> None:
    """Whatever reads the one reads the other."""
    for reader in old.get_target_inputs():
        reader.replace_source_output(new)
