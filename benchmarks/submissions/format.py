"""What a format is: for each task, what makes the files of a submission of its stored predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import PolypromptError
from benchmarks.readers.rows import Reader
from benchmarks.records import Example, Prediction
from benchmarks.task import Kind, TaskCard


class LeftOut(PolypromptError):
    """Why a task or language cannot be part of a submission."""


@dataclass(frozen=True)
class Official:
    """The rows to which predictions belong.

    Attributes:
        examples: in official order. files: where they were read. reader: what read them.
    """

    examples: Sequence[Example]
    files: Sequence[Path]
    reader: Reader


@dataclass(frozen=True)
class Predicted:
    """The stored predictions of one task, language and split.

    Attributes:
        card: the task, as it was when the run was made. language: BCP-47 code. split: "train", "dev" or "test".
        rows: one a row of the official file, in its order.
        official: that file; None where no data folder was given.
    """

    card: TaskCard
    language: str
    split: str
    rows: Sequence[Prediction]
    official: Official | None

    @property
    def name(self) -> str:
        """What the files of a run call it."""
        return f"{self.card.name}.{self.language}.{self.split}"


Writer = Callable[[Predicted], Mapping[str, str]]
"""Makes files: path in the submission -> text. Raises `LeftOut`, or `PolypromptError` for a row of a wrong form."""


@dataclass(frozen=True)
class Format:
    """How a benchmark takes predictions.

    Attributes:
        suite: of the benchmark.
        tasks: name -> writer, where one submission holds all of them.
        kinds: kind -> writer, where every task is scored by itself: those of the run then.
    """

    suite: str
    tasks: Mapping[str, Writer] = field(default_factory=dict)
    kinds: Mapping[Kind, Writer] = field(default_factory=dict)


def index(card: TaskCard, row: Prediction) -> int:
    """The number by which a server knows a row."""
    if not (row.id.isascii() and row.id.isdigit()):
        raise PolypromptError(
            f"{card.name}: prediction {row.id!r} has no number; predict the rows of the official files"
        )
    return int(row.id)


def label(card: TaskCard, row: Prediction) -> str:
    """A predicted label by its name."""
    if not isinstance(row.value, str) or row.value not in card.labels:
        raise PolypromptError(f"{card.name}: prediction {row.id!r}: {row.value!r} is not one of {list(card.labels)}")
    return row.value


def label_number(card: TaskCard, row: Prediction) -> int:
    """A predicted label by its place among the labels, where official files number them so."""
    return card.labels.index(label(card, row))


def text(card: TaskCard, row: Prediction) -> str:
    """A predicted choice, answer or candidate."""
    if not isinstance(row.value, str):
        raise PolypromptError(f"{card.name}: prediction {row.id!r}: {row.value!r} is not text")
    return row.value


def tags(card: TaskCard, row: Prediction) -> tuple[str, ...]:
    """The predicted tags of a sentence."""
    if not isinstance(row.value, tuple):
        raise PolypromptError(f"{card.name}: prediction {row.id!r}: {row.value!r} is not one tag a word")
    return row.value


def lines(parts: Iterable[object]) -> str:
    """One a line."""
    return "".join(f"{part}\n" for part in parts)
