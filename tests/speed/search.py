"""`python -m tests.speed.search [--quick] [--json]`: trials per hour of a search, beside a process for each trial.

Both do the same trainings: what `harness.search` draws at random without stopping any early, and `harness.run` with
these settings, which selects on the same held-out rows and then scores one reported row. Both find the same cache,
which one earlier trial has filled. With MRPC where the official files are, else on the demo suite.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.errors import PolypromptError, run_command
from benchmarks.searches import SearchRecord
from tests.speed.ratios import interleave, ratios, spread

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
OURS, OTHER = "one search", "a process for each trial"


def program(name: str, *options: object) -> str:
    """What a program of the harness prints.

    Raises:
        PolypromptError: it failed.
    """
    words = [sys.executable, "-m", f"harness.{name}", *map(str, options)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PolypromptError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def words_of(settings: Mapping[str, object]) -> list[object]:
    """The settings of a trial on the command line of a run, but the layers, which are common to all."""
    words: list[object] = []
    for name, value in settings.items():
        if name == "prompt-layers":
            continue
        words += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", value]
    return words


def compare(layers: str, trials: int, size: int, seconds: float) -> dict[str, list[float]]:
    """Way -> seconds that so many trials took, over so many rows with the prompt in these layers, in each round."""
    rows: tuple[object, ...] = ("--suite", "demo", "--tasks", "demo-topic")
    if DATA.is_dir():
        rows = ("--suite", "glue", "--tasks", "mrpc", "--data-dir", DATA)
    with TemporaryDirectory() as folder:
        os.environ["POLYPROMPT_CACHE"] = f"{folder}/cache"
        names = iter(range(10_000))
        common = (*rows, "--max-train", size, "--epochs", 2, "--tracker", "none", "--prompt-layers", layers)
        drawn = ("--sampler", "random", "--pruner", "none", "--seeds", 0, "--side-by-side", 4, "--json")

        def search() -> str:
            return program("search", *common, *drawn, "--trials", trials, "--out", f"{folder}/{next(names)}")

        def timed(call: Callable[[], object]) -> float:
            began = time.perf_counter()
            call()
            return time.perf_counter() - began

        def alone() -> None:
            for options in calls:
                program("run", *common, "--max-eval", 1, "--out", f"{folder}/{next(names)}", *options)

        [record] = json.loads(search())  # which fills the cache, too
        calls = [words_of(trial.settings) for trial in SearchRecord.model_validate(record).trials]
        return interleave({OURS: lambda: timed(search), OTHER: lambda: timed(alone)}, seconds)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer trials and rows, one place")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    places, trials, size, seconds = ("all", "top:2"), 8, 500, 120.0
    if arguments.quick:
        places, trials, size, seconds = ("top:2",), 6, 200, 1.0
    times = {layers: compare(layers, trials, size, seconds) for layers in places}
    found = {f"{OTHER} : {OURS}, prompt in {layers}": ratios(one[OTHER], one[OURS]) for layers, one in times.items()}
    if arguments.json:
        print(json.dumps({"ratios": {name: ratio.record for name, ratio in found.items()}}, indent=1))
        return 0
    print(f"{trials} trials of two epochs over {size} rows on {len(os.sched_getaffinity(0))} cores")
    for layers, one in times.items():
        for way, taken in one.items():
            print(f"prompt in {layers}, {way}: {spread([3600 * trials / each for each in taken])} trials an hour")
    for name, ratio in found.items():
        print(f"{name}: {ratio} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
