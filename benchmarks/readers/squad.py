"""Reader of SQuAD's JSON, versions 1.1 and 2.0, and of all that is written like it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.readers.rows import BadRow, Row, text_of, to_examples, value_of
from benchmarks.readers.text import read_text
from benchmarks.records import Answer, Example, Split
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class Question:
    """Makes an example of a question with its context and answers, and checks every answer's offset.

    `answers` is a list of objects, as in the official files, or an object of lists, as on the hub. Without answers
    a question is unanswerable when `is_impossible` says so, else not labelled (as in test files whose answers are
    blanked).

    Attributes:
        unanswerable: an empty list of answers means "no answer" even without `is_impossible` (SQuAD 2.0 on the hub).
    """

    unanswerable: bool = False

    def __call__(self, card: TaskCard, row: Row, index: int) -> Example:
        """See `RowMapper`."""
        context = text_of(row, "context")
        return Example(
            id=text_of(row, "id"),
            text=text_of(row, "question"),
            text_pair=context,
            answers=self._answers(row, context),
        )

    def _answers(self, row: Row, context: str) -> tuple[Answer, ...] | None:
        raw = row.get("answers") or []
        if isinstance(raw, dict):
            raw = [
                {"text": text, "answer_start": start}
                for text, start in zip(value_of(raw, "text"), value_of(raw, "answer_start"), strict=True)
            ]
        impossible = row.get("is_impossible")
        if impossible and raw:
            raise BadRow("is_impossible is true but there are answers; remove one of the two")
        if impossible is False and not raw:
            raise BadRow("is_impossible is false but there is no answer; add an answer or remove the question")
        if not raw:
            return () if impossible or self.unanswerable else None
        answers = tuple(Answer(text_of(answer, "text"), value_of(answer, "answer_start")) for answer in raw)
        if not any(answer.text for answer in answers):
            return None
        for answer in answers:
            _check_offset(answer, context)
        return answers


def _check_offset(answer: Answer, context: str) -> None:
    if not isinstance(answer.start, int) or answer.start < 0:
        raise BadRow(f"answer_start is {answer.start!r}; it must be the answer's first character, counted from 0")
    found = context[answer.start : answer.start + len(answer.text)]
    if found != answer.text or not found:
        at = context.find(answer.text) if answer.text else -1
        advice = f"the answer stands at {at}" if at >= 0 else "the answer is not in the context"
        raise BadRow(
            f"answer_start {answer.start} does not match: the context has {_short(found)} where the answer is "
            f"{_short(answer.text)}; {advice}: correct the offset or remove the question"
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


@dataclass(frozen=True)
class _Place:
    """Where a question stands; the line is looked up only when an error asks for it."""

    path: Path
    text: str
    id: str

    def __str__(self) -> str:
        line = self.text.count("\n", 0, max(self.text.find(json.dumps(self.id)), 0)) + 1
        return f"{self.path}:{line}: question {self.id!r}"


@dataclass(frozen=True)
class SquadJson:
    """Articles of paragraphs of questions: `data[].paragraphs[].{context, qas[]}`."""

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._questions(path)), Question()))

    def _questions(self, path: Path) -> Iterator[tuple[_Place, Row]]:
        text = read_text(path)
        try:
            articles = json.loads(text)["data"]
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{error.lineno}: not JSON at column {error.colno} ({error.msg}); is the file cut off?"
            ) from None
        except (KeyError, TypeError):
            raise DataError(f'{path}:1: not in SQuAD format: no "data" at the top') from None
        found = False
        try:
            for article in articles:
                for paragraph in article["paragraphs"]:
                    for question in paragraph["qas"]:
                        found = True
                        row = {**question, "context": paragraph["context"]}
                        yield _Place(path, text, str(question["id"])), row
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}:1: not in SQuAD format ({error}); it must be data[].paragraphs[].qas[] with context and id"
            ) from None
        if not found:
            raise DataError(f"{path}:1: no question in the file; fetch it again")
