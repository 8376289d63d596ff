"""`python -m leaderboard.build RUNS... --out site/`: from run folders to a static site that opens from disk."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from leaderboard.collect import collect, entries
from leaderboard.site import render

COPIED = ("manifest.json", "results.json")
"""Files of a run that the site carries as they are, so that a number can be followed to its source."""


@dataclass(frozen=True)
class Report:
    """What was built.

    Attributes:
        page: the first page.
        runs: ids of the runs on it.
        rows: of the board: configurations, their seeds joined.
        complaints: sentences on runs that were left out, and on numbers that do not agree with what a run says.
    """

    page: str
    runs: list[str]
    rows: int
    complaints: list[str]


def build(paths: Sequence[Path], out: Path) -> Report:
    """Build the site.

    Args:
        paths: run folders, or folders that hold run folders.
        out: folder of the site; files of an earlier build are replaced.

    Raises:
        PolypromptError: no usable run, or the site would be written over the runs.
    """
    complaints: list[str] = []
    runs = collect(paths, complaints.append)
    for run in runs:
        if (out / "runs" / run.id).resolve() == run.folder:
            raise PolypromptError(f"--out {out}: the pages would go into the run folder {run.folder}; name another")
    rows = entries(runs, complaints.append)
    for name, text in render(runs, rows).items():
        write_atomic(out / name, text)
    for run in runs:
        for name in COPIED:
            write_atomic(out / "runs" / run.id / name, (run.folder / name).read_bytes())
    return Report(str(out / "index.html"), [run.id for run in runs], len(rows), complaints)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.build", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the site")
    parser.add_argument("--json", action="store_true", help="say what was built as one JSON object")
    options = parser.parse_args(arguments)
    report = build(options.runs, options.out)
    for complaint in report.complaints:
        print(f"warning: {complaint}", file=sys.stderr)
    if options.json:
        print(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    else:
        print(f"{len(report.runs)} runs in {report.rows} rows: {report.page}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
