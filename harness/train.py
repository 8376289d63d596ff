"""The training loop, the same for every method: what is trained is decided before it begins."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind, Task
from harness.batches import TrainingRows
from harness.checkpoint import Progress, load_checkpoint, save_checkpoint
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import Device
from harness.features import Feature, TextEncoder, pad
from harness.methods import Method
from harness.mixture import schedule, shares
from harness.model import PromptedModel
from harness.objectives import Target, collate, loss_and_hits, make_targets
from harness.screen import Screen

CURVE_STEPS = 20
"""Steps between two points of the training curve."""

SMOOTHING = 0.98
"""Of the running loss and score that are shown: about the last 50 steps."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM was asked for, and a checkpoint was written."""


@dataclass(frozen=True)
class TaskTraining:
    """The encoded training rows of a task.

    Attributes:
        task: its declaration. features: rows. targets: one a row. batches: how rows are grouped.
    """

    task: Task
    features: list[Feature]
    targets: list[Target]
    batches: TrainingRows


def encode_training(rows: list[TaskRows], encoder: TextEncoder, batch: int, seed: int) -> list[TaskTraining]:
    """Encode the training rows of every task that has some."""
    result = []
    for number, task_rows in enumerate(rows):
        if task_rows.train is None:
            continue
        card = task_rows.task.card
        features = encoder.features(card, task_rows.train.examples)
        targets = make_targets(card, task_rows.train.examples, features)
        batches = TrainingRows(features, card.kind is Kind.CHOICE, batch, [seed, number])
        result.append(TaskTraining(task_rows.task, features, targets, batches))
    return result


def train(
    model: PromptedModel,
    tasks: list[TaskTraining],
    config: RunConfig,
    method: Method,
    device: Device,
    checkpoint: Path,
    identity: str,
    screen: Screen,
    on_step: Callable[[int], None] = lambda step: None,
) -> Progress:
    """Train what has `requires_grad`, from the start or from a checkpoint.

    Every step is a function of its number and the seed alone (task, batch, dropout), so a continued training is
    bit-identical to one that was never interrupted.

    Args:
        model: on its device. tasks: encoded rows. config: steps, rates, sampling. method: defaults of rates.
        device: where the model is.
        checkpoint: file of the checkpoint; used when it is there.
        identity: of settings and data; a checkpoint with another one is refused.
        screen: shows progress.
        on_step: called before each step with its number, for tests.

    Raises:
        Interrupted: after a signal; a checkpoint was written.
        PolypromptError: the loss is not finite.
    """
    sizes = [len(task.batches) for task in tasks]
    share = shares(sizes, config.sampling, config.temperature)
    steps = total_steps(config, method, tasks)
    order = schedule(share, steps, config.seed)
    rate = config.learning_rate or method.learning_rate
    optimizer = torch.optim.AdamW(_groups(model, config, method), lr=rate)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    progress = Progress()
    if checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, optimizer, identity)
    drawn = [int((order[: progress.step] == number).sum()) for number in range(len(tasks))]
    _set_mode(model, method)
    began, saved = time.monotonic() - progress.seconds, time.monotonic()
    with screen.bar("train", steps, progress.step) as bar, _signals() as asked:
        for step in range(progress.step, steps):
            on_step(step)
            task = tasks[order[step]]
            batch = task.batches.rows(drawn[order[step]])
            drawn[order[step]] += 1
            torch.manual_seed(config.seed * 1_000_003 + step)
            with device.autocast():
                loss, hits = _loss(model, task, batch, device)
            if not torch.isfinite(loss):
                raise PolypromptError(
                    f"the loss of task {task.task.name} is {loss.item()} at step {step}: lower --learning-rate "
                    f"(it was {rate}); the last checkpoint is kept"
                )
            device.accelerator.backward(loss)
            nn.utils.clip_grad_norm_(trained, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)  # linear decay; from the step alone, nothing to store
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.step = step + 1
            progress.examples += len(batch)
            progress.loss = _smooth(progress.loss, loss.item())
            if hits is not None:
                progress.score = _smooth(progress.score, hits)
            if progress.step % CURVE_STEPS == 0 or progress.step == steps:
                progress.curve.append((progress.step, round(progress.loss, 5), round(progress.score or 0.0, 5)))
            bar.step(f"loss {progress.loss:.3f}, right {100 * (progress.score or 0):.1f} %")
            if asked() or progress.step == steps or time.monotonic() - saved > config.checkpoint_seconds:
                progress.seconds = time.monotonic() - began
                save_checkpoint(checkpoint, model, optimizer, progress, identity)
                saved = time.monotonic()
                if asked():
                    raise Interrupted
    model.eval()
    return progress


def total_steps(config: RunConfig, method: Method, tasks: list[TaskTraining]) -> int:
    """Steps of a training: the epochs asked for, in the mean over all rows, or `max_steps` if that is less."""
    epochs = config.epochs or method.epochs
    steps = max(1, round(epochs * sum(task.batches.per_epoch for task in tasks)))
    return min(steps, config.max_steps or steps)


def _loss(model: PromptedModel, task: TaskTraining, batch: list[int], device: Device) -> tuple[Tensor, float | None]:
    card = task.task.card
    features = [task.features[row] for row in batch]
    ids, lengths, types = device.tensors(pad(features, model.backbone.pad_id))
    targets = collate(card, features, [task.targets[row] for row in batch], ids.shape[1]).to(device.torch)
    return loss_and_hits(card, model.outputs(card, ids, lengths, types), targets, lengths)


def _set_mode(model: PromptedModel, method: Method) -> None:
    """Dropout on what is trained. A frozen encoder computes as it will when it is deployed."""
    model.train()
    model.backbone.train(method.backbone)


def _groups(model: PromptedModel, config: RunConfig, method: Method) -> list[Mapping[str, object]]:
    """Parameter groups: biases, norms and gates are not decayed (as in BERT's own optimiser)."""
    decay = method.weight_decay if config.weight_decay is None else config.weight_decay
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    plain = [weight for name, weight in trained if weight.ndim == 1 or name.endswith("gate")]
    decayed = [weight for name, weight in trained if weight.ndim != 1 and not name.endswith("gate")]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else SMOOTHING * old + (1 - SMOOTHING) * new


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a question that is asked between steps; the second one stops at once."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
