"""Work that is shared out among processes, each of which sees what this one has in memory."""

from __future__ import annotations

import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from benchmarks.errors import PolypromptError

Result = TypeVar("Result")
Job = Callable[[], Result]


def in_processes(
    jobs: Sequence[Job[Result]], own: Sequence[Job[Result]] = (), processes: int | None = None
) -> list[Result]:
    """Do jobs that do not depend on each other.

    Args:
        jobs: for whichever process is free; what they return is pickled. What they change in memory may be lost.
        own: for this process alone, which does them first: with a library that has threads, which no other process has.
        processes: how many; None: as many as there are processors. One, or a system without fork: this one does all.

    Returns:
        What jobs and own returned, in their order.

    Raises:
        PolypromptError: a process was ended from outside, or a job raised one; whatever else a job raises goes up too.
    """
    many = len(os.sched_getaffinity(0)) if processes is None else processes
    many = min(many, len(jobs) + bool(own))
    if many < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [job() for job in (*jobs, *own)]
    context = multiprocessing.get_context("fork")
    taken = context.Value("q", 0)

    def work() -> list[tuple[int, Result]]:
        done: list[tuple[int, Result]] = []
        while True:
            with taken.get_lock():
                at, taken.value = taken.value, taken.value + 1
            if at >= len(jobs):
                return done
            done.append((at, jobs[at]()))

    def serve(pipe: Connection) -> None:
        try:
            pipe.send(work())
        except PolypromptError as error:
            pipe.send(error)
        except Exception:
            pipe.send(RuntimeError(traceback.format_exc()))

    others: list[tuple[Any, Connection]] = []
    try:
        for _ in range(many - 1):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=serve, args=(there,), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # on threads: jobs use no library that has any
                process.start()
            there.close()
            others.append((process, here))
        last = [job() for job in own]
        found = dict(work())
        for process, pipe in others:
            try:
                told = pipe.recv()
            except EOFError:
                raise PolypromptError("a process that shared the work was ended; is there enough memory?") from None
            if isinstance(told, Exception):
                raise told
            found |= dict(told)
            process.join()
    finally:
        for process, pipe in others:
            process.kill()
            process.join()
            pipe.close()
    return [*(found[at] for at in range(len(jobs))), *last]
