"""`python -m harness.interchange`: a prompt that was trained elsewhere, as a folder that a run can start from.

Two formats are read: adapters of peft (prefix tuning, prompt tuning, p-tuning), and checkpoints of the code of
P-Tuning v2 (github.com/THUDM/P-tuning-v2) as safetensors. Both shift the positions of the real tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from benchmarks.registry import find_task, own_suites
from benchmarks.task import Kind, TaskCard
from harness.adapt import ADAPTER, ADAPTER_CONFIG
from harness.backbone import Backbone, load_backbone
from harness.heads import HeadKind
from harness.model import HEADS, make_head
from harness.placement import Placement, Positions
from harness.readout import make_readout
from harness.sharing import PromptBank

HEAD = {Kind.TAGGING: "classifier", Kind.SPAN: "qa_outputs"}
"""What transformers calls the head of a kind of task that reads the encoder's states as ours does."""

POOLED = "classifier"
"""What it calls the head behind the pooler in BertForSequenceClassification."""


@dataclass(frozen=True)
class Foreign:
    """What was read.

    Attributes:
        bank: the prompt, of every task.
        state: all other tensors of the file.
        pooler: a head for sequences in `state` reads a frozen pooler. Of the classes of transformers only BERT's does.
    """

    bank: PromptBank
    state: Mapping[str, Tensor]
    pooler: bool


class AdapterConfig(BaseModel):
    """What is read of adapter_config.json. All else in it says how to train, or what code to call, and is ignored.

    Attributes:
        peft_type, task_type: PREFIX_TUNING and the like; SEQ_CLS and the like.
        num_virtual_tokens: slots. num_transformer_submodules: 2 for an encoder with a decoder.
    """

    peft_type: str
    task_type: str | None = None
    num_virtual_tokens: int
    num_transformer_submodules: int | None = None


def read_foreign(source: Path, backbone: Backbone) -> Foreign:
    """Read a prompt of another program.

    Args:
        source: a folder with an adapter of peft, or a safetensors file of the P-Tuning v2 code.
        backbone: the encoder that it was trained with.

    Raises:
        PolypromptError: neither of them, damaged, a pickle, or a prompt that this encoder cannot take.
    """
    if source.is_dir():
        return _read_peft(source, backbone)
    if not source.exists():
        raise PolypromptError(f"{source}: no such file or folder")
    return _read_ptuning_v2(source, backbone)


def _read_peft(folder: Path, backbone: Backbone) -> Foreign:
    try:
        config = AdapterConfig.model_validate_json((folder / ADAPTER_CONFIG).read_bytes())
    except FileNotFoundError:
        raise PolypromptError(f"{folder}: no {ADAPTER_CONFIG} there; an adapter of peft has one") from None
    except (OSError, ValidationError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else error
        raise PolypromptError(
            f"{folder / ADAPTER_CONFIG}: not the configuration of a prompt of peft ({reason})"
        ) from None
    if config.peft_type not in ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"):
        raise PolypromptError(f"{folder}: an adapter of type {config.peft_type}; only prompts are read")
    if config.num_transformer_submodules not in (None, 1):
        raise PolypromptError(f"{folder}: a prompt for an encoder with a decoder; only encoders are supported")
    if not (folder / ADAPTER).is_file():
        _refuse_pickle(folder / "adapter_model.bin")
        raise PolypromptError(f"{folder}: no {ADAPTER} there")
    state = dict(_load(folder / ADAPTER))
    rows = _take(state, "prompt_embeddings", folder / ADAPTER)
    bank = _bank(rows, config.peft_type == "PREFIX_TUNING", folder / ADAPTER, backbone)
    if bank.slots != config.num_virtual_tokens:
        raise PolypromptError(f"{folder}: {bank.slots} slots, but {ADAPTER_CONFIG} says {config.num_virtual_tokens}")
    return Foreign(bank, state, config.task_type == "SEQ_CLS" and backbone.card.family == "bert")


def _read_ptuning_v2(path: Path, backbone: Backbone) -> Foreign:
    state = dict(_load(path))
    rows = _take(state, "prefix_encoder.embedding.weight", path)
    if "prefix_encoder.trans.0.weight" in state:
        first, second = (
            [_take(state, f"prefix_encoder.trans.{layer}.{part}", path) for part in ("weight", "bias")]
            for layer in (0, 2)
        )
        rows = torch.tanh(rows @ first[0].T + first[1]) @ second[0].T + second[1]
    return Foreign(_bank(rows, True, path, backbone), state, True)


def _bank(rows: Tensor, deep: bool, path: Path, backbone: Backbone) -> PromptBank:
    """The prompt of one row a slot. In a deep one lie layer by layer keys, then values, heads side by side."""
    width = backbone.layers * 2 * backbone.hidden if deep else backbone.words.embedding_dim
    if rows.ndim != 2 or rows.shape[1] != width:
        raise PolypromptError(
            f"{path}: a prompt of shape {list(rows.shape)}, and one for {backbone.card.name} has {width} columns: it "
            "is of another encoder"
        )
    prompt = rows.float()
    if deep:
        prompt = prompt.view(len(rows), backbone.layers, 2, backbone.heads, backbone.head_dim).permute(1, 2, 3, 0, 4)
    layers = tuple(range(backbone.layers)) if deep else None
    return PromptBank(prompt[None].contiguous(), {"": 0}, Placement(layers=layers, positions=Positions.SHIFTED))


def _take(state: dict[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in state:
        raise PolypromptError(f"{path}: no tensor {name} there, so no prompt that could be read")
    return state.pop(name)


def _load(path: Path) -> dict[str, Tensor]:
    _refuse_pickle(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PolypromptError(f"{path}: not a whole safetensors file ({error})") from None


def _refuse_pickle(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        mark = file.read(2)
    if mark == b"PK" or mark[:1] == b"\x80":  # torch's archive, and its older form
        raise PolypromptError(
            f"{path}: a pickle, which can run code when it is opened, so it is not read; where you trust it, write it "
            "as safetensors: safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
        )


def head_of(foreign: Foreign, card: TaskCard, backbone: Backbone) -> tuple[dict[str, Tensor], str]:
    """The head of a task, and a sentence on it.

    Returns:
        "TASK.weight" [labels, hidden] and "TASK.bias" [labels], or nothing where ours cannot be as the other one is.
    """
    own = make_head(card, backbone.hidden)
    name = HEAD.get(card.kind, POOLED)
    found = {part: _ending(foreign.state, f"{name}.{part}") for part in ("weight", "bias")}
    if own is None or any(tensor is None for tensor in found.values()):
        return {}, f"no head for {card.name} in it"
    if card.kind not in HEAD and not _same_pooler(foreign, card, backbone):
        return {}, "its head is left out: what it reads is not the pooler in the checkpoint of the encoder"
    if found["weight"].shape != own.weight.shape:
        return {}, f"its head is left out: it has {len(found['weight'])} labels, and {card.name} {own.out_features}"
    order = f", in the order {', '.join(card.labels)}" if card.labels else ""
    behind = "" if card.kind in HEAD else "; it reads the pooler: score it with --head pooler"
    return {f"{card.name}.{part}": tensor.float() for part, tensor in found.items()}, f"with its head{order}{behind}"


def _same_pooler(foreign: Foreign, card: TaskCard, backbone: Backbone) -> bool:
    """Whether a head for sequences reads a pooler, and the one that we read."""
    ours = make_readout(HeadKind.POOLER, backbone, [card], {})
    theirs = _ending(foreign.state, "pooler.dense.weight")
    if not foreign.pooler or ours is None or ours.drawn:
        return False
    return theirs is None or torch.equal(theirs.float(), ours.dense.weight)


def _ending(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    return next((tensor for key, tensor in state.items() if key == name or key.endswith(f".{name}")), None)


def convert(source: Path, backbone: Backbone, out: Path, card: TaskCard | None) -> dict[str, object]:
    """Write the folder.

    Args:
        source, backbone: see `read_foreign`. out: the folder. card: the task whose head is taken over, too.

    Returns:
        What was found, for people and programs.
    """
    foreign = read_foreign(source, backbone)
    foreign.bank.write(out)
    layers = foreign.bank.placement.layers
    about: dict[str, object] = {
        "folder": str(out),
        "method": "prompt-tuning" if layers is None else "ptuning-v2",
        "slots": foreign.bank.slots,
        "positions": foreign.bank.placement.positions.value,
    }
    if card is not None:
        head, about["head"] = head_of(foreign, card, backbone)
        if head:
            write_atomic(out / HEADS, save({name: tensor.contiguous() for name, tensor in head.items()}))
    return about


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.interchange", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of a peft adapter, or safetensors file of P-Tuning v2's code")
    parser.add_argument("--backbone", required=True, help="the encoder that it was trained with, as for harness.run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, for --start-from of harness.run")
    parser.add_argument("--task", help="take over the head, too, as that of this task")
    parser.add_argument("--task-file", type=Path, action="append", default=[], help="file that declares the task")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    options = parser.parse_args()
    card = None if options.task is None else find_task(options.task, own_suites(options.task_file)).card
    about = convert(options.source, load_backbone(options.backbone), options.out, card)
    if options.json:
        print(json.dumps(about, indent=2))
        return 0
    head = f"; {about['head']}" if "head" in about else ""
    print(f"{about['folder']}: {about['slots']} slots, positions {about['positions']}{head}")
    print(f"go on with: python -m harness.run --method {about['method']} --start-from {about['folder']} ...")
    print("with --max-steps 0 it is scored as it is")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
