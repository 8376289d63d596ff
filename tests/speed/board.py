"""The leaderboard of a million scores: `python -m tests.speed.board FOLDER` makes 2,000 runs and builds their board.

Each run has 12 tasks in 40 languages and real predictions, 200 rows a task and language. Its files are hard links to a
pool of drawn systems, and its digest is put together from those of the pool: to compute each anew takes a while, which
`--cold N` measures on the first N runs without any memory. What is then timed is the build where all digests are known,
as after one more run. `--site` builds the whole site as well, twice, and opens its first pages in Chromium. `--said`
makes 2,000 results from elsewhere in their place, a million scores without predictions, and builds their site anew.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.files import sha256
from benchmarks.records import Prediction
from benchmarks.results import BackboneCard, Manifest, ResultRecord, Results, _line, read_model
from benchmarks.task import Kind, TaskCard
from leaderboard import digest, runs

TASKS, LANGUAGES, ROWS, POOL = 12, 40, 200, 8
CODES = (
    "en ar bg bn cs da de el es et eu fa fi fr gu ha he hi hu id it ja jv ka kk ko ml mr ms my nl pa pl pt ro ru sw ta "
    "te th"
).split()
LABELS = ("a", "b", "c")


def cards() -> list[TaskCard]:
    """The tasks."""
    return [
        TaskCard(name=f"task-{number:02}", suite="scale", kind=Kind.CLASSIFICATION, labels=LABELS,
                 languages=tuple(CODES), metrics=("accuracy",))
        for number in range(TASKS)
    ]  # fmt: skip


def drawn(task: str, language: str, system: int) -> list[Prediction]:
    """Predictions of a system of the pool; the examples are the same for all, and some are harder."""
    seed = int.from_bytes(f"{task}{language}".encode()[-7:], "big")
    shared = np.random.default_rng(seed)
    gold, ease = shared.integers(0, 3, ROWS), shared.normal(0, 1, ROWS)
    own = np.random.default_rng([seed, system])
    right = own.random(ROWS) < 1 / (1 + np.exp(-(ease + 0.5 + 0.2 * system)))
    other = (gold + own.integers(1, 3, ROWS)) % 3
    given = np.where(right, gold, other)
    return [
        Prediction(f"{language}-{number}", LABELS[value], LABELS[wanted], (0.5, 0.3, 0.2))
        for number, (value, wanted) in enumerate(zip(given, gold, strict=True))
    ]


def make_pool(folder: Path) -> dict[tuple[str, str, int], tuple[Path, ResultRecord]]:
    """Predictions of all systems, and their records."""
    folder.mkdir(parents=True)
    found = {}
    for card in cards():
        for language in card.languages:
            for system in range(POOL):
                path = folder / f"{card.name}.{language}.{system}.jsonl.gz"
                rows = drawn(card.name, language, system)
                lines = "".join(json.dumps(_line(row)) + "\n" for row in rows)
                path.write_bytes(gzip.compress(lines.encode(), 1, mtime=0))  # thousands of synced writes take minutes
                right = 100 * sum(row.value == row.gold for row in rows) / ROWS
                often = max(sum(row.gold == label for row in rows) for label in LABELS)
                record = ResultRecord(
                    task=card.name, suite="scale", language=language, split="test", examples=ROWS,
                    scores={"accuracy": round(right, 4)}, chance={"accuracy": 100 * often / ROWS},
                    predictions=f"predictions/{card.name}.{language}.test.jsonl.gz", sha256=sha256(path),
                )  # fmt: skip
                found[card.name, language, system] = path, record
    return found


def make_run(folder: Path, number: int, pool: dict[tuple[str, str, int], tuple[Path, ResultRecord]]) -> None:
    """A run folder whose files are links to those of the pool."""
    (folder / "predictions").mkdir(parents=True)
    found = []
    for place, (task, language) in enumerate((card.name, language) for card in cards() for language in card.languages):
        path, record = pool[task, language, (number * 7 + place * (1 + number % 5)) % POOL]
        os.link(path, folder / record.predictions)
        found.append(record)
    backbone = BackboneCard(
        name=f"encoder-{number % 20}", family="bert", sha256="ab" * 32, parameters=10**8 * (1 + number % 20), layers=12,
        heads=12, hidden=768,
    )  # fmt: skip
    method = ("ptuning-v2", "prompt-tuning", "linear-probe", "fine-tune", "bitfit", "lora")[number % 6]
    manifest = Manifest(
        run=folder.name, created="2031-05-06T07:08:09Z", command="python -m harness.run", code="0.1.0", packages={},
        processor="a processor", precision="fp32", method=method, seed=0, prompt=f"{number} slots", backbone=backbone,
        tasks=cards(), trainable=10_000 + number, share=0.1, data={}, limits={}, steps=1, examples_seen=1,
        train_seconds=100.0 + number, evaluate_seconds=1.0, interruptions=0,
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    head = {"schema_name": "polyprompt-results", "version": 2, "run": folder.name, "method": method, "seed": 0}
    records = ",".join(_text(record) for record in found)
    (folder / "results.json").write_text(
        f'{json.dumps(head | {"backbone": backbone.name})[:-1]}, "records": [{records}]}}'
    )


_TEXTS: dict[int, str] = {}


def _text(record: ResultRecord) -> str:
    return _TEXTS.setdefault(id(record), record.model_dump_json())


def generate(folder: Path, count: int) -> None:
    """Make the runs."""
    pool = make_pool(folder / "pool")
    for number in range(count):
        make_run(folder / "runs" / f"run-{number:04}", number, pool)
    time.sleep(2.5)  # else files are too young for their times to be believed


def say(folder: Path, count: int) -> None:
    """Write results from elsewhere, each of another encoder, with scores that nothing stands behind."""
    folder.mkdir(parents=True)
    asked = [(card.name, language) for card in cards() for language in card.languages]
    for number in range(count):
        drawn = np.random.default_rng(number).uniform(30, 90, len(asked)).round(2)
        records = [
            ResultRecord(task=task, suite="scale", language=language, split="test", examples=ROWS,
                         scores={"accuracy": float(score)})
            for (task, language), score in zip(asked, drawn, strict=True)
        ]  # fmt: skip
        results = Results(
            run=f"said-{number:04}", method=("ptuning-v2", "lora", "fine-tune")[number % 3], seed=0, source="drawn",
            backbone=f"encoder-{number}", tasks=cards(), records=records,
        )  # fmt: skip
        (folder / f"said-{number:04}.json").write_text(results.model_dump_json())


def keep_digests(folder: Path) -> None:
    """Keep what the board computes of each run; of files that are one on the disk it is computed once."""
    by_name = {card.name: card for card in cards()}
    guess = digest.remembered_chance()
    cells: dict[int, digest._Cell] = {}

    def make(place: Path) -> digest.Digest:
        found = []
        for record in read_model(place / "results.json", Results).records:
            file = (place / record.predictions).stat().st_ino
            if file not in cells:
                cells[file] = digest._cell(place, record, by_name[record.task], guess)
            found.append(cells[file])
        return digest._stacked(found)

    with runs._memory() as memory:
        for place in sorted((folder / "runs").resolve().iterdir()):
            files = {name: sha256(place / name) for name in ("manifest.json", "results.json")}
            memory.digest(place, files, partial(make, place))


MEASURED = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from leaderboard.tables import make_board
board = make_board([Path(sys.argv[1])])
taken, busy = time.perf_counter() - began, time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
tables = [task.by_language for suite in board.suites for task in suite.tasks]
figures = sum(int((table.score == table.score).sum()) for table in tables)
print(f"board: {len(board.runs)} runs, {figures:,} figures, {board.resamples} replicates kept", end=", ")
print(f"{taken:.1f} s, {busy:.1f} s of processor time, {peak:,.0f} MiB")
"""


def main() -> None:
    """Generate where nothing is there yet, then build the numbers and the whole site, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--cold", type=int, default=0, help="also compute so many runs without any memory")
    parser.add_argument("--site", action="store_true", help="also build the whole site")
    parser.add_argument("--memory", action="store_true", help="build the site and watch all processes")
    parser.add_argument("--said", action="store_true", help="build the site of results without predictions alone")
    options = parser.parse_args()
    if options.said:
        os.environ["POLYPROMPT_CACHE"] = "off"
        if not (options.folder / "said").exists():
            say(options.folder / "said", options.runs)
        asked = ["-m", "leaderboard.build", "--results", str(options.folder / "said")]
        began = time.perf_counter()
        peak = most_memory([sys.executable, *asked, "--out", str(options.folder / "said-site")])
        print(f"said: {time.perf_counter() - began:.1f} s, at most {peak:,.0f} MiB in all processes")
        return
    command = ["-m", "leaderboard.build", str(options.folder / "runs"), "--out", str(options.folder / "site")]
    os.environ["POLYPROMPT_CACHE"] = str(options.folder / "cache")
    if not (options.folder / "runs").exists():
        began = time.perf_counter()
        generate(options.folder, options.runs)
        print(f"generated in {time.perf_counter() - began:.0f} s")
    kept = options.folder / "code"
    if not kept.exists() or kept.read_text() != digest.code_version():
        began = time.perf_counter()
        keep_digests(options.folder)
        kept.write_text(digest.code_version())
        print(f"digests kept in {time.perf_counter() - began:.0f} s")
    subprocess.run([sys.executable, "-c", MEASURED, str(options.folder / "runs")], check=True)
    if options.cold:
        os.environ["POLYPROMPT_CACHE"] = "off"
        began = time.perf_counter()
        for number in range(options.cold):
            runs.read_run(options.folder / "runs" / f"run-{number:04}")
        each = (time.perf_counter() - began) / options.cold
        print(f"without memory: {each:.2f} s a run of {TASKS * LANGUAGES} files, 2,000 runs {each / 0.03:.0f} minutes")
        os.environ["POLYPROMPT_CACHE"] = str(options.folder / "cache")
    if options.site:
        for what in ("site", "site again"):
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True)
            print(f"{what}: {time.perf_counter() - began:.1f} s", flush=True)
        open_pages(options.folder / "site")
    if options.memory:
        peak = most_memory([sys.executable, *command])
        print(f"at most {peak:,.0f} MiB in all processes")


def most_memory(command: list[str]) -> float:
    """The most that a command and its processes had at a time, pages that they share counted once, MiB."""
    peak = 0.0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(1)  # to look holds the process up
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def _memory(process: int) -> float:
    try:
        here = Path(f"/proc/{process}")
        rollup = (here / "smaps_rollup").read_text().splitlines()
        own = sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
        children = (here / f"task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return 0.0
    return own + sum(_memory(int(child)) for child in children)


def open_pages(site: Path) -> None:
    """Print how long pages take from the request until a reader can use them: search, sort, filter."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("POLYPROMPT_CHROMIUM") or shutil.which("chromium")
    ready = {
        "index.html": ".find:not([hidden])",
        "suites/scale/index.html": "table[data-ready]",
        "tasks/scale.task-00/index.html": "table[data-ready]",
    }
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for path, selector in ready.items():
            taken = []
            for _ in range(5):
                context = browser.new_context()
                page = context.new_page()
                began = time.perf_counter()
                page.goto(f"{site.resolve().as_uri()}/{path}", wait_until="commit")
                page.wait_for_selector(selector)
                taken.append(time.perf_counter() - began)
                context.close()
            print(f"{path}: usable after {statistics.median(taken):.2f} s, at most {max(taken):.2f} s")
        browser.close()


if __name__ == "__main__":
    main()
