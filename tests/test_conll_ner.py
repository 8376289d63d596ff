"""Named entities in every layout of CoNLL columns, good and bad, and all real files beside the project."""

from __future__ import annotations

import gzip
from itertools import groupby
from pathlib import Path

import pytest
import seqeval.metrics

from benchmarks import data
from benchmarks.errors import DataError, MissingData
from benchmarks.hub import Hub
from benchmarks.readers.conll import BadCell, Conll, bracketed
from benchmarks.records import Example
from benchmarks.sources import OfficialSource, locate, locate_all
from benchmarks.suites.conll import (
    CONLL02,
    CONLL03,
    CONLL04,
    MASAKHANER,
    ONTONOTES,
    PROPBANK,
    SUITE,
    UNER,
    WNUT17,
)
from benchmarks.task import Kind, Task, TaskCard

ES, NL = CONLL02
TASKS = {task.name: task for task in SUITE.tasks}


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def read(task: Task, folder: Path, split: str = "train", language: str = "en") -> tuple[Example, ...]:
    return data.load(task, split, language, folder).examples


def refused(task: Task, folder: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as error:
        read(task, folder, split, task.card.languages[0])
    assert "\n" not in str(error.value)
    return str(error.value)


# --- CoNLL-2003 -----------------------------------------------------------------------------------------------------

IOB1 = """\
-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
Ann NNP I-NP B-PER
Smith NNP I-NP I-PER
Bonn NNP I-NP I-LOC
"""
TAGS = (("B-ORG", "O", "B-MISC", "O"), ("B-PER", "I-PER", "B-PER", "I-PER", "B-LOC"))


def bio2() -> str:
    """The file as its usual copies have it."""
    rows = [line.split(" ") for line in IOB1.split("\n")]
    tags = iter([tag for sentence in TAGS for tag in sentence])
    lines = [" ".join([*row[:3], next(tags)]) if len(row) > 1 and row[1] != "-X-" else " ".join(row) for row in rows]
    return "\n".join(lines)


@pytest.mark.parametrize("scheme", ["IOB1", "BIO2"])
@pytest.mark.parametrize("name", ["eng.train", "eng.train.gz", "train.txt"])
@pytest.mark.parametrize("spoil", ["", "crlf", "bom", "tabs", "no newline at the end"])
def test_conll03(tmp_path: Path, scheme: str, name: str, spoil: str) -> None:
    text = IOB1 if scheme == "IOB1" else bio2()
    match spoil:
        case "crlf":
            text = text.replace("\n", "\r\n")
        case "bom":
            text = "\ufeff" + text
        case "tabs":
            text = text.replace(" ", "\t")
        case "no newline at the end":
            text = text.rstrip("\n")
    put(tmp_path, f"ner/conll03/{name}", text)
    assert read(CONLL03, tmp_path) == (
        Example("0", tokens=("EU", "rejects", "German", "call"), tags=TAGS[0]),
        Example("1", tokens=("Peter", "Blackburn", "Ann", "Smith", "Bonn"), tags=TAGS[1]),
    )


def test_iob1_is_told_by_the_whole_file(tmp_path: Path) -> None:
    # The first sentence is valid in both schemes, the "B-" of the second is that of BIO2.
    path = put(tmp_path, "ner/conll03/eng.testa", "a I-PER\nb B-PER\n\nc B-LOC\n\nd I-LOC\n")
    assert refused(CONLL03, tmp_path, "dev") == (
        f"{path}:1: 'I-PER' begins a chunk, which this file does elsewhere by B-; write 'B-PER'"
    )
    path.write_text("a I-PER\nb B-PER\n\nc I-LOC\n\nd I-LOC\n")
    assert [row.tags for row in read(CONLL03, tmp_path, "dev")] == [("B-PER", "B-PER"), ("B-LOC",), ("B-LOC",)]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("a B-PER\nb I-LOC\n", 2, "'I-LOC' begins a chunk, which this file does elsewhere by B-; write 'B-LOC'"),
        ("a B-PER\n\nb O\nc I-PER\n", 4, "'I-PER' begins a chunk"),
        ("a X Y O\nb X O\n", 2, "3 columns where 4 are expected"),
        ("a X Y O\n\nb O\n", 3, "2 columns where 4 are expected"),
        ("a X Y\n", 1, "unknown tag 'Y'; it must be one of O, B-PER"),
        ("a O\nb B-DATE\n", 2, "unknown tag 'B-DATE'"),
        ("a O\nb I-DATE\n", 2, "unknown tag 'I-DATE'"),
        ("a\tO\n\tO\n", 2, "no token before the tag"),
        ("a O\nb B-PE", 2, "unknown tag 'B-PE'"),
        ("", 1, "the file is empty"),
        (" \n\t\n", 1, "the file is empty"),
        ("-DOCSTART- O\n\n", 1, "no sentence"),
        (b"a O\nJos\xe9 O\n", 2, "byte 0xe9 is not UTF-8"),
    ],
)
def test_refused(tmp_path: Path, content: str | bytes, line: int, words: str) -> None:
    path = put(tmp_path, "ner/conll03/eng.train", content)
    message = refused(CONLL03, tmp_path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_the_last_column_is_the_tag_whatever_stands_between(tmp_path: Path) -> None:
    for columns in ("", " X", " X Y", " X Y Z"):
        put(tmp_path, "ner/conll03/eng.train", f"Ann{columns} B-PER\nsings{columns} O\n")
        assert read(CONLL03, tmp_path)[0].tags == ("B-PER", "O")


def test_a_file_without_tags(tmp_path: Path) -> None:
    put(tmp_path, "ner/conll03/eng.testb", "Ann\nsings\n\nYes\n")
    assert read(CONLL03, tmp_path, "test") == (Example("0", tokens=("Ann", "sings")), Example("1", tokens=("Yes",)))


# --- the others -----------------------------------------------------------------------------------------------------


def test_slips_are_put_right_where_the_release_has_them(tmp_path: Path) -> None:
    text = "Ann B-{0}\nof O\nBonn I-{1}\n"
    put(tmp_path, "ner/conll04/train.conll", text.format("Peop", "Loc"))
    assert read(CONLL04, tmp_path)[0].tags == ("B-Peop", "O", "B-Loc")
    put(tmp_path, "ner/masakhaner2/hau/train.txt", text.format("PER", "LOC"))
    assert read(TASKS["masakhaner-ha"], tmp_path, language="ha")[0].tags == ("B-PER", "O", "B-LOC")
    put(tmp_path, "ner/wnut17/wnut17train.conll", text.format("person", "location"))
    assert "begins a chunk" in refused(WNUT17, tmp_path)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_conll02(tmp_path: Path, encoding: str) -> None:
    put(tmp_path, "ner/conll02/es/esp.train", "Melbourne B-LOC\n( O\nEspaña B-LOC\n) O\n".encode(encoding))
    assert read(ES, tmp_path, language="es")[0].tokens == ("Melbourne", "(", "España", ")")
    dutch = "-DOCSTART- -DOCSTART- O\nDe Art O\nEuropese Adj B-MISC\nFinanciën N O\n"
    put(tmp_path, "ner/conll02/nl/ned.testa", dutch.encode(encoding))
    [row] = read(NL, tmp_path, "dev", "nl")
    assert (row.tokens[2], row.tags) == ("Financiën", ("O", "B-MISC", "O"))
    assert ES.card.train_language == "es" and NL.card.languages == ("nl",)


def test_uner(tmp_path: Path) -> None:
    text = "# sent_id = 1\n# text = # Köln\n1\t#\tO\t-\t-\n2\tKöln\tB-LOC\t-\tann\n\n# text = x\n1\tx\tO\t-\t-\n"
    put(tmp_path, "ner/uner/UNER_Swedish-Talbanken/sv_talbanken-ud-train.iob2", text)
    assert read(TASKS["uner-sv"], tmp_path, language="sv") == (
        Example("0", tokens=("#", "Köln"), tags=("O", "B-LOC")),
        Example("1", tokens=("x",), tags=("O",)),
    )
    put(tmp_path, "ner/uner/UNER_Swedish-Talbanken/sv_talbanken-ud-train.iob2", "1\tx\tO\n")
    assert len(read(TASKS["uner-sv"], tmp_path, language="sv")) == 1
    put(tmp_path, "ner/uner/UNER_Swedish-Talbanken/sv_talbanken-ud-train.iob2", "x\tO\n")
    assert "2 columns where 3 are expected" in refused(TASKS["uner-sv"], tmp_path)


def test_translations_are_answered_by_what_english_trained() -> None:
    pud = TASKS["uner-pud-de"]
    assert (pud.card.head, pud.card.train_language, pud.card.labels) == ("uner-en", None, TASKS["uner-en"].card.labels)
    assert not pud.source.has("train", "en")


# --- OntoNotes ------------------------------------------------------------------------------------------------------


def gold_conll(*rows: str, name: str = "bc/x/00/x_0000") -> str:
    """A document of CoNLL-2012: word, entity and arguments of each row; the other columns are made up."""
    lines = []
    for number, row in enumerate(rows):
        word, entity, *arguments = row.split()
        parts = [name, "0", str(number), word, "NN", "(TOP(S*))", "-", "-", "-", "Speaker#1", entity, *arguments, "-"]
        lines.append("   ".join(parts))
    return "\n".join([f"#begin document ({name}); part 000", *lines, "", "#end document", ""])


def ontonotes(folder: Path, genre: str, number: int, text: str, root: str = "conll-formatted-ontonotes-5.0") -> Path:
    place = f"{root}/data/train/data/english/annotations/{genre}/x/{number:02}/x_{number:04}.gold_conll"
    return put(folder, place, text)


NAMED = ("bc", "bn", "mz", "nw", "tc", "wb")


@pytest.mark.parametrize("root", ["conll-formatted-ontonotes-5.0", "conll-2012/v4"])
def test_ontonotes_is_a_tree_of_files(tmp_path: Path, root: str) -> None:
    for genre in NAMED:
        ontonotes(tmp_path, genre, 1, gold_conll("In * *", "New (GPE* (V*)", f"{genre} *) *", "Ann (PERSON) *"), root)
    ontonotes(tmp_path, "bc", 0, gold_conll("no * * *", "two (DATE* (V*) *", "years * * *", "ago *) * (V*)"), root)
    ontonotes(tmp_path, "pt", 0, gold_conll("Jesus * *"), root)  # whose names are not annotated
    rows = read(ONTONOTES, tmp_path)
    assert [row.tokens[2] for row in rows] == ["years", *NAMED]
    assert [row.id for row in rows] == [str(number) for number in range(7)]
    assert rows[0].tags == ("O", "B-DATE", "I-DATE", "I-DATE")
    assert rows[1].tags == ("O", "B-GPE", "I-GPE", "B-PERSON")


def test_sentences_of_a_document_differ_in_their_columns(tmp_path: Path) -> None:
    text = gold_conll("a *", "b (ORG)") + gold_conll("c * * *", "d (GPE) (V*) *", "e * * (V*)")
    for genre in NAMED:
        ontonotes(tmp_path, genre, 1, text)
    assert [row.tags for row in read(ONTONOTES, tmp_path)[:2]] == [("O", "B-ORG"), ("O", "B-GPE", "O")]


def test_every_genre_must_be_there(tmp_path: Path) -> None:
    for genre in NAMED[:-1]:
        ontonotes(tmp_path, genre, 1, gold_conll("In * *"))
    with pytest.raises(MissingData) as error:
        read(ONTONOTES, tmp_path)
    assert str(error.value).count("/annotations/") == 4  # two roots, each plain and compressed
    assert "annotations/wb/**/*gold_conll.gz" in str(error.value)
    assert "LDC2013T19" in str(error.value)


@pytest.mark.parametrize(
    ("column", "line", "words"),
    [
        ("* (GPE* *", 4, "a bracket is still open at the end of the sentence"),
        ("* *) *", 3, "'*)' closes a bracket that is not open"),
        ("(GPE*) * *))", 4, "'*))' closes a bracket"),
        ("* B-GPE *", 3, "'B-GPE' is not of the form"),
        ("* (GPX* *)", 3, "unknown tag 'B-GPX'; it must be one of O, B-CARDINAL"),
    ],
)
def test_ontonotes_refused(tmp_path: Path, column: str, line: int, words: str) -> None:
    text = gold_conll(*(f"w {cell}" for cell in column.split()))
    paths = [ontonotes(tmp_path, genre, 1, text) for genre in NAMED]
    message = refused(ONTONOTES, tmp_path)
    assert message.startswith(f"{paths[0]}:{line}: ")
    assert words in message


def test_brackets() -> None:
    assert bracketed("(A* * *) * (B) (C*) (D* *)".split()) == "B-A I-A I-A O B-B B-C B-D I-D".split()
    # of nested chunks the outer one is kept
    assert bracketed("(A*  (B* *) *)".split()) == "B-A I-A I-A I-A".split()
    assert bracketed("(A(B* *) *)".split()) == "B-A I-A I-A".split()
    assert bracketed(["  (A*", "*)  "]) == ["B-A", "I-A"]
    for bad in (["", "*"], [" "], ["(*)x"], ["A*)"]):
        with pytest.raises(BadCell):
            bracketed(bad)


def test_patterns_find_each_file_once_and_sorted(tmp_path: Path) -> None:
    for name in ("b/2.x", "b/2.x.gz", "a/10.x.gz", "a/9.x", "a/9.y", "c.x"):
        put(tmp_path, name, "x")
    assert [path.relative_to(tmp_path).as_posix() for path in locate_all(tmp_path, ["**/*.x"])] == [
        "a/10.x.gz",
        "a/9.x",
        "b/2.x",
        "c.x",
    ]
    assert locate(tmp_path, "b/*.x") == tmp_path / "b/2.x"
    assert locate(tmp_path, "d/*.x|a/*.y") == tmp_path / "a/9.y"
    assert locate_all(Path("elsewhere"), [str(tmp_path / "a/*.x")]) == (tmp_path / "a/10.x.gz", tmp_path / "a/9.x")
    assert locate(tmp_path, "d/*.x") is None


def test_files_replace_official_ones_by_pattern(tmp_path: Path) -> None:
    for number in (2, 1):
        put(tmp_path, f"mine/part{number}.conll", f"w{number} O\n")
    rows = data.load(CONLL03, "train", "en", tmp_path, {"conll03.train": ["mine/*.conll"]}).examples
    assert [row.tokens[0] for row in rows] == ["w1", "w2"]


# --- a card without labels, and other tags --------------------------------------------------------------------------


def test_a_card_without_labels_takes_every_tag(tmp_path: Path) -> None:
    card = TaskCard(name="own", suite="own", kind=Kind.TAGGING, metrics=("f1",))
    path = put(tmp_path, "x", "Ann I-A\nB I-B\n\nof O\n")
    assert [row.tags for row in Conll()(card, [path]).examples] == [("B-A", "B-B"), ("O",)]


def test_tags_that_are_no_chunks_stay(tmp_path: Path) -> None:
    card = TaskCard(name="pos", suite="own", kind=Kind.TAGGING, metrics=("accuracy",), labels=("INTJ", "NOUN", "I"))
    path = put(tmp_path, "x", "oh INTJ\nman NOUN\nI I\n")
    assert Conll()(card, [path]).examples[0].tags == ("INTJ", "NOUN", "I")


# --- real files -----------------------------------------------------------------------------------------------------

# Sentences of train, dev and test, as the sources count them.
COUNTS = {
    "conll04": (910, 243, 288),
    "wnut17": (3_394, 1_009, 1_287),
    "masakhaner-ha": (5_716, 816, 1_633),
    "masakhaner-ig": (7_634, 1_090, 2_181),
    "masakhaner-rw": (7_825, 1_118, 2_235),
    "masakhaner-pcm": (5_646, 806, 1_613),
    "masakhaner-sw": (6_593, 942, 1_883),
    "uner-en": (None, 2_001, 2_077),
    "uner-pud-en": (None, None, 1_000),
    "uner-zh": (3_997, 500, 500),
    "uner-pt": (7_018, 1_172, 1_167),
    "uner-sv": (4_303, 504, 1_219),
}


# Chunks that begin with I- although their file is in BIO2.
SLIPS = {
    "conll04.train": 2,
    "masakhaner-ha.train": 1,
    "masakhaner-ha.test": 1,
    "masakhaner-rw.train": 14,
    "masakhaner-rw.dev": 1,
    "masakhaner-rw.test": 1,
    "masakhaner-pcm.train": 1,
    "masakhaner-sw.test": 1,
}


def columns(path: Path, uner: bool) -> list[tuple[list[str], list[str]]]:
    """Tokens and tags of each sentence, read in the plainest way."""
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    lines = [line.strip("\t ") for line in text.split("\n") if not (uner and line.startswith("#"))]
    token, tag = (1, 2) if uner else (0, -1)
    rows = [line.split("\t" if "\t" in line else " ") for line in lines]
    blocks = [list(block) for full, block in groupby(rows, key=lambda row: row != [""]) if full]
    return [([row[token] for row in block], [row[tag] for row in block]) for block in blocks]


@pytest.mark.parametrize("name", COUNTS)
def test_real_files(shared: Path, name: str) -> None:
    task = TASKS[name]
    for split, count in zip(("train", "dev", "test"), COUNTS[name], strict=True):
        language = task.card.languages[0]
        if count is None:
            continue
        rows = read(task, shared / "data", split, language)
        [path] = data.used_files(task, split, language, shared / "data")
        theirs = columns(path, name.startswith("uner"))
        assert len(rows) == len(theirs) == count
        assert [list(row.tokens) for row in rows] == [tokens for tokens, _ in theirs]
        changed = [(row.tags, tags) for row, (_, tags) in zip(rows, theirs, strict=True) if list(row.tags) != tags]
        slips = [(a, b) for ours, tags in changed for a, b in zip(ours, tags, strict=True) if a != b]
        assert all(a == f"B{b[1:]}" and b.startswith("I-") for a, b in slips)
        for ours, tags in changed:  # no chunk is moved
            assert seqeval.metrics.f1_score([tags], [list(ours)]) == 1.0
        assert len(slips) == SLIPS.get(f"{name}.{split}", 0)


def test_all_real_slips_are_in_what_declares_them(shared: Path) -> None:
    declared = {task.name for task in (CONLL04, *MASAKHANER)}
    for task in SUITE.tasks:
        assert isinstance(task.source, OfficialSource)
        readers = [part.reader for part in task.source.splits.values() if isinstance(part.reader, Conll)]
        assert all(reader.slips == (task.name in declared) for reader in readers)


# --- the suite ------------------------------------------------------------------------------------------------------


def test_the_suite_is_whole() -> None:
    assert {code for task in MASAKHANER for code in task.card.languages} >= {"ha", "ig", "rw", "pcm", "sw"}
    assert len(MASAKHANER) == 20 and len(UNER) == 14
    assert sorted(name for names in SUITE.categories.values() for name in names) == sorted(TASKS)
    assert sorted(name for names in SUITE.averaged for name in names) == sorted(TASKS)
    assert len(ONTONOTES.card.labels) == 2 * 18 + 1
    # What is licensed is read from the user's own files.
    hubs = {
        task.name: [part.hub for part in task.source.splits.values() if part.hub]
        for task in SUITE.tasks
        if isinstance(task.source, OfficialSource)
    }
    assert not any(hubs[name] for name in ("ontonotes", "conll05", "conll05-brown", "conll12", PROPBANK.name))
    assert hubs["wnut17"][0] == Hub(
        "leondz/wnut_17", hubs["conll03"][0].row, config="wnut_17", revision="refs/convert/parquet"
    )
