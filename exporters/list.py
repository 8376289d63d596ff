"""The tasks of a bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.errors import run_command
from exporters.bundle import BundledTask, read_card
from exporters.table import table


def described(task: BundledTask) -> dict[str, Any]:
    """A task as a JSON object.

    Returns:
        "task"; "kind"; "labels"; "languages", those with a prompt of their own; "slots", the length of its prompt, and
        "prompt_layers", where it is (none: in the input); "head", how it is answered; "run" and "run_task", where it
        comes from; "output" of the graph.
    """
    return {
        "task": task.card.name,
        "kind": task.card.kind.value,
        "labels": list(task.card.labels),
        "languages": list(task.languages),
        "slots": task.slots,
        "prompt_layers": task.prompt_layers,
        "head": task.head.value,
        "run": task.run,
        "run_task": task.run_task,
        "output": task.output,
    }


def _row(task: BundledTask) -> tuple[str, ...]:
    place = "" if not task.slots else f"{task.slots} in {_spans(task.prompt_layers)}"
    came = task.run if task.run_task == task.card.name else f"{task.run} ({task.run_task})"
    labels = str(len(task.card.labels)) if task.card.labels else ""
    return task.card.name, task.card.kind.value, labels, place, " ".join(task.languages), came


def _spans(layers: list[int]) -> str:
    """Numbers of layers, shortly."""
    if not layers:
        return "the input"
    whole = layers == list(range(layers[0], layers[-1] + 1))
    return f"layers {layers[0]}-{layers[-1]}" if whole else f"layers {','.join(map(str, layers))}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.list", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_args()
    card = read_card(options.bundle)
    if options.json:
        print(json.dumps([described(task) for task in card.tasks], ensure_ascii=False))
    else:
        columns = {"task": "left", "kind": "left", "labels": "right", "prompt": "left", "own prompts in": "left"}
        print(table({**columns, "run": "left"}, [_row(task) for task in card.tasks]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
