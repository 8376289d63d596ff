"""SuperGLUE: one zip archive with JSON lines a task, both diagnostic sets among them.

A line is {"idx": ..., "label": ...}. Truth is spelled "true" in BoolQ and WiC, "True" in WSC, and 1 in MultiRC, whose
lines are paragraphs that hold their questions with their answers. Sources: the FAQ of
https://super.gluebenchmark.com/faq, and the writers whose files its server took: jiant of the benchmark's authors
(github.com/nyu-mll/jiant, evaluate.py of version 1) and T5's script for the leaderboard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import groupby

from benchmarks.errors import PolypromptError
from benchmarks.records import Example, Prediction
from benchmarks.submissions.format import Format, LeftOut, Predicted, Writer, index, label, label_number, lines, text
from benchmarks.task import TaskCard

_PLACE = re.compile(r"(\d+)-(\d+)-(\d+)")


def _json_lines(file: str, spelling: Callable[[TaskCard, Prediction], object]) -> Writer:
    def write(predicted: Predicted) -> Mapping[str, str]:
        card = predicted.card
        return {
            file: lines(json.dumps({"idx": index(card, row), "label": spelling(card, row)}) for row in predicted.rows)
        }

    return write


def _lower(card: TaskCard, row: Prediction) -> str:
    return label(card, row).lower()


def _choice(card: TaskCard, row: Prediction) -> int:
    if row.value not in ("0", "1"):
        raise PolypromptError(f"{card.name}: prediction {row.id!r}: {row.value!r} is not one of ['0', '1']")
    return int(row.value)


def _paragraphs(predicted: Predicted) -> Mapping[str, str]:
    """MultiRC: the numbers of paragraph, question and answer are in the id, see `benchmarks.readers.superglue`."""
    card = predicted.card
    answers = []
    for row in predicted.rows:
        place = _PLACE.fullmatch(row.id)
        if place is None:
            raise PolypromptError(f"{card.name}: prediction {row.id!r} does not say paragraph, question and answer")
        answers.append((*map(int, place.groups()), label_number(card, row)))
    paragraphs = [
        {
            "idx": paragraph,
            "passage": {
                "questions": [
                    {
                        "idx": question,
                        "answers": [{"idx": number, "label": given} for _, _, number, given in of_question],
                    }
                    for question, of_question in groupby(of_paragraph, key=lambda answer: answer[1])
                ]
            },
        }
        for paragraph, of_paragraph in groupby(sorted(answers), key=lambda answer: answer[0])
    ]
    return {"MultiRC.jsonl": lines(map(json.dumps, paragraphs))}


def _entities(predicted: Predicted) -> Mapping[str, str]:
    """ReCoRD: entities as texts. In a file without answers a prediction is the place of the entity among the others."""
    card, official = predicted.card, predicted.official
    labels = [text(card, row) for row in predicted.rows]
    if official is not None:
        labels = [_entity(example, given) for example, given in zip(official.examples, labels, strict=True)]
    elif any(row.gold is None for row in predicted.rows):
        raise LeftOut("the texts of the entities are needed; give --data-dir the folder with the official files")
    rows = zip(predicted.rows, labels, strict=True)
    return {"ReCoRD.jsonl": lines(json.dumps({"idx": index(card, row), "label": given}) for row, given in rows)}


def _entity(example: Example, given: str) -> str:
    if given in example.choices:
        return given
    if given.isdigit() and int(given) < len(example.choices):
        return example.choices[int(given)]
    raise PolypromptError(f"record: prediction {example.id!r}: {given!r} is no entity of its passage")


SUPERGLUE = Format(
    "superglue",
    tasks={
        "boolq": _json_lines("BoolQ.jsonl", _lower),
        "cb": _json_lines("CB.jsonl", label),
        "copa": _json_lines("COPA.jsonl", _choice),
        "multirc": _paragraphs,
        "record": _entities,
        "superglue-rte": _json_lines("RTE.jsonl", label),
        "wic": _json_lines("WiC.jsonl", _lower),
        "wsc": _json_lines("WSC.jsonl", label),
        "axb": _json_lines("AX-b.jsonl", label),
        "axg": _json_lines("AX-g.jsonl", label),
    },
)
