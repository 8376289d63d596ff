"""Modules by names that users choose, such as those of their tasks."""

from __future__ import annotations

from torch import nn


class ByName(nn.ModuleDict):
    """A `ModuleDict` whose keys may be names of its own attributes, such as "type" or "training".

    Modules and attributes are kept apart: a module is found by its key alone. Parameters have the same names as in a
    `ModuleDict`, which refuses such keys.
    """

    def __setitem__(self, key: str, module: nn.Module) -> None:
        self._modules[key] = module

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
