"""What a launcher (torchrun, `accelerate launch`) says to the processes that it starts. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from benchmarks.errors import run_command


def world() -> int:
    """How many processes were started to work together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def together(command: Callable[[], int]) -> int:
    """Run a command line in a process that is alone, or in each of several that a launcher started.

    Of several, the first alone writes to stdout and stderr. When one fails, it says so, and all end with its status.

    Args:
        command: the body of a program; returns its exit status.

    Returns:
        As `run_command`; the same in all processes.
    """
    if world() == 1:
        return run_command(command)
    from harness.processes import in_step  # with torch, which a process that is alone may do without

    return run_command(partial(in_step, command))
