"""What a task and a suite are: short declarations, everything else follows from the kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.records import Split


class Kind(StrEnum):
    """The shape of a task; it decides the head, the loss, the decoding and the admissible metrics."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CHOICE = "multiple-choice"
    TAGGING = "tagging"
    SPAN = "span"
    RETRIEVAL = "retrieval"


Decoding = Literal["greedy", "viterbi"]
"""How the tags of a sentence are chosen."""


class TaskCard(BaseModel):
    """What is needed to encode, decode and score a task without its data. Stored in runs and bundles.

    Attributes:
        name: unique over all suites, e.g. "sst2".
        suite: the suite that it belongs to.
        kind: its shape.
        labels: classification: the labels in the order of the logits. Tagging: the tags likewise. Else empty.
        languages: BCP-47 codes in which it is scored.
        train_language: the language that it is trained in, if a run asks for no others (then the first of these; the
            manifest names all); None when there is nothing to train on.
        metrics: names known to `benchmarks.scoring`; the first one is the main metric.
        max_length: pieces a row, special tokens included.
        stride: pieces shared by neighbouring windows of a long input (span extraction and tagging).
        no_answer: span extraction, retrieval: some rows have no answer (SQuAD 2.0, BUCC), so "" may be predicted.
        head: name of the task whose head, and so whose training, answers this one too (MNLI for GLUE's diagnostic set);
            empty: its own. Labels are then the same.
        decoding: tagging: how tags are chosen. "greedy": the best of each word, as the reference code has it;
            "viterbi": the best sequence of BIO or IOBES tags that can be, see `harness.viterbi`.
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
    head: str = ""
    decoding: Decoding = Field(default="greedy", exclude_if=lambda decoding: decoding == "greedy")

    @property
    def answered_by(self) -> str:
        """Name of the task whose head answers."""
        return self.head or self.name


@dataclass(frozen=True)
class Published:
    """A number that somebody else published.

    Attributes:
        system: method, e.g. "P-Tuning v2". backbone: its encoder, as the source names it.
        metric: as in the card. value: in points. split: the split that was scored.
        source: where it was read.
    """

    system: str
    backbone: str
    metric: str
    value: float
    split: str
    source: str


class Source(Protocol):
    """Where the rows of a task come from."""

    def has(self, split: str, language: str) -> bool:
        """Whether a split was published in a language."""

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
        tuned_on: with `no_answer`: the split on which the threshold of "no answer" is chosen, never the reported one;
            "train" holds a part of it out.
        averaged: metrics whose mean is the task's value in the official average of its suite; empty: all.
        published: numbers of others.
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
    tuned_on: str = "train"
    averaged: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()

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
        categories: name -> tasks of each category that has an average of its own (XTREME).
        averaged: the tasks over which the official average is taken; tasks in one group count as one (MNLI matched and
            mismatched), diagnostic sets are in none. Empty: every task counts.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    averaged: tuple[tuple[str, ...], ...] = ()
