"""`python -m benchmarks.check --data-dir DIR`: whether the files of a data folder are the official ones.

Each file that a task reads is compared with benchmarks/data.lock. The exit status is 1 when a file differs, 0 when none
does; missing files are listed and are no failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from tabulate import tabulate

from benchmarks.choice import chosen_tasks, comma_list, split_places
from benchmarks.errors import PolypromptError, run_command
from benchmarks.fingerprint import difference
from benchmarks.lock import LOCK, Lock, content, found, official_name, read_lock, stands_for
from benchmarks.progress import bar
from benchmarks.task import Task


class Verdict(StrEnum):
    """What became of a file."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNLOCKED = "not in the lock"
    MISSING = "missing"


@dataclass(frozen=True)
class FileReport:
    """What was found out about an official file.

    Attributes:
        file: its path in the official layout; where it is missing as the task names it, alternatives divided by "|".
        path: where it was found; None when it is missing.
        verdict: see `Verdict`.
        line: the first line that differs, see `benchmarks.fingerprint.Difference`; None unless it differs.
        note: where it differs and what is known of the original; empty otherwise.
    """

    file: str
    path: str | None
    verdict: Verdict
    line: int | None = None
    note: str = ""


@dataclass(frozen=True)
class TaskReport:
    """The files of a task.

    Attributes:
        suite, task, licence, url, how_to_get: as declared.
        redistribution: whether the files may be passed on, see `benchmarks.lock.Dataset`.
        files: each once, in the order train, dev, test.
    """

    suite: str
    task: str
    licence: str
    redistribution: str
    url: str
    how_to_get: str
    files: list[FileReport]


def check(tasks: Sequence[Task], data_dir: Path, lock: Lock) -> list[TaskReport]:
    """Compare the files of a folder with the lock.

    Args:
        tasks: whose files; tasks that generate their rows are left out.
        data_dir: folder with the official files.
        lock: what they should be.
    """
    files = {task.name: list(dict.fromkeys(f for place in split_places(task) for f in place.files)) for task in tasks}
    reports: dict[str, list[FileReport]] = {}  # some tasks read one file: it is looked at once
    distinct = list(dict.fromkeys(file for of_task in files.values() for file in of_task))
    with bar("checking", len(distinct)) as step:
        for file in distinct:
            step(file)
            reports[file] = _checked(file, data_dir, lock)
    return [
        TaskReport(
            suite=task.card.suite,
            task=task.name,
            licence=task.licence,
            redistribution=lock.datasets[task.name].redistribution if task.name in lock.datasets else "unclear",
            url=task.url,
            how_to_get=task.how_to_get,
            files=[report for file in files[task.name] for report in reports[file]],
        )
        for task in tasks
        if files[task.name]
    ]


def _checked(file: str, data_dir: Path, lock: Lock) -> list[FileReport]:
    """A file, or each of those that a pattern stands for."""
    paths = {official_name(data_dir, path): path for path in found(data_dir, file)}
    reports = [_compared(file, name, path, lock) for name, path in paths.items()]
    if "*" in file:
        absent = sorted({name for dataset in lock.datasets.values() for name in dataset.files} - paths.keys())
        reports += [FileReport(name, None, Verdict.MISSING) for name in absent if stands_for(file, name)]
    return reports or [FileReport(file, None, Verdict.MISSING)]


def _compared(file: str, name: str, path: Path, lock: Lock) -> FileReport:
    known = lock.find([name, *file.split("|")])
    if known is None:
        return FileReport(name, str(path), Verdict.UNLOCKED)
    dataset, original = known
    locked = dataset.files[original]
    try:
        raw = content(path)
    except (OSError, EOFError, zlib.error) as error:
        return FileReport(name, str(path), Verdict.DIFFERS, 1, f"it cannot be read ({error}); fetch it again")
    if hashlib.sha256(raw).hexdigest() == locked.sha256:
        return FileReport(name, str(path), Verdict.AGREES)
    where = difference(locked.fingerprint, raw)
    rebuilt = dataset.rebuilt(original)
    note = f"{where.text} (the lock knows no official bytes of it: {rebuilt})" if rebuilt else where.text
    return FileReport(name, str(path), Verdict.DIFFERS, where.line, note)


def table(reports: Sequence[TaskReport]) -> str:
    """The reports for a person: a line a task, then each file that is not as it should be."""
    lines = []
    for report in reports:
        counts = Counter(file.verdict for file in report.files)
        shown = [counts[verdict] or "" for verdict in Verdict]
        lines.append((report.suite, report.task, *shown, report.redistribution, report.licence))
    headers = ("suite", "task", *(verdict.value for verdict in Verdict), "may be passed on", "licence")
    parts = [tabulate(lines, headers=headers, maxheadercolwidths=10, disable_numparse=True)]
    files = [file for report in reports for file in report.files]
    differing = [f"{file.path}: {file.note}" for file in files if file.verdict is Verdict.DIFFERS]
    unlocked = [f"{file.path}" for file in files if file.verdict is Verdict.UNLOCKED]
    parts.append(_section("differs:", differing))
    parts.append(_section("there, but not in the lock:", unlocked))
    missing: dict[str, list[str]] = {}  # how to get files -> these files
    for report in reports:
        absent = [file.file.replace("|", " or ") for file in report.files if file.verdict is Verdict.MISSING]
        missing.setdefault(report.how_to_get, []).extend(f"{report.task}: {file}" for file in absent)
    lists = [line for advice, absent in missing.items() if absent for line in [*absent, f"    {advice}"]]
    return "\n\n".join(part for part in [*parts, _section("missing:", lists)] if part)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n  ".join([title, *dict.fromkeys(lines)]) if lines else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="folder with the official files")
    parser.add_argument("--suite", type=comma_list, default=[], metavar="S", help="suites to check (default: all)")
    parser.add_argument("--tasks", type=comma_list, default=[], metavar="T", help="a part of their tasks")
    parser.add_argument("--lock", type=Path, default=LOCK, metavar="FILE", help="the lock (default: the package's own)")
    parser.add_argument("--json", action="store_true", help="say it as JSON, a record a task")
    options = parser.parse_args(arguments)
    tasks = chosen_tasks(options.suite, options.tasks)
    if not options.data_dir.is_dir():
        raise PolypromptError(f"--data-dir {options.data_dir}: no such folder")
    reports = check(tasks, options.data_dir, read_lock(options.lock))
    if options.json:
        print(json.dumps([asdict(report) for report in reports], ensure_ascii=False, indent=2))
    else:
        print(table(reports))
    return 1 if any(file.verdict is Verdict.DIFFERS for report in reports for file in report.files) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
