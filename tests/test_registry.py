"""The declarations of all suites: unique, complete, within the rules; and finding them by name."""

from __future__ import annotations

import pytest

from benchmarks import data
from benchmarks.errors import PolypromptError
from benchmarks.records import Prediction
from benchmarks.registry import find_suite, find_task, suites
from benchmarks.scoring import score
from benchmarks.sources import OfficialSource
from benchmarks.task import Kind, Task

TASKS = [task for suite in suites() for task in suite.tasks]
EVERY_TASK = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
GOLD = {
    Kind.REGRESSION: 1.0,
    Kind.TAGGING: ("O",),
    Kind.SPAN: ("x",),
}


def test_names_are_unique_and_found() -> None:
    assert [suite.name for suite in suites()] == ["demo", "glue", "superglue", "conll", "squad", "xtreme", "xcopa"]
    names = [task.name for task in TASKS]
    assert len(set(names)) == len(names)
    official = (
        "sst2 stsb rte copa conll04 squad squad2 squadshifts xnli pawsx udpos panx xquad mlqa tydiqa tatoeba xcopa"
    )
    assert set(official.split()) <= set(names)
    assert all(find_task(task.name) is task for task in TASKS)
    assert all(find_suite(suite.name) is suite for suite in suites())


def test_did_you_mean() -> None:
    with pytest.raises(PolypromptError, match=r"^unknown task 'tatoba': did you mean 'tatoeba'\?$"):
        find_task("tatoba")
    with pytest.raises(PolypromptError, match=r"^unknown suite 'XTRM': did you mean 'xtreme'\?$"):
        find_suite("XTRM")
    with pytest.raises(PolypromptError, match=r"^unknown suite 'zzzz': there are demo, glue"):
        find_suite("zzzz")


def test_suites_own_their_tasks() -> None:
    for suite in suites():
        names = {task.name for task in suite.tasks}
        assert all(task.card.suite == suite.name for task in suite.tasks)
        assert {name for category in suite.categories.values() for name in category} <= names


@EVERY_TASK
def test_declaration_is_complete(task: Task) -> None:
    card = task.card
    assert bool(card.labels) == (card.kind in (Kind.CLASSIFICATION, Kind.TAGGING))
    assert len(set(card.labels)) == len(card.labels)
    assert len(set(card.languages)) == len(card.languages) > 0
    assert all((task.title, task.licence, task.how_to_get))
    assert {*task.averaged, *(number.metric for number in task.published)} <= set(card.metrics)
    # every metric is one that the kind has
    gold = GOLD.get(card.kind, card.labels[0] if card.labels else "0")
    value = "x" if card.kind is Kind.SPAN else gold
    rows = [Prediction("0", value, gold, (0.5, -1.0), "x"), Prediction("1", "", (), (0.5, 1.0), "x")]
    both = card.kind is Kind.SPAN and card.no_answer  # some metrics count those with an answer, or those without, alone
    assert list(score(card, rows if both else rows[:1], card.languages[-1])) == list(card.metrics)


@pytest.mark.parametrize(
    "task", [task for task in TASKS if isinstance(task.source, OfficialSource)], ids=lambda task: task.name
)
def test_official_files(task: Task) -> None:
    files = {
        (split, language): task.source.files(split, language)
        for split in ("train", "dev", "test")
        for language in {*task.card.languages, task.card.train_language or "en"}
    }
    assert all(files[task.eval_split, language] for language in task.card.languages)
    trained = {language for (split, language), names in files.items() if split == "train" and names}
    assert trained == set(data.trainable(task))
    assert list(data.trainable(task))[:1] == [task.card.train_language] * bool(trained)
    if task.card.kind is Kind.SPAN:
        assert (task.card.max_length, task.card.stride) == (384, 128)
    assert not any("{" in name for names in files.values() for name in names)


def test_tasks_that_can_be_trained_in_several_languages() -> None:
    count = {task.name: len(data.trainable(task)) for task in TASKS}
    assert {name: languages for name, languages in count.items() if languages > 1} == {
        **{f"demo-{name}": 8 for name in ("topic", "count", "choice", "names", "answers")},
        **{"pawsx": 7, "udpos": 29, "panx": 40, "tydiqa": 9},
    }
    assert {name for name, languages in count.items() if not languages} >= {"mlqa", "tatoeba", "mnli-mm"}
    replaced = {"panx.train": ["mine.tsv"], "udpos.train": ["mine-{language}.tsv"]}
    assert data.trainable(find_task("panx"), replaced) == ("en",)
    assert len(data.trainable(find_task("udpos"), replaced)) == 33


def test_languages_are_the_official_ones() -> None:
    count = {task.name: len(task.card.languages) for task in find_suite("xtreme").tasks}
    assert count == {
        "xnli": 15,
        "pawsx": 7,
        "udpos": 33,
        "panx": 40,
        "xquad": 11,
        "mlqa": 7,
        "tydiqa": 9,
        "bucc2018": 4,
        "tatoeba": 36,
    }
    assert "en" not in find_task("tatoeba").card.languages
