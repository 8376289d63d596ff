"""What a run used: code and packages."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "peft",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "seqeval",
    "sacrebleu",
)


def code_version() -> str:
    """Package version, and the git commit when this is a checkout ("+changes" behind it when files differ from it)."""
    try:
        release = version("polyprompt")
    except PackageNotFoundError:
        release = "source"
    folder = Path(__file__).parents[1]
    commit = _git(folder, "rev-parse", "--short=12", "HEAD") if (folder / ".git").exists() else ""
    if not commit:
        return release
    return f"{release} {commit}{'+changes' if _git(folder, 'status', '--porcelain', '-uno') else ''}"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def packages() -> dict[str, str]:
    """Versions of the packages that decide results."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
