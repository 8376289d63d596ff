"""What a task and a suite are: short declarations, everything else follows from the kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from benchmarks.records import Split


class Kind(StrEnum):
    """The shape of a task; it decides the head, the loss, the decoding and the admissible metrics."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CHOICE = "multiple-choice"
    TAGGING = "tagging"
    SPAN = "span"
    RETRIEVAL = "retrieval"


class TaskCard(BaseModel):
    """What is needed to encode, decode and score a task without its data. Stored in runs and bundles.

    Attributes:
        name: unique over all suites, e.g. "sst2".
        suite: the suite that it belongs to.
        kind: its shape.
        labels: classification: the labels in the order of the logits. Tagging: the tags likewise. Else empty.
        languages: BCP-47 codes in which it is scored.
        train_language: the language that it is trained in; None when there is nothing to train on.
        metrics: names known to `benchmarks.scoring`; the first one is the main metric.
        max_length: pieces a row, special tokens included.
        stride: pieces shared by neighbouring windows of a long input (span extraction and tagging).
        no_answer: span extraction: some questions have no answer in their context (SQuAD 2.0), so "" may be predicted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    suite: str
    kind: Kind
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    train_language: str | None = "en"
    metrics: tuple[str, ...]
    max_length: int = 128
    stride: int = 32
    no_answer: bool = False


class Source(Protocol):
    """Where the rows of a task come from."""

    def files(self, split: str, language: str) -> tuple[str, ...]:
        """The official files of a split, relative to the data folder; empty when it is generated or does not exist."""

    def read(self, card: TaskCard, split: str, language: str, data_dir: Path | None) -> Split:
        """The rows of a split.

        Args:
            card: the task that is read.
            split: "train", "dev" or "test".
            language: BCP-47 code.
            data_dir: folder with the official files; None reads from the hub (or generates).

        Raises:
            MissingData: a file is not there, or the hub cannot be reached.
            DataError: a file is malformed; names file and line.
        """


@dataclass(frozen=True)
class Task:
    """A benchmark task: its card, where its data comes from, and what a reader of the results should know.

    Attributes:
        card: name, kind, labels, languages, metrics.
        source: reads the rows.
        eval_split: the labelled split that is scored and reported.
        title: as a heading on a page.
        licence: of the data, in words.
        url: where the data or its description is found.
        how_to_get: one sentence: how to obtain the official files.
    """

    card: TaskCard
    source: Source
    title: str
    licence: str
    url: str
    how_to_get: str
    eval_split: str = "dev"

    @property
    def name(self) -> str:
        """The card's name."""
        return self.card.name


@dataclass(frozen=True)
class Suite:
    """A list of tasks with an official way to average.

    Attributes:
        name: as on the command line, e.g. "xtreme".
        title: as a heading.
        tasks: in the order of the official table.
        categories: names the tasks of each category where the official average is one of categories (XTREME); empty:
            the plain mean over tasks.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    categories: Mapping[str, tuple[str, ...]]
