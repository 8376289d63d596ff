"""The threshold of "no answer", beside a search over every cut."""

import numpy as np
import pytest

from benchmarks.records import Prediction
from benchmarks.results import read_predictions, write_predictions
from benchmarks.scoring import score
from benchmarks.task import Kind, TaskCard
from benchmarks.thresholds import choose_threshold, cross_fitted, with_threshold


def card(kind: Kind, no_answer: bool = True) -> TaskCard:
    metrics = ("em", "em_paper") if kind is Kind.SPAN else ("accuracy",)
    return TaskCard(name="t", suite="s", kind=kind, metrics=metrics, no_answer=no_answer)


def questions(seed: int, count: int = 40) -> list[Prediction]:
    """Answers whose "no answer" scores are high where there is none, with ties."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        answerable = bool(random.random() < 0.6)
        doubt = float(np.round(random.normal(-1 if answerable else 2, 2) * 2) / 2)
        best = "the right one" if random.random() < 0.7 else "another"
        gold = ("right one", "or this") if answerable else ()
        rows.append(Prediction(str(number), "" if doubt > 0 else best, gold, (0.5, doubt), best))
    return rows


def pairs(seed: int, count: int = 40) -> list[Prediction]:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        has = bool(random.random() < 0.4)
        right = has and bool(random.random() < 0.8)
        cosine = float(np.round(random.normal(0.8 if right else 0.6, 0.1), 1))
        best = "en-1" if right else "en-2"
        rows.append(Prediction(str(number), best, "en-1" if has else "", (cosine, 9.0), best))
    return rows


def exact(rows: list[Prediction]) -> float:
    return np.mean([row.value == ("the right one" if row.gold else "") for row in rows])


def pair_f1(rows: list[Prediction]) -> float:
    given, gold = [row for row in rows if row.value], [row for row in rows if row.gold]
    right = sum(row.value == row.gold for row in given)
    return 2 * right / (len(given) + len(gold)) if right else 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("kind", "make", "measure"), [(Kind.SPAN, questions, exact), (Kind.RETRIEVAL, pairs, pair_f1)])
def test_no_other_threshold_is_better(seed, kind, make, measure):
    rows = make(seed)
    axis = 1 if kind is Kind.SPAN else 0
    values = sorted({row.scores[axis] for row in rows})
    cuts = [values[0] - 1, *values, *np.add(values[1:], values[:-1]) / 2, values[-1] + 1]
    best = max(measure(with_threshold(card(kind), rows, cut)) for cut in cuts)
    chosen = choose_threshold(card(kind), rows)
    assert np.isfinite(chosen)
    assert measure(with_threshold(card(kind), rows, chosen)) == pytest.approx(best)


def test_what_a_threshold_means():
    span = [Prediction("a", "", (), (0.5, 1.0), "x"), Prediction("b", "y", (), (0.5, -1.0), "y")]
    assert [row.value for row in with_threshold(card(Kind.SPAN), span, 1.0)] == ["x", "y"]
    assert [row.value for row in with_threshold(card(Kind.SPAN), span, 0.0)] == ["", "y"]
    assert [row.value for row in with_threshold(card(Kind.SPAN), span, -2.0)] == ["", ""]
    found = [Prediction("a", "1", "1", (0.9, 5.0), "1"), Prediction("b", "2", "", (0.4, 5.0), "2")]
    assert [row.value for row in with_threshold(card(Kind.RETRIEVAL), found, 0.5)] == ["1", ""]
    assert [row.value for row in with_threshold(card(Kind.RETRIEVAL), found, 0.4)] == ["1", "2"]
    assert with_threshold(card(Kind.SPAN, no_answer=False), span, -2.0) == span
    assert choose_threshold(card(Kind.SPAN), [Prediction("a", "", None, (0.5, 1.0), "x")]) == 0.0


def test_the_paper_takes_the_threshold_at_zero_whatever_was_chosen():
    rows = questions(3)
    moved = with_threshold(card(Kind.SPAN), rows, 1.5)
    assert exact(moved) != exact(rows), "the rows were chosen for this"
    assert score(card(Kind.SPAN), moved) == {
        "em": pytest.approx(100 * exact(moved)),
        "em_paper": pytest.approx(100 * exact(rows)),
    }


def test_cross_fitting_never_looks_at_the_rows_it_decides():
    rows = questions(5)
    fitted = cross_fitted(card(Kind.SPAN), rows)
    assert [row.id for row in fitted] == [row.id for row in rows]
    odd = with_threshold(card(Kind.SPAN), rows[1::2], choose_threshold(card(Kind.SPAN), rows[::2]))
    assert fitted[1::2] == odd


def test_best_and_group_survive_the_file(tmp_path):
    rows = [*questions(1, 3), Prediction("g", "True", "False", (0.1, 0.9), None, "question-1")]
    write_predictions(tmp_path / "p.jsonl.gz", rows)
    assert read_predictions(tmp_path / "p.jsonl.gz") == rows
