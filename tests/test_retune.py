"""Prompts that are trained on against quantised weights: which weights these are, and what becomes of the prompts."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import CARDS as KINDS
from bundles import tiny_prompted
from scipy.stats import pearsonr
from test_export import CARDS, make_run
from test_graph import original
from test_precision import feeds, run, write

import exporters.export
import exporters.precision
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import find_task
from benchmarks.results import Manifest, read_model
from exporters.bundle import read_part
from exporters.export import export, graph_of, samples_of
from exporters.graph import OUTPUTS
from exporters.precision import Precision, approximated, in_precision
from exporters.retune import retuned, round_encoder
from harness.config import RunConfig, load_config
from harness.data import load_evaluation
from harness.features import TextEncoder, pad
from harness.model import PromptedModel
from harness.screen import Screen
from harness.store import load_run

QUIET = Screen(quiet=True)


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "xlm-roberta", "deberta-v2"])
def test_the_rounded_encoder_computes_what_the_runtime_does(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In int4, where the states stay in fp32: all linear maps, and tables of embeddings where their width allows it."""
    model = tiny_prompted(family)
    if family != "electra":
        monkeypatch.setattr(exporters.precision, "LARGE", 1000)
    given, plain = feeds(model), graph_of(model)
    found = run(write(tmp_path / "b", in_precision(plain, Precision.INT4), model), model, given)
    weights = approximated(plain, Precision.INT4)
    assert ("word" in weights) == (family != "electra")
    rounded = deepcopy(model)
    round_encoder(rounded.backbone, weights)
    assert difference(rounded, found, given) < 1e-4
    assert difference(model, found, given) > 1e-2


def difference(model: PromptedModel, found: dict[str, np.ndarray], given: dict[str, np.ndarray]) -> float:
    """The largest one between torch, a row at a time, and the outputs of a graph."""
    largest = 0.0
    for row, number in enumerate(given["task_id"]):
        wanted = original(model, KINDS[number], given, row)
        output = found[OUTPUTS[KINDS[number].kind]][row]
        output = output[: len(wanted)] if output.ndim == 2 else output
        largest = max(largest, np.abs(output[..., : wanted.shape[-1]] - wanted).max())
    return largest


def test_prompts_and_heads_learn_and_the_rest_stays(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "ptuning-v2")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    plain = export(folder, tmp_path / "plain", rows=4, precision=Precision.INT4, max_drop=1000, screen=QUIET)
    card = export(folder, tmp_path / "out", rows=4, precision=Precision.INT4, max_drop=1000, screen=QUIET, retune=3)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (card.retuning.steps, card.retuning.rate) == (3, pytest.approx(2e-3))
    assert set(card.retuning.scores) == {one.name for one in CARDS}
    assert plain.retuning is None
    same = {name for name in card.files if card.files[name] == plain.files[name]}
    assert same == card.files.keys() - {"tasks.safetensors"}
    old, new = (read_part(tmp_path / name / "tasks.safetensors") for name in ("plain", "out"))
    moved = {name for name in old if not np.array_equal(old[name], new[name])}
    assert moved >= {f"layer.{layer}.prefix_{part}" for layer in (0, 2) for part in ("key", "value")}
    assert moved >= {"sequence_logits.weight", "sequence_logits.bias", "token_logits.weight"}


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_the_loss_over_the_quantised_weights_falls(precision: Precision, tmp_path: Path) -> None:
    folder = make_run(tmp_path, "ptuning-v2")
    manifest, config = read_model(folder / "manifest.json", Manifest), load_config(folder / "config.toml")
    model = load_run(folder)
    graph = graph_of(model)
    samples = samples_of(folder, config, manifest, 40)
    tuned, report = retuned(model, graph, precision, 60, config, manifest, samples, QUIET)
    assert report.steps == 60
    rounded = deepcopy(model)
    round_encoder(rounded.backbone, approximated(graph, precision))
    assert loss(tuned, config) < 0.95 * loss(rounded, config)
    scores = report.scores["demo-count"]
    assert abs(scores.after - scores.before) > 0.1
    for one, said in ((rounded, scores.before), (tuned, scores.after)):
        found = [pearsonr(*counted(one, rows, language)) for language, rows in samples["demo-count"].items()]
        assert said == pytest.approx(100 * np.mean([part.statistic for part in found]), abs=0.01)
    for one, other in zip(tuned.backbone.frozen().layers, rounded.backbone.frozen().layers, strict=True):
        assert torch.equal(one.qkv.weight, other.qkv.weight)
    assert torch.equal(model.prompt.bank, load_run(folder).prompt.bank)


def loss(model: PromptedModel, config: RunConfig) -> float:
    """Mean squared error of rows that were not trained on, by hand."""
    found, gold = counted(model, load_evaluation(config, find_task("demo-count"), "en").examples, "en")
    return float(np.mean(np.square(found - gold)))


def counted(model: PromptedModel, examples: Sequence[Example], language: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that PyTorch gives for rows of regression, and those that are right."""
    task = find_task("demo-count")
    backbone = model.backbone
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    features = encoder.features(task.card, examples)
    rows = pad(features, backbone.pad_id)
    ids, lengths, types = (torch.from_numpy(array) for array in (rows.input_ids, rows.lengths, rows.type_ids))
    with torch.no_grad():
        found = model.outputs(task.card, ids, lengths, types, language)[:, 0]
    return found.numpy(), np.array([row.target for row in examples])


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_precisions_that_need_none(precision: Precision, tmp_path: Path) -> None:
    folder = make_run(tmp_path, "linear-probe")
    with pytest.raises(PolypromptError, match=f"--retune: of --precision int8 and int4 alone; {precision} needs none"):
        export(folder, tmp_path / "out", precision=precision, retune=3)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, command) -> None:
    folder = make_run(tmp_path, "linear-probe")
    asked = (folder, "--precision", "int8", "--rows", 4, "--max-drop", 1000)
    status, out, error = command(exporters.export, *asked, "--retune", 2)
    assert status == 0, error
    assert "retuned in 2 steps at a rate of 0.001" in out
    assert "demo-topic" in out.split("before and after")[1]
    status, _, error = command(exporters.export, *asked, "--retune", 0)
    assert (status, "--retune 0: at least 1 step" in error) == (2, True)
    status, _, error = command(exporters.export, folder, "--layout", "transformers", "--retune")
    assert (status, "--retune: of bundles alone" in error) == (2, True)
