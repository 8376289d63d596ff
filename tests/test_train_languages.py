"""Training in several languages: what is trained on, the parts of languages, and the same answers everywhere."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer

from benchmarks.data import load
from benchmarks.errors import PolypromptError
from benchmarks.registry import find_task
from benchmarks.results import Manifest, read_model, read_predictions, write_model
from benchmarks.scoring import score
from benchmarks.task import Kind
from exporters import predict
from exporters.bundle import open_bundle
from exporters.export import export
from exporters.session import Question, Session
from harness import learn, run
from harness.backbone import Backbone
from harness.config import RunConfig, load_config
from harness.data import load_evaluation, load_rows
from harness.device import find_device
from harness.execute import execute
from harness.features import TextEncoder, pad
from harness.initial import make_model
from harness.methods import find_method
from harness.screen import Screen
from harness.sharing import LowRank, PromptBank
from harness.train import encode_training, train

TRAINED = ("demo-topic", "demo-count", "demo-choice", "demo-names", "demo-answers")
LANGUAGES = ["en", "de", "zh"]


def config_of(**settings) -> RunConfig:
    given = {"suite": ["demo"], "languages": LANGUAGES, "train_languages": ["de", "en"], "max_train": 24, "max_eval": 9}
    return RunConfig(**given | {"batch": 6, "prompt_length": 3, "sharing": "low-rank", "precision": "fp32"} | settings)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_of_each_language_come_from_its_own_training_split():
    rows, hashes, notes = load_rows(config_of())
    assert [row.task.name for row in rows if row.train] == list(TRAINED)
    for row in rows[:-1]:
        assert list(row.train) == ["en", "de"], "its usual language first"
        for language, split in row.train.items():
            official = {example.id: example for example in load(row.task, "train", language, None).examples}
            held = row.selecting[language].examples
            assert (len(split.examples), len(held)) == (24, 2)
            assert all(official[example.id] == example for example in (*split.examples, *held))
            assert not {example.id for example in split.examples} & {example.id for example in held}
        translated = [[example.id for example in row.train[language].examples] for language in row.train]
        assert translated[0] == translated[1], "what is held out in one language is not trained on in another"
    assert not rows[-1].train and not rows[-1].selecting
    assert notes == []
    assert {name.split(".", 1)[1] for name in hashes if "demo-topic" in name} == {
        "train.en", "train.de", "test.en", "test.de", "test.zh",
    }  # fmt: skip


def test_a_threshold_is_chosen_in_each_trained_language():
    rows, _, _ = load_rows(config_of(tasks=["demo-answers"]))
    assert {code: len(split.examples) for code, split in rows[0].tuning.items()} == {"en": 80, "de": 80}
    usual, _, _ = load_rows(config_of(tasks=["demo-answers"], train_languages=[]))
    assert list(usual[0].tuning) == list(usual[0].train) == list(usual[0].selecting) == ["en"]


def put(folder: Path, suite: str, name: str, codes: str) -> None:
    for code in codes.split():
        path = folder / suite.format(code)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name.replace("{}", code), encoding="utf-8")


@pytest.fixture
def xtreme(tmp_path: Path) -> Path:
    """Parts of speech in three languages, two of them to train on; English pairs."""
    put(tmp_path, "xtreme/download/udpos/train-{}.tsv", "{}\tNOUN\n\nruns\tVERB\n\n", "en de")
    put(tmp_path, "xtreme/download/udpos/test-{}.tsv", "{}\tNOUN\n\n", "en de th")
    put(tmp_path, "xtreme/download/xnli/train-{}.tsv", "{}\tb\tneutral\n", "en")
    put(tmp_path, "xtreme/download/xnli/test-{}.tsv", "{}\tb\n", "de")
    put(tmp_path, "xtreme/gold/xnli_test_labels.txt", "neutral\n", "en")
    return tmp_path


def test_what_a_task_cannot_be_trained_in_is_said_and_left_out(xtreme: Path):
    def loaded(*codes: str, tasks: tuple[str, ...] = ("udpos", "xnli"), skip: bool = True):
        settings = {"suite": ["xtreme"], "tasks": list(tasks), "languages": ["de", "th"], "data_dir": xtreme}
        return load_rows(
            RunConfig(**settings, train_languages=list(codes), selection="last", skip_missing=skip, max_eval=1)
        )

    rows, hashes, notes = loaded("en", "de")
    assert {row.task.name: list(row.train) for row in rows} == {"xnli": ["en"], "udpos": ["en", "de"]}
    assert "xnli: has no training split in de" in notes
    assert "xtreme/download/udpos/train-de.tsv" in hashes
    rows, _, notes = loaded("de")
    assert [row.task.name for row in rows] == ["udpos"]
    assert rows[0].task.card.train_language == "de", "English is zero-shot then"
    assert "xnli: has no training split in de" in notes
    rows, _, notes = loaded("all", tasks=("udpos",))
    assert list(rows[0].train) == ["en", "de"]
    assert len([note for note in notes if ", train, " in note]) == 27, "29 languages have training files"
    with pytest.raises(
        PolypromptError, match=r"--train-languages th: no chosen task has a training split in it.* af, "
    ):
        loaded("th", "en")
    with pytest.raises(PolypromptError, match=r"--train-languages en: no chosen task .* none is trained"):
        loaded("en", tasks=("tatoeba",))
    with pytest.raises(PolypromptError, match=r"udpos, train, fr: no such file: .*train-fr\.tsv"):
        loaded("en", "fr", tasks=("udpos",), skip=False)


def test_max_train_and_shots_count_by_language():
    for more in ({"max_train": 10}, {"max_train": None, "shots": 8}):
        rows, _, _ = load_rows(config_of(tasks=["demo-topic"], **more))
        assert [len(split.examples) for split in rows[0].train.values()] == [more.get("shots", 10)] * 2


# --- training -------------------------------------------------------------------------------------------------------


def prepared(folder: Path, tasks=("demo-topic", "demo-names"), **settings):
    """A model before its first step, its rows, and what trains it."""
    config = config_of(tasks=list(tasks), max_steps=16, epochs=9, **settings)
    rows, _, _ = load_rows(config)
    backbone = Backbone("tiny", tiny_model("bert"), tiny_tokenizer("bert"))
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    training = encode_training(rows, encoder, config.batch, config.seed)
    method, device = find_method("ptuning-v2"), find_device("fp32")
    model = make_model(config, method, backbone, rows, training)

    def go(**more):
        return train(model, training, config, method, device, folder / "c", "id", Screen(True), **more)

    return model, training, go


def batch_of(task, number: int):
    rows = [task.features[row] for unit in task.batches.rows(number) for row in unit]
    padded = pad(rows, 0)
    return [torch.from_numpy(part) for part in (padded.input_ids, padded.lengths, padded.type_ids)]


@pytest.mark.parametrize("task", ["demo-topic", "demo-names"])
def test_logits_are_those_of_shared_and_task_and_language_part(task: str, tmp_path: Path):
    """transformers computes the same from keys and values that are added up here, number by number."""
    model, training, go = prepared(tmp_path)
    go()
    prompts, bank = model.prompt, model.prompt.fold(model.tasks)
    model.eval()
    encoder = tiny_model("bert")
    parts = dict(prompts.languages.items())
    assert sorted(parts) == ["de", "en"]
    for language in ("en", "de", "zh"):
        own = [dict(prompts.tasks.items())[task], *([parts[language]] if language in parts else [])]
        summed = prompts.shared.slots.detach().clone()  # [layer, 2, head, slot, head_dim]
        for part in own:
            assert part.states.abs().max() > 0, "it was trained"
            for slot in range(3):
                flat = sum(part.slots[slot, r] * part.states[r] for r in range(part.slots.shape[1]))
                summed[:, :, :, slot] += flat.detach().view(3, 2, 4, 8)
        source = next(rows for rows in training if rows.task.name == task)
        ids, lengths, types = batch_of(source, 0)
        card = source.task.card
        ours = model.outputs(card, ids, lengths, types, language).detach()
        model.prompt = bank
        torch.testing.assert_close(model.outputs(card, ids, lengths, types, language), ours, rtol=0, atol=1e-6)
        model.prompt = prompts
        for row, length in enumerate(lengths.tolist()):
            states = by_hand(encoder, summed, ids[row, :length], types[row, :length])
            head = model.heads[task]
            if card.kind is Kind.TAGGING:
                expected, got = states @ head.weight.T + head.bias, ours[row, :length]
            else:
                expected, got = states[0] @ head.weight.T + head.bias, ours[row]
            torch.testing.assert_close(got, expected.detach(), rtol=0, atol=1e-4)


def by_hand(encoder, prefix: torch.Tensor, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """BERT with keys and values in front, written out for one row: its last states, [seq, hidden]."""
    states = encoder.embeddings(ids[None], types[None])[0]
    for number, layer in enumerate(encoder.encoder.layer):
        attention, mixed = layer.attention.self, []
        query, key, value = (f(states).view(-1, 4, 8) for f in (attention.query, attention.key, attention.value))
        for head in range(4):
            keys = torch.cat([prefix[number, 0, head], key[:, head]])
            values = torch.cat([prefix[number, 1, head], value[:, head]])
            weights = (query[:, head] @ keys.T / 8**0.5).softmax(-1)
            mixed.append(weights @ values)
        attended = layer.attention.output.dense(torch.cat(mixed, -1))
        states = layer.attention.output.LayerNorm(attended + states)
        inner = torch.nn.functional.gelu(layer.intermediate.dense(states))
        states = layer.output.LayerNorm(layer.output.dense(inner) + states)
    return states


def test_a_step_trains_the_parts_of_its_task_and_language_alone(tmp_path: Path):
    model, training, go = prepared(tmp_path)
    assert [(rows.task.name, rows.language) for rows in training] == [
        ("demo-topic", "en"), ("demo-topic", "de"), ("demo-names", "en"), ("demo-names", "de"),
    ]  # fmt: skip
    assert len({tuple(rows.batches.seed) for rows in training}) == 4, "each in an order of its own"
    parts = {name: part for name, part in model.named_modules() if isinstance(part, LowRank)}
    assert len(parts) == 4
    assert all(not part.states.any() for part in parts.values()), "parts begin at zero"
    seen: set[frozenset[str]] = set()
    for rows in training:
        model.zero_grad()
        model.outputs(rows.task.card, *batch_of(rows, 0), rows.language).sum().backward()
        touched = {name.rpartition(".")[2] for name, part in parts.items() if part.states.grad is not None}
        assert len(touched) == 2
        seen.add(frozenset(touched))
    assert len(seen) == 4
    go()
    assert all(part.states.any() for part in parts.values())
    assert len(model.heads) == 2, "one head a task"


@pytest.mark.parametrize("sharing", ["shared", "separate", "low-rank"])
def test_language_parts_are_of_low_rank_over_several_languages_alone(sharing: str, tmp_path: Path):
    model, training, _ = prepared(tmp_path, sharing=sharing)
    assert len(training) == 4
    assert len(model.prompt.tasks) == (0 if sharing == "shared" else 2)
    assert len(model.prompt.languages) == (2 if sharing == "low-rank" else 0)
    alone, training, _ = prepared(tmp_path, sharing=sharing, train_languages=["de"])
    assert [rows.language for rows in training] == ["de", "de"]
    assert not len(alone.prompt.languages)


def test_a_broken_off_training_ends_with_the_same_weights(tmp_path: Path):
    class Died(Exception):
        pass

    whole, _, go = prepared(tmp_path / "whole")
    go()
    _, _, go = prepared(tmp_path / "parts", checkpoint_seconds=1e-9)

    def die(step: int) -> None:
        if step == 7:
            raise Died

    with pytest.raises(Died):
        go(on_step=die)
    second, _, go = prepared(tmp_path / "parts")
    progress = go()
    assert (progress.step, progress.interruptions) == (16, 1)
    for (name, expected), (_, got) in zip(whole.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(expected, got), name


def test_micro_batches_leave_the_result_alone(tmp_path: Path):
    results = []
    for size in (None, 2):
        model, _, go = prepared(tmp_path / str(size), micro_batch=size)
        go()
        results.append([weight.detach() for weight in model.parameters() if weight.requires_grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_selection_is_the_mean_over_tasks_of_the_mean_over_their_languages(monkeypatch):
    """A task in three languages counts as much as one in a single language."""
    rows, _, _ = load_rows(config_of(tasks=["demo-topic", "demo-names"], train_languages=["en", "de", "es"]))
    rows[1] = replace(rows[1], selecting={"es": rows[1].selecting["es"]})
    points = {("demo-topic", "en"): 10.0, ("demo-topic", "de"): 20.0, ("demo-topic", "es"): 60.0}
    points["demo-names", "es"] = 90.0
    monkeypatch.setattr(learn, "predict", lambda model, encoder, card, split, device, language, trunk: [])
    monkeypatch.setattr(learn, "score", lambda card, predictions, language: {"main": points[card.name, language]})
    assert learn.validation_score(None, rows, None, find_device("fp32")) == pytest.approx((30 + 90) / 2)


# --- a run and its export -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(backbone: Path, tmp_path_factory) -> Path:
    """A run of every kind of task, trained in two languages, and its bundle. Parts are far from zero."""
    out = tmp_path_factory.mktemp("languages")
    settings = {
        "backbone": str(backbone),
        "max_steps": 30,
        "epochs": 99,
        "learning_rate": [0.1],
        "out": out,
        "name": "x",
        "retrieval_prompt": True,
    }
    execute(config_of(**settings), False, Screen(True))
    export(out / "x", out / "x" / "export", atol=1e-4, rows=12)
    return out / "x"


def test_the_manifest_says_what_was_trained_in(finished: Path):
    manifest = read_model(finished / "manifest.json", Manifest)
    assert manifest.trained == {name: ["en", "de"] for name in TRAINED}
    assert manifest.selection.rows == dict.fromkeys(TRAINED, 4)
    assert "--train-languages de,en" in manifest.command
    assert list(manifest.thresholds["demo-answers"]) == ["en", "de"]


def test_stored_predictions_are_those_of_the_exported_graph(finished: Path):
    """In each language with the prompt that it was evaluated with, and with no other."""
    session, config = (
        Session(finished / "export", threads=1, engine="onnxruntime"),
        load_config(finished / "config.toml"),
    )
    others = {"en": "de", "de": "en", "zh": "en"}
    changed = set()
    for card in session.tasks.values():
        for language in LANGUAGES:
            if language not in card.languages:
                continue
            split = load_evaluation(config, find_task(card.name), language)
            stored = read_predictions(finished / "predictions" / f"{card.name}.{language}.test.jsonl.gz")
            examples = [replace(row, choices=split.candidates) if split.candidates else row for row in split.examples]
            answers = session.predict(card.name, examples, language=language)
            if card.kind is Kind.REGRESSION:
                np.testing.assert_allclose([a.value for a in answers], [row.value for row in stored], atol=1e-4)
            elif card.kind is not Kind.RETRIEVAL:  # there most candidates read alike, so that rounding chooses
                assert [answer.value for answer in answers] == [row.value for row in stored], (card.name, language)
            for answer, row in zip(answers, stored, strict=True):
                np.testing.assert_allclose(answer.scores, row.scores, atol=1e-4)
            wrong = session.predict(card.name, examples, language=others[language])
            if any(not np.allclose(a.scores, b.scores, atol=1e-3) for a, b in zip(wrong, answers, strict=True)):
                changed.add((card.name, language))
            unknown = session.predict(card.name, examples, language="xx")
            assert unknown == session.predict(card.name, examples)
            assert (unknown == answers) is (language == "zh")
    assert {("demo-topic", "en"), ("demo-names", "de"), ("demo-topic", "zh")} <= changed


def test_questions_of_several_languages_share_batches(finished: Path):
    session = Session(finished / "export", threads=1, engine="onnxruntime")
    rows = load(find_task("demo-topic"), "test", "en", None).examples[:6]
    asked = [
        Question("demo-topic", row, code) for row, code in zip(rows, ["en", "de", "", "de", "fr", "en"], strict=True)
    ]
    together = session.predict_mixed(asked)
    for question, answer in zip(asked, together, strict=True):
        alone = session.predict("demo-topic", [question.example], language=question.language)[0]
        np.testing.assert_allclose(answer.scores, alone.scores, atol=1e-5)
    assert session.predict_mixed([("demo-topic", rows[2])])[0].value == together[2].value


def test_languages_of_a_bundle_are_entries_behind_the_tasks(finished: Path):
    card = open_bundle(finished / "export")
    assert [task.task_id for task in card.tasks] == list(range(6))
    ids = [number for task in card.tasks for number in task.languages.values()]
    assert ids == list(range(6, 18))
    assert all(list(task.languages) == ["en", "de"] for task in card.tasks)
    parity = card.parity["onnxruntime"].tasks["demo-names"]
    assert (parity.languages, parity.examples, parity.agreement) == (LANGUAGES, 12, 1)


def test_verification_compares_each_language_with_its_own_prompt(finished: Path, tmp_path: Path, monkeypatch):
    """A graph whose languages are mixed up is refused."""
    right = PromptBank.by_language

    def mixed_up(self, task):
        rows = right(self, task)
        return dict(zip(rows, reversed(rows.values()), strict=True))

    monkeypatch.setattr(PromptBank, "by_language", mixed_up)
    with pytest.raises(PolypromptError, match="differs from the original"):
        export(finished, tmp_path / "bundle", rows=12)


def test_the_command_takes_a_language(finished: Path, command):
    text = load(find_task("demo-topic"), "test", "de", None).examples[0].text
    session = Session(finished / "export", threads=1, engine="onnxruntime")
    found = {}
    for code in ("de", "en"):
        status, output, error = command(predict, finished, "--task", "demo-topic", "--language", code, "--json", text)
        assert status == 0, error
        found[code] = json.loads(output)["scores"]
        example = replace(load(find_task("demo-topic"), "test", "de", None).examples[0], id="1")
        expected = session.predict("demo-topic", [example], language=code)[0].scores
        assert list(found[code].values()) == pytest.approx(list(expected), abs=1e-5)
    assert found["de"] != found["en"]
    lines = (json.dumps({"text": text, "language": "en"}) + "\n" + json.dumps({"text": text})).encode()
    answers = list(predict.answer_lines(session, io.BytesIO(lines), "in", "demo-topic", "de"))
    assert [answer["scores"] for answer in answers] == [pytest.approx(found[code], abs=1e-5) for code in ("en", "de")]
    with pytest.raises(PolypromptError, match="in:1: language: 7 is no code"):
        list(predict.answer_lines(session, io.BytesIO(b'{"text": "x", "language": 7}'), "in", "demo-topic"))


def test_each_language_has_its_own_threshold(finished: Path, tmp_path: Path):
    manifest = read_model(finished / "manifest.json", Manifest)
    card = open_bundle(finished / "export")
    task = next(task for task in card.tasks if task.card.name == "demo-answers")
    assert task.thresholds == manifest.thresholds["demo-answers"]
    assert task.threshold == task.thresholds["en"]
    task.thresholds |= {"en": -1e9, "de": 1e9}  # of "no answer" less the best answer: always above, never above
    task.threshold = -1e9
    shutil.copytree(finished / "export", tmp_path / "bundle")
    write_model(tmp_path / "bundle" / "bundle.json", card)
    session, rows = (
        Session(tmp_path / "bundle", threads=1),
        load(find_task("demo-answers"), "test", "en", None).examples[:9],
    )
    answered = {
        code: {bool(row.value) for row in session.predict("demo-answers", rows, language=code)}
        for code in ("en", "de", "zh")
    }
    assert answered == {"en": {False}, "de": {True}, "zh": {False}}


@pytest.mark.parametrize("sharing", ["shared", "specialise", "separate"])
def test_other_ways_to_share_take_several_languages(sharing: str, backbone: Path, command, tmp_path: Path):
    status, _, error = command(
        run, "--suite", "demo", "--tasks", "demo-topic,demo-names", "--backbone", backbone, "--prompt-length", 3,
        "--train-languages", "en,de", "--languages", "en,zh", "--max-train", 12, "--max-eval", 5, "--max-steps", 8,
        "--sharing", sharing, "--out", tmp_path, "--name", "x",
    )  # fmt: skip
    assert status == 0, error
    assert "2 tasks in 2 languages to learn" in error
    assert not any("@" in name for name in json.loads(_about(tmp_path / "x"))["rows"])
    card = export(tmp_path / "x", tmp_path / "bundle", atol=1e-4, rows=4)
    assert not any(task.languages for task in card.tasks)


def _about(folder: Path) -> str:
    with safe_open(folder / "prompt.safetensors", framework="pt") as file:
        return file.metadata()["polyprompt"]


def test_scores_of_a_run_are_those_of_its_predictions(finished: Path):
    results = json.loads((finished / "results.json").read_text())
    cards = {card.name: card for card in read_model(finished / "manifest.json", Manifest).tasks}
    for record in results["records"]:
        rows = read_predictions(finished / record["predictions"])
        expected = score(cards[record["task"]], rows, record["language"])
        assert record["scores"] == pytest.approx({name: round(value, 4) for name, value in expected.items()})
    assert load_file(finished / "prompt.safetensors")["prefix"].shape[0] == 6 * 3
