"""data.lock: what the official files of every task are, so that a changed byte is found without keeping the data.

`python -m benchmarks.lock --data-dir DIR` measures the files of a folder and writes them into the lock; what the lock
knows of files that are not there stays. Titles, addresses and licences come from the tasks. What a person wrote into
the lock stays too: whether a data set may be passed on, where the measured files came from, which are no official ones.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import struct
import sys
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from benchmarks.choice import chosen_tasks, comma_list, split_places
from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import write_atomic
from benchmarks.fingerprint import Fingerprint, fingerprint
from benchmarks.progress import bar
from benchmarks.sources import OfficialSource, locate, locate_all
from benchmarks.task import Task

LOCK = Path(__file__).with_name("data.lock")
"""The lock that is part of the package."""

_HEADER = """\
# The official files that the tasks read, see benchmarks/lock.py. `python -m benchmarks.lock --data-dir DIR` writes it;
# `redistribution`, `origins` and `left_out` are written by hand and kept.

"""


def _packed(numbers: tuple[int, ...]) -> str:
    return base64.b64encode(struct.pack(f">{len(numbers)}Q", *numbers)).decode("ascii")


def _unpacked(value: object) -> object:
    if not isinstance(value, str):
        return value
    raw = base64.b64decode(value, validate=True)
    if len(raw) % 8:
        raise ValueError("not a whole number of numbers of eight bytes")
    return struct.unpack(f">{len(raw) // 8}Q", raw)


Numbers = Annotated[tuple[int, ...], BeforeValidator(_unpacked), PlainSerializer(_packed)]
"""Numbers below 2^64, written as base64 of eight bytes each."""


class LockedFile(BaseModel):
    """What is known of an official file; all of it about its decompressed bytes, so that plain and .gz agree.

    Attributes:
        sha256: in hexadecimal.
        rows: examples that the task's reader makes of it; None for a file that only goes with another (gold labels).
        lines, pieces, moments, blocks: see `benchmarks.fingerprint`.
    """

    model_config = ConfigDict(extra="forbid")

    sha256: str
    rows: int | None = None
    lines: int
    pieces: int
    moments: Numbers
    blocks: Numbers

    @property
    def fingerprint(self) -> Fingerprint:
        """What tells where a copy differs."""
        return Fingerprint(self.lines, self.pieces, self.moments, self.blocks)


class Origin(BaseModel):
    """Where the files that were measured came from.

    Attributes:
        files: a pattern of their paths, as in the shell.
        source: repository or address.
        revision: commit, where it is known.
        rebuilt: how their bytes were put together where they were not taken as they are: the rows are the official
            ones, but an official file may differ in bytes; empty: taken as they are.
    """

    model_config = ConfigDict(extra="forbid")

    files: str = "*"
    source: str
    revision: str = ""
    rebuilt: str = ""


class Dataset(BaseModel):
    """The official files of a task.

    Attributes:
        title, url, licence: as in the task.
        hub: its datasets on the Hugging Face hub.
        redistribution: whether the licence lets the files be passed on; "unclear" where none is stated, or it differs.
        origins: where the measured files came from.
        left_out: pattern of paths -> why what lies there is not the official file.
        files: path in the official layout, without .gz -> what is known of it.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    url: str
    licence: str
    hub: list[str] = []
    redistribution: Literal["yes", "non-commercial", "no", "unclear"] = "unclear"
    origins: list[Origin] = []
    left_out: dict[str, str] = {}
    files: dict[str, LockedFile] = {}

    def rebuilt(self, file: str) -> str:
        """How the measured bytes of a file were put together; empty when they were taken as they are."""
        return next((origin.rebuilt for origin in self.origins if fnmatchcase(file, origin.files)), "")

    def why_left_out(self, file: str) -> str:
        """Why what was found as a file is not the official one; empty when it is."""
        return next((why for pattern, why in self.left_out.items() if fnmatchcase(file, pattern)), "")


class Lock(BaseModel):
    """The whole file; `datasets` goes by the name of the task."""

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-data-lock"] = "polyprompt-data-lock"
    version: Literal[1] = 1
    datasets: dict[str, Dataset] = Field(default_factory=dict)

    def find(self, files: Sequence[str]) -> tuple[Dataset, str] | None:
        """The first of some paths that is in the lock, and the data set there, whichever task it was measured for."""
        for file in files:
            for dataset in self.datasets.values():
                if file in dataset.files:
                    return dataset, file
        return None


def read_lock(path: Path = LOCK) -> Lock:
    """Read a lock.

    Raises:
        PolypromptError: absent or malformed; names the field.
    """
    try:
        return Lock.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise PolypromptError(f"{path}: no such lock; `python -m benchmarks.lock` writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolypromptError(f"{path}: not TOML ({error}); fetch it again") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PolypromptError(f"{path}: {field}: {first['msg']}") from None


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock, atomically; equal locks give equal bytes."""
    head = {"schema_name": lock.schema_name, "version": lock.version}
    write_atomic(path, _HEADER + tomli_w.dumps(head | lock.model_dump(exclude_defaults=True)))


def content(path: Path) -> bytes:
    """The decompressed bytes of a file.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read, or its gzip is damaged.
    """
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def found(data_dir: Path, file: str) -> tuple[Path, ...]:
    """Where an official file, or each of those that a pattern stands for, is; empty when it is not there."""
    return () if locate(data_dir, file) is None else locate_all(data_dir, [file])


def official_name(data_dir: Path, path: Path) -> str:
    """The path of a file relative to the data folder and without .gz; the lock knows it by that."""
    return path.relative_to(data_dir).as_posix().removesuffix(".gz")


def stands_for(file: str, name: str) -> bool:
    """Whether a file that a task names, with alternatives and "*", may be the one of a path in the lock."""
    return any(name == one or ("*" in one and fnmatchcase(name, one.replace("**/", "*"))) for one in file.split("|"))


def measured(lock: Lock, tasks: Sequence[Task], data_dir: Path) -> Lock:
    """A lock with the files of a folder measured anew.

    Args:
        lock: what is known so far. What it says of files that are not in the folder, and of other tasks, is kept.
        tasks: what to measure.
        data_dir: folder with the official files.

    Raises:
        DataError: a task cannot read its file.
    """
    published = {task.name: task for task in chosen_tasks([], []) if isinstance(task.source, OfficialSource)}
    datasets = dict(lock.datasets)
    chosen = [task for task in tasks if task.name in published]
    with bar("measuring", len(chosen)) as step:
        for task in chosen:
            step(task.name)
            known = datasets.get(task.name, Dataset(title="", url="", licence=""))
            files = known.files | _measured(task, data_dir)
            datasets[task.name] = known.model_copy(
                update={
                    "title": task.title,
                    "url": task.url,
                    "licence": task.licence,
                    "hub": _hub(task),
                    "files": {file: entry for file, entry in files.items() if not known.why_left_out(file)},
                }
            )
    taken: set[str] = set()  # a file that several tasks read belongs to the first of them
    for name in [name for name in published if name in datasets]:
        reads = _named(published[name])
        files = datasets[name].files
        own = {file: files[file] for file in files.keys() - taken if any(stands_for(named, file) for named in reads)}
        datasets[name] = datasets[name].model_copy(update={"files": dict(sorted(own.items()))})
        taken.update(own)
    return Lock(datasets={name: datasets[name] for name in published if name in datasets})


def _named(task: Task) -> set[str]:
    return {file for place in split_places(task) for file in place.files}


def _hub(task: Task) -> list[str]:
    """The datasets on the hub that have a task's rows."""
    assert isinstance(task.source, OfficialSource)
    return list(dict.fromkeys(part.hub.dataset for part in task.source.splits.values() if part.hub))


def _measured(task: Task, data_dir: Path) -> dict[str, LockedFile]:
    """What is there of a task's files."""
    result: dict[str, LockedFile] = {}
    for place in split_places(task):
        paths = [found(data_dir, file) for file in place.files]
        rows = None
        if all(len(of_file) == 1 for of_file in paths):
            rows = len(task.source.read(task.card, place.split, place.language, data_dir).examples)
        for path in (path for of_file in paths for path in of_file):
            name = official_name(data_dir, path)
            if name in result:
                continue
            raw = content(path)
            numbers = fingerprint(raw)
            result[name] = LockedFile(
                sha256=hashlib.sha256(raw).hexdigest(),
                rows=rows if path in paths[0] else None,
                lines=numbers.lines,
                pieces=numbers.pieces,
                moments=numbers.moments,
                blocks=numbers.blocks,
            )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lock", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="folder with the official files")
    parser.add_argument("--suite", type=comma_list, default=[], metavar="S", help="suites to measure (default: all)")
    parser.add_argument("--tasks", type=comma_list, default=[], metavar="T", help="a part of their tasks")
    parser.add_argument("--lock", type=Path, default=LOCK, metavar="FILE", help="the lock (default: the package's own)")
    options = parser.parse_args(arguments)
    tasks = chosen_tasks(options.suite, options.tasks)
    if not options.data_dir.is_dir():
        raise PolypromptError(f"--data-dir {options.data_dir}: no such folder")
    lock = measured(read_lock(options.lock) if options.lock.exists() else Lock(), tasks, options.data_dir)
    write_lock(options.lock, lock)
    count = sum(len(dataset.files) for dataset in lock.datasets.values())
    print(f"{options.lock}: {count} files of {len(lock.datasets)} data sets")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
