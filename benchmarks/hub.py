"""Rows of a benchmark from its dataset on the Hugging Face hub, through `datasets`.

The identifiers and schemas are the published ones; the reading was tested against local parquet folders of the same
schema, and was not run against the live hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.errors import DataError, MissingData
from benchmarks.readers.parallel import from_pairs
from benchmarks.readers.rows import Row, RowMapper, to_examples
from benchmarks.records import Split
from benchmarks.task import Kind, TaskCard

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Hub:
    """One dataset on the hub.

    Attributes:
        dataset: its id, "owner/name" (or a local folder that is laid out like one).
        row: makes an example of a row; labels that the dataset numbers arrive by their names, -1 as None.
            For retrieval `text` is the sentence and `text_pair` its translation.
        config: the configuration; "{language}" stands for the language.
        split: name of the split there; empty: "train", "validation" or "test".
        languages: BCP-47 code -> what the configuration writes for it, where that differs.
        revision: branch, tag or commit; None is the newest.
    """

    dataset: str
    row: RowMapper
    config: str = ""
    split: str = ""
    languages: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None

    def read(self, card: TaskCard, split: str, language: str) -> Split:
        """All rows of a split.

        Args:
            card: the task.
            split: "train", "dev" or "test".
            language: BCP-47 code.

        Raises:
            MissingData: the hub cannot be reached, or has no such dataset, configuration or split.
            DataError: a row is malformed.
        """
        import datasets  # half a second to import, and needed only here

        config = self.config.replace("{language}", self.languages.get(language, language))
        there = self.split or _SPLITS[split]
        name = f"hub:{self.dataset}{config and '/' + config}:{there}"
        try:
            table = datasets.load_dataset(self.dataset, config or None, split=there, revision=self.revision)
        except Exception as error:  # what it raises without a network differs from release to release
            reason = str(error).partition("\n")[0]
            raise MissingData(
                f"{name}: not to be had from the hub ({reason}); give --data-dir the folder with the official files"
            ) from None
        examples = to_examples(card, _rows(table, name), self.row)
        if not examples:
            raise DataError(f"{name}: no rows; give --data-dir the folder with the official files")
        return from_pairs(examples) if card.kind is Kind.RETRIEVAL else Split(examples)


def _rows(table: Any, name: str) -> Iterator[tuple[str, Row]]:
    names = {column: _names(feature) for column, feature in table.features.items()}
    number = 0
    for batch in table.iter(batch_size=1000):
        columns = [list(map(names[column], values)) for column, values in batch.items()]
        for values in zip(*columns, strict=True):
            number += 1
            yield f"{name}:{number}", dict(zip(batch, values, strict=True))


def _names(feature: Any) -> Callable[[Any], Any]:
    """What turns the numbers of a `ClassLabel`, or lists of them, into names; anything else stays as it is."""
    inner = getattr(feature, "feature", None)
    if inner is not None and not isinstance(inner, dict):
        name = _names(inner)
        return lambda values: list(map(name, values))
    if hasattr(feature, "int2str"):
        return lambda value: None if value is None or value < 0 else feature.int2str(value)
    return lambda value: value
