"""How fast a bundle answers: rows of random pieces, all of one length, on one engine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from tabulate import tabulate
from tokenizers import Tokenizer

from benchmarks.errors import PolypromptError, run_command
from exporters.bundle import TOKENIZER, BundleCard, open_bundle, read_tasks
from exporters.engines import AUTO, Engine, open_engine
from exporters.engines.interface import Arrays
from exporters.opening import add_options, folder_of
from exporters.session import fastest, model_file

SECONDS = 2.0
"""Of each measurement; the least time counts, which other work on the machine disturbs least."""


def bench(engine: Engine, feeds: Arrays, output: str, seconds: float = SECONDS) -> float:
    """Milliseconds of one batch."""
    for _ in range(3):  # kernels are chosen, CUDA graphs recorded
        engine.run([output], feeds)
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        engine.run([output], feeds)
        best = min(best, time.perf_counter() - began)
    return 1000 * float(best)


def batch_of(card: BundleCard, lengths: Sequence[int], pieces: int) -> tuple[dict[str, np.ndarray], str]:
    """A batch for the first task of a bundle and the output that answers; pieces are of a vocabulary of so many."""
    task, rows = card.tasks[0], len(lengths)
    ids = np.random.default_rng(0).integers(0, pieces, (rows, max(lengths)))
    feeds = {
        "input_ids": ids,
        "lengths": np.array(lengths),
        "task_id": np.full(rows, task.task_id),
        **{name: np.zeros(0, np.int64) for name in card.row_inputs},
    }
    feeds[card.rows_of(task)] = np.arange(rows)
    if card.token_types:
        feeds["token_type_ids"] = np.zeros_like(ids)
    return feeds, task.output


def _numbers(option: str, text: str) -> list[int]:
    numbers = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise PolypromptError(f"{option} {text}: must be numbers such as 1,8,32")
    return numbers


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.bench", description=__doc__)
    add_options(parser)
    parser.add_argument("--batch", default="1,8,32", help="rows of a batch (default: %(default)s)")
    parser.add_argument("--length", default="16,64,128", help="pieces of a row (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    options = parser.parse_args()
    batches, lengths = _numbers("--batch", options.batch), _numbers("--length", options.length)
    bundle = folder_of(options.bundle)
    card = open_bundle(bundle)
    longest = card.tasks[0].max_positions
    if max(lengths) > longest:
        raise PolypromptError(f"--length {options.length}: rows of this bundle have {longest} pieces at most")
    name = fastest(card, options.provider) if options.engine == AUTO else options.engine
    engine = open_engine(name, bundle / model_file(card, name), options.threads, options.provider, card.shortest_limit)
    engine.keep(read_tasks(bundle, card)[1])
    pieces = Tokenizer.from_file(str(bundle / TOKENIZER)).get_vocab_size()
    found = []
    for rows in batches:
        for length in lengths:
            feeds, output = batch_of(card, [length] * rows, pieces)
            taken = bench(engine, feeds, output)
            found.append({"batch": rows, "length": length, "ms": round(taken, 3), "rows/s": round(1000 * rows / taken)})
    if options.json:
        print(json.dumps({"engine": engine.card.model_dump(), "precision": card.precision, "times": found}))
    else:
        print(f"{engine.card}; weights {card.precision}\n{tabulate(found, headers='keys')}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
