"""Boards of any size without runs: what pages are drawn from, filled at random, names as hostile as wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.results import BackboneCard, Manifest, SelectionCard
from benchmarks.task import Kind, TaskCard
from leaderboard.board import (
    Board,
    Breakdown,
    Column,
    Cost,
    ExportView,
    Flag,
    Key,
    LanguageView,
    Point,
    Replicates,
    Row,
    RunScore,
    RunView,
    Standing,
    SuiteView,
    Table,
    TaskView,
)

METHODS = "ptuning-v2 prompt-tuning linear-probe bitfit lora fine-tune".split()
BACKBONES = {"xlm-roberta-base": 278_043_648, "e5-small-multilingual": 117_653_760, "xlm-roberta-large": 559_890_432}
LANGUAGES = "en de ar zh ru sw hi el es th tr ja".split()


def fake_board(
    *,
    rows: int = 12,
    tasks: int = 3,
    languages: list[str] | None = None,
    quoted: int = 1,
    name: str = "",
    resamples: int = 200,
    folder: Path = Path("runs"),
    seed: int = 7,
) -> Board:
    """A board of one suite.

    Args:
        rows, quoted: of ours and of others. tasks, languages: of the suite.
        name: is put into every text that a run or a suite may bring, as hostile as wanted.
        folder: of the runs, for what reads predictions.
    """
    languages = LANGUAGES[:8] if languages is None else languages
    rng = np.random.default_rng(seed)
    board_rows = tuple(_row(number, name, rng) for number in range(rows)) + tuple(
        Row(f"quoted-{n}", Standing.QUOTED, f"XLM-R{name}", "XLM-R-large", "", (), (), Cost(), f"Hu et al. 2020{name}")
        for n in range(quoted)
    )
    skill = rng.uniform(40, 80, rows + quoted)
    skill[::-1].sort()
    cards = [
        TaskCard(
            name=f"task{n}{name}",
            suite=f"fake{name}",
            kind=Kind.CLASSIFICATION,
            labels=(f"yes{name}", "no", "maybe"),
            languages=tuple(languages),
            metrics=("accuracy", "f1_macro"),
        )
        for n in range(tasks)
    ]
    keys: list[Key] = []
    views, means = [], []
    for card in cards:
        per = np.clip(skill[:, None] + rng.normal(0, 6, (rows + quoted, len(languages))), 5, 99)
        if rows > 3 and len(languages) > 1:
            per[3, 1] = np.nan
        mean = per.mean(axis=1)
        gap = per[:, 0] - np.nanmean(per[:, 1:], axis=1) if len(languages) > 1 else np.zeros(len(per))
        columns = [
            Column(
                "mean",
                "mean",
                "Mean",
                "mean over languages",
                (f"{len(languages)} languages",),
                "accuracy",
                card.name,
                "",
                len(languages),
                33.3,
                len(keys),
            )
        ]
        keys.append(Key(f"fake{name}", f"fake.{card.name}", "mean", f"{card.name}, mean"))
        for code in languages:
            columns.append(Column(code, "language", code, code, (), "accuracy", card.name, code, 1, 33.3, len(keys)))
            keys.append(Key(f"fake{name}", f"fake.{card.name}", code, f"{card.name}, {code}"))
        columns.append(Column("gap", "gap", "Gap", "trained language minus the others", (), "accuracy", card.name))
        scores = np.column_stack([mean, per, gap])
        by_language = _table(f"fake.{card.name}", f"Task {card.name}", board_rows, columns, scores, rng)
        metrics = _table(
            f"fake.{card.name}.metrics",
            "By metric",
            board_rows,
            [Column(f"metric:{m}", "metric", m, m, (), m, card.name, "", 1, 30.0) for m in card.metrics],
            np.column_stack([mean, mean - 3]),
            rng,
        )
        breakdowns = {
            row.id: Breakdown(row.id, "confusion", card.labels, rng.integers(0, 90, (3, 3)))
            for row in board_rows[: min(rows, 50)]
        }
        views.append(
            TaskView(
                card,
                f"Task: {card.name}",
                "CC BY 4.0",
                "https://example.org/data",
                "test",
                by_language,
                metrics,
                breakdowns,
            )
        )
        means.append(mean)
    average = np.mean(means, axis=0)
    columns = [
        Column("average", "average", "Average", "official average", (f"{tasks} tasks",), "", "", "", tasks, None)
    ]
    columns += [
        Column(
            card.name,
            "task",
            card.name,
            f"Task: {card.name}",
            ("accuracy",),
            "accuracy",
            card.name,
            "",
            len(languages),
            33.3,
            next(n for n, key in enumerate(keys) if key.title == f"{card.name}, mean"),
        )
        for card in cards
    ]
    overview = _table("fake", "Methods by task", board_rows, columns, np.column_stack([average, *means]), rng)
    suite = SuiteView(f"fake{name}", f"Fake suite{name}", overview, tuple(views), (f"absent{name}",))
    spoken = tuple(
        LanguageView(
            code,
            f"Language {code}{name}",
            ("Latin", "Arabic", "Cyrillic")[n % 3],
            _table(
                f"language.{code}",
                code,
                board_rows,
                [
                    Column(c.name, "task", c.name, c.name, ("accuracy",), "accuracy", c.name, code, 1, 33.3)
                    for c in cards
                ],
                np.column_stack([view.by_language.score[:, n + 1] for view in views]),
                rng,
            ),
        )
        for n, code in enumerate(languages)
    )
    runs = tuple(
        _run(run, row, cards, views, board_rows.index(row), name, folder) for row in board_rows for run in row.runs
    )
    scores = np.column_stack([view.by_language.score[:, : len(languages) + 1] for view in views])  # as the keys are
    replicates = {
        row.id: Replicates(
            scores[n],
            np.full(len(keys), 0.05),
            rng.integers(-127, 128, (len(keys), resamples), dtype=np.int8),
        )
        for n, row in enumerate(board_rows)
        if row.runs
    }
    return Board(
        (suite,),
        spoken,
        runs,
        {row.id: row for row in board_rows},
        tuple(keys),
        replicates,
        resamples,
        (f"left out: a broken run {name}",),
    )


def _row(number: int, name: str, rng: np.random.Generator) -> Row:
    method = METHODS[number % len(METHODS)]
    backbone = list(BACKBONES)[number // len(METHODS) % len(BACKBONES)]
    seeds = tuple(range(1 + number % 3))
    parameters = BACKBONES[backbone]
    trainable = parameters if method == "fine-tune" else int(10 ** rng.uniform(4, 6))
    cost = Cost(
        parameters,
        trainable,
        100 * trainable / parameters,
        trainable * 4 if number % 4 else None,
        float(rng.uniform(20, 4000)),
        int(rng.uniform(500, 9000)),
        {1: float(rng.uniform(1, 1.6)), 32: float(rng.uniform(1, 1.3))} if number % 2 else {},
    )
    runs = tuple(f"run{number}-s{seed}" for seed in seeds)
    prompt = f"{2 ** (2 + number // 18 % 5)} slots in layers 0-11" if "prompt" in method or "ptun" in method else ""
    return Row(f"row{number}", Standing.VERIFIED, method + name, backbone + name, prompt + name, runs, seeds, cost)


def _table(
    place: str, title: str, rows: tuple[Row, ...], columns: list[Column], score: np.ndarray, rng: np.random.Generator
) -> Table:
    ours = np.array([row.standing is Standing.VERIFIED for row in rows])[:, None]
    known = ~np.isnan(score) & ours
    half = rng.uniform(1, 4, score.shape)
    rank = np.where(known, np.argsort(np.argsort(np.where(known, -score, 999), axis=0), axis=0) + 1, 0)
    worst = np.where(known, np.minimum(rank + 2, known.sum(axis=0)), 0)
    flags = np.where(np.isnan(score) | ours, 0, int(Flag.QUOTED)) + np.where(
        known & (rng.random(score.shape) < 0.05), 2, 0
    )
    return Table(
        place,
        title,
        "The main metric of each task in points.",
        rows,
        tuple(columns),
        score,
        np.where(known, score - half, np.nan),
        np.where(known, score + half, np.nan),
        np.maximum(rank - 2, known),
        worst,
        np.where(known, (rank + 2) // 3, 0),
        np.where(known, [column.parts for column in columns], 0),
        np.where(known, 500, 0),
        flags,
        rank == 1,
    )


def _run(run: str, row: Row, cards: list[TaskCard], views: list[TaskView], at: int, name: str, folder: Path) -> RunView:
    scores = tuple(
        RunScore(
            card.name,
            card.suite,
            column.language,
            "test",
            metric,
            metric == "accuracy",
            float(view.by_language.score[at, n]),
            33.3,
            float(view.by_language.low[at, n]),
            float(view.by_language.high[at, n]),
            500,
            False,
            f"predictions/{n}.jsonl.gz",
            "ef" * 32,
            (f"accuracy is 99.9 in results.json {name}",) if at == 1 and n == 2 else (),
        )
        for card, view in zip(cards, views, strict=True)
        for n, column in enumerate(view.by_language.columns)
        if column.kind == "language" and not np.isnan(view.by_language.score[at, n])
        for metric in (card.metrics if len(views) * len(view.by_language.columns) < 60 else card.metrics[:1])
    )
    cost = row.cost
    manifest = Manifest(
        run=run,
        created="2031-05-06T07:08:09Z",
        command=f"python -m harness.run --suite fake --name '{name}'",
        code=f"0.1.0 1a2b3c4d{name}",
        packages={f"numpy{name}": "2.0.0"},
        processor=f"a processor{name}",
        precision="fp32",
        method=row.method,
        seed=row.seeds[row.runs.index(run)],
        prompt=row.prompt,
        backbone=BackboneCard(
            name=row.backbone,
            family=f"xlm-roberta{name}",
            sha256="ab" * 32,
            parameters=cost.parameters or 1,
            layers=12,
            heads=12,
            hidden=768,
        ),
        tasks=cards,
        trainable=cost.trainable or 0,
        share=cost.share or 0.0,
        selection=SelectionCard(
            rule="held-out", rows={cards[0].name: 60}, measured={"0.02": [(10, 60.0)]}, learning_rate=0.02, step=10
        ),
        data={f"data/{name}.tsv": "cd" * 32},
        limits={},
        steps=1000,
        examples_seen=32_000,
        train_seconds=cost.train_seconds or 0.0,
        evaluate_seconds=12.3,
        interruptions=0,
    )
    export = ExportView("fp16", 12_345_678, {f"onnx{name}": {cards[0].name: (61.2, 61.2, 1.0)}}, {f"onnx{name}": 12.3})
    curve = tuple(Point(step, 2 / (1 + step / 100), min(0.9, step / 900)) for step in range(0, 1000, 50))
    return RunView(
        run,
        row.id,
        folder / run,
        manifest,
        f"method = 'x'  # {name}\n",
        dict(zip(row.seeds, row.runs, strict=True)),
        lambda: scores,
        curve if at < 20 else (),
        export if at % 2 else None,
        {"manifest.json": "ab" * 32, "results.json": "cd" * 32},
        frozenset((score.suite, score.task, score.language) for score in scores),
    )
