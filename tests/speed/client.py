"""`python -m tests.speed.client [--quick] [--json]`: `polyprompt-predict` beside `python -m exporters.predict`.

start: one question, the whole command. text to label: rows of SST-2 and XNLI as JSON lines, the whole command less what
one question takes. Both programs answer the same rows of the same bundle in the same engine, in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Example
from benchmarks.registry import find_task
from exporters.engines import ENGINES
from exporters.precision import Precision
from exporters.tokenizer import add_tokenizer
from harness.backbone import load_backbone
from harness.screen import Screen
from tests.native.parity import find_client
from tests.speed.exported import bundle_of, prompted
from tests.speed.native import LARGE, SMALL, real_rows
from tests.speed.ratios import Spread, interleave, ratios, spread

TASKS = {"sst2": "dev", "xnli": "dev"}
TEXTS, QUICK_TEXTS = 2000, 300


def seconds_of(command: Sequence[object]) -> float:
    """Of a program.

    Raises:
        PolypromptError: it failed; says what it said.
    """
    began = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PolypromptError(f"{command[0]}: {done.stderr.strip()}")
    return time.perf_counter() - began


def lines_of(task: str, rows: Sequence[Example]) -> str:
    """JSON lines."""
    found = ({"task": task, "id": row.id, "text": row.text, "text_pair": row.text_pair} for row in rows)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found)


def measured(backbone: str, client: str, engines: Sequence[str], count: int, seconds: float) -> dict[str, Spread]:
    """How many times as fast the client is, and its own seconds."""
    found: dict[str, Spread] = {}
    rows = real_rows(TASKS, count)
    if not rows:
        raise PolypromptError("no rows are there; the official files may lie in ../shared/data")
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        tasks = [find_task(name).card for name in rows]
        card = bundle_of(prompted(load_backbone(backbone), tasks), tasks, bundle, Precision.FP32)
        add_tokenizer(bundle)
        for engine in (one for one in engines if one in card.parity):
            ways = {}
            for name, some in rows.items():
                for part, examples in (("one", some[:1]), ("all", some)):
                    path = Path(folder) / f"{name}.{part}"
                    path.write_text(lines_of(name, examples), encoding="utf-8")
                    options = [bundle, "--engine", engine, "--jsonl", path]
                    ways[f"client {name} {part}"] = partial(seconds_of, [client, *options])
                    ways[f"python {name} {part}"] = partial(
                        seconds_of, [sys.executable, "-m", "exporters.predict", *options]
                    )
            interleave(ways, 0)  # hashes are remembered, files are in memory
            times = interleave(ways, seconds, least=3)
            first = next(iter(rows))
            start = [times[f"{program} {first} one"] for program in ("python", "client")]
            found[f"{engine}, start, client, s"] = spread(start[1])
            found[f"{engine}, start, python : client"] = ratios(*start)
            for name, some in rows.items():
                both = []
                for program in ("python", "client"):
                    whole, one = times[f"{program} {name} all"], times[f"{program} {name} one"]
                    both.append([(a - b) / (len(some) - 1) for a, b in zip(whole, one, strict=True)])
                found[f"{engine}, {name}, client, rows a second"] = spread([1 / value for value in both[1]])
                found[f"{engine}, {name}, python : client"] = ratios(*both)
            Screen().say(f"{engine}: done")
    return found


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small encoder, fewer rows and rounds")
    parser.add_argument("--engine", choices=ENGINES, help="one alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    client = find_client()
    if client is None:
        raise PolypromptError("polyprompt-predict is not installed; POLYPROMPT_CLIENT may name it")
    torch.manual_seed(0)
    engines = [options.engine] if options.engine else ENGINES
    count, seconds = (QUICK_TEXTS, 10.0) if options.quick else (TEXTS, 60.0)
    found = measured(SMALL if options.quick else LARGE, client, engines, count, seconds)
    if options.json:
        print(json.dumps({name: one.record for name, one in found.items()}, indent=1))
    else:
        print(tabulate([(name, str(one)) for name, one in found.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
