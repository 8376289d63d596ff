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
