"""How a task is answered: by which kind of head, and from what of the encoder. Free of torch."""

from __future__ import annotations

from enum import StrEnum

from benchmarks.task import Kind, TaskCard


class Pooling(StrEnum):
    """What a linear sequence head reads: the first token, or the mean over real tokens."""

    CLS = "cls"
    MEAN = "mean"


class HeadLayers(StrEnum):
    """What heads read of each piece where a task asks for all of them: what the last layer makes of it, or the states
    behind all layers and in front of the first, side by side, each with weights of its own (a mixture of layers as in
    ELMo, arXiv 1802.05365, but by the head's own weights).
    """

    LAST = "last"
    ALL = "all"

    def width(self, hidden: int, layers: int) -> int:
        """Of what such a head reads, by the width and the number of the encoder's layers."""
        return hidden * (layers + 1 if self is HeadLayers.ALL else 1)


class HeadKind(StrEnum):
    """How sequence tasks are answered (P-Tuning v2, sections 3.3 and 4.4).

    `linear`: by a trained linear layer on the encoder's state. `pooler`: the same behind the encoder's frozen pooler,
    as in the authors' code. `verbaliser`: classification by the frozen masked-LM head, which scores a word for each
    label at a mask, so that nothing but the prompt is trained. Other kinds of task have no labels to say and keep the
    linear layer.
    """

    LINEAR = "linear"
    POOLER = "pooler"
    VERBALISER = "verbaliser"


def head_kind(card: TaskCard, asked: HeadKind) -> HeadKind:
    """How a task is answered where a run asks for some kind of head."""
    kinds = {
        HeadKind.LINEAR: (),
        HeadKind.POOLER: (Kind.CLASSIFICATION, Kind.REGRESSION, Kind.CHOICE),
        HeadKind.VERBALISER: (Kind.CLASSIFICATION,),
    }
    return asked if card.kind in kinds[asked] else HeadKind.LINEAR
