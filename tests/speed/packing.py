"""`python -m tests.speed.packing [--quick] [--json]`: time and memory that writing the weights of an export takes.

An encoder of XLM-R-base's shape with random weights (278 million) is narrowed, hashed and written, in a process of its
own for each way: as exports do, with the compiled part and without it; and *whole*: every tensor narrowed before any is
written, quantised with nothing cut into parts, hashed in one pass and written in another. Verification is left out.
Seconds are of the clock, and of the processor over all threads. Memory is what the process had at most beyond what it
had when the encoder was there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tabulate import tabulate
from transformers import XLMRobertaConfig

from benchmarks.errors import run_command
from benchmarks.files import write_atomic
from exporters import precision
from exporters.graph import Blueprint, Graph, build_graph
from exporters.precision import Precision, in_precision
from exporters.store import put
from exporters.tensors import Made
from exporters.weights import read_weights
from harness.heads import Pooling

WAYS = ("compiled", "numpy", "whole")
QUICK = {"vocab_size": 8000, "num_hidden_layers": 2}
BASE = {"vocab_size": 250_002, "num_hidden_layers": 12}


class Memory:
    """The most memory that this process has while a block runs, in bytes beyond what it had before."""

    def __enter__(self) -> Memory:
        self.before = self.most = self._now()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    @property
    def taken(self) -> int:
        """Bytes."""
        return self.most - self.before

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def random_graph(size: dict[str, int]) -> Graph:
    """Of an encoder without a prompt."""
    random = np.random.default_rng(0)
    config = XLMRobertaConfig(max_position_embeddings=514, type_vocab_size=1, **size)
    width, inner = config.hidden_size, config.intermediate_size
    state: dict[str, np.ndarray] = {}

    def weight(name: str, *shape: int) -> None:
        state[name] = random.standard_normal(shape, np.float32)
        state[name] *= np.float32(0.02)

    def layer(name: str, *shape: int) -> None:
        weight(f"{name}.weight", *shape)
        weight(f"{name}.bias", shape[0])

    weight("embeddings.word_embeddings.weight", config.vocab_size, width)
    weight("embeddings.position_embeddings.weight", 514, width)
    weight("embeddings.token_type_embeddings.weight", 1, width)
    layer("embeddings.LayerNorm", width)
    for number in range(config.num_hidden_layers):
        place = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            layer(f"{place}.attention.self.{part}", width, width)
        layer(f"{place}.attention.output.dense", width, width)
        layer(f"{place}.attention.output.LayerNorm", width)
        layer(f"{place}.intermediate.dense", inner, width)
        layer(f"{place}.output.dense", width, inner)
        layer(f"{place}.output.LayerNorm", width)
    return build_graph(read_weights(config.to_dict(), state, 2, False), Blueprint(None, Pooling.CLS))


def put_whole(graph: Graph, folder: Path) -> str:
    """Everything narrowed first, then hashed, then written."""
    tensors = graph.backbone.tensors
    for name, array in tensors.items():
        if isinstance(array, Made):
            tensors[name] = array.whole()
    digest = hashlib.sha256()
    for part in graph.backbone.content():
        digest.update(part)
    write_atomic(folder / graph.backbone.name, graph.backbone.write)
    return digest.hexdigest()


def measure(narrow: Precision, way: str, size: dict[str, int]) -> dict[str, float | str]:
    """One way, in this process, which does nothing else before or after."""
    whole = random_graph(size)
    if way != "compiled":
        precision.compiled = lambda: None  # type: ignore[assignment]
    if way == "whole":
        precision.ROWS = precision.TOGETHER = 1 << 30
    with TemporaryDirectory() as folder, Memory() as memory:
        clock, processor = time.perf_counter(), time.process_time()
        graph = in_precision(whole, narrow)
        digest = put_whole(graph, Path(folder)) if way == "whole" else put(graph.backbone, Path(folder), None)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return {
        "precision": narrow.value,
        "way": way,
        "seconds": clock,
        "processor": processor,
        "memory": memory.taken / 1e6,
        "size": graph.backbone.bytes / 1e6,
        "sha256": digest[:8],
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.packing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small encoder, a few seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    found = []
    for narrow in Precision:
        for way in WAYS:
            if way == "compiled" and (narrow is not Precision.INT4 or precision.compiled() is None):
                continue  # nothing else is compiled
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                found.append(alone.submit(measure, narrow, way, QUICK if options.quick else BASE).result())
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    heads = ["", "way", "s", "processor, s", "more memory, MB", "file, MB", "sha256"]
    print(tabulate([list(row.values()) for row in found], heads, tablefmt="github", floatfmt=".3g"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
