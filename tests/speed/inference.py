"""`python -m tests.speed.inference [--quick] [--only PART] [--json]`: how fast exported prompts answer, beside others.

One classification task with a prompt of 16 slots in all layers, on rows of random pieces, all of one length; the graph
as `exporters.export` writes it, in each engine and precision. The others compute the same encoder with the same head
and without a prompt: transformers' modules in torch (fp32, bf16; compiled with `--compile`), and the graph that
`torch.onnx.export` makes of them, in ONNX Runtime as it comes and in OpenVINO; and what Optimum exports of the class
that is fine-tuned for classification, where the environment of `tox -e peers` is there.

ragged: a batch in which rows differ in length: padded; in packed and, where the compiled operator is there, in native
form; sorted into padded batches; in what costs least without the operator (chosen); and as `exporters.session` computes
it, which takes of all forms what costs the engine least.
mixed: rows of 16 tasks in one batch, beside the same rows of one task.
cost of a prompt: beside the same graph without one, over what it costs by arithmetic, slots / (6 hidden + pieces).
size: rows of one length in batches of fewer and more pieces than a session's (`exporters.engines.pieces_a_batch`), by
form: what pieces take in its batches, over what they take in these.
limit: time that the needed products take at the speed that the processor has for them in bf16, or in fp32 where it has
no bf16; int8 may be faster.
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
from exporters.engines import installed, pieces_a_batch
from harness.backbone import Backbone, load_backbone
from harness.screen import Screen
from tests.speed import optimum
from tests.speed.exported import SLOTS, cards, exported, prompted, ragged
from tests.speed.matrices import Shape, peak, row_products
from tests.speed.ratios import Spread, interleave, ratios

TASKS = 16
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
        self.ours = exported(prompted(backbone, cards(TASKS)), cards(TASKS), folder / "prompted")
        self.bare = exported(prompted(backbone, cards(1), slots=0), cards(1), folder / "bare")
        self._folder, self._compiled = folder, compiled

    @cached_property
    def others(self) -> dict[str, Callable[[Tensor, Tensor], Any]]:
        """See `others`."""
        return others(self.backbone, self._folder, self._compiled)

    def _pieces(self, rows: int, pieces: int) -> Ints:
        return self._random.integers(5, self.backbone.tokenizer.get_vocab_size(), (rows, pieces))

    def equal(self, rows: int, pieces: int, seconds: float) -> dict[str, Spread]:
        """Rows of one length: ours, padded and as in a session, and the limit of the processor beside the others."""
        ids, lengths, tasks = self._pieces(rows, pieces), np.full(rows, pieces), np.zeros(rows, np.int64)
        tensors = torch.from_numpy(ids), torch.ones(rows, pieces, dtype=torch.long)
        shape = shape_of(self.backbone)
        needed = rows * row_products(shape, pieces).all
        kind = torch.bfloat16 if "openvino-bf16" in installed() else torch.float32
        mine = [(name, way) for name in self.ours for way in ("padded", "as in a session")]
        with torch.inference_mode():
            ways = {name: timed(partial(call, *tensors)) for name, call in self.others.items()}
            all_ = {name: one.ways(ids, lengths, tasks) for name, one in self.ours.items()}
            ways |= {f"ours, {name}, {way}": timed(all_[name][way]) for name, way in mine}
            ways["limit"] = lambda: needed / peak(shape, [(rows, pieces)], kind)
            times = interleave(ways, seconds, least=3)
        pairs = [(f"ours, {name}, {way}", other) for name, way in mine for other in (*self.others, "limit")]
        return {f"{rows}x{pieces} {one} : {other}": ratios(times[other], times[one]) for one, other in pairs}

    def mixed(self, rows: int, pieces: int, seconds: float) -> dict[str, Spread]:
        """Rows of all tasks beside rows of one; and no prompt at all beside prompts; by form."""
        ids, lengths, found = self._pieces(rows, pieces), np.full(rows, pieces), {}
        one, all_ = np.zeros(rows, np.int64), np.arange(rows) % TASKS
        for name, mine in self.ours.items():
            for form in (form for form in ("padded", "native") if form in mine.engines):
                ways = {
                    "mixed": timed(partial(mine.run, form, ids, lengths, all_)),
                    "one task": timed(partial(mine.run, form, ids, lengths, one)),
                    "no prompt": timed(partial(self.bare[name].run, form, ids, lengths, one)),
                }
                times = interleave(ways, seconds, least=5)
                title = f"{rows}x{pieces} ours, {name}, {form}"
                found[f"{title}, mixed tasks : one task"] = ratios(times["one task"], times["mixed"])
                costs = ratios(times["one task"], times["no prompt"])
                arithmetic = SLOTS / (6 * self.backbone.hidden + pieces)
                parts = [(value - 1) / arithmetic for value in (costs.value, costs.low, costs.high)]
                found[f"{title}, cost of a prompt : its arithmetic"] = Spread(*parts)
        return found

    def size(self, pieces: int, seconds: float) -> dict[str, Spread]:
        """Batches of other sizes beside those of a session."""
        found = {}
        for name, mine in self.ours.items():
            most = pieces_a_batch(name.split()[0])
            sizes = [most // 4, most // 2, most, 2 * most, 4 * most]
            for form in (form for form in ("padded", "native") if form in mine.engines):
                rows = {size: max(size // pieces, 1) for size in sizes}
                batches = {size: (self._pieces(count, pieces), np.full(count, pieces)) for size, count in rows.items()}
                ways = {
                    str(size): timed(partial(mine.run, form, *batch, np.zeros(rows[size], np.int64)))
                    for size, batch in batches.items()
                }
                times = interleave(ways, seconds, least=5)
                for size in sizes:
                    share = rows[size] / rows[most]
                    one = ratios(times[str(most)], times[str(size)])
                    title = f"rows of {pieces}, ours, {name}, {form}, {size} pieces : {most}"
                    found[title] = Spread(*(share * value for value in (one.value, one.low, one.high)))
        return found

    def ragged(self, rows: int, seconds: float) -> dict[str, Spread]:
        """A batch of rows of different lengths: as in a session, and in other ways, beside one padded batch."""
        longest, share = RAGGED
        lengths = ragged(rows, longest, share, self._random)
        ids, tasks, found = self._pieces(rows, longest), np.zeros(rows, np.int64), {}
        for name, mine in self.ours.items():
            ways = {way: timed(call) for way, call in mine.ways(ids, lengths, tasks).items()}
            times = interleave(ways, seconds, least=3)
            real = f"{rows}x{longest}, {lengths.sum() / ids.size:.0%} real, ours, {name}"
            for way in ways:
                if way != "padded":
                    found[f"{real}, {way} : padded"] = ratios(times["padded"], times[way])
        return found


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one encoder, two shapes")
    parser.add_argument("--only", choices=("equal", "mixed", "ragged", "size"), help="a part alone")
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
            for rows, pieces in shapes if arguments.only in (None, "equal") else ():
                screen.say(f"{name}: {rows}x{pieces}")
                results |= bench.equal(rows, pieces, seconds)
            for rows, pieces in QUICK if arguments.only in (None, "mixed") else ():
                screen.say(f"{name}: mixed tasks, {rows}x{pieces}")
                results |= bench.mixed(rows, pieces, seconds / 3)
            for pieces in (64, 256) if arguments.only == "size" else ():
                screen.say(f"{name}: batches of several sizes, rows of {pieces}")
                results |= bench.size(pieces, seconds / 3)
            if arguments.only in (None, "ragged"):
                screen.say(f"{name}: rows of different lengths")
                results |= bench.ragged(32, seconds / 3)
            found |= {f"{name} {key}": value for key, value in results.items()}
    if arguments.json:
        print(json.dumps({"ratios": {name: ratio.record for name, ratio in found.items()}}, indent=1))
    else:
        print(tabulate([(name, str(ratio)) for name, ratio in found.items()], headers=("", "ratio")))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
