"""States of the lower layers that are kept: the same states, results, and what becomes of damaged or missing files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import LAYERS, tiny_model, tiny_tokenizer

from benchmarks.records import Example, Split
from benchmarks.results import Manifest, read_model
from benchmarks.task import Kind, Task, TaskCard
from harness import trunk as trunk_module
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import find_device
from harness.evaluate import compute
from harness.features import TextEncoder
from harness.initial import make_model
from harness.methods import find_method
from harness.placement import Placement, Positions
from harness.screen import Screen
from harness.sharing import PromptBank
from harness.train import encode_training, train
from harness.trunk import FOLDER, TrunkCache

CARD = TaskCard(name="task", suite="test", kind=Kind.CLASSIFICATION, labels=("a", "b"), metrics=("accuracy",))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


def prepare(family="bert", method="ptuning-v2", precision="fp32", **settings):
    """A model, encoded rows of unlike lengths, and a function that trains."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, size=22)
    texts = [" ".join(f"w{number}" for number in random.integers(5, 60, size=length)) for length in lengths]
    rows = Split([Example(f"{n}", text=text, label="ab"[n % 2]) for n, text in enumerate(texts)])
    task = Task(CARD, source=None, title="", licence="", url="", how_to_get="")
    asked = {"batch": 4, "prompt_length": 3, "max_steps": 14, "epochs": 9, "prompt_layers": "top:1"} | settings
    config = RunConfig(method=method, **asked)
    backbone = Backbone("tiny", tiny_model(family), tiny_tokenizer(family))
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions - 3)
    training = encode_training([TaskRows(task, {"en": rows}, {}, {}, {}, frozenset())], encoder, config.batch, 0)
    model = make_model(config, find_method(method), backbone, [TaskRows(task, {}, {}, {}, {}, frozenset())], training)
    device = find_device(precision, cpu=True)

    def go(folder, trunk):
        train(model, training, config, find_method(method), device, folder / "c", "id", Screen(True), trunk=trunk)
        return [weight.detach() for weight in model.parameters() if weight.requires_grad]

    return model, training[0].features, device, go


def counted(monkeypatch):
    """A list of the rows of each batch that the lower layers compute."""
    rows = []
    run = Backbone.trunk
    monkeypatch.setattr(Backbone, "trunk", lambda self, ids, *more: rows.append(len(ids)) or run(self, ids, *more))
    return rows


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
def test_states_are_those_of_a_whole_pass(family, shifted):
    """Each row against transformers' own hidden states of it alone."""
    model, features, device, _ = prepare(family)
    layers = LAYERS - 1
    bank = PromptBank(
        torch.zeros(1, 1, 2, 4, 3, 8),
        {"": 0},
        Placement(layers=(layers,), positions=Positions.SHIFTED if shifted else Positions.OWN),
    )
    rows = TrunkCache(model, device, 1.0).rows(features, bank("task"))
    picked = [3, 0, 17, 8]
    found = rows.batch(picked, device)
    assert found.layers == layers
    encoder = tiny_model(family)
    for states, feature in zip(found.states, [features[row] for row in picked], strict=True):
        first = model.backbone.first_position + (3 if shifted else 0)
        marks = (
            {"token_type_ids": torch.from_numpy(feature.type_ids)[None].long()} if family in ("bert", "electra") else {}
        )
        places = torch.arange(first, first + len(feature))[None]
        ids = torch.from_numpy(feature.input_ids)[None].long()
        expected = encoder(ids, position_ids=places, output_hidden_states=True, **marks).hidden_states[layers][0]
        torch.testing.assert_close(states[: len(feature)], expected, atol=1e-5, rtol=1e-5)
        assert not states[len(feature) :].any()


@pytest.mark.parametrize(
    ("method", "layers"), [("ptuning-v2", "top:1"), ("ptuning-v2", "1-2"), ("linear-probe", "all")]
)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("gigabytes", [1.0, 5e-6], ids=["all rows", "some rows"])
def test_training_and_outputs_are_the_same(method, layers, pooling, gigabytes, tmp_path, monkeypatch):
    settings = {"prompt_layers": layers, "pooling": pooling, "learning_rate": [0.05]}
    plain, features, device, go = prepare(method=method, **settings)
    expected = go(tmp_path / "plain", None)
    outputs = compute(plain, CARD, features, device)
    seen = counted(monkeypatch)
    for time in ("first", "second"):
        model, features, device, go = prepare(method=method, **settings)
        kept = TrunkCache.of(model, device, gigabytes)
        for one, other in zip(go(tmp_path / time, kept), expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
        np.testing.assert_allclose(compute(model, CARD, features, device, "", kept), outputs, atol=2e-5)
        if gigabytes == 1.0:
            assert sum(seen) == len(features), "each row once, in the second run none"
        else:
            assert sum(seen) > 2 * len(features)


def test_several_shards_and_a_second_reader(empty_cache, monkeypatch):
    monkeypatch.setattr(trunk_module, "SHARD", 2000)
    model, features, device, _ = prepare()
    seen = counted(monkeypatch)
    whole = TrunkCache(model, device, 1.0).rows(features, None)
    files = sorted(empty_cache.iterdir())
    assert len(files) > 3
    assert sum(seen) == len(features)
    again = TrunkCache(model, device, 1.0).rows(features, None)
    assert sum(seen) == len(features), "nothing is computed a second time"
    everything = list(range(len(features)))
    assert torch.equal(whole.batch(everything, device).states, again.batch(everything, device).states)

    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(content)
    files[2].unlink()
    mended = TrunkCache(model, device, 1.0).rows(features, None)
    assert torch.equal(whole.batch(everything, device).states, mended.batch(everything, device).states)
    assert len(features) < sum(seen) < 2 * len(features), "the damaged and the missing part alone"
    assert sorted(empty_cache.iterdir()) == files


def test_the_bound_holds(empty_cache, monkeypatch):
    monkeypatch.setattr(trunk_module, "SHARD", 2000)
    model, features, device, _ = prepare()
    bound = 12_000
    rows = TrunkCache(model, device, bound / 2**30).rows(features, None)
    assert bound / 2 < sum(file.stat().st_size for file in empty_cache.iterdir()) <= bound + 4 * 2000
    whole = TrunkCache(model, device, 1.0).rows(features, None)
    everything = list(range(len(features)))
    torch.testing.assert_close(rows.batch(everything, device).states, whole.batch(everything, device).states)


def test_what_decides_the_states_is_in_the_name(empty_cache):
    model, features, device, _ = prepare()

    def files(model, features, device, prompt=None):
        before = set(empty_cache.iterdir()) if empty_cache.exists() else set()
        TrunkCache(model, device, 1.0).rows(features, prompt)
        return len(set(empty_cache.iterdir()) - before)

    assert files(model, features, device) == 1
    assert files(model, features, device) == 0
    shifted = PromptBank(torch.zeros(1, 1, 2, 4, 3, 8), {"": 0}, Placement(layers=(2,), positions=Positions.SHIFTED))
    assert files(model, features, device, shifted("task")) == 1
    assert files(model, features, find_device("bf16", cpu=True)) == 1
    assert files(prepare(prompt_layers="1-2")[0], features, device) == 1
    assert files(model, [replace(features[0], type_ids=1 - features[0].type_ids), *features[1:]], device) == 1
    assert files(model, [features[1], features[0], *features[2:]], device) == 1
    other = prepare()[0]
    with torch.no_grad():
        other.backbone.model.get_parameter("encoder.layer.0.output.dense.bias").add_(1)
    other.backbone.card = other.backbone.card.model_copy(update={"sha256": "0" * 64})
    assert files(other, features, device) == 1


def test_there_is_none_where_nothing_stays_the_same(monkeypatch):
    device = find_device("fp32", cpu=True)
    for settings in (
        {"prompt_layers": "all"},
        {"prompt_layers": "0"},
        {"method": "prompt-tuning", "prompt_layers": "all"},
        {"method": "fine-tune", "prompt_layers": "all"},
        {"method": "bitfit", "prompt_layers": "all"},
        {"method": "lora", "prompt_layers": "all"},
    ):
        assert TrunkCache.of(prepare(**settings)[0], device, 1.0) is None, settings
    model = prepare()[0]
    assert TrunkCache.of(model, device, 0) is None
    assert TrunkCache.of(model, device, 1.0).layers == LAYERS - 1
    model.backbone.engine = "transformers"
    assert TrunkCache.of(model, device, 1.0) is None
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    assert TrunkCache.of(prepare()[0], device, 1.0) is None


def test_bf16_is_kept_bit_by_bit(tmp_path):
    model, features, _, _ = prepare()
    device = find_device("bf16", cpu=True)
    found = TrunkCache(model, device, 1.0).rows(features, None).batch([0], device)
    assert found.states.dtype == torch.bfloat16
    ids, lengths, types = (
        torch.from_numpy(array)[None].long()
        for array in (features[0].input_ids, np.array(len(features[0])), features[0].type_ids)
    )
    with device.autocast():
        expected = model.backbone.trunk(ids, lengths, types, LAYERS - 1)
    torch.testing.assert_close(found.states, expected, atol=0.05, rtol=0.02)


def test_a_run_keeps_its_trunk_for_the_next(tiny_run, empty_cache, tmp_path, monkeypatch):
    options = ("--prompt-layers", "top:1", "--max-steps", 3, "--languages", "en", "--max-eval", 8, "--max-train", 16)
    seen = counted(monkeypatch)
    assert tiny_run(*options, "--out", tmp_path, "--name", "a")[0] == 0
    first = sum(seen)
    assert first > 0
    assert tiny_run(*options, "--out", tmp_path, "--name", "b", "--seed", 1)[0] == 0
    assert sum(seen) == first, "another seed computes no row again"
    assert tiny_run(*options, "--out", tmp_path, "--name", "c", "--cache-gb", 0)[0] == 0
    assert sum(seen) == first
    assert read_model(tmp_path / "a" / "manifest.json", Manifest).steps == 3
