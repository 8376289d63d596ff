"""Several processes are one run: their parts, who writes and speaks, what they make together, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ranks import FAREWELL, Ranks, Started
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer
from transformers import BertConfig, BertModel

from benchmarks.results import Manifest, read_model, read_predictions

ROOT = Path(__file__).parents[1]
FREE = ("demo-choice.bias", "demo-answers.bias", "attention.self.key.bias")
"""What is added to all logits of a softmax: its gradient is rounding alone, which AdamW makes as large as any other."""


def slow(*settings: object) -> object:
    return pytest.param(settings, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def ranks(cache_folder: Path) -> Iterator[Ranks]:
    server = Ranks()
    yield server
    server.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder without dropout: masks of a trained one depend on which rows are computed together."""
    folder = tmp_path_factory.mktemp("calm")
    model = tiny_model("bert")
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(folder)
    tiny_tokenizer("bert").save(str(folder / "tokenizer.json"))
    return folder


def options(backbone: Path, out: Path, *more: object) -> tuple[object, ...]:
    """Every kind of task; a batch of 7 has no equal halves."""
    size = () if "--tokens-per-batch" in more else ("--batch", 7)
    return (
        *("--suite", "demo", "--backbone", backbone, "--languages", "en,zh", "--precision", "fp32", "--out", out),
        *("--prompt-length", 3, "--max-train", 24, "--max-eval", 9, *size, "--max-steps", 12, "--epochs", 9),
        *("--name", "x", "--inference", "own", *more),  # trials of another engine would be counted too
    )


@dataclass(frozen=True)
class Pair:
    """Run folders of one process and of two, and those processes."""

    one: Path
    two: Path
    alone: Started
    both: Started


@pytest.fixture(scope="module")
def pair(ranks: Ranks, calm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    made: dict[tuple[object, ...], Pair] = {}

    def run(*more: object) -> Pair:
        if more not in made:
            folder = tmp_path_factory.mktemp("pair")
            alone = ranks.start(folder / "alone", *options(calm, folder / "one", *more), world=1)
            assert alone.wait() == [0], alone.output(0)
            both = ranks.start(folder / "both", *options(calm, folder / "two", *more))
            assert both.wait() == [0, 0], both.output(0) + both.output(1)
            made[more] = Pair(folder / "one" / "x", folder / "two" / "x", alone, both)
        return made[more]

    return run


def trained(run: Path) -> dict[str, torch.Tensor]:
    files = [run / name for name in ("prompt.safetensors", "heads.safetensors", "backbone.safetensors")]
    return {name: weight for file in files if file.exists() for name, weight in load_file(file).items()}


def close(one: Path, other: Path, within: float) -> None:
    first, second = trained(one), trained(other)
    assert first.keys() == second.keys()
    distances = {name: float((second[name] - weight).abs().max()) for name, weight in first.items()}
    assert {name: far for name, far in distances.items() if far > within and not name.endswith(FREE)} == {}


def same_answers(one: Path, other: Path) -> None:
    files = {path.name for path in (one / "predictions").iterdir()}
    assert files == {path.name for path in (other / "predictions").iterdir()}
    for file in files:
        for first, second in zip(*(read_predictions(run / "predictions" / file) for run in (one, other)), strict=True):
            assert second.scores == pytest.approx(first.scores, abs=1e-4)
            if "translation" not in file:  # to this vocabulary most candidates read alike, so that rounding chooses
                near = isinstance(first.value, float)
                assert second.value == (pytest.approx(first.value, abs=1e-4) if near else first.value), (file, first.id)


def only_the_first_spoke(both: Started, run: Path) -> None:
    output, said = both.output(0)
    assert output.count("run folder:") == said.count("parameters trained") == 1
    assert both.output(1) == ("", "")
    assert both.notes(1)["written"] == [os.devnull]
    assert str(run) in both.notes(0)["written"]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("--method", "fine-tune"),
        ("--prompt-dropout", 0.3, "--micro-batch", 2, "--decay", "exponential", "--learning-rate", 5e-3),
        slow("--tokens-per-batch", 300),
        slow("--batch", 1, "--sharing", "separate", "--max-steps", 5),
        ("--sharing", "low-rank", "--train-languages", "en,de", "--tasks", "demo-topic,demo-names", "--max-steps", 8),
    ],
    ids=["ptuning-v2", "fine-tune", "dropout", "a budget", "a row for two", "languages"],
)
def test_two_processes_end_where_one_ends(settings, pair):
    made = pair(*settings)
    close(made.one, made.two, 1e-5)
    same_answers(made.one, made.two)
    only_the_first_spoke(made.both, made.two)
    first, second = (read_model(run / "manifest.json", Manifest) for run in (made.one, made.two))
    assert (first.steps, first.examples_seen, first.trainable) == (second.steps, second.examples_seen, second.trainable)
    curves = [json.loads((run / "curve.json").read_text()) for run in (made.one, made.two)]
    assert curves[1] == [pytest.approx(point, abs=1e-4) for point in curves[0]]
    assert second.processor == f"{first.processor}, 2 processes"
    assert second.command.startswith("torchrun --nproc-per-node 2 -m harness.run ")


def test_each_process_computes_its_part(pair):
    made = pair()
    alone, first, second = made.alone.notes(0), made.both.notes(0), made.both.notes(1)
    for rows in ("trained rows", "evaluated rows"):
        assert first[rows] + second[rows] == alone[rows]
    assert 0.3 < second["trained rows"] / alone["trained rows"] < 0.5, "3 of each 7 examples"
    assert second["evaluated rows"] > 0


def test_evaluation_in_parts_gives_the_same_bytes(pair, ranks, tmp_path):
    """The whole reported split of every task, from the weights of one run."""
    stored = tmp_path / "stored"
    shutil.copytree(pair().one, stored)
    config = (stored / "config.toml").read_text()
    (stored / "config.toml").write_text(config.replace("max_eval = 9\n", ""))
    alone = ranks.start(tmp_path / "alone", stored, tmp_path / "one", world=1, command="evaluate")
    both = ranks.start(tmp_path / "both", stored, tmp_path / "two", command="evaluate")
    assert (alone.wait(), both.wait()) == ([0], [0, 0])
    rows = [both.notes(rank)["evaluated rows"] for rank in (0, 1)]
    assert sum(rows) == alone.notes(0)["evaluated rows"]
    assert min(rows) > 0.2 * sum(rows)
    files = sorted((tmp_path / "one" / "predictions").iterdir())
    assert len(files) == 12
    for file in files:
        assert (tmp_path / "two" / "predictions" / file.name).read_bytes() == file.read_bytes()


def test_dropout_in_a_trained_encoder_differs_between_processes(pair, ranks, backbone, tmp_path):
    seeds = [pair().both.notes(rank)["seeds"] for rank in (0, 1)]
    assert seeds[0] == seeds[1], "a batch has one prompt"
    tuned = ranks.start(tmp_path / "notes", *options(backbone, tmp_path, "--method", "fine-tune", "--max-steps", 4))
    assert tuned.wait() == [0, 0]
    first, second = (tuned.notes(rank)["seeds"] for rank in (0, 1))
    assert len(first) == len(second) == 4
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    "settings",
    [(), slow("--batch", 3, "--micro-batch", 1, "--checkpoint-activations"), slow("--method", "prompt-tuning")],
    ids=["plain", "unequal passes", "input"],
)
def test_a_sharded_backbone_gives_the_same(settings, pair, ranks, calm, tmp_path):
    settings = (*settings, "--engine", "transformers")  # which alone can gather the weights of a layer
    whole = pair(*settings)
    shared = ranks.start(tmp_path / "notes", *options(calm, tmp_path, "--shard-backbone", *settings))
    assert shared.wait() == [0, 0], shared.output(0) + shared.output(1)
    close(whole.two, tmp_path / "x", 1e-6)
    same_answers(whole.two, tmp_path / "x")
    only_the_first_spoke(shared, tmp_path / "x")
    total = whole.both.notes(0)["held"][-1]
    for rank in (0, 1):
        *inside, afterwards = shared.notes(rank)["held"]
        assert afterwards == pytest.approx(total / 2, rel=0.02)
        assert total / 2 < max(inside) < 0.75 * total, "one layer's weights are together while it computes"


def test_no_process_ever_has_all_weights_for_itself(ranks, tmp_path):
    """Weights are read from a file that is mapped into memory: the kernel has its pages once for all processes."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
    model = BertModel(BertConfig(**shape, vocab_size=60, max_position_embeddings=40), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "large")
    tiny_tokenizer("bert").save(str(tmp_path / "large" / "tokenizer.json"))
    total = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20
    assert total > 70
    both = ranks.start(tmp_path, tmp_path / "large", tmp_path, command="divide")
    assert both.wait() == [0, 0], both.output(0) + both.output(1)
    for rank in (0, 1):
        loaded, divided = json.loads((tmp_path / f"{rank}.memory").read_text())
        assert loaded < 0.2 * total
        assert 0.4 * total < divided < 0.7 * total


def test_accelerate_asks_for_a_sharded_backbone(pair, ranks, calm, tmp_path):
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_SYNC_MODULE_STATES": "true"}  # as `accelerate launch --use_fsdp` does
    shared = ranks.start(tmp_path / "notes", *options(calm, tmp_path, "--max-steps", 2), environment=asked)
    assert shared.wait() == [0, 0], shared.output(0) + shared.output(1)
    total = pair().both.notes(0)["held"][-1]
    assert [shared.notes(rank)["held"][-1] for rank in (0, 1)] == pytest.approx([total / 2] * 2, rel=0.02)


def test_accelerate_that_starts_one_of_several_is_told_of(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    run = ["-m", "harness.run", "--list", "--json"]
    done = subprocess.run([*command, *run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines() if line.startswith("error: accelerate launch was asked for")]
    assert len(told) == 1
    assert "`accelerate launch --multi_gpu --num_processes N -m harness.run ...`" in told[0]
    command[-1] = "1"
    done = subprocess.run([*command, *run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("world", "settings", "message"),
    [(1, (), "this process is alone"), (2, ("--method", "fine-tune"), "only a frozen backbone")],
)
def test_what_cannot_be_sharded_is_refused(world, settings, message, ranks, calm, tmp_path):
    refused = ranks.start(tmp_path / "notes", *options(calm, tmp_path, "--shard-backbone", *settings), world=world)
    assert refused.wait() == [2] * world
    said = [refused.output(rank)[1] for rank in range(world)]
    assert sum("error: --shard-backbone" in text and message in text for text in said) == 1


def start_long(ranks: Ranks, backbone: Path, out: Path, notes: Path, *more: object) -> Started:
    steps = ("--max-steps", 100, "--epochs", 99, "--checkpoint-seconds", 0.02)
    return ranks.start(notes, *options(backbone, out, *steps, "--tasks", "demo-topic,demo-names", *more))


def wait_for_change(path: Path, before: bytes) -> None:
    end = time.monotonic() + 60
    while not path.exists() or path.read_bytes() == before:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_process_that_ends_is_missed_and_nothing_is_lost(ranks, backbone, tmp_path):
    """kill -9 of the second process, then of the first, then Ctrl-C for one of them, then on to the end."""
    whole = start_long(ranks, backbone, tmp_path / "whole", tmp_path / "n")
    assert whole.wait() == [0, 0]

    checkpoint = tmp_path / "parts" / "x" / "checkpoints" / "rate-0.02" / "last.safetensors"
    for number, (rank, sent, statuses) in enumerate(
        [(1, signal.SIGKILL, [2, -9]), (0, signal.SIGKILL, [-9, 2]), (1, signal.SIGINT, [130, 130])]
    ):
        before = checkpoint.read_bytes() if checkpoint.exists() else b""
        run = start_long(ranks, backbone, tmp_path / "parts", tmp_path / str(number), "--resume")
        wait_for_change(checkpoint, before)
        os.kill(run.pids[rank], sent)
        began = time.monotonic()
        assert run.wait() == statuses
        assert time.monotonic() - began < 20
        said = "".join(run.output(rank)[1] for rank in (0, 1))
        if sent == signal.SIGKILL:
            assert said.count("error: another of the processes that work together ended") == 1
        else:
            assert said.count("interrupted; what was computed is in") == 1
        assert said.count("--resume goes on") == 1
        assert "Traceback" not in said
        assert checkpoint.exists()

    resumed = start_long(ranks, backbone, tmp_path / "parts", tmp_path / "end", "--resume")
    assert resumed.wait() == [0, 0]
    close(tmp_path / "whole" / "x", tmp_path / "parts" / "x", 0)
    manifest = read_model(tmp_path / "parts" / "x" / "manifest.json", Manifest)
    assert (manifest.steps, manifest.interruptions) == (100, 3)


@pytest.mark.parametrize(
    ("act", "settings", "message"),
    [
        ("", ("--suite", "none"), "error: unknown suite 'none'"),
        ("the first fails", (), "error: nothing left on this machine"),
        ("the second fails", (), "error: nothing left on this machine"),
        ("stick", (), "error: another of the processes that work together ended or does not answer (Timed out"),
    ],
    ids=["all", "the first", "the second", "one is stuck"],
)
def test_an_error_is_said_once_and_ends_all(act, settings, message, ranks, backbone, tmp_path):
    run = ranks.start(tmp_path / "notes", *options(backbone, tmp_path, *settings), act=act)
    if act == "stick":
        while message not in run.output(0)[1]:
            time.sleep(0.05)
        os.kill(run.pids[1], signal.SIGKILL)
    began = time.monotonic()
    assert run.wait() == [2, -9 if act == "stick" else 2]
    said = "".join(run.output(rank)[1] for rank in (0, 1))
    assert said.count("error: ") == said.count(message) == 1
    assert "Traceback" not in said
    assert time.monotonic() - began < FAREWELL, "one waited for the other in vain"


def test_a_finished_run_is_shown_by_one_process(pair, ranks, calm):
    made = pair()
    again = ranks.start(made.two.parent / "again", *options(calm, made.two.parent, "--resume", "--json"))
    assert again.wait() == [0, 0]
    assert json.loads(again.output(0)[0]) == json.loads((made.two / "results.json").read_text())
    assert again.output(1) == ("", "")
    refused = ranks.start(made.two.parent / "refused", *options(calm, made.two.parent))
    assert refused.wait() == [2, 2]
    assert sum("exists: add --resume" in refused.output(rank)[1] for rank in (0, 1)) == 1


@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc-per-node", "2"),
        slow("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),  # starts them without a GPU too
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_launchers(launcher, pair, calm, tmp_path):
    command = [sys.executable, "-m", *launcher, "-m", "harness.run", *map(str, options(calm, tmp_path))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == 1
    assert done.stderr.count("parameters trained") == 1
    for name in ("prompt.safetensors", "heads.safetensors"):
        assert (tmp_path / "x" / name).read_bytes() == (pair().two / name).read_bytes()
