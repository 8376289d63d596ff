"""What a person sees while waiting: progress bars with time left on a terminal, nothing when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar:
    """One running bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def step(self, note: str = "", by: int = 1) -> None:
        """Go on by some units and show a note."""
        self._progress.update(self._task, advance=by, note=note)


class Screen:
    """Writes to stderr, so that stdout stays what a program may read.

    Args:
        quiet: no bars and no sentences.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars = sys.stderr.isatty() and not quiet
        self._shown: Progress | None = None

    def say(self, sentence: str) -> None:
        """One line."""
        self._console.print(sentence, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A bar with counts, time spent, time left and a note; below the one that is there, and gone with its end."""
        if self._shown is not None:
            task = self._shown.add_task(title, total=total, completed=done, note="")
            try:
                yield Bar(self._shown, task)
            finally:
                self._shown.remove_task(task)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self._console, disable=not self._bars) as self._shown:
            try:
                yield Bar(self._shown, self._shown.add_task(title, total=total, completed=done, note=""))
            finally:
                self._shown = None
