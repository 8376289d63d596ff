"""`python -m tests.speed.decoding --data-dir DIR [--quick] [--json]`: tags and answers from outputs, in several ways.

Sequences of tags on sentences of a task of names, of the lengths that they have: by the compiled part on one thread and
on all, by numpy as it is without it (where the best tags can stand together nothing is searched), by numpy that
searches all sentences at once, and sentence by sentence. Scores are those of the true tags with noise, as after
training, of which few sentences are wrong; and noise alone, as before training. Answers: all windows at once, and
window by window. Then what decoding takes of the whole way from text to answer in a session with random heads.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Example
from benchmarks.registry import find_task
from benchmarks.task import Task
from exporters.session import Session
from harness import viterbi
from harness.backbone import load_backbone
from harness.decode import decode
from harness.features import Feature
from harness.heads import Pooling
from harness.model import PromptedModel
from harness.spans import MAX_ANSWER_PIECES, best_spans
from harness.viterbi import Constraints, Floats, Ints
from tests.bundles import tiny_bundle
from tests.speed.ratios import interleave, ratios, spread

TAGGING, SPAN = "panx", "xquad"
ENCODER = "minilm-l6-en"
NOISE = {"after training": 0.35, "before training": 1e3}
"""Standard deviation beside a distance of 1 between the true tag and others."""


def rows_of(task: Task, data_dir: Path, count: int) -> list[Example]:
    """The first examples of its test rows in English."""
    return list(task.source.read(task.card, task.eval_split, "en", data_dir).examples[:count])


def scores_of(task: Task, examples: Sequence[Example], noise: float) -> tuple[Floats, Ints]:
    """Scores of all words, [words, labels], and where sentences begin."""
    place = {label: number for number, label in enumerate(task.card.labels)}
    true = [place[tag] for example in examples for tag in example.gold]
    starts = np.cumsum([0, *(len(example.tokens) for example in examples)])
    random = np.random.default_rng(0)
    logits = random.normal(size=(len(true), len(place))).astype(np.float32) * np.float32(noise)
    logits[np.arange(len(true)), true] += 1
    return logits, starts


def sentence_by_sentence(logits: Floats, starts: Ints, allowed: Constraints) -> Ints:
    """Viterbi's algorithm on one sentence after the other."""
    scores = logits.astype(np.float64)
    moves = np.where(allowed.follows, 0, -np.inf)
    tags = np.empty(len(logits), np.int64)
    for start, stop in pairwise(starts.tolist()):
        sums = np.where(allowed.first, scores[start], -np.inf)
        before = []
        for word in range(start + 1, stop):
            asked = sums[:, None] + moves
            before.append(asked.argmax(0))
            sums = asked.max(0) + scores[word]
        tag = int(np.where(allowed.last, sums, -np.inf).argmax())
        for word in range(stop - 1, start - 1, -1):
            tags[word] = tag
            tag = int(before[word - start - 1][tag]) if word > start else tag
    return tags


def all_at_once(logits: Floats, starts: Ints, allowed: Constraints) -> Ints:
    """Viterbi's algorithm on all sentences, by numpy, whether they need it or not."""
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    steps, begin = lengths[order], starts[:-1][order]
    real = np.arange(steps[0]) < steps[:, None]
    words = begin[:, None] + np.minimum(np.arange(steps[0]), steps[:, None] - 1)
    tags = np.empty(len(logits), np.int64)
    tags[words[real]] = viterbi._search(logits[words], steps, allowed)[real]
    return tags


def window_by_window(windows: Sequence[Floats]) -> list[tuple[int, int]]:
    """The best span of one window after the other."""
    found = []
    for window in windows:
        best, where, scores = -np.inf, (0, 0), []
        for more in range(min(MAX_ANSWER_PIECES, len(window))):
            sums = window[: len(window) - more, 0] + window[more:, 1]
            scores.append(sums)
            top = int(sums.argmax())
            if sums[top] > best:
                best, where = sums[top], (top, top + more)
        np.exp(np.concatenate(scores).astype(np.float64) - best).sum()
        found.append(where)
    return found


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def compare(ways: dict[str, Callable[[], object]], seconds: float) -> dict[str, dict[str, str]]:
    """Milliseconds of each way, and how many times as long it takes as the first."""
    found = interleave({name: partial(timed, work) for name, work in ways.items()}, seconds, 3)
    first = next(iter(found))
    return {
        name: {"ms": f"{min(times):.3g}", "times the first": f"{ratios(times, found[first])}"}
        for name, times in found.items()
    }


def tagging(task: Task, examples: Sequence[Example], seconds: float) -> dict[str, dict[str, dict[str, str]]]:
    """The search alone, and all of decoding with it."""
    allowed = viterbi.constraints_of(task.card)
    bound = task.card.model_copy(update={"decoding": "viterbi"})
    found = {}
    for name, noise in NOISE.items():
        logits, starts = scores_of(task, examples, noise)
        native = viterbi.compiled() is not None
        threads = os.cpu_count() or 1
        ways: dict[str, Callable[[], object]] = {
            "compiled, one thread": partial(viterbi.best, logits, starts, allowed),
            "compiled, all threads": partial(viterbi.best, logits, starts, allowed, threads),
            "numpy": partial(viterbi.best_by_numpy, logits, starts, allowed),
            "numpy, all sentences": partial(all_at_once, logits, starts, allowed),
            "sentence by sentence": partial(sentence_by_sentence, logits, starts, allowed),
        }
        found[f"tags {name}"] = compare({way: ways[way] for way in ways if native or "compiled" not in way}, seconds)
        words = [np.arange(len(example.tokens), dtype=np.int32) for example in examples]
        none = np.zeros(0, np.int32)
        features = [Feature(number, none, none, places, places) for number, places in enumerate(words)]
        outputs = [logits[start:stop] for start, stop in pairwise(starts.tolist())]

        def numpy_alone(features: list[Feature] = features, outputs: list[Floats] = outputs) -> None:
            kept, viterbi.compiled = viterbi.compiled, lambda: None
            try:
                decode(bound, examples, features, outputs)
            finally:
                viterbi.compiled = kept

        found[f"all of decoding, tags {name}"] = compare(
            {
                "viterbi, compiled": partial(decode, bound, examples, features, outputs),
                "viterbi, numpy": numpy_alone,
                "greedy": partial(decode, task.card, examples, features, outputs),
            },
            seconds,
        )
    return found


def spans(count: int, seconds: float) -> dict[str, dict[str, dict[str, str]]]:
    """On windows of 384 pieces with 20 of question."""
    random = np.random.default_rng(0)
    windows = [random.normal(size=(pieces, 2)).astype(np.float32) * 3 for pieces in random.integers(90, 361, count)]
    ways: dict[str, Callable[[], object]] = {
        "numpy, all windows": partial(best_spans, windows),
        "numpy, 20 answers each": partial(best_spans, windows, 20),
        "window by window": partial(window_by_window, windows),
    }
    return {"answers": compare(ways, seconds)}


def shares(tasks: Sequence[Task], examples: dict[str, list[Example]], engine: str, rounds: int) -> list[list[str]]:
    """What decoding takes of a session's time."""
    bound = [viterbi.decoded([task.card], "viterbi")[0] if task.name == TAGGING else task.card for task in tasks]
    backbone = load_backbone(ENCODER)
    model = PromptedModel(backbone, None, bound, Pooling.CLS).eval().requires_grad_(False)
    for head in model.heads.values():
        head.weight.data.normal_(std=0.3)
    found = []
    with TemporaryDirectory() as folder:
        tiny_bundle(Path(folder) / "bundle", model, bound)
        session = Session(Path(folder) / "bundle", engine=engine)
        taken: list[float] = []
        whole = session._decode

        def decoding(*parts: object) -> object:
            began = time.perf_counter()
            answers = whole(*parts)  # type: ignore[arg-type]
            taken.append(1000 * (time.perf_counter() - began))
            return answers

        session._decode = decoding  # type: ignore[assignment, method-assign]
        for task in tasks:
            asked, all_of_it, part = examples[task.name], [], []
            session.predict(task.name, asked[:16])
            for _ in range(rounds):
                taken.clear()
                all_of_it.append(timed(partial(session.predict, task.name, asked)))
                part.append(sum(taken))
            share = spread([100 * one / other for one, other in zip(part, all_of_it, strict=True)])
            rows = len(asked)
            found.append([task.name, f"{min(all_of_it) / rows:.3g}", f"{min(part) / rows:.3g}", f"{share} %"])
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.decoding", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the official files")
    parser.add_argument("--engine", default="onnxruntime", help="of the session (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few rows, a few seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    if not options.data_dir.is_dir():
        raise PolypromptError(f"--data-dir {options.data_dir}: no such folder")
    count, seconds = (200, 0.5) if options.quick else (4000, 8.0)
    tasks = [find_task(name) for name in (TAGGING, SPAN)]
    examples = {task.name: rows_of(task, options.data_dir, count) for task in tasks}
    tables = tagging(tasks[0], examples[TAGGING], seconds) | spans(count // 8, seconds)
    few = {name: rows[: count // 8] for name, rows in examples.items()}
    parts = shares(tasks, few, options.engine, 2 if options.quick else 5)
    if options.json:
        print(json.dumps({"ways": tables, "shares": parts}, indent=2))
        return 0
    for name, table in tables.items():
        rows = [[way, *numbers.values()] for way, numbers in table.items()]
        print(f"\n{name}\n" + tabulate(rows, ["way", "ms", "times the first"], tablefmt="github"))
    print("\n" + tabulate(parts, ["task", "ms a row", "decoding, ms a row", "share"], tablefmt="github"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
