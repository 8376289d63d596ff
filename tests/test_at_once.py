"""Several runs at a time: each as it would be alone, whatever becomes of the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.results import Manifest, read_model
from harness import run, sweep
from harness.at_once import DIED, TRIES, at_once
from harness.config import RunConfig
from harness.store import PROMPT

ROOT = Path(__file__).parents[1]


@pytest.fixture
def options(backbone, tmp_path):
    words = ("--suite", "demo", "--backbone", backbone, "--languages", "en", "--prompt-length", 3, "--batch", 8)
    return (*words, "--max-train", 16, "--max-eval", 6, "--prompt-layers", "top:2", "--out", tmp_path)


def work(config: RunConfig) -> tuple[str, str]:
    """Says who did it with how many threads; dies as often as the run's folder says."""
    place = config.out / f"{config.seed}"
    tries = len(place.read_text()) if place.exists() else 0
    if config.seed and tries < config.seed:
        place.write_text("x" * (tries + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 0:
        raise ValueError("a mistake\nof ours")
    return "done", f"{config.seed} {torch.get_num_threads()} {os.getpgrp() == os.getpid()}"


def test_a_process_that_dies_is_started_again(tmp_path):
    configs = [RunConfig(suite=["demo"], seed=seed, out=tmp_path) for seed in (1, TRIES, 2, 0)]
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    found = dict(at_once(configs, 2, work))
    assert found[0] == ("done", f"1 {threads} True")
    assert found[2] == ("done", f"2 {threads} True")
    assert found[1] == (DIED, f"its process ended {TRIES} times without a word (exit status -9)")
    assert found[3] == (DIED, "ValueError: a mistake of ours")
    assert len((tmp_path / f"{TRIES}").read_text()) == TRIES


def test_seeds_are_what_they_are_alone(command, options, tmp_path):
    """Bit by bit: three at a time beside one by one in this process, on one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in range(3):
            assert command(run, *options, "--max-steps", 5, "--seed", seed, "--name", f"alone-s{seed}")[0] == 0
    finally:
        torch.set_num_threads(before)
    cores = len(os.sched_getaffinity(0))
    status, output, error = command(run, *options, "--max-steps", 5, "--seeds", 3, "--at-once", cores, "--name", "x")
    assert status == 0, error
    assert "seed 2" in output
    for seed in range(3):
        alone, other = ((tmp_path / f"{name}-s{seed}") for name in ("alone", "x"))
        assert (alone / PROMPT).read_bytes() == (other / PROMPT).read_bytes()
        for file in (alone / "predictions").iterdir():
            assert file.read_bytes() == (other / "predictions" / file.name).read_bytes()
    assert (tmp_path / "x-s0" / PROMPT).read_bytes() != (tmp_path / "x-s1" / PROMPT).read_bytes()

    status, _, error = command(run, *options, "--max-steps", 5, "--seeds", 3, "--at-once", 2, "--name", "x")
    assert status == 2
    assert "x-s0 exists: add --resume" in error


def test_one_that_fails_leaves_the_others(command, options, tmp_path):
    (tmp_path / "x-s1").mkdir()
    (tmp_path / "x-s1" / "config.toml").write_text("nonsense = [")
    words = ("--max-steps", 2, "--seeds", 3, "--at-once", 2, "--name", "x", "--resume")
    status, _, error = command(run, *options, *words)
    assert status == 2
    assert "x-s1" in error.splitlines()[-1]
    assert "not valid TOML" in error
    assert "Traceback" not in error
    assert [(tmp_path / f"x-s{seed}" / "results.json").exists() for seed in range(3)] == [True, False, True]


def test_a_sweep_does_several_at_once(command, backbone, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(
        f'backbone = "{backbone}"\nout = "{tmp_path / "runs"}"\ncode = "x"\nsuite = ["demo"]\nlanguages = ["en"]\n'
        'tasks = ["demo-topic"]\nprompt-length = 3\nmax-train = 16\nmax-eval = 5\nmax-steps = 2\nseeds = 3\n'
    )
    status, output, error = command(sweep, file, "--at-once", 2)
    assert status == 0, error
    assert "3 done" in output
    assert "3 skipped" in command(sweep, file, "--at-once", 2)[1]
    assert command(sweep, file, "--at-once", 0)[0] == 2
    starts = [(folder / "starts.log").read_text().splitlines() for folder in (tmp_path / "runs").iterdir()]
    assert [len(lines) for lines in starts] == [1, 1, 1]
    assert len({line.split()[-1] for lines in starts for line in lines}) == 3, "a process each"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_all_with_their_checkpoints(number, command, options, tmp_path):
    words = [*options, "--max-steps", 3000, "--seeds", 2, "--at-once", 2, "--name", "x", "--checkpoint-seconds", 0.2]
    words += ["--selection", "last"]
    program = [sys.executable, "-m", "harness.run", *map(str, words)]
    process = subprocess.Popen(
        program,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )
    saved = [next_checkpoint(tmp_path / f"x-s{seed}", process) for seed in range(2)]
    process.send_signal(number)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130, said
    assert "--resume goes on" in said
    assert "Traceback" not in said
    assert all(path.exists() for path in saved)
    assert not any((tmp_path / f"x-s{seed}" / "results.json").exists() for seed in range(2))
    assert not any((tmp_path / f"x-s{seed}" / ".lock").exists() for seed in range(2)), "nobody works there any more"
    assert command(run, *words, "--resume")[0] == 0
    assert read_model(tmp_path / "x-s1" / "manifest.json", Manifest).interruptions == 1


def next_checkpoint(folder, process):
    path = folder / "checkpoints" / "rate-0.02" / "last.safetensors"
    end = time.monotonic() + 180
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    return path
