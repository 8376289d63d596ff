"""Recompute every score of a run from its stored predictions, without a model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.errors import PolypromptError, run_command
from benchmarks.results import Manifest, ResultRecord, Results, read_model, read_predictions, write_model
from harness.report import make_record, score_table

TOLERANCE = 1e-3
"""Points; scores are stored with four decimals."""


def rescore(run: Path) -> tuple[Results, list[str]]:
    """Scores of a run computed again.

    Returns:
        The new results, and one sentence for every stored score or file hash that differs.

    Raises:
        PolypromptError: a file of the run is missing or damaged.
    """
    cards = {card.name: card for card in read_model(run / "manifest.json", Manifest).tasks}
    stored = read_model(run / "results.json", Results)
    records: list[ResultRecord] = []
    differences = []
    for old in stored.records:
        if old.task not in cards:
            raise PolypromptError(f"{run / 'results.json'}: task {old.task} is not in manifest.json")
        predictions = read_predictions(run / old.predictions)
        new = make_record(run, cards[old.task], old.language, old.split, predictions, old.limited, old.threshold)
        if new is None:
            raise PolypromptError(f"{run / old.predictions}: no row has a gold value, nothing to score")
        place = f"{old.task} {old.language} {old.split}"
        if new.sha256 != old.sha256:
            differences.append(f"{place}: the predictions file is not the one that was scored (sha256 differs)")
        for metric, value in new.scores.items():
            if abs(value - old.scores.get(metric, float("inf"))) > TOLERANCE:
                differences.append(f"{place}: {metric} is {value:.4f}, stored is {old.scores.get(metric)}")
        records.append(new)
    return stored.model_copy(update={"records": records}), differences


def main() -> int:
    """The command line; status 1 when a stored score differs."""
    parser = argparse.ArgumentParser(prog="python -m harness.rescore", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--write", action="store_true", help="put the new scores into results.json")
    parser.add_argument("--json", action="store_true", help="print results.json's content instead of a table")
    options = parser.parse_args()
    results, differences = rescore(options.run)
    print(results.model_dump_json(indent=2) if options.json else score_table(results.records))
    for sentence in differences:
        print(f"differs: {sentence}", file=sys.stderr)
    if options.write:
        write_model(options.run / "results.json", results)
    elif not options.json and not differences:
        print(f"{len(results.records)} records, all equal to results.json")
    return 1 if differences and not options.write else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
