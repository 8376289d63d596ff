"""`--list`: every suite, task and language, and which of their files are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import data
from benchmarks.registry import own_suites, suites


def listing(data_dir: Path | None, task_files: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """One record a task: its card and, where it is known in which folder they are, the status of each of its files."""
    result = []
    for suite in (*suites(), *own_suites(task_files)):
        for task in suite.tasks:
            card = task.card
            record: dict[str, Any] = {
                "suite": suite.name,
                "task": card.name,
                "title": task.title,
                "kind": card.kind.value,
                "metrics": list(card.metrics),
                "languages": list(card.languages),
                "train_language": card.train_language,
                "train_languages": list(data.trainable(task)),
                "eval_split": task.eval_split,
                "licence": task.licence,
                "how_to_get": task.how_to_get,
            }
            if data.folder_of(task, data_dir) is not None:
                record["files"] = [
                    {"split": f.split, "language": f.language, "file": f.file, "found": f.found}
                    for f in data.status(task, data_dir)
                ]
            result.append(record)
    return result


def listing_table(records: list[dict[str, Any]]) -> str:
    """The listing for a person: one line a task, then every missing file."""
    lines, missing = [], []
    for record in records:
        files = record.get("files")
        found = "" if files is None else f"{sum(f['found'] for f in files)}/{len(files)}" if files else "embedded"
        languages = record["languages"]
        shown = " ".join(languages) if len(languages) <= 6 else f"{' '.join(languages[:5])} ... ({len(languages)})"
        lines.append((record["suite"], record["task"], record["kind"], record["metrics"][0], shown, found))
        absent = [f for f in files or [] if not f["found"]]
        missing.extend(_absent(record["task"], f) for f in absent)
        if absent:
            missing.append(f"    {record['how_to_get']}")
    headers = ("suite", "task", "kind", "metric", "languages", "files found")
    text = tabulate(lines, headers=headers, disable_numparse=True)
    return text + ("\n\nmissing:\n  " + "\n  ".join(missing) if missing else "")


def _absent(task: str, file: dict[str, Any]) -> str:
    places = file["file"].replace("|", " or ")  # alternatives, see `benchmarks.sources`
    return f"{task} {file['split']} {file['language']}: {places}"
