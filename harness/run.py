"""`python -m harness.run`: learn the tasks of some suites with one prompt, score them, leave a run folder."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from transformers.utils import logging

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.own.python import is_of_others, refuse_python
from benchmarks.results import (
    Manifest,
    Results,
    read_model,
    write_model,
)
from harness import provenance
from harness.adapt import merge
from harness.backbone import load_backbone
from harness.checkpoint import Progress
from harness.config import RunConfig, load_config, make_config, read_settings, save_config
from harness.data import chosen_suites, load_rows
from harness.device import find_device
from harness.evaluate import evaluate
from harness.feature_cache import CachedEncoder
from harness.initial import make_model, max_positions
from harness.learn import Learned, learn, selection_of
from harness.listing import listing, listing_table
from harness.lock import locked
from harness.methods import METHODS, find_method
from harness.model import PromptedModel
from harness.placement import Positions
from harness.presets import find_preset, presets, presets_table
from harness.processes import together
from harness.readout import make_readout, mask_pieces
from harness.report import averages_table, score_table
from harness.screen import Screen
from harness.seeds import seeds_table, with_seeds
from harness.sharing import Sharing
from harness.store import save_weights, trained_parameters
from harness.train import encode_training

OPTIONS = {
    "suite": "suites to learn together, separated by commas",
    "tasks": "only these of their tasks",
    "languages": "evaluate only in these languages (BCP-47)",
    "task_file": "files that declare tasks of your own (docs/own-tasks.md); without --suite: all of them",
    "backbone": "hub id, local folder, or minilm-l6-en, e5-small-multilingual",
    "method": "; ".join(f"{method.name}: {method.about}" for method in METHODS.values()),
    "prompt_length": "slots a layer",
    "prompt_layers": 'layers with a prompt: "all", "top:4", "bottom:2", "6-11", "0,2,4-5"',
    "init": "how the prompt begins: kv, normal, zero-gated",
    "positions": "where those of the real tokens begin: own (at 0) or shifted (behind the prompt, as in peft)",
    "start_from": "begin with the prompt and the heads of this folder: a run, or made by harness.interchange",
    "prompt_dropout": "dropout on the prompt",
    "sharing": "how tasks share a prompt: shared, specialise (then each goes on alone), low-rank (a small part each), "
    "separate (one each)",
    "rank": "of the small parts of --sharing low-rank",
    "lora_rank": "of the additions of --method lora",
    "lora_alpha": "the additions are scaled by this over their rank",
    "pooling": "what linear sequence heads read: cls or mean",
    "head": "how sequence tasks are answered: linear; pooler (frozen, then linear); verbaliser (label words at a mask, "
    "nothing trained but the prompt)",
    "sampling": "task mixture: proportional, square-root, temperature, uniform",
    "temperature": "of --sampling temperature",
    "epochs": "passes over all training rows; default: the method's",
    "max_steps": "stop after so many steps; 0: only predict and score",
    "splits": "splits to predict, such as dev,test; default: the reported one of each task",
    "batch": "examples a step",
    "micro_batch": "at most so many examples of a batch in one pass, where memory is small",
    "patience": "stop after so many epochs that bring nothing better on the rows that select",
    "learning_rate": "of AdamW; of several, such as 5e-3,1e-2, the one that selects best; default: the method's",
    "decay": "of the learning rate: linear (to zero), exponential (0.95 an epoch)",
    "selection": "what chooses the epoch and the rate: held-out (a part of train), paper (the reported rows), last",
    "shots": "train on so many rows a task, and select on as many others",
    "shots_seed": "of the choice of those rows",
    "max_length": "pieces a row; default: each task's own",
    "weight_decay": "of AdamW; default: the method's",
    "max_train": "at most so many training examples a task",
    "max_eval": "at most so many examples a task and language; such scores are marked",
    "precision": "auto, fp32 or bf16",
    "seed": "of initialisation, order and dropout",
    "data_dir": "folder with the official files; without it: the hub",
    "checkpoint_seconds": "time between checkpoints",
    "out": "folder of runs",
    "name": "name of this run's folder; default: made from the settings",
}
LISTS = ("suite", "tasks", "languages", "task_file", "splits", "learning_rate")
FLAGS = ("config", "preset", "list_presets", "seeds", "resume", "list", "json")
SWITCHES = {
    "checkpoint_activations": "compute hidden states again on the way back: less memory, more time",
    "shard_backbone": "divide a frozen backbone's weights among the processes (FSDP), where one cannot hold them",
    "reparameterise": "make the prompt by an MLP, which is folded away afterwards",
    "skip_missing": "go on without the tasks and languages whose files are missing",
}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line: flags of the program itself, and settings of the run."""
    parser = argparse.ArgumentParser(prog="python -m harness.run", description=__doc__)
    for name, text in OPTIONS.items():
        default = RunConfig.model_fields[name].default
        bare = default in (None, []) or "default" in text
        shown = "" if bare else f" (default: {getattr(default, 'value', default)})"
        flag = "--" + name.replace("_", "-")
        action = "append" if name in LISTS else "store"
        shown = text.replace("%", "%%") + shown
        parser.add_argument(flag, dest=name, action=action, default=argparse.SUPPRESS, help=shown)
    for name, text in SWITCHES.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--files", action="append", metavar="TASK.SPLIT=FILE,...", help="read these files instead")
    parser.add_argument("--label-words", action="append", metavar="TASK.LABEL=WORD", help="what --head verbaliser says")
    parser.add_argument("--preset", metavar="NAME", help="released hyper-parameters; other settings go before them")
    parser.add_argument("--list-presets", action="store_true", help="show them with the published numbers, then stop")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="so many runs, each with the next seed")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; the command line goes before them")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same settings")
    parser.add_argument("--list", action="store_true", help="show suites, tasks, languages and files, then stop")
    parser.add_argument("--json", action="store_true", help="print results (or the list) as JSON")
    given = vars(parser.parse_args(arguments))
    flags = argparse.Namespace(**{name: given.pop(name) for name in FLAGS})
    places = dict(_file_option(text) for text in given.pop("files") or [])
    words: dict[str, dict[str, str]] = {}
    for text in given.pop("label_words") or []:
        task, label, word = _word_option(text)
        words.setdefault(task, {})[label] = word
    settings = {name: ",".join(value).split(",") if name in LISTS else value for name, value in given.items()}
    return flags, settings | ({"files": places} if places else {}) | ({"label_words": words} if words else {})


def _file_option(text: str) -> tuple[str, list[str]]:
    place, _, files = text.partition("=")
    if not files:
        raise PolypromptError(f"--files {text}: write TASK.SPLIT=FILE, for instance xquad.train=squad/train-v1.1.json")
    return place, files.split(",")


def _word_option(text: str) -> tuple[str, str, str]:
    place, _, word = text.rpartition("=")
    task, _, label = place.partition(".")
    if not (task and label and word):
        raise PolypromptError(f"--label-words {text}: write TASK.LABEL=WORD, for instance sst2.negative=bad")
    return task, label, word


def command_line(config: RunConfig, processes: int = 1) -> str:
    """The command that repeats a run."""
    start = ["python"] if processes == 1 else ["torchrun", "--nproc-per-node", str(processes)]
    words = [*start, "-m", "harness.run"]
    hashes = {"task_file_sha256", "start_from_sha256"}
    for name, value in config.model_dump(mode="json", exclude_defaults=True, exclude=hashes).items():
        flag = "--" + name.replace("_", "-")
        if name == "files":
            words += [word for place, files in value.items() for word in (flag, f"{place}={','.join(files)}")]
        elif name == "label_words":
            said = [f"{task}.{label}={word}" for task, labels in value.items() for label, word in labels.items()]
            words += [word for option in said for word in (flag, option)]
        elif value is True:
            words.append(flag)
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def execute(config: RunConfig, resume: bool, screen: Screen) -> Results:
    """Train, evaluate and write the run folder, which belongs to this process meanwhile.

    Args:
        config: what to do. resume: go on where an interrupted run stopped. screen: shows progress.

    Raises:
        Busy: another process works in the run folder.
        PolypromptError: see its message; what was computed so far stays in the run folder.
    """
    # Processes that train together are one: the first of them takes the folder.
    with locked(config.folder) if find_device(config.precision).leads else nullcontext():
        return fill(config, resume, screen)


def fill(config: RunConfig, resume: bool, screen: Screen) -> Results:
    """`execute` in a run folder that is locked already. Processes that are not the first write nothing."""
    run, method, code = config.folder, find_method(config.method), provenance.code_version()
    device = find_device(config.precision)
    if device.first(lambda: _is_finished(config, run, resume)):
        screen.say(f"{run} is complete")
        return device.first(lambda: read_model(run / "results.json", Results))
    rows, hashes, missing = load_rows(config)
    for sentence in missing:
        screen.say(f"left out: {sentence}")
    backbone = load_backbone(config.backbone)
    cards = [task_rows.task.card for task_rows in rows]
    readout = make_readout(config.head, backbone, cards, config.label_words)
    for sentence in [] if readout is None else [str(readout), *readout.labels()]:
        screen.say(sentence)
    masks, longest = mask_pieces(config.head, backbone, cards), max_positions(config, method, backbone)
    encoder = CachedEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, longest, masks)
    training = encode_training(rows, encoder, config.batch, config.seed)
    model = make_model(config, method, backbone, rows, training, readout)
    trained = trained_parameters(model)
    share = 100 * trained / sum(weight.numel() for weight in model.parameters())

    def place(model: PromptedModel) -> PromptedModel:
        if config.shard_backbone:
            device.shard(model.backbone)
        return model.to(device.torch)

    fresh: list[PromptedModel] = [place(model)]

    def make() -> PromptedModel:
        """The first model once; for another learning rate a new one, since the first may have changed its encoder."""
        if fresh:
            return fresh.pop()
        return place(make_model(config, method, load_backbone(config.backbone), rows, training, readout))

    screen.say(
        f"{run.name}: {method.name} on {config.backbone}, {len(training)} tasks to learn, {len(rows)} to score, "
        f"{trained:,} parameters trained ({share:.2g} %), {device.precision}"
    )
    if device.leads:
        save_config(config, run / "config.toml")
    learned = Learned(model, 0.0, Progress(), 0.0, {})
    if training:
        identity, checkpoints = _identity(config, hashes), run / "checkpoints"
        learned = learn(make, training, rows, encoder, config, method, device, checkpoints, identity, screen)
    model, progress = learned.model, learned.progress
    if device.leads:
        save_weights(model, run)
    merge(model.backbone)
    began = time.monotonic()
    records, thresholds = evaluate(run, model, encoder, rows, device, screen)
    results = Results(run=run.name, method=method.name, backbone=backbone.card.name, seed=config.seed, records=records)
    if not device.leads:
        return results
    manifest = Manifest(
        run=run.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(config, device.world),
        code=code,
        packages=provenance.packages(),
        processor=device.title,
        precision=device.precision,
        method=method.name,
        seed=config.seed,
        prompt=_prompt_sentence(config, model),
        backbone=backbone.card,
        tasks=cards,
        trainable=trained,
        share=share,
        selection=selection_of(config, rows, learned) if training else None,
        thresholds=thresholds,
        data=hashes,
        limits=config.limits,
        steps=progress.step,
        examples_seen=progress.examples,
        train_seconds=round(learned.seconds, 2),
        evaluate_seconds=round(time.monotonic() - began, 2),
        interruptions=progress.interruptions,
    )
    write_model(run / "manifest.json", manifest)
    curve = [{"step": step, "loss": loss, "right": right} for step, loss, right in progress.curve]
    write_atomic(run / "curve.json", json.dumps(curve) + "\n")
    write_model(run / "results.json", results)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return results


def _is_finished(config: RunConfig, run: Path, resume: bool) -> bool:
    if not (run / "config.toml").exists():
        return False
    if not resume:
        raise PolypromptError(f"{run} exists: add --resume to go on with it, or choose another --name or --out")
    before = load_config(run / "config.toml")
    if before.identity != config.identity:
        old, new = before.model_dump(mode="json"), config.model_dump(mode="json")
        changed = ", ".join(name.replace("_", "-") for name in new if old[name] != new[name])
        raise PolypromptError(f"{run} was begun with other settings ({changed}); choose another --name")
    return (run / "results.json").exists()


def _identity(config: RunConfig, hashes: dict[str, str]) -> str:
    data = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.identity}-{data}"


def _prompt_sentence(config: RunConfig, model: PromptedModel) -> str:
    prompt = model.prompt
    read = "" if model.readout is None else f"; {model.readout}"
    if prompt is None:
        return f"none{read}"
    made = ", by an MLP" if config.reparameterise else ""
    layers = prompt.placement.layers
    place = "the input" if layers is None else f"{len(layers)} layers ({config.prompt_layers})"
    shifted = ", positions shifted" if config.positions is Positions.SHIFTED else ""
    shared = "" if config.sharing is Sharing.SHARED else f", {config.sharing}"
    begun = f"init {config.init}" if config.start_from is None else f"begun as that of {config.start_from.name}"
    return f"{config.prompt_length} slots in {place}, {begun}{made}{shifted}{shared}{read}"


def main() -> int:
    """The command line."""
    flags, settings = parse(sys.argv[1:])
    if flags.config is not None:
        from_file = read_settings(flags.config)
        asked = make_config(from_file, str(flags.config))  # so that an error names the file
        if is_of_others(flags.config) and "task_file" not in settings:
            refuse_python(asked.task_file, flags.config)
        settings = from_file | settings
    if flags.preset is not None:
        released = find_preset(flags.preset).settings
        settings = {key.replace("-", "_"): value for key, value in released.items()} | settings
    if flags.list_presets:
        shown = [asdict(preset) for preset in presets().values()]
        print(json.dumps(shown, indent=2) if flags.json else presets_table())
        return 0
    config = make_config(settings, "command line")
    if flags.seeds < 1:
        raise PolypromptError(f"--seeds {flags.seeds}: at least 1 is needed")
    if flags.list:
        records = listing(config.data_dir, config.task_file)
        print(json.dumps(records, indent=2, ensure_ascii=False) if flags.json else listing_table(records))
        return 0
    logging.set_verbosity_error()
    screen = Screen()
    configs = with_seeds(config, flags.seeds) if flags.seeds > 1 else [config]
    done: list[Results] = []
    for one in configs:
        try:
            done.append(execute(one, flags.resume, screen))
        except KeyboardInterrupt:
            screen.say(f"interrupted; what was computed is in {one.folder}; the same command with --resume goes on")
            return 130
    if flags.json:
        single = len(done) == 1
        print(done[0].model_dump_json(indent=2) if single else TypeAdapter(list[Results]).dump_json(done).decode())
        return 0
    print(score_table(done[0].records) if len(done) == 1 else seeds_table(done))
    if len(done) == 1:
        averages = averages_table(chosen_suites(config), done[0].records)
        if averages:
            print(f"\n{averages}")
    print("\nrun folder: " + " ".join(str(one.folder) for one in configs))
    return 0


if __name__ == "__main__":
    sys.exit(together(main))
