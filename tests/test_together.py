"""One pass for all tasks of one prompt, against the mixed graph."""

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import CARDS, tiny_bundle, tiny_manifest, tiny_prompted
from test_export import make_run
from test_session import ask, examples

from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from exporters import predict
from exporters.add import add
from exporters.bundle import Form, write_bundle
from exporters.export import describe, export, graph_of, tensors_of
from exporters.remove import remove
from exporters.session import Question, Session
from exporters.together import side_by_side
from harness.features import TextEncoder
from harness.model import PromptedModel
from harness.sharing import BARE, PromptBank

TEXT = "w7 w8 w9 w10"


def shared_prompt(**settings: object) -> PromptedModel:
    model = tiny_prompted("bert", **settings)
    if model.prompt is not None:
        model.prompt = PromptBank(model.prompt.bank[:1].clone(), {"": 0}, model.prompt.placement)
    return model


def all_at_once(folder: Path, model: PromptedModel) -> Session:
    card = describe(model, tiny_manifest(model, CARDS))
    tasks, tensors = side_by_side(card.tasks, tensors_of(model, CARDS))
    card = card.model_copy(update={"form": Form.ALL, "tasks": tasks})
    folder.mkdir()
    write_bundle(folder, card, graph_of(model), tensors, model.backbone.tokenizer.to_str())
    return Session(folder, threads=1)


class Counted:
    """A runtime that counts the rows it is given."""

    def __init__(self, runtime: object) -> None:
        self.runtime, self.batches = runtime, []

    def run(self, names: list[str], feeds: dict) -> list[np.ndarray]:
        self.batches.append({name: len(feeds[name]) for name in ("input_ids", "whole_rows")})
        return self.runtime.run(names, feeds)


@pytest.mark.parametrize(
    "settings", [{}, {"pooling": "mean"}, {"layers": None}, {"layers": ()}, {"layers": (1,), "gated": True}]
)
def test_all_at_once_is_as_in_the_mixed_graph(settings: dict, tmp_path: Path) -> None:
    model = shared_prompt(**settings)
    tiny_bundle(tmp_path / "mixed", model)
    mixed, together = Session(tmp_path / "mixed", threads=1), all_at_once(tmp_path / "all", model)
    rows = {(card.name, ""): examples(card.name) for card in CARDS}
    wanted, found = mixed.run(rows), together.run(rows)
    for place, encoded in wanted.items():
        for mine, other in zip(found[place].outputs, encoded.outputs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5, err_msg=place[0])


def test_one_text_is_one_row(tmp_path: Path) -> None:
    session = all_at_once(tmp_path / "all", shared_prompt())
    session._engines["padded"] = counted = Counted(session._engine)
    asked = [Question(name, Example("1", TEXT, tokens=tuple(TEXT.split()))) for name in ("mood", "degree", "names")]
    session.answer(asked)
    assert counted.batches == [{"input_ids": 1, "whole_rows": 1}]


@pytest.mark.parametrize("form", ["mixed", "all"])
def test_equal_questions_share_a_row(form: str, tmp_path: Path) -> None:
    model = shared_prompt()
    tiny_bundle(tmp_path / "mixed", model)
    session = Session(tmp_path / "mixed", threads=1) if form == "mixed" else all_at_once(tmp_path / "all", model)
    session._engines["padded"] = counted = Counted(session._engine)
    rows = [Example("1", TEXT), Example("2", "w7"), Example("3", TEXT)]
    found = session.predict("mood", rows)
    assert [row.id for row in found] == ["1", "2", "3"]
    assert found[0].scores == found[2].scores != found[1].scores
    assert [batch["input_ids"] for batch in counted.batches] == [2]


def test_a_text_is_cut_into_pieces_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tasks that read alike; what a task reads in its own way, or another text, is cut apart."""
    session, read = all_at_once(tmp_path / "all", shared_prompt()), []
    features = TextEncoder.features
    monkeypatch.setattr(
        TextEncoder, "features", lambda self, card, e: read.append(card.name) or features(self, card, e)
    )
    text, other = (Example("1", words, tokens=tuple(words.split())) for words in (TEXT, "w7"))
    alone = [session.predict(name, [text])[0] for name in ("mood", "degree", "names")]
    read.clear()
    assert session.predict_mixed([(name, text) for name in ("mood", "degree", "names")]) == alone
    assert read == ["mood", "names"]
    read.clear()
    session.predict_mixed([("mood", text), ("degree", other)])
    assert read == ["mood", "degree"]
    short = session.tasks["degree"].model_copy(update={"max_length": 5})
    session._tasks["degree"] = session._tasks["degree"].model_copy(update={"card": short})
    read.clear()
    cut = session.run({("mood", ""): [text], ("degree", ""): [text]})
    assert [len(encoded.features[0]) for encoded in cut.values()] == [6, 5]


def test_prompts_of_their_own_are_refused(tmp_path: Path) -> None:
    model = tiny_prompted("bert")
    card = describe(model, tiny_manifest(model, CARDS))
    with pytest.raises(PolypromptError, match="--form all: tasks mood and degree have prompts of their own; use"):
        side_by_side(card.tasks, tensors_of(model, CARDS))


def test_a_task_without_a_prompt_beside_others_is_refused(tmp_path: Path) -> None:
    model = tiny_prompted("bert")
    model.prompt = PromptBank(model.prompt.bank[:1].clone(), {"": 0, "degree": BARE}, model.prompt.placement)
    card = describe(model, tiny_manifest(model, CARDS))
    with pytest.raises(PolypromptError, match="--form all: task degree has no prompt and others do; it would share"):
        side_by_side(card.tasks, tensors_of(model, CARDS))


def test_the_command(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "ptuning-v2")
    with pytest.raises(PolypromptError, match="--form all: tasks demo-topic and demo-count have prompts"):
        export(run, tmp_path / "all", rows=1, form=Form.ALL)
    bank = PromptBank.read(run)
    PromptBank(bank.bank[:1].clone(), {"": 0}, bank.placement).write(run)
    card = export(run, tmp_path / "all", atol=1e-4, rows=2, form=Form.ALL)
    assert max(part.difference for part in card.parity["onnxruntime"].tasks.values()) < 1e-4
    out = ask(tmp_path / "all", capsys, monkeypatch, "--task", predict.ALL, "--json", TEXT)
    assert [json.loads(line)["task"] for line in out.splitlines()] == ["demo-topic", "demo-count", "demo-names"]
    for change in (lambda: add(tmp_path / "all", run), lambda: remove(tmp_path / "all", ["demo-topic"])):
        with pytest.raises(PolypromptError, match="of the form all, whose tasks stay as they are"):
            change()
