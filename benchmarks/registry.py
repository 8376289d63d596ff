"""All suites and tasks by name: those of the project, and those of a user's task files where these are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import PolypromptError, did_you_mean
from benchmarks.own.suites import read_suites
from benchmarks.suites import conll, demo, glue, squad, superglue, xcopa, xtreme
from benchmarks.task import Suite, Task


def suites() -> tuple[Suite, ...]:
    """Every suite, the embedded demo first."""
    return (demo.SUITE, glue.SUITE, superglue.SUITE, conll.SUITE, squad.SUITE, xtreme.SUITE, xcopa.SUITE)


def own_suites(task_files: Sequence[Path]) -> tuple[Suite, ...]:
    """The suites of a user's task files (docs/own-tasks.md). A file in Python is run.

    Raises:
        PolypromptError: a file is not there or has a mistake; names file, task and key.
    """
    return read_suites(task_files, suites())


def find_suite(name: str, own: Sequence[Suite] = ()) -> Suite:
    """The suite of a name.

    Args:
        name: of the suite. own: suites beside those of the project.

    Raises:
        PolypromptError: there is none; says which name may have been meant.
    """
    known = {suite.name: suite for suite in (*suites(), *own)}
    if name not in known:
        raise PolypromptError(f"unknown suite {name!r}: {did_you_mean(name, known)}")
    return known[name]


def find_task(name: str, own: Sequence[Suite] = ()) -> Task:
    """The task of a name, over all suites.

    Args:
        name: of the task. own: suites beside those of the project.

    Raises:
        PolypromptError: there is none; says which name may have been meant.
    """
    known = {task.name: task for suite in (*suites(), *own) for task in suite.tasks}
    if name not in known:
        raise PolypromptError(f"unknown task {name!r}: {did_you_mean(name, known)}")
    return known[name]
