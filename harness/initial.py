"""Where training begins: keys and values of real tokens, and heads that already know the mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.task import Kind
from harness.backbone import Backbone
from harness.features import Feature, pad
from harness.model import PromptedModel
from harness.train import TaskTraining


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
