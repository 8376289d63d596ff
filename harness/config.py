"""What is asked of a run: one record, from defaults, a TOML file and the command line, in that order."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from benchmarks.errors import PolypromptError
from benchmarks.files import sha256, write_atomic
from benchmarks.task import Decoding
from harness.heads import HeadKind, HeadLayers, Pooling
from harness.held_out import Selection
from harness.methods import PromptOf, find_method
from harness.mixture import Sampling
from harness.placement import Init, Positions, Sharing
from harness.tracking import TrackerName


def _listed(value: object) -> object:
    """A single setting as a list of one."""
    return value if isinstance(value, list) else [value]


Positive = Annotated[int, Field(gt=0)]

ALL = "all"
"""Among `train_languages`: every language that a task has a training split in."""


class RunConfig(BaseModel):
    """The settings of a run; the names are those of the command line with underscores.

    Attributes:
        suite: suites to learn together. tasks: a part of their tasks; empty: all.
        languages: a part of the evaluation languages; empty: all that are found.
        train_languages: train each task in those of these languages that it has a training split in, see `ALL`; empty:
            in its own `train_language`.
        task_file: files that declare the user's own tasks (docs/own-tasks.md); their suites, where `suite` is empty.
        task_file_sha256: of what these files say, in their order.
        backbone: hub id, local folder or embedded name.
        method: see `harness.methods`.
        prompt_length: slots a layer. prompt_layers: see `harness.prompt.parse_layers`.
        init: see `harness.placement.Init`. positions: see `harness.placement.Positions`.
        start_from: a folder whose prompt training begins with, and whose heads of the same tasks: a run, or what
            `harness.interchange` wrote. start_from_sha256: of these files.
        sharing: see `harness.placement.Sharing`. rank: of the parts of `low-rank`.
        retrieval_prompt: give retrieval, for which nothing trains, the prompt that the other tasks share; without it
            such tasks read the encoder as it is.
        reparameterise: make the prompt by an MLP. prompt_dropout: on the prompt, in training.
        lora_rank, lora_alpha: see `harness.adapt.adapt`.
        pooling: what linear sequence heads read.
        head: how sequence tasks are answered, see `harness.heads.HeadKind`.
        head_layers: what the heads of tags and answers read, see `harness.heads.HeadLayers`.
        label_words: of `verbaliser`: task -> label -> the word that is scored for it; absent ones stand for themselves.
        sampling, temperature: how tasks are mixed.
        epochs: passes over all training rows in the mean; None: the method's default. max_steps: stop there;
            0: only predict and score.
        selection: see `harness.held_out.Selection`.
        shots: train on so many rows a task and language alone, chosen by `shots_seed`, and select on as many others;
            None: on all.
        max_length: pieces a row, in place of each task's own; None: each task's own.
        decay: of the learning rate: linear to zero, or by a factor of 0.95 after each epoch (the authors' code for
            tagging and question answering).
        warmup: over this share of the training the learning rate rises to what it then decays from.
        batch: examples a step; None where `tokens_per_batch` decides: as many as fit into so many pieces with padding,
            at least one. Epochs, rates and the mixture of tasks then count examples in place of steps.
        learning_rate: of AdamW; of several the one that selects best; empty: the method's.
        head_learning_rate: of the heads alone; None: that of all.
        weight_decay: of AdamW; None: the method's.
        splits: splits to predict and, where they are labelled, score; empty: the reported one of each task.
        max_train, max_eval: at most so many examples a task and language, drawn by a fixed seed; None: all.
        precision: "auto" is bf16 autocast where the processor computes in bf16, else fp32.
        engine: what computes a frozen encoder: "own" (`harness.encoder`) or "transformers", which is slower.
        decode: how tasks of tagging choose their tags, see `TaskCard.decoding`; "viterbi" is for those of BIO or IOBES
            tags, others go on as they are.
        inference: what computes a frozen encoder where nothing is trained through it, evaluation and trunk: "own", the
            name of another engine, or "auto": the fastest one, see `harness.engines`.
        seed: of initialisation, order and dropout.
        data_dir: folder with the official files; None: the hub.
        files: "task.split" -> files read in place of the official ones.
        skip_missing: leave out tasks and languages whose files are missing.
        cache_gb: gigabytes of disk for states of layers below the prompt, see `harness.trunk.TrunkCache`; 0: none.
        micro_batch: at most so many examples of a batch in one pass; the result does not depend on it.
        checkpoint_activations: compute hidden states again on the way back in place of keeping them.
        shard_backbone: divide a frozen backbone's weights among the processes that train together.
        patience: stop after so many epochs that bring nothing better; needs a selection.
        checkpoint_seconds: time between checkpoints.
        tracker: what shows the run while it goes on, see `harness.tracking.TrackerName`.
        out: folder of runs. name: folder of this run in it; None: made from the settings.
    """

    model_config = ConfigDict(extra="forbid")

    suite: list[str] = []
    tasks: list[str] = []
    languages: list[str] = []
    train_languages: list[str] = []
    task_file: list[Path] = []
    task_file_sha256: list[str] = []
    backbone: str = "minilm-l6-en"
    method: str = "ptuning-v2"
    prompt_length: Positive = 16
    prompt_layers: str = "all"
    init: Init = Init.KV
    positions: Positions = Positions.OWN
    start_from: Path | None = None
    start_from_sha256: list[str] = []
    sharing: Sharing = Sharing.SHARED
    rank: Positive = 2
    retrieval_prompt: bool = False
    reparameterise: bool = False
    prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_rank: Positive = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    pooling: Pooling = Pooling.CLS
    head: HeadKind = HeadKind.LINEAR
    head_layers: HeadLayers = HeadLayers.LAST
    label_words: dict[str, dict[str, str]] = {}
    sampling: Sampling = Sampling.PROPORTIONAL
    temperature: Annotated[float, Field(ge=1)] = 2.0
    epochs: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(ge=0)] | None = None
    batch: Positive | None = 32
    tokens_per_batch: Positive | None = None
    selection: Selection = Selection.HELD_OUT
    shots: Positive | None = None
    shots_seed: Annotated[int, Field(ge=0)] = 0
    max_length: Annotated[int, Field(ge=8)] | None = None
    learning_rate: Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(_listed)] = []
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    decay: Literal["linear", "exponential"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    splits: list[Literal["train", "dev", "test"]] = []
    max_train: Positive | None = None
    max_eval: Positive | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    engine: Literal["own", "transformers"] = "own"
    decode: Decoding = "greedy"
    inference: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    data_dir: Path | None = None
    files: dict[str, list[str]] = {}
    skip_missing: bool = False
    cache_gb: Annotated[float, Field(ge=0)] = 4.0
    micro_batch: Positive | None = None
    checkpoint_activations: bool = False
    shard_backbone: bool = False
    patience: Positive | None = None
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    tracker: TrackerName = TrackerName.AUTO
    out: Path = Path("runs")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_one_size(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if settings.get("tokens_per_batch") is None:
            return settings
        if settings.get("batch") is not None:
            raise PydanticCustomError("batch", "--batch and --tokens-per-batch both say how large a step is: give one")
        return settings | {"batch": None}

    @field_validator("head")
    @classmethod
    def _reads_the_first_piece(cls, head: HeadKind, info: ValidationInfo) -> HeadKind:
        if head is HeadKind.POOLER and info.data.get("pooling") is Pooling.MEAN:
            raise PydanticCustomError("head", "a pooler reads the first piece, so leave --pooling mean away")
        return head

    @property
    def identity(self) -> str:
        """A hash of everything that decides the result: equal settings have equal identities."""
        where = {"out", "name", "checkpoint_seconds", "tracker", "task_file", "start_from", "shard_backbone"}
        if self.tokens_per_batch is None:  # runs that are older than this setting go on
            where.add("tokens_per_batch")
        if self.head_layers is HeadLayers.LAST:
            where.add("head_layers")
        if self.head_learning_rate is None:
            where.add("head_learning_rate")
        if self.inference == "auto":
            where.add("inference")
        if self.decode == "greedy":
            where.add("decode")
        text = json.dumps(self.model_dump(mode="json", exclude=where), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        """The run folder."""
        backbone = Path(self.backbone).name
        suites = ".".join(self.suite) or "own"
        made = "-".join([suites, self.method, backbone, f"s{self.seed}", self.identity])
        return self.out / (self.name or made)

    @property
    def limits(self) -> dict[str, int]:
        """What was cut for time."""
        cuts = {name: getattr(self, name) for name in ("shots", "max_train", "max_eval", "max_steps")}
        return {name: value for name, value in cuts.items() if value is not None}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; keys may be written with hyphens, as on the command line.

    Raises:
        PolypromptError: absent or not TOML; names file and place.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PolypromptError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise PolypromptError(f"{path}: not valid TOML: {error}") from None
    return {key.replace("-", "_"): value for key, value in raw.items()}


def before(settings: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Settings with later ones, which go before them; a later size of the batch does so whichever way it is said."""
    sizes = {"batch", "tokens_per_batch"}
    kept = settings.items() if sizes.isdisjoint(later) else [item for item in settings.items() if item[0] not in sizes]
    return dict(kept) | later


def make_config(settings: dict[str, Any], source: str) -> RunConfig:
    """Settings of a new run, checked; files that it uses by absolute path and with the hashes of what they say now.

    Args:
        settings: name -> value. source: where they come from, for the error.

    Raises:
        PolypromptError: unknown name or bad value, or a file that is not there; names it.
    """
    config = _begun(_checked(settings, source), settings, source)
    for path in config.task_file:
        if not path.is_file():
            raise PolypromptError(f"{source}: --task-file {path}: no such file")
    files = [path.absolute() for path in config.task_file]
    return config.model_copy(update={"task_file": files, "task_file_sha256": [sha256(path) for path in files]})


def _begun(config: RunConfig, settings: dict[str, Any], source: str) -> RunConfig:
    """The settings with those of the prompt that training begins with, which no setting may contradict."""
    if config.start_from is None:
        return config
    # They load torch, which takes seconds, and few runs begin with a prompt.
    from harness.model import HEADS
    from harness.sharing import PROMPT, PromptBank

    folder, method = config.start_from, find_method(config.method)
    bank = PromptBank.read(folder)
    layers, gated = bank.placement.layers, bank.placement.gated
    if method.prompt is not (PromptOf.INPUT if layers is None else PromptOf.DEEP):
        right = "prompt-tuning" if layers is None else "ptuning-v2"
        raise PolypromptError(f"{source}: --start-from {folder}: its prompt is for --method {right}")
    found = {
        "prompt_length": bank.slots,
        "prompt_layers": "all" if layers is None else ",".join(map(str, layers)),
        "positions": bank.placement.positions,
        "init": Init.ZERO_GATED if gated else Init.KV,
    }
    for name, value in found.items():
        if name in settings and getattr(config, name) != value:
            option = "--" + name.replace("_", "-")
            raise PolypromptError(f"{source}: {option} {settings[name]}: leave it out, {folder} says {value}")
    hashes = [sha256(folder / name) for name in (PROMPT, HEADS) if (folder / name).is_file()]
    return config.model_copy(update=found | {"start_from": folder.absolute(), "start_from_sha256": hashes})


def load_config(path: Path) -> RunConfig:
    """The config.toml of a run, as it was begun."""
    return _checked(read_settings(path), str(path))


def _checked(settings: dict[str, Any], source: str) -> RunConfig:
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
        if first["type"] == "extra_forbidden":
            known = ", ".join(name.replace("_", "-") for name in RunConfig.model_fields)
            raise PolypromptError(f"{source}: {option[2:]} is no setting; known are {known}") from None
        place = f"{option} {first['input']!r}: " if first["loc"] else ""
        raise PolypromptError(f"{source}: {place}{first['msg']}") from None


def refuse_begun(config: RunConfig) -> None:
    """Refuse to begin a run a second time.

    Raises:
        PolypromptError: its folder is there.
    """
    if (config.folder / "config.toml").exists():
        raise PolypromptError(
            f"{config.folder} exists: add --resume to go on with it, or choose another --name or --out"
        )


def save_config(config: RunConfig, path: Path) -> None:
    """Write every setting, defaults included, so that the run does not change when a default does."""
    settings = {key: value for key, value in config.model_dump(mode="json").items() if value is not None}
    write_atomic(path, tomli_w.dumps(settings))
