"""What a batch costs each engine in each form, measured, so that a session can tell which way to take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from tokenizers import Tokenizer

from exporters.batching import COMPILED, GRAPHS, Form, Pace, Sizes, shares
from exporters.bench import batch_of
from exporters.bundle import MODEL, TOKENIZER, BundleCard, Parity, read_tasks
from exporters.engines import Engine, has_operator, has_streams, open_engine, run_side_by_side, streams_of
from exporters.engines.interface import Batch as Asked
from exporters.session import graph_file

ROWS, LENGTH = 8, 64
"""Of the larger batches that are timed: enough for the speed that products have in large batches."""

LONGER = 4
"""Times that length, and a quarter of the rows, in the batch that tells what attention takes."""

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
        return [form for form, graph in GRAPHS.items() if graph in self.forms and has_streams(self.name)]

    def open(self, form: Form) -> Engine:
        """What computes a form.

        Raises:
            PolypromptError: the engine cannot open its graph.
        """
        if form not in self._engines:
            file = self.folder / (graph_file(self.card, self.name, form) or MODEL)
            began = time.perf_counter()
            how = {"native": form in COMPILED, "streams": form in GRAPHS}
            second = bool(self._engines) and not self.card.light
            engine = open_engine(self.name, file, second=second, **how)
            self.opening[form] = round(1e6 * (time.perf_counter() - began))
            self._engines[form] = engine
        return self._engines[form]


def paced(report: Parity, graphs: Graphs) -> Parity:
    """The report of an engine with what each form takes that was verified."""
    forms = list(report.forms)
    paces = measure(graphs, [*forms, *(form for form in graphs.in_streams if GRAPHS[form] in forms)])
    parts = {form: part.model_copy(update={"pace": paces[form]}) for form, part in report.forms.items()}
    for form, graph in GRAPHS.items():
        if form in paces:
            parts[graph] = parts[graph].model_copy(update={"streams": paces[form]})
    return parts.pop("padded").model_copy(update=parts)


def measure(graphs: Graphs, forms: Sequence[Form]) -> dict[Form, Pace]:
    """The paces of an engine in some forms.

    Four batches tell: a short row, rows of one length, rows of which one is long, and a few that are longer. They take
    turns, and of each the least time counts, which other work on the machine disturbs least. A pace is what fits these
    times best and is not negative, by least squares of the relative errors.
    """
    card = graphs.card
    tensors = read_tasks(graphs.folder, card)[1]
    vocabulary = Tokenizer.from_file(str(graphs.folder / TOKENIZER)).get_vocab_size()
    longest = max(min(LENGTH, card.shortest_limit // LONGER), 1)
    short = -(-longest // 8)
    batches = [[short], [longest] * ROWS, [*[short] * (ROWS - 1), longest], [LONGER * longest] * (ROWS // LONGER)]
    engines = [graphs.open(form) for form in forms]
    for engine in engines:
        engine.keep(tensors)

    def asked(engine: Engine, lengths: list[int]) -> list[Asked]:
        parts = shares(lengths, streams_of(engine))
        made = [batch_of(card, [lengths[row] for row in part], vocabulary) for part in parts]
        return [([output], feeds) for feeds, output in made]

    given = [[asked(engine, lengths) for lengths in batches] for engine in engines]
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

    sizes = [Sizes(lengths) for lengths in batches]
    paces: dict[Form, Pace] = {}
    for number, form in enumerate(forms):
        streams = streams_of(engines[number])
        known = [[1, *(int(size[0]) for size in one.of(form, len(one.longest), streams))] for one in sizes]
        rows = np.array(known, float)
        found = nnls(rows / taken[number][:, None], np.ones(len(batches)))[0].round(6).tolist()
        fitted = dict(zip(("batch", "piece", "pair"), found, strict=True))
        paces[form] = Pace(opening=graphs.opening[form], streams=streams, **fitted)
    return paces
