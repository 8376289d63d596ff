"""The numbers of the board: intervals against scipy, comparisons and ranks against loops, and what is kept of runs."""

from __future__ import annotations

import json
import os
import random
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from fake_runs import draw, write_run, write_runs
from scipy import stats

from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.registry import find_suite
from benchmarks.results import ResultRecord, Results, read_model, read_predictions, write_predictions
from benchmarks.schema import results_schema
from benchmarks.scoring import average, gap, score
from benchmarks.task import Kind, TaskCard
from leaderboard import show, verify
from leaderboard.board import Board, Figure, Flag, Standing, Table
from leaderboard.bootstrap import (
    Sums,
    across_seeds,
    by_scorer,
    exact_end,
    identity,
    intervals,
    normals,
    replicates,
    scored,
    sums_of,
    units_of,
)
from leaderboard.build import build
from leaderboard.quoted import FILE, quotes
from leaderboard.ranking import compare, holm, ranks
from leaderboard.runs import read_run
from leaderboard.tables import make_board

ROOT = Path(__file__).parents[1]
GLUE = [task.card for task in find_suite("glue").tasks]
SPLITS = {task.name: task.eval_split for task in find_suite("glue").tasks}
MANY = TaskCard(
    name="many", suite="own", kind=Kind.CLASSIFICATION, labels=("a", "b"), languages=("en", "de", "sw"),
    metrics=("accuracy",),
)  # fmt: skip
TAGS = TaskCard(name="tags", suite="own", kind=Kind.TAGGING, labels=("B-X", "I-X", "B-Y", "O"), metrics=("f1",))
SPAN = TaskCard(name="span", suite="own", kind=Kind.SPAN, metrics=("f1", "em"))
RETRIEVAL = TaskCard(name="retrieval", suite="own", kind=Kind.RETRIEVAL, train_language=None, metrics=("accuracy",))
MINED = RETRIEVAL.model_copy(update={"name": "mined", "metrics": ("f1",), "no_answer": True})
TEXTS = TaskCard(name="texts", suite="own", kind=Kind.CHOICE, metrics=("f1", "em"))
THREE = TaskCard(
    name="three", suite="own", kind=Kind.CLASSIFICATION, labels=("x", "y", "z"), metrics=("f1", "f1_macro", "matthews"),
)  # fmt: skip
GROUPED = TaskCard(
    name="grouped", suite="own", kind=Kind.CLASSIFICATION, labels=("no", "yes"),
    metrics=("f1a", "em", "parity", "accuracy", "matthews"),
)  # fmt: skip
STSB = next(card for card in GLUE if card.kind is Kind.REGRESSION)


# Intervals


def rows_for(card: TaskCard, skill: float, seed: int, rows: int) -> list[Prediction]:
    """Drawn predictions; of one card in groups, of one with sentences that have no partner or were given none."""
    if card.name == "texts":
        return draw(SPAN.model_copy(update={"name": "texts"}), "en", skill, seed, rows)
    drawn = draw(card, "en", skill, seed, rows)
    if card.no_answer:
        return [
            replace(row, gold=row.gold if number % 3 else "", value=row.value if number % 4 else "")
            for number, row in enumerate(drawn)
        ]
    in_groups = card.name == "grouped"
    return [replace(row, group=str(int(number**0.7))) for number, row in enumerate(drawn)] if in_groups else drawn


def together(units: list[list[Prediction]]) -> list[Prediction]:
    """The rows of a resample, where a group that was drawn twice is two groups."""
    return [replace(row, group=f"{row.group}#{number}") for number, unit in enumerate(units) for row in unit]


def sums_for(card: TaskCard, rows: Sequence[Prediction], metric: str) -> Sums:
    return sums_of(units_of(rows), card, metric, lambda part: score(card, part).get(metric, np.nan))


def made(card: TaskCard, rows: Sequence[Prediction], metric: str) -> tuple[float, float]:
    found = replicates([sums_for(card, rows, metric)], "cell", identity(units_of(rows)))
    low, high = intervals(found[0])
    return float(low), float(high)


def reference(card: TaskCard, rows: list[Prediction], metric: str) -> tuple[float, float]:
    """By scipy, unit by unit, through the official scorer."""
    units = [list(unit) for _, unit in groupby(rows, lambda row: row.group or row.id)]

    def of_resample(indices: np.ndarray) -> float:
        return score(card, together([units[i] for i in indices]))[metric]

    found = stats.bootstrap(
        (np.arange(len(units)),), of_resample, vectorized=False, n_resamples=400 if metric == "matthews" else 1000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return found.low, found.high


@pytest.mark.parametrize(
    ("card", "metric", "rows"),
    [
        (MANY, "accuracy", 80),
        (TAGS, "f1", 40),
        (SPAN, "f1", 60),
        (MINED, "f1", 60),
        (THREE, "matthews", 60),
        (GROUPED, "em", 90),
        (STSB, "pearson", 60),
        (STSB, "spearman", 60),
    ],
    ids=lambda value: value.name if isinstance(value, TaskCard) else str(value),
)
def test_interval_equals_scipys(card: TaskCard, metric: str, rows: int) -> None:
    card = card.model_copy(update={"metrics": (metric,)})
    predictions = rows_for(card, 0.6, 1, rows)
    found, expected = made(card, predictions, metric), reference(card, predictions, metric)
    width = expected[1] - expected[0]
    assert width > 5
    assert np.allclose(found, expected, atol=0.16 * width)


@pytest.mark.parametrize(
    "card", [MANY, TAGS, SPAN, TEXTS, RETRIEVAL, MINED, THREE, GROUPED, *GLUE], ids=lambda card: card.name
)
def test_rows_drawn_any_number_of_times_give_the_official_score(card: TaskCard) -> None:
    predictions = rows_for(card, 0.5, 3, 50)
    units = [list(unit) for unit in units_of(predictions)]
    counts = np.random.default_rng(5).multinomial(len(units), [1 / len(units)] * len(units), size=5).astype(float)
    repeated = [together([units[i] for i in np.repeat(np.arange(len(units)), drawn.astype(int))]) for drawn in counts]
    for metric in card.metrics:
        sums = sums_for(card, predictions, metric)
        assert sums.formula != "scorer" and len(sums.values) == len(units)
        assert np.allclose(scored(sums, counts), [score(card, part)[metric] for part in repeated])


def test_replicates_are_the_scores_of_the_drawn_rows() -> None:
    """Several systems at once, in two groups of formulas, against the scorer on each resample."""
    cards = [THREE, THREE, THREE.model_copy(update={"metrics": ("accuracy",)})]
    systems = [rows_for(THREE, skill, 1, 40) for skill in (0.4, 0.7, 0.7)]
    metrics = ["f1_macro", "f1_macro", "accuracy"]
    cells = [sums_for(card, rows, metric) for card, rows, metric in zip(cards, systems, metrics, strict=True)]
    found = replicates(cells, "cell", 7, 30)
    for card, rows, metric, of_system in zip(cards, systems, metrics, found, strict=True):

        def scorer(part: Sequence[Prediction], card: TaskCard = card, metric: str = metric) -> float:
            return score(card, part)[metric]

        units = units_of(rows)
        again = replicates([sums_for(card, rows, metric)], "cell", identity(units), 30)[0]
        assert np.allclose(again, by_scorer(units, scorer, "cell", 30), atol=1e-3)
        assert len(set(of_system.tolist())) > 5


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "matthews"])
def test_labels_that_a_resample_lacks(metric: str) -> None:
    """One row drawn alone: a label that does not occur counts in no mean, a constant side has no correlation."""
    predictions = rows_for(THREE, 0.5, 3, 20)
    ordered = [row for (row,) in units_of(predictions)]
    alone = [score(THREE, [row])[metric] for row in ordered]
    assert len(set(alone)) > 1 or metric == "matthews"
    assert np.allclose(scored(sums_for(THREE, predictions, metric), np.eye(20)), alone)


def test_rows_of_a_group_are_drawn_together() -> None:
    """Three answers that are right together say no more than one: the interval is the binomial one of 200 groups."""
    right = [number < 140 for number in range(200) for _ in range(3)]
    rows = [
        Prediction(str(number), "yes" if hit else "no", "yes", group=f"q{number // 3}")
        for number, hit in enumerate(right)
    ]
    for metric in ("accuracy", "em"):
        expected = 100 * stats.binom.ppf([0.025, 0.975], 200, 0.7) / 200
        assert np.allclose(made(GROUPED, rows, metric), expected, atol=1.0)


def test_the_order_of_a_file_does_not_matter() -> None:
    rows = draw(MANY, "en", 0.7, 1, 60)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert identity(units_of(rows)) == identity(units_of(shuffled))
    assert made(MANY, rows, "accuracy") == made(MANY, shuffled, "accuracy")


def test_rows_that_a_metric_does_not_count() -> None:
    """Exact match over the questions that have an answer: the others are drawn too, and count in no resample."""
    card = TaskCard(name="half", suite="own", kind=Kind.SPAN, metrics=("em_answerable",), no_answer=True)
    rows = [
        Prediction(f"{n:03}", "x" if n % 3 else "y", ("x",) if n % 2 else (), (0.5, 0.0), best="x") for n in range(120)
    ]
    sums = sums_for(card, rows, "em_answerable")
    counts = np.random.default_rng(2).multinomial(120, [1 / 120] * 120, size=4)
    repeated = [[rows[i] for i in np.repeat(np.arange(120), drawn)] for drawn in counts]
    assert np.allclose(scored(sums, counts.astype(float)), [score(card, part)["em_answerable"] for part in repeated])


def test_an_unknown_metric_goes_through_its_scorer() -> None:
    """Also a known name with another meaning, and ranks where rows are in groups."""
    predictions = draw(MANY, "en", 0.7, 1, 60)

    def odd(part: Sequence[Prediction]) -> float:
        return 100 * np.mean([row.value == row.gold for row in part]) ** 2

    units = units_of(predictions)
    assert sums_of(units, MANY, "squared", odd).formula == sums_of(units, MANY, "accuracy", odd).formula == "scorer"
    low, high = intervals(by_scorer(units, odd, "cell"))
    assert np.allclose([low, high], [end**2 / 100 for end in made(MANY, predictions, "accuracy")], atol=0.1)
    grouped = [replace(row, group=str(number // 2)) for number, row in enumerate(draw(STSB, "en", 0.6, 1, 40))]
    assert sums_for(STSB, grouped, "spearman").formula == "scorer"


def test_accuracy_interval_is_the_binomial_one() -> None:
    rows = [Prediction(str(i), "a" if i < 140 else "b", "a", (0.5, 0.5)) for i in range(200)]
    assert np.allclose(made(MANY, rows, "accuracy"), 100 * stats.binom.ppf([0.025, 0.975], 200, 0.7) / 200, atol=1.0)


def test_all_right_is_not_certain() -> None:
    """56 of 56: the exact interval of Clopper and Pearson."""
    expected = stats.binomtest(56, 56).proportion_ci(0.95, "exact").low
    assert 100 - exact_end(56) == pytest.approx(100 * expected)


def test_examples_are_paired_and_languages_are_drawn_apart() -> None:
    rows = draw(MANY, "en", 0.6, 1, 100)
    wrong = [replace(row, value="a" if row.value == "b" else "b") for row in rows]
    cells = [sums_for(MANY, part, "accuracy") for part in (rows, wrong)]
    one, opposite = replicates(cells, "many.en.test", 1)
    assert np.allclose(one + opposite, 100, atol=1e-3)
    (other,) = replicates(cells[:1], "many.de.test", 1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


def test_quantiles_are_numpys() -> None:
    found = np.random.default_rng(1).normal(size=(4, 1000)).astype(np.float32)
    low, high = intervals(found)
    assert np.allclose([low, high], np.quantile(found, [0.025, 0.975], axis=1), atol=1e-6)
    found[2, 5] = np.nan
    assert np.isnan(intervals(found)[0]).tolist() == [False, False, True, False]


# Seeds


def test_one_seed_says_nothing_of_seeds() -> None:
    found = np.random.default_rng(1).normal(70, 2, (1, 1000)).astype(np.float32)
    assert np.array_equal(across_seeds(found, np.array([70.0]), normals("row", 1, 1000)), found[0])


def test_seeds_that_differ_by_the_draw_of_examples_alone_add_nothing() -> None:
    """Both variances of Owen's crossed design: what seeds differ by for the examples is not counted twice."""
    rng = np.random.default_rng(3)
    variances = []
    for trial in range(30):
        right = rng.random((5, 400)) < 0.7
        cells = [Sums("mean", row[:, None].astype(float)) for row in right]
        found, scores = replicates(cells, "cell", trial, 300), 100 * right.mean(axis=1)
        variances.append(np.var(across_seeds(found, scores, normals(f"{trial}", 5, 300))))
    true = 100**2 * 0.7 * 0.3 / 2000
    assert true < np.mean(variances) < 2.2 * true  # 3 times, were they counted twice


def test_seeds_that_differ_by_more_widen_the_interval() -> None:
    """Nearly all variance is the seeds': the interval is that of Student's t for three values."""
    found = np.random.default_rng(1).normal(0, 0.01, (3, 1000)) + np.array([[60.0], [70.0], [77.0]])
    scores = np.array([60.0, 70.0, 77.0])
    low, high = intervals(across_seeds(found, scores, normals("row", 3, 20_000)[:, :1000]))
    expected = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert (high - low) == pytest.approx(expected.high - expected.low, rel=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "spread"),
    [(1, 0.0), (3, 0.0), (3, 0.1), (3, 0.2), (3, 0.5), (5, 0.0), (5, 0.1), (5, 0.5)],
)
def test_intervals_cover_the_truth(seeds: int, spread: float) -> None:
    """Simulation of docs/leaderboard.md: items of differing ease, seeds of differing skill, the truth over all of both.

    Of one seed the truth is its own score over all items. With half of a logit between seeds, which is much, three of
    them leave the widest uncertainty about the uncertainty itself.
    """
    rng = np.random.default_rng([7, seeds, round(100 * spread)])
    trials, items = 1500, 300
    ease = np.random.default_rng(1).normal(0.8, 1.2, 200_000)
    skill, weight = np.polynomial.hermite_e.hermegauss(15)  # the mean over a normal variable, to many digits
    shares = [np.mean(1 / (1 + np.exp(-(ease + spread * one)))) for one in skill]
    truth = 100 * np.average(shares, weights=weight)
    covered = 0
    for trial in range(trials):
        asked = rng.choice(ease, items)
        moved = spread * rng.normal(0, 1, (seeds, 1))
        right = rng.random((seeds, items)) < 1 / (1 + np.exp(-(asked + moved)))
        cells = [Sums("mean", row[:, None].astype(float)) for row in right]
        found = across_seeds(
            replicates(cells, f"t{trial}", 1), 100 * right.mean(axis=1), normals(f"{trial}", seeds, 1000)
        )
        low, high = intervals(found)
        covered += low <= truth <= high
    share = 100 * covered / trials
    print(f"{seeds} seeds, spread {spread}: {share:.1f} %")
    assert 93 <= share <= 97


@pytest.mark.slow
def test_differences_cover_the_truth() -> None:
    """Two systems of different skill on the same items."""
    rng = np.random.default_rng(11)
    covered, trials = 0, 1500
    ease = np.random.default_rng(1).normal(0.5, 1.2, 200_000)
    truth = 100 * np.mean(1 / (1 + np.exp(-(ease + 0.3))) - 1 / (1 + np.exp(-ease)))
    for trial in range(trials):
        asked = rng.choice(ease, 250)
        right = rng.random((2, 250)) < 1 / (1 + np.exp(-(asked + np.array([[0.3], [0.0]]))))
        ours, theirs = replicates([Sums("mean", row[:, None].astype(float)) for row in right], f"d{trial}", 1)
        result = compare(*(100 * right.mean(axis=1)), ours, theirs)
        covered += result.low <= truth <= result.high
    print(f"differences: {100 * covered / trials:.1f} %")
    assert 93 <= 100 * covered / trials <= 97


# Comparisons and ranks


def test_a_comparison_is_the_paired_one() -> None:
    """Against scipy's paired bootstrap of the difference, and McNemar's test without correction."""
    rng = np.random.default_rng(4)
    ease = rng.random(300)
    ours, theirs = rng.random(300) < 0.4 + 0.6 * ease, rng.random(300) < 0.3 + 0.6 * ease
    cells = [Sums("mean", row[:, None].astype(float)) for row in (ours, theirs)]
    result = compare(100 * ours.mean(), 100 * theirs.mean(), *replicates(cells, "cell", 1, 4000))
    expected = stats.bootstrap(
        (ours.astype(float), theirs.astype(float)), lambda a, b, axis: 100 * (a.mean(axis) - b.mean(axis)), paired=True,
        n_resamples=4000, method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    assert result.difference == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert np.allclose([result.low, result.high], expected.confidence_interval, atol=0.6)
    assert result.win == pytest.approx(np.mean(expected.bootstrap_distribution > 0), abs=0.03)
    better, worse = np.sum(ours & ~theirs), np.sum(theirs & ~ours)
    chi = (better - worse) ** 2 / (better + worse)
    assert result.p == pytest.approx(stats.chi2.sf(chi, 1), abs=0.02)


def test_equal_systems_do_not_differ() -> None:
    found = np.random.default_rng(1).normal(size=1000)
    result = compare(70.0, 70.0, found, found)
    assert (result.p, result.win, result.low, result.high) == (1.0, 0.5, 0.0, 0.0)
    assert [part.tolist() for part in ranks(np.array([70.0, 70.0]), np.stack([found, found]))] == [
        [1, 1],
        [2, 2],
        [1, 1],
    ]


def test_holm_is_holms() -> None:
    """Step by step: the smallest against a share for all, the next one for the rest, until one fails."""
    rng = np.random.default_rng(2)
    for p in (rng.random(9) ** 3, np.array([0.01, 0.011, 0.04]), np.array([0.2])):
        for level in (0.01, 0.025, 0.05, 0.2):
            left, rejected = sorted(range(len(p)), key=lambda one: p[one]), set()
            while left and p[left[0]] <= level / len(left):
                rejected.add(left.pop(0))
            assert {number for number, one in enumerate(holm(p)) if one <= level} == rejected


def test_ranks_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(6)
    scores = np.array([50.0, 61.0, 60.0, 71.0, 60.5, 40.0])
    found = scores[:, None] + rng.normal(0, 1, 1500) + rng.normal(0, 2.2, (6, 1500))
    low, high, group = ranks(scores, found)
    for one in range(6):
        others = [other for other in range(6) if other != one]
        p = holm(np.array([compare(scores[one], scores[other], found[one], found[other]).p for other in others]))
        certain = [other for other, each in zip(others, p, strict=True) if each <= 0.05]
        assert low[one] == 1 + sum(scores[other] > scores[one] for other in certain)
        assert high[one] == 6 - sum(scores[other] < scores[one] for other in certain)
    assert group[3] == 1 and group[1] == group[2] == group[4] and group[5] == group.max()


# The board


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("runs"), [*GLUE, MANY, TAGS, SPAN], SPLITS, 2)


@pytest.fixture(scope="module")
def board(runs: Path) -> Board:
    found = make_board([runs])
    assert found.complaints == ()
    return found


def suite_table(board: Board, name: str = "glue") -> Table:
    return next(suite.overview for suite in board.suites if suite.name == name)


def figure(table: Table, row: str, column: str) -> Figure | None:
    to = next(number for number, one in enumerate(table.columns) if one.id == column)
    at = next(number for number, one in enumerate(table.rows) if one.id == row)
    return table.figure(at, to)


def test_scores_are_those_of_the_predictions(runs: Path, board: Board) -> None:
    table = suite_table(board)
    records = [
        [ResultRecord.model_validate(record) for record in json.loads(path.read_text())["records"]]
        for path in sorted(runs.glob("prompt-s*/results.json"))
    ]
    official = np.mean([average(find_suite("glue"), of_seed)["average"] for of_seed in records])
    found = figure(table, "prompt-s0", "average")
    assert found is not None and found.score == pytest.approx(official, abs=1e-3)
    assert found.low is not None and found.low < official < found.high and found.parts == 9  # type: ignore[operator]
    files = [
        runs / f"prompt-s{seed}/predictions/many.{language}.test.jsonl.gz"
        for seed in (0, 1)
        for language in MANY.languages
    ]
    means = [np.mean([row.value == row.gold for row in read_predictions(file)]) for file in files]
    mean = figure(suite_table(board, "own"), "prompt-s0", "many")
    assert mean is not None and mean.score == pytest.approx(100 * np.mean(means))


def test_intervals_of_the_board_are_those_of_its_cells(runs: Path, board: Board) -> None:
    """Every task and language of a run with one seed, computed here from its predictions alone."""
    cells = [(card.name, "en", SPLITS.get(card.name, "test")) for card in (*GLUE, TAGS, SPAN)]
    cells += [("many", language, "test") for language in MANY.languages]
    tasks = {task.card.name: task for suite in board.suites for task in suite.tasks}
    for name, language, split in cells:
        card, table = tasks[name].card, tasks[name].by_language
        rows = read_predictions(runs / f"tuned/predictions/{name}.{language}.{split}.jsonl.gz")
        sums = sums_for(card, rows, card.metrics[0])
        low, high = intervals(replicates([sums], f"{name}.{language}.{split}", identity(units_of(rows))))
        found = figure(table, "tuned", language)
        assert found is not None and found.low is not None and found.high is not None
        lowest = -100 if card.metrics[0] in ("matthews", "pearson") else 0
        assert found.low == pytest.approx(max(low.item(), lowest), abs=1e-3), name
        assert found.high == pytest.approx(min(high.item(), 100), abs=1e-3), name


def test_values_of_runs_of_one_form_are_stacked_in_their_places(tmp_path: Path) -> None:
    for name, skill in (("a", 0.6), ("b", 0.8)):
        write_run(
            tmp_path / name, [MANY, THREE.model_copy(update={"metrics": ("accuracy",)})], method=name, skill=skill
        )
    (suite,) = make_board([tmp_path]).suites
    table = next(task.by_language for task in suite.tasks if task.card.name == "many")
    for run in ("a", "b"):
        for language in MANY.languages:
            rows = read_predictions(tmp_path / f"{run}/predictions/many.{language}.test.jsonl.gz")
            found = replicates([sums_for(MANY, rows, "accuracy")], f"many.{language}.test", identity(units_of(rows)))
            ends, shown = intervals(found), figure(table, run, language)
            assert shown is not None and (shown.low, shown.high) == pytest.approx((ends[0].item(), ends[1].item()))


def test_a_row_of_figures_is_its_figures(board: Board) -> None:
    for table in show.tables_of(board):
        for row in range(len(table.rows)):
            assert table.figures(row) == tuple(table.figure(row, column) for column in range(len(table.columns)))


def test_chance_of_a_language_is_that_of_its_predictions(runs: Path, board: Board) -> None:
    """The page of a language has a column a task; each task's page has one a language."""
    seen = 0
    for language in board.languages:
        for column in language.table.columns:
            [record] = {
                record.chance[column.metric]
                for folder in ("prompt-s0", "prompt-s1")
                for record in read_model(runs / folder / "results.json", Results).records
                if (record.task, record.language) == (column.task, language.code)
            }
            assert column.chance == pytest.approx(record, abs=1e-3)
            seen += 1
    assert seen > 5


def test_an_average_over_fewer_says_so_and_has_no_rank(board: Board) -> None:
    found = figure(suite_table(board), "part", "average")
    assert found is not None and Flag.PARTIAL in found.flags and found.parts == 1 and found.rank is None
    assert figure(suite_table(board), "part", GLUE[1].name) is None
    mean = figure(suite_table(board, "own"), "part", "many")
    assert mean is not None and (mean.parts, mean.rank) == (1, None) and Flag.PARTIAL in mean.flags
    short = figure(suite_table(board), "short", "average")
    assert short is not None and Flag.LIMITED in short.flags and short.rank is None
    best = figure(suite_table(board), "prompt-s0", "average")
    assert best is not None and best.rank == (1, 1) and best.group == 1


def test_one_seed_missing_is_partial(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [MANY], seed=0, config="x = 1\n")
    folder = write_run(tmp_path / "b", [MANY], seed=1, config="x = 1\n")
    results = json.loads((folder / "results.json").read_text())
    results["records"] = [record for record in results["records"] if record["language"] != "de"]
    (folder / "results.json").write_text(json.dumps(results))
    (suite,) = make_board([tmp_path]).suites
    table = suite.tasks[0].by_language
    assert len(table.rows) == 1
    figures = {column.id: table.figure(0, number) for number, column in enumerate(table.columns)}
    flags = {name: found.flags for name, found in figures.items() if found is not None}
    assert {name for name, flag in flags.items() if Flag.PARTIAL in flag} >= {"mean", "de"}
    assert Flag.PARTIAL not in flags["en"]


def test_the_gap_is_xtremes(tmp_path: Path) -> None:
    task = next(task for task in find_suite("xtreme").tasks if task.name == "pawsx")
    folder = write_run(tmp_path / "a", [task.card], splits={"pawsx": task.eval_split})
    (suite,) = make_board([tmp_path]).suites
    found = figure(suite.tasks[0].by_language, "a", "gap")
    expected = gap(task, read_model(folder / "results.json", Results).records)
    assert found is not None and expected is not None and found.score == pytest.approx(expected, abs=1e-3)


def test_the_gap_of_few_languages_is_over_these_and_marked(tmp_path: Path) -> None:
    task = next(task for task in find_suite("xtreme").tasks if task.name == "pawsx")
    splits = {"pawsx": task.eval_split}
    for name, languages in (("a", ["en", "de", "ja"]), ("b", ["en", "de"]), ("c", ["de", "ja"])):
        write_run(tmp_path / name, [task.card], splits=splits, languages=languages, method=f"method-{name}")
    (suite,) = make_board([tmp_path]).suites
    table = suite.tasks[0].by_language
    alone = {code: figure(table, "a", code) for code in ("en", "de", "ja")}
    found = figure(table, "a", "gap")
    assert found is not None and Flag.PARTIAL in found.flags and found.rank is None
    wanted = alone["en"].score - (alone["de"].score + alone["ja"].score) / 2
    assert found.score == pytest.approx(wanted, abs=1e-3)
    assert figure(table, "b", "gap") is None and figure(table, "c", "gap") is None
    assert next(column.note for column in table.columns if column.kind == "gap") == ("3 languages",)


def test_quoted_rows_have_a_source_and_no_rank(board: Board) -> None:
    table = suite_table(board)
    quoted = [row for row in table.rows if row.standing is Standing.QUOTED]
    assert quoted and all(row.source and not row.runs for row in quoted)
    assert table.rows[-len(quoted) :] == tuple(quoted)
    published = {(task.name, one.metric): one.value for task in find_suite("glue").tasks for one in task.published}
    bert = next(row.id for row in quoted if row.backbone == "bert-base-cased")
    found = figure(table, bert, "sst2")
    assert found is not None and found.score == published["sst2", "accuracy"]
    assert found.flags == Flag.QUOTED and found.rank is None and found.low is None
    assert bert not in board.replicates


def test_quoted_numbers_are_of_tasks_and_metrics_that_exist() -> None:
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))["table"]
    assert {table["suite"] for table in tables} >= {"xtreme", "glue", "conll", "squad"}
    for table in tables:
        assert "github.com/" in table["source"] and table["scores"]
        cards = {task.card.name: task.card for task in find_suite(table["suite"]).tasks}
        for task, metrics in table["scores"].items():
            assert metrics.keys() <= set(cards[task].metrics)
            assert all(0 < value < 100 for value in metrics.values())
    rows = [quote.row.id for quote in quotes([find_suite(name) for name in ("xtreme", "glue", "superglue", "conll")])]
    assert len(rows) == len(set(rows)) > 15


def test_official_and_paper_stand_side_by_side(tmp_path: Path) -> None:
    task = next(task for task in find_suite("conll").tasks if task.card.metrics[0] == "f1_official")
    write_run(tmp_path / "a", [task.card], splits={task.name: task.eval_split}, rows=20)
    (suite,) = make_board([tmp_path]).suites
    columns = [column.metric for column in suite.tasks[0].metrics.columns]
    assert columns == ["f1_official", "f1_paper"]
    quoted = {row.id for row in suite.tasks[0].metrics.rows if row.standing is Standing.QUOTED}
    for row in quoted:
        assert figure(suite.tasks[0].metrics, row, "metric:f1_official") is None


def test_other_examples_are_not_compared(tmp_path: Path) -> None:
    for name, skill in (("a", 0.6), ("b", 0.5)):
        write_run(tmp_path / name, [TAGS], method=name, skill=skill)
    folder = write_run(tmp_path / "c", [TAGS], method="c", skill=0.99)
    path = folder / "predictions/tags.en.test.jsonl.gz"
    write_predictions(path, [replace(row, id=f"other-{row.id}") for row in read_predictions(path)])
    (suite,) = make_board([tmp_path]).suites
    found = {row.id: figure(suite.overview, row.id, "tags") for row in suite.overview.rows}
    assert Flag.OTHER in found["c"].flags and found["c"].rank is None and found["a"].rank is not None  # type: ignore[union-attr]


def test_breakdowns_count_every_row(board: Board) -> None:
    own = next(suite for suite in board.suites if suite.name == "own")
    table = next(task for task in own.tasks if task.card.name == "many").breakdowns["tuned"]
    assert table.kind == "confusion" and table.counts.sum() == 180
    wrong = table.counts[0, 1] + table.counts[1, 0]
    found = figure(suite_table(board, "own"), "tuned", "many")
    assert found is not None and 100 * (1 - wrong / 180) == pytest.approx(found.score)
    types = next(task for task in own.tasks if task.card.name == "tags").breakdowns["tuned"]
    right, given, gold = types.counts.sum(axis=0)
    by_chunks = figure(suite_table(board, "own"), "tuned", "tags")
    assert by_chunks is not None and 200 * right / (given + gold) == pytest.approx(by_chunks.score)


def test_comparisons_come_from_what_is_handed_on(board: Board) -> None:
    lines = {line["where"]: line for line in show.comparison(board, "prompt-s0", "tuned")}
    table = suite_table(board)
    ours, theirs = figure(table, "prompt-s0", "sst2"), figure(table, "tuned", "sst2")
    assert ours is not None and theirs is not None
    assert lines["SST-2"]["difference"] == pytest.approx(ours.score - theirs.score)
    single = [line for line in lines.values() if "corrected" in line]
    assert "corrected" not in lines["GLUE: Average"] and len(single) == len(lines) - 2  # and the mean of many
    assert holm(np.array([line["p"] for line in single])).tolist() == [line["corrected"] for line in single]


# Files


def contents(board: Board) -> str:
    tables = [
        (
            table.id,
            [row.id for row in table.rows],
            [
                np.nan_to_num(getattr(table, name), nan=-1).tolist()
                for name in ("score", "low", "high", "rank_low", "flags")
            ],
        )
        for table in show.tables_of(board)
    ]
    return json.dumps([tables, {name: part.values.tolist() for name, part in board.replicates.items()}])


def test_equal_input_gives_equal_numbers_kept_or_not(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    plain = contents(make_board([runs]))
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path))
    assert contents(make_board([runs])) == plain
    assert list((tmp_path / "board").glob("*.safetensors"))
    assert contents(make_board(sorted(runs.iterdir(), reverse=True))) == plain


@pytest.mark.parametrize("damage", ['{"id": ', "", '{"id": "c"}', "[1]"])
def test_a_damaged_line_of_predictions_is_named(tmp_path: Path, damage: str) -> None:
    row = '{"id": "a", "prediction": "x", "gold": "y"}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(2 * row)
    assert read_predictions(path) == [Prediction("a", "x", "y")] * 2
    path.write_text(f"{2 * row}{damage}\n{row}")
    with pytest.raises(PolypromptError, match=r"rows.jsonl:3: damaged"):
        read_predictions(path)


def test_several_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and writing: the first time, again, and after a change of one run and damage of another."""
    write_runs(tmp_path / "runs", [TAGS, MANY], {}, 2)
    monkeypatch.setattr("leaderboard.processes.os.sched_getaffinity", lambda _: {0, 1, 2})

    def built(shared: int, cache: str, out: str) -> dict[str, bytes]:
        monkeypatch.setenv("POLYPROMPT_CACHE", cache if cache == "off" else str(tmp_path / cache))
        monkeypatch.setattr("leaderboard.runs.SHARED_RUNS", shared)
        monkeypatch.setattr("leaderboard.build.SHARED_RUNS", shared)
        build([tmp_path / "runs"], tmp_path / out)
        files = (path for path in (tmp_path / out).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / out)): path.read_bytes() for path in files}

    alone = built(99, "off", "alone")
    assert built(1, "cache", "shared") == built(1, "cache", "shared") == alone
    path = tmp_path / "runs/tuned/predictions/many.de.test.jsonl.gz"
    write_predictions(path, [replace(row, value=row.gold) for row in read_predictions(path)])  # type: ignore[arg-type]
    (tmp_path / "runs/part/results.json").write_text("{}")
    changed = built(1, "cache", "shared")
    assert changed == built(99, "off", "alone") != alone
    assert b"left out" in changed["index.html"]


def test_nothing_stale_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions of the same size with the times of the old ones, other code, and a damaged file."""
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("leaderboard.runs.YOUNG", 0)
    folder = write_run(tmp_path / "runs/a", [TAGS])
    path = folder / "predictions/tags.en.test.jsonl.gz"
    made = []
    monkeypatch.setattr("leaderboard.runs.make_digest", lambda *all_: made.append(1) or original(*all_))
    from leaderboard.digest import make_digest as original

    def of() -> float:
        (suite,) = make_board([tmp_path / "runs"]).suites
        found = figure(suite.overview, "a", "tags")
        assert found is not None
        return found.score

    before = of()
    assert (of(), len(made)) == (before, 1)
    content, times = path.read_bytes(), path.stat()
    write_predictions(path, [replace(row, value=row.gold) for row in read_predictions(path)])  # type: ignore[arg-type]
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (of(), len(made)) == (100.0, 2)
    path.write_bytes(content)
    assert (of(), len(made)) == (before, 3)
    times = path.stat()
    with path.open("r+b") as file:  # the time in the head of a gzip file: same size, inode and time of content
        file.seek(4)
        file.write(b"\1")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (of(), len(made)) == (before, 4)
    path.write_bytes(content)
    assert (of(), len(made)) == (before, 5)
    os.utime(path)  # other times, equal bytes: hashed, not computed
    assert (of(), len(made)) == (before, 5)
    monkeypatch.setattr("leaderboard.runs.code_version", lambda: "other")
    assert (of(), len(made)) == (before, 6)
    for kept in (tmp_path / "cache/board").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    assert (of(), len(made)) == (before, 7)


def test_a_result_from_elsewhere(tmp_path: Path) -> None:
    """With predictions it ranks, without them it is marked; a broken or hostile one is named and left out."""
    sst2 = next(card for card in GLUE if card.name == "sst2")
    write_run(tmp_path / "runs/a", [sst2], splits=SPLITS)
    rows = draw(sst2, "en", 0.95, 9)
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"id": row.id, "prediction": row.value, "gold": row.gold}) + "\n" for row in rows)
    )
    record = {"task": "sst2", "suite": "glue", "language": "en", "split": "dev", "examples": 60}
    right = score(sst2, rows)["accuracy"]
    head = {"version": 2, "run": "mine", "method": "theirs", "backbone": "big", "seed": 0, "source": "a letter"}
    files = {
        "good": head | {"records": [record | {"scores": {"accuracy": right}, "predictions": "mine.jsonl"}]},
        "said": head | {"run": "said", "records": [record | {"scores": {"accuracy": 99.0}}]},
        "climbs": head
        | {"run": "x", "records": [record | {"scores": {"accuracy": 1.0}, "predictions": "../../etc/passwd"}]},
        "absent": head | {"run": "y", "records": [record | {"scores": {"accuracy": 1.0}, "predictions": "none.jsonl"}]},
        "unknown": head | {"run": "z", "records": [record | {"task": "sst3", "scores": {"accuracy": 1.0}}]},
        "infinite": head | {"run": "n", "records": [record | {"scores": {"accuracy": float("nan")}}]},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "broken.json").write_text("[" * 100_000)
    extra = [tmp_path / f"{name}.json" for name in (*files, "broken", "nowhere")]
    board = make_board([tmp_path / "runs"], extra)
    for name in ("climbs", "absent", "unknown", "infinite", "broken", "nowhere"):
        assert sum(f"{name}.json" in one or f"{name}.jsonl" in one for one in board.complaints) >= (name != "absent"), (
            name
        )
    assert len(board.complaints) == 6
    table = suite_table(board)
    mine, said = (next(row for row in table.rows if row.id == f"outside-{name}") for name in ("mine", "said"))
    assert (mine.standing, said.standing) == (Standing.VERIFIED, Standing.UNVERIFIED)
    assert mine.source == "a letter" and mine.runs == ()
    found, claimed = figure(table, mine.id, "sst2"), figure(table, said.id, "sst2")
    assert found is not None and found.rank is not None and found.low is not None
    assert claimed is not None and claimed.flags == Flag.UNVERIFIED and claimed.rank is None and claimed.low is None
    assert claimed.score == 99.0
    folder = make_board([], [tmp_path])  # of all files in it, and of no run
    assert {row.id for row in suite_table(folder).rows} >= {mine.id, said.id} and len(folder.complaints) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolypromptError, match="empty: the folder holds no file"):
        make_board([tmp_path / "runs"], [tmp_path / "empty"])


def test_version_1_of_results_is_read(tmp_path: Path) -> None:
    """A stored file of version 1 says in version 2 what it said."""
    path = Path(__file__).parent / "stored/results-1.json"
    old, new = json.loads(path.read_text()), read_model(path, Results)
    assert old["version"] == 1 and new.version == 2
    read = new.model_dump(mode="json")
    assert {key: read[key] for key in old} | {"version": 1} == old
    folder = write_run(tmp_path / "a", [MANY])
    results = json.loads((folder / "results.json").read_text())
    for key in ("prompt", "source", "tasks"):
        del results[key]
    (folder / "results.json").write_text(json.dumps(results | {"version": 1}))
    assert make_board([tmp_path]).complaints == ()


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads((ROOT / "docs/schema/results-2.json").read_text())
    assert published == results_schema()
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    head = {"version": 2, "run": "r", "method": "m", "backbone": "b", "seed": 0, "records": []}
    jsonschema.validate(head, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(head | {"surprise": 1}, published)


# Commands


def test_verify_signs_off(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(runs / "tuned"), "--json", "--out", str(tmp_path / "record.json")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert record["agrees"] and all(number["agrees"] for number in record["numbers"])
    stored = json.loads((runs / "tuned/results.json").read_text())["records"]
    assert len(record["numbers"]) == sum(len(one["scores"]) + len(one["chance"]) for one in stored)
    assert record["predictions"] == {one["predictions"]: one["sha256"] for one in stored}


@pytest.mark.parametrize("what", ["scores", "chance", "sha256", "examples"])
def test_verify_names_every_mismatch(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "a", [MANY])
    results = json.loads((folder / "results.json").read_text())
    record = results["records"][1]
    if what in ("scores", "chance"):
        record[what]["accuracy"] += 0.001
    else:
        record[what] = "00" * 32 if what == "sha256" else 61
    (folder / "results.json").write_text(json.dumps(results))
    assert verify.main([str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("differs: many, de, test: ")
    assert read_run(folder).id == "a"


def test_show_tells_rows_of_one_method_and_encoder_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = (
        "128 slots in layers 0-11, init normal, made by an MLP that is folded away, positions shifted behind the prompt"
    )
    for name, prompt in (("a", "4 slots in layers 0-11, init kv"), ("b", long), ("c", long)):
        write_run(tmp_path / name, [MANY], prompt=prompt, config=f'name = "{name}"\nrank = {ord(name)}\n')
    write_run(tmp_path / "d", [MANY], method="fine-tune", prompt="none")
    assert show.main([str(tmp_path), "--table", "own.many", "--format", "tsv"]) == 0
    headings = {line.split("\t")[0].strip() for line in capsys.readouterr().out.splitlines()[2:]}
    ours = "ptuning-v2, xlm-roberta-base"
    assert headings == {
        f"{ours}, 4 slots in layers 0-11, init kv", f"{ours}, {long}, rank 98", f"{ours}, {long}, rank 99",
        "fine-tune, xlm-roberta-base",
    }  # fmt: skip


def test_show_prints_the_same_table(runs: Path, board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main([str(runs), "--table", "glue", "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    table = suite_table(board)
    assert [row["id"] for row in printed["rows"]] == [row.id for row in table.rows]
    found = figure(table, "prompt-s0", "average")
    assert found is not None and printed["rows"][0]["figures"]["average"]["score"] == round(found.score, 4)
    assert next(row for row in printed["rows"] if row["id"] == "part")["figures"]["average"]["flags"] == ["partial"]
    assert show.main([str(runs), "--table", "glue"]) == 0
    text = capsys.readouterr().out
    assert "(1 of 9)" in text and "quoted" in text and f"{found.score:.1f} [" in text
    assert show.main([str(runs), "--compare", "prompt-s0", "tuned", "--format", "github"]) == 0
    assert "| SST-2" in capsys.readouterr().out
