"""Files of the site that are the same for every board: style, scripts, and the table library out of its package."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from benchmarks.errors import PolypromptError

SCRIPTS = (
    "registry",
    "theme",
    "cells",
    "download",
    "board",
    "table",
    "search",
    "statistics",
    "compare",
    "errors",
    "examples",
)
"""Scripts of our own; which of them a page loads is said by its template."""


@cache
def assets() -> dict[str, str]:
    """Path relative to the site -> content."""
    templates = files("leaderboard") / "templates"
    found = {f"assets/{name}.js": (templates / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS}
    found["assets/style.css"] = (templates / "style.css").read_text(encoding="utf-8")
    found["assets/datatables.js"] = datatables((files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8"))
    return found


def datatables(module: str) -> str:
    """DataTables as a plain script that defines `DataTable`: browsers load no modules from disk.

    Args:
        module: the ES module that itables ships.

    Raises:
        PolypromptError: it does not end with an export that names a default.
    """
    export = re.search(r"\bexport\s*\{([^}]*)\};?", module)
    default = export and re.search(r"([\w$]+) as default\b", export[1])
    if not export or not default:
        raise PolypromptError("itables: its DataTables has another form than expected; install itables 2.9")
    body = module[: export.start()] + f"globalThis.DataTable={default[1]};" + module[export.end() :]
    return f"(() => {{\n{body.rstrip()}\n}})();\n"
