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
    """Sentences, candidates, and line by line the 0-based row of the right candidate: three files.

    Two files are sentences and their translations, line by line.

    Attributes:
        gold_of_candidates: the third file is the other way round: for each candidate, the row of its sentence. So are
            the gold rows of Tatoeba beside XTREME's files, which sort the English side.
    """

    gold_of_candidates: bool = False

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        if len(paths) == 2:
            return _aligned(*paths)
        if len(paths) != 3:
            given = ", ".join(map(str, paths))
            raise DataError(f"{given}: {len(paths)} files where 3 are needed: source sentences, candidates, gold rows")
        source, target, gold = paths
        sentences, candidates, rows = read_lines(source), read_lines(target), read_lines(gold)
        sides = [(source, sentences), (target, candidates)]
        (asker, asking), (answerer, answering) = sides[::-1] if self.gold_of_candidates else sides
        if len(rows) != len(asking):
            raise DataError(
                f"{gold}:{len(rows)}: {len(rows)} gold rows for the {len(asking)} sentences of {asker}; "
                "both files must come from one release"
            )
        for number, row in enumerate(rows, 1):
            if not (row.isascii() and row.isdigit() and int(row) < len(answering)):
                raise DataError(f"{gold}:{number}: {row!r} is no row of {answerer}; it must be 0..{len(answering) - 1}")
        labels = [int(row) for row in rows]
        if self.gold_of_candidates:
            labels = _inverse(labels, len(sentences), gold)
        pairs = zip(sentences, labels, strict=True)
        return Split(
            tuple(Example(str(index), text=text, label=str(row)) for index, (text, row) in enumerate(pairs)),
            tuple(candidates),
        )


def _inverse(rows: Sequence[int], count: int, gold: Path) -> list[int]:
    """The candidate of each of `count` sentences, from the sentence of each candidate."""
    found = {row: number for number, row in enumerate(rows)}
    missing = next((row for row in range(count) if row not in found), None)
    if missing is not None or len(found) < len(rows):
        raise DataError(f"{gold}:1: not one line for each sentence; row {missing} is missing: fetch the file again")
    return [found[row] for row in range(count)]


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
    """Retrieval from aligned pairs: sentences are sorted, so that a place says nothing, as XTREME lays them out.

    Args:
        pairs: `text` is the sentence, `text_pair` what is to be found; candidates keep the order of the pairs.
    """
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].text)
    return Split(
        tuple(Example(str(place), text=pairs[index].text, label=str(index)) for place, index in enumerate(order)),
        tuple(pair.text_pair or "" for pair in pairs),
    )
