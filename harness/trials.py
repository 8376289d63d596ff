"""One trial of a search: a training without a run folder, measured on rows of the training split alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.errors import PolypromptError
from benchmarks.records import Split
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import Device
from harness.evaluate import compute, predict
from harness.feature_cache import CachedEncoder
from harness.features import TextEncoder
from harness.held_out import folds
from harness.initial import make_model, max_positions
from harness.intervals import standard_error
from harness.learn import learn, validation_score
from harness.methods import find_method
from harness.model import PromptedModel
from harness.readout import mask_pieces
from harness.screen import Screen
from harness.shared import Shared
from harness.train import TaskTraining, encode_training, plan_steps
from harness.trunk import TrunkCache
from harness.turns import Steps

LATENCY_ROWS, LATENCY_TIMES = 32, 5
"""Rows whose answers are timed, and how often: the fastest pass counts, which others disturbed least."""

Measured = Callable[[int, float], None]
"""Told the score after an epoch, from 1; or, with folds, the mean over the first so many. May end the trial."""


@dataclass(frozen=True)
class Found:
    """What a trial found.

    Attributes:
        score: on rows that it was not trained on, points: the best epoch on held-out rows, as in a run; with folds the
            mean over them after the last epoch.
        error: its standard error: by a bootstrap of the rows, or from what the folds differ by.
        seconds: of training, without what others took meanwhile. steps: of the optimiser.
        size: bytes of prompt and heads as they are stored. latency: milliseconds a row; None: it was not asked for.
    """

    score: float
    error: float
    seconds: float
    steps: int
    size: int
    latency: float | None


def trial_by_steps(
    config: RunConfig,
    shared: Shared,
    device: Device,
    checkpoints: Path,
    fold_count: int,
    timed: bool,
    measured: Measured,
    beat: Callable[[], None],
) -> Steps[Found]:
    """Train with the settings of a trial, from the start or from a checkpoint.

    Args:
        config: a run with these settings selects the same epoch with the same score.
        shared: what the trials of this process have alike; it must not evaluate.
        device: where to compute. checkpoints: a folder of its own.
        fold_count: of the cross-validation; 0: the rows that the run would select with.
        timed: measure the latency. measured: see `Measured`. beat: called at each step.

    Raises:
        PolypromptError: there is nothing to measure on, or as `harness.train`.
    """
    rows, _, _ = shared.rows(config)
    parts = shared.once("folds", _key(config, fold_count), lambda: _folds(rows, fold_count, config.shots_seed))
    scores: list[float] = []
    seconds, steps = 0.0, 0
    last: _Training | None = None
    for number, (train, scored) in enumerate(parts, 1):
        if not any(split.examples for task in scored for split in task.selecting.values()):
            raise PolypromptError("the training rows are too few to hold some out; a search needs 10, or --shots")
        one = last = _Training(config, shared, device, train, _key(config, fold_count, number), not fold_count)
        per_epoch = _Epochs(config, one.training)
        best: list[float] = []

        def report(
            values: Mapping[str, float], step: int, best: list[float] = best, per_epoch: _Epochs = per_epoch
        ) -> None:
            if "select/score" in values and not fold_count:
                best.append(values["select/score"])
                measured(per_epoch(step), values["select/score"])

        folder = checkpoints / f"fold-{number}" if fold_count else checkpoints
        learned = yield from _beaten(one.learn(folder, f"{config.identity} {number}", report), beat)
        seconds, steps = seconds + learned.seconds, steps + learned.steps
        if fold_count:
            score = validation_score(learned.model, scored, one.encoder, device, learned.trunk)
            scores.append(score)
            measured(number, sum(scores) / len(scores))
        else:
            scores.append(learned.progress.selected)
        model = learned.model
    assert last is not None
    if fold_count:
        error = float(np.std(scores, ddof=1) / np.sqrt(fold_count)) if fold_count > 1 else 0.0
    else:
        error = _error(model, last.encoder, parts[-1][1], device, learned.trunk)
    latency = _latency(model, last.encoder, parts[-1][1], device) if timed else None
    return Found(sum(scores) / len(scores), error, seconds, steps, stored_bytes(model), latency)


def stored_bytes(model: PromptedModel) -> int:
    """What prompts and heads take as they are stored, with everything folded in."""
    prompt = 0 if model.prompt is None else model.prompt.fold(model.tasks).bank.nbytes
    return prompt + sum(weight.nbytes for weight in model.heads.parameters())


class _Training:
    """All that a training needs, of which trials of one process share what they can."""

    def __init__(
        self, config: RunConfig, shared: Shared, device: Device, rows: Sequence[TaskRows], key: str, usual: bool
    ) -> None:
        self.config, self.rows, self.device = config, rows, device
        self.method = find_method(config.method)
        backbone = shared.backbone(config)
        cards = [task.task.card for task in rows]
        readout = shared.readout(config, backbone, cards)
        masks = mask_pieces(config.head, backbone, cards)
        longest = max_positions(config, self.method, backbone)
        self.encoder = CachedEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, longest, masks)
        if usual:
            self.training = shared.training(config, rows, self.encoder)
        else:
            size = config.batch, config.seed, config.tokens_per_batch
            encoded = shared.once(
                "training of a fold",
                f"{key} {config.backbone} {longest} {config.head}",
                lambda: encode_training(list(rows), self.encoder, *size),
            )
            self.training = [task.ordered(*size) for task in encoded]
        self._model = shared.place(
            config, make_model(config, self.method, backbone, rows, self.training, readout), device
        )
        self._shared = shared

    def learn(self, checkpoints: Path, identity: str, report: Callable[[Mapping[str, float], int], None]) -> Steps:
        """See `harness.learn.learn`."""
        return learn(
            lambda: self._model,
            self._keep,
            self.training,
            self.rows,
            self.encoder,
            self.config,
            self.method,
            self.device,
            checkpoints,
            identity,
            Screen(quiet=True),
            report,
        )

    def _keep(self, model: PromptedModel) -> TrunkCache | None:
        return self._shared.trunk(self.config, model, self.device)


class _Epochs:
    """The epoch after which a measurement is taken, from 1."""

    def __init__(self, config: RunConfig, training: Sequence[TaskTraining]) -> None:
        self._plan, self._last = plan_steps(config, find_method(config.method), training), 0

    def __call__(self, step: int) -> int:
        self._last = max(self._last + 1, int(self._plan.epochs(step)))
        return self._last


def _folds(rows: Sequence[TaskRows], count: int, seed: int) -> list[tuple[list[TaskRows], list[TaskRows]]]:
    """For each training the rows to train on, and the same tasks with the rows to score as those that select."""
    if not count:
        return [(list(rows), list(rows))]
    parts: list[tuple[list[TaskRows], list[TaskRows]]] = [([], []) for _ in range(count)]
    for task in rows:
        trains: list[dict[str, Split]] = [{} for _ in range(count)]
        scored: list[dict[str, Split]] = [{} for _ in range(count)]
        for language, split in task.train.items():
            if len(split.examples) < count:
                raise PolypromptError(
                    f"--folds {count}: {task.task.name} has {len(split.examples)} examples; ask fewer"
                )
            for number, (train, score) in enumerate(folds(task.task.card, split, count, seed)):
                trains[number][language], scored[number][language] = train, score
        for number in range(count):
            parts[number][0].append(replace(task, train=trains[number], selecting={}))
            parts[number][1].append(replace(task, train=trains[number], selecting=scored[number]))
    return parts


def _key(config: RunConfig, *more: object) -> str:
    """Of what is shared: trials of one study differ in nothing that decides on rows."""
    return " ".join(map(str, (*config.suite, *config.tasks, *config.task_file, config.shots, config.shots_seed, *more)))


def _beaten(work: Steps, beat: Callable[[], None]) -> Steps:
    """The same work, with a sign of life at each of its steps."""
    waits, told = None, None
    try:
        while True:
            waits = work.send(told)
            beat()
            told = yield waits
    except StopIteration as end:
        return end.value
    finally:
        work.close()


def _error(
    model: PromptedModel,
    encoder: TextEncoder,
    rows: Sequence[TaskRows],
    device: Device,
    trunk: TrunkCache | None,
) -> float:
    """The standard error of `validation_score`, whose tasks and languages are given."""
    of_tasks = []
    for task in rows:
        card = task.task.card
        parts = [
            standard_error(card, predict(model, encoder, card, split, device, language, trunk), language)
            for language, split in task.selecting.items()
            if split.examples
        ]
        if parts:
            of_tasks.append(float(np.linalg.norm(parts)) / len(parts))
    return float(np.linalg.norm(of_tasks)) / len(of_tasks)


def _latency(model: PromptedModel, encoder: TextEncoder, rows: Sequence[TaskRows], device: Device) -> float:
    """Milliseconds a row of the whole encoder with the prompt, the mean over tasks."""
    found = []
    for task in rows:
        card = task.task.card
        for language, split in task.selecting.items():
            features = encoder.features(card, split.examples[:LATENCY_ROWS])
            if not features:
                continue
            times = []
            for _ in range(LATENCY_TIMES):
                began = time.perf_counter()
                compute(model, card, features, device, language)
                times.append(time.perf_counter() - began)
            found.append(1000 * min(times) / len(features))
    return sum(found) / len(found)
