"""What is taken out of OpenVINO's models before they are compiled: the answers stay, the detours go."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted
from test_graph import ALL, mixed_batch, rows_asked

from exporters.bundle import open_bundle, read_tasks

openvino = pytest.importorskip("openvino", reason="needs the extra `cpu`")


@pytest.mark.parametrize(
    ("family", "layers", "gated"),
    [("bert", ALL, False), ("roberta", (0, 2), True), ("distilbert", (), False), ("deberta-v2", (1,), False)],
)
def test_the_same_answers_with_less(family, layers, gated, tmp_path: Path) -> None:
    from exporters.engines.openvino import core, settings
    from exporters.engines.slim import slim

    model = tiny_prompted(family, layers, gated, "cls")
    card = tiny_bundle(tmp_path / "bundle", model)
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(tmp_path / "bundle", open_bundle(tmp_path / "bundle"))[1]
    outputs, kinds = [], []
    for slimmed in (False, True):
        read = core().read_model(tmp_path / "bundle" / "model.onnx")
        if slimmed:
            slim(read)
        kinds.append(Counter(node.get_type_name() for node in read.get_ordered_ops()))
        compiled = core().compile_model(read, "CPU", settings(None, bf16=False))
        given = {name for port in compiled.inputs for name in port.names}
        results = compiled({name: array for name, array in feeds.items() if name in given})
        outputs.append([results[port] for port in compiled.outputs])
    lengths = feeds["lengths"][feeds["whole_rows"]]
    for plain, found in zip(*outputs, strict=True):
        if plain.ndim == 3:  # behind a row's end there is no answer
            for one, other, length in zip(plain, found, lengths, strict=True):
                np.testing.assert_allclose(one[:length], other[:length], rtol=0, atol=5e-5)
        else:
            np.testing.assert_allclose(plain, found, rtol=0, atol=5e-5)
    before, after = kinds
    assert before["IsNaN"] > 0, "OpenVINO reads attention otherwise: see whether anything is left to take out"
    assert after["IsNaN"] == 0
    assert after["Softmax"] == before["Softmax"]
    assert after["MatMul"] > before["MatMul"]
