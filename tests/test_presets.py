"""Released hyper-parameters: each one can be run, and they are those of the scripts that they name."""

import json
from pathlib import Path

import pytest

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind
from harness import run
from harness.config import load_config, make_config
from harness.data import chosen_tasks
from harness.heads import HeadKind, head_kind
from harness.methods import find_method
from harness.placement import Init, Positions
from harness.presets import Preset, find_preset, presets

ALL = tuple(presets().values())
SEQUENCE = (Kind.CLASSIFICATION, Kind.REGRESSION, Kind.CHOICE)


def settings(preset: Preset) -> dict[str, object]:
    return {name.replace("-", "_"): value for name, value in preset.settings.items()}


@pytest.mark.parametrize("preset", ALL, ids=lambda preset: preset.name)
def test_every_preset_can_be_run(preset: Preset) -> None:
    config = make_config(settings(preset), preset.name)
    find_method(config.method)
    [task] = chosen_tasks(config)  # suite and task are there, and belong together
    assert config.backbone.count("/") == 1
    assert preset.source.startswith("github.com/")
    # What the authors' code does whatever the script: a pooler before the heads of sequence tasks (outputs[1] in
    # model/), a decay by 0.95 an epoch where ExponentialTrainer is used (tasks/*/get_trainer.py), N(0, 1) embeddings,
    # and past keys and values, which shift positions.
    sequence = task.card.kind in SEQUENCE
    assert config.head is (HeadKind.POOLER if sequence else HeadKind.LINEAR) is head_kind(task.card, config.head)
    assert config.decay == ("linear" if sequence else "exponential")
    assert (config.init, config.positions, config.weight_decay) == (Init.NORMAL, Positions.SHIFTED, 0.0)
    if preset.published is not None:
        assert 0 < preset.published < 100


def test_the_numbers_of_two_scripts() -> None:
    """Read in run_script/run_rte_roberta.sh and run_script/run_wic_bert.sh of THUDM/P-tuning-v2 at b1520c9aa177."""
    released = (settings(find_preset(f"p-tuning-v2/{name}")) for name in ("rte-roberta-large", "wic-bert-large"))
    rte, wic = (make_config(chosen, "here") for chosen in released)
    assert (rte.prompt_length, rte.learning_rate, rte.batch, rte.epochs) == (128, [5e-3], 32, 100)
    assert (rte.prompt_dropout, rte.max_length, rte.seed, rte.reparameterise) == (0.1, 128, 11, False)
    assert (rte.suite, rte.tasks, rte.backbone) == (["superglue"], ["superglue-rte"], "FacebookAI/roberta-large")
    assert (wic.prompt_length, wic.learning_rate, wic.batch, wic.epochs) == (20, [1e-4], 16, 80)
    assert (wic.prompt_dropout, wic.max_length, wic.seed, wic.reparameterise) == (0.1, 128, 44, True)
    assert (wic.suite, wic.tasks, wic.backbone) == (["superglue"], ["wic"], "google-bert/bert-large-cased")


def test_the_list_shows_all(command) -> None:
    status, output, _ = command(run, "--list-presets")
    assert status == 0
    shown = {line.split()[0]: line.split() for line in output.splitlines()[2:]}
    assert shown.keys() == {preset.name for preset in ALL}
    assert shown["p-tuning-v2/rte-roberta-large"][1:7] == "128 0.005 32 100 FacebookAI/roberta-large 86.6".split()
    assert shown["mpt/xnli-xlm-roberta-large"][1:7] == "32 0.001 16 30 FacebookAI/xlm-roberta-large -".split()
    status, output, _ = command(run, "--list-presets", "--json")
    assert status == 0
    assert [Preset(**record) for record in json.loads(output)] == list(ALL)


def test_an_unknown_name_gets_a_proposal(command, tmp_path: Path) -> None:
    status, output, error = command(run, "--preset", "p-tuning-v2/rte-roberta", "--out", tmp_path)
    assert (status, output) == (2, "")
    assert error == "error: --preset p-tuning-v2/rte-roberta: unknown; did you mean 'p-tuning-v2/rte-roberta-large'?\n"
    with pytest.raises(PolypromptError, match="--list-presets shows them"):
        find_preset("zzz")


def test_other_settings_go_before_those_of_a_preset(backbone: Path, command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("batch = 4\nprompt-length = 5\n")
    status, _, error = command(
        run,
        *("--preset", "p-tuning-v2/wic-bert-large", "--config", tmp_path / "mine.toml", "--prompt-length", 3),
        *("--suite", "demo", "--tasks", "demo-topic", "--languages", "en", "--backbone", backbone, "--max-length", 32),
        *("--max-train", 8, "--max-eval", 4, "--max-steps", 2, "--out", tmp_path, "--name", "x"),
    )
    assert status == 0, error
    config = load_config(tmp_path / "x" / "config.toml")
    assert (config.prompt_length, config.batch, config.seed, config.learning_rate) == (3, 4, 44, [1e-4])
    assert (config.reparameterise, config.head, config.positions) == (True, HeadKind.POOLER, Positions.SHIFTED)
