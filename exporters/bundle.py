"""The bundle: an exported model on disk, complete, hashed, and refused when anything in it does not fit."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.results import BackboneCard, read_model, write_model
from benchmarks.task import TaskCard
from exporters.batching import Form as BatchForm
from exporters.batching import Pace
from exporters.engines import EngineCard
from exporters.graph import Graph, Output
from exporters.store import known_sha256, put
from exporters.tasks import TASKS, Tensors, merge
from harness.heads import HeadKind, HeadLayers, Pooling
from harness.lock import Busy, locked
from harness.placement import Placement

CARD = "bundle.json"
MODEL = "model.onnx"
PACKED = "packed.onnx"
"""The graph in packed form, see `exporters.packed`; it refers to the same weights."""

NATIVE = "native.onnx"
"""The graph over the compiled operator, see `exporters.native_form`; it refers to the same weights."""

STATIC, PACKED_STATIC, NATIVE_STATIC = "openvino.onnx", "openvino-packed.onnx", "openvino-native.onnx"
"""The graphs of an int8 bundle with ranges of their states built in, which OpenVINO computes in integers."""

TOKENIZER = "tokenizer.json"

LIGHT = 1 << 29
"""Bytes of the layers' weights up to which each open graph may have a copy of them."""

BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
"""Of a weight."""

_TASKS_FILE = re.compile(r"tasks(-[0-9a-f]{16})?\.safetensors")

Value = TypeVar("Value")

RowInput = Literal["sequence_rows", "whole_rows"]
"""Inputs of the graph that name rows of a batch: which are answered from one piece, and which from all."""


class Form(StrEnum):
    """How rows are answered: each for its task; each for all tasks at once, see `exporters.together`; or each for its
    task and only in the native form, wherever the compiled operator is there.
    """

    MIXED = "mixed"
    ALL = "all"
    PACKED = "packed"


class StoredFile(BaseModel):
    """One file of a bundle: its size and SHA-256."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


def _is_last(value: object) -> bool:
    return value == HeadLayers.LAST


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(values: dict[str, int] | dict[str, float]) -> bool:
    return not values


class BundledTask(BaseModel):
    """One task of a bundle.

    Attributes:
        card: how to encode and decode it.
        run, run_task: where it comes from, and its name there.
        file: of its tensors, see `exporters.tasks`.
        task_id: what the graph knows it by when it is fed that file alone. The tensors of several files are laid one
            behind the other, in the order of the tasks, and so are the ids.
        languages: language with a prompt of its own -> what the graph knows the task in it by; all other languages
            share `task_id`.
        output: the output of the graph that answers for it.
        first_column, columns: which columns of that output are its own.
        threshold: of "no answer", see `benchmarks.thresholds`; None: "no answer" where it scores highest, and never in
            retrieval.
        thresholds: language -> its own threshold, where several languages have one; all others share `threshold`.
        head: how a sequence task is answered: linear on a state, behind a pooler, or by a masked-LM head.
        mask_id: the mask piece, which stands behind the first one in each row; None: there is none.
        slots: prompt length; 0 without a prompt. prompt_layers: layers that have one; none: it is in the input.
        max_positions: pieces of the longest row.
    """

    model_config = ConfigDict(extra="forbid")

    card: TaskCard
    run: str
    run_task: str
    file: str = TASKS
    task_id: int
    output: Output
    first_column: int = 0
    columns: int
    threshold: float | None = None
    languages: dict[str, int] = Field(default_factory=dict, exclude_if=_is_empty)
    thresholds: dict[str, float] = Field(default_factory=dict, exclude_if=_is_empty)
    head: HeadKind = HeadKind.LINEAR
    mask_id: int | None = None
    slots: int
    prompt_layers: list[int]
    max_positions: int


class TaskParity(BaseModel):
    """How well the exported graph agrees with PyTorch on real rows of one task.

    Attributes:
        examples, languages: what was compared.
        difference: largest absolute difference of any output value.
        agreement: share of examples with equal predictions, 0..1.
        original, score: the task's main metric on these examples, in points, of the original and of the bundle, as
            means over the languages; None where they cannot be scored by themselves (retrieval, rows without labels).
    """

    model_config = ConfigDict(extra="forbid")

    examples: int
    languages: list[str]
    difference: float
    agreement: float
    original: float | None = None
    score: float | None = None

    @property
    def drop(self) -> float:
        """Points that are lost; without scores, of 100 answers those that changed, which bounds it."""
        if self.original is None or self.score is None:
            return 100 * (1 - self.agreement)
        return self.original - self.score


class Parity(BaseModel):
    """What `exporters.verify` found with one engine.

    Attributes:
        engine: what was compared.
        atol: largest absolute difference that was allowed; None: any.
        max_drop: most points of any task that were allowed to be lost; None: any.
        difference: largest difference found, over all tasks. drop: most points lost by a task.
        milliseconds: a row, on these rows, with what turns text into pieces; on the machine of the check.
        tasks: task name -> its part.
        pace: what the engine takes for a batch, see `exporters.pace`; None: it was not measured.
        packed, native: the same of these forms; None: there is none, it was not to be had, or it does not agree.
        streams: in the reports of these forms their pace with parts of the rows side by side; None: it cannot do that.
    """

    model_config = ConfigDict(extra="ignore")  # bundles of earlier versions have a pace of another form

    engine: EngineCard
    atol: float | None
    max_drop: float | None
    difference: float
    drop: float
    milliseconds: float
    tasks: dict[str, TaskParity]
    pace: Pace | None = Field(default=None, exclude_if=_is_none)
    packed: Parity | None = Field(default=None, exclude_if=_is_none)
    native: Parity | None = Field(default=None, exclude_if=_is_none)
    streams: Pace | None = Field(default=None, exclude_if=_is_none)

    @property
    def forms(self) -> dict[BatchForm, Parity]:
        """The reports by form, the padded one first."""
        found: dict[BatchForm, Parity | None] = {"padded": self, "packed": self.packed, "native": self.native}
        return {form: report for form, report in found.items() if report is not None}

    def joined(self, later: Parity) -> Parity:
        """With the report on further tasks."""
        worst = {"difference": max(self.difference, later.difference), "drop": max(self.drop, later.drop)}
        mine, theirs = self.forms, later.forms
        both = {form: mine[form].joined(theirs[form]) if form in theirs else None for form in list(mine)[1:]}
        return self.model_copy(update={**worst, "tasks": {**self.tasks, **later.tasks}, **both})

    def without(self, names: Collection[str]) -> Parity:
        """Of the tasks that are left."""
        left = {name: part for name, part in self.tasks.items() if name not in names}
        others = {form: report.without(names) for form, report in self.forms.items() if report is not self}
        return self.model_copy(update={"tasks": left, **others})


class KeptPieces(BaseModel):
    """What trimming keeps of the dev rows of a language, over all tasks.

    Attributes:
        pieces: running pieces of the rows, with the whole vocabulary.
        kept: share of them whose piece is kept, 0..1.
        new_text: the same if these rows had not been among those that pieces were chosen by, 0..1: what other text
            of this kind may expect.
    """

    model_config = ConfigDict(extra="forbid")

    pieces: int
    kept: float
    new_text: float


class TrimmedScore(BaseModel):
    """What trimming does to the score of a task in a language.

    Attributes:
        split: "dev", or the reported one where there is no dev. rows: how many were scored.
        changed: rows among them with a piece that was left out.
        metric: the task's main one. full, trimmed: its value with both vocabularies, in points.
    """

    model_config = ConfigDict(extra="forbid")

    split: str
    rows: int
    changed: int
    metric: str
    full: float
    trimmed: float


class VocabularyReport(BaseModel):
    """What `exporters.trimming` kept of a vocabulary, and what that costs.

    Attributes:
        languages, texts: what the pieces were chosen by; of texts the names of the files.
        pieces: how many are kept. of: rows of the whole word embeddings.
        saved_bytes: of the word embeddings in fp32.
        coverage: language -> share of running pieces. scores: task -> language -> scores.
    """

    model_config = ConfigDict(extra="forbid")

    languages: list[str]
    texts: list[str]
    pieces: int
    of: int
    saved_bytes: int
    coverage: dict[str, KeptPieces]
    scores: dict[str, dict[str, TrimmedScore]]


class RetunedScore(BaseModel):
    """The main metric of a task on the compared rows, in points, with prompts as in the run and as they are now.

    PyTorch computed both over weights rounded as in the graph and in fp32 otherwise; None where rows cannot be scored.
    """

    model_config = ConfigDict(extra="forbid")

    before: float | None
    after: float | None


class Retuning(BaseModel):
    """How prompts and heads were trained on against the quantised weights, see `exporters.retune`.

    Attributes:
        steps, examples: of that training. rate: its first learning rate, which falls linearly to zero.
        scores: by task.
    """

    model_config = ConfigDict(extra="forbid")

    steps: int
    examples: int
    rate: float
    scores: dict[str, RetunedScore]


class BundleCard(BaseModel):
    """bundle.json: everything about a bundle but its tensors.

    Attributes:
        run, method: where it comes from.
        form: how rows are answered.
        backbone: the encoder. precision: of its weights and of the products with them.
        placement: where the graph has room for prompts; None: nowhere.
        pooling: what linear sequence heads read. readout: what others read. head_layers: what those of tags and answers
            read, see `exporters.graph.Blueprint`.
        token_types: the graph has the input `token_type_ids`.
        pad_id: piece that fills rows up. mask_id: the mask piece; None: the tokenizer has none.
        max_positions: pieces that the encoder takes.
        tasks: all of them.
        files: name -> size and hash of every other file.
        parity: engine, see `exporters.engines.ENGINES` -> agreement with PyTorch on real rows. Engines that do not
            agree, or were not there, are absent; the first one is absent only while an export is under way.
        vocabulary: what trimming left of it; None: it is whole.
        retuning: how the prompts of the first run were adapted to the precision; None: they are those of the run.
    """

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-bundle"] = "polyprompt-bundle"
    version: Literal[2] = 2
    run: str
    method: str
    form: Form = Form.MIXED
    backbone: BackboneCard
    precision: Literal["fp32", "fp16", "int8", "int4"] = "fp32"
    placement: Placement | None
    pooling: Pooling
    readout: HeadKind = HeadKind.LINEAR
    head_layers: HeadLayers = Field(default=HeadLayers.LAST, exclude_if=_is_last)
    token_types: bool
    pad_id: int
    mask_id: int | None = None
    max_positions: int
    tasks: list[BundledTask]
    files: dict[str, StoredFile] = {}
    parity: dict[str, Parity] = {}
    vocabulary: VocabularyReport | None = Field(default=None, exclude_if=_is_none)
    retuning: Retuning | None = Field(default=None, exclude_if=_is_none)

    def rows_of(self, task: BundledTask) -> RowInput:
        """The input of the graph in which the rows of a task are named."""
        one = task.output == "sequence_logits" and self.pooling is Pooling.CLS
        return "sequence_rows" if one else "whole_rows"

    @property
    def light(self) -> bool:
        """Whether each open graph may have a copy of the layers' weights, in the order in which its products read them.

        ONNX Runtime is faster with it. Layers are taken for ordinary ones: 12 hidden² weights each.
        """
        weights = 12 * self.backbone.layers * self.backbone.hidden**2
        return weights * BITS[self.precision] // 8 <= LIGHT

    @property
    def shortest_limit(self) -> int:
        """Pieces that the rows of every task may have."""
        return min(task.max_positions for task in self.tasks)

    @property
    def row_inputs(self) -> tuple[RowInput, ...]:
        """All such inputs of the graph."""
        return ("sequence_rows", "whole_rows") if self.pooling is Pooling.CLS else ("whole_rows",)


def write_bundle(
    folder: Path,
    card: BundleCard,
    graph: Graph,
    tasks: Tensors,
    tokenizer: str,
    beside: Iterable[Path] | None = (),
    packed: Graph | None = None,
    native: Graph | None = None,
) -> BundleCard:
    """Write the files of a bundle into an existing folder.

    Args:
        folder: where; see `complete_or_absent`.
        card: without `files`.
        graph: the model and the weights of its encoder. tasks: what it is fed for the tasks.
        tokenizer: content of tokenizer.json.
        beside: other bundles, whose file of weights may be the same; None: it is to have a file of its own.
        packed, native: the graph in these forms, over the same weights; None: there is none.

    Returns:
        The card that was written, with the hashes of the files.
    """
    write_atomic(folder / MODEL, graph.model.SerializeToString(deterministic=True))
    write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / TASKS, save(tasks))
    names = [MODEL, TOKENIZER, TASKS]
    for name, other in ((NATIVE, native), (PACKED, packed)):
        if other is not None:
            write_atomic(folder / name, other.model.SerializeToString(deterministic=True))
            names.insert(1, name)
    files = {name: stored(folder / name) for name in names}
    others = None if beside is None else [other / graph.backbone.name for other in beside]
    weights = put(graph.backbone, folder, others)
    files[graph.backbone.name] = StoredFile(bytes=graph.backbone.bytes, sha256=weights)
    card = card.model_copy(update={"files": files})
    write_model(folder / CARD, card)
    return card


def stored(path: Path) -> StoredFile:
    """What the card says of a file."""
    return StoredFile(bytes=path.stat().st_size, sha256=known_sha256(path))


def read_card(folder: Path) -> BundleCard:
    """Read a bundle's card.

    Raises:
        PolypromptError: no bundle, or a card that is damaged, of another version, or names files that do not belong.
    """
    if not (folder / CARD).is_file():
        raise PolypromptError(f"{folder}: no {CARD} there; make a bundle with `python -m exporters.export RUN`")
    _check_version(folder / CARD)
    card = read_model(folder / CARD, BundleCard)
    for name in card.files:
        _check_location(folder, name, CARD)
    for name in (MODEL, TOKENIZER, *(task.file for task in card.tasks)):
        if name not in card.files:
            raise PolypromptError(f"{folder / CARD}: files: {name} is not listed")
    return card


def open_bundle(folder: Path, hashed: Callable[[Path], str] = known_sha256) -> BundleCard:
    """Read a bundle's card and check every file.

    Args:
        folder: the bundle. hashed: how a file is hashed, see `exporters.store.known_sha256`.

    Raises:
        PolypromptError: no bundle; or a file that is missing, differs from its hash, or lies outside of the folder.
            Names the file.
    """

    def check(card: BundleCard) -> BundleCard:
        for name, stored in card.files.items():
            check_file(folder / name, stored, hashed)
        for name in card.files:
            if name.endswith(".onnx"):
                _check_tensors(folder, card, name)
        return card

    return as_it_is(folder, check)


def check_file(path: Path, stored: StoredFile, hashed: Callable[[Path], str] = known_sha256) -> None:
    """See that a file is what a card says.

    Raises:
        PolypromptError: it is missing or another one.
    """
    if not path.is_file():
        raise PolypromptError(f"{path}: missing; the bundle is not complete, export the run again")
    if path.stat().st_size != stored.bytes or hashed(path) != stored.sha256:
        raise PolypromptError(f"{path}: damaged, it is not the file that {CARD} describes; export the run again")


def as_it_is(folder: Path, read: Callable[[BundleCard], Value]) -> Value:
    """Read from a bundle, and once more where it was changed meanwhile.

    Args:
        folder: the bundle. read: does it, by the card.
    """
    card = read_card(folder)
    while True:
        try:
            return read(card)
        except (PolypromptError, FileNotFoundError):
            before, card = card, read_card(folder)
            if card == before:
                raise


def read_tasks(folder: Path, card: BundleCard) -> tuple[list[BundledTask], Tensors]:
    """The tasks of a bundle, with the ids that the graph knows them by, and what it is fed for them.

    Raises:
        PolypromptError: not a file of tensors.
    """
    names = list(dict.fromkeys(task.file for task in card.tasks))
    tensors, offsets = merge([read_part(folder / name) for name in names])
    begin = dict(zip(names, offsets, strict=True))
    return [_moved(task, begin[task.file]) for task in card.tasks], tensors


def read_part(path: Path) -> Tensors:
    """One file of tasks.

    Raises:
        PolypromptError: not a file of tensors.
    """
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise PolypromptError(f"{path}: not a file of tensors ({error})") from None


def find_bundled(tasks: Iterable[BundledTask], name: str) -> BundledTask:
    """A task by its name.

    Raises:
        PolypromptError: there is none; proposes one.
    """
    known = {task.card.name: task for task in tasks}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise PolypromptError(f"the bundle has no task {name!r}, only {', '.join(known)}{hint}")
    return known[name]


def _moved(task: BundledTask, by: int) -> BundledTask:
    languages = {code: number + by for code, number in task.languages.items()}
    return task.model_copy(update={"task_id": task.task_id + by, "languages": languages})


def changeable(folder: Path) -> BundleCard:
    """The card of a bundle that gets or loses tasks.

    Raises:
        PolypromptError: its form does not allow it.
    """
    card = read_card(folder)
    if card.form is Form.ALL:
        raise PolypromptError(f"{folder}: of the form all, whose tasks stay as they are; export with --form mixed")
    return card


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """A block in which no other process changes a bundle.

    Raises:
        PolypromptError: another one does.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except Busy:
            raise PolypromptError(f"{folder}: another process is changing it; try again when it has finished") from None
        yield


def replace_tasks(folder: Path, card: BundleCard, new: Mapping[str, Tensors]) -> BundleCard:
    """Give a bundle other tasks: it has the old ones or the new ones at any moment.

    Args:
        folder: the bundle, see `changing`.
        card: with the new tasks. new: files that are not there yet, by the names of `tasks_file`.

    Returns:
        The card that was written.
    """
    used = {task.file for task in card.tasks}
    files = {name: there for name, there in card.files.items() if name in used or not _TASKS_FILE.fullmatch(name)}
    for name, tensors in new.items():
        write_atomic(folder / name, save(tensors))
        files[name] = stored(folder / name)
    card = card.model_copy(update={"files": files})
    write_model(folder / CARD, card)
    for path in folder.iterdir():  # also what a killed process left
        if _TASKS_FILE.fullmatch(path.name) and path.name not in files:
            path.unlink(missing_ok=True)
    return card


def tasks_file(tensors: Tensors) -> str:
    """Name of a further file of tasks, by its content."""
    return f"tasks-{hashlib.sha256(save(tensors)).hexdigest()[:16]}.safetensors"


@contextmanager
def complete_or_absent(target: Path, mark: str = CARD) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` when the block ends well and vanishes when it does not.

    Args:
        target: where it goes. mark: a file that every such folder has, so that nothing else is replaced.

    Raises:
        PolypromptError: `target` exists and is neither an empty folder nor one with the mark.
    """
    if target.exists() and not (target.is_dir() and ((target / mark).is_file() or not any(target.iterdir()))):
        raise PolypromptError(f"{target}: exists and has no {mark}; choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        new, old = Path(aside) / "new", Path(aside) / "old"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)


def _check_version(path: Path) -> None:
    """Say what to do about a bundle of an older version; what is no card at all is for its reader to refuse."""
    with suppress(ValueError):
        about = json.loads(path.read_bytes())
        if isinstance(about, dict) and about.get("version") == 1:
            raise PolypromptError(f"{path}: a bundle of version 1, whose graph holds its tasks; export the run again")


def _check_tensors(folder: Path, card: BundleCard, graph_name: str) -> None:
    """Every tensor outside of the graph lies inside a file of the bundle."""
    path = folder / graph_name
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        raise PolypromptError(f"{path}: not an ONNX file") from None
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place.get("location", "")
        _check_location(folder, name, graph_name)
        if name not in card.files:
            raise PolypromptError(f"{path}: refers to {name!r}, which {CARD} does not list")
        try:
            offset, length = int(place["offset"]), int(place["length"])
        except (KeyError, ValueError):
            raise PolypromptError(f"{path}: tensor {tensor.name} has no place in {name}") from None
        if offset < 0 or length < 0 or offset + length > card.files[name].bytes:
            raise PolypromptError(f"{path}: tensor {tensor.name} lies beyond the end of {name}")


def _check_location(folder: Path, name: str, where: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise PolypromptError(f"{folder / where}: refers to {name!r}, which is not a file in the bundle's folder")
