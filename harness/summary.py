"""A sweep at a glance: mean scores over seeds, task by task, beside what a run trained and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

SEED, TASKS = "seed", "tasks"


def summary_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A line for each combination of settings, whose seeds are brought together; "" when no job has a score.

    Args:
        records: of jobs, as `harness.sweep --json` prints them.

    Returns:
        Columns: the settings; the score of each task, "mean ± standard deviation (seeds)", of the number of runs where
        one is missing; trained share of the parameters, seconds of training and most memory: medians over seeds, for
        one that shared its machine tells little, in the mean over tasks.
    """
    scored = [record for record in records if record["score"] is not None]
    if not scored:
        return ""
    axes = dict.fromkeys(axis for record in scored for axis in record["job"])
    settings = [axis for axis in axes if axis not in (SEED, TASKS)]
    tasks = list(dict.fromkeys(record["job"].get(TASKS, "score") for record in scored))
    seeds = len({record["job"].get(SEED) for record in scored})
    lines: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in scored:
        lines.setdefault(tuple(record["job"].get(axis, "") for axis in settings), []).append(record)
    rows = []
    for place, found in lines.items():
        cells = [_cell([r["score"] for r in found if r["job"].get(TASKS, "score") == task], seeds) for task in tasks]
        costs = [
            _cost(found, name, form)
            for name, form in (("share", "{:.3g}"), ("seconds", "{:.0f}"), ("memory", "{:.0f}"))
        ]
        rows.append((*place, *cells, *costs))
    headers = (*settings, *tasks, "trained %", "seconds", "MiB")
    align = ("left",) * len(settings) + ("right",) * (len(headers) - len(settings))
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=align)


def _cell(scores: Sequence[float], seeds: int) -> str:
    if not scores:
        return ""
    mean = f"{np.mean(scores):.1f}"
    spread = f" ± {np.std(scores, ddof=1):.1f}" if len(scores) > 1 else ""
    return mean + spread + (f" ({len(scores)})" if len(scores) < seeds else "")


def _cost(found: Sequence[Mapping[str, Any]], name: str, form: str) -> str:
    tasks: dict[str, list[float]] = {}
    for record in found:
        if record[name] is not None:
            tasks.setdefault(record["job"].get(TASKS, ""), []).append(record[name])
    return form.format(np.mean([np.median(values) for values in tasks.values()])) if tasks else ""
