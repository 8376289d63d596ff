"""Exported folders in Optimum, sentence-transformers and Transformers.js, beside PyTorch; run by `tox -e peers`."""

import json
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from bundles import demo_run

from benchmarks.records import Example
from benchmarks.registry import find_suite
from benchmarks.task import Kind, TaskCard
from exporters.export import export_folders
from harness.backbone import load_backbone
from harness.decode import decode
from harness.device import find_device
from harness.evaluate import compute
from harness.features import Feature, TextEncoder
from harness.model import PromptedModel
from tests.speed import optimum

HERE = Path(__file__).parent / "peers"
ROWS = 6

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@dataclass(frozen=True)
class Asked:
    """Rows of one folder, and what PyTorch gives for each: without padding, and as an answer."""

    folder: Path
    card: TaskCard
    examples: Sequence[Example]
    features: Sequence[Feature]
    outputs: Sequence[np.ndarray]
    answers: Sequence[Any]

    def request(self, side: str) -> dict[str, Any]:
        rows = [{"text": example.text, "pair": example.text_pair} for example in self.examples]
        if self.card.kind is Kind.CHOICE:
            rows = [{"text": [e.text] * len(e.choices), "pair": list(e.choices)} for e in self.examples]
        if self.card.kind is Kind.TAGGING:
            rows = [{"tokens": list(example.tokens)} for example in self.examples]
        return {"folder": str(self.folder), "kind": self.card.kind.value, "side": side, "rows": rows}


@pytest.fixture(scope="module")
def peers() -> Path:
    """The folder with `bin/python` that has Optimum, and `node_modules` that has Transformers.js."""
    if "POLYPROMPT_PEERS" not in os.environ:
        pytest.skip("needs other tools in environments of their own: tox -e peers")
    return Path(os.environ["POLYPROMPT_PEERS"])


@pytest.fixture(scope="module", params=["minilm-l6-en", "e5-small-multilingual"])
def asked(request: pytest.FixtureRequest, peers: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """Every kind of task of the demo suite with random prompts and heads on a real encoder, exported."""
    folder = tmp_path_factory.mktemp("peers")
    model = demo_run(folder / "run", request.param)
    backbone = model.backbone
    export_folders(folder / "run", folder / "out", atol=1e-4, rows=2)
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, model.max_positions)
    cards = [task.card for task in find_suite("demo").tasks]
    return [ask(folder / "out" / card.name, card, model, encoder) for card in cards]


def ask(folder: Path, card: TaskCard, model: PromptedModel, encoder: TextEncoder) -> Asked:
    task = next(task for task in find_suite("demo").tasks if task.card == card)
    examples = task.source.read(card, "test", "de", None).examples[:ROWS]
    features = encoder.features(card, examples)
    outputs = partial(compute, model, device=find_device("fp32", cpu=True))(card, features)
    if card.kind is Kind.RETRIEVAL:
        return Asked(folder, card, examples, features, outputs, outputs)
    found = decode(card, examples, features, outputs)
    # Other tools do not know when there is no answer: what they give is the best one.
    values = [row.best if card.kind is Kind.SPAN else row.value for row in found]
    return Asked(folder, card, examples, features, outputs, values)


def answered(command: list[str | Path], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=json.dumps(requests), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def letters(text: str) -> str:
    """What pieces of a vocabulary without case and accents keep of a text, without the spaces between them."""
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(letter for letter in plain if not letter.isspace() and not unicodedata.combining(letter))


def best_span(example: Example, feature: Feature, output: np.ndarray) -> str:
    """The answer without a bound on its length, which Transformers.js does not have."""
    context = [place for place, (begin, _) in enumerate(feature.spans) if begin >= 0]
    spans = [(begin, end) for begin in context for end in context if begin <= end]
    begin, end = max(spans, key=lambda span: output[span[0], 0] + output[span[1], 1])
    return example.text_pair[feature.spans[begin, 0] : feature.spans[end, 1]]


def check(asked: Asked, logits: list[Any], answers: list[Any], exact: bool) -> None:
    """Compare a tool's logits and answers.

    Args:
        exact: answers of span extraction are pieces of the context; else they were put together from pieces.
    """
    kind, name = asked.card.kind, asked.card.name
    wanted = list(asked.outputs)
    if kind is Kind.CHOICE:
        logits = [[score] for row in logits for score in row]
    for mine, theirs in zip(logits, wanted, strict=True):
        np.testing.assert_allclose(np.array(mine), theirs, rtol=0, atol=1e-4, err_msg=name)
    if not answers:
        return
    if kind is Kind.TAGGING:
        for feature, tags, found in zip(asked.features, asked.answers, answers, strict=True):
            said = [found.get(str(place)) for place in feature.positions]
            assert said == [tags[word] for word in feature.words], name
    elif kind is Kind.SPAN and exact:
        assert [text.strip() for text in answers] == asked.answers, name
    elif kind is Kind.SPAN:
        rows = zip(asked.examples, asked.features, asked.outputs, strict=True)
        assert [letters(text) for text in answers] == [letters(best_span(*row)) for row in rows], name
    elif kind in (Kind.REGRESSION, Kind.RETRIEVAL):
        np.testing.assert_allclose(np.array(answers), np.array(asked.answers), rtol=0, atol=1e-4, err_msg=name)
    else:
        assert answers == asked.answers, name


@pytest.mark.parametrize("side", ["right", "left"])
def test_optimum_and_sentence_transformers(asked: list[Asked], side: str, peers: Path) -> None:
    python = peers / "bin" / "python"
    there = python.exists() and subprocess.run([python, "-c", "import optimum.onnxruntime"], capture_output=True)
    if not there or there.returncode:
        pytest.skip(f"{python} has no Optimum: it could not be installed")
    found = answered([python, HERE / "optimum_answers.py"], [one.request(side) for one in asked])
    for one, answer in zip(asked, found, strict=True):
        check(one, answer["logits"], answer["answers"], exact=True)
        assert answer["answers"] or one.card.kind is Kind.CHOICE


def test_the_export_by_optimum_that_the_bench_times(peers: Path, tmp_path: Path) -> None:
    """It is the model that it is made of, for batches of any size."""
    model = optimum.classifier(load_backbone("minilm-l6-en"), 4)
    session = onnxruntime.InferenceSession(optimum.export(model, tmp_path), providers=["CPUExecutionProvider"])
    for shape in ((1, 7), (3, 20)):
        ids, mask = torch.randint(5, 30_000, shape), torch.ones(shape, dtype=torch.long)
        (found,) = session.run(None, optimum.feeds(session, ids, mask))
        with torch.inference_mode():
            wanted = model(input_ids=ids, attention_mask=mask).logits
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_transformers_js(asked: list[Asked], side: str, peers: Path) -> None:
    modules = peers / "node_modules"
    if shutil.which("node") is None or not (modules / "@huggingface").is_dir():
        pytest.skip("needs node and npm packages, which could not be installed")
    known = [one for one in asked if one.card.kind is not Kind.CHOICE]  # it has no multiple choice
    found = answered(["node", HERE / "transformers_answers.mjs", modules], [one.request(side) for one in known])
    for one, answer in zip(known, found, strict=True):
        check(one, answer["logits"], answer["answers"], exact=False)
        assert answer["answers"] or one.card.kind is Kind.REGRESSION  # its pipeline makes probabilities of numbers
