"""What was compiled of the project, in one module, where it fits the Python that calls it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def compiled_part(name: str, version: int) -> ModuleType | None:
    """The compiled module.

    Args:
        name: of the number in it that says how a part of it is called. version: which the caller knows.

    Returns:
        None where it was not built, or that part of it is another version.
    """
    try:
        found = import_module("polyprompt_native")
    except ImportError:
        return None
    return found if getattr(found, name, None) == version else None
