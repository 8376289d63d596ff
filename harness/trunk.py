"""States of the lower layers, computed once for each row and kept on disk: later epochs, seeds and runs begin there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import cache
from harness import attention, backbone, disentangled, distances, encoder, inference, kernel, products
from harness.attention import Prefix
from harness.backbone import SoftPrompt, Trunk
from harness.batches import evaluation_batches
from harness.device import Device, is_sharded
from harness.features import Feature, pad
from harness.inference import Part
from harness.model import PromptedModel

FOLDER = "trunk"
"""In the folder of the cache."""

SHARD = 64 << 20
"""Bytes of states in a file: of so many the checksum is looked at in a moment, and few are lost with a damaged one."""

PIECES = 4096
"""Pieces a batch, padding included, when states are computed."""

_CODE = [
    Path(module.__file__ or "")
    for module in (attention, backbone, disentangled, distances, encoder, inference, kernel, products)
]

States = NDArray[np.int16] | NDArray[np.float32]


class TrunkCache:
    """Keeps the states in front of the first layer that has a prompt.

    Rows are stored without padding, bf16 or fp32 as the encoder computes them, in files of `benchmarks.cache`: bounded,
    checked by a checksum, made again when one is damaged or gone, and safe for several processes. A name holds all that
    decides the states: encoder, rows, precision, number of layers, engine, code.

    Args:
        model: whose prompt says how many layers are below. device: where it computes.
        gigabytes: at most so much on disk; rows beyond it are computed in each pass.
    """

    def __init__(self, model: PromptedModel, device: Device, gigabytes: float) -> None:
        self.layers = model.trunk_layers
        self._backbone, self._device, self._gigabytes = model.backbone, device, gigabytes
        self._inference = model.inference
        self._room = int(gigabytes * 2**30)
        self._open: dict[str, TrunkRows] = {}

    @classmethod
    def of(cls, model: PromptedModel, device: Device, gigabytes: float) -> TrunkCache | None:
        """For a model, None where there is nothing to keep or nowhere to keep it."""
        idle = model.trunk_layers == 0 or model.backbone.engine != "own" or is_sharded(model.backbone)
        return None if idle or gigabytes == 0 or cache.folder() is None else cls(model, device, gigabytes)

    def rows(self, features: Sequence[Feature], prompt: Prefix | SoftPrompt | None) -> TrunkRows:
        """The states of some rows, computed where they are not there yet; the second time at once.

        Args:
            features: the rows. prompt: of their task, which may shift the positions of their pieces.
        """
        shift = prompt.slots if prompt is not None and prompt.shifted else 0
        name = f"{shift} {_content(features)}"
        if name not in self._open:
            self._open[name] = self._made(features, shift)
        return self._open[name]

    def _made(self, features: Sequence[Feature], shift: int) -> TrunkRows:
        width = self._backbone.hidden * (2 if self._device.precision == "bf16" else 4)
        ends = np.cumsum([len(feature) * width for feature in features])
        kept = int(np.searchsorted(ends, self._room, side="right"))
        self._room -= int(ends[kept - 1]) if kept else 0
        bounds = [0]
        while bounds[-1] < kept:
            begin = ends[bounds[-1] - 1] if bounds[-1] else 0
            bounds.append(max(bounds[-1] + 1, min(kept, int(np.searchsorted(ends, begin + SHARD, side="right")))))
        parts = [features[begin:end] for begin, end in pairwise(bounds)]
        # Each of several processes computes its part of what is missing, and then finds the others' on the disk.
        for part in parts[self._device.rank :: self._device.world] if self._device.world > 1 else ():
            self._shard(part, shift)
        self._device.wait()
        return TrunkRows(features, [self._shard(part, shift) for part in parts], self.layers, self._computed(shift))

    def _shard(self, features: Sequence[Feature], shift: int) -> States:
        """States of all pieces of some rows, one after another, [pieces, hidden]."""
        card, device = self._backbone.card, self._device
        other = self._inference
        engine = "own" if other is None or Part(0, self.layers) not in other.parts else other.identity
        name = cache.key(
            *("trunk", card.sha256, self._backbone.settings, device.precision, device.torch.type, torch.__version__),
            *(
                engine,
                f"{self.layers}",
                f"{shift}",
                kernel.instructions(),
                cache.source_hash(*_CODE),
                _content(features),
            ),
        )

        def make() -> States:
            states = self._computed(shift)(features)
            return np.concatenate([numbers(row[: len(f)]) for row, f in zip(states, features, strict=True)])

        flat = cache.through(name, NDArray[np.int16], lambda: make().reshape(-1), FOLDER, self._gigabytes)
        return flat.reshape(-1, card.hidden)

    def _computed(self, shift: int) -> Callable[[Sequence[Feature]], list[torch.Tensor]]:
        """Computes the states of rows, each [at least length, hidden]."""
        backbone, device, layers, inference = self._backbone, self._device, self.layers, self._inference

        def compute(features: Sequence[Feature]) -> list[torch.Tensor]:
            found: dict[int, torch.Tensor] = {}
            for batch in evaluation_batches(features, PIECES):
                ids, lengths, types = device.tensors(pad([features[row] for row in batch], backbone.pad_id))
                with device.autocast():
                    states = backbone.trunk(ids, lengths, types, layers, shift, inference)
                found |= dict(zip(batch, states.cpu(), strict=True))
            return [found[row] for row in range(len(features))]

        return compute


class TrunkRows:
    """The states of some rows: of those that found room from the disk, of the others computed when they are asked for.

    Args:
        features: the rows. shards: states of the first of them, in order. layers: how many they went through.
        compute: makes the states of others.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        shards: Sequence[States],
        layers: int,
        compute: Callable[[Sequence[Feature]], list[torch.Tensor]],
    ) -> None:
        self._features, self._layers, self._compute = features, layers, compute
        self._places: list[States] = []
        row = 0
        for shard in shards:
            begin = 0
            while begin < len(shard):
                end = begin + len(features[row])
                self._places.append(shard[begin:end])
                begin, row = end, row + 1

    def batch(self, rows: Sequence[int], device: Device) -> Trunk:
        """The states of a batch, [rows, longest, hidden], zero behind a row's length."""
        longest = max(len(self._features[row]) for row in rows)
        missing = [row for row in rows if row >= len(self._places)]
        computed = dict(zip(missing, self._compute([self._features[row] for row in missing]), strict=True))
        parts = [self._places[row] if row < len(self._places) else numbers(computed[row]) for row in rows]
        states = np.zeros((len(rows), longest, parts[0].shape[1]), parts[0].dtype)
        for place, (row, part) in enumerate(zip(rows, parts, strict=True)):
            length = len(self._features[row])
            states[place, :length] = part[:length]
        tensor = torch.from_numpy(states)
        return Trunk(
            (tensor.view(torch.bfloat16) if states.dtype == np.int16 else tensor).to(device.torch), self._layers
        )


def _content(features: Sequence[Feature]) -> str:
    """A hash of what an encoder sees of rows."""
    lengths = np.array([len(feature) for feature in features], np.int32)
    pieces = [
        np.concatenate([part, *rows])
        for part, rows in (
            (lengths, [feature.input_ids for feature in features]),
            (lengths[:0], [feature.type_ids for feature in features]),
        )
    ]
    return cache.content_hash(list[NDArray[np.int32]], pieces)


def numbers(states: torch.Tensor) -> States:
    """What numpy can hold: fp32, and the bits of bf16 as integers."""
    found: States = (states.view(torch.int16) if states.dtype == torch.bfloat16 else states).numpy()
    return found
