"""A task file in Python: it is run, and must define TASKS or TASK."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from benchmarks.errors import PolypromptError
from benchmarks.task import Task


def read_python(path: Path) -> list[Task]:
    """Run a file and take its tasks.

    Raises:
        PolypromptError: the file lies in a run folder or bundle, it fails (names the line that did), or it defines no
            tasks.
    """
    if is_of_others(path):
        raise PolypromptError(f"{path}: lies in a run folder or a bundle, from which no code is run; move it elsewhere")
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as error:
        raise PolypromptError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise PolypromptError(f"{path}:{lines[-1] if lines else 1}: {_what(error)}") from None
    tasks = names.get("TASKS", [names["TASK"]] if "TASK" in names else None)
    if not isinstance(tasks, list | tuple) or not tasks:
        raise PolypromptError(f"{path}: defines no tasks; write TASKS = [Task(...)], see docs/own-tasks.md")
    for number, task in enumerate(tasks):
        if not isinstance(task, Task):
            raise PolypromptError(f"{path}: TASKS[{number}] is {task!r}; it must be a benchmarks.task.Task")
    return list(tasks)


def is_of_others(path: Path) -> bool:
    """Whether a file lies in a run folder or a bundle: those are handed from one person to another."""
    return any(
        (folder / "bundle.json").exists() or all((folder / name).exists() for name in ("config.toml", "manifest.json"))
        for folder in path.absolute().parents
    )


def refuse_python(files: Sequence[Path], origin: Path) -> None:
    """Check that a run folder, which may come from somebody else, makes nobody run code.

    Args:
        files: task files that the run folder names. origin: where it does.

    Raises:
        PolypromptError: one of them is in Python.
    """
    for file in files:
        if file.suffix == ".py":
            raise PolypromptError(f"{origin}: names {file}, which is code: add --task-file {file} if you trust it")


def _what(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{error.title}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
