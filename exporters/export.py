"""Write a run as a bundle and refuse it unless it agrees with the original on real rows."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks import data
from benchmarks.choice import comma_list
from benchmarks.errors import MissingData, PolypromptError, run_command
from benchmarks.own.python import refuse_python
from benchmarks.records import Example
from benchmarks.registry import find_task, own_suites
from benchmarks.results import Manifest, read_model, write_model
from benchmarks.task import Decoding, Task, TaskCard
from exporters.bundle import CARD, BundleCard, Form, Retuning, VocabularyReport, complete_or_absent, write_bundle
from exporters.calibrate import CALIBRATED, calibrate
from exporters.comparison import ATOL, MAX_DROP, ROWS, add_options, exact_in, rows_in
from exporters.engines import has_operator, installed
from exporters.graph import Blueprint, Graph, build_graph
from exporters.layout import CARD as FOLDERS
from exporters.layout import Contents, FolderCard, FoldersCard, TaskFolder, write_folder
from exporters.native_form import build_native, can_be_native
from exporters.packed import build_packed, can_pack
from exporters.precision import Precision, in_precision
from exporters.retune import STEPS, retuned
from exporters.session import Place
from exporters.single import build_single
from exporters.store import remember
from exporters.table import AGREEMENT, agreement, table
from exporters.tasks import Prompt, Tensors, task_tensors
from exporters.together import side_by_side
from exporters.trained import Known, Trained, frozen_layers, threshold_of
from exporters.trimming import EVERYTHING, SCORED, Keep, trim_model, trimming_report
from exporters.verify import Sample, verify, verify_engines
from exporters.weights import EncoderWeights, read_weights
from harness.config import RunConfig, load_config
from harness.data import load_evaluation, load_rows
from harness.device import find_device
from harness.evaluate import compute
from harness.heads import HeadKind
from harness.model import PromptedModel
from harness.screen import Screen
from harness.store import load_run
from harness.viterbi import decoded

LAYOUTS = {"bundle": "export", "transformers": "transformers"}
"""Of `--layout`: its folder in a run."""

LANGUAGES = 8
"""At most so many languages of a task are compared."""


def export(
    run: Path,
    out: Path,
    atol: float = ATOL,
    rows: int | None = None,
    task_files: Sequence[Path] | None = None,
    form: Form = Form.MIXED,
    keep: Keep = EVERYTHING,
    precision: Precision = Precision.FP32,
    max_drop: float = MAX_DROP,
    screen: Screen | None = None,
    retune: int | None = None,
    copy_weights: bool = False,
    decoding: Decoding | None = None,
) -> BundleCard:
    """Write the bundle of a run.

    Args:
        run: a finished run. out: folder of the bundle; an older bundle there is replaced.
        atol: largest absolute difference of any output value on real rows, of engines in fp32.
        rows: examples of each task that are compared, spread over its languages; None: as many as
            `exporters.comparison.rows_in` says.
        task_files: the task files of the run; None: those that it names, if they are no Python.
        form: how rows are answered.
        keep: what the vocabulary is trimmed to.
        precision: of the frozen weights.
        max_drop: most points that a task may lose on these rows, where weights or engine are not in fp32.
        screen: hears of engines that do not agree.
        retune: steps in which prompts and heads are adapted to the precision, see `exporters.retune`; None: none.
        copy_weights: the bundle has a file of weights of its own, not a link to that of other bundles.
        decoding: how tags are chosen, see `harness.viterbi.decoded`; None: as in the run.

    Raises:
        PolypromptError: the run cannot be read or exported, its data is gone, or the outputs differ; `out` is
            then as it was.
    """
    rows = rows or rows_in(precision)
    screen = screen or Screen()
    manifest, config, model, samples, vocabulary = _open(run, rows, task_files, keep)
    if decoding is not None:
        manifest = manifest.model_copy(update={"tasks": decoded(manifest.tasks, decoding)})
    whole, fed, retuning = graph_of(model), model, None
    if retune is not None:
        fed, retuning = retuned(model, whole, precision, retune, config, manifest, samples, screen)
    graph, tensors = in_precision(whole, precision), tensors_of(fed, manifest.tasks)
    packed = native = None
    if precision is not Precision.FP16 and can_pack(blueprint_of(model), model.backbone.layers):  # fp16 is for GPUs
        packed = in_precision(graph_of(model, build_packed), precision)
    if precision is not Precision.FP16 and can_be_native(blueprint_of(model), model.backbone.card.family):
        native = in_precision(graph_of(model, build_native), precision)
    if form is Form.PACKED:
        _check_native(native is not None)
    about = {"form": form, "precision": precision.value, "vocabulary": vocabulary, "retuning": retuning}
    card = describe(model, manifest).model_copy(update=about)
    if form is Form.ALL:
        tasks, tensors = side_by_side(card.tasks, tensors)
        card = card.model_copy(update={"tasks": tasks})
    with complete_or_absent(out) as folder:
        others = None if copy_weights else beside(out)
        card = write_bundle(folder, card, graph, tensors, model.backbone.tokenizer.to_str(), others, packed, native)
        original = partial(compute, model, device=find_device("fp32", cpu=True))
        if precision is Precision.INT8:
            card = calibrate(folder, card, calibration_rows(config, samples))
        parity, left_out = verify_engines(folder, original, samples, exact_in(precision, atol), max_drop)
        if form is Form.PACKED and not any("native" in report.forms for report in parity.values()):
            raise PolypromptError(f"--form packed: {'; '.join(left_out)}; nothing was written")
        card = card.model_copy(update={"parity": parity})
        write_model(folder / CARD, card)
    if not copy_weights:
        remember(out / graph.backbone.name, card.files[graph.backbone.name].sha256)
    for sentence in left_out:
        screen.say(sentence)
    return card


def export_folders(
    run: Path,
    out: Path,
    atol: float = ATOL,
    rows: int = ROWS,
    task_files: Sequence[Path] | None = None,
    keep: Keep = EVERYTHING,
) -> FoldersCard:
    """Write a run as one ordinary folder a task; a language with a prompt of its own gets a folder of its own too.

    Args:
        run, atol, rows, task_files, keep: as for `export`.
        out: folder of the folders; an older one there is replaced.

    Raises:
        PolypromptError: as `export`.
    """
    manifest, _, model, samples, vocabulary = _open(run, rows, task_files, keep)
    known = Trained.of_model(model, manifest.tasks).known
    original = partial(compute, model, device=find_device("fp32", cpu=True))
    folders: dict[str, FolderCard] = {}
    engine = ""
    with complete_or_absent(out, FOLDERS) as folder, Screen().bar("export", len(known)) as bar:
        for one, contents in zip(known, contents_of(model, manifest), strict=True):
            name = f"{one.card.name}@{one.language}" if one.language else one.card.name
            write_folder(folder / name, contents)
            session = TaskFolder(folder / name, one.card, contents.mask_id if contents.masked else None)
            sample = _rows_of(one, samples[one.card.name], known)
            parity = verify(session, original, {one.card.name: sample}, atol)
            engine = f"{parity.engine.name} {parity.engine.version}"
            folders[name] = FolderCard(task=one.card.name, language=one.language, parity=parity.tasks[one.card.name])
            bar.step(name)
        card = FoldersCard(
            run=manifest.run,
            method=manifest.method,
            backbone=manifest.backbone,
            engine=engine,
            atol=atol,
            folders=folders,
            vocabulary=vocabulary,
        )
        write_model(folder / FOLDERS, card)
    return card


def _open(
    run: Path, rows: int, task_files: Sequence[Path] | None, keep: Keep
) -> tuple[Manifest, RunConfig, PromptedModel, dict[str, Sample], VocabularyReport | None]:
    """A run: what it says of itself, its model, real rows of its tasks, and what trimming left of the vocabulary."""
    manifest = read_model(run / "manifest.json", Manifest)
    config = load_config(run / "config.toml")
    model = load_run(run)
    samples = samples_of(run, config, manifest, rows, task_files)
    if task_files is not None:
        config = config.model_copy(update={"task_file": list(task_files)})
    if not keep:
        return manifest, config, model, samples, None
    own = own_suites(config.task_file)
    tasks = [replace(find_task(card.name, own), card=card) for card in manifest.tasks]
    return manifest, config, model, samples, trim_model(model, config, manifest, tasks, keep)


def beside(out: Path) -> list[Path]:
    """Folders near a bundle that may be bundles of the same encoder: its siblings, and exports of other runs."""
    return sorted({card.parent for pattern in (f"*/{CARD}", f"*/*/{CARD}") for card in out.parent.parent.glob(pattern)})


def _check_native(there: bool) -> None:
    """See that `--form packed` can be had.

    Args:
        there: the encoder has such a graph in this precision.

    Raises:
        PolypromptError: it cannot; says why.
    """
    if not there:
        raise PolypromptError(
            "--form packed: not of encoders whose scores look at distances (DeBERTa), of prompts in the input, nor in "
            "fp16; leave --form away"
        )
    if not any(has_operator(name) for name in installed()):
        raise PolypromptError(
            "--form packed: the compiled operator is not there for any engine; install the project where a compiler "
            "is, with the extra `cpu`, or leave --form away"
        )


def samples_of(
    run: Path, config: RunConfig, manifest: Manifest, rows: int, task_files: Sequence[Path] | None = None
) -> dict[str, Sample]:
    """Real rows of each task of a run, as `export` describes them."""
    if task_files is None:
        refuse_python(config.task_file, run / "config.toml")
        task_files = config.task_file
    own = own_suites(task_files)
    return {card.name: _sample(config, find_task(card.name, own), rows) for card in manifest.tasks}


def calibration_rows(config: RunConfig, samples: Mapping[str, Sample]) -> dict[Place, Sequence[Example]]:
    """Training rows of a run, by task and language, so that what is compared is not what ranges were found on.

    Args:
        config: of the run. samples: rows that stand in for a task that has no training rows, or none that are there.
    """
    found: dict[Place, Sequence[Example]] = {}
    with suppress(MissingData):  # of all tasks
        for one in load_rows(config.model_copy(update={"skip_missing": True}))[0]:
            for language, split in one.train.items():
                examples = split.examples
                found[one.task.name, language] = [examples[i] for i in _spread(len(examples), CALIBRATED)]
    trained = {name for name, _ in found}
    others = {(name, code): rows for name, one in samples.items() for code, rows in one.items() if name not in trained}
    return found | others


def contents_of(model: PromptedModel, manifest: Manifest) -> Iterator[Contents]:
    """What goes into the folder of each task, and then of each language with a prompt of its own."""
    weights, trained = _weights(model), Trained.of_model(model, manifest.tasks)
    for one in trained.known:
        yield _contents(model, manifest, weights, trained, one)


def _contents(
    model: PromptedModel, manifest: Manifest, weights: EncoderWeights, trained: Trained, one: Known
) -> Contents:
    card, backbone = one.card, model.backbone
    prompt, placement = None, None
    if trained.prompt is not None and one.row is not None:
        placement = trained.prompt.placement
        prompt = Prompt(trained.prompt.bank[one.row : one.row + 1].float().cpu().numpy(), placement, [0])
    readout = model.readout if model.readout is not None and model.readout.reads(card) else None
    kind = HeadKind.LINEAR if readout is None else readout.kind
    blueprint = Blueprint(placement, model.pooling, kind, model.head_layers)
    layers = () if placement is None else placement.layers or ()
    frozen = None if readout is None else frozen_layers(readout, [card])
    width = blueprint.head_layers.width(backbone.hidden, backbone.layers)
    tensors = task_tensors([card], trained.heads, backbone.hidden, prompt, frozen, layers, width)
    masked = blueprint.readout is HeadKind.VERBALISER
    return Contents(
        card=card,
        graph=build_single(weights, blueprint, card, tensors, backbone.mask_id if masked else None),
        config=backbone.model.config.to_diff_dict(),
        architecture=type(backbone.model).__name__,
        tokenizer=backbone.tokenizer.to_str(),
        pad_id=backbone.pad_id,
        mask_id=backbone.mask_id,
        token_types=backbone.token_types,
        hidden=backbone.hidden,
        longest=min(card.max_length, model.max_positions) - masked,
        masked=masked,
        threshold=threshold_of(manifest, card, one.language),
    )


def _rows_of(one: Known, sample: Sample, known: Sequence[Known]) -> Sample:
    """The rows of a task in the languages that a folder is for; rows of any language where none of those is there."""
    elsewhere = {other.language for other in known if other.card.name == one.card.name and other.language}
    mine = {
        language: rows
        for language, rows in sample.items()
        if (language == one.language if one.language else language not in elsewhere)
    }
    return mine or {one.language: next(iter(sample.values()))}


def _weights(model: PromptedModel) -> EncoderWeights:
    backbone, encoder = model.backbone, model.backbone.model
    state = {name: tensor.float().cpu().numpy() for name, tensor in encoder.state_dict().items()}
    return read_weights(encoder.config.to_dict(), state, backbone.first_position, backbone.token_types)


def graph_of(model: PromptedModel, write: Callable[[EncoderWeights, Blueprint], Graph] = build_graph) -> Graph:
    """The graph of a prompted model, as one of its forms writes it."""
    return write(_weights(model), blueprint_of(model))


def blueprint_of(model: PromptedModel) -> Blueprint:
    """What the graph of a prompted model has room for."""
    return Trained.of_model(model, []).blueprint(model.backbone.layers)


def tensors_of(model: PromptedModel, cards: Sequence[TaskCard]) -> Tensors:
    """What the graph of a prompted model is fed for the given tasks."""
    return Trained.of_model(model, cards).tensors(blueprint_of(model), model.backbone.card)


def describe(model: PromptedModel, manifest: Manifest) -> BundleCard:
    """The card of a model's bundle before there are any files."""
    backbone, blueprint = model.backbone, blueprint_of(model)
    trained = Trained.of_model(model, manifest.tasks)
    return BundleCard(
        run=manifest.run,
        method=manifest.method,
        backbone=manifest.backbone,
        placement=blueprint.placement,
        pooling=blueprint.pooling,
        readout=blueprint.readout,
        head_layers=blueprint.head_layers,
        token_types=backbone.token_types,
        pad_id=backbone.pad_id,
        mask_id=backbone.mask_id,
        max_positions=backbone.max_positions,
        tasks=trained.bundled(manifest, backbone.max_positions, backbone.mask_id),
    )


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
    reports = [
        (name if form == "padded" else f"{name}, {form}", part)
        for name, report in card.parity.items()
        for form, part in report.forms.items()
    ]
    lines = [
        (engine if number == 0 else "", name, *agreement(part))
        for engine, parity in reports
        for number, (name, part) in enumerate(parity.tasks.items())
    ]
    text = table({"engine": "left", "task": "left", **AGREEMENT}, lines)
    engines = [f"{name} {report.milliseconds:.2f} ms a row" for name, report in card.parity.items()]
    if card.vocabulary is not None:
        text += f"\n\n{trimming_report(card.vocabulary)}"
    if card.retuning is not None:
        text += f"\n\n{_report_retuning(card.retuning)}"
    sizes = ", ".join(f"{name} {_size(file.bytes)}" for name, file in card.files.items())
    return (
        f"{text}\n\n{out}: {len(card.tasks)} tasks, {card.precision}, {sizes}\n"
        f"agrees with PyTorch on real rows: {', '.join(engines)}; {seconds:.1f} s"
    )


def _report_retuning(retuning: Retuning) -> str:
    scores = [
        f"{name} {score.before:.1f} -> {score.after:.1f}"
        for name, score in retuning.scores.items()
        if score.before is not None and score.after is not None
    ]
    return (
        f"retuned in {retuning.steps} steps at a rate of {retuning.rate:.2g}; scores over the quantised weights in "
        f"PyTorch, before and after: {', '.join(scores) or 'not to be had of some rows'}"
    )


def _report_folders(card: FoldersCard, out: Path, seconds: float) -> str:
    lines = [(name, *agreement(one.parity)) for name, one in card.folders.items()]
    text = table({"folder": "left", **AGREEMENT}, lines)
    if card.vocabulary is not None:
        text += f"\n\n{trimming_report(card.vocabulary)}"
    return (
        f"{text}\n\n{out}: {len(card.folders)} folders, checked against PyTorch on real rows, padded on both sides "
        f"(allowed difference {card.atol:g}), {card.engine}, {seconds:.1f} s"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.export", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, help="folder of the bundle (default: RUN/export, or RUN/transformers)")
    parser.add_argument(
        "--layout",
        choices=list(LAYOUTS),
        default="bundle",
        help="bundle: one graph for all tasks; transformers: an ordinary folder a task, with the usual inputs, outputs "
        "and files, for other tools (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=list(Form),
        type=Form,
        default=Form.MIXED,
        help="of a bundle; mixed: each row is answered for its task; all: one pass answers a row for all tasks, where "
        "they share one prompt; packed: as mixed, and never padded where the compiled operator is, without which "
        "nothing is written (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        type=Precision,
        default=Precision.FP32,
        choices=list(Precision),
        help="of a bundle's frozen weights: fp32; fp16, for GPUs; int8, faster on CPUs; int4, smallest "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--retune",
        type=int,
        nargs="?",
        const=STEPS,
        metavar="STEPS",
        help="with --precision int8 or int4: train prompts and heads on against the quantised weights, so that they "
        f"take the error in (without a number: {STEPS} steps)",
    )
    add_options(parser)
    parser.add_argument(
        "--keep-languages",
        type=comma_list,
        default=[],
        metavar="CODES",
        help="trim the vocabulary to what the run's rows in these languages use, e.g. en,de,fr",
    )
    parser.add_argument(
        "--keep-from",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="trim the vocabulary to what these texts (UTF-8, plain or .gz) use; with --keep-languages: to both",
    )
    parser.add_argument(
        "--score-rows",
        type=int,
        default=SCORED,
        metavar="N",
        help="trimming: dev rows of each task and language that are scored before and after (default: %(default)s)",
    )
    parser.add_argument(
        "--decode",
        choices=get_args(Decoding),
        help="of a bundle: how tags are chosen: greedy (the best of each word), viterbi (the best sequence of BIO or "
        "IOBES tags that can be); default: as in the run",
    )
    parser.add_argument(
        "--copy-weights",
        action="store_true",
        help="of a bundle: a backbone.bin of its own, which Python's onnx reads too, not a link to that of others",
    )
    parser.add_argument("--json", action="store_true", help="print bundle.json or folders.json, not a table")
    options = parser.parse_args()
    if options.score_rows < 1:
        raise PolypromptError(f"--score-rows {options.score_rows}: at least 1 is needed")
    if options.retune is not None and options.retune < 1:
        raise PolypromptError(f"--retune {options.retune}: at least 1 step is needed")
    keep = Keep(options.keep_languages, options.keep_from, options.score_rows)
    out = options.out or options.run / LAYOUTS[options.layout]
    start = time.perf_counter()
    precision = Precision(options.precision)
    if options.layout == "transformers":
        if precision is not Precision.FP32:
            raise PolypromptError(f"--precision {precision}: of bundles alone; leave --layout away")
        if options.retune is not None:
            raise PolypromptError("--retune: of bundles alone; leave --layout away")
        if options.copy_weights:
            raise PolypromptError("--copy-weights: of bundles alone; leave --layout away")
        if options.decode is not None:
            raise PolypromptError(f"--decode {options.decode}: of bundles alone; leave --layout away")
        if options.form != parser.get_default("form"):
            raise PolypromptError(f"--form {options.form}: of bundles alone; leave --layout away")
        folders = export_folders(options.run, out, options.atol, options.rows or ROWS, options.task_file, keep)
        seconds = time.perf_counter() - start
        print(folders.model_dump_json(indent=2) if options.json else _report_folders(folders, out, seconds))
        return 0
    card = export(
        options.run,
        out,
        options.atol,
        options.rows,
        options.task_file,
        options.form,
        keep,
        precision,
        options.max_drop,
        retune=options.retune,
        copy_weights=options.copy_weights,
        decoding=options.decode,
    )
    print(card.model_dump_json(indent=2) if options.json else _report(card, out, time.perf_counter() - start))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
