"""A bar with time left over long work on a terminal; nothing when stderr goes elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def tracked(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items one by one, the bar going on with each.

    Args:
        items: what is worked on.
        title: in front of the bar.
    """
    yield from track(items, title, console=Console(stderr=True), disable=not sys.stderr.isatty())
