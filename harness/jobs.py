"""One job of a sweep after another, each done once whoever else is at it."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from harness.at_once import DIED, at_once
from harness.config import RunConfig
from harness.lock import Busy, locked
from harness.plan import Job
from harness.screen import Screen

PAUSE = 1.0
"""Seconds until jobs that other processes work on are looked at again."""

STARTS = "starts.log"
"""In a run folder: a line each time that a sweep began or continued it, with time, machine and process."""

ERROR = "error.txt"
"""In a run folder: why the last attempt failed."""


class State(StrEnum):
    """What became of a job."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    BUSY = "busy"


@dataclass(frozen=True)
class Outcome:
    """What became of a job, and of a failed one in one line why."""

    state: State
    error: str = ""


def is_done(config: RunConfig) -> bool:
    """Whether a run is complete."""
    return (config.folder / "results.json").exists()


def perform(config: RunConfig, screen: Screen) -> Outcome:
    """Do a job or go on with it, unless it is done or another process is at it.

    Whatever goes wrong is told in the outcome and, in full, in `error.txt` of the run folder.
    """
    try:
        with locked(config.folder):
            return _alone(config, screen)
    except Busy:
        return Outcome(State.BUSY)
    except PolypromptError as error:
        return Outcome(State.FAILED, _line(error))


def one_by_one(jobs: Sequence[Job], screen: Screen) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs in this process; those that other processes work on are looked at again when the rest is done."""
    while jobs:
        busy = []
        for job in jobs:
            outcome = perform(job.config, screen)
            if outcome.state is State.BUSY:
                busy.append(job)
            else:
                yield job, outcome
        if busy and len(busy) == len(jobs):
            time.sleep(PAUSE)
        elif busy:
            screen.say(f"jobs left to other processes: {len(busy)}")
        jobs = busy


def several(jobs: Sequence[Job], count: int, screen: Screen) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs in so many processes at a time; those that others work on are looked at again when the rest is done."""
    while jobs:
        busy = []
        for place, (state, error) in at_once([job.config for job in jobs], count, _perform):
            outcome = Outcome(State.FAILED, error) if state == DIED else Outcome(State(state), error)
            if outcome.state is State.BUSY:
                busy.append(jobs[place])
            else:
                yield jobs[place], outcome
        if busy and len(busy) == len(jobs):
            time.sleep(PAUSE)
        elif busy:
            screen.say(f"jobs left to other processes: {len(busy)}")
        jobs = busy


def _perform(config: RunConfig) -> tuple[str, str]:
    outcome = perform(config, Screen(quiet=True))
    return outcome.state.value, outcome.error


def _alone(config: RunConfig, screen: Screen) -> Outcome:
    if is_done(config):
        return Outcome(State.SKIPPED)
    from harness.execute import fill  # with torch, which what only asks for the state of jobs does without

    run = config.folder
    try:
        with (run / STARTS).open("a", encoding="utf-8") as file:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(f"{now} {platform.node()} {os.getpid()}\n")
        fill(config, True, screen)
    except Exception as error:  # a mistake of ours in one job is no reason to leave the others undone
        foreseen = isinstance(error, PolypromptError)
        with suppress(OSError):
            write_atomic(run / ERROR, f"{error}\n" if foreseen else traceback.format_exc())
        return Outcome(State.FAILED, _line(error) if foreseen else f"{type(error).__name__}: {_line(error)}")
    (run / ERROR).unlink(missing_ok=True)
    return Outcome(State.DONE)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
