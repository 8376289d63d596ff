"""How an exported model is compared with PyTorch: the options that `export`, `add` and `verify` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.errors import PolypromptError

ATOL = 1e-3
"""Default of `--atol`: more than the order of additions in fp32 can change, less than a prediction hangs on."""

MAX_DROP = 1.0
"""Default of `--max-drop`, in points."""

ROWS, SCORED_ROWS = 32, 256
"""Default of `--rows`: enough to see that two graphs compute the same; and to see a point of difference in a score."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command `--atol`, `--max-drop`, `--rows` and `--task-file`."""
    parser.add_argument(
        "--atol",
        type=float,
        default=ATOL,
        help="largest difference to PyTorch of what is computed in fp32 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=MAX_DROP,
        metavar="POINTS",
        help="most points that a task may lose by what is not computed in fp32 (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=_rows,
        metavar="N",
        help=f"examples of each task to compare (default: {ROWS}; {SCORED_ROWS} where weights are not in fp32)",
    )
    parser.add_argument(
        "--task-file",
        type=Path,
        action="append",
        metavar="FILE",
        help="the run's task file, where it moved or is code",
    )


def rows_in(precision: str) -> int:
    """How many examples of a task are compared where the weights have a precision, unless it is said."""
    return ROWS if precision == "fp32" else SCORED_ROWS


def exact_in(precision: str, atol: float) -> float | None:
    """The largest difference that engines in fp32 may show; None where narrower weights make it a matter of points."""
    return atol if precision == "fp32" else None


def _rows(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise PolypromptError(f"--rows {text}: at least 1 is needed; what was not compared is not written")
    return int(text)
