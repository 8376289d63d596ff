"""How a bundle is opened: the options that `predict`, `serve` and `bench` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.errors import PolypromptError
from exporters.bundle import CARD
from exporters.engines import AUTO, ENGINES, PROVIDERS
from exporters.session import Session


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command `bundle`, `--threads`, `--provider` and `--engine`."""
    parser.add_argument("bundle", type=Path, help="bundle, or run folder with its export")
    parser.add_argument("--threads", type=_threads, help="of the runtime (default: one a core)")
    parser.add_argument("--provider", default="cpu", help=f"{' or '.join(PROVIDERS)} (default: %(default)s)")
    parser.add_argument(
        "--engine",
        default=AUTO,
        help=f"{', '.join(ENGINES)}, or {AUTO}: the fastest of those that are installed and verified for the bundle "
        "(default: %(default)s)",
    )


def add_session_options(parser: argparse.ArgumentParser) -> None:
    """The same, and `--no-packed`."""
    add_options(parser)
    parser.add_argument(
        "--no-packed",
        action="store_true",
        help="fill rows of different lengths up, always: saves the memory of a second graph",
    )


def open_session(options: argparse.Namespace) -> Session:
    """The session that was asked for; see `add_session_options`."""
    folder, packed = folder_of(options.bundle), not options.no_packed
    return Session(folder, options.threads, options.provider, options.engine, packed)


def folder_of(path: Path) -> Path:
    """The bundle at a path: itself, or what a run folder has in `export`."""
    exported = path / "export"
    return exported if not (path / CARD).is_file() and (exported / CARD).is_file() else path


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise PolypromptError(f"--threads {text}: must be a number of at least 1")
    return int(text)
