"""Text in, predictions out: a bundle on ONNX Runtime, without torch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.errors import PolypromptError
from benchmarks.records import Example, Prediction
from benchmarks.task import Kind, TaskCard
from benchmarks.thresholds import with_threshold
from exporters.batching import ASSUMED, COMPILED, GRAPHS, Batch, Form, Pace, plan, shares
from exporters.bundle import (
    MODEL,
    NATIVE,
    NATIVE_STATIC,
    PACKED,
    PACKED_STATIC,
    STATIC,
    TOKENIZER,
    BundleCard,
    BundledTask,
    RowInput,
    StoredFile,
    as_it_is,
    check_file,
    find_bundled,
    open_bundle,
    read_tasks,
)
from exporters.bundle import Form as BundleForm
from exporters.engines import (
    AUTO,
    ENGINES,
    Engine,
    EngineCard,
    has_operator,
    has_streams,
    installed,
    open_engine,
    pieces_a_batch,
    run_side_by_side,
    streams_of,
)
from harness.decode import answers, decode, locate
from harness.features import Feature, TextEncoder, pad

Floats = NDArray[np.float32]

PREDICATE = "B-V"
"""The predicate's own tag: a task that has it asks about a marked word."""

Place = tuple[str, str]
"""Task and language of some rows; "" for a language that is not known."""


class Question(NamedTuple):
    """What is asked: a task, an example, and the language that it is in, as in `Session.predict`."""

    task: str
    example: Example
    language: str = ""


Asked = Question | tuple[str, Example]
"""A question; its language may be left out."""


class Row(NamedTuple):
    """A row of a batch. What asks the same of the same pieces shares one.

    Attributes:
        number: what the graph knows its task by. feature: its pieces.
        asked: by which rows of which place.
    """

    number: int
    feature: Feature
    asked: list[tuple[Place, int]]


class _Asked(NamedTuple):
    """A batch as an engine is asked; `read`: for each kind of outputs, which row of them is a row's."""

    rows: Sequence[Row]
    names: set[str]
    feeds: dict[str, NDArray[np.int64]]
    read: dict[RowInput, dict[int, int]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows of one task and language with what the model gave for them.

    Attributes:
        features: rows of all examples, in order; rows of an example are neighbours.
        outputs: one array a row, as `harness.decode.decode` takes them.
    """

    features: list[Feature]
    outputs: list[Floats]


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction with its place in the text.

    Attributes:
        prediction: as everywhere; its scores include every label's probability.
        span: span extraction: begin and end of the answer in characters of the context; None for no answer and for
            the other kinds.
    """

    prediction: Prediction
    span: tuple[int, int] | None = None


class Session:
    """An opened bundle. One session answers for all of its tasks, in batches that may mix them.

    Args:
        bundle: folder written by `exporters.export`.
        threads: of the runtime; None: one a core.
        provider: "cpu" or "cuda".
        engine: one of `exporters.engines.ENGINES`; "auto": of those that are installed and verified for the bundle the
            one that was fastest then; or one that has opened a graph of the bundle.
        packed: use the packed and the native form too, where they are verified for the engine and take less time.
            Their graphs are opened when they would have saved as much time as that takes. A bundle of the form packed
            is computed in the native form alone where that can be done.

    Attributes:
        tasks: task name -> card.
        batches: how many were computed, by form.

    Raises:
        PolypromptError: the bundle is missing or damaged, or the provider or the engine is not to be had.
    """

    def __init__(
        self,
        bundle: Path,
        threads: int | None = None,
        provider: str = "cpu",
        engine: str | Engine = AUTO,
        packed: bool = True,
    ) -> None:
        self._bundle, self._card = bundle, open_bundle(bundle)
        self._name, self._threads, self._provider = "", threads, provider
        self._packs, self._missed = packed and provider == "cpu", 0.0  # microseconds
        self._opening = threading.Lock()
        self._engines: dict[Form, Engine] = {}
        if not isinstance(engine, str):
            self._engines["padded"] = self._engine = engine
        else:
            self._name = fastest(self._card, provider) if engine == AUTO else engine
            first = next(iter(self._usable(self._card)))
            self._engines[first] = self._engine = self._opened(first)
        self._most = pieces_a_batch(self._name, provider)
        self.batches: Counter[Form] = Counter()
        as_it_is(bundle, self._take)

    @property
    def engine(self) -> EngineCard:
        """What computes."""
        return self._engine.card

    @property
    def forms(self) -> tuple[Form, ...]:
        """Forms that batches may have; which ones they had is in `batches`."""
        return tuple(self._paces)

    def refresh(self) -> None:
        """Answer for the tasks that the bundle has now; the graph and the encoder's weights stay loaded.

        No other thread may ask in this moment.

        Raises:
            PolypromptError: the bundle is damaged, or it has another graph or encoder than the one that is loaded.
        """
        open_bundle(self._bundle)
        as_it_is(self._bundle, self._take)

    def _take(self, card: BundleCard) -> None:
        for name, stored in self._lasting():
            if card.files.get(name) != stored:
                raise PolypromptError(f"{self._bundle / name}: was replaced; open a new session")
        tasks, tensors = read_tasks(self._bundle, card)
        masks = {task.card.name: task.mask_id for task in tasks if task.mask_id is not None}
        tokenizer = Tokenizer.from_file(str(self._bundle / TOKENIZER))
        self._encoders = {
            longest: TextEncoder(tokenizer, card.pad_id, card.token_types, longest, masks)
            for longest in {task.max_positions for task in tasks}
        }
        self._card, self._tasks = card, {task.card.name: task for task in tasks}
        self.tasks: dict[str, TaskCard] = {name: task.card for name, task in self._tasks.items()}
        self._paces = self._usable(card)
        self._tensors = tensors
        for engine in self._engines.values():
            engine.keep(tensors)

    def _usable(self, card: BundleCard) -> dict[Form, Pace]:
        """Paces of the forms that batches may have; the graph of the first one is open from the beginning."""
        report = card.parity.get(self._name)
        padded: dict[Form, Pace] = {"padded": ASSUMED if report is None or report.pace is None else report.pace}
        if report is None or not self._packs:
            return padded
        there = usable_forms(card, self._name)
        if card.form is BundleForm.PACKED and "native" in there:
            return {"native": report.forms["native"].pace or ASSUMED}
        others = {form: pace for form in there if form != "padded" and (pace := report.forms[form].pace)}
        if has_streams(self._name, self._threads):
            beside: Form = "native-streams" if "native" in others else "packed-streams"  # one copy more is enough
            if GRAPHS[beside] in others and (pace := report.forms[GRAPHS[beside]].streams) is not None:
                others[beside] = pace
        return padded | others

    def _lasting(self) -> list[tuple[str, StoredFile]]:
        """Files that do not depend on the tasks."""
        tasks = {task.file for task in self._card.tasks}
        return [(name, stored) for name, stored in self._card.files.items() if name not in tasks]

    def predict(self, task: str, examples: Sequence[Example], language: str = "") -> list[Prediction]:
        """Predictions of one task, one an example, in order.

        Args:
            task: its name. examples: what is asked.
            language: of the examples (BCP-47), for tasks that were trained in several; of one without a prompt of its
                own, or "", the prompt is that of all others.

        Raises:
            PolypromptError: the bundle has no such task, or an example lacks what the task reads.
        """
        return self.predict_mixed([Question(task, example, language) for example in examples])

    def predict_mixed(self, questions: Sequence[Asked]) -> list[Prediction]:
        """Predictions for task name, example and language of each question; rows of all tasks share batches."""
        return [answer.prediction for answer in self.answer(questions)]

    def answer(self, questions: Sequence[Asked]) -> list[Answer]:
        """The same as `predict_mixed`, with the place of each extracted answer."""
        places: dict[Place, list[int]] = {}
        examples: dict[Place, list[Example]] = {}
        for index, (name, example, language) in enumerate(Question(*asked) for asked in questions):
            check_example(self.card(name), example)
            places.setdefault((name, language), []).append(index)
            examples.setdefault((name, language), []).append(example)
        found: dict[int, Answer] = {}
        for place, encoded in self.run(examples).items():
            answers = self._decode(*place, examples[place], encoded)
            found.update(zip(places[place], answers, strict=True))
        return [found[index] for index in range(len(questions))]

    def embed(self, texts: Sequence[str], task: str | None = None, language: str = "") -> Floats:
        """Unit vectors of texts, [texts, hidden].

        Args:
            texts: one vector each.
            task: whose prompt is used; None: that of the bundle's first retrieval task. language: as in `predict`.

        Raises:
            PolypromptError: no such task, or no retrieval task in the bundle.
        """
        retrieval = [name for name, card in self.tasks.items() if card.kind is Kind.RETRIEVAL]
        name = task or next(iter(retrieval), None)
        if name is None or self.card(name).kind is not Kind.RETRIEVAL:
            raise PolypromptError(
                f"vectors come from retrieval tasks; in this bundle: {', '.join(retrieval) or 'none'}"
            )
        if not texts:
            return np.zeros((0, self._card.backbone.hidden), np.float32)
        examples = [Example(id="", text=text) for text in texts]
        return np.stack(self.run({(name, language): examples})[name, language].outputs)

    def run(self, examples: Mapping[Place, Sequence[Example]]) -> dict[Place, Encoded]:
        """Encode examples and run the model on all of them, shortest rows first, tasks and languages mixed.

        Args:
            examples: task and language -> its examples.

        Returns:
            The same places with their rows and outputs.
        """
        made: dict[Hashable, list[Feature]] = {}
        results = {
            place: Encoded(features, [np.zeros(0, np.float32)] * len(features))
            for place in examples
            for features in [self._features(place[0], examples[place], made)]
        }
        rows: dict[tuple[int, bytes, bytes], Row] = {}
        for (name, language), encoded in results.items():
            task = self._task(name)
            number = task.languages.get(language, task.task_id)
            for index, feature in enumerate(encoded.features):
                same = number, feature.input_ids.tobytes(), feature.type_ids.tobytes()
                row = rows.setdefault(same, Row(number, feature, []))
                row.asked.append(((name, language), index))
        ordered = sorted(rows.values(), key=lambda row: len(row.feature))
        planned = self._plan([len(row.feature) for row in ordered])
        for form, batches in groupby(planned, lambda batch: batch.form):
            engine = self._open(form)
            for asked, computed in self._computed(form, engine, [ordered[batch.rows] for batch in batches]):
                for place, index, output in self._outputs(asked, computed):
                    results[place].outputs[index] = output
        return results

    def _plan(self, lengths: Sequence[int]) -> list[Batch]:
        """Batches of rows of ascending length."""
        best = plan(lengths, self._most, self._paces)
        new = {batch.form for batch in best.batches} - self._engines.keys()
        open_ = {form: pace for form, pace in self._paces.items() if form in self._engines}
        if not new or not open_:
            return best.batches
        without = plan(lengths, self._most, open_)
        self._missed += without.cost - best.cost
        return without.batches if self._missed < sum(self._paces[form].opening for form in new) else best.batches

    def _open(self, form: Form) -> Engine:
        """What computes batches of a form; it is opened once.

        Raises:
            PolypromptError: a file is not what it was when the bundle was opened.
        """
        with self._opening:
            if form not in self._engines:
                for name, stored in self._lasting():
                    check_file(self._bundle / name, stored)
                engine = self._opened(form)
                engine.keep(self._tensors)
                self._engines[form] = engine
            return self._engines[form]

    def _opened(self, form: Form) -> Engine:
        file = self._bundle / (graph_file(self._card, self._name, form) or MODEL)
        how = self._threads, self._provider, self._card.shortest_limit
        native, streams = form in COMPILED, form in GRAPHS
        second = bool(self._engines) and not self._card.light
        return open_engine(self._name, file, *how, second=second, native=native, streams=streams)

    def _features(self, name: str, examples: Sequence[Example], made: dict[Hashable, list[Feature]]) -> list[Feature]:
        """The rows of a task's examples.

        Args:
            made: rows by how and of what they were made. Tasks that are asked the same share them.
        """
        task = self._task(name)
        encoder = self._encoders[task.max_positions]
        texts = ((e.text, e.text_pair, tuple(e.choices), tuple(e.tokens), e.marked) for e in examples)
        key = encoder.way(task.card), *texts
        if key not in made:
            made[key] = encoder.features(task.card, examples)
        return made[key]

    def _computed(
        self, form: Form, engine: Engine, batches: Sequence[Sequence[Row]]
    ) -> Iterator[tuple[_Asked, dict[str, NDArray[Any]]]]:
        """What the engine gives for some batches, or for the parts that are computed side by side."""
        self.batches[form] += len(batches)
        for rows in batches:
            parts = shares([len(row.feature) for row in rows], streams_of(engine))
            given = [self._asked([rows[row] for row in part]) for part in parts]
            yield from zip(given, run_side_by_side(engine, [(one.names, one.feeds) for one in given]), strict=True)

    def _outputs(self, asked: _Asked, computed: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Place, int, Floats]]:
        """Place, row and output of each row, which several may have asked for."""
        for number, row in enumerate(asked.rows):
            for place, index in row.asked:
                task = self._tasks[place[0]]
                output = computed[task.output][asked.read[self._card.rows_of(task)][number]]
                columns = slice(task.first_column, task.first_column + task.columns)
                real = output[: len(row.feature), columns] if output.ndim == 2 else output[columns]
                yield place, index, real.copy()  # a view would keep the whole batch alive

    def _asked(self, rows: Sequence[Row]) -> _Asked:
        padded = pad([row.feature for row in rows], self._card.pad_id)
        feeds = {
            "input_ids": padded.input_ids,
            "lengths": padded.lengths,
            "task_id": np.array([row.number for row in rows], np.int64),
        }
        if self._card.token_types:
            feeds["token_type_ids"] = padded.type_ids
        read: dict[RowInput, dict[int, int]] = {name: {} for name in self._card.row_inputs}  # row -> row of the output
        names: set[str] = set()
        for number, row in enumerate(rows):
            for task in (self._tasks[name] for (name, _), _ in row.asked):
                names.add(task.output)
                there = read[self._card.rows_of(task)]
                there.setdefault(number, len(there))
        feeds |= {name: np.array(list(there), np.int64) for name, there in read.items()}
        return _Asked(rows, names, feeds, read)

    def _decode(self, name: str, language: str, examples: Sequence[Example], encoded: Encoded) -> list[Answer]:
        card, task = self.tasks[name], self._tasks[name]
        threshold = task.thresholds.get(language, task.threshold)
        features, outputs = encoded.features, encoded.outputs
        if card.kind is Kind.RETRIEVAL:
            candidates = {example.choices for example in examples}
            vectors = {choices: self.embed(choices, name, language) for choices in candidates}
            predictions = [
                decode(card, [example], [replace(feature, example=0)], [output], vectors[example.choices])[0]
                for example, feature, output in zip(examples, features, outputs, strict=True)
            ]
        elif card.kind is Kind.SPAN:
            located = locate(card, features, outputs)
            predictions = answers(card, examples, located)
        else:
            predictions = decode(card, examples, features, outputs)
        if threshold is not None:
            predictions = with_threshold(card, predictions, threshold)
        if card.kind is not Kind.SPAN:
            return [Answer(prediction) for prediction in predictions]
        return [
            Answer(
                prediction, _stripped(example.text_pair or "", found.span) if found.span and prediction.value else None
            )
            for example, prediction, found in zip(examples, predictions, located, strict=True)
        ]

    def card(self, name: str) -> TaskCard:
        """The card of a task.

        Raises:
            PolypromptError: the bundle has no such task; proposes one.
        """
        return self._task(name).card

    def _task(self, name: str) -> BundledTask:
        return self._tasks.get(name) or find_bundled(self._tasks.values(), name)


def check_example(card: TaskCard, example: Example) -> None:
    """See that an example has what its task reads, and that it is text.

    Raises:
        PolypromptError: names the field, or the string that is not valid Unicode.
    """
    for text in (example.id, example.text, example.text_pair or "", *example.choices, *example.tokens):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise PolypromptError(
                f"{text!a} holds half of a surrogate pair; only whole characters can be read"
            ) from None
    needs = {
        Kind.CHOICE: ("choices", "the alternatives", not example.choices),
        Kind.TAGGING: ("tokens", "the words", not example.tokens),
        Kind.SPAN: ("text_pair", "the context that holds the answer", example.text_pair is None),
        Kind.RETRIEVAL: ("choices", "the candidates", not example.choices),
    }
    field, what, lacking = needs.get(card.kind, ("", "", False))
    if lacking:
        raise PolypromptError(f"task {card.name} ({card.kind}) needs {field}, {what}")
    _check_marked(card, example)


def _check_marked(card: TaskCard, example: Example) -> None:
    words = f"0..{len(example.tokens) - 1}"
    if PREDICATE not in card.labels:
        if example.marked is not None:
            raise PolypromptError(f"task {card.name} does not ask about one word; leave marked away")
    elif example.marked is None:
        raise PolypromptError(f"task {card.name} needs marked, the number of the predicate among the words, {words}")
    elif not 0 <= example.marked < len(example.tokens):
        raise PolypromptError(f"marked is {example.marked}; it must be the number of a word, {words}")


def model_file(card: BundleCard, engine: str) -> str:
    """The padded graph of a bundle that an engine opens."""
    return STATIC if engine.startswith("openvino") and STATIC in card.files else MODEL


def graph_file(card: BundleCard, engine: str, form: Form) -> str | None:
    """The graph of a bundle that an engine opens for a form; None: the bundle has none."""
    padded = model_file(card, engine)
    others = (PACKED, NATIVE) if padded == MODEL else (PACKED_STATIC, NATIVE_STATIC)
    names: dict[Form, str] = {"padded": padded, "packed": others[0], "native": others[1]}
    name = names[GRAPHS.get(form, form)]
    return name if name in card.files else None


def usable_forms(card: BundleCard, engine: str) -> tuple[Form, ...]:
    """Forms that an engine is verified for in a bundle and can compute here."""
    report = card.parity.get(engine)
    forms = () if report is None else report.forms
    return tuple(form for form in forms if form != "native" or has_operator(engine))


def fastest(card: BundleCard, provider: str = "cpu") -> str:
    """Of the engines that are installed and verified for a bundle the one that was fastest when it was verified, in
    any form that can be computed here.
    """
    there = [name for name in installed(provider) if name in card.parity]

    def milliseconds(name: str) -> float:
        forms = usable_forms(card, name) if provider == "cpu" else ("padded",)
        return min(card.parity[name].forms[form].milliseconds for form in forms)

    return min(there, key=milliseconds, default=ENGINES[0])


def _stripped(context: str, span: tuple[int, int]) -> tuple[int, int]:
    """The span without white space at its ends, as its text is reported."""
    text = context[span[0] : span[1]]
    begin = span[0] + len(text) - len(text.lstrip())
    return begin, begin + len(text.strip())
