"""What training is compared with: other ways to train the same rows on the same encoder, by transformers' Trainer.

All rows are tokenized before. Nothing is logged, saved or evaluated; loaders of data are as Trainer makes them.
Encoders are in training mode, dropout included, as Trainer puts them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DynamicCache,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging

from benchmarks.task import Kind, TaskCard
from harness.backbone import Backbone
from harness.train import TaskTraining

Item = dict[str, Tensor]


class Reference(nn.Module):
    """The recipe of P-Tuning v2: prefix_encoder.py and sequence_classification.py of the authors' code.

    An embedding of the slots gives keys and values of all layers, with dropout, which enter as `past_key_values`
    behind a mask of ones. The encoder is frozen. The head reads the last state of the first piece, in question
    answering of all.

    Args:
        encoder: without a pooler. slots: of the prompt. outputs: of the head. span: whether it is question answering.
    """

    def __init__(self, encoder: BertModel, slots: int, outputs: int, span: bool) -> None:
        super().__init__()
        config = encoder.config
        self.encoder, self.slots, self.span = encoder.requires_grad_(False), slots, span
        self.shape = (slots, 2 * config.num_hidden_layers, config.num_attention_heads, -1)
        self.prefix = nn.Embedding(slots, 2 * config.num_hidden_layers * config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.head = nn.Linear(config.hidden_size, outputs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        labels: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss and logits of a batch, as Trainer asks for them."""
        rows = len(input_ids)
        past = self.prefix(torch.arange(self.slots).expand(rows, -1)).view(rows, *self.shape)
        pairs = self.dropout(past).permute(2, 0, 3, 1, 4).split(2)
        states = self.encoder(
            input_ids=input_ids,
            attention_mask=functional.pad(attention_mask, (self.slots, 0), value=1),
            token_type_ids=token_type_ids,
            past_key_values=DynamicCache([(pair[0], pair[1]) for pair in pairs]),
        ).last_hidden_state
        if self.span:
            logits = self.head(states)
            ends = torch.stack([start_positions, end_positions], 1)
            return {"loss": functional.cross_entropy(logits, ends), "logits": logits}
        logits = self.head(self.dropout(states[:, 0]))
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def plain_encoder(backbone: Backbone) -> BertModel:
    """The encoder of a backbone as transformers has it, with its own attention; a copy."""
    encoder = BertModel._from_config(backbone.model.config, attn_implementation="sdpa", add_pooling_layer=False)
    encoder.load_state_dict(backbone.model.state_dict())
    return encoder


def reference(backbone: Backbone, card: TaskCard, slots: int) -> Reference:
    """The model of the reference recipe."""
    span = card.kind is Kind.SPAN
    return Reference(plain_encoder(backbone), slots, 2 if span else len(card.labels), span)


def whole(backbone: Backbone, card: TaskCard) -> PreTrainedModel:
    """The encoder with a head of transformers, all of it trained."""
    cls = BertForQuestionAnswering if card.kind is Kind.SPAN else BertForSequenceClassification
    model = cls._from_config(backbone.model.config, attn_implementation="sdpa")
    found = model.bert.load_state_dict(backbone.model.state_dict(), strict=False)
    assert not found.unexpected_keys and all("pooler" in name for name in found.missing_keys)
    return model


def peft_prefix(backbone: Backbone, card: TaskCard, slots: int) -> PeftModel:
    """Prefix tuning by peft, with transformers' own head."""
    kind = TaskType.QUESTION_ANS if card.kind is Kind.SPAN else TaskType.SEQ_CLS
    return get_peft_model(whole(backbone, card), PrefixTuningConfig(task_type=kind, num_virtual_tokens=slots))


def items(training: TaskTraining, rows: Sequence[int]) -> list[Item]:
    """Encoded rows as transformers takes them."""
    result = []
    for feature, target in ((training.features[row], training.targets[row]) for row in rows):
        span = training.task.card.kind is Kind.SPAN
        gold = dict(zip(("start_positions", "end_positions"), target, strict=True)) if span else {"labels": target}
        ids, types = (torch.tensor(part).long() for part in (feature.input_ids, feature.type_ids))
        given = {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids)}
        result.append(given | {name: torch.tensor(value) for name, value in gold.items()})
    return result


def collator(pad_id: int, length: int | None) -> Callable[[list[Item]], Item]:
    """Puts rows together, padded to a length; None: to that of the longest."""

    def collate(batch: list[Item]) -> Item:
        found = {}
        for name, first in batch[0].items():
            parts = [item[name] for item in batch]
            if first.ndim == 0:
                found[name] = torch.stack(parts)
                continue
            fill = pad_id if name == "input_ids" else 0
            padded = pad_sequence(parts, batch_first=True, padding_value=fill)
            more = 0 if length is None else length - padded.shape[1]
            found[name] = functional.pad(padded, (0, more), value=fill)
        return found

    return collate


class _Clock(TrainerCallback):
    """When the loop of Trainer began and ended: what it prepares before is not counted."""

    began = ended = 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.began = time.perf_counter()

    def on_train_end(self, *_: object, **__: object) -> None:
        self.ended = time.perf_counter()


def run_trainer(
    model: nn.Module, rows: list[Item], collate: Callable[[list[Item]], Item], batch: int, bf16: bool, steps: int = -1
) -> float:
    """Train by Trainer once over some rows.

    Args:
        model: what has `requires_grad` is trained. A new one each time: accelerate leaves its precision on a model.
        rows: all of them. collate: see `collator`.
        batch: rows a step. bf16: under autocast. steps: stop there; -1: after all rows.

    Returns:
        Seconds per row.
    """
    clock = _Clock()
    logging.disable_progress_bar()
    with TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "per_device_train_batch_size": batch,
            "num_train_epochs": 1,
            "max_steps": steps,
            "bf16": bf16,
            "use_cpu": True,
            "report_to": [],
            "logging_strategy": "no",
            "save_strategy": "no",
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "learning_rate": 1e-3,
        }
        arguments = TrainingArguments(folder, **settings)
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    done = len(rows) if steps < 0 else min(len(rows), steps * batch)
    return (clock.ended - clock.began) / done
