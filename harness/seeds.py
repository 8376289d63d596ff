"""Runs that differ in nothing but the seed: their configurations, and their scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from benchmarks.errors import PolypromptError
from benchmarks.results import Results
from harness.at_once import at_once
from harness.config import RunConfig, refuse_begun
from harness.screen import Screen
from harness.turns import Steps, at_a_stretch, in_turns

if TYPE_CHECKING:  # loads torch
    from harness.shared import Shared


def with_seeds(config: RunConfig, count: int) -> list[RunConfig]:
    """The configuration with `count` seeds from its own on; a name gets the seed behind it."""
    seeds = range(config.seed, config.seed + count)
    names = [config.name and f"{config.name}-s{seed}" for seed in seeds]
    pairs = zip(seeds, names, strict=True)
    return [config.model_copy(update={"seed": seed, "name": name}) for seed, name in pairs]


def all_of(configs: Sequence[RunConfig], processes: int, resume: bool, screen: Screen) -> list[Results]:
    """Do runs in turns in this process, those with a frozen encoder; or in several, see `harness.at_once`.

    Raises:
        PolypromptError: runs failed; names the first of them. The others are complete.
    """
    found: dict[int, Results] = {}
    failed: dict[int, str] = {}
    if not resume:
        for config in configs:
            refuse_begun(config)
    with screen.bar("runs", len(configs)) as bar:
        ended = at_once(configs, processes, _do) if processes > 1 else _side_by_side(configs, screen)
        for place, (state, text) in ended:
            name = configs[place].folder.name
            bar.step(name)
            screen.say(f"{name}: {state}" + ("" if state == _DONE else f": {text}"))
            if state == _DONE:
                found[place] = Results.model_validate_json(text)
            else:
                failed[place] = text
    if failed:
        place = min(failed)
        others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise PolypromptError(f"{configs[place].folder}{others}: {failed[place]}")
    return [found[place] for place in range(len(configs))]


_DONE, _FAILED = "done", "failed"


def _side_by_side(configs: Sequence[RunConfig], screen: Screen) -> Iterator[tuple[int, tuple[str, str]]]:
    from harness.shared import Shared, in_turn  # with torch

    shared = Shared(len(configs), len(configs) if all(map(in_turn, configs)) else 1)
    return in_turns((_by_steps(config, screen, shared) for config in configs), shared.at_once)


def _by_steps(config: RunConfig, screen: Screen, shared: Shared | None = None) -> Steps[tuple[str, str]]:
    from harness.execute import execute_by_steps  # with torch

    try:
        return _DONE, (yield from execute_by_steps(config, True, screen, shared)).model_dump_json()
    except PolypromptError as error:
        return _FAILED, str(error)


def _do(config: RunConfig) -> tuple[str, str]:
    return at_a_stretch(_by_steps)(config, Screen(quiet=True))


def seeds_table(runs: Sequence[Results]) -> str:
    """One line a task, language and split: mean, standard deviation (n - 1) and every seed's main metric."""
    lines = []
    for records in zip(*(run.records for run in runs), strict=True):
        first = records[0]
        values = [record.main[1] for record in records]
        spread = f"{np.std(values, ddof=1):.2f}" if len(values) > 1 else "-"
        place = (first.suite, first.task, first.language, first.split, first.main[0])
        lines.append((*place, f"{np.mean(values):.2f}", spread, *(f"{value:.2f}" for value in values)))
    headers = ("suite", "task", "language", "split", "metric", "mean", "sd", *(f"seed {run.seed}" for run in runs))
    align = ("left",) * 5 + ("right",) * (len(headers) - 5)
    return tabulate(lines, headers=headers, disable_numparse=True, colalign=align if lines else None)
