"""Which prompt a task gets: one for all, one each, or one for all with a small part of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import torch
from torch import Tensor, nn

from harness.attention import Prefix
from harness.prompt import DeepPrompt


class Sharing(StrEnum):
    """How tasks share a prompt.

    `shared`: one prompt, a head each. `specialise`: one prompt first, then each task goes on alone from it (the
    multi-task variant of P-Tuning v2, MPT-2). `low-rank`: one prompt, and a part of low rank a task and a language on
    top of it. `separate`: a prompt a task.
    """

    SHARED = "shared"
    SPECIALISE = "specialise"
    LOW_RANK = "low-rank"
    SEPARATE = "separate"


class LowRank(nn.Module):
    """A small part that is added to a shared prompt: over all layers, keys, values and heads a product of two factors.

    It begins at zero. With r much smaller than the slots it has about r / slots of the prompt's parameters.

    Args:
        shape: of the prompt, [layer, 2, head, slot, head_dim]. rank: r.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], rank: int) -> None:
        super().__init__()
        layers, two, heads, slots, head_dim = shape
        self.shape = shape
        self.slots = nn.Parameter(torch.randn(slots, rank) / rank**0.5)
        self.states = nn.Parameter(torch.zeros(rank, layers * two * heads * head_dim))

    def tensor(self) -> Tensor:
        """[layer, 2, head, slot, head_dim]"""
        layers, two, heads, slots, head_dim = self.shape
        return (self.slots @ self.states).view(slots, layers, two, heads, head_dim).permute(1, 2, 3, 0, 4)


class Prompts(nn.Module):
    """The prompts of all tasks of a run, while they are trained.

    Args:
        shared: the prompt of every task that has none of its own; may be None.
        tasks: task -> a prompt of its own, or its part on top of the shared one.
        languages: language -> its part on top of the shared one.
    """

    def __init__(
        self,
        shared: DeepPrompt | None,
        tasks: Mapping[str, DeepPrompt | LowRank] | None = None,
        languages: Mapping[str, LowRank] | None = None,
    ) -> None:
        super().__init__()
        self.shared = shared
        self.tasks = nn.ModuleDict(tasks or {})
        self.languages = nn.ModuleDict(languages or {})
        first = shared or next(part for part in self.tasks.values() if isinstance(part, DeepPrompt))
        self.layers, self.gated, self.slots = first.layers, first.gated, first.shape[3]

    def tensor(self, task: str, language: str = "") -> Tensor:
        """Keys and values for a task, with everything folded in, [layer, 2, head, slot, head_dim]."""
        own = dict(self.tasks.items()).get(task)
        if isinstance(own, DeepPrompt):
            return own.tensor()
        total = self.shared.tensor()
        for part in (own, dict(self.languages.items()).get(language)):
            total = total if part is None else total + part.tensor()
        return total

    def forward(self, task: str, language: str = "") -> Prefix | None:
        """The prefix of a pass whose rows are all of one task and language; None where a task has no prompt."""
        if self.shared is None and task not in self.tasks:
            return None
        return Prefix(self.tensor(task, language).unsqueeze(2), self.layers, self.gated)

    def fold(self, tasks: Iterable[str]) -> PromptBank:
        """The same prompts as they are stored and exported; gives equal outputs.

        Args:
            tasks: those that get a row.
        """
        was_training = self.training
        self.eval()
        rows: dict[str, int] = {}
        tensors: list[Tensor] = []
        with torch.no_grad():
            for name in dict.fromkeys(task if task in self.tasks else "" for task in tasks):
                if self.shared is None and not name:
                    continue  # a task that was not trained has none
                for language in ("", *self.languages):
                    rows[f"{name}@{language}" if language else name] = len(tensors)
                    tensors.append(self.tensor(name, language))
        self.train(was_training)
        return PromptBank(torch.stack(tensors), rows, self.layers, self.gated)


class PromptBank(nn.Module):
    """Prompts that are not trained any more: one tensor, and which row of it a task and language get.

    Args:
        tensor: [prompt, layer, 2, head, slot, head_dim].
        rows: "task" or "task@language" -> row; an empty task stands for every other one.
        layers: the prompted layers, ascending. gated: see `Prefix`.
    """

    def __init__(self, tensor: Tensor, rows: Mapping[str, int], layers: tuple[int, ...], gated: bool) -> None:
        super().__init__()
        self.bank = nn.Buffer(tensor)
        self.rows = dict(rows)
        self.layers, self.gated, self.slots = layers, gated, tensor.shape[4]

    def row(self, task: str, language: str = "") -> int | None:
        """The row of a task, that of a language where it has one; None where the task has no prompt."""
        name = task if task in self.rows else ""
        return self.rows.get(f"{name}@{language}", self.rows.get(name))

    def forward(self, task: str, language: str = "") -> Prefix | None:
        """The prefix of a pass whose rows are all of one task and language; None where a task has no prompt."""
        row = self.row(task, language)
        return None if row is None else Prefix(self.bank[row].unsqueeze(2), self.layers, self.gated)

    def fold(self, tasks: Iterable[str]) -> PromptBank:
        """Itself."""
        return self
