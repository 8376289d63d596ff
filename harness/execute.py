"""One run, from its settings to a complete run folder."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.results import (
    InferenceCard,
    Manifest,
    ResultRecord,
    Results,
    read_model,
    write_model,
)
from harness import provenance
from harness.adapt import merge
from harness.checkpoint import Progress
from harness.config import RunConfig, load_config, refuse_begun, save_config
from harness.data import TaskRows
from harness.device import find_device
from harness.engines import Ahead, choose
from harness.evaluate import evaluate
from harness.feature_cache import CachedEncoder
from harness.heads import HeadLayers
from harness.initial import make_model, max_positions
from harness.learn import Learned, learn, selection_of
from harness.lock import locked
from harness.methods import find_method
from harness.model import PromptedModel
from harness.options import command_line
from harness.peak import PeakMemory
from harness.placement import Positions, Sharing
from harness.readout import mask_pieces
from harness.screen import Screen
from harness.shared import Shared
from harness.store import save_weights, trained_parameters
from harness.tracking import Tracker, TrackerName
from harness.trunk import TrunkCache
from harness.turns import Steps, at_a_stretch


def execute_by_steps(config: RunConfig, resume: bool, screen: Screen, shared: Shared | None = None) -> Steps[Results]:
    """Train, evaluate and write the run folder, which belongs to this process meanwhile.

    Args:
        config: what to do. resume: go on where an interrupted run stopped. screen: shows progress.
        shared: what other runs of this process have as well; None: there are none.

    Raises:
        Busy: another process works in the run folder.
        PolypromptError: see its message; what was computed so far stays in the run folder.
    """
    # Processes that train together are one: the first of them takes the folder.
    with locked(config.folder) if find_device(config.precision).leads else nullcontext():
        return (yield from fill(config, resume, screen, shared or Shared()))


execute = at_a_stretch(execute_by_steps)


def fill(config: RunConfig, resume: bool, screen: Screen, shared: Shared) -> Steps[Results]:
    """`execute_by_steps` in a run folder that is locked already. Processes that are not the first write nothing."""
    shown = config.tracker if find_device(config.precision).leads else TrackerName.NONE
    with closing(Tracker(shown, config.folder, config.model_dump(mode="json"), screen)) as tracker:
        return (yield from _fill(config, resume, screen, tracker, shared))


def _fill(config: RunConfig, resume: bool, screen: Screen, tracker: Tracker, shared: Shared) -> Steps[Results]:
    run, method, code = config.folder, find_method(config.method), provenance.code_version()
    device = find_device(config.precision)
    if device.first(lambda: _is_finished(config, run, resume)):
        screen.say(f"{run} is complete")
        return device.first(lambda: read_model(run / "results.json", Results))
    rows, hashes, missing = shared.rows(config)
    for sentence in missing:
        screen.say(f"left out: {sentence}")
    backbone = shared.backbone(config)
    cards = [task_rows.task.card for task_rows in rows]
    readout = shared.readout(config, backbone, cards)
    for sentence in [] if readout is None else [str(readout), *readout.labels()]:
        screen.say(sentence)
    masks, longest = mask_pieces(config.head, backbone, cards), max_positions(config, method, backbone)
    encoder = CachedEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, longest, masks)
    training = shared.training(config, rows, encoder)
    model = make_model(config, method, backbone, rows, training, readout)
    trained = trained_parameters(model)
    share = 100 * trained / sum(weight.numel() for weight in model.parameters())

    fresh: list[PromptedModel] = [shared.place(config, model, device)]

    def make() -> PromptedModel:
        """The first model once; for another learning rate a new one, since the first may have changed its encoder."""
        if fresh:
            return fresh.pop()
        again = make_model(config, method, shared.backbone(config), rows, training, readout)
        again.inference = inference
        return shared.place(config, again, device)

    def keep(model: PromptedModel) -> TrunkCache | None:
        return shared.trunk(config, model, device)

    screen.say(
        f"{run.name}: {method.name} on {config.backbone}, {_learned_sentence(rows)} to learn, {len(rows)} to score, "
        f"{trained:,} parameters trained ({share:.2g} %), {device.precision}"
    )
    if device.leads:
        save_config(config, run / "config.toml")
    kept = run / "checkpoints" / "inference.json"
    began = device.first(lambda: read_model(kept, InferenceCard) if kept.exists() else None)
    epochs = 1 if config.max_steps is not None else math.ceil(config.epochs or method.epochs)
    ahead = Ahead(model, training, rows, encoder, epochs, config.cache_gb, device)
    inference, chosen = shared.inference(config, began, lambda: choose(config.inference, began, ahead, screen))
    if device.leads and chosen is not None:
        write_model(kept, chosen)
    model.inference = inference
    learned = Learned(model, 0.0, Progress(), 0.0, 0, {})
    # Runs that go on in turns have their memory in common, and what one of them takes is not known.
    memory = PeakMemory(device.torch) if device.leads and shared.at_once == 1 else None
    if training:
        identity, checkpoints, report = _identity(config, hashes), run / "checkpoints", tracker.log
        learned = yield from learn(
            make, keep, training, rows, encoder, config, method, device, checkpoints, identity, screen, report
        )
        yield False
    model, progress, train_memory = learned.model, learned.progress, memory and memory.mib
    if device.leads:
        save_weights(model, run)
    merge(model.backbone)
    model.backbone.requires_grad_(False)  # from here on it is as it will be when it is loaded again
    began = time.monotonic()
    records, thresholds = evaluate(run, model, encoder, rows, device, screen, learned.trunk)
    results = Results(run=run.name, method=method.name, backbone=backbone.card.name, seed=config.seed, records=records)
    if not device.leads:
        return results
    tracker.log({"train/seconds": learned.seconds} | _tags(records), learned.steps)
    manifest = Manifest(
        run=run.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(
            config if chosen is None else config.model_copy(update={"inference": chosen.engine}), device.world
        ),
        code=code,
        packages=provenance.packages(),
        processor=device.title,
        precision=device.precision,
        method=method.name,
        seed=config.seed,
        prompt=_prompt_sentence(config, model),
        backbone=backbone.card,
        tasks=cards,
        trained={task_rows.task.name: list(task_rows.train) for task_rows in rows if task_rows.train},
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
        train_memory=train_memory if training else None,
        interruptions=progress.interruptions,
        inference=chosen,
    )
    write_model(run / "manifest.json", manifest)
    curve = [point._asdict() for point in progress.curve]
    write_atomic(run / "curve.json", json.dumps(curve) + "\n")
    write_model(run / "results.json", results)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return results


def _is_finished(config: RunConfig, run: Path, resume: bool) -> bool:
    if not (run / "config.toml").exists():
        return False
    if not resume:
        refuse_begun(config)
    before = load_config(run / "config.toml")
    if before.identity != config.identity:
        old, new = before.model_dump(mode="json"), config.model_dump(mode="json")
        changed = ", ".join(name.replace("_", "-") for name in new if old[name] != new[name])
        raise PolypromptError(f"{run} was begun with other settings ({changed}); choose another --name")
    return (run / "results.json").exists()


def _identity(config: RunConfig, hashes: dict[str, str]) -> str:
    data = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:8]
    return f"{config.identity}-{data}"


def _tags(records: Iterable[ResultRecord]) -> dict[str, float]:
    """Every score under the name that a tracker shows."""
    return {
        f"score/{record.task}.{record.language}.{record.split}.{metric}": value
        for record in records
        for metric, value in record.scores.items()
    }


def _learned_sentence(rows: Sequence[TaskRows]) -> str:
    learned = [task_rows.train for task_rows in rows if task_rows.train]
    languages = {language for train in learned for language in train}
    return f"{len(learned)} tasks" + (f" in {len(languages)} languages" if len(languages) > 1 else "")


def _prompt_sentence(config: RunConfig, model: PromptedModel) -> str:
    prompt = model.prompt
    read = "" if model.readout is None else f"; {model.readout}"
    if config.head_layers is HeadLayers.ALL:
        read += "; tags and answers are read from all layers"
    if prompt is None:
        return f"none{read}"
    made = ", by an MLP" if config.reparameterise else ""
    layers = prompt.placement.layers
    place = "the input" if layers is None else f"{len(layers)} layers ({config.prompt_layers})"
    shifted = ", positions shifted" if config.positions is Positions.SHIFTED else ""
    shared = "" if config.sharing is Sharing.SHARED else f", {config.sharing}"
    begun = f"init {config.init}" if config.start_from is None else f"begun as that of {config.start_from.name}"
    return f"{config.prompt_length} slots in {place}, {begun}{made}{shifted}{shared}{read}"
