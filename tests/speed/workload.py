"""A random encoder that is trained or predicts, and the memory that this takes; `tests.speed.memory` starts it."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import BertConfig, BertModel

from benchmarks.records import Example, Split
from benchmarks.task import Kind, Task, TaskCard
from harness import encoder
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import TaskRows
from harness.device import find_device
from harness.evaluate import compute
from harness.features import TextEncoder
from harness.initial import make_model
from harness.methods import find_method
from harness.model import PromptedModel
from harness.peak import PeakMemory
from harness.screen import Screen
from harness.train import TaskTraining, encode_training, train
from tests.tiny import tiny_tokenizer

STEPS = 2
"""Of a training: in the second one the moments of the optimiser are there from the beginning."""

SLOTS = 16
POSITIONS = 512
LABELS = ("a", "b")

M_MMAP_THRESHOLD = -3
"""Of mallopt(3): blocks from so many bytes on are pages of their own, which go back when they are freed."""


@dataclass(frozen=True)
class Size:
    """An encoder of BERT's shape.

    Attributes:
        layers: of them. hidden: width of a hidden state; four times that between the two maps of a layer.
        heads: of attention. vocabulary: pieces.
    """

    layers: int
    hidden: int
    heads: int
    vocabulary: int

    def __str__(self) -> str:
        return f"{self.layers} x {self.hidden}"

    @property
    def layer(self) -> int:
        """Weights of one layer: the maps of attention and of the feed-forward part, and two normalisations."""
        return 12 * self.hidden**2 + 13 * self.hidden

    @property
    def embeddings(self) -> int:
        """Weights before the first layer: pieces, positions, the two texts of a pair, and a normalisation."""
        return (self.vocabulary + POSITIONS + 4) * self.hidden

    @property
    def weights(self) -> int:
        """All of them."""
        return self.layers * self.layer + self.embeddings

    @property
    def trained(self) -> int:
        """Weights of the prompt, and of the head."""
        return 2 * self.layers * SLOTS * self.hidden + len(LABELS) * (self.hidden + 1)


@dataclass(frozen=True)
class Way:
    """What is done.

    Attributes:
        training: or else predicting. precision: "fp32", or "bf16" under autocast.
        again: activations are not kept but computed again.
    """

    training: bool
    precision: str
    again: bool = False

    def __str__(self) -> str:
        return f"{'train' if self.training else 'predict'} {self.precision}" + (" again" if self.again else "")


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        way: what is done. size: of the encoder. rows: of a batch. pieces: of a row.
        kept: malloc keeps what is given back, as it does when nobody tells it otherwise.
    """

    way: Way
    size: Size
    rows: int
    pieces: int
    kept: bool = False


NOTHING = Size(1, 64, 1, 60)
"""Does everything once and takes next to nothing."""


def prepared(case: Case) -> tuple[PromptedModel, TaskTraining, RunConfig]:
    """A random encoder with a prompt, rows of one batch, and settings."""
    size = case.size
    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=POSITIONS,
    )
    backbone = Backbone("random", BertModel(config, add_pooling_layer=False), tiny_tokenizer("bert"))
    card = TaskCard(
        name="task", suite="own", kind=Kind.CLASSIFICATION, labels=LABELS, metrics=("accuracy",), max_length=POSITIONS
    )
    # One row is shorter than the others, so that the mask of padding is there.
    texts = (" ".join(["w9"] * (case.pieces - 2 - (row == 0))) for row in range(case.rows))
    examples = tuple(Example(str(row), text, label=LABELS[row % 2]) for row, text in enumerate(texts))
    task = Task(card, source=None, title="", licence="", url="", how_to_get="")  # rows are given, none are read
    rows = [TaskRows(task, {"en": Split(examples)}, {}, {}, {}, frozenset())]
    settings = RunConfig(
        batch=case.rows, epochs=STEPS, prompt_length=SLOTS, init="normal", checkpoint_activations=case.way.again
    )
    reader = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    training = encode_training(rows, reader, settings.batch, settings.seed)
    model = make_model(settings, find_method(settings.method), backbone, rows, training)
    return model, training[0], settings


def work(case: Case) -> None:
    """Do once what is measured: from here on, without the loading of weights in fp32."""
    model, training, settings = prepared(case)
    device = find_device(case.way.precision, cpu=True)
    encoder.PACKED = 0  # the layers of large encoders are not packed, and those of small ones stand for them here
    model.backbone.settle(device.dtype)
    gc.collect()
    PeakMemory(device.torch)
    if not case.way.training:
        compute(model, training.task.card, training.features, device)
        return
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "last.safetensors"
        train(model, [training], settings, find_method(settings.method), device, checkpoint, "", Screen(True))


def measure(case: Case) -> tuple[int, int]:
    """Run a case in this process, which has not run another one.

    Returns:
        Bytes that it had before, and the most that it ever had beyond them.
    """
    torch.set_num_threads(1)
    if not case.kept:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    work(replace(case, size=NOTHING, rows=2, pieces=16))
    floor = _status("VmRSS")
    work(case)
    return floor, _status("VmHWM") - floor


def _status(name: str) -> int:
    """A number of /proc/self/status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 2**10
