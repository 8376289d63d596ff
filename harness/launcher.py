"""What a launcher (torchrun, `accelerate launch`) says to the processes that it starts. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from benchmarks.errors import PolypromptError, run_command


def world() -> int:
    """How many processes were started to work together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def shards() -> bool:
    """Whether a frozen backbone is to be divided: `accelerate launch --use_fsdp`."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def together(command: Callable[[], int]) -> int:
    """Run a command line in a process that is alone, or in each of several that a launcher started.

    Of several, the first alone writes to stdout and stderr. When one fails, it says so, and all end with its status.

    Args:
        command: the body of a program; returns its exit status.

    Returns:
        As `run_command`; the same in all processes.
    """
    if world() == 1:
        return run_command(partial(_alone, command))
    from harness.processes import in_step  # with torch, which a process that is alone may do without

    return run_command(partial(in_step, command))


def _alone(command: Callable[[], int]) -> int:
    # Where it was asked for several, `accelerate launch` says where they meet. Without --multi_gpu it starts one yet.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ:
        raise PolypromptError(
            "accelerate launch was asked for several processes and started one; without a GPU, too, it starts several "
            "as `accelerate launch --multi_gpu --num_processes N -m harness.run ...`"
        )
    return command()
