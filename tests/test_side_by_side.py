"""Runs side by side in one process: each is what it is alone, and what they have alike is made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import harness.shared
from benchmarks.results import Manifest, read_model
from harness import run, sweep
from harness.backbone import Backbone
from harness.lock import NAME
from harness.trunk import TrunkCache

TOP = ("--prompt-layers", "top:2", "--tasks", "demo-topic,demo-names")
SETTINGS = {
    "all layers": ("--tasks", "demo-topic", "--max-steps", 5),
    "top layers": (*TOP, "--max-steps", 5),
    "several tasks": ("--sharing", "low-rank", "--tokens-per-batch", 64, "--max-steps", 7),
    "two rates": (*TOP, "--learning-rate", "1e-3,2e-2", "--epochs", 2, "--positions", "shifted"),
    "specialise": (*TOP, "--sharing", "specialise", "--prompt-dropout", 0.2, "--epochs", 2),
    "an encoder that is trained": ("--method", "lora", "--tasks", "demo-topic", "--max-steps", 3),
}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Makes a cache with nothing in it."""

    def fresh(name):
        monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / name))

    return fresh


@pytest.fixture
def go(command, backbone, tmp_path):
    """`python -m harness.run` into a folder, in bf16 as most do."""

    def go(out, *more):
        words = (
            "--suite",
            "demo",
            "--backbone",
            backbone,
            "--languages",
            "en",
            "--prompt-length",
            3,
            "--max-train",
            24,
        )
        size = () if "--tokens-per-batch" in more else ("--batch", 8)
        return command(run, *words, *size, "--max-eval", 5, "--precision", "bf16", "--out", tmp_path / out, *more)

    return go


def files(folder: Path) -> dict[str, bytes]:
    """What a run found, by name."""
    found = ["results.json", "curve.json", *(path.name for path in folder.glob("*.safetensors"))]
    found += [f"predictions/{path.name}" for path in (folder / "predictions").iterdir()]
    return {name: (folder / name).read_bytes() for name in sorted(found)}


def same(first: Path, second: Path) -> None:
    one, other = files(first), files(second)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


@pytest.mark.parametrize("name", SETTINGS)
def test_seeds_are_what_they_are_alone(name, go, cache, interrupted_at, tmp_path):
    """Byte by byte: three commands, three seeds of one, and those again after Ctrl-C in the middle."""
    settings = SETTINGS[name]
    cache("cache alone")
    for seed in range(3):
        status, _, error = go("alone", *settings, "--seed", seed, "--name", f"x-s{seed}")
        assert status == 0, error
    cache("cache beside")
    status, output, error = go("beside", *settings, "--seeds", 3, "--name", "x")
    assert status == 0, error
    assert "seed 2" in output
    with interrupted_at(2):
        assert go("broken", *settings, "--seeds", 3, "--name", "x")[0] == 130
    begun = {path.parents[2] for path in (tmp_path / "broken").glob("*/checkpoints/*/last.safetensors")}
    assert len(begun) == (1 if name == "an encoder that is trained" else 3)
    assert not [folder for folder in begun if (folder / NAME).exists()], "nobody works there any more"
    status, _, error = go("broken", *settings, "--seeds", 3, "--name", "x", "--resume")
    assert status == 0, error
    for seed in range(3):
        same(tmp_path / "alone" / f"x-s{seed}", tmp_path / "beside" / f"x-s{seed}")
        same(tmp_path / "alone" / f"x-s{seed}", tmp_path / "broken" / f"x-s{seed}")
    assert any(read_model(folder / "manifest.json", Manifest).interruptions for folder in begun)
    one, other = (files(tmp_path / "beside" / f"x-s{seed}") for seed in range(2))
    assert one["heads.safetensors"] != other["heads.safetensors"]


def test_what_is_alike_is_made_once(go, cache, monkeypatch, tmp_path):
    """The encoder is loaded once, rows are read once, lower layers see each row once, and states are opened once."""
    calls: dict[str, int] = {}

    def counted(owner, name):
        what = getattr(owner, name)

        def call(*arguments, **more):
            calls[name] = calls.get(name, 0) + 1
            return what(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    counted(harness.shared, "load_backbone")
    counted(harness.shared, "load_rows")
    counted(harness.shared, "encode_training")
    counted(Backbone, "trunk")
    counted(TrunkCache, "_made")
    settings = (*TOP, "--epochs", 2, "--learning-rate", "1e-3,2e-2")
    cache("one")
    assert go("alone", *settings)[0] == 0
    alone = calls.copy()
    assert alone["load_backbone"] == alone["load_rows"] == alone["encode_training"] == 1
    assert alone["trunk"] >= alone["_made"] > 0
    calls.clear()
    cache("three")
    assert go("beside", *settings, "--seeds", 3, "--name", "x")[0] == 0
    assert calls == alone
    costs = [read_model(tmp_path / "beside" / f"x-s{seed}" / "manifest.json", Manifest) for seed in range(3)]
    assert [cost.train_memory for cost in costs] == [None] * 3, "the process's, not theirs"
    assert go("alone", *settings, "--name", "alone")[0] == 0
    assert read_model(tmp_path / "alone" / "alone" / "manifest.json", Manifest).train_memory > 0


def test_a_folder_that_is_there_is_said_before_anything_is_done(go, tmp_path):
    (tmp_path / "out" / "x-s2").mkdir(parents=True)
    (tmp_path / "out" / "x-s2" / "config.toml").write_text("")
    status, _, error = go("out", "--seeds", 3, "--name", "x")
    assert status == 2
    assert "x-s2 exists: add --resume" in error
    assert not (tmp_path / "out" / "x-s0").exists()


def test_a_seed_that_fails_leaves_the_others(go, tmp_path):
    (tmp_path / "out" / "x-s1").mkdir(parents=True)
    (tmp_path / "out" / "x-s1" / "config.toml").write_text("nonsense = [")
    words = ("--tasks", "demo-topic", "--max-steps", 2, "--seeds", 3, "--name", "x", "--resume")
    status, _, error = go("out", *words)
    assert status == 2
    assert "x-s1" in error.splitlines()[-1]
    assert "not valid TOML" in error
    assert "Traceback" not in error
    assert [(tmp_path / "out" / f"x-s{seed}" / "results.json").exists() for seed in range(3)] == [True, False, True]


def test_a_sweep_side_by_side_is_one_by_one(command, backbone, tmp_path):
    """Rates, lengths, tasks and layers; one diverges, one method trains the encoder. Then nothing is left to do."""
    found = {}
    for way, more in (("beside", ("--side-by-side", 4)), ("alone", ())):
        file = tmp_path / f"{way}.toml"
        file.write_text(
            f'backbone = "{backbone}"\nout = "{tmp_path / way}"\ncode = "x"\nsuite = ["demo"]\nlanguages = ["en"]\n'
            'max-train = 16\nmax-eval = 5\nmax-steps = 3\nbatch = 8\nprecision = "bf16"\nprompt-length = 3\n'
            '[[job]]\ntasks = ["demo-topic"]\nlearning-rate = 1e-2\n'
            '[[job]]\ntasks = ["demo-topic"]\nlearning-rate = 1e37\n'
            '[[job]]\ntasks = ["demo-topic"]\nprompt-length = 4\nprompt-layers = "top:1"\n'
            '[[job]]\ntasks = ["demo-names"]\nprompt-layers = "top:1"\nmax-steps = 5\ncheckpoint-activations = true\n'
            '[[job]]\ntasks = ["demo-answers"]\nhead = "pooler"\n'
            '[[job]]\ntasks = ["demo-topic"]\nmethod = "fine-tune"\n'
        )
        status, output, error = command(sweep, file, *more, "--json")
        assert status == 1, error
        found[way] = records = json.loads(output)
        assert [record["state"] for record in records] == ["done", "failed", *["done"] * 4]
        assert "the loss of task demo-topic is nan" in records[1]["error"]
    for one, other in zip(found["alone"], found["beside"], strict=True):
        assert one["score"] == other["score"]
        if one["state"] == "done":
            same(Path(one["folder"]), Path(other["folder"]))
    assert [record.get("memory") is None for record in found["beside"]] == [True] * 5 + [False]


@pytest.mark.parametrize("more", [("--side-by-side", 0), ("--side-by-side", 2, "--at-once", 2)])
def test_what_does_not_go_together_is_one_error(more, command, backbone, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(f'backbone = "{backbone}"\nout = "{tmp_path / "runs"}"\nsuite = ["demo"]\n')
    status, _, error = command(sweep, file, *more)
    assert status == 2
    assert f"--side-by-side {more[1]}: write a number from 1 on" in error
