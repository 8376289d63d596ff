"""Golden values: what the official scorers gave for small predictions, against our metrics.

Each file of tests/golden is a list of rows: task, metric, language, gold and predicted values, groups where the task
has them, the official value in points, and the scorer that gave it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import Prediction, Value
from benchmarks.registry import find_suite, find_task
from benchmarks.scoring import score

ROWS = [
    (f"{file.stem}-{number}-{row['task']}-{row['metric']}", row)
    for file in sorted((Path(__file__).parent / "golden").glob("*.json"))
    for number, row in enumerate(json.loads(file.read_text(encoding="utf-8")))
]


def value_of(raw: str | float | list[str]) -> Value:
    return tuple(raw) if isinstance(raw, list) else raw


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=[name for name, _ in ROWS])
def test_official_value(row: dict[str, Any]) -> None:
    groups = row.get("groups") or [""] * len(row["gold"])
    predictions = [
        Prediction(str(number), value_of(predicted), value_of(gold), group=group)
        for number, (gold, predicted, group) in enumerate(zip(row["gold"], row["predicted"], groups, strict=True))
    ]
    card = find_task(row["task"]).card.model_copy(update={"metrics": (row["metric"],)})
    assert score(card, predictions, row["language"]) == {row["metric"]: pytest.approx(row["official"], abs=1e-6)}
    assert row["source"]


@pytest.mark.parametrize("suite", ["glue", "superglue"])
def test_no_metric_without_one(suite: str) -> None:
    known = {(row["task"], row["metric"]) for _, row in ROWS}
    assert {(task.name, metric) for task in find_suite(suite).tasks for metric in task.card.metrics} <= known
