"""The trained weights of a run on disk, and the model made of them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.results import Manifest, read_model
from harness.adapt import (
    ADAPTER,
    ADAPTER_CONFIG,
    adapt,
    adapter_json,
    load_lora,
    load_trained_state,
    lora_of,
    lora_state,
    merge,
    trained_state,
)
from harness.backbone import load_backbone
from harness.config import load_config
from harness.heads import HeadKind, head_kind
from harness.methods import Weights, find_method
from harness.model import HEADS, PromptedModel
from harness.readout import Readout
from harness.sharing import PROMPT, PromptBank

BACKBONE = "backbone.safetensors"
READOUT = "readout.safetensors"
LORA = "adapter"
"""Folder of an adapter of peft in a run folder."""


def save_weights(model: PromptedModel, run: Path) -> None:
    """Write prompts (with everything folded in), heads, what stands before them, and weights trained in the encoder.

    prompt.safetensors: see `PromptBank.write`.
    heads.safetensors holds "TASK.weight" [labels, hidden] and "TASK.bias" [labels].
    readout.safetensors holds the tensors of a `Readout` and, as metadata "polyprompt", its other arguments.
    backbone.safetensors holds those of the encoder's own weights that were trained, by its names.
    adapter/ is a LoRA adapter in the format of peft.
    """
    if model.prompt is not None:
        model.prompt.fold(model.tasks).write(run)
    write_atomic(run / HEADS, _bytes(model.heads.state_dict()))
    if model.readout is not None:
        write_atomic(run / READOUT, _bytes(model.readout.state_dict(), model.readout.about))
    config = lora_of(model.backbone)
    if config is not None:
        write_atomic(run / LORA / ADAPTER, _bytes(lora_state(model.backbone)))
        write_atomic(run / LORA / ADAPTER_CONFIG, adapter_json(config))
    elif state := trained_state(model.backbone):
        write_atomic(run / BACKBONE, _bytes(state))


def load_run(run: Path) -> PromptedModel:
    """The model of a finished run, frozen and ready to predict; what was added to its encoder is merged.

    Raises:
        PolypromptError: a file is absent or damaged, or the backbone is not the one that was trained with.
    """
    manifest = read_model(run / "manifest.json", Manifest)
    config = load_config(run / "config.toml")
    backbone = load_backbone(config.backbone, config.engine)
    if backbone.card.sha256 != manifest.backbone.sha256:
        raise PolypromptError(
            f"{run}: was trained on other weights of {config.backbone} (sha256 {manifest.backbone.sha256[:12]}) than "
            f"are there now ({backbone.card.sha256[:12]})"
        )
    weights = find_method(config.method).backbone
    adapt(backbone, weights, config.lora_rank, config.lora_alpha)
    readout = None
    try:
        prompt = PromptBank.read(run) if (run / PROMPT).exists() else None
        if any(head_kind(card, config.head) is not HeadKind.LINEAR for card in manifest.tasks):
            readout = read_readout(run)
        model = PromptedModel(backbone, prompt, manifest.tasks, config.pooling, readout, config.head_layers)
        model.heads.load_state_dict(load_file(run / HEADS))
        if weights is Weights.LORA:
            load_lora(backbone, load_file(run / LORA / ADAPTER))
        elif weights is not Weights.NONE:
            load_trained_state(backbone, load_file(run / BACKBONE))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise PolypromptError(f"{run}: its weights are missing or damaged: {error}") from None
    merge(backbone)
    return model.requires_grad_(False).eval()


def read_readout(run: Path) -> Readout:
    """The frozen layers before the heads of a run.

    Raises:
        PolypromptError: absent or damaged.
    """
    try:
        with safe_open(run / READOUT, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return Readout(state, **json.loads(file.metadata()["polyprompt"]))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise PolypromptError(f"{run}: its weights are missing or damaged: {error}") from None


def _bytes(state: Mapping[str, Tensor], about: Mapping[str, object] | None = None) -> bytes:
    # one entry: safetensors writes several in an order that changes, and equal runs shall give equal bytes
    metadata = None if about is None else {"polyprompt": json.dumps(about)}
    return save({name: value.contiguous().cpu() for name, value in state.items()}, metadata)


def trained_parameters(model: torch.nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
