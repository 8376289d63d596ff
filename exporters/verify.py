"""Agreement of an exported bundle with the model that it was made from, on real rows of every task."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import sha256
from benchmarks.records import Example
from benchmarks.results import write_model
from benchmarks.scoring import score
from benchmarks.task import Kind, TaskCard
from exporters.bundle import CARD, Parity, TaskParity, changing, open_bundle, read_card
from exporters.comparison import add_options
from exporters.engines import ENGINES, EngineCard, installed
from exporters.pace import Graphs, paced
from exporters.session import Encoded, Floats, Place, Session
from harness.decode import decode
from harness.features import Feature


class Reference(Protocol):
    """The original model."""

    def __call__(self, card: TaskCard, features: Sequence[Feature], *, language: str) -> list[Floats]:
        """Outputs of the rows of a task in a language, one a row, as `harness.decode.decode` takes them."""


Sample = Mapping[str, Sequence[Example]]
"""Real examples of one task, by language."""


class Compared(Protocol):
    """What is compared: a session, or what runs examples as one does."""

    tasks: dict[str, TaskCard]
    engine: EngineCard

    def run(self, examples: Mapping[Place, Sequence[Example]]) -> dict[Place, Encoded]:
        """See `exporters.session.Session.run`."""


class Originals:
    """Outputs of the original for the rows of a sample, computed once for all engines that are compared with them."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._known: dict[tuple[str, str], list[Floats]] = {}

    def __call__(self, card: TaskCard, features: Sequence[Feature], *, language: str) -> list[Floats]:
        """See `Reference`; the rows of a task in a language are the same in each call."""
        if (card.name, language) not in self._known:
            self._known[card.name, language] = self._reference(card, features, language=language)
        return self._known[card.name, language]


def verify(
    session: Compared,
    reference: Reference,
    samples: Mapping[str, Sample],
    atol: float | None = None,
    max_drop: float | None = None,
) -> Parity:
    """Compare all tasks at once, each language with the prompt that it gets, so that the batches mix them.

    Args:
        session: the bundle.
        reference: the original.
        samples: task name -> examples by language.
        atol: largest absolute difference allowed in any output value; None: any.
        max_drop: most points that the score of a task may lose on these rows; None: any.

    Returns:
        The report.

    Raises:
        PolypromptError: the outputs of a task differ by more, or its score loses more; names the worst task.
    """
    examples = {(name, code): rows for name, sample in samples.items() for code, rows in sample.items()}
    session.run(examples)  # an engine may compile and choose its kernels when it sees the first rows
    began = time.perf_counter()
    outputs = session.run(examples)
    seconds = time.perf_counter() - began
    tasks = {}
    for name, sample in samples.items():
        card, everything = session.tasks[name], [row for rows in sample.values() for row in rows]
        ours, theirs, before = Encoded([], []), Encoded([], []), 0
        scores: list[tuple[float | None, ...]] = []
        for language, rows in sample.items():
            found = outputs[name, language]
            original = reference(card, found.features, language=language)
            features = [replace(feature, example=before + feature.example) for feature in found.features]
            for side, values in ((ours, found.outputs), (theirs, original)):
                side.features.extend(features)
                side.outputs.extend(values)
            before += len(rows)
            both = (Encoded(found.features, original), found)
            scores.append(tuple(points(card, language, rows, side) for side in both))
        pairs = zip(ours.outputs, theirs.outputs, strict=True)
        worst = np.max([np.abs(mine - other).max(initial=0) for mine, other in pairs])
        means = (None, None) if any(None in pair for pair in scores) else np.mean(scores, axis=0).tolist()
        tasks[name] = TaskParity(
            examples=len(everything),
            languages=list(sample),
            difference=float(np.nan_to_num(worst, nan=np.inf)),
            agreement=_agreement(card, everything, ours, theirs, atol),
            original=means[0],
            score=means[1],
        )
    last = max(tasks, key=lambda name: tasks[name].difference)
    lost = max(tasks, key=lambda name: tasks[name].drop)
    if atol is not None and tasks[last].difference > atol:
        raise PolypromptError(
            f"the exported graph differs from the original by {tasks[last].difference:.2g} on task {last}, more than "
            f"--atol {atol:g} allows; nothing was written"
        )
    if not np.isfinite(tasks[last].difference):
        raise PolypromptError(
            f"the exported graph gives values that are not numbers on task {last}; nothing was written"
        )
    if max_drop is not None and tasks[lost].drop > max_drop:
        raise PolypromptError(
            f"the exported graph loses {tasks[lost].drop:.2f} points on task {lost}, more than --max-drop {max_drop:g} "
            f"allows on {tasks[lost].examples} rows; nothing was written"
        )
    return Parity(
        engine=session.engine,
        atol=atol,
        max_drop=max_drop,
        difference=tasks[last].difference,
        drop=tasks[lost].drop,
        milliseconds=1000 * seconds / sum(len(found.features) for found in outputs.values()),
        tasks=tasks,
    )


def verify_engines(
    folder: Path,
    reference: Reference,
    samples: Mapping[str, Sample],
    atol: float | None,
    max_drop: float,
    timed: bool = True,
) -> tuple[dict[str, Parity], list[str]]:
    """Compare every engine that is installed with the original, in each form that the bundle has a graph for.

    In int8 OpenVINO computes other graphs. The native form is compared where the operator is there for the engine.

    Args:
        folder: the bundle. reference, samples: as for `verify`.
        atol: largest difference of engines that compute in fp32; None: of all.
        max_drop: most points that others, or all, may lose.
        timed: measure the pace of each form too, see `exporters.pace`.

    Returns:
        Engine -> report of those that agree; and a sentence for each other one.

    Raises:
        PolypromptError: the first engine, which is there on every machine, does not agree.
    """
    originals, reports, left_out = Originals(reference), {}, []
    card = read_card(folder)
    for name in installed():
        exact = atol is not None and name != "openvino-bf16"
        limits = (atol, None) if exact else (None, max_drop)
        graphs = Graphs(folder, card, name)
        for form in graphs.forms:
            try:
                found = verify(Session(folder, engine=graphs.open(form)), originals, samples, *limits)
            except PolypromptError as error:
                if name == ENGINES[0] and form == "padded":
                    raise
                why = str(error).removesuffix("; nothing was written")
                if form == "padded":  # the first form of an engine: what others have is reported with it
                    left_out.append(f"without --engine {name}: {why}")
                    break
                left_out.append(f"no {form} form in {name}: {why}")
            else:
                reports[name] = found if form == "padded" else reports[name].model_copy(update={form: found})
        if timed and name in reports:
            reports[name] = paced(reports[name], graphs)
    return reports, left_out


def points(card: TaskCard, language: str, examples: Sequence[Example], answered: Encoded) -> float | None:
    """The task's main metric on some rows, in points; None where it is not to be had of some rows alone."""
    if card.kind is Kind.RETRIEVAL:
        return None
    rows = decode(card, examples, answered.features, answered.outputs)
    return None if any(row.gold is None for row in rows) else score(card, rows, language).get(card.metrics[0])


def _agreement(
    card: TaskCard, examples: Sequence[Example], ours: Encoded, theirs: Encoded, atol: float | None
) -> float:
    """Share of equal predictions, 0..1.

    Numbers are equal within `atol`, or within 1 % of their range where any difference is allowed. In retrieval it is
    the share of texts that have the same nearest other text.
    """
    if card.kind is Kind.RETRIEVAL:
        return float(np.mean(_nearest_other(ours.outputs) == _nearest_other(theirs.outputs)))
    mine = [row.value for row in decode(card, examples, ours.features, ours.outputs)]
    other = [row.value for row in decode(card, examples, theirs.features, theirs.outputs)]
    if card.kind is Kind.REGRESSION:
        within = 0.01 * np.ptp(np.array(other, float)) if atol is None else atol
        return float(np.mean(np.isclose(np.array(mine, float), np.array(other, float), rtol=0, atol=within)))
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
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object: files, and with --run the report")
    options = parser.parse_args()
    card = open_bundle(options.bundle, sha256)  # whole, whatever is remembered of it
    parity: dict[str, Parity] = {}
    if options.run is not None:
        from exporters.add import compare_run  # loads torch

        how = (options.atol, options.rows, options.task_file, options.max_drop)
        parity = compare_run(options.bundle, card, options.run, *how)
        if all(task.card.name in found.tasks for task in card.tasks for found in parity.values()):
            with changing(options.bundle):  # from now on Session takes engines that were installed since the export
                write_model(options.bundle / CARD, card.model_copy(update={"parity": parity}))
    if options.json:
        report = {name: found.model_dump(mode="json") for name, found in parity.items()} or None
        print(json.dumps({"files": list(card.files), "parity": report}, ensure_ascii=False))
        return 0
    print(f"{options.bundle}: {len(card.files)} files are whole")
    for name, found in parity.items():
        print(
            f"{name}: differs from PyTorch by {found.difference:.1e} at most, {found.drop:.2f} points lost, "
            f"{found.milliseconds:.2f} ms a row, on {', '.join(found.tasks)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
