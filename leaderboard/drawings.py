"""Which plots a page has: what is drawn of a board, and when there is too little to draw."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from leaderboard import plots
from leaderboard.board import UNRANKED, Board, Flag, Row, RunView, Standing, Table, TaskView
from leaderboard.costs import COSTS
from leaderboard.names import language_name, words
from leaderboard.runs import INCIDENTAL

MOST_DOTS = 300
"""Systems in a plot of cost: those on the front and the best others."""

MOST_GAPS = 20
"""Systems in a plot of the gap between languages."""


@dataclass(frozen=True)
class Plot:
    """A plot and a sentence on it; `front` names the rows on a Pareto front, cheapest first."""

    id: str
    title: str
    text: str
    svg: Markup
    front: tuple[Row, ...] = ()


def name_of(row: Row) -> str:
    """A row in one line."""
    return " · ".join(part for part in (row.method, row.backbone, row.prompt) if part)


def pareto_plots(table: Table, page: Callable[[Row], str]) -> list[Plot]:
    """The first column of a suite's table against each cost that at least two of its comparable systems know."""
    found = []
    comparable, said = _comparable(table)
    for cost in COSTS:
        dots = []
        for at in comparable:
            row, figure = table.rows[at], table.figure(at, 0)
            amount = cost.of(row.cost)
            if amount is not None and figure is not None:
                dot = plots.Dot(name_of(row), amount.value, figure.score, figure.low, figure.high, page(row))
                dots.append((row, dot))
        if len({dot.cost for _, dot in dots}) < 2:
            continue
        on = plots.front([dot.cost for _, dot in dots], [dot.score for _, dot in dots])
        marked = [(row, replace(dot, front=one)) for (row, dot), one in zip(dots, on, strict=True)]
        shown = sorted((dot for _, dot in marked), key=lambda dot: (not dot.front, -dot.score))[:MOST_DOTS]
        best = sorted(((dot.cost, row) for row, dot in marked if dot.front), key=lambda pair: pair[0])
        text = f"{said}{len(best)} of {len(dots)} systems are on the front: no other is both cheaper and better."
        if len(shown) < len(dots):
            text += f" Drawn are these and the best others, {MOST_DOTS} in all."
        svg = plots.pareto(shown, cost.axis, table.columns[0].title)
        found.append(
            Plot(
                cost.key,
                f"{cost.title}{' ' + cost.note if cost.title == 'Latency' else ''}",
                text,
                svg,
                tuple(row for _, row in best),
            )
        )
    return found


def _comparable(table: Table) -> tuple[list[int], str]:
    """Rows whose first figures may stand in one plot, and a sentence where they are not whole averages.

    The ranked ones; where fewer than two are ranked, the most rows that lack the same tasks.
    """
    ranked, alike = [], dict[tuple[int, ...], list[int]]()
    for at, row in enumerate(table.rows):
        figure = table.figure(at, 0)
        if figure is None or row.standing is Standing.QUOTED:
            continue
        if figure.rank is not None:
            ranked.append(at)
        elif figure.flags & UNRANKED == Flag.PARTIAL and not (table.flags[at, 1:] & UNRANKED).any():
            has = tuple(number for number, score in enumerate(table.score[at]) if math.isfinite(score))
            alike.setdefault(has, []).append(at)
    most = max(alike.values(), key=len, default=[])
    if len(ranked) > 1 or len(most) < 2:
        return ranked, ""
    parts, whole = int(table.parts[most[0], 0]), table.columns[0].parts
    return most, f"No two systems have all tasks. These have the same {parts} of {whole}, over which the average is. "


def gap_plot(task: TaskView) -> Plot | None:
    """What the best systems lose between the language of training and the others; None in one language."""
    table = task.by_language
    trained = task.card.train_language
    at = next((n for n, c in enumerate(table.columns) if c.kind == "language" and c.language == trained), None)
    gap = next((n for n, column in enumerate(table.columns) if column.kind == "gap"), None)
    if at is None or gap is None or trained is None:
        return None
    rows = []
    for number, row in enumerate(table.rows):
        score, lost = float(table.score[number, at]), float(table.score[number, gap])
        if math.isfinite(score) and math.isfinite(lost):
            rows.append((row, score, score - lost))
    rows = rows[:MOST_GAPS]
    if not rows:
        return None
    names = [name_of(row) for row, *_ in rows]
    names = [
        name if names.count(name) == 1 else f"{name} ({row.id})" for name, (row, *_) in zip(names, rows, strict=True)
    ]
    labels = (language_name(trained), "mean of the other languages")
    svg = plots.gaps(names, [row[1] for row in rows], [row[2] for row in rows], labels)
    others = sum(column.kind == "language" for column in table.columns) - 1
    text = (
        f"From the mean over {others} other languages to {language_name(trained)}, in which the task is trained. "
        "A short line loses little."
    )
    if len(rows) == MOST_GAPS:
        text += f" The first {MOST_GAPS} systems."
    return Plot("gap", "Gap between languages", text, svg)


SETTINGS = {
    "prompt_length": ("length", "Prompt length", "slots in each prompted layer", True),
    "prompt_layers": ("depth", "Prompt depth", "layers with a prompt, from the top", False),
}


def setting_plots(board: Board, task: TaskView) -> list[Plot]:
    """Score by prompt length and by depth, for runs that differ in nothing else: what a search or a sweep leaves."""
    runs = {run.id: run for run in board.runs}
    table = task.by_language
    configs: list[tuple[int, RunView, dict[str, Any]]] = []
    for number, row in enumerate(table.rows):
        run = runs.get(row.runs[0]) if row.runs else None
        if run and math.isfinite(table.score[number, 0]):
            configs.append((number, run, _settings(run.config)))
    found = []
    for setting, (key, title, axis, log) in SETTINGS.items():
        lines: dict[str, dict[float, int]] = {}
        for number, run, settings in configs:
            place = _amount(setting, settings.get(setting), run)
            if place is not None:
                rest = json.dumps({k: v for k, v in settings.items() if k != setting}, sort_keys=True, default=str)
                lines.setdefault(rest, {}).setdefault(place, number)
        long = [line for line in lines.values() if len(line) >= 3][:4]
        if not long:
            continue
        points = []
        for line in long:
            first = table.rows[next(iter(line.values()))]
            label = f"{first.method} · {first.backbone}" if len(long) > 1 else "all"
            for place, number in sorted(line.items()):
                low, high = float(table.low[number, 0]), float(table.high[number, 0])
                ends = (low, high) if math.isfinite(low) else (None, None)
                points.append((label, place, float(table.score[number, 0]), *ends))
        text = "Runs that differ in nothing else, with their 95 % intervals."
        score = f"{words(table.columns[0].metric)}, {table.columns[0].title.lower()}"
        found.append(Plot(key, title, text, plots.curves(points, axis, score, log=log)))
    return found


def curve_plot(run: RunView) -> Markup | None:
    """The loss of a training over its steps; None where it was not kept."""
    points = [point for point in run.curve if math.isfinite(point.loss)]
    return (
        plots.loss([(point.step, point.loss, point.right) for point in _thinned(points)]) if len(points) > 1 else None
    )


def _thinned(points: Sequence[Any], most: int = 200) -> Sequence[Any]:
    step = max(1, math.ceil(len(points) / most))
    return [*points[::step], *([points[-1]] if (len(points) - 1) % step else [])]


@lru_cache(maxsize=10_000)
def _settings(config: str) -> dict[str, Any]:
    try:
        return {key: value for key, value in tomllib.loads(config).items() if key not in INCIDENTAL}
    except tomllib.TOMLDecodeError:
        return {}


def _amount(setting: str, value: object, run: RunView) -> float | None:
    """The number on the axis; None for a choice that is no number, such as single layers."""
    if setting == "prompt_length":
        return float(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
    if value == "all":
        return float(run.manifest.backbone.layers)
    kind, _, many = str(value).partition(":")
    return float(many) if kind == "top" and many.isdigit() else None
