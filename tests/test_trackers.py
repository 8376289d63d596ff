"""What a tracker is told: TensorBoard's own reader beside the files of the run; and trackers that fail."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import accelerate.tracking
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import prepare

import harness.learn
from benchmarks.results import Manifest, read_model
from harness import rescore, run
from harness.config import RunConfig, load_config, make_config
from harness.options import command_line, parse
from harness.screen import Screen
from harness.tracking import Tracker, TrackerName
from harness.train import CURVE_STEPS
from leaderboard import build
from leaderboard.runs import collect_runs

SMALL = ("--languages", "en", "--max-train", 40, "--max-eval", 9, "--batch", 8, "--epochs", 9, "--name", "x")


@pytest.fixture
def go(tiny_run, tmp_path):
    """A small run, left in `tmp_path / "x"`."""

    def call(*more, tasks="demo-topic,demo-count"):
        return tiny_run(*SMALL, "--tasks", tasks, "--max-steps", 45, "--out", tmp_path, *more)

    return call


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard shows them."""
    events = EventAccumulator(str(folder / "tracking"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def close(points):
    """TensorBoard keeps 32 bits of a number."""
    return [(step, pytest.approx(value, rel=1e-5, abs=1e-6)) for step, value in points]


def test_tensorboard_shows_what_the_run_folder_holds(go, tmp_path, command):
    status, output, error = go("--json")
    assert status == 0, error
    results, found = json.loads(output), shown(tmp_path / "x")  # fails unless stdout is JSON alone
    curve = json.loads((tmp_path / "x" / "curve.json").read_text())
    assert [point["step"] for point in curve] == [20, 40, 45]
    manifest = read_model(tmp_path / "x" / "manifest.json", Manifest)
    expected = {
        "train/loss": [(point["step"], point["loss"]) for point in curve],
        "train/right": [(point["step"], point["right"]) for point in curve],
        # Linear to zero: before the last of 45 steps 1 / 45 is left.
        "train/learning_rate": [(step, 0.02 * (1 - (step - 1) / 45)) for step in (20, 40, 45)],
        "select/score": manifest.selection.measured["0.02"],
        "train/seconds": [(45, pytest.approx(manifest.train_seconds, abs=0.006))],
    }
    for record in results["records"]:
        for metric, value in record["scores"].items():
            tag = f"score/{record['task']}.{record['language']}.{record['split']}.{metric}"
            expected[tag] = [(45, value)]
    assert expected["select/score"] and len(expected) > 7
    seconds = expected.pop("train/seconds")
    assert found.pop("train/seconds") == seconds
    assert found == {tag: close(points) for tag, points in expected.items()}

    assert command(rescore, tmp_path / "x")[0] == 0
    status, _, error = command(build, tmp_path / "x", "--out", tmp_path / "site")
    assert status == 0, error
    [one] = collect_runs([tmp_path / "x"], [], pytest.fail)
    other = replace(one, config=one.config.replace('tracker = "auto"', 'tracker = "wandb"'))
    assert other.config != one.config and other.configuration == one.configuration
    status, output, error = go("--resume", "--json", "--tracker", "none")
    assert (status, json.loads(output)) == (0, results), error
    assert "is complete" in error


def test_steps_go_on_over_rates_and_phases(go, tmp_path):
    status, _, error = go("--learning-rate", "1e-3,2e-2", "--sharing", "specialise", "--max-steps", 25)
    assert status == 0, error
    found = shown(tmp_path / "x")
    for rate, before in (("0.001", 0), ("0.02", 50)):
        points = found[f"rate-{rate}/train/loss"]
        assert [step - before for step, _ in points] == [20, 25, 45, 50]
        rates = [value / float(rate) for _, value in found[f"rate-{rate}/train/learning_rate"]]
        assert rates == pytest.approx([1 - 19 / 25, 1 / 25, 1 - 19 / 25, 1 / 25], rel=1e-4)
        measured = read_model(tmp_path / "x" / "manifest.json", Manifest).selection.measured[rate]
        assert found[f"rate-{rate}/select/score"] == close([(before + step, score) for step, score in measured])
    assert "train/loss" not in found
    assert found["train/seconds"][0][0] == 100


def test_no_share_of_right_answers_where_there_is_none(go, tmp_path):
    status, _, error = go("--max-steps", 20, tasks="demo-count")
    assert status == 0, error
    found = shown(tmp_path / "x")
    assert "train/loss" in found and "train/right" not in found


def test_a_resumed_run_goes_on_in_tensorboard(go, tmp_path, monkeypatch):
    """Broken off at step 63 by a fault, with a checkpoint of step 30: what it told after that is told again, once."""
    train = harness.learn.train_by_steps
    kept = tmp_path / "x" / "checkpoints" / "rate-0.02" / "last.safetensors"
    at: dict[int, bytes] = {}

    def broken(*arguments, **more):
        def on_step(step):
            if step == 31:
                at[30] = kept.read_bytes()
            if step == 63:
                raise RuntimeError("broken off")

        return train(*arguments, on_step=on_step, **more)

    more = ("--max-steps", 100, "--epochs", 99, "--checkpoint-seconds", 1e-9)
    monkeypatch.setattr(harness.learn, "train_by_steps", broken)
    with pytest.raises(RuntimeError, match="broken off"):
        go(*more)
    assert [step for step, _ in shown(tmp_path / "x")["train/loss"]] == [20, 40, 60], "closed, though it failed"
    kept.write_bytes(at[30])
    monkeypatch.setattr(harness.learn, "train_by_steps", train)
    status, _, error = go(*more, "--resume")
    assert status == 0, error
    curve = json.loads((tmp_path / "x" / "curve.json").read_text())
    assert [point["step"] for point in curve] == [20, 40, 60, 80, 100]
    found = shown(tmp_path / "x")
    assert found["train/loss"] == close([(point["step"], point["loss"]) for point in curve])
    measured = read_model(tmp_path / "x" / "manifest.json", Manifest).selection.measured["0.02"]
    assert found["select/score"] == close(measured)
    assert len(list((tmp_path / "x" / "tracking").rglob("hparams.yml"))) == 1, "settings are told once"


def test_training_tells_where_it_goes_on_and_nothing_when_it_is_over(tmp_path):
    told: list[tuple[int, tuple[str, ...]]] = []

    def report(values, step):
        told.append((step, tuple(values)))

    _, _, _, go = prepare("linear-probe", tmp_path, max_steps=CURVE_STEPS + 2)
    go(report=report)
    point = ("train/loss", "train/right", "train/learning_rate")
    assert told == [(0, ()), (CURVE_STEPS, point), (CURVE_STEPS + 2, point)]
    told.clear()
    go(report=report)
    assert told == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_sentence(name, go, tmp_path, monkeypatch):
    for module in (name, "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr("torch.utils.tensorboard", raising=False)  # where another test imported it
    status, output, error = go("--tracker", name, "--json", "--max-steps", 20)
    assert status == 0, error
    json.loads(output)
    assert error.count("the run goes on without it") == 1
    assert f"--tracker {name}: not installed; pip install {name}; the run goes on without it\n" in error
    assert "Traceback" not in error
    assert load_config(tmp_path / "x" / "config.toml").tracker == name


def test_no_tracker_by_default_without_tensorboard(go, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.tracking.find_spec", lambda name: None)
    status, _, error = go("--max-steps", 20)
    assert status == 0, error
    assert "--tracker" not in error
    assert not (tmp_path / "x" / "tracking").exists()


class Fake(accelerate.tracking.GeneralTracker):
    """Notes what it is told, prints like some trackers do, and may raise."""

    name, requires_logging_directory, tracker = "fake", False, SimpleNamespace(id="known-as")
    raises: str | None = None

    def __init__(self, *arguments, **options):
        self.calls = [("made", options)]
        made.append(self)

    def _note(self, name, *what):
        print(f"fake: {name}")
        self.calls.append((name, *what))
        if name == self.raises:
            raise ValueError("quota\nis used up")

    def start(self):
        self._note("start")

    def store_init_configuration(self, values):
        self._note("settings", values)

    def log(self, values, step=None):
        self._note("log", values, step)

    def finish(self):
        self._note("finish")


made: list[Fake] = []


@pytest.fixture
def fake(monkeypatch):
    made.clear()
    monkeypatch.setattr(accelerate.tracking, "WandBTracker", Fake)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setattr(Fake, "raises", None)
    return made


@pytest.mark.parametrize("where", ["start", "settings", "log", "finish"])
def test_a_tracker_that_fails_is_one_sentence(where, go, tmp_path, fake, monkeypatch):
    monkeypatch.setattr(Fake, "raises", where)
    status, output, error = go("--tracker", "wandb", "--json", "--max-steps", 20)
    assert status == 0, error
    assert json.loads(output) == json.loads((tmp_path / "x" / "results.json").read_text())
    assert error.count("--tracker wandb: quota is used up; the run goes on without it") == 1
    [tracker] = fake
    names = [name for name, *_ in tracker.calls]
    assert names.count(where) == 1, "not asked again"
    assert names[-1] == "finish", "what it holds is let go"


def test_a_run_is_closed_when_interrupted_and_goes_on_under_its_name(go, tmp_path, fake, monkeypatch):
    train = harness.learn.train_by_steps
    monkeypatch.setattr(
        harness.learn,
        "train_by_steps",
        lambda *arguments, **more: train(
            *arguments, **more, on_step=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 24 else None
        ),
    )
    assert go("--tracker", "wandb")[0] == 130
    monkeypatch.setattr(harness.learn, "train_by_steps", train)
    status, _, error = go("--tracker", "wandb", "--resume")
    assert status == 0, error
    first, second = fake
    assert first.calls[-1] == second.calls[-1] == ("finish",)
    assert first.calls[0][1] == {"name": "x", "dir": str(tmp_path / "x" / "tracking")}
    assert second.calls[0][1] == first.calls[0][1] | {"id": "known-as", "resume": "allow"}
    [(_, settings)] = [call for call in first.calls if call[0] == "settings"]
    assert settings["max_steps"] == 45
    assert json.loads(settings["tasks"]) == ["demo-topic", "demo-count"]
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())
    assert not [call for call in second.calls if call[0] == "settings"]
    losses = [[call[2] for call in one.calls if call[0] == "log" and "train/loss" in call[1]] for one in fake]
    assert losses == [[20], [40, 45]]


def test_only_the_first_process_has_a_tracker(go, fake, monkeypatch):
    monkeypatch.setattr("harness.device.Device.leads", property(lambda self: False))
    status, _, error = go("--tracker", "wandb", "--max-steps", 2, "--selection", "last")
    assert (status, fake) == (0, []), error


def test_mlflow_and_trackio_are_left_as_they_were_found(tmp_path, monkeypatch):
    """A second run of a process has a database of its own; trackio does not finish a run again when Python ends."""
    places, finished = [], []
    mlflow = SimpleNamespace(set_tracking_uri=places.append)
    trackio = SimpleNamespace(finish=lambda: finished.append(True))
    tracker = SimpleNamespace(info=SimpleNamespace(run_id="1"), name="x")
    monkeypatch.setattr(Fake, "tracker", tracker)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, module, kind in (("mlflow", mlflow, "MLflowTracker"), ("trackio", trackio, "TrackioTracker")):
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(accelerate.tracking, kind, Fake)
        shower = Tracker(TrackerName(name), tmp_path / "x", {}, Screen())
        shower.log({"a": 1.0}, 3)
        assert not finished
        shower.close()
        assert (tmp_path / "x" / "tracking" / f"{name}.id").read_text() in ("1", "x")
    assert places == [f"sqlite:///{tmp_path / 'x' / 'tracking' / 'mlflow.db'}", None]
    assert finished == [True]


def test_the_tracker_is_no_part_of_what_a_run_is():
    config = make_config({"suite": ["demo"], "tracker": "mlflow"}, "test")
    assert config.identity == RunConfig(suite=["demo"]).identity
    assert "--tracker mlflow" in command_line(config)
    assert parse(command_line(config).split()[3:])[1]["tracker"] == "mlflow"
    assert "--tracker" not in command_line(RunConfig(suite=["demo"]))


def test_an_unknown_tracker_is_refused(command):
    status, output, error = command(run, "--suite", "demo", "--backbone", "none", "--tracker", "tensorbord")
    assert (status, output) == (2, "")
    assert "--tracker 'tensorbord'" in error and "'tensorboard'" in error
