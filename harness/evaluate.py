"""Predictions of a model on the reported splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.records import Example, Prediction, Split
from benchmarks.task import Kind, TaskCard
from harness.batches import evaluation_batches
from harness.decode import Floats, decode
from harness.device import Device
from harness.features import Feature, TextEncoder, pad
from harness.model import PromptedModel

PIECES = 4096
"""Pieces a batch, padding included: small enough for the processor's caches, large enough for its products."""


def predict(
    model: PromptedModel,
    encoder: TextEncoder,
    card: TaskCard,
    split: Split,
    device: Device,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Prediction]:
    """Predict every example of a split.

    Args:
        model: with a head for the task. encoder: of its backbone. card: the task. split: the rows.
        device: where to compute.
        on_rows: called with the number of rows that were just computed.

    Returns:
        One prediction an example, in order.
    """
    features = encoder.features(card, split.examples)
    outputs = compute(model, card, features, device, on_rows)
    candidates = None
    if card.kind is Kind.RETRIEVAL:
        texts = [Example(str(number), text=text) for number, text in enumerate(split.candidates)]
        candidates = np.stack(compute(model, card, encoder.features(card, texts), device, on_rows))
    return decode(card, split.examples, features, outputs, candidates)


def compute(
    model: PromptedModel,
    card: TaskCard,
    features: Sequence[Feature],
    device: Device,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[Floats]:
    """The model's output for each row, cut to the row's length where it has one value a piece."""
    outputs: list[Floats | None] = [None] * len(features)
    model.eval()
    for batch in evaluation_batches(features, PIECES):
        ids, lengths, types = device.tensors(pad([features[row] for row in batch], model.backbone.pad_id))
        with torch.inference_mode(), device.autocast():
            values = model.outputs(card, ids, lengths, types).float().cpu().numpy()
        for row, value in zip(batch, values, strict=True):
            outputs[row] = value[: len(features[row])] if value.ndim == 2 else value
        on_rows(len(batch))
    return [output for output in outputs if output is not None]
