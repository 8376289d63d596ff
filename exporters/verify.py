"""Agreement of an exported bundle with the model that it was made from, on real rows of every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.task import Kind, TaskCard
from exporters.bundle import Parity, TaskParity
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
