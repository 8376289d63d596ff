"""Reader of semantic roles in CoNLL columns: of each predicate a column with its arguments in brackets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.conll import BadCell, Sentence, bracketed, read_sentences
from benchmarks.readers.rows import Row, to_examples
from benchmarks.records import Example, Split
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class Propositions:
    """An example a predicate: the words of its sentence, the predicate marked, and its arguments as BIO2 tags.

    A sentence without predicates gives no example. An id is the number of the sentence in the split and that of the
    predicate in the sentence, both from 0, as in "12.4"; the predicates of a sentence are a group.

    Attributes:
        word: the column of the words, from 0.
        predicate: a column that holds "-" for every word that is no predicate. Where it marks more words than there are
            columns of arguments, the predicate of such a column is where its "V" begins.
        arguments: the column of the first predicate's arguments; those of the others follow.
        behind: how many columns follow the last predicate's.
        beside: the first half of the files holds the words and the second half, file by file, the other columns
            (CoNLL-2005); columns are counted over both.
    """

    word: int
    predicate: int
    arguments: int
    behind: int = 0
    beside: bool = False

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        examples = to_examples(card, self._rows(card, paths), _proposition)
        if not examples:
            raise DataError(f"{paths[-1]}:1: no predicate in the file; fetch it again")
        return Split(examples)

    def _rows(self, card: TaskCard, paths: Sequence[Path]) -> Iterator[tuple[str, Row]]:
        known = {label: label for label in card.labels}  # a split holds each tag once, not once a token
        for number, (path, sentence) in enumerate(_side_by_side(paths) if self.beside else _one_by_one(paths)):
            words = tuple(cells[self.word].strip(" ") for cells in sentence.cells)
            for at, column in self._columns(path, sentence):
                tags = _tags(card, path, sentence, column, known)
                row = {"id": f"{number}.{at}", "group": str(number), "tokens": words, "marked": at, "tags": tags}
                yield f"{path}:{sentence.numbers[at]}", row

    def _columns(self, path: Path, sentence: Sentence) -> Iterator[tuple[int, Sequence[str]]]:
        """Each predicate of a sentence with the column of its arguments."""
        first, last = sentence.numbers[0], len(sentence.cells[0]) - self.behind
        predicates = [at for at, cells in enumerate(sentence.cells) if cells[self.predicate].strip(" ") != "-"]
        columns = list(zip(*(cells[self.arguments : last] for cells in sentence.cells), strict=True))
        if len(columns) > len(predicates):
            raise DataError(
                f"{path}:{first}: {len(columns)} columns of arguments for the {len(predicates)} predicates of the "
                "sentence; there must be one each"
            )
        for number, column in enumerate(columns):
            at: int | None = predicates[number]
            if len(columns) < len(predicates):
                at = next((at for at, cell in enumerate(column) if "(V*" in cell), None)
            if at is None:
                raise DataError(
                    f"{path}:{first}: {len(columns)} columns of arguments for the {len(predicates)} predicates of the "
                    f"sentence, and column {number + 1} of them has no (V*) that tells which is its"
                )
            yield at, column


def _tags(
    card: TaskCard, path: Path, sentence: Sentence, column: Sequence[str], known: dict[str, str]
) -> tuple[str, ...]:
    try:
        tags = bracketed(column)
    except BadCell as error:
        raise DataError(f"{path}:{sentence.numbers[error.at]}: {error}") from None
    for number, tag in zip(sentence.numbers, tags, strict=True):
        if tag not in known:
            roles = sorted({label[2:].removeprefix("C-").removeprefix("R-") for label in card.labels if label != "O"})
            raise DataError(
                f"{path}:{number}: unknown role {tag[2:]!r}; it must be one of {', '.join(roles)}, "
                "by itself or behind C- or R-"
            )
    return tuple([known[tag] for tag in tags])


def _one_by_one(paths: Sequence[Path]) -> Iterator[tuple[Path, Sentence]]:
    for path in paths:
        for sentence in read_sentences(path):
            yield path, sentence


def _side_by_side(paths: Sequence[Path]) -> Iterator[tuple[Path, Sentence]]:
    """Sentences whose words stand in one file and whose other columns in another, which is the one that is named."""
    half = len(paths) // 2
    pairs = list(zip(paths[:half], paths[half:], strict=False))
    unlike = next(((words, other) for words, other in pairs if _stem(words) != _stem(other)), None)
    if len(paths) % 2 or unlike is not None:
        found = "" if unlike is None else f", and {unlike[1]} is not for {unlike[0]}"
        raise DataError(f"{paths[0]}: {len(paths)} files{found}; a file of words and one of arguments must go together")
    for words, other in pairs:
        left, right = read_sentences(words), read_sentences(other)
        for word_lines, other_lines in zip(left, right, strict=False):
            if len(word_lines.cells) != len(other_lines.cells):
                raise DataError(
                    f"{other}:{other_lines.numbers[0]}: a sentence of {len(other_lines.cells)} words, which has "
                    f"{len(word_lines.cells)} in {words}:{word_lines.numbers[0]}; both files must come from one release"
                )
            cells = [a + b for a, b in zip(word_lines.cells, other_lines.cells, strict=True)]
            yield other, Sentence(other_lines.numbers, cells)
        if len(left) != len(right):
            raise DataError(
                f"{other}:{right[-1].numbers[-1]}: {len(right)} sentences for the {len(left)} of {words}; "
                "both files must come from one release"
            )


def _stem(path: Path) -> str:
    """The name of a file without ".words.gz" and the like."""
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _proposition(card: TaskCard, row: Row, index: int) -> Example:
    """A `RowMapper` for tags that are checked already, each at its line."""
    return Example(**row)
