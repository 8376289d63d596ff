"""A training of this project's own as something that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.task import Kind
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import find_device
from harness.initial import make_model
from harness.methods import find_method
from harness.screen import Screen
from harness.train import TaskTraining, train
from harness.trunk import TrunkCache
from tests.speed.matrices import Shape

DEVICE = find_device(cpu=True)


class Ours:
    """Trains a deep prompt by `harness.train.train`, each time once over all rows, from where the last time ended.

    Args:
        backbone: the encoder. training: rows of each task. settings: of the run. cached: keep what the layers below the
            prompt make of the rows; they are computed here, before anything is measured.

    Attributes:
        filling: seconds per row that this took.
    """

    def __init__(
        self, backbone: Backbone, training: Sequence[TaskTraining], cached: bool = False, **settings: Any
    ) -> None:
        batch = training[0].batches.limit
        self.config = RunConfig(**{"batch": batch, "epochs": 1, "weight_decay": 0.0, "init": "kv", **settings})
        self._training, self._method = training, find_method(self.config.method)
        tasks = [TaskRows(part.task, {}, {}, {}, {}, frozenset()) for part in training]
        self.model = make_model(self.config, self._method, backbone, tasks, training)
        self._trunk = TrunkCache.of(self.model, DEVICE, self.config.cache_gb) if cached else None
        began = time.perf_counter()
        if self._trunk is not None:
            for part in training:
                self._trunk.rows(part.features, self.model.prompt_of(part.task.card, part.language))
        self.filling = (time.perf_counter() - began) / sum(len(part.features) for part in training)

    def run(self) -> float:
        """Seconds per row, from before the first step until behind the last one: no preparation and no saving."""
        moments: list[float] = []

        def report(values: Mapping[str, float], step: int) -> None:
            moments.append(time.perf_counter())

        with TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "last.safetensors"
            progress = train(
                *(self.model, self._training, self.config, self._method, DEVICE, checkpoint, "", Screen(True)),
                report=report,
                trunk=self._trunk,
            )
        return (moments[-1] - moments[0]) / progress.examples

    @property
    def shape(self) -> Shape:
        """For counting products."""
        backbone, prompt = self.model.backbone, self.model.prompt
        first = prompt.placement.layers[0]
        computed = 0 if self._trunk is None else self._trunk.layers
        inner = backbone.model.config.intermediate_size
        reads_first = all(part.task.card.kind is not Kind.SPAN for part in self._training)
        return Shape(backbone.layers, backbone.hidden, inner, prompt.slots, first, computed, reads_first)


def batches(training: TaskTraining) -> list[tuple[int, int]]:
    """Rows and padded pieces of each batch of an epoch."""
    epoch = [training.batches.rows(number) for number in range(training.batches.per_epoch)]
    found = [[row for unit in batch for row in unit] for batch in epoch]
    return [(len(rows), max(len(training.features[row]) for row in rows)) for rows in found]


def total(runs: Sequence[Ours]) -> Callable[[], float]:
    """Seconds per row of trainings one after another, preparations and savings included."""

    def run() -> float:
        began = time.perf_counter()
        for one in runs:
            one.run()
        return (time.perf_counter() - began) / sum(len(part.features) for part in runs[0]._training)

    return run
