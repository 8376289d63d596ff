"""Numbers that others published, as rows of their own: those of the task declarations and of `quoted.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.task import Suite
from leaderboard.board import Cost, Row, Standing

FILE = Path(__file__).parent / "quoted.toml"


@dataclass(frozen=True)
class Quote:
    """A row of numbers of one system from one source.

    Attributes:
        row: what heads it. values: (task, metric) -> points.
    """

    row: Row
    values: Mapping[tuple[str, str], float]


def quotes(suites: Sequence[Suite]) -> list[Quote]:
    """What is known of some suites, on the splits that these report.

    Args:
        suites: those that are shown.
    """
    found: dict[tuple[str, str, str], dict[tuple[str, str], float]] = {}
    names = {suite.name for suite in suites}
    for suite in suites:
        for task in suite.tasks:
            for number in task.published:
                if number.split == task.eval_split:
                    place = number.system, number.backbone, number.source
                    found.setdefault(place, {})[task.name, number.metric] = number.value
    for table in tomllib.loads(FILE.read_text(encoding="utf-8"))["table"]:
        if table["suite"] in names:
            place = table["system"], table["backbone"], table["source"]
            for task, metrics in table["scores"].items():
                for metric, value in metrics.items():
                    found.setdefault(place, {}).setdefault((task, metric), float(value))
    return [Quote(_row(*place), values) for place, values in found.items()]


def _row(system: str, backbone: str, source: str) -> Row:
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{system} {backbone} {source}").strip("-").lower()[:150]
    return Row(
        id=f"quoted-{name}", standing=Standing.QUOTED, method=system, backbone=backbone, prompt="", runs=(), seeds=(),
        cost=Cost(), source=source,
    )  # fmt: skip
