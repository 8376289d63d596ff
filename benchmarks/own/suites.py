"""The suites of a user's task files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.errors import PolypromptError
from benchmarks.own.declaration import read_toml
from benchmarks.own.labels import LABELLED, check_tags
from benchmarks.own.python import read_python
from benchmarks.scoring import METRICS
from benchmarks.task import Suite, Task

_READERS = {".toml": read_toml, ".py": read_python}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def read_suites(files: Sequence[Path], built_in: Sequence[Suite]) -> tuple[Suite, ...]:
    """The suites of task files, in the order of the files, which may share one.

    Args:
        files: in TOML, or in Python, which is run.
        built_in: suites whose names, and the names of whose tasks, are taken.

    Raises:
        PolypromptError: a file is not there or has a mistake; names file, task and key.
    """
    official = {suite.name for suite in built_in}
    owners = {task.name: f"suite {suite.name}" for suite in built_in for task in suite.tasks}
    own: dict[str, list[Task]] = {}
    for file, task in _tasks(files):
        place = f"{file}: task {task.name!r}"
        _check(task, place)
        if task.card.suite in official:
            raise PolypromptError(f"{file}: suite: {task.card.suite!r} is a suite of the project; choose another name")
        if task.name in owners:
            raise PolypromptError(f"{place}: name: {owners[task.name]} has a task of this name; choose another one")
        owners[task.name] = str(file)
        own.setdefault(task.card.suite, []).append(task)
    return tuple(Suite(name=name, title=name, tasks=tuple(tasks)) for name, tasks in own.items())


def _tasks(files: Sequence[Path]) -> Iterator[tuple[Path, Task]]:
    for file in files:
        read = _READERS.get(file.suffix)
        if read is None:
            raise PolypromptError(f"--task-file {file}: its name must end in {' or '.join(_READERS)}")
        if not file.is_file():
            raise PolypromptError(f"{file}: no such file; let --task-file name the place where it is")
        for task in read(file):
            yield file, task


def _check(task: Task, place: str) -> None:
    """What holds for a task however it is declared; see `read_suites`."""
    card = task.card
    for key, name in (("name", card.name), ("suite", card.suite)):
        if not _NAME.fullmatch(name):
            raise PolypromptError(
                f"{place}: {key}: {name!r} may have letters, digits, - and _ alone; choose another one"
            )
    for code in card.languages if card.train_language is None else (*card.languages, card.train_language):
        if not _LANGUAGE.fullmatch(code):
            raise PolypromptError(f"{place}: languages: {code!r} is no BCP-47 code, such as en, swa or zh-Hant")
    for metric in card.metrics:
        if metric not in METRICS[card.kind]:
            known = ", ".join(METRICS[card.kind])
            raise PolypromptError(f"{place}: metrics: {card.kind} has no {metric!r}; there are {known}")
    for key, names in (("labels", card.labels), ("languages", card.languages), ("metrics", card.metrics)):
        if len(set(names)) < len(names):
            raise PolypromptError(f"{place}: {key}: a name stands there twice; write each once")
    if card.kind in LABELLED:
        if len(card.labels) == 1:
            raise PolypromptError(f"{place}: labels: {card.labels[0]!r} alone; name at least two, or leave the key out")
        if not card.labels and (card.head or card.train_language is None):
            raise PolypromptError(
                f"{place}: labels: missing; name them, for there are no training rows to read them from"
            )
    check_tags(card, place)
