"""Ask a bundle: one text from the command line, or JSON lines in and out."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Example, Value
from benchmarks.task import Kind, TaskCard
from exporters.opening import add_session_options, open_session
from exporters.session import Answer, Question, Session, check_example

LINES = 512
"""Lines of JSON that are answered together."""

ALL = "all"
"""Of `--task`: every task, where none has this name."""

_EXAMPLE = TypeAdapter(Example)
_FIELDS = tuple(field.name for field in fields(Example))


def record(card: TaskCard, example: Example, answer: Answer) -> dict[str, Any]:
    """An answer as a JSON object.

    Returns:
        "id", "task", "prediction", and by kind. Classification: "scores" by label. Multiple choice, retrieval:
        "choice", its text; "scores" or "cosine". Tagging: "scores", one a token. Span extraction: "start" and "end" in
        characters of the context (null: no answer), "probability", and "no_answer", the score of "no answer" minus
        that of the best answer (null: the context is empty).
    """
    prediction = answer.prediction
    common = {"id": prediction.id, "task": card.name, "prediction": prediction.value}
    scores = prediction.scores
    if card.kind is Kind.CLASSIFICATION:
        return common | {"scores": dict(zip(card.labels, scores, strict=True))}
    if card.kind is Kind.CHOICE:
        return common | {"choice": example.choices[int(str(prediction.value))], "scores": scores}
    if card.kind is Kind.RETRIEVAL:
        return common | {"choice": _found(example, prediction.value), "cosine": scores[0]}
    if card.kind is Kind.TAGGING:
        return common | {"scores": scores}
    if card.kind is Kind.SPAN:
        start, end = answer.span or (None, None)
        margin = scores[1] if math.isfinite(scores[1]) else None
        return common | {"start": start, "end": end, "probability": _probability(answer), "no_answer": margin}
    return common


def sentence(card: TaskCard, example: Example, answer: Answer) -> str:
    """An answer for a person to read."""
    value, scores = answer.prediction.value, answer.prediction.scores
    if card.kind is Kind.CLASSIFICATION:
        return f"{value}\t{max(scores):.4f}"
    if card.kind is Kind.CHOICE:
        return f"{example.choices[int(str(value))]}\t{max(scores):.4f}"
    if card.kind is Kind.RETRIEVAL:
        return f"{_found(example, value) or 'none'}\tcosine {scores[0]:.4f}"
    if card.kind is Kind.TAGGING:
        tags = [str(tag) for tag in value] if isinstance(value, tuple) else []
        rows = [(*row[:2], f"{row[2]:.4f}") for row in zip(example.tokens, tags, scores, strict=True)]
        return tabulate(rows, tablefmt="plain", disable_numparse=True)
    if card.kind is Kind.SPAN:
        place = "no answer" if answer.span is None else f"{value}\tcharacters {answer.span[0]}-{answer.span[1]}"
        return f"{place}\t{_probability(answer):.4f}"
    return f"{value:.4f}"


def _found(example: Example, value: Value) -> str | None:
    """The text of the candidate that was found, None for none."""
    return example.choices[int(str(value))] if value else None


def _probability(answer: Answer) -> float:
    """Of what was answered: the best answer, or "no answer", whose score is higher by the second number."""
    best, difference = answer.prediction.scores
    if answer.span is not None:
        return best
    return min(1.0, best * math.exp(difference)) if math.isfinite(difference) else 1.0


def read_question(line: bytes, number: int, session: Session, task: str | None, language: str = "") -> Question:
    """One line of JSON lines.

    Args:
        line: an object with the fields of `Example`, "task" and "language".
        number: of the line; stands in for a missing "id".
        session: knows the tasks. task, language: of lines that name none.

    Raises:
        PolypromptError: not such an object, or not what its task reads; says what is wrong, not where.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PolypromptError(f"not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise PolypromptError("not a JSON object")
    name = raw.pop("task", task)
    if not isinstance(name, str):
        raise PolypromptError('names no task; add "task" to the line or --task to the command')
    spoken = raw.pop("language", language)
    if not isinstance(spoken, str):
        raise PolypromptError(f'language: {spoken!r} is no code of a language, such as "de"')
    card = session.card(name)
    unknown = [key for key in raw if key not in _FIELDS]
    if unknown:
        raise PolypromptError(f"unknown field {unknown[0]!r}; known are task, language, {', '.join(_FIELDS)}")
    try:
        example = _EXAMPLE.validate_python({"id": str(number)} | raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise PolypromptError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if "text" not in raw and card.kind is not Kind.TAGGING:
        raise PolypromptError(f"task {name} ({card.kind}) needs text")
    check_example(card, example)
    return Question(name, example, spoken)


def answer_lines(
    session: Session, source: BinaryIO, name: str, task: str | None, language: str = ""
) -> Iterator[dict[str, Any]]:
    """Answers to JSON lines, in order; empty lines are passed over.

    Args:
        session: the bundle. source: the lines. name: of the source, for errors.
        task, language: of lines that name none.

    Raises:
        PolypromptError: a bad line; names it, after the answers to all lines before it.
    """
    lines = iter(enumerate(source, 1))
    while block := list(islice(lines, LINES)):
        questions: list[Question] = []
        failure = None
        for number, line in block:
            try:
                if line.strip():
                    questions.append(read_question(line, number, session, task, language))
            except PolypromptError as error:
                failure = PolypromptError(f"{name}:{number}: {error}")
                break
        for asked, answer in zip(questions, session.answer(questions), strict=True):
            yield record(session.tasks[asked.task], asked.example, answer)
        if failure is not None:
            raise failure


def _asked(card: TaskCard, options: argparse.Namespace) -> Example:
    """The question on the command line."""
    tokens: Sequence[str] = ()
    if card.kind is Kind.TAGGING:
        try:
            tokens = json.loads(options.tokens) if options.tokens else (options.text or "").split()
        except ValueError as error:
            raise PolypromptError(f"--tokens: not JSON ({error})") from None
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise PolypromptError('--tokens: must be a JSON list of words such as ["Ada", "sings"]')
    elif options.text is None:
        raise PolypromptError(f"task {card.name} needs a text; write it behind the options in quotes")
    return Example("1", options.text or "", options.pair, tuple(options.choices), tuple(tokens), options.marked)


def _answer_one(session: Session, options: argparse.Namespace) -> None:
    name = options.task or next(iter(session.tasks))
    if options.task is None and len(session.tasks) > 1:
        raise PolypromptError(f"--task: say which; the bundle has {', '.join(session.tasks)}")
    if name == ALL and name not in session.tasks:
        _answer_all(session, options)
        return
    card = session.card(name)
    example = _asked(card, options)
    answer = session.answer([Question(name, example, options.language)])[0]
    if options.json:
        print(json.dumps(record(card, example, answer), ensure_ascii=False))
    else:
        print(sentence(card, example, answer))


def _answer_all(session: Session, options: argparse.Namespace) -> None:
    """Of every task that can be asked what is on the command line."""
    questions = []
    for name, card in session.tasks.items():
        try:
            example = _asked(card, options)
            check_example(card, example)
            questions.append(Question(name, example, options.language))
        except PolypromptError as error:
            print(f"left out: {error}", file=sys.stderr)
    for asked, answer in zip(questions, session.answer(questions), strict=True):
        card = session.tasks[asked.task]
        if options.json:
            print(json.dumps(record(card, asked.example, answer), ensure_ascii=False))
        else:
            print(*(f"{asked.task}\t{line}" for line in sentence(card, asked.example, answer).split("\n")), sep="\n")


def _answer_file(session: Session, path: str, task: str | None, language: str) -> None:
    if path != "-" and (not Path(path).exists() or Path(path).is_dir()):
        raise PolypromptError(f"--jsonl {path}: no such file")
    with sys.stdin.buffer if path == "-" else Path(path).open("rb") as source:
        for found in answer_lines(session, source, "stdin" if path == "-" else path, task, language):
            print(json.dumps(found, ensure_ascii=False), flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.predict", description=__doc__)
    add_session_options(parser)
    parser.add_argument("text", nargs="?", help="sentence, premise, question, or words for tagging")
    parser.add_argument("--task", help="which task answers, or all; may be left out where the bundle has one")
    parser.add_argument(
        "--language", default="", metavar="CODE", help="of the text (BCP-47), for what was trained in several languages"
    )
    parser.add_argument("--pair", metavar="TEXT", help="second sentence, hypothesis, or context of a question")
    parser.add_argument(
        "--choices", nargs="+", default=(), metavar="TEXT", help="alternatives, or candidates of retrieval"
    )
    parser.add_argument("--tokens", metavar="JSON", help="words for tagging as a JSON list (default: split the text)")
    parser.add_argument("--marked", type=int, metavar="N", help="semantic roles: which word is the predicate, from 0")
    parser.add_argument("--jsonl", nargs="?", const="-", metavar="FILE", help="answer JSON lines (default: from stdin)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    options = parser.parse_intermixed_args()  # else a text behind an option is refused
    session = open_session(options)
    if options.jsonl is None:
        _answer_one(session, options)
    elif options.text is not None:
        raise PolypromptError("--jsonl: the questions come from there; leave the text away")
    else:
        _answer_file(session, options.jsonl, options.task, options.language)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
