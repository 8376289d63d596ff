"""`python -m tests.speed.native [--quick] [--json]`: what the compiled operator brings, beside what others could take.

Eight classification tasks with 16 slots each in all layers, mixed in batches whose rows differ in length. *native* is
the graph of `exporters.native_form`, *padded* the standard one, *packed* the one of `exporters.packed`, *sorted* the
standard one on batches that `exporters.batching` cuts, *chosen* what costs least without the operator. Pieces are
random. `tests.speed.inference` shows what a session makes of all of them.

equal: rows of one length. share: of the speed that the processor's matrix products have, counted over real pieces
(`tests.speed.matrices`); in bf16, or in fp32 where it has no bf16.
text: from text to label on rows of SST-2 and XNLI, tokenisation included, beside ONNX Runtime on what Optimum exports
(or, without the environment of `tox -e peers`, `torch.onnx.export`), which gets 32 rows at a time as they come.
decode: what share of the whole turning outputs into answers takes, in tagging and question answering.

Goals in bf16 are shown where the processor has it.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks import data
from benchmarks.errors import MissingData, PolypromptError, run_command
from benchmarks.records import Example
from benchmarks.registry import find_task
from exporters.batching import Form
from exporters.engines import has_operator, installed
from exporters.precision import Precision
from exporters.session import Session
from harness.backbone import load_backbone
from harness.screen import Screen
from tests.speed import optimum
from tests.speed.exported import bundle_of, cards, exported, prompted, ragged
from tests.speed.inference import Plain, shape_of, timed
from tests.speed.matrices import peak, row_products
from tests.speed.ratios import Spread, interleave, ratios, spread
from tests.speed.rows import DATA

TASKS = 8
LARGE, SMALL = "e5-small-multilingual", "minilm-l6-en"
RAGGED = {"29%": (32, 83, 0.29), "21%": (64, 167, 0.21), "39%": (32, 256, 0.39)}
"""Rows, pieces of the longest one, and the share of real pieces in the padded batch."""

EQUAL = [(1, 16), (8, 16), (32, 64)]
TEXTS, QUICK_TEXTS, BATCH = 256, 64, 32
ANSWERED = {"squadshifts": "test", "wnut17": "dev"}
"""Tasks whose decoding is measured, and the split of their rows."""

GOALS = {
    "29% native openvino-bf16 : padded openvino-bf16": 3.6,
    "21% native openvino-bf16 : padded openvino-bf16": 5.4,
    "29% native openvino-bf16 : best of the others openvino-bf16": 1.35,
    "21% native openvino-bf16 : best of the others openvino-bf16": 1.35,
    "29% native onnxruntime : padded onnxruntime": 4,
    "29% native onnxruntime int8 : padded onnxruntime": 8,
    "32x64 native openvino-bf16 : padded openvino-bf16": 1,
    "29% share of bf16 products, native openvino-bf16": 0.7,
}
"""Of the 12 layers; ratio -> what it is meant to reach."""

Ints = NDArray[np.int64]


class Bench:
    """All engines and precisions on one encoder.

    Args:
        name: of the encoder. folder: for files.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.backbone, self._random, self.tasks = load_backbone(name), np.random.default_rng(0), cards(TASKS)
        self.forms = exported(prompted(self.backbone, self.tasks), self.tasks, folder)

    def _batch(self, lengths: Ints) -> tuple[Ints, Ints, Ints]:
        pieces = self.backbone.tokenizer.get_vocab_size()
        ids = self._random.integers(5, pieces, (len(lengths), lengths.max()))
        return ids, lengths, self._random.integers(0, TASKS, len(lengths))

    def ragged(self, title: str, seconds: float) -> dict[str, Spread]:
        """Rows of different lengths: native beside each other way, in the same engine and in those that are usual."""
        rows, longest, share = RAGGED[title]
        lengths = ragged(rows, longest, share, self._random)
        batch = self._batch(lengths)
        ways = {
            f"{way} {name}": timed(call) for name, one in self.forms.items() for way, call in one.ways(*batch).items()
        }
        times, found = interleave(ways, seconds, least=2), {}
        for name, one in self.forms.items():
            if "native" not in one.engines:
                continue
            native, others = times[f"native {name}"], [f"{way} {name}" for way in ("sorted", "chosen", "packed")]
            best = np.min([times[other] for other in others if other in times], axis=0).tolist()
            found[f"{title} native {name} : padded {name}"] = ratios(times[f"padded {name}"], native)
            found[f"{title} native {name} : best of the others {name}"] = ratios(best, native)
            if name != "onnxruntime":
                found[f"{title} native {name} : padded onnxruntime"] = ratios(times["padded onnxruntime"], native)
        needed = sum(row_products(shape_of(self.backbone), int(length)).all for length in lengths)
        for name, kind in (
            ("openvino-bf16", torch.bfloat16),
            ("openvino", torch.float32),
            ("onnxruntime", torch.float32),
        ):
            if name in self.forms and "native" in self.forms[name].engines:
                speed = peak(shape_of(self.backbone), [(1, int(lengths.sum()))], kind)
                shares = [needed / second / speed for second in times[f"native {name}"]]
                precision = "bf16" if kind is torch.bfloat16 else "fp32"
                found[f"{title} share of {precision} products, native {name}"] = spread(shares)
        return found

    def equal(self, rows: int, pieces: int, seconds: float) -> dict[str, Spread]:
        """Rows of one length."""
        batch = self._batch(np.full(rows, pieces))
        forms: tuple[Form, ...] = ("padded", "native")
        there = {name: one for name, one in self.forms.items() if "native" in one.engines}
        ways = {
            f"{form} {name}": timed(partial(one.run, form, *batch)) for name, one in there.items() for form in forms
        }
        times = interleave(ways, seconds, least=3)
        return {
            f"{rows}x{pieces} native {name} : padded {name}": ratios(times[f"padded {name}"], times[f"native {name}"])
            for name in there
        }


class Texts:
    """Rows of text answered by sessions and by others.

    Args:
        name: of the encoder. rows: task -> its examples. folder: for files. precisions: of the frozen weights.
    """

    def __init__(
        self, name: str, rows: dict[str, Sequence[Example]], folder: Path, precisions: Sequence[Precision]
    ) -> None:
        self.backbone, self._rows = load_backbone(name), rows
        tasks = [find_task(task).card for task in rows]
        model = prompted(self.backbone, tasks)
        self.sessions: dict[str, Session] = {}
        for precision in precisions:
            card = bundle_of(model, tasks, folder / precision.value, precision)
            mark = "" if precision is Precision.FP32 else f" {precision.value}"
            for one in card.parity:
                self.sessions[f"{one}{mark}"] = Session(folder / precision.value, engine=one)
        self._folder = folder

    def labels(self, seconds: float) -> dict[str, Spread]:
        """How many times as many rows a second as others answer, tokenisation included."""
        other, answer = self._peer()
        found = {}
        for task, rows in self._rows.items():
            ways = {name: timed(partial(one.predict, task, rows)) for name, one in self.sessions.items()}
            ways[other] = timed(partial(answer, rows))
            times = interleave(ways, seconds, least=3)
            found |= {
                f"{task}, text to label, {name} : {other}": ratios(times[other], times[name]) for name in self.sessions
            }
            batches = {name: dict(one.batches) for name, one in self.sessions.items()}
            Screen().say(f"{task}: {len(rows)} rows; batches by form: {batches}")
        return found

    def _peer(self) -> tuple[str, Callable[[Sequence[Example]], Any]]:
        labels = len(find_task(next(iter(self._rows))).card.labels)
        try:
            path, name = (
                optimum.export(optimum.classifier(self.backbone, labels), self._folder / "peer"),
                "optimum-onnx",
            )
        except PolypromptError as error:
            Screen().say(f"in place of Optimum's export that of torch; {error}")
            path, name = self._folder / "naive.onnx", "torch.onnx.export"
            example = torch.ones(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long)
            size = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", max=self.backbone.max_positions)}
            plain = Plain(copy.deepcopy(self.backbone.model), labels).eval()
            plain.encoder.set_attn_implementation("sdpa")
            torch.onnx.export(plain, example, path, dynamo=True, dynamic_shapes=(size, size), verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = [value.name for value in session.get_inputs()]
        tokenizer = type(self.backbone.tokenizer).from_str(self.backbone.tokenizer.to_str())
        tokenizer.enable_padding(pad_id=self.backbone.pad_id)
        tokenizer.enable_truncation(128)

        def answer(rows: Sequence[Example]) -> list[int]:
            found: list[int] = []
            for begin in range(0, len(rows), BATCH):
                pairs = [
                    row.text if row.text_pair is None else (row.text, row.text_pair)
                    for row in rows[begin : begin + BATCH]
                ]
                some = tokenizer.encode_batch(pairs)
                ids, mask = (np.array([getattr(one, part) for one in some]) for part in ("ids", "attention_mask"))
                given = {
                    "input_ids": ids,
                    "attention_mask": mask,
                    "token_type_ids": np.array([one.type_ids for one in some]),
                }
                fed = given if set(inputs) <= given.keys() else dict(zip(inputs, (ids, mask), strict=True))
                found += session.run(None, {part: fed[part] for part in inputs})[0].argmax(-1).tolist()
            return found

        return f"{name} in onnxruntime", answer

    def decoding(self) -> dict[str, Spread]:
        """Share of the whole that turning outputs into answers takes."""
        found = {}
        for name, session in self.sessions.items():
            inner, spent = session._decode, [0.0]

            def decode(*given: Any, inner: Any = inner, spent: list[float] = spent) -> Any:
                began = time.perf_counter()
                result = inner(*given)
                spent[0] += time.perf_counter() - began
                return result

            session._decode = decode  # type: ignore[method-assign]
            for task, rows in self._rows.items():
                shares = []
                for _ in range(3):
                    spent[0], began = 0.0, time.perf_counter()
                    session.predict(task, rows)
                    shares.append(spent[0] / (time.perf_counter() - began))
                found[f"{task}, share of decoding, {name}"] = spread(shares)
        return found


def real_rows(tasks: dict[str, str], count: int) -> dict[str, Sequence[Example]]:
    """The first rows of a split of tasks whose official files are there; a line about each other one.

    Args:
        tasks: task -> split. count: of rows.
    """
    found: dict[str, Sequence[Example]] = {}
    for name, split in tasks.items():
        try:
            found[name] = data.load(find_task(name), split, "en", DATA).examples[:count]
        except MissingData as error:
            Screen().say(f"left out: {name}; {error}")
    return found


def told(found: dict[str, Spread]) -> dict[str, Spread]:
    """What was found, which is said at once: all of it takes long."""
    for name, one in found.items():
        Screen().say(f"  {name}: {one}")
    return found


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one encoder and ragged batch, fewer rounds and rows; text and decoding in fp32",
    )
    parser.add_argument("--only", choices=("ragged", "equal", "text", "decode"), help="a part alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if not any(has_operator(name) for name in installed()):
        raise PolypromptError("the compiled operator is not there for any engine; there is nothing to measure")
    seconds, count = (1.0, QUICK_TEXTS) if arguments.quick else (10.0, TEXTS)
    precisions = (Precision.FP32,) if arguments.quick else (Precision.FP32, Precision.INT8)
    screen, found = Screen(), {}
    torch.manual_seed(0)

    def part(name: str) -> bool:
        return arguments.only in (None, name)

    for backbone in (LARGE,) if arguments.quick else (LARGE, SMALL):
        mark = "" if backbone == LARGE else f"{backbone} "
        results: dict[str, Spread] = {}
        with TemporaryDirectory() as folder:
            if part("ragged") or part("equal"):
                screen.say(f"{backbone}: export")
                bench = Bench(backbone, Path(folder) / "tasks")
                cases = list(RAGGED)[:1] if arguments.quick else list(RAGGED)
                for title in cases if part("ragged") else ():
                    results |= told(bench.ragged(title, seconds))
                for rows, pieces in EQUAL if part("equal") else ():
                    results |= told(bench.equal(rows, pieces, seconds / 3))
                del bench
            for kind, tasks in (("text", {"sst2": "dev", "xnli": "dev"}), ("decode", ANSWERED)):
                if not part(kind):
                    continue
                screen.say(f"{backbone}: {kind}")
                if rows_ := real_rows(tasks, count):
                    texts = Texts(backbone, rows_, Path(folder) / kind, precisions)
                    results |= told(texts.labels(seconds) if kind == "text" else texts.decoding())
        found |= {f"{mark}{key}": value for key, value in results.items()}
    goals = {
        name: {"goal": goal, "value": found[name].value, "reached": found[name].value >= goal}
        for name, goal in GOALS.items()
        if name in found
    }
    if arguments.json:
        print(json.dumps({"ratios": {name: one.record for name, one in found.items()}, "goals": goals}, indent=1))
    else:
        print(tabulate([(name, str(one)) for name, one in found.items()], headers=("", "ratio")))
        print()
        print(tabulate([{"ratio": name, **values} for name, values in goals.items()], headers="keys", floatfmt=".3g"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
