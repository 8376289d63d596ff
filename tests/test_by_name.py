"""Tasks may have any name, that of an attribute of torch's containers too."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer
from torch import nn
from transformers import AutoModelForMaskedLM

from benchmarks.results import Manifest, read_model
from exporters import export, predict
from harness import run
from harness.by_name import ByName
from harness.store import load_run

ATTRIBUTES = [name for name in dir(nn.ModuleDict()) if re.match(r"[A-Za-z0-9]", name)]
NAMES = ("type", "keys", "training")


def layers(names: list[str]) -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    return {name: nn.Linear(2, 3) for name in names}


def test_every_attribute_is_a_name_and_stays_an_attribute() -> None:
    assert {*NAMES, "to", "forward"} <= {*ATTRIBUTES}  # Tongan is "to"
    modules = ByName(layers(ATTRIBUTES))
    with pytest.raises(KeyError):
        nn.ModuleDict(layers(["type"]))
    assert [*modules] == [*modules.keys()] == ATTRIBUTES
    modules.eval()
    assert modules.training is False
    assert not any(module.training for module in modules.values())
    other = copy.deepcopy(modules).train().double()
    assert all(module.training and module.weight.dtype is torch.float64 for module in other.values())
    assert modules["type"].weight.dtype is torch.float32
    assert sum(weight.requires_grad for weight in modules.requires_grad_(False).parameters()) == 0


def test_weights_have_the_names_that_a_module_dict_gives_them() -> None:
    ours, theirs = (make(layers(["rte", "a-b_2"])) for make in (ByName, nn.ModuleDict))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    theirs["rte"].bias.data.fill_(7)
    ours.load_state_dict(theirs.state_dict())
    assert ours["rte"].bias.tolist() == [7, 7, 7]
    names = ByName(layers(ATTRIBUTES)).state_dict()
    assert [*names] == [f"{name}.{part}" for name in ATTRIBUTES for part in ("weight", "bias")]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A task file with tasks of such names."""
    rows = "".join(f"w{5 + number} w{9 + number}\t{'good' if number % 2 else 'bad'}\n" for number in range(16))
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + rows)
    files = 'kind = "classification"\nformat = "tsv"\nfiles = { train = "rows.tsv", dev = "rows.tsv" }\n'
    (tmp_path / "tasks.toml").write_text("".join(f'[[task]]\nname = "{name}"\n{files}' for name in NAMES))
    return tmp_path / "tasks.toml"


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a masked-LM head."""
    folder = tmp_path_factory.mktemp("speaking")
    AutoModelForMaskedLM.from_config(tiny_model("bert").config).save_pretrained(folder)
    tiny_tokenizer("bert").save(str(folder / "tokenizer.json"))
    return folder


SAY = [word for name in NAMES for word in ("--label-words", f"{name}.good=w7", "--label-words", f"{name}.bad=w8")]


@pytest.mark.parametrize(
    "settings",
    [("--sharing", "separate"), ("--sharing", "low-rank"), ("--head", "verbaliser", *SAY)],
    ids=["separate", "low-rank", "verbaliser"],
)
def test_such_tasks_are_trained_stored_continued_and_exported(
    settings: tuple[str, ...], tasks: Path, speaking: Path, command, tmp_path: Path, interrupted_at
) -> None:
    small = ("--prompt-length", 2, "--batch", 4, "--max-steps", 8, "--out", tmp_path, "--name", "x")
    options = ("--task-file", tasks, "--backbone", speaking, *small, *settings)
    with interrupted_at(4):
        status, _, error = command(run, *options)
    assert status == 130, error
    status, _, error = command(run, *options, "--resume")
    assert status == 0, error
    folder = tmp_path / "x"
    assert read_model(folder / "manifest.json", Manifest).interruptions == 1
    stored = {f"{name}.{part}" for name in NAMES for part in ("weight", "bias")}
    if "verbaliser" in settings:
        assert {f"words.{name}" for name in stored} < load_file(folder / "readout.safetensors").keys()
    else:
        assert load_file(folder / "heads.safetensors").keys() == stored
        with safe_open(folder / "prompt.safetensors", framework="pt") as file:
            assert file.get_slice("prefix").get_shape()[0] == len(NAMES)
    assert set(load_run(folder).all_heads) == {*NAMES}
    status, _, error = command(export, folder)
    assert status == 0, error
    status, output, error = command(predict, folder / "export", "--task", "training", "w7 w9")
    assert (status, output.split("\t")[0] in ("good", "bad")) == (0, True), error


def test_a_dot_in_the_name_of_a_task_is_refused(tasks: Path, command, tmp_path: Path) -> None:
    """It would be part of the names of tensors, of files and of options."""
    tasks.write_text(tasks.read_text().replace('"keys"', '"a.keys"'))
    status, _, error = command(run, "--task-file", tasks, "--list")
    assert status == 2
    assert "name: 'a.keys' may have letters, digits, - and _ alone" in error
