"""Sessions against the PyTorch model, the check of an export, and the command that asks a bundle."""

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted

import exporters.session
from benchmarks.errors import PolypromptError
from benchmarks.records import Example, Split
from benchmarks.task import Kind
from exporters import predict
from exporters.session import Session
from exporters.verify import verify
from harness.device import find_device
from harness.evaluate import compute
from harness.evaluate import predict as torch_predict
from harness.features import TextEncoder

ROOT = Path(__file__).parents[1]


def words(seed: int, count: int) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(seed).integers(5, 60, count))


CANDIDATES = tuple(words(900 + number, 4) for number in range(9))


def examples(task: str, count: int = 12) -> list[Example]:
    """Rows of very different lengths; the longest need several windows."""
    rows = []
    for number in range(count):
        text = words(number, 1 + number**2 % 31)
        rows.append(
            {
                "mood": Example(f"{number}", text, words(50 + number, 3) if number % 2 else None),
                "degree": Example(f"{number}", text),
                "cause": Example(
                    f"{number}", text, choices=tuple(words(c + number, 1 + c) for c in range(2 + number % 3))
                ),
                "names": Example(f"{number}", tokens=tuple(words(number, 1 + 7 * number).split())),
                "question": Example(f"{number}", words(number, 4), f" {words(70 + number, 5 * number)}"),
                "pairs": Example(f"{number}", text, choices=CANDIDATES),
            }[task]
        )
    return rows


@pytest.fixture(scope="module")
def model():
    return tiny_prompted("bert")


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("session") / "bundle"
    tiny_bundle(folder, model)
    return folder


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return Session(bundle, threads=1)


@pytest.fixture(scope="module")
def encoder(model) -> TextEncoder:
    backbone = model.backbone
    return TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)


@pytest.fixture
def reference(model):
    return partial(compute, model, device=find_device("fp32", cpu=True))


def same(found, wanted) -> None:
    assert [(row.id, row.value if not isinstance(row.value, float) else None) for row in found] == [
        (row.id, row.value if not isinstance(row.value, float) else None) for row in wanted
    ]
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine.scores, other.scores, atol=1e-4)
        if isinstance(mine.value, float):
            assert mine.value == pytest.approx(other.value, abs=1e-4)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_predictions_equal_those_of_the_model(card, session, model, encoder) -> None:
    split = Split(tuple(examples(card.name)), CANDIDATES)
    same(
        session.predict(card.name, split.examples),
        torch_predict(model, encoder, card, split, find_device("fp32", cpu=True)),
    )


def test_mixed_tasks_come_back_in_order(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(card.name, example) for row in zip(*(examples(c.name) for c in CARDS), strict=True)
             for card, example in zip(CARDS, row, strict=True)]  # fmt: skip
    alone = [session.predict(task, [example])[0] for task, example in pairs]
    same(session.predict_mixed(pairs), alone)
    monkeypatch.setattr(session, "_most", 50)
    same(session.predict_mixed(pairs), alone)


def test_the_same_pieces_of_other_types_are_another_row(session: Session, model, encoder) -> None:
    """A text may hold the mark that stands between two."""
    rows = [Example("1", "w7 [SEP] w8"), Example("2", "w7", "w8")]
    ids = [row.input_ids.tolist() for row in encoder.features(CARDS[0], rows)]
    assert ids[0] == ids[1]
    one, pair = session.predict("mood", rows)
    assert max(np.abs(np.subtract(one.scores, pair.scores))) > 1e-3
    same([one, pair], torch_predict(model, encoder, CARDS[0], Split(tuple(rows)), find_device("fp32", cpu=True)))


def test_no_examples(session: Session) -> None:
    assert session.predict("mood", []) == []


def test_candidates_may_differ_from_row_to_row(session: Session) -> None:
    rows = examples("pairs")
    moved = [Example(row.id, row.text, choices=row.choices[i:] + row.choices[:i]) for i, row in enumerate(rows)]
    texts = [row.choices[int(found.value)] for row, found in zip(rows, session.predict("pairs", rows), strict=True)]
    others = [row.choices[int(found.value)] for row, found in zip(moved, session.predict("pairs", moved), strict=True)]
    assert texts == others


def test_embeddings_are_unit_vectors_of_the_retrieval_task(session, model, encoder, reference) -> None:
    card = CARDS[-1]
    wanted = reference(card, encoder.features(card, [Example("", text) for text in CANDIDATES]))
    found = session.embed(CANDIDATES)
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert session.embed([]).shape == (0, model.backbone.hidden)


def test_embeddings_need_a_retrieval_task(session: Session) -> None:
    with pytest.raises(PolypromptError, match="retrieval tasks; in this bundle: pairs"):
        session.embed(["w7"], "mood")


def test_spans_are_places_of_the_answers(session: Session) -> None:
    rows = examples("question")
    answers = session.answer([("question", row) for row in rows])
    assert any(answer.span for answer in answers)
    for row, answer in zip(rows, answers, strict=True):
        if answer.span is not None:
            start, end = answer.span
            assert row.text_pair[start:end] == answer.prediction.value != ""


def test_a_span_is_reported_without_white_space_at_its_ends() -> None:
    context = "ab  Lake Sevan\u3000 cd"
    start, end = exporters.session._stripped(context, (2, len(context) - 2))
    assert context[start:end] == "Lake Sevan"


def test_an_unknown_task_gets_a_proposal(session: Session) -> None:
    with pytest.raises(PolypromptError, match="did you mean mood"):
        session.predict("moods", [Example("1", "w7")])


@pytest.mark.parametrize("card", [c for c in CARDS if c.kind not in (Kind.CLASSIFICATION, Kind.REGRESSION)], ids=str)
def test_an_example_without_what_its_task_reads(session: Session, card) -> None:
    with pytest.raises(PolypromptError, match=f"task {card.name} .* needs"):
        session.predict(card.name, [Example("1", "w7")])


@pytest.mark.parametrize("provider", ["cuda", "abacus"])
def test_a_provider_that_is_not_there(bundle: Path, provider: str) -> None:
    if provider == "cuda" and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(PolypromptError, match=f"--provider {provider}"):
        Session(bundle, provider=provider)


def test_torch_is_not_needed(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from exporters.session import Session; import exporters.predict\n"
        "from benchmarks.records import Example\n"
        "print(Session(Path(sys.argv[1])).predict('mood', [Example('1', 'w7 w8')])[0].value)\n"
        "print([name for name in ('torch', 'transformers', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    value, loaded = done.stdout.splitlines()
    assert value in CARDS[0].labels
    assert loaded == "[]"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_wrong_export_is_refused(card, session: Session, reference) -> None:
    def other(task, features, language):
        return [output + (0.01 if task == card else 0) for output in reference(task, features, language=language)]

    samples = {name: {"en": examples(name)} for name in session.tasks}
    report = verify(session, reference, samples, 1e-4)
    assert report.difference == max(task.difference for task in report.tasks.values()) < 1e-4
    assert all(task.agreement == 1 for task in report.tasks.values())
    with pytest.raises(PolypromptError, match=f"on task {card.name}, more than --atol 0.0001"):
        verify(session, other, samples, 1e-4)
    assert verify(session, other, samples, 0.02).difference == pytest.approx(0.01, abs=1e-4)


def test_values_that_are_not_numbers_are_refused(session: Session, reference) -> None:
    def broken(task, features, language):
        return [
            output * np.nan if i == 1 else output
            for i, output in enumerate(reference(task, features, language=language))
        ]

    with pytest.raises(PolypromptError, match="differs"):
        verify(session, broken, {"mood": {"en": examples("mood")}}, 1e-4)


def test_agreement_counts_equal_predictions(session: Session, reference) -> None:
    def turned(task, features, language):  # the largest of three logits moves to another label
        return [
            np.roll(output, 1) if i == 1 else output
            for i, output in enumerate(reference(task, features, language=language))
        ]

    rows = [Example(str(i), words(i, 5)) for i in range(8)]
    assert verify(session, turned, {"mood": {"en": rows}}, 1e6).tasks["mood"].agreement == 7 / 8


def ask(bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["predict", str(bundle), *arguments])
    assert predict.main() == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "arguments", "example"),
    [
        ("mood", ["w7 w8"], Example("1", "w7 w8")),
        ("mood", ["w7 w8", "--pair", "w9"], Example("1", "w7 w8", "w9")),
        ("degree", ["w7 w8"], Example("1", "w7 w8")),
        ("cause", ["w7", "--choices", "w8 w9", "w10"], Example("1", "w7", choices=("w8 w9", "w10"))),
        ("names", ["w7 w8"], Example("1", tokens=("w7", "w8"))),
        ("names", ["--tokens", '["w7", "w8"]'], Example("1", tokens=("w7", "w8"))),
        ("question", ["w7 w8", "--pair", "w9 w10 w11"], Example("1", "w7 w8", "w9 w10 w11")),
        ("pairs", ["w7", "--choices", *CANDIDATES], Example("1", "w7", choices=CANDIDATES)),
    ],
)
def test_one_question(task, arguments, example, bundle, session, capsys, monkeypatch) -> None:
    wanted = session.predict(task, [example])[0]
    out = ask(bundle, capsys, monkeypatch, "--task", task, "--json", *arguments)
    found = json.loads(out)
    assert found["task"] == task
    value = list(wanted.value) if isinstance(wanted.value, tuple) else wanted.value
    assert found["prediction"] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)
    text = ask(bundle, capsys, monkeypatch, "--task", task, *arguments)
    shown = {
        "degree": f"{wanted.value:.4f}" if task == "degree" else "",
        "cause": example.choices[int(wanted.value)] if task == "cause" else "",
        "pairs": example.choices[int(wanted.value)] if task == "pairs" else "",
        "names": wanted.value[-1] if task == "names" else "",
    }.get(task, str(wanted.value))
    assert shown in text
    if task == "mood":
        assert found["scores"] == pytest.approx(dict(zip(CARDS[0].labels, wanted.scores, strict=True)), abs=1e-5)
        assert f"{max(wanted.scores):.4f}" in text


def lines(session: Session, text: bytes, task: str | None = None) -> list[dict]:
    return list(predict.answer_lines(session, io.BytesIO(text), "in.jsonl", task))


def test_json_lines_of_several_tasks(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "LINES", 2)
    asked = [
        {"task": "mood", "text": "w7 w8", "id": "a"},
        {"task": "names", "tokens": ["w7", "w8", "w9"]},
        {"text": "w7"},
        {"task": "question", "text": "w7", "text_pair": "w8 w9"},
    ]
    text = "\n\n".join(json.dumps(line) for line in asked).encode()
    found = lines(session, text, "mood")
    assert [(row["id"], row["task"]) for row in found] == [
        ("a", "mood"),
        ("3", "names"),
        ("5", "mood"),
        ("7", "question"),
    ]
    assert found[0]["prediction"] == session.predict("mood", [Example("a", "w7 w8")])[0].value
    assert len(found[1]["prediction"]) == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"task": "mood", "txet": "w7"}', "unknown field 'txet'"),
        (b'{"task": "mood"}', "needs text"),
        (b'{"task": "mood", "text": 7}', "text: "),
        (b'{"task": "mood", "text": "\\ud800"}', "surrogate"),
        (b'{"task": "modo", "text": "w7"}', "did you mean mood"),
        (b'{"text": "w7"}', "names no task"),
        (b'{"task": "question", "text": "w7"}', "needs text_pair"),
        (b'{"task": "names", "text": "w7"}', "needs tokens"),
    ],
)
def test_a_bad_line_is_named_after_the_answers_before_it(session: Session, bad: bytes, reason: str) -> None:
    good = b'{"task": "mood", "text": "w7"}\n'
    source = io.BytesIO(good * 2 + bad + b"\n" + good)
    answers = predict.answer_lines(session, source, "in.jsonl", None)
    assert next(answers)["id"] == "1"
    assert next(answers)["id"] == "2"
    with pytest.raises(PolypromptError, match=r"^in\.jsonl:3: ") as error:
        next(answers)
    assert reason in str(error.value)


def test_the_answer_to_an_empty_context_is_valid_json(session: Session) -> None:
    found = lines(session, b'{"task": "question", "text": "w7", "text_pair": ""}')[0]
    assert found["prediction"] == ""
    assert found["start"] is None
    json.dumps(found, allow_nan=False)
