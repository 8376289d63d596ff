"""What each setting is worth: `python -m leaderboard.ablation RUNS... --out FILE.svg`, of runs that differ in little.

The base is the configuration from which the others differ in the fewest settings. Each other one that differs in a
single setting, or in one and the rates that go with it, is compared with the base on every task that both have, by
paired replicates of the board.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate, tabulate_formats

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from leaderboard import plots
from leaderboard.board import Board, Replicates
from leaderboard.ranking import Comparison, compare
from leaderboard.settings import compared, differing, shown, worded
from leaderboard.tables import make_board

BESIDE = {"learning_rate", "head_learning_rate"}
"""Settings that may change along with another one: rates are chosen for what they train."""


@dataclass(frozen=True)
class Change:
    """A configuration beside the base, on one task.

    Attributes:
        setting, value: what differs, and how, as text; rates that changed with it are part of the value.
        before: the base's value.
        task: a column of a suite, as "glue.sst2"; "mean": over all tasks that both have.
        score: of the changed one. comparison: its score less that of the base.
        seeds: of the changed one.
    """

    setting: str
    value: str
    before: str
    task: str
    score: float
    comparison: Comparison
    seeds: int


def changes(board: Board) -> list[Change]:
    """All of a board, by setting and value.

    Raises:
        PolypromptError: fewer than two configurations, or none that differs from the base in one setting.
    """
    runs, columns = {run.id: run for run in board.runs}, _columns(board)
    by_settings: dict[str, dict[str, str]] = {}
    seeds: dict[str, int] = {}
    for row in board.rows.values():
        if not row.runs or row.id not in board.replicates:
            continue
        text = _text(runs[row.runs[0]].config)
        scores = board.replicates[row.id].score
        for task, number in columns.items():
            if np.isfinite(scores[number]):
                by_settings.setdefault(text, {})[task] = row.id
        seeds[row.id] = len(row.seeds)
    if len(by_settings) < 2:
        raise PolypromptError("nothing to compare: name runs of at least two configurations on the same tasks")
    parsed = {text: json.loads(text) for text in by_settings}
    base = min(parsed, key=lambda text: (sum(len(differing(parsed[text], other)) for other in parsed.values()), text))
    found = []
    for text, tasks in by_settings.items():
        changed = differing(parsed[base], parsed[text])
        setting = sorted(changed - BESIDE) or sorted(changed)
        if len(setting) != 1:
            continue
        rates = [f"{shown(name)} {worded(parsed[text].get(name))}" for name in sorted(changed - {*setting})]
        value = ", ".join([worded(parsed[text].get(setting[0])), *rates])
        before = worded(parsed[base].get(setting[0]))
        both = [task for task in tasks if task in by_settings[base]]
        pairs = {
            task: tuple(_scored(board.replicates[of[task]], columns[task]) for of in (tasks, by_settings[base]))
            for task in both
        }
        if len(both) > 1:
            pairs["mean"] = tuple(_mean(parts) for parts in zip(*pairs.values(), strict=True))
        for task, (ours, theirs) in pairs.items():
            result = compare(ours.score, theirs.score, ours.values, theirs.values)
            count = seeds[tasks[both[0] if task == "mean" else task]]
            found.append(Change(shown(setting[0]), value, before, task, ours.score, result, count))
    if not found:
        raise PolypromptError("no two configurations differ in one setting alone (rates may go with it)")
    return sorted(found, key=lambda one: (one.setting, _order(one.value), one.task == "mean", one.task))


class _Scored(NamedTuple):
    """A score in points, and its replicates `[resamples]`."""

    score: float
    values: NDArray[np.float64]


def _columns(board: Board) -> dict[str, int]:
    """Tasks, as "glue.sst2", and the numbers of their keys in the tables of their suites."""
    return {
        f"{key.suite}.{key.column}": number
        for number, key in enumerate(board.keys)
        if key.table == key.suite and key.column != "average" and not key.column.startswith("category:")
    }


def _scored(row: Replicates, number: int) -> _Scored:
    score = float(row.score[number])
    return _Scored(score, score + row.scale[number] * row.values[number].astype(np.float64))


def _mean(parts: Sequence[_Scored]) -> _Scored:
    """The mean over tasks, replicate by replicate."""
    return _Scored(float(np.mean([part.score for part in parts])), np.mean([part.values for part in parts], axis=0))


def _text(config: str) -> str:
    try:
        settings = tomllib.loads(config)
    except tomllib.TOMLDecodeError as error:
        raise PolypromptError(f"config.toml of a run cannot be read ({error}); run it again") from None
    return json.dumps(compared(settings), sort_keys=True, default=str)


def _order(value: str) -> tuple[str, float]:
    """Numbers by size; "top:2" by its number among those that begin so."""
    kind, _, number = value.split(",")[0].rpartition(":")
    try:
        return kind, float(number)
    except ValueError:
        return value, 0.0


def as_table(found: Sequence[Change], style: str = "github") -> str:
    """A row a change, a column a task: the difference in points with its 95 % interval.

    Args:
        found: see `changes`. style: of tabulate.
    """
    tasks = _tasks(found)
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for one in found:
        result = one.comparison
        text = f"{result.difference:+.1f} [{result.low:+.1f}, {result.high:+.1f}]"
        rows.setdefault((one.setting, one.before, one.value), {})[one.task] = text
    lines = [[*head, *(cells.get(task, "") for task in tasks)] for head, cells in rows.items()]
    return str(tabulate(lines, ["setting", "base", "changed to", *tasks], style, disable_numparse=True))


def drawing(found: Sequence[Change]) -> str:
    """A panel a setting: difference to the base in points, a mark a task, with its interval; SVG that stands alone."""
    tasks = _tasks(found)
    drawn = tasks if len(tasks) <= plots.LINES else tasks[-1:]
    points = [
        plots.Shift(
            f"{one.setting}, base {one.before}", one.value, one.task, result.difference, result.low, result.high
        )
        for one in found
        if one.task in drawn
        for result in [one.comparison]
    ]
    return plots.alone(plots.shifts(points, drawn))


def _tasks(found: Iterable[Change]) -> list[str]:
    names = dict.fromkeys(one.task for one in found)
    return [*(name for name in names if name != "mean"), *(["mean"] if "mean" in names else [])]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.ablation", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw them, as SVG")
    parser.add_argument("--format", default="github", choices=sorted(tabulate_formats), metavar="STYLE",
                        help="of the table: tabulate's github (default), simple, latex and others")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    board = make_board(options.runs)
    for complaint in board.complaints:
        print(f"warning: {complaint}", file=sys.stderr)
    found = changes(board)
    if options.out:
        write_atomic(options.out, drawing(found).encode())
    print(json.dumps([asdict(one) for one in found], indent=2) if options.json else as_table(found, options.format))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
