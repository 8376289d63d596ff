"""The client in C++ beside Session: the same answers, and one sentence for what does not fit."""

import json
import os
import shutil
import subprocess
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from benchmarks.errors import PolypromptError
from benchmarks.registry import find_suite
from benchmarks.task import Kind
from exporters.bundle import read_card, write_bundle
from exporters.export import describe, graph_of, tensors_of
from exporters.predict import record
from exporters.session import Question, Session
from tests.bundles import demo_run, tiny_manifest

openvino = pytest.importorskip("openvino")
if find_spec("openvino_tokenizers") is None:  # not imported: that changes openvino.Core for the whole process
    pytest.skip("openvino-tokenizers is not installed", allow_module_level=True)

from exporters.engines.openvino import core  # noqa: E402
from exporters.tokenizer import OUTPUTS, add_tokenizer, convert, extension  # noqa: E402

pytestmark = pytest.mark.slow  # the tables of characters take a while to make

CARDS = [task.card for task in find_suite("demo").tasks]
CLIENT = os.environ.get("POLYPROMPT_CLIENT") or shutil.which("polyprompt-predict")
built = pytest.mark.skipif(CLIENT is None, reason="polyprompt-predict was not built; POLYPROMPT_CLIENT may name it")


def ask(*words: object, lines: list[dict[str, Any]] | None = None) -> subprocess.CompletedProcess[str]:
    text = None if lines is None else "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    return subprocess.run([str(CLIENT), *map(str, words)], input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=["minilm-l6-en", "e5-small-multilingual"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    model = demo_run(folder / "run", request.param)
    (folder / "b").mkdir()
    card = describe(model, tiny_manifest(model, CARDS))
    write_bundle(folder / "b", card, graph_of(model), tensors_of(model, CARDS), model.backbone.tokenizer.to_str())
    add_tokenizer(folder / "b")
    return folder / "b"


def questions(rows: int) -> list[Question]:
    """Rows of every kind in every language of the demo suite, languages' tasks one after the other."""
    found = []
    for task in find_suite("demo").tasks:
        for language in task.card.languages:
            split = task.source.read(task.card, "test", language, None)
            for example in split.examples[:rows]:
                choices = split.candidates[:8] if task.card.kind is Kind.RETRIEVAL else example.choices
                found.append(Question(task.name, replace(example, choices=choices), language))
    return found


def difference(one: Any, other: Any) -> float:
    """Largest difference of numbers; infinite where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max(map(difference, one, other), default=0.0)
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other)
    return 0.0 if one == other else np.inf


def check(bundle: Path, asked: list[Question]) -> None:
    session = Session(bundle, engine="openvino", packed=False)
    wanted = [record(session.tasks[q.task], q.example, a) for q, a in zip(asked, session.answer(asked), strict=True)]
    fields = ("id", "text", "text_pair", "choices", "tokens", "marked", "answers")
    lines = [{"task": q.task, "language": q.language} | {key: asdict(q.example)[key] for key in fields} for q in asked]
    done = ask(bundle, "--engine", "openvino", lines=lines)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(wanted)
    for question, mine, theirs in zip(asked, wanted, found, strict=True):
        assert difference(mine, theirs) < 1e-4, (question, mine, theirs)


@built
def test_answers_are_those_of_session(bundle: Path) -> None:
    asked = questions(2)
    # long contexts and sentences, so that there are several windows; marks that melt with letters; special pieces
    for question in list(asked):
        example = question.example
        if question.task == "demo-answers":
            asked.append(
                question._replace(example=replace(example, text_pair="\ufeff Cafe\u0301  " + 9 * example.text_pair))
            )
        elif question.task == "demo-names":
            asked.append(question._replace(example=replace(example, tokens=9 * example.tokens)))
        elif question.task == "demo-topic":
            odd = f"{example.text} [MASK] <mask> \u200b ﾊﾟｺ é{chr(0x1F600)}\u0007"
            asked.append(question._replace(example=replace(example, text=odd, text_pair=40 * example.text)))
    check(bundle, asked)


@built
def test_one_question(bundle: Path) -> None:
    done = ask(
        bundle, "--task", "demo-answers", "Who sings?", "--pair", "Ada sings.", "--engine=openvino", "--threads", 1
    )
    assert json.loads(done.stdout)["task"] == "demo-answers"
    assert ask("--help").stdout.startswith("usage: polyprompt-predict BUNDLE")


@built
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "demo-topik", "x"], "the bundle has no task 'demo-topik'"),
        (["x"], "--task: say which"),
        (["--task", "demo-choice", "x"], "task demo-choice needs choices"),
        (["--engine", "abacus", "--task", "demo-topic", "x"], "--engine abacus: unknown"),
        (["--nothing", "x"], "--nothing: unknown"),
        (["--jsonl", "/nowhere/at/all"], "no such file"),
    ],
)
def test_what_is_wrong_is_one_line(bundle: Path, words: list[str], said: str) -> None:
    done = ask(bundle, *words)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


@built
def test_bad_lines_are_named(bundle: Path) -> None:
    done = ask(bundle, lines=[{"task": "demo-topic", "text": "x"}, {"task": "demo-topic", "txt": "x"}])
    assert done.returncode == 2 and "stdin:2: unknown field 'txt'" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@built
def test_damaged_bundles(bundle: Path, tmp_path: Path) -> None:
    for name in read_card(bundle).files:
        copy = shutil.copytree(bundle, tmp_path / name)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).unlink()
        (copy / name).write_bytes(data)
        done = ask(copy, "--task", "demo-topic", "x")
        assert done.returncode == 2 and f"{name}: damaged" in done.stderr, done.stderr
        (copy / name).unlink()
        assert f"{name}: missing" in ask(copy, "--task", "demo-topic", "x").stderr
        shutil.rmtree(copy)
    card = (bundle / "bundle.json").read_text()
    copy = shutil.copytree(bundle, tmp_path / "outside")
    for old, new, said in (
        ('"model.onnx"', '"../model.onnx"', "not a file in the bundle's folder"),
        ('"task_id": 0', '"task_id": 9', "does not know"),
        ('"version": 2', '"version": 1', "another version"),
        ("{", 100 * "[", "nested too deeply"),
    ):
        (copy / "bundle.json").write_text(card.replace(old, new, 1))
        assert said in (done := ask(copy, "--task", "demo-topic", "x")).stderr and done.returncode == 2, done.stderr


def pieces(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """By the graph."""
    core().add_extension(str(extension()))
    found = core().compile_model(convert(tokenizer), "CPU")({0: np.array(texts)})
    out = {name: found[name] for name in OUTPUTS}
    rows = []
    for first, last in zip(out["first_word"], out["last_word"], strict=True):
        begin, end = (out["first_piece"][first], out["last_piece"][last - 1]) if last > first else (0, 0)
        rows.append(out["pieces"][begin:end].tolist())
    return rows


def test_the_graph_cuts_as_the_tokenizer_does(bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    texts = [q.example.text or " ".join(q.example.tokens) for q in questions(8)]
    texts += [
        "",
        " ",
        "İstanbul ẞ ς Σίσυφος",
        "تَّ",
        "x\u0302\u0323 a\u0302\u0323 ế e\u0302\u0301",
        "가각 각",
        "ｶﾞ㍿",
        "\u2581 a",
    ]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    wanted = [row.ids for row in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert pieces(tokenizer, texts) == wanted


def test_what_is_not_converted_is_named() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(PolypromptError, match="the pre-tokenizer ByteLevel is not converted"):
        convert(tokenizer)
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Prepend("x")
    with pytest.raises(PolypromptError, match="the normalizer Prepend is not converted"):
        convert(tokenizer)
