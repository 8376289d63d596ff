"""`python -m tests.speed.stacked [--quick] [--json]`: several seeds in one pass, beside a pass for each.

Forward and back through the top third of a frozen encoder, above states that are there already, as in `--seeds N` over
a filled cache. Stacked, the rows of all seeds are one batch, in which each row has the prefix of its seed; else each
seed has a pass of its own, one after another. Optimizer and heads are left out: they are the same work either way.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.errors import run_command
from harness.attention import Prefix
from harness.backbone import Backbone, load_backbone
from tests.speed.ours import DEVICE
from tests.speed.ratios import Spread, interleave, ratios

SLOTS, ROWS = 16, 32

CELLS = (("minilm-l6-en", 16), ("minilm-l6-en", 64), ("minilm-l6-en", 128), ("e5-small-multilingual", 64))
"""Encoder and pieces of a row."""


def ways(backbone: Backbone, pieces: int, seeds: int) -> dict[str, Callable[[], float]]:
    """Both ways to take one step with every seed; each says how many seconds that took."""
    layers = tuple(range(backbone.layers - backbone.layers // 3, backbone.layers))
    shape = (len(layers), 2, 1, backbone.heads, SLOTS, backbone.hidden // backbone.heads)
    prefixes = [torch.randn(shape).requires_grad_() for _ in range(seeds)]
    with DEVICE.autocast():
        encoder = backbone.frozen()
    states = torch.randn(seeds * ROWS, pieces, backbone.hidden).to(encoder.precision)

    def step(rows: Tensor, prefix: Tensor) -> None:
        encoder.run(rows, None, Prefix(prefix, layers), layers[0], read=0).float().square().sum().backward()

    def stacked() -> float:
        began = time.perf_counter()
        step(states, torch.cat([prefix.expand(-1, -1, ROWS, -1, -1, -1) for prefix in prefixes], 2))
        return time.perf_counter() - began

    def in_turn() -> float:
        began = time.perf_counter()
        for rows, prefix in zip(states.split(ROWS), prefixes, strict=True):
            step(rows, prefix)
        return time.perf_counter() - began

    return {"stacked": stacked, "in turn": in_turn}


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds, one encoder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    cells, counts, seconds = (CELLS[:1], (2,), 1.0) if arguments.quick else (CELLS, (2, 8), 15.0)
    found: dict[str, Spread] = {}
    for name, pieces in cells:
        for seeds in counts:
            both = ways(load_backbone(name), pieces, seeds)
            interleave(both, 0)  # to warm up
            times = interleave(both, seconds, least=3)
            found[f"{name}, {ROWS}x{pieces}, {seeds} seeds: stacked : in turn"] = ratios(
                times["in turn"], times["stacked"]
            )
    if arguments.json:
        print(json.dumps({"ratios": {name: ratio.record for name, ratio in found.items()}}, indent=1))
    else:
        print(tabulate([(name, str(ratio)) for name, ratio in found.items()], headers=("", "times as fast")))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
