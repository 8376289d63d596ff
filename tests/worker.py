"""A process that takes trials of a study: `python -m worker STORAGE TRIALS SECONDS LOG`.

A trial takes so long and finds a value that follows from what was drawn. Each begun and ended one is a line of LOG.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from harness.study import Search, make_pruner, make_sampler, open_storage


def value(x: float) -> float:
    """Of a trial."""
    return -((x - 0.3) ** 2)


def open_search(url: str, trials: int) -> Search:
    """The study of the test."""
    space = {"x": FloatDistribution(0.0, 1.0)}
    sampler, pruner = make_sampler("tpe", 1, 3), make_pruner("none", 1)
    return Search(open_storage(url, Path()), "study", space, ["maximize"], sampler, pruner, trials, None, {})


def main() -> None:
    """The program."""
    url, trials, seconds, log = sys.argv[1:]
    search = open_search(url, int(trials))
    with Path(log).open("a") as file:

        def write(what: str) -> None:
            file.write(what + "\n")
            file.flush()

        write("ready")
        while True:
            while (taken := search.ask()) is not None:
                write(f"begun {taken.slot}")
                until = time.monotonic() + float(seconds)
                while time.monotonic() < until:
                    time.sleep(0.01)
                    taken.beat()
                taken.tell(TrialState.COMPLETE, [value(taken.params["x"])])
                write(f"ended {taken.slot}")
            if not search.others():
                return
            time.sleep(0.05)


if __name__ == "__main__":
    main()
