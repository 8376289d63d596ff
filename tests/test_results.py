"""results/ and REPORT.md: scores follow from predictions, no text is passed on, tables are those of the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.results import Results, read_model, read_predictions
from leaderboard.ablation import as_table, changes, drawing
from leaderboard.build import build
from leaderboard.runs import read_run, run_folders
from leaderboard.summary import as_tables, summarise
from leaderboard.tables import make_board
from leaderboard.veil import FIRST, is_veiled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
RUNS = [*run_folders(RESULTS / "runs"), *run_folders(RESULTS / "ablations")]
LABEL = 24
"""No label or tag has more characters."""


@pytest.fixture(scope="module")
def summary():
    return json.loads((RESULTS / "summary.json").read_text(encoding="utf-8"))


def test_there_are_runs_and_they_are_small():
    assert RUNS
    assert sum(file.stat().st_size for file in RESULTS.rglob("*") if file.is_file()) < 20e6


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_scores_follow_from_predictions(folder):
    run = read_run(folder)
    assert run.digest.verified
    assert not run.digest.doubts


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_no_text_of_the_data_is_passed_on(folder):
    cards = read_run(folder).cards
    for record in read_model(folder / "results.json", Results).records:
        card = cards[record.task]
        rows = read_predictions(folder / record.predictions)
        for row in rows:
            for answer in (row.value, row.gold):
                texts = [answer] if isinstance(answer, str) else answer if isinstance(answer, tuple) else []
                for text in texts:
                    if is_veiled(card):
                        assert all(sign == " " or ord(sign) >= FIRST[0] for sign in text)
                    else:
                        assert len(text) <= LABEL


def test_its_pages_are_built(tmp_path):
    report = build([RESULTS / "runs"], tmp_path / "site")
    assert report.complaints == []
    page = (tmp_path / "site" / "suites" / "glue" / "index.html").read_text(encoding="utf-8")
    assert all(method in page for method in ("fine-tune", "ptuning-v2", "linear-probe"))


def test_the_summary_is_that_of_the_runs(summary):
    assert summary == json.loads(json.dumps(summarise(make_board([RESULTS / "runs"]))))


def test_the_first_paragraph_of_the_report_is_that_of_the_summary(summary):
    """Means over the tasks of sentences and of tags, which no table has, and how far prompts are behind."""
    first = " ".join((ROOT / "REPORT.md").read_text(encoding="utf-8").split("\n\n")[1].split())

    def mean(row, of_tags):
        chosen = [task for name, task in row["tasks"].items() if name.startswith("conll.") is of_tags]
        return f"{sum(task['languages']['en']['score'] for task in chosen) / len(chosen):.1f}"

    ends = {
        "fine-tune": ("fine-tune", "each task alone", None),
        "words": ("ptuning-v2", "init kv, each task alone", None),
        "best": ("ptuning-v2", "96 slots in 6 layers (all), init zero-gated, each task alone", None),
        "one rate": ("ptuning-v2", "init zero-gated, each task alone", "learning-rate 0.1, warmup 0.3"),
        "shared": ("ptuning-v2", "init kv, specialise", None),
        "lora": ("lora", "each task alone", None),
        "input": ("prompt-tuning", "each task alone", None),
    }
    rows = {}
    for name, (method, end, apart) in ends.items():
        [rows[name]] = [
            row
            for row in summary["rows"]
            if row["method"] == method and row["prompt"].endswith(end) and row.get("apart") == apart
            if row["backbone"] == "minilm-l6-en"
        ]
    tags, sentences = ({name: mean(row, of_tags) for name, row in rows.items()} for of_tags in (True, False))
    assert f"the prompt has {tags['best']} against {tags['fine-tune']}" in first
    assert f"of sentences {sentences['best']} against {sentences['fine-tune']}" in first
    assert f"{sentences['shared']} on sentences and {tags['shared']} on tags" in first
    for name in ("best", "one rate", "words", "shared", "lora", "input"):
        [apart] = [one for one in summary["comparisons"] if one["first"] == rows[name]["id"]]
        assert f"{-apart['difference']:.1f}" in first and f"{-apart['high']:.1f} to {-apart['low']:.1f}" in first
        assert f"{rows[name]['means']['english']['score']:.1f}" in first


def test_the_first_paragraph_says_the_gaps_between_languages(summary):
    """Of fine-tuning, of prompts in all layers that begin as words, and of those that begin at nothing."""
    first = " ".join((ROOT / "REPORT.md").read_text(encoding="utf-8").split("\n\n")[1].split())
    rows = {
        "gated" if "zero-gated" in row["prompt"] else row["method"]: row
        for row in summary["rows"]
        if row["backbone"] == "me5-small-multilingual"
    }
    gaps, others = ({name: row["means"][kind]["score"] for name, row in rows.items()} for kind in ("gap", "transfer"))
    assert f"{gaps['ptuning-v2']:.1f} points with prompts and {gaps['fine-tune']:.1f} with fine-tuning" in first
    assert f"{others['ptuning-v2']:.1f} against {others['fine-tune']:.1f}" in first
    assert f"a gap of {gaps['gated']:.1f}" in first and f"and {others['gated']:.1f} in the other languages" in first
    apart = {one["first"]: one for one in summary["comparisons"] if one["measure"] == "gap"}
    assert apart.keys() == {rows["ptuning-v2"]["id"], rows["gated"]["id"]}
    for name, row in rows.items():
        if name != "fine-tune":
            one = apart[row["id"]]
            assert one["second"] == rows["fine-tune"]["id"]
            assert f"{one['difference']:.1f} more" in first and f"({one['low']:.1f} to {one['high']:.1f}" in first


def test_the_report_has_the_table_and_the_plot_of_ablations():
    board = make_board([RESULTS / "ablations"])
    assert board.complaints == ()
    found = changes(board)
    assert as_table(found) in (ROOT / "REPORT.md").read_text(encoding="utf-8")
    assert drawing(found) == (ROOT / "docs/ablations.svg").read_text(encoding="utf-8")


def test_the_report_has_the_tables_of_the_summary(summary):
    report = (ROOT / "REPORT.md").read_text(encoding="utf-8")
    tables = as_tables(summary).split("\n\n")[1::2]
    assert tables
    assert all(table in report for table in tables)
