"""`python -m tests.speed.export [--quick] [--json]`: what it costs to export, store, add and hold many tasks.

Runs have random prompts of 16 slots in all layers, one a task. Exports are written without the comparison on real rows.

16 tasks : 1 task: seconds and bytes of one bundle with 16 tasks beside one with a single task.
16 exports : 16 tasks: that bundle beside a `torch.onnx.export` for each task; one of them is done and counted 16 times.
memory: what a process holds with a session of 1, 8 and 64 tasks open, beside one task.
forms: what each further graph of the same bundle adds to a process that opens it and computes a batch with it, over the
size of the weights, by engine; pages of a file that two graphs map count once.
add: milliseconds that `exporters.add` works on a further task, beside the comparison on real rows.
all tasks : one task: an answer for all of 16 tasks that share a prompt in one pass, beside an answer for one.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Example
from benchmarks.results import Manifest, write_model
from exporters.add import add
from exporters.bundle import Form, complete_or_absent, write_bundle
from exporters.export import beside, describe, graph_of, tensors_of
from exporters.precision import Precision
from exporters.session import Session
from exporters.together import side_by_side
from harness.backbone import Backbone, load_backbone
from harness.config import RunConfig, save_config
from harness.model import PromptedModel
from harness.screen import Screen
from harness.store import save_weights
from tests.speed.exported import bundle_of, cards, prompted
from tests.speed.inference import Plain, timed
from tests.speed.ratios import Spread, interleave, ratios, spread

TASKS, MOST = 16, 64
ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from pathlib import Path
from exporters.session import Session
session = Session(Path(sys.argv[1]))
import re
print(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""

FORMS = """
import sys
from pathlib import Path
from exporters.bench import batch_of
from exporters.bundle import read_card, read_tasks
from exporters.engines import run_side_by_side, streams_of
from exporters.pace import Graphs
folder, name = Path(sys.argv[1]), sys.argv[2]
card = read_card(folder)
tensors = read_tasks(folder, card)[1]
graphs = Graphs(folder, card, name)
held = lambda: int(Path("/proc/self/smaps_rollup").read_text().split("Pss:")[1].split()[0])
before = held()
for form in [*graphs.forms, *graphs.in_streams]:
    engine = graphs.open(form)
    engine.keep(tensors)
    feeds, output = batch_of(card, [16, 24], 20000)
    run_side_by_side(engine, [([output], feeds)] * streams_of(engine))
    print(form, held() - before)
    before = held()
"""


def manifest_of(model: PromptedModel) -> Manifest:
    """What a run of a model would say of itself."""
    nothing = dict.fromkeys(("trainable", "share", "steps", "examples_seen", "interruptions", "seed"), 0)
    nothing |= {"train_seconds": 0, "evaluate_seconds": 0, "packages": {}, "data": {}, "limits": {}}
    words = dict.fromkeys(("command", "code", "processor", "prompt"), "") | {"run": "bench", "precision": "fp32"}
    words |= {"created": "2000-01-01T00:00:00Z", "method": "ptuning-v2"}
    return Manifest(backbone=model.backbone.card, tasks=cards(len(model.tasks)), **words, **nothing)


def write(model: PromptedModel, out: Path, form: Form = Form.MIXED) -> float:
    """Export without a comparison; seconds."""
    began = time.perf_counter()
    manifest = manifest_of(model)
    tensors, card = tensors_of(model, manifest.tasks), describe(model, manifest)
    if form is Form.ALL:
        tasks, tensors = side_by_side(card.tasks, tensors)
        card = card.model_copy(update={"form": form, "tasks": tasks})
    with complete_or_absent(out) as folder:
        write_bundle(folder, card, graph_of(model), tensors, model.backbone.tokenizer.to_str(), beside(out))
    return time.perf_counter() - began


def save_run(model: PromptedModel, run: Path) -> Path:
    """A run folder as training leaves it."""
    run.mkdir(parents=True)
    save_config(RunConfig(suite=["demo"], backbone=model.backbone.card.name), run / "config.toml")
    write_model(run / "manifest.json", manifest_of(model))
    save_weights(model, run)
    return run


def naive(backbone: Backbone, out: Path) -> float:
    """`torch.onnx.export` of one task; seconds."""
    plain = Plain(copy.deepcopy(backbone.model), 2).eval()
    example = torch.ones(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long)
    size = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", max=backbone.max_positions)}
    out.mkdir()
    began = time.perf_counter()
    torch.onnx.export(plain, example, out / "model.onnx", dynamo=True, dynamic_shapes=(size, size), verbose=False)
    return time.perf_counter() - began


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def held(bundle: Path) -> float:
    """MiB that a process holds with a session open.

    Raises:
        PolypromptError: it failed.
    """
    done = subprocess.run([sys.executable, "-c", HOLD, bundle], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PolypromptError(f"{bundle}: {done.stderr.strip()}")
    return int(done.stdout) / 1024


def forms(bundle: Path, engine: str) -> dict[str, float]:
    """MiB that each further graph of a bundle adds to a process, by form; the first is padded.

    Raises:
        PolypromptError: it failed.
    """
    done = subprocess.run([sys.executable, "-c", FORMS, bundle, engine], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PolypromptError(f"{bundle}: {done.stderr.strip()}")
    return {form: int(added) / 1024 for form, added in (line.split() for line in done.stdout.splitlines())}


def measure(name: str, folder: Path, rounds: int, screen: Screen) -> dict[str, Spread]:
    """All figures of one encoder."""
    backbone, found = load_backbone(name), {}
    models = {count: prompted(backbone, cards(count)) for count in (1, 8, TASKS, MOST)}
    write(models[1], folder / "warm")
    screen.say(f"{name}: exports")
    ways: dict[str, Callable[[], float]] = {
        "1": lambda: write(models[1], folder / "1"),
        "16": lambda: write(models[TASKS], folder / "16"),
    }
    times = interleave(ways, 0, least=rounds)
    alone = naive(backbone, folder / "naive")
    found["seconds, 16 tasks : 1 task"] = ratios(times["16"], times["1"])
    found["seconds, 16 exports by torch : 16 tasks"] = spread([TASKS * alone / taken for taken in times["16"]])
    found["bytes, 16 tasks : 1 task"] = spread([size(folder / "16") / size(folder / "1")])
    found["bytes, 16 exports by torch : 16 tasks"] = spread([TASKS * size(folder / "naive") / size(folder / "16")])
    screen.say(f"{name}: memory")
    for count in (1, 8, MOST):
        write(models[count], folder / f"held-{count}")
    one = held(folder / "held-1")
    found["MiB with 1 task"] = spread([one])
    for count in (8, MOST):
        found[f"memory, {count} tasks : 1 task"] = spread([held(folder / f"held-{count}") / one])
    for precision in (Precision.FP32, Precision.INT8):
        bundle = folder / f"forms-{precision}"
        card = bundle_of(models[1], cards(1), bundle, precision)
        weights = (bundle / "backbone.bin").stat().st_size / 2**20
        for engine in card.parity:
            for form, added in forms(bundle, engine).items():
                found[f"memory, {precision}, {engine}, {form} : weights"] = spread([added / weights])
    screen.say(f"{name}: a further task")
    run = save_run(models[1], folder / "run")
    added = [add(folder / "16", run, {"task-0": f"further-{number}"}, rows=0)[1] for number in range(rounds + 1)]
    found["milliseconds to add a task"] = spread([1e3 * seconds for seconds in added[1:]])
    screen.say(f"{name}: all tasks at once")
    shared = prompted(backbone, cards(TASKS), shared=True)
    write(shared, folder / "shared", Form.MIXED)
    write(shared, folder / "all", Form.ALL)
    together, mixed = Session(folder / "all"), Session(folder / "shared")
    text = Example("1", "The committee will meet on Thursday to decide about the new bridge. " * 4)
    tasks = list(shared.tasks)
    answers = {
        "all": timed(partial(together.answer, [(task, text) for task in tasks])),
        "one": timed(partial(together.answer, [(tasks[0], text)])),
        "mixed": timed(partial(mixed.answer, [(task, text) for task in tasks])),
    }
    times = interleave(answers, 0, least=5 * rounds)
    found["seconds, all tasks : one task"] = ratios(times["all"], times["one"])
    found["seconds, all tasks in form mixed : in form all"] = ratios(times["mixed"], times["all"])
    return {f"{name} {key}": value for key, value in found.items()}


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one encoder, one round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    backbones, rounds = (("minilm-l6-en",), 1) if arguments.quick else (("minilm-l6-en", "e5-small-multilingual"), 3)
    found: dict[str, Spread] = {}
    for name in backbones:
        with TemporaryDirectory() as folder:
            found |= measure(name, Path(folder), rounds, Screen())
    if arguments.json:
        print(json.dumps({"ratios": {name: figure.record for name, figure in found.items()}}, indent=1))
    else:
        print(tabulate([(name, str(figure)) for name, figure in found.items()], headers=("", "figure")))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
