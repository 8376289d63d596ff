"""Predictions of a model on the reported splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.records import Example, Prediction, Split
from benchmarks.results import ResultRecord, predictions_path, read_predictions, write_predictions
from benchmarks.task import Kind, TaskCard
from benchmarks.thresholds import choose_threshold, cross_fitted, with_threshold
from harness.batches import evaluation_batches
from harness.data import TaskRows
from harness.decode import Floats, decode
from harness.device import Device, is_sharded
from harness.features import Feature, TextEncoder, pad
from harness.model import PromptedModel
from harness.report import make_record
from harness.screen import Screen
from harness.trunk import TrunkCache

TUNING = "tuning"
"""Stands for the split in the name of the predictions on which a threshold was chosen."""

Change = Callable[[Sequence[Prediction]], list[Prediction]]

PIECES = 4096
"""Pieces a batch, padding included: small enough for the processor's caches, large enough for its products."""


def evaluate(
    run: Path,
    model: PromptedModel,
    encoder: TextEncoder,
    rows: Sequence[TaskRows],
    device: Device,
    screen: Screen,
    trunk: TrunkCache | None = None,
) -> tuple[list[ResultRecord], dict[str, dict[str, float]]]:
    """Predict and score every task, split and language of a run.

    Files of predictions that are already in the run folder are used as they are. Of several processes each computes
    its part, and the first decodes, writes and scores.

    Returns:
        Records of the splits that are labelled; and task -> language -> threshold of "no answer". Both are empty in
        processes that are not the first.
    """
    records: list[ResultRecord] = []
    thresholds: dict[str, dict[str, float]] = {}

    def stored(card: TaskCard, split: str, language: str, rows: Split, change: Change) -> list[Prediction]:
        path = run / predictions_path(card.name, language, split)
        if not device.first(path.exists):
            predictions = predict(model, encoder, card, rows, device, language, trunk)
            if device.leads:
                write_predictions(path, change(predictions))
        return read_predictions(path) if device.leads else []

    with screen.bar("evaluate", sum(len(task_rows.tuning) + len(task_rows.evaluation) for task_rows in rows)) as bar:
        for task_rows in rows:
            task, card = task_rows.task, task_rows.task.card
            chosen: dict[str, float] = {}
            for language, split_rows in task_rows.tuning.items():
                predictions = stored(card, TUNING, language, split_rows, list)
                if not device.leads:
                    continue
                chosen[language] = choose_threshold(card, predictions)
                bar.step(f"{task.name} {language}, threshold of no answer {chosen[language]:.3f}")
            if chosen:
                thresholds[task.name] = chosen
            for (split, language), split_rows in task_rows.evaluation.items():
                threshold = chosen.get(language, chosen.get(card.train_language or ""))
                same = threshold is not None and split == task.tuned_on and language in chosen
                predictions = stored(card, split, language, split_rows, _decision(card, threshold, same))
                if not device.leads:
                    continue
                limited = (split, language) in task_rows.limited
                record = make_record(run, card, language, split, predictions, limited, None if same else threshold)
                if record is None:
                    screen.say(f"{task.name} {language} {split}: no labels, predicted but not scored")
                    bar.step(f"{task.name} {language}")
                    continue
                records.append(record)
                bar.step(f"{task.name} {language} {record.main[0]} {record.main[1]:.1f}")
    return records, thresholds


def _decision(card: TaskCard, threshold: float | None, same_rows: bool) -> Change:
    """What makes the final predictions of the model's own."""
    if threshold is None:
        return list
    if same_rows:
        return partial(cross_fitted, card)
    return partial(with_threshold, card, threshold=threshold)


def predict(
    model: PromptedModel,
    encoder: TextEncoder,
    card: TaskCard,
    split: Split,
    device: Device,
    language: str = "",
    trunk: TrunkCache | None = None,
) -> list[Prediction]:
    """Predict every example of a split.

    Args:
        model: with a head for the task. encoder: of its backbone. card: the task. split: the rows.
        device: where to compute. language: of the rows, for prompts with a part for it.
        trunk: keeps what the layers without a prompt make of rows.

    Returns:
        One prediction an example, in order; none in processes that are not the first.
    """
    features = encoder.features(card, split.examples)
    outputs = compute(model, card, features, device, language, trunk)
    candidates: list[Floats] = []
    if card.kind is Kind.RETRIEVAL:
        texts = [Example(str(number), text=text) for number, text in enumerate(split.candidates)]
        candidates = compute(model, card, encoder.features(card, texts), device, language, trunk)
    if not device.leads:
        return []
    return decode(
        card, split.examples, features, outputs, np.stack(candidates) if candidates else None, split.candidate_ids
    )


def compute(
    model: PromptedModel,
    card: TaskCard,
    features: Sequence[Feature],
    device: Device,
    language: str = "",
    trunk: TrunkCache | None = None,
) -> list[Floats]:
    """The model's output for each row, cut to the row's length where it has one value a piece.

    Processes that work together take batches in turn, the same ones that one process makes; the first gets all outputs,
    the others none.
    """
    batches = list(evaluation_batches(features, PIECES))
    mine = batches[device.rank :: device.world]
    sharded = is_sharded(model.backbone)
    if sharded and len(mine) < -(-len(batches) // device.world):
        mine.append(batches[-1])  # a pass needs all processes; the last batch is then computed more than once
    outputs: dict[int, Floats] = {}
    model.eval()
    states = trunk and trunk.rows(features, model.prompt_of(card, language))
    for batch in mine:
        ids, lengths, types = device.tensors(pad([features[row] for row in batch], model.backbone.pad_id))
        # Weights that were brought together in inference mode could not be used in training any more.
        with torch.no_grad() if sharded else torch.inference_mode(), device.autocast():
            before = states and states.batch(batch, device)
            values = model.outputs(card, ids, lengths, types, language, before).float().cpu().numpy()
        for row, value in zip(batch, values, strict=True):
            outputs[row] = value[: len(features[row])] if value.ndim == 2 else value
    found = {row: value for part in device.gather(outputs) for row, value in part.items()}
    return [found[row] for row in sorted(found)]
