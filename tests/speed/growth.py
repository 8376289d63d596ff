"""How time and memory of training grow with what is asked: on rows of random pieces, one thing varied at a time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind, Task, TaskCard
from harness.backbone import load_backbone
from harness.peak import PeakMemory
from tests.speed.ours import DEVICE, Ours
from tests.speed.ratios import interleave, spread
from tests.speed.rows import random_rows

BACKBONE = "minilm-l6-en"
BATCH, ROWS = 32, 64
"""Rows a step, and at least so many of all tasks together."""

AXES = {
    "pieces": (32, 64, 128, 256, 512),
    "tasks": (1, 4, 16, 32),
    "slots": (4, 16, 32, 64, 128),
    "seeds": (1, 2, 4, 8),
    "layers": (1, 2, 3, 4, 5, 6),
    "layers, the rest cached": (1, 2, 3, 4, 5),
}
"""What is varied, and its values: one after another for seeds; from the top for layers."""

QUICK = {"pieces": (32, 128), "tasks": (1, 4), "slots": (4, 64), "seeds": (1, 2), "layers": (2, 6)}

USUAL = {"pieces": 64, "tasks": 1, "slots": 16, "seeds": 1, "layers": 6}


@dataclass(frozen=True)
class Point:
    """One thing of the usual training changed.

    Attributes:
        axis: of `AXES`. value: on it.
    """

    axis: str
    value: int

    def __getitem__(self, axis: str) -> int:
        return self.value if axis == self.axis.split(",")[0] else USUAL[axis]


def trainings(point: Point) -> list[Ours]:
    """Those of a point: one for each seed."""
    backbone, made = load_backbone(BACKBONE), []
    each = max(BATCH, ROWS // point["tasks"])
    lengths = np.random.default_rng(0).integers(point["pieces"] - 4, point["pieces"] + 1, each).tolist()
    training = []
    for number in range(point["tasks"]):
        card = TaskCard(
            name=f"task{number}", suite="own", kind=Kind.CLASSIFICATION, labels=("a", "b"), metrics=("accuracy",)
        )
        task = Task(card, source=None, title="", licence="", url="", how_to_get="")
        training.append(random_rows(task, backbone, lengths, BATCH, number))
    for seed in range(point["seeds"]):
        settings = {"seed": seed, "prompt_length": point["slots"], "prompt_layers": f"top:{point['layers']}"}
        made.append(Ours(backbone, training, point.axis.endswith("cached"), **settings))
    return made


def memory(point: Point) -> int:
    """The most bytes that the trainings of a point take beyond what there was before, in a process of their own."""
    torch.set_num_threads(1)
    runs, before = trainings(point), _resident()
    peak = PeakMemory(DEVICE.torch)
    for one in runs:
        one.run()
    return peak.mib * 2**20 - before


def _resident() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 2**10


def measure(axes: dict[str, tuple[int, ...]], seconds: float) -> list[dict[str, Any]]:
    """Time and memory at each point.

    Args:
        axes: as `AXES`. seconds: for the times of an axis.

    Returns:
        Records with `axis`, `value`, `seconds` (a row, all seeds together; a spread) and `bytes`.
    """
    points = [Point(axis, value) for axis, values in axes.items() for value in values]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.speed.growth"])
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), context, max_tasks_per_child=1) as processes:
        taken = dict(zip(points, processes.map(memory, points), strict=True))
    records = []
    for axis, values in axes.items():
        runs = {value: trainings(Point(axis, value)) for value in values}
        for group in runs.values():
            group[0].run()  # to warm up
        ways = {str(v): lambda group=group: sum(one.run() for one in group) for v, group in runs.items()}
        for value, found in interleave(ways, seconds).items():
            bytes_ = taken[Point(axis, int(value))]
            records.append({"axis": axis, "value": int(value), "seconds": spread(found).record, "bytes": bytes_})
    return records


def table(records: Sequence[dict[str, Any]]) -> str:
    """For a person."""
    lines = [
        {
            "varied": record["axis"],
            "value": record["value"],
            "ms a row": 1e3 * record["seconds"]["value"],
            "low": 1e3 * record["seconds"]["low"],
            "high": 1e3 * record["seconds"]["high"],
            "MiB": record["bytes"] / 2**20,
        }
        for record in records
    ]
    return tabulate(lines, headers="keys", floatfmt=("", "", ".2f", ".2f", ".2f", ".0f"))


def figure_class() -> type:
    """What draws.

    Raises:
        PolypromptError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PolypromptError("--plot: needs matplotlib: pip install matplotlib") from None
    return Figure


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw all axes: time above, memory below."""
    axes = list(dict.fromkeys(record["axis"] for record in records))
    figure = figure_class()(figsize=(3 * len(axes), 5), layout="constrained")
    for column, places in zip(axes, figure.subplots(2, len(axes), squeeze=False).T, strict=True):
        found = [record for record in records if record["axis"] == column]
        values = [record["value"] for record in found]
        times = [[1e3 * record["seconds"][part] for record in found] for part in ("low", "value", "high")]
        places[0].fill_between(values, times[0], times[2], alpha=0.3)
        places[0].plot(values, times[1], "o-")
        places[1].plot(values, [record["bytes"] / 2**20 for record in found], "o-")
        places[1].set_xlabel(column)
        for place in places:
            place.set_ylim(bottom=0)
            place.set_xticks(values)
    first = figure.axes
    first[0].set_ylabel("ms a row")
    first[len(axes)].set_ylabel("MiB")
    figure.savefig(path)
