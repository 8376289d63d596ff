"""The most memory that a part of a run took."""

from __future__ import annotations

import re
import resource
from contextlib import suppress
from pathlib import Path

import torch

_PROC = Path("/proc/self")


class PeakMemory:
    """Measures from its making on: of a GPU where torch computes on one, else what the process holds in memory.

    Only Linux can begin anew within a process; elsewhere the most is that of the process's whole life.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                (_PROC / "clear_refs").write_text("5")  # man 5 proc: resets VmHWM

    @property
    def mib(self) -> int:
        """The most so far, in MiB."""
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 2**20)
        with suppress(OSError):
            found = re.search(r"^VmHWM:\s+(\d+) kB$", (_PROC / "status").read_text(), re.MULTILINE)
            if found:
                return int(found[1]) // 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
