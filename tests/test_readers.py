"""Every reader on small files, good and bad, and on all real files of the data folder beside the project."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import data
from benchmarks.errors import DataError, MissingData, PolypromptError
from benchmarks.readers.parallel import from_pairs
from benchmarks.records import Answer, Example
from benchmarks.suites.conll import CONLL04
from benchmarks.suites.glue import RTE, SST2, STSB
from benchmarks.suites.squad import SQUAD, SQUAD2, SQUADSHIFTS
from benchmarks.suites.superglue import COPA
from benchmarks.suites.xtreme import TATOEBA, UDPOS, XNLI, XQUAD
from benchmarks.task import Task


@pytest.fixture
def real(shared: Path) -> Path:
    return shared / "data"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def refused(task: Task, folder: Path, split: str = "dev", language: str = "en") -> str:
    with pytest.raises(DataError) as error:
        data.load(task, split, language, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- tables ---------------------------------------------------------------------------------------------------------

SST2_DEV = 'sentence\tlabel\na "fine" film\t1\nit \'s bad\t0\n'


@pytest.mark.parametrize(
    "content",
    [SST2_DEV, SST2_DEV.replace("\n", "\r\n"), b"\xef\xbb\xbf" + SST2_DEV.encode(), SST2_DEV.rstrip("\n")],
    ids=["plain", "crlf", "bom", "no newline at the end"],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_tsv(tmp_path: Path, content: str | bytes, end: str) -> None:
    put(tmp_path, f"glue/SST-2/dev.tsv{end}", content)
    assert data.load(SST2, "dev", "en", tmp_path).examples == (
        Example("0", text='a "fine" film', label="positive"),
        Example("1", text="it 's bad", label="negative"),
    )


def test_tsv_without_labels(tmp_path: Path) -> None:
    put(tmp_path, "glue/SST-2/test.tsv", "index\tsentence\n7\ta film\n8\tanother\n")
    assert data.load(SST2, "test", "en", tmp_path).examples == (Example("7", "a film"), Example("8", "another"))


def test_training_rows_need_labels(tmp_path: Path) -> None:
    path = put(tmp_path, "glue/SST-2/train.tsv", "sentence\na film\n")
    assert refused(SST2, tmp_path, "train").startswith(f"{path}: row '0' has no label")


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("sentence\tlabel\na\t1\nb\tc\t0\n", 3, "3 columns where 2 are expected"),
        ("sentence\tlabel\na\t1\n\nb\t0\n", 3, "1 columns where 2 are expected"),
        ("sentence\tlabel\na\t2\n", 2, "unknown label '2'; it must be one of 0, 1"),
        ("text\tlabel\na\t1\n", 2, "no 'sentence' here; the fields are text, label"),
        ("sentence\tlabel\n", 1, "no rows"),
        ("", 1, "empty"),
        ("\n\n", 1, "empty"),
        (b"sentence\tlabel\ncaf\xe9\t1\n", 2, "byte 0xe9 is not UTF-8"),
        ("sentence\tlabel\tindex\na\t1\t5\nb\t1\t5\n", 3, "the id '5' stands at"),
    ],
)
def test_tsv_refused(tmp_path: Path, content: str | bytes, line: int, words: str) -> None:
    path = put(tmp_path, "glue/SST-2/dev.tsv", content)
    message = refused(SST2, tmp_path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_damaged_gzip(tmp_path: Path) -> None:
    path = put(tmp_path, "glue/SST-2/dev.tsv.gz", SST2_DEV)
    path.write_bytes(path.read_bytes()[:-12])
    assert refused(SST2, tmp_path).startswith(f"{path}:1: damaged gzip file")


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    put(tmp_path, "glue/SST-2/dev.tsv", "sentence\tlabel\n one\u2028two\x85three\x0cfour\rfive\t1\n")
    assert data.load(SST2, "dev", "en", tmp_path).examples[0].text == " one\u2028two\x85three\x0cfour\rfive"


def test_million_characters_in_a_line(tmp_path: Path) -> None:
    put(tmp_path, "glue/SST-2/dev.tsv", f"sentence\tlabel\n{'x' * 1_000_000}\t1\n")
    assert len(data.load(SST2, "dev", "en", tmp_path).examples[0].text) == 1_000_000


@pytest.mark.parametrize("score", ["much", "nan", "inf", ""])
def test_regression_target(tmp_path: Path, score: str) -> None:
    head = "index\tsentence1\tsentence2\tscore\n"
    path = put(tmp_path, "glue/STS-B/dev.tsv", f"{head}3\ta\tb\t4.500\n4\tc\td\t{score}\n")
    assert refused(STSB, tmp_path).startswith(f"{path}:3: score is {score!r}; it must be a number")
    put(tmp_path, "glue/STS-B/dev.tsv", f"{head}3\ta\tb\t4.500\n")
    assert data.load(STSB, "dev", "en", tmp_path).examples == (Example("3", "a", "b", target=4.5),)


def test_labels_in_a_file_of_their_own(tmp_path: Path) -> None:
    put(tmp_path, "xtreme/download/xnli/test-de.tsv", "A\tB\r\nC\tD\r\n")
    gold = put(tmp_path, "xtreme/gold/xnli_test_labels.txt", "neutral\nentailment\n")
    rows = data.load(XNLI, "test", "de", tmp_path).examples
    assert rows == (Example("0", "A", "B", label="neutral"), Example("1", "C", "D", label="entailment"))
    gold.write_text("neutral\n")
    assert refused(XNLI, tmp_path, "test", "de").startswith(f"{gold}:1: 1 labels for the 2 rows of")
    gold.write_text("neutral\ncontradictory\n")
    assert refused(XNLI, tmp_path, "test", "de").startswith(f"{gold}:2: unknown label 'contradictory'")


# --- JSON lines -----------------------------------------------------------------------------------------------------

COPA_ROW = {"premise": "P.", "choice1": "A", "choice2": "B", "question": "cause", "label": 1, "idx": 4}


def test_copa(tmp_path: Path) -> None:
    effect = {key: value for key, value in COPA_ROW.items() if key != "label"} | {"question": "effect", "idx": 5}
    put(tmp_path, "superglue/COPA/val.jsonl", f"{json.dumps(COPA_ROW)}\n{json.dumps(effect)}\n")
    first, second = data.load(COPA, "dev", "en", tmp_path).examples
    assert first == Example("4", "P. What was the cause of this?", choices=("A", "B"), label="1")
    assert second == Example("5", "P. What happened as a result?", choices=("A", "B"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (json.dumps(COPA_ROW)[:30], "not JSON at column"),
        ("[1, 2]", "not a JSON object"),
        (json.dumps({**COPA_ROW, "label": 2}), "unknown label 2"),
        (json.dumps({**COPA_ROW, "question": "why"}), "question is 'why'"),
        (json.dumps({**COPA_ROW, "premise": 3}), "'premise' is 3; it must be text"),
        (json.dumps({"premise": "P."}), "no 'question' here; the fields are premise"),
        (json.dumps(COPA_ROW), "the id '4' stands at"),
    ],
)
def test_json_lines_refused(tmp_path: Path, line: str, words: str) -> None:
    path = put(tmp_path, "superglue/COPA/val.jsonl", f"{json.dumps(COPA_ROW)}\n{line}\n")
    message = refused(COPA, tmp_path)
    assert message.startswith(f"{path}:2: ")
    assert words in message


# --- CoNLL columns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\t", " ", "   "])
def test_conll(tmp_path: Path, separator: str) -> None:
    text = f"-DOCSTART-{separator}O\n\nAnn B-Peop\nSmith I-Peop\n\n \nruns O\n".replace(" B", f"{separator}B")
    text = text.replace(" I", f"{separator}I").replace(" O", f"{separator}O")
    put(tmp_path, "ner/conll04/dev.conll", text)
    assert data.load(CONLL04, "dev", "en", tmp_path).examples == (
        Example("0", tokens=("Ann", "Smith"), tags=("B-Peop", "I-Peop")),
        Example("1", tokens=("runs",), tags=("O",)),
    )


def test_conll_token_may_be_a_no_break_space(tmp_path: Path) -> None:
    put(tmp_path, "xtreme/download/udpos/dev-fr.tsv", "10\tNUM\n\u00a0\tPUNCT\n000\tNUM\n")
    assert data.load(UDPOS, "dev", "fr", tmp_path).examples[0].tokens == ("10", "\u00a0", "000")
    put(tmp_path, "xtreme/download/udpos/test-fr.tsv", "10\n\u00a0\n000\n")
    assert data.load(UDPOS, "test", "fr", tmp_path).examples[0].tokens == ("10", "\u00a0", "000")


def test_conll_without_tags(tmp_path: Path) -> None:
    put(tmp_path, "ner/conll04/test.conll", "Ann\nruns\n\nYes\n")
    rows = data.load(CONLL04, "test", "en", tmp_path).examples
    assert rows == (Example("0", tokens=("Ann", "runs")), Example("1", tokens=("Yes",)))
    assert rows[0].gold is None


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("Ann\tB-Peop\nruns\n", 2, "1 columns where 2 are expected"),
        ("Ann\tB-Peop\nruns\tO\tO\n", 2, "3 columns where 2 are expected"),
        ("Ann\tB-Peop\nSmith\tI-PER\n", 2, "unknown tag 'I-PER'; it must be one of O, B-Loc"),
        ("Ann\tB-Peop\n\tO\n", 2, "no token before the tag"),
        ("", 1, "empty"),
        ("-DOCSTART- O\n\n", 1, "no sentence"),
        (b"Ann\tO\nJos\xe9\tO\n", 2, "not UTF-8"),
    ],
)
def test_conll_refused(tmp_path: Path, content: str | bytes, line: int, words: str) -> None:
    path = put(tmp_path, "ner/conll04/dev.conll", content)
    message = refused(CONLL04, tmp_path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


# --- SQuAD ----------------------------------------------------------------------------------------------------------

CONTEXT = "Köln lies on the Rhine. The Rhine is long."


def squad(*questions: dict[str, Any], indent: int | None = None) -> str:
    article = {"title": "T", "paragraphs": [{"context": CONTEXT, "qas": list(questions)}]}
    return json.dumps({"version": "x", "data": [article]}, indent=indent)


def question(name: str, *answers: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "question": f"{name}?", "answers": [{"text": t, "answer_start": s} for t, s in answers]} | more


def test_squad(tmp_path: Path) -> None:
    rows = [question("q1", ("Köln", 0)), question("q2", ("Rhine", 28), ("the Rhine", 13))]
    put(tmp_path, "squad/dev-v1.1.json", "\ufeff" + squad(*rows))
    assert data.load(SQUAD, "dev", "en", tmp_path).examples == (
        Example("q1", "q1?", CONTEXT, answers=(Answer("Köln", 0),)),
        Example("q2", "q2?", CONTEXT, answers=(Answer("Rhine", 28), Answer("the Rhine", 13))),
    )


def test_squad_without_answer_and_without_label(tmp_path: Path) -> None:
    rows = [
        question("none", is_impossible=True, plausible_answers=[{"text": "Köln", "answer_start": 0}]),
        question("some", ("Köln", 0), is_impossible=False),
        question("blanked"),
        question("blanked2", ("", 0)),
    ]
    put(tmp_path, "squad/dev-v2.0.json", squad(*rows))
    none, some, blanked, blanked2 = data.load(SQUAD2, "dev", "en", tmp_path).examples
    assert (none.answers, none.gold) == ((), ())
    assert some.gold == ("Köln",)
    assert blanked.gold is None and blanked2.gold is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            squad(question("good", ("Köln", 0)), question("q9", ("Rhine", 27))),
            "question 'q9': answer_start 27 does not",
        ),
        (squad(question("q9", ("Rhine", 27))), "the answer stands at 17: correct the offset"),
        (squad(question("q9", ("Danube", 3))), "the answer is not in the context"),
        (squad(question("q9", ("Köln", -42))), "answer_start is -42"),
        (squad(question("q9", ("Köln", "0"))), "answer_start is '0'"),
        (squad(question("q9", ("long.", 500))), "answer_start 500 does not match"),
        (squad(question("q9", ("Köln", 0), is_impossible=True)), "question 'q9': is_impossible is true but"),
        (squad(question("q9", is_impossible=False)), "question 'q9': is_impossible is false but"),
        (squad(question("q9", ("Köln", 0)), question("q9", ("Köln", 0))), "the id 'q9' stands at"),
        (squad(), "no question in the file"),
        ('{"version": "1.1"}', 'no "data" at the top'),
        ('{"data": [{"paragraphs": [{"qas": [{"id": "1"}]}]}]}', "not in SQuAD format ('context')"),
        ('{"data": [7]}', "not in SQuAD format"),
        ("", "empty"),
    ],
)
def test_squad_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = put(tmp_path, "squad/dev-v1.1.json", content)
    message = refused(SQUAD, tmp_path)
    assert message.startswith(f"{path}:1: ")
    assert words in message


def test_squad_errors_name_the_line(tmp_path: Path) -> None:
    text = squad(question("good", ("Köln", 0)), question("q9", ("Rhine", 27)), indent=1)
    path = put(tmp_path, "squad/dev-v1.1.json", text)
    line = next(number for number, row in enumerate(text.split("\n"), 1) if '"q9"' in row)
    assert refused(SQUAD, tmp_path).startswith(f"{path}:{line}: question 'q9'")
    path.write_text(text[: text.index("q9?")])
    column = text.split("\n")[line].index('"q9?') + 1
    assert refused(SQUAD, tmp_path).startswith(f"{path}:{line + 1}: not JSON at column {column} (Unterminated string")


# --- retrieval ------------------------------------------------------------------------------------------------------


def tatoeba(folder: Path, gold: str = "2\n0\n1\n") -> Path:
    put(folder, "xtreme/download/tatoeba/de-en.de", "eins\nzwei\ndrei\n")
    put(folder, "xtreme/download/tatoeba/de-en.en", "two\none\nthree\n")
    return put(folder, "xtreme/gold/tatoeba/de-en.gold", gold)


def test_parallel(tmp_path: Path) -> None:
    tatoeba(tmp_path)
    split = data.load(TATOEBA, "test", "de", tmp_path)
    # eins is said to be in row 2 of the English file, and so on: the questions are the English sentences
    assert split.candidates == ("eins", "zwei", "drei")
    assert [(row.id, row.text, row.label) for row in split.examples] == [
        ("0", "two", "1"),
        ("1", "one", "2"),
        ("2", "three", "0"),
    ]


@pytest.mark.parametrize(
    ("gold", "line", "words"),
    [
        ("1\n0\n4\n", 3, "'4' is no row"),
        ("1\nx\n2\n", 2, "'x' is no row"),
        ("1\n0\n", 2, "2 gold rows for the 3"),
        ("1\n0\n1\n", 1, "row 2 is missing"),
    ],
)
def test_parallel_refused(tmp_path: Path, gold: str, line: int, words: str) -> None:
    path = tatoeba(tmp_path, gold)
    message = refused(TATOEBA, tmp_path, "test", "de")
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


# --- what is there, and what replaces it ----------------------------------------------------------------------------


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as error:
        data.load(XNLI, "test", "de", tmp_path)
    message = str(error.value)
    for name in ("xtreme/download/xnli/test-de.tsv", "xtreme/gold/xnli_test_labels.txt"):
        assert f"{tmp_path / name} or {tmp_path / name}.gz" in message
    assert message.startswith("xnli, test, de: ")
    assert XNLI.how_to_get in message
    assert "--skip-missing" in message


def test_alternatives_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingData) as error:
        data.load(XQUAD, "train", "en", tmp_path)
    for name in ("squad/train-v1.1.json", "xtreme/download/squad/train-v1.1.json.gz"):
        assert str(tmp_path / name) in str(error.value)
    path = put(tmp_path, "xtreme/download/squad/train-v1.1.json.gz", squad(question("q", ("Köln", 0))))
    assert data.used_files(XQUAD, "train", "en", tmp_path) == (path,)
    assert len(data.load(XQUAD, "train", "en", tmp_path).examples) == 1


def test_no_such_split_or_language(tmp_path: Path) -> None:
    with pytest.raises(PolypromptError, match="no train split in 'de'"):
        data.load(XNLI, "train", "de", tmp_path)
    with pytest.raises(PolypromptError, match="not a task in 'xx'; its languages are ar, bg"):
        data.load(XNLI, "test", "xx", tmp_path)
    with pytest.raises(MissingData, match=r"conll04.*not on the hub.*--data-dir"):
        data.load(CONLL04, "dev", "en", None)


def test_status_and_languages(tmp_path: Path) -> None:
    tatoeba(tmp_path)
    put(tmp_path, "xtreme/download/tatoeba/fr-en.fr", "un\n")
    found = {entry.file: entry.found for entry in data.status(TATOEBA, tmp_path) if entry.language in ("de", "fr")}
    assert found == {
        "xtreme/download/tatoeba/de-en.de": True,
        "xtreme/download/tatoeba/de-en.en": True,
        "xtreme/gold/tatoeba/de-en.gold": True,
        "xtreme/download/tatoeba/fr-en.fr": True,
        "xtreme/download/tatoeba/fr-en.en": False,
        "xtreme/gold/tatoeba/fr-en.gold": False,
    }
    assert data.languages(TATOEBA, "test", tmp_path) == ("de",)
    assert data.languages(TATOEBA, "train", tmp_path) == ()
    put(tmp_path, "xtreme/download/xnli/train-en.tsv", "A\tB\tneutral\n")
    assert data.languages(XNLI, "train", tmp_path) == ("en",)
    assert data.languages(XNLI, "train", None) == ("en",)
    assert data.languages(XNLI, "test", None) == XNLI.card.languages
    assert data.status(TATOEBA, None) == []


def test_files_replace_official_ones(tmp_path: Path) -> None:
    first = put(tmp_path, "mine/a.json", squad(question("a", ("Köln", 0))))
    second = put(tmp_path, "b.json.gz", squad(question("b", ("Rhine", 17))))
    files = {"xquad.train": ["mine/a.json", str(tmp_path / "b.json")]}
    rows = data.load(XQUAD, "train", "en", tmp_path, files).examples
    assert [row.id for row in rows] == ["a", "b"]
    assert data.used_files(XQUAD, "train", "en", tmp_path, files) == (first, second)
    assert data.languages(XQUAD, "train", tmp_path, files) == ("en",)
    with pytest.raises(MissingData, match=r"mine/c\.json"):
        data.load(XQUAD, "train", "en", tmp_path, {"xquad.train": ["mine/c.json"]})
    with pytest.raises(PolypromptError, match=r"files of tatoeba\.train: tatoeba has no such split; it has test"):
        data.load(TATOEBA, "train", "en", tmp_path, {"tatoeba.train": ["x"]})


def test_replacing_file_of_every_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "mine/de.tsv", "A\tB\tneutral\n")
    files = {"xnli.test": ["mine/{language}.tsv"]}
    assert data.languages(XNLI, "test", tmp_path, files) == ("de",)
    assert data.load(XNLI, "test", "de", tmp_path, files).examples == (Example("0", "A", "B", label="neutral"),)
    monkeypatch.chdir(tmp_path)  # without a data folder a path begins here
    assert len(data.load(XNLI, "test", "de", None, files).examples) == 1


# --- the real files -------------------------------------------------------------------------------------------------

COUNTS = [  # rows and languages as the data folder's own notes count them
    (SST2, {"train": 67_349, "dev": 872, "test": 1_821}),
    (RTE, {"train": 2_490, "dev": 277, "test": 3_000}),
    (STSB, {"train": 5_749, "dev": 1_500, "test": 1_379}),
    (COPA, {"train": 400, "dev": 100, "test": 500}),
    (CONLL04, {"train": 910, "dev": 243, "test": 288}),
    (SQUADSHIFTS, {"train": 7_938, "test": 9_885}),
    (XNLI, {"train": 17_632, "dev": 13 * 2_490, "test": 13 * 5_010}),
    (XQUAD, {"test": 10 * 1_190}),
]


@pytest.mark.parametrize(("task", "counts"), COUNTS, ids=lambda value: getattr(value, "name", ""))
def test_real_counts(real: Path, task: Task, counts: dict[str, int]) -> None:
    for split, count in counts.items():
        languages = data.languages(task, split, real)
        assert sum(len(data.load(task, split, language, real).examples) for language in languages) == count


def test_real_labels(real: Path) -> None:
    def labels(task: Task, split: str, language: str = "en") -> Counter[str | None]:
        return Counter(row.label for row in data.load(task, split, language, real).examples)

    assert labels(SST2, "train") == {"positive": 37_569, "negative": 29_780}
    assert labels(RTE, "dev") == {"entailment": 146, "not_entailment": 131}
    assert labels(COPA, "train") == {"0": 195, "1": 205}
    assert set(labels(XNLI, "test", "th").values()) == {1_670}
    assert labels(SST2, "test") == {None: 1_821}


def test_real_table_as_the_csv_module_reads_it(real: Path) -> None:
    with gzip.open(real / "glue/STS-B/train.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        theirs = [
            (row["index"], row["sentence1"], row["sentence2"], float(row["score"]))
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    ours = [(row.id, row.text, row.text_pair, row.target) for row in data.load(STSB, "train", "en", real).examples]
    assert ours == theirs


def test_real_columns(real: Path) -> None:
    lines = gzip.decompress((real / "xtreme/download/udpos/train-en.tsv.gz").read_bytes()).decode().split("\n")
    rows = data.load(UDPOS, "train", "en", real).examples
    assert len(rows) == 21_787
    assert [(t, g) for row in rows for t, g in zip(row.tokens, row.tags, strict=True)] == [
        tuple(line.split("\t")) for line in lines if line
    ]
    assert len(data.languages(UDPOS, "test", real)) == 27
    assert sum(len(row.tags) for row in data.load(CONLL04, "test", "en", real).examples) == sum(
        1 for line in (real / "ner/conll04/test.conll").open() if line.strip()
    )


def test_real_retrieval(real: Path) -> None:
    for language in data.languages(TATOEBA, "test", real):
        folder = real / "xtreme/download/tatoeba"
        sources = (folder / f"{language}-en.{language}").read_text().split("\n")[:-1]
        english = (folder / f"{language}-en.en").read_text().split("\n")[:-1]
        gold = (real / f"xtreme/gold/tatoeba/{language}-en.gold").read_text().split()
        split = data.load(TATOEBA, "test", language, real)
        assert [row.text for row in split.examples] == english
        assert list(split.candidates) == sources
        for number, row in enumerate(gold):
            assert split.examples[int(row)].label == str(number)
        # Pairs, as the hub has them, give back the official layout.
        pairs = [Example(str(number), english[int(row)], sources[number]) for number, row in enumerate(gold)]
        again = from_pairs(pairs)
        assert again.candidates == split.candidates
        assert [row.text for row in again.examples] == sorted(english)
        assert {(row.text, again.candidates[int(row.label)]) for row in again.examples} == {
            (pair.text, pair.text_pair) for pair in pairs
        }


def test_real_file_with_wrong_offsets_is_refused(real: Path) -> None:
    files = {"squad.train": ["squad/cmrc2018/cmrc2018_trial.json"]}
    with pytest.raises(DataError, match=r"cmrc2018_trial\.json\.gz:\d+: question 'TRIAL_\d+_QUERY_\d+': answer_start"):
        data.load(SQUAD, "train", "en", real, files)
