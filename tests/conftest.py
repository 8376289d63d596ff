"""Fixtures that more than one test module uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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
