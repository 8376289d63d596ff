"""Several runs at a time, each in a process of its own on its part of the processor.

Small steps leave a part of the cores idle: what is not a matrix product runs on one of them. Two runs on a core each
fill that time for each other. They share what lies in the caches: rows, pieces, and states of the lower layers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from harness.config import RunConfig

TRIES = 3
"""A run whose process died so often is given up: it may be what kills it."""

Work = Callable[[RunConfig], tuple[str, str]]
"""Does a run in a process of its own, and tells in two texts what became of it; a function of a module."""

DIED = "died"
"""In place of the first text: the process ended without one."""


def at_once(configs: Sequence[RunConfig], count: int, work: Work) -> Iterator[tuple[int, tuple[str, str]]]:
    """Do runs in processes of their own. One that dies is started again, from its checkpoint if `work` does so.

    After Ctrl-C or SIGTERM the processes are asked to write their checkpoints and end, and are waited for.

    Args:
        configs: of the runs. count: at most so many at a time. work: what is done with each.

    Yields:
        Place in `configs` and what became of it, in the order in which they end.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once all processes have ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.execute"])  # torch is loaded once, and each run begins with it
    threads = max(
        1, (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // count
    )
    todo = deque((place, 1) for place in range(len(configs)))
    running: dict[Connection, tuple[int, int, BaseProcess]] = {}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while todo or running:
            while todo and len(running) < count:
                place, tries = todo.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_process, args=(configs[place].model_dump_json(), work, threads, sender), daemon=True
                )
                process.start()
                sender.close()  # so that the end of the process is the end of what can be received
                running[receiver] = place, tries, process
            for receiver in wait(list(running)):
                place, tries, process = running.pop(receiver)
                try:
                    found = receiver.recv()
                except EOFError:
                    process.join()
                    if tries < TRIES:
                        todo.appendleft((place, tries + 1))
                        continue
                    found = DIED, f"its process ended {TRIES} times without a word (exit status {process.exitcode})"
                process.join()
                yield place, found
    finally:
        signal.signal(signal.SIGTERM, before)
        for _, _, process in running.values():
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
        for _, _, process in running.values():
            process.join()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _process(settings: str, work: Work, threads: int, answer: Connection) -> None:
    import torch
    from transformers.utils import logging

    os.setpgrp()  # Ctrl-C is for the process that started this one, which passes it on
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    try:
        answer.send(work(RunConfig.model_validate_json(settings)))
    except Exception as error:  # a mistake of ours, which another try would only repeat
        answer.send((DIED, f"{type(error).__name__}: {' '.join(str(error).split())}"))
    except KeyboardInterrupt:
        os._exit(130)  # the checkpoint is written, and nobody waits for an answer
