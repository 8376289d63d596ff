"""The files of a run that outlive it: manifest, results and predictions, each with a schema and a version."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.records import Prediction
from benchmarks.task import TaskCard

Model = TypeVar("Model", bound=BaseModel)


class ResultRecord(BaseModel):
    """The scores of one run on one task, language and split.

    Attributes:
        task, suite, language, split: what was scored; language is a BCP-47 code.
        examples: labelled rows that were scored.
        limited: True when only a part of the official split was scored (`--max-eval`): not comparable with others.
        scores: metric -> value in points (0..100; correlations -100..100); the main metric comes first.
        chance: the same metrics for the best answer that ignores the input (majority label, constant, guess).
        signatures: metric -> what decides its value beside the predictions: a version, chrF's signature.
        threshold: of "no answer", where the task has one: chosen on other rows than these.
        predictions: path of the predictions file relative to the folder of results.json; "": there is none, and the
            scores are what somebody says.
        sha256: of that file.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    task: str
    suite: str
    language: str
    split: str
    examples: int = Field(ge=0)
    limited: bool = False
    scores: dict[str, float] = Field(min_length=1)
    # A factory, since pydantic copies `{}` deeply for each of a million records.
    chance: dict[str, float] = Field(default_factory=dict, json_schema_extra={"default": {}})
    signatures: dict[str, str] = Field(default_factory=dict, json_schema_extra={"default": {}})
    threshold: float | None = None
    predictions: str = ""
    sha256: str = ""

    @property
    def main(self) -> tuple[str, float]:
        """Name and value of the main metric."""
        return next(iter(self.scores.items()))


class Results(BaseModel):
    """results.json: every score of a run. Recomputable from predictions/ by `python -m harness.rescore`.

    `python -m benchmarks.schema` prints its JSON Schema. A file of an older version is read as one of this version;
    since version 2 it may stand alone, as a result of somebody else.

    Attributes:
        run: the run's id. method, backbone, seed: as in its manifest.
        records: the scores.
        prompt, source: of a result that stands without a manifest: what else heads its row, and where it comes from.
        tasks: cards of tasks that the project does not know, of a result without a manifest.
    """

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-results"] = "polyprompt-results"
    version: Literal[2] = 2
    run: str
    method: str
    backbone: str
    seed: int
    records: list[ResultRecord]
    prompt: str = ""
    source: str = ""
    tasks: list[TaskCard] = []

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, read: object) -> object:
        """Version 1 had no results without manifest and predictions; what it had means the same."""
        if isinstance(read, dict) and read.get("version") == 1:
            return {**read, "version": 2}
        return read


class BackboneCard(BaseModel):
    """Which frozen encoder was used.

    Attributes:
        name: as given by the user: hub id, folder name or embedded name.
        family: the model type of its configuration, e.g. "bert".
        sha256: of its weights in a canonical order.
        parameters: number of its weights.
        layers, heads, hidden: its shape.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    family: str
    sha256: str
    parameters: int
    layers: int
    heads: int
    hidden: int


class SelectionCard(BaseModel):
    """What chose among epochs and learning rates.

    Attributes:
        rule: "held-out": training rows that were not trained on. "paper": the reported rows themselves, as P-Tuning
            v2's code does: the score is then the best of many looks. "last": nothing, the last epoch counts.
        rows: task -> how many rows selected.
        measured: learning rate -> (step, mean of the tasks' main metrics on those rows).
        learning_rate, step: what was chosen. own: task -> step, where tasks share nothing and each has its best.
    """

    model_config = ConfigDict(extra="forbid")

    rule: Literal["held-out", "paper", "last"]
    rows: dict[str, int]
    measured: dict[str, list[tuple[int, float]]]
    learning_rate: float
    step: int
    own: dict[str, int] = {}


class InferenceCard(BaseModel):
    """What computed the frozen encoder where nothing was trained through it, where there was a choice.

    Attributes:
        engine: "own", or the name of another one. identity: of its version and code.
        why: a sentence with the figures that decided.
        ratio: how many times as fast as our own engine it was on a part of the run's own rows.
        compile_seconds: what getting it ready took.
        error, own_error: of its states and of our own engine's. bf16: the mean over pieces of the root mean square
            difference to fp32; fp32: the largest difference to our own states, and 0.
    """

    model_config = ConfigDict(extra="forbid")

    engine: str
    identity: str = ""
    why: str
    ratio: float | None = None
    compile_seconds: float | None = None
    error: float | None = None
    own_error: float | None = None


class Manifest(BaseModel):
    """manifest.json: what a run used and what it cost.

    Attributes:
        run: the run's id, the name of its folder.
        created: ISO 8601, UTC.
        command: the command line that repeats it.
        code: package version and git commit, "+changes" behind it when the tree was not clean.
        packages: name -> version.
        processor: name of the processor or accelerator.
        precision: "fp32" or "bf16" (autocast).
        method, seed, prompt: as configured; prompt is a sentence, e.g. "16 slots in layers 0-11, init kv".
        backbone: the encoder.
        tasks: cards of the tasks.
        trained: name of each task with training rows -> the languages of these, so that all others are zero-shot; of a
            task that another one answers see that one. Empty in manifests that are older than this entry: then it is
            `train_language` of each card.
        trainable: parameters trained, heads included.
        share: trainable parameters over all parameters of backbone, prompt and heads, percent.
        selection: what chose among epochs and learning rates; None when nothing was trained.
        thresholds: task with "no answer" -> language -> threshold, see `benchmarks.thresholds`.
        data: file relative to the data folder (or "generated:NAME") -> sha256 of the bytes that were read.
        limits: what was cut for time (`max_train`, `max_eval`, `max_steps`) -> number; empty when nothing was.
        steps, examples_seen, train_seconds, evaluate_seconds: what training and evaluation took; None of seconds that
            say nothing, since the run was stopped meanwhile or other work was beside it.
        train_memory: the most memory that training held, in MiB: of the GPU, or of the whole process; None: not known.
        interruptions: how often the run was continued from a checkpoint.
        inference: what computed evaluation and trunk; None: our own engine, without a choice.
    """

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-manifest"] = "polyprompt-manifest"
    version: Literal[1] = 1
    run: str
    created: str
    command: str
    code: str
    packages: dict[str, str]
    processor: str
    precision: str
    method: str
    seed: int
    prompt: str
    backbone: BackboneCard
    tasks: list[TaskCard]
    trained: dict[str, list[str]] = {}
    trainable: int
    share: float
    selection: SelectionCard | None = None
    thresholds: dict[str, dict[str, float]] = {}
    data: dict[str, str]
    limits: dict[str, int]
    steps: int
    examples_seen: int
    train_seconds: float | None
    evaluate_seconds: float | None
    train_memory: int | None = None
    interruptions: int
    inference: InferenceCard | None = None


def write_model(path: Path, model: BaseModel) -> None:
    """Write a manifest or results file, atomically."""
    write_atomic(path, model.model_dump_json(indent=2) + "\n")


def read_model(path: Path, model: type[Model]) -> Model:
    """Read a manifest or results file.

    Raises:
        PolypromptError: absent, not JSON, or not of the schema; names the file and the field.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise PolypromptError(f"{path}: no such file; is {path.parent} a finished run folder?") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise PolypromptError(f"{path}: {field}: {first['msg']}") from None


def predictions_path(task: str, language: str, split: str) -> str:
    """Path of a predictions file relative to its run folder."""
    return f"predictions/{task}.{language}.{split}.jsonl.gz"


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON line a prediction, gzip-compressed, atomically; equal predictions give equal bytes."""
    text = "".join(json.dumps(_line(row), ensure_ascii=False) + "\n" for row in predictions)
    write_atomic(path, gzip.compress(text.encode("utf-8"), mtime=0))


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote, or the same lines without compression; `scores` may be absent.

    Raises:
        PolypromptError: absent, damaged or malformed; names file and line.
    """
    number = 0
    try:
        rows = []
        lines = _lines(path)
        read = _together(lines)
        for number, line in enumerate(lines, 1):
            row = read[number - 1] if read else json.loads(line)
            value, gold, scores = _value(row["prediction"]), _optional(row["gold"]), tuple(row.get("scores", ()))
            rows.append(Prediction(row["id"], value, gold, scores, row.get("best"), row.get("group", "")))
        return rows
    except FileNotFoundError:
        raise PolypromptError(f"{path}: no such predictions file") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolypromptError(f"{path}:{max(number, 1)}: damaged predictions file ({error})") from None


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode("utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def _together(lines: list[str]) -> list[Any]:
    """What the lines hold, read in one go, which is several times as fast; nothing where one of them is damaged."""
    try:
        found = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        return []
    return found if len(found) == len(lines) else []


def _line(row: Prediction) -> dict[str, object]:
    scores = [round(score, 6) for score in row.scores]
    line: dict[str, object] = {"id": row.id, "prediction": row.value, "gold": row.gold, "scores": scores}
    return line | ({} if row.best is None else {"best": row.best}) | ({"group": row.group} if row.group else {})


def _value(raw: str | float | list[str]) -> str | float | tuple[str, ...]:
    return tuple(raw) if isinstance(raw, list) else raw


def _optional(raw: str | float | list[str] | None) -> str | float | tuple[str, ...] | None:
    return None if raw is None else _value(raw)
