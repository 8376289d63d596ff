"""Train prompts and heads on against the weights that a precision leaves, so that they take its error in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from benchmarks.errors import PolypromptError
from benchmarks.results import Manifest
from exporters.bundle import RetunedScore, Retuning
from exporters.graph import Graph
from exporters.precision import Floats, Precision, approximated
from exporters.session import Encoded
from exporters.verify import Sample, points
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import load_rows
from harness.device import Device, find_device
from harness.encoder import Layer, Linear
from harness.evaluate import compute
from harness.features import TextEncoder
from harness.methods import Weights, find_method
from harness.model import PromptedModel
from harness.readout import mask_pieces
from harness.screen import Screen
from harness.train import encode_training, train

STEPS = 300
"""Default of `--retune`."""

SHARE = 0.1
"""Of the learning rate that a run was trained with."""


def retuned(
    model: PromptedModel,
    graph: Graph,
    precision: Precision,
    steps: int,
    config: RunConfig,
    manifest: Manifest,
    samples: Mapping[str, Sample],
    screen: Screen,
) -> tuple[PromptedModel, Retuning]:
    """Train the prompts and heads of a run on over its own training rows.

    The encoder has its quantised weights as the graph has them, and computes in fp32: that states are quantised too,
    as in int8, the prompts do not see. A prompt whose task or language has no training rows stays as it is.

    Args:
        model: of the run; stays as it is. graph: of this model, in fp32. precision: int8 or int4.
        steps: how many. config, manifest: of the run. samples: rows to score.
        screen: shows progress.

    Returns:
        A copy with other prompts and heads, whose encoder has the weights of the precision; and what was done.

    Raises:
        PolypromptError: the precision rounds nothing that a prompt could make up for, or there is nothing to train.
    """
    if precision not in (Precision.INT8, Precision.INT4):
        raise PolypromptError(f"--retune: of --precision int8 and int4 alone; {precision} needs none")
    model = copy.deepcopy(model)
    backbone, device = model.backbone, find_device("fp32", cpu=True)
    round_encoder(backbone, approximated(graph, precision))
    if model.prompt is not None:
        model.prompt.bank = nn.Parameter(model.prompt.bank.clone())
    model.heads.requires_grad_(True)
    rows, _, _ = load_rows(config)
    cards = [task_rows.task.card for task_rows in rows]
    masks = mask_pieces(config.head, backbone, cards)
    encoder = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, model.max_positions, masks)
    training = encode_training(rows, encoder, config.batch, config.seed, config.tokens_per_batch)
    if not training or not any(weight.requires_grad for weight in model.parameters()):
        raise PolypromptError(f"--retune: {manifest.run} trains neither a prompt nor a head; leave it away")
    method = replace(find_method(config.method), backbone=Weights.NONE)
    chosen = manifest.selection and manifest.selection.learning_rate
    rate = SHARE * (chosen or method.learning_rate)
    asked = {"max_steps": steps, "epochs": float(steps), "decay": "linear", "patience": None}
    before = _scores(model, encoder, samples, manifest, device)
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "last.safetensors"
        settings = config.model_copy(update=asked)
        progress = train(model, training, settings, method, device, checkpoint, "retune", screen, rate)
    model.requires_grad_(False)
    after = _scores(model, encoder, samples, manifest, device)
    scores = {name: RetunedScore(before=before[name], after=after[name]) for name in samples}
    return model, Retuning(steps=progress.step, examples=progress.examples, rate=rate, scores=scores)


def round_encoder(backbone: Backbone, weights: Mapping[str, Floats]) -> None:
    """Give a frozen encoder other weights.

    Args:
        backbone: changed; its own engine computes it from here on.
        weights: of linear maps and tables of embeddings, by their names in a graph.
    """
    backbone.engine = "own"
    encoder, left = backbone.frozen(), dict(weights)

    def linear(old: Linear, *names: str) -> Linear:
        columns = [left.pop(f"{name}.weight") for name in names]
        return replace(old, weight=torch.from_numpy(np.concatenate(columns, 1).T.copy()))

    def layer(number: int, old: Layer) -> Layer:
        name = f"layer.{number}"
        last = number == len(encoder.layers) - 1  # its queries are apart in the graph
        parts = [f"{name}.query", f"{name}.key_value"] if last else [f"{name}.qkv"]
        qkv, hidden = linear(old.qkv, *parts), len(old.query.bias)
        plain = ("attention_output", "ffn_in", "ffn_out")
        return replace(
            old,
            qkv=qkv,
            query=qkv.rows(0, hidden),
            key_value=qkv.rows(hidden, 3 * hidden),
            **{part: linear(getattr(old, part), f"{name}.{part}") for part in plain},
        )

    encoder.layers = [layer(number, old) for number, old in enumerate(encoder.layers)]
    with torch.no_grad():
        for name in list(left):
            module, new = getattr(encoder, name.removesuffix(".weight")), left.pop(name)
            module.weight.copy_(torch.from_numpy(new.T if isinstance(module, nn.Linear) else new))


def _scores(
    model: PromptedModel, encoder: TextEncoder, samples: Mapping[str, Sample], manifest: Manifest, device: Device
) -> dict[str, float | None]:
    """Points of each task, as means over the languages."""
    found: dict[str, float | None] = {}
    for card in manifest.tasks:
        scores = []
        for language, examples in samples[card.name].items():
            features = encoder.features(card, examples)
            outputs = compute(model, card, features, device, language=language)
            scores.append(points(card, language, examples, Encoded(features, outputs)))
        found[card.name] = None if None in scores else sum(scores) / len(scores)
    return found
