"""Where training begins: prompts from keys and values of real tokens, and heads that already know the mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import TaskRows
from harness.features import Feature, pad
from harness.methods import Method
from harness.model import PromptedModel
from harness.prompt import DeepPrompt, Init, parse_layers
from harness.readout import Readout
from harness.sharing import LowRank, Prompts, Sharing
from harness.train import TaskTraining


def make_model(
    config: RunConfig,
    method: Method,
    backbone: Backbone,
    rows: Sequence[TaskRows],
    training: Sequence[TaskTraining],
    readout: Readout | None = None,
) -> PromptedModel:
    """The model as it is before the first step, decided by the seed.

    Raises:
        PolypromptError: a task is to be learned, and nothing that answers it is trained.
    """
    torch.manual_seed(config.seed)
    prompts = _prompts(config, backbone, training) if method.prompt and training else None
    backbone.requires_grad_(method.backbone)
    model = PromptedModel(backbone, prompts, [task_rows.task.card for task_rows in rows], config.pooling, readout)
    beside_heads = [name for name, weight in model.named_parameters() if weight.requires_grad and name[:6] != "heads."]
    fixed = [task.task.name for task in training if task.task.name not in model.heads]
    if fixed and not beside_heads:
        raise PolypromptError(
            f"--method {method.name}: trains heads alone, and --head {config.head} leaves none to train for "
            f"{', '.join(fixed)}; choose a method that trains a prompt or the encoder"
        )
    center_regression(model, training)
    return model


def specialised(model: PromptedModel, training: Sequence[TaskTraining]) -> Prompts:
    """A prompt for each trained task that begins as the one they shared, which stays for the other tasks, frozen."""
    assert isinstance(model.prompt, Prompts)
    shared = model.prompt.shared
    assert shared is not None
    bank = model.prompt.fold([""])
    own = {task.task.name: DeepPrompt.of_states(bank.bank[0], bank.layers, bank.gated) for task in training}
    return Prompts(shared.requires_grad_(False), own)


def _prompts(config: RunConfig, backbone: Backbone, training: Sequence[TaskTraining]) -> Prompts:
    """The prompts of a run; what begins with keys and values takes them from the rows of the tasks that will use it."""
    layers = parse_layers(config.prompt_layers, backbone.layers)

    def prompt(tasks: Sequence[TaskTraining]) -> DeepPrompt:
        states = None
        if config.init is Init.KV:
            features = [feature for task in tasks for feature in task.features]
            states = token_states(backbone, features, layers, config.prompt_length, config.seed)
        return DeepPrompt(
            layers,
            backbone.heads,
            config.prompt_length,
            backbone.head_dim,
            config.init,
            states,
            config.reparameterise,
            config.prompt_dropout,
        )

    if config.sharing is Sharing.SEPARATE:
        return Prompts(None, {task.task.name: prompt([task]) for task in training})
    shared = prompt(training)
    if config.sharing is not Sharing.LOW_RANK:
        return Prompts(shared)
    return Prompts(shared, {task.task.name: LowRank(shared.shape, config.rank) for task in training})


def token_states(
    backbone: Backbone, features: Sequence[Feature], layers: tuple[int, ...], slots: int, seed: int
) -> Tensor:
    """The frozen encoder's keys and values of randomly chosen real tokens, one token a slot.

    Args:
        backbone: the encoder, without prefix.
        features: training rows of all tasks; each slot takes a token of one of them, special tokens excluded.
        layers: the prompted layers. slots: prefix length. seed: of the choice.

    Returns:
        [layer, 2, head, slot, head_dim]
    """
    random = np.random.default_rng([seed, 2])
    chosen = [features[row] for row in random.integers(len(features), size=slots)]
    states = torch.empty(len(layers), 2, backbone.heads, slots, backbone.head_dim)
    device = next(backbone.parameters()).device
    for slot, feature in enumerate(chosen):
        rows = pad([feature], backbone.pad_id)
        seq = len(feature)
        position = int(random.integers(1, seq - 1)) if seq > 2 else 0
        ids, lengths, types = (torch.from_numpy(a).to(device) for a in (rows.input_ids, rows.lengths, rows.type_ids))
        states[..., slot, :] = backbone.keys_values(ids, lengths, types)[list(layers), :, 0, :, position].cpu()
    return states


def center_regression(model: PromptedModel, training: Sequence[TaskTraining]) -> None:
    """Start the heads of regression tasks at the mean of their training targets, so that no step is spent on it."""
    for task in training:
        if task.task.card.kind is Kind.REGRESSION:
            torch.nn.init.constant_(model.heads[task.task.name].bias, float(np.mean(task.targets)))
