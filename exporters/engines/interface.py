"""What every engine offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

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
