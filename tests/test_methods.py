"""Every method through the same loop: what it stores, what is loaded again, what is exported."""

import json
import math
from itertools import count
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, HIDDEN, LAYERS, tiny_model, tiny_tokenizer

import harness.learn
from benchmarks.errors import PolypromptError
from benchmarks.registry import find_task
from benchmarks.results import Manifest, read_model, read_predictions
from benchmarks.task import Kind
from exporters.export import export
from harness.adapt import adapt, load_lora, lora_of, lora_state, merge
from harness.backbone import Backbone, load_backbone
from harness.config import RunConfig, load_config
from harness.data import load_evaluation
from harness.device import find_device
from harness.evaluate import predict
from harness.execute import execute
from harness.features import TextEncoder
from harness.initial import max_positions, random_states
from harness.methods import METHODS, Weights, find_method
from harness.placement import Placement
from harness.screen import Screen
from harness.store import load_run

BACKBONE = sum(weight.numel() for weight in tiny_model("bert").parameters())
TASKS = {"demo-topic": 4, "demo-count": 1, "demo-choice": 1, "demo-names": 7, "demo-answers": 2}
HEADS = sum(columns * (HIDDEN + 1) for columns in TASKS.values())
STORED = {"bitfit": {"backbone.safetensors"}, "fine-tune": {"backbone.safetensors"}} | {
    "ptuning-v2": {"prompt.safetensors"},
    "prompt-tuning": {"prompt.safetensors"},
    "lora": {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"},
}
# BERT: each layer has biases of 6 linear maps, one of them of width 48, and of 2 normalisations; one more is in front.
BIASES = LAYERS * (7 * HIDDEN + 48) + HIDDEN
TRAINED = {
    "ptuning-v2": 3 * LAYERS * 2 * HIDDEN,
    "prompt-tuning": 3 * HIDDEN,
    "bitfit": BIASES,
    "lora": LAYERS * 2 * 2 * 4 * HIDDEN,
    "linear-probe": 0,
    "fine-tune": BACKBONE,
}


def folder_of(family: str, folder: Path) -> Path:
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer(family).save(str(folder / "tokenizer.json"))
    return folder


def run_of(method: str, family: str, folder: Path, **settings) -> Path:
    """A finished run on the demo suite."""
    config = RunConfig(
        suite=["demo"],
        languages=["en", "zh"],
        backbone=str(folder_of(family, folder / "backbone")),
        method=method,
        prompt_length=3,
        lora_rank=4,
        max_train=24,
        max_eval=9,
        batch=8,
        max_steps=6,
        precision="fp32",
        out=folder,
        name="run",
        **settings,
    )
    execute(config, False, Screen(True))
    return folder / "run"


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory) -> Path:
    return run_of(request.param, "bert", tmp_path_factory.mktemp(request.param))


def test_the_folder_holds_what_was_trained_and_no_more(run):
    manifest = read_model(run / "manifest.json", Manifest)
    stored = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    others = {"config.toml", "curve.json", "heads.safetensors", "manifest.json", "results.json"}
    assert {name for name in stored if not name.startswith(("predictions/", "tracking/"))} - others == STORED.get(
        manifest.method, set()
    )
    tensors = {path: load_file(path) for path in run.rglob("*.safetensors")}
    numbers = sum(tensor.numel() for file in tensors.values() for tensor in file.values())
    added = 0 if manifest.method in ("bitfit", "fine-tune") else TRAINED[manifest.method]
    assert manifest.trainable == numbers == TRAINED[manifest.method] + HEADS
    assert manifest.share == pytest.approx(100 * manifest.trainable / (BACKBONE + HEADS + added))
    if manifest.method == "bitfit":
        assert all(name.endswith(".bias") for name in tensors[run / "backbone.safetensors"])


def test_what_is_loaded_again_predicts_the_same(run):
    """The values themselves: a merged encoder is what predicted in the run."""
    manifest, model = read_model(run / "manifest.json", Manifest), load_run(run)
    config = load_config(run / "config.toml")
    encoder = TextEncoder(
        model.backbone.tokenizer, model.backbone.pad_id, model.backbone.token_types, model.max_positions
    )
    for name in ("demo-topic", "demo-names", "demo-count"):
        card = next(card for card in manifest.tasks if card.name == name)
        again = predict(model, encoder, card, load_evaluation(config, find_task(name), "en"), find_device("fp32"), "en")
        stored = read_predictions(run / "predictions" / f"{name}.en.test.jsonl.gz")
        for row, other in zip(again, stored, strict=True):
            near = isinstance(row.value, float)  # states from the cache were computed in other batches
            assert row.value == (pytest.approx(other.value, rel=0, abs=1e-6) if near else other.value)
            assert row.scores == pytest.approx(other.scores, rel=0, abs=1e-6)  # stored with six digits


def test_training_changed_what_the_model_says(run):
    """Else the tests above compare an encoder with itself."""
    model, bare = load_run(run).backbone, load_backbone(load_config(run / "config.toml").backbone)
    ids, lengths = torch.randint(5, 60, (2, 9)), torch.tensor([9, 9])
    same = torch.equal(model(ids, lengths), bare(ids, lengths))
    assert same is (find_method(read_model(run / "manifest.json", Manifest).method).backbone is Weights.NONE)


def test_every_method_is_exported(run):
    card = export(run, run.parent / "bundle", atol=1e-4, rows=6)
    assert card.parity["onnxruntime"].difference < 1e-4
    assert card.parity["onnxruntime"].tasks.keys() == {card.card.name for card in card.tasks}
    slots = 3 if card.method in ("ptuning-v2", "prompt-tuning") else 0
    for task in card.tasks:  # retrieval reads the encoder as it is
        assert task.slots == (0 if task.card.kind is Kind.RETRIEVAL else slots)


@pytest.mark.parametrize("method", ["prompt-tuning", "lora", "bitfit"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
def test_every_family_takes_every_method(method, family, tmp_path):
    run = run_of(method, family, tmp_path, tasks=["demo-topic", "demo-names"])
    assert export(run, tmp_path / "bundle", atol=1e-4, rows=4).parity["onnxruntime"].difference < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_adds_the_product_of_its_factors(family):
    """W + alpha / r * B A in the maps to queries and values, nothing elsewhere; merged as well as not."""
    backbone = Backbone("tiny", tiny_model(family), tiny_tokenizer(family))
    ids, lengths = torch.randint(5, 60, (2, 9)), torch.tensor([9, 5])
    bare = backbone(ids, lengths)
    torch.manual_seed(5)
    adapt(backbone, Weights.LORA, 4, 6.0)
    for row, length in enumerate(lengths):  # B begins at zero
        torch.testing.assert_close(backbone(ids, lengths)[row, :length], bare[row, :length], rtol=0, atol=5e-6)
    state = {name: torch.randn_like(weight) for name, weight in lora_state(backbone).items()}
    load_lora(backbone, state)
    plain = tiny_model(family)
    names = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in state}
    assert len(names) == 2 * LAYERS
    with torch.no_grad():
        for name in names:
            first, second = (state[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
            plain.get_submodule(name).weight += 6.0 / 4 * second @ first
    expected = Backbone("tiny", plain, tiny_tokenizer(family))
    assert (expected(ids, lengths) - bare)[0].abs().max() > 1e-2
    torch.testing.assert_close(backbone(ids, lengths)[0], expected(ids, lengths)[0], rtol=0, atol=1e-4)
    merge(backbone)
    assert lora_of(backbone) is None
    merged = dict(backbone.model.named_parameters())
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(merged.pop(name), weight, rtol=1e-6, atol=1e-6)
    assert not merged


def test_peft_opens_the_adapter_of_a_run(tmp_path):
    run = run_of("lora", "roberta", tmp_path, tasks=["demo-topic"])
    theirs = peft.PeftModel.from_pretrained(tiny_model("roberta"), run / "adapter").eval()
    ours = load_run(run).backbone
    ids, lengths = torch.randint(5, 60, (2, 9)), torch.tensor([9, 9])
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state
    torch.testing.assert_close(ours(ids, lengths), expected, rtol=0, atol=1e-5)
    about = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (about["r"], about["lora_alpha"], about["target_modules"]) == (4, 16.0, ["query", "value"])
    assert about["base_model_name_or_path"] == "backbone", "no path of this machine"


@pytest.mark.parametrize("method", ["lora", "bitfit", "fine-tune"])
def test_stored_weights_that_do_not_fit_are_refused(method, tmp_path):
    run = run_of(method, "bert", tmp_path, tasks=["demo-topic"])
    file = run / ("adapter/adapter_model.safetensors" if method == "lora" else "backbone.safetensors")
    state = load_file(file)
    gone = state.pop(sorted(state)[3])
    save_file(state, file)
    with pytest.raises(PolypromptError, match=r"run: its weights are missing or damaged: .*(differ|other names)"):
        load_run(run)
    save_file(state | {"x": gone}, file)
    with pytest.raises(PolypromptError, match="missing or damaged"):
        load_run(run)
    file.unlink()
    with pytest.raises(PolypromptError, match="missing or damaged"):
        load_run(run)


def test_vectors_begin_with_the_spread_of_the_words():
    backbone = Backbone("tiny", tiny_model("electra"), tiny_tokenizer("electra"))
    made = random_states(backbone, Placement(layers=None), 4000)
    table = backbone.model.embeddings.word_embeddings.weight
    assert made.shape == (4000, 16)
    variance = (table - table.mean()).square().sum() / (table.numel() - 1)
    assert made.std().item() == pytest.approx(math.sqrt(variance), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "zero-gated"}, "--init zero-gated: needs a prompt in the layers"),
        ({"prompt_layers": "top:1"}, "--prompt-layers top:1: needs a prompt in the layers"),
    ],
)
def test_what_a_prompt_in_the_input_cannot_be(settings, message, tmp_path):
    with pytest.raises(PolypromptError, match=message):
        run_of("prompt-tuning", "bert", tmp_path, tasks=["demo-topic"], **settings)


@pytest.mark.parametrize("method", ["ptuning-v2", "prompt-tuning"])
def test_shifted_positions_leave_less_room_and_are_recorded(method, tmp_path):
    run = run_of(method, "bert", tmp_path, tasks=["demo-topic"], positions="shifted")
    config, model = load_config(run / "config.toml"), load_run(run)
    assert (
        model.max_positions
        == model.backbone.max_positions - 3
        == max_positions(config, find_method(method), model.backbone)
    )
    assert "positions shifted" in read_model(run / "manifest.json", Manifest).prompt
    card = export(run, tmp_path / "bundle", atol=1e-4, rows=6)
    assert card.placement.positions == "shifted"
    assert {task.max_positions for task in card.tasks} == {model.max_positions}
    long = config.model_copy(update={"prompt_length": 40})
    with pytest.raises(PolypromptError, match=r"--prompt-length 40: .* has 42 positions"):
        max_positions(long, find_method(method), model.backbone)
    assert max_positions(long, find_method("lora"), model.backbone) == 42


@pytest.mark.parametrize("sharing", ["specialise", "low-rank", "separate"])
def test_prompts_in_the_input_are_shared_in_every_way(sharing, tmp_path):
    run = run_of("prompt-tuning", "electra", tmp_path, tasks=["demo-topic", "demo-names"], sharing=sharing)
    prompt = load_run(run).prompt
    assert prompt.bank.shape[1:] == (3, 16)
    rows = [prompt.bank[prompt.row(name)] for name in ("demo-topic", "demo-names")]
    assert not torch.equal(*rows)
    assert export(run, tmp_path / "bundle", atol=1e-4, rows=4).parity["onnxruntime"].difference < 1e-4


def test_each_learning_rate_begins_with_an_encoder_of_its_own(tmp_path, monkeypatch):
    """A second LoRA on top of the first one would be stored as what it never was alone."""
    scores = count()  # each epoch is better than the ones before, so the second rate is chosen
    monkeypatch.setattr(harness.learn, "validation_scores", lambda *_: {"demo-topic": float(next(scores))})
    stored = []
    for name, rates in (("two", [5e-3, 5e-2]), ("one", [5e-2])):
        run = run_of("lora", "bert", tmp_path / name, tasks=["demo-topic"], learning_rate=rates)
        assert read_model(run / "manifest.json", Manifest).selection.learning_rate == 5e-2
        stored.append(load_file(run / "adapter" / "adapter_model.safetensors"))
    assert all(torch.equal(stored[0][name], stored[1][name]) for name in stored[1])


def test_retrieval_reads_the_encoder_as_it_is(tiny_run, tmp_path):
    """As without a prompt, whatever the others share; but with --retrieval-prompt."""
    tasks = ("--tasks", "demo-topic,demo-translation", "--languages", "en,de", "--max-train", 20, "--max-eval", 9)
    ways = {
        "prompt": (),
        "separate": ("--sharing", "separate"),
        "specialise": ("--sharing", "specialise"),
        "shared": ("--retrieval-prompt",),
        "probe": ("--method", "linear-probe"),
    }
    found = {}
    for name, more in ways.items():
        where = ("--out", tmp_path, "--name", name)
        status, _, error = tiny_run(*tasks, "--max-steps", 2, "--selection", "last", *where, *more)
        assert status == 0, error
        files = (tmp_path / name / "predictions").glob("demo-translation.*")
        found[name] = [(row.value, row.scores) for file in sorted(files) for row in read_predictions(file)]
    assert found["prompt"] == found["separate"] == found["specialise"] == found["probe"] != found["shared"]
    model, card = load_run(tmp_path / "prompt"), find_task("demo-translation").card
    assert model.prompt_of(card) is None is not model.prompt_of(find_task("demo-topic").card)
