"""What a batch costs each engine in each form, measured, so that a session can tell which way to take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from tokenizers import Tokenizer

from exporters.batching import COMPILED, SIDE_BY_SIDE, Form, Pace, shares, side_by_side
from exporters.bench import batch_of
from exporters.bundle import MODEL, TOKENIZER, BundleCard, Parity, read_tasks
from exporters.engines import Engine, has_operator, has_streams, open_engine, run_side_by_side, streams_of
from exporters.engines.interface import Batch as Asked
from exporters.session import graph_file

ROWS, LENGTH = 8, 64
"""Of the larger batches that are timed: enough for the speed that products have in large batches."""

ROUNDS, SECONDS = 5, 0.5
"""Of the measurement: so many rounds, and more until this time is over."""


class Graphs:
    """The graphs of a bundle in one engine, each opened when it is first asked for.

    Args:
        folder: the bundle. card: its card. name: of the engine.

    Attributes:
        opening: what it took to open each, in microseconds.
    """

    def __init__(self, folder: Path, card: BundleCard, name: str) -> None:
        self.folder, self.card, self.name = folder, card, name
        self.opening: dict[Form, int] = {}
        self._engines: dict[Form, Engine] = {}

    @property
    def forms(self) -> list[Form]:
        """Those that the bundle has a graph for and that can be computed here, the padded one first."""
        there: list[Form] = ["padded", "packed", "native"]
        there = [form for form in there if graph_file(self.card, self.name, form)]
        return [form for form in there if form != "native" or has_operator(self.name)]

    @property
    def in_streams(self) -> list[Form]:
        """What of it can be computed side by side here."""
        if not has_streams(self.name):
            return []
        return ["queued", *(["streams"] if "native" in self.forms else [])]

    def open(self, form: Form) -> Engine:
        """What computes a form.

        Raises:
            PolypromptError: the engine cannot open its graph.
        """
        if form not in self._engines:
            file = self.folder / (graph_file(self.card, self.name, form) or MODEL)
            began = time.perf_counter()
            how = {"native": form in COMPILED, "streams": form in SIDE_BY_SIDE}
            second = bool(self._engines) and not self.card.light
            engine = open_engine(self.name, file, second=second, **how)
            self.opening[form] = round(1e6 * (time.perf_counter() - began))
            self._engines[form] = engine
        return self._engines[form]


def paced(report: Parity, graphs: Graphs) -> Parity:
    """The report of an engine with what each form takes that was verified."""
    forms = list(report.forms)
    forms += [form for form in graphs.in_streams if form == "queued" or "native" in forms]
    paces = measure(graphs, forms)
    parts = {form: part.model_copy(update={"pace": paces[form]}) for form, part in report.forms.items()}
    if "streams" in paces:
        parts["native"] = parts["native"].model_copy(update={"streams": paces["streams"]})
    return parts.pop("padded").model_copy(update={**parts, "queued": paces.get("queued")})


def measure(graphs: Graphs, forms: Sequence[Form]) -> dict[Form, Pace]:
    """The paces of an engine in some forms.

    Three batches tell: a short row, rows of one length, and rows of which one is long. They take turns, and of each the
    least time counts, which other work on the machine disturbs least. A pace is what fits these times best and is not
    negative, by least squares of the relative errors.
    """
    card = graphs.card
    tensors = read_tasks(graphs.folder, card)[1]
    vocabulary = Tokenizer.from_file(str(graphs.folder / TOKENIZER)).get_vocab_size()
    longest = min(LENGTH, card.shortest_limit)
    short = -(-longest // 8)
    batches = [[short], [longest] * ROWS, [*[short] * (ROWS - 1), longest]]
    engines = [graphs.open(form) for form in forms]
    for engine in engines:
        engine.keep(tensors)

    def asked(form: Form, engine: Engine, lengths: list[int]) -> list[Asked]:
        count = streams_of(engine)
        parts = [list(range(len(lengths)))] * count if form == "queued" else shares(lengths, count)
        made = [batch_of(card, [lengths[row] for row in part], vocabulary) for part in parts]
        return [([output], feeds) for feeds, output in made]

    given = [[asked(*one, lengths) for lengths in batches] for one in zip(forms, engines, strict=True)]
    taken = np.full((len(forms), len(batches)), np.inf)
    rounds, end = 0, 0.0
    while rounds <= ROUNDS or time.perf_counter() < end:
        for number, engine in enumerate(engines):
            for batch, parts in enumerate(given[number]):
                began = time.perf_counter()
                run_side_by_side(engine, parts)
                if rounds:  # in the first one kernels are chosen
                    taken[number, batch] = min(taken[number, batch], 1e6 * (time.perf_counter() - began))
        end = end or time.perf_counter() + SECONDS
        rounds += 1

    def native(streams: int, lengths: Sequence[int]) -> dict[str, int]:
        piece = side_by_side(sum(lengths), streams, max(lengths))
        pair = side_by_side(sum(one * one for one in lengths), streams, max(lengths) ** 2)
        return {"batch": 1, "piece": int(piece), "pair": int(pair)}

    sizes = {
        "padded": lambda lengths: {"batch": 1, "piece": len(lengths) * max(lengths)},
        "packed": lambda lengths: {"batch": 1, "piece": sum(lengths), "place": len(lengths) * max(lengths)},
    }
    paces: dict[Form, Pace] = {}
    for number, form in enumerate(forms):
        streams = streams_of(engines[number])
        size_of = sizes["padded" if form == "queued" else form] if form not in COMPILED else partial(native, streams)
        known = [size_of(lengths) for lengths in batches]
        rows = np.array([list(size.values()) for size in known], float)
        found = nnls(rows / taken[number][:, None], np.ones(len(batches)))[0].round(6).tolist()
        fitted = dict(zip(known[0], found, strict=True))
        paces[form] = Pace(opening=graphs.opening[form], streams=streams, **fitted)
    return paces
