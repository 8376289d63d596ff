"""The written graph against the PyTorch model, on ONNX Runtime and OpenVINO."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import CARDS, tiny_bundle, tiny_prompted
from tiny import FAMILIES, LAYERS, VOCABULARY, tiny_model

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind, TaskCard
from exporters.bundle import BundleCard, open_bundle, read_tasks
from exporters.weights import read_weights
from harness.model import PromptedModel
from harness.placement import Placement

Arrays = Mapping[str, np.ndarray]
Engine = Callable[[Path, Arrays], Arrays]

Layers = tuple[int, ...] | None

ALL = tuple(range(LAYERS))


def run_onnxruntime(folder: Path, feeds: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds | read_tasks(folder, open_bundle(folder))[1]), strict=True))


def run_openvino(folder: Path, feeds: Arrays) -> Arrays:
    openvino = pytest.importorskip("openvino", reason="needs the extra `cpu`")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "model.onnx", "CPU", settings)
    used = {name for port in model.inputs for name in port.names}  # inputs that nothing reads are dropped
    feeds = feeds | read_tasks(folder, open_bundle(folder))[1]
    results = model({name: array for name, array in feeds.items() if name in used})
    return {port.get_any_name(): results[port] for port in model.outputs}


def mixed_batch(model: PromptedModel, tasks: int, rows: int = 14, longest: int = 23) -> dict[str, np.ndarray]:
    """Rows of different lengths, tasks in turn; what stands behind a row's end is noise, which nothing may read."""
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, longest + 1, rows)
    lengths[0], lengths[1] = longest, 1
    feeds = {
        "input_ids": draw.integers(0, VOCABULARY, (rows, longest)),
        "lengths": lengths,
        "task_id": np.arange(rows) % tasks,
    }
    if model.backbone.token_types:
        feeds["token_type_ids"] = draw.integers(0, 2, (rows, longest))
    return feeds


def rows_asked(card: BundleCard, task_id: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows are answered from one piece, and which from all."""
    inputs = [card.rows_of(card.tasks[number]) for number in task_id]
    return {name: np.array([row for row, at in enumerate(inputs) if at == name], int) for name in card.row_inputs}


def original(model: PromptedModel, card: TaskCard, feeds: Arrays, row: int) -> np.ndarray:
    """What PyTorch gives for one row alone, without padding."""
    end = feeds["lengths"][row]
    ids, types = (
        torch.from_numpy(feeds[name][row : row + 1, :end]) if name in feeds else None
        for name in ("input_ids", "token_type_ids")
    )
    return model.outputs(card, ids, torch.tensor([end]), types)[0].numpy()


def check(model: PromptedModel, folder: Path, engine: Engine, atol: float, cards: list[TaskCard] = CARDS) -> None:
    card = tiny_bundle(folder, model, cards)
    feeds = mixed_batch(model, len(cards))
    rows = rows_asked(card, feeds["task_id"])
    outputs = engine(folder, feeds | rows)
    assert set(outputs) == {"sequence_logits", "token_logits", "embedding"}
    for row, number in enumerate(feeds["task_id"]):
        task = card.tasks[number]
        wanted = original(model, task.card, feeds, row)
        found = outputs[task.output][list(rows[card.rows_of(task)]).index(row)]
        if found.ndim == 2:
            found = found[: feeds["lengths"][row]]
        np.testing.assert_allclose(found[..., : task.columns], wanted, rtol=0, atol=atol, err_msg=task.card.name)
        if task.card.kind is not Kind.RETRIEVAL:
            assert not found[..., task.columns :].any(), "columns of wider heads must stay empty"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_kind(family: str, pooling: str, tmp_path: Path) -> None:
    check(tiny_prompted(family, pooling=pooling), tmp_path / "b", run_onnxruntime, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_openvino_opens_the_same_files(family: str, tmp_path: Path) -> None:
    check(tiny_prompted(family), tmp_path / "b", run_openvino, 1e-4)


@pytest.mark.parametrize("engine", [run_onnxruntime, run_openvino])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("layers", [(), (1,), (0, 2), ALL])
def test_prompted_layers_and_gates(layers: tuple[int, ...], gated: bool, engine: Engine, tmp_path: Path) -> None:
    check(tiny_prompted("bert", layers, gated), tmp_path / "b", engine, 1e-4)


@pytest.mark.parametrize("positions", ["own", "shifted"])
@pytest.mark.parametrize("layers", [None, (0, 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_in_front_and_shifted_positions(family: str, layers: Layers, positions: str, tmp_path: Path) -> None:
    model = tiny_prompted(family, layers, pooling="mean", positions=positions)
    check(model, tmp_path / "b", run_onnxruntime, 1e-4)
    card = open_bundle(tmp_path / "b")
    assert card.placement == Placement(layers=None if layers is None else ALL, positions=positions)
    for task in card.tasks:
        assert (task.slots, task.prompt_layers) == (5, list(layers or ()))
        assert task.max_positions == model.backbone.max_positions - (5 if positions == "shifted" else 0)


@pytest.mark.parametrize("family", ["bert", "electra", "xlm-roberta"])
def test_openvino_takes_vectors_in_front(family: str, tmp_path: Path) -> None:
    check(tiny_prompted(family, None), tmp_path / "b", run_openvino, 1e-4)


@pytest.mark.parametrize("layers", [(), ALL, None])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_single_task(card: TaskCard, layers: Layers, tmp_path: Path) -> None:
    check(tiny_prompted("bert", layers, cards=[card]), tmp_path / "b", run_onnxruntime, 1e-4, [card])


def test_a_tokenizer_without_types_reads_the_first_row_of_the_table(tmp_path: Path) -> None:
    model = tiny_prompted("bert")
    model.backbone.token_types = False
    check(model, tmp_path / "b", run_onnxruntime, 1e-4)
    graph = onnx.load(tmp_path / "b" / "model.onnx", load_external_data=False).graph
    assert [value.name for value in graph.input][:4] == ["input_ids", "lengths", "task_id", "task_prompt"]


def test_attention_has_no_mask_and_no_past(tmp_path: Path) -> None:
    """What ONNX Runtime's CUDA provider asks for before it takes a flash kernel."""
    tiny_bundle(tmp_path / "b", tiny_prompted("bert"))
    graph = onnx.load(tmp_path / "b" / "model.onnx", load_external_data=False).graph
    attentions = [node for node in graph.node if node.op_type == "Attention"]
    assert len(attentions) == LAYERS + 1, "the last layer is there twice: for one piece and for all"
    for node in attentions:
        assert list(node.input[3:6]) == ["", "", ""]
        assert node.input[6]
        assert node.domain == ""


def test_the_graph_is_standard_and_well_formed(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "b", tiny_prompted("electra"))
    shutil.copytree(tmp_path / "b", tmp_path / "copy")  # onnx reads no file with several links
    onnx.checker.check_model(str(tmp_path / "copy" / "model.onnx"), full_check=True)


def test_another_activation_is_refused_by_name() -> None:
    config = tiny_model("bert").config.to_dict() | {"hidden_act": "relu"}
    with pytest.raises(PolypromptError, match="relu"):
        read_weights(config, {}, 0, False)


def test_another_family_is_refused_by_name() -> None:
    with pytest.raises(PolypromptError, match=r"xlnet.*supported: bert"):
        read_weights({"model_type": "xlnet"}, {}, 0, False)


def test_a_missing_weight_is_named() -> None:
    model = tiny_model("distilbert")
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    del state["transformer.layer.1.ffn.lin2.bias"]
    with pytest.raises(PolypromptError, match=r"transformer\.layer\.1\.ffn\.lin2\.bias"):
        read_weights(model.config.to_dict(), state, 0, False)


# --- the last layer, for what is read of each row -------------------------------------------------------------------


def same_heads(folder: Path, model: PromptedModel) -> tuple[BundleCard, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A bundle, a batch, and tensors with which the heads of sequence tasks answer for each piece as well."""
    card = tiny_bundle(folder, model)
    tensors = read_tasks(folder, card)[1]
    tensors |= {name.replace("sequence", "token"): tensor for name, tensor in tensors.items()
                if name.startswith("sequence_logits.") and "readout" not in name}  # fmt: skip
    return card, mixed_batch(model, len(CARDS)), tensors


@pytest.mark.parametrize("layers", [(), (0, 2), None])
@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
def test_one_piece_is_as_in_the_whole_layer(family: str, layers: Layers, tmp_path: Path) -> None:
    _, feeds, tensors = same_heads(tmp_path / "b", tiny_prompted(family, layers))
    everything = np.arange(len(feeds["task_id"]))
    session = onnxruntime.InferenceSession(tmp_path / "b" / "model.onnx", providers=["CPUExecutionProvider"])
    some = everything[::3][::-1].copy()
    rows = {"sequence_rows": some, "whole_rows": everything}
    one, every = session.run(["sequence_logits", "token_logits"], feeds | tensors | rows)
    np.testing.assert_allclose(one, every[some, 0], rtol=0, atol=1e-5)


def multiply_adds(folder: Path, feeds: Arrays) -> int:
    """Of all matrix products and attentions, counted from the shapes in a profile of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    total = 0
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        shapes = [next(iter(shape.values())) for shape in event["args"]["input_type_shape"]]
        if event["args"]["op_name"] in ("MatMul", "FusedMatMul", "Gemm", "MatMulAddFusion"):
            made = next(iter(event["args"]["output_type_shape"][0].values()))
            total += int(np.prod(made)) * shapes[0][-1]
        elif event["args"]["op_name"] == "Attention":
            total += 2 * int(np.prod(shapes[0])) * shapes[1][1]
    return total


def test_the_last_layer_computes_what_is_read(tmp_path: Path) -> None:
    """Counted, against the arithmetic of the layers."""
    model = tiny_prompted("bert", cards=CARDS[:3])
    card = tiny_bundle(tmp_path / "b", model, CARDS[:3])
    tensors = read_tasks(tmp_path / "b", card)[1]
    feeds = mixed_batch(model, 3) | tensors
    everything, none = np.arange(len(feeds["task_id"])), np.array([], int)
    rows, pieces = feeds["input_ids"].shape
    hidden, inner, slots = 32, 48, 5
    for whole, one in ((everything, none), (none, everything), (everything[:4], everything[4:])):
        found = multiply_adds(tmp_path / "b", feeds | {"whole_rows": whole, "sequence_rows": one})
        layer = pieces * (4 * hidden * hidden + 2 * hidden * inner) + 2 * pieces * (pieces + slots) * hidden
        read = pieces * 2 * hidden * hidden + 2 * hidden * hidden + 2 * hidden * inner + 2 * (pieces + slots) * hidden
        heads = {"whole": pieces * (hidden * 1 + hidden), "one": hidden * 3}
        wanted = (LAYERS - 1) * rows * layer + len(whole) * (layer + heads["whole"]) + len(one) * (read + heads["one"])
        stand_in = 2 * hidden * hidden + 2 * hidden * inner + 2 * (1 + slots) * hidden  # its keys and values are there
        if not len(whole):
            wanted += stand_in + hidden * 1 + hidden
        if not len(one):
            wanted += stand_in + heads["one"]
        assert found == wanted


def test_nothing_is_asked_for(tmp_path: Path) -> None:
    card = tiny_bundle(tmp_path / "b", tiny_prompted("bert"))
    feeds = mixed_batch(tiny_prompted("bert"), len(CARDS)) | read_tasks(tmp_path / "b", card)[1]
    session = onnxruntime.InferenceSession(tmp_path / "b" / "model.onnx", providers=["CPUExecutionProvider"])
    none = np.array([], int)
    outputs = session.run(None, feeds | {"sequence_rows": none, "whole_rows": none})
    assert [len(output) for output in outputs] == [0, 0, 0]
