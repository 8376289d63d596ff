"""Readers of tables separated by tabs or commas, JSON lines, and labels that stand in a file of their own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.rows import BadRow, Reader, Row, RowMapper, to_examples
from benchmarks.readers.text import read_lines, read_text
from benchmarks.records import Split
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class Tsv:
    """Tab-separated values without quoting: a quotation mark is a character like any other (as GLUE and XTREME write).

    Attributes:
        row: makes an example of a line.
        header: names of the columns where the file does not begin with them; a file may lack the last ones, as test
            files without labels do.
        torn: lines with too few columns are left out: what is left of a row with line ends in its texts. jiant's
            export_glue_data.py leaves them out of QQP.
    """

    row: RowMapper
    header: tuple[str, ...] = ()
    torn: bool = False

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._rows(path)), self.row))

    def _rows(self, path: Path) -> Iterator[tuple[str, Row]]:
        lines = read_lines(path)
        header: Sequence[str]
        if self.header:
            header, first = self.header[: lines[0].count("\t") + 1], 0
        else:
            header, first = lines[0].split("\t"), 1
        if len(lines) == first:
            raise DataError(f"{path}:1: only a header and no rows; fetch the file again")
        for number, line in enumerate(lines[first:], first + 1):
            cells = line.split("\t")
            if self.torn and len(cells) < len(header):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}:{number}: {len(cells)} columns where {len(header)} are expected ({', '.join(header)}); "
                    "separate them by single tabs"
                )
            yield f"{path}:{number}", dict(zip(header, cells, strict=True))


@dataclass(frozen=True)
class Csv:
    """Comma-separated values as RFC 4180 has them: a cell in double quotes may hold commas, line ends and "" for ".

    Attributes:
        row: makes an example of a record.
        header: names of the columns where the file does not begin with them.
    """

    row: RowMapper
    header: tuple[str, ...] = ()

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._rows(path)), self.row))

    def _rows(self, path: Path) -> Iterator[tuple[str, Row]]:
        header, found = self.header, False
        for number, cells in _records(path):
            if not header:
                header = tuple(cells)
                continue
            found = True
            if len(cells) != len(header):
                raise DataError(
                    f"{path}:{number}: {len(cells)} columns where {len(header)} are expected ({', '.join(header)}); "
                    "put a cell that holds commas into double quotes"
                )
            yield f"{path}:{number}", dict(zip(header, cells, strict=True))
        if not found:
            raise DataError(f"{path}:1: only a header and no rows; fetch the file again")


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line on which it begins; blank lines are none."""
    text = read_text(path)
    reader = csv.reader((f"{line}\n" for line in text.removesuffix("\n").split("\n")), strict=True)
    limit = csv.field_size_limit(len(text))  # of the whole process; the default refuses long texts
    records = []
    number = 1
    try:
        for cells in reader:
            if cells:
                records.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{number}: not CSV ({error}); close every quotation mark, and double those inside quotes"
        ) from None
    finally:
        csv.field_size_limit(limit)
    return records


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, as SuperGLUE writes.

    Attributes:
        row: makes an example of a record.
        unfold: the records that an object holds, such as the questions on its passage; None: it is a record itself.
            Raises `BadRow`.
    """

    row: RowMapper
    unfold: Callable[[Row], Iterable[Row]] | None = None

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._rows(path)), self.row))

    def _rows(self, path: Path) -> Iterator[tuple[str, Row]]:
        found = False
        for number, line in enumerate(read_lines(path), 1):
            place = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{place}: not JSON at column {error.colno} ({error.msg}); is the file cut off?"
                ) from None
            except (RecursionError, ValueError) as error:
                raise DataError(f"{place}: no record ({error}); fetch the file again") from None
            if not isinstance(row, dict):
                raise DataError(f"{place}: not a JSON object; write one {{...}} a line")
            try:
                for record in [row] if self.unfold is None else self.unfold(row):
                    found = True
                    yield place, record
            except BadRow as error:
                raise DataError(f"{place}: {error}") from None
        if not found:
            raise DataError(f"{path}:1: no record in the file; fetch it again")


@dataclass(frozen=True)
class LabelsApart:
    """Rows whose labels stand line by line in one more file, the last one. A single file holds its own labels.

    Attributes:
        rows: reads the other files.
    """

    rows: Reader

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        if len(paths) == 1:
            return self.rows(card, paths)
        *row_paths, label_path = paths
        examples = self.rows(card, row_paths).examples
        labels = read_lines(label_path)
        if len(labels) != len(examples):
            raise DataError(
                f"{label_path}:{len(labels)}: {len(labels)} labels for the {len(examples)} rows of {row_paths[0]}; "
                "both files must come from one release"
            )
        for number, label in enumerate(labels, 1):
            if label not in card.labels:
                known = ", ".join(card.labels)
                raise DataError(f"{label_path}:{number}: unknown label {label!r}; it must be one of {known}")
        return Split(tuple(replace(row, label=label) for row, label in zip(examples, labels, strict=True)))
