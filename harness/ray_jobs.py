"""Jobs of a sweep as tasks of a Ray cluster: Ray places them, and starts those again whose worker or node died."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from transformers.utils.logging import set_verbosity_error

from benchmarks.errors import PolypromptError
from harness.config import RunConfig
from harness.jobs import PAUSE, Outcome, State, perform
from harness.plan import Job
from harness.screen import Screen

try:
    import ray
except ImportError:
    raise PolypromptError("--ray needs the package ray: install the extra `cluster`") from None

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, for this sweep."""

RETRIES = 3
"""A job whose worker died so often and dies again is given up: it may be what kills them."""

_PATIENCE = 20  # seconds for the head of a cluster to answer

_STORE = 80 * 2**20  # bytes; Ray's least, since jobs exchange files and not objects


def on_ray(
    jobs: Sequence[Job], address: str, cpus: float, gpus: float, screen: Screen
) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs on a cluster whose machines share the current folder and what the jobs' paths name.

    A job that was interrupted goes on from its checkpoint, on any machine. One whose folder is locked (by another
    sweep, or by a worker that outlived its node) is given to the cluster again until it is free or done.

    Args:
        jobs: what to do. address: of the cluster, or "local".
        cpus, gpus: what each job takes of its machine.
        screen: told when no machine can take a job.

    Raises:
        PolypromptError: there is no such cluster.
    """
    with redirect_stdout(sys.stderr):  # Ray tells of dead nodes on stdout, which is for our output alone
        _connect(address)
        try:
            _check_room(cpus, gpus, screen)
            # Spread: jobs on one machine slow each other and go down together.
            options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
            task = ray.remote(max_retries=RETRIES, **options)(_perform)
            folder = str(Path.cwd())

            def submit(job: Job) -> ray.ObjectRef[Any]:
                return task.remote(job.config.model_dump_json(), folder)

            pending = {submit(job): job for job in jobs}
            while pending:
                (ready,), _ = ray.wait(list(pending), num_returns=1)
                job, outcome = pending.pop(ready), _outcome(ready)
                if outcome.state is State.BUSY:
                    time.sleep(PAUSE)
                    pending[submit(job)] = job
                else:
                    yield job, outcome
        finally:
            ray.shutdown()


def _perform(settings: str, folder: str) -> tuple[str, str]:
    """The task: a job on the machine that Ray chose."""
    os.chdir(folder)
    set_verbosity_error()
    try:
        outcome = perform(RunConfig.model_validate_json(settings), Screen(quiet=True))
    except KeyboardInterrupt:  # the machine is about to go, a checkpoint was written
        outcome = Outcome(State.BUSY)
    return outcome.state.value, outcome.error


def _outcome(ready: ray.ObjectRef[Any]) -> Outcome:
    try:
        state, error = ray.get(ready)
    except ray.exceptions.RayError as failure:
        return Outcome(State.FAILED, str(failure).strip().splitlines()[-1])
    return Outcome(State(state), error)


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a sweep reports to nobody
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE} if address == LOCAL else {}
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal() and "/" not in host:  # Ray itself asks for minutes
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise PolypromptError(f"--ray {address}: {str(error).strip().splitlines()[0]}") from None


def _check_room(cpus: float, gpus: float, screen: Screen) -> None:
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in there):
        screen.say(f"no machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs; the jobs wait for one")
