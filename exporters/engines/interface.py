"""What every engine offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by the names that the graph has for them."""


class EngineCard(BaseModel):
    """What an engine really is, as far as it tells.

    Attributes:
        name, version: of the runtime.
        device: where it computes. threads: how many it may use; None: as many as it likes.
        precision: of its matrix products where the graph leaves it open: "fp32", "fp16" or "bf16".
        attention: what computes attention; where the runtime does not tell, what is known of the graph.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    device: str
    threads: int | None
    precision: str
    attention: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}, {self.device}, {self.precision}, attention: {self.attention}"


class Engine(Protocol):
    """An opened graph. Several threads may run it at once."""

    card: EngineCard

    def keep(self, tensors: Arrays) -> None:
        """Tensors that every later run is fed with; those of an earlier call are forgotten."""

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Compute some outputs.

        Args:
            names: of the outputs.
            feeds: the other inputs; what the graph does not read is left out.

        Returns:
            Output name -> array. It may be a view of the engine's own memory, which holds until the next run in this
            thread.
        """


Batch = tuple[Collection[str], Arrays]
"""Names of the outputs and the other inputs, as `Engine.run` takes them."""


@runtime_checkable
class Streams(Protocol):
    """An engine that computes several batches side by side, each on a share of the processor's cores.

    Attributes:
        streams: so many batches.
    """

    streams: int

    def run_side_by_side(self, batches: Sequence[Batch]) -> list[dict[str, NDArray[Any]]]:
        """What `Engine.run` gives for each of at most so many batches."""


def streams_of(engine: Engine) -> int:
    """How many batches an engine computes side by side."""
    return engine.streams if isinstance(engine, Streams) else 1


def run_side_by_side(engine: Engine, batches: Sequence[Batch]) -> list[dict[str, NDArray[Any]]]:
    """What an engine gives for at most as many batches as it has streams."""
    if isinstance(engine, Streams):
        return engine.run_side_by_side(batches)
    (only,) = batches
    return [engine.run(*only)]
