"""The trainings of a run: each learning rate, each phase, and what selects among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import PolypromptError
from benchmarks.results import SelectionCard
from benchmarks.scoring import score
from harness.checkpoint import Progress
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import Device
from harness.evaluate import predict
from harness.features import TextEncoder
from harness.initial import specialised
from harness.methods import Method
from harness.model import PromptedModel
from harness.placement import Sharing
from harness.screen import Screen
from harness.tracking import Report
from harness.train import TaskTraining, train_by_steps
from harness.trunk import TrunkCache
from harness.turns import Steps


@dataclass(frozen=True)
class Learned:
    """What came out of the trainings of a run.

    Attributes:
        model: with the selected weights. rate: the selected learning rate. progress: of its training.
        seconds, steps: of all trainings. measured: learning rate -> (step, score on the rows that select).
        trunk: keeps states of the model's lower layers.
    """

    model: PromptedModel
    rate: float
    progress: Progress
    seconds: float
    steps: int
    measured: Mapping[str, list[tuple[int, float]]]
    trunk: TrunkCache | None = None


def learn(
    make: Callable[[], PromptedModel],
    keep: Callable[[PromptedModel], TrunkCache | None],
    training: Sequence[TaskTraining],
    rows: Sequence[TaskRows],
    encoder: TextEncoder,
    config: RunConfig,
    method: Method,
    device: Device,
    checkpoints: Path,
    identity: str,
    screen: Screen,
    report: Report,
) -> Steps[Learned]:
    """Train with every learning rate and keep what selects best.

    Args:
        make: the model as it is before the first step; called once a learning rate.
        keep: what keeps states of its lower layers.
        training: encoded rows. rows: of all tasks. encoder: of the backbone.
        config, method, device, identity, screen: as for `train`.
        checkpoints: folder of checkpoints.
        report: as for `train`; steps are counted over all trainings, and names of several rates begin with the rate.

    Raises:
        PolypromptError: several learning rates, and nothing to select with; or as `train`.
    """
    rates = config.learning_rate or [method.learning_rate]
    selecting = [task for task in rows if any(split.examples for split in task.selecting.values())]
    if len(rates) > 1 and not selecting:
        raise PolypromptError("--learning-rate: several, but nothing selects among them; leave --selection held-out")
    best: Learned | None = None
    measured: dict[str, list[tuple[int, float]]] = {}
    seconds, steps = 0.0, 0
    for rate in rates:
        model = make()
        trunk = keep(model)

        def validate(model: PromptedModel = model, trunk: TrunkCache | None = trunk) -> dict[str, float]:
            return validation_scores(model, selecting, encoder, device, trunk)

        def once(
            name: str,
            part: str,
            before: int,
            model: PromptedModel = model,
            rate: float = rate,
            validate: Callable = validate,
            trunk: TrunkCache | None = trunk,
        ) -> Steps[Progress]:
            return train_by_steps(
                model,
                training,
                config,
                method,
                device,
                checkpoints / name / "last.safetensors",
                f"{identity}{part}",
                screen,
                rate,
                validate if selecting else None,
                _behind(report, f"rate-{rate:g}/" if len(rates) > 1 else "", before),
                trunk=trunk,
            )

        name = f"rate-{rate:g}"
        progress = yield from once(name, f"-{rate:g}", steps)
        if config.sharing is Sharing.SPECIALISE and model.prompt is not None:
            screen.say("each task goes on alone")
            model.prompt = specialised(model, training).to(device.torch)
            after = yield from once(f"{name}-specialise", f"-{rate:g}-specialise", steps + progress.step)
            progress = progress.followed_by(after)
        measured[f"{rate:g}"] = progress.selection
        seconds, steps = seconds + progress.seconds, steps + progress.step
        found = Learned(model, rate, progress, seconds, steps, measured, trunk)
        if best is None or progress.selected > best.progress.selected:
            best = found
        if len(rates) > 1:
            screen.say(f"learning rate {rate:g}: {progress.selected:.2f} on the rows that select")
    assert best is not None
    return Learned(best.model, best.rate, best.progress, seconds, steps, measured, best.trunk)


def validation_score(
    model: PromptedModel,
    rows: Sequence[TaskRows],
    encoder: TextEncoder,
    device: Device,
    trunk: TrunkCache | None = None,
) -> float:
    """The mean of `validation_scores` over tasks."""
    scores = validation_scores(model, rows, encoder, device, trunk)
    return sum(scores.values()) / len(scores)


def validation_scores(
    model: PromptedModel,
    rows: Sequence[TaskRows],
    encoder: TextEncoder,
    device: Device,
    trunk: TrunkCache | None = None,
) -> dict[str, float]:
    """Task -> its main metric on the rows that select, in points, the mean over its languages."""
    scores = {}
    for task_rows in rows:
        card = task_rows.task.card
        found = []
        for language, split in task_rows.selecting.items():
            if split.examples:
                predictions = predict(model, encoder, card, split, device, language, trunk)
                if device.leads:
                    found.append(next(iter(score(card, predictions, language).values())))
        if found:
            scores[card.name] = sum(found) / len(found)
    return device.first(lambda: scores)


def selection_of(config: RunConfig, rows: Sequence[TaskRows], learned: Learned) -> SelectionCard:
    """What a manifest says of the selection."""
    return SelectionCard(
        rule=config.selection.value,
        rows={
            task.task.name: sum(len(split.examples) for split in task.selecting.values())
            for task in rows
            if task.selecting
        },
        measured={rate: list(points) for rate, points in learned.measured.items()},
        learning_rate=learned.rate,
        step=learned.progress.best or learned.progress.step,
        own={task: step for task, (step, _) in learned.progress.own.items()},
    )


def _behind(report: Report, prefix: str, steps: int) -> Report:
    """Told a training that comes after others: its names get a prefix and its steps those before."""
    return lambda values, step: report({prefix + name: value for name, value in values.items()}, steps + step)
