"""One job of a sweep after another, each done once whoever else is at it."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from harness.at_once import DIED, at_once
from harness.config import RunConfig
from harness.lock import Busy, locked
from harness.plan import Job
from harness.screen import Screen
from harness.turns import Steps, at_a_stretch, in_turns

if TYPE_CHECKING:  # loads torch
    from harness.shared import Shared

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


def perform_by_steps(config: RunConfig, screen: Screen, shared: Shared | None = None) -> Steps[Outcome]:
    """Do a job or go on with it, unless it is done or another process is at it.

    Whatever goes wrong is told in the outcome and, in full, in `error.txt` of the run folder.

    Args:
        config: of the job. screen: shows progress. shared: what other jobs of this process have as well.
    """
    try:
        with locked(config.folder):
            return (yield from _alone(config, screen, shared))
    except Busy:
        return Outcome(State.BUSY)
    except PolypromptError as error:
        return Outcome(State.FAILED, _line(error))


perform = at_a_stretch(perform_by_steps)

Round = Callable[[Sequence[Job]], Iterator[tuple[Job, Outcome]]]
"""Tries jobs, each once."""


def all_of(jobs: Sequence[Job], tried: Round, screen: Screen) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs; those that other processes work on are looked at again when the rest is done."""
    while jobs:
        busy = []
        for job, outcome in tried(jobs):
            if outcome.state is State.BUSY:
                busy.append(job)
            else:
                yield job, outcome
        if busy and len(busy) == len(jobs):
            time.sleep(PAUSE)
        elif busy:
            screen.say(f"jobs left to other processes: {len(busy)}")
        jobs = busy


def one_by_one(screen: Screen) -> Round:
    """One job after another in this process."""
    return lambda jobs: ((job, perform(job.config, screen)) for job in jobs)


def side_by_side(count: int, screen: Screen) -> Round:
    """So many jobs at a time in turns, those of one frozen encoder together; the others come last, one by one."""

    def tried(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        from harness.shared import Shared, in_turn  # with torch

        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.config.backbone if in_turn(job.config) else "", []).append(job)
        alone = groups.pop("", [])
        for group in groups.values():
            shared = Shared(len(group), min(count, len(group)))
            works = (perform_by_steps(job.config, screen, shared) for job in group)
            for place, outcome in in_turns(works, shared.at_once):
                yield group[place], outcome
        yield from one_by_one(screen)(alone)

    return tried


def in_processes(count: int) -> Round:
    """So many jobs at a time, each in a process of its own."""

    def tried(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        for place, (state, error) in at_once([job.config for job in jobs], count, _perform):
            yield jobs[place], Outcome(State.FAILED, error) if state == DIED else Outcome(State(state), error)

    return tried


def _perform(config: RunConfig) -> tuple[str, str]:
    outcome = perform(config, Screen(quiet=True))
    return outcome.state.value, outcome.error


def _alone(config: RunConfig, screen: Screen, shared: Shared | None) -> Steps[Outcome]:
    if is_done(config):
        return Outcome(State.SKIPPED)
    from harness.execute import fill  # with torch, which what only asks for the state of jobs does without
    from harness.shared import Shared

    run = config.folder
    try:
        with (run / STARTS).open("a", encoding="utf-8") as file:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(f"{now} {platform.node()} {os.getpid()}\n")
        yield from fill(config, True, screen, shared or Shared())
    except Exception as error:  # a mistake of ours in one job is no reason to leave the others undone
        foreseen = isinstance(error, PolypromptError)
        with suppress(OSError):
            write_atomic(run / ERROR, f"{error}\n" if foreseen else traceback.format_exc())
        return Outcome(State.FAILED, _line(error) if foreseen else f"{type(error).__name__}: {_line(error)}")
    (run / ERROR).unlink(missing_ok=True)
    return Outcome(State.DONE)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
