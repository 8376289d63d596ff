"""Write a run as a bundle and refuse it unless it agrees with the original on real rows."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tabulate import tabulate
from torch import nn

from benchmarks import data
from benchmarks.errors import PolypromptError, run_command
from benchmarks.own.python import refuse_python
from benchmarks.records import Example
from benchmarks.registry import find_task, own_suites
from benchmarks.results import Manifest, read_model, write_model
from benchmarks.task import Task, TaskCard
from exporters.bundle import CARD, BundleCard, BundledTask, complete_or_absent, write_bundle
from exporters.graph import OUTPUTS, Blueprint, Graph, build_graph
from exporters.session import Session
from exporters.tasks import Head, Prompt, Readout, Tensors, task_tensors
from exporters.verify import Sample, verify
from exporters.weights import Floats, Linear, Norm, read_weights
from harness.config import RunConfig, load_config
from harness.data import load_evaluation
from harness.device import find_device
from harness.evaluate import compute
from harness.heads import HeadKind, head_kind
from harness.model import PromptedModel
from harness.readout import mask_pieces
from harness.sharing import PromptBank
from harness.store import load_run

ATOL = 1e-3
"""Default of `--atol`: more than the order of additions in fp32 can change, less than a prediction hangs on."""

LANGUAGES = 8
"""At most so many languages of a task are compared."""


class _Known(NamedTuple):
    """What the graph knows by one `task_id`: a task, in a language with a prompt of its own or in all others ("")."""

    card: TaskCard
    language: str
    row: int | None


def _known(bank: PromptBank, cards: Sequence[TaskCard]) -> list[_Known]:
    """By `task_id` what the graph knows: the tasks first, so that without languages there is no more."""
    in_languages = [
        _Known(card, language, row) for card in cards for language, row in bank.by_language(card.answered_by).items()
    ]
    return [*(_Known(card, "", bank.row(card.answered_by)) for card in cards), *in_languages]


def export(
    run: Path, out: Path, atol: float = ATOL, rows: int = 32, task_files: Sequence[Path] | None = None
) -> BundleCard:
    """Write the bundle of a run.

    Args:
        run: a finished run. out: folder of the bundle; an older bundle there is replaced.
        atol: largest absolute difference of any output value on real rows.
        rows: examples of each task that are compared, spread over its languages.
        task_files: the task files of the run; None: those that it names, if they are no Python.

    Raises:
        PolypromptError: the run cannot be read or exported, its data is gone, or the outputs differ; `out` is
            then as it was.
    """
    manifest = read_model(run / "manifest.json", Manifest)
    config = load_config(run / "config.toml")
    model = load_run(run)
    if task_files is None:
        refuse_python(config.task_file, run / "config.toml")
        task_files = config.task_file
    own = own_suites(task_files)
    samples = {card.name: _sample(config, find_task(card.name, own), rows) for card in manifest.tasks}
    graph, tensors = graph_of(model), tensors_of(model, manifest.tasks)
    card = describe(model, manifest)
    with complete_or_absent(out) as folder:
        card = write_bundle(folder, card, graph, tensors, model.backbone.tokenizer.to_str())
        original = partial(compute, model, device=find_device("fp32", cpu=True))
        parity = verify(Session(folder), original, samples, atol)
        card = card.model_copy(update={"parity": parity})
        write_model(folder / CARD, card)
    return card


def graph_of(model: PromptedModel) -> Graph:
    """The graph of a prompted model."""
    backbone = model.backbone
    encoder = backbone.model
    state = {name: tensor.float().cpu().numpy() for name, tensor in encoder.state_dict().items()}
    weights = read_weights(encoder.config.to_dict(), state, backbone.first_position, backbone.token_types)
    return build_graph(weights, blueprint_of(model))


def blueprint_of(model: PromptedModel) -> Blueprint:
    """What the graph of a prompted model has room for."""
    placement = None if model.prompt is None else model.prompt.placement
    if placement is not None and placement.layers is not None and not placement.gated:
        # All layers, since a layer without slots costs next to nothing, and a task may come that has them there.
        placement = placement.model_copy(update={"layers": tuple(range(model.backbone.layers))})
    kind = HeadKind.LINEAR if model.readout is None else model.readout.kind
    return Blueprint(placement, model.pooling, kind)


def tensors_of(model: PromptedModel, cards: Sequence[TaskCard]) -> Tensors:
    """What the graph of a prompted model is fed for the given tasks."""
    heads = {name: Head(*_weight_bias(head)) for name, head in model.all_heads.items()}
    readout = _readout(model, cards)
    if model.prompt is None:
        return task_tensors(cards, heads, model.backbone.hidden, None, readout)
    bank = model.prompt.fold(model.tasks)
    known = _known(bank, cards)
    prompt = Prompt(bank.bank.float().cpu().numpy(), bank.placement, [one.row for one in known])
    layers = blueprint_of(model).placement.layers or ()
    return task_tensors([one.card for one in known], heads, model.backbone.hidden, prompt, readout, layers)


def _readout(model: PromptedModel, cards: Sequence[TaskCard]) -> Readout | None:
    layers = model.readout
    if layers is None:
        return None
    weight, bias = _weight_bias(layers.dense)
    norm = None if layers.norm is None else Norm(*_weight_bias(layers.norm))
    tasks = frozenset(card.name for card in cards if layers.reads(card))
    return Readout(tasks, Linear(weight.T, bias), norm)


def _weight_bias(module: nn.Linear | nn.LayerNorm) -> tuple[Floats, Floats]:
    weight, bias = (tensor.detach().float().cpu().numpy() for tensor in (module.weight, module.bias))
    return weight, bias


def describe(model: PromptedModel, manifest: Manifest) -> BundleCard:
    """The card of a model's bundle before there are any files."""
    columns = {name: head.out_features for name, head in model.all_heads.items()}
    blueprint, asked = blueprint_of(model), HeadKind.LINEAR if model.readout is None else model.readout.kind
    masks = mask_pieces(asked, model.backbone, manifest.tasks)
    bank = None if model.prompt is None else model.prompt.fold(model.tasks)
    known = [] if bank is None else _known(bank, manifest.tasks)
    tasks = []
    for number, card in enumerate(manifest.tasks):
        prompted = bank is not None and bank.row(card.answered_by) is not None
        tasks.append(
            BundledTask(
                card=card,
                task_id=number,
                output=OUTPUTS[card.kind],
                columns=columns.get(card.answered_by, manifest.backbone.hidden),
                threshold=_threshold(manifest, card),
                languages={
                    one.language: place
                    for place, one in enumerate(known)
                    if one.language and one.card.name == card.name
                },
                thresholds=_thresholds(manifest, card),
                head=head_kind(card, asked),
                mask_id=masks.get(card.name),
                slots=bank.slots if prompted else 0,
                prompt_layers=list(bank.placement.layers or ()) if prompted else [],
                max_positions=model.max_positions,
            )
        )
    return BundleCard(
        run=manifest.run,
        method=manifest.method,
        backbone=manifest.backbone,
        placement=blueprint.placement,
        pooling=blueprint.pooling,
        readout=blueprint.readout,
        token_types=model.backbone.token_types,
        pad_id=model.backbone.pad_id,
        tasks=tasks,
    )


def _threshold(manifest: Manifest, card: TaskCard) -> float | None:
    """The threshold of the main language that was trained in; without training, of the first language."""
    known = manifest.thresholds.get(card.name, {})
    return known.get(card.train_language or "", next(iter(known.values()), None))


def _thresholds(manifest: Manifest, card: TaskCard) -> dict[str, float]:
    """Those of each language, where there are several."""
    known = manifest.thresholds.get(card.name, {})
    return known if len(known) > 1 else {}


def _sample(config: RunConfig, task: Task, rows: int) -> Sample:
    """Real examples of the reported split, spread over it and over the languages whose files are there."""
    there = data.languages(task, task.eval_split, config.data_dir, config.files)
    languages = [code for code in there if not config.languages or code in config.languages]
    if not languages:
        raise PolypromptError(
            f"task {task.name}: no row is there to check the export on; the run read its data from "
            f"{data.folder_of(task, config.data_dir) or 'the hub'}"
        )
    languages = [languages[i] for i in _spread(len(languages), min(LANGUAGES, rows))]
    sample: dict[str, Sequence[Example]] = {}
    for code in languages:
        examples = load_evaluation(config, task, code).examples
        sample[code] = [examples[i] for i in _spread(len(examples), -(-rows // len(languages)))]
    return sample


def _spread(size: int, count: int) -> list[int]:
    """At most `count` indices below `size`, at equal distances."""
    return sorted({int(index) for index in np.linspace(0, size - 1, min(size, count))})


def _report(card: BundleCard, out: Path, seconds: float) -> str:
    assert card.parity is not None
    lines = [
        (name, part.examples, " ".join(part.languages), f"{part.difference:.1e}", f"{100 * part.agreement:.1f} %")
        for name, part in card.parity.tasks.items()
    ]
    headers = ("task", "rows", "languages", "largest difference", "equal predictions")
    table = tabulate(
        lines, headers=headers, disable_numparse=True, colalign=("left", "right", "left", "right", "right")
    )
    sizes = ", ".join(f"{name} {_size(file.bytes)}" for name, file in card.files.items())
    return (
        f"{table}\n\n{out}: {len(card.tasks)} tasks, {sizes}\n"
        f"largest difference to PyTorch {card.parity.difference:.1e} (allowed {card.parity.atol:g}), "
        f"{card.parity.engine}, {seconds:.1f} s"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.export", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, help="folder of the bundle (default: RUN/export)")
    parser.add_argument("--atol", type=float, default=ATOL, help="largest difference to PyTorch (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=32, help="examples of each task to compare (default: %(default)s)")
    parser.add_argument(
        "--task-file",
        type=Path,
        action="append",
        metavar="FILE",
        help="the run's task file, where it moved or is code",
    )
    parser.add_argument("--json", action="store_true", help="print bundle.json instead of a table")
    options = parser.parse_args()
    if options.rows < 1:
        raise PolypromptError(f"--rows {options.rows}: at least 1 is needed, an unchecked export is not written")
    out = options.out or options.run / "export"
    start = time.perf_counter()
    card = export(options.run, out, options.atol, options.rows, options.task_file)
    print(card.model_dump_json(indent=2) if options.json else _report(card, out, time.perf_counter() - start))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
