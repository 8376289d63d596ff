"""`python -m tests.official.metrics`: every metric with a golden value, ours, the official scorer's, the difference.

The golden values stand in tests/golden/, each with the scorer that gave it. The exit status is 1 when one differs by
more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.records import Prediction
from benchmarks.registry import find_task
from benchmarks.scoring import score

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-6
"""Points."""


def ours(row: dict[str, Any]) -> float:
    """Our value of a golden row, in points."""
    groups = row.get("groups") or [""] * len(row["gold"])
    predictions = [
        Prediction(str(number), _value(predicted), _value(gold), group=group)
        for number, (gold, predicted, group) in enumerate(zip(row["gold"], row["predicted"], groups, strict=True))
    ]
    card = find_task(row["task"]).card.model_copy(update={"metrics": (row["metric"],)})
    return score(card, predictions, row["language"])[row["metric"]]


def _value(raw: Any) -> Any:
    return tuple(raw) if isinstance(raw, list) else raw


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.official.metrics", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a golden value")
    options = parser.parse_args()
    rows = [row for file in sorted(GOLDEN.glob("*.json")) for row in json.loads(file.read_text(encoding="utf-8"))]
    found = [row | {"ours": ours(row)} for row in rows]
    worst = max(abs(row["ours"] - row["official"]) for row in found)
    if options.json:
        for row in found:
            print(json.dumps({key: row[key] for key in ("task", "metric", "language", "ours", "official", "source")}))
        return int(worst > TOLERANCE)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        groups[row["task"], row["metric"], row["source"].partition(",")[0]].append(row)
    lines = []
    for (task, metric, source), part in groups.items():
        first = part[0]
        difference = max(abs(row["ours"] - row["official"]) for row in part)
        numbers = (f"{first['ours']:.4f}", f"{first['official']:.4f}", f"{difference:.1e}")
        lines.append((task, metric, len(part), *numbers, source))
    headers = ("task", "metric", "values", "ours (first)", "official (first)", "largest difference", "scorer")
    print(tabulate(lines, headers=headers, disable_numparse=True))
    print(f"\n{len(found)} golden values, largest difference {worst:.1e} points")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
