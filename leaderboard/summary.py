"""What a board says of methods over many tasks: `python -m leaderboard.summary RUNS... --out results/summary.json`.

Per backbone and row of the board: each task's and language's mean over seeds with its interval, and three means over
tasks. Two rows are compared over the tasks that both have, by paired replicates (`ranking.compare`).

english: the mean over tasks of the score in English. transfer: over tasks of several languages, of the mean over those
that are not English. gap: over the same tasks, English less these.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate, tabulate_formats

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from leaderboard.board import Board, Figure, Flag, Floats, Row, SuiteView, TaskView
from leaderboard.ranking import compare
from leaderboard.tables import make_board

ENGLISH = "en"

DIGITS = 4
"""Digits behind the point in the file."""


@dataclass(frozen=True)
class Mean:
    """A mean over tasks of one row.

    Attributes:
        score: points. low, high: 95 % interval. tasks: names of those that went into it.
    """

    score: float
    low: float
    high: float
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Keys:
    """Numbers in `Board.keys` of a task: of its score in English, None if it has none, and of those in others."""

    english: int | None
    others: tuple[int, ...]


Measure = Callable[[Floats, Keys], Floats | None]
"""What a mean takes of a task: numbers by key `[keys, ...]` -> `[...]`; None: the task has no part in it."""


def _english(numbers: Floats, keys: Keys) -> Floats | None:
    return None if keys.english is None else numbers[keys.english]


def _transfer(numbers: Floats, keys: Keys) -> Floats | None:
    if not keys.others:
        return None
    found: Floats = numbers[list(keys.others)].mean(axis=0)
    return found


def _gap(numbers: Floats, keys: Keys) -> Floats | None:
    english, others = _english(numbers, keys), _transfer(numbers, keys)
    return None if english is None or others is None else english - others


MEANS: Mapping[str, Measure] = {"english": _english, "transfer": _transfer, "gap": _gap}


class Summary:
    """Means over tasks, and comparisons of rows by them."""

    def __init__(self, board: Board) -> None:
        self.board = board
        number = {(key.table, key.column): at for at, key in enumerate(board.keys)}
        self.keys: dict[str, Keys] = {}
        for suite in board.suites:
            for task in suite.tasks:
                name = f"{suite.name}.{task.card.name}"
                spoken = [column.language for column in task.by_language.columns if column.kind == "language"]
                places = {language: number[name, language] for language in spoken if (name, language) in number}
                if not places and spoken:  # of one language
                    places = {spoken[0]: number[suite.name, task.card.name]}
                others = tuple(at for language, at in places.items() if language != ENGLISH)
                # A task that has no English is of one language, from which nothing is transferred.
                self.keys[name] = Keys(places.get(ENGLISH), others if ENGLISH in places else ())

    def mean(self, row: str, measure: str) -> Mean | None:
        """A mean, in points, over all tasks that a row has; None where no task has a part in it.

        Args:
            row: its id. measure: of `MEANS`.
        """
        tasks = self._tasks(row, measure)
        if not tasks:
            return None
        score, values = self._replicates(row, measure, tasks)
        low, high = np.percentile(values, [2.5, 97.5])
        return Mean(score, float(low), float(high), tuple(tasks))

    def difference(self, first: str, second: str, measure: str) -> dict[str, Any] | None:
        """Two rows in a mean over the tasks that both have; None where there are none.

        Args:
            first, second: their ids. measure: of `MEANS`.

        Returns:
            "tasks", and the fields of `ranking.Comparison`, in points.
        """
        both = [name for name in self._tasks(first, measure) if name in self._tasks(second, measure)]
        if not both:
            return None
        ours, theirs = (self._replicates(row, measure, both) for row in (first, second))
        return {"tasks": both, **asdict(compare(ours[0], theirs[0], ours[1], theirs[1]))}

    def _tasks(self, row: str, measure: str) -> list[str]:
        scores = self.board.replicates[row].score
        values = {name: MEANS[measure](scores, keys) for name, keys in self.keys.items()}
        return [name for name, value in values.items() if value is not None and not np.isnan(value)]

    def _replicates(self, row: str, measure: str, tasks: Sequence[str]) -> tuple[float, Floats]:
        """The mean of a row over tasks that all have a part in it, and its replicates `[resamples]`."""
        known = self.board.replicates[row]
        drawn = known.score[:, None] + known.scale[:, None] * known.values
        scores, values = (
            [part for name in tasks if (part := MEANS[measure](numbers, self.keys[name])) is not None]
            for numbers in (known.score, drawn)
        )
        return float(np.mean(scores)), np.mean(values, axis=0)


def summarise(board: Board, reference: str = "fine-tune") -> dict[str, Any]:
    """Everything of `results/summary.json`.

    Args:
        board: of published runs. reference: method whose row the others of its backbone are compared with.
    """
    summary = Summary(board)
    rows = [row for row in board.rows.values() if row.id in board.replicates]
    return {
        "schema_name": "polyprompt-summary",
        "version": 1,
        "rows": [_row(board, summary, row) for row in sorted(rows, key=_order)],
        "comparisons": [
            {"measure": measure, "backbone": row.backbone, "first": row.id, "second": other.id, **_rounded(found)}
            for row in sorted(rows, key=_order)
            for other in rows
            if other.method == reference and other.backbone == row.backbone and other.id != row.id
            for measure in MEANS
            if (found := summary.difference(row.id, other.id, measure))
        ],
    }


def _order(row: Row) -> tuple[str, str, str, str]:
    return row.backbone, row.method, row.prompt, row.id


def _row(board: Board, summary: Summary, row: Row) -> dict[str, Any]:
    means = {measure: summary.mean(row.id, measure) for measure in MEANS}
    return {
        "id": row.id,
        "backbone": row.backbone,
        "method": row.method,
        "prompt": row.prompt,
        **({"apart": row.apart or row.id} if row.alike else {}),
        "seeds": list(row.seeds),
        "trained_percent": _short(row.cost.share),
        "train_seconds": _short(row.cost.train_seconds),
        "means": {measure: _rounded(asdict(mean)) for measure, mean in means.items() if mean},
        "tasks": {
            f"{suite.name}.{task.card.name}": found
            for suite in board.suites
            for task in suite.tasks
            if (found := _task(suite, task, row))
        },
    }


def _task(suite: SuiteView, task: TaskView, row: Row) -> dict[str, Any]:
    """The main metric, and the figure of each language."""
    table = task.by_language
    at = next((number for number, other in enumerate(table.rows) if other.id == row.id), None)
    if at is None:
        return {}
    found: dict[str, Any] = {"metric": task.card.metrics[0], "languages": {}}
    for number, column in enumerate(table.columns):
        figure = table.figure(at, number)
        if column.kind == "language" and figure:
            found["languages"][column.language] = _figure(figure)
    return found


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "score": _short(figure.score),
        "low": _short(figure.low),
        "high": _short(figure.high),
        "examples": figure.examples,
        "flags": [flag.name.lower() for flag in Flag if flag in figure.flags and flag.name],
    }


def _short(number: float | None) -> float | None:
    return None if number is None else round(number, DIGITS)


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in found.items()}


def as_tables(found: Mapping[str, Any], style: str = "github") -> str:
    """The tables of a summary as text: methods by task in English, then in the mean of other languages, by backbone.

    Args:
        found: of `summarise`. style: of tabulate.
    """
    parts = []
    for backbone in dict.fromkeys(row["backbone"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["backbone"] == backbone]
        apart = {(one["first"], one["measure"]): one for one in found["comparisons"]}
        for measure in MEANS:
            names = list(dict.fromkeys(name for row in rows for name in row["means"].get(measure, {}).get("tasks", [])))
            if names:
                table = [_line(row, measure, names, apart.get((row["id"], measure))) for row in rows]
                headings = ["", "seeds", "trained %", *(name.split(".", 1)[1] for name in names), "mean", "− fine-tune"]
                parts.append(f"{backbone}, {measure}\n\n{tabulate(table, headings, style, disable_numparse=True)}")
    return "\n\n".join(parts)


def _line(row: Mapping[str, Any], measure: str, names: Sequence[str], apart: Mapping[str, Any] | None) -> list[str]:
    heading = ", ".join(
        part for part in (row["method"], row["prompt"], row.get("apart", "")) if part not in ("", "none")
    )
    mean = row["means"].get(measure)
    difference = "-"
    if apart:
        part = f" over {len(apart['tasks'])}" if len(apart["tasks"]) != len(names) else ""
        difference = f"{apart['difference']:+.1f} [{apart['low']:+.1f}, {apart['high']:+.1f}]{part}"
    whole = "-"
    if mean:
        part = f" over {len(mean['tasks'])}" if len(mean["tasks"]) != len(names) else ""
        whole = f"{mean['score']:.1f} [{mean['low']:.1f}, {mean['high']:.1f}]{part}"
    share = row["trained_percent"]
    return [
        heading,
        f"{len(row['seeds'])}",
        "-" if share is None else f"{share:.3g}",
        *(_of_task(row["tasks"].get(name), measure) for name in names),
        whole,
        difference,
    ]


def _of_task(task: Mapping[str, Any] | None, measure: str) -> str:
    if not task:
        return "-"
    spoken = {language: figure["score"] for language, figure in task["languages"].items()}
    others = [score for language, score in spoken.items() if language != ENGLISH]
    if measure == "english":
        return f"{spoken[ENGLISH]:.1f}" if ENGLISH in spoken else "-"
    if not others:
        return "-"
    mean = sum(others) / len(others)
    return f"{mean:.1f}" if measure == "transfer" else f"{spoken[ENGLISH] - mean:.1f}" if ENGLISH in spoken else "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.summary", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--reference", default="fine-tune", metavar="METHOD", help="compared with (default: fine-tune)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the summary as JSON")
    parser.add_argument("--format", default="github", choices=sorted(tabulate_formats), metavar="STYLE",
                        help="of tabulate: github, simple, latex and others")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    board = make_board(options.runs)
    for complaint in board.complaints:
        print(f"warning: {complaint}", file=sys.stderr)
    found = summarise(board, options.reference)
    if not found["rows"]:
        raise PolypromptError("no run has predictions")
    if not any(row["method"] == options.reference for row in found["rows"]):
        print(f"warning: no row of --reference {options.reference}: nothing is compared", file=sys.stderr)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if options.out:
        write_atomic(options.out, text + "\n")
    print(text if options.json else as_tables(found, options.format))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
