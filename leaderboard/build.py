"""`python -m leaderboard.build RUNS... --out site/`: from run folders to a static site that opens from disk."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import put_in_place, write_atomic
from benchmarks.schema import results_schema
from benchmarks.searches import SearchRecord
from leaderboard.board import Board, RunView, Standing
from leaderboard.processes import in_processes
from leaderboard.searches import read_searches
from leaderboard.site import Part, Site
from leaderboard.tables import make_board

SHARED_RUNS = 50
"""Runs of which on pages are made by several processes; to start them takes longer for fewer."""

LISTED = "files.json"
"""The file of a site that lists all others: what the next build no longer makes is removed."""


@dataclass(frozen=True)
class Report:
    """What was built.

    Attributes:
        page: the first page.
        runs: ids of the runs on it.
        rows: of the board: configurations, their seeds joined; without numbers that are quoted.
        written: files that an earlier build had not left as they are now. removed: those that are no longer part of it.
        complaints: sentences on runs that were left out, and on numbers that do not agree with what a run says.
    """

    page: str
    runs: list[str]
    rows: int
    written: int
    removed: int
    complaints: list[str]


def build(paths: Sequence[Path], out: Path, results: Sequence[Path] = (), data_dir: Path | None = None) -> Report:
    """Build the site.

    Args:
        paths: run folders, or folders that hold run folders.
        out: folder of the site; files of an earlier build are replaced.
        results: files in the form of results.json, of results from elsewhere, or folders of them.
        data_dir: folder of official data files: texts of examples are shown from it where their licence allows it.

    Raises:
        PolypromptError: no usable run, or the site would be written over the runs.
    """
    board = make_board(paths, results)
    for run in board.runs:
        if (out / "runs" / run.id).resolve() == run.folder.resolve():
            raise PolypromptError(f"--out {out}: the pages would go into the run folder {run.folder}; name another")
    complaints = list(board.complaints)
    written, removed = write(board, out, data_dir, read_searches(paths, complaints.append))
    rows = sum(row.standing is not Standing.QUOTED for row in board.rows.values())
    runs = [run.id for run in board.runs]
    return Report(str(out / "index.html"), runs, rows, written, removed, complaints)


def write(
    board: Board, out: Path, data_dir: Path | None = None, searches: Sequence[SearchRecord] = ()
) -> tuple[int, int]:
    """Write the files of a site that are not there yet or differ, and remove those that an earlier build left.

    Returns:
        How many were written, and removed.
    """
    site = Site(board, data_dir, searches)
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    with TemporaryDirectory(prefix=f".new-{platform.node()}-{os.getpid()}-", dir=out) as new:

        def job(part: Part) -> Callable[[], dict[str, bool]]:
            return partial(_write, out, Path(new), part)

        parts: list[Part] = [_schema, *(partial(_copied, run) for run in board.runs), *site.plain()]
        processes = 1 if len(board.runs) < SHARED_RUNS else None
        made = in_processes([job(part) for part in parts], [job(part) for part in site.drawn()], processes)
        names = {name: differs for one in made for name, differs in one.items()}
        changed = [name for name, differs in names.items() if differs]
        put_in_place({out / name: Path(new, name) for name in changed})
    removed = _remove(out, set(names))
    listed = (json.dumps(sorted(names), indent=0) + "\n").encode()
    relisted = _differs(out / LISTED, listed)
    if relisted:
        write_atomic(out / LISTED, listed)
    return len(changed) + relisted, removed


def _clear(out: Path) -> None:
    """Remove what builds on this machine left that were killed."""
    for left in out.glob(f".new-{escape(platform.node())}-*-*"):
        number = left.name.rsplit("-", 2)[1]
        if not number.isdigit():
            continue
        try:
            os.kill(int(number), 0)
        except (ProcessLookupError, OverflowError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:  # somebody else's, and under way
            continue


def _write(out: Path, new: Path, part: Part) -> dict[str, bool]:
    """Write those files of a part of the site that differ from what is there.

    Args:
        out: the site. new: where they are written.

    Returns:
        Name -> whether it differs.
    """
    found = {}
    for name, text in part():
        content = text.encode("utf-8")
        found[name] = _differs(out / name, content)
        if found[name]:
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return found


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size != len(content) or path.read_bytes() != content
    except OSError:
        return True


def _schema() -> Iterator[tuple[str, str]]:
    yield "results.schema.json", json.dumps(results_schema(), indent=2) + "\n"


def _copied(run: RunView) -> Iterator[tuple[str, str]]:
    for name in run.files:
        yield f"runs/{run.id}/{name}", (run.folder / name).read_bytes().decode("utf-8")


def _remove(out: Path, kept: set[str]) -> int:
    """Remove what the list of an earlier build names and this one did not make; nothing outside the folder."""
    try:
        before = json.loads((out / LISTED).read_bytes())
    except (OSError, ValueError):
        return 0
    removed = 0
    for name in before if isinstance(before, list) else []:
        path = (out / str(name)).resolve()
        if name not in kept and path.is_file() and path.is_relative_to(out.resolve()):
            path.unlink()
            removed += 1
            for folder in path.parents:
                if folder == out.resolve() or any(folder.iterdir()):
                    break
                folder.rmdir()
    return removed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.build", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the site")
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="results from elsewhere, or a folder of such files; repeatable",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="official data, to show texts of examples where a licence allows it",
    )
    parser.add_argument("--json", action="store_true", help="say what was built as one JSON object")
    options = parser.parse_args(arguments)
    if not options.runs and not options.results:
        parser.error("name RUNS, or --results")
    report = build(options.runs, options.out, options.results, options.data_dir)
    for complaint in report.complaints:
        print(f"warning: {complaint}", file=sys.stderr)
    if options.json:
        print(json.dumps(asdict(report), ensure_ascii=False, indent=2))
    else:
        print(f"{len(report.runs)} runs in {report.rows} rows: {report.page}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
