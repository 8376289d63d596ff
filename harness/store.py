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
from harness.adapt import adapt, load_lora, load_trained_state, lora_config, lora_state, merge, trained_state
from harness.backbone import load_backbone
from harness.config import load_config
from harness.methods import Weights, find_method
from harness.model import PromptedModel
from harness.placement import Placement
from harness.readout import HeadKind, Readout, head_kind
from harness.sharing import PromptBank

PROMPT, HEADS, BACKBONE = "prompt.safetensors", "heads.safetensors", "backbone.safetensors"
READOUT = "readout.safetensors"
ADAPTER_CONFIG, ADAPTER = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
"""Names that peft looks for, so that the folder is an adapter of its own."""


def save_weights(model: PromptedModel, run: Path) -> None:
    """Write prompts (with everything folded in), heads, what stands before them, and weights trained in the encoder.

    prompt.safetensors: see `save_bank`.
    heads.safetensors holds "TASK.weight" [labels, hidden] and "TASK.bias" [labels].
    readout.safetensors holds the tensors of a `Readout` and, as metadata "polyprompt", its other arguments.
    backbone.safetensors holds those of the encoder's own weights that were trained, by its names.
    adapter/ is a LoRA adapter in the format of peft.
    """
    if model.prompt is not None:
        save_bank(model.prompt.fold(model.tasks), run / PROMPT)
    write_atomic(run / HEADS, _bytes(model.heads.state_dict()))
    if model.readout is not None:
        write_atomic(run / READOUT, _bytes(model.readout.state_dict(), model.readout.about))
    config = lora_config(model.backbone)
    if config is not None:
        write_atomic(run / ADAPTER, _bytes(lora_state(model.backbone)))
        about = config.to_dict() | {"target_modules": sorted(config.target_modules), "inference_mode": True}
        write_atomic(run / ADAPTER_CONFIG, json.dumps(about, indent=2, sort_keys=True) + "\n")
    elif state := trained_state(model.backbone):
        write_atomic(run / BACKBONE, _bytes(state))


def save_bank(bank: PromptBank, path: Path) -> None:
    """Write prompts: "prefix" [prompt, ...], each as its placement describes it.

    Metadata "polyprompt" is a JSON object with the placement, and "rows": which prompt a task has, see `PromptBank`.
    """
    about = bank.placement.model_dump(mode="json") | {"rows": bank.rows}
    write_atomic(path, _bytes({"prefix": bank.bank}, about))


def load_bank(path: Path) -> PromptBank:
    """Read prompts.

    Raises:
        PolypromptError: absent, damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["polyprompt"])
            rows = about.pop("rows")
            return PromptBank(file.get_tensor("prefix"), rows, Placement.model_validate(about))
    except (OSError, SafetensorError, KeyError, ValueError, AttributeError) as error:
        raise PolypromptError(f"{path}: not the prompts of a run: {error}") from None


def load_run(run: Path) -> PromptedModel:
    """The model of a finished run, frozen and ready to predict; what was added to its encoder is merged.

    Raises:
        PolypromptError: a file is absent or damaged, or the backbone is not the one that was trained with.
    """
    manifest = read_model(run / "manifest.json", Manifest)
    config = load_config(run / "config.toml")
    backbone = load_backbone(config.backbone)
    if backbone.card.sha256 != manifest.backbone.sha256:
        raise PolypromptError(
            f"{run}: was trained on other weights of {config.backbone} (sha256 {manifest.backbone.sha256[:12]}) than "
            f"are there now ({backbone.card.sha256[:12]})"
        )
    weights = find_method(config.method).backbone
    adapt(backbone, weights, config.lora_rank, config.lora_alpha)
    readout = None
    try:
        prompt = load_bank(run / PROMPT) if (run / PROMPT).exists() else None
        if any(head_kind(card, config.head) is not HeadKind.LINEAR for card in manifest.tasks):
            with safe_open(run / READOUT, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                readout = Readout(state, **json.loads(file.metadata()["polyprompt"]))
        model = PromptedModel(backbone, prompt, manifest.tasks, config.pooling, readout)
        model.heads.load_state_dict(load_file(run / HEADS))
        if weights is Weights.LORA:
            load_lora(backbone, load_file(run / ADAPTER))
        elif weights is not Weights.NONE:
            load_trained_state(backbone, load_file(run / BACKBONE))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise PolypromptError(f"{run}: its weights are missing or damaged: {error}") from None
    merge(backbone)
    return model.requires_grad_(False).eval()


def _bytes(state: Mapping[str, Tensor], about: Mapping[str, object] | None = None) -> bytes:
    # one entry: safetensors writes several in an order that changes, and equal runs shall give equal bytes
    metadata = None if about is None else {"polyprompt": json.dumps(about)}
    return save({name: value.contiguous().cpu() for name, value in state.items()}, metadata)


def trained_parameters(model: torch.nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
