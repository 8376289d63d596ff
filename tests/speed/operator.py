"""How fast the operator of packed graphs is beside padded attention in the same engine, and on what instructions.

python -m tests.speed.operator [--threads 2] [--seconds 4]
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tabulate import tabulate

from benchmarks.errors import PolypromptError
from exporters.engines.openvino import core
from exporters.operator import onnxruntime_library, openvino_extension
from tests.operator_graph import operator_graph
from tests.speed.ratios import interleave, ratios, spread

HEADS, WIDTH, SLOTS, PROMPTS = 12, 32, 16, 8
HIDDEN = HEADS * WIDTH
ENGINES, FORMS = ("openvino", "onnxruntime"), ("packed", "padded")
Feeds = dict[str, NDArray[Any]]


def padded() -> onnx.ModelProto:
    """What the standard graph has in its place: each row's own prefix in front, its length instead of a mask."""
    prefix = [PROMPTS, SLOTS, HIDDEN]
    inputs = [
        helper.make_tensor_value_info("fused", TensorProto.FLOAT, ["batch", "seq", 3 * HIDDEN]),
        helper.make_tensor_value_info("prefix_key", TensorProto.FLOAT, prefix),
        helper.make_tensor_value_info("prefix_value", TensorProto.FLOAT, prefix),
        helper.make_tensor_value_info("prompt", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
    ]
    nodes = [
        helper.make_node("Split", ["fused"], ["query", "own_key", "own_value"], axis=2, num_outputs=3),
        helper.make_node("Gather", ["prefix_key", "prompt"], ["front_key"]),
        helper.make_node("Gather", ["prefix_value", "prompt"], ["front_value"]),
        helper.make_node("Concat", ["front_key", "own_key"], ["key"], axis=1),
        helper.make_node("Concat", ["front_value", "own_value"], ["value"], axis=1),
        helper.make_node(
            "Attention",
            ["query", "key", "value", "", "", "", "lengths"],
            ["mixed"],
            q_num_heads=HEADS,
            kv_num_heads=HEADS,
        ),
    ]
    outputs = [helper.make_tensor_value_info("mixed", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "attention", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def rows(lengths: Sequence[int]) -> tuple[Feeds, Feeds]:
    """The same rows packed and padded."""
    draw, longest = np.random.default_rng(0), max(lengths)
    real = np.arange(longest) < np.array(lengths)[:, None]
    fused = draw.standard_normal((len(lengths), longest, 3 * HIDDEN)).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    prefix = {
        name: draw.standard_normal((PROMPTS, SLOTS, HIDDEN)).astype(np.float32)
        for name in ("prefix_key", "prefix_value")
    }
    prompt = draw.integers(0, PROMPTS, len(lengths))
    both = {"query": fused[real], "key_value": fused[real], "query_starts": starts, "key_starts": starts}
    used = {"prompt": prompt, "prompt_lengths": np.full(PROMPTS, SLOTS)}
    return both | prefix | used, prefix | {"fused": fused, "prompt": prompt, "lengths": np.array(lengths) + SLOTS}


def opened(threads: int) -> dict[str, Callable[[Feeds], Any]]:
    """What runs each graph in each engine.

    Raises:
        PolypromptError: the operator is missing in one of them.
    """
    extension, library = openvino_extension(), onnxruntime_library()
    if extension is None or library is None:
        raise PolypromptError("the operator was not built for both engines; see docs/native.md")
    core().add_extension(str(extension))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    found: dict[str, Callable[[Feeds], Any]] = {}
    for form, model in zip(FORMS, (operator_graph(HEADS, WIDTH**-0.5), padded()), strict=True):
        content = model.SerializeToString()
        request = core().compile_model(core().read_model(content), "CPU", settings).create_infer_request()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found[f"openvino {form}"] = partial(request.infer, share_inputs=True, share_outputs=True)
        found[f"onnxruntime {form}"] = partial(session.run, None)
    return found


def timed(run: Callable[[Feeds], Any], feeds: Feeds) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    run(feeds)
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4, help="for each batch and engine")
    asked = parser.parse_args()
    runs, draw = opened(asked.threads), np.random.default_rng(0)
    batches = {
        "32 rows of 5 to 40, one of 83": [83, *draw.integers(5, 41, 31).tolist()],
        "64 rows of 5 to 60, one of 167": [167, *draw.integers(5, 61, 63).tolist()],
        "32 rows of 64": [64] * 32,
        "4 rows of 512": [512] * 4,
    }
    table = []
    for engine in ENGINES:  # one after the other: ONNX Runtime's threads go on for a while when their work is done
        for name, lengths in batches.items():
            ways = {
                form: partial(timed, runs[f"{engine} {form}"], feeds)
                for form, feeds in zip(FORMS, rows(lengths), strict=True)
            }
            interleave(ways, 0, least=2)  # the first runs prepare
            found = interleave(ways, asked.seconds, least=5)
            real = sum(lengths) / (len(lengths) * max(lengths))
            operations = sum(4 * length * (length + SLOTS) * HIDDEN for length in lengths)
            took = spread(found["packed"])
            speed = f"{operations / took.value / 1e6:.0f}"
            table.append([engine, name, f"{real:.0%}", took, ratios(found["padded"], found["packed"]), speed])
    native = ctypes.CDLL(str(openvino_extension()))
    native.polyprompt_instructions.restype = ctypes.c_char_p
    print(f"{native.polyprompt_instructions().decode()}, {asked.threads} threads, openvino {openvino.__version__}")
    heads = ["engine", "batch", "real", "operator, ms", "times faster than padded", "GFLOP/s"]
    print(tabulate(table, heads, tablefmt="github"))


if __name__ == "__main__":
    main()
