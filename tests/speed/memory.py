"""`python -m tests.speed.memory [--quick] [--json]`: the memory that training and predicting take, by encoder size.

Random encoders of BERT's shape are trained with a deep prompt by `harness.train.train`, or predict by
`harness.evaluate.compute`, on the processor, each in a process of its own. Measured is the most memory that the process
ever had (VmHWM of /proc/self/status) beyond what it had after it did the same with an encoder of one tiny layer, so
beyond code, libraries and threads. A formula is fitted to two sizes, checked on a third one that it has not seen, and
says what larger ones need.

malloc of glibc keeps most of what is given back to it, in pieces that later tensors may not fit into. The formula is
about what is in use, so malloc is told to give back; what it keeps otherwise is shown for one size.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import nnls
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from harness.products import CHUNK
from harness.screen import Screen
from tests.speed.workload import SLOTS, Case, Size, Way, measure

MIB, GIB = 2**20, 2**30

WAYS = (
    *(Way(True, precision, again) for precision in ("fp32", "bf16") for again in (False, True)),
    *(Way(False, precision) for precision in ("fp32", "bf16")),
)
FITTED = (Size(6, 384, 6, 30_000), Size(3, 768, 12, 30_000), Size(12, 768, 12, 30_000))
CHECKED = Size(24, 1024, 16, 50_265), 2, 256
QUICK_FITTED = (Size(3, 256, 4, 5_000), Size(2, 512, 8, 5_000), Size(6, 512, 8, 5_000))
QUICK_CHECKED = Size(6, 768, 12, 5_000), 2, 192
QUICK_SHAPES = ((2, 32), (4, 128))
SHAPES = (*QUICK_SHAPES, (4, 32), (2, 128))
"""Rows, and pieces of each."""

EXTRAPOLATED = {
    "RoBERTa-large": Size(24, 1024, 16, 50_265),
    "XLM-R-large": Size(24, 1024, 16, 250_002),
    "XLM-R-XXL": Size(48, 4096, 32, 250_002),
}
EXTRAPOLATED_SHAPES = ((32, 128), (8, 384))


def known(case: Case) -> int:
    """Bytes that need no fit: weights of the layers are in the precision of products, others in fp32; those that are
    trained have a gradient and two moments in training.
    """
    layers = case.size.layers * case.size.layer
    frozen = 4 * (case.size.weights - layers) + (2 if case.way.precision == "bf16" else 4) * layers
    return frozen + (16 if case.way.training else 4) * case.size.trained


def terms(case: Case) -> dict[str, int]:
    """What all other bytes grow with, and how much of it a case has.

    Attention keeps its weights where those of a whole batch are few (`harness.products`), and none otherwise: larger
    batches and longer rows need no bytes for each pair of pieces.
    """
    size, pieces = case.size, case.rows * case.pieces
    weights = pieces * (case.pieces + SLOTS) * size.heads
    return {
        "process": 1,
        "weight of the layers": size.layers * size.layer,
        "weight of one layer": size.layer,
        "piece, layer, unit": pieces * size.layers * size.hidden,
        "piece, unit": pieces * size.hidden,
        "weight of attention": size.layers * weights if weights <= CHUNK else 0,
    }


def fit(measured: dict[Case, int]) -> dict[str, float]:
    """Bytes for each of the terms, none below zero, with the least squares of relative errors.

    Args:
        measured: bytes of cases of one way.
    """
    names = list(terms(next(iter(measured))))
    counts = np.array([list(terms(case).values()) for case in measured], float)
    rest = np.array([found - known(case) for case, found in measured.items()], float)
    counts /= rest[:, None]
    scale = counts.max(0)  # the counts are of very different sizes
    found, _ = nnls(counts / scale, np.ones(len(rest)))
    return dict(zip(names, (found / scale).tolist(), strict=True))


def predicted(formula: dict[str, float], case: Case) -> float:
    """Bytes that the formula of its way gives for a case."""
    return known(case) + sum(formula[name] * count for name, count in terms(case).items())


def measure_all(cases: Sequence[Case], screen: Screen) -> Iterator[tuple[int, int]]:
    """`measure` for each case, two at a time; the processes are copies of one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scipy.optimize", "tabulate", "tests.speed.workload"])
    workers = min(2, os.cpu_count() or 1)
    with (
        screen.bar("measure", len(cases)) as bar,
        ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as processes,
    ):
        try:
            for case, found in zip(cases, processes.map(measure, cases), strict=True):
                bar.step(f"{case.size}, {case.way}")
                yield found
        except BrokenProcessPool:
            raise PolypromptError("a process that was measured was killed: memory is too small; try --quick") from None


def make_report(found: dict[Case, int], fitted: Sequence[Case], checked: Sequence[Case]) -> dict[str, Any]:
    """What was measured, the formulas, how they do on cases that they were not fitted to, and what they say of others.

    Args:
        found: bytes of each case. fitted: cases that make the formulas. checked: cases that do not.
    """
    formulas = {way: fit({case: found[case] for case in fitted if case.way == way}) for way in WAYS}
    others = product(WAYS, EXTRAPOLATED.items(), EXTRAPOLATED_SHAPES)
    return {
        "measured": [_record(case, kept=case.kept, bytes=bytes_) for case, bytes_ in found.items()],
        "formulas": {str(way): formula for way, formula in formulas.items()},
        "checked": [
            _record(case, measured=found[case], predicted=predicted(formulas[case.way], case)) for case in checked
        ],
        "extrapolated": [
            _record(case, encoder=name, bytes=predicted(formulas[way], case))
            for way, (name, size), shape in others
            for case in [Case(way, size, *shape)]
        ],
    }


def _record(case: Case, **more: object) -> dict[str, Any]:
    return {"way": str(case.way), "encoder": str(case.size), "rows": case.rows, "pieces": case.pieces, **more}


def tables(report: dict[str, Any]) -> str:
    """A report for a person: a column for each way."""
    measured, checked = report["measured"], report["checked"]
    off = [{**record, "off": 100 * (record["predicted"] / record["measured"] - 1)} for record in checked]
    names = next(iter(report["formulas"].values()))
    lines = [{"for each": name} | {way: f[name] for way, f in report["formulas"].items()} for name in names]
    parts = {
        "Measured, MiB": _table([record for record in measured if not record["kept"]], "bytes", MIB, ".0f"),
        "The same where malloc keeps what is given back, MiB": _table(
            [record for record in measured if record["kept"]], "bytes", MIB, ".0f"
        ),
        "Formula, bytes": tabulate(lines, headers="keys", floatfmt=".2f"),
        "Predicted for a size that was not fitted, MiB": _table(checked, "predicted", MIB, ".0f"),
        "Off by, %": _table(off, "off", 1, "+.1f"),
        "Extrapolated, GiB": _table(report["extrapolated"], "bytes", GIB, ".1f"),
    }
    floor = f"Beside these, the program itself: {report['floor'] / MIB:.0f} MiB. again: with --checkpoint-activations."
    return "\n\n".join([*(f"{title}\n{table}" for title, table in parts.items()), floor])


def _table(records: Sequence[dict[str, Any]], value: str, unit: int, form: str) -> str:
    lines: dict[str, dict[str, object]] = {}
    for record in records:
        place = f"{record['encoder']}, {record['rows']} x {record['pieces']}"
        line = lines.setdefault(place, {"encoder, rows x pieces": place})
        line[record["way"]] = record[value] / unit
    return tabulate(list(lines.values()), headers="keys", floatfmt=form)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller encoders: less time, rougher figures")
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes")
    arguments = parser.parse_args()
    sizes, shapes, check = FITTED, SHAPES, CHECKED
    if arguments.quick:
        sizes, shapes, check = QUICK_FITTED, QUICK_SHAPES, QUICK_CHECKED
    fitted = [Case(way, size, *shape) for way, size, shape in product(WAYS, sizes, shapes)]
    checked = [Case(way, *check) for way in WAYS]
    kept = [Case(way, sizes[-1], *max(shapes), kept=True) for way in WAYS]
    cases = [*checked, *reversed(fitted), *kept]  # the largest first, so that no process ends long after the other
    found = dict(zip(cases, measure_all(cases, Screen()), strict=True))
    report = {"floor": max(floor for floor, _ in found.values())}
    report |= make_report({case: found[case][1] for case in [*fitted, *checked, *kept]}, fitted, checked)
    print(json.dumps(report, indent=1) if arguments.json else tables(report))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
