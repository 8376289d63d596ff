"""What a search draws, keeps and shares: spaces, samplers, and studies in real storages with workers that die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from servers import server
from worker import open_search, value

from benchmarks.errors import PolypromptError
from benchmarks.searches import SearchRecord, search_schema
from benchmarks.task import Kind, TaskCard
from harness import study
from harness.methods import find_method
from harness.searching import proposals
from harness.space import (
    Choice,
    Range,
    default_space,
    distributions,
    fixed_by,
    point,
    read_space,
    settings_of,
)
from harness.study import Proposal, Search, make_pruner, make_sampler, open_storage, slot, state_of

ROOT = Path(__file__).parents[1]
CARD = TaskCard(name="t", suite="s", kind=Kind.CLASSIFICATION, metrics=("accuracy",), labels=("a", "b"))
SPACE = default_space(find_method("ptuning-v2"), 12, [CARD], poolers=True, words=False)


def test_the_space_follows_the_method_the_encoder_and_the_tasks():
    assert SPACE["prompt_layers"] == Choice(("all", "top:6", "top:4", "top:2"))
    assert SPACE["head"] == Choice(("linear", "pooler"))
    tagging = CARD.model_copy(update={"kind": Kind.TAGGING})
    of_tags = default_space(find_method("ptuning-v2"), 3, [tagging], True, True)
    assert not {"head", "pooling"} & set(of_tags)
    assert of_tags["head_layers"] == Choice(("last", "all")) and "head_layers" not in SPACE
    of_input = default_space(find_method("prompt-tuning"), 12, [CARD], False, False)
    assert "prompt_layers" not in of_input
    assert of_input["init"] == Choice(("kv", "normal"))
    assert distributions(of_input)["prompt_length"] == IntDistribution(4, 128, log=True)
    assert "head" not in distributions(of_input), "one value is nothing to draw"


def test_what_a_known_setting_does_not_say_is_as_by_default():
    """Tags have no pooling, an older study no head layers; a rate of heads that nobody names is that of all."""
    space = default_space(find_method("ptuning-v2"), 12, [CARD], poolers=False, words=False)
    default = {"prompt_length": 16, "prompt_layers": "all", "init": "kv", "reparameterise": False,
               "prompt_dropout": 0.0, "learning_rate": 0.01, "head_learning_rate": None, "pooling": "cls"}  # fmt: skip
    of_tags = {"prompt_length": 64, "learning_rate": 0.05}
    first, second = proposals(space, [("default", default), ("study tags", of_tags), ("again", dict(of_tags))])
    assert first.point["head_learning_rate"] == 0.01
    assert second.origin == "study tags"
    assert second.point == first.point | {
        "prompt_length": 64, "learning_rate": 0.05, "head_learning_rate": 0.05
    }  # fmt: skip


def test_a_file_narrows_and_fixes(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        'prompt-length = {high = 32}\nprompt-layers = ["top:3", "0-2"]\ninit = "kv"\nlearning-rate = [1e-2, 2e-2]\n'
        "head-learning-rate = 3\nreparameterise = false\n"
    )
    space = read_space(file, SPACE)
    assert space["prompt_length"] == Range(4, 32, log=True)
    assert space["prompt_dropout"] == SPACE["prompt_dropout"]
    drawn = distributions(space)
    assert drawn["prompt_layers"] == CategoricalDistribution(("top:3", "0-2"))
    assert set(drawn) == {"prompt_length", "prompt_layers", "prompt_dropout", "learning_rate", "pooling", "head"}
    values = {"prompt_length": 9, "prompt_layers": "0-2", "prompt_dropout": 0.1, "learning_rate": 1e-2}
    chosen = settings_of(space, values | {"pooling": "mean", "head": "pooler"})
    assert chosen == values | {
        "init": "kv", "head_learning_rate": 3.0, "reparameterise": False, "head": "pooler", "pooling": "cls"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt-lenght = 3", "prompt-lenght is nothing that a search varies; did you mean 'prompt-length'?"),
        ("prompt-length = {low = 9, high = 3}", "prompt-length: low = 9 is above high = 3; exchange them"),
        ("prompt-length = {low = 1.5}", "prompt-length: write whole numbers"),
        ("prompt-length = {lowest = 1}", "prompt-length: write numbers as {low = 4, high = 128}"),
        ('prompt-length = "long"', 'prompt-length: "long": write a whole number'),
        ("prompt-length = true", "prompt-length: true: write a whole number"),
        ("learning-rate = []", "learning-rate: an empty list; write values, or leave the key out"),
        ("learning-rate = {low = 0}", "learning-rate: 0.0 to 0.1: write numbers above 0"),
        ("prompt-dropout = 1", "prompt-dropout: 1: write 0 to below 1"),
        ('init = "zero"', 'init: "zero": not possible here; write one or some of "kv", "normal", "zero-gated"'),
        ("init = {low = 3}", 'init: has no bounds; write one of "kv", "normal", "zero-gated"'),
        ("reparameterise = 1", "reparameterise: 1: not possible here; write one or some of false, true"),
        ("prompt-layers = 3", 'prompt-layers: 3: write "all", "top:2" or the like'),
        ('head = "verbaliser"', 'head: "verbaliser": not possible here; write one or some of "linear", "pooler"'),
        ("= 3", "not valid TOML"),
        ("pooling = 'cls'", "pooling: the command line fixes it already; leave one of the two out"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_error(text, message, tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(PolypromptError, match=re.escape(str(file)) + ".*" + re.escape(message)):
        read_space(file, SPACE, ["pooling"])


def test_settings_that_are_given_are_fixed_and_known_ones_become_points():
    fixed = fixed_by({"prompt_length": "16", "learning_rate": ["1e-2"], "init": "kv", "epochs": "3"})
    assert fixed == {"prompt_length": Choice((16,)), "learning_rate": Choice((0.01,)), "init": Choice(("kv",))}
    space = SPACE | fixed
    known = {"prompt_layers": "all", "learning_rate": [5.0], "reparameterise": True, "prompt_dropout": 0.9}
    expected = {"prompt_layers": "all", "reparameterise": True, "prompt_dropout": 0.3, "head_learning_rate": 0.1}
    assert point(space, known) == expected
    assert point(space, {"prompt_layers": "top:5"}) == {"prompt_layers": "all"}


class Landscape:
    """A task: what settings are worth, best at a place of its own that is not far from that of other tasks."""

    space = {  # noqa: RUF012
        "rate": FloatDistribution(1e-3, 1e-1, log=True),
        "length": IntDistribution(4, 128, log=True),
        "init": CategoricalDistribution(("kv", "normal", "zero-gated")),
        "dropout": FloatDistribution(0.0, 0.3),
    }

    def __init__(self, task: int) -> None:
        random = np.random.default_rng(task)
        self.place = [np.log(2e-2) + random.normal() * 0.2, np.log(20) + random.normal() * 0.2, 0.1]

    def score(self, drawn: dict) -> float:
        parts = [np.log(drawn["rate"]), np.log(drawn["length"]), 5 * drawn["dropout"]]
        away = sum((a - b) ** 2 for a, b in zip(parts, [*self.place[:2], 5 * self.place[2]], strict=True))
        return float(90 - 6 * away - (0 if drawn["init"] == "kv" else 4))

    def search(self, sampler: str, seed: int, trials: int, proposals: list[Proposal] = ()) -> list[tuple[dict, float]]:
        search = Search(
            InMemoryStorage(), f"{self.place}", self.space, ["maximize"], make_sampler(sampler, seed, 8),
            make_pruner("none", 1), trials, None, {}, proposals,
        )  # fmt: skip
        while (taken := search.ask()) is not None:
            taken.tell(TrialState.COMPLETE, [self.score(taken.params)])
        return [(trial.params, trial.values[0]) for trial in search.trials]


def test_tpe_beats_random_at_the_same_budget():
    best = {
        name: [max(score for _, score in Landscape(3).search(name, seed, 40)) for seed in range(6)]
        for name in ("tpe", "random")
    }
    assert np.mean(best["tpe"]) > np.mean(best["random"])
    assert sum(a > b for a, b in zip(best["tpe"], best["random"], strict=True)) >= 4


def test_the_tenth_task_needs_fewer_trials_than_the_first():
    known: list[Proposal] = []
    needed = []
    for task in range(10):
        found = Landscape(task).search("tpe", task, 25, known[-6:])
        needed.append(next((n for n, (_, score) in enumerate(found, 1) if score > 88), 26))
        known.append(Proposal(f"study {task}", max(found, key=lambda one: one[1])[0]))
    alone = len(Landscape(9).search("tpe", 9, 25))
    cold = next((n for n, (_, score) in enumerate(Landscape(9).search("tpe", 9, 25), 1) if score > 88), alone + 1)
    assert needed[9] < needed[0]
    assert needed[9] < cold
    assert np.mean(needed[5:]) < np.mean(needed[:2])


def test_a_search_that_goes_on_repeats_no_draw():
    """What is drawn follows from the number of the trial, not from how often the process began."""
    storage = InMemoryStorage()

    def go(trials):
        search = Search(
            storage, "s", Landscape.space, ["maximize"], make_sampler("tpe", 5, 3), make_pruner("none", 1), trials,
            None, {},
        )  # fmt: skip
        while (taken := search.ask()) is not None:
            taken.tell(TrialState.COMPLETE, [Landscape(0).score(taken.params)])
        return [trial.params for trial in search.trials]

    for trials in (1, 2, 3, 5, 9):
        broken = go(trials)
    storage = InMemoryStorage()
    assert go(9) == broken
    assert len({json.dumps(drawn, sort_keys=True) for drawn in broken}) == 9


def start(url: str, trials: int, log: Path, seconds: float = 0.25) -> subprocess.Popen:
    words = [sys.executable, "-m", "worker", url, trials, seconds, log]
    return subprocess.Popen(map(str, words), cwd=ROOT / "tests", env=os.environ | {"PYTHONPATH": str(ROOT)})


def wait_for(log: Path, what: str) -> None:
    until = time.monotonic() + 60
    while not (log.exists() and what in log.read_text()):
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.02)


def test_a_killed_process_that_nobody_has_waited_for_is_gone(tmp_path):
    """It is still in the list of processes until its parent looks."""
    here = open_search(str(tmp_path / "j"), 1)
    assert here.ask() is not None
    trial = here.trials[0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        process = psutil.Process(other.pid)
        host = trial.user_attrs[study._OWNER][0]
        here.study._storage.set_trial_user_attr(trial._trial_id, study._OWNER, [host, other.pid, process.create_time()])
        here.recover()
        assert [one.state for one in here.trials] == [TrialState.RUNNING]
        other.kill()
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        here.recover()
        assert [one.state for one in here.trials] == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.parametrize(
    "kind",
    ["journal", pytest.param("postgresql", marks=pytest.mark.slow), pytest.param("redis", marks=pytest.mark.slow)],
)
def test_of_two_workers_one_is_killed_and_no_trial_is_lost_or_doubled(kind, tmp_path):
    """The other one takes over what the dead one had, with the same draw, and ends with as many trials as asked for."""
    with server(kind, tmp_path) as url:
        trials = 14
        open_search(url, trials)
        victim, survivor = start(url, trials, tmp_path / "a"), start(url, trials, tmp_path / "b")
        try:
            wait_for(tmp_path / "b", "ended")
            wait_for(tmp_path / "a", "ended")
            while (tmp_path / "a").read_text().strip().rpartition("\n")[2].startswith("ended"):
                time.sleep(0.005)  # it is killed in the middle of a trial
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            assert survivor.wait(90) == 0
        finally:
            for process in (victim, survivor):
                process.kill()
                process.wait()
        search = open_search(url, trials)
        found = search.trials
        states = Counter(map(state_of, found))
        assert states["complete"] == trials
        assert states["given-back"] >= 1
        assert not set(states) & {"running", "waiting", "failed"}
        complete = [trial for trial in found if trial.state is TrialState.COMPLETE]
        assert len({slot(trial) for trial in complete}) == trials, "each slot once"
        assert len({trial.params["x"] for trial in complete}) == trials
        for trial in complete:
            assert trial.values == [value(trial.params["x"])]
        lost = [line.split()[1] for line in (tmp_path / "a").read_text().split("\n") if line.startswith("begun")][-1]
        [again] = [trial for trial in complete if slot(trial) == int(lost)]
        assert again.number != int(lost)
        assert again.params == found[int(lost)].params
        assert search.ask() is None
        if kind == "postgresql":
            assert url.startswith("postgresql://")


def test_what_another_machine_had_is_taken_over_after_a_silence(monkeypatch, tmp_path):
    """There no process can be looked for: what counts is its last sign of life. When it comes back, it finds that."""
    url = str(tmp_path / "j")
    here = open_search(url, 2)
    there = open_search(url, 2)
    there._host = "another"
    taken = there.ask()
    assert here.others() == 1
    here.recover()
    assert [state_of(trial) for trial in here.trials] == ["running"]
    monkeypatch.setattr(study, "GRACE_SECONDS", 0.05)
    time.sleep(0.1)
    again = here.ask()
    assert (again.slot, again.params) == (taken.slot, taken.params)
    again.tell(TrialState.COMPLETE, [1.0])
    with pytest.raises(study.TakenOver):
        taken.note("x", 1)
    taken.tell(TrialState.COMPLETE, [2.0])  # says nothing, changes nothing
    assert [trial.values for trial in here.trials if trial.state is TrialState.COMPLETE] == [[1.0]]


def test_one_too_many_is_given_back(tmp_path):
    """Two processes that both see room for one: the later one makes way."""
    here, there = open_search(str(tmp_path / "j"), 1), open_search(str(tmp_path / "j"), 1)
    there._is_over = lambda: len(there.trials) > 1  # it looked before the other one asked
    first = here.ask()
    assert first is not None
    assert there.ask() is None
    first.tell(TrialState.COMPLETE, [1.0])
    assert [state_of(trial) for trial in here.trials] == ["complete", "given-back"]
    assert here.ask() is None


def test_who_leaves_gives_back_what_was_not_begun_with(tmp_path):
    search = open_search(str(tmp_path / "j"), 3)
    taken = [search.ask(), search.ask()]
    taken[0].tell(TrialState.COMPLETE, [1.0])
    search.leave()
    assert [state_of(trial) for trial in search.trials] == ["complete", "given-back", "waiting"]
    assert search.ask().params == taken[1].params


def test_time_that_several_work_is_counted_once():
    search = Search(
        InMemoryStorage(), "s", {"x": FloatDistribution(0, 1)}, ["maximize"], make_sampler("random", 1, 1),
        make_pruner("none", 1), None, 0.3, {},
    )  # fmt: skip
    one, other = search.ask(), search.ask()
    time.sleep(0.2)
    assert 0.2 <= search.spent() < 0.35
    one.tell(TrialState.COMPLETE, [1.0])
    other.tell(TrialState.COMPLETE, [1.0])
    spent = search.spent()
    time.sleep(0.2)
    assert search.spent() == spent, "nobody works on it"
    third = search.ask()
    time.sleep(0.2)
    third.tell(TrialState.COMPLETE, [1.0])
    assert search.ask() is None


def test_storages_that_cannot_be_reached_are_one_error(tmp_path):
    with pytest.raises(PolypromptError, match=r"--storage sqlite:///nowhere/at/all\.db: cannot be opened"):
        open_storage("sqlite:///nowhere/at/all.db", tmp_path)
    with pytest.raises(PolypromptError) as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/x", tmp_path)
    assert "secret" not in str(caught.value)


def test_nothing_is_pickled_in_a_redis(tmp_path):
    """Optuna's own journal in Redis keeps pickled snapshots, which whoever reaches the server could exchange."""
    redis = pytest.importorskip("redis")
    with server("redis", tmp_path) as url:
        search = open_search(url, 120)
        while (taken := search.ask()) is not None:
            taken.tell(TrialState.COMPLETE, [0.0])
        client = redis.Redis.from_url(url)
        assert len(list(client.scan_iter("polyprompt:*"))) > 100
        assert not list(client.scan_iter("*snapshot*"))


def test_hyperband_and_asha_stop_the_worse():
    for name in ("asha", "hyperband"):
        search = Search(
            InMemoryStorage(), name, {"x": FloatDistribution(0, 1)}, ["maximize"], make_sampler("random", 1, 1),
            make_pruner(name, 9), 30, None, {},
        )  # fmt: skip
        while (taken := search.ask()) is not None:
            if any(taken.measured(step, taken.params["x"]) for step in range(1, 10)):
                taken.tell(TrialState.PRUNED)
            else:
                taken.tell(TrialState.COMPLETE, [taken.params["x"]])
        kept = [trial.params["x"] for trial in search.trials if trial.state is TrialState.COMPLETE]
        stopped = [trial.params["x"] for trial in search.trials if trial.state is TrialState.PRUNED]
        assert len(stopped) > 5
        assert np.mean(kept) > np.mean(stopped)


def test_the_published_schema_is_the_models():
    file = ROOT / "docs" / "schema" / f"search-{SearchRecord.model_fields['version'].default}.json"
    assert json.loads(file.read_text()) == search_schema()
    assert optuna.__version__
