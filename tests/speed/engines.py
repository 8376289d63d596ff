"""`python -m tests.speed.engines [--quick] [--json]`: what computes a frozen encoder fastest when nothing is trained.

Prediction with a prompt in all layers, on batches of rows of random pieces: by `harness.encoder`, by transformers'
modules under autocast, and by OpenVINO in bf16, which opens the exported graph. Ways are measured in turn, as in
tests/speed/training.py. *read* computes the first piece alone in the last layer, as sequence tasks ask for; OpenVINO's
graph and transformers compute all. Padded batches have rows of half the length among those of the full one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.task import Kind, TaskCard
from exporters.graph import Blueprint, build_graph
from exporters.tasks import Head, Prompt, task_tensors
from exporters.weights import read_weights
from harness.attention import Prefix
from harness.backbone import Backbone, load_backbone
from harness.device import find_device
from harness.placement import Placement
from harness.screen import Screen
from tests.speed.ratios import Spread, interleave, ratios, spread

SLOTS = 16
SHAPES = ((32, 16), (32, 64), (128, 32), (8, 384))
"""Rows and pieces of a batch."""

QUICK = ((32, 64),)
CARD = TaskCard(name="task", suite="speed", kind=Kind.CLASSIFICATION, labels=("a", "b"), metrics=("accuracy",))


def openvino(backbone: Backbone, tensor: torch.Tensor, folder: Path) -> Callable[[dict[str, np.ndarray]], object]:
    """The exported graph, compiled for as many threads as torch has.

    Raises:
        PolypromptError: OpenVINO is not installed.
    """
    try:
        from openvino import Core
    except ImportError:
        raise PolypromptError("OpenVINO is not installed; install the extra `cpu`") from None
    state = {name: weight.float().numpy() for name, weight in backbone.model.state_dict().items()}
    config = backbone.model.config.to_dict()
    weights = read_weights(config, state, backbone.first_position, backbone.token_types)
    head = Head(np.zeros((2, backbone.hidden), np.float32), np.zeros(2, np.float32))
    placement = Placement(layers=tuple(range(backbone.layers)))
    tasks = task_tensors([CARD], {CARD.name: head}, backbone.hidden, Prompt(tensor[None].numpy(), placement, [0]))
    graph = build_graph(weights, Blueprint(placement))
    (folder / "model.onnx").write_bytes(graph.model.SerializeToString())
    with (folder / graph.backbone.name).open("wb") as file:
        graph.backbone.write(file)
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = Core().compile_model(folder / "model.onnx", "CPU", hints)
    return lambda inputs: model(inputs | tasks)["sequence_logits"]


def measure(name: str, shapes: tuple[tuple[int, int], ...], seconds: float, folder: Path) -> list[dict[str, object]]:
    """All ways on all shapes with one encoder."""
    backbone, device = load_backbone(name), find_device("bf16", cpu=True)
    tensor = torch.randn(backbone.layers, 2, backbone.heads, SLOTS, backbone.head_dim)
    prefix = Prefix(tensor.unsqueeze(2), tuple(range(backbone.layers)))
    compiled = openvino(backbone, tensor, folder)
    found: list[dict[str, object]] = []
    for rows, pieces in shapes:
        for padded in (False, True):
            ids = np.random.default_rng(0).integers(1000, 20_000, (rows, pieces))
            lengths = np.full(rows, pieces)
            lengths[1::2] = pieces // 2 if padded else pieces
            inputs = {"input_ids": ids, "lengths": lengths, "task_id": np.zeros(rows, np.int64)}
            if backbone.token_types:
                inputs["token_type_ids"] = np.zeros_like(ids)
            tensors = torch.from_numpy(ids), torch.from_numpy(lengths)

            def torch_way(engine: str, read: int | None, tensors: tuple[torch.Tensor, ...] = tensors) -> float:
                backbone.engine = engine
                began = time.perf_counter()
                with torch.inference_mode(), device.autocast():
                    backbone(*tensors, None, prefix, read)
                return time.perf_counter() - began

            def graph_way(inputs: dict[str, np.ndarray] = inputs) -> float:
                began = time.perf_counter()
                compiled(inputs)
                return time.perf_counter() - began

            ways = {
                "own": lambda: torch_way("own", None),
                "own, read": lambda: torch_way("own", 0),
                "transformers": lambda: torch_way("transformers", None),
                "OpenVINO": graph_way,
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
                    "own, read : OpenVINO": ratios(times["OpenVINO"], times["own, read"]),
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
    with TemporaryDirectory() as folder, Screen().bar("encoders", 2) as bar:
        for name in ("minilm-l6-en", "e5-small-multilingual"):
            records += measure(name, shapes, seconds, Path(folder))
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
