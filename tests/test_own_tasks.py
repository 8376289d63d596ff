"""A user's own tasks, from the file that declares them to the page."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

from benchmarks import data
from benchmarks.errors import DataError, MissingData, PolypromptError, run_command
from benchmarks.own.labels import labelled
from benchmarks.readers.rows import Columns
from benchmarks.readers.tables import Csv
from benchmarks.records import Answer, Example
from benchmarks.registry import find_suite, find_task, own_suites, suites
from benchmarks.results import Manifest, Results, read_model, read_predictions
from benchmarks.task import Kind, Task, TaskCard
from exporters import export, predict
from harness import rescore, run
from harness.config import make_config
from leaderboard import build

DOCUMENT = Path(__file__).parents[1] / "docs" / "own-tasks.md"
Command = Callable[..., tuple[int, str, str]]

MOODS = """
[[task]]
name = "mood"
title = "Mood of a sentence"
kind = "classification"
format = "tsv"
columns = { text = "sentence" }
files = { train = "moods/train.tsv", dev = "moods/dev.tsv" }
"""
NAMES = """
[[task]]
name = "names"
format = "conll"
languages = ["en", "de"]
files = { train = "names/{language}-train.conll", test = "names/{language}-test.conll" }
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    """A task file with two tasks, and its data beside it."""
    folder = tmp_path / "mine"
    moods = [("w7 w8", "so-so"), ("w9", "bad"), ("w10 w11 w12", "good"), ("w8 w9", "bad")]
    for split in ("train", "dev"):
        put(folder, f"moods/{split}.tsv", "sentence\tlabel\n" + "".join(f"{text}\t{mood}\n" for text, mood in moods))
    sentence = "w7 x B-PER\nw8 x I-PER\nw9 x O\n\nw10 x B-LOC\n"
    for name in ("en-train", "en-test", "de-test"):
        put(folder, f"names/{name}.conll", sentence)
    return put(folder, "tasks.toml", MOODS + NAMES)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    tiny_model("bert").save_pretrained(folder)
    tiny_tokenizer("bert").save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a program in this process; returns status, stdout and stderr."""

    def call(module: object, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        status = run_command(module.main)  # type: ignore[attr-defined]
        output = capsys.readouterr()
        return status, output.out, output.err

    return call


def small(backbone: Path, out: Path, *more: object) -> tuple[object, ...]:
    return "--backbone", backbone, "--prompt-length", 3, "--batch", 4, "--max-steps", 5, "--out", out, *more


def refused(command: Command, *arguments: object) -> str:
    """The one error of a command that fails."""
    status, output, error = command(run, *arguments)
    assert (status, output) == (2, "")
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert error.count("\n") == 1
    return error


# --- from the task file to the page ---------------------------------------------------------------------------------


def test_own_tasks_are_tasks_like_any_other(
    declared: Path, backbone: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(declared.parent)
    runs = tmp_path / "runs"
    status, output, error = command(run, "--task-file", "tasks.toml", *small(backbone, runs, "--name", "x"))
    assert status == 0, error
    assert re.search(r"own +mood +en +dev +4 +accuracy", output)
    assert re.search(r"own +names +de +test +2 +f1", output)

    manifest = read_model(runs / "x" / "manifest.json", Manifest)
    assert [(card.name, card.suite, card.kind, card.labels) for card in manifest.tasks] == [
        ("mood", "own", Kind.CLASSIFICATION, ("bad", "good", "so-so")),
        ("names", "own", Kind.TAGGING, ("B-LOC", "B-PER", "I-PER", "O")),
    ]
    assert set(manifest.data) == {
        "mood/moods/train.tsv",
        "mood/moods/dev.tsv",
        "names/names/en-train.conll",
        "names/names/en-test.conll",
        "names/names/de-test.conll",
    }
    assert f"--task-file {declared} " in f"{manifest.command} "
    rows = read_predictions(runs / "x" / "predictions" / "names.de.test.jsonl.gz")
    assert [row.gold for row in rows] == [("B-PER", "I-PER", "O"), ("B-LOC",)]

    monkeypatch.chdir(tmp_path)
    assert command(rescore, "runs/x")[0] == 0
    words = manifest.command.replace("--name x", "--name again").split()[3:]
    assert command(run, *words)[0] == 0
    weights = [(runs / name / "heads.safetensors").read_bytes() for name in ("x", "again")]
    assert weights[0] == weights[1]
    shutil.rmtree(runs / "again")

    status, output, error = command(export, "runs/x")
    assert status == 0, error
    assert "mood" in output and "en de" in output
    status, output, _ = command(predict, "runs/x/export", "--task", "mood", "w7 w9")
    assert status == 0 and output.split("\t")[0] in ("bad", "good", "so-so")
    status, output, _ = command(predict, "runs/x/export", "--task", "names", "w7 w9")
    assert status == 0 and [line.split()[0] for line in output.splitlines()] == ["w7", "w9"]

    # Elsewhere there is no task file.
    declared.rename(tmp_path / "mine" / "moved.toml")
    status, output, error = command(build, "runs", "--out", "site")
    assert (status, error) == (0, "")
    page = (tmp_path / "site" / "index.html").read_text()
    assert re.search(r"<h2 id=[^>]*><a href=[^>]*>own</a></h2>", page)
    suite = (tmp_path / "site" / "suites" / "own" / "index.html").read_text()
    assert 'class="head">mood<' in suite and 'class="head">names<' in suite
    assert "official average over" not in page + suite
    status, _, error = command(export, "runs/x")
    assert status == 2
    assert f"{declared}: no such file; let --task-file name the place where it is" in error
    status, _, error = command(export, "runs/x", "--task-file", tmp_path / "mine" / "moved.toml")
    assert status == 0, error


def test_own_tasks_beside_others(declared: Path, backbone: Path, command: Command, tmp_path: Path) -> None:
    options = small(backbone, tmp_path, "--task-file", declared, "--max-train", 8, "--max-eval", 3, "--languages", "en")
    status, _, error = command(run, *options, "--suite", "own,demo", "--tasks", "mood,demo-topic")
    assert status == 0, error
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("own.demo-"))
    records = read_model(folder / "results.json", Results).records
    assert [(record.suite, record.task) for record in records] == [("own", "mood"), ("demo", "demo-topic")]
    status, _, error = command(build, folder, "--out", tmp_path / "site")
    assert (status, error) == (0, "")
    assert "own.demo" in (tmp_path / "site" / "index.html").read_text(), "a name that the page can link to"


def test_several_files_and_suites(declared: Path, tmp_path: Path, command: Command, backbone: Path) -> None:
    tables = 'suite = "tables"\n' + MOODS.replace('"mood"', '"temper"')
    more = put(declared.parent, "more.toml", tables)
    found = own_suites([declared, more])
    assert [(suite.name, [task.name for task in suite.tasks]) for suite in found] == [
        ("own", ["mood", "names"]),
        ("tables", ["temper"]),
    ]
    same = put(declared.parent, "same.toml", tables.replace('"tables"', '"own"'))
    assert [len(suite.tasks) for suite in own_suites([declared, same])] == [3]
    for given in (("--task-file", declared, "--task-file", more), ("--task-file", f"{declared},{more}")):
        error = refused(command, *given, "--tasks", "tempre", *small(backbone, tmp_path))
        assert "unknown task 'tempre': did you mean 'temper'?" in error


def test_a_config_file_may_name_task_files(declared: Path, backbone: Path, command: Command, tmp_path: Path) -> None:
    config = put(tmp_path, "config/mine.toml", f'task-file = ["{declared}"]\ntasks = ["mood"]\n')
    status, output, error = command(run, "--config", config, *small(backbone, tmp_path))
    assert status == 0, error
    assert "mood" in output and "names" not in output


def test_the_list_shows_own_tasks_and_their_files(declared: Path, command: Command) -> None:
    (declared.parent / "names" / "de-test.conll").unlink()
    status, output, _ = command(run, "--list", "--task-file", declared)
    assert status == 0
    assert re.search(r"own +mood +classification +accuracy +en +2/2", output)
    assert re.search(r"own +names +tagging +f1 +en de +2/4", output)
    assert "names test de: names/de-test.conll" in output
    assert f"{declared} names them in task 'names' under files" in output
    status, output, _ = command(run, "--list", "--json", "--task-file", declared)
    record = json.loads(output)[-1]
    assert (record["suite"], record["task"], [file["found"] for file in record["files"]]) == (
        "own",
        "names",
        [True, False, True, False],  # train and test, each in both languages
    )


def test_nothing_of_own_tasks_stays_behind(declared: Path) -> None:
    before = suites()
    own = own_suites([declared])
    assert find_task("mood", own).card.suite == "own"
    assert find_suite("own", own) is own[0]
    assert suites() == before
    with pytest.raises(PolypromptError, match="unknown task 'mood'"):
        find_task("mood")
    with pytest.raises(PolypromptError, match=r"unknown suite 'onw': did you mean 'own'\?"):
        find_suite("onw", own)


def test_another_content_is_another_run(declared: Path, backbone: Path, command: Command, tmp_path: Path) -> None:
    settings = {"task_file": [str(declared)]}
    first = make_config(settings, "test")
    elsewhere = shutil.copy(declared, tmp_path / "copy.toml")
    assert make_config({"task_file": [str(elsewhere)]}, "test").identity == first.identity
    options = small(backbone, tmp_path / "runs", "--task-file", declared, "--name", "x")
    assert command(run, *options)[0] == 0
    declared.write_text(declared.read_text().replace('title = "Mood', 'max_length = 20\ntitle = "Mood'))
    assert make_config(settings, "test").identity != first.identity
    assert "was begun with other settings (task-file-sha256)" in refused(command, *options, "--resume")


def test_files_of_one_name_keep_their_hashes(backbone: Path, command: Command, tmp_path: Path) -> None:
    for language in ("en", "de"):
        put(tmp_path, f"data/{language}/test.conll", f"w7 B-{language}\nw8 O\n")
    tags = 'labels = ["O", "B-en", "B-de"]\n'
    file = put(
        tmp_path, "mine/tasks.toml", NAMES.replace("names/{language}-test", f"{tmp_path}/data/{{language}}/test")
    )
    put(tmp_path, "mine/names/en-train.conll", "w7 B-en\nw8 O\n")
    file.write_text(file.read_text() + tags)
    assert command(run, "--task-file", file, *small(backbone, tmp_path, "--name", "x"))[0] == 0
    data_read = read_model(tmp_path / "x" / "manifest.json", Manifest).data
    assert set(data_read) == {
        "names/names/en-train.conll",
        "names/test.conll",
        str(tmp_path / "data" / "de" / "test.conll"),
    }


# --- mistakes in a task file ----------------------------------------------------------------------------------------

GOOD = MOODS.strip().removeprefix("[[task]]\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title", "titel", "task 'mood': unknown key 'titel': did you mean 'title'?"),
        ("text =", "txt =", "task 'mood': columns: unknown key 'txt': did you mean 'text'?"),
        ("train =", "trian =", "task 'mood': files: unknown key 'trian': did you mean 'train'?"),
        ("[[task]]", "[[tasks]]", "unknown key 'tasks': did you mean 'task'?"),
        ("[[task]]", "[task]", "task: write [[task]], with two brackets, above each task"),
        ('name = "mood"\n', "", "task 1: name: missing; add it"),
        ('"mood"', '"sst2"', "task 'sst2': name: suite glue has a task of this name; choose another one"),
        ('"mood"', '"my mood"', "task 'my mood': name: 'my mood' may have letters, digits, - and _ alone"),
        ('"mood"', "7", "task 7: name: 7: Input should be a valid string"),
        ('kind = "classification"\n', "", "task 'mood': kind: missing; add it"),
        ('"classification"', '"clasification"', "kind: 'clasification' is none: did you mean 'classification'?"),
        ('"classification"', '"span"', "kind: span does not come in this format; it is for classification, regression"),
        ('format = "tsv"\n', "", "task 'mood': format: missing; it is one of tsv, csv, jsonl, conll, squad, parallel"),
        ('"tsv"', '"tvs"', "task 'mood': format: 'tvs' is none: did you mean 'tsv'?"),
        ('"tsv"', '"conll"', "task 'mood': kind: classification does not come in this format; it is for tagging"),
        ("title", 'metrics = ["f1", "bleu"]\ntitle', "metrics: classification has no 'bleu'; there are accuracy, "),
        ("title", 'metrics = ["em", "em"]\ntitle', "task 'mood': metrics: a name stands there twice; write each once"),
        ("title", 'labels = ["good"]\ntitle', "task 'mood': labels: 'good' alone; name at least two, or leave the key"),
        ("title", 'labels = ["a", "a"]\ntitle', "task 'mood': labels: a name stands there twice; write each once"),
        ("title", "labels = [0, 1]\ntitle", "task 'mood': labels.0: 0: Input should be a valid string"),
        ("title", "max_length = 0\ntitle", "task 'mood': max_length: 0: Input should be greater than 0"),
        ("title", "no_answer = true\ntitle", "task 'mood': no_answer: of no use to classification; remove the key"),
        ("title", 'languages = ["English"]\ntitle', "languages: 'English' is no BCP-47 code, such as en"),
        ("title", 'languages = ["en", "de"]\ntitle', "files.dev: one name for 2 languages; write {language} where"),
        ("title", 'eval_split = "test"\ntitle', "files.test: missing; it is what is scored"),
        ("title", 'eval_split = "valid"\ntitle', "eval_split: 'valid': Input should be 'dev' or 'test'"),
        ("title", 'names = { "0" = "a" }\nlabels = ["b", "c"]\ntitle', "names.0: 'a' is no label: there are b, c"),
        ("title", 'suite = "x"\ntitle', "task 'mood': unknown key 'suite'"),
        ("[[task]]", 'suite = "glue"\n[[task]]', "suite: 'glue' is a suite of the project; choose another name"),
        ("[[task]]", 'suite = "a/b"\n[[task]]', "suite: 'a/b' may have letters, digits, - and _ alone"),
        ('dev = "moods/dev.tsv"', 'dev = "{lang}.tsv"', "files.dev: {lang} stands for nothing; only {language} does"),
        (', dev = "moods/dev.tsv"', "", "files.dev: missing; it is what is scored"),
        ('train = "moods/train.tsv", ', "", "files.train: missing; classification learns from it"),
        ('"classification"', '"regression"\nlabels = ["a", "b"]', "labels: regression has none; remove the key"),
        ("text =", 'target = "t", text =', "columns.target: classification does not read it; it reads text, label"),
        ("[[task]]", "[[task]", "not valid TOML: "),
        (MOODS, "", "task: missing; add it"),
        (MOODS, "task = []", "task: []: Tuple should have at least 1 item"),
        (MOODS, MOODS + MOODS, "tasks.toml has a task of this name; choose another one"),
    ],
)
def test_a_mistake_gets_one_clear_error(
    old: str, new: str, message: str, tmp_path: Path, command: Command, backbone: Path
) -> None:
    assert old in MOODS
    file = put(tmp_path, "tasks.toml", MOODS.replace(old, new, 1))
    error = refused(command, "--task-file", file, *small(backbone, tmp_path / "runs"))
    assert error.startswith(f"error: {file}: ")
    assert message in error


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            'format = "parallel"\nfiles = { test = ["a", "b"], train = ["a", "b"] }',
            "retrieval is not trained; remove it",
        ),
        ('format = "parallel"\nfiles = { test = "a" }', "files.test: name the files of the sentences and of their"),
        (
            'format = "conll"\nfiles = { train = "a", dev = "b" }\nlabels = ["NOUN", "VERB"]',
            "there is a tag 'NOUN'; write",
        ),
        (
            'format = "conll"\nfiles = { train = "a", dev = "b" }\ncolumns = { tag = -2 }',
            "columns.tag: -2: Input should be",
        ),
        ('format = "conll"\nfiles = { train = "a", dev = "b" }\nheader = ["a"]', "unknown key 'header'"),
    ],
)
def test_mistakes_of_other_formats(toml: str, message: str, tmp_path: Path) -> None:
    file = put(tmp_path, "tasks.toml", f'[[task]]\nname = "x"\n{toml}\n')
    with pytest.raises(PolypromptError) as error:
        own_suites([file])
    assert str(error.value).startswith(f"{file}: task 'x': ")
    assert message in str(error.value)


def test_files_that_are_not_there(declared: Path, backbone: Path, command: Command, tmp_path: Path) -> None:
    assert "--task-file none.toml: no such file" in refused(command, "--task-file", "none.toml")
    assert "its name must end in .toml or .py" in refused(command, "--task-file", put(tmp_path, "x.yaml", ""))
    assert "no task of it is asked for; add own to --suite" in refused(
        command, "--task-file", declared, "--suite", "demo", *small(backbone, tmp_path)
    )
    moods = declared.parent / "moods" / "train.tsv"
    moods.rename(moods.with_suffix(".csv"))
    status, _, error = command(run, "--task-file", declared, *small(backbone, tmp_path))
    assert status == 2
    assert f"mood, train, en: no such file: {moods} or {moods}.gz" in error
    assert f"{declared} names them in task 'mood' under files, relative to its own folder: correct the names" in error
    status, output, error = command(run, "--task-file", declared, *small(backbone, tmp_path), "--skip-missing")
    assert status == 0, error
    assert "names" in output and "mood" not in output


def test_languages_of_the_splits(tmp_path: Path) -> None:
    def languages(keys: str, train: str = "a") -> list[tuple[str, str]]:
        files = f'files = {{ train = "{train}", dev = "b", test = "{{language}}" }}'
        toml = f'[[task]]\nname = "x"\nformat = "conll"\nlanguages = ["de", "fr"]\n{files}\n{keys}\n'
        task = own_suites([put(tmp_path, "tasks.toml", toml)])[0].tasks[0]
        assert (task.eval_split, task.tuned_on) == ("test", "dev")
        places = [("train", code) for code in data.trainable(task)]
        places += [(split, code) for split in ("dev", "test") for code in ("de", "en", "fr")]
        return [place for place in places if task.source.has(*place)]

    tests = [("test", "de"), ("test", "en"), ("test", "fr")]
    assert languages("") == [("train", "de"), ("dev", "de"), *tests]
    assert languages('train_language = "en"') == [("train", "en"), ("dev", "en"), *tests]
    several = [("train", "fr"), ("train", "de"), ("dev", "fr"), *tests]
    assert languages('train_language = "fr"', "a-{language}") == several


# --- rows -----------------------------------------------------------------------------------------------------------


def declare(folder: Path, keys: str, **files: str) -> Task:
    """The task of a task file; `files` are written beside it."""
    for name, text in files.items():
        put(folder, name, text)
    places = ", ".join(f'{name} = "{name}"' for name in files)
    file = put(folder, "tasks.toml", f'[[task]]\nname = "x"\n{keys}\nfiles = {{ {places} }}\n')
    return own_suites([file])[0].tasks[0]


def test_labels_are_those_of_the_training_rows(tmp_path: Path) -> None:
    task = declare(tmp_path, 'format = "conll"', train="a B-X\nb I-X\n\nc O\n", dev="a B-Y\n")
    assert task.card.labels == ()
    task = labelled(task, data.load(task, "train", "en", None))
    assert task.card.labels == ("B-X", "I-X", "O")
    with pytest.raises(DataError, match=r"dev:1: unknown tag 'B-Y'; it must be one of B-X, I-X, O"):
        data.load(task, "dev", "en", None)
    task = declare(tmp_path, 'format = "conll"', train="a DET\nb NOUN\n", dev="a DET\n")
    with pytest.raises(
        PolypromptError, match=r"'x': metrics: f1 counts chunks.*tag 'DET'; write metrics = \[\"accuracy"
    ):
        labelled(task, data.load(task, "train", "en", None))
    task = declare(tmp_path, 'format = "tsv"\nkind = "classification"', train="text\tlabel\na\tx\nb\tx\n", dev="")
    with pytest.raises(PolypromptError, match="its training rows have 1 labels; it takes two"):
        labelled(task, data.load(task, "train", "en", None))
    train = data.load(task, "train", "en", None)
    named = declare(tmp_path, 'format = "tsv"\nkind = "classification"\nlabels = ["y", "x"]', dev="", train="")
    assert labelled(named, train) is named, "named labels keep their order"


JSON_ROW = {"text": "a", "text_pair": "b", "label": 1, "target": "2.5", "tokens": ["a", "b"], "tags": ["O", 3]}


@pytest.mark.parametrize(
    ("keys", "row", "expected"),
    [
        ('kind = "classification"', {"label": True}, Example("0", "a", label="true")),
        ('kind = "classification"\nnames = { 1 = "yes" }', {}, Example("0", "a", label="yes")),
        ('kind = "classification"\ncolumns = { text_pair = "text_pair" }', {}, Example("0", "a", "b", label="1")),
        ('kind = "regression"\ncolumns = { id = "label" }', {}, Example("1", "a", target=2.5)),
        ('kind = "tagging"\nnames = { O = "O", 3 = "B-X" }', {}, Example("0", tokens=("a", "b"), tags=("O", "B-X"))),
        ('kind = "tagging"', {"tokens": "a  b", "tags": "O X"}, Example("0", tokens=("a", "b"), tags=("O", "X"))),
        ('kind = "multiple-choice"', {"choices": ["c", "d"]}, Example("0", "a", choices=("c", "d"), label="1")),
        (
            'kind = "multiple-choice"\ncolumns = { choices = ["text_pair", "text"] }\nnames = { 1 = "0" }',
            {},
            Example("0", "a", choices=("b", "a"), label="0"),
        ),
    ],
)
def test_rows_of_json(keys: str, row: dict[str, object], expected: Example, tmp_path: Path) -> None:
    task = declare(tmp_path, f'format = "jsonl"\n{keys}', train=json.dumps(JSON_ROW | row), dev="")
    assert data.load(task, "train", "en", None).examples == (expected,)


@pytest.mark.parametrize(
    ("keys", "row", "message"),
    [
        (
            'kind = "classification"\ncolumns = { label = "lable" }',
            {},
            "target, tokens, tags; let columns in the task file say which is meant",
        ),
        ('kind = "classification"', {"label": [1]}, "'label' holds [1]; it must be text or a number"),
        ('kind = "classification"', {"label": ""}, "unknown label ''; it must be a word"),
        ('kind = "classification"\nnames = { 0 = "no" }', {}, "unknown label '1'; it must be one of 0"),
        ('kind = "classification"', {"text": 3}, "'text' is 3; it must be text"),
        ('kind = "regression"', {"target": [2]}, "target is [2]; it must be a number"),
        ('kind = "regression"', {"target": "two"}, "target is 'two'; it must be a number"),
        ('kind = "tagging"', {"tokens": None}, "'tokens' is None; it must be a list of words, or words that"),
        ('kind = "tagging"', {"tokens": []}, "'tokens' is []; it must be a list of words"),
        ('kind = "tagging"', {"tags": ["O"]}, "2 tokens but 1 tags; every token needs one tag"),
        ('kind = "tagging"\nnames = { O = "O" }', {}, "unknown tag '3'; it must be one of O"),
        ('kind = "multiple-choice"', {"choices": ["c"]}, "'choices' is ['c']; it must be a list of at least two texts"),
        ('kind = "multiple-choice"', {"choices": ["c", "d"], "label": 2}, "unknown label '2'; it must be one of 0, 1"),
    ],
)
def test_bad_rows_of_json(keys: str, row: dict[str, object], message: str, tmp_path: Path) -> None:
    task = declare(tmp_path, f'format = "jsonl"\n{keys}', train=json.dumps(JSON_ROW | row), dev="")
    with pytest.raises(DataError) as error:
        data.load(task, "train", "en", None)
    assert str(error.value).startswith(f"{tmp_path / 'train'}:1: ")
    assert message in str(error.value)


CARD = TaskCard(name="x", suite="own", kind=Kind.CLASSIFICATION, metrics=("accuracy",))
QUOTED = 'id,text,label\n1,"a, b","x"\n2,"one\ntwo\n""three""",y\n\n3,plain "quote",x\r\n4,"",y'


def read_csv(path: Path, header: tuple[str, ...] = ()) -> tuple[Example, ...]:
    return Csv(Columns(text="text", label="label", id="id"), header)(CARD, [path]).examples


def test_csv_as_the_csv_module_reads_it(tmp_path: Path) -> None:
    path = put(tmp_path, "x.csv", "\ufeff" + QUOTED)
    with path.open(encoding="utf-8-sig", newline="") as file:
        expected = [(row["id"], row["text"], row["label"]) for row in csv.DictReader(file)]
    assert [(row.id, row.text, row.label) for row in read_csv(path)] == expected
    assert expected[1][1] == 'one\ntwo\n"three"'
    packed = tmp_path / "x.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_csv(packed) == read_csv(path)
    bare = put(tmp_path, "bare.csv", QUOTED.split("\n", 1)[1])
    assert read_csv(bare, ("id", "text", "label")) == read_csv(path)
    long = put(tmp_path, "long.csv", f'id,text,label\n1,"{"x" * 200_000}",y\n')
    limit = csv.field_size_limit()
    assert len(read_csv(long)[0].text) == 200_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (QUOTED.replace("3,plain", "3,more,plain"), 7, "4 columns where 3 are expected (id, text, label)"),
        (QUOTED.replace("4,", "2,"), 8, "the id '2' stands at"),
        (QUOTED + '\n5,"open,x\n6,a,y\n', 9, "not CSV (unexpected end of data); close every quotation mark"),
        (QUOTED.replace('"one', '"o"ne'), 3, "not CSV (',' expected after '\"')"),
        ("id,text,label\n", 1, "only a header and no rows"),
        ("id,text\n1,a\n", 2, "no 'label' here"),
    ],
)
def test_csv_refused(content: str, line: int, message: str, tmp_path: Path) -> None:
    task = declare(
        tmp_path,
        'kind = "classification"\nformat = "csv"\ncolumns = { id = "id" }\n',
        train="",
        dev=content,
    )
    with pytest.raises(DataError) as error:
        data.load(task, "dev", "en", None)
    assert str(error.value).startswith(f"{tmp_path / 'dev'}:{line}: ")
    assert message in str(error.value)


def test_conll_of_any_width_with_comments(tmp_path: Path) -> None:
    for line, columns in (
        ("{token} {tag}", ""),
        ("{token} x y {tag}", ""),
        ("1\t{token}\t{tag}\t-", "columns = { token = 1, tag = 2 }"),
    ):
        text = "".join(line.format(token=token, tag=tag) + "\n" for token, tag in (("#", "O"), ("b", "B-X")))
        comment = "# a comment of CoNLL-U\n" if "\t" in line else ""
        task = declare(tmp_path, f'format = "conll"\n{columns}', train=comment + text, dev="")
        assert data.load(task, "train", "en", None).examples == (Example("0", tokens=("#", "b"), tags=("O", "B-X")),)


def test_parallel_of_two_and_of_three_files(tmp_path: Path) -> None:
    put(tmp_path, "a", "eins\nzwei\ndrei\n")
    put(tmp_path, "b", "one\ntwo\nthree\n")
    put(tmp_path, "c", "0\n1\n2\n")
    for files in ('["a", "b"]', '["a", "b", "c"]'):
        toml = f'[[task]]\nname = "x"\nformat = "parallel"\nlanguages = "de"\nfiles = {{ test = {files} }}\n'
        task = own_suites([put(tmp_path, "tasks.toml", toml)])[0].tasks[0]
        split = data.load(task, "test", "de", None)
        pairs = [(row.text, split.candidates[int(str(row.label))]) for row in split.examples]
        assert sorted(pairs) == [("drei", "three"), ("eins", "one"), ("zwei", "two")]
    put(tmp_path, "b", "one\ntwo\n")
    put(tmp_path, "tasks.toml", toml.replace(', "c"', ""))
    with pytest.raises(DataError, match="b:2: 2 translations of the 3 sentences"):
        data.load(own_suites([tmp_path / "tasks.toml"])[0].tasks[0], "test", "de", None)


def test_an_own_folder_goes_before_the_data_folder(declared: Path, tmp_path: Path) -> None:
    task = own_suites([declared])[0].tasks[0]
    assert data.load(task, "dev", "en", tmp_path / "elsewhere") == data.load(task, "dev", "en", None)
    other = put(tmp_path, "elsewhere/dev.tsv", "sentence\tlabel\nw7\tbad\n")
    for name in ("dev.tsv", str(other)):
        rows = data.load(task, "dev", "en", tmp_path / "elsewhere", {"mood.dev": [name]}).examples
        assert rows == (Example("0", "w7", label="bad"),)
    with pytest.raises(MissingData):
        data.load(task, "dev", "en", None, {"mood.dev": ["dev.tsv"]})


# --- Python ---------------------------------------------------------------------------------------------------------


def documented() -> dict[str, str]:
    """File name -> content, of every block of the document that is headed by names of files."""
    found: dict[str, str] = {}
    text = DOCUMENT.read_text(encoding="utf-8")
    for names, block in re.findall(r"^(`[^`\n]+`[^\n]*)\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), block)
    return found


def test_python_is_run(backbone: Path, command: Command, tmp_path: Path) -> None:
    file = put(tmp_path, "shouting.py", documented()["shouting.py"])
    status, output, error = command(run, "--task-file", file, *small(backbone, tmp_path / "runs", "--name", "x"))
    assert status == 0, error
    assert "shouting" in output
    modules = set(sys.modules)
    assert own_suites([file])[0].tasks[0].source.read(CARD, "dev", "en", None).examples[0].text == "yes"
    assert set(sys.modules) == modules
    assert not list(tmp_path.rglob("__pycache__"))

    # A run folder makes nobody run code: neither what it names nor what lies in it.
    status, _, error = command(export, tmp_path / "runs" / "x")
    assert status == 2
    assert f"config.toml: names {file}, which is code: add --task-file {file} if you trust it" in error
    assert command(export, tmp_path / "runs" / "x", "--task-file", file)[0] == 0
    config = tmp_path / "runs" / "x" / "config.toml"
    assert "which is code: add --task-file" in refused(command, "--config", config, "--name", "y")
    options = small(backbone, tmp_path / "runs", "--name", "y", "--task-file", file)
    assert command(run, "--config", config, *options)[0] == 0
    for folder in ("runs/x", "runs/x/export", "runs/x/export/deep/er"):
        trap = put(tmp_path, f"{folder}/trap.py", "raise SystemExit('was run')")
        error = refused(command, "--task-file", trap)
        assert "lies in a run folder or a bundle, from which no code is run" in error


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("x = 1\nTASKS = [x\n", 2, "was never closed"),
        ("import json\n\n\ndef f():\n    json.loads('{')\n\nf()\n", 5, "JSONDecodeError: Expecting property name"),
        ("import no_such_module_here\n", 1, "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("from benchmarks.task import *\n\nTaskCard(name='x', suit='own')\n", 3, "TaskCard: suite: Field required"),
        ("raise SystemExit\n", 1, "SystemExit"),
    ],
)
def test_failing_python(code: str, line: int, message: str, tmp_path: Path) -> None:
    file = put(tmp_path, "tasks.py", code)
    with pytest.raises(PolypromptError) as error:
        own_suites([file])
    assert str(error.value).startswith(f"{file}:{line}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("TASK = TASKS = []", "defines no tasks; write TASKS = [Task(...)]"),
        ("TASKS = [TASK, 3]", "TASKS[1] is 3; it must be a benchmarks.task.Task"),
        ("TASKS = [TASK, TASK]", "has a task of this name; choose another one"),
        ("from dataclasses import replace", ""),
        (
            "TASK = replace(TASK, card=TASK.card.model_copy(update={'metrics': ('bleu',)}))",
            "classification has no 'bleu'",
        ),
        (
            "TASK = replace(TASK, card=TASK.card.model_copy(update={'suite': 'glue'}))",
            "'glue' is a suite of the project",
        ),
        (
            "TASK = replace(TASK, card=TASK.card.model_copy(update={'labels': (), 'train_language': None}))",
            "labels: missing; name them, for there are no training rows to read them from",
        ),
    ],
)
def test_tasks_in_python_are_checked(more: str, message: str, tmp_path: Path) -> None:
    code = documented()["shouting.py"]
    file = put(tmp_path, "tasks.py", f"from dataclasses import replace\n{code}\n{more}\n")
    if not message:
        assert [task.name for task in own_suites([file])[0].tasks] == ["shouting"]
        return
    with pytest.raises(PolypromptError, match=re.escape(str(file))) as error:
        own_suites([file])
    assert message in str(error.value)


# --- the document ---------------------------------------------------------------------------------------------------


def test_the_examples_of_the_document(backbone: Path, command: Command, tmp_path: Path) -> None:
    found = documented()
    for name, text in found.items():
        put(tmp_path, name, text)
    files = [tmp_path / name for name in found if name.endswith((".toml", ".py"))]
    assert len(files) == 7, "six formats and Python"
    status, _, error = command(run, "--task-file", ",".join(map(str, files)), *small(backbone, tmp_path / "runs"))
    assert status == 0, error
    results = read_model(next((tmp_path / "runs").iterdir()) / "results.json", Results)
    scored = {(record.task, record.language): record.examples for record in results.records}
    assert scored == {
        ("reviews", "en"): 2,
        ("duplicates", "en"): 3,
        ("endings", "en"): 2,
        ("places", "en"): 2,
        ("places", "de"): 2,
        ("manual", "en"): 2,
        ("menu", "de"): 2,
        ("shouting", "en"): 8,
    }
    own = own_suites(files)
    rows = {task.name: data.load(task, task.eval_split, task.card.languages[-1], None) for task in own[0].tasks}
    assert [row.label for row in rows["reviews"].examples] == ["good", "bad"]
    assert rows["duplicates"].examples[1].text_pair == 'She asked: "How much?"'
    assert [row.label for row in rows["endings"].examples] == ["0", "1"]
    assert rows["places"].examples[0].tags == ("O", "O", "B-LOC", "I-LOC")
    assert rows["manual"].examples[0].answers == (Answer("the red button", 5),)
    assert rows["manual"].examples[1].answers == ()


def test_the_document_names_every_key() -> None:
    from benchmarks.own import declaration

    formats = [getattr(declaration, name) for name in vars(declaration) if name.endswith("Task") and name != "Task"]
    keys = {key for format_ in formats for key in format_.model_fields}
    table = DOCUMENT.read_text(encoding="utf-8").split("## Keys")[1].split("## ")[0]
    assert len(formats) == 6
    assert keys <= set(re.findall(r"`(\w+)`", table))
    assert {*declaration.TableColumns.model_fields, *declaration.ConllColumns.model_fields} <= set(
        re.findall(r"`(\w+)`", table)
    )
