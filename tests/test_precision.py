"""Narrower weights against numpy, torch with the same weights, and ONNX Runtime's own quantiser."""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import CARDS, tiny_manifest, tiny_prompted
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import save
from test_session import examples
from tiny import FAMILIES, LAYERS

import exporters.precision
import exporters.session
from benchmarks.errors import PolypromptError
from exporters.bundle import STATIC, open_bundle, write_bundle
from exporters.calibrate import PARTS, Values, calibrate
from exporters.engines import Engine, installed, open_engine
from exporters.engines.cuda import without_flash
from exporters.engines.onnxruntime import OnnxRuntime, cpu_card
from exporters.export import describe, graph_of, tensors_of
from exporters.graph import Graph
from exporters.precision import (
    BLOCK,
    Precision,
    approximate_linear,
    approximate_table,
    in_precision,
    quantise_blocks,
    quantise_columns,
    quantise_rows,
    quantised_states,
    with_ranges,
)
from exporters.session import Session
from harness.model import PromptedModel

OUTPUTS = ("sequence_logits", "token_logits", "embedding")


def weights(outer: int, inner: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return (draw.normal(size=(outer, inner)) * draw.uniform(0.1, 5, (1, inner))).astype(np.float32)


def test_columns_and_rows_by_hand() -> None:
    weight = np.array([[1.0, -254.0, 0.0], [-0.5, 3.0, 0.0]], np.float32)
    found = quantise_columns(weight)
    assert found.values.tolist() == [[127, -127, 0], [-64, 2, 0]]  # 63.5 and 1.5 go to the even neighbour
    assert found.scales.tolist() == pytest.approx([1 / 127, 2, 1])
    rows = quantise_rows(weight.T)
    assert rows.values.tolist() == found.values.T.tolist()
    assert rows.scales.tolist() == [[scale] for scale in found.scales.tolist()]


@pytest.mark.parametrize("inner", [BLOCK, BLOCK + 7, 3 * BLOCK])
def test_blocks_against_a_loop(inner: int) -> None:
    """No scale near that of the largest value brings less error than the one that was taken."""
    rows = weights(5, inner)
    found = quantise_blocks(rows)
    assert found.values.max() <= 15
    approximate = (found.values.astype(np.float32) - 8) * found.scales[..., None]
    for row in range(5):
        for block, begin in enumerate(range(0, inner, BLOCK)):
            part = rows[row, begin : begin + BLOCK]
            mine = np.square(approximate[row, block, : len(part)] - part).sum()
            extreme = part[np.abs(part).argmax()]
            for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75):
                scale = extreme * share / -8
                other = np.square(np.clip(np.round(part / scale), -8, 7) * scale - part).sum()
                assert mine <= other * (1 + 1e-4)


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.02), ("int4", 0.2), ("fp16", 1e-3)])
def test_what_a_precision_makes_of_weights(precision: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.precision, "LARGE", 0)
    weight = np.random.default_rng(0).normal(size=(70, 64)).astype(np.float32)
    for approximate in (approximate_linear, approximate_table):
        found = approximate(weight, Precision(precision))
        assert found.shape == weight.shape
        assert 0 < np.linalg.norm(found - weight) / np.linalg.norm(weight) < most
    assert (approximate_linear(weight, Precision.FP32) == weight).all()


def approximated(model: PromptedModel, precision: Precision) -> PromptedModel:
    """A copy whose encoder has the weights that the precision makes of its own."""
    copy = deepcopy(model)
    with torch.no_grad():
        for module in copy.backbone.model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(torch.from_numpy(approximate_linear(module.weight.numpy().T.copy(), precision).T))
            elif isinstance(module, torch.nn.Embedding) and "int" not in precision:
                module.weight.copy_(torch.from_numpy(approximate_table(module.weight.numpy(), precision)))
    return copy


def feeds(model: PromptedModel, rows: int = 8, longest: int = 20) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, longest + 1, rows)
    lengths[0] = longest
    found = {
        "input_ids": draw.integers(5, 60, (rows, longest)),
        "lengths": lengths,
        "task_id": np.arange(rows) % len(CARDS),
        "sequence_rows": np.arange(rows),
        "whole_rows": np.arange(rows),
    }
    if model.backbone.token_types:
        found["token_type_ids"] = draw.integers(0, 2, (rows, longest))
    return found


def write(folder: Path, graph: Graph, model: PromptedModel) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(graph.model.SerializeToString())
    with (folder / graph.backbone.name).open("wb") as file:
        graph.backbone.write(file)
    (folder / "tasks.safetensors").write_bytes(save(tensors_of(model, CARDS)))
    return folder / "model.onnx"


def run(path: Path, model: PromptedModel, given: dict[str, np.ndarray], engine: str | Engine = "onnxruntime") -> dict:
    opened = open_engine(engine, path, 1) if isinstance(engine, str) else engine
    opened.keep(tensors_of(model, CARDS))
    found = {name: array.copy() for name, array in opened.run(OUTPUTS, given).items()}
    for row, length in enumerate(given["lengths"]):
        found["token_logits"][row, length:] = 0  # behind the end of a row anything may stand
    return found


def far(found: dict, wanted: dict) -> float:
    """The largest difference, in parts of the largest value."""
    return max(float(np.abs(found[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in OUTPUTS)


@pytest.mark.parametrize("family", ["bert", "electra", "xlm-roberta"])
@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.01), ("int8", 0.1), ("int4", 1e-4)])
def test_graphs_compute_with_those_weights(precision: str, most: float, family: str, tmp_path: Path) -> None:
    """int4 computes in fp32; int8 and fp16 narrow the states too."""
    model = tiny_prompted(family)
    given = feeds(model)
    path = write(tmp_path / "b", in_precision(graph_of(model), Precision(precision)), model)
    wanted = run(write(tmp_path / "a", graph_of(approximated(model, Precision(precision))), model), model, given)
    assert far(run(path, model, given), wanted) < most
    onnx.checker.check_model(str(path))


def test_int8_is_what_the_runtimes_own_quantiser_makes(tmp_path: Path) -> None:
    model = tiny_prompted()
    given = feeds(model)
    ours = run(write(tmp_path / "b", in_precision(graph_of(model), Precision.INT8), model), model, given)
    plain = write(tmp_path / "a", graph_of(model), model)
    quantize_dynamic(
        plain, tmp_path / "a" / "int8.onnx", ["MatMul"], True, weight_type=QuantType.QInt8, extra_options={
            "DefaultTensorType": TensorProto.FLOAT, "WeightSymmetric": True, "MatMulConstBOnly": True,
        },
    )  # fmt: skip
    peer = run(tmp_path / "a" / "int8.onnx", model, given)
    assert far(ours, peer) < 1e-3
    assert far(ours, run(plain, model, given)) > 1e-3


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_embeddings(precision: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine not in installed():
        pytest.skip("needs the extra `cpu`")
    monkeypatch.setattr(exporters.precision, "LARGE", 1000)
    monkeypatch.setattr(exporters.precision._Rewriter, "is_weight", lambda self, name: name == "word")
    model = tiny_prompted()
    given = feeds(model)
    path = write(tmp_path / "b", in_precision(graph_of(model), Precision(precision)), model)
    words = model.backbone.words.weight
    with torch.no_grad():
        words.copy_(torch.from_numpy(approximate_table(words.numpy(), Precision(precision))))
    wanted = run(write(tmp_path / "a", graph_of(model), model), model, given)
    assert far(run(path, model, given, engine), wanted) < (1e-4 if precision == "int8" else 2e-3)  # scales in fp16


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_what_stays(precision: str) -> None:
    model = tiny_prompted()
    before = graph_of(model)
    after = in_precision(before, Precision(precision))
    assert after.model.graph.input == before.model.graph.input
    assert after.model.graph.output == before.model.graph.output
    assert after.backbone.bytes < before.backbone.bytes * (0.6 if precision == "fp16" else 0.75)
    assert in_precision(before, Precision.FP32) is before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layers", "gated"), [((0, 2), False), ((0, 2), True), (None, False), ((), False)])
def test_half_may_use_flash_attention(family: str, layers: tuple | None, gated: bool, tmp_path: Path) -> None:
    model = tiny_prompted(family, layers, gated)
    graph = in_precision(graph_of(model), Precision.FP16)
    assert without_flash(graph.model) == []
    assert without_flash(graph_of(model).model) == ["queries, keys and values are not float16"]
    given = feeds(model)
    wanted = run(write(tmp_path / "a", graph_of(model), model), model, given)
    assert far(run(write(tmp_path / "b", graph, model), model, given), wanted) < 0.02


def ranges_of(path: Path, model: PromptedModel, given: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Least and largest values of the states, read from the graph in fp32."""
    graph = onnx.load(path)
    states = quantised_states(in_precision(graph_of(model), Precision.INT8).model)
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in states)
    other = path.parent / "states.onnx"
    onnx.save(graph, other)
    opened = open_engine("onnxruntime", other, 1)
    opened.keep(tensors_of(model, CARDS))
    found = opened.run(list(states), given)
    return {name: (float(array.min()), float(array.max())) for name, array in found.items()}


def processor() -> str:
    """What the system says of it."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_known_ranges(engine: str, tmp_path: Path) -> None:
    if engine not in installed():
        pytest.skip("needs the extra `cpu`")
    model = tiny_prompted()
    given = feeds(model)
    plain = write(tmp_path / "a", graph_of(model), model)
    graph = in_precision(graph_of(model), Precision.INT8)
    ranges = ranges_of(plain, model, given)
    static = with_ranges(graph.model, ranges)
    assert not {node.op_type for node in static.graph.node} & {"DynamicQuantizeLinear", "MatMulInteger"}
    assert {tensor.name for tensor in static.graph.initializer if tensor.external_data} == set(graph.backbone.tensors)
    path = write(tmp_path / "b", Graph(static, graph.backbone), model)
    if engine == "onnxruntime":  # with settings of its own: those of ours are for the other int8 graph
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        engine = OnnxRuntime(session, cpu_card())
    whole = run(path, model, given, engine)
    # Without products of four numbers at once, sums of two overflow.
    assert 1e-4 < far(whole, run(plain, model, given)) < (0.1 if "vnni" in processor() else 0.3)
    for row, length in enumerate(given["lengths"]):
        alone = {name: a[row : row + 1, :length] if a.ndim == 2 else a[row : row + 1] for name, a in given.items()}
        alone |= {"sequence_rows": np.zeros(1, np.int64), "whole_rows": np.zeros(1, np.int64)}
        one = run(path, model, alone, engine)
        np.testing.assert_allclose(one["embedding"][0], whole["embedding"][row], atol=1e-5)


def error(values: np.ndarray, low: float, high: float) -> float:
    """Sum of squares of what 256 steps between two ends make of values."""
    steps = low + (high - low) * np.arange(256) / 255
    steps -= steps[np.abs(steps).argmin()]  # zero is one of them
    return np.square(steps[np.abs(values[:, None] - steps).argmin(1)] - values).sum()


def test_ranges_are_those_of_real_pieces_in_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the states themselves, seen in each batch: no other end that is tried loses less."""
    monkeypatch.setattr(exporters.session, "pieces_a_batch", lambda *_: 40)
    model, folder = tiny_prompted(), tmp_path / "b"
    folder.mkdir()
    graph, rows = in_precision(graph_of(model), Precision.INT8), {("mood", ""): examples("mood")}
    card = describe(model, tiny_manifest(model)).model_copy(update={"precision": "int8"})
    tokenizer = model.backbone.tokenizer.to_str()
    card = calibrate(folder, write_bundle(folder, card, graph, tensors_of(model, CARDS), tokenizer), rows)
    assert card == open_bundle(folder)
    states = quantised_states(graph.model)
    graph.model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in states)
    (folder / "states.onnx").write_bytes(graph.model.SerializeToString())
    seen: dict[str, list[np.ndarray]] = {name: [] for name in states}
    padding = []

    class Seeing:
        def __init__(self) -> None:
            self._engine = open_engine("onnxruntime", folder / "states.onnx", 1)
            self.card, self.keep = self._engine.card, self._engine.keep

        def run(self, names: Collection[str], given: dict[str, np.ndarray]) -> dict:
            found = self._engine.run([*names, *states], given)
            lengths, longest = given["lengths"], given["input_ids"].shape[1]
            padding.append((lengths < longest).any())
            for name, values in seen.items():
                whole = found[name].ndim == 3 and found[name].shape[1] == longest > 1
                parts = (
                    [row[:length] for row, length in zip(found[name], lengths, strict=True)] if whole else found[name]
                )
                values += [part.ravel() for part in parts]
            return found

    Session(folder, engine=Seeing()).run(rows)
    assert len(padding) > 1
    assert any(padding)
    static = onnx.load(folder / STATIC, load_external_data=False).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in static.initializer if tensor.raw_data}
    found = {node.input[0]: node.input[1:] for node in static.node if node.op_type == "QuantizeLinear"}
    assert list(found) == states
    for name in states:
        values = np.concatenate(seen[name]).astype(float)
        least, largest = min(values.min(), 0), max(values.max(), 0)
        scale, zero = (float(constants[part]) for part in found[name])
        low, high = -zero * scale, (255 - zero) * scale
        assert least - scale <= low <= high <= largest + scale
        mine = error(values, low, high)
        for part in PARTS:
            assert mine <= 1.02 * min(error(values, low, part * largest), error(values, part * least, high))


def test_a_few_values_far_outside_are_cut_off() -> None:
    random = np.random.default_rng(1)
    even, far = Values(), Values()
    for _ in range(4):
        even.add(random.uniform(-1, 3, (50, 30, 40)).astype(np.float32))
        far.add(random.normal(size=(50, 30, 40)).astype(np.float32))
    far.add(np.array([-400, 900], np.float32))
    assert (far.least, far.largest) == (-400, 900)
    assert even.range == (even.least, even.largest) == (pytest.approx(-1, abs=1e-3), pytest.approx(3, abs=1e-3))
    low, high = far.range
    assert (low, high) == (pytest.approx(-400 * PARTS[-1]), pytest.approx(900 * PARTS[-1]))
    drifting = Values()
    for number in range(4):
        drifting.add(np.full((50, 30, 40), number, np.float32))
    assert drifting._sample.mean() == pytest.approx(1.5, abs=0.03)  # of all batches alike


def test_widths_that_int4_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.precision, "LARGE", 0)
    with pytest.raises(PolypromptError, match="embeddings of 16 values"):
        in_precision(graph_of(tiny_prompted("electra")), Precision.INT4)


def test_each_linear_map_is_quantised() -> None:
    graph = in_precision(graph_of(tiny_prompted()), Precision.INT8)
    whole = {name for name, tensor in graph.backbone.tensors.items() if tensor.ndim == 2 and tensor.dtype == np.float32}
    assert whole == {"word", "position", "token_type"}
    assert sum(node.op_type == "MatMulInteger" for node in graph.model.graph.node) >= 4 * LAYERS
