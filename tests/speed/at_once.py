"""`python -m tests.speed.at_once [--quick] [--json]`: several seeds side by side, beside other ways to do them.

Whole commands are timed: `harness.run --seeds N`, which trains them in turns in one process, the same with
`--at-once CORES`, which takes a process for each, and a command for each seed. The prompt is in the top third of the
layers, so that all share what the layers below make of the rows; the cache is filled before. Rows are those of MRPC in
`../shared/data`, else of the embedded demo suite.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.errors import PolypromptError, run_command
from tests.speed.ratios import interleave, ratios, spread

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
OURS = "side by side"


def command(*options: object) -> None:
    """A run of the harness.

    Raises:
        PolypromptError: it failed.
    """
    words = [sys.executable, "-m", "harness.run", *map(str, options)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PolypromptError(f"{' '.join(words)}: {done.stderr.strip()}")


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and steps")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    seeds, steps, seconds = (2, 30, 1.0) if arguments.quick else (8, 200, 120.0)
    rows = ("--suite", "glue", "--tasks", "mrpc", "--data-dir", DATA) if DATA.is_dir() else ("--suite", "demo")
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory() as folder:
        os.environ["POLYPROMPT_CACHE"] = f"{folder}/cache"
        names = iter(range(10_000))
        common = (*rows, "--prompt-layers", "top:2", "--max-steps", steps, "--selection", "last", "--tracker", "none")

        def timed(calls: Sequence[Sequence[object]]) -> float:
            out = Path(folder) / f"{next(names)}"
            began = time.perf_counter()
            for options in calls:
                command(*common, "--out", out, *options)
            return time.perf_counter() - began

        timed([("--max-steps", 1)])
        ways = {
            OURS: lambda: timed([("--seeds", seeds)]),
            "at once": lambda: timed([("--seeds", seeds, "--at-once", cores)]),
            "a command each": lambda: timed([("--seed", seed) for seed in range(seeds)]),
        }
        times = interleave(ways, seconds)
    found = {f"{OURS} : {name}": ratios(taken, times[OURS]) for name, taken in times.items() if name != OURS}
    if arguments.json:
        print(json.dumps({"ratios": {name: value.record for name, value in found.items()}}, indent=1))
        return 0
    print(f"{seeds} seeds of {steps} steps on {cores} cores, in {len(times[OURS])} rounds")
    for name, taken in times.items():
        print(f"{name}: {spread(taken)} s")
    for name, ratio in found.items():
        print(f"{name}: {ratio} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
