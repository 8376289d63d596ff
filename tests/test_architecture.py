"""The arrows between the houses, and what an installed package holds."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSES = ("benchmarks", "exporters", "harness", "leaderboard")
TORCH = {"accelerate", "peft", "torch", "transformers"}
TORCH_FREE = (
    "benchmarks.registry",
    "leaderboard.build",
    "leaderboard.show",
    "harness.config",
    "harness.listing",
    "harness.options",
    "harness.rescore",
    "exporters.session",
)


def test_imports_follow_the_arrows() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    done = subprocess.run([*command, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_loads_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert module.partition(".")[0] in loaded
    assert not loaded & TORCH


@pytest.mark.parametrize(
    "words", ["run --help", "run --list", "run --list-presets", "sweep FILE --dry-run", "search --help"]
)
def test_what_only_shows_something_does_without_torch(words: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('suite = ["demo"]\n')
    program, *arguments = words.replace("FILE", str(plan)).split()
    run = f"sys.argv = ['program', *{arguments}]; runpy.run_module('harness.{program}', run_name='__main__')"
    code = f"import atexit, runpy, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {run}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded = set(done.stderr.split())
    assert "harness.config" in loaded
    assert not loaded & TORCH


def test_peft_is_loaded_where_it_is_used_alone() -> None:
    code = "import sys, harness.execute; print('torch' in sys.modules, 'peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_wheel_holds_every_file_of_the_houses() -> None:
    try:
        package = distribution("polyprompt")
    except PackageNotFoundError:
        pytest.skip("the package is not installed")
    if '"editable"' in (package.read_text("direct_url.json") or ""):
        pytest.skip("the package is installed in place")
    installed = {file.as_posix() for file in package.files or ()}
    expected = {
        path.relative_to(ROOT).as_posix()
        for house in HOUSES
        for path in (ROOT / house).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "native" not in path.parts
    }
    assert expected <= installed
    assert not any("/native/" in file for file in installed), "sources of what was compiled"
    assert any(file.startswith("polyprompt_native.") for file in installed), "what was compiled"
