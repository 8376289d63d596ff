"""The search from its command line: what it reads, what it repeats, what its trials are, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import benchmarks.data
from benchmarks.records import Example, Prediction, Split
from benchmarks.results import Manifest, Results, read_model
from benchmarks.searches import SearchRecord
from benchmarks.task import Kind, TaskCard
from harness import search, searching, study, trials
from harness.config import RunConfig
from harness.held_out import few_shot, folds
from harness.intervals import interval, standard_error
from harness.methods import find_method
from harness.train import _groups

ROOT = Path(__file__).parents[1]
SMALL = ("--languages", "en", "--max-train", 60, "--batch", 16, "--epochs", 2, "--max-eval", 12, "--precision", "fp32")


@pytest.fixture
def go(command, backbone, tmp_path):
    """`python -m harness.search --suite demo` with the tiny encoder; returns what it prints as JSON."""

    def go(*more, out="runs", status=0):
        words = ("--suite", "demo", "--backbone", backbone, "--out", tmp_path / out, *SMALL)
        tasks = () if "--tasks" in more else ("--tasks", "demo-topic")
        found, output, error = command(search, *words, *tasks, *more, *(() if status else ("--json",)))
        assert found == status, error
        return [SearchRecord.model_validate(record) for record in json.loads(output)] if status == 0 else error

    return go


def done(record: SearchRecord) -> list:
    return [trial for trial in record.trials if trial.state in ("complete", "pruned")]


@pytest.fixture
def poisoned(monkeypatch):
    """Whoever opens a split that is reported dies of it; returns the splits that were opened."""
    opened = []
    load = benchmarks.data.load_hashed

    def watched(task, split, *more):
        opened.append(split)
        if split != "train":
            raise AssertionError(f"{split} was read")
        return load(task, split, *more)

    monkeypatch.setattr(benchmarks.data, "load_hashed", watched)
    return opened


def test_reported_rows_are_not_read_before_the_search_is_over(go, poisoned, monkeypatch, tmp_path):
    [record] = go("--trials", 4, "--seeds", 0)
    assert set(poisoned) == {"train"}
    assert len(done(record)) == 4
    assert record.winner is None
    error = go("--trials", 4, "--seeds", 1, status=2)
    assert "test was read" in error, "the poison works: training the winner meets it"
    assert len(done(read_model(next(tmp_path.glob("runs/search/*/search.json")), SearchRecord))) == 4
    monkeypatch.undo()
    [record] = go("--trials", 4, "--seeds", 2)
    runs = [tmp_path / "runs" / name for name in record.winner.runs]
    scores = [read_model(run / "results.json", Results).records[0].main[1] for run in runs]
    assert list(record.winner.seeds.values()) == pytest.approx(scores, abs=1e-4)
    assert record.winner.score == pytest.approx(np.mean(scores), abs=1e-4)
    assert record.winner.low <= record.winner.score <= record.winner.high
    best = max(trial.score for trial in record.trials)
    assert record.winner.optimism == pytest.approx(best - record.winner.score)
    assert read_model(next(tmp_path.glob("runs/search/*/search.json")), SearchRecord) == record


def test_trials_side_by_side_are_what_they_are_alone_and_what_a_run_selects(go, tiny_run, tmp_path):
    """The same settings, one after another in a search, four at a time, and in runs of their own."""
    options = ("--trials", 5, "--seeds", 0, "--sampler", "random", "--pruner", "none", "--space", tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text('prompt-length = {low = 2, high = 9}\nprompt-layers = ["all", "top:2", "top:1"]\n')
    [alone] = go(*options, "--side-by-side", 1, out="alone")
    [beside] = go(*options, "--side-by-side", 4, out="beside")
    assert [trial.settings for trial in alone.trials] == [trial.settings for trial in beside.trials]
    assert [trial.curve for trial in alone.trials] == [trial.curve for trial in beside.trials]
    assert len({trial.settings["prompt-layers"] for trial in alone.trials}) > 1
    for trial in alone.trials[:3]:
        words = []
        for name, value in trial.settings.items():
            words += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", value]
        name = f"run-{trial.number}"
        status, _, error = tiny_run(
            "--tasks", "demo-topic", *SMALL, *words, "--inference", "own", "--out", tmp_path, "--name", name
        )
        assert status == 0, error
        [measured] = read_model(tmp_path / name / "manifest.json", Manifest).selection.measured.values()
        assert [score for _, score in measured] == [score for _, score in trial.curve]
        assert trial.score == max(score for _, score in measured)
        prompt, heads = (tmp_path / name / f"{what}.safetensors" for what in ("prompt", "heads"))
        assert trial.size == sum(_bytes(file) for file in (prompt, heads))


def _bytes(file: Path) -> int:
    """Of the tensors in a file, without its header."""
    from safetensors.numpy import load_file

    return sum(tensor.nbytes for tensor in load_file(file).values())


def test_after_ctrl_c_the_same_command_goes_on_without_repeating_a_trial(go, interrupted_at, tmp_path):
    with interrupted_at(5):
        error = go("--trials", 7, "--seeds", 0, "--side-by-side", 2, status=130)
    assert "the same command goes on" in error
    file = next(tmp_path.glob("runs/search/*/search.json"))
    broken = read_model(file, SearchRecord)
    assert {trial.state for trial in broken.trials} == {"given-back", "waiting"}
    assert list(file.parent.glob("trials/*/rate-*/last.safetensors")), "they go on from where they were"
    [record] = go("--trials", 7, "--seeds", 0, "--side-by-side", 2)
    assert len(done(record)) == 7
    settings = [json.dumps(trial.settings, sort_keys=True) for trial in done(record)]
    assert len(set(settings)) == 7
    given_back = {json.dumps(trial.settings, sort_keys=True) for trial in record.trials if trial.state == "given-back"}
    assert given_back <= set(settings)
    assert not list(file.parent.glob("trials/*"))
    [undisturbed] = go("--trials", 7, "--seeds", 0, "--side-by-side", 2, out="other")
    same = {json.dumps(trial.settings, sort_keys=True): trial.curve for trial in undisturbed.trials}
    again = {json.dumps(trial.settings, sort_keys=True): trial.curve for trial in done(record)}
    common = [known for known in same if known in again and known in given_back]
    assert common
    for known in common:
        longest = min(len(same[known]), len(again[known]))  # what was stopped early depends on the others
        assert same[known][:longest] == again[known][:longest]
    [more] = go("--trials", 9, "--seeds", 0, "--side-by-side", 2)
    assert len(done(more)) == 9, "the same study, with more trials"
    assert more.trials[: len(record.trials)] == record.trials


@pytest.mark.slow
def test_a_later_task_begins_with_what_was_best_for_an_earlier_one(go):
    topic, names = go("--tasks", "demo-topic,demo-names", "--trials", 7, "--seeds", 0, "--pruner", "none")
    assert topic.trials[0].origin == "default"
    assert any(trial.origin.startswith("preset ") for trial in topic.trials)
    origins = [trial.origin for trial in names.trials]
    shared = topic.best.settings.keys() & names.space.keys()
    assert f"study {topic.study}" in origins or all(
        names.trials[0].settings[name] == topic.best.settings[name] for name in shared
    )
    assert {trial.origin for trial in names.trials} >= {"sampler"}
    [joint] = go("--tasks", "demo-topic,demo-names", "--joint", "--trials", 2, "--seeds", 0, out="joint")
    assert joint.tasks == ["demo-topic", "demo-names"]


@pytest.mark.slow
def test_several_objectives_give_a_pareto_set(go, command, tmp_path):
    [record] = go("--trials", 8, "--seeds", 1, "--objectives", "score,bytes,latency")
    assert record.pruner == "none"
    points = {trial.number: [-trial.values["score"], trial.values["bytes"], trial.values["latency"]]
              for trial in record.trials}  # fmt: skip

    def beaten(number):
        mine = points[number]
        return any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in points.values())

    assert {trial.number for trial in record.trials if trial.pareto} == {n for n in points if not beaten(n)}
    assert all(trial.latency > 0 and trial.values["bytes"] == trial.size for trial in record.trials)
    assert record.winner.search_score == max(trial.score for trial in record.trials)


def test_few_examples_are_cross_validated_and_then_all_of_them_train(go, monkeypatch, tmp_path):
    """No other rows are looked at: those that a usual run of few shots selects with are left alone."""
    seen: list[tuple[set, set]] = []
    learned, scored = trials.learn, trials.validation_score

    def learn(make, keep, training, rows, *more):
        seen.append(({row.id for task in rows for split in task.train.values() for row in split.examples}, set()))
        assert not any(task.selecting for task in rows)
        return learned(make, keep, training, rows, *more)

    def score(model, rows, *more):
        seen[-1][1].update(row.id for task in rows for split in task.selecting.values() for row in split.examples)
        return scored(model, rows, *more)

    monkeypatch.setattr(trials, "learn", learn)
    monkeypatch.setattr(trials, "validation_score", score)
    options = ("--shots", 16, "--folds", 4, "--trials", 3, "--side-by-side", 1, "--pruner", "none")
    [record] = go(*options, "--seeds", 1)
    assert record.folds == 4
    assert [len(train) for train, _ in seen] == [12] * 12
    few = set().union(*(train for train, _ in seen[:4]))
    assert len(few) == 16
    assert all(train | scored == few and not train & scored for train, scored in seen)
    assert Counter(row for _, scored in seen[:4] for row in scored) == dict.fromkeys(few, 1)
    assert [step for step, _ in record.trials[0].curve] == [1, 2, 3, 4]
    assert record.trials[0].score == record.trials[0].curve[-1][1]
    manifest = read_model(tmp_path / "runs" / record.winner.runs[0] / "manifest.json", Manifest)
    assert manifest.limits["shots"] == 16
    assert manifest.selection.rule == "last"
    assert not manifest.selection.rows


def test_the_default_settings_are_tried_to_the_end_and_stay_if_nothing_is_clearly_better(go, monkeypatch, tmp_path):
    def scored(config, shared, device, place, folds, timed, measured, *more):
        is_default = config.learning_rate == [find_method("ptuning-v2").learning_rate] and config.prompt_length == 16
        for _ in range(9 * is_default):  # others are measured before, and are better
            yield True
        for epoch in (1, 2):
            measured(epoch, 50.0 if is_default else 51.0 + epoch)
            yield True
        return trials.Found(50.0 if is_default else 53.0, error[0], 1.0, 2, 3, None)

    monkeypatch.setattr(searching, "trial_by_steps", scored)
    for name, error, stays in (("sure", [2.0], False), ("unsure", [4.0], True)):
        [record] = go("--trials", 9, "--seeds", 0, out=name)
        [default] = [trial for trial in record.trials if trial.origin == "default"]
        assert default.state == "complete", "however bad"
        assert {trial.error for trial in record.trials if trial.state == "complete"} == {error[0]}
        assert (record.choice.number == default.number) is stays
        assert (record.kept is not None) is stays


def test_folds_spread_labels_and_keep_contexts_together():
    card = TaskCard(name="t", suite="s", kind=Kind.CLASSIFICATION, metrics=("accuracy",), labels=("a", "b"))
    rows = tuple(Example(str(n), text=f"{n}", label="ab"[n % 2]) for n in range(64))
    few, _ = few_shot(card, Split(rows), 32, 3)
    parts = folds(card, few, 4, 1)
    for train, scored in parts:
        assert Counter(row.label for row in scored.examples) == {"a": 4, "b": 4}
        assert {row.id for row in train.examples} | {row.id for row in scored.examples} == {r.id for r in few.examples}
    assert sorted(row.id for _, scored in parts for row in scored.examples) == sorted(row.id for row in few.examples)
    grouped = Split(tuple(Example(str(n), text=f"passage {n // 4}", label="a", group=f"{n}") for n in range(32)))
    for train, scored in folds(card, grouped, 4, 1):
        assert not {row.text for row in train.examples} & {row.text for row in scored.examples}


def test_the_interval_is_that_of_a_share_and_widens_with_the_spread_of_seeds():
    card = TaskCard(name="t", suite="s", kind=Kind.CLASSIFICATION, metrics=("accuracy",), labels=("a", "b"))

    def answers(right, count=400):
        return [Prediction(f"{n}", "a" if n < right else "b", "a") for n in range(count)]

    alone = interval(card, [answers(320)], "en")
    assert alone == pytest.approx(100 * 1.96 * np.sqrt(0.8 * 0.2 / 400), rel=0.1)
    assert interval(card, [answers(320)] * 3, "en") == pytest.approx(alone, rel=0.1), "seeds that agree add nothing"
    assert standard_error(card, answers(320), "en") == pytest.approx(alone / 1.96, rel=0.3), "of fewer resamples"
    apart = interval(card, [answers(300), answers(320), answers(340)], "en")
    of_seeds = 4.303 * 5 / np.sqrt(3)  # t of two degrees of freedom, a standard deviation of 5 points
    assert apart == pytest.approx(np.hypot(alone, of_seeds), rel=0.1)


def test_heads_may_have_a_rate_of_their_own(tiny_run, tmp_path):
    """With hardly any, they stay where they began while the prompt moves; without, old runs keep their identity."""
    from safetensors.torch import load_file

    common = ("--tasks", "demo-topic", *SMALL, "--out", tmp_path, "--selection", "last")
    for name, more in (
        ("begin", ("--max-steps", 0)), ("frozen", ("--head-learning-rate", 1e-12)), ("both", ()),
        ("same", ("--head-learning-rate", 2e-2)),
    ):  # fmt: skip
        status, _, error = tiny_run(*common, *more, "--name", name)
        assert status == 0, error
    heads = {name: load_file(tmp_path / name / "heads.safetensors") for name in ("begin", "frozen", "both", "same")}
    prompts = {name: load_file(tmp_path / name / "prompt.safetensors")["prefix"] for name in heads}
    assert all(torch.allclose(heads["frozen"][key], heads["begin"][key], atol=1e-9) for key in heads["begin"])
    assert not torch.allclose(heads["both"]["demo-topic.weight"], heads["begin"]["demo-topic.weight"], atol=1e-3)
    assert not torch.allclose(prompts["frozen"], prompts["both"], atol=1e-6)
    assert torch.allclose(prompts["same"], prompts["both"], atol=1e-6), "the method's rate, said aloud"
    config = RunConfig()
    assert config.identity == config.model_copy(update={"head_learning_rate": None}).identity
    assert config.identity != config.model_copy(update={"head_learning_rate": 0.1}).identity
    model = torch.nn.ModuleDict({"heads": torch.nn.Linear(2, 2), "prompt": torch.nn.Linear(2, 2)})
    groups = _groups(model, RunConfig(head_learning_rate=0.5, weight_decay=0.1), find_method("ptuning-v2"), 0.2)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.2, 0.1), (0.2, 0.0), (0.5, 0.1), (0.5, 0)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trials", 0), "--trials 0: at least 1 is needed"),
        (("--budget", "soon"), "--budget soon: write a time such as 90s, 45m or 2h"),
        (("--trials", 1, "--objectives", "bytes"), "--objectives bytes: write score first"),
        (("--trials", 1, "--objectives", "score,size"), "--objectives size: there are score, bytes, latency"),
        (("--trials", 1, "--method", "lora"), "--method lora: trials share one frozen encoder"),
        (("--trials", 1, "--selection", "paper"), "--selection paper: a search looks at rows held out"),
        (("--trials", 1, "--learning-rate", "1e-2,2e-2"), "--learning-rate: several; a search varies it"),
        (("--trials", 1, "--max-train", 5), "too few to hold some out"),
    ],
)
def test_what_cannot_be_searched_is_one_error(words, message, go, tmp_path):
    error = go(*words, status=2).strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_layers_that_the_encoder_does_not_have_are_named_with_the_file(go, tmp_path):
    (tmp_path / "s.toml").write_text('prompt-layers = ["top:1", "top:9"]\n')
    error = go("--trials", 1, "--space", tmp_path / "s.toml", status=2)
    assert f"{tmp_path / 's.toml'}: prompt-layers top:9: the backbone has 3 layers" in error


def test_a_budget_of_time_ends_a_search(go, monkeypatch):
    began = time.monotonic()
    [record] = go("--budget", "2s", "--seeds", 0, "--side-by-side", 2)
    assert record.trials
    assert all(trial.state in ("complete", "pruned") for trial in record.trials)
    assert 1.9 < record.seconds < time.monotonic() - began + 1
    before = len(record.trials)
    [again] = go("--budget", "2s", "--seeds", 0, "--side-by-side", 2)
    assert len(again.trials) == before, "it is spent"


def test_settings_that_diverge_are_told_as_bad_ones(go, tmp_path):
    (tmp_path / "s.toml").write_text("learning-rate = [1e37, 1e-2]\n")
    [record] = go("--trials", 6, "--seeds", 0, "--space", tmp_path / "s.toml", "--sampler", "random")
    notes = {trial.settings["learning-rate"]: (trial.state, trial.note) for trial in record.trials}
    assert notes[1e37][0] == "pruned"
    assert "the loss of task demo-topic" in notes[1e37][1]
    assert record.best.settings["learning-rate"] == 1e-2


@pytest.mark.slow
def test_a_server_that_goes_away_is_one_error_and_the_same_command_goes_on(go, monkeypatch, tmp_path):
    from servers import server

    words = ("--trials", 4, "--seeds", 0, "--side-by-side", 2)
    with server("redis", tmp_path) as url:
        ask, asked = study.Search.ask, []

        def once(self):
            if len(asked) == 3:
                server_process(url).kill()
            asked.append(1)
            return ask(self)

        monkeypatch.setattr(study.Search, "ask", once)
        error = go(*words, "--storage", url, status=2)
        assert error.strip().splitlines()[-1].startswith("error: the storage was lost")
        assert "Traceback" not in error


def server_process(url: str) -> psutil.Process:
    """The program that listens there."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    [found] = [
        process
        for process in psutil.Process().children()
        if any(one.laddr.port == port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgresql", "redis"])
def test_two_searches_of_one_storage_one_killed(kind, backbone, tmp_path):
    """Whole programs: the survivor ends with every trial once, and trains the winner."""
    from servers import server

    with server(kind, tmp_path) as url:
        words = ("--suite", "demo", "--tasks", "demo-topic", "--backbone", backbone, *SMALL, "--epochs", 30)
        words += (
            "--pruner",
            "none",
            "--trials",
            12,
            "--seeds",
            1,
            "--storage",
            url,
            "--out",
            tmp_path / "runs",
            "--json",
        )
        command = [sys.executable, "-m", "harness.search", *map(str, words)]
        both = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(2)
        ]
        try:
            until = time.monotonic() + 300
            while True:
                assert time.monotonic() < until
                files = list(tmp_path.glob("runs/search/*/search.json"))
                if files and len(done(read_model(files[0], SearchRecord))) > 3:
                    break
                time.sleep(0.05)
            assert both[0].poll() is None
            os.kill(both[0].pid, signal.SIGKILL)
            output, _ = both[1].communicate(timeout=300)
        finally:
            for process in both:
                process.kill()
                process.wait()
        assert both[1].returncode == 0
        [record] = [SearchRecord.model_validate(one) for one in json.loads(output)]
        assert len(done(record)) == 12
        assert len({json.dumps(trial.settings, sort_keys=True) for trial in done(record)}) == 12
        assert not {trial.state for trial in record.trials} - {"complete", "pruned", "given-back"}
        assert record.winner is not None


@pytest.mark.slow
def test_the_importance_of_settings_is_that_of_a_score_that_one_of_them_decides(go, monkeypatch, tmp_path):
    def scored(config, *more):
        yield False
        return trials.Found(100 * config.prompt_dropout, 0.0, 0.1, 1, 10, None)

    monkeypatch.setattr(searching, "trial_by_steps", scored)
    [record] = go("--trials", 30, "--seeds", 0, "--sampler", "random")
    assert max(record.importance, key=record.importance.get) == "prompt-dropout"
    assert sum(record.importance.values()) == pytest.approx(1, abs=0.01)
    assert record.best.settings["prompt-dropout"] == max(t.settings["prompt-dropout"] for t in record.trials)
    assert record.importance_after is None


def test_of_trials_that_were_stopped_early_scores_at_a_common_step_say_what_is_important(go, monkeypatch, tmp_path):
    """The rate decides what is reached early on, by which most are stopped; what comes later says the opposite."""

    def scored(config, shared, device, place, folds, timed, measured, *more):
        rate = config.learning_rate[0]
        yield False
        measured(10, 100 * rate)
        measured(20, 100 * rate)
        yield False
        measured(30, 1 - rate)
        return trials.Found(1 - rate, 0.0, 0.1, 1, 10, None)

    monkeypatch.setattr(searching, "trial_by_steps", scored)
    [record] = go("--trials", 24, "--seeds", 0, "--sampler", "random", "--side-by-side", 1)
    states = [trial.state for trial in record.trials]
    assert states.count("pruned") >= 8 and states.count("complete") < 8
    assert record.importance_after in (10, 20)
    assert max(record.importance, key=record.importance.get) == "learning-rate"
    measured = [trial for trial in record.trials if len(trial.curve) >= record.importance_after // 10]
    assert len(measured) >= 8
    assert sum(len(trial.curve) > record.importance_after // 10 for trial in record.trials) < 8
