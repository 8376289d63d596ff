"""SuperGLUE: every task on files of its official layout, on rows of its hub dataset, on the real files; its average."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from layouts import INT, TEXT, WAYS, from_hub, load, put, refused

from benchmarks import data
from benchmarks.records import Answer, Example, Prediction
from benchmarks.results import ResultRecord
from benchmarks.scoring import average, chance, score
from benchmarks.suites.superglue import AXB, AXG, BOOLQ, CB, COPA, MULTIRC, RECORD, RTE, SUITE, WIC, WSC
from benchmarks.task import Task

Json = dict[str, Any]

# --- the official layouts -------------------------------------------------------------------------------------------

BOOLQ_ROW: Json = {"question": "is it", "passage": "It -- is.", "idx": 3, "label": True}
PAIR_ROW: Json = {"premise": "P.", "hypothesis": "H.", "label": "neutral", "idx": 5}
RTE_ROW = PAIR_ROW | {"label": "not_entailment"}
WIC_ROW: Json = {
    "word": "go", "sentence1": "I went home.", "sentence2": "It doesn't go.", "idx": 9, "label": False,
    "start1": 2, "end1": 6, "start2": 11, "end2": 13, "version": 1.1,
}  # fmt: skip
WSC_ROW: Json = {
    "text": 'Pam\'s  parents found him, "him," they said.',
    "target": {"span1_text": "parents", "span1_index": 1, "span2_text": "They", "span2_index": 5},
    "idx": 4,
    "label": True,
}
MULTIRC_ROW: Json = {
    "idx": 6,
    "version": 1.1,
    "passage": {
        "text": "A paragraph.",
        "questions": [
            {
                "question": "Who?",
                "idx": 56,
                "answers": [{"text": "Ann", "idx": 333, "label": 0}, {"text": "Bo", "idx": 334, "label": 1}],
            },
            {"question": "Why?", "idx": 57, "answers": [{"text": "So.", "idx": 335, "label": 1}]},
        ],
    },
}
PASSAGE = "Ann met Bo in Rome.\n@highlight\nBo is late\n@highlight\nAnn is not"
RECORD_ROW: Json = {
    "source": "CNN",
    "idx": 2,
    "passage": {
        "text": PASSAGE,
        "entities": [
            {"start": 0, "end": 2}, {"start": 8, "end": 9}, {"start": 14, "end": 17}, {"start": 31, "end": 32},
        ],
    },
    "qas": [
        {
            "idx": 7,
            "query": "It was @placeholder who waited",
            "answers": [{"start": 0, "end": 2, "text": "Ann"}, {"start": 53, "end": 55, "text": "Ann"}],
        },
        {"idx": 8, "query": "In @placeholder", "answers": [{"start": 14, "end": 17, "text": "Rome"}]},
    ],
}  # fmt: skip
ENTAILMENT = ("AX-g", {"premise": "She left.", "hypothesis": "H.", "label": "entailment", "pair_id": 551646})

READ_PASSAGE = "Ann met Bo in Rome.\n- Bo is late\n- Ann is not"
QUERIES = (
    Example(
        "7", READ_PASSAGE, "It was @placeholder who waited", choices=("Ann", "Bo", "Rome"), answers=(Answer("Ann", 0),)
    ),
    Example("8", READ_PASSAGE, "In @placeholder", choices=("Ann", "Bo", "Rome"), answers=(Answer("Rome", 0),)),
)
ANSWERS = (
    Example("6-56-333", "A paragraph.", "Who? Ann", label="False", group="6-56"),
    Example("6-56-334", "A paragraph.", "Who? Bo", label="True", group="6-56"),
    Example("6-57-335", "A paragraph.", "Why? So.", label="True", group="6-57"),
)
MARKED = Example("4", 'Pam\'s  parents found him, "him," *they* said.', "parents", label="True")


def json_lines(*rows: Json) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def without(row: Json, *names: str) -> Json:
    return {name: value for name, value in row.items() if name not in names}


LAYOUTS: list[tuple[Task, str, str, list[Json], tuple[Example, ...]]] = [
    (
        BOOLQ,
        "dev",
        "BoolQ/val",
        [BOOLQ_ROW, BOOLQ_ROW | {"idx": 4, "label": False}],
        (Example("3", "is it", "It -- is.", label="True"), Example("4", "is it", "It -- is.", label="False")),
    ),
    (BOOLQ, "test", "BoolQ/test", [without(BOOLQ_ROW, "label")], (Example("3", "is it", "It -- is."),)),
    (CB, "train", "CB/train", [PAIR_ROW], (Example("5", "P.", "H.", label="neutral"),)),
    (CB, "test", "CB/test", [without(PAIR_ROW, "label")], (Example("5", "P.", "H."),)),
    (RTE, "dev", "RTE/val", [RTE_ROW], (Example("5", "P.", "H.", label="not_entailment"),)),
    (
        WIC,
        "dev",
        "WiC/val",
        [WIC_ROW, WIC_ROW | {"idx": 10, "word": "do", "start2": 3, "end2": 7, "label": True}],  # "does" of "doesn't"
        (
            Example("9", "go: I went home.", "go: It doesn't go.", label="False"),
            Example("10", "do: I went home.", "do: It doesn't go.", label="True"),
        ),
    ),
    (
        WIC,
        "test",
        "WiC/test",
        [without(WIC_ROW, "label")],
        (Example("9", "go: I went home.", "go: It doesn't go."),),
    ),
    (WSC, "train", "WSC/train", [WSC_ROW], (MARKED,)),
    (MULTIRC, "dev", "MultiRC/val", [MULTIRC_ROW], ANSWERS),
    (RECORD, "train", "ReCoRD/train", [RECORD_ROW], QUERIES),
    (
        AXB,
        "test",
        "AX-b/AX-b",
        [{"sentence1": "A.", "sentence2": "B.", "idx": 0, "label": "entailment", "logic": "Negation"}],
        (Example("0", "A.", "B.", label="entailment"),),
    ),
    (
        AXG,
        "test",
        "AX-g/AX-g",
        [ENTAILMENT[1] | {"idx": n} for n in range(3)],
        tuple(Example(str(n), "She left.", "H.", label="entailment", group=str(n // 2)) for n in range(3)),
    ),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("task", "split", "file", "rows", "expected"), LAYOUTS, ids=[row[2] for row in LAYOUTS])
def test_layout(
    tmp_path: Path, task: Task, split: str, file: str, rows: list[Json], expected: tuple[Example, ...], way: str
) -> None:
    put(tmp_path, f"superglue/{file}.jsonl", json_lines(*rows), way)
    assert load(task, split, tmp_path) == expected


def test_nested_test_files_without_labels(tmp_path: Path) -> None:
    question = MULTIRC_ROW["passage"]["questions"][0]
    answers = [without(answer, "label") for answer in question["answers"]]
    unlabelled = MULTIRC_ROW | {"passage": {"text": "A paragraph.", "questions": [question | {"answers": answers}]}}
    put(tmp_path, "superglue/MultiRC/test.jsonl", json_lines(unlabelled))
    rows = load(MULTIRC, "test", tmp_path)
    assert [(row.id, row.gold, row.group) for row in rows] == [("6-56-333", None, "6-56"), ("6-56-334", None, "6-56")]

    put(
        tmp_path, "superglue/ReCoRD/test.jsonl", json_lines(RECORD_ROW | {"qas": [{"idx": 7, "query": "@placeholder"}]})
    )
    (query,) = load(RECORD, "test", tmp_path)
    assert (query.gold, query.choices) == (None, ("Ann", "Bo", "Rome"))


def test_pronoun_one_word_beside_its_index(tmp_path: Path) -> None:
    """So it stands in row 42 of the official dev file."""
    text = "Some day they might want to use it , but what more could they wish for?"
    target = {"span1_text": "Some", "span1_index": 0, "span2_text": "it", "span2_index": 6}
    put(tmp_path, "superglue/WSC/val.jsonl", json_lines(WSC_ROW | {"text": text, "target": target}))
    assert load(WSC, "dev", tmp_path)[0].text == text.replace(" it ", " *it* ")


@pytest.mark.parametrize("phrase", ["lev and Stalin", "Kamenev, Lev,", "LENIN"])
def test_phrases_of_which_only_the_words_stand_in_the_text(tmp_path: Path, phrase: str) -> None:
    """So names stand in the official test file: with other capitals, in the possessive, joined by an "and"."""
    text = "Lev Kamenev, Stalin's old editor and Lenin’s friend, who knew him"
    target = {"span1_text": phrase, "span1_index": 0, "span2_text": "him", "span2_index": 10}
    put(tmp_path, "superglue/WSC/test.jsonl", json_lines(without(WSC_ROW, "label") | {"text": text, "target": target}))
    assert load(WSC, "test", tmp_path)[0].text_pair == phrase


def changed(row: Json, *path: Any, to: Any) -> Json:
    """A deep copy of a record with another value at a path; `...` removes it."""
    copy = json.loads(json.dumps(row))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return copy


QUESTION = ("passage", "questions", 0)
BAD: list[tuple[Task, str, Json, str]] = [
    (BOOLQ, "BoolQ", BOOLQ_ROW | {"label": "perhaps"}, "unknown label 'perhaps'; it must be one of False, True"),
    (BOOLQ, "BoolQ", without(BOOLQ_ROW, "passage"), "no 'passage' here; the fields are question, idx, label"),
    (BOOLQ, "BoolQ", BOOLQ_ROW | {"question": None}, "'question' is None; it must be text"),
    (CB, "CB", PAIR_ROW | {"label": "not_entailment"}, "it must be one of entailment, contradiction, neutral"),
    (WIC, "WiC", WIC_ROW | {"start1": 1}, "start1 1 and end1 6 do not hold a word of sentence1 but ' went'"),
    (WIC, "WiC", WIC_ROW | {"start1": 3}, "but 'ent'"),
    (WIC, "WiC", WIC_ROW | {"end2": 12}, "but 'g'"),
    (WIC, "WiC", WIC_ROW | {"end2": 99}, "start2 11 and end2 99 do not hold a word of sentence2"),
    (WIC, "WiC", WIC_ROW | {"start2": -3}, "start2 -3"),
    (WIC, "WiC", WIC_ROW | {"end1": 2}, "but ''"),
    (WIC, "WiC", WIC_ROW | {"start1": "2"}, "'start1' is '2'; it must be a whole number"),
    (WIC, "WiC", without(WIC_ROW, "word"), "no 'word' here"),
    (WSC, "WSC", changed(WSC_ROW, "target", "span2_index", to=3), "is 'They' but word 3 of the text is 'him,'"),
    (WSC, "WSC", changed(WSC_ROW, "target", "span2_index", to=60), "but word 60 of the text is 'nothing'"),
    (WSC, "WSC", changed(WSC_ROW, "target", "span2_index", to=-1), "but word -1 of the text is 'nothing'"),
    (WSC, "WSC", changed(WSC_ROW, "target", "span2_index", to=True), "'span2_index' is True; it must be"),
    (WSC, "WSC", changed(WSC_ROW, "target", "span1_text", to="Paul"), "span1_text is 'Paul', which does not stand in"),
    (WSC, "WSC", changed(WSC_ROW, "target", "span1_text", to=" "), "span1_text is ' ', which does not stand in"),
    (WSC, "WSC", WSC_ROW | {"target": 3}, "'target' is 3; it must be an object"),
    (WSC, "WSC", without(WSC_ROW, "target"), "no 'span2_text' here"),
    (MULTIRC, "MultiRC", without(MULTIRC_ROW, "passage"), "no 'passage' here"),
    (MULTIRC, "MultiRC", MULTIRC_ROW | {"passage": "A."}, "'passage' is 'A.'; it must be an object"),
    (MULTIRC, "MultiRC", changed(MULTIRC_ROW, "passage", "questions", to={}), "'questions' is {}; it must be a list"),
    (MULTIRC, "MultiRC", changed(MULTIRC_ROW, *QUESTION, "answers", to=["x"]), "'answers' is ['x']; it must be a list"),
    (MULTIRC, "MultiRC", changed(MULTIRC_ROW, *QUESTION, "idx", to=...), "no 'idx' here"),
    (MULTIRC, "MultiRC", changed(MULTIRC_ROW, *QUESTION, "idx", to="q"), "'question' is 'q'; it must be a"),
    (MULTIRC, "MultiRC", changed(MULTIRC_ROW, *QUESTION, "question", to=5), "'question' is 5; it must be text"),
    (
        MULTIRC, "MultiRC", changed(MULTIRC_ROW, *QUESTION, "answers", 1, "label", to=2),
        "answer 334 to question 56: unknown label 2; it must be one of 0, 1",
    ),
    (MULTIRC, "MultiRC", changed(MULTIRC_ROW, *QUESTION, "answers", 1, "idx", to=333), "the id '6-56-333' stands at"),
    (RECORD, "ReCoRD", changed(RECORD_ROW, "passage", "entities", to=[]), "no entities; the answer is chosen among"),
    (RECORD, "ReCoRD", changed(RECORD_ROW, "passage", "entities", 0, "end", to=999), "start 0 and end 999 of an"),
    (RECORD, "ReCoRD", changed(RECORD_ROW, "passage", "entities", 0, "start", to=7), "start 7 and end 2 of an entity"),
    (RECORD, "ReCoRD", changed(RECORD_ROW, "qas", 0, "query", to="Who?"), "no @placeholder in the query 'Who?'"),
    (
        RECORD, "ReCoRD", changed(RECORD_ROW, "qas", 0, "answers", 0, "end", to=3),
        "query 7: the passage has 'Ann ' where the answer is 'Ann'",
    ),
    (
        RECORD, "ReCoRD", changed(RECORD_ROW, "qas", 1, "answers", to=[{"start": 4, "end": 6, "text": "met"}]),
        "none of the answers is an entity of the passage: met",
    ),
    (RECORD, "ReCoRD", changed(RECORD_ROW, "qas", to=7), "'qas' is 7; it must be a list of objects"),
    (RECORD, "ReCoRD", changed(RECORD_ROW, "qas", 1, "idx", to=7), "the id '7' stands at"),
    (AXG, "AX-g", ENTAILMENT[1] | {"idx": "x"}, "'idx' is 'x'; it must be a whole number"),
    (AXG, "AX-g", ENTAILMENT[1] | {"idx": 3, "label": "neutral"}, "unknown label 'neutral'"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "folder", "row", "words"), BAD, ids=[f"{row[1]}-{n}" for n, row in enumerate(BAD)])
def test_refused(tmp_path: Path, task: Task, folder: str, row: Json, words: str) -> None:
    good = {
        "BoolQ": BOOLQ_ROW, "CB": PAIR_ROW, "WiC": WIC_ROW, "WSC": WSC_ROW, "MultiRC": MULTIRC_ROW,
        "ReCoRD": RECORD_ROW, "AX-g": ENTAILMENT[1] | {"idx": 2},
    }[folder]  # fmt: skip
    other = json_lines(good).replace(f'"idx": {good["idx"]}', '"idx": 1000', 1)
    if folder in ("MultiRC", "ReCoRD"):  # the good row of the file has other questions than the bad one
        other = other.replace('"idx": 7', '"idx": 70').replace('"idx": 8', '"idx": 80')
    name = "AX-g" if folder == "AX-g" else "val"
    path = put(tmp_path, f"superglue/{folder}/{name}.jsonl", other + json_lines(row))
    message = refused(task, "test" if folder == "AX-g" else "dev", tmp_path)
    assert message.startswith(f"{path}:2: ")
    assert words in message


@pytest.mark.parametrize("task", [BOOLQ, WSC, MULTIRC, RECORD], ids=lambda task: task.name)
@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ('{"idx": 1, "text', 1, "not JSON at column 12"),
        ("[]\n", 1, "not a JSON object"),
        ("\n{}\n", 1, "not JSON at column 1"),
        ("", 1, "empty"),
        (b'{"text": "caf\xe9"}\n', 1, "byte 0xe9 is not UTF-8"),
        ("[" * 100_000, 1, "no record"),
        ("9" * 5_000, 1, "no record"),
        ("{}\n", 1, "here; the fields are none"),
    ],
    ids=["cut", "list", "blank line", "empty", "latin-1", "nested", "long number", "no field"],
)
def test_no_json_lines(tmp_path: Path, task: Task, content: str | bytes, line: int, words: str) -> None:
    (file,) = task.source.files("dev", "en")
    path = put(tmp_path, file, content)
    message = refused(task, "dev", tmp_path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_file_without_a_question(tmp_path: Path) -> None:
    path = put(tmp_path, "superglue/MultiRC/val.jsonl", json_lines(changed(MULTIRC_ROW, "passage", "questions", to=[])))
    assert refused(MULTIRC, "dev", tmp_path).startswith(f"{path}:1: no record in the file")


LONG = " long" * 200_000


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (BOOLQ, BOOLQ_ROW | {"passage": LONG}),
        (CB, PAIR_ROW | {"premise": LONG}),
        (WIC, WIC_ROW | {"sentence1": WIC_ROW["sentence1"] + LONG}),
        (WSC, WSC_ROW | {"text": WSC_ROW["text"] + LONG}),
        (MULTIRC, changed(MULTIRC_ROW, "passage", "text", to=LONG)),
        (RECORD, changed(RECORD_ROW, "passage", "text", to=PASSAGE + LONG)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_million_characters_in_a_line(tmp_path: Path, task: Task, row: Json) -> None:
    (file,) = task.source.files("dev", "en")
    put(tmp_path, file, json_lines(row))
    assert any(LONG in f"{example.text}{example.text_pair}" for example in load(task, "dev", tmp_path))


@pytest.mark.parametrize("task", [BOOLQ, CB, RTE, WIC, WSC, MULTIRC, RECORD], ids=lambda task: task.name)
def test_training_rows_need_labels(tmp_path: Path, task: Task) -> None:
    rows = {
        "boolq": BOOLQ_ROW, "cb": PAIR_ROW, "superglue-rte": RTE_ROW, "wic": WIC_ROW, "wsc": WSC_ROW,
        "multirc": changed(MULTIRC_ROW, *QUESTION, "answers", 1, "label", to=...),
        "record": changed(RECORD_ROW, "qas", 1, "answers", to=...),
    }  # fmt: skip
    (file,) = task.source.files("train", "en")
    path = put(tmp_path, file, json_lines(without(rows[task.name], "label")))
    message = refused(task, "train", tmp_path)
    assert message.startswith(f"{path}: row ") and "no label" in message


# --- the hub --------------------------------------------------------------------------------------------------------

TRUTH = datasets.ClassLabel(names=["False", "True"])
TWO = datasets.ClassLabel(names=["entailment", "not_entailment"])
PREMISE = {"premise": TEXT, "hypothesis": TEXT, "idx": INT}
SPANS = datasets.List({"text": TEXT, "start": INT, "end": INT})
HUB: list[tuple[Task, str, str, str, Json, list[Json], tuple[Example, ...]]] = [
    (
        BOOLQ, "dev", "boolq", "validation", {"question": TEXT, "passage": TEXT, "idx": INT, "label": TRUTH},
        [BOOLQ_ROW | {"label": 1}], (Example("3", "is it", "It -- is.", label="True"),),
    ),
    (
        CB, "train", "cb", "train",
        {**PREMISE, "label": datasets.ClassLabel(names=["entailment", "contradiction", "neutral"])},
        [PAIR_ROW | {"label": 2}], (Example("5", "P.", "H.", label="neutral"),),
    ),
    (
        MULTIRC, "dev", "multirc", "validation",
        {
            "paragraph": TEXT, "question": TEXT, "answer": TEXT,
            "idx": {"paragraph": INT, "question": INT, "answer": INT}, "label": TRUTH,
        },
        [
            {
                "paragraph": "A paragraph.", "question": question, "answer": answer, "label": label,
                "idx": {"paragraph": 6, "question": number, "answer": of_answer},
            }
            for question, number, answer, of_answer, label in (
                ("Who?", 56, "Ann", 333, 0), ("Who?", 56, "Bo", 334, 1), ("Why?", 57, "So.", 335, 1),
            )
        ],
        ANSWERS,
    ),
    (
        RECORD, "train", "record", "train",
        {
            "passage": TEXT, "query": TEXT, "entities": datasets.List(TEXT), "entity_spans": SPANS,
            "answers": datasets.List(TEXT), "idx": {"passage": INT, "query": INT},
        },
        [
            {
                "passage": PASSAGE, "query": query, "entities": ["Ann", "Bo", "Rome"], "answers": [answer],
                "entity_spans": [{"text": "Ann", "start": 0, "end": 3}], "idx": {"passage": 2, "query": number},
            }
            for query, number, answer in (("It was @placeholder who waited", 7, "Ann"), ("In @placeholder", 8, "Rome"))
        ],
        QUERIES,
    ),
    (
        RECORD, "test", "record", "test",
        {
            "passage": TEXT, "query": TEXT, "entities": datasets.List(TEXT), "answers": datasets.List(TEXT),
            "idx": {"passage": INT, "query": INT},
        },
        [
            {
                "passage": "Ann", "query": "@placeholder", "entities": ["Ann"], "answers": [],
                "idx": {"passage": 2, "query": 7},
            }
        ],
        (Example("7", "Ann", "@placeholder", choices=("Ann",)),),
    ),
    (
        RTE, "test", "rte", "test", {**PREMISE, "label": TWO}, [RTE_ROW | {"label": -1}], (Example("5", "P.", "H."),),
    ),
    (
        WIC, "dev", "wic", "validation",
        {
            "word": TEXT, "sentence1": TEXT, "sentence2": TEXT, "start1": INT, "start2": INT, "end1": INT, "end2": INT,
            "idx": INT, "label": TRUTH,
        },
        [without(WIC_ROW, "version") | {"label": 0}],
        (Example("9", "go: I went home.", "go: It doesn't go.", label="False"),),
    ),
    (
        WSC, "dev", "wsc.fixed", "validation",
        {
            "text": TEXT, "span1_index": INT, "span2_index": INT, "span1_text": TEXT, "span2_text": TEXT, "idx": INT,
            "label": TRUTH,
        },
        [{"text": WSC_ROW["text"], "idx": 4, "label": 1, **WSC_ROW["target"]}], (MARKED,),
    ),
    (
        AXB, "test", "axb", "test", {"sentence1": TEXT, "sentence2": TEXT, "idx": INT, "label": TWO},
        [{"sentence1": "A.", "sentence2": "B.", "idx": 0, "label": 0}], (Example("0", "A.", "B.", label="entailment"),),
    ),
    (
        AXG, "test", "axg", "test", {**PREMISE, "label": TWO},
        [{"premise": "She left.", "hypothesis": "H.", "idx": n, "label": 1} for n in (4, 5, 6)],
        tuple(Example(str(n), "She left.", "H.", label="not_entailment", group=str(n // 2)) for n in (4, 5, 6)),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "split", "config", "there", "schema", "rows", "expected"),
    HUB,
    ids=[f"{row[0].name}-{row[1]}" for row in HUB],
)
def test_hub(
    tmp_path: Path,
    task: Task,
    split: str,
    config: str,
    there: str,
    schema: Json,
    rows: list[Json],
    expected: tuple[Example, ...],
) -> None:
    assert from_hub(task, split, tmp_path, ("aps/super_glue", config, there), schema, rows) == expected


# --- the suite ------------------------------------------------------------------------------------------------------

SCORES = {
    "boolq": {"accuracy": 75.0},
    "cb": {"accuracy": 90.0, "f1_macro": 80.0},  # 85
    "copa": {"accuracy": 70.0},
    "multirc": {"f1a": 70.0, "em": 24.0},  # 47
    "record": {"f1": 72.0, "em": 71.0},  # 71.5
    "superglue-rte": {"accuracy": 78.0},
    "wic": {"accuracy": 74.0},
    "wsc": {"accuracy": 65.0},
    "axb": {"matthews": 30.0},
    "axg": {"accuracy": 60.0, "parity": 95.0},
}


def results(scores: dict[str, dict[str, float]]) -> list[ResultRecord]:
    splits = {task.name: task.eval_split for task in SUITE.tasks}
    return [
        ResultRecord(
            task=name, suite="superglue", language="en", split=splits[name], examples=9, limited=False, scores=values,
            chance={}, predictions="x", sha256="x",
        )
        for name, values in scores.items()
    ]  # fmt: skip


def test_average_by_hand() -> None:
    by_hand = (75 + 85 + 70 + 47 + 71.5 + 78 + 74 + 65) / 8
    assert average(SUITE, results(SCORES)) == {"average": pytest.approx(by_hand)}
    for name in SCORES:
        missing = average(SUITE, results({other: values for other, values in SCORES.items() if other != name}))
        assert missing == {"average": pytest.approx(by_hand) if name in ("axb", "axg") else None}


def test_all_tasks_are_there() -> None:
    assert {task.name: list(task.card.metrics) for task in SUITE.tasks} == {n: list(v) for n, v in SCORES.items()}
    assert {task.name: task.card.head for task in SUITE.tasks if task.card.head} == {
        "axb": "superglue-rte",
        "axg": "superglue-rte",
    }
    for task in (AXB, AXG):
        assert task.card.labels == RTE.card.labels
        assert (task.card.train_language, task.source.has("train", "en"), task.eval_split) == (None, False, "test")
    assert all(task.source.has(split, "en") for task in SUITE.tasks[:8] for split in ("train", "dev", "test"))


def test_published_numbers() -> None:
    """The table of P-Tuning v2's README, re-implementation."""
    found = {(task.name, n.backbone): n.value for task in SUITE.tasks for n in task.published}
    names = ("boolq", "copa", "superglue-rte", "wic", "wsc")
    large = dict(zip(names, (74.3, 77.0, 80.1, 75.1, 68.3), strict=True))
    roberta = dict(zip(names, (84.0, 92.0, 86.6, 73.7, 64.4), strict=True))
    assert found == {(name, "BERT-large"): value for name, value in large.items()} | {
        (name, "RoBERTa-large"): value for name, value in roberta.items()
    }
    assert {n.metric for task in SUITE.tasks for n in task.published} == {"accuracy"}


# --- metrics by hand ------------------------------------------------------------------------------------------------


def test_multirc_by_hand() -> None:
    """Two questions: one all right, one with a miss and a false alarm."""
    rows = [
        Prediction(str(number), value, gold, group=group)
        for number, (gold, value, group) in enumerate(
            [
                ("True", "True", "a"), ("False", "True", "b"), ("False", "False", "a"), ("True", "False", "b"),
                ("True", "True", "b"),
            ]
        )
    ]  # fmt: skip
    # Of all answers 2 are right and given, 3 are right, 3 are given.
    assert score(MULTIRC.card, rows) == {"f1a": pytest.approx(200 * 2 / 6), "em": 50.0}
    # Always "True": 3 of 5, so F1 6/8; no question has only right answers. Always "False": none either.
    assert chance(MULTIRC.card, rows) == {"f1a": pytest.approx(75), "em": 0.0}


def test_record_by_hand() -> None:
    rows = [
        Prediction("0", "the Rome", ("Rome", "Roma"), (0.2, 0.8)),  # right: an article does not count
        Prediction("1", "Ann Lee", ("Ann",), (0.1, 0.2, 0.7)),  # F1 2/3
        Prediction("2", "Bo", ("Ann", "Ann Lee"), (0.3, 0.3, 0.2, 0.2)),
    ]
    assert score(RECORD.card, rows) == {"f1": pytest.approx(100 * (1 + 2 / 3) / 3), "em": pytest.approx(100 / 3)}
    # Any of the choices: 2 of 2 are accepted, 1 of 3, 2 of 4.
    guess = pytest.approx(100 * (1 + 1 / 3 + 1 / 2) / 3)
    assert chance(RECORD.card, rows) == {"f1": guess, "em": guess}


def test_parity_by_hand() -> None:
    values = ["entailment", "entailment", "entailment", "not_entailment"]
    rows = [Prediction(str(n), value, "entailment", group=str(n // 2)) for n, value in enumerate(values)]
    assert score(AXG.card, rows) == {"accuracy": 75.0, "parity": 50.0}
    assert chance(AXG.card, rows) == {"accuracy": 100.0, "parity": 100.0}


# --- the real files -------------------------------------------------------------------------------------------------

COUNTS: list[tuple[Task, str, Any]] = [  # as the data folder's own notes count them
    (BOOLQ, "train", 64),
    (BOOLQ, "dev", {"True": 2_033, "False": 1_237}),
    (RTE, "train", {"entailment": 1_249, "not_entailment": 1_241}),
    (RTE, "dev", {"entailment": 146, "not_entailment": 131}),
    (RTE, "test", {None: 3_000}),
    (WIC, "train", 64),
    (WIC, "dev", {"True": 319, "False": 319}),
    (WSC, "train", 64),
    (WSC, "dev", {"True": 38, "False": 66}),
    (MULTIRC, "dev", 4_848),
    (RECORD, "train", 32),
    (RECORD, "dev", 32),
]


@pytest.mark.parametrize(("task", "split", "counts"), COUNTS, ids=[f"{task.name}-{split}" for task, split, _ in COUNTS])
def test_real_counts(shared: Path, task: Task, split: str, counts: dict[str | None, int] | int) -> None:
    rows = load(task, split, shared / "data")
    assert (Counter(row.label for row in rows) == counts) if isinstance(counts, dict) else (len(rows) == counts)


@pytest.mark.parametrize(
    ("task", "split", "file", "count"),
    [
        (BOOLQ, "dev", "BoolQ/val.jsonl", 670),
        (WIC, "dev", "WiC/val.jsonl", 138),
        (MULTIRC, "train", "MultiRC/train.jsonl", 3_893),
        (MULTIRC, "dev", "MultiRC/val.jsonl", 1_276),
    ],
)
def test_real_carved_sets(shared: Path, task: Task, split: str, file: str, count: int) -> None:
    files = {f"{task.name}.{split}": [f"superglue_carved/{file}"]}
    assert len(data.load(task, split, "en", shared / "data", files).examples) == count


def test_real_questions(shared: Path) -> None:
    rows = load(MULTIRC, "dev", shared / "data")
    assert len({row.group for row in rows}) == 953
    assert len({row.text for row in rows}) == 83
    assert rows[1].text_pair == (
        "Would the mass of a baseball affect how much force you have to use to pick it up? Yes"
    )
    queries = load(RECORD, "dev", shared / "data")
    assert all(set(row.gold or ()) <= set(row.choices) and "@highlight" not in row.text for row in queries)
    assert queries[0].gold == ("Benazir Bhutto", "Bhutto")


def test_real_copa(shared: Path) -> None:
    assert Counter(row.label for row in load(COPA, "dev", shared / "data")) == {"0": 55, "1": 45}
