"""The tables of the board in a terminal: `python -m leaderboard.show RUNS... [--table xtreme.xnli] [--compare A B]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate, tabulate_formats

from benchmarks.errors import PolypromptError, did_you_mean, run_command
from leaderboard.board import Board, Figure, Flag, Key, Standing, Table
from leaderboard.ranking import compare, holm
from leaderboard.tables import make_board


def tables_of(board: Board) -> Iterator[Table]:
    """Every table: of suites, tasks, metrics and languages."""
    for suite in board.suites:
        yield suite.overview
        for task in suite.tasks:
            yield task.by_language
            yield task.metrics
    for language in board.languages:
        yield language.table


def as_records(table: Table) -> dict[str, Any]:
    """A table as plain values for JSON: an object a row, with a figure for each column, null where it is missing."""
    return {
        "table": table.id,
        "title": table.title,
        "rows": [
            {
                "id": row.id, "standing": row.standing.value, "method": row.method, "backbone": row.backbone,
                "prompt": row.prompt, "seeds": list(row.seeds), "source": row.source,
                "figures": {column.id: _record(table.figure(at, to)) for to, column in enumerate(table.columns)},
            }
            for at, row in enumerate(table.rows)
        ],
    }  # fmt: skip


def as_text(table: Table, style: str = "simple") -> str:
    """A table as text.

    Args:
        table: what is printed. style: of tabulate, as "simple", "github" or "latex".
    """
    rows = []
    often = Counter((row.method, row.backbone) for row in table.rows)
    for at, row in enumerate(table.rows):
        told_apart = [row.prompt] if row.prompt and often[row.method, row.backbone] > 1 else []
        told_apart += [row.apart or row.id] if row.alike and row.runs else []
        heading = ", ".join([row.method, row.backbone, *told_apart])
        if row.standing is Standing.QUOTED:
            heading += " (quoted)"
        shown = _short(heading, 200 if told_apart else 60)
        rows.append([shown, *(_text(table, at, to) for to in range(len(table.columns)))])
    return str(tabulate(rows, ["", *(column.title for column in table.columns)], style, disable_numparse=True))


def comparison(board: Board, first: str, second: str) -> list[dict[str, Any]]:
    """Two rows in every task and language that both have, with Holm's correction over these, and in means and averages.

    Args:
        board: which. first, second: ids of rows.

    Raises:
        PolypromptError: there is no such row, or it has no predictions.
    """
    for name in (first, second):
        if name not in board.replicates:
            raise PolypromptError(f"no row {name!r} with predictions: {did_you_mean(name, board.replicates)}")
    ours, theirs = board.replicates[first], board.replicates[second]
    found: list[dict[str, Any]] = []
    single: list[dict[str, Any]] = []
    for number, key in enumerate(board.keys):
        if np.isnan(ours.score[number]) or np.isnan(theirs.score[number]):
            continue
        one, other = (part.score[number] + part.scale[number] * part.values[number] for part in (ours, theirs))
        result = compare(float(ours.score[number]), float(theirs.score[number]), one, other)
        found.append({"where": key.title, "table": key.table, "column": key.column, **asdict(result)})
        if not _is_summary(board, key):
            single.append(found[-1])
    for line, p in zip(single, holm(np.array([line["p"] for line in single])).tolist(), strict=True):
        line["corrected"] = p
    return found


def _is_summary(board: Board, key: Key) -> bool:
    """Whether it is a mean over what other keys have: an average, or a task whose languages stand alone."""
    if key.table != key.suite:
        return False
    if key.column == "average" or key.column.startswith("category:"):
        return True
    return any(other.table == f"{key.suite}.{key.column}" for other in board.keys)


def _record(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "score": round(figure.score, 4),
        "interval": None
        if figure.low is None or figure.high is None
        else [round(figure.low, 4), round(figure.high, 4)],
        "rank": figure.rank and list(figure.rank),
        "group": figure.group,
        "parts": figure.parts,
        "examples": figure.examples,
        "flags": [flag.name.lower() for flag in Flag if flag in figure.flags and flag.name],
    }


def _text(table: Table, row: int, column: int) -> str:
    figure = table.figure(row, column)
    if figure is None:
        return "-"
    parts = [f"{figure.score:.1f}"]
    if figure.low is not None and figure.high is not None:
        parts.append(f"[{figure.low:.1f}, {figure.high:.1f}]")
    if figure.rank is not None and len(table.rows) > 1:
        best, worst = figure.rank
        parts.append(f"#{best}" if best == worst else f"#{best}-{worst}")
    if Flag.PARTIAL in figure.flags:
        parts.append(f"({figure.parts} of {table.columns[column].parts})")
    other = figure.flags & ~(Flag.PARTIAL | Flag.QUOTED)
    parts += [str(flag.name).lower() for flag in Flag if flag in other]
    return " ".join(parts)


def _short(text: str, most: int = 60) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)  # nothing that moves a terminal
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.show", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument(
        "--results",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="results from elsewhere, or a folder of such files; repeatable",
    )
    parser.add_argument("--table", metavar="ID", help='one table, as "xtreme", "xtreme.xnli", "language.de"')
    parser.add_argument("--compare", nargs=2, metavar="ROW", help="ids of two rows, that of their first run")
    parser.add_argument("--format", default="simple", choices=sorted(tabulate_formats), metavar="STYLE",
                        help="of tabulate: simple, github, latex, tsv, html and others")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if not options.runs and not options.results:
        parser.error("name RUNS, or --results")
    board = make_board(options.runs, options.results)
    for complaint in board.complaints:
        print(f"warning: {_short_line(complaint)}", file=sys.stderr)
    if options.compare:
        found = comparison(board, *options.compare)
        if options.json:
            print(json.dumps(found, indent=2, ensure_ascii=False))
        else:
            lines = [
                [
                    one["where"],
                    one["difference"],
                    f"[{one['low']:.1f}, {one['high']:.1f}]",
                    one["win"],
                    one.get("corrected"),
                ]
                for one in found
            ]
            headings = ["", "difference", "95 % interval", "wins", "p, corrected"]
            print(tabulate(lines, headings, options.format, floatfmt=("", "+.1f", "", ".2f", ".3g"), missingval=""))
        return 0
    every = {table.id: table for table in tables_of(board)}
    if options.table is not None and options.table not in every:
        raise PolypromptError(f"--table {options.table}: {did_you_mean(options.table, every)}")
    chosen = [every[options.table]] if options.table else [suite.overview for suite in board.suites]
    if options.json:
        print(json.dumps([as_records(table) for table in chosen], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(f"{_short(table.id)}: {table.title}\n{as_text(table, options.format)}" for table in chosen))
    return 0


def _short_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


if __name__ == "__main__":
    sys.exit(run_command(main))
