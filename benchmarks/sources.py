"""Where the rows of a published task come from: its official files in a folder, or its dataset on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import MissingData, PolypromptError
from benchmarks.hub import Hub
from benchmarks.readers.rows import Reader
from benchmarks.records import Split
from benchmarks.task import TaskCard


@dataclass(frozen=True)
class SplitFiles:
    """One split of a task.

    Attributes:
        files: its official files relative to the data folder, in the order that the reader wants. "{language}" stands
            for the language; alternatives of one file are divided by "|". With "*" it is all files of such names, and
            "**" is any depth of folders.
        reader: reads them.
        hub: the same rows on the hub; None where no dataset has them.
        languages: the languages in which the split was published; empty: all of the task.
    """

    files: tuple[str, ...]
    reader: Reader
    hub: Hub | None = None
    languages: tuple[str, ...] = ()

    def has(self, language: str) -> bool:
        """Whether the split was published in a language."""
        return not self.languages or language in self.languages


@dataclass(frozen=True)
class OfficialSource:
    """A `Source` that reads official files, or the hub when there is no data folder.

    Attributes:
        splits: "train", "dev", "test" -> where the rows of that split are; a split that was not published is absent.
        folder: where the files are, whatever the data folder is (a user's own); None: in the data folder.
    """

    splits: Mapping[str, SplitFiles]
    folder: Path | None = None

    def has(self, split: str, language: str) -> bool:
        """Whether a split was published in a language."""
        return split in self.splits and self.splits[split].has(language)

    def files(self, split: str, language: str) -> tuple[str, ...]:
        """The official files of a split; see `Source` and `SplitFiles.files`."""
        part = self.splits.get(split)
        if part is None or not part.has(language):
            return ()
        return tuple(file.replace("{language}", language) for file in part.files)

    def read(self, card: TaskCard, split: str, language: str, data_dir: Path | None) -> Split:
        """The rows of a split; see `Source`."""
        part = self.splits.get(split)
        if part is None or not part.has(language):
            raise PolypromptError(
                f"{card.name}: there is no {split} split in {language!r}; ask --list for what there is"
            )
        folder = self.folder or data_dir
        if folder is not None:
            return part.reader(card, locate_all(folder, self.files(split, language)))
        if part.hub is None:
            raise MissingData(f"{card.name}: not on the hub; give --data-dir the folder with the official files")
        return part.hub.read(card, split, language)


def in_all_splits(file: str, reader: Reader, hub: Hub | None = None, dev: str = "dev") -> OfficialSource:
    """A source whose train, dev and test files differ in one word alone.

    Args:
        file: the path of its one file a split, with "{split}" for that word.
        reader: reads each of them.
        hub: the dataset on the hub.
        dev: the word for the dev split.
    """
    words = {"train": "train", "dev": dev, "test": "test"}
    return OfficialSource(
        {split: SplitFiles((file.replace("{split}", word),), reader, hub) for split, word in words.items()}
    )


def locate(data_dir: Path, file: str) -> Path | None:
    """The first that exists of a file's alternatives, each as it is or with `.gz` behind it; of a pattern, one file."""
    return next(iter(_found(data_dir, file)), None)


def locate_all(data_dir: Path, files: Iterable[str]) -> tuple[Path, ...]:
    """Where the files are; many files of one pattern are sorted by their paths.

    Raises:
        MissingData: names every path looked at for each file that is not there.
    """
    found = {file: _found(data_dir, file) for file in files}
    missing = [" or ".join(map(str, _candidates(data_dir, file))) for file, paths in found.items() if not paths]
    if missing:
        raise MissingData(f"no such file: {'; '.join(missing)}")
    return tuple(path for paths in found.values() for path in paths)


def _candidates(data_dir: Path, file: str) -> list[Path]:
    return [data_dir / f"{name}{end}" for name in file.split("|") for end in ("", ".gz")]


def _found(data_dir: Path, file: str) -> Sequence[Path]:
    """The files of the first alternative that has any."""
    return next((paths for name in file.split("|") if (paths := _matching(data_dir, name))), ())


def _matching(data_dir: Path, name: str) -> Sequence[Path]:
    """The file of a name, or all files of a pattern; each once, although its `.gz` may be there too."""
    parts = Path(name).parts
    fixed = next((number for number, part in enumerate(parts) if "*" in part), None)
    if fixed is None:
        return [path for path in _candidates(data_dir, name) if path.is_file()][:1]
    folder, pattern = data_dir.joinpath(*parts[:fixed]), "/".join(parts[fixed:])
    there = [path for end in (".gz", "") for path in folder.glob(pattern + end) if path.is_file()]
    known = {path.as_posix().removesuffix(".gz"): path for path in there}
    return [known[plain] for plain in sorted(known)]
