"""`python -m tests.speed.training [--quick] [--json]`: how fast deep prompts are trained, beside other ways to do it.

All ways train the same encoder on rows of the same task in turn, in one process: A B C C B A ... Each is warmed up
before. A ratio says how many times less time a row takes, and is that of one round; shown are the median and the 10th
and 90th percentile of all rounds. Counted is the loop of training alone, without preparation and saving. Rows have the
lengths of the task's own training rows: of real data in `../shared/data`, else of random pieces. Ways that are slower
train a part of the rows, chosen so that lengths are spread as among all.

ours: `harness.train.train` with a prompt in all layers.
ours-top-third: in the top third, above states that are in the cache already; what that took is shown beside it.
ours-eight-seeds: that eight times, one after another, preparation and saving included.
reference: the recipe of P-Tuning v2 with Trainer, fp32, each row padded to the most that the task allows.
peft, fine-tune: peft's prefix tuning, and training of all weights, with Trainer, padded to the longest row of a batch.
products: the matrix products that are needed, at the speed that the processor has for them (tests/speed/matrices.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from benchmarks.errors import PolypromptError, run_command
from benchmarks.registry import find_task
from harness.backbone import load_backbone
from harness.screen import Screen
from tests.speed import growth
from tests.speed.matrices import Products, peak, row_products
from tests.speed.ours import DEVICE, Ours, batches, total
from tests.speed.peers import collator, items, peft_prefix, reference, run_trainer, whole
from tests.speed.ratios import Spread, interleave, ratios, spread
from tests.speed.rows import DATA, Drawn, draw, part

SLOTS = 16
SEEDS = 8

OURS = ("ours", "ours-top-third", "ours-eight-seeds")
PEERS = ("reference", "peft-fp32", "peft-bf16", "fine-tune-fp32", "fine-tune-bf16")
QUICK_PEERS = ("reference", "peft-bf16")


@dataclass(frozen=True)
class Cell:
    """An encoder and a task.

    Attributes:
        backbone, task: their names. batch: rows a step. rows: of ours. peer_rows: of others, which are slower.
        seconds: for all rounds.
    """

    backbone: str
    task: str
    batch: int
    rows: int
    peer_rows: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.backbone}/{self.task}"


SMALL, LARGE = "minilm-l6-en", "e5-small-multilingual"
CELLS = (
    Cell(SMALL, "mrpc", 32, 512, 128, 110),
    Cell(LARGE, "rte", 32, 256, 64, 150),
    Cell(SMALL, "sst2", 32, 512, 128, 45),
    Cell(LARGE, "sst2", 32, 256, 64, 50),
    Cell(SMALL, "squadshifts", 8, 128, 16, 60),
    Cell(LARGE, "squadshifts", 8, 64, 16, 100),
)
QUICK_CELLS = (Cell(SMALL, "mrpc", 32, 256, 32, 12), Cell(LARGE, "rte", 32, 128, 32, 18))

GOALS = {
    f"{SMALL}/mrpc ours : reference": 12,
    f"{SMALL}/mrpc ours : peft-bf16": 3.5,
    f"{SMALL}/mrpc ours-top-third : reference": 50,
    f"{SMALL}/mrpc ours-eight-seeds : peft-bf16": 1,
    f"{SMALL}/mrpc ours : products": 0.65,
    f"{LARGE}/rte ours : reference": 7,
    f"{LARGE}/rte ours : peft-bf16": 3.5,
    f"{LARGE}/rte ours-top-third : reference": 25,
    f"{LARGE}/rte ours-eight-seeds : peft-bf16": 1,
    f"{LARGE}/rte ours : products": 0.65,
}
"""Ratio -> what it is meant to reach."""

GROWTH_SECONDS, QUICK_GROWTH_SECONDS = 12, 2
"""For the times of one axis."""


class Measured:
    """All ways of a cell, ready to be measured.

    Args:
        cell: which. peers: names of the ways of others. folder: with official files.
    """

    def __init__(self, cell: Cell, peers: Sequence[str], folder: Path) -> None:
        self.cell, backbone = cell, load_backbone(cell.backbone)
        self.drawn: Drawn = draw(find_task(cell.task), backbone, cell.rows, cell.batch, folder)
        training, few = self.drawn.training, part(self.drawn.training, cell.peer_rows)
        third = {"prompt_layers": f"top:{backbone.layers // 3}"}
        self.all = Ours(backbone, [training], prompt_length=SLOTS)
        self.top = Ours(backbone, [training], True, prompt_length=SLOTS, **third)
        seeds = [Ours(backbone, [training], True, prompt_length=SLOTS, seed=seed, **third) for seed in range(SEEDS)]
        rows, pad, card = items(few, range(cell.peer_rows)), backbone.pad_id, training.task.card
        make = {
            "reference": lambda: reference(backbone, card, SLOTS),
            "peft": lambda: peft_prefix(backbone, card, SLOTS),
            "fine-tune": lambda: whole(backbone, card),
        }

        def peer(name: str) -> Callable[..., float]:
            begin, padded = make[name.removesuffix("-fp32").removesuffix("-bf16")], name == "reference"
            collate = collator(pad, card.max_length if padded else None)
            return lambda steps=-1: run_trainer(begin(), rows, collate, cell.batch, name.endswith("bf16"), steps)

        self._peers = {name: peer(name) for name in peers}
        self._shapes = sorted(batches(training), key=lambda shape: shape[1])[1::4]
        self.ways = {"ours": self.all.run, "products": self._products, "ours-top-third": self.top.run}
        self.ways |= {"ours-eight-seeds": total(seeds), **self._peers}

    def warm(self) -> None:
        """Do a little of each."""
        self.all.run()
        self.top.run()
        for run in self._peers.values():
            run(steps=1)

    def needed(self, run: Ours) -> Products:
        """Operations of the products of a row, in the mean."""
        found = sum((row_products(run.shape, pieces) for pieces in self.drawn.lengths), Products())
        return Products(found.weights // self.cell.rows, found.attention // self.cell.rows)

    def _products(self) -> float:
        return self.needed(self.all).all / peak(self.all.shape, self._shapes)

    def report(self, found: dict[str, list[float]]) -> tuple[dict[str, Spread], dict[str, Any]]:
        """Ratios of this cell by name, and what else is known of it."""
        named: dict[str, Spread] = {}
        for ours in OURS:
            for peer in self._peers:
                named[f"{self.cell} {ours} : {peer}"] = ratios(found[peer], found[ours])
        all_, top = self.needed(self.all), self.needed(self.top)
        named[f"{self.cell} ours : products"] = ratios(found["products"], found["ours"])
        top_products = [seconds * top.all / all_.all for seconds in found["products"]]
        named[f"{self.cell} ours-top-third : products"] = ratios(top_products, found["ours-top-third"])
        speeds = [all_.all / seconds / 1e9 for seconds in found["products"]]
        more = {
            "cell": str(self.cell),
            "rows": "real" if self.drawn.real else "random pieces",
            "pieces": sum(self.drawn.lengths) / len(self.drawn.lengths),
            "batch": self.cell.batch,
            "rounds": len(found["ours"]),
            "seconds": {name: spread(values).record for name, values in found.items()},
            "operations": {"ours": all_.all, "ours-top-third": top.all},
            "attention": all_.attention / all_.all,
            "padding": sum(rows * longest for rows, longest in batches(self.drawn.training)) / sum(self.drawn.lengths)
            - 1,
            "filling": self.top.filling,
            "gigaflops": spread(speeds).record,
        }
        return named, more


def measure(cells: Sequence[Cell], peers: Sequence[str], folder: Path, screen: Screen) -> dict[str, Any]:
    """Measure all cells, one after another."""
    found: dict[str, Spread] = {}
    more = []
    for cell in cells:
        screen.say(str(cell))
        measured = Measured(cell, peers, folder)
        measured.warm()
        named, rest = measured.report(interleave(measured.ways, cell.seconds))
        found |= named
        more.append(rest)
    goals = {
        name: {"goal": goal, "value": found[name].value, "reached": found[name].value >= goal}
        for name, goal in GOALS.items()
        if name in found
    }
    return {"ratios": {name: ratio.record for name, ratio in found.items()}, "goals": goals, "cells": more}


def tables(report: dict[str, Any]) -> str:
    """A report for a person."""
    parts = [f"{report['machine']}, {report['precision']}, torch {report['torch']}"]
    for cell in report["cells"]:
        title = (
            f"{cell['cell']}: {cell['rows']}, {cell['pieces']:.0f} pieces in the mean, batches of {cell['batch']}, "
            f"{cell['rounds']} rounds; products at {cell['gigaflops']['value']:.0f} GFLOP/s"
        )
        lines = []
        for name, seconds in cell["seconds"].items():
            line: dict[str, object] = {"": name, "ms a row": f"{1e3 * seconds['value']:.2f}"}
            for ours in OURS:
                ratio = report["ratios"].get(f"{cell['cell']} {ours} : {name}")
                line[ours] = "" if ratio is None else str(Spread(**ratio))
            lines.append(line)
        notes = (
            f"of the products {cell['attention']:.0%} are in attention; padding of ours: {cell['padding']:.0%}; "
            f"filling the cache: {1e3 * cell['filling']:.2f} ms a row"
        )
        parts.append(f"{title}\n{tabulate(lines, headers='keys', disable_numparse=True)}\n{notes}")
    lines = [{"ratio": name, **values} for name, values in report["goals"].items()]
    parts.append(tabulate(lines, headers="keys", floatfmt=".3g"))
    if report["growth"]:
        parts.append(growth.table(report["growth"]))
    return "\n\n".join(parts)


def profiled(cell: Cell, folder: Path) -> str:
    """The operators in which training spends its time: of all layers, and of the top third above a cache."""
    measured, parts = Measured(cell, (), folder), []
    measured.warm()
    for name, run in (("ours", measured.all), ("ours-top-third", measured.top)):
        with profile(activities=[ProfilerActivity.CPU]) as found:
            run.run()
        events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
        whole_time = sum(event.self_cpu_time_total for event in events)
        lines = [
            {"operator": e.key, "% of self time": 100 * e.self_cpu_time_total / whole_time, "calls": e.count}
            for e in events[:16]
        ]
        parts.append(f"{cell}, {name}\n{tabulate(lines, headers='keys', floatfmt='.1f')}")
    return "\n\n".join(parts)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two encoders on one task each, few rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--profile", action="store_true", help="print where our time goes, and measure nothing else")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw how cost grows: .svg or .png; needs matplotlib")
    parser.add_argument("--data-dir", type=Path, default=DATA, help="official files; without them: random pieces")
    arguments = parser.parse_args()
    if arguments.data_dir != DATA and not arguments.data_dir.is_dir():
        raise PolypromptError(f"--data-dir {arguments.data_dir}: no such folder")
    if arguments.plot is not None:
        growth.figure_class()  # or say now that it is not there
    warnings.filterwarnings("ignore")  # of peft and torch, about each model anew
    cells, peers, axes, seconds = CELLS, PEERS, growth.AXES, GROWTH_SECONDS
    if arguments.quick:
        cells, peers, axes, seconds = QUICK_CELLS, QUICK_PEERS, growth.QUICK, QUICK_GROWTH_SECONDS
    with TemporaryDirectory() as cache:
        os.environ["POLYPROMPT_CACHE"] = cache  # what is there already would make the first round unlike the others
        if arguments.profile:
            print("\n\n".join(profiled(cell, arguments.data_dir) for cell in QUICK_CELLS))
            return 0
        screen = Screen()
        report = measure(cells, peers, arguments.data_dir, screen)
        screen.say("growth")
        report["growth"] = growth.measure(axes, seconds)
    report |= {"machine": DEVICE.title, "precision": DEVICE.precision, "torch": torch.__version__}
    if arguments.plot is not None:
        growth.plot(report["growth"], arguments.plot)
    print(json.dumps(report, indent=1) if arguments.json else tables(report))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
