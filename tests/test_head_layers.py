"""Heads that read all layers: against transformers' own states, in training, in every form of the graph, in bundles."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import CARDS, tiny_bundle, tiny_prompted
from test_export import make_run
from test_graph import ALL, check, mixed_batch, original, rows_asked, run_onnxruntime, run_openvino
from test_layout import check as check_folders
from tiny import FAMILIES, LAYERS, tiny_model

from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.results import Manifest, read_model, write_model
from benchmarks.task import Kind
from exporters.add import add
from exporters.bundle import open_bundle, read_tasks
from exporters.engines import has_operator, installed, open_engine
from exporters.export import export, graph_of
from exporters.native_form import build_native
from exporters.packed import build_packed
from exporters.session import Session
from harness.config import RunConfig
from harness.heads import HeadLayers

WHOLE = [card for card in CARDS if card.kind in (Kind.TAGGING, Kind.SPAN)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_states_are_those_of_transformers(family: str) -> None:
    model = tiny_prompted(family, (), head_layers="all")
    reference = tiny_model(family).eval()
    feeds = mixed_batch(model, len(CARDS))
    for row, card in enumerate(WHOLE):
        end = feeds["lengths"][row]
        given = {"input_ids": torch.from_numpy(feeds["input_ids"][row : row + 1, :end])}
        if model.backbone.token_types:
            given["token_type_ids"] = torch.from_numpy(feeds["token_type_ids"][row : row + 1, :end])
        places = torch.arange(end)[None] + model.backbone.first_position
        states = reference(**given, position_ids=places, output_hidden_states=True).hidden_states
        assert len(states) == LAYERS + 1
        head = model.heads[card.name]
        wanted = torch.cat(states, -1) @ head.weight.T + head.bias
        np.testing.assert_allclose(original(model, card, feeds, row), wanted[0].detach(), rtol=0, atol=1e-4)


def test_states_of_lower_layers_are_kept_where_no_head_reads_them() -> None:
    sentences = [card for card in CARDS if card not in WHOLE]
    assert tiny_prompted("bert", (1,), cards=sentences, head_layers="all").trunk_layers == 1
    assert tiny_prompted("bert", (1,), head_layers="all").trunk_layers == 0


def test_sequences_are_read_as_before() -> None:
    mine, plain = (tiny_prompted("bert", head_layers=layers) for layers in ("all", "last"))
    feeds = mixed_batch(mine, len(CARDS))
    for card in CARDS:
        if card not in WHOLE and card.kind is not Kind.RETRIEVAL:
            mine.heads[card.name].load_state_dict(plain.heads[card.name].state_dict())
            assert np.array_equal(original(mine, card, feeds, 0), original(plain, card, feeds, 0))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("again", [False, True])
def test_prompts_of_all_layers_learn_as_over_transformers(precision: torch.dtype, again: bool) -> None:
    """Rows of different lengths, with padding: the loss reads every layer, and so do its gradients."""
    grads = []
    for engine in ("own", "transformers"):
        model = tiny_prompted("bert", head_layers="all")
        model.backbone.engine = engine
        model.backbone.checkpoint_activations(again)
        model.prompt.bank = torch.nn.Parameter(model.prompt.bank.clone())
        feeds = {name: torch.from_numpy(array) for name, array in mixed_batch(model, len(CARDS)).items()}
        lengths, real = feeds["lengths"], torch.arange(feeds["input_ids"].shape[1]) < feeds["lengths"][:, None]
        with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
            logits = model.outputs(WHOLE[0], feeds["input_ids"], lengths, feeds["token_type_ids"])
        (logits.float().tanh() * real[..., None]).sum().backward()
        grads.append(model.prompt.bank.grad)
    scale = grads[1].abs().max()
    assert scale > 0
    assert (grads[0] - grads[1]).abs().max() < (1e-5 if precision is torch.float32 else 0.1) * scale


@pytest.mark.parametrize("family", FAMILIES)
def test_the_padded_graph(family: str, tmp_path: Path) -> None:
    check(tiny_prompted(family, head_layers="all"), tmp_path / "b", run_onnxruntime, 1e-4)


@pytest.mark.parametrize("engine", [run_onnxruntime, run_openvino])
@pytest.mark.parametrize(("layers", "pooling"), [((), "cls"), ((1,), "mean"), (None, "cls"), (None, "mean")])
def test_without_prompts_and_with_vectors_in_front(layers, pooling, engine, tmp_path: Path) -> None:
    check(tiny_prompted("bert", layers, pooling=pooling, head_layers="all"), tmp_path / "b", engine, 1e-4)


@pytest.mark.parametrize("form", ["packed", "native"])
@pytest.mark.parametrize(("layers", "pooling"), [(ALL, "cls"), ((0, 2), "mean"), ((), "cls")])
@pytest.mark.parametrize("engine", installed())
def test_graphs_without_padding(engine: str, layers, pooling, form: str, tmp_path: Path) -> None:
    if form == "native" and not has_operator(engine):
        pytest.skip("the operator was not compiled")
    model = tiny_prompted("bert", layers, pooling=pooling, head_layers="all")
    card = tiny_bundle(tmp_path / "b", model)
    feeds = mixed_batch(model, len(CARDS))
    rows = rows_asked(card, feeds["task_id"])
    rows = {name: some[::-1].copy() for name, some in rows.items()}
    feeds |= rows | read_tasks(tmp_path / "b", card)[1]
    graph = graph_of(model, build_native if form == "native" else build_packed)
    graph.backbone.inline(graph.model.graph.initializer)
    onnx.save(graph.model, tmp_path / "graph.onnx")
    opened = open_engine(engine, tmp_path / "graph.onnx", native=form == "native")
    found = opened.run(["token_logits"], {one.name: feeds[one.name] for one in graph.model.graph.input})
    most = 0.5 if engine.endswith("bf16") else 1e-4
    for place, row in enumerate(rows["whole_rows"]):
        task = card.tasks[feeds["task_id"][row]]
        if task.output == "token_logits":
            output = found["token_logits"][place, : feeds["lengths"][row], : task.columns]
            np.testing.assert_allclose(output, original(model, task.card, feeds, row), rtol=0, atol=most)


@pytest.mark.parametrize("layers", [ALL, (), None])
def test_ordinary_folders(layers, tmp_path: Path) -> None:
    check_folders(tiny_prompted("bert", layers, head_layers="all"), tmp_path / "f")


TEXT = Example("1", "", tokens=("Zürich", "lies", "north", "of", "the", "Alps"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs over one encoder whose heads read all layers and the last one, each with its bundle in `export`."""
    found = {}
    for layers in HeadLayers:
        run = make_run(tmp_path_factory.mktemp(layers), "ptuning-v2", head_layers=layers)
        manifest = read_model(run / "manifest.json", Manifest)
        write_model(run / "manifest.json", manifest.model_copy(update={"run": layers.value}))
        export(run, run / "export", atol=1e-4, rows=2)
        found[layers.value] = run
    return found


def test_a_bundle_says_so_and_agrees_in_all_forms_and_engines(runs: dict[str, Path]) -> None:
    card = open_bundle(runs["all"] / "export")
    assert card.head_layers is HeadLayers.ALL
    assert set(card.parity) == set(installed())
    for engine, report in card.parity.items():
        assert {"padded", "packed", *(["native"] if has_operator(engine) else [])} == set(report.forms)
    assert "head_layers" not in (runs["last"] / "export" / "bundle.json").read_text()  # as older bundles


def test_heads_over_the_last_layer_join_a_bundle_that_gives_all(runs: dict[str, Path], tmp_path: Path) -> None:
    export(runs["all"], tmp_path / "b", atol=1e-4, rows=2)
    names = {card.name: f"{card.name}-last" for card in read_model(runs["last"] / "manifest.json", Manifest).tasks}
    add(tmp_path / "b", runs["last"], names, rows=2, atol=1e-4)
    both, alone, wide = (
        Session(folder) for folder in (tmp_path / "b", runs["last"] / "export", runs["all"] / "export")
    )
    for other, name in ((alone, names["demo-names"]), (wide, "demo-names")):
        found = both.run({(name, "en"): [TEXT]})[name, "en"].outputs
        wanted = other.run({("demo-names", "en"): [TEXT]})["demo-names", "en"].outputs
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-4)


def test_heads_over_all_layers_need_a_bundle_that_gives_them(runs: dict[str, Path]) -> None:
    with pytest.raises(
        PolypromptError, match="its heads read all layers, and the bundle gives them the last one alone"
    ):
        add(runs["last"] / "export", runs["all"], {}, rows=0)


def test_runs_that_are_older_keep_their_identity() -> None:
    plain, wide = RunConfig(suite=["demo"]), RunConfig(suite=["demo"], head_layers=HeadLayers.ALL)
    assert plain.identity == RunConfig(suite=["demo"], head_layers=HeadLayers.LAST).identity != wide.identity
