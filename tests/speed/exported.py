"""Bundles with random prompts, in every engine, precision and form that this machine has, for the benches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.records import Example
from benchmarks.registry import find_task
from benchmarks.results import write_model
from benchmarks.task import Kind, TaskCard
from exporters.batching import ASSUMED, GRAPHS, Form, Pace, Plan, plan, shares
from exporters.bundle import CARD, BundleCard, Parity, write_bundle
from exporters.calibrate import calibrate
from exporters.engines import (
    Engine,
    EngineCard,
    has_operator,
    installed,
    open_engine,
    pieces_a_batch,
    run_side_by_side,
    streams_of,
)
from exporters.export import describe, graph_of, tensors_of
from exporters.graph import build_graph
from exporters.native_form import build_native
from exporters.pace import Graphs, paced
from exporters.packed import build_packed
from exporters.precision import Precision, in_precision
from exporters.session import graph_file
from harness.backbone import Backbone
from harness.heads import Pooling
from harness.model import PromptedModel
from harness.placement import Placement
from harness.sharing import PromptBank
from tests.bundles import tiny_manifest

SLOTS = 16

Ints = NDArray[np.int64]


def cards(count: int) -> list[TaskCard]:
    """So many classification tasks."""
    card = find_task("demo-topic").card
    return [card.model_copy(update={"name": f"task-{number}"}) for number in range(count)]


def prompted(backbone: Backbone, tasks: Sequence[TaskCard], slots: int = SLOTS, shared: bool = False) -> PromptedModel:
    """A model with random prompts in all layers, one a task or one for all; without slots none."""
    prompt = None
    if slots:
        layers, prompts = tuple(range(backbone.layers)), 1 if shared else len(tasks)
        bank = torch.randn(prompts, len(layers), 2, backbone.heads, slots, backbone.hidden // backbone.heads)
        rows = {"": 0} if shared else {card.name: number for number, card in enumerate(tasks)}
        prompt = PromptBank(bank, rows, Placement(layers=layers))
    return PromptedModel(backbone, prompt, list(tasks), Pooling.CLS)


def bundle_of(model: PromptedModel, tasks: Sequence[TaskCard], folder: Path, precision: Precision) -> BundleCard:
    """A bundle with all graphs, and the paces of each engine as an export measures them."""
    folder.mkdir(parents=True)
    about = describe(model, tiny_manifest(model, list(tasks))).model_copy(update={"precision": precision.value})
    graphs = [in_precision(graph_of(model, form), precision) for form in (build_graph, build_packed, build_native)]
    tensors, tokenizer = tensors_of(model, list(tasks)), model.backbone.tokenizer.to_str()
    card = write_bundle(folder, about, graphs[0], tensors, tokenizer, packed=graphs[1], native=graphs[2])
    if precision is Precision.INT8:
        # What texts say has no bearing on time.
        texts = [Example(str(number), "the team won the match in the last minute " * number) for number in range(1, 9)]
        one = next(card for card in tasks if card.kind == Kind.CLASSIFICATION)
        card = calibrate(folder, card, {(one.name, ""): texts})
    parity = {name: _unchecked(card, name) for name in installed()}
    parity = {name: paced(report, Graphs(folder, card, name)) for name, report in parity.items()}
    card = card.model_copy(update={"parity": parity})
    write_model(folder / CARD, card)
    return card


def _unchecked(card: BundleCard, name: str) -> Parity:
    """A report as if an engine agreed in all forms that there are; how well is no matter of speed."""
    engine = EngineCard(name=name, version="", device="cpu", threads=None, precision="", attention="")
    report = Parity(engine=engine, atol=None, max_drop=None, difference=0, drop=0, milliseconds=1, tasks={})
    others = {form: report for form in ("packed", "native") if graph_file(card, name, form)}
    if not has_operator(name):
        others.pop("native", None)
    return report.model_copy(update=others)


class Exported:
    """A bundle in an engine, with a graph a form.

    Args:
        folder: the bundle. card: its card. model: what it was made from. tasks: its tasks. name: of the engine.

    Attributes:
        engines: form -> what computes it. paces: form -> what it takes.
    """

    def __init__(
        self, folder: Path, card: BundleCard, model: PromptedModel, tasks: Sequence[TaskCard], name: str
    ) -> None:
        self._most = pieces_a_batch(name)
        self.engines: dict[Form, Engine] = {}
        self.paces: dict[Form, Pace] = {}
        tensors = tensors_of(model, list(tasks))
        for form, report in card.parity[name].forms.items():
            file = graph_file(card, name, form)
            assert file is not None  # there is a report
            second = form != "padded" and not card.light
            engine = open_engine(name, folder / file, second=second, native=form == "native")
            engine.keep(tensors)
            self.engines[form] = engine
            self.paces[form] = report.pace or ASSUMED
            if report.streams:
                beside = next(beside for beside, graph in GRAPHS.items() if graph == form)
                engine = open_engine(name, folder / file, second=True, native=form == "native", streams=True)
                engine.keep(tensors)
                self.engines[beside], self.paces[beside] = engine, report.streams

    def run(self, form: Form, ids: Ints, lengths: Ints, tasks: Ints) -> Any:
        """Logits, [rows, labels], of each part of a batch that is computed side by side with the others."""
        beside = next((beside for beside, graph in GRAPHS.items() if graph == form), form)
        if len(ids) > 1 and beside in self.engines:  # in parts side by side where that can be done
            form = beside
        engine = self.engines[form]
        streams = streams_of(engine)
        parts: list[Any] = shares(lengths.tolist(), streams) if streams > 1 else [slice(None)]
        return run_side_by_side(engine, [_asked(ids[part], lengths[part], tasks[part]) for part in parts])

    def plan(self, lengths: Ints, *forms: Form) -> Plan:
        """As a session cuts rows of ascending length: into batches of these forms; of those that it uses, if none is
        named.
        """
        used = [form for form in self.paces if form != "packed-streams" or "native" not in self.paces]
        paces = {form: self.paces[form] for form in forms or used}
        return plan(lengths.tolist(), self._most, paces)

    def in_parts(self, parts: Plan, ids: Ints, lengths: Ints, tasks: Ints) -> None:
        """Compute a plan."""
        for rows, form in parts.batches:
            self.run(form, ids[rows], lengths[rows], tasks[rows])

    def ways(self, ids: Ints, lengths: Ints, tasks: Ints) -> dict[str, Callable[[], Any]]:
        """Ways to compute rows of ascending length: in one batch, by form, but in the native form in as many as a
        session makes; in padded batches (sorted); in what costs least without the compiled operator (chosen), or of all
        forms, as in a session.
        """
        given = ids, lengths, tasks
        plans = {"sorted": self.plan(lengths, "padded"), "as in a session": self.plan(lengths)}
        standard: list[Form] = [form for form in ("padded", "packed", "packed-streams") if form in self.engines]
        if len(standard) > 1:
            plans["chosen"] = self.plan(lengths, *standard)
        forms = self.engines.keys() - GRAPHS.keys()
        native: list[Form] = [form for form in ("native", "native-streams") if form in self.engines]
        if native:
            plans["native"] = self.plan(lengths, *native)
        found: dict[str, Callable[[], Any]] = {form: partial(self.run, form, *given) for form in forms}
        return found | {name: partial(self.in_parts, parts, *given) for name, parts in plans.items()}


def _asked(ids: Ints, lengths: Ints, tasks: Ints) -> tuple[list[str], dict[str, Ints]]:
    """Rows as an engine is asked for their logits."""
    some = np.ascontiguousarray(ids[:, : lengths.max()])
    feeds = {"input_ids": some, "lengths": lengths, "task_id": tasks, "token_type_ids": np.zeros_like(some)}
    return ["sequence_logits"], feeds | {"sequence_rows": np.arange(len(some)), "whole_rows": np.zeros(0, np.int64)}


def exported(model: PromptedModel, tasks: Sequence[TaskCard], folder: Path) -> dict[str, Exported]:
    """A model in each engine and precision that this machine has, by their names."""
    found = {}
    for precision in (Precision.FP32, Precision.INT8):
        there, mark = folder / precision.value, "" if precision is Precision.FP32 else f" {precision.value}"
        card = bundle_of(model, tasks, there, precision)
        found |= {f"{name}{mark}": Exported(there, card, model, tasks, name) for name in card.parity}
    return found


def ragged(rows: int, longest: int, share: float, random: np.random.Generator) -> Ints:
    """Lengths of rows, ascending, of which one is the longest and the mean is a share of it."""
    lengths = random.exponential(1.0, rows)
    for _ in range(20):  # cut at both ends, and scaled again
        lengths = np.clip(lengths * share * longest / lengths.mean(), 3, longest)
    lengths[lengths.argmax()] = longest
    return np.sort(lengths.round().astype(np.int64))
