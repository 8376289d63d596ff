"""Which rows train and which select, and what a run does with them."""

import json
from collections import Counter

import pytest

from benchmarks.records import Answer, Example, Split
from benchmarks.results import Manifest, ResultRecord, Results, read_model
from benchmarks.task import Kind, TaskCard
from harness.held_out import MOST, few_shot, hold_out
from harness.seeds import seeds_table


def card(kind: Kind) -> TaskCard:
    return TaskCard(name="t", suite="s", kind=kind, metrics=("f1",), labels=("a", "b", "c"))


def labelled(counts: dict[str, int]) -> Split:
    rows = [label for label, count in counts.items() for _ in range(count)]
    return Split(tuple(Example(str(n), text=f"text {n}", label=label) for n, label in enumerate(rows)))


@pytest.mark.parametrize(("rows", "limit", "held"), [(100, None, 10), (100, 50, 5), (20_000, None, MOST), (9, None, 0)])
def test_a_tenth_of_what_is_trained_on_is_held_out(rows, limit, held):
    split = labelled({"a": rows})
    train, selecting = hold_out(card(Kind.CLASSIFICATION), split, limit, 1)
    assert len(selecting.examples) == held
    assert sorted([*train.examples, *selecting.examples], key=lambda row: int(row.id)) == list(split.examples)
    assert hold_out(card(Kind.CLASSIFICATION), split, limit, 1) == (train, selecting), "the same every time"
    if held > 5:
        assert hold_out(card(Kind.CLASSIFICATION), split, limit, 2)[1] != selecting


@pytest.mark.parametrize("kind", [Kind.SPAN, Kind.TAGGING, Kind.CLASSIFICATION])
def test_rows_of_one_context_stay_on_one_side(kind):
    rows = []
    for context in range(60):
        for n in range(1 + context % 4):
            fields = {
                Kind.SPAN: {"text": f"q{n}", "text_pair": f"passage {context}", "answers": (Answer("p", 0),)},
                Kind.TAGGING: {"tokens": (f"w{context}", "x"), "marked": n % 2, "tags": ("O", "O")},
                Kind.CLASSIFICATION: {"text": f"passage {context}", "text_pair": f"a{n}", "group": f"{context}.{n}"},
            }[kind]
            rows.append(Example(f"{context}.{n}", **fields))
    train, selecting = hold_out(card(kind), Split(tuple(rows)), None, 3)
    assert 10 <= len(selecting.examples) <= len(rows) // 10
    contexts = [{row.id.split(".")[0] for row in side.examples} for side in (train, selecting)]
    assert not contexts[0] & contexts[1]


def test_few_shots_have_every_label_on_both_sides():
    split = labelled({"a": 400, "b": 30, "c": 9})
    train, selecting = few_shot(card(Kind.CLASSIFICATION), split, 12, 5)
    for side in (train, selecting):
        assert Counter(row.label for row in side.examples) == {"a": 4, "b": 4, "c": 4}
    assert not {row.id for row in train.examples} & {row.id for row in selecting.examples}
    assert few_shot(card(Kind.CLASSIFICATION), split, 12, 6)[0] != train
    few, others = few_shot(card(Kind.CLASSIFICATION), split, 32, 5)
    assert (len(few.examples), len(others.examples)) == (32, 32)


def test_seeds_side_by_side():
    def results(seed: int, value: float) -> Results:
        record = ResultRecord(
            task="t", suite="s", language="en", split="dev", examples=9, limited=False, scores={"accuracy": value},
            chance={"accuracy": 50.0}, predictions="p", sha256="0",
        )  # fmt: skip
        return Results(run=f"r{seed}", method="m", backbone="b", seed=seed, records=[record])

    line = seeds_table([results(0, 80.0), results(1, 84.0), results(2, 82.0)]).splitlines()[-1]
    assert line.split() == ["s", "t", "en", "dev", "accuracy", "82.00", "2.00", "80.00", "84.00", "82.00"]


def test_a_run_selects_an_epoch_and_a_rate_on_rows_it_does_not_report(tiny_run, tmp_path):
    """Every rate trains from the same start; the manifest says what was measured and chosen."""
    options = ("--tasks", "demo-topic", "--languages", "en", "--max-train", 60, "--epochs", 3, "--batch", 10)
    status, _, error = tiny_run(*options, "--learning-rate", "1e-9,3e-2", "--out", tmp_path, "--name", "x")
    assert status == 0, error
    manifest = read_model(tmp_path / "x" / "manifest.json", Manifest)
    chosen = manifest.selection
    assert chosen.rule == "held-out"
    assert chosen.rows == {"demo-topic": 6}
    assert set(chosen.measured) == {"1e-09", "0.03"}
    assert [step for step, _ in chosen.measured["0.03"]] == [6, 12, 18]
    best = {rate: max(score for _, score in points) for rate, points in chosen.measured.items()}
    assert chosen.learning_rate == max((float(rate) for rate in best), key=lambda rate: best[f"{rate:g}"])
    points = chosen.measured[f"{chosen.learning_rate:g}"]
    assert chosen.step == next(step for step, score in points if score == max(s for _, s in points))
    assert not (tmp_path / "x" / "checkpoints").exists()
    # alone, a rate ends where it ended beside the other
    for rate in ("1e-9", "3e-2"):
        status, _, error = tiny_run(*options, "--learning-rate", rate, "--out", tmp_path, "--name", f"r{rate}")
        assert status == 0, error
        alone = read_model(tmp_path / f"r{rate}" / "manifest.json", Manifest)
        assert alone.selection.measured[f"{float(rate):g}"] == chosen.measured[f"{float(rate):g}"]


def test_the_papers_selection_is_marked(tiny_run, tmp_path):
    options = ("--tasks", "demo-topic,demo-translation", "--languages", "en,de", "--max-train", 30, "--max-steps", 2)
    status, _, error = tiny_run(*options, "--selection", "paper", "--out", tmp_path, "--name", "x")
    assert status == 0, error
    selection = read_model(tmp_path / "x" / "manifest.json", Manifest).selection
    assert selection.rule == "paper"
    assert selection.rows == {"demo-topic": 160}
    status, _, error = tiny_run(*options, "--selection", "last", "--learning-rate", "1e-3,1e-2", "--out", tmp_path)
    assert status == 2
    assert "--learning-rate: several, but nothing selects" in error


def test_seeds_and_shots_on_the_command_line(tiny_run, tmp_path):
    options = ("--tasks", "demo-topic", "--languages", "en", "--shots", 8, "--max-eval", 5, "--max-steps", 1)
    status, output, error = tiny_run(*options, "--seeds", 2, "--seed", 4, "--out", tmp_path, "--name", "x", "--json")
    assert status == 0, error
    assert [run["seed"] for run in json.loads(output)] == [4, 5]
    for seed in (4, 5):
        manifest = read_model(tmp_path / f"x-s{seed}" / "manifest.json", Manifest)
        assert manifest.limits == {"shots": 8, "max_eval": 5, "max_steps": 1}
        assert manifest.selection.rows == {"demo-topic": 8}
        assert (tmp_path / f"x-s{seed}" / "predictions" / "demo-topic.en.test.jsonl.gz").exists()
    status, _, error = tiny_run(*options, "--seeds", 0)
    assert (status, "--seeds 0" in error) == (2, True)
