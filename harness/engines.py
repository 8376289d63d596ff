"""Which engine computes what is not trained: those that are installed are verified and timed on a run's own rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import cache
from benchmarks.errors import PolypromptError
from benchmarks.records import Example, Split
from benchmarks.results import InferenceCard
from benchmarks.task import Kind, TaskCard
from harness import backbone, encoder, inference, kernel, products
from harness.attention import Prefix
from harness.backbone import Trunk
from harness.batches import evaluation_batches
from harness.data import TaskRows
from harness.device import Device, is_sharded
from harness.features import Feature, TextEncoder, pad
from harness.inference import Inference, InferenceEngine, Layers, Part
from harness.model import PromptedModel
from harness.screen import Screen
from harness.train import TaskTraining
from harness.trunk import PIECES, TrunkCache

GROUP = "polyprompt.inference"
"""Of entry points in packages' metadata; each makes an `InferenceEngine`."""

AUTO, OWN = "auto", "own"

MARGIN = 1.1
"""So many times as fast as our own engine another one must be measured to be taken, so that noise does not decide."""

WORTH = 10.0
"""Seconds that our own engine must need for all there is to compute: below, nothing is compiled."""

SAMPLE = 6
"""Batches of each part of the encoder on which engines are verified and timed."""

CLOSE = 1e-4
"""Between fp32 states of two engines, of the largest state where that is above 1."""

AS_GOOD = 1.5
"""So many times the error of our own bf16 states another engine's may have, both against fp32."""

AS_GOOD_ANYWHERE = 2.5
"""The same of the piece with the largest error."""

_CODE = [Path(module.__file__ or "") for module in (backbone, encoder, inference, kernel, products)] + [Path(__file__)]


@dataclass(frozen=True)
class Batch:
    """Rows that go through a part of the encoder together.

    Attributes:
        card, language: of the rows, which say what prompt they get. features: rows. times: how often in the run.
    """

    card: TaskCard
    language: str
    features: list[Feature]
    times: int = 1

    @property
    def pieces(self) -> int:
        """Computed in the whole run, padding included."""
        return self.times * len(self.features) * max(map(len, self.features))


@dataclass(frozen=True)
class Work:
    """All batches that a run sends through one part.

    Attributes:
        part: of the encoder. batches: in the order in which they are computed.
    """

    part: Part
    batches: list[Batch]

    def sample(self, count: int) -> list[Batch]:
        """So many batches, spread over all of them."""
        places = np.linspace(0, len(self.batches) - 1, min(count, len(self.batches)))
        return [self.batches[round(place)] for place in places]


@dataclass(frozen=True)
class Ahead:
    """What a run has to compute.

    Attributes:
        model: as it is before training, on its device. training, rows: all that is computed. texts: encodes rows.
        epochs: so often the rows that select are predicted. cache_gb: of the trunk.
        device: of the model.
    """

    model: PromptedModel
    training: Sequence[TaskTraining]
    rows: Sequence[TaskRows]
    texts: TextEncoder
    epochs: int
    cache_gb: float
    device: Device

    def works(self) -> list[Work]:
        """What is computed without gradients, by parts that another engine may compute."""
        model, training = self.model, self.training
        cached = model.trunk_layers if training and TrunkCache.of(model, self.device, self.cache_gb) is not None else 0
        found: dict[Part, list[Batch]] = {}

        def add(part: Part | None, batches: Sequence[Batch]) -> None:
            if part is not None and batches:
                found.setdefault(part, []).extend(batches)

        def batches(card: TaskCard, language: str, features: Sequence[Feature], times: int) -> list[Batch]:
            groups = evaluation_batches(features, PIECES)
            return [Batch(card, language, [features[row] for row in group], times) for group in groups]

        if cached:
            for task in training:
                add(Part(0, cached), batches(task.task.card, task.language, task.features, 1))
        for card, language, split, times in _predicted(self.rows, self.epochs if training else 0):
            prompt = model.prompt_of(card, language)
            prefix = prompt if isinstance(prompt, Prefix) else None
            part = Part.of(prefix, cached, model.backbone.layers, model.read(card) is not None)
            for examples in (split.examples, _candidates(card, split)):
                features = self.texts.features(card, examples) if examples else []
                add(part, batches(card, language, features, times))
                add(Part(0, cached) if cached else None, batches(card, language, features, 1))
        return [Work(part, batches) for part, batches in found.items()]


def installed() -> dict[str, EntryPoint]:
    """Name -> the engine that it stands for, of those that packages here declare."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def choose(
    asked: str, began: InferenceCard | None, ahead: Ahead, screen: Screen
) -> tuple[Inference | None, InferenceCard | None]:
    """Decide for a run what computes its frozen layers where no gradient is asked for.

    Args:
        asked: `--inference`: "auto", "own", or the name of an engine. began: the choice that the run began with, if it
            goes on.
        ahead: of the run. screen: told what is chosen and why.

    Returns:
        What computes in place of our own engine, None if nothing does; and what a manifest says, None where there was
        no choice.

    Raises:
        PolypromptError: the engine that is asked for, or that the run began with, is not there or not right.
    """
    found = installed()
    if asked not in (AUTO, OWN, *found):
        there = ", ".join([AUTO, OWN, *found])
        raise PolypromptError(
            f"--inference {asked}: no package here brings this engine; there are {there}. OpenVINO's comes with the "
            "installed package and the extra `cpu`"
        )
    if asked == OWN or not (found or began):
        return None, None
    hindrance = _hindrance(ahead.model, ahead.device)
    ahead.model.eval()
    works = [] if hindrance else ahead.works()
    if not works:
        why = hindrance or "another engine cannot compute such a prompt"
        if asked != AUTO:
            screen.say(f"--inference {asked}: {why}, so our own engine computes all")
        return None, None
    judge = _Judge(ahead.model, ahead.device, works, screen)

    def decide() -> InferenceCard | None:
        if began is not None:
            return began if began.engine == OWN else judge.verified(began.engine, found, began)
        card = judge.fastest(found) if asked == AUTO else judge.verified(asked, found)
        if card is not None:
            screen.say(f"inference by {card.engine}: {card.why}")
        return card

    card = ahead.device.first(decide)
    if card is None or card.engine == OWN:
        return None, card
    return judge.opened.get(card.engine) or judge.open(card.engine, found), card


def _predicted(rows: Sequence[TaskRows], epochs: int) -> Iterator[tuple[TaskCard, str, Split, int]]:
    """Splits of a run, and how often each is predicted."""
    for task_rows in rows:
        card = task_rows.task.card
        for language, split in task_rows.tuning.items():
            yield card, language, split, 1
        for (_, language), split in task_rows.evaluation.items():
            yield card, language, split, 1
        for language, split in task_rows.selecting.items() if epochs else ():
            yield card, language, split, epochs


def _candidates(card: TaskCard, split: Split) -> list[Example]:
    """What is embedded besides the questions of retrieval."""
    retrieval = card.kind is Kind.RETRIEVAL
    return [Example(str(number), text=text) for number, text in enumerate(split.candidates)] if retrieval else []


def _hindrance(model: PromptedModel, device: Device) -> str | None:
    """Why nothing but our own engine can compute a model at all."""
    encoder = model.backbone
    if device.torch.type != "cpu":
        return "it computes on a processor alone"
    if encoder.engine != OWN or is_sharded(encoder):
        return "the encoder is computed by transformers"
    if any(weight.requires_grad for weight in encoder.parameters()):
        return "the encoder is trained"
    if encoder.disentangled:
        return f"it cannot compute {encoder.card.family}"
    return None


class _Judge:
    """Verifies and times engines on a part of what a run computes.

    Args:
        model, device: see `Ahead`. works: all that is computed. screen: is told what is not right.

    Attributes:
        opened: engines that were compiled.
    """

    def __init__(self, model: PromptedModel, device: Device, works: Sequence[Work], screen: Screen) -> None:
        self.model, self.device, self.works, self.screen = model, device, works, screen
        self.opened: dict[str, Inference] = {}
        self._trunks: dict[int, Tensor] = {}

    def fastest(self, found: dict[str, EntryPoint]) -> InferenceCard | None:
        """The engine that is clearly faster than our own, with the figures; None where no other one can be loaded."""
        engines = {}
        for name, entry in found.items():
            try:
                engines[name] = _load(entry)
            except ImportError:
                continue
        if not engines:
            return None
        sizes = " ".join(f"{work.part} {round(math.log2(_pieces(work)))}" for work in self.works)
        name = cache.key(
            *("inference", self.device.title, self.device.precision, torch.__version__, kernel.instructions()),
            *(cache.source_hash(*_CODE), self.model.backbone.card.sha256, self.model.backbone.settings, sizes),
            *(engine.identity for engine in engines.values()),
        )
        made: list[InferenceCard] = []

        def decide() -> str:
            made.append(self._decide(engines, found))
            return made[0].model_dump_json()

        card = InferenceCard.model_validate_json(cache.through(name, str, decide))
        if made:
            return made[0]
        try:  # the choice of an earlier run like this one holds: noise shall not change it
            card = card.model_copy(update={"why": f"{card.why} (measured for an earlier run like this one)"})
            return card if card.engine == OWN else self.verified(card.engine, found, card)
        except PolypromptError as error:
            return self._own(str(error))

    def _decide(self, engines: dict[str, InferenceEngine], found: dict[str, EntryPoint]) -> InferenceCard:
        seconds = sum(self._seconds(work) for work in self.works)
        if seconds < WORTH:
            return self._own(f"it takes about {seconds:.1f} s for all, too little to compile another engine for")
        best: InferenceCard | None = None
        said = []
        for name in engines:
            try:
                card = self.verified(name, found)
            except PolypromptError as error:
                self.screen.say(str(error))
                said.append(str(error))
                continue
            saved = seconds * (1 - 1 / card.ratio)
            if card.ratio < MARGIN:
                said.append(f"{card.why}; {MARGIN} times are asked for")
            elif saved < card.compile_seconds:
                said.append(f"{card.why}; that would save {saved:.1f} s")
            elif best is None or card.ratio > best.ratio:
                best = card
        return best or self._own("; ".join(said))

    def _own(self, why: str) -> InferenceCard:
        return InferenceCard(engine=OWN, why=why)

    def _seconds(self, work: Work) -> float:
        """What our own engine needs for work, about."""
        taken = []
        for batch in work.sample(2):
            _, seconds = self._timed(work, batch)
            taken.append(seconds * batch.times / batch.pieces)
        return min(taken) * _pieces(work)

    def open(self, name: str, found: dict[str, EntryPoint]) -> Inference:
        """Compile an engine for all parts.

        Raises:
            PolypromptError: it is not there, or it cannot compute this encoder.
        """
        try:
            engine = _load(found[name])
        except KeyError:
            raise PolypromptError(f"--inference {name}: the run began with this engine, and it is not here") from None
        except ImportError as error:
            raise PolypromptError(f"--inference {name}: not installed ({error})") from None
        bf16, threads = self.device.precision == "bf16", torch.get_num_threads()
        parts: dict[Part, Layers] = {}
        for work in self.works:
            try:
                parts[work.part] = engine.compile(self.model.backbone, work.part, bf16, threads)
            except PolypromptError as error:
                raise PolypromptError(f"--inference {name}: {error}") from None
        self.opened[name] = Inference(name, engine.identity, parts, self.device.dtype)
        return self.opened[name]

    def verified(self, name: str, found: dict[str, EntryPoint], before: InferenceCard | None = None) -> InferenceCard:
        """Compile an engine, compare its states with those of ours, and measure both.

        Args:
            before: what was found earlier, which then stays.

        Raises:
            PolypromptError: its states are wrong, or as `open`.
        """
        began = time.perf_counter()
        opened = self.open(name, found)
        compiled = time.perf_counter() - began
        own, other, worst, ours = 0.0, 0.0, 0.0, 0.0
        batches = 0
        for work in self.works:
            sample = work.sample(SAMPLE if before is None else 2)
            self._timed(work, sample[0])
            self._timed(work, sample[0], opened)  # the first pass of all makes buffers
            ratios, speeds = [], []
            for number, batch in enumerate(sample):
                pair = {}
                for way in (None, opened) if number % 2 else (opened, None):
                    pair[way is None] = self._timed(work, batch, way)
                found_error, own_error = self._compare(name, work, batch, pair[False][0], pair[True][0])
                worst, ours = max(worst, found_error), max(ours, own_error)
                ratios.append(pair[True][1] / pair[False][1])
                speeds.append(pair[True][1] * batch.times / batch.pieces)
            batches += len(sample)
            seconds = float(np.median(speeds)) * _pieces(work)
            own, other = own + seconds, other + seconds / float(np.median(ratios))
        if before is not None:
            return before
        ratio = own / other
        error = f"its states differ from fp32 by {worst:.1g}" + (f", ours by {ours:.1g}" if ours else "")
        return InferenceCard(
            engine=name,
            identity=opened.identity,
            why=f"{name} is {ratio:.2f} times as fast as our own engine on {batches} batches of this run, compiled in "
            f"{compiled:.1f} s; {error}",
            ratio=round(ratio, 3),
            compile_seconds=round(compiled, 2),
            error=worst,
            own_error=ours,
        )

    def _compare(self, name: str, work: Work, batch: Batch, found: Tensor, own: Tensor) -> tuple[float, float]:
        """Errors of both engines: the largest difference in fp32, else the mean over pieces of the root mean square.

        Raises:
            PolypromptError: that of the other engine is too large.
        """
        real = torch.arange(own.shape[1]) < torch.tensor([len(feature) for feature in batch.features])[:, None]
        place = f"--inference {name}: its states in layers {work.part.first} to {work.part.end - 1} are wrong: "
        way_out = "; leave it out or say --inference own"
        if found.shape != own.shape or not bool(found[real].isfinite().all()):
            raise PolypromptError(f"{place}not finite, or of another shape than ours{way_out}")
        if self.device.precision == "fp32":
            error, allowed = float((found - own)[real].abs().max()), CLOSE * max(1.0, float(own[real].abs().max()))
            if error > allowed:
                raise PolypromptError(
                    f"{place}they differ from our own engine's by {error:.1g}, allowed is {allowed:.1g}{way_out}"
                )
            return error, 0.0
        with self.model.backbone.exactly():
            exact = self._pass(work, batch, fp32=True)
        errors, own_errors = ((states.float() - exact)[real].square().mean(-1).sqrt() for states in (found, own))
        error, own_error = float(errors.mean()), float(own_errors.mean())
        if error > AS_GOOD * own_error or float(errors.max()) > AS_GOOD_ANYWHERE * float(own_errors.max()):
            raise PolypromptError(
                f"{place}they differ from fp32 by {error:.1g} (at most {float(errors.max()):.1g}), our own engine's by "
                f"{own_error:.1g} (at most {float(own_errors.max()):.1g}){way_out}"
            )
        return error, own_error

    def _timed(self, work: Work, batch: Batch, inference: Inference | None = None) -> tuple[Tensor, float]:
        """States of a batch by an engine, None: by ours, and the seconds that they took."""
        if work.part.first:
            self._below(work.part.first, batch)  # not a part of the time
        began = time.perf_counter()
        return self._pass(work, batch, inference), time.perf_counter() - began

    def _pass(self, work: Work, batch: Batch, inference: Inference | None = None, fp32: bool = False) -> Tensor:
        """States behind the layers of a part."""
        encoder, part, device = self.model.backbone, work.part, self.device
        ids, lengths, types = device.tensors(pad(batch.features, encoder.pad_id))
        below = self._below(part.first, batch) if part.first else None
        with torch.inference_mode(), nullcontext() if fp32 else device.autocast():
            prompt = self.model.prompt_of(batch.card, batch.language)
            if part == Part(0, part.end):
                shift = prompt.slots if prompt is not None and prompt.shifted else 0
                return encoder.trunk(ids, lengths, types, part.end, shift, inference)
            trunk = None if below is None else Trunk(below.float() if fp32 else below, part.first)
            return encoder(ids, lengths, types, prompt, self.model.read(batch.card), trunk, inference)

    def _below(self, layers: int, batch: Batch) -> Tensor:
        """What enters a layer above the trunk, by our own engine."""
        if id(batch) not in self._trunks:
            self._trunks[id(batch)] = self._pass(Work(Part(0, layers), [batch]), batch)
        return self._trunks[id(batch)]


def _pieces(work: Work) -> int:
    return sum(batch.pieces for batch in work.batches)


def _load(entry: EntryPoint) -> InferenceEngine:
    engine: InferenceEngine = entry.load()()
    return engine
