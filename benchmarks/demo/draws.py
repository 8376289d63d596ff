"""Random draws that are the same on every machine, Python version and hash seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """A stream of draws that depends on its key alone.

    Only `random.Random.random` is promised to stay the same between Python versions, so everything is made of it.

    Args:
        key: names the stream; equal keys give equal draws.
    """

    def __init__(self, key: str) -> None:
        self._random = random.Random(hash_of(key))

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each equally likely."""
        return items[int(self._random.random() * len(items))]

    def shuffled(self, items: Iterable[Item]) -> list[Item]:
        """The items in a random order."""
        return [item for _, item in sorted(((self._random.random(), item) for item in items), key=lambda pair: pair[0])]

    def cycled(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` items in a random order, no item more than once oftener than another."""
        rounds = -(-count // len(items))
        return [item for _ in range(rounds) for item in self.shuffled(items)][:count]


def hash_of(text: str) -> int:
    """A number that depends on the text alone, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")
