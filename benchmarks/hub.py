"""Rows of a benchmark from its dataset on the Hugging Face hub, through `datasets`.

The identifiers and schemas are the published ones; the reading was tested against local parquet folders of the same
schema, and was not run against the live hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.errors import DataError, MissingData
from benchmarks.readers.parallel import from_pairs
from benchmarks.readers.rows import Row, RowMapper, to_examples
from benchmarks.records import Split
from benchmarks.task import Kind, TaskCard

_ADVICE = "Give --data-dir the folder with the official files."
_OFFLINE = "HF_HUB_OFFLINE=1 takes what was downloaded before."
_PATIENCE = 30.0
"""Seconds to wait for the hub's answer to a question."""

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


class Unreachable(MissingData):
    """The hub does not answer."""


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
            Unreachable: the hub does not answer.
            MissingData: it has no such dataset, configuration or split.
            DataError: a row is malformed.
        """
        return self.split_of(card, self.records(split, language))

    def records(self, split: str, language: str) -> list[tuple[str, Row]]:
        """All records of a split as the dataset has them, each with its place; see `read`."""
        import datasets  # half a second to import, and needed only here

        config = self.config.replace("{language}", self.languages.get(language, language))
        there = self.split or _SPLITS[split]
        name = f"hub:{self.dataset}{config and '/' + config}:{there}"
        if not Path(self.dataset).is_dir() and (reason := unreachable()):
            raise Unreachable(f"{name}: the hub cannot be reached ({reason})", _ADVICE, _OFFLINE)
        try:
            table = datasets.load_dataset(self.dataset, config or None, split=there, revision=self.revision)
        except Exception as error:  # what it raises without a network differs from release to release
            reason = str(error).partition("\n")[0]
            raise MissingData(f"{name}: not to be had from the hub ({reason})", _ADVICE) from None
        records = list(_rows(table, name))
        if not records:
            raise DataError(f"{name}: no rows. {_ADVICE}")
        return records

    def split_of(self, card: TaskCard, records: Iterable[tuple[str, Row]]) -> Split:
        """The examples of records; see `read`."""
        examples = to_examples(card, records, self.row)
        return from_pairs(examples) if card.kind is Kind.RETRIEVAL else Split(examples)

    def commit(self) -> str | None:
        """The commit at which the dataset is now; None when it is a local folder.

        Raises:
            Unreachable: the hub does not answer.
            MissingData: it has no such dataset, or does not show it to this user.
        """
        if Path(self.dataset).is_dir():
            return None
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            commit: str | None = HfApi().dataset_info(self.dataset, revision=self.revision, timeout=_PATIENCE).sha
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise MissingData(f"hub:{self.dataset}: there is no such dataset, or it is not shown to you") from None
        except Exception as error:  # as above
            reason = str(error).partition("\n")[0]
            raise Unreachable(f"the hub cannot be reached ({reason})") from None
        return commit


@cache
def unreachable() -> str | None:
    """Why the hub does not answer; None: it does, or is not to be asked.

    That is asked once a process, since `datasets` asks many times for each dataset before it gives it up.
    """
    import datasets
    from huggingface_hub import constants, get_session

    if datasets.config.HF_HUB_OFFLINE:
        return None
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # as above
        return str(error).partition("\n")[0] or type(error).__name__
    return None


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
