"""How a figure looks on a page without scripts; what templates/js/cells.js draws when they run.

In Python and not in a template: a large board has hundreds of thousands of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup, escape

from leaderboard.board import Column, Figure, RunScore
from leaderboard.names import points
from leaderboard.signs import signs

_STAR = '<abbr class="star" title="best of the ranked scores in this column, to the digit shown">★</abbr>'


def missing(what: str) -> Markup:
    """A dash, with words for who does not see it."""
    return Markup(
        f'<span class="missing"><span aria-hidden="true">–</span><span class="sr">{escape(what)}</span></span>'
    )


def between(low: float, high: float) -> str:
    """An interval."""
    return f"{points(low)} to {points(high)}" if low < 0 else f"{points(low)}–{points(high)}"


def figure(found: Figure | None, column: Column, href: str, best: bool) -> Markup:
    """A score with its marks, its interval and its strip.

    Args:
        found: None: missing. column: that it stands in. href: where it leads to; "" nowhere. best: of its column.
    """
    if found is None:
        return missing("not scored")
    text = points(round(found.score, 4))  # as data files have it
    number = f'<a href="{escape(href)}">{text}</a>' if href else f"<span>{text}</span>"
    parts = f'<small class="range">{found.parts} of {column.parts}</small>' if found.parts != column.parts else ""
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f'<small class="range">{between(round(found.low, 4), round(found.high, 4))}</small>'
    drawn = "" if column.kind == "gap" else strip(found.score, found.low, found.high, column.chance)
    return Markup(
        f'<div class="figure{" best" if best else ""}"><span class="number">{_STAR if best else ""}{number}'
        f"{marks(int(found.flags))}</span>{parts if found.parts else ''}"
        f"{interval}{drawn}</div>"
    )


def marks(flags: int) -> Markup:
    """The signs beside a figure."""
    found = [f'<abbr title="{escape(meaning)}">{sign}</abbr>' for sign, meaning in signs(flags)] if flags else []
    return Markup(f'<span class="signs">{"".join(found)}</span>' if found else "")


def strip(score: float, low: float | None, high: float | None, chance: float | None) -> Markup:
    """A strip from 0 to 100: a tick at chance, filled from there to the score, a line for the interval."""
    if chance is None or chance != chance or score != score:
        return Markup("")
    start, end = sorted((_within(score), _within(chance)))
    line = ""
    if low is not None and high is not None:
        place, width = _place(_within(low)), _place(_within(high) - _within(low))
        line = f'<rect class="interval" x="{place}" y="4.4" width="{width}" height="1.2"/>'
    side = "gain" if score >= chance else "loss"
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        '<rect class="track" x="0" y="4.5" width="100" height="1"/>'
        f'<rect class="{side}" x="{_place(start)}" y="2" width="{_place(end - start)}" height="6"/>'
        f'{line}<rect class="tick" x="{_place(_within(chance - 0.6))}" y="0" width="1.2" height="10"/></svg>'
    )


def matrix(scores: list[RunScore], anchors: Mapping[str, str]) -> Markup:
    """Main scores of a task, one an item of a list. anchors: by language."""
    items = [
        f'<li id="{anchors[score.language]}"><span>{escape(score.language)}</span> {points(score.score)}'
        + (
            f" <small>{between(score.low, score.high)}</small>"
            if score.low is not None and score.high is not None
            else ""
        )
        + "</li>\n"
        for score in scores
    ]
    return Markup("".join(items))


def _within(number: float) -> float:
    return min(max(number, 0.0), 100.0)


def _place(number: float) -> str:
    return f"{round(number, 1):g}"
