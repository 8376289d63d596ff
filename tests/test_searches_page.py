"""The page of searches: what it draws is what search.json says, and nothing in it gets out of its place."""

from __future__ import annotations

import re

import pytest
from fake_runs import write_run

from benchmarks.results import write_model
from benchmarks.searches import SearchRecord, TrialRecord, WinnerRecord
from benchmarks.task import Kind, TaskCard
from leaderboard import plots
from leaderboard.build import build
from leaderboard.searches import read_searches, search_view

CARD = TaskCard(name="rte", suite="glue", kind=Kind.CLASSIFICATION, metrics=("accuracy",), labels=("a", "b"))
SPACE = {
    "prompt-length": {"low": 4, "high": 128, "log": True},
    "prompt-layers": ["all", "top:2"],
    "reparameterise": [False, True],
    "learning-rate": {"low": 1e-3, "high": 1e-1, "log": True},
}


def trial(number: int, score: float | None, state: str = "complete", **settings: object) -> TrialRecord:
    chosen = {"prompt_length": 16, "prompt_layers": "all", "reparameterise": False, "learning_rate": 1e-2} | settings
    settings = {name.replace("_", "-"): value for name, value in chosen.items()}
    return TrialRecord(number=number, state=state, settings=settings, score=score, size=1234, seconds=1.5)


def search(**more: object) -> SearchRecord:
    trials = [
        trial(0, 60.0),
        trial(1, 70.0, prompt_length=4, prompt_layers="top:2", learning_rate=1e-3),
        trial(2, 80.0, prompt_length=128, reparameterise=True, learning_rate=1e-1),
        trial(3, 99.0, state="pruned"),
    ]
    settings = {
        "study": "s", "tasks": ["rte"], "backbone": "b", "method": "ptuning-v2", "metric": "accuracy",
        "objectives": ["score"], "space": SPACE, "sampler": "tpe", "pruner": "asha", "trials": trials,
        "importance": {"prompt-length": 0.75, "learning-rate": 0.25}, "seconds": 90.0,
    }  # fmt: skip
    return SearchRecord(**(settings | more))


def test_colours_and_shapes_have_one_legend():
    points = [(line, x, y, None, None) for line, y in (("best", 70.0), ("mean", 60.0)) for x in (4, 8)]
    drawn = plots.curves(points, "slots", "f1", log=True)
    assert [len(re.findall(f">{line}</text>", drawn)) for line in ("best", "mean")] == [1, 1]


def test_long_names_of_bars_have_room():
    def left(name: str) -> float:
        """Where the bars begin."""
        found = re.search(r"translate\(([\d.]+),", plots.bars([(name, 0.5)], "share"))
        assert found
        return float(found[1])

    assert left("head-learning-rate") >= 7 * len("head-learning-rate")
    assert left("init") < left("head-learning-rate")


def test_the_default_settings_stay_unless_another_trial_is_clearly_better():
    def chosen(default: float | None, best: float, error: float | None) -> SearchRecord:
        trials = [trial(0, default), trial(1, best), trial(2, 99.0, "pruned")]
        trials[0].origin, trials[1].error = "default", error
        return search(trials=trials)

    assert (chosen(80.0, 82.0, 2.5).choice.number, chosen(80.0, 82.0, 1.5).choice.number) == (0, 1)
    assert (
        "had 82.00" in chosen(80.0, 82.0, 2.5).kept
        and "error of 2.50 above their 80.00" in chosen(80.0, 82.0, 2.5).kept
    )
    assert chosen(80.0, 82.0, 1.5).kept is chosen(83.0, 82.0, 2.5).kept is None
    assert chosen(80.0, 82.0, None).choice.number == 1  # of a search before errors were known
    unfinished = chosen(None, 82.0, 2.5)
    unfinished.trials[0].state = "pruned"
    assert (unfinished.choice.number, unfinished.kept) == (1, None)


def test_which_scores_an_importance_is_about_is_said():
    texts = [
        next(drawing.text for drawing in search_view(search(**more), []).drawings if "matter" in drawing.title)
        for more in ({}, {"importance_after": 2}, {"importance_after": 3, "folds": 4})
    ]
    start, end = "prompt-length explains 75 % of how the scores ", " differ (fANOVA)."
    middles = ["of complete trials", "that trials had after epoch 2", "that trials had after fold 3"]
    assert texts == [start + middle + end for middle in middles]


def test_a_place_on_an_axis_is_that_of_the_value(monkeypatch):
    seen = {}
    monkeypatch.setattr("leaderboard.plots.parallel", lambda spots, ends, strong: seen.update(spots=spots, ends=ends))
    monkeypatch.setattr("leaderboard.plots.strips", lambda dots, order, score: seen.update(dots=dots, order=order))
    view = search_view(search(), [])
    places = {(number, name): place for number, name, place, _ in seen["spots"]}
    assert {name: places[0, name] for name in SPACE} == pytest.approx(
        {"prompt-length": 0.4, "prompt-layers": 0, "reparameterise": 0, "learning-rate": 0.5}
    )
    assert [places[1, name] for name in SPACE] == pytest.approx([0, 1, 0, 0])
    assert [places[2, name] for name in SPACE] == pytest.approx([1, 0, 1, 1])
    assert seen["ends"]["reparameterise"] == ("no", "yes")
    assert sorted(seen["dots"]) == [("all", 60.0), ("all", 80.0), ("top:2", 70.0)], "complete ones alone"
    assert [one.number for one in view.best] == [2, 1, 0]
    assert view.counts == {"complete": 3, "pruned": 1}


def test_a_line_goes_through_the_axes_in_their_order():
    """Whatever their names are: what is drawn last lies to the right."""
    drawn = next(one for one in search_view(search(), []).drawings if one.title == "Where good trials lie")
    lines = re.findall(r'<path [^>]*d="(M[^"]+)"[^>]*stroke="var\(--(?:gain|tick)\)"', str(drawn.svg))
    lines = [line for line in lines if line.count("L") == len(SPACE) - 1]
    assert len(lines) == 3
    for line in lines:
        across = [float(point.partition(",")[0]) for point in re.split("[ML]", line) if point]
        assert across == sorted(across)


def test_the_page_links_to_the_runs_of_the_winner_and_escapes_what_it_shows(tmp_path):
    write_run(tmp_path / "runs" / "known", [CARD])
    winner = WinnerRecord(
        trial=2, search_score=80.0, settings={}, runs=["known", "<b>gone</b>"], seeds={0: 75.0, 1: 77.0}, score=76.0,
        low=72.0, high=80.0, optimism=4.0,
    )  # fmt: skip
    evil = trial(4, 90.0, prompt_layers="<script>alert(1)</script>")
    record = search(winner=winner, trials=[*search().trials, evil], backbone="<i>x", study="a")
    write_model(tmp_path / "runs" / "search" / "a" / "search.json", record)
    (tmp_path / "runs" / "search" / "b").mkdir()
    (tmp_path / "runs" / "search" / "b" / "search.json").write_text("{")
    report = build([tmp_path / "runs"], tmp_path / "site")
    assert any("search.json" in sentence for sentence in report.complaints)
    page = (tmp_path / "site" / "searches.html").read_text()
    assert '<a href="runs/known/index.html">known</a>' in page
    assert "4.00 points too hopeful" in page
    assert "76.00 (72.00 to 80.00)" in page
    for text in ("<script>alert", "<b>gone", "<i>x"):
        assert text not in page
    assert "&lt;script&gt;alert" in page
    assert 'href="searches.html"' in (tmp_path / "site" / "index.html").read_text()


def test_a_site_without_searches_has_no_page_of_them(tmp_path):
    write_run(tmp_path / "runs" / "known", [CARD])
    build([tmp_path / "runs"], tmp_path / "site")
    assert not (tmp_path / "site" / "searches.html").exists()
    assert "searches.html" not in (tmp_path / "site" / "index.html").read_text()


def test_what_has_no_complete_trial_is_left_out(tmp_path):
    write_model(tmp_path / "search" / "a" / "search.json", search(trials=[trial(0, None, state="running")]))
    assert read_searches([tmp_path], print) == []
