"""The client in C++ beside Session: the same answers, and one sentence for what does not fit."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks import cache
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import find_suite
from benchmarks.results import write_model
from benchmarks.task import Kind
from exporters.bundle import CARD, BundledTask, Form, Parity, read_card, write_bundle
from exporters.engines import has_operator
from exporters.export import describe, graph_of, tensors_of
from exporters.native_form import build_native
from exporters.packed import build_packed
from exporters.session import Question, Session
from exporters.store import HASHES, LARGE, SETTLED, known_sha256
from exporters.together import side_by_side
from harness.model import PromptedModel
from harness.sharing import PromptBank
from harness.viterbi import decoded
from tests.bundles import demo_run, tiny_manifest, tiny_prompted

openvino = pytest.importorskip("openvino")
if find_spec("openvino_tokenizers") is None:  # not imported: that changes openvino.Core for the whole process
    pytest.skip("openvino-tokenizers is not installed", allow_module_level=True)

from exporters.batching import Pace  # noqa: E402
from exporters.tokenizer import add_tokenizer, convert  # noqa: E402
from tests.native.parity import Client, Pieces, difference, find_client, in_python  # noqa: E402

pytestmark = pytest.mark.slow  # the tables of characters take a while to make

CARDS = [task.card for task in find_suite("demo").tasks]
CLIENT = find_client()
PAIRS = Pace(batch=100, piece=0.5, pair=6e-3)
small = pytest.mark.parametrize("bundle", ["bytes"], indirect=True)
built = pytest.mark.skipif(CLIENT is None, reason="polyprompt-predict was not built; POLYPROMPT_CLIENT may name it")


def ask(*words: object, lines: list[dict[str, Any]] | None = None) -> subprocess.CompletedProcess[str]:
    text = None if lines is None else "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    return subprocess.run([str(CLIENT), *map(str, words)], input=text, capture_output=True, text=True, check=False)


def byte_tokenizer() -> Tokenizer:
    """BPE of bytes, as RoBERTa has it, trained on rows of the demo suite."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([q.example.text or " ".join(q.example.tokens) for q in questions(20)], trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def byte_encoder() -> PromptedModel:
    """A small random encoder over bytes, with a prompt and a head for each task of the demo suite."""
    how = {"vocab_size": 700, "max_position_embeddings": 300}
    return tiny_prompted("roberta", cards=CARDS, tokenizer=byte_tokenizer(), **how)


@pytest.fixture(scope="module", params=["bytes", "minilm-l6-en", "e5-small-multilingual"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    model = byte_encoder() if request.param == "bytes" else demo_run(folder / "run", request.param)
    (folder / "b").mkdir()
    card = describe(model, tiny_manifest(model, CARDS))
    graphs = {"packed": graph_of(model, build_packed), "native": graph_of(model, build_native)}
    tokenizer = model.backbone.tokenizer.to_str()
    write_bundle(folder / "b", card, graph_of(model), tensors_of(model, CARDS), tokenizer, **graphs)
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


def check(bundle: Path, asked: list[Question], engine: str = "openvino", *options: str) -> None:
    session = Session(bundle, engine=engine, packed="--no-packed" not in options)
    wanted = in_python(session, asked)
    found = Client(str(CLIENT), bundle)(asked, "--engine", engine, *options)
    assert len(found) == len(wanted)
    for question, mine, theirs in zip(asked, wanted, found, strict=True):
        assert difference(mine, theirs) < 1e-4, (question, mine, theirs)


def with_forms(made: Path, folder: Path, engine: str, best: str, **card: Any) -> Path:
    """The same bundle as if a form had been verified in an engine and were better always."""
    shutil.copytree(made, folder, copy_function=os.link)
    report = Parity(
        engine=Session(made, engine=engine).engine, atol=None, max_drop=None, difference=0, drop=0, milliseconds=1,
        tasks={}, pace=Pace(batch=9000, piece=180),
    )  # fmt: skip
    fast = report.model_copy(update={"pace": Pace(batch=1, piece=1)})
    parity = {engine: report.model_copy(update={best: fast} if best != "padded" else {})}
    write_model(folder / CARD, read_card(folder).model_copy(update={"parity": parity, **card}))
    return folder


@built
def test_answers_are_those_of_session(bundle: Path) -> None:
    asked = questions(2)
    # long contexts and sentences, so that there are several windows; marks that melt with letters; special pieces
    for question in asked[::4]:
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
            # the same pieces, of which those behind the mark are of another type
            asked.append(question._replace(example=replace(example, text="w [SEP] x")))
            asked.append(question._replace(example=replace(example, text="w", text_pair="x")))
    # and the same pieces by another prompt
    asked += [question._replace(task="demo-count") for question in asked if question.task == "demo-topic"]
    check(bundle, asked)


@built
def test_one_question(bundle: Path) -> None:
    done = ask(
        bundle, "--task", "demo-answers", "Who sings?", "--pair", "Ada sings.", "--engine=openvino", "--threads", 1
    )
    assert json.loads(done.stdout)["task"] == "demo-answers"
    assert ask("--help").stdout.startswith("usage: polyprompt-predict BUNDLE")


@small
@built
@pytest.mark.parametrize("form", ["padded", "packed", "native"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_forms_and_engines(engine: str, form: str, bundle: Path, tmp_path: Path) -> None:
    """Long contexts make batches of one row, too."""
    if form == "native" and not has_operator(engine):
        pytest.skip("the operator was not compiled for this engine")
    folder, asked = with_forms(bundle, tmp_path / "b", engine, form), questions(2)
    check(folder, asked, engine)
    done = ask(folder, "--verbose", "--engine=auto", "--task", "demo-topic", "--jsonl", lines_in(tmp_path, "w", "w w"))
    assert done.returncode == 0 and done.stderr == f"{engine}, {form}: 1\n", done.stderr
    done = ask(folder, "--verbose", "--no-packed", "--task", "demo-topic", "--jsonl", lines_in(tmp_path, "w", "w w"))
    assert done.stderr == f"{engine}, padded: 1\n"


@built
def test_the_form_all(tmp_path: Path) -> None:
    model = byte_encoder()
    model.prompt = PromptBank(model.prompt.bank[:1].clone(), {"": 0}, model.prompt.placement)
    card = describe(model, tiny_manifest(model, CARDS))
    tasks, tensors = side_by_side(card.tasks, tensors_of(model, CARDS))
    card = card.model_copy(update={"form": Form.ALL, "tasks": tasks})
    folder = tmp_path / "all"
    folder.mkdir()
    write_bundle(folder, card, graph_of(model), tensors, model.backbone.tokenizer.to_str())
    add_tokenizer(folder)
    check(folder, questions(3))
    # each task's answer to one text, beside that of the task alone
    session, pair = Session(folder, engine="openvino"), ("Who sings?", "Ada sings.")
    text = Example("1", *pair, choices=("a", "b"), tokens=tuple(pair[0].split()))
    options = "--task", "all", pair[0], "--pair", pair[1], "--choices", *text.choices
    done = ask(folder, "--engine", "openvino", *options)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["task"] for one in found] == [card.name for card in CARDS] and not done.stderr
    for one, mine in zip(found, in_python(session, [Question(card.name, text, "") for card in CARDS]), strict=True):
        assert difference(mine, one) < 1e-4, one


def lines_in(folder: Path, *texts: str) -> Path:
    path = folder / "lines"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@small
@built
def test_the_form_packed_is_native_alone(bundle: Path, tmp_path: Path) -> None:
    if not has_operator("openvino"):
        pytest.skip("the operator was not compiled for OpenVINO")
    folder = with_forms(bundle, tmp_path / "b", "openvino", "native", form="packed")
    done = ask(folder, "--verbose", "--task", "demo-topic", "one row, without padding")
    assert done.stderr == "openvino, native: 1\n"


@small
@built
def test_a_graph_is_opened_when_it_pays(bundle: Path, tmp_path: Path) -> None:
    folder = with_forms(bundle, tmp_path / "b", "onnxruntime", "packed")
    card = read_card(folder)
    slow = Pace(opening=1e9, batch=1, piece=1)
    report = card.parity["onnxruntime"]
    dear = report.model_copy(update={"packed": report.packed.model_copy(update={"pace": slow})})
    write_model(folder / CARD, card.model_copy(update={"parity": {"onnxruntime": dear}}))
    done = ask(folder, "--verbose", "--task", "demo-topic", "--jsonl", lines_in(tmp_path, "w", 30 * "w "))
    assert done.stderr == "onnxruntime, padded: 1\n"


@small
@built
def test_what_was_missed_adds_up(bundle: Path, tmp_path: Path) -> None:
    """Lines are answered 512 at a time: what these would have saved twice pays for a graph, once does not."""
    folder = with_forms(bundle, tmp_path / "b", "onnxruntime", "packed")
    card = read_card(folder)
    report = card.parity["onnxruntime"]
    texts = [f"{number:04} " + number % 7 * "w " for number in range(3 * 512)]

    def opened_for(cost: float) -> Session:
        pace = Pace(opening=cost, batch=1, piece=1)
        dear = report.model_copy(update={"packed": report.packed.model_copy(update={"pace": pace})})
        write_model(folder / CARD, card.model_copy(update={"parity": {"onnxruntime": dear}}))
        session = Session(folder, engine="onnxruntime")
        for first in range(0, len(texts), 512):
            session.predict("demo-topic", [Example("", text) for text in texts[first : first + 512]])
        return session

    session = opened_for(opened_for(1e12)._missed / 2)
    assert session.batches["padded"] and session.batches["packed"]
    done = ask(folder, "--verbose", "--task", "demo-topic", "--jsonl", lines_in(tmp_path, *texts))
    counts = ", ".join(f"{form}: {session.batches[form]}" for form in ("padded", "packed"))
    assert done.stderr == f"onnxruntime, {counts}\n"


@small
@built
@pytest.mark.parametrize("takes", [{"onnxruntime": 2, "openvino": 3}, {"onnxruntime": 3, "openvino": 2}], ids=str)
def test_auto_is_what_was_fastest(takes: dict[str, float], bundle: Path, tmp_path: Path) -> None:
    card = read_card(with_forms(bundle, tmp_path / "b", "onnxruntime", "padded"))
    report = card.parity["onnxruntime"]
    parity = {engine: report.model_copy(update={"milliseconds": time}) for engine, time in takes.items()}
    write_model(tmp_path / "b" / CARD, card.model_copy(update={"parity": parity}))
    done = ask(tmp_path / "b", "--verbose", "--task", "demo-topic", "x")
    assert done.stderr == f"{min(takes, key=takes.__getitem__)}, padded: 1\n"


@small
@built
def test_batches_are_those_of_a_session(bundle: Path, tmp_path: Path) -> None:
    """Of rows whose lengths make it worth while to take every form."""
    engine = "onnxruntime"
    if not has_operator(engine):
        pytest.skip("the operator was not compiled for ONNX Runtime")
    folder = with_forms(bundle, tmp_path / "b", engine, "packed")
    card, draw = read_card(folder), np.random.default_rng(0)
    lengths = np.concatenate([draw.integers(1, 20, 150), draw.integers(1, 120, 60), np.full(40, 30)]).tolist()
    asked = [Question("demo-topic", Example(str(i), "w " * n), "") for i, n in enumerate(lengths)]
    lines = [{"task": q.task, "text": q.example.text} for q in asked]
    seen = set()
    for paces in (
        {"padded": Pace(batch=9, piece=1), "packed": Pace(batch=12, piece=1.1), "native": Pace(batch=9000, piece=9)},
        {"padded": Pace(batch=900, piece=1), "packed": Pace(batch=50, piece=1.5), "native": Pace(batch=700, piece=1)},
        {"padded": Pace(batch=300, piece=1), "packed": Pace(batch=200, piece=0.8, pair=1e-3), "native": PAIRS},
    ):
        parts = {form: card.parity[engine].packed.model_copy(update={"pace": pace}) for form, pace in paces.items()}
        report = parts.pop("padded").model_copy(update=parts)
        write_model(folder / CARD, card.model_copy(update={"parity": {engine: report}}))
        session = Session(folder, engine=engine)
        session.answer(asked)
        done = ask(folder, "--verbose", lines=lines)
        counts = [f"{form}: {session.batches[form]}" for form in paces if session.batches[form]]
        assert done.stderr == ", ".join([engine, *counts]) + "\n"
        seen |= set(session.batches)
    assert seen == {"padded", "packed", "native"}


def renamed(made: Path, folder: Path, labels: tuple[str, ...], decoding: str = "greedy") -> Path:
    """The same bundle with other tags, chosen in another way."""
    shutil.copytree(made, folder, copy_function=os.link)
    card = read_card(folder)
    cards = [one.model_copy(update={"labels": labels} if one.name == "demo-names" else {}) for one in CARDS]
    cards = decoded(cards, decoding)
    tasks = [task.model_copy(update={"card": one}) for task, one in zip(card.tasks, cards, strict=True)]
    write_model(folder / CARD, card.model_copy(update={"tasks": tasks}))
    return folder


@small
@built
@pytest.mark.parametrize(
    "labels",
    [
        ("O", "B-LOC", "I-LOC", "B-CUR", "I-CUR", "B-LANG", "I-LANG"),
        ("B-LOC", "I-LOC", "E-LOC", "S-LOC", "O", "B-CUR", "E-CUR"),
    ],
    ids=["BIO", "IOBES"],
)
def test_tags_that_can_stand_together(labels: tuple[str, ...], bundle: Path, tmp_path: Path) -> None:
    folder = renamed(bundle, tmp_path / "b", labels, "viterbi")
    asked = [q for q in questions(6) if q.task == "demo-names"]
    asked += [q._replace(example=replace(q.example, tokens=("\u200b", *9 * q.example.tokens))) for q in asked]
    check(folder, asked)
    greedy = Client(str(CLIENT), renamed(bundle, tmp_path / "greedy", labels))(asked, "--engine", "openvino")
    best = Client(str(CLIENT), folder)(asked, "--engine", "openvino")
    assert [one["prediction"] for one in greedy] != [one["prediction"] for one in best]


@small
@built
def test_tags_of_another_kind_are_refused(bundle: Path, tmp_path: Path) -> None:
    """Parts of speech, and spans that are ended and never begun."""
    folder = renamed(bundle, tmp_path / "b", CARDS[3].labels, "viterbi")
    card = json.loads((folder / CARD).read_text())
    for labels in (["NOUN", *"abcdef"], ["O", "I-A", "E-A", "I-B", "E-B", "I-C", "E-C"]):
        card["tasks"][3]["card"]["labels"] = labels
        (folder / CARD).write_text(json.dumps(card))
        assert "no BIO or IOBES tags" in ask(folder, "--task", "demo-topic", "x").stderr


@small
@built
def test_a_marked_word(bundle: Path, tmp_path: Path) -> None:
    """As semantic roles have it: the task asks about the word that is marked."""
    folder = renamed(bundle, tmp_path / "b", ("O", "B-V", "I-V", "B-A0", "I-A0", "B-A1", "I-A1"))
    asked = [q for q in questions(2) if q.task == "demo-names"]
    lasts = [len(q.example.tokens) - 1 for q in asked]
    check(folder, [
        q._replace(example=replace(q.example, marked=marked))
        for q, last in zip(asked, lasts, strict=True) for marked in (0, last)
    ])  # fmt: skip
    for marked, said in (
        (-1, "marked is -1"),
        (2, "marked is 2; it must be the number of a word, 0..1"),
        (None, "needs"),
    ):
        lines = [{"task": "demo-names", "tokens": ["a", "b"], "marked": marked}]
        done = ask(folder, "--engine", "openvino", lines=lines)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    done = ask(folder, "--engine", "openvino", lines=[{"task": "demo-topic", "text": "a", "marked": 0}])
    assert done.returncode == 2 and "does not ask about one word" in done.stderr


@small
@built
def test_what_languages_have_of_their_own(bundle: Path, tmp_path: Path) -> None:
    """Prompts, and thresholds of "no answer" that some answers and candidates reach and others do not."""
    asked = [q for q in questions(6) if q.task in ("demo-answers", "demo-topic", "demo-translation")]
    folder = shutil.copytree(bundle, tmp_path / "b", copy_function=os.link)
    card, before = read_card(folder), in_python(Session(bundle, engine="openvino"), asked)
    numbers = {task.card.name: task.task_id for task in card.tasks}
    scores: dict[tuple[str, bool], list[float]] = {}
    for question, found in zip(asked, before, strict=True):
        if question.task != "demo-topic":
            score = found["no_answer" if question.task == "demo-answers" else "cosine"]
            scores.setdefault((question.task, question.language == "de"), []).append(score)

    def own(task: BundledTask) -> BundledTask:
        name = task.card.name
        if name == "demo-topic":  # in the prompt, and by the head, of another task
            return task.model_copy(update={"languages": {"de": numbers["demo-choice"]}})
        if (name, True) not in scores:
            return task
        one, others = (float(np.mean(np.sort(scores[name, which])[2:4])) for which in (True, False))
        may = task.card.model_copy(update={"no_answer": True})
        return task.model_copy(update={"card": may, "threshold": others, "thresholds": {"de": one}})

    write_model(folder / CARD, card.model_copy(update={"tasks": [own(task) for task in card.tasks]}))
    check(folder, asked)
    found = Client(str(CLIENT), folder)(asked, "--engine", "openvino")
    for name in ("demo-answers", "demo-translation"):
        german = [
            one["prediction"] == "" for q, one in zip(asked, found, strict=True) if (q.task, q.language) == (name, "de")
        ]
        assert any(german) and not all(german), name


@small
@built
def test_all_tasks(bundle: Path) -> None:
    pair = "Who sings?", "--pair", "Ada sings."
    done = ask(bundle, "--engine", "openvino", "--task", "all", *pair, "--choices", "a", "b")
    found = {one["task"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert list(found) == [card.name for card in CARDS] and not done.stderr
    one = ask(bundle, "--engine", "openvino", "--task", "demo-answers", *pair)
    assert difference(found["demo-answers"], json.loads(one.stdout)) < 1e-5
    done = ask(bundle, "--engine", "openvino", "--task", "all", "Who sings?")
    assert "left out: task demo-answers needs text_pair" in done.stderr and done.returncode == 0
    assert 0 < len(done.stdout.splitlines()) < len(CARDS)


@built
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "demo-topik", "x"], "the bundle has no task 'demo-topik'"),
        (["x"], "--task: say which"),
        (["--task", "demo-choice", "x"], "task demo-choice needs choices"),
        (["--engine", "abacus", "--task", "demo-topic", "x"], "--engine abacus: unknown"),
        (["--engine", "onnxruntime", "--onnxruntime", __file__, "--task", "demo-topic", "x"], "cannot be opened as"),
        (["--no-packed=1", "x"], "--no-packed: takes no value"),
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
        copy = shutil.copytree(bundle, tmp_path / name, copy_function=os.link)
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
    copy = shutil.copytree(bundle, tmp_path / "outside", copy_function=os.link)
    (copy / CARD).unlink()
    for old, new, said in (
        ('"model.onnx"', '"../model.onnx"', "not a file in the bundle's folder"),
        ('"task_id": 0', '"task_id": 9', "does not know"),
        ('"version": 2', '"version": 1', "another version"),
        ("{", 100 * "[", "nested too deeply"),
    ):
        (copy / "bundle.json").write_text(card.replace(old, new, 1))
        assert said in (done := ask(copy, "--task", "demo-topic", "x")).stderr and done.returncode == 2, done.stderr


@pytest.mark.parametrize("bundle", ["minilm-l6-en"], indirect=True)
@built
def test_hashes_are_remembered_as_python_does(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    weights = bundle / "backbone.bin"
    os.utime(weights)
    status = weights.stat()
    note = tmp_path / "cache" / "hashes" / f"{status.st_dev}-{status.st_ino}"
    assert "abacus" in ask(bundle, "--engine", "abacus", "x").stderr  # hashes are computed before engines are looked at
    assert not note.exists() or time.time() - status.st_ctime > SETTLED, "it may be touched again unseen"
    time.sleep(max(0.0, status.st_ctime + SETTLED + 1 - time.time()))
    words = bundle, "--engine", "openvino", "--task", "demo-topic", "x"
    assert ask(*words).returncode == 0
    stamp, found = note.read_text().split("\n")
    note.unlink()
    assert known_sha256(weights) == found == read_card(bundle).files["backbone.bin"].sha256
    assert note.read_text() == f"{stamp}\n{found}"
    note.write_text(f"{stamp}\n{'0' * 64}")  # it is read
    assert "backbone.bin: damaged" in ask(*words).stderr
    note.write_text(f"1{stamp}\n{'0' * 64}")  # and not where the file is another one
    assert ask(*words).returncode == 0


@pytest.mark.parametrize("bundle", ["minilm-l6-en"], indirect=True)
@built
@pytest.mark.parametrize(
    ("place", "base"),
    [("off", "base"), ("here", "base"), ("~/there", ""), ("", "base"), ("", "~/base"), ("", "")],
)
def test_hashes_lie_where_python_has_them(
    place: str, base: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"POLYPROMPT_CACHE": place, "XDG_CACHE_HOME": base, "HOME": f"{tmp_path}/home"}.items():
        monkeypatch.setenv(name, value)
    found = [path.stat() for path in bundle.iterdir()]
    time.sleep(max(0.0, max(status.st_ctime for status in found) + SETTLED + 1 - time.time()))
    assert "abacus" in ask(bundle, "--engine", "abacus", "x").stderr
    folder, large = cache.folder(), [f"{one.st_dev}-{one.st_ino}" for one in found if one.st_size >= LARGE]
    assert large and (folder is None) == (place == "off")
    wanted = [] if folder is None else [tmp_path / folder / HASHES / name for name in large]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(wanted)


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
    both = Pieces(tokenizer)
    assert both.graph(texts) == both.library(texts)


def test_what_is_not_converted_is_named() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(PolypromptError, match="the pre-tokenizer Whitespace is not converted"):
        convert(tokenizer)
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(PolypromptError, match="the model BPE is not converted"):
        convert(tokenizer)
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Prepend("x")
    with pytest.raises(PolypromptError, match="the normalizer Prepend is not converted"):
        convert(tokenizer)
