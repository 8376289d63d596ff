"""Pruned prompts: attention by hand, budgets that hold, and runs that are ordinary ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import HEADS, HIDDEN, LAYERS

import benchmarks.data
from benchmarks.records import Example
from benchmarks.results import Manifest, Results, read_model, read_predictions
from harness import prune, rescore
from harness.attention import Prefix, prompted, slot_weights
from harness.config import load_config
from harness.data import load_rows
from harness.device import find_device
from harness.placement import Placement
from harness.prune import slot_masses
from harness.sharing import PromptBank
from harness.store import load_run

SMALL = ("--languages", "en", "--max-train", 60, "--batch", 16, "--max-steps", 6, "--max-eval", 12)
SLOTS = 6
PLACEMENT = Placement(layers=(4, 7, 9))


@pytest.fixture
def trained(tiny_run, tmp_path):
    """A finished run, and its folder."""

    def trained(*more, name="x"):
        words = (*SMALL, "--prompt-length", SLOTS, "--precision", "fp32", "--inference", "own", "--out", tmp_path)
        status, _, error = tiny_run(*words, "--tasks", "demo-topic", *more, "--name", name)
        assert status == 0, error
        return tmp_path / name

    return trained


@pytest.mark.parametrize("gated", [False, True])
def test_weights_are_those_of_a_loop(gated):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.float64) for _ in range(3))
    tensor = torch.randn(1, 2, 1, 3, 6, 4, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None]
    seen = {}
    prefix = Prefix(tensor, (7,), gated, watch=seen.__setitem__)
    with_watch = prompted(7, query, key, value, mask, prefix)
    assert torch.equal(with_watch, prompted(7, query, key, value, mask, Prefix(tensor, (7,), gated)))
    prompted(6, query, key, value, mask, prefix)
    assert list(seen) == [7]
    for row in range(2):
        for head in range(3):
            for q in range(5):
                front = [float(query[row, head, q] @ tensor[0, 0, 0, head, s]) / 2 for s in range(6)]
                own = [float(query[row, head, q] @ key[row, head, k]) / 2 for k in range(5) if mask[row, 0, 0, k]]
                every = torch.tensor(front if gated else front + own, dtype=torch.float64)
                expected = (every - every.max()).exp()
                expected = (expected / expected.sum())[:6].float()
                assert torch.allclose(seen[7][row, head, q], expected, atol=1e-6)
    assert slot_weights(query, key, tensor[0, 0], mask, gated).shape == (2, 3, 5, 6)


@pytest.mark.parametrize("init", ["kv", "zero-gated"])
def test_two_engines_see_the_same_attention(init, trained):
    """Ours, and transformers' own layers around the same hook."""
    folder = trained("--init", init, "--pooling", "mean")  # so that both compute all of the last layer
    config = load_config(folder / "config.toml")
    rows, _, _ = load_rows(config, evaluate=False)
    found = []
    for engine in ("own", "transformers"):
        model = load_run(folder)
        model.backbone.engine = engine
        found.append(slot_masses(model, rows, prune._encoder(model, rows, config), find_device("fp32")))
    assert found[0].shape == (1, LAYERS, SLOTS)
    assert torch.allclose(*found, atol=1e-5)
    assert (found[0] > 0).all()
    if init == "kv":
        assert (found[0].sum(-1) < 1).all(), "the rest goes to the tokens"


def test_a_pruned_run_is_within_its_budget_and_an_ordinary_run(trained, command, tmp_path):
    folder = trained()
    of_slot, heads = 2 * HIDDEN * 4, 4 * sum(t.numel() for t in load_file(folder / "heads.safetensors").values())
    budget = heads + 7 * of_slot
    status, output, error = command(prune, folder, "--bytes", budget, "--json")
    assert status == 0, error
    found = json.loads(output)
    sizes = [cut["bytes"] for cut in found["cuts"]]
    assert sizes[0] == heads + LAYERS * SLOTS * of_slot
    assert sizes == sorted(sizes, reverse=True)
    kept = found["cuts"][-1]
    assert kept["bytes"] <= budget
    pruned = PromptBank.read(tmp_path / f"x-pruned-{budget}")
    assert pruned.bank.shape == (1, len(kept["layers"]), 2, HEADS, kept["slots"], HIDDEN // HEADS)
    assert pruned.placement.layers == tuple(kept["layers"])
    whole = PromptBank.read(folder)
    old = whole.bank[0].transpose(2, 3)  # [layer, 2, slot, ...]
    for number, layer in enumerate(kept["layers"]):
        new = pruned.bank[0, number].transpose(1, 2)
        for slot in range(kept["slots"]):
            there = [torch.equal(new[:, slot], old[layer][:, s]) for s in range(SLOTS)]
            assert sum(there) == 1, "a slot of that layer, with its key and its value"
    status, _, error = command(rescore, found["folder"])
    assert status == 0, error
    manifest = read_model(tmp_path / f"x-pruned-{budget}" / "manifest.json", Manifest)
    assert "pruned from x" in manifest.prompt
    assert manifest.trainable * 4 == kept["bytes"]
    assert load_run(tmp_path / f"x-pruned-{budget}").prompt.slots == kept["slots"]
    status, _, error = command(prune, folder, "--bytes", budget)
    assert (status, "exists" in error) == (2, True)


def test_a_budget_for_everything_changes_nothing(trained, command, tmp_path):
    folder = trained("--init", "zero-gated")
    status, output, error = command(prune, folder, "--bytes", 10**9, "--name", "y")
    assert status == 0, error
    assert "held-out" in output
    before, after = (
        read_predictions(tmp_path / name / "predictions" / "demo-topic.en.test.jsonl.gz") for name in ("x", "y")
    )
    assert [row.value for row in before] == [row.value for row in after]
    assert [row.scores for row in before] == [pytest.approx(row.scores, abs=1e-5) for row in after]


def test_slots_that_nobody_sees_go_first(trained, command, tmp_path):
    """Of a gated prompt, slots without a value add nothing: without them it says the same."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = trained("--init", "zero-gated", "--learning-rate", "0.1")
    with safe_open(folder / "prompt.safetensors", framework="pt") as file:
        prefix, about = file.get_tensor("prefix"), file.metadata()
    prefix[:, :, 1, :, [1, 4, 5]] = 0
    prefix[:, :, 0, :, [1, 4, 5]] = -1e4 * prefix[:, :, 0, :, :1].sign()  # and take no weight where slot 0 has any
    save_file({"prefix": prefix}, folder / "prompt.safetensors", about)
    heads = 4 * sum(t.numel() for t in load_file(folder / "heads.safetensors").values())
    budget = heads + 3 * LAYERS * 2 * HIDDEN * 4
    status, output, error = command(prune, folder, "--bytes", budget, "--json", "--name", "y")
    assert status == 0, error
    masses = json.loads(output)["mass"]
    for weights in masses.values():
        assert all(weight > 0 for weight in weights[:3])
        assert weights[3:] == [0, 0, 0]


def test_of_each_layer_the_slots_with_the_largest_mass_are_kept_in_their_order():
    bank = PromptBank(torch.arange(2 * 3 * 2 * 1 * 5 * 1.0).view(2, 3, 2, 1, 5, 1), {"a": 0, "b": 1}, PLACEMENT)
    masses = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1))
    kept = prune._pruned(bank, masses, (4, 9), 2)
    assert kept.placement.layers == (4, 9)
    for row in range(2):
        for number, layer in enumerate((0, 2)):
            best = sorted(range(5), key=lambda slot: -masses[row, layer, slot])[:2]
            for part in range(2):
                expected = [float(bank.bank[row, layer, part, 0, slot, 0]) for slot in sorted(best)]
                assert kept.bank[row, number, part, 0, :, 0].tolist() == expected
    sums = masses.mean(0).sum(-1)
    shapes = dict(prune._shapes(bank, masses, 7))
    assert shapes[tuple(sorted((4, 7, 9)[n] for n in sums.argsort(descending=True)[:2]))] == 3
    assert shapes[4, 7, 9] == 2
    assert dict(prune._shapes(bank, masses, 15)) == {(4, 7, 9): 5}


def test_padding_attends_to_nothing(trained):
    """All rows in one batch are, in the mean over their tokens, what each is in a batch of its own."""
    folder = trained("--pooling", "mean")
    config = load_config(folder / "config.toml")
    [task], _, _ = load_rows(config, evaluate=False)
    model = load_run(folder)
    encoder = prune._encoder(model, [task], config)
    [split] = task.selecting.values()
    words = [Example(f"{n}", text=" ".join(["w9 w7 w30 w12"] * n), label=row.label)
             for n, row in enumerate(split.examples, 1)]  # fmt: skip

    def masses(examples):
        rows = replace(task, selecting={"en": replace(split, examples=tuple(examples))})
        return slot_masses(model, [rows], encoder, find_device("fp32"))

    lengths = [len(feature) for feature in encoder.features(task.task.card, words)]
    assert len(set(lengths)) > 1
    alone = sum(length * masses([row]) for length, row in zip(lengths, words, strict=True)) / sum(lengths)
    assert torch.allclose(masses(words), alone, atol=1e-6)


def test_reported_rows_are_read_when_everything_is_decided(trained, command, monkeypatch):
    folder = trained()
    load = benchmarks.data.load_hashed
    order = []

    def watched(task, split, *more):
        order.append(split)
        return load(task, split, *more)

    decided = prune._write

    def write(*arguments):
        order.append("decided")
        decided(*arguments)

    monkeypatch.setattr(benchmarks.data, "load_hashed", watched)
    monkeypatch.setattr(prune, "_write", write)
    assert command(prune, folder, "--bytes", 8000)[0] == 0
    assert set(order[: order.index("decided")]) == {"train"}
    assert "test" in order


@pytest.mark.parametrize(
    ("more", "size", "message"),
    [
        ((), 1, "--bytes 1: the heads take"),
        (("--positions", "shifted"), 9000, "--positions shifted"),
        (("--method", "linear-probe", "--prompt-layers", "all"), 9000, "has no prompt in the layers"),
    ],
)
def test_what_cannot_be_pruned_is_one_error(more, size, message, trained, command):
    status, _, error = command(prune, trained(*more), "--bytes", size)
    assert status == 2
    assert message in error.splitlines()[-1]


def test_several_prompts_are_pruned_each_by_its_own_rows(trained, command, tmp_path):
    folder = trained("--tasks", "demo-names", "--sharing", "separate")
    status, output, error = command(prune, folder, "--bytes", 12000, "--json", "--name", "y")
    assert status == 0, error
    bank = PromptBank.read(tmp_path / "y")
    assert set(bank.rows) == {"demo-topic", "demo-names"}
    assert json.loads(output)["cuts"][-1]["bytes"] <= 12000
    assert len(read_model(tmp_path / "y" / "results.json", Results).records) == 2
