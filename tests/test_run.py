"""The command `python -m harness.run` and the run folder that it leaves."""

import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import tiny_model

from benchmarks.registry import find_task
from benchmarks.results import Manifest, Results, read_model, read_predictions
from harness import rescore, run
from harness.config import before, load_config, make_config, save_config
from harness.data import load_evaluation
from harness.device import find_device
from harness.evaluate import predict
from harness.features import TextEncoder
from harness.options import command_line, parse
from harness.sharing import BARE
from harness.store import load_run

ROOT = Path(__file__).parents[1]


def small(backbone, out, *more):
    return (
        *("--suite", "demo", "--backbone", backbone, "--languages", "en,zh", "--prompt-length", 3),
        *("--max-train", 24, "--max-eval", 9, "--batch", 8, "--max-steps", 6, "--out", out, "--name", "x", *more),
    )


@pytest.fixture(scope="module")
def finished(backbone, tmp_path_factory) -> Path:
    """A run folder made by the real command in a process of its own."""
    out = tmp_path_factory.mktemp("runs")
    arguments = [sys.executable, "-m", "harness.run", *map(str, small(backbone, out))]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr, "no progress bars in a pipe"
    assert "demo-topic" in done.stdout
    return out / "x"


def test_the_run_folder_is_complete(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    predictions = {name for name in names if name.startswith("predictions/")}
    tracking = {name for name in names if name.startswith("tracking/")}
    assert any(name.startswith("tracking/events.out.tfevents") for name in tracking)
    assert names - predictions - tracking == {
        "config.toml",
        "curve.json",
        "heads.safetensors",
        "manifest.json",
        "prompt.safetensors",
        "results.json",
    }
    manifest, results = read_model(finished / "manifest.json", Manifest), read_model(finished / "results.json", Results)
    tuning = {"predictions/demo-answers.en.tuning.jsonl.gz"}  # what its threshold of no answer was chosen on
    assert {record.predictions for record in results.records} == predictions - tuning
    assert tuning < predictions
    assert manifest.thresholds.keys() == {"demo-answers"}
    assert {card.kind for card in manifest.tasks} == set(type(manifest.tasks[0].kind)), "every kind of task"
    prefix = load_file(finished / "prompt.safetensors")["prefix"]
    assert prefix.shape == (1, 3, 2, 4, 3, 8)
    heads = sum(tensor.numel() for tensor in load_file(finished / "heads.safetensors").values())
    assert manifest.trainable == prefix.numel() + heads
    weights = sum(parameter.numel() for parameter in tiny_model("bert").parameters())
    assert manifest.share == pytest.approx(100 * manifest.trainable / (weights + manifest.trainable))
    assert manifest.steps == 6
    assert manifest.limits == {"max_train": 24, "max_eval": 9, "max_steps": 6}
    assert all(record.examples == 9 and record.limited for record in results.records)
    assert all(name.startswith("generated:demo-") for name in manifest.data)


def test_the_recorded_command_repeats_the_run(finished, backbone, command, tmp_path):
    words = read_model(finished / "manifest.json", Manifest).command.split()
    assert words[:3] == ["python", "-m", "harness.run"]
    words[words.index(str(finished.parent))] = str(tmp_path)
    status, _, error = command(run, *words[3:])
    assert status == 0, error
    for name in ("prompt.safetensors", "heads.safetensors"):
        assert (tmp_path / "x" / name).read_bytes() == (finished / name).read_bytes()


def test_a_finished_run_is_not_done_again(finished, backbone, command):
    status, _, error = command(run, *small(backbone, finished.parent))
    assert status == 2
    assert "exists: add --resume" in error
    before = (finished / "prompt.safetensors").stat().st_mtime_ns
    status, output, _ = command(run, *small(backbone, finished.parent, "--resume", "--json"))
    assert status == 0
    assert json.loads(output) == json.loads((finished / "results.json").read_text())
    assert (finished / "prompt.safetensors").stat().st_mtime_ns == before
    status, _, error = command(run, *small(backbone, finished.parent, "--resume", "--seed", 7))
    assert status == 2
    assert "other settings (seed)" in error


def test_rescoring_finds_every_difference(finished, command, tmp_path):
    status, output, error = command(rescore, finished)
    assert (status, error) == (0, "")
    assert "all equal" in output
    copy = tmp_path / "copy"
    for path in finished.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(finished)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(finished)).write_bytes(path.read_bytes())
    file = copy / "predictions" / "demo-topic.en.test.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    right = sum(row["prediction"] == row["gold"] for row in rows)
    for row in rows:
        row["prediction"] = row["gold"]
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    status, output, error = command(rescore, copy)
    assert status == 1
    assert "demo-topic en test: accuracy is 100.0000" in error
    assert f"stored is {100 * right / len(rows):.4f}".rstrip("0") in error
    assert "sha256 differs" in error
    file.write_bytes(file.read_bytes()[:-20])
    status, _, error = command(rescore, copy)
    assert status == 2
    assert f"{file}:" in error


def test_predictions_hold_the_gold_of_the_benchmark(finished):
    from benchmarks.data import load
    from benchmarks.registry import find_task

    rows = read_predictions(finished / "predictions" / "demo-names.zh.test.jsonl.gz")
    gold = {example.id: example.tags for example in load(find_task("demo-names"), "test", "zh", None).examples}
    assert len(rows) == 9
    assert all(row.gold == gold[row.id] and len(row.value) == len(row.gold) for row in rows)


def test_heads_over_all_layers_are_trained_kept_and_loaded(backbone, command, tmp_path):
    more = ("--tasks", "demo-names,demo-answers,demo-topic", "--head-layers", "all", "--prompt-layers", "top:1")
    status, _, error = command(run, *small(backbone, tmp_path, *more))
    assert status == 0, error
    heads = load_file(tmp_path / "x" / "heads.safetensors")
    wide = {name for name, tensor in heads.items() if name.endswith("weight") and tensor.shape[1] == 4 * 32}
    assert wide == {"demo-names.weight", "demo-answers.weight"}
    assert heads["demo-topic.weight"].shape[1] == 32
    status, _, error = command(run, *small(backbone, tmp_path, *more, "--max-steps", 0, "--name", "untrained"))
    assert status == 0, error
    before = load_file(tmp_path / "untrained" / "heads.safetensors")
    for name in wide:  # what is read of each layer is learned
        moved = (heads[name] - before[name]).abs().reshape(len(heads[name]), 4, 32)
        assert (moved.amax(dim=(0, 2)) > 1e-4).all()
    manifest = read_model(tmp_path / "x" / "manifest.json", Manifest)
    assert manifest.prompt.endswith("; tags and answers are read from all layers")
    model, config = load_run(tmp_path / "x"), load_config(tmp_path / "x" / "config.toml")
    card, backbone = find_task("demo-names").card, model.backbone
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, model.max_positions)
    split = load_evaluation(config, find_task("demo-names"), "en")
    again = predict(model, encoder, card, split, find_device(manifest.precision))
    [path] = (tmp_path / "x" / "predictions").glob("demo-names.en.*")
    assert [row.value for row in again] == [row.value for row in read_predictions(path)]


def start(backbone, out, *more):
    arguments = [sys.executable, "-m", "harness.run", *map(str, small(backbone, out))]
    arguments[arguments.index("--max-steps") + 1] = "150"
    arguments += ["--epochs", "99", "--checkpoint-seconds", "0.02", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, f"ended before its first checkpoint: {process.stderr.read()}"
        assert time.monotonic() < end
        time.sleep(0.005)


def test_kill_and_interrupt_lose_nothing(backbone, tmp_path):
    """kill -9 in training, then Ctrl-C in training, then on to the end: the weights of an undisturbed run."""
    undisturbed = start(backbone, tmp_path / "whole")
    assert undisturbed.wait(300) == 0, undisturbed.stderr.read()

    checkpoint = tmp_path / "parts" / "x" / "checkpoints" / "rate-0.02" / "last.safetensors"
    killed = start(backbone, tmp_path / "parts")
    wait_for(checkpoint, killed)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    at_kill = checkpoint.read_bytes()

    interrupted = start(backbone, tmp_path / "parts", "--resume")
    end = time.monotonic() + 120
    while checkpoint.read_bytes() == at_kill:
        assert interrupted.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(60) == 130
    message = interrupted.stderr.read()
    assert "--resume goes on" in message
    assert "Traceback" not in message

    resumed = start(backbone, tmp_path / "parts", "--resume")
    assert resumed.wait(300) == 0, resumed.stderr.read()
    for name in ("prompt.safetensors", "heads.safetensors"):
        whole, parts = (load_file(tmp_path / folder / "x" / name) for folder in ("whole", "parts"))
        assert all((whole[key] == parts[key]).all() for key in whole), name
    manifest = read_model(tmp_path / "parts" / "x" / "manifest.json", Manifest)
    assert (manifest.steps, manifest.interruptions) == (150, 2)
    assert not checkpoint.exists(), "a finished run needs no checkpoint"


@pytest.mark.parametrize("sharing", ["specialise", "low-rank", "separate"])
def test_every_way_to_share_a_prompt(sharing, backbone, command, tmp_path):
    """From the run to predictions that are made again from what is stored."""
    status, _, error = command(run, *small(backbone, tmp_path, "--sharing", sharing, "--languages", "en"))
    assert status == 0, error
    with safe_open(tmp_path / "x" / "prompt.safetensors", framework="pt") as file:
        bank = file.get_tensor("prefix")
        named = json.loads(file.metadata()["polyprompt"])["rows"]
    trained = {"demo-topic", "demo-count", "demo-choice", "demo-names", "demo-answers"}
    assert trained | {"demo-translation"} == named.keys()
    assert named["demo-translation"] == BARE
    assert len(bank) == len(trained)
    assert not torch.equal(bank[named["demo-topic"]], bank[named["demo-names"]])
    manifest = read_model(tmp_path / "x" / "manifest.json", Manifest)
    assert manifest.prompt.endswith(sharing)
    model, card = load_run(tmp_path / "x"), next(card for card in manifest.tasks if card.name == "demo-topic")
    stored = read_predictions(tmp_path / "x" / "predictions" / "demo-topic.en.test.jsonl.gz")
    encoder = TextEncoder(
        model.backbone.tokenizer, model.backbone.pad_id, model.backbone.token_types, model.backbone.max_positions
    )
    split = load_evaluation(load_config(tmp_path / "x" / "config.toml"), find_task("demo-topic"), "en")
    again = predict(model, encoder, card, split, find_device(manifest.precision))
    assert [row.value for row in again] == [row.value for row in stored]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--suite: name at least one suite"),
        (("--suite", "glu"), "did you mean 'glue'"),
        (("--suite", "glue", "--tasks", "stbs"), "did you mean 'stsb'"),
        (("--suite", "glue", "--tasks", "copa"), "belongs to suite superglue"),
        (("--suite", "demo", "--languages", "xx"), "--languages xx: no chosen task has it; there are ar, de"),
        (("--suite", "demo", "--method", "magic"), "choose one of ptuning-v2"),
        (("--suite", "demo", "--batch", "0"), "--batch '0'"),
        (("--suite", "demo", "--tokens-per-batch", "0"), "--tokens-per-batch '0'"),
        (
            ("--suite", "demo", "--batch", "8", "--tokens-per-batch", "99"),
            "line: --batch and --tokens-per-batch both say",
        ),
        (("--suite", "demo", "--init", "ones"), "--init 'ones'"),
        (("--suite", "demo", "--prompt-layers", "9"), "is no layer of this backbone"),
        (("--suite", "demo", "--files", "x"), "write TASK.SPLIT=FILE"),
        (("--suite", "demo", "--name", "../x"), "--name '../x'"),
        (("--suite", "demo", "--config", "none.toml"), "none.toml: cannot be read"),
        (("--suite", "glue", "--data-dir", "."), "--skip-missing goes on without what is missing"),
    ],
)
def test_a_bad_request_gets_one_clear_error(arguments, message, backbone, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--backbone" not in arguments:
        arguments = (*arguments, "--backbone", backbone)
    status, output, error = command(run, *arguments)
    assert status == 2
    assert output == ""
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_settings_come_from_file_and_command_line(backbone, command, tmp_path):
    file = tmp_path / "mine.toml"
    chosen = 'suite = ["demo"]\nlanguages = ["en"]\ntasks = ["demo-topic"]\n'
    file.write_text(chosen + "max-steps = 2\nbatch = 5\nseed = 4\n")
    options = ("--config", file, "--backbone", backbone, "--seed", 6, "--max-train", 10, "--out", tmp_path)
    status, _, error = command(run, *options, "--name", "y", "--method", "linear-probe")
    assert status == 0, error
    manifest = read_model(tmp_path / "y" / "manifest.json", Manifest)
    assert (manifest.seed, manifest.steps, manifest.examples_seen, manifest.method) == (6, 2, 10, "linear-probe")
    assert not (tmp_path / "y" / "prompt.safetensors").exists()
    file.write_text("batchs = 5\n")
    status, _, error = command(run, *options)
    assert status == 2
    assert "mine.toml: batchs is no setting; known are suite, tasks" in error
    file.write_text("batch = \n")
    status, _, error = command(run, *options)
    assert status == 2
    assert "mine.toml: not valid TOML" in error


def test_missing_files_are_named_all_at_once(backbone, command, tmp_path):
    data = tmp_path / "data" / "glue" / "RTE"
    data.mkdir(parents=True)
    header, row = "index\tsentence1\tsentence2\tlabel\n", "0\tw7 w8\tw9\tentailment\n"
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text(header + row)
    options = ("--suite", "glue", "--data-dir", tmp_path / "data", "--backbone", backbone, "--out", tmp_path)
    status, _, error = command(run, *options)
    assert status == 2
    for name in ("SST-2/train.tsv", "STS-B/train.tsv", "--skip-missing"):
        assert name in error
    assert "RTE/train.tsv" not in error
    status, output, error = command(run, *options, "--skip-missing", "--name", "z", "--json")
    assert status == 0, error
    assert [record["task"] for record in json.loads(output)["records"]] == ["rte"]
    manifest = read_model(tmp_path / "z" / "manifest.json", Manifest)
    assert list(manifest.data) == ["glue/RTE/train.tsv", "glue/RTE/dev.tsv"]
    (data / "train.tsv").write_text(header + row + "1\tw7\n")
    status, _, error = command(run, *options, "--skip-missing", "--name", "w")
    assert status == 2
    assert "train.tsv:3:" in error


def test_the_list_shows_what_is_there(command, tmp_path):
    status, output, _ = command(run, "--list", "--json", "--data-dir", tmp_path)
    assert status == 0
    records = json.loads(output)
    assert {"glue", "superglue", "conll", "squad", "xtreme", "demo"} <= {record["suite"] for record in records}
    sst2 = next(record for record in records if record["task"] == "sst2")
    assert sst2["files"] and not any(file["found"] for file in sst2["files"])
    status, output, _ = command(run, "--list")
    assert status == 0
    assert "udpos" in output


def test_the_size_of_a_batch_is_said_in_one_of_two_ways(tmp_path):
    plain, budget = make_config({}, "here"), make_config({"tokens_per_batch": 512}, "here")
    assert (plain.batch, plain.tokens_per_batch, budget.batch, budget.tokens_per_batch) == (32, None, None, 512)
    assert plain.identity != budget.identity != make_config({"tokens_per_batch": 513}, "here").identity
    save_config(budget, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == budget
    words = shlex.split(command_line(budget))[3:]
    assert make_config(parse(words)[1], "here") == budget
    # What comes later goes before, whichever way it is said: a preset or a file may have the other one.
    assert before({"batch": 8, "seed": 1}, {"tokens_per_batch": 512}) == {"seed": 1, "tokens_per_batch": 512}
    assert before({"tokens_per_batch": 512}, {"batch": 8}) == {"batch": 8}
    assert before({"batch": 8}, {"seed": 1}) == {"batch": 8, "seed": 1}
