"""Reader of CoNLL columns: a token a line, sentences divided by blank lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.rows import Row, to_examples, unknown_tag
from benchmarks.readers.text import read_lines
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard

_BLANKS = re.compile(" +")
_BRACKETS = re.compile(r" *((?:\([^()*]+)*)\*?(\)*) *")
_LEFT_OUT = ("-DOCSTART-", "#begin document", "#end document")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The lines of a sentence.

    Attributes:
        numbers: their numbers in the file, from 1.
        cells: their columns, [lines][columns], equally many in each.
    """

    numbers: list[int]
    cells: list[list[str]]


class BadCell(Exception):
    """What is wrong with a cell of a column.

    Attributes:
        at: index of its line in the sentence.
    """

    def __init__(self, at: int, what: str) -> None:
        super().__init__(what)
        self.at = at


def read_sentences(path: Path, otherwise: str = "") -> list[Sentence]:
    """The sentences of a file whose columns are divided by tabs, or by blanks where it has no tab.

    Left out are the lines that begin and end documents ("-DOCSTART-", "#begin document", "#end document") and, in a
    file with tabs, those without one that begin with "#" (comments of CoNLL-U).

    Args:
        path: the file.
        otherwise: as for `read_lines`.

    Raises:
        DataError: lines of a sentence differ in their columns, or there is no sentence.
    """
    lines = read_lines(path, otherwise)
    tabbed = any("\t" in line for line in lines)
    sentences: list[Sentence] = []
    numbers: list[int] = []
    cells: list[list[str]] = []
    for number, line in enumerate([*lines, ""], 1):
        # Only blanks and tabs make a line blank: a token may be a no-break space.
        if not line.strip(" \t"):
            if cells:
                sentences.append(Sentence(numbers, cells))
                numbers, cells = [], []
            continue
        odd = line[0] in "-#"
        if odd and (line.startswith(_LEFT_OUT) or (tabbed and line[0] == "#" and "\t" not in line)):
            continue
        columns = line.split("\t") if tabbed else _BLANKS.split(line.strip(" "))
        if cells and len(columns) != len(cells[0]):
            raise _wrong_width(path, number, len(columns), len(cells[0]))
        numbers.append(number)
        cells.append(columns)
    if not sentences:
        raise DataError(f"{path}:1: no sentence in the file; fetch it again")
    return sentences


def bracketed(column: Sequence[str]) -> list[str]:
    """BIO2 tags of a column where chunks stand in brackets, as in "(A1*", "*", "*)" or "(PER)".

    Of a chunk inside another one, a slip that PropBank's releases have now and then, only the outer one is kept.

    Raises:
        BadCell: a cell is no such thing, or a bracket is not closed or not open.
    """
    tags: list[str] = []
    depth, inside = 0, "O"
    for at, cell in enumerate(column):
        if cell == "*":
            tags.append(inside)
            continue
        opened, closed = _brackets(cell) or (None, 0)
        if opened is None:
            raise BadCell(at, f'{cell!r} is not of the form "(ROLE*", "*" or "*)"')
        if opened and not depth:
            tags.append(f"B-{opened[0]}")
            inside = f"I-{opened[0]}"
        else:
            tags.append(inside)
        depth += len(opened) - closed
        if depth < 0:
            raise BadCell(at, f"{cell!r} closes a bracket that is not open; fetch the file again")
        if not depth:
            inside = "O"
    if depth:
        raise BadCell(len(column) - 1, "a bracket is still open at the end of the sentence; is the file cut off?")
    return tags


@dataclass(frozen=True)
class Conll:
    """Tokens and tags in the columns of `read_sentences`. A file of one column has no tags.

    Tags of chunks are read as BIO2, where each chunk begins with "B-". In a file of the older scheme, IOB1, a chunk
    begins with "I-", and with "B-" only behind a neighbour of its own type; such files are recognised as a whole and
    put into BIO2, which moves no chunk. A card without labels takes every tag. Sentences are numbered from 0.

    Attributes:
        token: the column of the token, from 0; -1 is the last one.
        tag: the column of its tag, likewise.
        brackets: the tags are in brackets, as the named entities of CoNLL-2012 are, see `bracketed`.
        slips: the file was published with some chunks that begin with "I-"; they are put right, in any other an error.
        otherwise: as for `read_lines`.
    """

    token: int = 0
    tag: int = -1
    brackets: bool = False
    slips: bool = False
    otherwise: str = ""

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._rows(card, path)), _sentence))

    def _rows(self, card: TaskCard, path: Path) -> Iterator[tuple[str, Row]]:
        sentences = read_sentences(path, self.otherwise)
        width = len(sentences[0].cells[0])
        all_tags: list[list[str]] = []
        known = {label: label for label in card.labels}  # a split holds each tag once, not once a token
        for sentence in sentences:
            columns = len(sentence.cells[0])
            # In CoNLL-2012, whose tags are in brackets, a sentence has a column more for each predicate.
            if (columns != width and not self.brackets) or 1 < columns <= max(self.token, self.tag):
                raise _wrong_width(path, sentence.numbers[0], columns, max(width, self.tag + 1))
            all_tags.append(self._tags(card, path, sentence, known) if columns > 1 else [])
        if not self.brackets and any(tag.startswith("I-") for tag in known):
            self._begin_with_b(path, sentences, all_tags, known)
        for sentence, tags in zip(sentences, all_tags, strict=True):
            tokens = [cells[self.token] for cells in sentence.cells]
            if not all(map(str.strip, tokens)):  # seldom; not only blanks are stripped here
                self._check_tokens(path, sentence, tokens)
            yield f"{path}:{sentence.numbers[0]}", {"tokens": tokens, "tags": tags}

    def _check_tokens(self, path: Path, sentence: Sentence, tokens: Sequence[str]) -> None:
        for number, token in zip(sentence.numbers, tokens, strict=True):
            if not token.strip(" "):
                raise DataError(f"{path}:{number}: no token before the tag; write one, or leave the line blank")

    def _tags(self, card: TaskCard, path: Path, sentence: Sentence, known: dict[str, str]) -> list[str]:
        """The tags of a sentence as the file has them, each one of the task's."""
        tags = [cells[self.tag] for cells in sentence.cells]
        if self.brackets:
            try:
                tags = bracketed(tags)
            except BadCell as error:
                raise DataError(f"{path}:{sentence.numbers[error.at]}: {error}") from None
        if not known.keys() >= set(tags):
            for number, tag in zip(sentence.numbers, tags, strict=True):
                if tag not in known and (card.labels or not tag):
                    raise DataError(f"{path}:{number}: {unknown_tag(card, tag)}")
                known.setdefault(tag, tag)
        return [known[tag] for tag in tags]

    def _begin_with_b(
        self, path: Path, sentences: Sequence[Sentence], all_tags: Sequence[list[str]], known: dict[str, str]
    ) -> None:
        """Put "B-" at the beginning of each chunk, where that may be done."""
        may_be_done = self.slips
        for sentence, tags in zip(sentences, all_tags, strict=True):
            for at in _beginnings(tags, "I-"):
                may_be_done = may_be_done or not any(_beginnings(other, "B-") for other in all_tags)
                right = f"B-{tags[at][2:]}"
                if not may_be_done:
                    raise DataError(
                        f"{path}:{sentence.numbers[at]}: {tags[at]!r} begins a chunk, which this file does elsewhere "
                        f"by B-; write {right!r}"
                    )
                tags[at] = known.setdefault(right, right)


def _beginnings(tags: Sequence[str], prefix: str) -> list[int]:
    """Where a tag with a prefix is not behind one of its own type."""
    return [
        at
        for at, (before, tag) in enumerate(pairwise(("O", *tags)))
        if tag.startswith(prefix) and before[1:] != tag[1:]
    ]


@lru_cache(maxsize=4096)
def _brackets(cell: str) -> tuple[tuple[str, ...], int] | None:
    """The types that a cell opens and how many brackets it closes; None when it is no cell of brackets."""
    match = _BRACKETS.fullmatch(cell)
    return None if match is None or not cell.strip(" ") else (tuple(match[1].split("(")[1:]), len(match[2]))


def _wrong_width(path: Path, number: int, found: int, expected: int) -> DataError:
    return DataError(
        f"{path}:{number}: {found} columns where {expected} are expected; "
        "a blank line must divide sentences, and a tab or blank the columns"
    )


def _sentence(card: TaskCard, row: Row, index: int) -> Example:
    """A `RowMapper` for tags that are checked already, each at its line."""
    return Example(str(index), tokens=tuple(row["tokens"]), tags=tuple(row["tags"]) or None)
