"""Processes that work together: how they find each other, who speaks, and how all of them end."""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from benchmarks.errors import PolypromptError
from harness import launcher

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: longer than anything that one of them does while they wait."""

FAREWELL = timedelta(seconds=10)
"""How long a process that ends waits for one that may have something to say: a launcher kills those that are left."""


class Lost(PolypromptError):
    """Another of the processes is gone, or does not answer."""


def join() -> dist.Store | None:
    """Join the processes that a launcher (torchrun, `accelerate launch`) started, if it started several.

    Small things are exchanged between processors (gloo), tensors of a GPU by its own backend (NCCL).

    Returns:
        What the processes share apart from their exchanges; None in a process that is alone or has joined already.

    Raises:
        PolypromptError: the others cannot be found.
    """
    if launcher.world() == 1 or dist.is_initialized():
        return None
    try:
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(_backends(), store=store, rank=rank, world_size=world, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise PolypromptError(f"the {launcher.world()} processes did not find each other: {error}") from None
    atexit.register(_close)
    return store


def in_step(command: Callable[[], int]) -> int:
    """Run a command line in one of several processes that work together, see `harness.launcher.together`.

    One that was killed is missed at the next exchange: gloo notices at once; with NCCL the launcher ends the others.

    Returns:
        The exit status, the same in all processes.
    """
    store = join()
    return command() if store is None else _in_step(command, store)


def _in_step(command: Callable[[], int], store: dist.Store) -> int:
    failure: BaseException | None = None
    rank, world = dist.get_rank(), dist.get_world_size()
    try:
        with _mute(rank > 0):
            status = command()
        if status == 0:
            dist.barrier()  # the others may still fail
    except BaseException as error:
        failure = _told(error)
        status = _status(failure)
    if status == 0:
        return 0
    verdict = own = f"{rank} {status}"
    with suppress(RuntimeError):  # it was kept by a process that is gone
        verdict = store.compare_set("verdict", "", own).decode()  # the first one's is that of all
    _close()  # those that wait for this process notice at once, not only when it has taken its leave
    if failure is not None and verdict == own:
        # The first may keep what the others must still read, unless one is gone for whom it would wait in vain.
        alone = rank > 0 or isinstance(failure, Lost)
        atexit.register(_leave, store, rank, [] if alone else range(world))
        raise failure
    judge, status = map(int, verdict.split())
    atexit.register(_leave, store, rank, [0, judge])
    return status


def _told(error: BaseException) -> BaseException:
    """What a user is told of an error: an exchange that failed is the end of another process."""
    marks = ("/gloo/", "ProcessGroup", "NCCL")  # gloo has no exception of its own
    if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or any(m in str(error) for m in marks)):
        why = re.sub(r"^\[[^]]*\] |\. This is .*", "", str(error).splitlines()[0])
        return Lost(
            f"another of the processes that work together ended or does not answer ({why}); what was computed until "
            "the last checkpoint is kept, and the same command with --resume goes on"
        )
    return error


def _status(error: BaseException) -> int:
    """The exit status that goes with an error."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, PolypromptError) else 1


def _close() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave(store: dist.Store, rank: int, others: Sequence[int]) -> None:
    """The last thing that a process does where one failed."""
    with suppress(RuntimeError):  # the others, or what they shared, may be gone
        store.set(f"ended {rank}", "")
        store.wait([f"ended {other}" for other in others], FAREWELL)


def _backends() -> str:
    if not torch.accelerator.is_available():
        return "gloo"
    kind = torch.accelerator.current_accelerator().type
    return f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"


@contextmanager
def _mute(on: bool) -> Iterator[None]:
    if not on:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
