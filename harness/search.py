"""`python -m harness.search`: look for prompt length, layers, rates and more of each task, then train the best anew."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tabulate import tabulate

from benchmarks.errors import PolypromptError, did_you_mean, run_command
from benchmarks.searches import SearchRecord, Setting
from harness.config import RunConfig, make_config
from harness.data import chosen_tasks
from harness.held_out import Selection
from harness.launcher import world
from harness.methods import Weights, find_method
from harness.options import add_settings, given, with_file
from harness.plan import trained_tasks
from harness.screen import Screen
from harness.study import OBJECTIVES, Asked

_FLAGS = (
    *("config", "trials", "budget", "space", "storage", "objectives", "seeds", "side_by_side", "sampler", "pruner"),
    *("joint", "folds", "json"),
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main() -> int:
    """The command line."""
    flags, settings = _parse(sys.argv[1:])
    settings = with_file(flags.config, settings)
    config = make_config(settings, "command line")
    _refuse(config, settings)
    if config.shots is not None:  # the winner trains on all of the few rows, so none is left to select an epoch
        settings["selection"] = Selection.LAST.value
    groups = trained_tasks([task.card for task in chosen_tasks(config)])
    if not groups:
        raise PolypromptError("--tasks: none of them is trained, so there is nothing to search")
    if flags.joint:
        groups = [[name for group in groups for name in group]]
    asked = _asked(flags, len(groups), config)
    # It loads torch, which takes seconds: not for an error of the above.
    from transformers.utils import logging

    from harness.searching import search

    logging.set_verbosity_error()
    screen = Screen()
    found: list[SearchRecord] = []
    try:
        found.extend(search(settings | {"tasks": group}, asked, screen) for group in groups)
    except KeyboardInterrupt:
        where = flags.storage if flags.storage is not None else config.out
        screen.say(f"interrupted; the trials so far are kept in {where}; the same command goes on")
        return 130
    print(TypeAdapter(list[SearchRecord]).dump_json(found, indent=2).decode() if flags.json else _tables(found))
    return 0


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = argparse.ArgumentParser(
        prog="python -m harness.search",
        description=f"{__doc__} A setting that is given is not varied. docs/search.md says more.",
    )
    bound = parser.add_mutually_exclusive_group(required=True)
    bound.add_argument("--trials", type=int, metavar="N", help="settings to try for each task")
    bound.add_argument("--budget", metavar="TIME", help="time for all tasks together, such as 90s, 45m, 2h")
    parser.add_argument("--space", type=Path, metavar="FILE.toml", help="narrows or fixes what is varied")
    parser.add_argument(
        "--storage", metavar="URL", help="postgresql://, redis://, ... or a file: shared by several processes and "
        "searches, which then begin with what earlier ones found (default: a journal in --out)"
    )  # fmt: skip
    parser.add_argument("--objectives", default="score", help="score, or also bytes and latency: a Pareto set")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the winner (default: 3); 0: search only")
    parser.add_argument("--side-by-side", type=int, default=4, metavar="N", help="trials at a time (default: 4)")
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe", help="what proposes (default: tpe)")
    parser.add_argument(
        "--pruner", choices=("asha", "hyperband", "none"), default="asha", help="what stops early (default: asha)"
    )
    parser.add_argument("--joint", action="store_true", help="one search for all tasks, with a prompt that they share")
    parser.add_argument("--folds", type=int, default=4, metavar="N", help="of --shots, cross-validated (default: 4)")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings; the command line goes before them")
    parser.add_argument("--json", action="store_true", help="print what search.json holds")
    add_settings(parser)
    return given(parser, arguments, _FLAGS)


def _refuse(config: RunConfig, settings: dict[str, Any]) -> None:
    """Refuse what a search cannot keep its word with.

    Raises:
        PolypromptError: names the option and what to do.
    """
    if world() > 1:
        raise PolypromptError("a search is one process; start several of the same --storage in place of a launcher")
    if config.selection is not Selection.HELD_OUT and not (config.shots and config.selection is Selection.LAST):
        reason = "a search looks at rows held out of training alone; leave --selection out"
        raise PolypromptError(f"--selection {config.selection}: {reason}")
    if find_method(config.method).backbone is not Weights.NONE or config.shard_backbone:
        option = "--shard-backbone" if config.shard_backbone else f"--method {config.method}"
        raise PolypromptError(
            f"{option}: trials share one frozen encoder; choose ptuning-v2, prompt-tuning, linear-probe"
        )
    for name in ("start_from", "name"):
        if getattr(config, name) is not None:
            raise PolypromptError(f"--{name.replace('_', '-')}: the runs of a search differ in it; leave it out")
    if config.max_steps == 0:
        raise PolypromptError("--max-steps 0: a trial has to train; leave it out")
    rates = settings.get("learning_rate", [])
    if isinstance(rates, list) and len(rates) > 1:
        raise PolypromptError("--learning-rate: several; a search varies it: give one to fix it, or a range in --space")


def _asked(flags: argparse.Namespace, studies: int, config: RunConfig) -> Asked:
    for name, least in (("trials", 1), ("seeds", 0), ("side_by_side", 1), ("folds", 2)):
        value = getattr(flags, name)
        if value is not None and value < least:
            raise PolypromptError(f"--{name.replace('_', '-')} {value}: at least {least} is needed")
    objectives = tuple(flags.objectives.split(","))
    for name in objectives:
        if name not in OBJECTIVES:
            raise PolypromptError(f"--objectives {name}: {did_you_mean(name, OBJECTIVES)}")
    if objectives[0] != "score" or len(set(objectives)) < len(objectives):
        raise PolypromptError(f"--objectives {flags.objectives}: write score first, then bytes, latency or both")
    budget = None if flags.budget is None else _seconds(flags.budget) / studies
    return Asked(
        flags.trials, budget, flags.space, flags.storage, objectives, flags.seeds, flags.side_by_side,
        flags.sampler, flags.pruner, 0 if config.shots is None else flags.folds,
    )  # fmt: skip


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None or float(match[1]) == 0:
        raise PolypromptError(f"--budget {text}: write a time such as 90s, 45m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _tables(found: Sequence[SearchRecord]) -> str:
    """A line a task, and below it what is worth a table of its own."""
    lines, parts = [], []
    for record in found:
        states = [trial.state for trial in record.trials]
        winner, done = record.winner, sum(state in ("complete", "pruned") for state in states)
        best = record.choice
        searched = "" if best is None or best.score is None else f"{best.score:.2f}"
        scored = ("", "", "") if winner is None else (
            f"{winner.score:.2f}", f"{winner.low:.2f} to {winner.high:.2f}", f"{winner.optimism:+.2f}"
        )  # fmt: skip
        settings = {} if best is None else best.settings
        lines.append((",".join(record.tasks), done, states.count("pruned"), searched, *scored, _shown(settings)))
        if len(record.objectives) > 1:
            parts.append(_pareto_table(record))
        if record.kept is not None:
            parts.append(f"{','.join(record.tasks)}: {record.kept}")
        if winner is not None:
            parts.append(f"{','.join(record.tasks)}: run folders " + " ".join(winner.runs))
    headers = ("task", "trials", "stopped early", "held-out", "dev", "95 %", "optimism", "settings")
    align = ("left", *("right",) * 6, "left")
    table = tabulate(lines, headers=headers, disable_numparse=True, colalign=align if lines else None)
    return "\n\n".join([table, *parts])


def _pareto_table(record: SearchRecord) -> str:
    chosen = sorted((trial for trial in record.trials if trial.pareto), key=lambda trial: -trial.values["score"])
    lines = [
        (trial.number, *(f"{trial.values[name]:.6g}" for name in record.objectives), _shown(trial.settings))
        for trial in chosen
    ]
    headers = ("trial", *(_UNIT[name] for name in record.objectives), "settings")
    return f"{','.join(record.tasks)}, Pareto set:\n" + tabulate(lines, headers=headers, disable_numparse=True)


_UNIT = {"score": "score", "bytes": "bytes", "latency": "ms a row"}


def _shown(settings: Mapping[str, Setting]) -> str:
    """Settings in a line."""
    values = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"{name} {str(value).lower()}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(run_command(main))
