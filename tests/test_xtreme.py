"""XTREME and XCOPA: every official layout, the hub's schemas, bad files, the real files, and the official scorer."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import test_hub
from test_hub import INT, SQUAD_SCHEMA, TEXT, Read

from benchmarks import data
from benchmarks.errors import DataError, MissingData
from benchmarks.records import Answer, Example, Prediction
from benchmarks.scoring import score
from benchmarks.suites.xcopa import XCOPA
from benchmarks.suites.xtreme import BUCC2018, MLQA, PANX, PAWSX, SUITE, TYDIQA, UDPOS, XQUAD
from benchmarks.task import Task
from benchmarks.thresholds import choose_threshold, with_threshold
from tests.official.xtreme import AVERAGES, TOLERANCE, compare, find_checkout

ROOT = Path(__file__).parents[1]

read = test_hub.read  # the fixture


@pytest.fixture
def real(shared: Path) -> Path:
    return shared / "data"


def put(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def refused(task: Task, folder: Path, split: str, language: str) -> str:
    with pytest.raises(DataError) as error:
        data.load(task, split, language, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def squad(*ids: str, answer: str = "Rhine") -> str:
    context = "Köln lies on the Rhine."
    questions = [
        {"id": name, "question": f"{name}?", "answers": [{"text": answer, "answer_start": context.find(answer)}]}
        for name in ids
    ]
    return json.dumps({"version": "x", "data": [{"paragraphs": [{"context": context, "qas": questions}]}]})


# --- layouts --------------------------------------------------------------------------------------------------------


def test_pawsx(tmp_path: Path) -> None:
    put(tmp_path, "xtreme/download/pawsx/dev-ko.tsv", 'A\tB\t1\r\n"C ""c"""\tD\t0\r\n')
    # The script writes with csv, its baselines read without: quotation marks stay.
    expected = (Example("0", "A", "B", label="1"), Example("1", '"C ""c"""', "D", label="0"))
    assert data.load(PAWSX, "dev", "ko", tmp_path).examples == expected
    put(tmp_path, "xtreme/download/pawsx/test-ko.tsv", "A\tB\r\nC\tD\r\n")
    gold = put(tmp_path, "xtreme/gold/pawsx/test-ko.tsv", "0\n1\n")
    assert [row.label for row in data.load(PAWSX, "test", "ko", tmp_path).examples] == ["0", "1"]
    gold.write_text("0\n2\n")
    assert refused(PAWSX, tmp_path, "test", "ko").startswith(f"{gold}:2: unknown label '2'; it must be one of 0, 1")


def test_panx_and_udpos(tmp_path: Path) -> None:
    put(tmp_path, "xtreme/download/panx/test-jv.tsv", "R.H.\tB-PER\nin\tO\n\nKöln\tB-LOC\n")
    assert data.load(PANX, "test", "jv", tmp_path).examples == (
        Example("0", tokens=("R.H.", "in"), tags=("B-PER", "O")),
        Example("1", tokens=("Köln",), tags=("B-LOC",)),
    )
    for task in (PANX, UDPOS):  # as the script leaves it: without tags, so not scored
        put(tmp_path, f"xtreme/download/{task.name}/test-yo.tsv", "a\nb\n\nc\n")
        rows = data.load(task, "test", "yo", tmp_path).examples
        assert [row.tokens for row in rows] == [("a", "b"), ("c",)]
        assert all(row.gold is None for row in rows)
    assert not UDPOS.source.has("dev", "th") and UDPOS.source.has("dev", "he")


@pytest.mark.parametrize(
    ("task", "split", "file"),
    [
        (XQUAD, "test", "xtreme/download/xquad/xquad.de.json"),
        (MLQA, "dev", "xtreme/download/mlqa/MLQA_V1/dev/dev-context-de-question-de.json"),
        (MLQA, "test", "xtreme/download/mlqa/MLQA_V1/test/test-context-de-question-de.json"),
        (TYDIQA, "test", "xtreme/download/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.fi.dev.json"),
    ],
)
def test_answers(tmp_path: Path, task: Task, split: str, file: str) -> None:
    language = "fi" if task is TYDIQA else "de"
    put(tmp_path, file, squad("a", "b"))
    rows = data.load(task, split, language, tmp_path).examples
    assert [row.id for row in rows] == ["a", "b"]
    assert rows[0].answers == (Answer("Rhine", 17),)
    put(tmp_path, file, squad("a", answer="").replace("-1", "0"))  # blanked
    assert data.load(task, split, language, tmp_path).examples[0].gold is None


def test_training_files_of_tydiqa_repeat_identifiers(tmp_path: Path) -> None:
    folder = "xtreme/download/tydiqa/tydiqa-goldp-v1.1-train"
    put(tmp_path, f"{folder}/tydiqa.goldp.en.train.json", squad("1", "1", "2"))
    assert [row.id for row in data.load(TYDIQA, "train", "en", tmp_path).examples] == ["0", "1", "2"]


def test_mlqa_is_answered_by_xquad() -> None:
    names = [task.name for task in SUITE.tasks]
    assert MLQA.card.answered_by == "xquad" and names.index("xquad") < names.index("mlqa")
    assert not any(MLQA.source.has("train", language) for language in MLQA.card.languages)


def bucc(folder: Path, gold: str = "zh-2\ten-7\nzh-3\ten-5\n", split: str = "dev") -> Path:
    place = "gold" if split == "test" else "download"
    put(folder, f"xtreme/download/bucc2018/zh-en.{split}.zh", "zh-1\t一\nzh-2\t二\nzh-3\t三\tx\n")
    put(folder, f"xtreme/download/bucc2018/zh-en.{split}.en", "en-5\tthree\nen-6\tfour\nen-7\ttwo\n")
    return put(folder, f"xtreme/{place}/bucc2018/zh-en.{split}.gold", gold)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_bucc(tmp_path: Path, split: str) -> None:
    bucc(tmp_path, split=split)
    found = data.load(BUCC2018, split, "zh", tmp_path)
    assert found.examples == (
        Example("zh-1", "一", label=""),
        Example("zh-2", "二", label="en-7"),
        Example("zh-3", "三\tx", label="en-5"),
    )
    assert (found.candidates, found.candidate_ids) == (("three", "four", "two"), ("en-5", "en-6", "en-7"))
    assert [row.gold for row in found.examples] == ["", "en-7", "en-5"]  # labelled, all of them


@pytest.mark.parametrize(
    ("gold", "line", "words"),
    [
        ("zh-2\ten-7\nzh-9\ten-5\n", 2, "zh-en.dev.zh has no sentence 'zh-9'"),
        ("zh-2\ten-8\n", 1, "zh-en.dev.en has no sentence 'en-8'"),
        ("zh-2\ten-7\nzh-2\ten-5\n", 2, "'zh-2' has the partner 'en-7' already"),
        ("zh-2 en-7\n", 1, "no identifier with a tab behind it"),
        ("\ten-7\n", 1, "no identifier with a tab behind it"),
    ],
)
def test_bucc_refused(tmp_path: Path, gold: str, line: int, words: str) -> None:
    path = bucc(tmp_path, gold)
    message = refused(BUCC2018, tmp_path, "dev", "zh")
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_bucc_sentences_have_identifiers_of_their_own(tmp_path: Path) -> None:
    bucc(tmp_path)
    path = put(tmp_path, "xtreme/download/bucc2018/zh-en.dev.en", "en-5\tthree\nen-7\ttwo\nen-5\tfour\n")
    assert refused(BUCC2018, tmp_path, "dev", "zh").startswith(f"{path}:3: the identifier 'en-5' comes twice")


def test_bucc_is_not_on_the_hub() -> None:
    with pytest.raises(MissingData, match=r"bucc2018, test, zh: bucc2018: not on the hub; give --data-dir"):
        data.load(BUCC2018, "test", "zh", None)


def test_bucc_threshold_of_dev_decides_on_test() -> None:
    """By hand: of dev's pairs sorted by cosine, F1 is best where the two right ones above 0.6 are given."""
    assert (BUCC2018.tuned_on, BUCC2018.eval_split) == ("dev", "test")
    dev = [("t1", "t1", 0.9), ("t2", "t2", 0.8), ("t9", "", 0.5), ("t3", "t4", 0.4), ("t5", "t5", 0.1)]
    test = [("t1", "t1", 0.7), ("t2", "", 0.6), ("t3", "t3", 0.66)]
    made = [
        [Prediction(f"s{n}", best, gold, (cosine, 9.0), best) for n, (best, gold, cosine) in enumerate(rows)]
        for rows in (dev, test)
    ]
    threshold = choose_threshold(BUCC2018.card, made[0])
    assert threshold == pytest.approx(0.65)
    decided = with_threshold(BUCC2018.card, made[1], threshold)
    assert [row.value for row in decided] == ["t1", "", "t3"]
    assert score(BUCC2018.card, decided, "zh") == {"f1": 100.0}


COPA = {"premise": "P.", "choice1": "A", "choice2": "B", "question": "effect", "idx": 3, "changed": False}


def lines(*labels: int) -> str:
    return "".join(f"{json.dumps({**COPA, 'label': label, 'idx': n})}\n" for n, label in enumerate(labels))


def test_xcopa(tmp_path: Path) -> None:
    put(tmp_path, "xtreme/download/xcopa/val-qu.jsonl", lines(1))
    (row,) = data.load(XCOPA, "dev", "qu", tmp_path).examples
    assert row == Example("0", "P. What happened as a result?", choices=("A", "B"), label="1")
    test = put(tmp_path, "xtreme/download/xcopa/test-qu.jsonl", lines(0, 1, 0))
    assert [row.label for row in data.load(XCOPA, "test", "qu", tmp_path).examples] == ["0", "1", "0"]
    put(tmp_path, "xtreme/download/xcopa/test-qu.jsonl", lines(0, 0, 0))
    assert refused(XCOPA, tmp_path, "test", "qu").startswith(f"{test}:1: every label is 0, as XTREME's script leaves")
    put(tmp_path, "superglue/COPA/train.jsonl", lines(0, 0))
    assert len(data.load(XCOPA, "train", "en", tmp_path).examples) == 2


# --- the hub --------------------------------------------------------------------------------------------------------


def test_hub_panx(read: Read) -> None:
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    tags = datasets.List(datasets.ClassLabel(names=names))
    schema = {"tokens": datasets.List(TEXT), "ner_tags": tags, "langs": datasets.List(TEXT)}
    rows = [{"tokens": ["in", "Köln"], "ner_tags": [0, 5], "langs": ["de", "de"]}]
    found = read(PANX, "test", "de", "google/xtreme", "PAN-X.de", "test", schema, rows)
    assert found.examples == (Example("0", tokens=("in", "Köln"), tags=("O", "B-LOC")),)


def test_hub_pawsx(read: Read) -> None:
    schema = {"sentence1": TEXT, "sentence2": TEXT, "label": TEXT}
    rows = [{"sentence1": "A", "sentence2": "B", "label": "1"}]
    found = read(PAWSX, "test", "de", "google/xtreme", "PAWS-X.de", "test", schema, rows)
    assert found.examples == (Example("0", "A", "B", label="1"),)


def row_of(name: str) -> dict[str, Any]:
    answers = {"text": ["Rhine"], "answer_start": [12]}
    return {"id": name, "title": "T", "context": "Köln on the Rhine", "question": "Q?", "answers": answers}


@pytest.mark.parametrize(("split", "there"), [("dev", "validation"), ("test", "test")])
def test_hub_mlqa(read: Read, split: str, there: str) -> None:
    found = read(MLQA, split, "de", "google/xtreme", "MLQA.de.de", there, SQUAD_SCHEMA, [row_of("q")])
    assert found.examples == (Example("q", "Q?", "Köln on the Rhine", answers=(Answer("Rhine", 12),)),)


def test_hub_tydiqa_holds_all_languages(read: Read) -> None:
    names = ["finnish-7-1", "english--3-0", "finnish-8-2", "englishman-1", "swahili-1-1"]
    rows = [row_of(name) for name in names]
    found = read(TYDIQA, "test", "fi", "google/xtreme", "tydiqa", "validation", SQUAD_SCHEMA, rows)
    assert [row.id for row in found.examples] == ["finnish-7-1", "finnish-8-2"]
    found = read(TYDIQA, "train", "en", "google/xtreme", "tydiqa", "train", SQUAD_SCHEMA, rows)
    assert [(row.id, row.gold) for row in found.examples] == [("0", ("Rhine",))]


def test_hub_xcopa(read: Read) -> None:
    choices = {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "question": TEXT}
    schema = {**choices, "label": INT, "idx": INT, "changed": datasets.Value("bool")}
    found = read(XCOPA, "test", "et", "cambridgeltl/xcopa", "et", "test", schema, [{**COPA, "label": 1}])
    assert [(row.id, row.label) for row in found.examples] == [("3", "1")]


# --- the real files -------------------------------------------------------------------------------------------------

COUNTS: list[tuple[Task, str, dict[str, int]]] = [  # rows of each language, as the data folder's own notes count them
    (PAWSX, "dev", dict.fromkeys("de en es fr ja zh".split(), 2_000)),
    (PANX, "train", {"en": 20_000, "de": 20_000, "fr": 20_000}),
    (PANX, "dev", dict.fromkeys("de en fr".split(), 10_000)),
    (PANX, "test", dict.fromkeys("de en fr".split(), 10_000)),
    (UDPOS, "dev", {"de": 19_233, "en": 3_974}),
    (UDPOS, "test", {"en": 5_440}),
    (XQUAD, "test", dict.fromkeys("ar de el en es hi ru tr vi zh".split(), 1_190)),
    (MLQA, "dev", {"ar": 517, "de": 512, "en": 1_148, "es": 500, "vi": 511, "zh": 504}),
    (TYDIQA, "train", {"en": 3_696, "ko": 1_625}),
    (TYDIQA, "test", {"bn": 113, "en": 440, "sw": 499}),
    (BUCC2018, "dev", {"zh": 8_624}),
    (XCOPA, "train", {"en": 400}),
    (XCOPA, "dev", dict.fromkeys("et ht id qu sw th tr vi zh".split(), 100)),
    (XCOPA, "test", dict.fromkeys("et ht id qu sw th tr vi zh".split(), 500)),
]


@pytest.mark.parametrize(("task", "split", "counts"), COUNTS, ids=[f"{task.name}-{split}" for task, split, _ in COUNTS])
def test_real_counts(real: Path, task: Task, split: str, counts: dict[str, int]) -> None:
    there = data.languages(task, split, real)
    assert set(counts) <= set(there)
    assert task is UDPOS or set(counts) == set(there)
    for language, count in counts.items():
        rows = data.load(task, split, language, real).examples
        assert len(rows) == count
        blank = (task, split) == (TYDIQA, "test")
        assert all((row.gold is None) is blank for row in rows)


def test_real_bucc(real: Path) -> None:
    split = data.load(BUCC2018, "dev", "zh", real)
    assert len(split.candidates) == len(set(split.candidate_ids)) == 13_589
    pairs = {(row.id, row.label) for row in split.examples if row.label}
    folder = real / "xtreme/download/bucc2018"
    assert pairs == {tuple(line.split("\t")) for line in (folder / "zh-en.dev.gold").read_text().splitlines()}
    texts = dict(zip(split.candidate_ids, split.candidates, strict=True))
    theirs = gzip.decompress((folder / "zh-en.dev.en.gz").read_bytes()).decode().split("\n")
    assert [f"{name}\t{text}" for name, text in texts.items()] == theirs[:-1]


def test_real_labels(real: Path) -> None:
    counts = Counter(row.label for row in data.load(PAWSX, "dev", "en", real).examples)
    assert set(counts) == {"0", "1"} and round(counts["1"] / 20) == 43
    tags = {tag for row in data.load(PANX, "test", "fr", real).examples for tag in row.tags or ()}
    assert tags == set(PANX.card.labels)


def test_real_test_files_without_gold_are_missing(real: Path) -> None:
    with pytest.raises(MissingData, match=r"xtreme/gold/pawsx/test-de\.tsv"):
        data.load(PAWSX, "test", "de", real)


# --- the official scorer --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout() -> Path:
    folder = find_checkout()
    if folder is None:
        pytest.skip("needs a checkout of github.com/google-research/xtreme: POLYPROMPT_XTREME, or `xtreme` beside us")
    return folder


def test_scores_are_those_of_evaluate_py(checkout: Path) -> None:
    found = compare(checkout)
    assert {line.task for line in found} == {"average", *(task.name for task in SUITE.tasks)}
    assert {line.metric for line in found if line.task == "average"} == set(AVERAGES.values())
    assert len({(line.task, line.language) for line in found}) == 1 + sum(len(t.card.languages) for t in SUITE.tasks)
    assert len({line.theirs for line in found}) > 20
    assert max(line.difference for line in found) <= TOLERANCE


def test_the_script_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.official.xtreme"]
    where = os.environ | {"POLYPROMPT_XTREME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=where, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no checkout of XTREME; name its folder")
