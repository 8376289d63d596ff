"""Reader of SQuAD's JSON, versions 1.1 and 2.0, and of all that is written like it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
        misplaced: the source is known to have wrong offsets: the answer's text counts as it stands, and its place is
            the nearest one with that text, -1 where the context does not have it (CMRC 2018). Answers with a place come
            first, for the first one is learned.
        numbered: the file repeats identifiers (TyDiQA's training files in XTREME), so questions are numbered from 0.
    """

    unanswerable: bool = False
    misplaced: bool = False
    numbered: bool = False

    def __call__(self, card: TaskCard, row: Row, index: int) -> Example:
        """See `RowMapper`."""
        context = text_of(row, "context")
        return Example(
            id=str(index) if self.numbered else text_of(row, "id"),
            text=text_of(row, "question"),
            text_pair=context,
            answers=self._answers(row, context),
        )

    def _answers(self, row: Row, context: str) -> tuple[Answer, ...] | None:
        given = _given(row)
        impossible = row.get("is_impossible")
        if impossible and given:
            raise BadRow("is_impossible is true but there are answers; remove one of the two")
        if impossible is False and not given:
            raise BadRow("is_impossible is false but there is no answer; add an answer or remove the question")
        if not given:
            return () if impossible or self.unanswerable else None
        if not any(answer.text for answer in given):
            return None
        if self.misplaced:
            return tuple(sorted((_placed(answer, context) for answer in given), key=lambda answer: answer.start < 0))
        for answer in given:
            _check_offset(answer, context)
        return tuple(given)


def _given(row: Row) -> list[Answer]:
    """The answers as the file has them."""
    raw = row.get("answers") or []
    if isinstance(raw, Mapping):
        texts, starts = value_of(raw, "text"), value_of(raw, "answer_start")
        if len(texts) != len(starts):
            raise BadRow(f"{len(texts)} answers but {len(starts)} offsets; every answer needs one offset")
        raw = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(raw, list) or not all(isinstance(answer, Mapping) for answer in raw):
        raise BadRow(f"answers is {_short(str(raw))}; it must be a list of objects with text and answer_start")
    answers = [Answer(text_of(answer, "text"), value_of(answer, "answer_start")) for answer in raw]
    for answer in answers:
        if not isinstance(answer.start, int):
            raise _no_offset(answer)
    return answers


def _placed(answer: Answer, context: str) -> Answer:
    """The answer at the nearest place where the context has it, -1 where it has it nowhere."""
    found = re.finditer(f"(?={re.escape(answer.text)})", context) if answer.text else ()
    return Answer(
        answer.text, min((match.start() for match in found), key=lambda at: abs(at - answer.start), default=-1)
    )


def _check_offset(answer: Answer, context: str) -> None:
    if answer.start < 0:
        raise _no_offset(answer)
    found = context[answer.start : answer.start + len(answer.text)]
    if found != answer.text or not found:
        at = context.find(answer.text) if answer.text else -1
        advice = f"the answer stands at {at}" if at >= 0 else "the answer is not in the context"
        raise BadRow(
            f"answer_start {answer.start} does not match: the context has {_short(found)} where the answer is "
            f"{_short(answer.text)}; {advice}: correct the offset or remove the question"
        )


def _no_offset(answer: Answer) -> BadRow:
    return BadRow(f"answer_start is {answer.start!r}; it must be the answer's first character, counted from 0")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


@dataclass(frozen=True)
class _Place:
    """Where a question stands; the line, of the first text like `mark`, is looked up only when an error asks for it."""

    path: Path
    text: str
    id: str
    mark: object

    def __str__(self) -> str:
        places = [self.text.find(json.dumps(self.mark, ensure_ascii=escaped)) for escaped in (False, True)]
        return f"{self.path}:{self.text.count(chr(10), 0, max(0, *places)) + 1}: question {self.id!r}"


@dataclass(frozen=True)
class SquadJson:
    """Articles of paragraphs of questions: `data[].paragraphs[].{context, qas[]}`.

    Attributes:
        question: makes an example of a question.
    """

    question: Question = Question()

    def __call__(self, card: TaskCard, paths: Sequence[Path]) -> Split:
        """See `Reader`."""
        return Split(to_examples(card, (place for path in paths for place in self._questions(path)), self.question))

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
                        mark = question["question"] if self.question.numbered else question["id"]
                        yield _Place(path, text, str(question["id"]), mark), row
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}:1: not in SQuAD format ({error}); it must be data[].paragraphs[].qas[] with context and id"
            ) from None
        if not found:
            raise DataError(f"{path}:1: no question in the file; fetch it again")
