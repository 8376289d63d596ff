"""The shape of SuperGLUE's official records: the counterparts of what `benchmarks.readers.superglue` unfolds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from benchmarks.readers.rows import Row
from benchmarks.readers.superglue import multirc_answers, record_queries, wsc

_VALUES: Mapping[str, bool | int] = {"True": True, "False": False, "choice1": 0, "choice2": 1}


def in_json(record: Row) -> dict[str, Any]:
    """A record with its label as the files have it: true, false, 0 or 1 where the hub has a name."""
    label = record.get("label")
    return {**record, "label": _VALUES[label]} if isinstance(label, str) and label in _VALUES else dict(record)


def _wsc(records: Sequence[Row]) -> list[dict[str, Any]]:
    """The fields of the two spans in an object of their own."""
    return [
        {
            **{name: value for name, value in record.items() if not name.startswith("span")},
            "target": {name: value for name, value in record.items() if name.startswith("span")},
        }
        for record in records
    ]


def _multirc(answers: Sequence[Row]) -> list[dict[str, Any]]:
    """An object a paragraph, which holds its questions with their answers."""
    return [
        {
            "idx": number,
            "version": 1.1,
            "passage": {
                "text": of_paragraph[0]["paragraph"],
                "questions": [
                    {
                        "question": of_question[0]["question"],
                        "answers": [_multirc_answer(answer) for answer in of_question],
                        "idx": question,
                    }
                    for question, of_question in _grouped(of_paragraph, "question")
                ],
            },
        }
        for number, of_paragraph in _grouped(answers, "paragraph")
    ]


def _multirc_answer(record: Row) -> dict[str, Any]:
    label = record.get("label")  # MultiRC writes truth as a number
    number = {} if label is None else {"label": int(_VALUES.get(label, label))}
    return {"text": record["answer"], "idx": record["idx"]["answer"], **number}


def _record(queries: Sequence[Row]) -> list[dict[str, Any]]:
    """An object a passage, which holds its entities and queries; each text stands where it comes first."""
    return [
        {
            "passage": {
                "text": of_passage[0]["passage"],
                "entities": [_span(of_passage[0]["passage"], text) for text in of_passage[0]["entities"]],
            },
            "qas": [
                {
                    "query": query["query"],
                    "answers": [{**_span(query["passage"], text), "text": text} for text in query["answers"]],
                    "idx": query["idx"]["query"],
                }
                for query in of_passage
            ],
            "idx": number,
        }
        for number, of_passage in _grouped(queries, "passage")
    ]


def _span(text: str, part: str) -> dict[str, int]:
    """Offsets of a part; the end is its last character."""
    start = text.find(part)
    return {"start": start, "end": start + len(part) - 1}


def _grouped(records: Sequence[Row], name: str) -> list[tuple[int, list[Row]]]:
    """Neighbouring records with the same number of their paragraph, question or passage."""
    return [(number, list(group)) for number, group in groupby(records, key=lambda record: record["idx"][name])]


Shape = Callable[[Sequence[Row]], list[dict[str, Any]]]
"""Makes the objects of a file of its records."""

_SHAPES: tuple[tuple[object, Shape], ...] = ((wsc, _wsc), (multirc_answers, _multirc), (record_queries, _record))


def shape_of(made_by: object) -> Shape | None:
    """The shape of an official file, by the function that unfolds its objects, or by the row mapper; None: as it is."""
    return next((shape for maker, shape in _SHAPES if maker == made_by), None)
