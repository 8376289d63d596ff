"""Rows to train on: of real data where it is there, else random pieces with the lengths that real rows have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.errors import MissingData
from benchmarks.task import Kind, Task
from harness.backbone import Backbone
from harness.batches import TrainingRows
from harness.feature_cache import CachedEncoder
from harness.features import Feature
from harness.objectives import make_targets
from harness.train import TaskTraining

DATA = Path(__file__).parents[3] / "shared" / "data"
"""Where official files may lie: beside the project."""

DRAWN = 2000
"""Examples that are tokenized, drawn from all."""

LENGTHS = {
    "sst2": (3, 5, 6, 7, 9, 11, 14, 18, 23, 30, 60),
    "mrpc": (22, 37, 42, 46, 50, 53, 57, 61, 66, 72, 94),
    "rte": (20, 41, 47, 53, 59, 66, 75, 87, 108, 128, 128),
    "squadshifts": (46, 135, 155, 170, 184, 198, 213, 235, 267, 322, 384),
}
"""Task -> pieces of the shortest row, of the deciles, and of the longest one."""


@dataclass(frozen=True)
class Drawn:
    """Rows of a task.

    Attributes:
        training: the rows, all of one epoch. real: whether they are of data; else of random pieces.
    """

    training: TaskTraining
    real: bool

    @property
    def lengths(self) -> list[int]:
        """Pieces of each row."""
        return [len(feature) for feature in self.training.features]


def draw(task: Task, backbone: Backbone, count: int, batch: int, folder: Path = DATA) -> Drawn:
    """So many rows of a task whose lengths are spread as those of all.

    Args:
        task: of a benchmark. backbone: whose pieces. count: rows. batch: rows a step.
        folder: with official files; without those of the task: random pieces.
    """
    random = np.random.default_rng(0)
    try:
        examples = data.load(task, "train", "en", folder).examples if folder.is_dir() else ()
    except MissingData:
        examples = ()
    if not examples:
        quantiles = np.linspace(0, 1, count)
        lengths = np.interp(quantiles, np.linspace(0, 1, 11), LENGTHS[task.name]).round().astype(int)
        return Drawn(random_rows(task, backbone, random.permutation(lengths).tolist(), batch), False)
    picked = [examples[row] for row in random.permutation(len(examples))[:DRAWN]]
    encoder = CachedEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    features = encoder.features(task.card, picked)
    targets = make_targets(task.card, picked, features)
    order = sorted(range(len(features)), key=lambda row: len(features[row]))
    even = [order[place] for place in np.linspace(0, len(order) - 1, count).round().astype(int)]
    rows = random.permutation(even).tolist()
    return Drawn(_training(task, [features[row] for row in rows], [targets[row] for row in rows], batch), True)


def random_rows(task: Task, backbone: Backbone, lengths: list[int], batch: int, seed: int = 0) -> TaskTraining:
    """Rows of random pieces, with random targets."""
    random = np.random.default_rng(seed)
    pieces = backbone.tokenizer.get_vocab_size()
    features, targets = [], []
    for number, length in enumerate(lengths):
        ids = random.integers(1000, pieces, length, dtype=np.int32) if pieces > 2000 else np.full(length, 5, np.int32)
        features.append(Feature(number, ids, np.zeros(length, np.int32)))
        span = tuple(sorted(random.integers(0, length, 2).tolist()))
        targets.append(span if task.card.kind is Kind.SPAN else int(random.integers(len(task.card.labels))))
    return _training(task, features, targets, batch)


def part(training: TaskTraining, count: int) -> TaskTraining:
    """So many of the rows, with lengths spread as those of all, in random order."""
    order = sorted(range(len(training.features)), key=lambda row: len(training.features[row]))
    middles = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
    rows = np.random.default_rng(1).permutation([order[place] for place in middles]).tolist()
    chosen = [training.features[row] for row in rows], [training.targets[row] for row in rows]
    return _training(training.task, *chosen, training.batches.limit)


def _training(task: Task, features: list[Feature], targets: list, batch: int) -> TaskTraining:
    return TaskTraining(task, "en", features, targets, TrainingRows(features, False, batch, [0, 0]), 0)
