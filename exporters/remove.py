"""Remove tasks from a bundle; its graph and the weights of its encoder stay as they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import PolypromptError, run_command
from exporters.bundle import (
    BundleCard,
    BundledTask,
    changeable,
    changing,
    find_bundled,
    read_part,
    replace_tasks,
    tasks_file,
)
from exporters.tasks import Tensors, select


def remove(bundle: Path, names: Sequence[str]) -> BundleCard:
    """Remove tasks with their prompts and heads, as far as no other task uses them.

    Args:
        bundle: what loses them. names: of the tasks.

    Returns:
        The new card.

    Raises:
        PolypromptError: no such task, or no other one is left.
    """
    with changing(bundle):
        card = changeable(bundle)
        gone = [find_bundled(card.tasks, name) for name in names]
        left = [task for task in card.tasks if task not in gone]
        if not left:
            raise PolypromptError(f"{bundle}: no task would be left; remove the folder instead")
        parity = {engine: report.without(names) for engine, report in card.parity.items()}
        files: dict[str, Tensors] = {}
        for file in dict.fromkeys(task.file for task in gone):
            rest = [task for task in left if task.file == file]
            ids = [number for task in rest for number in (task.task_id, *task.languages.values())]
            if rest:
                tensors = select(read_part(bundle / file), ids)
                new = tasks_file(tensors)
                files[new] = tensors
                left = [_moved(task, ids, new) if task in rest else task for task in left]
        return replace_tasks(bundle, card.model_copy(update={"tasks": left, "parity": parity}), files)


def _moved(task: BundledTask, ids: Sequence[int], file: str) -> BundledTask:
    """A task by its ids in the file with what is left."""
    languages = {code: ids.index(number) for code, number in task.languages.items()}
    return task.model_copy(update={"task_id": ids.index(task.task_id), "languages": languages, "file": file})


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.remove", description=__doc__)
    parser.add_argument("bundle", type=Path, help="bundle that loses them")
    parser.add_argument("task", nargs="+", help="their names")
    options = parser.parse_args()
    card = remove(options.bundle, options.task)
    print(f"{options.bundle}: removed {', '.join(options.task)}; left {', '.join(t.card.name for t in card.tasks)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
