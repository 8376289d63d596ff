"""Semantic roles: every layout of the columns, the official score, windows, and how a predicate is asked for."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import seqeval.metrics
from srl_golden import GOLDEN, ROLES, cells, official, synthetic
from tiny import tiny_tokenizer
from tokenizers import Tokenizer

from benchmarks import data
from benchmarks.errors import DataError, MissingData, PolypromptError
from benchmarks.metrics.constant import constant_f1, entities
from benchmarks.metrics.srl import argument_f1, argument_sums, arguments
from benchmarks.records import Example, Prediction
from benchmarks.registry import find_task
from benchmarks.scoring import METRICS, chance, score, signatures
from benchmarks.suites.conll import CONLL04, CONLL05, CONLL05_BROWN, CONLL12, PROPBANK, bio, roles
from benchmarks.task import Kind, Task, TaskCard
from exporters.session import check_example
from harness.decode import decode
from harness.features import TextEncoder
from harness.objectives import make_targets


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def read(task: Task, folder: Path, split: str = "train") -> tuple[Example, ...]:
    return data.load(task, split, "en", folder).examples


def refused(task: Task, folder: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as error:
        read(task, folder, split)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- CoNLL-2005 -----------------------------------------------------------------------------------------------------

WORDS = """\
The
cats
she
says
love
hats

Yes
.

Go
"""
PROPS = """\
-        (A1*      (A0*
-           *)        *)
-        (A0*)        *
say       (V*)        *
love   (C-A1*       (V*)
-           *)      (A1*)

-
-

go (V*)
"""
SENTENCE = ("The", "cats", "she", "says", "love", "hats")
SAYS = Example("0.3", tokens=SENTENCE, marked=3, tags=("B-A1", "I-A1", "B-A0", "B-V", "B-C-A1", "I-C-A1"), group="0")
LOVE = Example("0.4", tokens=SENTENCE, marked=4, tags=("B-A0", "I-A0", "O", "O", "B-V", "B-A1"), group="0")
GO = Example("2.0", tokens=("Go",), marked=0, tags=("B-V",), group="2")


def conll05(folder: Path, words: str = WORDS, props: str = PROPS, name: str = "train.02", end: str = "") -> Path:
    root = "conll05st-release/" + {"train": "train", "devel": "devel"}.get(name.split(".")[0], name)
    put(folder, f"{root}/words/{name}.words{end}", words)
    return put(folder, f"{root}/props/{name}.props{end}", props)


@pytest.mark.parametrize("spoil", ["", "crlf", "bom", "tabs", "no newline at the end"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_conll05(tmp_path: Path, spoil: str, end: str) -> None:
    words, props = WORDS, PROPS
    match spoil:
        case "crlf":
            words, props = words.replace("\n", "\r\n"), props.replace("\n", "\r\n")
        case "bom":
            words, props = "\ufeff" + words, "\ufeff" + props
        case "tabs":
            props = re.sub(" +", "\t", props)
        case "no newline at the end":
            words, props = words.rstrip("\n"), props.rstrip("\n")
    conll05(tmp_path, words, props, end=end)
    assert read(CONLL05, tmp_path) == (SAYS, LOVE, GO)


def test_conll05_has_a_file_a_section(tmp_path: Path) -> None:
    for section in ("21", "02", "10"):
        conll05(tmp_path, f"{WORDS}\nw{section}\n", f"{PROPS}\nbe (V*)\n", f"train.{section}", ".gz")
    rows = read(CONLL05, tmp_path)
    assert [row.tokens[0] for row in rows if len(row.tokens) == 1] == ["Go", "w02", "Go", "w10", "Go", "w21"]
    assert [row.id for row in rows[:8]] == ["0.3", "0.4", "2.0", "3.0", "4.3", "4.4", "6.0", "7.0"]


def test_conll05_has_two_test_sets(tmp_path: Path) -> None:
    conll05(tmp_path, name="test.wsj", end=".gz")
    conll05(tmp_path, "Go\n", "go (V*)\n", name="test.brown", end=".gz")
    assert len(read(CONLL05, tmp_path, "test")) == 3
    assert len(read(CONLL05_BROWN, tmp_path, "test")) == 1
    assert (CONLL05_BROWN.card.head, CONLL05_BROWN.card.train_language) == ("conll05", None)
    assert CONLL05_BROWN.card.labels == CONLL05.card.labels
    with pytest.raises(MissingData, match=r"train/words/\*\.words or .*train/props/\*\.props or .*LDC99T42"):
        read(CONLL05, tmp_path, "train")


@pytest.mark.parametrize(
    ("words", "props", "line", "text"),
    [
        (WORDS, PROPS.replace("love   (C-A1*       (V*)", "love   (C-A1*"), 5, "2 columns where 3 are expected"),
        (WORDS, PROPS.replace("(A1*)\n", "(A1*\n"), 6, "a bracket is still open at the end of the sentence"),
        (WORDS, PROPS.replace("-        (A0*)", "-           *)"), 3, "'*)' closes a bracket that is not open"),
        (WORDS, PROPS.replace("(V*)\n-", "V\n-"), 5, "'V' is not of the form"),
        (WORDS, PROPS.replace("(A1*)", "(A9*)"), 6, "unknown role 'A9'; it must be one of A0, A1, A1-DSP, "),
        (WORDS, PROPS.replace("(A1*)", "(ARG1*)"), 6, "unknown role 'ARG1'; it must be one of A0"),
        (WORDS, PROPS.replace("say  ", "-    "), 1, "2 columns of arguments for the 1 predicates"),
        (WORDS, PROPS.replace("-\n-\n", "-\n"), 8, "a sentence of 1 words, which has 2 in "),
        (WORDS, PROPS.removesuffix("\ngo (V*)\n"), 9, "2 sentences for the 3 of "),
        (WORDS.removesuffix("\nGo\n"), PROPS, 11, "3 sentences for the 2 of "),
        ("", PROPS, 1, "the file is empty"),
        (WORDS, "", 1, "the file is empty"),
        ("Go\n", "-\n", 1, "no predicate in the file"),
    ],
)
def test_conll05_refused(tmp_path: Path, words: str, props: str, line: int, text: str) -> None:
    path = conll05(tmp_path, words, props)
    named = path if words else path.parents[1] / "words/train.02.words"
    message = refused(CONLL05, tmp_path)
    assert message.startswith(f"{named}:{line}: ")
    assert text in message


def test_conll05_files_must_go_together(tmp_path: Path) -> None:
    conll05(tmp_path, name="train.02")
    conll05(tmp_path, name="train.03").unlink()
    assert re.search(
        r"/words/train\.02\.words: 3 files.*; a file of words and one of arguments", refused(CONLL05, tmp_path)
    )
    conll05(tmp_path, name="train.04")
    (tmp_path / "conll05st-release/train/words/train.02.words").unlink()
    assert re.search(r"train\.02\.props is not for .*train\.03\.words", refused(CONLL05, tmp_path))


@pytest.mark.parametrize("names", [["train.02.words"], ["train.02.words", "train.02.props", "train.03.props"]])
def test_conll05_files_are_pairs(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        put(tmp_path, name, WORDS if name.endswith("words") else PROPS)
    with pytest.raises(DataError, match=rf"words: {len(names)} files; a file of words and one of arguments must go"):
        data.load(CONLL05, "train", "en", tmp_path, {"conll05.train": names})


def test_conll05_damaged_gzip(tmp_path: Path) -> None:
    path = conll05(tmp_path, end=".gz")
    path.write_bytes(path.read_bytes()[:-9])
    assert refused(CONLL05, tmp_path).startswith(f"{path}:1: damaged gzip file")


# --- CoNLL-2012 and PropBank's own columns --------------------------------------------------------------------------


def gold_conll(words: Sequence[str], predicates: Sequence[str], columns: Sequence[str], sep: str = "   ") -> str:
    """A sentence of CoNLL-2012: words, framesets ("-" for none), and a column of arguments for each predicate."""
    rows = zip(words, predicates, *(column.split() for column in columns), strict=True)
    lines = [
        sep.join(["bc/x/00/x_0000", "0", str(at), word, "NN", "(S*)", frame.split(".")[0], frame.split(".")[-1], "-"])
        + sep
        + sep.join(["-", "*", *arguments, "(12)" if at else "-"])
        for at, (word, frame, *arguments) in enumerate(rows)
    ]
    return "\n".join(lines) + "\n\n"


def conll12(folder: Path, text: str, split: str = "development", number: int = 0) -> Path:
    place = f"conll-formatted-ontonotes-5.0/data/{split}/data/english/annotations/bc/x/00/x_{number:04}.gold_conll"
    return put(folder, place, f"#begin document (bc/x/00/x_0000); part 000\n{text}#end document\n")


SAY_LOVE = gold_conll(
    SENTENCE,
    ["-", "-", "-", "say.01", "love.01", "-"],
    ["(ARG1* *) (ARG0*) (V*) (C-ARG1* *)", "(ARG0* *) * * (V*) (ARGM-TMP*)"],
)
ARGUMENTS = ("B-ARG1", "I-ARG1", "B-ARG0", "B-V", "B-C-ARG1", "I-C-ARG1")


def test_conll12(tmp_path: Path) -> None:
    yes = gold_conll(["Yes", "#"], ["-", "-"], [])
    conll12(tmp_path, yes + SAY_LOVE, number=2)
    conll12(tmp_path, yes, number=1)
    say, love = read(CONLL12, tmp_path, "dev")
    assert say == Example("2.3", tokens=SENTENCE, marked=3, tags=ARGUMENTS, group="2")
    assert love == Example(
        "2.4", tokens=SENTENCE, marked=4, tags=("B-ARG0", "I-ARG0", "O", "O", "B-V", "B-ARGM-TMP"), group="2"
    )


def test_where_the_predicate_is(tmp_path: Path) -> None:
    # As many as columns: as the file says, though the verb begins elsewhere (PropBank's "x - rays").
    text = gold_conll(["x", "-", "rays"], ["-", "-", "xray.01"], ["(V*) * (C-V*)"])
    conll12(tmp_path, text)
    [row] = read(CONLL12, tmp_path, "dev")
    assert (row.marked, row.tags) == (2, ("B-V", "O", "B-C-V"))
    # More than columns: where the verb begins.
    conll12(tmp_path, gold_conll(["a", "b", "c"], ["a.01", "b.01", "c.01"], ["* * (V*)", "(V*) (ARG1*) *"]))
    assert [row.marked for row in read(CONLL12, tmp_path, "dev")] == [2, 0]
    path = conll12(tmp_path, gold_conll(["a", "b"], ["a.01", "b.01"], ["* (ARG1*)"]))
    assert refused(CONLL12, tmp_path, "dev") == (
        f"{path}:2: 1 columns of arguments for the 2 predicates of the sentence, and column 1 of them has no (V*) that "
        "tells which is its"
    )


@pytest.mark.parametrize(
    ("spoil", "line", "text"),
    [
        (lambda t: t.replace("(C-ARG1*", "(ARGX*"), 6, "unknown role 'ARGX'"),
        (lambda t: t.replace("(C-ARG1*", "(C-ARGM-TMPX*"), 6, "unknown role 'C-ARGM-TMPX'"),
        (lambda t: t.replace("(C-ARG1*", "*"), 7, "'*)' closes a bracket that is not open"),
        (lambda t: t[: t.index("love")], 6, "3 columns where 14 are expected"),
        (
            lambda t: t[: t.rindex("bc/x")],
            6,
            "a bracket is still open at the end of the sentence; is the file cut off?",
        ),
    ],
)
def test_conll12_refused(tmp_path: Path, spoil: Callable[[str], str], line: int, text: str) -> None:
    path = conll12(tmp_path, "")
    path.write_text("#begin document (x); part 000\n" + spoil(SAY_LOVE))
    message = refused(CONLL12, tmp_path, "dev")
    assert message.startswith(f"{path}:{line}: ")
    assert text in message


def test_propbank(tmp_path: Path) -> None:
    rows = [
        ["doc", "0", "0", "Word  ", "NN", "(S*", "-", "-", "   * ", "(ARG1*"],
        ["doc", "0", "1", "play ", "NN", "*", "play", "play.01", "(V*)", "  *)"],
        ["doc", "0", "2", "amuses", "VB", "*)", "amuse ", "amuse.01 ", "*", "(V*)"],
    ]
    put(tmp_path, "srl/propbank_ewt/train.gold_conll.gz", "\n".join("\t".join(row) for row in rows) + "\n")
    words = ("Word", "play", "amuses")
    assert read(PROPBANK, tmp_path) == (
        Example("0.1", tokens=words, marked=1, tags=("O", "B-V", "O"), group="0"),
        Example("0.2", tokens=words, marked=2, tags=("B-ARG1", "I-ARG1", "B-V"), group="0"),
    )


def test_a_sentence_and_its_tags_are_kept_once(tmp_path: Path) -> None:
    conll12(tmp_path, SAY_LOVE)
    say, love = read(CONLL12, tmp_path, "dev")
    assert say.tokens is love.tokens
    assert all(any(tag is label for label in CONLL12.card.labels) for tag in (*say.tags, *love.tags))


def test_roles() -> None:
    names = roles("ARG", "ARGM")
    assert len(set(names)) == len(names)
    assert {"V", "C-V", "ARG0", "C-ARG1", "R-ARGA", "ARGM-TMP", "R-ARGM-LOC", "C-ARG1-DSP"} < set(names)
    assert "R-V" not in names
    assert {"B-A0", "I-AA", "B-R-AM-PNC", "I-AM-TM", "B-AM"} < set(CONLL05.card.labels)
    assert CONLL12.card.labels == PROPBANK.card.labels


# --- real files -----------------------------------------------------------------------------------------------------

OLD_FOLDERS = {"train": "train", "dev": "devel", "test": "test.ewt"}
COUNTS = {"train": (40_391, 31_112), "dev": (4_913, 3_765), "test": (3_671, 2_845)}


def real(shared: Path, task: Task, split: str) -> tuple[Example, ...]:
    old = [f"srl/conll2005_style/{OLD_FOLDERS[split]}/{part}/*.{part}" for part in ("words", "props")]
    files = {f"conll12.{split}": [f"srl/conll2012_style/{split}/*.gold_conll"], f"conll05.{split}": old}
    return data.load(task, split, "en", shared / "data", files).examples


def test_real_training_files(shared: Path) -> None:
    assert (len(real(shared, PROPBANK, "train")), len(real(shared, CONLL05, "train"))) == COUNTS["train"]


@pytest.mark.parametrize("split", ["dev", "test", pytest.param("train", marks=pytest.mark.slow)])
def test_real_files_agree(shared: Path, split: str) -> None:
    own, later, first = (real(shared, task, split) for task in (PROPBANK, CONLL12, CONLL05))
    assert (len(own), len(first)) == COUNTS[split]
    assert later == own
    # The verbs of the 2005 columns are those of the others, under older names.
    of = {row.id: row.tags for row in own}
    older = {tag: re.sub("-ARG(M?)", lambda m: "-AM" if m[1] else "-A", tag) for tag in PROPBANK.card.labels}
    assert [row.tags for row in first] == [tuple(map(older.__getitem__, of[row.id])) for row in first]


def test_real_columns_as_the_official_script_reads_them(shared: Path) -> None:
    """Brackets made again of the tags are those of the file, word by word."""
    text = gzip.decompress((shared / "data/srl/propbank_ewt/dev.gold_conll.gz").read_bytes()).decode()
    columns, words = [], []
    for block in text.strip("\n").split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n")]
        for column in zip(*(row[8:] for row in rows), strict=True):
            columns.append(list(column))
            words.append(tuple(row[3] for row in rows))
    rows = real(shared, PROPBANK, "dev")
    assert [cells(row.tags) for row in rows] == columns
    assert [row.tokens for row in rows] == words
    assert sum(row.tags[row.marked] == "B-V" for row in rows) == len(rows) - 2  # both of the form "e - mail"


# --- the official score ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["f1_official", "f1_paper"])
def test_golden(metric: str) -> None:
    rows = [row for row in json.loads(GOLDEN.read_text()) if row["metric"] == metric]
    assert len(rows) > 40
    for row in rows:
        card = find_task(row["task"]).card
        found = score(card, predictions(row["gold"], row["predicted"]), row["language"])
        assert found[metric] == pytest.approx(row["official"], abs=1e-9), row["source"]


def predictions(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> list[Prediction]:
    return [Prediction(str(n), tuple(b), tuple(a)) for n, (a, b) in enumerate(zip(gold, predicted, strict=True))]


@pytest.fixture
def srl_eval() -> str:
    script = os.environ.get("SRL_EVAL", "")
    if not (script and Path(script).is_file() and shutil.which("perl")):
        pytest.skip("needs perl, and SRL_EVAL=path/to/srl-eval.pl")
    return script


@pytest.mark.parametrize("seed", range(8))
def test_made_up_predictions_by_the_official_script(srl_eval: str, seed: int) -> None:
    gold, predicted = synthetic(random.Random(seed), ROLES["propbank"], 60)
    number, printed = official(srl_eval, gold, predicted)
    assert 100 * argument_f1(gold, predicted) == pytest.approx(number, abs=1e-9)
    assert f"{100 * argument_f1(gold, predicted):.2f}" == printed


def perturbed(draw: random.Random, tags: Sequence[str], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Tags with moved ends, other roles, lost and new pieces."""
    given = list(tags)
    for _ in range(draw.choice((0, 0, 1, 2, 4))):
        at = draw.randrange(len(given))
        given[at] = draw.choice((draw.choice(vocabulary), "O", given[at - 1]))
    return tuple(given)


@pytest.mark.parametrize("task", [PROPBANK, CONLL05], ids=lambda task: task.name)
def test_real_gold_with_errors_by_the_official_script(srl_eval: str, shared: Path, task: Task) -> None:
    rows = real(shared, task, "test")
    rows = [row for row in rows if any("-C-" in tag for tag in row.tags)] + list(rows[::10])
    assert len(rows) > 300
    draw = random.Random(7)
    often = [tag for tag, _ in Counter(tag for row in rows for tag in row.tags).most_common(40)]
    gold = [row.tags for row in rows]
    given = [perturbed(draw, tags, often) for tags in gold]
    number, printed = official(srl_eval, gold, given)
    found = score(task.card, predictions(gold, given))
    assert 20 < number < 95
    assert found["f1_official"] == pytest.approx(number, abs=1e-9)
    assert f"{found['f1_official']:.2f}" == printed
    assert score(task.card, predictions(gold, gold)) == {"f1_official": 100.0, "f1_paper": 100.0}


def test_arguments() -> None:
    tags = "B-ARG1 I-ARG1 B-V B-C-ARG1 O B-R-ARG0 I-ARG0 B-C-V".split()
    assert arguments(tags) == {("ARG1", ((0, 1), (3, 3))), ("R-ARG0", ((5, 5),)), ("ARG0", ((6, 6),))}


def test_sums_of_predicates_add_up_to_the_score() -> None:
    gold, predicted = synthetic(random.Random(1), ROLES["conll05"], 30)
    sums = argument_sums(gold, predicted)
    assert sums.shape == (30, 2)
    for row, right, given in zip(sums, gold, predicted, strict=True):
        ours, theirs = arguments(right), arguments(given)
        assert row.tolist() == [2 * len([a for a in ours if a in theirs]), len(ours) + len(theirs)]
    assert argument_f1(gold, predicted) == sums[:, 0].sum() / sums[:, 1].sum()
    assert argument_f1([["O"]], [["O"]]) == 0.0


def test_the_paper_counts_the_verb() -> None:
    rows = predictions([["B-V", "B-ARG1", "O"]], [["B-V", "O", "B-ARG1"]])
    assert score(PROPBANK.card, rows) == {"f1_official": 0.0, "f1_paper": 50.0}
    assert list(signatures(PROPBANK.card, rows)) == ["f1_paper"]


# --- chance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [PROPBANK, CONLL05, CONLL04], ids=lambda task: task.name)
def test_chance_is_that_of_trying_every_tag(task: Task) -> None:
    draw = random.Random(3)
    names = ROLES.get(task.name, ["Loc", "Org", "Other", "Peop"])
    gold = [tags for _ in range(6) for tags in synthetic(draw, names, 12)[0]]
    gold += [["B-A0" if task is CONLL05 else "B-ARG0"] * 2, ["O", "B-V"]] * (task is not CONLL04)
    rows = predictions(gold, gold)
    constants = [predictions(gold, [[tag] * len(tags) for tags in gold]) for tag in task.card.labels]
    scores = [score(task.card, constant) for constant in constants]
    for name, value in chance(task.card, rows).items():
        assert value == pytest.approx(max(found[name] for found in scores))
        assert value > 0


def test_chance_of_whole_sentences_and_of_nothing() -> None:
    whole = [["B-ARG1", "I-ARG1", "I-ARG1"], ["B-ARG1"], ["B-ARG0", "O"]]
    assert chance(PROPBANK.card, predictions(whole, whole)) == {
        "f1_official": pytest.approx(100 * 2 * 2 / (3 + 3)),  # I-ARG1: two of three are one ARG1
        "f1_paper": pytest.approx(100 * 2 * 2 / (3 + 3)),
    }
    discontinuous = [["B-ARG1", "B-C-ARG1"]] * 3 + [["B-ARG0", "O"]]
    assert chance(PROPBANK.card, predictions(discontinuous, discontinuous))["f1_official"] == pytest.approx(
        100 * 2 * 3 / (4 + 4)  # B-C-ARG1 everywhere makes one argument of pieces of a word each
    )
    # Most arguments are an ARG0, and yet ARG1 is the better guess.
    rare = [["B-ARG0", "I-ARG0"] * 30, *[["B-ARG0"]] * 3, *[["B-ARG1"]] * 4]
    assert chance(PROPBANK.card, predictions(rare, rare))["f1_official"] == pytest.approx(100 * 2 * 4 / (37 + 8))
    nothing = predictions([["O", "B-V"]], [["O", "O"]])
    assert chance(PROPBANK.card, nothing)["f1_official"] == 0.0


@pytest.mark.filterwarnings("ignore:.*seems not to be NE tag")
def test_every_metric_of_tags_knows_its_best_constant() -> None:
    assert all(metric.constant is not None for metric in METRICS[Kind.TAGGING].values())
    gold = [("INTJ", "NOUN"), ("NOUN", "NOUN"), ("CCONJ", "SCONJ")]
    by_hand = max(
        seqeval.metrics.f1_score([list(tags) for tags in gold], [[tag] * 2 for _ in gold], zero_division=0)
        for tag in ("INTJ", "NOUN", "CCONJ", "SCONJ")
    )
    assert constant_f1(("INTJ", "NOUN", "CCONJ", "SCONJ"), gold, entities) == pytest.approx(by_hand)


# --- windows --------------------------------------------------------------------------------------------------------


def marked_card(**more: object) -> TaskCard:
    return TaskCard(name="t", suite="s", kind=Kind.TAGGING, labels=bio("V", "ARG0"), metrics=("f1_official",), **more)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("at", [0, 40, 119])
def test_long_sentences_keep_every_label(kind: str, at: int) -> None:
    encoder = TextEncoder(tiny_tokenizer(kind), 0, kind == "bert", 512)
    words = tuple(f"w{5 + n % 50}" for n in range(120))
    tags = tuple("B-V" if n == at else ("B-ARG0" if n % 7 == 0 else "O") for n in range(120))
    card = marked_card(max_length=40, stride=10)
    example = Example("1", tokens=words, marked=at, tags=tags)
    rows = encoder.features(card, [example])
    assert len(rows) > 4 and all(len(row) <= 40 for row in rows)
    again = encoder.tokenizer.encode(words[at], add_special_tokens=False).ids
    inside = [at in row.words for row in rows]
    assert sum(inside) == 1
    for row in rows:  # also where the predicate is outside of the window, it is told at the end
        ids = row.input_ids.tolist()
        tail = ids[:-1] if ids[-1] != again[-1] else ids
        assert tail[-len(again) :] == again
    targets = make_targets(card, [example], rows)
    read = {
        word: card.labels[tag]
        for row, target in zip(rows, targets, strict=True)
        for word, tag in zip(row.words, target, strict=True)
    }
    assert read == dict(enumerate(tags))
    # A model that is right in every window gives back the tags.
    outputs = []
    for row in rows:
        output = np.zeros((len(row), len(card.labels)), np.float32)
        output[row.positions, [card.labels.index(tags[word]) for word in row.words]] = 9.0
        outputs.append(output)
    assert decode(card, [example], rows, outputs)[0].value == tags


@pytest.mark.parametrize("length", [16, 32, 64, 128])
@pytest.mark.parametrize("word", ["w5" * 40, "?!" * 60, "龘" * 64, "", "\x01"])
def test_a_long_or_empty_predicate_leaves_room_in_every_window(shared: Path, length: int, word: str) -> None:
    for model in ("minilm-l6-en", "me5-small-multilingual"):
        encoder = TextEncoder(Tokenizer.from_file(str(shared / "models" / model / "tokenizer.json")), 0, True, 512)
        example = Example("1", tokens=("hello",) * 30 + (word,) + ("world",) * 60, marked=30)
        rows = encoder.features(marked_card(max_length=length), [example])
        assert all(len(row) <= length for row in rows)
        read = sorted(int(n) for row in rows for n in row.words)
        assert [n for n in read if n != 30] == [n for n in range(91) if n != 30]


# --- asking an exported model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "marked", "words"),
    [
        (PROPBANK, None, r"task propbank needs marked, the number of the predicate among the words, 0\.\.1"),
        (PROPBANK, 2, r"marked is 2; it must be the number of a word, 0\.\.1"),
        (PROPBANK, -1, r"marked is -1; it must be"),
        (CONLL04, 1, r"task conll04 does not ask about one word; leave marked away"),
    ],
)
def test_a_predicate_is_asked_for(task: Task, marked: int | None, words: str) -> None:
    with pytest.raises(PolypromptError, match=words):
        check_example(task.card, Example("1", tokens=("She", "sings"), marked=marked))


def test_a_predicate_that_is_there_is_fine() -> None:
    check_example(PROPBANK.card, Example("1", tokens=("She", "sings"), marked=1))
    check_example(CONLL04.card, Example("1", tokens=("She", "sings")))
