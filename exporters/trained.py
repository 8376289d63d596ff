"""What a run trained beside its encoder: all that a bundle needs of it, read in no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from benchmarks.errors import PolypromptError
from benchmarks.results import BackboneCard, Manifest
from benchmarks.task import Kind, TaskCard
from exporters.bundle import BundledTask
from exporters.graph import OUTPUTS, Blueprint
from exporters.tasks import Head, Prompt, Readout, Tensors, task_tensors
from exporters.weights import Floats, Linear, Norm
from harness.config import RunConfig
from harness.heads import HeadKind, HeadLayers, Pooling, head_kind
from harness.model import HEADS, PromptedModel
from harness.placement import Positions
from harness.readout import Readout as FrozenLayers
from harness.sharing import PROMPT, PromptBank
from harness.store import read_readout


class Known(NamedTuple):
    """What the graph knows by one `task_id`: a task, in a language with a prompt of its own or in all others ("").

    Attributes:
        row: of its prompt; None: it has none.
    """

    card: TaskCard
    language: str
    row: int | None


@dataclass(frozen=True)
class Trained:
    """What was trained for some tasks, and the frozen layers before their heads.

    Attributes:
        cards: the tasks. heads: by the task that owns it.
        prompt: of all tasks; None: none has one.
        pooling: what linear heads read. readout: layers that other heads read.
        head_layers: what the heads of tags and answers read.
    """

    cards: Sequence[TaskCard]
    heads: dict[str, Head]
    prompt: PromptBank | None
    pooling: Pooling
    readout: FrozenLayers | None
    head_layers: HeadLayers = HeadLayers.LAST

    @classmethod
    def of_model(cls, model: PromptedModel, cards: Sequence[TaskCard]) -> Trained:
        """What a model has of this."""
        heads = {name: Head(*_weight_bias(head)) for name, head in model.all_heads.items()}
        prompt = None if model.prompt is None else model.prompt.fold(model.tasks)
        return cls(cards, heads, prompt, model.pooling, model.readout, model.head_layers)

    @classmethod
    def of_run(cls, run: Path, manifest: Manifest, config: RunConfig) -> Trained:
        """What a finished run has of this; its encoder is not opened.

        Raises:
            PolypromptError: a file is absent or damaged.
        """
        try:
            tensors = load_file(run / HEADS)
            heads = {
                name: Head(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
                for name in dict.fromkeys(key.rpartition(".")[0] for key in tensors)
            }
        except (OSError, SafetensorError, KeyError) as error:
            raise PolypromptError(f"{run / HEADS}: missing or damaged: {error}") from None
        readout = None
        if any(head_kind(card, config.head) is not HeadKind.LINEAR for card in manifest.tasks):
            readout = read_readout(run)
            heads |= {name: Head(*_weight_bias(head)) for name, head in readout.words.items()}
        prompt = PromptBank.read(run) if (run / PROMPT).exists() else None
        return cls(manifest.tasks, heads, prompt, config.pooling, readout, config.head_layers)

    @property
    def kind(self) -> HeadKind:
        """How those tasks are answered that linear heads do not answer."""
        return HeadKind.LINEAR if self.readout is None else self.readout.kind

    @property
    def known(self) -> list[Known]:
        """By `task_id` what the graph knows: the tasks first, so that without languages there is no more."""
        if self.prompt is None:
            return [Known(card, "", None) for card in self.cards]
        rows = [Known(card, "", self.prompt.row(card.answered_by)) for card in self.cards]
        for card in self.cards:
            rows += [Known(card, *pair) for pair in self.prompt.by_language(card.answered_by).items()]
        return rows

    def blueprint(self, layers: int) -> Blueprint:
        """The graph that has room for this.

        Args:
            layers: of the encoder.
        """
        placement = None if self.prompt is None else self.prompt.placement
        if placement is not None and placement.layers is not None and not placement.gated:
            # All layers, since a layer without slots costs next to nothing, and a task may come that has them there.
            placement = placement.model_copy(update={"layers": tuple(range(layers))})
        return Blueprint(placement, self.pooling, self.kind, self.head_layers)

    def tensors(self, blueprint: Blueprint, encoder: BackboneCard, readout: Readout | None = None) -> Tensors:
        """What a graph is fed for the tasks.

        Args:
            blueprint: of the graph. encoder: of the graph, too.
            readout: frozen layers that the graph has and these tasks do not read.
        """
        prompt, layers = None, ()
        if blueprint.placement is not None:
            layers = blueprint.placement.layers or ()
            if self.prompt is None:
                prompt = Prompt(None, blueprint.placement, [None] * len(self.cards))
            else:
                rows = [one.row for one in self.known]
                prompt = Prompt(self.prompt.bank.float().cpu().numpy(), self.prompt.placement, rows)
        own = readout if self.readout is None else frozen_layers(self.readout, self.cards)
        width = blueprint.head_layers.width(encoder.hidden, encoder.layers)
        return task_tensors([one.card for one in self.known], self.heads, encoder.hidden, prompt, own, layers, width)

    def bundled(self, manifest: Manifest, max_positions: int, mask_id: int | None) -> list[BundledTask]:
        """The tasks as a bundle's card describes them.

        Args:
            manifest: of the run. max_positions: of the encoder, in pieces. mask_id: the mask piece of its tokenizer.
        """
        known, bank, tasks = self.known, self.prompt, []
        if bank is not None and bank.placement.positions is Positions.SHIFTED:
            max_positions -= bank.slots
        for number, card in enumerate(self.cards):
            slots = 0 if bank is None or bank.row(card.answered_by) is None else bank.slots
            kind = head_kind(card, self.kind)
            head = self.heads.get(card.answered_by)
            tasks.append(
                BundledTask(
                    card=card,
                    run=manifest.run,
                    run_task=card.name,
                    task_id=number,
                    output=OUTPUTS[card.kind],
                    columns=manifest.backbone.hidden if card.kind is Kind.RETRIEVAL else len(head.bias),
                    threshold=_threshold(manifest, card),
                    languages={
                        one.language: place
                        for place, one in enumerate(known)
                        if one.language and one.card.name == card.name
                    },
                    thresholds=_thresholds(manifest, card),
                    head=kind,
                    mask_id=mask_id if kind is HeadKind.VERBALISER else None,
                    slots=slots,
                    prompt_layers=list(bank.placement.layers or ()) if slots else [],
                    max_positions=max_positions,
                )
            )
        return tasks


def frozen_layers(layers: FrozenLayers, cards: Sequence[TaskCard]) -> Readout:
    """What stands before the heads of some tasks, as the graph is fed it."""
    weight, bias = _weight_bias(layers.dense)
    norm = None if layers.norm is None else Norm(*_weight_bias(layers.norm))
    tasks = frozenset(card.name for card in cards if layers.reads(card))
    return Readout(tasks, Linear(weight.T, bias), norm)


def _weight_bias(module: nn.Linear | nn.LayerNorm) -> tuple[Floats, Floats]:
    weight, bias = (tensor.detach().float().cpu().numpy() for tensor in (module.weight, module.bias))
    return weight, bias


def threshold_of(manifest: Manifest, card: TaskCard, language: str) -> float | None:
    """The threshold of "no answer" of a task in a language."""
    return _thresholds(manifest, card).get(language, _threshold(manifest, card))


def _threshold(manifest: Manifest, card: TaskCard) -> float | None:
    """The threshold of the main language that was trained in; without training, of the first language."""
    known = manifest.thresholds.get(card.name, {})
    return known.get(card.train_language or "", next(iter(known.values()), None))


def _thresholds(manifest: Manifest, card: TaskCard) -> dict[str, float]:
    """Those of each language, where there are several."""
    known = manifest.thresholds.get(card.name, {})
    return known if len(known) > 1 else {}
