"""How things are called on the pages: languages, scripts, numbers, and the names of files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache

from babel import Locale
from babel.core import get_global


@cache
def language_name(code: str) -> str:
    """The English name of a BCP-47 code by CLDR; the code itself where CLDR has none."""
    names = Locale("en").languages
    return str(names.get(code.replace("-", "_")) or names.get(code.split("-")[0]) or code)


@cache
def script_name(code: str) -> str:
    """The English name of the script of a language, by its code or else by CLDR's likely subtags; "": not known."""
    parts = code.replace("-", "_").split("_")
    named = next((part for part in parts[1:] if re.fullmatch(r"[A-Za-z]{4}", part)), None)
    likely = get_global("likely_subtags")
    found = named or next((part for part in str(likely.get(parts[0], "")).split("_")[1:] if len(part) == 4), None)
    name = str(Locale("en").scripts.get(found.title(), found)) if found else ""
    return f"{name} Han" if name in ("Simplified", "Traditional") else name


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Names -> file names of lower-case letters, digits, dots, dashes and underscores; all different.

    Names come from strangers: one that cannot name a file, or only as another one does, is given a number.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for number, name in enumerate(sorted(set(names)), 1):
        plain = name.lower()
        slug = plain if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", plain) else f"n{number}"
        while slug in taken:
            slug += f"-{number}"
        taken.add(slug)
        found[name] = slug
    return found


def words(metric: str) -> str:
    """The name of a metric as words."""
    return metric.replace("_", " ")


def points(number: float | None, digits: int = 1) -> str:
    """One decimal, with a real minus sign; a dash for what is not a number."""
    if number is None or not math.isfinite(number):
        return "–"
    text = f"{number:.{digits}f}"
    if text.startswith("-"):
        text = f"−{text[1:]}" if text.strip("-0.") else text[1:]
    return text


def share(percent: float) -> str:
    """Percent with as many digits as keep small shares apart."""
    return f"{percent:.1f}" if percent >= 10 else f"{percent:.2f}" if percent >= 0.1 else f"{percent:.3f}"


def duration(seconds: float) -> str:
    """Seconds, with a decimal where they are few."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def size(stored: float) -> str:
    """Bytes in the decimal unit that leaves up to three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if stored < 999.5 or unit == "GB":
            break
        stored /= 1000
    return f"{stored:.0f} {unit}" if unit == "B" or stored >= 100 else f"{stored:.3g} {unit}"


def count(number: int) -> str:
    """A number of parameters: 278 M."""
    return size(number).replace("B", "").replace("k", "k").strip() if number < 999.5e3 else f"{number / 1e6:,.0f} M"


def thousands(number: int) -> str:
    """With separators."""
    return f"{number:,}"


def named(names: Sequence[str], most: int = 12) -> str:
    """Names in a sentence; of very many the first ones."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])} and {len(names) - most + 2} others"
