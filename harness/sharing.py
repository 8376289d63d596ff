"""Which prompt a task gets: one for all, one each, or one for all with a small part of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from harness.attention import Prefix
from harness.backbone import SoftPrompt
from harness.by_name import ByName
from harness.placement import Placement, Positions
from harness.prompt import TrainedPrompt, by_slot

PROMPT = "prompt.safetensors"
"""The file of trained prompts in a run folder."""

BARE = -1
"""In place of a row: the task reads the encoder as it is, without the prompt of the others."""


class LowRank(nn.Module):
    """A small part that is added to a shared prompt: over all that a slot holds a product of two factors.

    It begins at zero. With r much smaller than the slots it has about r / slots of the prompt's parameters.

    Args:
        shape: of the prompt, [..., slot, width]. rank: r.
    """

    def __init__(self, shape: tuple[int, ...], rank: int) -> None:
        super().__init__()
        self.shape = shape
        self.slots = nn.Parameter(torch.randn(shape[-2], rank) / rank**0.5)
        self.states = nn.Parameter(torch.zeros(rank, math.prod(shape) // shape[-2]))

    def tensor(self) -> Tensor:
        """Of the prompt's shape."""
        return by_slot(self.slots @ self.states, self.shape)


class Prompts(nn.Module):
    """The prompts of all tasks of a run, while they are trained.

    Args:
        shared: the prompt of every task that has none of its own; may be None.
        tasks: task -> a prompt of its own, or its part on top of the shared one.
        languages: language -> its part on top of the shared one.
        bare: tasks that have none, not the shared one either.
    """

    def __init__(
        self,
        shared: TrainedPrompt | None,
        tasks: Mapping[str, TrainedPrompt | LowRank] | None = None,
        languages: Mapping[str, LowRank] | None = None,
        bare: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.bare = frozenset(bare)
        self.shared = shared
        self.tasks = ByName(tasks or {})
        self.languages = ByName(languages or {})
        first = shared or next(part for part in self.tasks.values() if isinstance(part, TrainedPrompt))
        self.placement, self.slots = first.placement, first.shape[-2]

    def tensor(self, task: str, language: str = "") -> Tensor:
        """The prompt of a task, with everything folded in, of the shape that its placement describes."""
        own = dict(self.tasks.items()).get(task)
        if isinstance(own, TrainedPrompt):
            return own.tensor()
        total = self.shared.tensor()
        for part in (own, dict(self.languages.items()).get(language)):
            total = total if part is None else total + part.tensor()
        return total

    def forward(self, task: str, language: str = "") -> Prefix | SoftPrompt | None:
        """The prompt of a pass whose rows are all of one task and language; None where a task has none."""
        if task in self.bare or (self.shared is None and task not in self.tasks):
            return None
        return _enter(self.tensor(task, language), self.placement)

    def fold(self, tasks: Iterable[str]) -> PromptBank:
        """The same prompts as they are stored and exported; gives equal outputs.

        Args:
            tasks: those that get a row.
        """
        was_training = self.training
        self.eval()
        names = list(tasks)
        rows = {name: BARE for name in names if name in self.bare}
        tensors: list[Tensor] = []
        with torch.no_grad():
            for name in dict.fromkeys(task if task in self.tasks else "" for task in names if task not in self.bare):
                if self.shared is None and not name:
                    continue  # a task that was not trained has none
                for language in ("", *self.languages):
                    rows[f"{name}@{language}" if language else name] = len(tensors)
                    tensors.append(self.tensor(name, language))
        self.train(was_training)
        return PromptBank(torch.stack(tensors), rows, self.placement)


class PromptBank(nn.Module):
    """Prompts that are not trained any more: one tensor, and which row of it a task and language get.

    Args:
        tensor: [prompt, ...], each as the placement describes it.
        rows: "task" or "task@language" -> row, or `BARE`; an empty task stands for every other one.
        placement: where they enter.
    """

    def __init__(self, tensor: Tensor, rows: Mapping[str, int], placement: Placement) -> None:
        super().__init__()
        self.bank = nn.Buffer(tensor)
        self.rows = dict(rows)
        self.placement, self.slots = placement, tensor.shape[-2]

    def row(self, task: str, language: str = "") -> int | None:
        """The row of a task, that of a language where it has one; None where the task has no prompt."""
        name = task if task in self.rows else ""
        row = self.rows.get(f"{name}@{language}", self.rows.get(name))
        return None if row == BARE else row

    def by_language(self, task: str) -> dict[str, int]:
        """Language -> row, of those languages that have a row of their own for a task."""
        mark = f"{task if task in self.rows else ''}@"
        return {name.removeprefix(mark): row for name, row in self.rows.items() if name.startswith(mark)}

    def forward(self, task: str, language: str = "") -> Prefix | SoftPrompt | None:
        """The prompt of a pass whose rows are all of one task and language; None where a task has none."""
        row = self.row(task, language)
        return None if row is None else _enter(self.bank[row], self.placement)

    def fold(self, tasks: Iterable[str]) -> PromptBank:
        """Itself."""
        return self

    def write(self, folder: Path) -> None:
        """Write prompt.safetensors: "prefix" [prompt, ...], each as the placement describes it.

        Metadata "polyprompt" is a JSON object with the placement and "rows".
        """
        about = self.placement.model_dump(mode="json") | {"rows": self.rows}
        # one entry: safetensors writes several in an order that changes, and equal runs shall give equal bytes
        metadata = {"polyprompt": json.dumps(about)}
        write_atomic(folder / PROMPT, save({"prefix": self.bank.contiguous().cpu()}, metadata))

    @classmethod
    def read(cls, folder: Path) -> PromptBank:
        """Read prompt.safetensors.

        Raises:
            PolypromptError: absent, damaged, or another kind of file.
        """
        try:
            with safe_open(folder / PROMPT, framework="pt") as file:
                about = json.loads((file.metadata() or {})["polyprompt"])
                rows = about.pop("rows")
                return cls(file.get_tensor("prefix"), rows, Placement.model_validate(about))
        except (OSError, SafetensorError, KeyError, ValueError, AttributeError) as error:
            raise PolypromptError(f"{folder / PROMPT}: not the prompts of a run: {error}") from None


def _enter(tensor: Tensor, placement: Placement) -> Prefix | SoftPrompt:
    """A prompt as the backbone takes it, the same for all rows."""
    shifted = placement.positions is Positions.SHIFTED
    if placement.layers is None:
        return SoftPrompt(tensor[None], shifted)
    return Prefix(tensor.unsqueeze(2), placement.layers, placement.gated, shifted)
