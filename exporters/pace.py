"""What a batch costs each engine in each form, measured, so that a session can tell which way to take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from tokenizers import Tokenizer

from exporters.batching import Form, Pace
from exporters.bench import batch_of
from exporters.bundle import TOKENIZER, BundleCard, Parity, read_tasks
from exporters.engines import has_operator, open_engine
from exporters.session import graph_file

ROWS, LENGTH = 8, 64
"""Of the larger batches that are timed: enough for the speed that products have in large batches."""

ROUNDS, SECONDS = 5, 0.5
"""Of the measurement: so many rounds, and more until this time is over."""


def with_paces(folder: Path, card: BundleCard) -> BundleCard:
    """The card of a bundle with the pace of each engine and form that was verified.

    Args:
        folder: the bundle. card: what is to become its card.
    """
    return card.model_copy(update={"parity": {name: _paced(folder, card, name) for name in card.parity}})


def _paced(folder: Path, card: BundleCard, name: str) -> Parity:
    report = card.parity[name]
    files = {form: file for form in report.forms if (file := graph_file(card, name, form))}
    files = {form: file for form, file in files.items() if form != "native" or has_operator(name)}
    paces = measure(folder, card, name, files)
    others = {form: part.model_copy(update={"pace": paces.get(form, part.pace)}) for form, part in report.forms.items()}
    return others.pop("padded").model_copy(update=others)


def measure(folder: Path, card: BundleCard, name: str, forms: Mapping[Form, str]) -> dict[Form, Pace]:
    """The paces of an engine.

    Three batches tell: a short row, rows of one length, and rows of which one is long. They take turns, and of each the
    least time counts, which other work on the machine disturbs least. A pace is what fits these times best and is not
    negative, by least squares of the relative errors.

    Args:
        folder: the bundle. card: its card. name: of the engine.
        forms: names of graphs.
    """
    tensors = read_tasks(folder, card)[1]
    vocabulary = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab_size()
    longest = min(LENGTH, card.shortest_limit)
    short = -(-longest // 8)
    batches = [[short], [longest] * ROWS, [*[short] * (ROWS - 1), longest]]
    feeds = [batch_of(card, lengths, vocabulary) for lengths in batches]
    engines, opening = [], []
    for number, (form, file) in enumerate(forms.items()):
        began = time.perf_counter()
        engines.append(open_engine(name, folder / file, second=number > 0, native=form == "native"))
        engines[-1].keep(tensors)
        engines[-1].run([feeds[0][1]], feeds[0][0])
        opening.append(round(1e6 * (time.perf_counter() - began)))
    taken = np.full((len(forms), len(batches)), np.inf)
    rounds, end = 0, 0.0
    while rounds <= ROUNDS or time.perf_counter() < end:
        for number, engine in enumerate(engines):
            for batch, (given, output) in enumerate(feeds):
                began = time.perf_counter()
                engine.run([output], given)
                if rounds:  # in the first one kernels are chosen
                    taken[number, batch] = min(taken[number, batch], 1e6 * (time.perf_counter() - began))
        end = end or time.perf_counter() + SECONDS
        rounds += 1
    sizes = {
        "padded": lambda lengths: {"batch": 1, "piece": len(lengths) * max(lengths)},
        "packed": lambda lengths: {"batch": 1, "piece": sum(lengths), "place": len(lengths) * max(lengths)},
        "native": lambda lengths: {"batch": 1, "piece": sum(lengths), "pair": sum(one * one for one in lengths)},
    }
    paces: dict[Form, Pace] = {}
    for number, form in enumerate(forms):
        known = [sizes[form](lengths) for lengths in batches]
        rows = np.array([list(size.values()) for size in known], float)
        found = nnls(rows / taken[number][:, None], np.ones(len(batches)))[0].round(6).tolist()
        paces[form] = Pace(opening=opening[number], **dict(zip(known[0], found, strict=True)))
    return paces
