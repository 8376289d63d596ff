"""The ranges of an int8 graph's states on real rows, and the graph for OpenVINO that has them built in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from benchmarks.files import sha256, write_atomic
from benchmarks.records import Example
from benchmarks.results import write_model
from exporters.bundle import CARD, MODEL, NATIVE, NATIVE_STATIC, PACKED, PACKED_STATIC, STATIC, BundleCard, StoredFile
from exporters.engines import Engine, open_engine
from exporters.engines.interface import Arrays
from exporters.precision import quantised_states, state_of_each_weight, with_ranges
from exporters.session import Place, Session

Floats = NDArray[np.float32]

CALIBRATED = 256
"""Training rows of each task and language that ranges are found on."""


SAMPLE = 1 << 16
"""Values of each state by which its range is chosen."""

PARTS = np.array([1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
"""What is tried of the way from zero to the least and to the largest value."""


class Values:
    """The values that a state has on real pieces: the least, the largest, and a sample of fixed size.

    Attributes:
        least, largest: of all that were seen, and zero.
    """

    def __init__(self) -> None:
        self.least = self.largest = 0.0
        self._random = np.random.default_rng(0)
        self._sample, self._keys = np.zeros(0, np.float32), np.zeros(0)

    def add(self, values: Floats) -> None:
        """Take some more, of any shape."""
        values = values.ravel()
        self.least, self.largest = min(self.least, values.min(initial=0)), max(self.largest, values.max(initial=0))
        keys = self._random.random(len(values))
        if len(self._keys) == SAMPLE:  # of all values those with the least keys stay
            values, keys = values[keys < self._keys.max()], keys[keys < self._keys.max()]
        values, keys = np.concatenate([self._sample, values]), np.concatenate([self._keys, keys])
        kept = slice(None) if len(keys) <= SAMPLE else np.argpartition(keys, SAMPLE)[:SAMPLE]
        self._sample, self._keys = values[kept], keys[kept]

    @property
    def range(self) -> tuple[float, float]:
        """That in which 256 steps give the sample back with the least sum of squared errors, as far as it is tried.

        A few values far outside cost the many their precision, so it may pay to cut them off.
        """
        low, high = self.least, self.largest
        for _ in range(2):
            high = min((self.largest * PARTS).tolist(), key=lambda tried: self._error(low, tried))
            low = min((self.least * PARTS).tolist(), key=lambda tried: self._error(tried, high))
        return low, high

    def _error(self, low: float, high: float) -> float:
        scale = (high - low) / 255 or 1.0
        zero = np.rint(-low / scale)
        steps = np.clip(np.rint(self._sample / np.float32(scale)), -zero, 255 - zero)
        return float(np.square(steps * np.float32(scale) - self._sample).sum(dtype=np.float64))


class _Watching:
    """An engine that notes the values of states in each batch."""

    def __init__(self, engine: Engine, states: Collection[str]) -> None:
        self.card, self._engine = engine.card, engine
        self.values = {name: Values() for name in states}

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        self._engine.keep(tensors)

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        found = self._engine.run([*names, *self.values], feeds)
        real = np.arange(feeds["input_ids"].shape[1]) < feeds["lengths"][:, None]
        for name, values in self.values.items():
            state = found[name]
            values.add(state[real] if state.ndim == 3 and state.shape[:2] == real.shape else state)
        return found


def calibrate(folder: Path, card: BundleCard, examples: Mapping[Place, Sequence[Example]]) -> BundleCard:
    """Add the graphs with known ranges to an int8 bundle; they refer to the same weights.

    Args:
        folder: the bundle. card: its card. examples: real rows by task and language.

    Returns:
        The new card, which was written.
    """
    model = onnx.load(folder / MODEL, load_external_data=False)
    states = quantised_states(model)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in states:
        watched.graph.output.append(helper.make_empty_tensor_value_info(name))
    aside = folder / f".{MODEL}"
    aside.write_bytes(watched.SerializeToString())
    try:
        engine = _Watching(open_engine("onnxruntime", aside), states)
        Session(folder, engine=engine).run(examples)
    finally:
        aside.unlink()
    found = {name: values.range for name, values in engine.values.items()}
    files = {STATIC: (model, found)}
    ranges = {weight: found[state] for weight, state in state_of_each_weight(model).items()}
    for name, known in ((PACKED, PACKED_STATIC), (NATIVE, NATIVE_STATIC)):
        if name in card.files:  # the same products of states with other names
            other = onnx.load(folder / name, load_external_data=False)
            there = state_of_each_weight(other).items()
            files[known] = other, {state: ranges[weight] for weight, state in there}
    listed = dict(card.files)
    for name, (graph, ranges_) in files.items():
        path = folder / name
        write_atomic(path, with_ranges(graph, ranges_).SerializeToString(deterministic=True))
        listed[name] = StoredFile(bytes=path.stat().st_size, sha256=sha256(path))
    card = card.model_copy(update={"files": listed})
    write_model(folder / CARD, card)
    return card
