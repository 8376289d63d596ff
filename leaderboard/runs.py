"""Runs from disk and results from elsewhere, every score computed again from the stored predictions.

What was computed of a run is kept in `board/` of the cache (`benchmarks.cache`), under the hash of all that decides it:
the bytes of its files and the code and libraries of the metrics. So that a million files need not be hashed again, an
index says which content a folder had, and the size, inode and times of each of its files then; where any of these
differ, or were so young that a later write might not show, everything is hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import cache
from benchmarks.errors import PolypromptError
from benchmarks.files import sha256, write_atomic
from benchmarks.registry import find_task
from benchmarks.results import Manifest, Results, read_model
from benchmarks.task import TaskCard
from leaderboard.digest import Digest, Guess, code_version, make_digest, read_digest, remembered_chance, write_digest
from leaderboard.processes import in_processes

INCIDENTAL = {
    *("seed", "out", "name", "data_dir", "task_file", "start_from"),
    *("checkpoint_seconds", "tracker", "shard_backbone"),
}
"""Settings in which runs of one configuration may differ; which files were read is known by their hashes."""

UNREAD = "text"
"""In place of settings the text of a config.toml that is none."""

SHARED_RUNS = 8
"""Runs of which on several processes read them."""

YOUNG = 2 * 10**9
"""Nanoseconds within which a file may be written again and keep its times."""

GIGABYTES = 4.0
"""Of kept digests; those that were not used for longest go."""

Complain = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run, or a result from elsewhere.

    Attributes:
        id: its name: letters, digits, dots, dashes and underscores, so that it can name a folder.
        folder: where its predictions are.
        method, backbone, prompt, seed: what heads its row.
        manifest: what it used; None for a result from elsewhere.
        source: where a result from elsewhere comes from; "" for a run.
        config: the text of config.toml, "" when there is none.
        cards: of its tasks, by name.
        digest: its numbers.
        files: name -> SHA-256 of manifest.json and results.json.
    """

    id: str
    folder: Path
    method: str
    backbone: str
    prompt: str
    seed: int
    manifest: Manifest | None
    source: str
    config: str
    cards: Mapping[str, TaskCard]
    digest: Digest
    files: Mapping[str, str]

    @property
    def created(self) -> str:
        """When it was finished, "" if that is not known."""
        return self.manifest.created if self.manifest else ""

    @property
    def configuration(self) -> str:
        """What two runs have in common that differ in nothing but the seed."""
        if self.manifest is None:
            return json.dumps([self.method, self.backbone, self.prompt, self.source, self.digest.verified])
        facts = self.manifest.model_dump(
            mode="json",
            include={"method", "prompt", "precision", "backbone", "tasks", "trainable", "data", "limits", "code"},
        )
        asked = {key: value for key, value in parsed(self.config).items() if key not in INCIDENTAL}
        return json.dumps([facts, asked], sort_keys=True, default=str)


def collect_runs(paths: Iterable[Path], extra: Iterable[Path], complain: Complain) -> list[Run]:
    """Read all runs in or below some folders, and results from elsewhere.

    Args:
        paths: run folders, or folders that hold run folders at any depth.
        extra: files as results.json, of results from elsewhere, or folders that hold such files.
        complain: told, in one sentence each, of runs that were left out and of numbers that do not agree.

    Returns:
        The runs by id.

    Raises:
        PolypromptError: a path does not exist, or there is no usable run in any of them.
    """
    runs: dict[str, Run] = {}
    folders = sorted({folder for path in paths for folder in run_folders(path)})
    guess = remembered_chance()
    with _memory() as memory:
        if len(folders) >= SHARED_RUNS:
            memory.refresh(folders, guess)
        for place, read in [
            *((folder, _read_run) for folder in folders),
            *((path.resolve(), _read_outside) for path in _files(extra)),
        ]:
            try:
                run = read(place, guess, memory)
                if run.id in runs:
                    raise PolypromptError(f"{place}: has the same id as {runs[run.id].folder}")
            except PolypromptError as error:
                named = str(place) in str(error)
                complain(f"left out: {error}" if named else f"left out: {place}: {error}")
            except Exception as error:  # whatever a hostile or half-written file provokes is the fault of it alone
                complain(f"left out: {place}: cannot be read ({type(error).__name__}: {error})")
            else:
                runs[run.id] = run
                for number, doubts in run.digest.doubts.items():
                    cell = run.digest.places[number]
                    for doubt in doubts:
                        complain(f"{place}: {cell.task}, {cell.language}: {doubt}")
    if not runs:
        raise PolypromptError(
            f"no usable run: {len(folders)} folders with a manifest.json were found; "
            "name a finished run folder, or a folder that holds some (`python -m harness.run` writes them)"
        )
    return [runs[name] for name in sorted(runs)]


def read_run(folder: Path) -> Run:
    """One run, computed again from its files whatever was kept.

    Raises:
        PolypromptError: it cannot be used; says why.
    """
    return _read_run(folder.resolve(), remembered_chance(), _Memory(None, {}, set()))


@dataclass(frozen=True)
class _Memory:
    """Digests that were kept.

    Attributes:
        place: their folder, None: nothing is kept. index: folder of a run -> what it had.
        fresh: folders of runs that were looked at just now.
    """

    place: Path | None
    index: dict[str, dict[str, str]]
    fresh: set[str]

    def refresh(self, folders: Sequence[Path], guess: Guess) -> None:
        """Look at runs, and compute and keep those that changed, in all processes that there is a processor for."""
        if self.place is not None:
            found = in_processes([partial(self._entry, folder, guess) for folder in folders])
            known = {str(folder): entry for folder, entry in zip(folders, found, strict=True) if entry}
            self.index.update(known)
            self.fresh.update(known)

    def _entry(self, folder: Path, guess: Guess) -> dict[str, str] | None:
        with suppress(Exception):  # who reads the run then says what is wrong
            _read_run(folder, guess, self)
            return self.index.get(str(folder))
        return None

    def digest(self, folder: Path, files: Mapping[str, str], make: Callable[[], Digest]) -> Digest:
        """The digest of a run.

        Args:
            folder: of the run. files: name -> SHA-256 of its manifest.json and the like. make: computes it.
        """
        if self.place is None:
            return make()
        known = self.index.get(str(folder), {})
        facts = {"code": code_version(), **files}
        if known.get("facts") == _hash(facts):
            kept = read_digest(self.place / f"{known.get('content')}.safetensors", facts)
            if kept is not None and (str(folder) in self.fresh or self._unchanged(folder, known, kept)):
                return kept
        young, signature = time.time_ns(), ""
        name = _hash(["content", facts])
        kept = read_digest(self.place / f"{name}.safetensors", facts)
        if kept is not None:
            signature = _signature(folder, kept, young)
        if kept is None or not _same_bytes(folder, kept):
            kept = make()
            signature = _signature(folder, kept, young)
            with suppress(OSError):  # no room, a read-only folder
                write_digest(self.place / f"{name}.safetensors", kept, facts)
        self.index[str(folder)] = {"facts": _hash(facts), "content": name, "signature": signature}
        return kept

    def _unchanged(self, folder: Path, known: Mapping[str, str], kept: Digest) -> bool:
        signature = known.get("signature")
        return bool(signature) and signature == _signature(folder, kept, 2**63)


@contextmanager
def _memory() -> Iterator[_Memory]:
    base = cache.folder()
    if base is None:
        yield _Memory(None, {}, set())
        return
    place = base / "board"
    index: dict[str, dict[str, str]] = {}
    with suppress(OSError, ValueError):
        read = json.loads((place / "index.json").read_bytes())
        if isinstance(read, dict):
            index = {name: value for name, value in read.items() if isinstance(value, dict)}
    before = json.dumps(index, sort_keys=True)
    yield _Memory(place, index, set())
    after = json.dumps(index, sort_keys=True)
    if after != before:
        with suppress(OSError):
            write_atomic(place / "index.json", after)
            _trim(place)


def _trim(place: Path) -> None:
    """Remove what was written longest ago where there is too much."""
    files = sorted(((file.stat().st_mtime_ns, file) for file in place.glob("*.safetensors")), reverse=True)
    total = 0
    for _, file in files:
        total += file.stat().st_size
        if total > GIGABYTES * 2**30:
            file.unlink(missing_ok=True)


def _signature(folder: Path, digest: Digest, now: int) -> str:
    """Size, inode and times of the predictions files; "" where one is so young that a later write might not show."""
    found, base = [], f"{folder}{os.sep}"
    try:
        for place in digest.places:
            if place.path:
                stat = os.stat(base + place.path)  # noqa: PTH116 - a Path for each of a million files takes seconds
                if max(stat.st_mtime_ns, stat.st_ctime_ns) > now - YOUNG:
                    return ""
                found.append((stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns))
    except OSError:
        return ""
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _same_bytes(folder: Path, digest: Digest) -> bool:
    try:
        return all(
            sha256(folder / place.path) == bytes(digest.hashes[number]).hex()
            for number, place in enumerate(digest.places)
            if place.path
        )
    except OSError:
        return False


def run_folders(path: Path) -> list[Path]:
    """Folders of runs: the one that is named, or all below it.

    Raises:
        PolypromptError: it does not exist.
    """
    if not path.is_dir():
        raise PolypromptError(f"{path}: no such folder; name run folders or folders that hold them")
    if (path / "manifest.json").exists():
        return [path.resolve()]
    found = []
    for folder, below, files in os.walk(path):
        if "manifest.json" in files:
            found.append(Path(folder).resolve())
            below.clear()  # a run's own thousands of files
    return found


def _read_run(folder: Path, guess: Guess, memory: _Memory) -> Run:
    names = ("manifest.json", "results.json")
    manifest = read_model(folder / names[0], Manifest)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", manifest.run):
        raise PolypromptError(f"{folder}: the run id {manifest.run!r} cannot name a folder")
    config = folder / "config.toml"
    try:
        files = {name: sha256(folder / name) for name in names}
    except FileNotFoundError as error:
        raise PolypromptError(f"{error.filename}: no such file; is {folder} a finished run folder?") from None
    cards = {card.name: card for card in manifest.tasks}

    def make() -> Digest:
        results = read_model(folder / names[1], Results)
        if (results.run, results.method, results.seed) != (manifest.run, manifest.method, manifest.seed):
            raise PolypromptError(f"{folder}: manifest.json and results.json are not of the same run")
        if any(not record.predictions for record in results.records):
            raise PolypromptError(f"{folder / names[1]}: a score of a run needs its predictions")
        _checked(folder, results, cards)
        return make_digest(folder, results.records, cards, guess)

    return Run(
        manifest.run, folder, manifest.method, manifest.backbone.name, manifest.prompt, manifest.seed, manifest, "",
        config.read_text(encoding="utf-8") if config.exists() else "", cards,
        memory.digest(folder, files, make), files,
    )  # fmt: skip


def _files(extra: Iterable[Path]) -> Iterator[Path]:
    """Of a folder the JSON files that lie in it."""
    for path in extra:
        if path.is_dir() and not (found := sorted(path.glob("*.json"))):
            raise PolypromptError(f"--results {path}: the folder holds no file *.json")
        yield from found if path.is_dir() else [path]


def _read_outside(path: Path, guess: Guess, memory: _Memory) -> Run:
    """A result from elsewhere: a file as results.json that stands without a manifest."""
    results = read_model(path, Results)
    cards = {card.name: card for card in results.tasks}
    for record in results.records:
        if record.task not in cards:
            cards[record.task] = find_task(record.task).card
    _checked(path, results, cards)
    folder = path.parent
    digest = make_digest(folder, results.records, cards, guess)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", results.run).strip("-.")[:150] or "result"
    return Run(
        f"outside-{name}", folder, results.method, results.backbone, results.prompt, results.seed, None,
        results.source or path.name, "", cards, digest, {path.name: sha256(path)},
    )  # fmt: skip


def _checked(where: Path, results: Results, cards: Mapping[str, TaskCard]) -> None:
    if not results.records:
        raise PolypromptError(f"{where}: has no records")
    seen: set[tuple[str, str, str]] = set()
    for record in results.records:
        if record.task not in cards or cards[record.task].suite != record.suite:
            raise PolypromptError(f"{where}: {record.task!r} of {record.suite!r} is not among the manifest's tasks")
        place = record.task, record.language, record.split
        if place in seen:
            raise PolypromptError(f"{where}: {record.split} of {record.task!r} in {record.language!r} was scored twice")
        seen.add(place)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def parsed(config: str) -> dict[str, object]:
    """Settings in the text of config.toml; what cannot be read is one of its own."""
    try:
        return tomllib.loads(config)
    except tomllib.TOMLDecodeError:
        return {UNREAD: config}


def joined_by_seed(runs: Sequence[Run], complain: Complain) -> list[tuple[Run, ...]]:
    """Join runs that differ in nothing but the seed; of exact repeats the newest one stands for all."""
    groups: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: (run.created, run.id)):
        seeds = groups.setdefault(run.configuration, {})
        if run.seed in seeds:
            complain(f"{seeds[run.seed].id} is repeated by {run.id}, which is newer; the board shows the newer one")
        seeds[run.seed] = run
    return [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in groups.values()]
