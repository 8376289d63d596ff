"""What a batch costs each engine in each form, measured, so that a session can tell which way to take."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from tokenizers import Tokenizer

from exporters.batching import Pace
from exporters.bench import batch_of, bench
from exporters.bundle import PACKED, TOKENIZER, BundleCard, Parity, read_tasks
from exporters.engines import open_engine
from exporters.session import model_file

ROWS, LENGTH = 8, 64
"""Of the larger batches that are timed: enough for the speed that products have in large batches."""

SECONDS = 0.05
"""Of each of them."""


def with_paces(folder: Path, card: BundleCard) -> BundleCard:
    """The card of a bundle with the pace of each engine and form that was verified.

    Three batches tell: a short row, rows of one length, and rows of which one is long. Times of `Pace` are those that
    fit them best and are not negative, by least squares of the relative errors.

    Args:
        folder: the bundle. card: what is to become its card.
    """
    return card.model_copy(update={"parity": {name: _paced(folder, card, name) for name in card.parity}})


def _paced(folder: Path, card: BundleCard, name: str) -> Parity:
    report, packed = card.parity[name], card.parity[name].packed
    if packed is not None:
        packed = packed.model_copy(update={"pace": _pace(folder, card, name, packed=True)})
    return report.model_copy(update={"pace": _pace(folder, card, name, packed=False), "packed": packed})


def _pace(folder: Path, card: BundleCard, name: str, packed: bool) -> Pace:
    tensors = read_tasks(folder, card)[1]
    vocabulary = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab_size()
    longest = min(LENGTH, card.shortest_limit)
    short = -(-longest // 4)
    batches = [[short], [longest] * ROWS, [*[short] * (ROWS - 1), longest]]
    began = time.perf_counter()
    engine = open_engine(name, folder / (PACKED if packed else model_file(card, name)), second=packed)
    engine.keep(tensors)
    feeds, output = batch_of(card, batches[0], vocabulary)
    engine.run([output], feeds)
    opening = 1e6 * (time.perf_counter() - began)
    known, taken = [], []
    for lengths in batches:
        places = len(lengths) * max(lengths)
        known.append([1, sum(lengths), places] if packed else [1, places, 0])
        taken.append(1000 * bench(engine, batch_of(card, lengths, vocabulary)[0], output, SECONDS))
    scaled = np.array(known) / np.array(taken)[:, None]
    batch, piece, place = nnls(scaled, np.ones(len(taken)))[0].tolist()
    return Pace(opening=round(opening), batch=round(batch, 1), piece=round(piece, 4), place=round(place, 4))
