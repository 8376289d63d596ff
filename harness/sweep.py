"""`python -m harness.sweep FILE.toml`: do every run of a plan that is not done yet."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.results import Manifest, Results, read_model
from harness.jobs import Outcome, State, all_of, in_processes, is_done, one_by_one, side_by_side
from harness.options import command_line
from harness.plan import Job, read_plan
from harness.screen import Screen
from harness.summary import summary_table


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.sweep", description=__doc__)
    parser.add_argument("plan", type=Path, metavar="FILE.toml", help="settings and what is varied (docs/sweeps.md)")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and what is done of it, then stop")
    parser.add_argument("--print-jobs", action="store_true", help="print a command for each job that is not done")
    parser.add_argument(
        "--side-by-side", type=int, default=1, metavar="N", help="N runs of one frozen encoder at a time in one process"
    )
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="N processes at a time, a part of the cores each"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help='do the jobs on a Ray cluster; "local": on this machine')
    parser.add_argument("--cpus", type=float, default=1, help="of each job with --ray (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, help="of each job with --ray, parts allowed (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    flags = parser.parse_args()
    jobs, screen = read_plan(flags.plan), Screen()
    todo = [job for job in jobs if not is_done(job.config)]
    if flags.print_jobs:
        for job in todo:
            print(f"{command_line(job.config)} --resume")
        return 0
    if flags.dry_run:
        _show([_record(job, None) for job in jobs], flags.json)
        return 0
    from transformers.utils import logging  # with torch, which takes seconds: not for what was shown above

    logging.set_verbosity_error()
    outcomes = {job.config.folder: Outcome(State.SKIPPED) for job in jobs}  # until they are known to be otherwise
    if flags.at_once < 1 or (flags.at_once > 1 and flags.ray is not None):
        raise PolypromptError(f"--at-once {flags.at_once}: write a number from 1 on, and leave it out with --ray")
    if flags.side_by_side < 1 or (flags.side_by_side > 1 and (flags.ray is not None or flags.at_once > 1)):
        reason = "write a number from 1 on, and leave it out with --at-once and --ray"
        raise PolypromptError(f"--side-by-side {flags.side_by_side}: {reason}")
    if flags.ray is None or not todo:
        tried = one_by_one(screen)
        if flags.at_once > 1:
            tried = in_processes(flags.at_once)
        elif flags.side_by_side > 1:
            tried = side_by_side(flags.side_by_side, screen)
        performed = all_of(todo, tried, screen)
    else:
        from harness.ray_jobs import on_ray  # an extra, which other sweeps do without

        performed = on_ray(todo, flags.ray, flags.cpus, flags.gpus, screen)
    try:
        for job, outcome in _watched(performed, len(todo), len(jobs), screen):
            outcomes[job.config.folder] = outcome
    except KeyboardInterrupt:
        screen.say(f"interrupted; what was computed is in {jobs[0].config.out}; the same command goes on")
        return 130
    _show([_record(job, outcomes[job.config.folder]) for job in jobs], flags.json)
    return 1 if any(outcome.state is State.FAILED for outcome in outcomes.values()) else 0


def _watched(
    performed: Iterator[tuple[Job, Outcome]], todo: int, total: int, screen: Screen
) -> Iterator[tuple[Job, Outcome]]:
    """Tell of each job, and how long the rest may take at the speed so far."""
    began = time.monotonic()
    with screen.bar("jobs", total, total - todo) as bar:
        for number, (job, outcome) in enumerate(performed, 1):
            left = timedelta(seconds=round((todo - number) * (time.monotonic() - began) / number))
            bar.step(f"about {left} left")
            what = outcome.state if not outcome.error else f"{outcome.state}: {outcome.error}"
            screen.say(f"{total - todo + number}/{total} {job.config.folder.name}: {what}")
            yield job, outcome


def _record(job: Job, outcome: Outcome | None) -> dict[str, Any]:
    """What is shown of a job; without an outcome, what its folder says.

    Its score is the mean of the main metric over tasks, languages and splits.
    """
    config, error = job.config, "" if outcome is None else outcome.error
    done = is_done(config)
    planned = "done" if done else "begun" if (config.folder / "config.toml").exists() else "new"
    state = planned if outcome is None else outcome.state.value
    record = {"job": dict(job.choice), "state": state, "score": None, "error": error, "folder": str(config.folder)}
    if not done:
        return record
    results = read_model(config.folder / "results.json", Results)
    manifest = read_model(config.folder / "manifest.json", Manifest)
    score = round(float(np.mean([record.main[1] for record in results.records])), 4) if results.records else None
    cost = {"share": manifest.share, "seconds": manifest.train_seconds, "memory": manifest.train_memory}
    return record | {"score": score} | cost


def _show(records: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    axes = list(dict.fromkeys(axis for record in records for axis in record["job"]))
    lines = []
    for record in records:
        score = "" if record["score"] is None else f"{record['score']:.2f}"
        place = (record["job"].get(axis, "") for axis in axes)
        lines.append((*place, record["state"], score, record["error"] or record["folder"]))
    headers = (*axes, "state", "score", "folder, or what went wrong")
    align = ("left",) * (len(axes) + 1) + ("right", "left")
    print(tabulate(lines, headers=headers, disable_numparse=True, colalign=align))
    summary = summary_table(records)
    if summary:
        print(f"\n{summary}")
    counts = Counter(record["state"] for record in records)
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items()))


if __name__ == "__main__":
    sys.exit(run_command(main))
