"""Runs from disk, every score computed again from the stored predictions."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from benchmarks.errors import PolypromptError
from benchmarks.files import sha256
from benchmarks.records import Prediction
from benchmarks.results import Manifest, ResultRecord, Results, read_model, read_predictions
from benchmarks.scoring import chance, score
from benchmarks.task import Kind, TaskCard
from leaderboard.statistics import Rows, rows_of

TOLERANCE = 0.005
"""Points by which a stored score may differ from the one computed again: less than any digit that is shown."""

INCIDENTAL = {
    *("seed", "out", "name", "data_dir", "task_file", "start_from"),
    *("checkpoint_seconds", "tracker", "shard_backbone"),
}
"""Settings in which runs of one configuration may differ; which files were read is known by their hashes."""

Complain = Callable[[str], None]
Guess = Callable[[TaskCard, Sequence[Prediction], str], dict[str, float]]


@dataclass(frozen=True)
class Cell:
    """One run on one task, language and split.

    Attributes:
        record: as in results.json, with the scores as computed again.
        card: of the task.
        rows: for the bootstrap of the main metric.
        doubts: sentences on what does not agree with results.json; empty when all does.
    """

    record: ResultRecord
    card: TaskCard
    rows: Rows
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it was read from.
        manifest: what it used.
        config: the text of config.toml, "" when there is none.
        cells: its scores, in the order of results.json.
    """

    folder: Path
    manifest: Manifest
    config: str
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """Its name: letters, digits, dots, dashes and underscores, so that it can name a folder."""
        return self.manifest.run

    @property
    def configuration(self) -> str:
        """What two runs have in common that differ in nothing but the seed."""
        facts = self.manifest.model_dump(
            mode="json",
            include={"method", "prompt", "precision", "backbone", "tasks", "trainable", "data", "limits", "code"},
        )
        asked = {key: value for key, value in _parsed(self.config).items() if key not in INCIDENTAL}
        return json.dumps([facts, asked], sort_keys=True, default=str)


@dataclass(frozen=True)
class Entry:
    """A row of the board: the runs of one configuration, one a seed, by seed."""

    runs: tuple[Run, ...]


def collect(paths: Iterable[Path], complain: Complain) -> list[Run]:
    """Read all runs in or below some folders.

    Args:
        paths: run folders, or folders that hold run folders at any depth.
        complain: told, in one sentence each, of runs that were left out and of numbers that do not agree.

    Returns:
        The runs by id.

    Raises:
        PolypromptError: a path does not exist, or there is no usable run in any of them.
    """
    runs: dict[str, Run] = {}
    guess = _remembered_chance()
    folders = sorted({folder for path in paths for folder in _run_folders(path)})
    for folder in folders:
        try:
            run = _read_run(folder, guess)
            if run.id in runs:
                raise PolypromptError(f"{folder}: has the same id as {runs[run.id].folder}")
        except PolypromptError as error:
            named = str(folder) in str(error)
            complain(f"left out: {error}" if named else f"left out: {folder}: {error}")
        except Exception as error:  # whatever a hostile or half-written file provokes is the fault of that run alone
            complain(f"left out: {folder}: cannot be read ({type(error).__name__}: {error})")
        else:
            runs[run.id] = run
            for cell in run.cells:
                for doubt in cell.doubts:
                    complain(f"{folder}: {cell.record.task}, {cell.record.language}: {doubt}")
    if not runs:
        raise PolypromptError(
            f"no usable run: {len(folders)} folders with a manifest.json were found; "
            "name a finished run folder, or a folder that holds some (`python -m harness.run` writes them)"
        )
    return [runs[name] for name in sorted(runs)]


def entries(runs: Sequence[Run], complain: Complain) -> list[Entry]:
    """Join runs that differ in nothing but the seed; of exact repeats the newest one stands for all."""
    groups: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: (run.manifest.created, run.id)):
        seeds = groups.setdefault(run.configuration, {})
        seed = run.manifest.seed
        if seed in seeds:
            complain(f"{seeds[seed].id} is repeated by {run.id}, which is newer; the board shows the newer one")
        seeds[seed] = run
    return [Entry(tuple(seeds[seed] for seed in sorted(seeds))) for seeds in groups.values()]


def _run_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise PolypromptError(f"{path}: no such folder; name run folders or folders that hold them")
    if (path / "manifest.json").exists():
        return [path.resolve()]
    return [found.parent.resolve() for found in path.rglob("manifest.json")]


def _read_run(folder: Path, guess: Guess) -> Run:
    manifest = read_model(folder / "manifest.json", Manifest)
    results = read_model(folder / "results.json", Results)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", manifest.run):
        raise PolypromptError(f"{folder}: the run id {manifest.run!r} cannot name a folder")
    if (results.run, results.method, results.seed) != (manifest.run, manifest.method, manifest.seed):
        raise PolypromptError(f"{folder}: manifest.json and results.json are not of the same run")
    if not results.records:
        raise PolypromptError(f"{folder / 'results.json'}: has no records")
    cards = {card.name: card for card in manifest.tasks}
    seen: set[tuple[str, str, str]] = set()
    cells = []
    for record in results.records:
        if record.task not in cards or cards[record.task].suite != record.suite:
            raise PolypromptError(f"{folder}: {record.task!r} of {record.suite!r} is not among the manifest's tasks")
        place = record.task, record.language, record.split
        if place in seen:
            raise PolypromptError(
                f"{folder}: {record.split} of {record.task!r} in {record.language!r} was scored twice"
            )
        seen.add(place)
        cells.append(_read_cell(folder, record, cards[record.task], guess))
    config = folder / "config.toml"
    return Run(folder, manifest, config.read_text(encoding="utf-8") if config.exists() else "", tuple(cells))


def _read_cell(folder: Path, record: ResultRecord, card: TaskCard, guess: Guess) -> Cell:
    path = (folder / record.predictions).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PolypromptError(f"{folder}: the predictions of {record.task!r} are said to be outside: {path}")
    predictions = [row for row in read_predictions(path) if row.gold is not None]
    if not predictions:
        raise PolypromptError(f"{path}: no labelled row")
    language = record.language
    scores, guesses = score(card, predictions, language), guess(card, predictions, language)
    doubts = [
        *_differences("", record.scores, scores),
        *_differences("chance of ", record.chance, guesses),
    ]
    if record.examples != len(predictions):
        doubts.append(f"results.json has {record.examples} examples, the predictions {len(predictions)}")
    if record.sha256 != sha256(path):
        doubts.append("the predictions file is not the one that results.json has the hash of")
    metric = next(iter(scores))
    alone = card.model_copy(update={"metrics": (metric,)})
    rows = rows_of(predictions, card, metric, lambda rows: score(alone, rows, language).get(metric, nan))
    shown = record.model_copy(update={"scores": scores, "chance": guesses, "examples": len(predictions)})
    return Cell(shown, card, rows, tuple(doubts))


def _differences(what: str, stored: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    names = dict.fromkeys((*stored, *found))
    pairs = [(name, stored.get(name), found.get(name)) for name in names]
    return [
        f"{what}{name} is {_written(before)} in results.json, {_written(now)} by the predictions"
        for name, before, now in pairs
        if before is None or now is None or not abs(before - now) <= TOLERANCE
    ]


def _written(number: float | None) -> str:
    return "absent" if number is None else f"{number:.2f}"


def _remembered_chance() -> Guess:
    """`chance`, computed once for equal gold values: most runs are asked the same, and for tags it takes long."""
    known: dict[tuple[TaskCard, str, bytes], dict[str, float]] = {}

    def guess(card: TaskCard, predictions: Sequence[Prediction], language: str) -> dict[str, float]:
        asked = [(row.gold, row.group, _candidates(card, row)) for row in predictions]
        key = card, language, hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).digest()
        if key not in known:
            known[key] = chance(card, predictions, language)
        return known[key]

    return guess


def _candidates(card: TaskCard, row: Prediction) -> float:
    """Among how many a row was chosen; what else its scores hold does not move chance."""
    if card.kind is Kind.RETRIEVAL:
        return row.scores[1] if len(row.scores) > 1 else 0.0
    return float(len(row.scores)) if card.kind is Kind.CHOICE else 0.0


def _parsed(config: str) -> dict[str, object]:
    try:
        return tomllib.loads(config)
    except tomllib.TOMLDecodeError:
        return {"text": config}
