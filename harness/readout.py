"""What stands between the encoder and the scores of a sequence task: nothing, its pooler, or its masked-LM head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM
from transformers.activations import ACT2FN

from benchmarks.errors import PolypromptError
from benchmarks.task import TaskCard
from harness.backbone import POOLED, Backbone, pretrained
from harness.by_name import ByName
from harness.features import MASK_POSITION
from harness.heads import HeadKind, head_kind

DRAW_SEED = 20211014
"""Of a pooler that no checkpoint brings: the same one in every run, whatever its own seed, so that runs compare."""

MASKED_LM = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "hidden_act"),
    "camembert": ("lm_head.dense", "lm_head.layer_norm", None),
    "deberta-v2": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "hidden_act"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "activation"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", None),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", None),
    "xlm-roberta": ("lm_head.dense", "lm_head.layer_norm", None),
}
"""Family -> modules of its masked-LM head in transformers (dense layer, norm) and the setting that names the
activation between them; None: GELU."""


_NOTHING: Mapping[str, Mapping[str, str]] = {}


class Readout(nn.Module):
    """Frozen layers on the state of one piece: a pooler `tanh(dense(x))`, or a masked-LM head `norm(gelu(dense(x)))`.

    Args:
        state: "dense.weight" [width, hidden] and "dense.bias"; of a masked-LM head "norm.weight" and "norm.bias" too,
            and for each task with label words "words.TASK.weight" [labels, width] and "words.TASK.bias" [labels].
        kind: which of the two. activation: as transformers calls it. epsilon: of the norm.
        drawn: the weights are random ones, since the checkpoint has none.
        said: task -> label -> the piece that is scored for it.

    Attributes:
        about: the arguments but the first, as they are stored.
        words: task -> the masked-LM head's output layer, cut to the pieces of the labels.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        kind: str,
        activation: str,
        epsilon: float = 0.0,
        drawn: bool = False,
        said: Mapping[str, Mapping[str, str]] = _NOTHING,
    ) -> None:
        super().__init__()
        self.kind, self.drawn, self.said = HeadKind(kind), drawn, said
        self.about = {"kind": kind, "activation": activation, "epsilon": epsilon, "drawn": drawn, "said": said}
        self.activation = ACT2FN[activation]
        width, hidden = state["dense.weight"].shape
        self.dense = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, epsilon) if "norm.weight" in state else None
        sizes = {name.split(".")[1]: len(bias) for name, bias in state.items() if name.startswith("words.")}
        self.words = ByName({task: nn.Linear(width, labels) for task, labels in sizes.items()})
        self.load_state_dict(state)
        self.requires_grad_(False)

    @property
    def position(self) -> int:
        """Of the piece that is read."""
        return MASK_POSITION if self.kind is HeadKind.VERBALISER else 0

    def reads(self, card: TaskCard) -> bool:
        """Whether a task is answered through these layers."""
        return head_kind(card, self.kind) is self.kind

    def forward(self, states: Tensor) -> Tensor:
        """The states of the piece at `position`, [rows, hidden], to [rows, width]"""
        read = self.activation(self.dense(states))
        return read if self.norm is None else self.norm(read)

    def labels(self) -> list[str]:
        """A sentence a task: which piece is scored for each label."""
        return [
            f"{task}: " + ", ".join(f"{label} is said as {piece!r}" for label, piece in pieces.items())
            for task, pieces in self.said.items()
        ]

    def __str__(self) -> str:
        """A sentence for the record of a run."""
        if self.kind is HeadKind.VERBALISER:
            return "answers of the frozen masked-LM head"
        return f"heads behind the {'random pooler (the checkpoint has none)' if self.drawn else 'frozen pooler'}"


def make_readout(
    asked: HeadKind, backbone: Backbone, cards: Sequence[TaskCard], words: Mapping[str, Mapping[str, str]]
) -> Readout | None:
    """The frozen layers that a run needs, from the checkpoint of its backbone; None when no task reads any.

    Args:
        asked: of all tasks. backbone: as it was loaded. cards: the tasks.
        words: task -> label -> the word that stands for it; what is absent stands for itself.

    Raises:
        PolypromptError: a verbaliser is asked for and the checkpoint has no masked-LM head, or the words do not tell
            the labels of a task apart.
    """
    reading = [card for card in cards if head_kind(card, asked) is asked and not card.head]
    if asked is HeadKind.LINEAR or not reading:
        return None
    return _pooler(backbone) if asked is HeadKind.POOLER else _masked_lm(backbone, reading, words)


def mask_pieces(asked: HeadKind, backbone: Backbone, cards: Sequence[TaskCard]) -> dict[str, int]:
    """Task -> the mask piece, for tasks that are answered at one; see `TextEncoder`."""
    masked = [card.name for card in cards if head_kind(card, asked) is HeadKind.VERBALISER]
    return {} if backbone.mask_id is None else dict.fromkeys(masked, backbone.mask_id)


def spoken(backbone: Backbone, card: TaskCard, words: Mapping[str, str]) -> dict[str, int]:
    """Label -> the piece that is scored for it, in the order of the labels: the first one with text of its word.

    Raises:
        PolypromptError: a word for a label that the task does not have, a word that the tokenizer cannot write, or one
            piece for two labels.
    """
    place = f"label-words of {card.name}"
    for label in words:
        if label not in card.labels:
            raise PolypromptError(f"{place}: no label {label!r}; there are {', '.join(card.labels)}")
    special = {number for number, token in backbone.tokenizer.get_added_tokens_decoder().items() if token.special}
    owners: dict[int, str] = {}
    for label in card.labels:
        word = words.get(label, label)
        encoding = backbone.tokenizer.encode(f" {word}", add_special_tokens=False)  # as it stands inside a sentence
        pieces = zip(encoding.ids, encoding.tokens, strict=True)
        piece = next((number for number, text in pieces if text.strip("\u2581\u0120")), None)
        if piece is None or piece in special:
            raise PolypromptError(f"{place}: the tokenizer of {backbone.card.name} has no piece for {word!r}")
        if piece in owners:
            raise PolypromptError(
                f"{place}: the words of {owners[piece]!r} and {label!r} begin with the same piece, "
                f"{backbone.tokenizer.id_to_token(piece)!r}; choose others in the settings file or with --label-words"
            )
        owners[piece] = label
    return {label: piece for piece, label in owners.items()}


def _pooler(backbone: Backbone) -> Readout:
    if backbone.source is not None and backbone.card.family in POOLED:
        model, absent = pretrained(AutoModel, backbone.card.name, backbone.source, add_pooling_layer=True)
        if not absent:
            state = {f"dense.{name}": weight for name, weight in model.pooler.dense.state_dict().items()}
            return Readout(state, HeadKind.POOLER, "tanh")
    generator = torch.Generator().manual_seed(DRAW_SEED)
    weight = torch.randn(backbone.hidden, backbone.hidden, generator=generator) * 0.02  # as BERT's own begin
    state = {"dense.weight": weight, "dense.bias": torch.zeros(backbone.hidden)}
    return Readout(state, HeadKind.POOLER, "tanh", drawn=True)


def _masked_lm(backbone: Backbone, cards: Sequence[TaskCard], words: Mapping[str, Mapping[str, str]]) -> Readout:
    name, lacks = backbone.card.name, "has no masked-LM head in its checkpoint; use --head linear or pooler"
    if backbone.source is None or backbone.mask_id is None:
        raise PolypromptError(f"--head verbaliser: {name} {lacks}")
    model, absent = pretrained(AutoModelForMaskedLM, name, backbone.source)
    dense, norm, setting = MASKED_LM[backbone.card.family]
    if absent or dense not in dict(model.named_modules()):  # DeBERTa has it in two layouts
        raise PolypromptError(f"--head verbaliser: {name} {lacks}")
    parts = {"dense": model.get_submodule(dense), "norm": model.get_submodule(norm)}
    state = {f"{part}.{key}": weight for part, module in parts.items() for key, weight in module.state_dict().items()}
    vocabulary = model.get_output_embeddings()
    said: dict[str, dict[str, str]] = {}
    for card in cards:
        pieces = spoken(backbone, card, words.get(card.name, {}))
        said[card.name] = {label: backbone.tokenizer.id_to_token(piece) for label, piece in pieces.items()}
        rows = list(pieces.values())
        state |= {f"words.{card.name}.{key}": weight[rows] for key, weight in vocabulary.state_dict().items()}
    activation = getattr(model.config, setting) if setting else "gelu"
    return Readout(state, HeadKind.VERBALISER, activation, parts["norm"].eps, said=said)
