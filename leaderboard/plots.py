"""Plots as SVG that stands in the page: drawn by Vega-Lite at build time, coloured by the page's style.

Colours are names of CSS variables, so that a plot follows the page into the dark and onto paper, and marks differ in
shape too. Pages have the same numbers in a table beside each plot.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from benchmarks import cache

GIGABYTES = 0.5
"""Of kept plots; those that were not used for longest go."""

_BASE = "https://vega.github.io/vega-datasets/"
"""What Vega puts in front of a relative link."""

_AMOUNT = "format(datum.value, datum.value < 1 ? '~g' : '~s')"
"""A number on an axis: 2k for two thousand, but 0.01 rather than 10m."""

LINES = 4
"""Lines, or kinds of marks, that a plot tells apart."""

_COLOURS = ("var(--gain)", "var(--loss)", "var(--third)", "var(--tick)")

_CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "legend": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "symbolSize": 70,
        "columnPadding": 40,
    },
}


@dataclass(frozen=True)
class Dot:
    """A system in a plot of score against cost.

    Attributes:
        name: what a reader is told on pointing at it. cost, score, low, high: where it stands; None: no interval.
        page: where it leads to, relative to the plot's page. front: no other one is both cheaper and better.
    """

    name: str
    cost: float
    score: float
    low: float | None
    high: float | None
    page: str
    front: bool = False


def front(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """Which points are on the Pareto front: none is at least as cheap and as good, and better in one of both."""
    order = sorted(range(len(costs)), key=lambda at: (costs[at], -scores[at]))
    on, best, tied = [False] * len(costs), float("-inf"), None
    for at in order:
        here = costs[at], scores[at]
        if scores[at] > best or here == tied:
            on[at], best, tied = True, max(best, scores[at]), here
    return on


def pareto(dots: Sequence[Dot], axis: str, score: str) -> Markup:
    """Score against cost, on a logarithmic axis where costs differ by more than a factor of twenty."""
    costs = [dot.cost for dot in dots if dot.cost > 0]
    wide = bool(costs) and max(costs) / min(costs) > 20 and len(costs) == len(dots)
    x = {
        "field": "cost",
        "type": "quantitative",
        "title": axis,
        "scale": {"type": "log"} if wide else {"zero": False, "nice": True},
        "axis": {"labelExpr": _AMOUNT, "grid": False, "tickCount": 6},
    }
    y = {"field": "score", "type": "quantitative", "title": score, "scale": {"zero": False}}
    values = [
        {
            "name": dot.name,
            "cost": dot.cost,
            "score": dot.score,
            "low": dot.low,
            "high": dot.high,
            "page": dot.page,
            "place": "on the front" if dot.front else "behind it",
        }
        for dot in dots
    ]
    place = {"field": "place", "type": "nominal", "title": None}
    scale = {"domain": ["on the front", "behind it"]}
    return _drawn(
        {
            "width": 560,
            "height": 300,
            "data": {"values": values},
            "layer": [
                {
                    "transform": [{"filter": "datum.low !== null"}],
                    "mark": {"type": "rule", "color": "var(--tick)", "opacity": 0.45, "aria": False},
                    "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}},
                },
                {
                    "transform": [{"filter": "datum.place === 'on the front'"}],
                    "mark": {
                        "type": "line",
                        "interpolate": "step-after",
                        "color": "var(--gain)",
                        "strokeWidth": 1.5,
                        "aria": False,
                    },
                    "encoding": {"x": x, "y": y, "order": {"field": "cost"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "opacity": 1, "size": 70},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "href": {"field": "page"},
                        "tooltip": {"field": "name"},
                        "description": {"field": "name"},
                        "shape": place | {"scale": scale | {"range": ["diamond", "circle"]}},
                        "color": place | {"scale": scale | {"range": ["var(--gain)", "var(--tick)"]}},
                        "order": {"field": "place", "sort": "ascending"},
                    },
                },
            ],
        }
    )


def gaps(names: Sequence[str], trained: Sequence[float], others: Sequence[float], labels: tuple[str, str]) -> Markup:
    """A line a system from its mean over the other languages to the score in the language that it was trained in."""
    values = [
        {"name": name, "score": score, "where": where}
        for name, *scores in zip(names, trained, others, strict=True)
        for where, score in zip(labels, scores, strict=True)
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": 210, "ticks": False, "domain": False},
    }
    x = {"field": "score", "type": "quantitative", "title": "points", "scale": {"zero": False, "nice": True}}
    where = {"field": "where", "type": "nominal", "title": None}
    return _drawn(
        {
            "width": 420,
            "height": {"step": 26},
            "padding": {"left": 45, "right": 5, "top": 5, "bottom": 5},
            "data": {"values": values},
            "layer": [
                {
                    "mark": {"type": "line", "color": "var(--tick)", "strokeWidth": 2, "aria": False},
                    "encoding": {"y": y, "x": x, "detail": {"field": "name"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "opacity": 1, "size": 80},
                    "encoding": {
                        "y": y,
                        "x": x,
                        "shape": where | {"scale": {"domain": list(labels), "range": ["diamond", "circle"]}},
                        "color": where | {"scale": {"domain": list(labels), "range": ["var(--loss)", "var(--gain)"]}},
                    },
                },
            ],
        }
    )


def curves(
    points: Sequence[tuple[str, float, float, float | None, float | None]], axis: str, score: str, *, log: bool
) -> Markup:
    """Lines of score by a setting: (line, setting, score, low, high) a point."""
    values = [{"line": line, "x": x, "score": y, "low": low, "high": high} for line, x, y, low, high in points]
    ticks = sorted({point[1] for point in points})
    x = {
        "field": "x",
        "type": "quantitative",
        "title": axis,
        "axis": {"values": ticks, "grid": False, "format": "~g"},
        "scale": {"type": "log", "base": 2} if log else {"zero": False},
    }
    y = {"field": "score", "type": "quantitative", "title": score, "scale": {"zero": False}}
    names = list(dict.fromkeys(point[0] for point in points))
    domain = {"domain": names}  # said of colours and of shapes, so that both have one legend
    line = {
        "field": "line",
        "type": "nominal",
        "title": None,
        "scale": domain | {"range": list(_COLOURS)},
    }
    legend: dict[str, Any] = {"legend": {"symbolOpacity": 1} if len(names) > 1 else None}
    return _drawn(
        {
            "width": 460,
            "height": 220,
            "data": {"values": values},
            "layer": [
                {
                    "transform": [{"filter": "datum.low !== null"}],
                    "mark": {"type": "rule", "opacity": 0.5, "aria": False},
                    "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": line | legend},
                },
                {"mark": {"type": "line", "aria": False}, "encoding": {"x": x, "y": y, "color": line | legend}},
                {
                    "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": line | legend,
                        "shape": {"field": "line", "type": "nominal", "scale": domain, "title": None, **legend},
                    },
                },
            ],
        }
    )


def loss(points: Sequence[tuple[int, float, float | None]]) -> Markup:
    """The smoothed loss of a training, and the share of right answers where it was measured, over the steps."""
    values = [
        {"step": step, "value": value, "what": what}
        for step, lost, right in points
        for what, value in (("loss", lost), ("right answers, share", right))
        if value is not None
    ]
    what = {"field": "what", "type": "nominal", "title": None}
    names = list(dict.fromkeys(value["what"] for value in values))
    return _drawn(
        {
            "width": 420,
            "height": 120,
            "data": {"values": values},
            "mark": {"type": "line", "strokeWidth": 1.75, "aria": False},
            "encoding": {
                "x": {
                    "field": "step",
                    "type": "quantitative",
                    "title": "step",
                    "axis": {"grid": False, "tickCount": 5},
                },
                "y": {"field": "value", "type": "quantitative", "title": None},
                "row": {
                    "field": "what",
                    "type": "nominal",
                    "title": None,
                    "sort": names,
                    "header": {
                        "labelAngle": 0,
                        "labelAlign": "left",
                        "labelAnchor": "start",
                        "labelOrient": "top",
                        "labelColor": "var(--soft)",
                        "labelFontSize": 12,
                    },
                },
                "color": what | {"scale": {"domain": names, "range": ["var(--loss)", "var(--gain)"]}, "legend": None},
            },
            "resolve": {"scale": {"y": "independent"}},
        }
    )


def bars(shares: Sequence[tuple[str, float]], axis: str) -> Markup:
    """A bar for each name, as long as its share."""
    values = [{"name": name, "share": share} for name, share in shares]
    # Room by the number of letters: fonts of browsers are wider than the one that the drawing is laid out with.
    names = {"ticks": False, "domain": False, "minExtent": 7 * max((len(name) for name, _ in shares), default=0)}
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": names}
    x = {"field": "share", "type": "quantitative", "title": axis, "axis": {"format": "%", "tickCount": 5}}
    mark = {"type": "bar", "color": "var(--gain)", "height": 14}
    return _drawn(
        {"width": 420, "height": {"step": 24}, "data": {"values": values}, "mark": mark, "encoding": {"x": x, "y": y}}
    )


def parallel(
    spots: Sequence[tuple[int, str, float, float]], ends: Mapping[str, tuple[str, str]], strong: int
) -> Markup:
    """Parallel coordinates: a line for each trial over an axis for each setting.

    Args:
        spots: (trial, setting, place on the axis from 0 to 1, score); the best trials first.
        ends: setting -> what its axis begins and ends with. strong: so many trials are drawn strong.
    """
    best = set(list(dict.fromkeys(trial for trial, *_ in spots))[:strong])
    axis = {name: number for number, name in enumerate(ends)}
    values = [
        {
            "trial": trial,
            "setting": name,
            "axis": axis[name],
            "place": place,
            "of": "the best" if trial in best else "others",
        }
        for trial, name, place, _ in spots
    ]
    labels = [
        {"setting": name, "place": place, "end": end}
        for name, both in ends.items()
        for place, end in zip((-0.07, 1.07), both, strict=True)
    ]
    x = {
        "field": "setting", "type": "nominal", "sort": list(ends), "title": None,
        "scale": {"type": "point", "padding": 0.4},
        "axis": {"labelAngle": -20, "grid": True, "domain": False, "ticks": False, "labelPadding": 18},
    }  # fmt: skip
    y = {"field": "place", "type": "quantitative", "title": None, "axis": None, "scale": {"domain": [-0.1, 1.1]}}
    domain = ["the best", "others"]

    def scaled(values: list[str] | list[float]) -> dict[str, Any]:
        scale = {"domain": domain, "range": values}
        return {"field": "of", "type": "nominal", "title": None, "scale": scale}

    line = {
        "mark": {"type": "line", "aria": False},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "trial"},
            "order": {"field": "axis", "type": "quantitative"},
            "color": scaled(["var(--gain)", "var(--tick)"]),
            "opacity": scaled([1.0, 0.35]),
            "strokeWidth": scaled([2.0, 1.0]),
        },
    }
    text = {
        "data": {"values": labels},
        "mark": {"type": "text", "color": "var(--soft)", "fontSize": 11, "aria": False},
        "encoding": {"x": x, "y": y, "text": {"field": "end"}},
    }
    size = {"width": 100 * len(ends), "height": 260, "padding": {"left": 45, "right": 5, "top": 5, "bottom": 5}}
    return _drawn(size | {"data": {"values": values}, "layer": [line, text]})


def strips(dots: Sequence[tuple[str, float]], order: Sequence[str], score: str) -> Markup:
    """Scores for each choice: a dot for each trial, and a stroke at their mean."""
    values = [{"choice": choice, "score": value} for choice, value in dots]
    y = {"field": "choice", "type": "nominal", "sort": list(order), "title": None, "axis": {"ticks": False}}
    x = {"field": "score", "type": "quantitative", "title": score, "scale": {"zero": False, "nice": True}}
    dot = {"type": "point", "filled": True, "size": 45, "opacity": 0.5, "color": "var(--tick)"}
    mean = {"mark": {"type": "tick", "color": "var(--gain)", "thickness": 3, "aria": False},
            "encoding": {"y": y, "x": x | {"aggregate": "mean"}}}  # fmt: skip
    layers = [{"mark": dot, "encoding": {"y": y, "x": x}}, mean]
    return _drawn({"width": 420, "height": {"step": 30}, "data": {"values": values}, "layer": layers})


@dataclass(frozen=True)
class Shift:
    """What changing a setting does to a score: (setting, value, line) and the difference with its interval, points."""

    setting: str
    value: str
    line: str
    difference: float
    low: float
    high: float


def shifts(points: Sequence[Shift], lines: Sequence[str]) -> Markup:
    """A panel a setting, a row a value, a mark a line (at most `LINES`): how far from the base, and its interval."""
    panels = []
    settings = list(dict.fromkeys(point.setting for point in points))
    ends = [end for point in points for end in (point.low, point.high)]
    domain = {"domain": list(lines)}
    line = {"field": "line", "type": "nominal", "title": None, "legend": {"symbolOpacity": 1}}
    color, shape = line | {"scale": domain | {"range": list(_COLOURS)}}, line | {"scale": domain}
    for setting in settings:
        of = [point for point in points if point.setting == setting]
        values = [
            {"value": one.value, "line": one.line, "x": one.difference, "low": one.low, "high": one.high} for one in of
        ]
        order = list(dict.fromkeys(one.value for one in of))
        y = {"field": "value", "type": "nominal", "sort": order, "title": None, "axis": {"ticks": False}}
        beside = {"yOffset": {"field": "line", "sort": list(lines)}}
        last = setting == settings[-1]
        x = {
            "field": "x",
            "type": "quantitative",
            "title": "difference to the base, points" if last else None,
            "scale": {"domain": [min(ends), max(ends)], "nice": True},
            "axis": {"labels": last, "ticks": last},
        }
        panels.append(
            {
                "title": {"text": setting, "anchor": "start", "frame": "group", "color": "var(--ink)", "fontSize": 12},
                "width": 420,
                "height": {"step": 16},  # of a mark, not of a value
                "data": {"values": values},
                "layer": [
                    {
                        "data": {"values": [{}]},
                        "mark": {"type": "rule", "color": "var(--tick)", "strokeDash": [3, 3], "aria": False},
                        "encoding": {"x": {"datum": 0, "type": "quantitative"}},
                    },
                    {
                        "mark": {"type": "rule", "opacity": 0.6, "aria": False},
                        "encoding": {
                            "y": y,
                            **beside,
                            "x": x | {"field": "low"},
                            "x2": {"field": "high"},
                            "color": color,
                        },
                    },
                    {
                        "mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
                        "encoding": {"y": y, **beside, "x": x, "color": color, "shape": shape},
                    },
                ],
            }
        )
    shared = {"scale": {"color": "shared", "shape": "shared"}}
    return _drawn({"vconcat": panels, "spacing": 14, "padding": 10, "resolve": shared})


def alone(svg: Markup) -> str:
    """A plot as a file of its own: it stands on white, and has the colours that pages have in the light."""
    style = Path(__file__).with_name("templates").joinpath("style.css").read_text(encoding="utf-8")
    text = str(svg)
    for name, light in re.findall(r"--([\w-]+): light-dark\((#\w+),", style):
        text = text.replace(f"var(--{name})", light)
    return text.replace('class="plot"', 'xmlns="http://www.w3.org/2000/svg" style="background: white"', 1) + "\n"


def _drawn(spec: dict[str, Any]) -> Markup:
    return Markup(_svg(json.dumps(spec | {"config": _CONFIG}, sort_keys=True)))


@functools.cache
def _svg(spec: str) -> str:
    """The SVG of a plot, kept for the next build: drawing one takes far longer than reading it."""
    name = cache.key("plot", spec, version("vl-convert-python"), cache.source_hash(Path(__file__)))
    return cache.through(name, str, lambda: _new_svg(spec), "plots", GIGABYTES)


def _new_svg(spec: str) -> str:
    """The SVG, its links relative again and its size left to the page."""
    svg = vl_convert.vegalite_to_svg(json.loads(spec))
    svg = svg.replace(f'xlink:href="{_BASE}', 'tabindex="-1" href="')  # by keyboard the table beside it is read
    head = re.match(r'<svg [^>]*?width="(\d+)" height="(\d+)"[^>]*>', svg)
    assert head, "Vega writes the size of a plot"
    size = f'viewBox="0 0 {head[1]} {head[2]}" width="{head[1]}" height="{head[2]}"'
    return f'<svg class="plot" {size} aria-hidden="true" focusable="false">{svg[head.end() :]}'
