"""The trained weights of a run on disk, and the model made of them again."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.results import Manifest, read_model
from harness.backbone import load_backbone
from harness.config import load_config
from harness.model import PromptedModel
from harness.readout import HeadKind, Readout, head_kind
from harness.sharing import PromptBank

PROMPT, HEADS, BACKBONE = "prompt.safetensors", "heads.safetensors", "backbone.safetensors"
READOUT = "readout.safetensors"


def save_weights(model: PromptedModel, run: Path) -> None:
    """Write prompts (with everything folded in), heads, what stands before them, and the backbone where it was trained.

    prompt.safetensors holds "prefix" [prompt, layer, 2, head, slot, head_dim] and, as metadata "polyprompt", a JSON
    object with "layers", "gated" and "rows": which prompt a task has, see `PromptBank`.
    heads.safetensors holds "TASK.weight" [labels, hidden] and "TASK.bias" [labels].
    readout.safetensors holds the tensors of a `Readout` and, as metadata "polyprompt", its other arguments.
    """
    if model.prompt is not None:
        bank = model.prompt.fold(model.tasks)
        # one entry: safetensors writes several in an order that changes, and equal runs shall give equal bytes
        metadata = {"polyprompt": json.dumps({"layers": bank.layers, "gated": bank.gated, "rows": bank.rows})}
        write_atomic(run / PROMPT, save({"prefix": bank.bank.contiguous().cpu()}, metadata))
    write_atomic(run / HEADS, save({name: value.cpu() for name, value in model.heads.state_dict().items()}))
    if model.readout is not None:
        metadata = {"polyprompt": json.dumps(model.readout.about)}
        state = {name: value.contiguous().cpu() for name, value in model.readout.state_dict().items()}
        write_atomic(run / READOUT, save(state, metadata))
    if any(weight.requires_grad for weight in model.backbone.parameters()):
        state = {name: value.contiguous().cpu() for name, value in model.backbone.model.state_dict().items()}
        write_atomic(run / BACKBONE, save(state))


def load_run(run: Path) -> PromptedModel:
    """The model of a finished run, frozen and ready to predict.

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
    prompt, readout = None, None
    try:
        if (run / PROMPT).exists():
            with safe_open(run / PROMPT, framework="pt") as file:
                about = json.loads(file.metadata()["polyprompt"])
                prompt = PromptBank(file.get_tensor("prefix"), about["rows"], tuple(about["layers"]), about["gated"])
        if any(head_kind(card, config.head) is not HeadKind.LINEAR for card in manifest.tasks):
            with safe_open(run / READOUT, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                readout = Readout(state, **json.loads(file.metadata()["polyprompt"]))
        model = PromptedModel(backbone, prompt, manifest.tasks, config.pooling, readout)
        model.heads.load_state_dict(load_file(run / HEADS))
        if (run / BACKBONE).exists():
            backbone.model.load_state_dict(load_file(run / BACKBONE))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise PolypromptError(f"{run}: its weights are missing or damaged: {error}") from None
    return model.requires_grad_(False).eval()


def trained_parameters(model: torch.nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
