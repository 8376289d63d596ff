"""Sentence retrieval: a sentence, and its translation among the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.text import read_lines
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class Parallel:
    """Source sentences, candidates, and line by line the 0-based row of the right candidate (XTREME): three files.

    Two files are sentences and their translations, line by line.
    """

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        if len(paths) == 2:
            return _aligned(*paths)
        if len(paths) != 3:
            given = ", ".join(map(str, paths))
            raise DataError(f"{given}: {len(paths)} files where 3 are needed: source sentences, candidates, gold rows")
        source, target, gold = paths
        sentences, candidates, rows = read_lines(source), read_lines(target), read_lines(gold)
        if len(rows) != len(sentences):
            raise DataError(
                f"{gold}:{len(rows)}: {len(rows)} gold rows for the {len(sentences)} sentences of {source}; "
                "both files must come from one release"
            )
        for number, row in enumerate(rows, 1):
            if not (row.isascii() and row.isdigit() and int(row) < len(candidates)):
                raise DataError(f"{gold}:{number}: {row!r} is no row of {target}; it must be 0..{len(candidates) - 1}")
        pairs = zip(sentences, rows, strict=True)
        return Split(
            tuple(Example(str(index), text=text, label=str(int(row))) for index, (text, row) in enumerate(pairs)),
            tuple(candidates),
        )


def _aligned(source: Path, target: Path) -> Split:
    sentences, translations = read_lines(source), read_lines(target)
    if len(sentences) != len(translations):
        raise DataError(
            f"{target}:{len(translations)}: {len(translations)} translations of the {len(sentences)} sentences of "
            f"{source}; each line must be the translation of the same line there"
        )
    pairs = zip(sentences, translations, strict=True)
    return from_pairs([Example(str(index), text, translation) for index, (text, translation) in enumerate(pairs)])


def from_pairs(pairs: Sequence[Example]) -> Split:
    """Retrieval from aligned pairs: the candidates are the sorted `text_pair`s, as XTREME's script lays them out."""
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].text_pair or "")
    row_of = {index: row for row, index in enumerate(order)}
    return Split(
        tuple(Example(pair.id, text=pair.text, label=str(row_of[index])) for index, pair in enumerate(pairs)),
        tuple(pairs[index].text_pair or "" for index in order),
    )
