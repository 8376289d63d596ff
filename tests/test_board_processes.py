"""Work that is shared out among processes: what it returns, and what becomes of one that fails or is ended."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.errors import PolypromptError
from leaderboard.processes import in_processes


def fail(error: Exception) -> int:
    raise error


def test_results_are_in_order_and_own_jobs_stay_here() -> None:
    found = in_processes([partial(pow, n, 2) for n in range(20)], [os.getpid, os.getpid], 3)
    assert found == [*(n**2 for n in range(20)), os.getpid(), os.getpid()]
    assert in_processes([os.getpid] * 3, (), 1) == [os.getpid()] * 3


def test_a_failure_is_the_callers() -> None:
    jobs = [partial(pow, 2, 2)] * 3
    with pytest.raises(PolypromptError, match="this file"):
        in_processes([*jobs, partial(fail, PolypromptError("this file"))], [], 2)
    with pytest.raises(Exception, match="surprise"):
        in_processes([partial(fail, ValueError("surprise"))] * 2, [], 2)


def test_a_process_that_is_ended_is_an_error(tmp_path: Path) -> None:
    def end() -> None:
        (tmp_path / "began").touch()
        os._exit(9)

    def wait() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)

    with pytest.raises(PolypromptError, match="was ended"):
        in_processes([end], [wait], 2)
