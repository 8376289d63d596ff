"""Settings of runs as pages and tables have them, and what tells configurations apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.runs import INCIDENTAL, UNREAD

Settings = Mapping[str, Any]

OF_TASKS = frozenset({"tasks", "suite", "files"})
"""Settings that say which tasks a run has, and from where."""

NAMED, LONGEST = 4, 120
"""Settings that are named where many differ, and characters of what may be shown: values come from strangers."""


def compared(settings: Settings) -> dict[str, Any]:
    """Those in which configurations are compared; on each task they are compared alone."""
    return {name: value for name, value in settings.items() if name not in OF_TASKS and name not in INCIDENTAL}


def differing(one: Settings, other: Settings) -> set[str]:
    """Names of the settings that are not the same."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def told_apart(known: Sequence[Settings]) -> list[str]:
    """For each of some configurations how it differs from the others, as "learning-rate 0.1, warmup 0.3"; "" where
    that does not tell which one it is.
    """
    read = [compared(settings) for settings in known if UNREAD not in settings]
    names = sorted({name for one in read for name in differing(read[0], one)})[:NAMED]
    texts = [
        "" if UNREAD in one else ", ".join(f"{shown(name)} {worded(one.get(name))}" for name in names) for one in known
    ]
    often = Counter(texts)
    return [text if often[text] == 1 and len(text) <= LONGEST else "" for text in texts]


def shown(name: str) -> str:
    """A setting as the command line has it."""
    return name.replace("_", "-")


def worded(value: object) -> str:
    """The value of a setting."""
    if isinstance(value, list):
        return ", ".join(worded(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
