"""`python -m tests.speed.read_data --data-dir DIR`: how long reading the rows of each task takes.

Each task is read three times, in a process of its own each time: without a cache, into an empty cache, and from that
cache. All splits are held in memory, as in a run. Seconds are of the clock, without the start of Python; memory is the
most that the process ever had (getrusage). The disk's own cache is not emptied. With `--tokenizer FILE` the rows are
tokenized too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabulate import tabulate

from benchmarks import data
from benchmarks.choice import chosen_tasks, comma_list
from benchmarks.errors import PolypromptError, run_command
from benchmarks.progress import bar
from benchmarks.registry import find_task
from benchmarks.task import Task

WAYS = ("parsed", "stored", "cached")
"""Without a cache; into an empty one; from it."""

MAX_POSITIONS = 512


def present(task: Task, data_dir: Path) -> list[tuple[str, str]]:
    """The splits and languages whose files are there."""
    return [
        (split, language)
        for split in ("train", "dev", "test")
        for language in data.languages(task, split, data_dir)
        if task.source.files(split, language)
    ]


def read(task: Task, data_dir: Path, tokenizer: Path | None) -> dict[str, Any]:
    """Read all of a task in this process."""
    encoder = None
    if tokenizer is not None:
        from tokenizers import Tokenizer

        from harness.feature_cache import CachedEncoder

        encoder = CachedEncoder(Tokenizer.from_file(str(tokenizer)), 0, False, MAX_POSITIONS)
    held: list[object] = []
    refused: list[str] = []
    rows, reading, tokenizing = 0, 0.0, 0.0
    for split, language in present(task, data_dir):
        began = time.perf_counter()
        try:
            loaded = data.load(task, split, language, data_dir)
        except PolypromptError as error:
            refused.append(str(error))
            continue
        reading += time.perf_counter() - began
        rows += len(loaded.examples)
        held.append(loaded)
        if encoder is not None:
            began = time.perf_counter()
            held.append(encoder.features(task.card, loaded.examples))
            tokenizing += time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"rows": rows, "read": reading, "tokenized": tokenizing, "mebibytes": memory, "refused": refused}


def measure(task: Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """Read a task in each of the ways."""
    program = [sys.executable, "-m", "tests.speed.read_data"]
    command = [*program, "--data-dir", str(arguments.data_dir), "--read", task.name]
    if arguments.tokenizer:
        command += ["--tokenizer", str(arguments.tokenizer)]
    result: dict[str, Any] = {"suite": task.card.suite, "task": task.name}
    with TemporaryDirectory() as folder:
        for way in WAYS:
            environment = {**os.environ, "POLYPROMPT_CACHE": "off" if way == "parsed" else folder}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise PolypromptError(f"{task.name} could not be read: {' '.join(command)}")
            result[way] = json.loads(done.stdout)
        result["cache_mebibytes"] = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    rows = {way: result[way].pop("rows") for way in WAYS}
    if len(set(rows.values())) != 1:
        raise PolypromptError(f"{task.name}: the cache changes the number of rows: {rows}")
    return result | {"rows": rows["parsed"], "refused": result["parsed"]["refused"]}


def table(results: list[dict[str, Any]], steps: list[str]) -> str:
    """The measurements for a person, with a line of sums."""

    def line(name: tuple[str, str], parts: list[dict[str, Any]]) -> list[object]:
        cells: list[object] = [*name, sum(part["rows"] for part in parts)]
        for step in steps:
            seconds = [sum(part[way][step] for part in parts) for way in WAYS]
            cells += [*seconds, seconds[0] / seconds[2] if seconds[2] else None]
        cells += [max(part[way]["mebibytes"] for part in parts) for way in ("parsed", "cached")]
        return [*cells, sum(part["cache_mebibytes"] for part in parts)]

    lines = [line((result["suite"], result["task"]), [result]) for result in results]
    lines.append(line(("all", "(memory: most)"), results))
    names = {"read": "", "tokenized": "tok. "}
    timed = [f"{names[step]}{what}" for step in steps for what in ("parsed s", "stored s", "cached s", "ratio")]
    headers = ["suite", "task", "rows", *timed, "parsed MiB", "cached MiB", "cache MiB"]
    formats = ("", "", ",d", *(".3f", ".3f", ".3f", ".1f") * len(steps), ".0f", ".0f", ".1f")
    return tabulate(lines, headers=[name.replace("tok. parsed", "tokenized") for name in headers], floatfmt=formats)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the official files")
    parser.add_argument("--suite", type=comma_list, default=[], help="only these suites, separated by commas")
    parser.add_argument("--tasks", type=comma_list, default=[], help="only these of their tasks")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json: tokenize the rows too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--read", metavar="TASK", help=argparse.SUPPRESS)  # the process that is measured
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(find_task(arguments.read), arguments.data_dir, arguments.tokenizer)))
        return 0
    if arguments.tokenizer and not arguments.tokenizer.is_file():
        raise PolypromptError(f"--tokenizer {arguments.tokenizer}: no such file; name a tokenizer.json")
    tasks = [task for task in chosen_tasks(arguments.suite, arguments.tasks) if present(task, arguments.data_dir)]
    if not tasks:
        raise PolypromptError(f"--data-dir {arguments.data_dir}: no files of these tasks there")
    results = []
    with bar("reading", len(tasks)) as begin:
        for task in tasks:
            begin(task.name)
            results.append(measure(task, arguments))
    if arguments.json:
        print(json.dumps(results, indent=1))
        return 0
    print(table(results, ["read", "tokenized"] if arguments.tokenizer else ["read"]))
    for result in results:
        for error in result["refused"]:
            print(f"not read: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
