"""What scripts read: files that hand numbers to the page that asks for them.

Each is a script that calls `polyprompt.add(name, data)`, since a page that is opened from disk may load scripts and
nothing else. Numbers of tables lie by column kind, `[row][column]`, in the form of JavaScript: NaN is missing.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leaderboard.address import Addresses
from leaderboard.board import Board, Column, Flag, Replicates, Row, Standing, Table, TaskView
from leaderboard.costs import COSTS, known
from leaderboard.names import language_name
from leaderboard.signs import SIGNS

DIGITS = 4
"""Decimals of scores; pages without scripts round twice in the same way, so that both show the same."""

ORIGINS = {Standing.VERIFIED: "verified", Standing.UNVERIFIED: "unverified", Standing.QUOTED: "quoted"}


def script(name: str, data: Any) -> str:
    """A data file. Only ASCII, so that no encoding can matter."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return f"polyprompt.add({json.dumps(name)},{text});\n"


def systems(board: Board) -> dict[str, Any]:
    """All rows of the board, and what their marks mean; tables name rows by their place here."""
    seeds = {run.id: run.manifest.seed for run in board.runs}

    def costs(row: Row) -> dict[str, list[Any]]:
        amounts = {column.key: column.of(row.cost) for column in COSTS}
        return {key: [found.value, found.text, found.small] for key, found in amounts.items() if found}

    return {
        "flags": [[int(flag), *SIGNS[flag]] for flag in Flag],
        "systems": [
            {
                "key": row.id,
                "method": row.method,
                "backbone": row.backbone,
                "prompt": row.prompt,
                "size": row.cost.parameters,
                "origin": ORIGINS[row.standing],
                "note": note(row),
                "runs": [[run, seeds[run]] for run in row.runs if run in seeds],
                "costs": costs(row),
                "replicates": row.id in board.replicates,
            }
            for row in board.rows.values()
        ],
    }


def note(row: Row) -> str:
    """What tells a row from others beside its method, backbone and prompt."""
    parts = [
        f"quoted from {row.source}" if row.standing is Standing.QUOTED else "",
        f"unverified: {row.source}" if row.standing is Standing.UNVERIFIED else "",
        row.apart or f"run {row.runs[0]}" if row.alike and row.runs else "",
    ]
    return ", ".join(part for part in parts if part)


def table(
    table: Table,
    places: Mapping[str, int],
    addresses: Addresses,
    suites: Mapping[str, str],
    scripts: Mapping[str, str],
    file: str,
    spoken: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A table with all of its rows.

    Args:
        table: the numbers.
        places: row id -> its place among `systems`.
        addresses: of the site.
        suites: task -> suite, of the tasks in the table.
        scripts: language -> script.
        file: what a download is called.
        spoken: languages that results can be filtered by; None: those of its columns.
    """
    columns = [_column(column, table, addresses, suites, scripts) for column in table.columns]
    languages = spoken_in(table) if spoken is None else spoken
    odd = np.array([column.parts for column in table.columns])
    return {
        "file": file,
        "columns": columns,
        "costs": [_cost(column.key, column.title, column.note, column.full) for column in known(table.rows)],
        "languages": [[code, language_name(code), scripts.get(code, "")] for code in languages],
        "rows": [places[row.id] for row in table.rows],
        "score": _rounded(table.score),
        "low": _rounded(table.low),
        "high": _rounded(table.high),
        "rank": [
            [*zip(*pair, strict=True)] for pair in zip(table.rank_low.tolist(), table.rank_high.tolist(), strict=True)
        ],
        "group": table.group.tolist(),
        "examples": _common(table.examples),
        "flags": _sparse(table.flags),
        "parts": _sparse(np.where((table.parts != odd) & ~np.isnan(table.score), table.parts, 0)),
        "best": _sparse(table.best.astype(np.int32)),
    }


def spoken_in(table: Table) -> list[str]:
    """The languages that have a column."""
    return list(dict.fromkeys(column.language for column in table.columns if column.kind == "language"))


def _column(
    column: Column, table: Table, addresses: Addresses, suites: Mapping[str, str], scripts: Mapping[str, str]
) -> dict[str, Any]:
    suite = suites.get(column.task, "")
    many = column.kind == "task" and column.parts > 1
    over = {"mean": "row", "gap": "none", "average": "none", "category": "none"}.get(column.kind, "")
    return {
        "key": column.id,
        "title": column.title,
        "full": column.full,
        "kind": column.kind,
        "chance": None if column.chance is None or math.isnan(column.chance) else round(column.chance, 2),
        "anchor": addresses.anchor(suite, column.task, column.language) if suite else "",
        "parts": column.parts,
        "language": column.language if column.kind == "language" else "",
        "script": scripts.get(column.language, "") if column.kind == "language" else "",
        "over": addresses.data_of_task(suite, column.task) if many and suite else over,
    }


def _cost(key: str, title: str, small: str, full: str) -> dict[str, Any]:
    return {"key": key, "title": title, "small": small, "full": full}


def _rounded(numbers: np.ndarray[Any, Any]) -> list[list[float]]:
    return np.round(numbers, DIGITS).tolist()  # type: ignore[no-any-return]


def _common(numbers: np.ndarray[Any, Any]) -> list[list[int]]:
    """One row where all rows are alike or missing, which most tables are; else all."""
    top = numbers.max(axis=0, initial=0)
    alike = bool(np.all((numbers == top) | (numbers == 0)))
    return [top.tolist()] if alike else numbers.tolist()


def _sparse(numbers: np.ndarray[Any, Any]) -> list[list[int]]:
    """[row, column, number] of those that are not zero."""
    return [[int(row), int(column), int(numbers[row, column])] for row, column in np.argwhere(numbers)]


def replicates(found: Replicates) -> dict[str, Any]:
    """Bootstrap replicates of a row; `values` are the signed bytes, key by key, in base64."""
    return {
        "score": [None if math.isnan(score) else round(score, 6) for score in found.score.tolist()],
        "scale": [round(scale, 9) for scale in found.scale.tolist()],
        "resamples": found.values.shape[1],
        "values": base64.b64encode(np.ascontiguousarray(found.values, dtype=np.int8).tobytes()).decode(),
    }


def keys(board: Board) -> list[dict[str, Any]]:
    """What rows are compared in."""
    titles = {suite.name: suite.title for suite in board.suites}
    return [
        {
            "suite": titles.get(key.suite, key.suite),
            "title": key.title,
            "summary": key.column in SUMMARIES or key.column.startswith("category:"),
        }
        for key in board.keys
    ]


SUMMARIES = {"average", "mean", "gap"}
"""Columns that sum up others: in a comparison they are no tests of their own."""


def search(board: Board, addresses: Addresses) -> list[Sequence[str]]:
    """[what, name, more words, page] of everything that has a page."""
    found: list[Sequence[str]] = []
    for suite in board.suites:
        found.append(("suite", suite.title, suite.name, addresses.suite(suite.name)))
        found += [
            ("task", task.title, f"{task.card.name} {suite.title}", addresses.task(suite.name, task.card.name))
            for task in suite.tasks
        ]
    found += [
        ("language", language.name, f"{language.code} {language.script}", addresses.language(language.code))
        for language in board.languages
    ]
    found += [
        (
            "run",
            run.id,
            f"{run.manifest.method} {run.manifest.backbone.name} {run.manifest.prompt}",
            addresses.run(run.id),
        )
        for run in board.runs
    ]
    return found


def errors(task: TaskView) -> dict[str, Any]:
    """Which errors each row makes on a task: row id -> kind, labels, counts."""
    return {
        row: {"kind": found.kind, "labels": found.labels, "counts": found.counts.tolist()}
        for row, found in task.breakdowns.items()
    }
