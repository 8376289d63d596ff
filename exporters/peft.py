"""`python -m exporters.peft`: the prompt or adapter of one task with its head, as an adapter that peft opens."""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, TaskType
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from benchmarks.results import Manifest, read_model
from benchmarks.task import Kind, TaskCard
from exporters.bundle import complete_or_absent
from harness.adapt import ADAPTER, ADAPTER_CONFIG, WRAPPED, adapter_json, lora_config
from harness.backbone import Backbone, load_backbone
from harness.config import load_config
from harness.heads import HeadKind, Pooling
from harness.methods import Weights, find_method
from harness.model import PromptedModel
from harness.placement import Positions
from harness.sharing import PromptBank
from harness.store import LORA, load_run

ATOL = 1e-4
"""Largest difference to our own outputs; more is no matter of rounding."""

CLASSES = {
    TaskType.FEATURE_EXTRACTION: AutoModel,
    TaskType.TOKEN_CLS: AutoModelForTokenClassification,
    TaskType.SEQ_CLS: AutoModelForSequenceClassification,
}
"""The class of transformers that an adapter is for, by the type of task that peft knows it by."""


@dataclass(frozen=True)
class Form:
    """A head as transformers has it.

    Attributes:
        type: which class has it. weights: its tensors, by their names in that class.
        read: how the answer is read from the outputs of that class, a sentence.
    """

    type: TaskType
    weights: Mapping[str, Tensor]
    read: str


def export_adapter(run: Path, out: Path, task: str | None = None) -> dict[str, object]:
    """Write an adapter of peft and refuse it unless peft computes with it what we compute.

    Args:
        run: a finished run with a prompt or LoRA. out: folder of the adapter; an older one there is replaced.
        task: whose prompt and head; None: the only one's.

    Returns:
        What was written, for people and programs.

    Raises:
        PolypromptError: no such task, or a run that peft cannot express; says why. `out` is then as it was.
    """
    manifest, config = read_model(run / "manifest.json", Manifest), load_config(run / "config.toml")
    card = _card(manifest, task)
    model, backbone = load_run(run), load_backbone(config.backbone)
    form = form_of(model, card)
    if find_method(config.method).backbone is Weights.LORA:
        about = lora_config(backbone, config.lora_rank, config.lora_alpha)
        tensors, front = _lora(backbone, form, load_file(run / LORA / ADAPTER)), WRAPPED
    else:
        about, tensors = _prompt(model, card, form)
        front = "base_model."
    about.task_type, about.base_model_name_or_path = form.type, backbone.card.name
    about.modules_to_save = sorted({name.partition(".")[0] for name in form.weights}) or None
    tensors = tensors | {front + name: tensor for name, tensor in form.weights.items()}
    with complete_or_absent(out, ADAPTER_CONFIG) as folder:
        write_atomic(folder / ADAPTER, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        write_atomic(folder / ADAPTER_CONFIG, adapter_json(about))
        difference = _difference(model, backbone, card, form, folder)
        if not difference <= ATOL:
            raise PolypromptError(
                f"{run}: peft computes other values with it than we do (largest difference {difference:.1e}); nothing "
                "was written"
            )
    return {
        "folder": str(out),
        "task": card.name,
        "type": about.peft_type.value,
        "class": CLASSES[form.type].__name__,
        "labels": list(card.labels),
        "read": form.read,
        "difference": difference,
    }


def form_of(model: PromptedModel, card: TaskCard) -> Form:
    """The head of a task as transformers has it.

    Token classes have ours: a linear layer on the states. Sequence classes put layers of their own in front of it, and
    peft gives no token types to question answering, so that those kinds are read from the classes for tokens, too.

    Raises:
        PolypromptError: transformers has no such head.
    """
    if card.kind is Kind.RETRIEVAL:
        return Form(TaskType.FEATURE_EXTRACTION, {}, "the mean of last_hidden_state over real pieces, at length one")
    if model.below(card):
        raise PolypromptError(f"task {card.name}: peft has no class with a head over all layers (--head-layers all)")
    head, readout, family = model.all_heads[card.answered_by], model.readout, model.backbone.card.family
    weights = {"weight": head.weight.detach(), "bias": head.bias.detach()}
    if readout is None or not readout.reads(card):
        sequence = "logits of the first piece" if model.pooling is Pooling.CLS else "mean of logits over real pieces"
        read = {Kind.TAGGING: "logits of each piece", Kind.SPAN: "logits of begin and end of each piece"}
        named = {f"classifier.{part}": tensor for part, tensor in weights.items()}
        return Form(TaskType.TOKEN_CLS, named, read.get(card.kind, sequence))
    if readout.kind is HeadKind.POOLER and family == "bert" and not readout.drawn:
        return Form(TaskType.SEQ_CLS, {f"classifier.{part}": tensor for part, tensor in weights.items()}, "logits")
    if readout.kind is HeadKind.POOLER and family in ("roberta", "xlm-roberta", "camembert"):
        dense = {f"classifier.dense.{part}": tensor for part, tensor in readout.dense.state_dict().items()}
        out = {f"classifier.out_proj.{part}": tensor for part, tensor in weights.items()}
        return Form(TaskType.SEQ_CLS, dense | out, "logits")
    raise PolypromptError(f"task {card.name}: peft has no class of {family} with a head behind such layers ({readout})")


def _card(manifest: Manifest, task: str | None) -> TaskCard:
    cards = {card.name: card for card in manifest.tasks}
    if task is None and len(cards) == 1:
        return manifest.tasks[0]
    if task not in cards:
        what = "name one with --task" if task is None else f"no task {task}"
        raise PolypromptError(f"{manifest.run}: {what}; there are {', '.join(cards)}")
    return cards[task]


def _lora(backbone: Backbone, form: Form, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter of a run around the encoder inside of another class."""
    inside = "" if form.type is TaskType.FEATURE_EXTRACTION else f"{backbone.model.base_model_prefix}."
    return {WRAPPED + inside + name.removeprefix(WRAPPED): tensor for name, tensor in stored.items()}


def _prompt(model: PromptedModel, card: TaskCard, form: Form) -> tuple[PeftConfig, dict[str, Tensor]]:
    """The prompt of a task as peft lays it out: a row a slot, layer by layer keys, then values, heads side by side."""
    bank, backbone = model.prompt, model.backbone
    if not isinstance(bank, PromptBank):
        raise PolypromptError("peft knows prompts and LoRA; this run trained neither")
    row = bank.row(card.answered_by, card.train_language or "")
    if row is None:
        raise PolypromptError(f"task {card.name}: was not trained and has no prompt of its own")
    placement, prompt = bank.placement, bank.bank[row]
    if placement.positions is not Positions.SHIFTED:
        raise PolypromptError(
            "peft shifts the positions of the real tokens behind the prompt, and this run left them where they are; "
            "train it with --positions shifted"
        )
    settings = {
        "task_type": form.type,
        "num_virtual_tokens": bank.slots,
        "num_layers": backbone.layers,
        "num_attention_heads": backbone.heads,
        "num_transformer_submodules": 1,
    }
    if placement.layers is None:
        about: PeftConfig = PromptTuningConfig(token_dim=prompt.shape[1], **settings)
        return about, {"prompt_embeddings": prompt}
    if placement.gated or placement.layers != tuple(range(backbone.layers)):
        what = "a gate" if placement.gated else "a prompt in some layers alone"
        raise PolypromptError(f"prefix tuning of peft has keys and values in every layer and no gate; this is {what}")
    if "past_key_values" not in inspect.signature(type(backbone.model).forward).parameters:
        raise PolypromptError(f"prefix tuning of peft does not work on {backbone.card.family}: it takes no past keys")
    about = PrefixTuningConfig(token_dim=backbone.hidden, encoder_hidden_size=backbone.hidden, **settings)
    return about, {"prompt_embeddings": prompt.permute(3, 0, 1, 2, 4).reshape(bank.slots, -1)}


def base_of(model: PromptedModel, backbone: Backbone, form: Form, columns: int) -> PreTrainedModel:
    """The class of transformers that an adapter is for, around an encoder, with any head.

    Args:
        model: whose pooler it gets, if it has one. backbone: the encoder. form: which class. columns: of the head.
    """
    config = copy.deepcopy(backbone.model.config)
    config.num_labels = columns
    base = CLASSES[form.type].from_config(config, attn_implementation="sdpa")
    body = base if form.type is TaskType.FEATURE_EXTRACTION else getattr(base, base.base_model_prefix)
    body.load_state_dict(backbone.model.state_dict(), strict=False)
    if model.readout is not None and getattr(body, "pooler", None) is not None:
        body.pooler.dense.load_state_dict(model.readout.dense.state_dict())
    return base.eval()


@torch.no_grad()
def _difference(model: PromptedModel, backbone: Backbone, card: TaskCard, form: Form, folder: Path) -> float:
    """The largest one between our outputs and those of peft with an adapter, on random rows of many lengths."""
    longest = min(model.max_positions, 64)
    lengths = torch.tensor([longest, 1, *range(3, longest, 9)])
    real = torch.arange(longest) < lengths[:, None]
    ids = torch.randint(backbone.words.num_embeddings, real.shape, generator=torch.Generator().manual_seed(0))
    ids[ids == backbone.pad_id] += 1  # which RoBERTa of transformers takes for padding wherever it stands
    ids[~real] = backbone.pad_id
    types = ((torch.arange(longest) >= lengths[:, None] // 2) & real & (card.kind is not Kind.RETRIEVAL)).long()
    ours = model.outputs(card, ids, lengths, types, card.train_language or "")
    base = base_of(model, backbone, form, ours.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, on a name that peft still uses
        theirs = PeftModel.from_pretrained(base, folder)
    marks = {"token_type_ids": types} if backbone.token_types else {}
    values = read(theirs(input_ids=ids, attention_mask=real.long(), **marks), model, card, form, lengths)
    distance = (values - ours).abs()
    return float((distance[real] if distance.ndim == 3 else distance).max())


def read(outputs: ModelOutput, model: PromptedModel, card: TaskCard, form: Form, lengths: Tensor) -> Tensor:
    """What `form.read` says, as `PromptedModel.outputs` gives it."""
    if form.type is TaskType.SEQ_CLS:
        return outputs.logits
    states = outputs.last_hidden_state if form.type is TaskType.FEATURE_EXTRACTION else outputs.logits
    if model.prompt is not None and model.prompt.placement.layers is None:
        states = states[:, model.prompt.slots :]  # peft leaves the rows of the prompt in
    if card.kind in (Kind.TAGGING, Kind.SPAN):
        return states
    if card.kind is not Kind.RETRIEVAL and model.pooling is Pooling.CLS:
        return states[:, 0]
    real = torch.arange(states.shape[1]) < lengths[:, None]
    mean = (states * real[..., None]).sum(1) / lengths[:, None]
    return functional.normalize(mean, dim=-1) if card.kind is Kind.RETRIEVAL else mean


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.peft", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--task", help="whose prompt and head; not needed where there is one")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    options = parser.parse_args()
    about = export_adapter(options.run, options.out, options.task)
    if options.json:
        print(json.dumps(about, indent=2))
        return 0
    print(f"{about['folder']}: {about['type']} for {about['class']}; read {about['read']}")
    print(f"largest difference to our outputs, computed by peft: {about['difference']:.1e} (allowed {ATOL:g})")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
