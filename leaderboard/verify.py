"""Compute every number of a run again and sign it off: `python -m leaderboard.verify RUN`.

The record says, for each score, what results.json has and what the predictions give, and names all of it by hashes: the
files of the run, the predictions, and the code and libraries of the metrics. Nothing that was kept of earlier builds is
used. The exit status is 1 where a number or a hash does not agree.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from benchmarks.results import Results, read_model
from leaderboard.digest import code_version
from leaderboard.runs import Run, read_run

TOLERANCE = 0.0001
"""Points: results.json has four decimals."""


def verify(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Args:
        folder: of the run.

    Returns:
        "agrees", and under "mismatches" a sentence for each number or hash that does not; "numbers" with stored and
        recomputed values; "files", "predictions" and "code" as SHA-256.

    Raises:
        PolypromptError: the run cannot be read; names the file.
    """
    run = read_run(folder)
    stored = read_model(run.folder / "results.json", Results)
    numbers, mismatches = [], []
    for cell, record in enumerate(stored.records):
        place = f"{record.task}, {record.language}, {record.split}"
        found = _numbers(run, cell)
        for what, said, computed in (
            ("score", record.scores, found["scores"]),
            ("chance", record.chance, found["chance"]),
        ):
            for metric in dict.fromkeys((*said, *computed)):
                before, now = said.get(metric), computed.get(metric)
                agrees = before is not None and now is not None and abs(before - now) <= TOLERANCE
                numbers.append(
                    {
                        "task": record.task, "language": record.language, "split": record.split, "metric": metric,
                        "what": what, "stored": before, "recomputed": None if now is None else round(now, 6),
                        "agrees": agrees,
                    }
                )  # fmt: skip
                if not agrees:
                    mismatches.append(
                        f"{place}: {what} {metric} is {_text(before)} in results.json, {_text(now)} by the predictions"
                    )
        mismatches += [
            f"{place}: {doubt}" for doubt in run.digest.doubts.get(cell, ()) if "by the predictions" not in doubt
        ]
    predictions = {
        place.path: bytes(run.digest.hashes[cell]).hex() for cell, place in enumerate(run.digest.places) if place.path
    }
    return {
        "run": run.id,
        "agrees": not mismatches,
        "numbers": numbers,
        "mismatches": mismatches,
        "files": dict(run.files),
        "predictions": predictions,
        "code": code_version(),
    }


def _numbers(run: Run, cell: int) -> dict[str, dict[str, float]]:
    digest, place = run.digest, run.digest.places[cell]
    numbers = range(digest.first[cell], digest.first[cell + 1])
    pairs = list(zip(place.metrics, numbers, strict=True))
    return {
        "scores": {metric: float(digest.scores[number]) for metric, number in pairs},
        "chance": {metric: float(digest.guesses[number]) for metric, number in pairs},
    }


def _text(number: float | None) -> str:
    return "absent" if number is None else f"{number:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.verify", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--json", action="store_true", help="print the record instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record into a file")
    options = parser.parse_args(arguments)
    record = verify(options.run)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    if options.out is not None:
        if options.out.exists():
            raise PolypromptError(f"--out {options.out}: exists; a record is not written over another")
        write_atomic(options.out, text + "\n")
    if options.json:
        print(text)
    else:
        scores = [number for number in record["numbers"] if number["what"] == "score"]
        rows = [
            (one["task"], one["language"], one["split"], one["metric"], one["stored"], one["recomputed"],
             "yes" if one["agrees"] else "NO")
            for one in scores
        ]  # fmt: skip
        headings = ("task", "language", "split", "metric", "results.json", "predictions", "agrees")
        print(tabulate(rows, headings, floatfmt=".4f", missingval="absent"))
        agreeing = sum(one["agrees"] for one in record["numbers"])
        print(
            f"{record['run']}: {agreeing} of {len(record['numbers'])} numbers agree, {len(record['predictions'])} files"
        )
        print(
            f"code {record['code'][:16]}, " + ", ".join(f"{name} {one[:16]}" for name, one in record["files"].items())
        )
    for sentence in record["mismatches"]:
        print(f"differs: {sentence}", file=sys.stderr)
    return 0 if record["agrees"] else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
