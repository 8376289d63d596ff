"""What each setting is worth: the base is found, single changes are paired with it, the plot stands alone."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_runs import draw, write_run

from benchmarks.errors import PolypromptError
from benchmarks.registry import find_suite
from benchmarks.task import TaskCard
from leaderboard import ablation

CARDS = [task.card for task in find_suite("glue").tasks if task.card.name in ("sst2", "mrpc")]
SPLITS = {card.name: "dev" for card in CARDS}
BASE = {"prompt_length": 32, "init": "kv", "learning_rate": [0.03], "head_learning_rate": 0.01}
OTHERS = {
    "short": ({"prompt_length": 4}, 0.5),
    "long": ({"prompt_length": 128}, 0.8),
    "gated": ({"init": "zero-gated", "learning_rate": [0.1]}, 0.9),  # a rate may go with it
    "two": ({"init": "normal", "prompt_length": 8}, 0.1),  # two settings: which of them it is nobody knows
}
"""Run -> what it changes, and how often it is right."""


def text(card: TaskCard, settings: dict[str, object]) -> str:
    lines = {"tasks": [card.name], "seed": 0, "epochs": 4.0} | BASE | settings
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())


def write(folder: Path) -> Path:
    for card in CARDS:
        for name, (settings, skill) in {"base": ({}, 0.6), **OTHERS}.items():
            write_run(folder / f"{card.name}-{name}", [card], skill=skill, rows=400, splits=SPLITS,
                      prompt=f"a prompt that is {name}", config=text(card, settings))  # fmt: skip
    return folder


def right(card: TaskCard, skill: float) -> np.ndarray:
    return np.array([row.value == row.gold for row in draw(card, "en", skill, 0, 400)], float)


def test_single_changes_are_compared_with_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.svg"
    assert ablation.main([str(write(tmp_path / "runs")), "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    told = [(one["setting"], one["before"], one["value"]) for one in found if one["task"] == "mean"]
    assert told == [
        ("init", "kv", "zero-gated, learning-rate 0.1"), ("prompt-length", "32", "4"), ("prompt-length", "32", "128"),
    ]  # fmt: skip
    assert {one["task"] for one in found} == {"glue.sst2", "glue.mrpc", "mean"} and len(found) == 9
    skills = {"zero-gated, learning-rate 0.1": 0.9, "4": 0.5, "128": 0.8}
    for one in found:
        cards = [card for card in CARDS if one["task"] in ("mean", f"glue.{card.name}")]
        apart = [right(card, skills[one["value"]]) - right(card, 0.6) for card in cards]
        wanted = 100 * float(np.mean([rows.mean() for rows in apart]))
        assert one["comparison"]["difference"] == pytest.approx(wanted, abs=1e-6)
        error = 100 * np.sqrt(sum(rows.var() / len(rows) for rows in apart)) / len(cards)
        half = (one["comparison"]["high"] - one["comparison"]["low"]) / 2
        assert (one["comparison"]["win"] > 0.5) == (wanted > 0)
        assert half == pytest.approx(1.96 * error, rel=0.15), "as paired rows vary"
    assert [one["seeds"] for one in found] == [1] * 9


def test_the_plot_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.svg"
    assert ablation.main([str(write(tmp_path / "runs")), "--out", str(out)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["|", "setting", "|", "base", "|", "changed", "to", "|", "glue.mrpc", "|", "glue.sst2",
                                "|", "mean", "|"]  # fmt: skip
    assert len(table) == 2 + 3
    drawn = out.read_text()
    ElementTree.fromstring(drawn)
    assert "var(" not in drawn and "xlink" not in drawn and "role-legend" in drawn
    for words in ("init, base kv", "prompt-length, base 32", "zero-gated, learning-rate 0.1", "glue.mrpc", "mean"):
        assert words in drawn


def test_what_cannot_be_compared_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        settings = {} if name == "a" else {"prompt_length": 4, "init": "normal"}
        write_run(tmp_path / name, CARDS[:1], splits=SPLITS, prompt=name, config=text(CARDS[0], settings))
    for runs, said in ((["a"], "at least two configurations"), (["a", "b"], "differ in one setting alone")):
        with pytest.raises(PolypromptError, match=said):
            ablation.main([str(tmp_path / name) for name in runs])
