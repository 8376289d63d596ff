"""`python -m tests.speed.inference [--quick] [--json]`: how fast exported prompts answer, beside what others offer.

One classification task with a prompt of 16 slots in all layers, on rows of random pieces, all of one length; the graph
as `exporters.export` writes it, in each engine and precision. The others compute the same encoder with the same head
and without a prompt: transformers' modules in torch (fp32, bf16; compiled with `--compile`), and the graph that
`torch.onnx.export` makes of them, in ONNX Runtime as it comes and in OpenVINO; and what Optimum exports of the class
that is fine-tuned for classification, where the environment of `tox -e peers` is there.

ragged: a batch in which rows differ in length: padded, in packed form, split into padded batches, and as
`exporters.session` computes it, which splits and packs by what each costs the engine.
mixed: rows of 16 tasks in one batch, beside the same rows of one task.
prefix: the same graph without a prompt, beside what the prompt costs by arithmetic, slots / (6 hidden + pieces).
limit: time that the needed products take at the speed that the processor has for them in bf16.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Example
from benchmarks.registry import find_task
from benchmarks.task import TaskCard
from exporters.batching import Form, Pace, Plan, plan
from exporters.bundle import MODEL, PACKED, BundleCard, write_bundle
from exporters.calibrate import calibrate
from exporters.engines import Engine, installed, open_engine
from exporters.export import describe, graph_of, tensors_of
from exporters.graph import build_graph
from exporters.pace import measure
from exporters.packed import build_packed
from exporters.precision import Precision, in_precision
from exporters.session import TOKENS_A_BATCH, model_file
from harness.backbone import Backbone, load_backbone
from harness.heads import Pooling
from harness.model import PromptedModel
from harness.placement import Placement
from harness.screen import Screen
from harness.sharing import PromptBank
from tests.bundles import tiny_manifest
from tests.speed import optimum
from tests.speed.matrices import Shape, peak, row_products
from tests.speed.ratios import Spread, interleave, ratios, spread

SLOTS, TASKS = 16, 16
BACKBONES = ("minilm-l6-en", "e5-small-multilingual")
SHAPES = [(rows, pieces) for rows in (1, 8, 32) for pieces in (16, 64, 128, 256)]
QUICK = [(1, 64), (32, 64)]
RAGGED = (128, 0.29)
"""Pieces of the longest row, and the share of real ones in the padded batch."""

Ints = NDArray[np.int64]


class Plain(nn.Module):
    """An encoder of transformers with a linear head on the first piece."""

    def __init__(self, encoder: nn.Module, labels: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits, [batch, labels]."""
        return self.head(self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])


def cards(count: int) -> list[TaskCard]:
    """So many tasks."""
    card = find_task("demo-topic").card
    return [card.model_copy(update={"name": f"task-{number}"}) for number in range(count)]


def prompted(backbone: Backbone, tasks: int, slots: int = SLOTS, shared: bool = False) -> PromptedModel:
    """A model with random prompts in all layers, one a task or one for all; without slots none."""
    prompt = None
    if slots:
        layers, prompts = tuple(range(backbone.layers)), 1 if shared else tasks
        shape = (prompts, len(layers), 2, backbone.heads, slots, backbone.hidden // backbone.heads)
        rows = {"": 0} if shared else {card.name: number for number, card in enumerate(cards(tasks))}
        prompt = PromptBank(torch.randn(shape), rows, Placement(layers=layers))
    return PromptedModel(backbone, prompt, cards(tasks), Pooling.CLS)


class Ours:
    """A bundle in an engine, with a graph a form.

    Args:
        folder: the bundle. card: its card. model: what it was made from. engine: name of the engine.

    Attributes:
        packs: whether there is a packed form.
    """

    def __init__(self, folder: Path, card: BundleCard, model: PromptedModel, engine: str) -> None:
        self._folder, self._card, self._name = folder, card, engine
        self._file = model_file(card, engine)
        self.packs = self._file == MODEL
        self._tensors = tensors_of(model, cards(len(model.tasks)))
        self._engine = self._open(packed=False)
        self._packed: Engine | None = None

    def _open(self, packed: bool) -> Engine:
        """As `exporters.session` does."""
        engine = open_engine(self._name, self._folder / (PACKED if packed else self._file), second=packed)
        engine.keep(self._tensors)
        return engine

    @cached_property
    def paces(self) -> dict[Form, Pace]:
        """Of the padded and, where there is one, the packed form, as an export measures them."""
        files: dict[Form, str] = {"padded": self._file, **({"packed": PACKED} if self.packs else {})}
        return measure(self._folder, self._card, self._name, files)

    def plan(self, lengths: Ints, packed: bool = True) -> Plan:
        """As a session cuts rows of ascending length; without packing where that is not asked for."""
        paces = {form: pace for form, pace in self.paces.items() if packed or form == "padded"}
        return plan(lengths.tolist(), TOKENS_A_BATCH, paces)

    def in_parts(self, parts: Plan, ids: Ints, lengths: Ints, tasks: Ints) -> None:
        """Compute a plan."""
        for rows, form in parts.batches:
            self(ids[rows, : lengths[rows][-1]], lengths[rows], tasks[rows], form == "packed")

    def __call__(self, ids: Ints, lengths: Ints, tasks: Ints, packed: bool = False) -> Any:
        """Logits, [batch, labels]."""
        if packed and self._packed is None:
            self._packed = self._open(packed=True)
        count = len(ids)
        feeds = {"input_ids": ids, "lengths": lengths, "task_id": tasks, "token_type_ids": np.zeros_like(ids)}
        feeds |= {"sequence_rows": np.arange(count), "whole_rows": np.zeros(0, np.int64)}
        engine = self._packed if packed and self._packed is not None else self._engine
        return engine.run(["sequence_logits"], feeds)


def timed(call: Callable[[], Any]) -> Callable[[], float]:
    """Seconds of one call, of as many as take a twentieth of a second."""
    call()
    began = time.perf_counter()
    call()
    count = max(1, round(0.05 / (time.perf_counter() - began)))

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count

    return measure


def others(backbone: Backbone, folder: Path, compiled: bool) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """What others offer, by name; each takes ids and mask, [batch, seq]."""
    plain = Plain(copy.deepcopy(backbone.model), len(cards(1)[0].labels)).eval()
    plain.encoder.set_attn_implementation("sdpa")
    half = copy.deepcopy(plain).bfloat16()
    found: dict[str, Callable[[Tensor, Tensor], Any]] = {"torch fp32": plain, "torch bf16": half}
    if compiled:
        found["torch.compile bf16"] = torch.compile(copy.deepcopy(half), dynamic=False)
    file = folder / "naive.onnx"
    example = torch.ones(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long)
    size = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", max=backbone.max_positions)}
    torch.onnx.export(plain, example, file, dynamo=True, dynamic_shapes=(size, size), verbose=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def fed(*tensors: Tensor) -> dict[str, Ints]:
        return dict(zip(names, (tensor.numpy() for tensor in tensors), strict=True))

    found["naive export, onnxruntime"] = lambda *tensors: session.run(None, fed(*tensors))
    try:
        exported = optimum.export(optimum.classifier(backbone, len(cards(1)[0].labels)), folder / "optimum")
        theirs = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        found["optimum-onnx, onnxruntime"] = lambda *tensors: theirs.run(None, optimum.feeds(theirs, *tensors))
    except PolypromptError as error:
        Screen().say(f"left out: optimum-onnx; {error}")
    for engine in installed():
        if engine.startswith("openvino"):
            found[f"naive export, {engine}"] = as_openvino_has_it(file, engine == "openvino-bf16", fed)
    return found


def as_openvino_has_it(file: Path, bf16: bool, fed: Callable[..., dict[str, Ints]]) -> Callable[..., Any]:
    """A graph in OpenVINO without anything of `exporters.engines`, but for its settings."""
    from exporters.engines.openvino import DEVICE, core, settings

    request = core().compile_model(file, DEVICE, settings(None, bf16)).create_infer_request()
    return lambda *tensors: request.infer(fed(*tensors), share_inputs=True, share_outputs=True)


def forms(model: PromptedModel, folder: Path) -> dict[str, Ours]:
    """An exported model in each engine and precision that this machine has."""
    found, about = {}, describe(model, tiny_manifest(model, cards(len(model.tasks))))
    for precision in (Precision.FP32, Precision.INT8):
        bundle = folder / precision.value
        bundle.mkdir(parents=True)
        graph, packed = (in_precision(graph_of(model, form), precision) for form in (build_graph, build_packed))
        tensors, tokenizer = tensors_of(model, cards(len(model.tasks))), model.backbone.tokenizer.to_str()
        card = write_bundle(bundle, about, graph, tensors, tokenizer, packed=packed)
        if precision is Precision.INT8:
            card = calibrate(bundle, card, {("task-0", ""): made_up(32)})
        for engine in installed():
            name = f"ours, {engine}" + ("" if precision is Precision.FP32 else f" {precision.value}")
            if (precision, engine) != (Precision.INT8, "openvino-bf16"):
                found[name] = Ours(bundle, card, model, engine)
    return found


def made_up(count: int) -> list[Example]:
    """Texts for the ranges of states; what they say has no bearing on time."""
    return [Example(id=str(number), text=f"the {number} words " * (1 + number % 8)) for number in range(count)]


def shape_of(backbone: Backbone) -> Shape:
    """For counting the products of an answer: no layer is trained."""
    inner = backbone.model.config.intermediate_size
    return Shape(backbone.layers, backbone.hidden, inner, SLOTS, first=backbone.layers)


class Bench:
    """All ways of one encoder.

    Args:
        backbone: the encoder. folder: for files. compiled: with torch.compile, which takes a minute a shape.
    """

    def __init__(self, backbone: Backbone, folder: Path, compiled: bool) -> None:
        self.backbone, self._random = backbone, np.random.default_rng(0)
        self.ours = forms(prompted(backbone, TASKS), folder / "prompted")
        self.bare = forms(prompted(backbone, 1, slots=0), folder / "bare")
        self.others = others(backbone, folder, compiled)

    def _pieces(self, rows: int, pieces: int) -> Ints:
        return self._random.integers(5, self.backbone.tokenizer.get_vocab_size(), (rows, pieces))

    def equal(self, rows: int, pieces: int, seconds: float) -> dict[str, Spread]:
        """Rows of one length: ours and the limit of the processor beside each of the others."""
        ids, lengths, tasks = self._pieces(rows, pieces), np.full(rows, pieces), np.zeros(rows, np.int64)
        tensors = torch.from_numpy(ids), torch.ones(rows, pieces, dtype=torch.long)
        shape = shape_of(self.backbone)
        needed = rows * row_products(shape, pieces).all
        with torch.inference_mode():
            ways = {name: timed(partial(call, *tensors)) for name, call in self.others.items()}
            ways |= {name: timed(partial(call, ids, lengths, tasks)) for name, call in self.ours.items()}
            ways["limit"] = lambda: needed / peak(shape, [(rows, pieces)])
            times = interleave(ways, seconds, least=3)
        pairs = [(mine, other) for mine in self.ours for other in (*self.others, "limit")]
        return {f"{rows}x{pieces} {mine} : {other}": ratios(times[other], times[mine]) for mine, other in pairs}

    def mixed(self, rows: int, pieces: int, seconds: float) -> dict[str, Spread]:
        """Rows of all tasks beside rows of one; and no prompt at all beside prompts."""
        ids, lengths, found = self._pieces(rows, pieces), np.full(rows, pieces), {}
        one, all_ = np.zeros(rows, np.int64), np.arange(rows) % TASKS
        for name, mine in self.ours.items():
            ways = {
                "mixed": timed(partial(mine, ids, lengths, all_)),
                "one task": timed(partial(mine, ids, lengths, one)),
                "no prompt": timed(partial(self.bare[name], ids, lengths, one)),
            }
            times = interleave(ways, seconds, least=5)
            found[f"{rows}x{pieces} {name}, mixed tasks : one task"] = ratios(times["one task"], times["mixed"])
            cost = [
                (with_ - without) / without
                for with_, without in zip(times["one task"], times["no prompt"], strict=True)
            ]
            arithmetic = SLOTS / (6 * self.backbone.hidden + pieces)
            found[f"{rows}x{pieces} {name}, cost of a prompt : its arithmetic"] = spread([c / arithmetic for c in cost])
        return found

    def ragged(self, rows: int, seconds: float) -> dict[str, Spread]:
        """A batch of rows of different lengths: as in a session, and in other ways, beside one padded batch."""
        longest, share = RAGGED
        lengths = np.sort(ragged(rows, longest, share, self._random))
        ids, tasks, found = self._pieces(rows, longest), np.zeros(rows, np.int64), {}
        for name, mine in self.ours.items():
            split, chosen = mine.plan(lengths, packed=False), mine.plan(lengths)
            ways = {
                "padded": timed(partial(mine, ids, lengths, tasks)),
                **({"packed": timed(partial(mine, ids, lengths, tasks, packed=True))} if mine.packs else {}),
                "split": timed(partial(mine.in_parts, split, ids, lengths, tasks)),
                "as in a session": timed(partial(mine.in_parts, chosen, ids, lengths, tasks)),
            }
            times = interleave(ways, seconds, least=3)
            real = f"{rows}x{longest}, {lengths.sum() / ids.size:.0%} real, {name}"
            for way in list(ways)[1:]:
                found[f"{real}, {way} : padded"] = ratios(times["padded"], times[way])
        return found


def ragged(rows: int, longest: int, share: float, random: np.random.Generator) -> Ints:
    """Lengths of rows, of which one is the longest and the mean is a share of it."""
    lengths = random.exponential(1.0, rows)
    for _ in range(20):  # cut at both ends, and scaled again
        lengths = np.clip(lengths * share * longest / lengths.mean(), 3, longest)
    lengths[lengths.argmax()] = longest
    return lengths.round().astype(np.int64)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one encoder, two shapes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, which takes a minute a shape")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    backbones, shapes, seconds = (BACKBONES[:1], QUICK, 0.5) if arguments.quick else (BACKBONES, SHAPES, 6.0)
    screen, found = Screen(), {}
    torch.manual_seed(0)
    for name in backbones:
        with TemporaryDirectory() as folder:
            screen.say(f"{name}: export")
            bench = Bench(load_backbone(name), Path(folder), arguments.compile)
            results: dict[str, Spread] = {}
            for rows, pieces in shapes:
                screen.say(f"{name}: {rows}x{pieces}")
                results |= bench.equal(rows, pieces, seconds)
            screen.say(f"{name}: mixed tasks, rows of different lengths")
            results |= bench.mixed(32, 64, seconds / 3) | bench.ragged(32, seconds / 3)
            found |= {f"{name} {key}": value for key, value in results.items()}
    if arguments.json:
        print(json.dumps({"ratios": {name: ratio.record for name, ratio in found.items()}}, indent=1))
    else:
        print(tabulate([(name, str(ratio)) for name, ratio in found.items()], headers=("", "ratio")))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
