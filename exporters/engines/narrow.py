"""What a session in bf16 needs around the project's operator in OpenVINO: its inputs in bf16."""

from __future__ import annotations

import openvino
from openvino import opset13 as operators

from exporters.operator import NAME

NUMBERS = 4
"""So many inputs of the operator are numbers, the first ones; the others are integers."""


def narrow(model: openvino.Model) -> None:
    """Put conversions around each of the operators of a model, so that it reads and writes bf16.

    OpenVINO computes a graph in bf16 but for operators that it does not know, which keep the types that they have in
    the graph. What stands in bf16 anyway is not converted then. Inputs of the model that the operator alone reads, as
    the prompts are, become inputs in bf16: converted in each batch, they would cost the more the more tasks there are.
    """
    known: dict[tuple[str, int], openvino.Output] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != NAME:
            continue
        for place in range(NUMBERS):
            source = node.input_value(place)
            key = source.get_node().get_friendly_name(), source.get_index()
            if key not in known:
                known[key] = _narrowed(source)
            node.input(place).replace_source_output(known[key])
        readers = node.output(0).get_target_inputs()
        node.validate_and_infer_types()
        widened = operators.convert(node.output(0), "f32").output(0)
        for reader in readers:
            reader.replace_source_output(widened)
    model.validate_nodes_and_infer_types()


def _narrowed(source: openvino.Output) -> openvino.Output:
    """The same in bf16."""
    node = source.get_node()
    readers = {one.get_node().get_type_name() for one in source.get_target_inputs()}
    if node.get_type_name() != "Parameter" or readers != {NAME}:
        return operators.convert(source, "bf16").output(0)
    node.set_element_type(openvino.Type.bf16)
    node.validate_and_infer_types()
    return source
