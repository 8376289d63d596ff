"""From the hub to official files: they hold what the hub has, in the official layout, and are complete or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from fake_hub import COMMIT, FakeHub, fake_hub

from benchmarks import data
from benchmarks import fetch as fetching
from benchmarks.choice import SplitPlace, split_places
from benchmarks.errors import PolypromptError
from benchmarks.fetch import STATE, Outcome, SplitReport, fetch, wanted
from benchmarks.lock import content, found
from benchmarks.readers.tables import JsonLines
from benchmarks.registry import find_task
from benchmarks.sources import OfficialSource
from benchmarks.task import Task
from benchmarks.writers.formats import write
from benchmarks.writers.rows import Content

ROOT = Path(__file__).parents[1]
TEXT = datasets.Value("string")
INT = datasets.Value("int32")


def labels(*names: str) -> Any:
    return datasets.ClassLabel(names=list(names))


PAIR = {"sentence1": TEXT, "sentence2": TEXT, "idx": INT}
NLI = {"premise": TEXT, "hypothesis": TEXT, "idx": INT}
TRUTH = labels("False", "True")
ENTAILMENT = labels("entailment", "not_entailment")
THREE = labels("entailment", "neutral", "contradiction")
SQUAD = {
    "id": TEXT,
    "title": TEXT,
    "context": TEXT,
    "question": TEXT,
    "answers": {"text": datasets.List(TEXT), "answer_start": datasets.List(INT)},
}
RECORD = {
    "passage": TEXT,
    "query": TEXT,
    "entities": datasets.List(TEXT),
    "answers": datasets.List(TEXT),
    "idx": {"passage": INT, "query": INT},
}
PASSAGE = "Köln lies on the Rhine.\n@highlight\nThe Rhine is long."


def answers(name: str, title: str, context: str, *given: tuple[str, int]) -> dict[str, Any]:
    texts = {"text": [text for text, _ in given], "answer_start": [start for _, start in given]}
    return {"id": name, "title": title, "context": context, "question": f'Is it "{name}"?', "answers": texts}


def question(name: str, *given: tuple[str, int]) -> dict[str, Any]:
    """As it stands in a file of SQuAD's format."""
    listed = [{"text": text, "answer_start": start} for text, start in given]
    return {"id": name, "question": f'Is it "{name}"?', "answers": listed}


def lines(*objects: dict[str, Any]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def answer(paragraph: int, question: int, number: int, label: int) -> dict[str, Any]:
    idx = {"paragraph": paragraph, "question": question, "answer": number}
    texts = {"paragraph": f"P{paragraph}", "question": f"Q{question}?", "answer": f"A{number}"}
    return {**texts, "idx": idx, "label": label}


# task, split, language, configuration, split on the hub, schema, rows, official files
CASES: dict[str, tuple[str, str, str, str, str, dict[str, Any], list[dict[str, Any]], dict[str, str]]] = {
    "a table whose file has no identifiers": (
        *("sst2", "train", "en", "sst2", "train"),
        {"sentence": TEXT, "label": labels("negative", "positive"), "idx": INT},
        [{"sentence": 'a "fine" film ', "label": 1, "idx": 0}, {"sentence": "dull", "label": 0, "idx": 1}],
        {"glue/SST-2/train.tsv": 'sentence\tlabel\na "fine" film \t1\ndull\t0\n'},
    ),
    "a table without labels": (
        *("sst2", "test", "en", "sst2", "test"),
        {"sentence": TEXT, "label": labels("negative", "positive"), "idx": INT},
        [{"sentence": "fine", "label": -1, "idx": 4}, {"sentence": "dull", "label": -1, "idx": 7}],
        {"glue/SST-2/test.tsv": "index\tsentence\n4\tfine\n7\tdull\n"},
    ),
    "a table without a header": (
        *("cola", "dev", "en", "cola", "validation"),
        {"sentence": TEXT, "label": labels("unacceptable", "acceptable"), "idx": INT},
        [{"sentence": "They go.", "label": 1, "idx": 0}, {"sentence": "Go they?", "label": 0, "idx": 1}],
        {"glue/CoLA/dev.tsv": "-\t1\t-\tThey go.\n-\t0\t-\tGo they?\n"},
    ),
    "a table whose identifiers on the hub have gaps": (
        *("mrpc", "dev", "en", "mrpc", "validation"),
        {**PAIR, "label": labels("not_equivalent", "equivalent")},
        [
            {"sentence1": "a", "sentence2": "b", "label": 1, "idx": 9},
            {"sentence1": "c", "sentence2": "d", "label": 0, "idx": 18},
        ],
        {"glue/MRPC/dev.tsv": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t-\t-\ta\tb\n0\t-\t-\tc\td\n"},
    ),
    "a table of numbers": (
        *("stsb", "train", "en", "stsb", "train"),
        {**PAIR, "label": datasets.Value("float32")},
        [
            {"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0},
            {"sentence1": "c", "sentence2": "d", "label": 3.8, "idx": 1},
        ],
        {
            "glue/STS-B/train.tsv": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\t"
            "score\n0\t-\t-\t-\t-\t-\t-\ta\tb\t2.500\n1\t-\t-\t-\t-\t-\t-\tc\td\t3.799999952316284\n"
        },
    ),
    "a table of many columns": (
        *("mnli", "dev", "en", "mnli", "validation_matched"),
        {**NLI, "label": THREE},
        [{"premise": "a", "hypothesis": "b", "label": 2, "idx": 0}],
        {
            "glue/MNLI/dev_matched.tsv": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\t"
            "sentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\t"
            "label4\tlabel5\tgold_label\n0\t-\t-\t-\t-\t-\t-\t-\ta\tb\t-\t-\t-\t-\t-\tcontradiction\n"
        },
    ),
    "truth as JSON": (
        *("boolq", "dev", "en", "boolq", "validation"),
        {"question": TEXT, "passage": TEXT, "idx": INT, "label": TRUTH},
        [
            {"question": "is it", "passage": "It is.\tYes.\n", "idx": 0, "label": 1},
            {"question": "ist es kühl", "passage": "No.", "idx": 1, "label": 0},
        ],
        {
            "superglue/BoolQ/val.jsonl": lines(
                {"question": "is it", "passage": "It is.\tYes.\n", "idx": 0, "label": True},
                {"question": "ist es kühl", "passage": "No.", "idx": 1, "label": False},
            )
        },
    ),
    "words as labels in JSON": (
        *("cb", "test", "en", "cb", "test"),
        {**NLI, "label": labels("entailment", "contradiction", "neutral")},
        [{"premise": "a", "hypothesis": "b", "idx": 0, "label": -1}],
        {"superglue/CB/test.jsonl": '{"premise": "a", "hypothesis": "b", "idx": 0}\n'},
    ),
    "choices": (
        *("copa", "train", "en", "copa", "train"),
        {
            **dict.fromkeys(("premise", "choice1", "choice2", "question"), TEXT),
            "idx": INT,
            "label": labels("choice1", "choice2"),
        },
        [{"premise": "P.", "choice1": "A", "choice2": "B", "question": "effect", "idx": 3, "label": 1}],
        {
            "superglue/COPA/train.jsonl": lines(
                {"premise": "P.", "choice1": "A", "choice2": "B", "question": "effect", "idx": 3, "label": 1}
            )
        },
    ),
    "spans in an object": (
        *("wsc", "train", "en", "wsc.fixed", "train"),
        {
            "text": TEXT,
            "span1_index": INT,
            "span2_index": INT,
            "span1_text": TEXT,
            "span2_text": TEXT,
            "idx": INT,
            "label": TRUTH,
        },
        [
            {
                **{"text": "Mark told Pete that he won.", "span1_index": 0, "span2_index": 4, "span1_text": "Mark"},
                **{"span2_text": "he", "idx": 0, "label": 0},
            }
        ],
        {
            "superglue/WSC/train.jsonl": lines(
                {
                    **{"text": "Mark told Pete that he won.", "idx": 0, "label": False},
                    "target": {"span1_index": 0, "span2_index": 4, "span1_text": "Mark", "span2_text": "he"},
                }
            )
        },
    ),
    "answers in questions in passages": (
        *("multirc", "dev", "en", "multirc", "validation"),
        {
            **{"paragraph": TEXT, "question": TEXT, "answer": TEXT},
            **{"idx": {"paragraph": INT, "question": INT, "answer": INT}, "label": TRUTH},
        },
        [answer(0, 0, 0, 1), answer(0, 0, 1, 0), answer(0, 1, 2, 0), answer(3, 2, 3, 1)],
        {
            "superglue/MultiRC/val.jsonl": lines(
                {
                    "idx": 0,
                    "version": 1.1,
                    "passage": {
                        "text": "P0",
                        "questions": [
                            {
                                "question": "Q0?",
                                "answers": [{"text": "A0", "idx": 0, "label": 1}, {"text": "A1", "idx": 1, "label": 0}],
                                "idx": 0,
                            },
                            {"question": "Q1?", "answers": [{"text": "A2", "idx": 2, "label": 0}], "idx": 1},
                        ],
                    },
                },
                {
                    "idx": 3,
                    "version": 1.1,
                    "passage": {
                        "text": "P3",
                        "questions": [{"question": "Q2?", "answers": [{"text": "A3", "idx": 3, "label": 1}], "idx": 2}],
                    },
                },
            )
        },
    ),
    "queries in passages": (
        *("record", "dev", "en", "record", "validation"),
        RECORD,
        [
            {
                **{"passage": PASSAGE, "query": "The @placeholder is wet.", "entities": ["Köln", "Rhine"]},
                **{"answers": ["Rhine"], "idx": {"passage": 0, "query": 5}},
            }
        ],
        {
            "superglue/ReCoRD/val.jsonl": lines(
                {
                    "passage": {"text": PASSAGE, "entities": [{"start": 0, "end": 3}, {"start": 17, "end": 21}]},
                    "qas": [
                        {
                            "query": "The @placeholder is wet.",
                            "answers": [{"start": 17, "end": 21, "text": "Rhine"}],
                            "idx": 5,
                        }
                    ],
                    "idx": 0,
                }
            )
        },
    ),
    "labels apart": (
        *("xnli", "test", "de", "de", "test"),
        {"premise": TEXT, "hypothesis": TEXT, "label": THREE},
        [{"premise": "A", "hypothesis": "B", "label": 2}, {"premise": "C", "hypothesis": "D", "label": 0}],
        {
            "xtreme/download/xnli/test-de.tsv": "A\tB\nC\tD\n",
            "xtreme/gold/xnli_test_labels.txt": "contradiction\nentailment\n",
        },
    ),
    "tokens and tags": (
        *("udpos", "dev", "de", "udpos.German", "validation"),
        {"tokens": datasets.List(TEXT), "pos_tags": datasets.List(labels("ADJ", "ADV", "NOUN"))},
        [{"tokens": ["so", "gut"], "pos_tags": [1, 0]}, {"tokens": ["\u00a0Haus"], "pos_tags": [2]}],
        {"xtreme/download/udpos/dev-de.tsv": "so\tADV\ngut\tADJ\n\n\u00a0Haus\tNOUN\n"},
    ),
    "questions in paragraphs in articles": (
        *("squad", "train", "en", "", "train"),
        SQUAD,
        [
            answers("q1", "Rhine", "Köln on the Rhine", ("Rhine", 12), ("Köln", 0)),
            answers("q2", "Rhine", "Köln on the Rhine", ("Köln", 0)),
            answers("q3", "Rhine", "Wet", ("Wet", 0)),
            answers("q4", "Main", "Wet", ("Wet", 0)),
        ],
        {
            "squad/train-v1.1.json": lines(
                {
                    "version": "1.1",
                    "data": [
                        {
                            "title": "Rhine",
                            "paragraphs": [
                                {
                                    "context": "Köln on the Rhine",
                                    "qas": [question("q1", ("Rhine", 12), ("Köln", 0)), question("q2", ("Köln", 0))],
                                },
                                {"context": "Wet", "qas": [question("q3", ("Wet", 0))]},
                            ],
                        },
                        {"title": "Main", "paragraphs": [{"context": "Wet", "qas": [question("q4", ("Wet", 0))]}]},
                    ],
                }
            )
        },
    ),
    "questions without an answer": (
        *("squad2", "dev", "en", "", "validation"),
        SQUAD,
        [answers("q1", "T", "Wet", ("Wet", 0)), answers("q2", "T", "Wet")],
        {
            "squad/dev-v2.0.json": lines(
                {
                    "version": "v2.0",
                    "data": [
                        {
                            "title": "T",
                            "paragraphs": [
                                {
                                    "context": "Wet",
                                    "qas": [
                                        {**question("q1", ("Wet", 0)), "is_impossible": False},
                                        {**question("q2"), "is_impossible": True},
                                    ],
                                }
                            ],
                        }
                    ],
                }
            )
        },
    ),
    "pairs": (
        *("tatoeba", "test", "de", "tatoeba.deu", "validation"),
        dict.fromkeys(("source_sentence", "target_sentence", "source_lang", "target_lang"), TEXT),
        [
            {"source_sentence": source, "target_sentence": target, "source_lang": "deu", "target_lang": "eng"}
            for source, target in [("zwei", "two"), ("eins", "one"), ("drei", "three")]
        ],
        {
            "xtreme/download/tatoeba/de-en.de": "zwei\neins\ndrei\n",
            "xtreme/download/tatoeba/de-en.en": "one\nthree\ntwo\n",
            "xtreme/gold/tatoeba/de-en.gold": "2\n0\n1\n",
        },
    ),
}

Publish = Callable[..., Task]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publish]:
    """Write rows as a dataset in a folder laid out like the hub's, and say that a task's split is there."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def write_and_name(task: Task, split: str, config: str, there: str, schema: Any, rows: list[Any]) -> Task:
        assert isinstance(task.source, OfficialSource)
        part = task.source.splits[split]
        assert part.hub is not None
        folder = tmp_path / "hub" / part.hub.dataset
        table = datasets.Dataset.from_list(rows, features=datasets.Features(schema))
        table.to_parquet(folder / config / f"{there}.parquet")
        (folder / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {config or 'default'}\n  data_files:\n  - split: {there}\n"
            f"    path: {config or '.'}/{there}.parquet\n---\n"
        )
        local = replace(part, hub=replace(part.hub, dataset=str(folder)))
        return replace(task, source=replace(task.source, splits={**task.source.splits, split: local}))

    yield write_and_name
    datasets.enable_progress_bars()


def run(to: Path, task: Task, split: str, language: str = "en") -> SplitReport:
    assert isinstance(task.source, OfficialSource)
    reports: list[SplitReport] = []
    fetch([(task, SplitPlace(split, language, task.source.files(split, language)))], to, reports.append)
    (report,) = reports
    return report


def files(folder: Path) -> dict[str, str]:
    """Every file under a folder but the state."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text(encoding="utf-8") for name, path in found.items() if name != STATE}


@pytest.mark.parametrize("case", CASES)
def test_files_are_the_official_ones_and_read_back_equal(publish: Publish, tmp_path: Path, case: str) -> None:
    name, split, language, config, there, schema, rows, expected = CASES[case]
    task = publish(find_task(name), split, config, there, schema, rows)
    report = run(tmp_path / "data", task, split, language)
    assert (report.outcome, report.note) == (Outcome.FETCHED, "")
    assert files(tmp_path / "data") == expected
    from_hub = data.load(task, split, language, None)
    from_files = data.load(task, split, language, tmp_path / "data")
    if case == "a table whose identifiers on the hub have gaps":
        assert [row.id for row in from_hub.examples] == ["9", "18"]
        from_hub = replace(from_hub, examples=tuple(replace(r, id=str(n)) for n, r in enumerate(from_hub.examples)))
    assert from_files == from_hub
    assert report.rows == len(from_hub.examples)


SST2_SCHEMA = {"sentence": TEXT, "label": labels("negative", "positive"), "idx": INT}
SST2_ROWS = [{"sentence": "fine", "label": 1, "idx": 0}, {"sentence": "dull", "label": 0, "idx": 1}]
SST2_TRAIN = "sentence\tlabel\nfine\t1\ndull\t0\n"


@pytest.fixture
def sst2(publish: Publish) -> Task:
    return publish(find_task("sst2"), "train", "sst2", "train", SST2_SCHEMA, SST2_ROWS)


def test_what_is_there_is_not_fetched_again(sst2: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, sst2, "train").outcome is Outcome.FETCHED
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    assert run(tmp_path, sst2, "train").outcome is Outcome.THERE


def test_a_file_from_elsewhere_is_kept(sst2: Task, tmp_path: Path) -> None:
    path = tmp_path / "data" / "glue" / "SST-2" / "train.tsv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whatever it is")
    assert run(tmp_path / "data", sst2, "train").outcome is Outcome.THERE
    assert [p.name for p in (tmp_path / "data").rglob("*") if p.is_file()] == ["train.tsv.gz"]


def test_a_fetched_file_that_changed_is_fetched_again(sst2: Task, tmp_path: Path) -> None:
    path = tmp_path / "data" / "glue" / "SST-2" / "train.tsv"
    run(tmp_path / "data", sst2, "train")
    path.write_text(SST2_TRAIN[:-3])
    assert run(tmp_path / "data", sst2, "train").outcome is Outcome.FETCHED
    assert path.read_text() == SST2_TRAIN


def test_a_file_of_several_languages_is_written_once_and_compared(publish: Publish, tmp_path: Path) -> None:
    name, split, language, config, there, schema, rows, _ = CASES["labels apart"]
    task = publish(find_task(name), split, config, there, schema, rows)
    gold = tmp_path / "data" / "xtreme" / "gold" / "xnli_test_labels.txt"
    gold.parent.mkdir(parents=True)
    gold.write_text("contradiction\nneutral\n")
    report = run(tmp_path / "data", task, split, language)
    assert report.outcome is Outcome.NOT_FETCHED
    assert report.note.startswith("row 2 would be read from the files otherwise than from the hub; ")
    assert report.note.endswith(f"; remove {gold}, which may be of another release")
    assert list(files(tmp_path / "data")) == ["xtreme/gold/xnli_test_labels.txt"]
    gold.write_text("contradiction\nentailment\n")
    before = gold.stat().st_mtime_ns
    assert run(tmp_path / "data", task, split, language).outcome is Outcome.FETCHED
    assert gold.stat().st_mtime_ns == before
    recorded = json.loads((tmp_path / "data" / STATE).read_text())["files"]
    assert list(recorded) == ["xtreme/download/xnli/test-de.tsv"]


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("a table without labels", {"sentence": "a\tb"}, "row 1 holds a tab or a line end, which the format cannot"),
        ("a table whose identifiers on the hub have gaps", {"label": -1}, "row 1 has no 'Quality', which others have"),
        ("a table without labels", {"label": 1}, "row 1 would be read from the files otherwise than from the hub"),
        ("tokens and tags", {"tokens": ["-DOCSTART-", "x"]}, "row 1 would be read from the files otherwise"),
        ("tokens and tags", {"tokens": ["", "x"]}, "xtreme/download/udpos/dev-de.tsv:1: no token before the tag"),
        ("labels apart", {"label": -1}, "row 1 has no label; the file of labels cannot hold that"),
        ("pairs", {"source_sentence": "a\nb"}, "row 1 holds a tab or a line end"),
        ("words as labels in JSON", {"premise": None}, "'premise' is None; it must be text"),
    ],
)
def test_rows_that_the_format_cannot_hold(
    publish: Publish, tmp_path: Path, case: str, change: dict[str, Any], message: str
) -> None:
    name, split, language, config, there, schema, rows, _ = CASES[case]
    task = publish(find_task(name), split, config, there, schema, [{**rows[0], **change}, *rows[1:]])
    report = run(tmp_path / "data", task, split, language)
    assert report.outcome is Outcome.NOT_FETCHED and message in report.note
    assert "\n" not in report.note and "/tmp" not in report.note.replace(str(tmp_path), "")
    assert not files(tmp_path / "data")


def test_a_task_that_is_not_on_the_hub_or_has_no_writer(sst2: Task, tmp_path: Path) -> None:
    absent, unknown = find_task("squadshifts"), find_task("sst2")
    assert isinstance(unknown.source, OfficialSource)
    part = replace(unknown.source.splits["dev"], reader=lambda card, paths: data.load(unknown, "dev", "en", None))
    unknown = replace(unknown, source=replace(unknown.source, splits={"dev": part}))
    places = [
        (absent, "test", "squad/x.json"),
        (unknown, "dev", "glue/SST-2/dev.tsv"),
        (sst2, "train", "glue/SST-2/train.tsv"),
    ]
    reports: list[SplitReport] = []
    to = tmp_path / "data"
    fetch([(task, SplitPlace(split, "en", (file,))) for task, split, file in places], to, reports.append)
    assert [report.outcome.value for report in reports] == ["not fetched", "not fetched", "fetched"]
    assert reports[0].note == f"it is not on the hub. {absent.how_to_get}"
    assert reports[1].note == "the format that function reads has no writer"
    assert files(to) == {"glue/SST-2/train.tsv": SST2_TRAIN}


def test_files_without_fixed_names_have_no_writer(sst2: Task, tmp_path: Path) -> None:
    reports: list[SplitReport] = []
    fetch([(sst2, SplitPlace("train", "en", ("glue/*.tsv",)))], tmp_path / "data", reports.append)
    assert reports[0].note == "the names of its files are not fixed (glue/*.tsv)"


def test_an_interruption_leaves_no_part_of_a_file(sst2: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)  # in the middle of writing a file
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "data", sst2, "train")
    assert not files(tmp_path / "data")
    monkeypatch.undo()
    assert run(tmp_path / "data", sst2, "train").outcome is Outcome.FETCHED


def test_a_damaged_state_and_a_place_that_cannot_be_written(sst2: Task, tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("{")
    with pytest.raises(PolypromptError, match=f"{STATE}: damaged; remove it"):
        run(tmp_path, sst2, "train")
    with pytest.raises(PolypromptError, match=f"--to .*{STATE}: it is no folder"):
        run(tmp_path / STATE, sst2, "train")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "glue").write_text("a file where a folder should be")
    with pytest.raises(PolypromptError, match=r"--to .*data: glue/SST-2/train.tsv cannot be written"):
        run(tmp_path / "data", sst2, "train")


def test_languages_of_choice_and_the_one_that_is_trained_in() -> None:
    places = [(task.name, place.split, place.language) for task, place in wanted([find_task("xnli")], ["de"])]
    assert sorted(places) == sorted(
        ("xnli", split, code)
        for split, code in [("train", "en"), *((s, c) for s in ("dev", "test") for c in ("de", "en"))]
    )
    assert len(wanted([find_task("xnli")], [])) == 1 + 2 * 15
    with pytest.raises(PolypromptError, match="--languages qq: no chosen task has it; there are ar, bg"):
        wanted([find_task("xnli")], ["qq"])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with parts of GLUE, and an empty one of SuperGLUE."""
    datasets.disable_progress_bars()
    folder = tmp_path / "hub" / "nyu-mll" / "glue"
    for split, count in (("train", 3), ("validation", 2)):
        rows = [{"sentence": f"{split} {n}", "label": n % 2, "idx": n} for n in range(count)]
        table = datasets.Dataset.from_list(rows, features=datasets.Features(SST2_SCHEMA))
        table.to_parquet(folder / "sst2" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: sst2\n  data_files:\n  - split: train\n    path: sst2/train-*\n"
        "  - split: validation\n    path: sst2/validation-*\n---\n"
    )
    datasets.enable_progress_bars()
    with fake_hub(tmp_path / "hub") as server:
        yield server


def program(hub: FakeHub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.fetch", "--to", str(tmp_path / "data"), *arguments]
    environment = {
        **os.environ,
        **{"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"},
        **{"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"},
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_hubs_protocol(hub: FakeHub, tmp_path: Path) -> None:
    done = program(hub, tmp_path, "--suite", "glue,superglue", "--tasks", "sst2,copa", "--json")
    reports = {(report["task"], report["split"]): report for report in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (1, "")
    assert {key: report["outcome"] for key, report in reports.items()} == {
        ("sst2", "train"): "fetched",
        ("sst2", "dev"): "fetched",
        ("sst2", "test"): "not fetched",
        **{("copa", split): "not fetched" for split in ("train", "dev", "test")},
    }
    assert reports["sst2", "train"]["rows"] == 3
    assert reports["sst2", "test"]["note"].startswith("hub:nyu-mll/glue/sst2:test: not to be had from the hub (")
    assert reports["copa", "dev"]["note"] == "hub:aps/super_glue: there is no such dataset, or it is not shown to you"
    assert files(tmp_path / "data") == {
        "glue/SST-2/train.tsv": "sentence\tlabel\ntrain 0\t0\ntrain 1\t1\ntrain 2\t0\n",
        "glue/SST-2/dev.tsv": "sentence\tlabel\nvalidation 0\t0\nvalidation 1\t1\n",
    }
    state = json.loads((tmp_path / "data" / STATE).read_text())
    assert state["files"]["glue/SST-2/dev.tsv"]["commit"] == COMMIT
    assert sorted(hub.downloads) == ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"]


def test_a_hub_that_is_gone(hub: FakeHub, tmp_path: Path) -> None:
    """What was fetched stays, and is not asked for again; the rest is one line."""
    hub.last = "validation-00000-of-00001.parquet"
    first = program(hub, tmp_path, "--suite", "glue,superglue", "--tasks", "sst2,copa")
    assert first.returncode == 2
    assert first.stderr.startswith("error: the hub cannot be reached (") and first.stderr.count("\n") == 1
    assert [line.split() for line in first.stdout.splitlines() if line.startswith("glue")] == [["glue", "sst2", "2"]]
    kept = files(tmp_path / "data")
    assert sorted(kept) == ["glue/SST-2/dev.tsv", "glue/SST-2/train.tsv"]
    hub.asked.clear()
    second = program(hub, tmp_path, "--suite", "superglue,glue", "--tasks", "copa,sst2")
    assert second.returncode == 2 and files(tmp_path / "data") == kept and not hub.asked


def test_bad_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for options, message in (
        (["--suite", "glu"], "unknown suite 'glu'"),
        (["--suite", "glue", "--tasks", "copa"], "--tasks copa: belongs to suite superglue"),
        (["--suite", "glue", "--languages", "de"], "--languages de: no chosen task has it; there are en"),
    ):
        with pytest.raises(PolypromptError) as error:
            fetching.main(["--to", str(tmp_path), *options])
        assert message in str(error.value)
    assert capsys.readouterr().out == ""


def test_all_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").write_text("")
    assert fetching.main(["--suite", "glue", "--tasks", "sst2", "--to", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].split() == ["glue", "sst2", "3"] and "not fetched:" not in out


# Rows of real files are written as the very same bytes, where the hub has all that the files hold.
SAME_BYTES = {
    "cola": ["test"],
    "sst2": ["train", "dev", "test"],
    "rte": ["train", "dev", "test"],
    "xnli": ["dev", "test"],
    "pawsx": ["dev"],
    "udpos": ["dev"],
    "panx": ["dev"],
    "tatoeba": ["test"],
}


@pytest.mark.parametrize("name", SAME_BYTES)
def test_real_files_come_out_as_they_are(shared: Path, name: str) -> None:
    task = find_task(name)
    assert isinstance(task.source, OfficialSource)
    located = [
        (place, [path for file in place.files for path in found(shared / "data", file)])
        for place in split_places(task)
        if place.split in SAME_BYTES[name]
    ]
    there = [(place, paths) for place, paths in located if len(paths) == len(place.files)]
    assert there
    for place, paths in there[:3]:
        reader = task.source.splits[place.split].reader
        split = task.source.read(task.card, place.split, place.language, shared / "data")
        texts = write(reader, Content(task.card, place.files, split, [{}] * len(split.examples), None))
        original = [content(path).replace(b"\r\n", b"\n") for path in paths]
        assert [text.encode().rstrip(b"\n") for text in texts] == [one.rstrip(b"\n") for one in original]


@pytest.mark.parametrize("name", ["boolq", "copa", "multirc", "record", "superglue-rte", "wic", "wsc"])
def test_records_of_real_files_read_back_equal(shared: Path, tmp_path: Path, name: str) -> None:
    """The flat records that the hub has, folded into objects again."""
    task = find_task(name)
    assert isinstance(task.source, OfficialSource)
    reader, (file,) = task.source.splits["dev"].reader, task.source.files("dev", "en")
    assert isinstance(reader, JsonLines)
    (path,) = found(shared / "data", file)
    split = reader(task.card, [path])
    records = [{**record, **record.get("target", {})} for _, record in reader._rows(path)]  # WSC is flat on the hub
    (text,) = write(reader, Content(task.card, (file,), split, records, reader.row))
    (tmp_path / "again.jsonl").write_text(text, encoding="utf-8")
    assert reader(task.card, [tmp_path / "again.jsonl"]) == split
    objects = [json.loads(line) for line in content(path).decode().splitlines()]
    kept = {"multirc": {"idx", "passage"}, "record": {"qas", "passage", "idx"}}.get(name, set(objects[0]))
    assert [kept - set(json.loads(line)) for line in text.splitlines()] == [set()] * len(objects)
