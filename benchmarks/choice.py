"""What a command line chooses: tasks, and the official files of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import data
from benchmarks.errors import PolypromptError
from benchmarks.registry import find_suite, find_task, suites
from benchmarks.task import Task


@dataclass(frozen=True)
class SplitPlace:
    """A split of a task in one language.

    Attributes:
        split: "train", "dev" or "test".
        language: BCP-47 code.
        files: its official files, see `Source.files`.
    """

    split: str
    language: str
    files: tuple[str, ...]


def comma_list(text: str) -> list[str]:
    """The names in "a,b"; the type of a command-line option."""
    return [name.strip() for name in text.split(",") if name.strip()]


def chosen_tasks(suite_names: Sequence[str], task_names: Sequence[str]) -> list[Task]:
    """The tasks of the suites, in their order.

    Args:
        suite_names: suites; empty: all.
        task_names: a part of their tasks; empty: all.

    Raises:
        PolypromptError: there is no such suite or task, or the task belongs to none of the suites.
    """
    chosen = [find_suite(name) for name in suite_names] or list(suites())
    for name in task_names:
        suite = find_task(name).card.suite
        if suite not in [one.name for one in chosen]:
            raise PolypromptError(f"--tasks {name}: belongs to suite {suite}, add it to --suite")
    return [task for suite in chosen for task in suite.tasks if not task_names or task.name in task_names]


def split_places(task: Task) -> list[SplitPlace]:
    """Every split of a task that has official files; none when its rows are generated."""
    places = [
        SplitPlace(split, language, task.source.files(split, language))
        for split in ("train", "dev", "test")
        for language in data.languages(task, split, None)
    ]
    return [place for place in places if place.files]
