"""Tables of characters as SentencePiece keeps them: a double array over keys, and the strings that take their place."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np

LEAF = 1 << 31
"""Mark of a unit that holds the value of a key."""

HAS_LEAF = 1 << 8
"""Mark of a unit at which a key ends."""

FAR = 1 << 9
"""Mark of a unit whose distance to its children is in steps of 256."""

BLOCK = 256
"""Units; SentencePiece takes whole blocks of them alone."""

TRIED = 64
"""Places behind which no further ones are looked for: there are few left, and looking takes long."""

SHORT = 6
"""Bytes; the `tokenizers` library looks several characters up together only if they have fewer."""


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """A table that replaces the longest key at each place.

    The layout is that of SentencePiece's `precompiled_charsmap`: the size of the double array, the array in 32-bit
    units as the library darts-clone reads them, and the replacements, each ending with a zero byte.

    Args:
        replacements: key -> what it becomes; without zero characters.
    """
    texts, places = bytearray(), dict[str, int]()
    keys: list[tuple[bytes, int]] = []
    for key, value in replacements.items():
        if value not in places:
            places[value] = len(texts)
            texts += value.encode() + b"\0"
        keys.append((key.encode(), places[value]))
    units = _double_array(sorted(keys))
    return struct.pack("<I", 4 * len(units)) + units.astype("<u4").tobytes() + bytes(texts)


def without_long_keys(table: bytes) -> bytes:
    """The table as the `tokenizers` library uses it: keys of several characters only if they are short."""
    (size,) = struct.unpack_from("<I", table)
    units = np.frombuffer(table, "<u4", size // 4, 4).copy()
    for key, unit in list(_keys(units)):
        if len(key) >= SHORT and len(key.decode(errors="replace")) > 1:
            units[unit] &= np.uint32(0xFFFFFFFF ^ HAS_LEAF)
    return table[:4] + units.tobytes() + table[4 + size :]


def _keys(units: np.ndarray) -> Iterator[tuple[bytes, int]]:  # type: ignore[type-arg]
    """All keys and the units at which they end."""
    array = units.tolist()
    stack = [(b"", 0)]
    while stack:
        key, at = stack.pop()
        base = at ^ _offset(array[at])
        for label in range(1, 256):
            child = base ^ label
            if child < len(array) and array[child] & (LEAF | 0xFF) == label:
                longer = key + bytes([label])
                if array[child] & HAS_LEAF:
                    yield longer, child
                stack.append((longer, child))


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & FAR) >> 6)


def _double_array(keys: list[tuple[bytes, int]]) -> np.ndarray:  # type: ignore[type-arg]
    """Keys that ascend, with their values, as units."""
    tree: dict[int, dict[int, int]] = {0: {}}  # node -> label -> node
    values: dict[int, int] = {}
    for key, value in keys:
        node = 0
        for label in key:
            node = tree[node].setdefault(label, len(tree))
            tree.setdefault(node, {})
        values[node] = value
    units, used, bases = [0] * BLOCK, {0}, set[int]()
    free, stack = 1, [(0, 0)]
    while stack:
        node, at = stack.pop()
        labels = [0] * (node in values) + sorted(tree[node])
        if not labels:
            continue
        while free in used:
            free += 1
        # The base is a multiple of 256 away where it is far, so it agrees with `at` in its low byte.
        place = free
        while not _fits(base := place ^ labels[0], at, labels, used, bases):
            place += 1
        free = max(free, place - TRIED)
        bases.add(base)
        if base + BLOCK > len(units):
            units += [0] * (-(-(base + BLOCK) // BLOCK) * BLOCK - len(units))
        distance = at ^ base
        units[at] |= (distance << 10) if distance < 1 << 21 else (distance << 2) | FAR
        for label in labels:
            child = base ^ label
            used.add(child)
            if label == 0:
                units[at] |= HAS_LEAF
                units[child] = values[node] | LEAF
            else:
                units[child] |= label
                stack.append((tree[node][label], child))
    return np.array(units, np.uint32)


def _fits(base: int, at: int, labels: list[int], used: set[int], bases: set[int]) -> bool:
    distance = at ^ base
    near = distance < 1 << 21 or distance & 0xFF == 0
    return base not in bases and near and all(base ^ label not in used for label in labels)
