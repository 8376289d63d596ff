"""Files that are complete or absent: written aside, synced, renamed; and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, content: bytes | str | Callable[[BinaryIO], None]) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old file or the whole new one.

    Args:
        path: where the file goes; its folder is made if absent.
        content: the bytes, the text (as UTF-8), or a function that writes to an open binary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o644)  # mkstemp's 0600 would hide results from a web server or a colleague
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def put_in_place(files: Mapping[Path, Path]) -> None:
    """Move files with what `write_atomic` promises of each, and one wait for the disk for all of them.

    Args:
        files: place -> where the content was written, on the same file system; folders are made if absent.
    """
    if not files:
        return
    os.sync()
    for path, written in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        written.replace(path)
    os.sync()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
