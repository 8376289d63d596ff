"""Fixtures that more than one test module uses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

# Before torch is imported: on tensors as small as those of the tests, two threads cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this session alone, in the programs that it starts too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYPROMPT_CACHE", str(folder))
        patch.delenv("POLYPROMPT_CACHE_GB", raising=False)
        yield folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real benchmark files (`data/`) and checkpoints (`models/`) beside the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder `shared` with real data and models beside the project")
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny BERT folder."""
    from tiny import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("backbone")
    tiny_model("bert").save_pretrained(folder)
    tiny_tokenizer("bert").save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int | str | None, str, str]]:
    """Runs a program of ours in this process; returns status, stdout and stderr."""
    from benchmarks.errors import run_command

    def call(module: ModuleType, *arguments: object) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        status: int | str | None
        try:
            status = run_command(module.main)
        except SystemExit as error:  # argparse
            status = error.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return call


@pytest.fixture
def tiny_run(command: Callable[..., tuple[int | str | None, str, str]], backbone: Path) -> Callable[..., object]:
    """`python -m harness.run --suite demo` with the tiny encoder."""
    from harness import run

    return lambda *more: command(run, "--suite", "demo", "--backbone", backbone, "--prompt-length", 3, *more)


@pytest.fixture
def interrupted_at() -> Callable[[int], AbstractContextManager[None]]:
    """Makes a block in which Ctrl-C comes in front of a step of each training."""
    from harness import learn

    @contextmanager
    def block(at: int) -> Iterator[None]:
        train = learn.train_by_steps

        def interrupted(*arguments: object, **more: object) -> object:
            def stop(step: int) -> None:
                if step == at:
                    os.kill(os.getpid(), signal.SIGINT)

            return train(*arguments, on_step=stop, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learn, "train_by_steps", interrupted)
            yield

    return block
