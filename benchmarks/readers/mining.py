"""Reader of BUCC's files: two texts, and which sentences of them are translations of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.text import read_lines
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class Mining:
    """Source sentences, candidates, and the pairs among them: three files of two columns that a tab divides.

    The first two have an identifier and a sentence in each line, the last one the identifiers of a pair. A sentence
    that is in no pair has no partner: label "".
    """

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        if len(paths) != 3:
            given = ", ".join(map(str, paths))
            raise DataError(f"{given}: {len(paths)} files where 3 are needed: source sentences, candidates, gold pairs")
        source, target, gold = paths
        sentences, candidates = _sentences(source), _sentences(target)
        partner: dict[str, str] = {}
        for number, (left, right) in enumerate(_columns(gold), 1):
            for name, known, path in ((left, sentences, source), (right, candidates, target)):
                if name not in known:
                    raise DataError(
                        f"{gold}:{number}: {path} has no sentence {name!r}; all files must come from one release"
                    )
            if left in partner:
                raise DataError(f"{gold}:{number}: {left!r} has the partner {partner[left]!r} already; remove one pair")
            partner[left] = right
        return Split(
            tuple(Example(name, text, label=partner.get(name, "")) for name, text in sentences.items()),
            tuple(candidates.values()),
            tuple(candidates),
        )


def _sentences(path: Path) -> dict[str, str]:
    """The sentences of a text by their identifiers, in order."""
    sentences: dict[str, str] = {}
    for number, (name, text) in enumerate(_columns(path), 1):
        if name in sentences:
            raise DataError(f"{path}:{number}: the identifier {name!r} comes twice; make identifiers unique")
        sentences[name] = text
    return sentences


def _columns(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        first, tab, second = line.partition("\t")
        if not (first and tab):
            raise DataError(f"{path}:{number}: no identifier with a tab behind it; each line needs both")
        rows.append((first, second))
    return rows
