"""The writer of each format: from the rows of a split to the texts of its official files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from benchmarks.readers.conll import Conll
from benchmarks.readers.parallel import Parallel
from benchmarks.readers.rows import Reader
from benchmarks.readers.squad import SquadJson
from benchmarks.readers.tables import JsonLines, LabelsApart, Tsv
from benchmarks.records import Example
from benchmarks.writers.headers import header_of
from benchmarks.writers.rows import Content, Unwritable, records_for
from benchmarks.writers.superglue import in_json, shape_of

_NOT_THERE = "-"
"""What stands in a column that the hub does not have, as in GLUE's own files where a column does not apply."""


def write(reader: Reader, content: Content) -> tuple[str, ...]:
    """The text of each official file of a split, such that the reader makes the same split of them.

    Args:
        reader: the split's.
        content: its rows.

    Raises:
        Unwritable: the reader's format has no writer, or cannot hold the rows.
    """
    check_writable(reader, content.files)
    texts = _WRITERS[type(reader)](reader, content)
    if len(texts) != len(content.files):
        raise Unwritable(f"{len(content.files)} files are wanted, and the format is written as {len(texts)}")
    return texts


def check_writable(reader: Reader, files: Sequence[str]) -> None:
    """Find out before the rows are there whether `write` can do with a reader and files.

    Raises:
        Unwritable: it cannot.
    """
    if type(reader) not in _WRITERS:
        raise Unwritable(f"the format that {type(reader).__name__} reads has no writer")
    if isinstance(reader, LabelsApart):
        check_writable(reader.rows, files)
    for file in files:
        if "*" in file:
            raise Unwritable(f"the names of its files are not fixed ({file})")


def _tsv(reader: Tsv, content: Content) -> tuple[str, ...]:
    records = records_for(reader.row, content)
    known = {name for record in records for name in record}
    header = list(reader.header or header_of(content.files[0]) or records[0])
    while header[-1] not in known:  # test files without labels lack the last columns
        header.pop()
    rows = [] if reader.header else [header]
    for number, record in enumerate(records, 1):
        for name in header:
            if name in known and name not in record:
                raise Unwritable(f"row {number} has no {name!r}, which others have; the format cannot hold that")
        rows.append([_cell(record.get(name, _NOT_THERE), number) for name in header])
    return (_joined("\t".join(row) for row in rows),)


def _cell(value: object, number: int) -> str:
    """A value in a table; numbers in GLUE's three decimals where these are exact."""
    text = f"{value:.3f}" if isinstance(value, float) and float(f"{value:.3f}") == value else str(value)
    return _in_one_line(text, number)


def _in_one_line(text: str, number: int) -> str:
    if "\t" in text or "\n" in text:
        raise Unwritable(f"row {number} holds a tab or a line end, which the format cannot")
    return text


def _json_lines(reader: JsonLines, content: Content) -> tuple[str, ...]:
    records = records_for(reader.row, content)
    shape = shape_of(reader.unfold or reader.row)
    if reader.unfold is not None and shape is None:
        raise Unwritable("its objects hold several rows, and what puts these together has no counterpart for writing")
    objects = records if shape is None else shape(records)
    return (_joined(json.dumps(in_json(record), ensure_ascii=False) for record in objects),)


def _labels_apart(reader: LabelsApart, content: Content) -> tuple[str, ...]:
    if len(content.files) == 1:
        return write(reader.rows, content)
    labels = [example.label for example in content.split.examples]
    if None in labels:
        raise Unwritable(f"row {labels.index(None) + 1} has no label; the file of labels cannot hold that")
    bare = tuple(replace(example, label=None) for example in content.split.examples)
    rows = replace(content, files=content.files[:-1], split=replace(content.split, examples=bare), mapper=None)
    return (*write(reader.rows, rows), _joined(label for label in labels if label is not None))


def _conll(reader: Conll, content: Content) -> tuple[str, ...]:
    tagged = any(example.tags is not None for example in content.split.examples)
    width = max(reader.token, reader.tag, 1) + 1 if tagged else 1
    sentences = []
    for number, example in enumerate(content.split.examples, 1):
        lines = []
        for position, token in enumerate(example.tokens):
            cells = ["_"] * width
            cells[reader.token] = token
            if example.tags is not None:
                cells[reader.tag] = example.tags[position]
            lines.append("\t".join(_in_one_line(cell, number) for cell in cells))
        sentences.append("".join(f"{line}\n" for line in lines))
    return ("\n".join(sentences),)


def _squad_json(reader: SquadJson, content: Content) -> tuple[str, ...]:
    card, records = content.card, content.records
    rows = list(zip(content.split.examples, records, strict=True))
    articles = []
    for title, of_article in groupby(rows, key=lambda row: row[1].get("title", "")):
        paragraphs = [
            {"context": context, "qas": [_question(example, card.no_answer) for example, _ in of_paragraph]}
            for context, of_paragraph in groupby(of_article, key=lambda row: row[0].text_pair)
        ]
        articles.append({"title": title, "paragraphs": paragraphs})
    return (json.dumps({"version": "v2.0" if card.no_answer else "1.1", "data": articles}, ensure_ascii=False) + "\n",)


def _question(example: Example, no_answer: bool) -> dict[str, Any]:
    answers = [{"text": answer.text, "answer_start": answer.start} for answer in example.answers or ()]
    question: dict[str, Any] = {"id": example.id, "question": example.text, "answers": answers}
    return question | ({"is_impossible": not answers} if no_answer and example.answers is not None else {})


def _parallel(reader: Parallel, content: Content) -> tuple[str, ...]:
    sentences, candidates = content.split.examples, content.split.candidates
    gold = [example.label or "" for example in sentences]
    if reader.gold_of_candidates:
        row_of = {label: str(row) for row, label in enumerate(gold)}
        gold = [row_of[str(number)] for number in range(len(candidates))]
    return (
        _joined(_in_one_line(example.text, number) for number, example in enumerate(sentences, 1)),
        _joined(_in_one_line(text, number) for number, text in enumerate(candidates, 1)),
        _joined(gold),
    )


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


_WRITERS: Mapping[type, Callable[[Any, Content], tuple[str, ...]]] = {
    Tsv: _tsv,
    JsonLines: _json_lines,
    LabelsApart: _labels_apart,
    Conll: _conll,
    SquadJson: _squad_json,
    Parallel: _parallel,
}
