"""The form `all`: tasks that share one prompt are answered by one pass of the encoder, their heads side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.errors import PolypromptError
from exporters.bundle import BundledTask
from exporters.tasks import Tensors, select
from harness.heads import HeadKind

BANKS = ("sequence_logits", "sequence_logits.readout", "token_logits")


def side_by_side(tasks: Sequence[BundledTask], tensors: Tensors) -> tuple[list[BundledTask], Tensors]:
    """One task for the graph whose head has the columns of all tasks.

    Args:
        tasks: of one bundle. tensors: what the graph is fed for them.

    Returns:
        The tasks with their columns, and what the same graph is fed so that it answers for all of them at once.

    Raises:
        PolypromptError: they are not fed the same: prompts differ, or one is read at a mask; names the tasks.
    """
    first = tasks[0]
    for task in tasks:
        reason = _apart(first, task, tensors)
        if reason:
            raise PolypromptError(f"--form all: {reason}; use --form mixed")
    moved, ends = [], {"sequence_logits": 0, "token_logits": 0, "embedding": 0}
    for task in tasks:
        begin = 0 if task.output == "embedding" else ends[task.output]
        ends[task.output] = begin + task.columns
        moved.append(task.model_copy(update={"task_id": 0, "first_column": begin}))
    found = select(tensors, [first.task_id])
    for bank in (bank for bank in BANKS if f"{bank}.head" in tensors):
        output = "token_logits" if bank == "token_logits" else "sequence_logits"
        width, columns = tensors[f"{bank}.weight"].shape[1], max(1, ends[output])
        weight, bias = np.zeros((1, width, columns), np.float32), np.zeros((1, 1, columns), np.float32)
        for task, new in zip(tasks, moved, strict=True):
            if task.output == output and (task.head is HeadKind.LINEAR) == (bank != "sequence_logits.readout"):
                row = tensors[f"{bank}.head"][task.task_id]
                mine = slice(new.first_column, new.first_column + task.columns)
                weight[0, :, mine] = tensors[f"{bank}.weight"][row, :, : task.columns]
                bias[0, :, mine] = tensors[f"{bank}.bias"][row, :, : task.columns]
        found |= {f"{bank}.weight": weight, f"{bank}.bias": bias, f"{bank}.head": np.zeros(1, np.int64)}
    if "sequence_logits.plain" in tensors:
        plain = np.ones((1, 1, max(1, ends["sequence_logits"])), bool)
        for new in moved:
            if new.output == "sequence_logits" and new.head is not HeadKind.LINEAR:
                plain[..., new.first_column : new.first_column + new.columns] = False
        found["sequence_logits.plain"] = plain
    return moved, found


def _apart(first: BundledTask, task: BundledTask, tensors: Tensors) -> str:
    """Why a task cannot share a pass with the first one; nothing where it can."""
    if task.mask_id is not None:
        return f"task {task.card.name} is read at a mask, which other tasks do not have in their rows"
    if task.languages:
        return f"task {task.card.name} has prompts of its own for {', '.join(task.languages)}"
    if "task_prompt" in tensors:
        mine, other = (int(tensors["task_prompt"][one.task_id]) for one in (first, task))
        slots = tensors["prompt_lengths"].sum(0)
        bare = next((one for one, row in ((first, mine), (task, other)) if not slots[row]), None)
        if mine != other and bare is not None:
            return f"task {bare.card.name} has no prompt and others do; it would share theirs with --retrieval-prompt"
        if mine != other:
            return f"tasks {first.card.name} and {task.card.name} have prompts of their own"
    if task.max_positions != first.max_positions:
        return f"tasks {first.card.name} and {task.card.name} have prompts of different lengths"
    return ""
