"""The board as plain numbers: what `tables` makes of runs, and all that pages and terminal tables are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Manifest
from benchmarks.task import TaskCard

Floats = NDArray[np.float64]
Whole = NDArray[np.int32]


class Flag(IntFlag):
    """What a reader must know of a figure. Figures with a flag of `UNRANKED` have no rank."""

    LIMITED = 1  # only a part of the official split was scored
    PARTIAL = 2  # over fewer languages, tasks or seeds than it should be
    SELECTED = 4  # the epoch was chosen on the very rows that are reported
    TRAINED = 8  # trained in this language, or in several, where others are scored without having seen any of it
    DOUBT = 16  # results.json says something else; shown is what the predictions give
    UNVERIFIED = 32  # there are no predictions from which it could be computed again
    QUOTED = 64  # published by others, copied from the source that is named
    OTHER = 128  # other examples than those of most rows of the column


UNRANKED = Flag.LIMITED | Flag.PARTIAL | Flag.UNVERIFIED | Flag.QUOTED | Flag.OTHER


class Standing(Enum):
    """Where a row's numbers come from."""

    VERIFIED = "verified"  # computed again from stored predictions
    UNVERIFIED = "unverified"  # as somebody says, without predictions for at least one number
    QUOTED = "quoted"  # published by others


@dataclass(frozen=True)
class Cost:
    """What a row's numbers cost; None where it is not known. Means over the seeds.

    Attributes:
        parameters: of the backbone. trainable: parameters trained, heads included. share: of all parameters, percent.
        stored_bytes: of the files that one more trained run adds beside its backbone.
        train_seconds: of training. train_memory: the most that it held, MiB.
        latency: batch size -> how many times as long a batch of rows of 64 pieces takes as with the fastest row of the
            board that has the same backbone, by the pace that the run's export measured. Empty: not measured.
    """

    parameters: int | None = None
    trainable: int | None = None
    share: float | None = None
    stored_bytes: int | None = None
    train_seconds: float | None = None
    train_memory: int | None = None
    latency: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Runs of one configuration, their seeds joined; or numbers of others.

    Attributes:
        id: unique, fit for the name of a file and for a link; stays when other runs come or go.
        standing: where its numbers come from.
        method, backbone, prompt: what heads it; prompt may be "".
        runs: ids of its runs, by seed; empty where there are none.
        seeds: their seeds.
        cost: what it took.
        source: for numbers of others: where they were read. Else "".
        alike: another row has the same method, backbone and prompt.
        apart: in which settings it differs from such rows; "": only the run tells them apart.
    """

    id: str
    standing: Standing
    method: str
    backbone: str
    prompt: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    cost: Cost
    source: str = ""
    alike: bool = False
    apart: str = ""


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        id: unique in its table: "average", "category:NAME", the name of a task, a language code, "mean", "gap", or
            "metric:NAME".
        kind: what it is: "average", "category", "task", "language", "mean", "gap" or "metric".
        title, full: a heading, and what it stands for in words.
        note: lines of small print below the heading.
        metric: whose points these are; "" for averages over several.
        task, language: what it is of; "" where there are several.
        parts: over how many tasks (averages) or languages (tasks, means) a complete figure goes.
        chance: of the best answer that ignores the input; None where it makes no sense.
        key: place of its replicates in a row's file, see `Replicates`; None: there are none.
    """

    id: str
    kind: str
    title: str
    full: str
    note: tuple[str, ...] = ()
    metric: str = ""
    task: str = ""
    language: str = ""
    parts: int = 1
    chance: float | None = None
    key: int | None = None


@dataclass(frozen=True)
class Figure:
    """One cell of a table that is not missing.

    Attributes:
        score: in points; the mean over seeds.
        low, high: 95 % interval; None: there is none.
        rank: best and worst rank that the row may have, 1 is first; None: it is not ranked.
        group: number of the tie group, 1 holds all rows that cannot be told from the best; None: not ranked.
        parts: tasks or languages that went into it, see `Column.parts`.
        examples: labelled rows that were scored, of one seed.
        flags: what a reader must know.
        run: id of the run that it leads to; "" for numbers of others.
    """

    score: float
    low: float | None
    high: float | None
    rank: tuple[int, int] | None
    group: int | None
    parts: int
    examples: int
    flags: Flag
    run: str


_FIGURE = ("score", "low", "high", "rank_low", "rank_high", "group", "parts", "examples", "flags")


@dataclass(frozen=True, eq=False)
class Table:
    """Figures of rows by column, each kind of number in an array of its own, `[rows, columns]`.

    A million objects would take gigabytes; `figure` makes one where it is wanted.

    Attributes:
        id: unique on the board, e.g. "xtreme", "xtreme.xnli", "xtreme.xnli.metrics", "language.de".
        title, note: heading, and a sentence on what is shown.
        rows: best first; those that are not ranked behind. Quoted rows last.
        columns: as above; the first one decides the order.
        score: points; nan: missing, there is no such result.
        low, high: 95 % interval; nan: none.
        rank_low, rank_high, group: as in `Figure`; 0: not ranked.
        parts, examples, flags: as in `Figure`.
        best: the highest score among the ranked ones of the column, or another one that rounds to it.
    """

    id: str
    title: str
    note: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    score: Floats
    low: Floats
    high: Floats
    rank_low: Whole
    rank_high: Whole
    group: Whole
    parts: Whole
    examples: Whole
    flags: Whole
    best: NDArray[np.bool_]

    def figure(self, row: int, column: int) -> Figure | None:
        """The figure of a row in a column, by number; None: missing."""
        return self._figure(row, *(getattr(self, name)[row, column].item() for name in _FIGURE))

    def figures(self, row: int) -> tuple[Figure | None, ...]:
        """All figures of a row."""
        numbers = (getattr(self, name)[row].tolist() for name in _FIGURE)
        return tuple(self._figure(row, *of_column) for of_column in zip(*numbers, strict=True))

    def _figure(
        self, row: int, score: float, low: float, high: float, first: int, last: int, group: int, parts: int,
        examples: int, flags: int,
    ) -> Figure | None:  # fmt: skip
        if math.isnan(score):
            return None
        known, ranked, runs = not math.isnan(low), bool(first), self.rows[row].runs
        return Figure(
            score=score,
            low=low if known else None,
            high=high if known else None,
            rank=(first, last) if ranked else None,
            group=group if ranked else None,
            parts=parts,
            examples=examples,
            flags=Flag(flags),
            run=runs[0] if runs else "",
        )

    @cached_property
    def used(self) -> Flag:
        """Every flag that occurs in it."""
        return Flag(int(np.bitwise_or.reduce(self.flags, axis=None, initial=0)))


@dataclass(frozen=True)
class Breakdown:
    """Which errors a row makes on a task, summed over languages, for the run with the lowest seed.

    Attributes:
        row: id of the row.
        kind: "confusion": counts `[gold, given]` of labels. "types": of chunk types (entities, arguments): `[type, 3]`,
            right, given and gold. "answers": counts by outcome, `[outcome, 1]`: labels are the outcomes.
        labels: of the first axis.
        counts: as said.
    """

    row: str
    kind: str
    labels: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class TaskView:
    """A task of a suite, and what its page shows.

    Attributes:
        card: the task.
        title, licence, url: of its data; licence and url are "" for a task of somebody else.
        split: that is reported.
        by_language: rows by mean over languages, each language, and the gap between trained and other languages.
        metrics: rows by metric (mean over languages): official beside paper, exact match beside F1.
        breakdowns: by row id.
    """

    card: TaskCard
    title: str
    licence: str
    url: str
    split: str
    by_language: Table
    metrics: Table
    breakdowns: Mapping[str, Breakdown]


@dataclass(frozen=True)
class SuiteView:
    """A suite: rows by official average, categories and tasks; and its tasks.

    Attributes:
        name, title: of the suite.
        overview: the table.
        tasks: in the order of the official table, those that were scored.
        missing: names of its tasks that no run scored.
    """

    name: str
    title: str
    overview: Table
    tasks: tuple[TaskView, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class LanguageView:
    """A language: all rows that were scored in it, by task.

    Attributes:
        code, name, script: BCP-47, in English, and how it is usually written ("Latin"; "" if not known).
        table: rows by task.
    """

    code: str
    name: str
    script: str
    table: Table


@dataclass(frozen=True)
class RunScore:
    """One metric of one run on one task, language and split.

    Attributes:
        task, suite, language, split, metric: which. main: whether it is the task's main metric.
        score, chance: in points; chance None where it is not known.
        low, high: 95 % interval over the examples alone; None: there is none.
        examples, limited: as in results.json.
        predictions, sha256: the file below the run folder, and its hash; "" where there is none.
        doubts: sentences on what does not agree with results.json.
    """

    task: str
    suite: str
    language: str
    split: str
    metric: str
    main: bool
    score: float
    chance: float | None
    low: float | None
    high: float | None
    examples: int
    limited: bool
    predictions: str
    sha256: str
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """A point of the training curve: smoothed loss and share of right answers (None: not measured) after some steps."""

    step: int
    loss: float
    right: float | None


@dataclass(frozen=True)
class ExportView:
    """What the bundle of a run says about its parity and pace.

    Attributes:
        precision: of its weights. bytes: of all of its files.
        parity: engine -> task -> (score of the original, score of the export, share of equal predictions).
        milliseconds: engine -> of one measured batch.
    """

    precision: str
    bytes: int
    parity: Mapping[str, Mapping[str, tuple[float | None, float | None, float]]]
    milliseconds: Mapping[str, float]


@dataclass(frozen=True)
class RunView:
    """One run and what its page shows.

    Attributes:
        id: its name. row: id of the row that it belongs to.
        folder: where it was read from; predictions are below it.
        manifest, config: what it used, and the text of config.toml.
        seeds: seed -> run id, of its row.
        make_scores: what `scores` calls.
        curve: of training; empty: not kept.
        export: of its bundle; None: not exported.
        files: name -> sha256 of manifest.json and results.json.
        places: suite, task and language of its scores.
    """

    id: str
    row: str
    folder: Path
    manifest: Manifest
    config: str
    seeds: Mapping[int, str]
    make_scores: Callable[[], tuple[RunScore, ...]]
    curve: tuple[Point, ...]
    export: ExportView | None
    files: Mapping[str, str]
    places: frozenset[tuple[str, str, str]]

    @property
    def scores(self) -> tuple[RunScore, ...]:
        """Every metric of every cell, in the order of results.json; made anew each time, since a board has many."""
        return self.make_scores()


@dataclass(frozen=True, eq=False)
class Replicates:
    """Bootstrap replicates of one row, quantised, in the order of `Board.keys`.

    Replicate b of a column is `score + scale * values[key, b]`. Rows share the draw of examples, so the difference of
    two rows in a column is measured by the differences of their replicates, one by one.

    Attributes:
        score: `[keys]`, points; nan: the row has no such column.
        scale: `[keys]`, points a step; 0 where there is no spread.
        values: `[keys, replicates]`, -127..127.
    """

    score: Floats
    scale: Floats
    values: NDArray[np.int8]


@dataclass(frozen=True)
class Key:
    """A column that rows are compared in: suite, table and column ids, and what it stands for in words."""

    suite: str
    table: str
    column: str
    title: str


@dataclass(frozen=True, eq=False)
class Board:
    """Everything that is shown.

    Attributes:
        suites, languages, runs: in the order in which they are shown.
        rows: of all tables, by id.
        keys: of the columns that rows are compared in.
        replicates: row id -> its replicates. Quoted and unverified rows have none.
        resamples: how many replicates there are a column.
        complaints: sentences on what was left out, and on numbers that do not agree.
    """

    suites: tuple[SuiteView, ...]
    languages: tuple[LanguageView, ...]
    runs: tuple[RunView, ...]
    rows: Mapping[str, Row]
    keys: tuple[Key, ...]
    replicates: Mapping[str, Replicates]
    resamples: int
    complaints: tuple[str, ...]
