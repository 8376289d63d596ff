"""What is taken out of OpenVINO's models before they are compiled: the answers stay, the detours go."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted
from test_graph import ALL, mixed_batch, rows_asked

from exporters.bundle import open_bundle, read_tasks
from exporters.export import graph_of
from exporters.precision import Precision, in_precision, quantised_states, with_ranges

openvino = pytest.importorskip("openvino", reason="needs the extra `cpu`")


FP32, INT8, INT4 = Precision.FP32, Precision.INT8, Precision.INT4


@pytest.mark.parametrize(
    ("family", "layers", "gated", "precision"),
    [
        ("bert", ALL, False, FP32),
        ("roberta", (0, 2), True, FP32),
        ("distilbert", (), False, FP32),
        ("deberta-v2", (1,), False, FP32),
        ("bert", ALL, False, INT8),
        ("distilbert", (0, 2), True, INT8),
        ("bert", ALL, False, INT4),
    ],
)
def test_the_same_answers_with_less(family, layers, gated, precision, tmp_path: Path) -> None:
    from exporters.engines.openvino import core, settings
    from exporters.engines.slim import slim

    model = tiny_prompted(family, layers, gated, "cls")
    card = tiny_bundle(tmp_path / "bundle", model)
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(tmp_path / "bundle", open_bundle(tmp_path / "bundle"))[1]
    graph = in_precision(graph_of(model), precision)
    graph.backbone.inline(graph.model.graph.initializer)
    if precision is INT8:
        ranges = dict.fromkeys(quantised_states(graph.model), (-6.0, 6.0))
        graph = replace(graph, model=with_ranges(graph.model, ranges))
    onnx.save(graph.model, tmp_path / "model.onnx")
    outputs, kinds = [], []
    for slimmed in (False, True):
        read = core().read_model(tmp_path / "model.onnx")
        if slimmed:
            slim(read)
        kinds.append(Counter(node.get_type_name() for node in read.get_ordered_ops()))
        compiled = core().compile_model(read, "CPU", settings(None, bf16=False))
        given = {name for port in compiled.inputs for name in port.names}
        results = compiled({name: array for name, array in feeds.items() if name in given})
        outputs.append([results[port] for port in compiled.outputs])
    lengths = feeds["lengths"][feeds["whole_rows"]]
    most = 5e-3 if precision is INT4 else 5e-5  # OpenVINO quantises its states as they come, so roundings differ
    for plain, found in zip(*outputs, strict=True):
        if plain.ndim == 3:  # behind a row's end there is no answer
            for one, other, length in zip(plain, found, lengths, strict=True):
                np.testing.assert_allclose(one[:length], other[:length], rtol=0, atol=most)
        else:
            np.testing.assert_allclose(plain, found, rtol=0, atol=most)
    before, after = kinds
    assert before["IsNaN"] > 0, "OpenVINO reads attention otherwise: see whether anything is left to take out"
    assert after["IsNaN"] == 0
    assert after["Softmax"] == before["Softmax"]
    if precision is INT4:  # which stays as it is
        assert after["MatMul"] == before["MatMul"]
        return
    # queries, keys and values have a product each, and of the last layer keys and values
    assert after["MatMul"] == before["MatMul"] + 2 * (model.backbone.layers - 1) + 1
    assert after["FakeQuantize"] == before["FakeQuantize"]


def transposed(random):
    from openvino import opset13 as operators

    return operators.constant(random.random((6, 6), np.float32)), True


def scales_of_blocks(random):
    """As many as there are columns, but each of another part of the matrix."""
    from openvino import opset13 as operators

    scales = operators.reshape(
        operators.constant(random.random((2, 3), np.float32)), operators.constant([1, -1]), False
    )
    return operators.multiply(operators.constant(random.random((6, 6), np.float32)), scales), False


@pytest.mark.parametrize("weight", [transposed, scales_of_blocks])
def test_what_is_not_by_columns_stays(weight) -> None:
    from openvino import opset13 as operators

    from exporters.engines.slim import slim

    random = np.random.default_rng(0)
    states = operators.parameter([1, -1, 6], np.float32)
    columns, is_transposed = weight(random)
    product = operators.matmul(states, columns, False, is_transposed)
    split = operators.split(operators.add(product, np.arange(6, dtype=np.float32)[None]), operators.constant(2), 3)
    model = openvino.Model([operators.result(port) for port in split.outputs()], [states])
    given, found = random.random((1, 5, 6), np.float32), []
    for change in (lambda _: None, slim):
        change(model)
        results = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)
        found.append([results[place] for place in range(3)])
    for plain, slimmed in zip(*found, strict=True):
        np.testing.assert_allclose(plain, slimmed, rtol=0, atol=1e-5)
