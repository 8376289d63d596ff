"""Reader of CoNLL columns: a token a line, sentences divided by blank lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.rows import Row, to_examples, unknown_tag
from benchmarks.readers.text import read_lines
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard

_BLANKS = re.compile(" +")


@dataclass(frozen=True)
class Conll:
    """Tokens and tags in columns that tabs divide, or blanks in a file without tabs.

    A file of one column has no tags. Sentences are numbered from 0. Left out are "-DOCSTART-" lines and, in a file with
    tabs, those without one that begin with "#" (comments of CoNLL-U). A card without labels takes every tag.

    Attributes:
        token: the column of the token, from 0; -1 is the last one.
        tag: the column of its tag, likewise.
    """

    token: int = 0
    tag: int = 1

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._sentences(card, path)), _sentence))

    def _sentences(self, card: TaskCard, path: Path) -> Iterator[tuple[str, Row]]:
        lines = read_lines(path)
        tabbed = any("\t" in line for line in lines)
        known = {label: label for label in card.labels}  # a split holds each tag once, not once a token
        token, tag, last = self.token, self.tag, max(self.token, self.tag)
        width = 0
        tokens: list[str] = []
        tags: list[str] = []
        for number, line in enumerate([*lines, ""], 1):
            # Only blanks and tabs make a line blank: a token may be a no-break space.
            if not line.strip(" \t"):
                if tokens:
                    yield f"{path}:{number - len(tokens)}", {"tokens": tokens, "tags": tags}
                    tokens, tags = [], []
                continue
            if line.startswith("-DOCSTART-") or (tabbed and line.startswith("#") and "\t" not in line):
                continue
            cells = line.split("\t") if tabbed else _BLANKS.split(line.strip(" "))
            width = width or len(cells)
            if len(cells) != width or 1 < width <= last:
                expected = max(width, self.tag + 1)
                raise DataError(
                    f"{path}:{number}: {len(cells)} columns where {expected} are expected; "
                    "a blank line must divide sentences, and a tab or blank the columns"
                )
            if not cells[token].strip(" "):
                raise DataError(f"{path}:{number}: no token before the tag; write one, or leave the line blank")
            tokens.append(cells[token])
            if width > 1:
                if cells[tag] not in known:
                    if card.labels or not cells[tag]:
                        raise DataError(f"{path}:{number}: {unknown_tag(card, cells[tag])}")
                    known[cells[tag]] = cells[tag]
                tags.append(known[cells[tag]])
        if not width:
            raise DataError(f"{path}:1: no sentence in the file; fetch it again")


def _sentence(card: TaskCard, row: Row, index: int) -> Example:
    """A `RowMapper` for tags that are checked already, each at its line."""
    return Example(str(index), tokens=tuple(row["tokens"]), tags=tuple(row["tags"]) or None)
