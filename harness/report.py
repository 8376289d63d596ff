"""The scores of a run: records from predictions, and the table that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks.files import sha256
from benchmarks.records import Prediction
from benchmarks.results import ResultRecord, predictions_path
from benchmarks.scoring import average, chance, gap, score, signatures
from benchmarks.task import Suite, TaskCard


def make_record(
    run: Path,
    card: TaskCard,
    language: str,
    split: str,
    predictions: Sequence[Prediction],
    limited: bool,
    threshold: float | None = None,
) -> ResultRecord | None:
    """Score one file of predictions that is already on disk; None when no row of it is labelled."""
    if all(row.gold is None for row in predictions):
        return None
    path = predictions_path(card.name, language, split)
    return ResultRecord(
        task=card.name,
        suite=card.suite,
        language=language,
        split=split,
        examples=sum(row.gold is not None for row in predictions),
        limited=limited,
        scores={name: round(value, 4) for name, value in score(card, predictions, language).items()},
        chance={name: round(value, 4) for name, value in chance(card, predictions, language).items()},
        signatures=signatures(card, predictions, language),
        threshold=threshold,
        predictions=path,
        sha256=sha256(run / path),
    )


def averages_table(
    suites: Sequence[Suite], records: Sequence[ResultRecord], trained: Mapping[str, Sequence[str]]
) -> str:
    """One line an official average and a cross-lingual gap that can be had from some records; "" when none can.

    Args:
        suites, records: of a run. trained: its tasks -> the languages that they were trained in.
    """
    lines = []
    for suite in suites:
        for name, value in average(suite, records).items():
            if value is not None:
                lines.append((suite.name, name, f"{value:.1f}"))
        for task in suite.tasks:
            languages = trained.get(task.card.answered_by) or [task.card.train_language or ""]
            lost = gap(task, records, trained=languages)
            if lost is not None:
                what = f"{task.name}: lost from {' '.join(languages)} to the other languages"
                lines.append((suite.name, what, f"{lost:.1f}"))
    if not lines:
        return ""
    headers = ("suite", "average", "points")
    return tabulate(lines, headers=headers, disable_numparse=True, colalign=("left", "left", "right"))


def score_table(records: Sequence[ResultRecord]) -> str:
    """One line a task and language: main metric, chance, and the other metrics."""
    lines = []
    for record in records:
        name, value = record.main
        others = ", ".join(f"{other} {number:.1f}" for other, number in list(record.scores.items())[1:])
        size = f"{record.examples}{' *' if record.limited else ''}"
        place = (record.suite, record.task, record.language, record.split, size)
        lines.append((*place, name, f"{value:.1f}", f"{record.chance[name]:.1f}", others))
    headers = ("suite", "task", "language", "split", "rows", "metric", "score", "chance", "others")
    align = ("left",) * 4 + ("right", "left", "right", "right", "left")
    table = tabulate(lines, headers=headers, disable_numparse=True, colalign=align if lines else None)
    return table + ("\n* only a part of the split was scored" if any(record.limited for record in records) else "")
