"""Marks beside a figure: the sign, and what it says."""

from __future__ import annotations

from collections.abc import Iterator

from leaderboard.board import Flag

SIGNS = {
    Flag.LIMITED: ("†", "only a part of the official split was scored, so not comparable with a full score"),
    Flag.PARTIAL: ("‡", "over fewer languages, tasks or seeds than it should be, so not ranked"),
    Flag.SELECTED: (
        "§",
        "the epoch was chosen on the very rows that are reported, as P-Tuning v2's code does: the best of many looks",
    ),
    Flag.TRAINED: (
        "¶",
        "trained in this language, or in several, where others are scored without having seen any of it",
    ),
    Flag.DOUBT: ("≠", "the run's own results.json says something else; shown is what its predictions give"),
    Flag.UNVERIFIED: ("?", "as somebody says: there are no predictions from which it could be computed again"),
    Flag.QUOTED: ("”", "published by others, copied from the source that is named"),
    Flag.OTHER: ("※", "over other examples than most rows of the column, so not comparable with them"),
}


def signs(flags: int) -> Iterator[tuple[str, str]]:
    """The marks of a figure; a quoted row says so once, beside its name."""
    return (mark for flag, mark in SIGNS.items() if flags & flag and flag is not Flag.QUOTED)
