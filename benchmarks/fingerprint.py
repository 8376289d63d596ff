"""A few numbers of a file that tell in which of its lines a later copy differs, without keeping the file.

A file is a row of *pieces* 1..n: its lines and, so that a place is found in a JSON file of a single line too, the
parts of a line up to closing braces. Line ends do not count. `h_i` is a hash of piece i below the prime p = 2^61 - 1;
all sums are modulo p.

*Moments* `m_j = sum of h_i * i^j`, j = 0..7, are the syndromes of a Reed-Solomon code whose letters are the pieces. Let
`e_i` be how much `h_i` changed; it is not 0 for changed pieces alone. The differences of the moments are
`d_j = sum of e_i * i^j`, so the shortest linear recurrence of d_0..d_7 (Berlekamp 1968, Massey 1969) is, for up to 4
changed pieces, the polynomial whose roots are their numbers. More changes show in that it has other roots.

*Blocks* are the plain sums of h over at most 16 equal runs of pieces. They tell where the first difference is when more
than 4 pieces changed, or when pieces came or went.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

P = 2**61 - 1
"""The prime."""

_MOMENTS = 8
_BLOCKS = 16
_PIECE = re.compile(rb"[^\n}]*(?:\}+\n?|\n)")


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a file.

    Attributes:
        lines, pieces: how many there are.
        moments, blocks: see the module; numbers below `P`.
    """

    lines: int
    pieces: int
    moments: tuple[int, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """Where a copy differs.

    Attributes:
        line: the first line that differs, from 1, or the first of those among which it is; 0 when only line ends do.
        text: the same for a reader, e.g. "line 3, line 20".
    """

    line: int
    text: str


def fingerprint(content: bytes) -> Fingerprint:
    """The numbers of a file, of its decompressed bytes."""
    return _numbers(_pieces(content))


def difference(known: Fingerprint, content: bytes) -> Difference:
    """Where a copy differs from the file that a fingerprint was taken of.

    Args:
        known: of the original.
        content: the copy, decompressed; its bytes are not those of the original.
    """
    pieces = _pieces(content)
    found = _numbers(pieces)
    if found == known:
        return Difference(0, "line ends, or the end of the file")
    changed = _changed(known, found)
    if changed:
        places = [_place(pieces, number) for number in changed]
        return Difference(places[0].line, ", ".join(dict.fromkeys(place.text for place in places)))
    return _first_block(known, found, pieces)


def _pieces(content: bytes) -> list[bytes]:
    lines = content.replace(b"\r\n", b"\n")
    return _PIECE.findall(lines if lines.endswith(b"\n") or not lines else lines + b"\n")


def _hash(piece: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(piece.removesuffix(b"\n"), digest_size=8).digest()) % P


def _bounds(pieces: int) -> list[tuple[int, int]]:
    """The first piece of each block, from 0, and the one behind its last."""
    blocks = min(_BLOCKS, pieces)
    return [(pieces * block // blocks, pieces * (block + 1) // blocks) for block in range(blocks)]


def _numbers(pieces: Sequence[bytes]) -> Fingerprint:
    hashes = [_hash(piece) for piece in pieces]
    moments = [0] * _MOMENTS
    for number, power in enumerate(hashes, 1):
        for degree in range(_MOMENTS):
            moments[degree] += power
            power = power * number % P
    return Fingerprint(
        lines=sum(piece.endswith(b"\n") for piece in pieces),
        pieces=len(pieces),
        moments=tuple(moment % P for moment in moments),
        blocks=tuple(sum(hashes[start:end]) % P for start, end in _bounds(len(pieces))),
    )


def _changed(known: Fingerprint, found: Fingerprint) -> list[int]:
    """The numbers of the changed pieces; none when they are too many to tell."""
    if found.pieces != known.pieces:
        return []
    recurrence = _recurrence([(new - old) % P for new, old in zip(found.moments, known.moments, strict=True)])
    roots = [number for number in range(1, known.pieces + 1) if _value(recurrence, number) == 0]
    return roots if len(roots) == len(recurrence) - 1 <= _MOMENTS // 2 else []


def _recurrence(sequence: Sequence[int]) -> list[int]:
    """The shortest 1, c_1, .. c_k with s_n + c_1 s_(n-1) + .. + c_k s_(n-k) = 0 for all n >= k, by Berlekamp-Massey."""
    current, before = [1], [1]
    length, last = 0, 1
    for n, _ in enumerate(sequence):
        before = [0, *before]
        surplus = sum(c * sequence[n - k] for k, c in enumerate(current)) % P
        if surplus == 0:
            continue
        factor = surplus * pow(last, -1, P)
        longer = [(a - factor * b) % P for a, b in zip_longest(current, before, fillvalue=0)]
        if 2 * length <= n:
            length, before, last = n + 1 - length, current, surplus
        current = longer
    return current + [0] * (length + 1 - len(current))


def _value(polynomial: Sequence[int], at: int) -> int:
    value = 0
    for coefficient in polynomial:
        value = (value * at + coefficient) % P
    return value


def _first_block(known: Fingerprint, found: Fingerprint, pieces: Sequence[bytes]) -> Difference:
    """The first block of the original that the copy does not have in its place."""
    hashes = [_hash(piece) for piece in pieces]
    blocks = zip(_bounds(known.pieces), known.blocks, strict=True)
    start, end = next(
        (bounds for bounds, block in blocks if sum(hashes[slice(*bounds)]) % P != block), (known.pieces, found.pieces)
    )
    counts = f"{found.lines} lines where {known.lines} are expected; " if found.lines != known.lines else ""
    if start >= found.pieces:
        return Difference(found.lines, f"{counts}the copy ends too early")
    first, last = _place(pieces, start + 1), _place(pieces, min(end, found.pieces))
    where = first.text if first.line == last.line else f"lines {first.line}-{last.line}"
    return Difference(first.line, f"{counts}the first difference is in {where}")


def _place(pieces: Sequence[bytes], number: int) -> Difference:
    """Where piece `number`, from 1, begins."""
    before = b"".join(pieces[: number - 1])
    line, byte = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return Difference(line, f"line {line}" if byte == 1 else f"line {line} from byte {byte} on")
