"""From runs to the board: every column of every suite, its intervals, ranks and replicates.

Columns are made one after the other, and only what means and averages need is kept of their replicates, so that a
million scores fit in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError
from benchmarks.registry import find_suite
from benchmarks.task import Suite, TaskCard
from leaderboard.board import (
    UNRANKED,
    Board,
    Breakdown,
    Column,
    Flag,
    Floats,
    Key,
    LanguageView,
    Replicates,
    Row,
    RunScore,
    RunView,
    Standing,
    SuiteView,
    Table,
    TaskView,
)
from leaderboard.bootstrap import (
    RESAMPLES,
    Single,
    across_seeds,
    exact_end,
    intervals,
    normals,
    replicated,
    replicates,
)
from leaderboard.digest import Digest, Place, stream_of
from leaderboard.facts import cost_of, curve_of, export_of, relative_latency
from leaderboard.names import language_name, named, script_name, words
from leaderboard.quoted import Quote, quotes
from leaderboard.ranking import ranks
from leaderboard.runs import Run, collect_runs, joined_by_seed, parsed
from leaderboard.settings import told_apart

FEWEST, BUDGET = 200, 2**27
"""Replicates that are handed on for comparisons: at least so many a column, else as many as these bytes hold in all."""

MANY_ROWS = 200
"""Rows from which on the columns of single languages have no ranks: every pair of rows would have to be compared."""

CORRELATIONS = frozenset({"matthews", "pearson", "spearman"})
"""Metrics that may be negative."""

THREADS = 2
"""Cells that are computed at a time; each holds its replicates, and numpy's products have threads of their own."""

STEPS = 127
"""Largest quantised replicate."""


def make_board(paths: Iterable[Path], extra: Iterable[Path] = ()) -> Board:
    """Read runs and results from elsewhere, and compute everything that is shown.

    Args:
        paths: run folders, or folders that hold run folders at any depth.
        extra: files as results.json, of results from elsewhere, or folders that hold such files.

    Raises:
        PolypromptError: a path does not exist, or there is no usable run in any of them.
    """
    complaints: list[str] = []
    runs = collect_runs(paths, extra, complaints.append)
    return board_of(runs, complaints)


def board_of(runs: Sequence[Run], complaints: list[str]) -> Board:
    """The board of some runs.

    Args:
        runs: by id. complaints: sentences so far; more are added.
    """
    groups = joined_by_seed(runs, complaints.append)
    layouts = {id(run.digest.places): run.digest.places for run in runs}.values()
    suites = sorted({place.suite for places in layouts for place in places})
    known = {name: _suite(name) for name in suites}
    quoted = quotes([known[name] for name in suites])
    rows = [_row(group) for group in groups] + [quote.row for quote in quoted]
    rows = _distinct(rows, {group[0].id: group[0].config for group in groups})
    maker = _Maker(rows, groups, {quote.row.id: quote for quote in quoted})
    views = [maker.suite(known[name]) for name in suites]
    return Board(
        suites=tuple(views),
        languages=maker.languages(),
        runs=tuple(_run_view(run, maker) for run in runs if run.manifest is not None),
        rows={row.id: row for row in rows},
        keys=tuple(maker.keys),
        replicates=maker.replicates(),
        resamples=maker.kept,
        complaints=tuple(complaints),
    )


@dataclass(frozen=True, eq=False)
class _Made:
    """A column with its numbers for all rows of the board, `[rows]` each."""

    column: Column
    score: Floats
    low: Floats
    high: Floats
    rank_low: NDArray[np.int32]
    rank_high: NDArray[np.int32]
    group: NDArray[np.int32]
    parts: NDArray[np.int32]
    examples: NDArray[np.int32]
    flags: NDArray[np.int32]
    best: NDArray[np.bool_]


NUMBERS = ("score", "low", "high", "rank_low", "rank_high", "group", "parts", "examples", "flags", "best")


@dataclass(eq=False)
class _PerRun:
    """One figure of each run before seeds are joined; sums of languages or tasks until `mean` is called.

    Attributes:
        found: `[runs, resamples]`, nan where there are no predictions. score, guess: `[runs]`, points, nan: missing.
        parts: `[runs]`, of how many cells or tasks. whole: `[runs]`, whether none of these is incomplete.
        examples, flags: `[runs]`. asked: `[runs]`, equal where the examples are.
        ends: 95 % intervals of the replicates, `[runs]` each, where they were made already.
    """

    found: Single
    score: Floats
    guess: Floats
    parts: NDArray[np.int32]
    whole: NDArray[np.bool_]
    examples: NDArray[np.int32]
    flags: NDArray[np.int32]
    asked: NDArray[np.uint64]
    ends: tuple[Floats, Floats] | None = None

    @classmethod
    def empty(cls, runs: int, resamples: int) -> _PerRun:
        """Of nothing yet."""
        return cls(
            np.zeros((runs, resamples), np.float32), np.zeros(runs), np.zeros(runs), np.zeros(runs, np.int32),
            np.ones(runs, bool), np.zeros(runs, np.int32), np.zeros(runs, np.int32), np.zeros(runs, np.uint64),
        )  # fmt: skip

    def add(self, other: _PerRun) -> None:
        """Count a part in, where a run has it."""
        has = other.parts > 0
        if has.all():
            self.found += other.found
        else:
            self.found[has] += other.found[has]
        self.score[has] += other.score[has]
        self.guess[has] += other.guess[has]
        self.parts[has] += 1
        self.whole &= ~has | other.whole
        self.examples[has] += other.examples[has]
        self.flags[has] |= other.flags[has]
        self.asked[has] = self.asked[has] * np.uint64(0x9E3779B97F4A7C15) + other.asked[has] + np.uint64(1)

    def mean(self, wanted: int) -> _PerRun:
        """The mean of what was added, whole where that were as many as wanted."""
        often = np.maximum(self.parts, 1)
        with np.errstate(invalid="ignore"):
            self.found /= often[:, None].astype(np.float32)
        missing = self.parts == 0
        self.score = np.where(missing, np.nan, self.score / often)
        self.guess = np.where(missing, np.nan, self.guess / often)
        self.whole &= self.parts == wanted
        return self


class _Layout:
    """Runs that were scored on the same places, their numbers side by side.

    Attributes:
        cells: (task, language, split) -> number of the cell, that of its first metric, and its metrics.
        numbers: `[runs]`, of the runs. digests: of these.
        flags, examples, units, identities: `[runs, cells]`.
        scores, guesses, low, high: `[runs, metrics]`; the last two are nan until they are made.
        computed: `[runs, metrics]`, whether there are predictions.
        small: values of the digests, `[runs, values]`, where these have one form; else None.
    """

    def __init__(self, digests: Mapping[int, Digest]) -> None:
        self.digests = list(digests.values())
        self.numbers = np.array(list(digests))
        self.places = self.digests[0].places
        first = self.digests[0].first
        self.cells = {
            (place.task, place.language, place.split): (cell, first[cell], place.metrics)
            for cell, place in enumerate(self.places)
        }
        self.examples, self.units, self.identities, limited, self.scores, self.guesses, formulas = (
            np.stack([getattr(digest, name) for digest in self.digests])
            for name in ("examples", "units", "identities", "limited", "scores", "guesses", "formulas")
        )
        self.computed = formulas > 0
        self.flags = np.where(limited, Flag.LIMITED, 0).astype(np.int32)
        self.flags[:, [not place.path for place in self.places]] |= Flag.UNVERIFIED
        for row, digest in enumerate(self.digests):
            self.flags[row, list(digest.doubts)] |= Flag.DOUBT
        self.low, self.high = (np.full(self.scores.shape, np.nan) for _ in range(2))
        shapes = [
            np.stack([getattr(digest, name) for digest in self.digests])
            for name in ("formulas", "rows", "widths", "begins", "is_small")
        ]
        alike = all(np.all(shape == shape[0]) for shape in shapes)
        self.small = np.stack([digest.small for digest in self.digests]) if alike else None

    def replicates(self, rows: NDArray[np.intp], place: int, stream: str, identity: int) -> Single:
        """Replicates `[rows, resamples]` of a metric that was computed from the examples of this identity."""
        first = self.digests[rows[0]]
        sums = first.sums(place)
        if self.small is None or sums is None or not first.is_small[place]:
            each = [self.digests[row].sums(place) for row in rows.tolist()]
            return replicates([one for one in each if one is not None], stream, identity)
        begin = int(first.begins[place])
        values = self.small[rows, begin : begin + sums.values.size].reshape(len(rows), *sums.values.shape)
        return replicated(sums.formula, values, stream, identity)


class _Maker:
    """Makes columns; keeps what comparisons and languages need of them."""

    def __init__(self, rows: Sequence[Row], groups: Sequence[tuple[Run, ...]], quoted: Mapping[str, Quote]) -> None:
        self.rows, self.groups, self.quoted = rows, groups, quoted
        self.runs = [run for group in groups for run in group]
        self.begins = np.cumsum([0, *(len(group) for group in groups)])
        self.single = all(len(group) == 1 for group in groups)
        self.keys: list[Key] = []
        self.number = {run.id: number for number, run in enumerate(self.runs)}
        alike: dict[tuple[Place, ...], dict[int, Digest]] = {}
        known: dict[int, dict[int, Digest]] = {}
        for number, run in enumerate(self.runs):
            places = run.digest.places  # one object for most runs: to compare each would take long
            if id(places) not in known:
                known[id(places)] = alike.setdefault(places, {})
            known[id(places)][number] = run.digest
        self.layouts = [_Layout(digests) for digests in alike.values()]
        self.ends = {
            number: (layout.low[row], layout.high[row])
            for layout in self.layouts
            for row, number in enumerate(layout.numbers.tolist())
        }
        self.group_of = {run.id: group for group in groups for run in group}
        self.by_language: dict[str, list[_Made]] = {}
        self.titles: dict[str, str] = {}
        self.split = _splits([layout.places for layout in self.layouts])
        cells_of = {(place.task, place.language) for layout in self.layouts for place in layout.places}
        room = BUDGET // max(1, len(groups) * len(cells_of))
        self.kept = int(np.clip(room, FEWEST, RESAMPLES))
        self.scores: list[Floats] = []
        self.scales: list[Floats] = []
        self.values: list[NDArray[np.int8]] = []
        self.normals: dict[int, Single] = {}
        self.selected: dict[str, NDArray[np.int32]] = {}
        self.triples: dict[int, frozenset[tuple[str, str, str]]] = {}

    # Suites

    def suite(self, suite: Suite) -> SuiteView:
        """All tables of a suite."""
        cards: dict[str, TaskCard] = {}
        for layout in self.layouts:
            run = self.runs[layout.numbers[0]]
            for place in layout.places:
                if place.suite == suite.name:
                    cards.setdefault(place.task, run.cards[place.task])
        official = [task.name for task in suite.tasks]
        names = [name for name in official if name in cards] + sorted(set(cards) - set(official))
        views, columns, values = [], [], {}
        for name in names:
            view, column, value = self._task(suite, cards[name])
            views.append(view)
            columns.append(column)
            values[name] = value
        averages = self._averages(suite, values) if official else []
        members = self._members([*averages, *columns])
        missing = tuple(name for name in official if name not in cards)
        note = "The main metric of each task in points, mean over languages and seeds, with its 95 % interval."
        if missing:
            note += f" Scored by no run here: {', '.join(missing)}."
        overview = self._table(suite.name, "Methods by task", note, [*averages, *columns], members)
        return SuiteView(suite.name, suite.title, overview, tuple(views), missing)

    def _averages(self, suite: Suite, values: Mapping[str, _PerRun]) -> list[_Made]:
        """The official average and those of categories: over what a run has, and whole where it has all."""
        groups = suite.averaged or tuple((task.name,) for task in suite.tasks)
        wanted: list[tuple[str, str, Sequence[Sequence[str]]]] = [("average", "Average", groups)]
        wanted += [(f"category:{name}", name, [(task,) for task in tasks]) for name, tasks in suite.categories.items()]
        made = []
        for name, title, parts in wanted:
            total = self._empty()
            for part in parts:
                inner = self._empty()
                for task in part:
                    if task in values:
                        inner.add(values[task])
                total.add(inner.mean(len(part)))
            total.mean(len(parts))
            tasks = [task for part in parts for task in part]
            column = Column(
                name, "average" if name == "average" else "category", title,
                f"official average over {named(tasks)}", (f"{len(parts)} task{'s' if len(parts) > 1 else ''}",),
                parts=len(parts), key=self._key(suite.name, suite.name, name, f"{suite.title}: {title}"),
            )  # fmt: skip
            made.append(self._join(column, total))
        return made

    def _task(self, suite: Suite, card: TaskCard) -> tuple[TaskView, _Made, _PerRun]:
        """The tables of a task, its column in the overview, and what the official average takes of each run."""
        declared = {task.name: task for task in suite.tasks}.get(card.name)
        title = declared.title if declared else card.name
        self.titles[card.name] = title
        languages = self._languages(card)
        metrics = [name for name in card.metrics if self._scored(card, name)]
        main = metrics[0]
        averaged = (declared.averaged if declared else ()) or card.metrics
        trained = [self._trained(group[0], card) for group in self.groups]
        members = [n for n, group in enumerate(self.groups) if any(card.name in run.cards for run in group)]
        everywhere = frozenset[str].intersection(*(trained[n] for n in members)) if members else frozenset()
        several = np.array([Flag.TRAINED if len(languages_) > 1 else 0 for languages_ in trained], np.int32)
        table_id = f"{card.suite}.{card.name}"
        totals = {name: self._empty() for name in metrics}
        columns: list[_Made] = []
        for language, name, part in self._cells(card, languages, metrics):
            totals[name].add(part)
            if name != main:
                continue
            beside = np.array([Flag.TRAINED if language in one - everywhere else 0 for one in trained], np.int32)
            where = language_name(language)
            key = self._key(suite.name, table_id, language, f"{title}, {where}") if len(languages) > 1 else None
            column = Column(
                language, "language", language, where, ("trained in",) if language in everywhere else (), main,
                card.name, language, key=key,
            )  # fmt: skip
            made = self._join(column, part, beside, ranked=len(self.groups) <= MANY_ROWS)
            columns.append(made)
            shown = replace(made.column, id=card.name, kind="task", title=card.name, full=title, note=(words(main),))
            self.by_language.setdefault(language, []).append(replace(made, column=shown))
        complete = max(len(card.languages), 1)
        for total in totals.values():
            total.mean(complete)
        value = self._empty()
        for name in averaged:
            if name in totals:
                value.add(totals[name])
        value.mean(len(averaged))
        key = self._key(suite.name, suite.name, card.name, title)
        note = (words(main), *([f"{len(languages)} languages"] if len(languages) > 1 else []))
        column = Column(card.name, "task", card.name, title, note, main, card.name, parts=complete, key=key)
        overview = self._quoted(self._join(column, totals[main], several), card.name, main)
        middle = replace(
            column, id="mean", kind="mean", title="Mean", full="mean over languages",
            note=(f"{len(languages)} languages",),
        )  # fmt: skip
        gap = self._gap(card, columns, trained) if len(languages) > 1 else []
        by_metric = [
            overview
            if name == main
            else self._quoted(self._join(replace(column, key=None), totals[name], several), card.name, name)
            for name in metrics
        ]
        by_metric = [
            replace(made, column=replace(
                made.column, id=f"metric:{name}", kind="metric", title=words(name), full=f"{words(name)} of {title}",
                metric=name, note=(),
            ))
            for made, name in zip(by_metric, metrics, strict=True)
        ]  # fmt: skip
        if len(languages) > 1:
            columns = [replace(overview, column=middle), *columns, *gap]
        else:
            columns = [replace(made, column=replace(made.column, key=key)) for made in columns]
        absent = [language_name(code) for code in card.languages if code not in languages]
        text = f"Methods by language: {words(main)} of {card.name} in points, with its 95 % interval."
        if absent:
            text += f" Scored by no run here: {', '.join(absent)}."
        members = self._members([overview])
        view = TaskView(
            card=card,
            title=title,
            licence=declared.licence if declared else "",
            url=declared.url if declared else "",
            split=self.split.get(card.name, ""),
            by_language=self._table(table_id, title, text, columns, members),
            metrics=self._table(
                f"{table_id}.metrics", f"{title}: all metrics", "Each metric, mean over languages and seeds.",
                by_metric, self._members(by_metric),
            ),
            breakdowns=self._breakdowns(card),
        )  # fmt: skip
        return view, overview, value

    def _gap(self, card: TaskCard, columns: Sequence[_Made], trained: Sequence[frozenset[str]]) -> list[_Made]:
        """The mean of the languages that were trained in less that of all others, where a row has both in full.

        In full is what any run here was scored in; figures are marked where the task has more languages.
        """
        by_code = {made.column.id: made.score for made in columns}
        spoken = [code for code in card.languages if code in by_code]
        partial = len(spoken) < len(card.languages)
        score = np.full(len(self.rows), np.nan)
        for row, own in enumerate(trained):
            near = [by_code[code][row] for code in spoken if code in own]
            far = [by_code[code][row] for code in spoken if code not in own]
            if near and far:
                score[row] = np.mean(near) - np.mean(far)
        if partial and np.isnan(score).all():
            return []
        column = Column(
            "gap", "gap", "Gap", "transfer gap: the languages that were trained in less the mean of all others",
            note=(f"{len(spoken)} languages",), metric=columns[0].column.metric, task=card.name,
        )  # fmt: skip
        rows = len(self.rows)
        zero = np.zeros(rows, np.int32)
        nothing = np.full(rows, np.nan)
        ones = np.where(np.isnan(score), 0, 1).astype(np.int32)
        flags = np.bitwise_or.reduce([made.flags for made in columns]) & ~(Flag.TRAINED | Flag.OTHER)
        flags = np.where(np.isnan(score), 0, flags | (Flag.PARTIAL if partial else 0)).astype(np.int32)
        return [_Made(column, score, nothing, nothing, zero, zero, zero, ones, zero, flags, np.zeros(rows, bool))]

    # Single figures

    def _cells(
        self, card: TaskCard, languages: Sequence[str], metrics: Sequence[str]
    ) -> Iterator[tuple[str, str, _PerRun]]:
        """Language, metric and figures of each cell of a task; some at a time are made while others are read."""
        wanted = [(language, metric) for language in languages for metric in metrics]
        with ThreadPoolExecutor(THREADS) as pool:
            waiting = [pool.submit(self._cell, card, *one) for one in wanted[:THREADS]]
            for at, one in enumerate(wanted):
                part = waiting.pop(0).result()
                if at + THREADS < len(wanted):
                    waiting.append(pool.submit(self._cell, card, *wanted[at + THREADS]))
                if part is not None:
                    yield *one, part

    def _cell(self, card: TaskCard, language: str, metric: str) -> _PerRun | None:
        """One metric of a task in a language for all runs; None: nobody has it."""
        key = card.name, language, self.split[card.name]
        part = self._empty()
        low, high = np.full((2, len(self.runs)), np.nan)
        for layout in self.layouts:
            cell, place, metrics = layout.cells.get(key, (0, 0, ()))
            if metric not in metrics:
                continue
            place += metrics.index(metric)
            numbers, identities = layout.numbers, layout.identities[:, cell]
            part.score[numbers] = layout.scores[:, place]
            part.guess[numbers] = layout.guesses[:, place]
            part.parts[numbers] = 1
            part.examples[numbers] = layout.examples[:, cell]
            part.asked[numbers] = identities.astype(np.uint64)
            part.flags[numbers] = layout.flags[:, cell] | self._selected(card.name)[numbers]
            computed = layout.computed[:, place]
            part.found[numbers[~computed]] = np.nan
            for identity in np.unique(identities[computed]).tolist():
                rows = np.flatnonzero(computed & (identities == identity))
                found = layout.replicates(rows, place, stream_of(*key), identity)
                if len(rows) == len(self.runs):
                    part.found = found
                else:
                    part.found[numbers[rows]] = found
                low[numbers[rows]], high[numbers[rows]] = ends = intervals(found)
                end, scores = exact_end(int(layout.units[rows[0], cell])), layout.scores[rows, place]
                flat = ends[0] == ends[1]
                layout.low[rows, place] = np.where(flat & (scores == 100), 100 - end, ends[0])
                layout.high[rows, place] = np.where(flat & (scores == 0), end, ends[1])
        part.ends = low, high
        return part if part.parts.any() else None

    def _join(
        self, column: Column, part: _PerRun, beside: NDArray[np.int32] | None = None, *, ranked: bool = True
    ) -> _Made:
        """The seeds of each row joined; intervals, ranks and the best.

        Args:
            column: what it is. part: of each run. beside: flags of rows. ranked: whether ranks are wanted.
        """
        rows, groups = len(self.rows), len(self.groups)
        score, low, high = (np.full(rows, np.nan) for _ in range(3))
        parts, examples, flags = (np.zeros(rows, np.int32) for _ in range(3))
        if self.single:
            found, has = part.found, part.parts > 0
            score[:groups] = np.where(has, part.score, np.nan)
            parts[:groups], examples[:groups], flags[:groups] = part.parts, part.examples, part.flags
            flags[:groups] |= np.where(has & ~part.whole, Flag.PARTIAL, 0).astype(np.int32)
            asked, guess = part.asked, part.guess
        else:
            found = np.zeros((groups, RESAMPLES), np.float32)
            has, asked, guess = np.zeros(groups, bool), np.zeros(groups, np.uint64), np.full(groups, np.nan)
            for row in range(groups):
                here = np.arange(self.begins[row], self.begins[row + 1])
                there = here[part.parts[here] > 0]
                if not len(there):
                    continue
                has[row] = True
                score[row] = np.mean(part.score[there])
                guess[row] = part.guess[there[0]]
                asked[row] = part.asked[there[0]]
                parts[row] = part.parts[there].min()
                examples[row] = part.examples[there[0]]
                flags[row] = np.bitwise_or.reduce(part.flags[there])
                if len(there) < len(here) or not part.whole[there].all():
                    flags[row] |= Flag.PARTIAL
                if len(set(part.asked[there].tolist())) > 1:
                    flags[row] |= Flag.OTHER
                found[row] = across_seeds(part.found[there], part.score[there], self._normal(row)[there - here[0]])
        if beside is not None:
            flags[: len(beside)] |= np.where(np.isnan(score[: len(beside)]), 0, beside).astype(np.int32)
        found = np.where(has[:, None], found, np.float32(np.nan)) if not has.all() else found
        low[:groups], high[:groups] = part.ends if self.single and part.ends else intervals(found)
        low = np.maximum(low, 0.0 if column.metric and column.metric not in CORRELATIONS else -100.0)
        high = np.minimum(high, 100.0)  # seeds are moved as if scores had no end
        self._exact(column, part, score, low, high)
        flags[:groups] |= self._others(has, asked, flags[:groups], examples[:groups])
        if column.key is not None:
            self._keep(column.key, score[:groups], found)
        rank_low, rank_high, group = (np.zeros(rows, np.int32) for _ in range(3))
        best = np.zeros(rows, bool)
        fit = np.flatnonzero(has & ((flags[:groups] & UNRANKED) == 0) & np.isfinite(low[:groups]))
        if ranked and len(fit):
            rank_low[fit], rank_high[fit], group[fit] = ranks(score[fit], found[fit])
        sure = np.flatnonzero(has & ((flags[:groups] & (UNRANKED | Flag.DOUBT)) == 0))
        if len(sure) > 1:
            shown = np.round(score[sure], 1)
            best[sure] = shown == shown.max()
        standard = fit if len(fit) else np.flatnonzero(has)
        known = guess[standard][np.isfinite(guess[standard])]
        if len(known) and column.kind not in ("average", "category"):
            column = replace(column, chance=float(known[0]))
        return _Made(column, score, low, high, rank_low, rank_high, group, parts, examples, flags, best)

    def _exact(self, column: Column, part: _PerRun, score: Floats, low: Floats, high: Floats) -> None:
        """The interval of a score of one cell and seed that no resample moves: the binomial's."""
        flat = np.flatnonzero((low == high) & ((score == 0) | (score == 100)))
        for row in flat:
            number = int(self.begins[row])
            if (
                column.parts == 1
                and self.begins[row + 1] - number == 1
                and column.kind in ("language", "task", "metric")
            ):
                units = max(int(part.examples[number]), 1)
                if score[row] == 100:
                    low[row] = 100 - exact_end(units)
                else:
                    high[row] = exact_end(units)

    def _others(
        self, has: NDArray[np.bool_], asked: NDArray[np.uint64], flags: NDArray[np.int32], examples: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """The flag of rows that were asked other examples than most; of equals those with more examples are most."""
        fit = np.flatnonzero(has & ((flags & UNRANKED) == 0))
        found = np.zeros(len(has), np.int32)
        if len(fit):
            often = Counter(asked[fit].tolist())
            size = dict(zip(asked[fit].tolist(), examples[fit].tolist(), strict=True))
            usual = max(often, key=lambda one: (often[one], size[one], one))
            found[fit] = np.where(asked[fit] == usual, 0, Flag.OTHER)
        return found

    def _quoted(self, made: _Made, task: str, metric: str) -> _Made:
        """With the numbers of others."""
        for row in range(len(self.groups), len(self.rows)):
            value = self.quoted[self.rows[row].id].values.get((task, metric))
            if value is not None:
                made.score[row] = value
                made.parts[row] = made.column.parts
                made.flags[row] = Flag.QUOTED
        return made

    # Comparisons

    def _key(self, suite: str, table: str, column: str, title: str) -> int:
        self.keys.append(Key(suite, table, column, title))
        rows = len(self.groups)
        self.scores.append(np.full(rows, np.nan))
        self.scales.append(np.zeros(rows))
        self.values.append(np.zeros((rows, self.kept), np.int8))
        return len(self.keys) - 1

    def _keep(self, key: int, score: Floats, found: Single) -> None:
        """Quantise the replicates of a column."""
        away = found[:, : self.kept] - score[:, None].astype(np.float32)
        known = np.isfinite(away).all(axis=1)
        away[~known] = 0
        largest = np.abs(away).max(axis=1, initial=0)
        scale = np.round(largest / STEPS, 6)
        away /= np.where(scale > 0, scale, 1)[:, None].astype(np.float32)
        self.scores[key] = np.where(known, score, np.nan)
        self.scales[key] = scale.astype(np.float64)
        self.values[key] = np.clip(np.rint(away), -STEPS, STEPS).astype(np.int8)

    def replicates(self) -> dict[str, Replicates]:
        """Of each row that has any."""
        if not self.keys:
            return {}
        score, scale = np.stack(self.scores, axis=1), np.stack(self.scales, axis=1)
        return {
            self.rows[row].id: Replicates(score[row], scale[row], np.stack([values[row] for values in self.values]))
            for row in range(len(self.groups))
            if np.isfinite(score[row]).any()
        }

    # Tables

    def languages(self) -> tuple[LanguageView, ...]:
        """A table for each language."""
        views = []
        for code in sorted(self.by_language, key=lambda code: (language_name(code), code)):
            columns = self.by_language[code]
            name = language_name(code)
            table = self._table(
                f"language.{code}", name, f"Methods by task in {name}: the main metric of each task in points.",
                columns, self._members(columns),
            )  # fmt: skip
            views.append(LanguageView(code, name, script_name(code), table))
        return tuple(views)

    def _members(self, columns: Sequence[_Made]) -> list[int]:
        """Rows that have a figure in one of the columns, in the order of the first one; those without a rank behind.

        Of those the ones that lack least come first.
        """
        has = ~np.isnan(np.stack([made.score for made in columns])).all(axis=0)
        score, flags, parts = columns[0].score, columns[0].flags, columns[0].parts

        def order(row: int) -> tuple[bool, bool, int, float, str]:
            entry = self.rows[row]
            known = not np.isnan(score[row])
            ranked = known and not flags[row] & UNRANKED
            quoted = entry.standing is Standing.QUOTED
            name = f"{entry.method}\0{entry.backbone}\0{entry.id}"
            return quoted, not ranked, -int(parts[row]) if known else 0, -float(score[row]) if known else 0.0, name

        return sorted(np.flatnonzero(has).tolist(), key=order)

    def _table(self, name: str, title: str, note: str, columns: Sequence[_Made], members: Sequence[int]) -> Table:
        arrays: dict[str, Any] = {
            what: np.stack([getattr(made, what)[list(members)] for made in columns], axis=1) for what in NUMBERS
        }
        rows = [self.rows[row] for row in members]
        often = Counter((row.method, row.backbone, row.prompt) for row in rows)
        rows = [replace(row, alike=often[row.method, row.backbone, row.prompt] > 1) for row in rows]
        return Table(name, title, note, tuple(rows), tuple(made.column for made in columns), **arrays)

    # Facts

    def _empty(self) -> _PerRun:
        return _PerRun.empty(len(self.runs), RESAMPLES)

    def _normal(self, row: int) -> Single:
        if row not in self.normals:
            self.normals[row] = normals(f"seeds of {self.rows[row].id}", len(self.groups[row]), RESAMPLES)
        return self.normals[row]

    def _languages(self, card: TaskCard) -> list[str]:
        """In which a task was scored: those of the card, then others; a language of training first."""
        split = self.split[card.name]
        scored: set[str] = set()
        for layout in self.layouts:
            scored |= {place.language for place in layout.places if (place.task, place.split) == (card.name, split)}
        found = [language for language in card.languages if language in scored]
        found += sorted(scored - set(found))
        return sorted(found, key=lambda language: language != card.train_language)

    def places(self, places: tuple[Place, ...]) -> frozenset[tuple[str, str, str]]:
        """Suite, task and language of the places of a digest; one object for all runs that have these."""
        if id(places) not in self.triples:
            self.triples[id(places)] = frozenset((place.suite, place.task, place.language) for place in places)
        return self.triples[id(places)]

    def _scored(self, card: TaskCard, metric: str) -> bool:
        return any(
            place.task == card.name and metric in place.metrics for layout in self.layouts for place in layout.places
        )

    def _trained(self, run: Run, card: TaskCard) -> frozenset[str]:
        """Languages that a task was trained in; scores in all others are zero-shot."""
        usual = [card.train_language] if card.train_language else []
        if run.manifest is None:
            return frozenset(usual)
        return frozenset(run.manifest.trained.get(card.answered_by, usual))

    def _selected(self, task: str) -> NDArray[np.int32]:
        """The flag of runs whose epoch was chosen on the very rows of a task that are reported, `[runs]`."""
        if task not in self.selected:
            chosen = [run.manifest.selection if run.manifest else None for run in self.runs]
            self.selected[task] = np.array(
                [Flag.SELECTED if one and one.rule == "paper" and task in one.rows else 0 for one in chosen], np.int32
            )
        return self.selected[task]

    def _breakdowns(self, card: TaskCard) -> dict[str, Breakdown]:
        found = {}
        for row, group in zip(self.rows, self.groups, strict=False):
            errors = group[0].digest.errors.get((card.name, self.split[card.name]))
            if errors is not None:
                found[row.id] = Breakdown(row.id, errors.kind, errors.labels, np.array(errors.counts, np.int64))
        return found


def _row(group: Sequence[Run]) -> Row:
    first = group[0]
    verified = all(run.digest.verified for run in group)
    return Row(
        id=first.id,
        standing=Standing.VERIFIED if verified else Standing.UNVERIFIED,
        method=first.method,
        backbone=first.backbone,
        prompt=first.prompt,
        runs=tuple(run.id for run in group if run.manifest is not None),
        seeds=tuple(run.seed for run in group),
        cost=cost_of(group),
        source=first.source,
    )


def _distinct(rows: Sequence[Row], configs: Mapping[str, str]) -> list[Row]:
    """With what tells rows of one name apart, and with times relative to the fastest one.

    Args:
        configs: id of a row -> what config.toml of its runs says.
    """
    named: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        named.setdefault((row.method, row.backbone, row.prompt), []).append(row)
    apart: dict[str, str] = {}
    for same in named.values():
        if len(same) > 1:
            known = [parsed(configs.get(row.id, "")) for row in same]
            apart |= {row.id: text for row, text in zip(same, told_apart(known), strict=True)}
    costs = relative_latency([(row.backbone, row.cost) for row in rows])
    return [
        replace(row, alike=row.id in apart, apart=apart.get(row.id, ""), cost=cost)
        for row, cost in zip(rows, costs, strict=True)
    ]


def _run_view(run: Run, maker: _Maker) -> RunView:
    assert run.manifest is not None
    number = maker.number.get(run.id)
    group = maker.group_of.get(run.id, (run,))
    low, high = (None, None) if number is None else maker.ends[number]
    return RunView(
        id=run.id,
        row=group[0].id,
        folder=run.folder,
        manifest=run.manifest,
        config=run.config,
        seeds={one.seed: one.id for one in group},
        make_scores=lambda: _run_scores(run, low, high),
        curve=curve_of(run.folder),
        export=export_of(run.folder),
        files=run.files,
        places=maker.places(run.digest.places),
    )


def _run_scores(run: Run, low: Floats | None, high: Floats | None) -> tuple[RunScore, ...]:
    digest, found = run.digest, []
    nothing = [math.nan] * len(digest.scores)
    lows, highs = (nothing if ends is None else ends.tolist() for ends in (low, high))
    numbers = zip(digest.scores.tolist(), digest.guesses.tolist(), lows, highs, strict=True)
    of_cells = zip(digest.places, digest.examples.tolist(), digest.limited.tolist(), strict=True)
    for cell, (place, examples, limited) in enumerate(of_cells):
        sha256 = digest.hashes[cell].tobytes().hex() if place.path else ""
        for offset, metric in enumerate(place.metrics):
            value, guess, lowest, highest = next(numbers)
            known = not math.isnan(lowest)
            found.append(
                RunScore(
                    place.task, place.suite, place.language, place.split, metric, offset == 0, value,
                    None if math.isnan(guess) else guess,
                    lowest if known else None, highest if known else None,
                    examples, limited, place.path, sha256, digest.doubts.get(cell, ()),
                )
            )  # fmt: skip
    return tuple(found)


def _splits(layouts: Sequence[tuple[Place, ...]]) -> dict[str, str]:
    """Task -> the split that is shown: the suite's own if a run has it, else the first one that a run has."""
    seen: dict[str, dict[str, str]] = {}
    for places in layouts:
        for place in places:
            seen.setdefault(place.task, {}).setdefault(place.split, place.suite)
    found = {}
    for task, splits in seen.items():
        first, suite = next(iter(splits.items()))
        own = next((one.eval_split for one in _suite(suite).tasks if one.name == task), first)
        found[task] = own if own in splits else first
    return found


@cache
def _suite(name: str) -> Suite:
    try:
        return find_suite(name)
    except PolypromptError:  # a suite of somebody else: everything but its official average can be shown
        return Suite(name=name, title=name, tasks=())
