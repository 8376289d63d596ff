"""Reading through `datasets`: the real loader on local folders laid out like the hub's, with the published schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

from benchmarks import data, hub
from benchmarks.errors import DataError, MissingData
from benchmarks.records import Answer, Example, Split
from benchmarks.sources import OfficialSource
from benchmarks.suites.glue import RTE, SST2, STSB
from benchmarks.suites.squad import SQUAD, SQUAD2
from benchmarks.suites.superglue import COPA
from benchmarks.suites.xtreme import TATOEBA, UDPOS, XNLI, XQUAD
from benchmarks.task import Task
from harness.config import RunConfig
from harness.data import load_rows

TEXT = datasets.Value("string")
INT = datasets.Value("int32")
SQUAD_SCHEMA = {
    "id": TEXT,
    "title": TEXT,
    "context": TEXT,
    "question": TEXT,
    "answers": {"text": datasets.List(TEXT), "answer_start": datasets.List(INT)},
}
UPOS = ["ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN"]

Read = Callable[..., Split]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Write rows as a dataset in a folder named like its id, and read a task from there."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def write_and_read(
        task: Task, split: str, language: str, dataset: str, config: str, there: str, schema: Any, rows: list[Any]
    ) -> Split:
        assert isinstance(task.source, OfficialSource)
        part = task.source.splits[split]
        assert part.hub is not None
        assert part.hub.dataset == dataset
        folder = tmp_path / dataset
        table = datasets.Dataset.from_list(rows, features=datasets.Features(schema))
        table.to_parquet(folder / config / f"{there}.parquet")
        other = datasets.Dataset.from_list([{"wrong": "x"}])
        other.to_parquet(folder / "other" / "train.parquet")
        (folder / "README.md").write_text(
            "---\nconfigs:\n"
            f"- config_name: {config or 'default'}\n  data_files:\n  - split: {there}\n"
            f"    path: {config or '.'}/{there}.parquet\n"
            "- config_name: other\n  data_files: other/*.parquet\n---\n"
        )
        local = replace(part, hub=replace(part.hub, dataset=str(folder)))
        source = replace(task.source, splits={**task.source.splits, split: local})
        return data.load(replace(task, source=source), split, language, None)

    yield write_and_read
    datasets.enable_progress_bars()


def test_classification(read: Read) -> None:
    schema = {"sentence": TEXT, "label": datasets.ClassLabel(names=["negative", "positive"]), "idx": INT}
    rows = [{"sentence": "a", "label": 1, "idx": 7}, {"sentence": "b", "label": 0, "idx": 8}]
    expected = (Example("7", "a", label="positive"), Example("8", "b", label="negative"))
    assert read(SST2, "dev", "en", "nyu-mll/glue", "sst2", "validation", schema, rows).examples == expected


def test_unlabelled_test_rows(read: Read) -> None:
    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    schema = {"sentence1": TEXT, "sentence2": TEXT, "label": names, "idx": INT}
    rows = [{"sentence1": "a", "sentence2": "b", "label": -1, "idx": 0}]
    assert read(RTE, "test", "en", "nyu-mll/glue", "rte", "test", schema, rows).examples == (Example("0", "a", "b"),)


@pytest.mark.parametrize(("number", "target"), [(3.8, 3.8), (-1.0, None)])
def test_regression(read: Read, number: float, target: float | None) -> None:
    schema = {"sentence1": TEXT, "sentence2": TEXT, "label": datasets.Value("float32"), "idx": INT}
    rows = [{"sentence1": "a", "sentence2": "b", "label": number, "idx": 0}]
    (row,) = read(STSB, "test", "en", "nyu-mll/glue", "stsb", "test", schema, rows).examples
    assert row.target == pytest.approx(target)


def test_choice(read: Read) -> None:
    label = datasets.ClassLabel(names=["choice1", "choice2"])
    schema = {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "question": TEXT, "idx": INT, "label": label}
    row = {"premise": "P.", "choice1": "A", "choice2": "B", "question": "effect", "idx": 3, "label": 1}
    split = read(
        COPA, "dev", "en", "aps/super_glue", "copa", "validation", schema, [row, {**row, "idx": 4, "label": -1}]
    )
    first = Example("3", "P. What happened as a result?", choices=("A", "B"), label="1")
    assert split.examples == (first, replace(first, id="4", label=None))


def test_one_configuration_a_language(read: Read) -> None:
    label = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    schema = {"premise": TEXT, "hypothesis": TEXT, "label": label}
    rows = [{"premise": "A", "hypothesis": "B", "label": 2}, {"premise": "C", "hypothesis": "D", "label": 0}]
    expected = (Example("0", "A", "B", label="contradiction"), Example("1", "C", "D", label="entailment"))
    assert read(XNLI, "test", "de", "facebook/xnli", "de", "test", schema, rows).examples == expected


def test_tagging(read: Read) -> None:
    schema = {"tokens": datasets.List(TEXT), "pos_tags": datasets.List(datasets.ClassLabel(names=UPOS))}
    rows = [{"tokens": ["so", "gut"], "pos_tags": [2, 0]}, {"tokens": ["Haus"], "pos_tags": [7]}]
    expected = (Example("0", tokens=("so", "gut"), tags=("ADV", "ADJ")), Example("1", tokens=("Haus",), tags=("NOUN",)))
    assert read(UDPOS, "test", "de", "google/xtreme", "udpos.German", "test", schema, rows).examples == expected


def squad_row(name: str, text: list[str], start: list[int]) -> dict[str, Any]:
    answers = {"text": text, "answer_start": start}
    return {"id": name, "title": "T", "context": "Köln on the Rhine", "question": "Q?", "answers": answers}


def test_answers(read: Read) -> None:
    row = squad_row("q", ["Rhine", "Köln"], [12, 0])
    expected = (Example("q", "Q?", "Köln on the Rhine", answers=(Answer("Rhine", 12), Answer("Köln", 0))),)
    assert read(SQUAD, "train", "en", "rajpurkar/squad", "", "train", SQUAD_SCHEMA, [row]).examples == expected
    found = read(XQUAD, "test", "de", "google/xquad", "xquad.de", "validation", SQUAD_SCHEMA, [row])
    assert found.examples == expected


def test_no_answer(read: Read) -> None:
    rows = [squad_row("q", [], [])]
    (row,) = read(SQUAD2, "dev", "en", "rajpurkar/squad_v2", "", "validation", SQUAD_SCHEMA, rows).examples
    assert row.answers == ()


def test_retrieval(read: Read) -> None:
    schema = {"source_sentence": TEXT, "target_sentence": TEXT, "source_lang": TEXT, "target_lang": TEXT}
    rows = [
        {"source_sentence": source, "target_sentence": target, "source_lang": "deu", "target_lang": "eng"}
        for source, target in [("zwei", "two"), ("eins", "one"), ("drei", "three")]
    ]
    split = read(TATOEBA, "test", "de", "google/xtreme", "tatoeba.deu", "validation", schema, rows)
    assert split.candidates == ("zwei", "eins", "drei")
    assert [(row.text, row.label) for row in split.examples] == [("one", "1"), ("three", "2"), ("two", "0")]


def test_more_rows_than_a_batch(read: Read) -> None:
    schema = {"sentence": TEXT, "label": datasets.ClassLabel(names=["negative", "positive"]), "idx": INT}
    rows = [{"sentence": str(n), "label": n % 2, "idx": n} for n in range(2_345)]
    split = read(SST2, "train", "en", "nyu-mll/glue", "sst2", "train", schema, rows)
    assert [row.text for row in split.examples] == [str(n) for n in range(2_345)]


def test_bad_row_is_named(read: Read) -> None:
    rows = [squad_row("q", ["Rhine"], [12]), squad_row("r", ["Rhine"], [11])]
    with pytest.raises(DataError, match=r"^hub:\S*rajpurkar/squad:train:2: answer_start 11 does not match"):
        read(SQUAD, "train", "en", "rajpurkar/squad", "", "train", SQUAD_SCHEMA, rows)


def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(*arguments: Any, **named: Any) -> None:
        asked.append((arguments, named))
        raise ConnectionError("Couldn't reach it\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    with pytest.raises(MissingData) as error:
        data.load(XQUAD, "test", "de", None)
    message = str(error.value)
    assert asked == [(("google/xquad", "xquad.de"), {"split": "validation", "revision": None})]
    assert message.startswith("xquad, test, de: hub:google/xquad/xquad.de:validation: not to be had from the hub")
    assert "--data-dir" in message and "--skip-missing" in message and XQUAD.how_to_get in message
    assert "\n" not in message


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An address where nothing answers, and no rows from anywhere."""

    def untouched(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for rows of a hub that does not answer")

    monkeypatch.setattr(datasets, "load_dataset", untouched)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    hub.unreachable.cache_clear()
    yield
    hub.unreachable.cache_clear()


def test_a_hub_that_does_not_answer_is_asked_once(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(hub.Unreachable) as error:
        data.load(XQUAD, "test", "de", None)
    start = "xquad, test, de: hub:google/xquad/xquad.de:validation: the hub cannot be reached ("
    assert str(error.value).startswith(start) and ".." not in str(error.value) and "\n" not in str(error.value)
    for advice in ("--data-dir", "HF_HUB_OFFLINE=1", XQUAD.how_to_get):
        assert advice in str(error.value)
    monkeypatch.setattr(constants, "ENDPOINT", "nowhere")  # would be another reason
    with pytest.raises(hub.Unreachable) as again:
        data.load(XQUAD, "test", "el", None)
    assert str(again.value) == str(error.value).replace(", de:", ", el:").replace("xquad.de", "xquad.el")


def test_a_run_ends_at_once_where_the_hub_does_not_answer(no_hub: None) -> None:
    """With one task and language named, not all of them; with --skip-missing it looks whether anything is there."""
    config = RunConfig(suite=["xtreme"])
    with pytest.raises(hub.Unreachable, match=r"^xnli, train, en: hub:[^\n]*$"):
        load_rows(config)
    pattern = r"^no task has its data:\n  xnli, train, en: [^\n]*\n  pawsx, train, en: "
    with pytest.raises(MissingData, match=pattern) as error:
        load_rows(config.model_copy(update={"skip_missing": True}))
    assert str(error.value).count("Give --data-dir") == 1
