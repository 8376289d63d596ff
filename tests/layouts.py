"""Official files and hub datasets, written for a test and read by the task they are for."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from benchmarks import data
from benchmarks.errors import DataError
from benchmarks.records import Example
from benchmarks.sources import OfficialSource
from benchmarks.task import Task

TEXT = datasets.Value("string")
INT = datasets.Value("int32")
BOM = b"\xef\xbb\xbf"

WAYS = ["plain", "gz", "crlf", "bom", "no newline at the end"]
"""How a file may come."""


def put(folder: Path, name: str, content: str | bytes, way: str = "plain") -> Path:
    """Write a file of a data folder in one of the `WAYS`."""
    raw = content if isinstance(content, bytes) else content.encode()
    path = folder / (f"{name}.gz" if way == "gz" else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if way == "crlf":
        raw = raw.replace(b"\n", b"\r\n")
    elif way == "bom":
        raw = BOM + raw
    elif way == "no newline at the end":
        raw = raw.removesuffix(b"\n")
    path.write_bytes(gzip.compress(raw) if way == "gz" else raw)
    return path


def load(task: Task, split: str, folder: Path) -> tuple[Example, ...]:
    """The rows of an English split."""
    return data.load(task, split, "en", folder).examples


def refused(task: Task, split: str, folder: Path) -> str:
    """The one sentence with which a split is refused."""
    with pytest.raises(DataError) as error:
        load(task, split, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def from_hub(
    task: Task,
    split: str,
    folder: Path,
    place: tuple[str, str, str],
    schema: dict[str, Any],
    rows: list[dict[str, Any]],
) -> tuple[Example, ...]:
    """Read a split from a folder that is laid out like the hub's dataset.

    Args:
        task, split: what is read.
        folder: for the dataset and the cache of `datasets`.
        place: the dataset, configuration and split that the task must ask for.
        schema: the features that the dataset has there.
        rows: its rows.
    """
    assert isinstance(task.source, OfficialSource)
    part = task.source.splits[split]
    assert part.hub is not None
    dataset, config, there = place
    assert (part.hub.dataset, part.hub.config) == (dataset, config)
    there_file = folder / dataset / config / f"{there}.parquet"
    datasets.Dataset.from_list(rows, features=datasets.Features(schema)).to_parquet(there_file)
    (folder / dataset / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n"
        f"  - split: {there}\n    path: {config}/{there}.parquet\n---\n"
    )
    local = replace(part, hub=replace(part.hub, dataset=str(folder / dataset)))
    source = replace(task.source, splits={**task.source.splits, split: local})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        datasets.disable_progress_bars()
        try:
            return data.load(replace(task, source=source), split, "en", None).examples
        finally:
            datasets.enable_progress_bars()
