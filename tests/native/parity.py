"""`python -m tests.native.parity BUNDLE --data-dir DIR`: the client beside Python, on real rows of every script.

Rows come from XTREME's official files; each kind of task in the bundle answers the rows of its kind. Compared are the
pieces of all texts, as the graph of `exporters.tokenizer` and as the `tokenizers` library cut them, and all answers
with their scores, by `polyprompt-predict` and by `Session`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tokenizers import Tokenizer

from benchmarks import data
from benchmarks.errors import MissingData, PolypromptError, run_command
from benchmarks.records import Example
from benchmarks.registry import find_task
from benchmarks.task import Kind
from exporters.bundle import TOKENIZER
from exporters.engines import ENGINES
from exporters.engines.openvino import core
from exporters.predict import record
from exporters.session import Question, Session
from exporters.tokenizer import OUTPUTS, convert, extension

SOURCES = {
    Kind.CLASSIFICATION: ("xnli", "pawsx"),
    Kind.CHOICE: ("xcopa",),
    Kind.TAGGING: ("panx", "udpos"),
    Kind.SPAN: ("xquad", "mlqa", "tydiqa"),
    Kind.RETRIEVAL: ("tatoeba",),
}
"""Kind -> tasks whose rows are real ones of that kind."""

CANDIDATES = 8
"""Of each row of retrieval."""

FIELDS = ("id", "text", "text_pair", "choices", "tokens", "marked", "answers")


@dataclass(frozen=True)
class Client:
    """The program.

    Args:
        program: its path. bundle: what it asks.
    """

    program: str
    bundle: Path

    def __call__(self, asked: Sequence[Question], *options: object) -> list[Any]:
        """Answers as JSON objects.

        Raises:
            PolypromptError: it failed; says what it said.
        """
        lines = [
            {"task": q.task, "language": q.language} | {key: asdict(q.example)[key] for key in FIELDS} for q in asked
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        command = [self.program, str(self.bundle), *map(str, options)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PolypromptError(f"{self.program}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def find_client() -> str | None:
    """The program that $POLYPROMPT_CLIENT names, or that was installed."""
    return os.environ.get("POLYPROMPT_CLIENT") or shutil.which("polyprompt-predict")


def in_python(session: Session, asked: Sequence[Question]) -> list[Any]:
    """Answers of Python as JSON objects."""
    answers = zip(asked, session.answer(asked), strict=True)
    return [record(session.tasks[q.task], q.example, answer) for q, answer in answers]


def difference(one: Any, other: Any) -> float:
    """Largest difference of numbers; infinite where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max(map(difference, one, other), default=0.0)
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other)
    return 0.0 if one == other else math.inf


class Pieces:
    """The graph of a tokenizer, beside the tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        core().add_extension(str(extension()))
        self._graph, self._tokenizer = core().compile_model(convert(tokenizer), "CPU"), tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def graph(self, texts: Sequence[str]) -> list[list[int]]:
        """Pieces of each text by the graph."""
        found = self._graph({0: np.array(texts)})
        out = {name: found[name] for name in OUTPUTS}
        rows = []
        for first, last in zip(out["first_word"], out["last_word"], strict=True):
            begin, end = (out["first_piece"][first], out["last_piece"][last - 1]) if last > first else (0, 0)
            rows.append(out["pieces"][begin:end].tolist())
        return rows

    def library(self, texts: Sequence[str]) -> list[list[int]]:
        """The same by the `tokenizers` library."""
        return [row.ids for row in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def real_rows(kind: Kind, folder: Path, count: int) -> Iterator[tuple[str, str, list[Example]]]:
    """Source, language and examples of a kind, as far as their files are there."""
    for name in SOURCES.get(kind, ()):
        task = find_task(name)
        for language in task.card.languages:
            for split in ("test", "dev"):
                try:
                    rows = data.load(task, split, language, folder)
                except (MissingData, PolypromptError):
                    continue
                some = list(rows.examples[:count])
                if kind is Kind.RETRIEVAL:
                    some = [replace(one, choices=rows.candidates[:CANDIDATES]) for one in some]
                yield name, language, some
                break


def texts_of(example: Example) -> list[str]:
    """All that is cut into pieces."""
    found = [example.text, example.text_pair or "", *example.choices, *example.tokens]
    return [text for text in found if text]


def compare(bundle: Path, folder: Path, count: int, engine: str, program: str, atol: float) -> tuple[list[Any], bool]:
    """A line a source and language, and whether all answers agree.

    Args:
        folder: with official files. count: rows of each language of each source. atol: of scores.
    """
    session = Session(bundle, engine=engine)
    pieces, client = Pieces(Tokenizer.from_file(str(bundle / TOKENIZER))), Client(program, bundle)
    tasks = {}
    for name, card in session.tasks.items():
        tasks.setdefault(card.kind, name)
    lines, good = [], True
    for kind, task in tasks.items():
        for source, language, examples in real_rows(kind, folder, count):
            asked = [Question(task, replace(one, marked=None, answers=None), language) for one in examples]
            texts = [text for one in examples for text in texts_of(one)]
            cut = sum(a != b for a, b in zip(pieces.graph(texts), pieces.library(texts), strict=True))
            ours, theirs = in_python(session, asked), client(asked, "--engine", engine)
            far = [difference(a, b) for a, b in zip(ours, theirs, strict=True)]
            near = [one for one in far if one <= atol]
            lines.append((source, language, len(asked), len(texts), cut, len(far) - len(near), max(near, default=0.0)))
            good = good and len(near) == len(far)
    return lines, good


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="with the graph of its tokenizer")
    parser.add_argument("--data-dir", type=Path, required=True, help="official files")
    parser.add_argument("--rows", type=int, default=100, help="of each language of each source (default: %(default)s)")
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--atol", type=float, default=1e-4, help="of scores (default: %(default)s)")
    options = parser.parse_args()
    program = find_client()
    if program is None:
        raise PolypromptError("polyprompt-predict is not installed; POLYPROMPT_CLIENT may name it")
    if not options.data_dir.is_dir():
        raise PolypromptError(f"--data-dir {options.data_dir}: no such folder")
    lines, good = compare(options.bundle, options.data_dir, options.rows, options.engine, program, options.atol)
    total = ["", "all", *(sum(line[place] for line in lines) for place in range(2, 6)), max(line[6] for line in lines)]
    heads = ["rows of", "language", "rows", "texts", "cut otherwise", "answered otherwise", "largest other difference"]
    print(tabulate([*lines, total], heads, floatfmt=".1e"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
