"""A folder of values that are slow to make and that depend on known things alone, as Arrow files.

The environment variable POLYPROMPT_CACHE names the folder, or is "off"; without it, it is `polyprompt` in
$XDG_CACHE_HOME or ~/.cache. What was not used for longest goes when the files are larger than $POLYPROMPT_CACHE_GB.
The folder may be removed at any time.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa

from benchmarks import columns
from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic

GIGABYTES = 4.0
"""Size of the folder unless $POLYPROMPT_CACHE_GB says another."""

Value = TypeVar("Value")

_DIGEST = 64  # bytes before the Arrow file, a SHA-256 in hexadecimal; Arrow's buffers begin at multiples of 64
_OURS = re.compile(r"\.?[0-9a-f]{64}\.arrow(\..*)?")  # what may be removed; a dot begins files that were not finished


class Unknown(Exception):
    """A value has nothing that identifies it in another process."""


def folder() -> Path | None:
    """Where cached values are; None when there is no cache."""
    place = os.environ.get("POLYPROMPT_CACHE", "")
    if place == "off":
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return Path(place).expanduser() if place else base / "polyprompt"
    except RuntimeError:  # no home
        return None


def key(*parts: str) -> str:
    """The name of a value.

    Args:
        parts: all that the value depends on, in an order that says what is what.
    """
    return _sha256(json.dumps([source_hash(Path(__file__), Path(columns.__file__)), *parts]).encode("ascii"))


def through(name: str, hint: Any, make: Callable[[], Value], within: str = "", gigabytes: float | None = None) -> Value:
    """A value from the cache if it is there, else made and put there.

    A file that is damaged counts as absent. A cache that cannot be written changes nothing.

    Args:
        name: of `key`.
        hint: the type of the value, see `benchmarks.columns`.
        make: makes the value.
        within: a folder in that of the cache, with a bound of its own.
        gigabytes: this bound; None: $POLYPROMPT_CACHE_GB.

    Returns:
        A value equal to what `make` returns. Arrays may be views of the file, not writable.

    Raises:
        PolypromptError: $POLYPROMPT_CACHE_GB is no number.
    """
    place = folder()
    with _no_collection():
        if place is None:
            return make()
        path = place / within / f"{name}.arrow"
        batch = _read(path, name)
        if batch is not None:
            found: Value = columns.from_batch(hint, batch)
            return found
        value = make()
        # No room, a read-only folder; a value that has no place in a column.
        with suppress(OSError, ValueError, OverflowError, pa.ArrowException):
            _write(path, name, _arrow(hint, value), _limit() if gigabytes is None else gigabytes * 2**30)
        return value


def content_hash(hint: Any, value: Any) -> str:
    """The SHA-256 of a value of a type that can be cached.

    Raises:
        ValueError, OverflowError, pyarrow.ArrowException: it has no place in a column.
    """
    return _sha256(_arrow(hint, value))


def identity(value: object) -> str:
    """What a declaration is, in the same words in every process: records by their fields, functions by their names.

    Raises:
        Unknown: in it is something that has no name in this package, or a value of another type.
    """
    return json.dumps(_described(value))


@functools.cache
def source_hash(*places: Path) -> str:
    """The SHA-256 of source text.

    Args:
        places: Python files, or folders of them at any depth.
    """
    files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    return _sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files))


def _described(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _described(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [_name(type(value)), fields]
    if isinstance(value, FunctionType):
        return [_name(value)]
    if isinstance(value, Mapping):
        return ["mapping", [[_described(name), _described(item)] for name, item in value.items()]]
    if isinstance(value, tuple | list):
        return [type(value).__name__, [_described(item) for item in value]]
    if value is None or isinstance(value, str | int | float):
        return value
    raise Unknown(f"{type(value).__name__}")


def _name(thing: type | FunctionType) -> str:
    # What is not in this package is not in `source_hash` of it; what is inside of a function has more than its name.
    if not thing.__module__.startswith(f"{__package__}.") or "<" in thing.__qualname__:
        raise Unknown(f"{thing.__module__}.{thing.__qualname__}")
    return f"{thing.__module__}.{thing.__qualname__}"


def _sha256(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _signed(name: str, content: pa.Buffer) -> bytes:
    return _sha256(f"{name} {_sha256(content)}".encode("ascii")).encode("ascii")


def _arrow(hint: Any, value: Any) -> pa.Buffer:
    batch = columns.to_batch(hint, value)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _read(path: Path, name: str) -> pa.RecordBatch | None:
    try:
        with pa.memory_map(str(path)) as file:
            stored = file.read_buffer()
    except (OSError, pa.ArrowException):
        return None
    if stored.size <= _DIGEST:
        return None
    digest, content = stored.slice(0, _DIGEST), stored.slice(_DIGEST)
    if digest.to_pybytes() != _signed(name, content):
        return None
    with suppress(OSError):
        os.utime(path)  # it was used just now
    return pa.ipc.open_file(content).get_batch(0)


def _write(path: Path, name: str, content: pa.Buffer, limit: float) -> None:
    if content.size > limit:
        return

    def write(file: BinaryIO) -> None:
        file.write(_signed(name, content))
        file.write(content)

    write_atomic(path, write)
    _shrink(path.parent, limit)


def _limit() -> float:
    text = os.environ.get("POLYPROMPT_CACHE_GB") or str(GIGABYTES)
    try:
        limit = float(text) * 2**30
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise PolypromptError(f"POLYPROMPT_CACHE_GB is {text!r}; it must be a number of gigabytes, for instance 4")
    return limit


def _shrink(place: Path, limit: float) -> None:
    """Remove what was not used for longest until the rest is no larger than the limit."""
    used: list[tuple[int, int, Path]] = []
    for path in place.iterdir():
        if _OURS.fullmatch(path.name):
            with suppress(OSError):  # another process was faster
                status = path.stat()
                used.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size


@contextmanager
def _no_collection() -> Iterator[None]:
    """Many records are made and none is given up: looking for cycles among them takes a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
