"""All suites and tasks by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from benchmarks.errors import PolypromptError
from benchmarks.suites import conll, demo, glue, squad, superglue, xtreme
from benchmarks.task import Suite, Task


def suites() -> tuple[Suite, ...]:
    """Every suite, the embedded demo first."""
    return (demo.SUITE, glue.SUITE, superglue.SUITE, conll.SUITE, squad.SUITE, xtreme.SUITE)


def find_suite(name: str) -> Suite:
    """The suite of a name.

    Raises:
        PolypromptError: there is none; says which name may have been meant.
    """
    known = {suite.name: suite for suite in suites()}
    if name not in known:
        raise _unknown("suite", name, known)
    return known[name]


def find_task(name: str) -> Task:
    """The task of a name, over all suites.

    Raises:
        PolypromptError: there is none; says which name may have been meant.
    """
    known = {task.name: task for suite in suites() for task in suite.tasks}
    if name not in known:
        raise _unknown("task", name, known)
    return known[name]


def _unknown(what: str, name: str, known: Iterable[str]) -> PolypromptError:
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
    return PolypromptError(f"unknown {what} {name!r}: {hint}")
