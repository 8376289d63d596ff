"""Text files of benchmarks: plain or gzip, UTF-8 with or without a byte order mark, Unix or Windows line ends."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from benchmarks.errors import DataError


def read_text(path: Path, otherwise: str = "") -> str:
    """The whole text of a file; a name that ends in `.gz` is decompressed.

    Args:
        path: the file.
        otherwise: what a file that is not UTF-8 is encoded in, where such files were published.

    Raises:
        DataError: damaged gzip, not UTF-8, or nothing in it; names file and line.
    """
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}:1: damaged gzip file ({error}); fetch it again") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if otherwise:
            return raw.decode(otherwise)
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8") from None
    if not text.strip():
        raise DataError(f"{path}:1: the file is empty; fetch it again")
    return text


def read_lines(path: Path, otherwise: str = "") -> list[str]:
    """The lines of a file without their line ends. Only LF and CRLF end a line: U+0085 or U+2028 are text.

    Args:
        path, otherwise: as for `read_text`.

    Raises:
        DataError: as `read_text`.
    """
    text = read_text(path, otherwise)
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    if not lines[-1]:
        lines.pop()
    return lines
