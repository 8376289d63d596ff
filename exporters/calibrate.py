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
from exporters.bundle import CARD, MODEL, NATIVE, NATIVE_STATIC, STATIC, BundleCard, StoredFile
from exporters.engines import Engine, open_engine
from exporters.engines.interface import Arrays
from exporters.precision import quantised_states, state_of_each_weight, with_ranges
from exporters.session import Place, Session

CALIBRATED = 256
"""Training rows of each task and language that ranges are found on."""


class _Watching:
    """An engine that notes the ranges of states in each batch."""

    def __init__(self, engine: Engine, states: Mapping[str, tuple[str, str]]) -> None:
        self.card, self._engine, self._states = engine.card, engine, states
        self.ranges: dict[str, tuple[float, float]] = {}

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        self._engine.keep(tensors)

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        more = [name for pair in self._states.values() for name in pair]
        found = self._engine.run([*names, *more], feeds)
        for state, (scale, zero) in self._states.items():
            step, middle = float(found[scale]), int(found[zero])
            low, high = self.ranges.get(state, (0.0, 0.0))
            self.ranges[state] = min(low, -middle * step), max(high, (255 - middle) * step)
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
    for name in np.ravel(list(states.values())).tolist():
        watched.graph.output.append(helper.make_empty_tensor_value_info(name))
    aside = folder / f".{MODEL}"
    aside.write_bytes(watched.SerializeToString())
    try:
        engine = _Watching(open_engine("onnxruntime", aside), states)
        Session(folder, engine=engine).run(examples)
    finally:
        aside.unlink()
    files = {STATIC: (model, engine.ranges)}
    if NATIVE in card.files:  # the same products of states with other names
        native = onnx.load(folder / NATIVE, load_external_data=False)
        ranges = {weight: engine.ranges[state] for weight, state in state_of_each_weight(model).items()}
        there = state_of_each_weight(native).items()
        files[NATIVE_STATIC] = native, {state: ranges[weight] for weight, state in there}
    known = dict(card.files)
    for name, (graph, ranges_) in files.items():
        path = folder / name
        write_atomic(path, with_ranges(graph, ranges_).SerializeToString(deterministic=True))
        known[name] = StoredFile(bytes=path.stat().st_size, sha256=sha256(path))
    card = card.model_copy(update={"files": known})
    write_model(folder / CARD, card)
    return card
