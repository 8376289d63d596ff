"""A task file in TOML: one table a task, whose keys follow from the format of its data files."""

from __future__ import annotations

import re
import tomllib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from benchmarks.errors import PolypromptError, did_you_mean
from benchmarks.own.labels import LABELLED
from benchmarks.own.rows import OwnRow
from benchmarks.readers.conll import Conll
from benchmarks.readers.parallel import Parallel
from benchmarks.readers.rows import Columns, Reader
from benchmarks.readers.squad import SquadJson
from benchmarks.readers.tables import Csv, JsonLines, Tsv
from benchmarks.sources import OfficialSource, SplitFiles
from benchmarks.task import Kind, Task, TaskCard

_METRICS = {
    Kind.CLASSIFICATION: ("accuracy", "f1_macro"),
    Kind.REGRESSION: ("pearson", "spearman"),
    Kind.CHOICE: ("accuracy",),
    Kind.TAGGING: ("f1", "accuracy"),
    Kind.SPAN: ("f1", "em"),
    Kind.RETRIEVAL: ("accuracy",),
}
"""The usual metrics, the main one first."""

_COLUMNS = {
    Kind.CLASSIFICATION: ("text", "label"),
    Kind.REGRESSION: ("text", "target"),
    Kind.CHOICE: ("text", "choices", "label"),
    Kind.TAGGING: ("tokens", "tags"),
}
"""What a row of a table must have."""

_PLACEHOLDER = re.compile(r"\{[^}]*\}")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""One name, or a list of names."""


class _Keys(BaseModel):
    """A table of TOML; for a key that it does not have it says which one may have been meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, raw: Any) -> Any:
        for key in raw if isinstance(raw, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}: {did_you_mean(key, cls.model_fields)}")
        return raw


class Files(_Keys):
    """The data files of each split, relative to the folder of the task file; "{language}" stands for the language."""

    train: Names = ()
    dev: Names = ()
    test: Names = ()


class TableColumns(_Keys):
    """Which column of a table, or field of a JSON object, holds what; what is not named here has its own name."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    target: str = "target"
    tokens: str = "tokens"
    tags: str = "tags"
    choices: Names = ("choices",)
    id: str | None = None


class ConllColumns(_Keys):
    """Numbers of the columns of CoNLL files, from 0; -1 is the last one."""

    token: Annotated[int, Field(ge=-1)] = 0
    tag: Annotated[int, Field(ge=-1)] = -1


class Declaration(_Keys):
    """One task. Each format of data files has a class of its own, with the keys that only it needs.

    Attributes:
        name: as on the command line. title: as a heading; empty: the name.
        kind: its shape, see `Kind`.
        labels: labels or tags; empty: those of the training rows, sorted.
        languages: in which it is scored. train_language: in which it is trained, if nothing else is asked; None: the
            first of them.
        metrics: the first one is the main metric; empty: the usual ones of the kind.
        max_length, stride: see `TaskCard`; None: the usual ones of the kind.
        no_answer: span extraction: some questions have no answer in their context (SQuAD 2.0).
        eval_split: the split that is scored; None: test where there is one, else dev.
        licence, url: of the data.
        files: of each split.
    """

    name: str
    title: str = ""
    kind: Kind
    labels: tuple[str, ...] = ()
    languages: Annotated[Names, Field(min_length=1)] = ("en",)
    train_language: str | None = None
    metrics: Names = ()
    max_length: PositiveInt | None = None
    stride: PositiveInt | None = None
    no_answer: bool = False
    eval_split: Literal["dev", "test"] | None = None
    licence: str = "not stated"
    url: str = ""
    files: Files

    @abstractmethod
    def reader(self) -> Reader:
        """What reads the files of a split."""

    def task(self, place: Path, suite: str) -> Task:
        """The task that is declared.

        Args:
            place: the task file. suite: that the task belongs to.
        """
        span = self.kind is Kind.SPAN
        reader = self.reader()
        return Task(
            card=TaskCard(
                name=self.name,
                suite=suite,
                kind=self.kind,
                labels=self.labels,
                languages=self.languages,
                train_language=self._trained,
                metrics=self.metrics or _METRICS[self.kind],
                max_length=self.max_length or (384 if span else 128),
                stride=self.stride or (128 if span else 32),
                no_answer=self.no_answer,
            ),
            source=OfficialSource(
                {
                    split: SplitFiles(files, reader, languages=self._languages(split, files))
                    for split, files in self.files
                    if files
                },
                folder=place.parent,
            ),
            title=self.title or self.name,
            licence=self.licence,
            url=self.url,
            how_to_get=f"{place} names them in task {self.name!r} under files, relative to its own folder: correct the "
            "names, or put the files there.",
            eval_split=self._scored,
            tuned_on="dev" if self.files.dev and self._scored != "dev" else "train",
        )

    @property
    def _scored(self) -> str:
        return self.eval_split or ("test" if self.files.test else "dev")

    @property
    def _trained(self) -> str | None:
        return None if self.kind is Kind.RETRIEVAL else self.train_language or self.languages[0]

    def _languages(self, split: str, files: Names) -> tuple[str, ...]:
        """The languages that a split has; empty: all of the task."""
        if self._trained and split != self._scored and not _by_language(files):
            return (self._trained,)
        return ()

    @model_validator(mode="after")
    def _whole(self) -> Declaration:
        for split, files in self.files:
            for place in _PLACEHOLDER.findall(" ".join(files)):
                if place != "{language}":
                    raise ValueError(f"files.{split}: {place} stands for nothing; only {{language}} does")
            several = not self._languages(split, files) and len(self.languages) > 1
            if files and several and not _by_language(files):
                raise ValueError(
                    f"files.{split}: one name for {len(self.languages)} languages; write {{language}} where the names "
                    "of their files differ"
                )
            if not files and split == self._scored:
                raise ValueError(f"files.{split}: missing; it is what is scored, if eval_split says nothing else")
        if self.kind is Kind.RETRIEVAL:
            if self.files.train or self.train_language:
                raise ValueError("files.train: retrieval is not trained; remove it, and train_language")
        elif not self.files.train:
            raise ValueError(f"files.train: missing; {self.kind} learns from it")
        if self.labels and self.kind not in LABELLED:
            raise ValueError(f"labels: {self.kind} has none; remove the key")
        if self.no_answer and self.kind is not Kind.SPAN:
            raise ValueError(f"no_answer: of no use to {self.kind}; remove the key")
        return self


def _by_language(files: Sequence[str]) -> bool:
    return any("{language}" in file for file in files)


def _one_of(*kinds: Kind) -> AfterValidator:
    def check(kind: Kind) -> Kind:
        if kind not in kinds:
            raise ValueError(f"{kind} does not come in this format; it is for {', '.join(kinds)}")
        return kind

    return AfterValidator(check)


class Table(Declaration):
    """Rows with named fields.

    Attributes:
        columns: which one holds what.
        names: how the files write labels or tags -> those of the task; multiple choice: -> "0", "1", ...
    """

    kind: Annotated[Kind, _one_of(*_COLUMNS)]
    columns: TableColumns = TableColumns()
    names: dict[str, Annotated[str, Field(min_length=1)]] = {}

    @property
    def row(self) -> OwnRow:
        """What makes an example of a row."""
        needed, columns = _COLUMNS[self.kind], self.columns
        return OwnRow(
            Columns(
                text=columns.text if "text" in needed else None,
                text_pair=columns.text_pair,
                label=columns.label if "label" in needed else None,
                target=columns.target if "target" in needed else None,
                tokens=columns.tokens if "tokens" in needed else None,
                tags=columns.tags if "tags" in needed else None,
                id=columns.id,
                names=self.names,
            ),
            columns.choices if "choices" in needed else (),
        )

    @model_validator(mode="after")
    def _fitting(self) -> Table:
        known = (*_COLUMNS[self.kind], *(("text_pair",) if "text" in _COLUMNS[self.kind] else ()), "id")
        for name in sorted(self.columns.model_fields_set - set(known)):
            raise ValueError(f"columns.{name}: {self.kind} does not read it; it reads {', '.join(known)}")
        for written, label in self.names.items():
            if self.labels and label not in self.labels:
                raise ValueError(f"names.{written}: {label!r} is no label: {did_you_mean(label, self.labels)}")
        return self


class TsvTask(Table):
    """Tab-separated values without quoting.

    Attributes:
        header: names of the columns where the files do not begin with them.
    """

    format: Literal["tsv"]
    header: tuple[str, ...] = ()

    def reader(self) -> Reader:
        """See `Declaration`."""
        return Tsv(self.row, self.header)


class CsvTask(Table):
    """Comma-separated values, quoted as RFC 4180 says.

    Attributes:
        header: names of the columns where the files do not begin with them.
    """

    format: Literal["csv"]
    header: tuple[str, ...] = ()

    def reader(self) -> Reader:
        """See `Declaration`."""
        return Csv(self.row, self.header)


class JsonlTask(Table):
    """One JSON object a line."""

    format: Literal["jsonl"]

    def reader(self) -> Reader:
        """See `Declaration`."""
        return JsonLines(self.row)


class ConllTask(Declaration):
    """A token and its tag a line, a blank line between sentences.

    Attributes:
        columns: which one holds what.
        slips: see `Conll`.
    """

    format: Literal["conll"]
    kind: Annotated[Kind, _one_of(Kind.TAGGING)] = Kind.TAGGING
    columns: ConllColumns = ConllColumns()
    slips: bool = False

    def reader(self) -> Reader:
        """See `Declaration`."""
        return Conll(self.columns.token, self.columns.tag, slips=self.slips)


class SquadTask(Declaration):
    """SQuAD's JSON, version 1.1 or 2.0."""

    format: Literal["squad"]
    kind: Annotated[Kind, _one_of(Kind.SPAN)] = Kind.SPAN

    def reader(self) -> Reader:
        """See `Declaration`."""
        return SquadJson()


class ParallelTask(Declaration):
    """Sentences and their translations; see `Parallel` for its two or three files a split."""

    format: Literal["parallel"]
    kind: Annotated[Kind, _one_of(Kind.RETRIEVAL)] = Kind.RETRIEVAL

    def reader(self) -> Reader:
        """See `Declaration`."""
        return Parallel()

    @model_validator(mode="after")
    def _two_or_three(self) -> ParallelTask:
        for split, files in self.files:
            if len(files) not in (0, 2, 3):
                raise ValueError(
                    f"files.{split}: name the files of the sentences and of their translations, line by line; or those "
                    "of sentences, candidates, and rows of the right candidates"
                )
        return self


FORMATS = ("tsv", "csv", "jsonl", "conll", "squad", "parallel")


class TaskFile(_Keys):
    """A task file.

    Attributes:
        suite: that its tasks belong to.
        task: its tasks.
    """

    suite: str = "own"
    task: Annotated[
        tuple[
            Annotated[
                TsvTask | CsvTask | JsonlTask | ConllTask | SquadTask | ParallelTask, Field(discriminator="format")
            ],
            ...,
        ],
        Field(min_length=1),
    ]


def read_toml(path: Path) -> list[Task]:
    """The tasks of a file.

    Raises:
        PolypromptError: not TOML, or not of the schema; names file, task and key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise PolypromptError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise PolypromptError(f"{path}: not valid TOML: {error}") from None
    try:
        file = TaskFile.model_validate(raw)
    except ValidationError as error:
        raise PolypromptError(f"{path}: {_mistake(raw, error.errors()[0])}") from None
    return [declared.task(path, file.suite) for declared in file.task]


def _mistake(raw: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """One sentence on an error of pydantic, which begins with the task and the key."""
    keys: Sequence[str | int] = error["loc"]
    place = ""
    if len(keys) > 1:  # ("task", its number, its format, keys ...)
        declared = raw["task"][keys[1]]
        name = declared.get("name") if isinstance(declared, dict) else None
        place, keys = f"task {int(keys[1]) + 1 if name is None else repr(name)}: ", keys[3:]
    given, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "value_error":
            what = str(context["error"])
        case "missing":
            what = "missing; add it"
        case "union_tag_not_found":
            what = f"format: missing; it is one of {', '.join(FORMATS)}"
        case "union_tag_invalid":
            what = f"format: {context['tag']!r} is none: {did_you_mean(context['tag'], FORMATS)}"
        case "enum":
            what = f"{given!r} is none: {did_you_mean(str(given), [kind.value for kind in Kind])}"
        case "tuple_type" if not place:
            what = "write [[task]], with two brackets, above each task"
        case _:
            what = f"{given!r}: {error['msg']}"
    return place + "".join(f"{key}: " for key in [".".join(map(str, keys))] if key) + what
