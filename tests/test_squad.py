"""The sets of SQuAD's form: layouts, sources with known errors, the real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import data
from benchmarks.errors import DataError, MissingData
from benchmarks.readers.squad import Question, SquadJson
from benchmarks.records import Answer, Example
from benchmarks.suites.squad import CMRC2018, FROM_SQUAD, JAQUAD, SQUAD, SQUAD2, SUITE
from benchmarks.task import Task
from harness.features import Feature
from harness.objectives import make_targets

CONTEXT = "Köln lies on the Rhine. The Rhine is long."


def write(path: Path, *questions: dict[str, Any], **dump: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    article = {"title": "T", "paragraphs": [{"context": CONTEXT, "qas": list(questions)}]}
    path.write_text(json.dumps({"data": [article]}, **dump))
    return path


def question(name: str, *answers: tuple[str, Any]) -> dict[str, Any]:
    return {"id": name, "question": f"{name}?", "answers": [{"text": t, "answer_start": s} for t, s in answers]}


@pytest.fixture
def real(shared: Path) -> Path:
    return shared / "data"


# --- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", FROM_SQUAD, ids=lambda task: task.name)
def test_shifts_are_answered_by_squad(task: Task, tmp_path: Path) -> None:
    assert task.card.answered_by == "squad"
    names = [other.name for other in SUITE.tasks]
    assert names.index("squad") < names.index(task.name)
    (file,) = task.source.files("test", "en")
    write(tmp_path / file, question("q", ("Rhine", 17)))
    assert data.load(task, "test", "en", tmp_path).examples[0].gold == ("Rhine",)
    assert not task.source.has("train", "en")


def test_jaquad_is_all_of_its_files(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"squad/jaquad/dev/jaquad_dev_{number:04}.json", question(f"q{number}", ("Rhine", 17)))
    assert [row.id for row in data.load(JAQUAD, "dev", "ja", tmp_path).examples] == ["q0", "q1", "q2", "q3"]
    (tmp_path / "squad/jaquad/dev/jaquad_dev_0002.json").unlink()
    with pytest.raises(MissingData, match=r"jaquad_dev_0002\.json"):
        data.load(JAQUAD, "dev", "ja", tmp_path)
    assert len(JAQUAD.source.files("train", "ja")) == 30


# --- sources with errors --------------------------------------------------------------------------------------------


def test_misplaced_answers_count_and_have_the_nearest_place(tmp_path: Path) -> None:
    given = [("Danube", -1), ("Rhine", 30), ("Rhine", 16), ("Köln", -1), ("long", 37)]
    write(tmp_path / "squad/cmrc2018/cmrc2018_dev.json", question("q", *given))
    (row,) = data.load(CMRC2018, "dev", "zh", tmp_path).examples
    places = [Answer("Rhine", 28), Answer("Rhine", 17), Answer("Köln", 0), Answer("long", 37), Answer("Danube", -1)]
    assert row.answers == tuple(places)
    assert sorted(row.gold) == sorted(text for text, _ in given)  # every text is accepted


def test_an_answer_without_a_place_is_not_learned() -> None:
    spans = np.array([(-1, -1), (0, 4), (5, 9), (10, 12)], np.int32)
    feature = Feature(0, np.arange(4, dtype=np.int32), np.zeros(4, np.int32), spans=spans)
    targets = [
        make_targets(SQUAD.card, [Example("q", "q", CONTEXT, answers=answers)], [feature])[0]
        for answers in ((Answer("lies", 5),), (Answer("Danube", -1),))
    ]
    assert targets == [(2, 2), (0, 0)]


def test_a_sound_source_is_still_checked(tmp_path: Path) -> None:
    write(tmp_path / "squad/dev-v1.1.json", question("q", ("Rhine", 16)))
    with pytest.raises(DataError, match="answer_start 16 does not match"):
        data.load(SQUAD, "dev", "en", tmp_path)


def test_numbered_questions(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", question("1", ("Rhine", 17)), {**question("1", ("Rhine", 16)), "question": "é?"})
    read = SquadJson(Question(numbered=True, misplaced=True))
    assert [row.id for row in read(SQUAD.card, [path, path]).examples] == ["0", "1", "2", "3"]
    with pytest.raises(DataError, match="the id '1' stands at"):
        SquadJson(Question(misplaced=True))(SQUAD.card, [path])


@pytest.mark.parametrize("escaped", [True, False])
def test_errors_of_numbered_questions_name_the_line(tmp_path: Path, escaped: bool) -> None:
    questions = question("1", ("Rhine", 17)), {**question("1", ("Rhine", 16)), "question": "é?"}
    path = write(tmp_path / "x.json", *questions, indent=1, ensure_ascii=escaped)
    mark = json.dumps("é?", ensure_ascii=escaped)
    line = next(number for number, text in enumerate(path.read_text().split("\n"), 1) if mark in text)
    with pytest.raises(DataError) as error:
        SquadJson(Question(numbered=True))(SQUAD.card, [path])
    assert str(error.value).startswith(f"{path}:{line}: question '1': answer_start 16")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"text": ["Rhine"], "answer_start": []}, "1 answers but 0 offsets"),
        ({"text": ["Rhine"]}, "no 'answer_start' here"),
        ("Rhine", "answers is 'Rhine'; it must be a list of objects"),
        (["Rhine"], "must be a list of objects"),
        ([{"text": 5, "answer_start": 0}], "'text' is 5; it must be text"),
        ([{"text": "Rhine", "answer_start": None}], "answer_start is None; it must be"),
        ([{"text": "Rhine", "answer_start": 1.5}], "answer_start is 1.5; it must be"),
    ],
)
@pytest.mark.parametrize("task", [SQUAD2, CMRC2018], ids=["strict", "misplaced"])
def test_refused(tmp_path: Path, task: Task, answers: Any, words: str) -> None:
    language = task.card.languages[0]
    path = write(tmp_path / task.source.files("dev", language)[0], {"id": "q", "question": "?", "answers": answers})
    with pytest.raises(DataError) as error:
        data.load(task, "dev", language, tmp_path)
    assert str(error.value).startswith(f"{path}:1: question 'q': ")
    assert words in str(error.value)


# --- the real files -------------------------------------------------------------------------------------------------


def test_real_jaquad(real: Path) -> None:
    for split, files, count in (("train", 6, 6_114), ("dev", 1, 1_029)):
        parts = [f"squad/jaquad/{split}/jaquad_{split}_{number:04}.json" for number in range(files)]
        rows = data.load(JAQUAD, split, "ja", real, {f"jaquad.{split}": parts}).examples
        assert len(rows) == count
        assert all(row.answers and len(row.answers) == 1 for row in rows)


def test_real_cmrc(real: Path) -> None:
    rows = data.load(CMRC2018, "dev", "zh", real).examples
    assert len(rows) == 3_219
    answers = [(row, answer) for row in rows for answer in row.answers or ()]
    assert len(answers) == 9_657
    placed = [(row, answer) for row, answer in answers if answer.start >= 0]
    assert all(row.text_pair[a.start : a.start + len(a.text)] == a.text for row, a in placed if row.text_pair)
    assert len(answers) - len(placed) == 193  # the other 7 of the 200 wrong ones stand somewhere
    file = json.loads(gzip.decompress((real / "squad/cmrc2018/cmrc2018_dev.json.gz").read_bytes()))
    theirs = [q for article in file["data"] for paragraph in article["paragraphs"] for q in paragraph["qas"]]
    for row, asked in zip(rows, theirs, strict=True):
        assert sorted(row.gold or ()) == sorted(answer["text"] for answer in asked["answers"])


def test_real_cmrc_trial_is_off_by_one(real: Path) -> None:
    files = {"cmrc2018.train": ["squad/cmrc2018/cmrc2018_trial.json"]}
    rows = data.load(CMRC2018, "train", "zh", real, files).examples
    assert len(rows) == 1_002
    assert all(row.text_pair[a.start : a.start + len(a.text)] == a.text for row in rows for a in row.answers or ())
