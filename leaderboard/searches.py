"""What searches found, as a page shows it: which settings matter, where good trials lie, what depth and length do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from benchmarks.errors import PolypromptError
from benchmarks.results import read_model
from benchmarks.searches import SearchRecord, Setting, TrialRecord
from leaderboard import plots

FILE = "search.json"

SHOWN = 10
"""Trials in the table of the best."""

MOST = 400
"""Trials that are drawn: the best."""

Spot = tuple[int, str, float, float]
"""Trial, setting, its place on the axis from 0 to 1, the trial's score."""


@dataclass(frozen=True)
class Drawing:
    """A plot and a sentence on it."""

    title: str
    text: str
    svg: Markup


@dataclass(frozen=True)
class SearchView:
    """A search as the page shows it.

    Attributes:
        record: all of it. best: the best complete trials, the best first. counts: state of trials -> how many.
        runs: of the winner, name -> id of its page, "" where the board does not have it. drawings: its plots.
    """

    record: SearchRecord
    best: tuple[TrialRecord, ...]
    counts: Mapping[str, int]
    runs: Mapping[str, str]
    drawings: tuple[Drawing, ...]

    @property
    def title(self) -> str:
        """Tasks and encoder."""
        return f"{', '.join(self.record.tasks)} · {Path(self.record.backbone).name}"


def read_searches(paths: Iterable[Path], complain: Callable[[str], None]) -> list[SearchRecord]:
    """The searches in or below some folders, by name; what cannot be read is left out with a sentence."""
    files = {file.resolve() for path in paths if path.is_dir() for file in path.glob(f"**/search/*/{FILE}")}
    found: dict[str, SearchRecord] = {}
    for file in sorted(files):
        try:
            record = read_model(file, SearchRecord)
        except PolypromptError as error:
            complain(f"left out: {error}")
            continue
        if record.best is not None:
            found.setdefault(record.study, record)
    return list(found.values())


def search_view(record: SearchRecord, runs: Iterable[str]) -> SearchView:
    """One search.

    Args:
        record: with a complete trial. runs: ids of those that have a page.
    """
    complete = sorted(
        (trial for trial in record.trials if trial.state == "complete" and trial.score is not None),
        key=lambda trial: (-(trial.score or 0.0), trial.number),
    )
    counts: dict[str, int] = {}
    for trial in record.trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    known = set(runs)
    names = record.winner.runs if record.winner else []
    drawings = [
        drawing
        for drawing in (
            _importance(record),
            _coordinates(record, complete[:MOST]),
            _lengths(record, complete),
            _depths(record, complete),
        )
        if drawing is not None
    ]
    linked = {name: name if name in known else "" for name in names}
    return SearchView(record, tuple(complete[:SHOWN]), counts, linked, tuple(drawings))


def _importance(record: SearchRecord) -> Drawing | None:
    if not record.importance:
        return None
    order = sorted(record.importance.items(), key=lambda item: -item[1])
    number = record.importance_after
    unit = "fold" if record.folds else "epoch"
    which = "of complete trials" if number is None else f"that trials had after {unit} {number}"
    text = f"{order[0][0]} explains {100 * order[0][1]:.0f} % of how the scores {which} differ (fANOVA)."
    return Drawing("Which settings matter", text, plots.bars(order, "share of the variance"))


def _coordinates(record: SearchRecord, trials: Sequence[TrialRecord]) -> Drawing | None:
    axes = [name for name, part in record.space.items() if isinstance(part, dict) or len(part) > 1]
    if len(axes) < 2 or len(trials) < 3:
        return None
    spots: list[Spot] = []
    for trial in trials:
        for name in axes:
            value = trial.settings.get(name)
            place = None if value is None else _place(record.space[name], value)
            if place is not None and trial.score is not None:
                spots.append((trial.number, name, place, trial.score))
    ends = {name: _ends(record.space[name]) for name in axes}
    text = "A line is a trial; the best tenth is drawn strong. Each axis goes from the lower end to the upper one."
    return Drawing("Where good trials lie", text, plots.parallel(spots, ends, max(1, math.ceil(len(trials) / 10))))


def _lengths(record: SearchRecord, trials: Sequence[TrialRecord]) -> Drawing | None:
    """The best and the mean score of lengths between two powers of two."""
    by_length: dict[int, list[float]] = {}
    for trial in trials:
        length = trial.settings.get("prompt-length")
        if isinstance(length, int) and length > 0 and trial.score is not None:
            by_length.setdefault(2 ** int(math.log2(length)), []).append(trial.score)
    if len(by_length) < 2:
        return None
    points = [
        (line, float(length), of(scores), None, None)
        for line, of in (("best", max), ("mean", lambda scores: sum(scores) / len(scores)))
        for length, scores in sorted(by_length.items())
    ]
    text = "Of the trials with at least so many slots and fewer than twice as many."
    return Drawing("Length of the prompt", text, plots.curves(points, "slots a layer, from", record.metric, log=True))


def _depths(record: SearchRecord, trials: Sequence[TrialRecord]) -> Drawing | None:
    choices = record.space.get("prompt-layers")
    if not isinstance(choices, list) or len(choices) < 2:
        return None
    dots = [
        (str(trial.settings["prompt-layers"]), trial.score)
        for trial in trials
        if "prompt-layers" in trial.settings and trial.score is not None
    ]
    if len({layers for layers, _ in dots}) < 2:
        return None
    text = "A dot is a trial, a stroke the mean."
    return Drawing("Layers of the prompt", text, plots.strips(dots, [str(choice) for choice in choices], record.metric))


def _place(part: Mapping[str, bool | int | float] | Sequence[Setting], value: Setting) -> float | None:
    """Where a value lies on its axis, from 0 to 1."""
    if isinstance(part, Mapping):
        if isinstance(value, str):
            return None
        low, high, at = float(part["low"]), float(part["high"]), float(value)
        if part.get("log") and low > 0 and at > 0:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5
    # True and 1 are equal, but not the same setting
    places = [
        n for n, choice in enumerate(part) if choice == value and isinstance(choice, bool) == isinstance(value, bool)
    ]
    return places[0] / max(1, len(part) - 1) if places else None


def _ends(part: Mapping[str, bool | int | float] | Sequence[Setting]) -> tuple[str, str]:
    low, high = (part["low"], part["high"]) if isinstance(part, Mapping) else (part[0], part[-1])
    return _shown(low), _shown(high)


def _shown(value: Setting) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def settings_line(settings: Mapping[str, Setting]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in settings.items())
