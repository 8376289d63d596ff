"""A run folder belongs to one living process at a time."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from benchmarks.errors import PolypromptError

NAME = ".lock"
"""Of the locked file; it holds who has the folder and is gone when nobody has."""

_TRIES = 100  # what fails so often is no folder that others remove, but none that can be made


class Busy(PolypromptError):
    """Another living process works in the run folder."""


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """A block in which the run folder is this process's own.

    The lock (flock) goes with its process, however that ends, so a folder is never left locked. Folders that several
    machines share need a file system whose locks hold between them (NFS since Linux 2.6.12, Lustre with `-o flock`).

    Args:
        run: the folder; it is made if absent, and removed again when nothing was put into it.

    Raises:
        Busy: another process has it.
        PolypromptError: it cannot be written or locked.
    """
    path = run / NAME
    try:
        file = _take(path)
    except OSError as error:
        raise PolypromptError(f"{error.filename or path}: cannot be locked ({error.strerror})") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still ours
        file.close()
        with suppress(OSError):
            run.rmdir()


def _take(path: Path) -> TextIO:
    tries = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except (FileExistsError, FileNotFoundError):  # who had the folder removed it in this moment
            tries += 1
            if tries == _TRIES:
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise Busy(f"{path.parent}: {holder} works on it; wait for it, or choose another --name") from None
        except OSError:
            file.close()
            raise
        if _is_still(path, file):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            return file
        file.close()  # who had it removed the file after we opened it


def _is_still(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
