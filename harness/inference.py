"""Layers of a frozen encoder in another engine than our own, where nothing is trained through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.attention import Prefix

if TYPE_CHECKING:
    from harness.backbone import Backbone

Layers = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]
"""Some layers, compiled. They are fed with `states` [rows, seq, hidden] and `lengths` [rows], of rows padded on the
right; for each layer with a prompt `layer.N.prefix_key` and `layer.N.prefix_value` [1, slot, hidden]; where one
piece alone is read its place `read` [1]. States and prefixes are fp32, the others int64.

They give states [rows, seq, hidden], with `read` [rows, 1, hidden], without meaning behind a row's length; the array
may be memory of the engine's own, which holds until the next call."""


class Part(NamedTuple):
    """Which layers of an encoder, and how they are run: one graph.

    Attributes:
        first: the first layer. end: the one behind the last. prompted: those with a prefix.
        reads: of the last of them the state of one piece alone is asked for.
    """

    first: int
    end: int
    prompted: tuple[int, ...] = ()
    reads: bool = False

    @classmethod
    def of(cls, prefix: Prefix | None, first: int, end: int, reads: bool) -> Part | None:
        """Of a pass; None: only our own engine computes it, or there is nothing to compute."""
        if first >= end or (prefix is not None and (prefix.gated or prefix.tensor.shape[2] != 1)):
            return None
        layers = () if prefix is None else prefix.layers
        return cls(first, end, tuple(number for number in layers if first <= number < end), reads)


class InferenceEngine(Protocol):
    """What an entry point of the group `harness.engines.GROUP` makes, without arguments.

    Attributes:
        name: that of the entry point. identity: of all in it that decides its numbers: versions, code.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    def compile(self, backbone: Backbone, part: Part, bf16: bool, threads: int) -> Layers:
        """Make some layers ready.

        Args:
            backbone: whose layers; its weights may be bf16. part: which. bf16: products in bf16, else all in fp32.
            threads: how many it may use.

        Raises:
            PolypromptError: it cannot compute this encoder, or not here.
        """


class Inference:
    """Parts of a frozen encoder that another engine computes.

    Args:
        name, identity: of the engine. parts: what it has compiled. dtype: of the states that go in and out.
    """

    def __init__(self, name: str, identity: str, parts: Mapping[Part, Layers], dtype: torch.dtype) -> None:
        self.name, self.identity, self.parts, self.dtype = name, identity, parts, dtype

    def run(
        self, states: Tensor, lengths: Tensor, prefix: Prefix | None, first: int, end: int, read: int | None
    ) -> Tensor | None:
        """Some layers, as `harness.encoder.FrozenEncoder.run`; None where it cannot.

        Args:
            lengths: of the rows, `[batch]`. states, prefix, first, end, read: see there.
        """
        part = Part.of(prefix, first, end, read is not None)
        layers = self.parts.get(part) if part is not None and states.dtype is self.dtype else None
        if layers is None:
            return None
        feeds = {"states": states.float().contiguous().numpy(), "lengths": lengths.numpy().astype(np.int64)}
        if read is not None:
            feeds["read"] = np.array([read])
        for number in part.prompted:
            pair = prefix.tensor[prefix.layers.index(number)].detach().float().transpose(2, 3).flatten(3)
            for kind, tensor in zip(("key", "value"), pair, strict=True):
                feeds[f"layer.{number}.prefix_{kind}"] = tensor.contiguous().numpy()
        return torch.from_numpy(layers(feeds)).to(self.dtype, copy=True)
