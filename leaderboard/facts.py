"""What a run cost and what its export says of itself, read from files of its folder that may be absent or broken."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leaderboard.board import Cost, ExportView, Point
from leaderboard.runs import Run

TRAINED = ("prompt.safetensors", "heads.safetensors", "readout.safetensors", "backbone.safetensors", "adapter")
"""Files and folders of a run that hold what was trained."""

LARGEST = 2**24
"""Bytes of a file of facts; a larger one is not what it says."""

BATCHES, PIECES = (1, 32), 64
"""Batches whose time is told, and the length of their rows."""


def cost_of(seeds: Sequence[Run]) -> Cost:
    """The costs of a row, means over its seeds; latency still in microseconds, see `relative_latency`."""
    known = [run.manifest for run in seeds if run.manifest is not None]
    if not known:
        return Cost()
    memory = [one.train_memory for one in known if one.train_memory is not None]
    stored = [size for run in seeds if (size := _stored(run.folder)) is not None]
    seconds = [one.train_seconds for one in known if one.train_seconds is not None]
    return Cost(
        parameters=known[0].backbone.parameters,
        trainable=known[0].trainable,
        share=known[0].share,
        stored_bytes=round(_mean(stored)) if stored else None,
        train_seconds=_mean(seconds) if len(seconds) == len(known) else None,
        train_memory=round(_mean(memory)) if memory else None,
        latency=_latency(seeds[0].folder),
    )


def relative_latency(rows: Sequence[tuple[str, Cost]]) -> list[Cost]:
    """Costs with times as multiples of the least one of the same backbone.

    Args:
        rows: backbone and costs.
    """
    least: dict[tuple[str, int], float] = {}
    for backbone, cost in rows:
        for batch, time in cost.latency.items():
            least[backbone, batch] = min(time, least.get((backbone, batch), math.inf))
    return [
        replace(cost, latency={batch: time / least[backbone, batch] for batch, time in cost.latency.items()})
        for backbone, cost in rows
    ]


def curve_of(folder: Path) -> tuple[Point, ...]:
    """The training curve; empty where it was not kept."""
    points = []
    for point in _items(_read(folder / "curve.json")):
        step, loss, right = _number(point, "step"), _number(point, "loss"), _number(point, "right")
        if step is not None and loss is not None:
            points.append(Point(int(step), loss, right))
    return tuple(points)


def export_of(folder: Path) -> ExportView | None:
    """What the bundle of a run says; None where it was not exported."""
    read = _read(folder / "export" / "bundle.json")
    if not isinstance(read, dict):
        return None
    parity, milliseconds = {}, {}
    for engine, report in _entries(read.get("parity")):
        tasks = {}
        for name, part in _entries(report.get("tasks") if isinstance(report, dict) else None):
            agreement = _number(part, "agreement")
            if agreement is not None:
                tasks[name] = (_number(part, "original"), _number(part, "score"), agreement)
        parity[engine] = tasks
        taken = _number(report, "milliseconds")
        if taken is not None:
            milliseconds[engine] = taken
    sizes = [_number(file, "bytes") for _, file in _entries(read.get("files"))]
    total = int(sum(size for size in sizes if size is not None))
    return ExportView(str(read.get("precision", "")), total, parity, milliseconds)


def _latency(folder: Path) -> dict[int, float]:
    """Microseconds of a batch by the fastest engine and form of the run's export."""
    read = _read(folder / "export" / "bundle.json")
    found: dict[int, float] = {}
    for _, report in _entries(read.get("parity") if isinstance(read, dict) else None):
        packed = report.get("packed") if isinstance(report, dict) else None
        for form in (report, packed):
            pace = form.get("pace") if isinstance(form, dict) else None
            batch, piece, place = (_number(pace, name) for name in ("batch", "piece", "place"))
            if batch is None or piece is None:
                continue
            for rows in BATCHES:
                time = batch + (piece + (place or 0.0)) * rows * PIECES
                if time > 0:
                    found[rows] = min(time, found.get(rows, math.inf))
    return found


def _stored(folder: Path) -> int | None:
    """Bytes of what was trained."""
    sizes = []
    for name in TRAINED:
        path = folder / name
        if path.is_dir():
            sizes += [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        elif path.is_file():
            sizes.append(path.stat().st_size)
    return sum(sizes) if sizes else None


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _items(read: Any) -> Iterable[Any]:
    return read if isinstance(read, list) else []


def _entries(read: Any) -> Iterable[tuple[str, Any]]:
    return read.items() if isinstance(read, dict) else ()


def _number(read: Any, name: str) -> float | None:
    value = read.get(name) if isinstance(read, Mapping) else None
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits and value is not None else None


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)
