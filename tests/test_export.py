"""From a run folder to a bundle, for every method, checked on rows of the demo suite."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from bundles import tiny_manifest
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

import exporters.export
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import find_suite
from benchmarks.results import Manifest, read_model, write_model
from exporters.bundle import BundleCard, open_bundle
from exporters.export import calibration_rows, export, samples_of, tensors_of
from exporters.precision import Precision
from exporters.session import Session
from harness.backbone import load_backbone
from harness.config import RunConfig, load_config, save_config
from harness.decode import decode
from harness.model import PromptedModel
from harness.placement import Placement
from harness.sharing import PromptBank
from harness.store import save_weights

CARDS = [task.card for task in find_suite("demo").tasks]


def make_run(folder: Path, method: str, family: str = "bert", **more: object) -> Path:
    """A run folder as training leaves it, with random weights."""
    source = folder / "backbone"
    tiny_model(family).save_pretrained(source)
    tiny_tokenizer(family).save(str(source / "tokenizer.json"))
    backbone = load_backbone(str(source))
    torch.manual_seed(2)
    prompt = None
    if method == "ptuning-v2":
        rows = {"": 0, "demo-topic": 1, "demo-names": 2}  # two tasks with a prompt of their own
        prompt = PromptBank(torch.randn(3, 2, 2, backbone.heads, 3, backbone.head_dim), rows, Placement(layers=(0, 2)))
    config = RunConfig(suite=["demo"], languages=["en", "de"], backbone=str(source), method=method, **more)
    model = PromptedModel(backbone, prompt, CARDS, config.pooling, head_layers=config.head_layers)
    manifest = tiny_manifest(model, CARDS).model_copy(update={"method": method})
    if method == "fine-tune":
        backbone.requires_grad_(True)
        with torch.no_grad():
            for weight in backbone.parameters():
                weight.add_(torch.randn_like(weight) * 0.05)
    run = folder / "run"
    save_config(config, run / "config.toml")
    write_model(run / "manifest.json", manifest)
    save_weights(model, run)
    return run


@pytest.mark.parametrize(
    ("method", "family"), [("ptuning-v2", "bert"), ("linear-probe", "xlm-roberta"), ("fine-tune", "distilbert")]
)
def test_every_method_exports_and_answers(method: str, family: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, method, family)
    card = export(run, run / "export", atol=1e-4, rows=6)
    assert card == open_bundle(run / "export")
    assert card.method == method
    for task in card.tasks:
        assert (task.slots, task.prompt_layers) == ((3, [0, 2]) if method == "ptuning-v2" else (0, []))
    assert "onnxruntime" in card.parity
    for engine in {"onnxruntime", "openvino"} & set(card.parity):
        assert list(card.parity[engine].tasks) == [task.name for task in CARDS]
        for part in card.parity[engine].tasks.values():
            assert part.difference < 1e-4
            assert part.agreement == 1
            assert part.examples == 6
            assert part.languages in (["en", "de"], ["de"])
            assert part.score == (None if part.original is None else pytest.approx(part.original, abs=0.01))
    assert list(Session(run / "export").tasks.values()) == CARDS


def test_a_bundle_decodes_as_asked(tmp_path: Path) -> None:
    """Tags of random heads, of which few sequences can be."""
    run = make_run(tmp_path, "linear-probe")
    heads = load_file(run / "heads.safetensors")
    save_file({name: torch.randn(head.shape) for name, head in heads.items()}, run / "heads.safetensors")
    card = export(run, tmp_path / "out", rows=1, decoding="viterbi")
    assert {task.card.name for task in card.tasks if task.card.decoding == "viterbi"} == {"demo-names"}
    session = Session(tmp_path / "out")
    examples = [Example(str(number), tokens=tuple("abcdefgh"[number:])) for number in range(6)]
    encoded = session.run({("demo-names", ""): examples})["demo-names", ""]
    [greedy] = [card for card in CARDS if card.name == "demo-names"]

    def may_be(tags: Sequence[str]) -> bool:
        pairs = zip(("O", *tags), tags, strict=False)
        return all(tag[0] != "I" or before[2:] == tag[2:] for before, tag in pairs)

    free = [found.value for found in decode(greedy, examples, encoded.features, encoded.outputs)]
    bound = [found.value for found in session.predict("demo-names", examples)]
    assert not all(map(may_be, free))
    assert all(map(may_be, bound))


def test_a_graph_that_differs_is_refused_and_the_old_bundle_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "ptuning-v2")
    export(run, run / "export", rows=2)
    before = {path.name: path.read_bytes() for path in (run / "export").iterdir()}

    def wrong(model: PromptedModel, cards: list) -> object:
        model.prompt.bank.mul_(1.1)
        tensors = tensors_of(model, cards)
        model.prompt.bank.div_(1.1)
        return {name: tensor.copy() for name, tensor in tensors.items()}

    monkeypatch.setattr(exporters.export, "tensors_of", wrong)
    for out in (run / "export", run / "other"):
        with pytest.raises(PolypromptError, match=r"--atol 0\.001 allows; nothing was written"):
            export(run, out, rows=2)
    assert {path.name: path.read_bytes() for path in (run / "export").iterdir()} == before
    assert not [path for path in run.iterdir() if path.name == "other" or path.name.startswith(".")]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "linear-probe")
    monkeypatch.setattr(sys, "argv", ["export", str(run), "--rows", "2", "--out", str(tmp_path / "out")])
    assert exporters.export.main() == 0
    text = capsys.readouterr().out
    assert all(f"{card.name} " in text for card in CARDS)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json"])
    assert exporters.export.main() == 0
    assert BundleCard.model_validate(json.loads(capsys.readouterr().out)) == open_bundle(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["export", str(run), "--rows", "0"])
    with pytest.raises(PolypromptError, match="--rows 0"):
        exporters.export.main()


def test_a_run_whose_heads_are_gone(tmp_path: Path) -> None:
    run = make_run(tmp_path, "linear-probe")
    (run / "heads.safetensors").unlink()
    with pytest.raises(PolypromptError, match="missing or damaged"):
        export(run, run / "export")
    shutil.rmtree(run)
    with pytest.raises(PolypromptError, match=r"manifest\.json"):
        export(run, run / "export")


def test_int8_finds_its_ranges_on_training_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the rows that it is compared on; those stand in for a task that has no training rows alone."""
    seen = {}
    calibrate = exporters.export.calibrate
    monkeypatch.setattr(exporters.export, "calibrate", lambda *given: (seen.update(given[2]), calibrate(*given))[1])
    monkeypatch.setattr(exporters.export, "CALIBRATED", 5)
    run = make_run(tmp_path, "linear-probe")
    export(run, tmp_path / "out", rows=4, precision=Precision.INT8, max_drop=1000)
    assert {name for name, _ in seen} == {card.name for card in CARDS}
    config = load_config(run / "config.toml")
    for task in find_suite("demo").tasks:
        rows = {code: examples for (name, code), examples in seen.items() if name == task.name}
        if task.card.train_language is None:
            assert rows == samples_of(run, config, read_model(run / "manifest.json", Manifest), 4)[task.name]
            continue
        (language,) = rows
        train = task.source.read(task.card, "train", language, None).examples
        assert len(rows[language]) == 5
        assert all(row in train for row in rows[language])


def test_int8_without_any_training_rows(tmp_path: Path) -> None:
    config = RunConfig(suite=["glue"], tasks=["sst2"], data_dir=tmp_path)
    rows = {"sst2": {"en": [Example("1", text="w5 w6")]}}
    assert calibration_rows(config, rows) == {("sst2", "en"): rows["sst2"]["en"]}
