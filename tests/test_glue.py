"""GLUE: every task on files of its official layout, on rows of its hub dataset, on the real files, and its average."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from layouts import INT, TEXT, WAYS, from_hub, load, put, refused

from benchmarks import data
from benchmarks.records import Example, Prediction
from benchmarks.results import ResultRecord
from benchmarks.scoring import average, chance
from benchmarks.suites.glue import AX, COLA, MNLI, MNLI_MM, MRPC, QNLI, QQP, RTE, SST2, STSB, SUITE, WNLI
from benchmarks.task import Kind, Task

# --- the official layouts -------------------------------------------------------------------------------------------

MNLI_TEXTS = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2"
)
MNLI_ROW = '31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT a)\t(ROOT b)\tA b.\tC "d".'
FULL = "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel\n"

LAYOUTS: list[tuple[Task, str, str, str, list[Example]]] = [
    (
        COLA,
        "train",
        "glue/CoLA/train.tsv",
        'gj04\t1\t\tA "fine" one.\ngj04\t0\t*\tThem is.\n',
        [Example("0", 'A "fine" one.', label="acceptable"), Example("1", "Them is.", label="unacceptable")],
    ),
    (COLA, "dev", "glue/CoLA/dev.tsv", "gj04\t1\t\tA one.\n", [Example("0", "A one.", label="acceptable")]),
    (COLA, "test", "glue/CoLA/test.tsv", "index\tsentence\n0\tA.\n1\tB.\n", [Example("0", "A."), Example("1", "B.")]),
    (
        MRPC,
        "dev",
        "glue/MRPC/dev.tsv",
        'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said "no.\t"No.\n0\t9\t3\tC\tD\n',
        [
            Example("0", 'He said "no.', '"No.', label="equivalent"),
            Example("1", "C", "D", label="not_equivalent"),
        ],
    ),
    (
        MRPC,
        "test",
        "glue/MRPC/test.tsv",
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n5\t7\t8\tA\tB\n",
        [Example("5", "A", "B")],
    ),
    (
        QQP,
        "train",
        "glue/QQP/train.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n133273\t213221\t213222\tA?\tB?\t0\n4\t5\t6\tC?\tD?\t1\n",
        [Example("133273", "A?", "B?", label="not_duplicate"), Example("4", "C?", "D?", label="duplicate")],
    ),
    (QQP, "test", "glue/QQP/test.tsv", "id\tquestion1\tquestion2\n0\tA?\tB?\n", [Example("0", "A?", "B?")]),
    (
        MNLI,
        "train",
        "glue/MNLI/train.tsv",
        f"{MNLI_TEXTS}\tlabel1\tgold_label\n0\t{MNLI_ROW}\tneutral\tneutral\n",
        [Example("0", "A b.", 'C "d".', label="neutral")],
    ),
    *(
        (
            task,
            "dev",
            f"glue/MNLI/dev_{part}.tsv",
            f"{MNLI_TEXTS}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
            f"0\t{MNLI_ROW}\tneutral\tneutral\tneutral\tentailment\tneutral\tcontradiction\n",
            [Example("0", "A b.", 'C "d".', label="contradiction")],
        )
        for task, part in ((MNLI, "matched"), (MNLI_MM, "mismatched"))
    ),
    *(
        (
            task,
            "test",
            f"glue/MNLI/test_{part}.tsv",
            f"{MNLI_TEXTS}\n9\t{MNLI_ROW}\n",
            [Example("9", "A b.", 'C "d".')],
        )
        for task, part in ((MNLI, "matched"), (MNLI_MM, "mismatched"))
    ),
    (
        QNLI,
        "train",
        "glue/QNLI/train.tsv",
        "index\tquestion\tsentence\tlabel\n3\tWhat?\tThis.\tnot_entailment\n",
        [Example("3", "What?", "This.", label="not_entailment")],
    ),
    (
        WNLI,
        "dev",
        "glue/WNLI/dev.tsv",
        "index\tsentence1\tsentence2\tlabel\n40\tA.\tB.\t1\n41\tC.\tD.\t0\n",
        [Example("40", "A.", "B.", label="entailment"), Example("41", "C.", "D.", label="not_entailment")],
    ),
    (WNLI, "test", "glue/WNLI/test.tsv", "index\tsentence1\tsentence2\n0\tA.\tB.\n", [Example("0", "A.", "B.")]),
    (
        AX,
        "test",
        "glue/diagnostic/diagnostic-full.tsv",
        f"{FULL}\t\tNegation\t\tArtificial\tA.\tB.\tcontradiction\nQuantifiers\t\t\t\t\tC.\tD.\tneutral\n",
        [Example("0", "A.", "B.", label="contradiction"), Example("1", "C.", "D.", label="neutral")],
    ),
    (
        AX,
        "test",
        "glue/diagnostic/diagnostic.tsv",
        "index\tsentence1\tsentence2\n0\tA.\tB.\n",
        [Example("0", "A.", "B.")],
    ),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("task", "split", "file", "content", "expected"), LAYOUTS, ids=[row[2] for row in LAYOUTS])
def test_layout(
    tmp_path: Path, task: Task, split: str, file: str, content: str, expected: list[Example], way: str
) -> None:
    put(tmp_path, file, content, way)
    assert load(task, split, tmp_path) == tuple(expected)


def test_the_labelled_diagnostics_are_preferred(tmp_path: Path) -> None:
    put(tmp_path, "glue/diagnostic/diagnostic.tsv", "index\tsentence1\tsentence2\n0\tA.\tB.\n")
    put(tmp_path, "glue/diagnostic/diagnostic-full.tsv", f"{FULL}\t\t\t\t\tA.\tB.\tneutral\n", "gz")
    assert load(AX, "test", tmp_path)[0].label == "neutral"


def test_rows_of_qqp_that_line_ends_tore(tmp_path: Path) -> None:
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    torn = "5\t1\t2\tWhat is\nthis?\tWhat is it?\t1\n"
    put(tmp_path, "glue/QQP/train.tsv", f"{head}4\t1\t2\tA?\tB?\t0\n{torn}6\t3\t4\tC?\tD?\t1\n")
    assert [row.id for row in load(QQP, "train", tmp_path)] == ["4", "6"]
    path = put(tmp_path, "glue/QQP/train.tsv", f"{head}4\t1\t2\tA?\tB?\t0\tmore\n")
    assert refused(QQP, "train", tmp_path).startswith(f"{path}:2: 7 columns where 6 are expected")


@pytest.mark.parametrize(
    ("task", "split", "file", "content", "line", "words"),
    [
        (COLA, "dev", "CoLA/dev.tsv", "gj04\t1\t\tA.\ngj04\t1\tB.\n", 2, "3 columns where 4 are expected"),
        (COLA, "dev", "CoLA/dev.tsv", "gj04\t1\t\tA.\ngj04\t2\t\tB.\n", 2, "unknown label '2'; it must be one of 0, 1"),
        (COLA, "dev", "CoLA/dev.tsv", "index\tsentence\n0\tA.\n", 1, "no 'sentence' here"),
        (COLA, "test", "CoLA/test.tsv", "gj04\t1\t\tA.\ngj04\t1\t\tB.\n", 2, "no 'sentence' here"),
        (COLA, "dev", "CoLA/dev.tsv", "", 1, "empty"),
        (COLA, "dev", "CoLA/dev.tsv", b"gj04\t1\t\tA.\ngj04\t1\t\tcaf\xe9\n", 2, "byte 0xe9 is not UTF-8"),
        (MRPC, "dev", "MRPC/dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\nyes\t1\t2\tA\tB\n", 2, "'yes'"),
        (MRPC, "dev", "MRPC/dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", 1, "no rows"),
        (QQP, "dev", "QQP/dev.tsv", "id\tquestion1\tquestion2\tis_duplicate\n1\tA\tB\t0\n1\tC\tD\t0\n", 3, "id '1'"),
        (MNLI, "dev", "MNLI/dev_matched.tsv", "index\tsentence1\tsentence2\tgold_label\n0\tA\tB\t-\n", 2, "label '-'"),
        (QNLI, "dev", "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tA\tB\tneutral\n", 2, "label 'neutral'"),
        (WNLI, "dev", "WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n", 2, "of 0, 1"),
        (AX, "test", "diagnostic/diagnostic-full.tsv", f"{FULL}\t\t\t\t\tA\tB\tmaybe\n", 2, "unknown label 'maybe'"),
    ],
)  # fmt: skip
def test_refused(
    tmp_path: Path, task: Task, split: str, file: str, content: str | bytes, line: int, words: str
) -> None:
    path = put(tmp_path, f"glue/{file}", content)
    message = refused(task, split, tmp_path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        (SST2, "sentence"),
        (MRPC, "#1 String\t#2 String"),
        (STSB, "sentence1\tsentence2"),
        (QQP, "question1\tquestion2"),
        (MNLI, MNLI_TEXTS),
        (QNLI, "index\tquestion\tsentence"),
        (RTE, "sentence1\tsentence2"),
        (WNLI, "sentence1\tsentence2"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_training_rows_need_labels(tmp_path: Path, task: Task, columns: str) -> None:
    (file,) = task.source.files("train", "en")
    path = put(tmp_path, file, f"{columns}\n" + "\t".join("x" * (columns.count("\t") + 1)) + "\n")
    message = refused(task, "train", tmp_path)
    assert message.startswith(str(path)) and "no label" in message


def test_million_characters_in_a_line(tmp_path: Path) -> None:
    put(tmp_path, "glue/CoLA/dev.tsv", f"gj04\t1\t\t{'x' * 1_000_000}\n")
    assert len(load(COLA, "dev", tmp_path)[0].text) == 1_000_000


# --- the hub --------------------------------------------------------------------------------------------------------

PAIR = {"sentence1": TEXT, "sentence2": TEXT}
PREMISE = {"premise": TEXT, "hypothesis": TEXT}
NLI = ["entailment", "neutral", "contradiction"]
HUB: list[tuple[Task, str, str, str, dict[str, Any], list[str], list[str | None]]] = [
    (COLA, "train", "cola", "train", {"sentence": TEXT}, ["unacceptable", "acceptable"], ["acceptable", "acceptable"]),
    (MRPC, "dev", "mrpc", "validation", PAIR, ["not_equivalent", "equivalent"], ["not_equivalent", "equivalent"]),
    (
        QQP, "dev", "qqp", "validation", {"question1": TEXT, "question2": TEXT}, ["not_duplicate", "duplicate"],
        ["not_duplicate", "duplicate"],
    ),
    (MNLI, "train", "mnli", "train", PREMISE, NLI, ["entailment", "neutral"]),
    (MNLI, "dev", "mnli", "validation_matched", PREMISE, NLI, ["entailment", "neutral"]),
    (MNLI, "test", "mnli", "test_matched", PREMISE, NLI, [None, None]),
    (MNLI_MM, "dev", "mnli", "validation_mismatched", PREMISE, NLI, ["entailment", "neutral"]),
    (MNLI_MM, "test", "mnli", "test_mismatched", PREMISE, NLI, [None, None]),
    (
        QNLI, "train", "qnli", "train", {"question": TEXT, "sentence": TEXT}, ["entailment", "not_entailment"],
        ["entailment", "not_entailment"],
    ),
    (WNLI, "dev", "wnli", "validation", PAIR, ["not_entailment", "entailment"], ["not_entailment", "entailment"]),
    (AX, "test", "ax", "test", PREMISE, NLI, [None, None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "split", "config", "there", "texts", "names", "labels"),
    HUB,
    ids=[f"{row[0].name}-{row[1]}" for row in HUB],
)
def test_hub(
    tmp_path: Path,
    task: Task,
    split: str,
    config: str,
    there: str,
    texts: dict[str, Any],
    names: list[str],
    labels: list[str | None],
) -> None:
    schema = {**texts, "label": datasets.ClassLabel(names=names), "idx": INT}
    rows = [
        {**{name: f"{name} {n}" for name in texts}, "label": -1 if label is None else names.index(label), "idx": n + 7}
        for n, label in enumerate(labels)
    ]
    first, second = [*texts, None][:2]
    expected = tuple(
        Example(str(n + 7), f"{first} {n}", None if second is None else f"{second} {n}", label=label)
        for n, label in enumerate(labels)
    )
    assert from_hub(task, split, tmp_path, ("nyu-mll/glue", config, there), schema, rows) == expected


# --- the suite ------------------------------------------------------------------------------------------------------


def results(scores: dict[str, dict[str, float]]) -> list[ResultRecord]:
    splits = {task.name: task.eval_split for task in SUITE.tasks}
    return [
        ResultRecord(
            task=name, suite="glue", language="en", split=splits[name], examples=9, limited=False, scores=values,
            chance={}, predictions="x", sha256="x",
        )
        for name, values in scores.items()
    ]  # fmt: skip


SCORES = {
    "cola": {"matthews": 60.0},
    "sst2": {"accuracy": 90.0},
    "mrpc": {"accuracy": 80.0, "f1": 86.0},  # 83
    "stsb": {"pearson": 88.0, "spearman": 86.0},  # 87
    "qqp": {"accuracy": 90.0, "f1": 87.0},  # 88.5
    "mnli": {"accuracy": 84.0},  # 84 and 82 count as one task: 83
    "mnli-mm": {"accuracy": 82.0},
    "qnli": {"accuracy": 91.0},
    "rte": {"accuracy": 66.0},
    "wnli": {"accuracy": 56.0},
    "ax": {"matthews": -99.0},  # apart
}


def test_average_by_hand() -> None:
    by_hand = (60 + 90 + 83 + 87 + 88.5 + 83 + 91 + 66 + 56) / 9
    assert average(SUITE, results(SCORES)) == {"average": pytest.approx(by_hand)}
    without_ax = {name: values for name, values in SCORES.items() if name != "ax"}
    assert average(SUITE, results(without_ax)) == {"average": pytest.approx(by_hand)}
    for name in set(SCORES) - {"ax"}:
        missing = {other: values for other, values in SCORES.items() if other != name}
        assert average(SUITE, results(missing)) == {"average": None}


def test_all_tasks_are_there() -> None:
    assert [task.name for task in SUITE.tasks] == list(SCORES)
    assert {task.name: list(task.card.metrics) for task in SUITE.tasks} == {n: list(v) for n, v in SCORES.items()}
    assert {name for group in SUITE.averaged for name in group} == set(SCORES) - {"ax"}
    assert {task.name: task.card.head for task in SUITE.tasks if task.card.head} == {"mnli-mm": "mnli", "ax": "mnli"}
    for task in (MNLI_MM, AX):
        assert task.card.labels == MNLI.card.labels
        assert task.card.train_language is None
        assert not task.source.has("train", "en")
    assert [task.name for task in SUITE.tasks if task.card.kind is Kind.REGRESSION] == ["stsb"]


def test_published_numbers() -> None:
    assert {task.name for task in SUITE.tasks if not task.published} == {"ax"}
    for task in SUITE.tasks:
        assert [number.metric for number in task.published] in ([], list(task.card.metrics))
        assert all(0 < number.value < 100 and number.source and number.split == "dev" for number in task.published)
    assert [(number.metric, number.value) for number in MRPC.published] == [("accuracy", 84.07), ("f1", 88.85)]


# --- the real files -------------------------------------------------------------------------------------------------

COUNTS = [  # as the data folder's own notes count them
    (COLA, "train", {"acceptable": 6_023, "unacceptable": 2_528}),
    (COLA, "dev", {"acceptable": 721, "unacceptable": 322}),
    (COLA, "test", {None: 1_063}),
    (MRPC, "train", 3_668),
    (MRPC, "dev", 408),
    (MRPC, "test", {None: 1_725}),
    (QNLI, "dev", {"entailment": 2_702, "not_entailment": 2_761}),
    (QNLI, "test", {None: 5_463}),
]


@pytest.mark.parametrize(("task", "split", "counts"), COUNTS, ids=[f"{task.name}-{split}" for task, split, _ in COUNTS])
def test_real_counts(shared: Path, task: Task, split: str, counts: dict[str | None, int] | int) -> None:
    found = Counter(row.label for row in load(task, split, shared / "data"))
    assert (found == counts) if isinstance(counts, dict) else (found.total() == counts and None not in found)


def test_real_texts(shared: Path) -> None:
    row = load(COLA, "train", shared / "data")[0]
    assert row == Example(
        "0", "Our friends won't buy this analysis, let alone the next one we propose.", label="acceptable"
    )
    row = load(MRPC, "dev", shared / "data")[0]
    assert (row.text_pair, row.label) == (
        '"The foodservice pie business does not fit our long-term growth strategy.', "equivalent",
    )  # fmt: skip


def test_real_labels_of_mrpcs_test_set(shared: Path) -> None:
    files = {"mrpc.test": ["glue/MRPC/msr_paraphrase_test.txt"]}
    rows = data.load(MRPC, "test", "en", shared / "data", files).examples
    assert [(row.text, row.text_pair) for row in rows] == [
        (row.text, row.text_pair) for row in load(MRPC, "test", shared / "data")
    ]
    assert {row.label for row in rows} == {"equivalent", "not_equivalent"}


def test_real_carved_sets(shared: Path) -> None:
    carved = {
        "mnli.train": ("MNLI/train.tsv", 17_632), "mnli.dev": ("MNLI/dev_matched.tsv", 1_049),
        "mnli-mm.dev": ("MNLI/dev_mismatched.tsv", 966), "qnli.train": ("QNLI/train.tsv", 4_463),
        "qnli.dev": ("QNLI/dev.tsv", 1_000),
    }  # fmt: skip
    tasks = {task.name: task for task in SUITE.tasks}
    for place, (file, count) in carved.items():
        name, split = place.split(".")
        rows = data.load(tasks[name], split, "en", shared / "data", {place: [f"glue_carved/{file}"]}).examples
        assert len(rows) == count


def test_real_chance(shared: Path) -> None:
    """The majority label: no correlation in CoLA, 279 of 408 in MRPC, whose F1 is then 2p / (1 + p)."""

    def of(task: Task) -> dict[str, float]:
        rows = load(task, "dev", shared / "data")
        return chance(task.card, [Prediction(row.id, row.gold, row.gold) for row in rows if row.gold is not None])

    assert of(COLA) == {"matthews": 0}
    share = 279 / 408
    assert of(MRPC) == {"accuracy": pytest.approx(100 * share), "f1": pytest.approx(200 * share / (1 + share))}
    assert of(RTE) == {"accuracy": pytest.approx(14_600 / 277)}
    assert of(SST2) == {"accuracy": pytest.approx(44_400 / 872)}
    assert of(STSB) == {"pearson": 0, "spearman": 0}
