"""The packed graph against the padded one: the same answers from fewer pieces."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted
from test_graph import ALL, mixed_batch, rows_asked

from exporters.bundle import open_bundle, read_tasks
from exporters.export import graph_of
from exporters.packed import build_packed


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "deberta-v2"])
@pytest.mark.parametrize(
    ("layers", "gated", "pooling"),
    [
        (ALL, False, "cls"),
        ((1,), False, "mean"),
        ((), False, "cls"),
        ((0, 2), True, "cls"),
        (None, False, "cls"),
    ],
)
def test_answers_are_those_of_the_padded_graph(family, layers, gated, pooling, tmp_path: Path) -> None:
    model = tiny_prompted(family, layers, gated, pooling)
    folder = tmp_path / "bundle"
    card = tiny_bundle(folder, model)
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(folder, open_bundle(folder))[1]
    packed = graph_of(model, build_packed)
    (folder / "packed.onnx").write_bytes(packed.model.SerializeToString())
    outputs = []
    for name in ("model.onnx", "packed.onnx"):
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        given = {value.name for value in session.get_inputs()}
        outputs.append(session.run(None, {key: value for key, value in feeds.items() if key in given}))
    lengths = feeds["lengths"][feeds["whole_rows"]]
    for padded, found in zip(*outputs, strict=True):
        if padded.ndim == 3:  # behind a row's end there is no answer
            for one, other, length in zip(padded, found, lengths, strict=True):
                np.testing.assert_allclose(one[:length], other[:length], rtol=0, atol=1e-4)
        else:
            np.testing.assert_allclose(padded, found, rtol=0, atol=1e-4)


def test_both_graphs_have_one_file_of_weights(tmp_path: Path) -> None:
    model = tiny_prompted()
    files = []
    for name, graph in (("padded", graph_of(model)), ("packed", graph_of(model, build_packed))):
        with (tmp_path / name).open("wb") as file:
            graph.backbone.write(file)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_pieces_that_are_not_there_are_not_computed(tmp_path: Path) -> None:
    """Of the products with the weights of a layer's second half the rows are counted."""
    model = tiny_prompted()
    graph = graph_of(model, build_packed)
    node = next(node for node in graph.model.graph.node if node.name.startswith("layer.0.ffn_in"))
    graph.model.graph.output.add(name=node.output[0])
    folder = tmp_path / "bundle"
    card = tiny_bundle(folder, model)
    (folder / "packed.onnx").write_bytes(graph.model.SerializeToString())
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(folder, open_bundle(folder))[1]
    session = onnxruntime.InferenceSession(folder / "packed.onnx", providers=["CPUExecutionProvider"])
    assert len(session.run([node.output[0]], feeds)[0]) == feeds["lengths"].sum() < feeds["input_ids"].size
