"""The state of a training, complete or absent on disk, and enough to go on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic


class Point(NamedTuple):
    """A point of the training curve: smoothed loss and share of right answers after so many steps and examples.

    `examples` is None in checkpoints that are older than it.
    """

    step: int
    loss: float
    right: float
    examples: int | None = None

    def after(self, before: Progress) -> Point:
        """The point in a training that goes on from another one."""
        examples = None if self.examples is None else before.examples + self.examples
        return self._replace(step=before.step + self.step, examples=examples)


class Progress(BaseModel):
    """How far a training is.

    Attributes:
        step: steps done. examples: examples (or windows) seen. seconds: spent in training.
        interruptions: times it was continued. curve: a point every few steps.
        passes: into how many passes a batch was split for want of memory.
        selection: (step, score on the rows that select) each time it was measured. best: the step with the best one; of
            tasks that share nothing, the last one that was the best of some task.
        own: task -> (step, score) of the best measurement of the task alone, where tasks share nothing that is trained.
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    interruptions: int = 0
    loss: float | None = None
    score: float | None = None
    curve: list[Point] = []
    passes: int = 1
    selection: list[tuple[int, float]] = []
    best: int | None = None
    own: dict[str, tuple[int, float]] = {}

    @property
    def selected(self) -> float:
        """The score on the rows that select of the weights that are kept; minus infinity if nothing was measured."""
        if self.own:
            return sum(score for _, score in self.own.values()) / len(self.own)
        return max((score for _, score in self.selection), default=float("-inf"))

    def followed_by(self, other: Progress) -> Progress:
        """Both trainings as one."""
        return other.model_copy(
            update={
                "step": self.step + other.step,
                "examples": self.examples + other.examples,
                "seconds": self.seconds + other.seconds,
                "interruptions": self.interruptions + other.interruptions,
                "passes": max(self.passes, other.passes),
                "selection": [*self.selection, *((self.step + step, score) for step, score in other.selection)],
                "best": self.best if other.best is None else self.step + other.best,
                "own": {task: (self.step + step, score) for task, (step, score) in other.own.items()},
                "curve": [*self.curve, *(point.after(self) for point in other.curve)],
            }
        )


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, progress: Progress, identity: str) -> None:
    """Write trained weights, optimiser state and progress as one safetensors file, atomically."""
    tensors = {f"model.{name}": weight.detach() for name, weight in _trained(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    metadata = {"progress": progress.model_dump_json(), "identity": identity}
    write_atomic(path, save({name: value.contiguous().cpu() for name, value in tensors.items()}, metadata))


def save_trained(path: Path, model: nn.Module, identity: str, names: Collection[str] | None = None) -> None:
    """Write the trained weights alone, atomically.

    Args:
        names: of the weights to write; all others stay as they are in the file. None: all.
    """
    trained = {name: weight.detach().contiguous().cpu() for name, weight in _trained(model).items()}
    if names is not None and path.exists():
        trained = _read(path)[1] | {name: trained[name] for name in names}
    write_atomic(path, save(trained, {"identity": identity}))


def load_trained(path: Path, model: nn.Module, identity: str) -> None:
    """Put weights of `save_trained` back.

    Raises:
        PolypromptError: absent, damaged, or of a run with other settings.
    """
    metadata, tensors = _read(path)
    if metadata["identity"] != identity:
        raise PolypromptError(f"{path}: belongs to a run with other settings or data; choose another --name")
    with torch.no_grad():
        for name, weight in _trained(model).items():
            weight.copy_(tensors[name])


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, identity: str) -> Progress:
    """Put weights and optimiser state back.

    Raises:
        PolypromptError: damaged, or of a run with other settings.
    """
    metadata, tensors = _read(path)
    if metadata["identity"] != identity:
        raise PolypromptError(f"{path}: belongs to a run with other settings or data; choose another --name")
    with torch.no_grad():
        for name, weight in _trained(model).items():
            weight.copy_(tensors[f"model.{name}"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    progress = Progress.model_validate(json.loads(metadata["progress"]))
    progress.interruptions += 1
    return progress


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return file.metadata(), tensors
    except (OSError, SafetensorError) as error:
        raise PolypromptError(f"{path}: damaged checkpoint ({error}); remove it to train from the start") from None


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
