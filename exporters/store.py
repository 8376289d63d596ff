"""Weights by their hash: one file on disk for all bundles of one encoder, and hashes that are not computed again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from benchmarks import cache
from benchmarks.files import sha256, write_atomic
from exporters.tensors import TensorFile

WEIGHTS = "weights"
"""Folder in the cache that says where weights are: by their SHA-256 the paths, a line each.

The files themselves are in the bundles alone: what no bundle has takes no room, and what one bundle has is no link.
"""

PLACES = 16
"""Paths of the same weights that are remembered."""

WRITABLE = 0o222
"""Of a file's mode: somebody may write into it."""

HASHES = "hashes"
"""Folder in the cache with the hashes of large files, by device and inode."""

LARGE = 1 << 20
"""Bytes; hashing less is faster than looking it up."""

SETTLED = 2.0
"""Seconds; a file that was touched so recently may be touched again without its times showing it."""


def known_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Of a large one it is remembered with size, inode and times. Whatever writes into the file changes the time of its
    last change, which no program can set, and then it is computed anew. What the disk itself corrupts is seen by
    `python -m exporters.verify` alone, which computes always.
    """
    folder, status = cache.folder(), path.stat()
    if folder is None or status.st_size < LARGE:
        return sha256(path)
    note = folder / HASHES / f"{status.st_dev}-{status.st_ino}"
    stamp = _stamp(status)
    with suppress(OSError, ValueError):
        remembered, found = note.read_text().split("\n")
        if remembered == stamp:
            return found
    found = sha256(path)
    if _stamp(path.stat()) == stamp and time.time() - status.st_ctime > SETTLED:
        with suppress(OSError):  # no room, a read-only folder
            write_atomic(note, f"{stamp}\n{found}")
    return found


def put(tensors: TensorFile, folder: Path, beside: Iterable[Path] | None = ()) -> str:
    """Put a file of weights into a folder: a hard link where its bytes are on this disk already, else the file.

    It is read-only, since other bundles may have it too. What is writable is nobody else's: it is never linked to.

    Args:
        tensors: the content. folder: where it goes.
        beside: other places where the same file may be, beside those that are remembered; None: write a file that
            belongs to this folder alone.

    Returns:
        The SHA-256, in hexadecimal.
    """
    content, target = hashlib.sha256(), folder / tensors.name

    def write(file: BinaryIO) -> None:
        # What makes the content may take longer than to hash and write it, so all of it happens once and together.
        with ThreadPoolExecutor(1) as pool:
            for part in tensors.content():
                hashed = pool.submit(content.update, part)
                file.write(part)
                hashed.result()
        for there in () if beside is None else (*_places(content.hexdigest()), *beside):
            if _linked(there, target, tensors.bytes, content.hexdigest()):
                raise _ThereAlready

    try:
        write_atomic(target, write)
        if beside is not None:
            target.chmod(0o444)
    except _ThereAlready:
        pass
    return content.hexdigest()


class _ThereAlready(Exception):
    """The file need not be written."""


def _linked(there: Path, target: Path, size: int, digest: str) -> bool:
    """Link to a file if it has this content."""
    with suppress(OSError):  # it is gone; another disk, or one without links
        status = there.stat()
        if status.st_size == size and not status.st_mode & WRITABLE and known_sha256(there) == digest:
            os.link(there, target)
            return True
    return False


def remember(path: Path, digest: str) -> None:
    """Let later bundles find a file of weights by its SHA-256."""
    folder = cache.folder()
    if folder is not None:
        others = (there for there in _places(digest) if there != path.absolute() and there.exists())
        lines = [str(path.absolute()), *map(str, islice(others, PLACES - 1))]
        with suppress(OSError):
            write_atomic(folder / WEIGHTS / digest, "\n".join(lines))


def _places(digest: str) -> list[Path]:
    folder = cache.folder()
    with suppress(OSError, ValueError):
        if folder is not None:
            return [Path(line) for line in (folder / WEIGHTS / digest).read_text().split("\n") if line]
    return []


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
