"""Released hyper-parameters by name, with the number that was published for them."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.errors import PolypromptError

FILE = Path(__file__).with_name("presets.toml")


@dataclass(frozen=True)
class Preset:
    """Settings of a run that somebody released.

    Attributes:
        name: "PAPER/TASK-BACKBONE". settings: as in a settings file.
        source: where they were read.
        published: the main metric that was reported with them, in points; None where none was.
    """

    name: str
    settings: dict[str, Any]
    source: str
    published: float | None = None


def presets() -> dict[str, Preset]:
    """Every preset by name."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: Preset(name=name, **table) for name, table in tables.items()}


def find_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        PolypromptError: unknown; says which one may have been meant.
    """
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "--list-presets shows them"
        raise PolypromptError(f"--preset {name}: unknown; {hint}")
    return known[name]


def presets_table() -> str:
    """One line a preset: its settings, and the published number."""
    lines = []
    for preset in presets().values():
        chosen = preset.settings
        published = "-" if preset.published is None else f"{preset.published:.1f}"
        numbers = (chosen[key] for key in ("prompt-length", "learning-rate", "batch", "epochs"))
        lines.append((preset.name, *numbers, chosen["backbone"], published, preset.source))
    headers = ("preset", "slots", "rate", "batch", "epochs", "backbone", "published", "source")
    return tabulate(lines, headers=headers, disable_numparse=True)
