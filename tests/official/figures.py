"""`python -m tests.official.figures [--table NAME] [--json]`: resuming, processes and peft, measured.

Kill and resume: a run of each method is killed with SIGKILL at two moments of its training, and continued. Beside it
stands a run that nobody disturbed. Two processes: what torchrun starts beside a single one. peft: prompts that it
reads from us, and we from it, around random encoders. The exit status is 1 when a figure is not what is promised.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from tabulate import tabulate
from transformers.utils import logging

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))  # where tests find their helpers

from ranks import Ranks  # noqa: E402
from test_interchange import (  # noqa: E402
    CACHED,
    LENGTHS,
    NAMES,
    SLOTS,
    adapter_of,
    folder_of,
    ours_on_tokens,
    run_of,
    theirs_on_tokens,
)
from tiny import FAMILIES  # noqa: E402

from benchmarks.results import Manifest, read_model  # noqa: E402
from exporters.peft import export_adapter  # noqa: E402
from harness.backbone import load_backbone  # noqa: E402
from harness.interchange import convert  # noqa: E402
from harness.methods import METHODS  # noqa: E402
from harness.store import load_run  # noqa: E402

STEPS = 40
TOLERANCE = 1e-4
"""Of weights that two processes make, and of logits; those of a continued run are equal."""

Row = dict[str, Any]


def difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest one between tensors of the same names and shapes; NaN where one has no number."""
    if not one or {name: w.shape for name, w in one.items()} != {name: w.shape for name, w in other.items()}:
        raise ValueError(f"not the same tensors: {', '.join(one)}; {', '.join(other)}")
    return float(torch.stack([(one[name].double() - other[name].double()).abs().max() for name in one]).max())


def trained(run: Path) -> dict[str, torch.Tensor]:
    """All weights that a run stored."""
    files = {str(file.relative_to(run)): load_file(file) for file in sorted(run.rglob("*.safetensors"))}
    return {f"{file} {name}": weight for file, weights in files.items() for name, weight in weights.items()}


def same_predictions(one: Path, other: Path) -> bool:
    """Whether two runs have the same files of predictions, byte for byte."""
    stored = [{file.name: file.read_bytes() for file in (run / "predictions").iterdir()} for run in (one, other)]
    return bool(stored[0]) and stored[0] == stored[1]


def options(out: Path, *more: object) -> list[str]:
    """Of a small run on the demo suite with the embedded encoder; its folder is `out / "x"`."""
    settings = (
        *("--suite", "demo", "--tasks", "demo-topic,demo-names", "--languages", "en,de", "--backbone", "minilm-l6-en"),
        *("--precision", "fp32", "--max-eval", 12, "--max-steps", STEPS, "--epochs", 99, "--tracker", "none"),
        *("--out", out, "--name", "x", *more),
    )
    return [str(word) for word in settings]


def kill_and_resume(method: str, ranks: Ranks, draw: Random, folder: Path) -> Row:
    """A run that is killed in the first and in the second half of its steps, beside an undisturbed one."""
    settings = ("--method", method, "--max-train", 32, "--batch", 4, "--checkpoint-seconds", 0.5)
    whole = ranks.start(folder / "whole notes", *options(folder / "whole", *settings), world=1)
    if whole.wait() != [0]:
        raise RuntimeError(whole.output(0)[1])
    begun = 0
    moments = [draw.randrange(4, STEPS // 2), draw.randrange(STEPS // 2, STEPS - 4), None]
    for number, moment in enumerate(moments):
        steps, notes = folder / f"steps {number}", folder / f"notes {number}"
        steps.touch()
        arguments = options(folder / "parts", *settings, "--resume")
        run = ranks.start(notes, *arguments, world=1, act="tell", environment={"STEPS": str(steps)})
        if moment is not None:
            kill(run.pids[0], steps, moment, draw.uniform(0, 0.05))
        if run.wait() != [0 if moment is None else -9]:
            raise RuntimeError(f"{method}: not as it was to end: {run.output(0)[1]}")
        begun += len(steps.read_text().split())
    one, other = folder / "whole" / "x", folder / "parts" / "x"
    manifest = read_model(other / "manifest.json", Manifest)
    weights = trained(one)
    stored = sum(weight.numel() for weight in weights.values())
    return {
        "method": method,
        "weights": stored,
        "killed in step": moments[:-1],
        "continued": manifest.interruptions,
        "steps repeated": begun - manifest.steps,
        "largest difference": difference(weights, trained(other)),
        "same predictions": same_predictions(one, other),
    }


def kill(pid: int, steps: Path, moment: int, later: float) -> None:
    """SIGKILL for a process, so many seconds after it began a step."""
    end = time.monotonic() + 120
    while int((steps.read_text().split() or [-1])[-1]) < moment:
        if time.monotonic() > end:
            raise RuntimeError(f"no step {moment} within two minutes")
        time.sleep(0.001)
    time.sleep(later)
    os.kill(pid, 9)


def two_processes(folder: Path) -> list[Row]:
    """The same run by one process and by two, with the same batches."""
    settings = ("--max-train", 128, "--batch", 16, "--selection", "last")
    ways = {1: [sys.executable], 2: [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]}
    rows: list[Row] = []
    for processes, start in ways.items():
        run = folder / str(processes) / "x"
        command = [*start, "-m", "harness.run", *options(run.parent, *settings)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, check=True)
        manifest, weights = read_model(run / "manifest.json", Manifest), trained(run)
        rows.append(
            {
                "processor": manifest.processor,
                "processes": processes,
                "steps": manifest.steps,
                "examples": manifest.examples_seen,
                "seconds of training": manifest.train_seconds,
                "largest weight": max(float(weight.abs().max()) for weight in weights.values()),
                "largest difference": difference(trained(folder / "1" / "x"), weights),
            }
        )
    return rows


def round_trip(kind: str, family: str, folder: Path) -> Row:
    """A prompt that we trained in peft, and a random one of peft here: logits of all pieces of random rows."""
    backbone = folder_of(family, folder / "backbone")
    settings = {"method": "prompt-tuning" if kind == "prompt" else "ptuning-v2", "tasks": ["demo-names"]}
    ours = run_of(backbone, folder, "ours", positions="shifted", prompt_length=SLOTS, **settings)
    export_adapter(ours, folder / "exported", "demo-names")
    adapter = adapter_of(kind, family, backbone, folder / "theirs")
    convert(adapter, load_backbone(str(backbone)), folder / "start", NAMES)
    back = run_of(backbone, folder, "imported", start_from=folder / "start", max_steps=0, **settings)
    row: Row = {"family": family, "prompt": {"prefix": "in every layer", "prompt": "in the input"}[kind]}
    for name, run, from_peft in (("exported", ours, folder / "exported"), ("imported", back, adapter)):
        expected = theirs_on_tokens(backbone, from_peft, len(NAMES.labels), family)
        expected = expected[:, SLOTS if kind == "prompt" else 0 :]  # peft leaves the rows of the prompt in
        got = ours_on_tokens(load_run(run))
        row[f"largest logit, {name}"] = float(got.abs().max())
        row[f"difference, {name}"] = difference(pieces(got), pieces(expected))
    return row


def pieces(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Those of each row without padding."""
    return {str(number): row[:length] for number, (row, length) in enumerate(zip(logits, LENGTHS, strict=True))}


def kept(row: Row) -> bool:
    """Whether the figures of a row are what is promised."""
    far = [value for name, value in row.items() if "difference" in name]
    if "same predictions" in row:
        return row["same predictions"] and far == [0.0]
    return all(value <= TOLERANCE for value in far)


def resume(folder: Path) -> list[Row]:
    """Of every method."""
    ranks = Ranks()
    try:
        return [kill_and_resume(method, ranks, Random(method), folder / method) for method in METHODS]
    finally:
        ranks.close()


def round_trips(folder: Path) -> list[Row]:
    """Of every family and kind of prompt that peft has for it."""
    kinds = [*(("prefix", family) for family in CACHED), *(("prompt", family) for family in FAMILIES)]
    return [round_trip(kind, family, folder / f"{kind} {family}") for kind, family in kinds]


TABLES = {"resume": resume, "processes": two_processes, "peft": round_trips}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.official.figures", description=__doc__)
    parser.add_argument("--table", choices=TABLES, help="only this one")
    parser.add_argument("--json", action="store_true", help="one JSON object with the rows of each table")
    asked = parser.parse_args()
    logging.set_verbosity_error()  # heads that peft's adapters bring are missing in the checkpoint
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # of transformers, on a name that peft still uses
    tables: dict[str, list[Row]] = {}
    for name in [asked.table] if asked.table else TABLES:
        with TemporaryDirectory() as folder:
            os.environ["POLYPROMPT_CACHE"] = str(Path(folder) / "cache")
            tables[name] = TABLES[name](Path(folder))
        if not asked.json:
            lines = [shown(row) for row in tables[name]]
            print(f"{name}\n\n{tabulate(lines, headers='keys', disable_numparse=True)}\n", flush=True)
    if asked.json:
        print(json.dumps(tables, indent=2))
    return int(not all(kept(row) for rows in tables.values() for row in rows))


def shown(row: Row) -> Row:
    """A row as people read it."""
    texts = {float: lambda value: f"{value:.2g}", bool: lambda value: "yes" if value else "NO"}
    texts |= {list: lambda value: ", ".join(map(str, value))}
    return {name: texts.get(type(value), str)(value) for name, value in row.items()}


if __name__ == "__main__":
    sys.exit(main())
