"""The bundle: an exported model on disk, complete, hashed, and refused when anything in it does not fit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from benchmarks.errors import PolypromptError
from benchmarks.files import sha256, write_atomic
from benchmarks.results import BackboneCard, read_model, write_model
from benchmarks.task import TaskCard
from exporters.graph import Graph, Output
from exporters.tasks import TASKS, Tensors
from harness.heads import HeadKind, Pooling
from harness.placement import Placement

CARD = "bundle.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"

RowInput = Literal["sequence_rows", "whole_rows"]
"""Inputs of the graph that name rows of a batch: which are answered from one piece, and which from all."""


class StoredFile(BaseModel):
    """One file of a bundle: its size and SHA-256."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


def _is_empty(values: dict[str, int] | dict[str, float]) -> bool:
    return not values


class BundledTask(BaseModel):
    """One task of a bundle.

    Attributes:
        card: how to encode and decode it.
        task_id: what the graph knows it by.
        languages: language with a prompt of its own -> what the graph knows the task in it by; all other languages
            share `task_id`.
        output: the output of the graph that answers for it.
        columns: how many columns of that output are its own.
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
    task_id: int
    output: Output
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
    """

    model_config = ConfigDict(extra="forbid")

    examples: int
    languages: list[str]
    difference: float
    agreement: float


class Parity(BaseModel):
    """What `exporters.verify` found.

    Attributes:
        engine: name and version of the runtime that was compared.
        atol: largest absolute difference that was allowed.
        difference: largest one found, over all tasks.
        tasks: task name -> its part.
    """

    model_config = ConfigDict(extra="forbid")

    engine: str
    atol: float
    difference: float
    tasks: dict[str, TaskParity]


class BundleCard(BaseModel):
    """bundle.json: everything about a bundle but its tensors.

    Attributes:
        run, method: where it comes from.
        backbone: the encoder. precision: of all tensors.
        placement: where the graph has room for prompts; None: nowhere.
        pooling: what linear sequence heads read. readout: what others read, see `exporters.graph.Blueprint`.
        token_types: the graph has the input `token_type_ids`.
        pad_id: piece that fills rows up.
        tasks: in the order of their ids.
        files: name -> size and hash of every other file.
        parity: agreement with PyTorch on real rows; None only while an export is under way.
    """

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-bundle"] = "polyprompt-bundle"
    version: Literal[2] = 2
    run: str
    method: str
    backbone: BackboneCard
    precision: Literal["fp32"] = "fp32"
    placement: Placement | None
    pooling: Pooling
    readout: HeadKind = HeadKind.LINEAR
    token_types: bool
    pad_id: int
    tasks: list[BundledTask]
    files: dict[str, StoredFile] = {}
    parity: Parity | None = None

    def rows_of(self, task: BundledTask) -> RowInput:
        """The input of the graph in which the rows of a task are named."""
        one = task.output == "sequence_logits" and self.pooling is Pooling.CLS
        return "sequence_rows" if one else "whole_rows"

    @property
    def row_inputs(self) -> tuple[RowInput, ...]:
        """All such inputs of the graph."""
        return ("sequence_rows", "whole_rows") if self.pooling is Pooling.CLS else ("whole_rows",)


def write_bundle(folder: Path, card: BundleCard, graph: Graph, tasks: Tensors, tokenizer: str) -> BundleCard:
    """Write the files of a bundle into an existing folder.

    Args:
        folder: where; see `complete_or_absent`.
        card: without `files`.
        graph: the model and the weights of its encoder. tasks: what it is fed for the tasks.
        tokenizer: content of tokenizer.json.

    Returns:
        The card that was written, with the hashes of the files.
    """
    write_atomic(folder / MODEL, graph.model.SerializeToString(deterministic=True))
    write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / graph.backbone.name, graph.backbone.write)
    write_atomic(folder / TASKS, save(tasks))
    names = (MODEL, graph.backbone.name, TASKS, TOKENIZER)
    files = {name: StoredFile(bytes=(folder / name).stat().st_size, sha256=sha256(folder / name)) for name in names}
    card = card.model_copy(update={"files": files})
    write_model(folder / CARD, card)
    return card


def open_bundle(folder: Path) -> BundleCard:
    """Read a bundle's card and check every file.

    Raises:
        PolypromptError: no bundle; or a file that is missing, differs from its hash, or lies outside of the folder.
            Names the file.
    """
    if not (folder / CARD).is_file():
        raise PolypromptError(f"{folder}: no {CARD} there; make a bundle with `python -m exporters.export RUN`")
    _check_version(folder / CARD)
    card = read_model(folder / CARD, BundleCard)
    for name, stored in card.files.items():
        _check_location(folder, name, CARD)
        path = folder / name
        if not path.is_file():
            raise PolypromptError(f"{path}: missing; the bundle is not complete, export the run again")
        if path.stat().st_size != stored.bytes or sha256(path) != stored.sha256:
            raise PolypromptError(f"{path}: damaged, it is not the file that {CARD} describes; export the run again")
    for name in (MODEL, TASKS, TOKENIZER):
        if name not in card.files:
            raise PolypromptError(f"{folder / CARD}: files: {name} is not listed")
    _check_tensors(folder, card)
    return card


def read_tasks(folder: Path) -> Tensors:
    """What the graph of a bundle is fed for its tasks.

    Raises:
        PolypromptError: not a file of tensors.
    """
    try:
        return load((folder / TASKS).read_bytes())
    except SafetensorError as error:
        raise PolypromptError(f"{folder / TASKS}: not a file of tensors ({error})") from None


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


def _check_tensors(folder: Path, card: BundleCard) -> None:
    """Every tensor outside of the graph lies inside a file of the bundle."""
    try:
        graph = onnx.load(folder / MODEL, load_external_data=False).graph
    except DecodeError:
        raise PolypromptError(f"{folder / MODEL}: not an ONNX file") from None
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place.get("location", "")
        _check_location(folder, name, MODEL)
        if name not in card.files:
            raise PolypromptError(f"{folder / MODEL}: refers to {name!r}, which {CARD} does not list")
        try:
            offset, length = int(place["offset"]), int(place["length"])
        except (KeyError, ValueError):
            raise PolypromptError(f"{folder / MODEL}: tensor {tensor.name} has no place in {name}") from None
        if offset < 0 or length < 0 or offset + length > card.files[name].bytes:
            raise PolypromptError(f"{folder / MODEL}: tensor {tensor.name} lies beyond the end of {name}")


def _check_location(folder: Path, name: str, where: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise PolypromptError(f"{folder / where}: refers to {name!r}, which is not a file in the bundle's folder")
