"""Submissions: read back by other parsers, and scored by official scripts (recorded; XTREME's where it is there)."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fake_runs import write_run

from benchmarks import submit
from benchmarks.errors import PolypromptError, run_command
from benchmarks.readers.parallel import Parallel
from benchmarks.records import Prediction, Value
from benchmarks.registry import find_suite, find_task
from benchmarks.results import predictions_path, write_predictions
from benchmarks.scoring import score
from benchmarks.submissions.format import LeftOut, Official, Predicted
from tests.official import submit_xtreme

Rows = Mapping[str, Sequence[Prediction]]
"""Task -> its predictions, in English unless "task.language" names another."""


def make_run(folder: Path, rows: Rows, split: str, **facts: object) -> Path:
    """A run that predicted some tasks; `facts` are of its manifest."""
    places = {name: name.partition(".")[::2] for name in rows}
    names = dict.fromkeys(task for task, _ in places.values())
    write_run(folder, [find_task(name).card for name in names], languages=(), **facts)
    for name, (task, language) in places.items():
        write_predictions(folder / predictions_path(task, language or "en", split), rows[name])
    return folder


def predict(values: Mapping[str, Value], gold: Value | None = None) -> list[Prediction]:
    return [Prediction(name, value, gold) for name, value in values.items()]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["submit", *map(str, arguments)])
    return run_command(submit.main)


def unpacked(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name).decode("utf-8") for name in opened.namelist()}


# --- GLUE and SuperGLUE ---------------------------------------------------------------------------------------------

GLUE_FILES = {
    "cola": ("CoLA.tsv", {"acceptable": "1", "unacceptable": "0"}),
    "sst2": ("SST-2.tsv", {"negative": "0", "positive": "1"}),
    "mrpc": ("MRPC.tsv", {"equivalent": "1", "not_equivalent": "0"}),
    "stsb": ("STS-B.tsv", {-0.31: "0.000", 5.2: "5.000", 2.34567: "2.346", 4: "4.000"}),
    "qqp": ("QQP.tsv", {"duplicate": "1", "not_duplicate": "0"}),
    "mnli": ("MNLI-m.tsv", {name: name for name in ("neutral", "contradiction", "entailment")}),
    "mnli-mm": ("MNLI-mm.tsv", {name: name for name in ("contradiction", "entailment", "neutral")}),
    "qnli": ("QNLI.tsv", {name: name for name in ("not_entailment", "entailment")}),
    "rte": ("RTE.tsv", {name: name for name in ("entailment", "not_entailment")}),
    "wnli": ("WNLI.tsv", {"entailment": "1", "not_entailment": "0"}),
    "ax": ("AX.tsv", {name: name for name in ("neutral", "contradiction", "entailment")}),
}
"""Task -> file and how the server spells each value."""


def glue_rows() -> dict[str, list[Prediction]]:
    return {task: predict(dict(zip("0123", values))) for task, (_, values) in GLUE_FILES.items()}  # noqa: B905


def test_glue_as_another_parser_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", glue_rows(), "test")
    assert command(monkeypatch, run, "--suite", "glue", "--out", tmp_path / "a.zip") == 0
    assert capsys.readouterr() == (f"{tmp_path / 'a.zip'}: 11 files\n", "")
    files = unpacked(tmp_path / "a.zip")
    assert set(files) == {file for file, _ in GLUE_FILES.values()}
    for file, spelling in GLUE_FILES.values():
        rows = list(csv.DictReader(io.StringIO(files[file]), delimiter="\t", quoting=csv.QUOTE_NONE))
        assert [row["index"] for row in rows] == [str(number) for number in range(len(spelling))]
        assert [row["prediction"] for row in rows] == list(spelling.values())
        assert all(len(row) == 2 for row in rows)


SUPERGLUE_FILES = {
    "boolq": ("BoolQ.jsonl", {"False": "false", "True": "true"}),
    "cb": ("CB.jsonl", {name: name for name in ("neutral", "contradiction", "entailment")}),
    "copa": ("COPA.jsonl", {"1": 1, "0": 0}),
    "superglue-rte": ("RTE.jsonl", {name: name for name in ("not_entailment", "entailment")}),
    "wic": ("WiC.jsonl", {"True": "true", "False": "false"}),
    "wsc": ("WSC.jsonl", {"True": "True", "False": "False"}),
    "axb": ("AX-b.jsonl", {name: name for name in ("not_entailment", "entailment")}),
    "axg": ("AX-g.jsonl", {name: name for name in ("entailment", "not_entailment")}),
    "record": ("ReCoRD.jsonl", {"Müller": "Müller", 'the "X"': 'the "X"'}),
}


def superglue_rows() -> dict[str, list[Prediction]]:
    answers = {"0-0-0": "True", "0-0-1": "False", "0-1-2": "False", "7-9-10": "True", "7-10-11": "True"}
    rows = {task: predict(dict(zip("0123", values))) for task, (_, values) in SUPERGLUE_FILES.items()}  # noqa: B905
    rows["record"] = [Prediction(row.id, row.value, ("Müller",)) for row in rows["record"]]
    return rows | {"multirc": predict(answers)}


def test_superglue_as_another_parser_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", superglue_rows(), "test")
    assert command(monkeypatch, run, "--suite", "superglue", "--out", tmp_path / "a.zip") == 0
    files = unpacked(tmp_path / "a.zip")
    assert set(files) == {"MultiRC.jsonl", *(file for file, _ in SUPERGLUE_FILES.values())}
    for file, spelling in SUPERGLUE_FILES.values():
        rows = [json.loads(line) for line in files[file].splitlines()]
        assert rows == [{"idx": number, "label": label} for number, label in enumerate(spelling.values())]
        assert [type(row["label"]) for row in rows] == [type(label) for label in spelling.values()]  # 1 == True
    assert [json.loads(line) for line in files["MultiRC.jsonl"].splitlines()] == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
                    {"idx": 1, "answers": [{"idx": 2, "label": 0}]},
                ]
            },
        },
        {
            "idx": 7,
            "passage": {
                "questions": [
                    {"idx": 9, "answers": [{"idx": 10, "label": 1}]},
                    {"idx": 10, "answers": [{"idx": 11, "label": 1}]},
                ]
            },
        },
    ]


def record_file(folder: Path) -> None:
    """Two passages with two queries and one, without answers, as in the official test file."""
    texts = {"Anna met Bob in Rome.": [(0, 3), (9, 11)], "Rome": [(0, 3)]}
    numbers = iter(range(3))
    lines = [
        {
            "idx": number,
            "passage": {"text": text, "entities": [{"start": start, "end": end} for start, end in spans]},
            "qas": [{"idx": next(numbers), "query": "It was @placeholder."} for _ in spans],
        }
        for number, (text, spans) in enumerate(texts.items())
    ]
    file = folder / "superglue" / "ReCoRD" / "test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_entities_of_unlabelled_rows_are_read_from_the_official_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", {"record": predict({"0": "1", "1": "0", "2": "0"})}, "test")
    options = (run, "--suite", "superglue", "--skip-missing", "--out", tmp_path / "out")
    assert command(monkeypatch, *options) == 2
    assert "left out: record en test: the texts of the entities are needed" in capsys.readouterr().err
    record_file(tmp_path / "data")
    assert command(monkeypatch, *options, "--data-dir", tmp_path / "data") == 0
    lines = (tmp_path / "out" / "ReCoRD.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["Bob", "Anna", "Rome"]


# --- SQuAD ----------------------------------------------------------------------------------------------------------

SQUAD2 = [
    Prediction("q1", "the Normans", ("Normans", "The Norse"), (0.9, -3.0), "the Normans"),
    Prediction("q2", "", (), (0.3, 2.5), "10th century"),
    Prediction("q3", "Rollo of Norway", (), (0.4, -0.5), "Rollo of Norway"),
    Prediction("q4", "", ("Denmark",), (0.4, 0.25), "Denmark"),
    Prediction("q5", "in Iceland", ("Iceland and Norway",), (0.6, -2.0), "in Iceland"),
]
SQUAD2_OFFICIAL = {"f1_official": 48.0, "em_official": 40.0}
"""What evaluate-v2.0.py, `exact` and `f1`, gives for the files below."""


def test_squad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", {"squad2": SQUAD2}, "dev")
    assert command(monkeypatch, run, "--suite", "squad", "--out", tmp_path / "out") == 0  # has no test split
    files = {file.name: json.loads(file.read_text()) for file in (tmp_path / "out").iterdir()}
    answers = {"q1": "the Normans", "q2": "", "q3": "Rollo of Norway", "q4": "", "q5": "in Iceland"}
    assert files["squad2.en.dev.json"] == answers
    # 1 / (1 + exp(-difference))
    by_hand = {"q1": 0.0474258732, "q2": 0.9241418200, "q3": 0.3775406688, "q4": 0.5621765009, "q5": 0.1192029220}
    assert files["squad2.en.dev.na_prob.json"] == pytest.approx(by_hand, abs=1e-9)
    assert len(files) == 2
    scores = score(find_task("squad2").card, SQUAD2)
    assert {name: scores[name] for name in SQUAD2_OFFICIAL} == pytest.approx(SQUAD2_OFFICIAL)


# --- CoNLL ----------------------------------------------------------------------------------------------------------

CONLL04 = """Ann\tB-Peop
Lee\tI-Peop
left\tO
New York\tB-Loc

IBM\tB-Org
in\tO
Rome\tB-Loc
"""
CONLL04_ROWS = [
    Prediction("0", ("B-Peop", "I-Peop", "O", "B-Org"), ("B-Peop", "I-Peop", "O", "B-Loc")),
    Prediction("1", ("B-Org", "I-Org", "I-Loc"), ("B-Org", "O", "B-Loc")),
]
CONLL04_COLUMNS = """Ann B-Peop B-Peop
Lee I-Peop I-Peop
left O O
New_York B-Loc B-Org

IBM B-Org B-Org
in O I-Org
Rome B-Loc I-Loc
"""
CONLL04_OFFICIAL = 50.0
"""What conlleval (version 2004-01-26), FB1, gives for these columns."""


def write_file(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_entities_beside_the_official_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", {"conll04": CONLL04_ROWS}, "test")
    options = (run, "--suite", "conll", "--out", tmp_path / "out")
    assert command(monkeypatch, *options) == 2
    assert "the words are needed; give --data-dir" in capsys.readouterr().err
    write_file(tmp_path / "data" / "ner" / "conll04" / "test.conll", CONLL04)
    assert command(monkeypatch, *options, "--data-dir", tmp_path / "data") == 0
    assert (tmp_path / "out" / "conll04.en.test.txt").read_text() == CONLL04_COLUMNS
    assert score(find_task("conll04").card, CONLL04_ROWS) == {"f1": pytest.approx(CONLL04_OFFICIAL)}
    write_file(tmp_path / "data" / "ner" / "conll04" / "test.conll", CONLL04.replace("left\tO\n", ""))
    assert command(monkeypatch, *options[:-1], tmp_path / "other", "--data-dir", tmp_path / "data") == 2
    assert "prediction '0' has not as many tags as the sentence in" in capsys.readouterr().err


WORDS = "The\ncat\nthat\nran\nsaw\nit\n\nYes\n!\n\nDogs\nbark\n"
PROPS = """- (A0* (A0*
- *) *
- (R-A0*) *
run (V*) *)
see * (V*)
- * (A1*)

-
-

- (A0*)
bark (V*)
"""
"""Of the second sentence no word is a predicate."""

ROLES = [
    Prediction("0.3", ("I-A0", "I-A0", "B-C-A0", "B-V", "O", "O"), ("B-A0", "I-A0", "B-R-A0", "B-V", "O", "O")),
    Prediction(
        "0.4", ("B-A0", "I-A0", "I-A0", "I-A0", "B-V", "I-A1"), (*("B-A0", "I-A0", "I-A0", "I-A0"), "B-V", "B-A1")
    ),
    Prediction("2.1", ("B-A0", "B-A0"), ("B-A0", "B-V")),
]
PREDICTED_PROPS = """- (A0* (A0*
- *) *
- (C-A0*) *
run (V*) *)
see * (V*)
- * (A1*)

-
-

- (A0*)
bark (A0*)
"""
ROLES_OFFICIAL = 60.0
"""What srl-eval.pl of srlconll-1.1, Overall F1, gives for the two files of props."""


def test_roles_beside_the_official_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", {"conll05": ROLES}, "test")
    folder = tmp_path / "data" / "conll05st-release" / "test.wsj"
    write_file(folder / "words" / "test.wsj.words", WORDS)
    write_file(folder / "props" / "test.wsj.props", PROPS)
    options = ("--suite", "conll", "--data-dir", tmp_path / "data", "--out", tmp_path / "out")
    assert command(monkeypatch, run, *options) == 0
    assert (tmp_path / "out" / "conll05.en.test.gold.props").read_text() == PROPS
    assert (tmp_path / "out" / "conll05.en.test.predicted.props").read_text() == PREDICTED_PROPS
    scores = score(find_task("conll05").card, ROLES)
    assert scores["f1_official"] == pytest.approx(ROLES_OFFICIAL, abs=0.005)


EWT = """doc 0 0 Buy VB * buy 01 (V*)
doc 0 1 used VBN * use 01 *
doc 0 2 cars NNS * - - (ARG1*)
"""
"""Two words are marked, one has a column."""


def test_marked_word_without_arguments_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Prediction("0.0", ("B-V", "B-ARG1", "I-ARG1"), ("B-V", "O", "B-ARG1"))]
    run = make_run(tmp_path / "run", {"propbank": rows}, "test")
    write_file(tmp_path / "data" / "srl" / "propbank_ewt" / "test.gold_conll", EWT)
    options = ("--suite", "conll", "--data-dir", tmp_path / "data", "--out", tmp_path / "out")
    assert command(monkeypatch, run, *options) == 0
    assert (tmp_path / "out" / "propbank.en.test.gold.props").read_text() == "01 (V*)\n- *\n- (ARG1*)\n"
    assert (tmp_path / "out" / "propbank.en.test.predicted.props").read_text() == "01 (V*)\n- (ARG1*\n- *)\n"


# --- XTREME ---------------------------------------------------------------------------------------------------------


def test_xtreme_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "xnli.sw": predict({"0": "neutral", "1": "contradiction", "2": "neutral"}),
        "pawsx.ko": predict({"0": "1", "1": "0"}),
        "udpos.yo": predict({"0": ("DET", "NOUN"), "1": ("PUNCT",), "2": ("X", "X", "X")}),
        "panx.my": predict({"0": ("B-PER", "O"), "1": ("O",)}),
        "xquad.th": predict({"a": "กรุงเทพ", "b": ""}),
        "bucc2018.de": predict({"de-1": "en-9", "de-2": "", "de-3": "en-1"}),
        "tatoeba.tl": predict({"0": "2", "1": "0", "2": "1"}),
    }
    run = make_run(tmp_path / "run", rows, "test")
    assert command(monkeypatch, run, "--suite", "xtreme", "--skip-missing", "--out", tmp_path / "a.zip") == 0
    files = unpacked(tmp_path / "a.zip")
    assert json.loads(files.pop("xquad/test-th.json")) == {"a": "กรุงเทพ", "b": ""}
    assert files == {
        "xnli/test-sw.tsv": "neutral\ncontradiction\nneutral\n",
        "pawsx/test-ko.tsv": "1\n0\n",
        "udpos/test-yo.tsv": "DET\nNOUN\n\nPUNCT\n\nX\nX\nX\n",
        "panx/test-my.tsv": "B-PER\nO\n\nO\n",
        "bucc2018/test-de.tsv": "de-1\ten-9\nde-3\ten-1\n",
        "tatoeba/test-tl.tsv": "2\n0\n1\n",
    }


@pytest.mark.parametrize(("queries", "allowed"), [("de-en.en", True), ("de-en.en.gz", True), ("de-en.de", False)])
def test_tatoeba_is_submitted_from_the_english_side(queries: str, allowed: bool) -> None:
    task = find_task("tatoeba")
    official = Official((), (Path("xtreme") / queries,), Parallel())
    predicted = Predicted(task.card, "de", "test", predict({"0": "1", "1": "0"}), official)
    writer = submit.FORMATS["xtreme"].tasks["tatoeba"]
    if allowed:
        assert writer(predicted) == {"tatoeba/test-de.tsv": "1\n0\n"}
    else:
        with pytest.raises(LeftOut, match="XTREME wants"):
            writer(predicted)


def test_xtreme_scores_it_as_we_do() -> None:
    xtreme = submit_xtreme.find_xtreme()
    if xtreme is None:
        pytest.skip("needs XTREME: in the folder `xtreme` beside the project, or where POLYPROMPT_XTREME says")
    lines = submit_xtreme.compare(xtreme)
    assert {(line.task, line.language) for line in lines} == {
        (task.name, language) for task in find_suite("xtreme").tasks for language in task.card.languages
    }
    assert all(line.difference <= submit_xtreme.TOLERANCE for line in lines)
    assert len({line.theirs for line in lines}) > 10  # neither all right nor all wrong


# --- complete or refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["glue", "superglue", "xtreme"])
def test_format_has_every_task_of_its_suite(suite: str) -> None:
    assert set(submit.FORMATS[suite].tasks) == {task.name for task in find_suite(suite).tasks}


def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = glue_rows()
    run = make_run(tmp_path / "run", {name: rows[name] for name in rows if name != "wnli"}, "test")
    (run / predictions_path("ax", "en", "test")).unlink()
    options = (run, "--suite", "glue", "--json", "--out", tmp_path / "a.zip")
    left_out = ["wnli: not a task of the run", "ax en test: the run has no predictions of it"]
    assert command(monkeypatch, *options) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    *lines, error = shown.err.splitlines()
    assert lines == [f"left out: {sentence}" for sentence in left_out]
    assert error.startswith("error: the submission is not complete, nothing was written")
    assert not (tmp_path / "a.zip").exists()
    assert command(monkeypatch, *options, "--skip-missing") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "suite": "glue",
        "out": str(tmp_path / "a.zip"),
        "files": [file for name, (file, _) in GLUE_FILES.items() if name not in ("wnli", "ax")],
        "left_out": left_out,
    }
    assert shown.err.splitlines() == lines
    assert list(unpacked(tmp_path / "a.zip")) == json.loads(shown.out)["files"]


def test_run_of_another_suite_has_nothing_to_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", {"squad2": SQUAD2}, "dev")
    assert command(monkeypatch, run, "--suite", "conll", "--skip-missing", "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == f"error: {run}: nothing of it can be submitted to conll\n"
    assert command(monkeypatch, run, "--suite", "gleu", "--out", tmp_path / "out") == 2
    assert "did you mean 'glue'?" in capsys.readouterr().err


def test_other_split_and_the_only_one_of_a_diagnostic_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = glue_rows()
    run = make_run(tmp_path / "run", {"rte": rows["rte"]}, "dev")
    make_run(run, {"rte": rows["rte"][::-1], "ax": rows["ax"]}, "test")
    options = ("--suite", "glue", "--split", "dev", "--skip-missing", "--out", tmp_path / "out")
    assert command(monkeypatch, run, *options) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"RTE.tsv", "AX.tsv"}
    assert (tmp_path / "out" / "RTE.tsv").read_text() == "index\tprediction\n0\tentailment\n1\tnot_entailment\n"


@pytest.mark.parametrize("labelled", [True, False])
def test_part_of_the_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], labelled: bool
) -> None:
    run = tmp_path / "run"
    if labelled:
        write_run(run, [find_task("stsb").card], limited=True)
    else:
        make_run(run, {"stsb": glue_rows()["stsb"]}, "test", limits={"max_eval": 4})
    assert command(monkeypatch, run, "--suite", "glue", "--skip-missing", "--out", tmp_path / "a.zip") == 2
    error = capsys.readouterr().err
    assert "stsb.en.test.jsonl.gz: holds a part of the official rows (--max-eval); a submission must be" in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "a.zip").exists()


def test_rows_are_held_against_the_official_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As many rows as --max-eval allows, but the file has no more.
    rows = glue_rows()["rte"]
    run = make_run(tmp_path / "run", {"rte": rows}, "test", limits={"max_eval": 2})
    official = "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n"
    write_file(tmp_path / "data" / "glue" / "RTE" / "test.tsv", official)
    options = (run, "--suite", "glue", "--data-dir", tmp_path / "data", "--skip-missing", "--out")
    assert command(monkeypatch, *options, tmp_path / "first") == 0
    assert [file.name for file in (tmp_path / "first").iterdir()] == ["RTE.tsv"]
    write_file(tmp_path / "data" / "glue" / "RTE" / "test.tsv", official + "2\te\tf\n")
    capsys.readouterr()
    assert command(monkeypatch, *options, tmp_path / "second") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "rte.en.test.jsonl.gz: its 2 predictions are not those of the 3 rows of" in error
    (tmp_path / "data" / "glue" / "RTE" / "test.tsv").unlink()
    assert command(monkeypatch, *options, tmp_path / "third") == 2
    assert "left out: rte, test, en: no such file:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "row", "sentence"),
    [
        ("sst2", Prediction("0", "good", None), "'good' is not one of"),
        ("sst2", Prediction("0", 1.0, None), "1.0 is not one of"),
        ("stsb", Prediction("0", "3", None), "'3' is not a number"),
        ("cola", Prediction("en-0", "acceptable", None), "'en-0' has no number"),
        ("copa", Prediction("0", "choice1", None), "'choice1' is not one of"),
        ("multirc", Prediction("0-1", "True", None), "does not say paragraph, question and answer"),
        ("record", Prediction("0", ("a",), ("a",)), "('a',) is not text"),
        ("panx", Prediction("0", "O", None), "'O' is not one tag a word"),
    ],
)
def test_row_of_a_wrong_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    row: Prediction,
    sentence: str,
) -> None:
    run = make_run(tmp_path / "run", {task: [row]}, "test")
    suite = find_task(task).card.suite
    assert command(monkeypatch, run, "--suite", suite, "--skip-missing", "--out", tmp_path / "a.zip") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {task}: prediction {row.id!r}") and sentence in error


def test_id_that_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = glue_rows() | {"rte": [Prediction("0", "entailment", None), Prediction("0", "entailment", None)]}
    run = make_run(tmp_path / "run", rows, "test")
    assert command(monkeypatch, run, "--suite", "glue", "--out", tmp_path / "a.zip") == 2
    assert "rte.en.test.jsonl.gz: an id comes twice" in capsys.readouterr().err


# --- on disk --------------------------------------------------------------------------------------------------------


def test_equal_files_give_equal_archives(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        submit.write(tmp_path / name, {"x.tsv": "1\n", "y/z.tsv": "ü\n"})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert unpacked(tmp_path / "a.zip") == {"x.tsv": "1\n", "y/z.tsv": "ü\n"}


@pytest.mark.parametrize("name", ["a.zip", "folder"])
def test_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    broken = {"x.tsv": "1\n", "y.tsv": "\ud800"}  # no text file can hold that
    with pytest.raises(UnicodeEncodeError):
        submit.write(tmp_path / name, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.zip", "folder"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    submit.write(tmp_path / name, {"x.tsv": "1\n"})
    with pytest.raises(PolypromptError, match=f"{name}: exists already"):
        submit.write(tmp_path / name, {"x.tsv": "2\n"})
    if name == "folder":
        assert (tmp_path / name / "x.tsv").read_text() == "1\n"
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
