"""`python -m tests.speed.engines [--quick] [--json]`: what computes a frozen encoder fastest when nothing is trained.

Prediction with a prompt in all layers, on batches of rows of random pieces: by `harness.encoder`, by transformers'
modules under autocast, and by OpenVINO in bf16 as `--inference openvino` has it. Ways are measured in turn, as in
tests/speed/training.py. *read* computes the first piece alone in the last layer, as sequence tasks ask for; *trunk* is
the lower two thirds of the layers without a prompt. Padded batches have rows of half the length among those of the full
one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from harness.attention import Prefix
from harness.backbone import Backbone, load_backbone
from harness.device import find_device
from harness.inference import Inference, Part
from harness.screen import Screen
from tests.speed.ratios import Spread, interleave, ratios, spread

SLOTS = 16
SHAPES = ((32, 16), (32, 64), (128, 32), (8, 384))
"""Rows and pieces of a batch."""

QUICK = ((32, 64),)


def openvino(backbone: Backbone, *parts: Part) -> Inference:
    """What `harness.engines` would choose, compiled for as many threads as torch has.

    Raises:
        PolypromptError: OpenVINO is not installed.
    """
    try:
        from exporters.inference import OpenVino
    except ImportError:
        raise PolypromptError("OpenVINO is not installed; install the extra `cpu`") from None
    engine = OpenVino()
    compiled = {part: engine.compile(backbone, part, True, torch.get_num_threads()) for part in parts}
    return Inference(engine.name, engine.identity, compiled, torch.bfloat16)


def measure(name: str, shapes: tuple[tuple[int, int], ...], seconds: float) -> list[dict[str, object]]:
    """All ways on all shapes with one encoder."""
    backbone, device = load_backbone(name), find_device("bf16", cpu=True)
    tensor = torch.randn(backbone.layers, 2, backbone.heads, SLOTS, backbone.head_dim)
    prefix = Prefix(tensor.unsqueeze(2), tuple(range(backbone.layers)))
    layers = tuple(range(backbone.layers))
    below = 2 * backbone.layers // 3
    wholes = [Part(0, backbone.layers, layers, reads) for reads in (False, True)]
    compiled = openvino(backbone, *wholes, Part(0, below))
    found: list[dict[str, object]] = []
    for rows, pieces in shapes:
        for padded in (False, True):
            ids = np.random.default_rng(0).integers(1000, 20_000, (rows, pieces))
            lengths = np.full(rows, pieces)
            lengths[1::2] = pieces // 2 if padded else pieces
            tensors = torch.from_numpy(ids), torch.from_numpy(lengths)

            def whole(
                engine: str,
                read: int | None,
                inference: Inference | None = None,
                tensors: tuple[torch.Tensor, ...] = tensors,
            ) -> float:
                backbone.engine = engine
                began = time.perf_counter()
                with torch.inference_mode(), device.autocast():
                    backbone(*tensors, None, prefix, read, None, inference)
                return time.perf_counter() - began

            def trunk(inference: Inference | None, tensors: tuple[torch.Tensor, ...] = tensors) -> float:
                began = time.perf_counter()
                with device.autocast():
                    backbone.trunk(*tensors, None, below, 0, inference)
                return time.perf_counter() - began

            ways = {
                "own": lambda: whole("own", None),
                "own, read": lambda: whole("own", 0),
                "own, trunk": lambda: trunk(None),
                "transformers": lambda: whole("transformers", None),
                "OpenVINO": lambda: whole("own", None, compiled),
                "OpenVINO, read": lambda: whole("own", 0, compiled),
                "OpenVINO, trunk": lambda: trunk(compiled),
            }
            for way in ways.values():
                for _ in range(3):
                    way()
            times = interleave(ways, seconds)
            found.append(
                {
                    "backbone": name,
                    "batch": f"{rows} x {pieces}" + (", padded" if padded else ""),
                    "rows a second": spread([rows / taken for taken in times["own"]]),
                    "own : transformers": ratios(times["transformers"], times["own"]),
                    "own : OpenVINO": ratios(times["OpenVINO"], times["own"]),
                    "own : OpenVINO, read": ratios(times["OpenVINO, read"], times["own, read"]),
                    "own : OpenVINO, trunk": ratios(times["OpenVINO, trunk"], times["own, trunk"]),
                }
            )
    return found


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shape, few rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    shapes, seconds = (QUICK, 2.0) if arguments.quick else (SHAPES, 6.0)
    records: list[dict[str, object]] = []
    with Screen().bar("encoders", 2) as bar:
        for name in ("minilm-l6-en", "e5-small-multilingual"):
            records += measure(name, shapes, seconds)
            bar.step(name)
    if arguments.json:
        named = {
            f"{record['backbone']}/{record['batch']} {name}": value.record
            for record in records
            for name, value in record.items()
            if isinstance(value, Spread) and ":" in name
        }
        print(json.dumps({"ratios": named, "machine": find_device("bf16", cpu=True).title}, indent=1))
    else:
        print(find_device("bf16", cpu=True).title)
        print(
            tabulate(
                [{k: str(v) for k, v in record.items()} for record in records], headers="keys", disable_numparse=True
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
