"""`python -m tests.speed.nncf RUN [--quick] [--json]`: int8 for OpenVINO by NNCF beside ours, of one finished run.

Both quantise the same graph and are calibrated on the same training rows: ours is `openvino.onnx` of an int8 bundle
(`exporters.calibrate`), the other one what `nncf.quantize` makes of the graph in fp32 with its settings for
transformers. Scores are those of the reported split; times are taken in turn, on rows of random pieces of one length,
in OpenVINO. NNCF is no package of the project: `tox -e nncf -- RUN` makes an environment that has it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.results import Manifest, read_model
from exporters.bundle import MODEL, STATIC, read_card, read_tasks, write_bundle
from exporters.calibrate import calibrate
from exporters.engines import Engine, open_engine
from exporters.engines.interface import Arrays
from exporters.export import calibration_rows, describe, graph_of, samples_of, tensors_of
from exporters.precision import Precision, in_precision
from exporters.session import Session
from exporters.verify import points
from harness.config import load_config
from harness.screen import Screen
from harness.store import load_run
from tests.speed.inference import timed
from tests.speed.ratios import Spread, interleave, ratios

SHAPES = ((1, 64), (32, 64))
"""Rows and pieces of a batch."""


class Recording:
    """An engine that keeps what it was fed."""

    def __init__(self, engine: Engine) -> None:
        self.card, self._engine, self._kept = engine.card, engine, {}
        self.fed: list[dict[str, NDArray[Any]]] = []

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        self._kept = dict(tensors)
        self._engine.keep(tensors)

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        self.fed.append({name: array.copy() for name, array in feeds.items()} | self._kept)
        return self._engine.run(names, feeds)


def by_nncf(model: Path, rows: Sequence[Arrays], target: Path) -> Path:
    """Quantise a graph in fp32.

    Args:
        model: its file. rows: batches to calibrate on, with everything that the graph is fed. target: of the result.

    Raises:
        PolypromptError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError:
        raise PolypromptError("NNCF is not installed; `tox -e nncf -- RUN` has it") from None
    import openvino

    graph = openvino.Core().read_model(model)
    inputs = {name for port in graph.inputs for name in port.names}
    fed = [{name: array for name, array in batch.items() if name in inputs} for batch in rows]
    with redirect_stdout(sys.stderr):  # its progress bars
        found = nncf.quantize(graph, nncf.Dataset(fed), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(fed))
    openvino.save_model(found, target, compress_to_fp16=False)
    return target


def compare(run: Path, rows: int, seconds: float, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Spread]]:
    """Scores by task and engine; and how many times faster ours is."""
    manifest, config, model = (
        read_model(run / "manifest.json", Manifest),
        load_config(run / "config.toml"),
        load_run(run),
    )
    graph, fed, card = graph_of(model), tensors_of(model, manifest.tasks), describe(model, manifest)
    for precision in (Precision.FP32, Precision.INT8):
        (folder / precision).mkdir()
        about = card.model_copy(update={"precision": precision.value})
        tokenizer = model.backbone.tokenizer.to_str()
        write_bundle(folder / precision, about, in_precision(graph, precision), fed, tokenizer)
    learned = calibration_rows(config, {})
    plain = folder / Precision.FP32
    calibrate(folder / Precision.INT8, read_card(folder / Precision.INT8), learned)
    recording = Recording(open_engine("onnxruntime", plain / MODEL))
    Session(plain, engine=recording).run(learned)
    files = {
        "fp32": plain / MODEL,
        "ours": folder / Precision.INT8 / STATIC,
        "NNCF": by_nncf(plain / MODEL, recording.fed, folder / "nncf.xml"),
    }
    engines = {name: open_engine("openvino", file) for name, file in files.items()}
    samples = samples_of(run, config, manifest, rows)
    scores: list[dict[str, Any]] = []
    for name, engine in engines.items():
        found = Session(plain, engine=engine).run({(t, code): r for t, s in samples.items() for code, r in s.items()})
        for task in manifest.tasks:
            sample = samples[task.name]
            each = [points(task, code, part, found[task.name, code]) for code, part in sample.items()]
            mean = None if None in each else sum(each) / len(each)
            scores.append({"int8": name, "task": task.name, "rows": sum(map(len, sample.values())), "score": mean})
    tensors = read_tasks(plain, read_card(plain))[1]
    return scores, {key: value for shape in SHAPES for key, value in times(engines, tensors, shape, seconds).items()}


def times(engines: Mapping[str, Engine], tensors: Arrays, shape: tuple[int, int], seconds: float) -> dict[str, Spread]:
    """How many times faster ours is than each other one, answering rows of the first task from one piece."""
    rows, pieces = shape
    ids = np.random.default_rng(0).integers(1000, 20_000, shape)
    feeds = {"input_ids": ids, "lengths": np.full(rows, pieces), "task_id": np.zeros(rows, np.int64)}
    feeds |= {"token_type_ids": np.zeros_like(ids)}
    feeds |= {"sequence_rows": np.arange(rows), "whole_rows": np.zeros(0, np.int64)}
    for engine in engines.values():
        engine.keep(tensors)
    ways = {name: timed(partial(engine.run, ["sequence_logits"], feeds)) for name, engine in engines.items()}
    found = interleave(ways, seconds, least=5)
    return {f"{rows}x{pieces} ours : {name}": ratios(found[name], found["ours"]) for name in engines if name != "ours"}


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--quick", action="store_true", help="fewer rows, few rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows, seconds = (200, 2.0) if arguments.quick else (2000, 20.0)
    Screen().say("calibrating")
    with TemporaryDirectory() as folder:
        scores, found = compare(arguments.run, rows, seconds, Path(folder))
    if arguments.json:
        print(json.dumps({"scores": scores, "ratios": {key: one.record for key, one in found.items()}}, indent=1))
    else:
        print(tabulate(scores, headers="keys", floatfmt=".2f"))
        print(tabulate([(key, str(one)) for key, one in found.items()], headers=("", "ratio")))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
