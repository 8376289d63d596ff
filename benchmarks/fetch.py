"""`python -m benchmarks.fetch --suite S --to DIR`: official files from the Hugging Face hub, in their official layout.

The rows are downloaded with `datasets` and written as the files that the tasks read. A file is written when the task
reads the very examples from it that it reads from the hub, else not. What is there already is not fetched again, so the
same command goes on after an interruption. This was tested against a server of the same protocol on this machine, and
was not run against the live hub. The exit status is 0 when all is there, 1 when something cannot be fetched, 2 when the
hub cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from logging import ERROR
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from tabulate import tabulate

from benchmarks.choice import SplitPlace, chosen_tasks, comma_list, split_places
from benchmarks.errors import DataError, MissingData, PolypromptError, run_command
from benchmarks.files import sha256, write_atomic
from benchmarks.hub import Hub, Unreachable
from benchmarks.progress import bar
from benchmarks.readers.rows import Reader
from benchmarks.records import Split
from benchmarks.sources import OfficialSource, locate
from benchmarks.task import Task
from benchmarks.writers.formats import check_writable, write
from benchmarks.writers.rows import Content, Unwritable

STATE = ".fetched.json"
"""Name of the file that remembers what was fetched, in the data folder."""


class FetchedFile(BaseModel):
    """A file that was fetched.

    Attributes:
        sha256: of its bytes.
        dataset, commit: where on the hub it is from; no commit for a local folder.
    """

    model_config = ConfigDict(extra="forbid")

    sha256: str
    dataset: str
    commit: str | None


class State(BaseModel):
    """What was fetched: path relative to the data folder -> file."""

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-fetched"] = "polyprompt-fetched"
    version: Literal[1] = 1
    files: dict[str, FetchedFile] = {}


class Outcome(StrEnum):
    """What became of a split."""

    FETCHED = "fetched"
    THERE = "already there"
    NOT_FETCHED = "not fetched"


@dataclass(frozen=True)
class SplitReport:
    """What became of a split.

    Attributes:
        suite, task, split, language: which.
        files: its official files, relative to the data folder.
        outcome: see `Outcome`.
        rows: examples, where it was fetched.
        note: why it was not fetched, in a sentence; empty otherwise.
    """

    suite: str
    task: str
    split: str
    language: str
    files: tuple[str, ...]
    outcome: Outcome
    rows: int | None = None
    note: str = ""


def wanted(tasks: Sequence[Task], languages: Sequence[str]) -> list[tuple[Task, SplitPlace]]:
    """The splits to fetch: those in the languages, and those in the language that a task is trained in.

    Args:
        tasks: tasks that generate their rows have none.
        languages: BCP-47 codes; empty: all.

    Raises:
        PolypromptError: none of the tasks has a language.
    """
    known = {code for task in tasks for code in task.card.languages}
    for language in languages:
        if language not in known:
            raise PolypromptError(
                f"--languages {language}: no chosen task has it; there are {', '.join(sorted(known))}"
            )
    return [
        (task, place)
        for task in tasks
        for place in split_places(task)
        if not languages or place.language in (*languages, task.card.train_language)
    ]


def fetch(splits: Sequence[tuple[Task, SplitPlace]], to: Path, report: Callable[[SplitReport], None]) -> None:
    """Fetch splits.

    Args:
        splits: of tasks that read official files.
        to: the data folder.
        report: is told of each split when it is done.

    Raises:
        Unreachable: the hub does not answer; what was fetched before stays.
        PolypromptError: the data folder is none, or cannot be written; its state is damaged.
    """
    if to.exists() and not to.is_dir():
        raise PolypromptError(f"--to {to}: it is no folder")
    state = _read_state(to / STATE)
    commits: dict[str, str | None] = {}  # dataset -> one commit for all of its splits
    with bar("fetching", len(splits)) as step:
        for task, place in splits:
            step(f"{task.name} {place.split} {place.language}")
            report(_fetched(task, place, to, state, commits))


def _fetched(task: Task, place: SplitPlace, to: Path, state: State, commits: dict[str, str | None]) -> SplitReport:
    files = tuple(file.partition("|")[0] for file in place.files)
    done = SplitReport(task.card.suite, task.name, place.split, place.language, files, Outcome.NOT_FETCHED)
    there = [_there(to, file, state) for file in place.files]
    if all(there):
        return replace(done, outcome=Outcome.THERE)
    assert isinstance(task.source, OfficialSource)
    part = task.source.splits[place.split]
    if part.hub is None:
        return replace(done, note=f"it is not on the hub. {task.how_to_get}")
    try:
        check_writable(part.reader, files)
        hub = _pinned(part.hub, commits)
        content = _content(task, place, hub, files)
        texts = write(part.reader, content)
        _check_read_back(task, part.reader, content, texts, there)
    except Unreachable:
        raise
    except PolypromptError as error:
        return replace(done, note=error.what if isinstance(error, MissingData) else str(error))
    for file, text, path in zip(files, texts, there, strict=True):
        if path is None:
            _write(to, file, text)
            state.files[file] = FetchedFile(sha256=sha256(to / file), dataset=hub.dataset, commit=hub.revision)
            _write(to, STATE, state.model_dump_json(indent=2) + "\n")
    return replace(done, outcome=Outcome.FETCHED, rows=len(content.split.examples))


def _there(to: Path, file: str, state: State) -> Path | None:
    """Where a file is that need not be fetched; one that is not as it was fetched is not complete."""
    path = locate(to, file)
    if path is None:
        return None
    known = state.files.get(path.relative_to(to).as_posix())
    return path if known is None or known.sha256 == sha256(path) else None


def _pinned(hub: Hub, commits: dict[str, str | None]) -> Hub:
    """A dataset at the commit at which it was when it was first asked for."""
    name = f"{hub.dataset}@{hub.revision}"
    if name not in commits:
        commits[name] = hub.commit()
    return replace(hub, revision=commits[name])


def _content(task: Task, place: SplitPlace, hub: Hub, files: tuple[str, ...]) -> Content:
    try:
        records = hub.records(place.split, place.language)
    except MissingData:
        hub.commit()  # raises when the hub has gone meanwhile
        raise
    return Content(
        card=task.card,
        files=files,
        split=hub.split_of(task.card, records),
        records=[record for _, record in records],
        mapper=hub.row,
    )


def _check_read_back(
    task: Task, reader: Reader, content: Content, texts: Sequence[str], there: Sequence[Path | None]
) -> None:
    """Read what is to be written, and what is there already, and compare it with the rows of the hub."""
    with TemporaryDirectory() as folder:
        paths = [path or Path(folder) / file for file, path in zip(content.files, there, strict=True)]
        for text, path, known in zip(texts, paths, there, strict=True):
            if known is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="")
        try:
            found = reader(task.card, paths)
        except DataError as error:
            raise Unwritable(str(error).replace(f"{folder}/", "")) from None
    if found in (content.split, _numbered(content.split)):
        return
    pairs = zip(found.examples, content.split.examples, strict=False)
    number = next((n for n, (one, other) in enumerate(pairs, 1) if replace(one, id=other.id) != other), 0)
    beside = [str(path) for path in there if path is not None]
    raise Unwritable(
        f"{f'row {number}' if number else 'the rows'} would be read from the files otherwise than from the hub"
        + (f"; remove {', '.join(beside)}, which may be of another release" if beside else "")
    )


def _numbered(split: Split) -> Split:
    """The rows as a file has them that has no identifiers: numbered."""
    return replace(split, examples=tuple(replace(row, id=str(number)) for number, row in enumerate(split.examples)))


def _write(to: Path, file: str, text: str) -> None:
    try:
        write_atomic(to / file, text)
    except OSError as error:
        raise PolypromptError(f"--to {to}: {file} cannot be written ({error.strerror})") from None


def _read_state(path: Path) -> State:
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return State()
    except ValidationError:
        raise PolypromptError(
            f"{path}: damaged; remove it: the files that are there stay, and are taken to be complete"
        ) from None


def table(reports: Sequence[SplitReport]) -> str:
    """The reports for a person: a line a task, then what was not fetched and why."""
    tasks: dict[tuple[str, str], list[SplitReport]] = {}
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for report in reports:
        tasks.setdefault((report.suite, report.task), []).append(report)
        if report.note:
            reasons.setdefault((report.task, report.split, report.note), []).append(report.language)
    lines = [
        (*names, *(sum(report.outcome is outcome for report in of_task) or "" for outcome in Outcome))
        for names, of_task in tasks.items()
    ]
    text = tabulate(lines, headers=("suite", "task", *(outcome.value for outcome in Outcome)), disable_numparse=True)
    notes = [f"{task} {split}, {' '.join(codes)}: {note}" for (task, split, note), codes in reasons.items()]
    return "\n  ".join([f"{text}\n\nnot fetched:", *notes]) if notes else text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", type=comma_list, required=True, metavar="S", help="suites to fetch, e.g. glue,squad")
    parser.add_argument("--tasks", type=comma_list, default=[], metavar="T", help="a part of their tasks")
    parser.add_argument(
        "--languages",
        type=comma_list,
        default=[],
        metavar="L",
        help="a part of their languages; the one that a task is trained in always belongs to it",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the data folder; made when absent")
    parser.add_argument("--json", action="store_true", help="say it as JSON, a record a split")
    options = parser.parse_args(arguments)
    splits = wanted(chosen_tasks(options.suite, options.tasks), options.languages)
    reports: list[SplitReport] = []
    _quiet()
    try:
        fetch(splits, options.to, reports.append)
    finally:
        if options.json:
            print(json.dumps([asdict(report) for report in reports], ensure_ascii=False, indent=2))
        elif reports:
            print(table(reports))
    return 1 if any(report.outcome is Outcome.NOT_FETCHED for report in reports) else 0


def _quiet() -> None:
    """One bar is enough, and an error is one line."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity(ERROR)


if __name__ == "__main__":
    sys.exit(run_command(main))
