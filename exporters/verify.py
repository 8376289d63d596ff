"""Agreement of an exported bundle with the model that it was made from, on real rows of every task."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import sha256
from benchmarks.records import Example
from benchmarks.task import Kind, TaskCard
from exporters.bundle import Parity, TaskParity, open_bundle
from exporters.session import Encoded, Floats, Session
from harness.decode import decode
from harness.features import Feature


class Reference(Protocol):
    """The original model."""

    def __call__(self, card: TaskCard, features: Sequence[Feature], *, language: str) -> list[Floats]:
        """Outputs of the rows of a task in a language, one a row, as `harness.decode.decode` takes them."""


Sample = Mapping[str, Sequence[Example]]
"""Real examples of one task, by language."""


def verify(session: Session, reference: Reference, samples: Mapping[str, Sample], atol: float) -> Parity:
    """Compare all tasks at once, each language with the prompt that it gets, so that the batches mix them.

    Args:
        session: the bundle.
        reference: the original.
        samples: task name -> examples by language.
        atol: largest absolute difference allowed in any output value.

    Returns:
        The report.

    Raises:
        PolypromptError: the outputs of a task differ by more; names the worst task and its difference.
    """
    examples = {(name, code): rows for name, sample in samples.items() for code, rows in sample.items()}
    outputs = session.run(examples)
    tasks = {}
    for name, sample in samples.items():
        card, everything = session.tasks[name], [row for rows in sample.values() for row in rows]
        ours, theirs, before = Encoded([], []), Encoded([], []), 0
        for language, rows in sample.items():
            found = outputs[name, language]
            features = [replace(feature, example=before + feature.example) for feature in found.features]
            for side, values in ((ours, found.outputs), (theirs, reference(card, found.features, language=language))):
                side.features.extend(features)
                side.outputs.extend(values)
            before += len(rows)
        pairs = zip(ours.outputs, theirs.outputs, strict=True)
        worst = np.max([np.abs(mine - other).max(initial=0) for mine, other in pairs])
        tasks[name] = TaskParity(
            examples=len(everything),
            languages=list(sample),
            difference=float(np.nan_to_num(worst, nan=np.inf)),
            agreement=_agreement(card, everything, ours, theirs, atol),
        )
    last = max(tasks, key=lambda name: tasks[name].difference)
    if tasks[last].difference > atol:
        raise PolypromptError(
            f"the exported graph differs from the original by {tasks[last].difference:.2g} on task {last}, more than "
            f"--atol {atol:g} allows; nothing was written"
        )
    engine = f"onnxruntime {onnxruntime.__version__}"
    return Parity(engine=engine, atol=atol, difference=tasks[last].difference, tasks=tasks)


def _agreement(card: TaskCard, examples: Sequence[Example], ours: Encoded, theirs: Encoded, atol: float) -> float:
    """Share of equal predictions, 0..1.

    Numbers are equal within `atol`. In retrieval it is the share of texts that have the same nearest other text.
    """
    if card.kind is Kind.RETRIEVAL:
        return float(np.mean(_nearest_other(ours.outputs) == _nearest_other(theirs.outputs)))
    mine = [row.value for row in decode(card, examples, ours.features, ours.outputs)]
    other = [row.value for row in decode(card, examples, theirs.features, theirs.outputs)]
    if card.kind is Kind.REGRESSION:
        return float(np.mean(np.isclose(np.array(mine, float), np.array(other, float), rtol=0, atol=atol)))
    return float(np.mean([one == two for one, two in zip(mine, other, strict=True)]))


def _nearest_other(vectors: Sequence[Floats]) -> NDArray[np.int64]:
    cosines = np.stack(vectors) @ np.stack(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    nearest: NDArray[np.int64] = cosines.argmax(1)
    return nearest


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m exporters.verify",
        description="See that every file of a bundle is what its card says, and with --run that its tasks answer as "
        "the original does.",
    )
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--run", type=Path, help="run folder: compare the tasks that came from it on real rows")
    parser.add_argument("--atol", type=float, default=1e-3, help="largest difference to PyTorch (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=32, help="examples of each task to compare (default: %(default)s)")
    parser.add_argument(
        "--task-file",
        type=Path,
        action="append",
        metavar="FILE",
        help="the run's task file, where it moved or is code",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object: files, and with --run the report")
    options = parser.parse_args()
    if options.rows < 1:
        raise PolypromptError(f"--rows {options.rows}: at least 1 is needed")
    card = open_bundle(options.bundle, sha256)  # whole, whatever is remembered of it
    parity = None
    if options.run is not None:
        from exporters.add import compare_run  # loads torch

        parity = compare_run(options.bundle, card, options.run, options.atol, options.rows, options.task_file)
    if options.json:
        report = None if parity is None else parity.model_dump(mode="json")
        print(json.dumps({"files": list(card.files), "parity": report}, ensure_ascii=False))
        return 0
    print(f"{options.bundle}: {len(card.files)} files are whole")
    if parity is not None:
        names, worst = ", ".join(parity.tasks), parity.difference
        print(f"largest difference to PyTorch {worst:.1e} (allowed {options.atol:g}) on {names}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
