"""Tasks that were exported apart, in one graph: every prompt length, layer and head as in a graph of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import CARDS, tiny_bundle, tiny_manifest, tiny_prompted
from test_graph import Arrays, Engine, mixed_batch, rows_asked, run_onnxruntime, run_openvino
from tiny import LAYERS

from exporters.add import fitted
from exporters.bundle import BundleCard, open_bundle, read_tasks, replace_tasks
from exporters.trained import Trained
from harness.initial import random_states
from harness.model import PromptedModel
from harness.sharing import PromptBank

ALL = tuple(range(LAYERS))
PROMPTS = [(ALL, 5), ((1,), 9), ((0, 2), 2), ((), 0)]
"""Layers and lengths of the prompts of runs that share a bundle."""

VECTORS = [(None, 4), (None, 7), (None, 1), ((), 0)]


def prompted(layers: tuple[int, ...] | None, slots: int, number: int, **settings: object) -> PromptedModel:
    """A random model whose tasks have names of their own."""
    cards = [card.model_copy(update={"name": f"{card.name}-{number}"}) for card in CARDS]
    model = tiny_prompted("bert", layers, cards=cards, **settings)
    torch.manual_seed(100 + number)
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight)
    if model.prompt is not None:
        placement = model.prompt.placement
        bank = torch.stack([random_states(model.backbone, placement, slots) for _ in range(2)])
        model.prompt = PromptBank(bank, {"": 0, cards[0].name: 1}, placement)
    return model.requires_grad_(False).eval()


def manifest_of(model: PromptedModel):
    return tiny_manifest(model, cards_of(model))


def cards_of(model: PromptedModel) -> list:
    number = model.tasks[0].rpartition("-")[2]
    return [card.model_copy(update={"name": f"{card.name}-{number}"}) for card in CARDS]


def joined(folder: Path, models: list[PromptedModel]) -> BundleCard:
    """A bundle of the first model that got the tasks of the others."""
    card = tiny_bundle(folder, models[0], cards_of(models[0]))
    for model in models[1:]:
        trained = Trained.of_model(model, cards_of(model))
        tasks, tensors = fitted(folder, card, trained, manifest_of(model), {})
        card = card.model_copy(update={"tasks": [*card.tasks, *tasks]})
        card = replace_tasks(folder, card, {tasks[0].file: tensors})
    return card


def outputs_by_row(folder: Path, feeds: Arrays, engine: Engine) -> list[np.ndarray]:
    """What a bundle gives for each row, cut to the row's pieces and its task's columns."""
    card = open_bundle(folder)
    tasks = {task.task_id: task for task in read_tasks(folder, card)[0]}
    rows = rows_asked(card.model_copy(update={"tasks": [tasks[n] for n in sorted(tasks)]}), feeds["task_id"])
    results, found = engine(folder, feeds | rows), []
    for row, number in enumerate(feeds["task_id"]):
        task = tasks[number]
        output = results[task.output][list(rows[card.rows_of(task)]).index(row)]
        found.append(output[: feeds["lengths"][row], : task.columns] if output.ndim == 2 else output[: task.columns])
    return found


@pytest.mark.parametrize("engine", [run_onnxruntime, run_openvino])
@pytest.mark.parametrize(
    ("prompts", "settings"),
    [
        (PROMPTS, {}),
        (PROMPTS[::-1][1:], {"positions": "shifted", "pooling": "mean"}),
        ([PROMPTS[0], ((0, 2), 2), ((), 0), (ALL, 6)], {"gated": True}),
        (VECTORS, {}),
        (VECTORS[:3], {"positions": "shifted"}),
    ],
    ids=["layers", "shifted", "gated", "vectors", "vectors, shifted"],
)
def test_mixed_lengths_are_as_in_graphs_of_their_own(prompts, settings, engine: Engine, tmp_path: Path) -> None:
    models = [prompted(*prompt, number, **settings) for number, prompt in enumerate(prompts)]
    joined(tmp_path / "all", models)
    count = len(CARDS)
    feeds = mixed_batch(models[0], count * len(models), rows=2 * count * len(models), longest=17)
    feeds["lengths"] = feeds["lengths"].clip(max=17)
    together = outputs_by_row(tmp_path / "all", feeds, engine)
    for number, model in enumerate(models):
        folder = tmp_path / f"{number}"
        tiny_bundle(folder, model, cards_of(model))
        mine = [row for row, task in enumerate(feeds["task_id"]) if task // count == number]
        own = {name: array[mine] for name, array in feeds.items()} | {"task_id": feeds["task_id"][mine] % count}
        for row, wanted in zip(mine, outputs_by_row(folder, own, run_onnxruntime), strict=True):
            np.testing.assert_allclose(together[row], wanted, rtol=0, atol=1e-5, err_msg=f"row {row} of run {number}")
