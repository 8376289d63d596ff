"""Reading the splits of a task, and saying which of their files are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import cache
from benchmarks.errors import DataError, MissingData, PolypromptError
from benchmarks.files import sha256
from benchmarks.readers.rows import Reader, RepeatedId
from benchmarks.records import Split
from benchmarks.sources import OfficialSource, locate, locate_all
from benchmarks.task import Source, Task, TaskCard

Files = Mapping[str, Sequence[str]]
"""Files that replace official ones: "task.split", e.g. "xquad.train" -> paths, relative to the data folder or absolute;
"{language}" in a path stands for the language."""

SKIP = "--skip-missing goes on without it."
"""Advice where the data of a task is missing."""

_SPLITS = ("train", "dev", "test")
_CODE = [Path(__file__).with_name(part) for part in ("own", "readers", "records.py", "suites", "task.py")]  # of readers
_NO_FILES: Files = {}


@dataclass(frozen=True)
class FileStatus:
    """Whether an official file of a task is there.

    Attributes:
        split: "train", "dev" or "test".
        language: BCP-47 code.
        file: relative to the data folder; alternatives are divided by "|".
        found: whether it is there, plain or as `.gz`.
    """

    split: str
    language: str
    file: str
    found: bool


@dataclass(frozen=True)
class Loaded:
    """A split and what it was read from.

    Attributes:
        rows: the split.
        hashes: each file that it was read from -> SHA-256 of its bytes; empty when the rows are generated or come from
            the hub.
    """

    rows: Split
    hashes: Mapping[Path, str]


def load(task: Task, split: str, language: str, data_dir: Path | None, files: Files = _NO_FILES) -> Split:
    """The rows of a split; see `load_hashed`."""
    return load_hashed(task, split, language, data_dir, files).rows


def load_hashed(task: Task, split: str, language: str, data_dir: Path | None, files: Files = _NO_FILES) -> Loaded:
    """The rows of a split and the hashes of its files.

    Rows that a reader of this package made of files are kept in `benchmarks.cache`.

    Args:
        task: what to read.
        split: "train", "dev" or "test".
        language: BCP-47 code.
        data_dir: folder with the official files; None reads from the hub (or generates).
        files: files that replace official ones. They are read by the task's own reader; without a data folder their
            relative paths begin at the current one.

    Raises:
        MissingData: a file is not there; says what was looked for and how to get it.
        Unreachable: so it is, for want of the hub.
        DataError: a file is malformed, or rows to train on are not labelled.
        PolypromptError: there is no such split or language, or `files` does not fit the task.
    """
    source, data_dir = _source(task, split, data_dir, files)
    if source is task.source and language not in _languages(task):
        raise PolypromptError(
            f"{task.name}: not a task in {language!r}; its languages are {', '.join(_languages(task))}"
        )
    try:
        paths = () if data_dir is None else locate_all(data_dir, source.files(split, language))
        hashes = {path: sha256(path) for path in paths}
        # A source of another type may do anything; without files there is nothing to read or to know the rows by.
        if paths and type(source) is OfficialSource:
            rows = _read(source.splits[split].reader, task.card, paths, hashes, split == "train")
        else:
            rows = source.read(task.card, split, language, data_dir)
    except MissingData as error:
        raise type(error)(
            f"{task.name}, {split}, {language}: {error.what}",
            *(*error.advice, task.how_to_get, SKIP),
        ) from None
    if split == "train":
        for example in rows.examples:
            if example.gold is None:
                where = ", ".join(map(str, paths)) or task.name
                raise DataError(f"{where}: row {example.id!r} has no label; training needs one in every row")
    return Loaded(rows, hashes)


def used_files(
    task: Task, split: str, language: str, data_dir: Path | None, files: Files = _NO_FILES
) -> tuple[Path, ...]:
    """The files that `load` reads with the same arguments; empty when the rows are generated or come from the hub.

    Raises:
        MissingData: a file is not there.
        PolypromptError: `files` does not fit the task.
    """
    source, data_dir = _source(task, split, data_dir, files)
    return () if data_dir is None else locate_all(data_dir, source.files(split, language))


def status(task: Task, data_dir: Path | None) -> list[FileStatus]:
    """Which official files of a task are there; empty when it has none (generated) or there is no data folder."""
    folder = folder_of(task, data_dir)
    if folder is None:
        return []
    return [
        FileStatus(split, language, file, locate(folder, file) is not None)
        for split in _SPLITS
        for language in _languages(task)
        for file in task.source.files(split, language)
    ]


def languages(task: Task, split: str, data_dir: Path | None, files: Files = _NO_FILES) -> tuple[str, ...]:
    """The task's languages whose files are there for a split; all of the split when generated or read from the hub.

    A replacing file without "{language}" in its path counts for the language that the task is trained in.

    Raises:
        PolypromptError: `files` does not fit the task.
    """
    source, data_dir = _source(task, split, data_dir, files)
    if not isinstance(source, OfficialSource):
        return task.card.languages
    if split not in source.splits:
        return ()
    given = files.get(f"{task.name}.{split}", ())
    if given and not any("{language}" in file for file in given):
        return (task.card.train_language or task.card.languages[0],)
    part = source.splits[split]
    if data_dir is None:
        return tuple(language for language in _languages(task) if part.has(language))
    return tuple(
        language
        for language in _languages(task)
        if part.has(language) and all(locate(data_dir, file) for file in source.files(split, language))
    )


def trainable(task: Task, files: Files = _NO_FILES) -> tuple[str, ...]:
    """The languages in which a task has a training split, whether its files are there or not, its usual one first.

    Raises:
        PolypromptError: `files` does not fit the task.
    """
    usual = task.card.train_language
    if usual is None or task.card.head:
        return ()
    source, _ = _source(task, "train", None, files)
    given = files.get(f"{task.name}.train", ())
    if given and not any("{language}" in file for file in given):
        return (usual,)
    others = (language for language in task.card.languages if language != usual)
    return (usual, *(language for language in others if source.has("train", language)))


def folder_of(task: Task, data_dir: Path | None) -> Path | None:
    """The folder in which the files of a task are: its own, else the data folder."""
    own = task.source.folder if isinstance(task.source, OfficialSource) else None
    return own or data_dir


def _read(reader: Reader, card: TaskCard, paths: Sequence[Path], hashes: Mapping[Path, str], training: bool) -> Split:
    """The rows of some files, from the cache if they are there.

    Args:
        training: nothing is scored on them, so ids that repeat do no harm: people carve files out of several ones.
    """

    def make() -> Split:
        try:
            return reader(card, paths)
        except RepeatedId as error:
            if not training:
                raise
            return Split(error.examples)

    try:
        declared = cache.identity(reader)
    except cache.Unknown:
        return make()
    read = [f"{path.name} {hashes[path]}" for path in paths]  # readers look at names: `.gz`, what goes with what
    name = cache.key(
        "split", cache.source_hash(*_CODE), declared, card.model_dump_json(), "train" if training else "", *read
    )
    return cache.through(name, Split, make)


def _languages(task: Task) -> tuple[str, ...]:
    """The languages in which a task is scored, and before them the one that it is trained in if it is another."""
    trained = task.card.train_language
    return (trained, *task.card.languages) if trained and trained not in task.card.languages else task.card.languages


def _source(task: Task, split: str, data_dir: Path | None, files: Files) -> tuple[Source, Path | None]:
    """The source and folder to read from when `files` may replace the official ones."""
    given = files.get(f"{task.name}.{split}", ())
    if not given:
        return task.source, folder_of(task, data_dir)
    option = f"files of {task.name}.{split}"
    if not isinstance(task.source, OfficialSource):
        raise PolypromptError(f"{option}: the rows of {task.name} are generated, no file can replace them")
    if split not in task.source.splits:
        raise PolypromptError(f"{option}: {task.name} has no such split; it has {', '.join(task.source.splits)}")
    part = replace(task.source.splits[split], files=tuple(given), languages=())
    return replace(task.source, splits={**task.source.splits, split: part}, folder=None), data_dir or Path()
