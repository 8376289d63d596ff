"""The pages: one board, and one page a run. Pure: equal runs give equal bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from babel import Locale
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.errors import PolypromptError
from benchmarks.registry import find_suite
from benchmarks.scoring import average
from benchmarks.task import Suite, TaskCard
from leaderboard.collect import Cell, Entry, Run
from leaderboard.statistics import RESAMPLES, Array, Interval, interval, mean, replicates

TEMPLATES = Path(__file__).parent / "templates"

SIGNS = {
    "limited": ("†", "only a part of the official split was scored, so not comparable with a full score"),
    "partial": ("‡", "over fewer languages than the task has, or fewer seeds than the row has"),
    "selected": (
        "§",
        "the epoch was chosen on the very rows that are reported, as P-Tuning v2's code does: the best of many looks",
    ),
    "trained": ("¶", "trained in this language, or in several, where others are scored without having seen any of it"),
    "doubt": ("≠", "the run's own results.json says something else; shown is what its predictions give"),
}
"""Marks of a cell: the sign, and what it says."""


@dataclass(frozen=True)
class Figure:
    """A number in a table.

    Attributes:
        score: in points.
        chance: of the best answer that ignores the input; None for an average.
        interval: 95 %; None where there is none.
        href: of the run page that shows where it comes from.
        signs: keys of SIGNS.
        peers: figures of a column are comparable when this is equal: whether limited, languages, examples.
        detail: what a reader sees on pointing at it.
        best: the highest among its peers.
    """

    score: float
    chance: float | None
    interval: Interval | None
    href: str
    signs: tuple[str, ...]
    peers: tuple[object, ...]
    detail: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of scores: its heading, lines of small print below it, and what it stands for in full."""

    title: str
    note: tuple[str, ...]
    full: str
    emphasised: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table: an entry of the board and its figures, None where it was not scored.

    `alike` says that another row of the table has the same method, backbone and prompt: only the run tells them apart.
    """

    entry: EntryView
    figures: tuple[Figure | None, ...]
    alike: bool = False


@dataclass(frozen=True)
class Table:
    """Scores of entries (rows) by task or by language (columns), chance beside them.

    Attributes:
        id: anchor on the page.
        title, note: heading, and a sentence on what is shown.
        columns, rows: as above.
        chance: one number a column; None where it makes no sense.
        costs: whether trainable share and training time are shown.
        signs: those that occur in it.
    """

    id: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    chance: tuple[float | None, ...]
    costs: bool
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A suite: its table by task and one table by language for each task in several languages."""

    id: str
    title: str
    overview: Table
    by_language: tuple[Table, ...]


class EntryView:
    """What the pages say about one entry: labels, costs and figures, computed once."""

    def __init__(self, entry: Entry) -> None:
        self.runs = entry.runs
        self._replicates: dict[tuple[str, str], Array] = {}

    @property
    def first(self) -> Run:
        """The run with the lowest seed; it stands for what all seeds share."""
        return self.runs[0]

    @property
    def label(self) -> tuple[str, str, str]:
        """Method, backbone and prompt: what heads its rows."""
        manifest = self.first.manifest
        return manifest.method, manifest.backbone.name, manifest.prompt

    @property
    def seconds(self) -> float:
        """Training time, mean over seeds."""
        return sum(run.manifest.train_seconds for run in self.runs) / len(self.runs)

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Cell]]:
        """(task, language) -> one cell a seed; of several splits that were scored the first one, which is reported."""
        found: dict[tuple[str, str], list[Cell]] = {}
        for run in self.runs:
            for cell in run.cells:
                group = found.setdefault((cell.record.task, cell.record.language), [])
                if not group or group[0].record.split == cell.record.split:
                    group.append(cell)
        return found

    def languages(self, task: str) -> list[str]:
        """Languages in which a task was scored."""
        return [language for name, language in self.cells if name == task]

    def trained(self, card: TaskCard) -> frozenset[str]:
        """Languages that a task was trained in; scores in all others are zero-shot."""
        usual = [card.train_language] if card.train_language else []
        return frozenset(self.first.manifest.trained.get(card.answered_by, usual))

    def figure(self, task: str, languages: Sequence[str], card: TaskCard | None = None) -> Figure | None:
        """The main metric, mean over languages and seeds.

        Args:
            task: its name.
            languages: those that are averaged; empty gives None.
            card: given when the figure is to stand for the whole task, so that absent languages are marked.
        """
        groups = [self.cells[task, language] for language in languages if (task, language) in self.cells]
        if not groups:
            return None
        per_language = [_mean([cell.record.main[1] for cell in group]) for group in groups]
        chances = [_mean([cell.record.chance.get(cell.record.main[0], math.nan) for cell in group]) for group in groups]
        cells = [cell for group in groups for cell in group]
        absent = set(card.languages) - set(languages) if card else set()
        signs = _signs(self.runs, cells, bool(absent) or any(len(group) < len(self.runs) for group in groups))
        sizes = tuple(sorted((group[0].record.language, group[0].record.examples) for group in groups))
        scores = mean([self._resampled(task, group[0].record.language, group) for group in groups])
        return Figure(
            score=_mean(per_language),
            chance=_mean(chances),
            interval=interval(scores),
            href=f"runs/{self.first.id}/index.html#{_anchor(self.first, task, groups[0][0].record.language)}",
            signs=signs,
            peers=("limited" not in signs, len(sizes), sum(size for _, size in sizes), sizes),
            detail=_detail(task, cells, len(groups), len(self.runs), absent),
        )

    def averages(self, suite: Suite) -> dict[str, Figure | None]:
        """The official averages of a suite, mean over seeds; None where a part is missing."""
        seeds = [average(suite, [cell.record for cell in run.cells]) for run in self.runs]
        cells = [cell for run in self.runs for cell in run.cells if cell.record.suite == suite.name]
        signs = _signs(self.runs, cells)
        figures: dict[str, Figure | None] = {}
        for name in sorted(seeds[0], key=lambda name: name != "average"):  # the whole before its categories
            values = [value for seed in seeds if (value := seed.get(name)) is not None]
            figures[name] = (
                Figure(
                    score=_mean(values),
                    chance=None,
                    interval=None,
                    href=f"runs/{self.first.id}/index.html#scores",
                    signs=signs,
                    peers=("limited" not in signs,),
                )
                if len(values) == len(seeds)
                else None
            )
        return figures

    def _resampled(self, task: str, language: str, cells: list[Cell]) -> Array:
        if (task, language) not in self._replicates:
            stream = f"{task}.{language}.{cells[0].record.split}"
            self._replicates[task, language] = replicates([cell.rows for cell in cells], stream)
        return self._replicates[task, language]


def render(runs: Sequence[Run], entries: Sequence[Entry]) -> dict[str, str]:
    """All files of the site that are text of our own.

    Args:
        runs: by id.
        entries: the rows of the board, of the same runs.

    Returns:
        Path relative to the site -> content.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"points": _points, "share": _share, "duration": _duration, "thousands": "{:,}".format}
    environment.globals |= {"signs": SIGNS, "language_name": language_name}
    files = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "board.js")}
    files["index.html"] = environment.get_template("index.html").render(
        root="",
        sections=_sections([EntryView(entry) for entry in entries]),
        runs=runs,
        tasks=sorted({cell.record.task for run in runs for cell in run.cells}),
        languages=sorted({cell.record.language for run in runs for cell in run.cells}),
        resamples=RESAMPLES,
    )
    page = environment.get_template("run.html")
    seeds = {run.id: entry.runs for entry in entries for run in entry.runs}
    for run in runs:
        scored = [(cell, _figure_of(run, cell)) for cell in run.cells]
        used = {sign for _, figure in scored if figure for sign in figure.signs}
        files[f"runs/{run.id}/index.html"] = page.render(
            root="../../",
            run=run,
            manifest=run.manifest,
            seeds=seeds.get(run.id, (run,)),  # of an exact repeat, which is in no entry, the run alone
            scored=scored,
            used=[sign for sign in SIGNS if sign in used],
            doubts=[(cell, doubt) for cell in run.cells for doubt in cell.doubts],
        )
    return files


def _figure_of(run: Run, cell: Cell) -> Figure | None:
    """The figure of one cell of a run, whose split may be another one than that on the board."""
    alone = replace(run, cells=(cell,))
    figure = EntryView(Entry((alone,))).figure(cell.record.task, [cell.record.language])
    return figure and replace(figure, href="")


def language_name(code: str) -> str:
    """The English name of a BCP-47 code by CLDR; the code itself where CLDR has none."""
    names = Locale("en").languages
    return str(names.get(code.replace("-", "_")) or names.get(code.split("-")[0]) or code)


def _sections(views: Sequence[EntryView]) -> list[Section]:
    names = sorted({cell.record.suite for view in views for run in view.runs for cell in run.cells})
    return [_section(name, f"suite-{number}", views) for number, name in enumerate(names, 1)]


def _section(name: str, anchor: str, views: Sequence[EntryView]) -> Section:
    """The tables of one suite; entries by official average, the others behind them by name."""
    try:
        suite = find_suite(name)
    except PolypromptError:  # a suite of somebody else: everything but its official average can be shown
        suite = Suite(name=name, title=name, tasks=())
    cards = {card.name: card for view in views for card in view.first.manifest.tasks if card.suite == name}
    official = [task.name for task in suite.tasks]
    scored = {task for view in views for task, _ in view.cells if task in cards}
    tasks = [task for task in official if task in scored] + sorted(scored - set(official))
    titles = {task.name: task.title for task in suite.tasks}

    averages = {view: view.averages(suite) if official else {} for view in views}
    members = [view for view in views if any(task in scored for task, _ in view.cells)]
    members.sort(key=lambda view: _order(averages[view], view))
    kinds = list(dict.fromkeys(kind for view in members for kind in averages[view]))
    columns = [_average_column(kind, suite) for kind in kinds]
    columns += [_task_column(task, titles.get(task, task), members) for task in tasks]
    rows = [
        Row(
            view,
            (
                *(averages[view].get(kind) for kind in kinds),
                *(_marked(view, cards[task]) for task in tasks),
            ),
        )
        for view in members
    ]
    absent = [task for task in official if task not in scored]
    note = "The main metric of each task in points, mean over languages and seeds, with its 95 % interval."
    if absent:
        note += f" Scored by no run here: {', '.join(absent)}."
    overview = _table(f"{anchor}-tasks", "Methods by task", note, columns, rows, costs=True)
    return Section(
        anchor,
        suite.title,
        overview,
        tuple(
            _language_table(f"{anchor}-task-{number}", titles.get(task, task), cards[task], members)
            for number, task in enumerate(tasks, 1)
            if len({language for view in members for language in view.languages(task)}) > 1
        ),
    )


def _language_table(anchor: str, title: str, card: TaskCard, views: Sequence[EntryView]) -> Table:
    scored = {language for view in views for language in view.languages(card.name)}
    languages = [language for language in card.languages if language in scored]
    languages += sorted(scored - set(languages))
    languages.sort(key=lambda language: language != card.train_language)
    views = [view for view in views if view.languages(card.name)]
    everywhere = frozenset.intersection(*(view.trained(card) for view in views))
    rows = [
        Row(
            view,
            (_marked(view, card), *(_marked(view, card, language, everywhere) for language in languages)),
        )
        for view in views
    ]
    first = rows[0].entry
    metric = first.cells[card.name, first.languages(card.name)[0]][0].record.main[0]
    columns = [Column("Mean", (f"{len(languages)} languages",), "mean over languages", True)]
    columns += [Column(code, ("trained in",) if code in everywhere else (), language_name(code)) for code in languages]
    note = f"Methods by language: {_words(metric)} of {card.name} in points, with its 95 % interval."
    absent = [language_name(code) for code in card.languages if code not in scored]
    if absent:
        note += f" Scored by no run here: {', '.join(absent)}."
    return _table(anchor, title, note, columns, rows, costs=False)


def _marked(
    view: EntryView, card: TaskCard, language: str | None = None, everywhere: frozenset[str] = frozenset()
) -> Figure | None:
    """The figure of a task, or of one of its languages, with a mark where it was trained in more than others were.

    Args:
        view, card, language: whose. everywhere: languages that every row of the table was trained in.
    """
    languages = view.languages(card.name) if language is None else [language]
    figure = view.figure(card.name, languages, card if language is None else None)
    trained = view.trained(card)
    more = len(trained) > 1 if language is None else language in trained - everywhere
    if figure is None or not more:
        return figure
    return replace(figure, signs=tuple(sign for sign in SIGNS if sign in (*figure.signs, "trained")))


def _average_column(name: str, suite: Suite) -> Column:
    tasks = suite.categories.get(name, [task.name for task in suite.tasks])
    title = name.capitalize() if name == "average" else name
    return Column(
        title,
        (f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}",),
        f"official average over {', '.join(tasks)}",
        emphasised=True,
    )


def _task_column(task: str, title: str, views: Sequence[EntryView]) -> Column:
    cells = [cell for view in views for (name, _), group in view.cells.items() if name == task for cell in group]
    languages = {cell.record.language for cell in cells}
    note = (_words(cells[0].record.main[0]), *([f"{len(languages)} languages"] if len(languages) > 1 else []))
    return Column(task, note, title)


def _table(anchor: str, title: str, note: str, columns: Sequence[Column], rows: Sequence[Row], *, costs: bool) -> Table:
    """Mark the best of each column, and find the chance that belongs to it."""
    marked, chance = [], []
    for figures in zip(*(row.figures for row in rows), strict=True):
        peers = max((figure.peers for figure in figures if figure), default=None)
        group = [figure for figure in figures if figure and figure.peers == peers and "doubt" not in figure.signs]
        top = max((round(figure.score, 1) for figure in group), default=math.inf) if len(group) > 1 else math.inf
        marked.append(
            [
                replace(figure, best=True) if figure in group and round(figure.score, 1) == top else figure
                for figure in figures
            ]
        )
        chance.append(next((figure.chance for figure in figures if figure and figure.peers == peers), None))
    labels = Counter(row.entry.label for row in rows)
    rows = [
        Row(row.entry, tuple(figures), labels[row.entry.label] > 1)
        for row, figures in zip(rows, zip(*marked, strict=True), strict=True)
    ]
    used = {sign for row in rows for figure in row.figures if figure for sign in figure.signs}
    signs = tuple(sign for sign in SIGNS if sign in used)
    return Table(anchor, title, note, tuple(columns), tuple(rows), tuple(chance), costs, signs)


def _order(averages: dict[str, Figure | None], view: EntryView) -> tuple[bool, float, str]:
    first = next(iter(averages.values()), None)
    manifest = view.first.manifest
    comparable = first is not None and "limited" not in first.signs
    return (
        not comparable,
        -first.score if first else math.inf,
        f"{manifest.method}\0{manifest.backbone.name}\0{view.first.id}",
    )


def _signs(runs: Sequence[Run], cells: Sequence[Cell], partial: bool = False) -> tuple[str, ...]:
    seen = {cell.record.task for cell in cells}
    on = {
        "limited": any(cell.record.limited for cell in cells),
        "partial": partial,
        "selected": any(_selected_on_reported(run) & seen for run in runs),
        "doubt": any(cell.doubts for cell in cells),
    }
    return tuple(key for key in SIGNS if on.get(key))  # what was trained in is told by table, see `_marked`


def _selected_on_reported(run: Run) -> set[str]:
    """Tasks of which a run looked at the reported rows to choose its epoch."""
    selection = run.manifest.selection
    return set(selection.rows) if selection is not None and selection.rule == "paper" else set()


def _anchor(run: Run, task: str, language: str) -> str:
    """Anchor of a score on the run page: by number, since names may hold anything."""
    keys = [(cell.record.task, cell.record.language) for cell in run.cells]
    return f"score-{keys.index((task, language)) + 1}" if (task, language) in keys else "scores"


def _detail(task: str, cells: Sequence[Cell], languages: int, seeds: int, absent: set[str]) -> str:
    examples = sum(cell.record.examples for cell in cells) // seeds
    parts = [f"{task}: {examples:,} examples"]
    if languages > 1:
        parts.append(f"{languages} languages")
    if seeds > 1:
        parts.append(f"mean of {seeds} seeds")
    if absent:
        parts.append("without " + ", ".join(sorted(absent)))
    return ", ".join(parts)


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _points(number: float | None) -> str:
    """One decimal, with a real minus sign; a dash for what is not a number."""
    if number is None or not math.isfinite(number):
        return "–"
    return f"{number:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _share(percent: float) -> str:
    """Percent with as many digits as keep small shares apart."""
    return f"{percent:.1f}" if percent >= 10 else f"{percent:.2f}" if percent >= 0.1 else f"{percent:.3f}"


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"
