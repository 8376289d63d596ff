"""The pages of a board. Pure: an equal board gives equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.searches import SearchRecord
from leaderboard import cells, datafiles, names
from leaderboard.address import Addresses
from leaderboard.assets import assets
from leaderboard.board import Board, Column, Figure, LanguageView, Row, RunScore, RunView, SuiteView, Table, TaskView
from leaderboard.costs import COSTS, CostColumn, known
from leaderboard.drawings import curve_plot, gap_plot, pareto_plots, setting_plots
from leaderboard.examples import Drilldown, may_be_shown
from leaderboard.searches import search_view, settings_line
from leaderboard.signs import SIGNS, signs

TEMPLATES = Path(__file__).parent / "templates"

STATIC_CELLS = 500
"""Figures of a table that stand in the page itself, in whole rows and at least twenty; scripts show all rows."""

Part = Callable[[], Iterator[tuple[str, str]]]
"""Makes files: path relative to the site, and content."""

FULL_SCORES = 200
"""Up to so many scores the page of a run lists every metric; more are shown as a matrix of the main ones."""


@dataclass(frozen=True)
class Line:
    """A row of a table as a page shows it: a figure a column, None where it is missing, and which are the best."""

    row: Row
    figures: tuple[Figure | None, ...]
    best: tuple[bool, ...]

    @property
    def first(self) -> Figure | None:
        """The figure that the table is ordered by."""
        return self.figures[0]


@dataclass(frozen=True)
class TableView:
    """A table as a page shows it.

    Attributes:
        table: all numbers. data: name of its data file.
        lines: the first rows.
        costs: columns of cost that say something; usual: whether those of them that are usual are shown.
    """

    table: Table
    data: str
    lines: tuple[Line, ...]
    costs: tuple[CostColumn, ...]
    usual: bool


class Site:
    """Renders the pages of one board."""

    def __init__(self, board: Board, data_dir: Path | None = None, searches: Sequence[SearchRecord] = ()) -> None:
        """data_dir: folder of official data files, from which texts of examples are shown where they may be."""
        self.board, self.searches = board, searches
        self.drilldown = Drilldown(board, data_dir)
        self.addresses = Addresses(board)
        self.suite_of = {task.card.name: suite.name for suite in board.suites for task in suite.tasks}
        self.scripts = {language.code: language.script for language in board.languages}
        self.seeds = {run.id: run.manifest.seed for run in board.runs}
        self.places = {row: place for place, row in enumerate(board.rows)}
        self.environment = self._environment()

    def files(self) -> Iterator[tuple[str, str]]:
        """Path relative to the site -> content, one after another: all of them need not fit in memory."""
        for part in (*self.drawn(), *self.plain()):
            yield from part()

    def drawn(self) -> list[Part]:
        """Those parts of the site that have plots. Their library has threads, so that one process has to make them."""
        parts: list[Part] = []
        for suite in self.board.suites:
            parts.append(partial(self._suite, suite))
            parts += [partial(self._task, suite, task) for task in suite.tasks]
        parts += [self._searches] if self.searches else []
        return parts + [partial(self._run, run) for run in self.board.runs if run.curve]

    def plain(self) -> list[Part]:
        """All other parts, what takes long first."""
        parts: list[Part] = []
        for suite in self.board.suites:
            for task in suite.tasks:
                parts += [partial(self._examples, suite, task), partial(self._task_data, task, suite)]
        parts += [self._assets, self._data, self._first]
        parts += [partial(self._language, language) for language in self.board.languages]
        parts += [partial(self._run, run) for run in self.board.runs if not run.curve]
        return parts + [partial(self._replicates, row) for row in self.board.replicates]

    def _assets(self) -> Iterator[tuple[str, str]]:
        yield from assets().items()

    def _data(self) -> Iterator[tuple[str, str]]:
        board = self.board
        yield _file("systems", datafiles.systems(board))
        yield _file("search", datafiles.search(board, self.addresses))
        yield _file("keys", datafiles.keys(board))

    def _replicates(self, row: str) -> Iterator[tuple[str, str]]:
        yield _file(f"replicates/{row}", datafiles.replicates(self.board.replicates[row]))

    def _first(self) -> Iterator[tuple[str, str]]:
        tops = [_view(suite.overview, "", 5) for suite in self.board.suites]
        yield self._page("index.html", "index.html", tops=tops)
        yield self._page("runs.html", "runs.html")
        yield self._page("compare.html", "compare.html")

    def _searches(self) -> Iterator[tuple[str, str]]:
        views = [search_view(search, self.seeds) for search in self.searches]
        yield self._page("searches.html", "searches.html", views=views)

    def _suite(self, suite: SuiteView) -> Iterator[tuple[str, str]]:
        name, table = self.addresses.data_of_suite(suite.name), suite.overview
        view = _view(table, name, usual=True)
        yield self._page("suite.html", self.addresses.suite(suite.name), suite=suite, view=view)
        spoken = [language for task in suite.tasks for language in datafiles.spoken_in(task.by_language)]
        yield self._table_file(table, name, list(dict.fromkeys(spoken)))
        plots = pareto_plots(table, lambda row: self.system_page(row, "../../"))
        path, costs = self.addresses.cost(suite.name), known(table.rows)
        yield self._page("cost.html", path, suite=suite, plots=plots, costs=costs, table=table)

    def _task(self, suite: SuiteView, task: TaskView) -> Iterator[tuple[str, str]]:
        place = suite.name, task.card.name
        yield self._page(
            "task.html",
            self.addresses.task(*place),
            suite=suite,
            task=task,
            view=_view(task.by_language, self.addresses.data_of_task(*place)),
            metrics=_view(task.metrics, "") if len(task.metrics.columns) > 1 else None,
            gap=gap_plot(task),
            settings=setting_plots(self.board, task),
            trained=task.card.train_language,
            examples=self.drilldown.has(suite, task),
            safe_url=task.url if task.url.startswith("https://") else "",
        )

    def _task_data(self, task: TaskView, suite: SuiteView) -> Iterator[tuple[str, str]]:
        name = self.addresses.data_of_task(suite.name, task.card.name)
        yield self._table_file(task.by_language, name)
        if task.breakdowns:
            yield _file(f"{name}.errors", datafiles.errors(task))

    def _examples(self, suite: SuiteView, task: TaskView) -> Iterator[tuple[str, str]]:
        if self.drilldown.has(suite, task):
            place = suite.name, task.card.name
            index = f"examples/{self.addresses.data_of_task(*place)}/index"
            for file, content in self.drilldown.task(suite, task, index):
                yield _file(file, content)
            path, shown = self.addresses.examples(*place), may_be_shown(task.licence)
            yield self._page("examples.html", path, suite=suite, task=task, data=index, open=shown)

    def _language(self, language: LanguageView) -> Iterator[tuple[str, str]]:
        name = self.addresses.data_of_language(language.code)
        view = _view(language.table, name)
        yield self._page("language.html", self.addresses.language(language.code), language=language, view=view)
        yield self._table_file(language.table, name)

    def _run(self, run: RunView) -> Iterator[tuple[str, str]]:
        scores = run.scores  # made when asked for
        tasks: dict[tuple[str, str], dict[str, list[RunScore]]] = {}
        for score in scores:
            tasks.setdefault((score.suite, score.task), {}).setdefault(score.language, []).append(score)
        yield self._page(
            "run.html",
            self.addresses.run(run.id),
            run=run,
            manifest=run.manifest,
            groups=[(suite, task, spoken) for (suite, task), spoken in tasks.items()],
            full=len(scores) <= FULL_SCORES,
            curve=curve_plot(run),
            doubts=[(score, doubt) for score in scores for doubt in score.doubts],
            row=self.board.rows.get(run.row),
        )

    def _table_file(self, table: Table, name: str, spoken: Sequence[str] | None = None) -> tuple[str, str]:
        data = datafiles.table(table, self.places, self.addresses, self.suite_of, self.scripts, name, spoken)
        return _file(name, data)

    def _page(self, template: str, path: str, **context: object) -> tuple[str, str]:
        root = "../" * path.count("/")
        return path, self.environment.get_template(template).render(root=root, path=path, **context)

    def system_page(self, row: Row, root: str) -> str:
        """Where the name of a row leads to; "" where it has no run."""
        return f"{root}{self.addresses.run(row.runs[0])}" if row.runs and row.runs[0] in self.seeds else ""

    def score(self, figure: Figure | None, column: Column, best: bool, root: str) -> Markup:
        """A figure as a page shows it."""
        suite = self.suite_of.get(column.task, "")
        task = column.task if suite else ""
        known = figure is not None and figure.run in self.seeds
        href = root + self.addresses.run(figure.run, suite, task, column.language) if figure and known else ""
        return cells.figure(figure, column, href, best)

    def matrix(self, suite: str, task: str, spoken: Mapping[str, list[RunScore]]) -> Markup:
        """The main scores of a task of a run."""
        anchors = {language: self.addresses.anchor(suite, task, language) for language in spoken}
        return cells.matrix([score for scores in spoken.values() for score in scores if score.main], anchors)

    def _environment(self) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {
            "points": names.points,
            "share": names.share,
            "duration": names.duration,
            "size": names.size,
            "thousands": names.thousands,
            "words": names.words,
        }
        environment.globals |= {
            "board": self.board,
            "address": self.addresses,
            "system_page": self.system_page,
            "seed_of": self.seeds.get,
            "score": self.score,
            "matrix": self.matrix,
            "missing": cells.missing,
            "between": cells.between,
            "strip": cells.strip,
            "signs": signs,
            "sign_list": SIGNS,
            "note_of": datafiles.note,
            "language_name": names.language_name,
            "all_costs": COSTS,
            "has_searches": bool(self.searches),
            "settings_line": settings_line,
        }
        return environment


def _file(name: str, data: object) -> tuple[str, str]:
    return f"data/{name}.js", datafiles.script(name, data)


def _view(table: Table, data: str, rows: int | None = None, *, usual: bool = False) -> TableView:
    """A table with its first rows: as many as keep a page light."""
    most = max(20, STATIC_CELLS // len(table.columns)) if rows is None else rows
    lines = tuple(
        Line(row, table.figures(at), tuple(table.best[at].tolist())) for at, row in enumerate(table.rows[:most])
    )
    return TableView(table, data, lines, known(table.rows), usual)
