"""What is computed again of a run's predictions, as arrays: scores, chance, what the bootstrap needs, and errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import benchmarks.metrics
from benchmarks import records, results, scoring, thresholds
from benchmarks.cache import source_hash
from benchmarks.errors import PolypromptError
from benchmarks.files import sha256, write_atomic
from benchmarks.records import Prediction
from benchmarks.results import ResultRecord, read_predictions
from benchmarks.scoring import chance, score
from benchmarks.task import Kind, TaskCard
from leaderboard import bootstrap, breakdown
from leaderboard.bootstrap import Array, Sums, by_scorer, identity, sums_of, units_of
from leaderboard.breakdown import Errors, errors_of, joined

TOLERANCE = 0.005
"""Points by which a stored score may differ from the one computed again: less than any digit that is shown."""

FORMULAS = ("none", "mean", "ratio", "ratios", "matthews", "pearson", "spearman", "drawn")
"""Formulas by number. "none": there are no predictions. "drawn": the values are the replicates themselves."""

NOTHING = Sums("none", np.zeros((0, 0)))
"""Where there are no predictions."""

Guess = Callable[[TaskCard, Sequence[Prediction], str], dict[str, float]]

ARRAYS: Mapping[str, str] = {
    "examples": "int64", "units": "int64", "identities": "int64", "limited": "bool", "hashes": "uint8",
    "scores": "float64", "guesses": "float64", "formulas": "uint8", "rows": "int64", "widths": "int64",
    "begins": "int64", "is_small": "bool", "small": "uint8", "wide": "float64",
}  # fmt: skip
"""Arrays of a digest and their types."""


@dataclass(frozen=True)
class Place:
    """What was scored: task, language and split, the predictions file ("": none), and metrics, the main one first."""

    task: str
    suite: str
    language: str
    split: str
    path: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Digest:
    """The numbers of a run. Cells are its places; the metrics of all places, one behind the other, count from 0 too.

    Attributes:
        places: of the cells; one object for all runs that were scored on the same.
        examples, units, identities: `[cells]`, labelled rows, what is drawn, and `identity` of it.
        limited: `[cells]`, whether only a part of the split was scored.
        hashes: `[cells, 32]`, SHA-256 of the predictions files.
        scores, guesses: `[metrics]`, points, as computed again; guesses are chance, nan where it is not known.
        formulas, rows, widths: `[metrics]`, number of the formula and shape of its values.
        begins, is_small: `[metrics]`, where these values begin, and whether in `small`.
        small, wide: values one behind the other: whole numbers below 256, and all others.
        doubts: number of a cell -> sentences on what does not agree with results.json.
        errors: (task, split) -> what was wrong, summed over languages.
    """

    places: tuple[Place, ...]
    examples: NDArray[np.int64]
    units: NDArray[np.int64]
    identities: NDArray[np.int64]
    limited: NDArray[np.bool_]
    hashes: NDArray[np.uint8]
    scores: Array
    guesses: Array
    formulas: NDArray[np.uint8]
    rows: NDArray[np.int64]
    widths: NDArray[np.int64]
    begins: NDArray[np.int64]
    is_small: NDArray[np.bool_]
    small: NDArray[np.uint8]
    wide: Array
    doubts: Mapping[int, tuple[str, ...]]
    errors: Mapping[tuple[str, str], Errors]

    @cached_property
    def first(self) -> list[int]:
        """Number of the first metric of each cell, and how many there are in all."""
        return [int(number) for number in np.cumsum([0, *(len(place.metrics) for place in self.places)])]

    @property
    def verified(self) -> bool:
        """Whether everything was computed again."""
        return bool(np.all(self.formulas > 0))

    def sums(self, number: int) -> Sums | None:
        """What the bootstrap needs of a metric; None where there are no predictions."""
        if not self.formulas[number]:
            return None
        begin, rows, width = int(self.begins[number]), int(self.rows[number]), int(self.widths[number])
        values = (self.small if self.is_small[number] else self.wide)[begin : begin + rows * width]
        return Sums(FORMULAS[self.formulas[number]], values.reshape(rows, width))


@cache
def code_version() -> str:
    """What decides the numbers of a digest beside the run's files: our code, and the libraries that metrics use."""
    places = (benchmarks.metrics, records, results, scoring, thresholds, bootstrap, breakdown)
    ours = source_hash(*(_place(str(module.__file__)) for module in places), Path(__file__))
    libraries = [f"{name} {version(name)}" for name in ("numpy", "sacrebleu", "scikit-learn", "scipy", "seqeval")]
    return hashlib.sha256(json.dumps([ours, *libraries]).encode()).hexdigest()


def make_digest(
    folder: Path, found: Sequence[ResultRecord], cards: Mapping[str, TaskCard], guess: Guess = chance
) -> Digest:
    """Compute everything again.

    Args:
        folder: below which the predictions are.
        found: records of results.json. cards: of their tasks.
        guess: `chance`, or the same with a memory.

    Raises:
        PolypromptError: a predictions file is missing, damaged, outside of the folder or of a wrong form.
    """
    return _stacked([_cell(folder, record, cards[record.task], guess) for record in found])


def write_digest(path: Path, digest: Digest, facts: Mapping[str, str]) -> None:
    """Write a digest, atomically; `facts` are kept beside it."""
    arrays = {name: np.ascontiguousarray(getattr(digest, name)) for name in ARRAYS}
    places = [
        [place.task, place.suite, place.language, place.split, place.path, place.metrics] for place in digest.places
    ]
    errors = [[*key, part.kind, part.labels, part.counts] for key, part in digest.errors.items()]
    texts = {"places": places, "doubts": list(digest.doubts.items()), "errors": errors, "facts": dict(facts)}
    write_atomic(path, save(arrays, {name: json.dumps(value) for name, value in texts.items()}))


def read_digest(path: Path, facts: Mapping[str, str]) -> Digest | None:
    """Read a digest; None where there is none, where it is damaged, or was written with other facts."""
    try:
        with safe_open(path, "numpy") as file:
            texts = file.metadata()
            if json.loads(texts["facts"]) != facts:
                return None
            arrays: dict[str, Any] = {name: file.get_tensor(name) for name in ARRAYS}
        if any(str(arrays[name].dtype) != kind for name, kind in ARRAYS.items()):
            return None
        doubts = {int(number): tuple(sentences) for number, sentences in json.loads(texts["doubts"])}
        return Digest(_places(texts["places"]), **arrays, doubts=doubts, errors=_errors(texts["errors"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _Cell:
    place: Place
    examples: int
    units: int
    identity: int
    limited: bool
    sha256: bytes
    scores: dict[str, float]
    guesses: dict[str, float]
    sums: tuple[Sums, ...]
    doubts: tuple[str, ...]
    errors: Errors | None


def _cell(folder: Path, record: ResultRecord, card: TaskCard, guess: Guess) -> _Cell:
    if not record.predictions:
        return _said(record)
    path = (folder / record.predictions).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PolypromptError(f"{folder}: the predictions of {record.task!r} are said to be outside: {path}")
    predictions = [row for row in read_predictions(path) if row.gold is not None]
    if not predictions:
        raise PolypromptError(f"{path}: no labelled row")
    language = record.language
    scores, guesses = score(card, predictions, language), guess(card, predictions, language)
    doubts = [
        *differences("", record.scores, scores),
        *differences("chance of ", record.chance, guesses if record.chance else {}),
    ]
    if record.examples != len(predictions):
        doubts.append(f"results.json has {record.examples} examples, the predictions {len(predictions)}")
    found = sha256(path)
    if record.sha256 != found and (record.sha256 or record.chance):  # results of others need not name it
        doubts.append("the predictions file is not the one that results.json has the hash of")
    units = units_of(predictions)
    stream = stream_of(record.task, record.language, record.split)
    return _Cell(
        Place(record.task, record.suite, language, record.split, record.predictions, tuple(scores)),
        len(predictions),
        len(units),
        identity(units),
        record.limited,
        bytes.fromhex(found),
        scores,
        guesses,
        tuple(_sums(units, card, metric, language, stream) for metric in scores),
        tuple(doubts),
        errors_of(card, predictions),
    )


def stream_of(task: str, language: str, split: str) -> str:
    """The name of the draw of a cell."""
    return f"{task}.{language}.{split}"


def differences(what: str, stored: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Sentences on numbers of results.json that the predictions do not give."""
    pairs = [(name, stored.get(name), found.get(name)) for name in dict.fromkeys((*stored, *found))]
    return [
        f"{what}{name} is {_written(before)} in results.json, {_written(now)} by the predictions"
        for name, before, now in pairs
        if before is None or now is None or not abs(before - now) <= TOLERANCE
    ]


def remembered_chance() -> Guess:
    """`chance`, computed once for equal gold values: most runs are asked the same, and for tags it takes long."""
    known: dict[tuple[TaskCard, str, bytes], dict[str, float]] = {}

    def guess(card: TaskCard, predictions: Sequence[Prediction], language: str) -> dict[str, float]:
        asked = [(row.gold, row.group, _candidates(card, row)) for row in predictions]
        key = card, language, hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).digest()
        if key not in known:
            known[key] = chance(card, predictions, language)
        return known[key]

    return guess


def _said(record: ResultRecord) -> _Cell:
    """A cell without predictions: the numbers are what somebody says."""
    place = Place(record.task, record.suite, record.language, record.split, "", tuple(record.scores))
    return _Cell(
        place, record.examples, 0, 0, record.limited, bytes(32), record.scores, record.chance,
        (NOTHING,) * len(record.scores), (), None,
    )  # fmt: skip


def _sums(units: Sequence[bootstrap.Unit], card: TaskCard, metric: str, language: str, stream: str) -> Sums:
    alone = card.model_copy(update={"metrics": (metric,)})

    def scorer(rows: Sequence[Prediction]) -> float:
        return score(alone, rows, language).get(metric, nan)

    found = sums_of(units, card, metric, scorer)
    if found.formula != "scorer":
        return found
    return Sums("drawn", by_scorer(units, scorer, stream).astype(np.float64)[:, None])


def _stacked(cells: Sequence[_Cell]) -> Digest:
    found = [sums for cell in cells for sums in cell.sums]
    small = [_is_small(sums.values) for sums in found]
    sizes = np.array([sums.values.size for sums in found], np.int64)
    inside = np.array(small, bool)
    begins = np.where(inside, np.cumsum(sizes * inside), np.cumsum(sizes * ~inside)) - sizes
    errors: dict[tuple[str, str], Errors] = {}
    for cell in cells:
        if cell.errors is not None:
            key = cell.place.task, cell.place.split
            errors[key] = joined(errors[key], cell.errors) if key in errors else cell.errors

    def laid(wanted: bool, kind: type) -> NDArray[Any]:
        parts = [sums.values.ravel() for sums, one in zip(found, small, strict=True) if one is wanted]
        return np.concatenate([np.zeros(0), *parts]).astype(kind)

    return Digest(
        places=tuple(cell.place for cell in cells),
        examples=np.array([cell.examples for cell in cells], np.int64),
        units=np.array([cell.units for cell in cells], np.int64),
        identities=np.array([cell.identity for cell in cells], np.int64),
        limited=np.array([cell.limited for cell in cells], bool),
        hashes=np.array([list(cell.sha256) for cell in cells], np.uint8),
        scores=np.array([value for cell in cells for value in cell.scores.values()], np.float64),
        guesses=np.array([cell.guesses.get(name, nan) for cell in cells for name in cell.scores], np.float64),
        formulas=np.array([FORMULAS.index(sums.formula) for sums in found], np.uint8),
        rows=np.array([sums.values.shape[0] for sums in found], np.int64),
        widths=np.array([sums.values.shape[1] for sums in found], np.int64),
        begins=begins,
        is_small=inside,
        small=laid(True, np.uint8),
        wide=laid(False, np.float64),
        doubts={number: cell.doubts for number, cell in enumerate(cells) if cell.doubts},
        errors=errors,
    )


def _is_small(values: NDArray[np.generic]) -> bool:
    if not values.size:  # of a million results without predictions nothing is looked at
        return True
    numbers = values.astype(np.float64)
    return bool(np.all((numbers >= 0) & (numbers < 256) & (numbers == np.floor(numbers))))


@cache
def _places(text: str) -> tuple[Place, ...]:
    return tuple(Place(place[0], place[1], place[2], place[3], place[4], tuple(place[5])) for place in json.loads(text))


@cache
def _errors(text: str) -> Mapping[tuple[str, str], Errors]:
    return {
        (task, split): Errors(kind, tuple(labels), counts) for task, split, kind, labels, counts in json.loads(text)
    }


def _place(file: str) -> Path:
    """A module's file; of a package its folder."""
    return Path(file).parent if Path(file).name == "__init__.py" else Path(file)


def _written(number: float | None) -> str:
    return "absent" if number is None else f"{number:.2f}"


def _candidates(card: TaskCard, row: Prediction) -> float:
    """Among how many a row was chosen; what else its scores hold does not move chance."""
    if card.kind is Kind.RETRIEVAL:
        return row.scores[1] if len(row.scores) > 1 else 0.0
    return float(len(row.scores)) if card.kind is Kind.CHOICE else 0.0
