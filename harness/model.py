"""A frozen backbone with its prompt and one head a task."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.task import Kind, TaskCard
from harness.attention import Prefix
from harness.backbone import Backbone, SoftPrompt, Trunk
from harness.by_name import ByName
from harness.heads import HeadLayers, Pooling
from harness.inference import Inference
from harness.placement import Positions
from harness.readout import Readout
from harness.sharing import PromptBank, Prompts

HEADS = "heads.safetensors"
"""The file of trained heads in a run folder."""


def make_head(card: TaskCard, hidden: int) -> nn.Linear | None:
    """The linear head of a task; None for retrieval, which reads the encoder itself."""
    widths = {Kind.REGRESSION: 1, Kind.CHOICE: 1, Kind.SPAN: 2}
    if card.kind is Kind.RETRIEVAL:
        return None
    head = nn.Linear(hidden, widths.get(card.kind, len(card.labels)))
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


class PromptedModel(nn.Module):
    """What a method trains and what an export writes.

    Args:
        backbone: the encoder.
        prompt: the prompts of the tasks; None for methods without one.
        cards: the tasks; every one gets a head, but retrieval, those that the head of another one answers, and those
            that a masked-LM head answers.
        pooling: what sequence heads read. head_layers: what those of tags and answers read.
        readout: frozen layers between the encoder and the sequence tasks that read them; None: no task does.

    Attributes:
        inference: computes what it can of the frozen encoder where no gradient is asked for; None: nothing but our own.
        tasks: names of the tasks that have a head or a prompt of their own, or could have.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: Prompts | PromptBank | None,
        cards: list[TaskCard],
        pooling: Pooling,
        readout: Readout | None = None,
        head_layers: HeadLayers = HeadLayers.LAST,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = prompt
        self.pooling = pooling
        self.readout = readout
        self.head_layers = head_layers
        self.inference: Inference | None = None
        self.tasks = tuple(dict.fromkeys(card.answered_by for card in cards))
        self._any_below = any(self.below(card) for card in cards)
        spoken = {} if readout is None else readout.words
        heads = {
            card.name: make_head(card, self.width(card)) for card in cards if not (card.head or card.name in spoken)
        }
        self.heads = ByName({name: head for name, head in heads.items() if head is not None})

    def below(self, card: TaskCard) -> bool:
        """Whether the head of a task reads what enters each layer besides what the last one makes."""
        return self.head_layers is HeadLayers.ALL and card.kind in (Kind.TAGGING, Kind.SPAN)

    def width(self, card: TaskCard) -> int:
        """Of what a task's head reads."""
        read = self.head_layers if self.below(card) else HeadLayers.LAST
        return read.width(self.backbone.hidden, self.backbone.layers)

    @property
    def max_positions(self) -> int:
        """Pieces of the longest row: positions that are shifted leave less room."""
        shifted = self.prompt is not None and self.prompt.placement.positions is Positions.SHIFTED
        return self.backbone.max_positions - (self.prompt.slots if shifted else 0)

    @property
    def trunk_layers(self) -> int:
        """Layers from below that compute the same for a row whatever is trained: frozen, and without a prompt."""
        if any(weight.requires_grad for weight in self.backbone.parameters()) or self._any_below:
            return 0
        if self.prompt is None:
            return self.backbone.layers
        return min(self.prompt.placement.layers or (0,))

    def prompt_of(self, card: TaskCard, language: str = "") -> Prefix | SoftPrompt | None:
        """The prompt of a pass, None without one."""
        return None if self.prompt is None else self.prompt(card.answered_by, language)

    @property
    def all_heads(self) -> dict[str, nn.Linear]:
        """Task -> the linear layer that gives its scores: a trained head, or the words of its labels."""
        return dict(self.heads.items()) | ({} if self.readout is None else dict(self.readout.words.items()))

    def outputs(
        self,
        card: TaskCard,
        input_ids: Tensor,
        lengths: Tensor,
        type_ids: Tensor | None = None,
        language: str = "",
        trunk: Trunk | None = None,
    ) -> Tensor:
        """One pass of a homogeneous batch.

        Args:
            card: the task of every row.
            input_ids: [rows, seq], padded on the right, with a mask where the task is answered at one.
            lengths: [rows]. type_ids: [rows, seq].
            language: of every row, for prompts with a part for it.
            trunk: what `trunk_layers` make of these rows; None: it is computed.

        Returns:
            Classification: logits [rows, labels]. Regression, multiple choice: [rows, 1]. Tagging: [rows, seq, labels].
            Span extraction: logits of begin and end [rows, seq, 2]. Retrieval: unit vectors [rows, hidden].
        """
        prompt = self.prompt_of(card, language)
        asked = prompt, self.read(card), trunk, self.inference, self.below(card)
        states = self.backbone(input_ids, lengths, type_ids, *asked)
        if card.kind is Kind.RETRIEVAL:
            return functional.normalize(_mean(states, lengths), dim=-1)
        if self.readout is not None and self.readout.reads(card):
            states = self.readout(states[:, 0])
        elif card.kind not in (Kind.TAGGING, Kind.SPAN):
            states = states[:, 0] if self.pooling is Pooling.CLS else _mean(states, lengths)
        return self.all_heads[card.answered_by](states)

    def read(self, card: TaskCard) -> int | None:
        """The position of the only piece whose state a task reads; None where it reads all."""
        if self.readout is not None and self.readout.reads(card):
            return self.readout.position
        return 0 if card.kind in _SEQUENCE and self.pooling is Pooling.CLS else None


_SEQUENCE = (Kind.CLASSIFICATION, Kind.REGRESSION, Kind.CHOICE)


def _mean(states: Tensor, lengths: Tensor) -> Tensor:
    real = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
    return (states * real[..., None]).sum(1) / lengths[:, None]
