"""Add the tasks of another run to a bundle; its graph and the weights of its encoder stay as they are."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.errors import PolypromptError, run_command
from benchmarks.results import Manifest, read_model
from benchmarks.task import TaskCard
from exporters.bundle import (
    BundleCard,
    BundledTask,
    Parity,
    changeable,
    changing,
    read_tasks,
    replace_tasks,
    tasks_file,
)
from exporters.comparison import ATOL, MAX_DROP, add_options, exact_in, rows_in
from exporters.export import samples_of
from exporters.graph import OUTPUTS, Blueprint
from exporters.tasks import Readout, Tensors
from exporters.trained import Trained, frozen_layers
from exporters.verify import Sample, verify_engines
from exporters.weights import Floats, Linear, Norm
from harness.config import load_config
from harness.device import find_device
from harness.evaluate import compute
from harness.features import Feature
from harness.heads import HeadKind, HeadLayers
from harness.methods import Weights, find_method
from harness.store import load_run


def add(
    bundle: Path,
    run: Path,
    names: Mapping[str, str] | None = None,
    atol: float = ATOL,
    rows: int | None = None,
    task_files: Sequence[Path] | None = None,
    max_drop: float = MAX_DROP,
) -> tuple[list[BundledTask], float]:
    """Add all tasks of a run.

    Args:
        bundle: what gets them; it has the old tasks or all of the new ones at any moment.
        run: a finished run over the same encoder.
        names: name in the run -> name in the bundle, where it is another one.
        atol: largest absolute difference of any output value on real rows.
        rows: examples of each task that are compared; 0: none; None: as `exporters.export.export`.
        task_files, max_drop: as in `exporters.export.export`.

    Returns:
        The new tasks, and the seconds that adding took beside the comparison.

    Raises:
        PolypromptError: the run does not fit the bundle, or the outputs differ; the bundle is then as it was.
    """
    with changing(bundle):
        began = time.perf_counter()
        manifest, config = read_model(run / "manifest.json", Manifest), load_config(run / "config.toml")
        trained = Trained.of_run(run, manifest, config)
        card = changeable(bundle)
        tasks, tensors = fitted(bundle, card, trained, manifest, names or {})
        new = card.model_copy(update={"tasks": [*card.tasks, *tasks]})
        seconds = time.perf_counter() - began
        if rows is None:
            rows = rows_in(card.precision)
        if rows:
            with _trial(bundle, new, tensors) as trial:
                sample = samples_of(run, config, manifest, rows, task_files)
                later = _compare(trial, run, tasks, sample, exact_in(card.precision, atol), max_drop, timed=False)
            parity = {name: card.parity[name].joined(later[name]) for name in card.parity if name in later}
            new = new.model_copy(update={"parity": parity})
        began = time.perf_counter()
        replace_tasks(bundle, new, {tasks[0].file: tensors})
        return tasks, seconds + time.perf_counter() - began


def compare_run(
    bundle: Path,
    card: BundleCard,
    run: Path,
    atol: float = ATOL,
    rows: int | None = None,
    task_files: Sequence[Path] | None = None,
    max_drop: float = MAX_DROP,
) -> dict[str, Parity]:
    """Compare the tasks of a bundle that came from a run with it, by every engine that is installed.

    Args:
        card: of the bundle. The others: as for `add`.

    Returns:
        Engine -> report, of those that agree.

    Raises:
        PolypromptError: none came from it, or the outputs differ.
    """
    manifest, config = read_model(run / "manifest.json", Manifest), load_config(run / "config.toml")
    tasks = [task for task in card.tasks if task.run == manifest.run]
    if not tasks:
        came = ", ".join(dict.fromkeys(task.run for task in card.tasks))
        raise PolypromptError(f"{bundle}: no task came from the run {manifest.run}, they came from {came}")
    sample = samples_of(run, config, manifest, rows or rows_in(card.precision), task_files)
    return _compare(bundle, run, tasks, sample, exact_in(card.precision, atol), max_drop)


def fitted(
    bundle: Path, card: BundleCard, trained: Trained, manifest: Manifest, names: Mapping[str, str]
) -> tuple[list[BundledTask], Tensors]:
    """The tasks of a run and their tensors in the form that the graph of a bundle takes.

    Raises:
        PolypromptError: the graph has no room for them, or a name is taken; says which.
    """
    run, blueprint = manifest.run, Blueprint(card.placement, card.pooling, card.readout, card.head_layers)
    reason = _mismatch(card, trained, manifest)
    if reason:
        raise PolypromptError(f"{run} does not fit {bundle}: {reason}; it needs a bundle of its own")
    readout = _readout(bundle, card, trained)
    if readout is not None and trained.readout is not None and not _equal(readout, frozen_layers(trained.readout, ())):
        raise PolypromptError(f"{run} does not fit {bundle}: its {trained.kind} has other weights")
    tensors = trained.tensors(blueprint, card.backbone, readout)
    file = tasks_file(tensors)
    for name in names:
        if name not in {task.name for task in trained.cards}:
            raise PolypromptError(f"--name {name}: {run} has {', '.join(task.name for task in trained.cards)}")
    tasks = [
        task.model_copy(update={"card": _renamed(task.card, names), "file": file})
        for task in trained.bundled(manifest, card.max_positions, card.mask_id)
    ]
    taken = {task.card.name for task in card.tasks}
    for name in (task.card.name for task in tasks):
        if name in taken:
            raise PolypromptError(f"{bundle} has a task {name} already; give this one another name: --name {name}=NEW")
        taken.add(name)
    return tasks, tensors


def _mismatch(card: BundleCard, trained: Trained, manifest: Manifest) -> str:
    """Why a run cannot be answered by the graph of a bundle; nothing where it can."""
    there, own = card.placement, None if trained.prompt is None else trained.prompt.placement
    if manifest.backbone.sha256 != card.backbone.sha256:
        return (
            f"its encoder is {manifest.backbone.name} ({manifest.backbone.sha256[:12]}), the bundle's "
            f"{card.backbone.name} ({card.backbone.sha256[:12]})"
        )
    for name in (manifest.method, card.method):
        if find_method(name).backbone is not Weights.NONE:
            return f"{name} trains the encoder itself"
    if trained.pooling is not card.pooling and any(OUTPUTS[task.kind] == "sequence_logits" for task in trained.cards):
        return f"it reads {trained.pooling}, the bundle {card.pooling} (--pooling)"
    reads_all = trained.head_layers is HeadLayers.ALL and card.head_layers is HeadLayers.LAST
    if reads_all and any(OUTPUTS[task.kind] == "token_logits" for task in trained.cards):
        return "its heads read all layers, and the bundle gives them the last one alone (--head-layers)"
    if trained.kind not in (HeadKind.LINEAR, card.readout):
        return f"its heads are of the kind {trained.kind}, the bundle's {card.readout} (--head)"
    if own is None:
        return ""
    if there is None:
        return "its tasks have prompts, and the bundle has no room for any: export this run and add the other one"
    if (own.layers is None) != (there.layers is None):
        return "one has its prompts in the input and the other one in the layers"
    if (own.gated, own.positions) != (there.gated, there.positions):
        return "one has gated prompts or shifted positions and the other one has not (--init, --positions)"
    missing = sorted(set(own.layers or ()) - set(there.layers or ()))
    return f"the bundle has no room for prompts in the layers {', '.join(map(str, missing))}" if missing else ""


def _readout(bundle: Path, card: BundleCard, trained: Trained) -> Readout | None:
    """The frozen layers before heads that the graph of a bundle has."""
    if card.readout is HeadKind.LINEAR:
        return None
    tensors = read_tasks(bundle, card)[1]
    norm = [tensors[f"readout.norm.{part}"] for part in ("scale", "shift") if f"readout.norm.{part}" in tensors]
    dense = Linear(tensors["readout.dense.weight"], tensors["readout.dense.bias"])
    return Readout(frozenset(), dense, Norm(*norm) if norm else None)


def _equal(one: Readout, other: Readout) -> bool:
    pairs = [(one.dense.weight, other.dense.weight), (one.dense.bias, other.dense.bias)]
    if one.norm is not None and other.norm is not None:
        pairs += [(one.norm.scale, other.norm.scale), (one.norm.shift, other.norm.shift)]
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def _renamed(card: TaskCard, names: Mapping[str, str]) -> TaskCard:
    new = {"name": names.get(card.name, card.name), "head": names.get(card.head, card.head)}
    return card.model_copy(update=new)


@contextmanager
def _trial(bundle: Path, card: BundleCard, tensors: Tensors) -> Iterator[Path]:
    """The bundle as it would be, beside it: its large files are linked."""
    with tempfile.TemporaryDirectory(prefix=f".{bundle.name}.", dir=bundle.parent) as aside:
        folder = Path(aside)
        for name in card.files:
            try:
                os.link(bundle / name, folder / name)
            except OSError:  # a disk without links
                shutil.copyfile(bundle / name, folder / name)
        replace_tasks(folder, card, {card.tasks[-1].file: tensors})
        yield folder


def _compare(
    trial: Path,
    run: Path,
    tasks: Sequence[BundledTask],
    samples: Mapping[str, Sample],
    atol: float | None,
    max_drop: float,
    timed: bool = True,
) -> dict[str, Parity]:
    """The new tasks on real rows, in the bundle and in the run, by the engines that agree."""
    model, names = load_run(run), {task.card.name: task.run_task for task in tasks}
    originals = {card.name: card for card in read_model(run / "manifest.json", Manifest).tasks}
    device = find_device("fp32", cpu=True)

    def reference(card: TaskCard, features: Sequence[Feature], *, language: str) -> list[Floats]:
        return compute(model, originals[names[card.name]], features, device, language=language)

    rows = {new: samples[old] for new, old in names.items()}
    return verify_engines(trial, reference, rows, atol, max_drop, timed)[0]


def _parse_names(given: Sequence[str], manifest: Manifest) -> dict[str, str]:
    names = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not equals:
            if len(manifest.tasks) > 1:
                raise PolypromptError(f"--name {text}: the run has several tasks; write TASK={text}")
            old, new = manifest.tasks[0].name, text
        names[old] = new
    return names


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.add", description=__doc__)
    parser.add_argument("bundle", type=Path, help="bundle that gets the tasks")
    parser.add_argument("run", type=Path, help="run folder, over the encoder of the bundle")
    parser.add_argument(
        "--name", action="append", default=[], metavar="[TASK=]NEW", help="another name for a task in the bundle"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not compare with PyTorch on real rows")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the new tasks as a JSON list instead of a sentence")
    options = parser.parse_args()
    names = _parse_names(options.name, read_model(options.run / "manifest.json", Manifest))
    rows = 0 if options.no_verify else options.rows
    given = (options.bundle, options.run, names, options.atol, rows, options.task_file, options.max_drop)
    tasks, seconds = add(*given)
    if options.json:
        print(f"[{', '.join(task.model_dump_json() for task in tasks)}]")
    else:
        checked = "not compared with PyTorch" if options.no_verify else "compared with PyTorch"
        added = ", ".join(task.card.name for task in tasks)
        print(f"{options.bundle}: added {added} in {1000 * seconds:.0f} ms; {checked}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
