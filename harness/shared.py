"""What runs of one process have alike, made once: rows, pieces, a frozen encoder, states of its lower layers."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from benchmarks.results import InferenceCard
from benchmarks.task import TaskCard
from harness.backbone import Backbone, load_backbone
from harness.config import RunConfig
from harness.data import TaskRows, load_rows
from harness.device import Device
from harness.features import TextEncoder
from harness.inference import Inference
from harness.methods import Weights, find_method
from harness.model import PromptedModel
from harness.readout import Readout, make_readout
from harness.tracking import TrackerName
from harness.train import TaskTraining, encode_training
from harness.trunk import TrunkCache

KEPT = 8
"""Of each kind at most so many are kept; what was not asked for longest goes first. Runs in need keep their own."""

_OF_TRAINING = {
    *("seed", "out", "name", "checkpoint_seconds", "tracker", "precision", "engine", "inference", "cache_gb"),
    *("shard_backbone", "backbone", "method", "prompt_length", "prompt_layers", "init", "positions"),
    *("start_from", "start_from_sha256"),
    *("sharing", "rank", "reparameterise", "prompt_dropout", "lora_rank", "lora_alpha", "pooling", "head"),
    "head_layers",
    *("sampling", "temperature", "epochs", "max_steps", "patience", "batch", "tokens_per_batch", "micro_batch"),
    *("learning_rate", "head_learning_rate", "decay", "warmup", "weight_decay", "checkpoint_activations"),
}
"""Settings that do not decide on rows."""

_OF_OPTIMISER = {
    *("seed", "out", "name", "checkpoint_seconds", "tracker", "sampling", "temperature", "patience", "batch"),
    *("tokens_per_batch", "micro_batch", "learning_rate", "head_learning_rate", "decay", "warmup", "weight_decay"),
    "prompt_dropout",
}
"""Settings that do not decide on what is computed without gradients, but for how often."""

Made = TypeVar("Made")


class Shared:
    """Hands out what runs have alike; each gets what it would have made alone.

    An encoder that is trained is never shared, and is loaded anew for each model.

    Args:
        runs: so many ask. at_once: so many of them at a time. evaluate: see `harness.data.load_rows`.
    """

    def __init__(self, runs: int = 1, at_once: int = 1, evaluate: bool = True) -> None:
        self.runs, self.at_once, self._evaluate = runs, at_once, evaluate
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}

    def rows(self, config: RunConfig) -> tuple[list[TaskRows], dict[str, str], list[str]]:
        """See `harness.data.load_rows`."""
        return self.once("rows", _rows(config), lambda: load_rows(config, self._evaluate))

    def backbone(self, config: RunConfig) -> Backbone:
        """The encoder as it was loaded, in fp32, for what is read of it before training."""
        if not self._shares_encoder(config):
            return load_backbone(config.backbone, config.engine)
        return self.once("backbone", _encoder(config), lambda: load_backbone(config.backbone, config.engine))

    def readout(self, config: RunConfig, backbone: Backbone, cards: Sequence[TaskCard]) -> Readout | None:
        """See `harness.readout.make_readout`."""

        def make() -> Readout | None:
            return make_readout(config.head, backbone, cards, config.label_words)

        return self.once("readout", (_rows(config), config.backbone, config.head), make)

    def training(self, config: RunConfig, rows: Sequence[TaskRows], encoder: TextEncoder) -> list[TaskTraining]:
        """See `harness.train.encode_training`: common rows, in an order of its own."""
        size = config.batch, config.seed, config.tokens_per_batch
        place = _rows(config), config.backbone, encoder.max_positions, config.head
        encoded = self.once("training", place, lambda: encode_training(list(rows), encoder, *size))
        return [task.ordered(*size) for task in encoded]

    def place(self, config: RunConfig, model: PromptedModel, device: Device) -> PromptedModel:
        """Bring a model to where it computes, in the precision in which it does.

        A common encoder keeps its weights in fp32 as well, for the runs that are still to begin.
        """
        if config.shard_backbone:
            device.shard(model.backbone)
            return model.to(device.torch)
        if self._shares_encoder(config) and device.torch.type != "cpu":  # what begins reads it on the processor

            def make() -> Backbone:
                there = copy.deepcopy(model.backbone).to(device.torch)
                there.settle(device.dtype)
                return there

            model.backbone = self.once("placed", _encoder(config), make)
        model = model.to(device.torch)
        if not self._shares_encoder(config):
            model.backbone.settle(device.dtype)
        return model

    def trunk(self, config: RunConfig, model: PromptedModel, device: Device) -> TrunkCache | None:
        """See `harness.trunk.TrunkCache.of`; runs share one only where each would fill its room with the same rows."""

        def make() -> TrunkCache | None:
            return TrunkCache.of(model, device, config.cache_gb)

        if not self._shares_encoder(config):
            return make()
        shifted = model.max_positions != model.backbone.max_positions
        place = (_rows(config), _encoder(config), model.trunk_layers, device.precision, config.cache_gb)
        place = (*place, model.inference and model.inference.identity)
        return self.once("trunk", (*place, config.prompt_length if shifted else 0, config.max_steps == 0), make)

    def inference(
        self,
        config: RunConfig,
        began: InferenceCard | None,
        make: Callable[[], tuple[Inference | None, InferenceCard | None]],
    ) -> tuple[Inference | None, InferenceCard | None]:
        """See `harness.engines.choose`; runs share a choice where they compute the same.

        Args:
            began: the choice that a run began with. make: makes one.
        """
        if not self._shares_encoder(config):
            return make()
        settings = config.model_dump_json(exclude=_OF_OPTIMISER)
        return self.once("inference", (settings, None if began is None else began.model_dump_json()), make)

    def _shares_encoder(self, config: RunConfig) -> bool:
        return _is_frozen(config) and (self.runs > 1 or len(config.learning_rate) > 1)

    def once(self, kind: str, place: Hashable, make: Callable[[], Made]) -> Made:
        """What was made of a kind for this place, made where it was not."""
        kept = self._kept.setdefault(kind, OrderedDict())
        if place not in kept:
            kept[place] = make()
        kept.move_to_end(place)
        while len(kept) > KEPT:
            kept.popitem(last=False)
        found: Made = kept[place]
        return found


def in_turn(config: RunConfig) -> bool:
    """Whether a run may go on in turns with others: not where each needs an encoder of its own.

    Nor do trackers that know one run a process.
    """
    return _is_frozen(config) and config.tracker in (TrackerName.AUTO, TrackerName.TENSORBOARD, TrackerName.NONE)


def _is_frozen(config: RunConfig) -> bool:
    return find_method(config.method).backbone is Weights.NONE and not config.shard_backbone


def _rows(config: RunConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude=_OF_TRAINING), sort_keys=True)


def _encoder(config: RunConfig) -> Hashable:
    return config.backbone, config.engine, config.checkpoint_activations
