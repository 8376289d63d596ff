"""The training loop, the same for every method: what is trained is decided before it begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind, Task
from harness.batches import TrainingRows
from harness.checkpoint import Point, Progress, load_checkpoint, load_trained, save_checkpoint, save_trained
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import Device, is_sharded
from harness.features import Feature, TextEncoder, pad
from harness.methods import Method, Weights
from harness.mixture import Course, course, schedule, shares
from harness.model import PromptedModel
from harness.objectives import Target, collate, count, loss_of, make_targets
from harness.screen import Screen
from harness.tracking import Report
from harness.trunk import TrunkCache, TrunkRows
from harness.turns import Interrupted, Steps, at_a_stretch

CURVE_STEPS = 20
"""Steps between two points of the training curve."""

EXPONENT = 0.95
"""Of the exponential decay, an epoch (training/trainer_exp.py of the authors' code)."""

SMOOTHING = 0.98
"""Of the running loss and score that are shown: about the last 50 steps."""


@dataclass(frozen=True)
class TaskTraining:
    """The encoded training rows of a task in one language.

    Attributes:
        task: its declaration. language: of the rows. features: rows. targets: one a row. batches: how rows are grouped.
        number: that no other ones of the run have, for an order of its own.
    """

    task: Task
    language: str
    features: list[Feature]
    targets: list[Target]
    batches: TrainingRows
    number: int

    def ordered(self, batch: int | None, seed: int, pieces: int | None = None) -> TaskTraining:
        """The same rows in batches of another size or order, see `encode_training`."""
        return replace(self, batches=_batches(self.task, self.features, self.number, batch, seed, pieces))


def encode_training(
    rows: list[TaskRows], encoder: TextEncoder, batch: int | None, seed: int, pieces: int | None = None
) -> list[TaskTraining]:
    """Encode the training rows of every task that has some, each language of it apart.

    Args:
        rows: of all tasks. encoder: of the backbone.
        batch, pieces: see `harness.batches.TrainingRows`. seed: of the order.
    """
    result = []
    for number, task_rows in enumerate(rows):
        card = task_rows.task.card
        for place, (language, split) in enumerate(task_rows.train.items()):
            features = encoder.features(card, split.examples)
            targets = make_targets(card, split.examples, features)
            own = number + place * len(rows)
            batches = _batches(task_rows.task, features, own, batch, seed, pieces)
            result.append(TaskTraining(task_rows.task, language, features, targets, batches, own))
    return result


def _batches(
    task: Task, features: Sequence[Feature], number: int, batch: int | None, seed: int, pieces: int | None
) -> TrainingRows:
    return TrainingRows(features, task.card.kind is Kind.CHOICE, batch, [seed, number], pieces)


def train_by_steps(
    model: PromptedModel,
    tasks: Sequence[TaskTraining],
    config: RunConfig,
    method: Method,
    device: Device,
    checkpoint: Path,
    identity: str,
    screen: Screen,
    rate: float | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    report: Report = lambda values, step: None,
    on_step: Callable[[int], None] = lambda step: None,
    trunk: TrunkCache | None = None,
) -> Steps[Progress]:
    """Train what has `requires_grad`, from the start or from a checkpoint.

    Every step is a function of its number and the seed alone (task, batch, dropout), so a continued training is
    bit-identical to one that was never interrupted. Processes that train together take their parts of each batch; the
    gradient is that of the whole batch. What is decided (to stop, the best weights) is decided by all at the same step;
    files are the first one's.

    Dropout on a prompt is the same in all passes and processes: a batch has one prompt. Dropout inside of an encoder
    that is trained differs between them, since they see different rows.

    It hands over within each step, where others may draw random numbers: none is drawn before a pass sets its seed.

    Args:
        model: on its device. tasks: encoded rows, each with batches of its own.
        config: steps, rates, sampling. method: defaults of rates.
        device: where the model is.
        checkpoint: file of the checkpoint; used when it is there.
        identity: of settings and data; a checkpoint with another one is refused.
        screen: shows progress.
        rate: learning rate; None: the method's.
        validate: measures the model as it is, task -> score, higher is better; asked after each epoch. The weights with
            the best mean (the first of equals) are what the model has in the end. Where tasks share nothing that is
            trained, each ends with those that were best for it. None: the weights of the last step.
        report: told the numbers of each point of the curve and of each measurement, and before the first step nothing
            but where the training goes on.
        on_step: called before each step with its number, for tests.
        trunk: keeps what the frozen layers without a prompt make of the rows; None: they are computed in each pass.

    Returns:
        What became of it; the time that others took between its steps is left out.

    Raises:
        Interrupted: after a signal; a checkpoint was written.
        PolypromptError: the loss is not finite, or memory is too small for a single row.
    """
    plan = plan_steps(config, method, tasks)
    steps, order = len(plan), plan.tasks
    rate = rate or method.learning_rate
    optimizer = torch.optim.AdamW(_groups(model, config, method, rate), lr=rate, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    progress = load_checkpoint(checkpoint, model, optimizer, identity) if checkpoint.exists() else Progress()
    if device.sum(progress.step) != [progress.step * device.world]:
        raise PolypromptError(f"{checkpoint}: not every process sees this file; all machines need the same run folder")
    device.spread(trained)
    best = checkpoint.with_name("best.safetensors")
    apart = _apart(model, tasks)
    drawn = [int((order[: progress.step] == number).sum()) for number in range(len(tasks))]
    _set_mode(model, method, config)
    states = [trunk and trunk.rows(task.features, model.prompt_of(task.task.card, task.language)) for task in tasks]
    began, saved = time.monotonic() - progress.seconds, time.monotonic()
    if not _is_over(progress, steps, config):
        report({}, progress.step)
    with screen.bar("train", steps, progress.step) as bar:
        while not _is_over(progress, steps, config):
            step = progress.step
            on_step(step)
            task = tasks[order[step]]
            batch = task.batches.rows(drawn[order[step]])
            drawn[order[step]] += 1
            part = _backward(model, task, states[order[step]], batch, config, device, progress, step)
            away = time.monotonic()
            asked = yield True
            began += time.monotonic() - away
            loss, right, stop = device.sum(*part, bool(asked))
            if not math.isfinite(loss):
                raise PolypromptError(
                    f"the loss of task {task.task.name} is {loss} at step {step}: lower --learning-rate "
                    f"(it was {rate}); the last checkpoint is kept"
                )
            device.sum_gradients(trained)
            nn.utils.clip_grad_norm_(trained, 1.0)
            decayed = decay(config, plan, step)
            for group, base in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = base * decayed  # from the step alone, nothing to store
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step = step + 1
            progress.examples += len(batch)
            progress.loss = _smooth(progress.loss, loss)
            if task.task.card.kind is not Kind.REGRESSION:
                progress.score = _smooth(progress.score, right)
            done = progress.step == steps
            if progress.step % CURVE_STEPS == 0 or done:
                right = round(progress.score or 0.0, 5)
                progress.curve.append(Point(progress.step, round(progress.loss, 5), right, progress.examples))
                report(_shown(progress, rate * decayed), progress.step)
            measured = validate is not None and (plan.epochs(progress.step) > plan.epochs(step) or done)
            if measured:
                _measure(model, progress, validate, best, identity, device, apart)
                report({"select/score": progress.selection[-1][1]}, progress.step)
                _set_mode(model, method, config)
            bar.step(f"loss {progress.loss:.3f}, right {100 * (progress.score or 0):.1f} %")
            if stop or done or measured or time.monotonic() - saved > config.checkpoint_seconds:
                progress.seconds = time.monotonic() - began
                _save(checkpoint, model, optimizer, progress, identity, device, screen)
                saved = time.monotonic()
                if stop:
                    device.wait()  # until the checkpoint is there: a launcher kills the rest once one has ended
                    raise Interrupted
    kept = {step for step, _ in progress.own.values()} or {progress.best}
    if progress.best is not None and kept != {progress.step}:
        load_trained(best, model, identity)
    model.eval()
    return progress


train = at_a_stretch(train_by_steps)


def plan_steps(config: RunConfig, method: Method, tasks: Sequence[TaskTraining]) -> Course:
    """The steps of a training: the epochs asked for, in the mean over all rows, or `max_steps` if that is less."""
    epoch = sum(task.batches.per_epoch for task in tasks)
    total = max(1, round((config.epochs or method.epochs) * epoch))
    if config.max_steps is not None:  # that many steps count no more, and what comes after them need not be planned
        total = min(total, config.max_steps * max(task.batches.most for task in tasks))
    share = shares([len(task.batches) for task in tasks], config.sampling, config.temperature)
    due = schedule(share, total, config.seed)
    return course(due, [task.batches.counts for task in tasks], epoch, config.max_steps)


def decay(config: RunConfig, plan: Course, step: int) -> float:
    """By what the learning rate of a step is multiplied: as in transformers' schedules with warm-up, the first by 0."""
    done, warmup = int(plan.seen[step]) / plan.total, config.warmup
    if done < warmup:
        return done / warmup
    return (1 - done) / (1 - warmup) if config.decay == "linear" else EXPONENT ** plan.epochs(step)


def _backward(
    model: PromptedModel,
    task: TaskTraining,
    states: TrunkRows | None,
    batch: Sequence[list[int]],
    config: RunConfig,
    device: Device,
    progress: Progress,
    step: int,
) -> tuple[float, float]:
    """Put this process's part of the gradient of a batch's mean loss in place.

    Returns:
        Its parts of the mean loss of the whole batch, and of the share of it that is right (0 for regression).
    """
    card, mine = task.task.card, batch[device.rank :: device.world]
    rows = [row for unit in batch for row in unit]
    features = [task.features[row] for row in rows]
    longest = max(map(len, features))
    counted = count(card, collate(card, features, [task.targets[row] for row in rows], longest))
    most = -(-len(batch) // device.world)  # units of the process with most of them
    asked = -(-most // config.micro_batch) if config.micro_batch else 1
    sharded = is_sharded(model.backbone)
    while True:
        passes = min(most, max(asked, progress.passes))
        parts = [(part, float(counted)) for part in _parts(mine, passes)]
        if sharded:  # a pass needs all processes: one that has nothing left to do takes part without weight
            parts += [(batch[:1], math.inf)] * (passes - len(parts))
        try:
            results = []
            for number, (part, over) in enumerate(parts):
                place = device.rank + device.world * number if model.backbone.training else 0
                torch.manual_seed(config.seed * 1_000_003 + step + (place << 40))
                results.append(_pass(model, task, states, part, over, device))
            break
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise
            if sharded or len(parts) == len(mine):
                what = f"{passes} passes a batch" if sharded else f"one row of {longest} pieces"
                raise PolypromptError(
                    f"task {card.name}: memory is too small for {what}; try --checkpoint-activations, a smaller "
                    f"{'--micro-batch' if sharded else '--prompt-length'}; the last checkpoint is kept"
                ) from None
        progress.passes = 2 * len(parts)
        model.zero_grad(set_to_none=True)
        if device.torch.type == "cuda":
            torch.cuda.empty_cache()
    answered = 2 if card.kind is Kind.SPAN else 1  # a begin and an end are one answer
    return sum(loss for loss, _ in results), answered * sum(right for _, right in results)


def _pass(
    model: PromptedModel,
    task: TaskTraining,
    states: TrunkRows | None,
    part: Sequence[list[int]],
    counted: float,
    device: Device,
) -> tuple[float, float]:
    """One pass forward and back: its part of a mean over `counted`, and how many of these are right."""
    card, rows = task.task.card, [row for unit in part for row in unit]
    features = [task.features[row] for row in rows]
    ids, lengths, types = device.tensors(pad(features, model.backbone.pad_id))
    targets = collate(card, features, [task.targets[row] for row in rows], ids.shape[1]).to(device.torch)
    with device.autocast():
        outputs = model.outputs(card, ids, lengths, types, task.language, states and states.batch(rows, device))
        loss = loss_of(card, outputs, targets, lengths)
    (loss.total / counted).backward()
    return loss.total.item() / counted, (loss.right or 0) / counted


def _parts(units: Sequence[list[int]], count: int) -> list[Sequence[list[int]]]:
    """So many about equal parts of a batch, but none that is empty."""
    count = min(count, len(units))
    return [units[part * len(units) // count : (part + 1) * len(units) // count] for part in range(count)]


def _is_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a GPU torch has an exception for it, on a CPU a sentence."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory"))


def _apart(model: PromptedModel, tasks: Sequence[TaskTraining]) -> dict[str, frozenset[str]]:
    """Task -> names of its trained weights, where several tasks are trained and no weight is of two; else nothing."""
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    parts: dict[str, frozenset[str]] = {}
    for card in (task.task.card for task in tasks):
        own = f"heads.{card.answered_by}.", f"prompt.tasks.{card.name}."
        parts[card.name] = frozenset(name for name in trained if name.startswith(own))
    several = len(parts) > 1 and sum(map(len, parts.values())) == len(trained) == len(
        frozenset().union(*parts.values())
    )
    return parts if several else {}


def _measure(
    model: PromptedModel,
    progress: Progress,
    validate: Callable[[], Mapping[str, float]],
    best: Path,
    identity: str,
    device: Device,
    apart: Mapping[str, frozenset[str]],
) -> None:
    """Ask how good the model is now, and keep its weights when it never was better; those of each task, if `apart`."""
    scores = validate()
    score = sum(scores.values()) / len(scores)
    progress.selection.append((progress.step, score))
    if apart and scores.keys() <= apart.keys():
        better = {task for task, value in scores.items() if task not in progress.own or value > progress.own[task][1]}
        progress.own |= {task: (progress.step, scores[task]) for task in better}
        unmeasured = apart.keys() - scores.keys()  # nothing selects, so the last weights are theirs
        names, improved = frozenset().union(*(apart[task] for task in better | unmeasured)), bool(better)
    else:
        names, improved = None, progress.best is None or score > max(old for _, old in progress.selection[:-1])
    if improved:
        progress.best = progress.step
    if improved or names:
        if device.leads:
            save_trained(best, model, identity, names)
        device.wait()


def _shown(progress: Progress, rate: float) -> dict[str, float]:
    """The last point of the curve under the names that a tracker shows; no share of right answers in regression."""
    point = progress.curve[-1]
    shown = {"train/loss": point.loss, "train/right": point.right, "train/learning_rate": rate}
    return shown if progress.score is not None else {k: v for k, v in shown.items() if k != "train/right"}


def _is_over(progress: Progress, steps: int, config: RunConfig) -> bool:
    """Whether all steps are done, or the last `patience` measurements brought nothing better."""
    if progress.step >= steps:
        return True
    if config.patience is None or progress.best is None:
        return False
    return sum(step > progress.best for step, _ in progress.selection) >= config.patience


def _save(
    path: Path,
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: str,
    device: Device,
    screen: Screen,
) -> None:
    """Write a checkpoint; a disk that is full does not end a training that may find room later."""
    if not device.leads:
        return
    try:
        save_checkpoint(path, model, optimizer, progress, identity)
    except OSError as error:
        screen.say(f"{path}: not written ({error.strerror}); training goes on, the checkpoint before it is kept")


def _set_mode(model: PromptedModel, method: Method, config: RunConfig) -> None:
    """Dropout on what is trained. A frozen encoder computes as it will when it is deployed."""
    model.train()
    model.backbone.train(method.backbone is not Weights.NONE)
    model.backbone.checkpoint_activations(config.checkpoint_activations)


def _groups(model: PromptedModel, config: RunConfig, method: Method, rate: float) -> list[dict[str, Any]]:
    """Parameter groups: biases, norms and gates are not decayed (as in BERT's own optimiser); heads may have a rate."""
    decay = method.weight_decay if config.weight_decay is None else config.weight_decay
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            of_head = config.head_learning_rate is not None and name.startswith("heads.")
            plain = weight.ndim == 1 or name.endswith("gate")
            groups.setdefault((of_head, plain), []).append(weight)
    return [
        {
            "params": groups[of_head, plain],
            "weight_decay": 0.0 if plain else decay,
            "lr": config.head_learning_rate if of_head else rate,
        }
        for of_head, plain in sorted(groups)
    ]


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else SMOOTHING * old + (1 - SMOOTHING) * new
