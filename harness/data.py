"""The rows of a run: which tasks, splits and languages are there, cut to what was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.errors import MissingData, PolypromptError
from benchmarks.hub import Unreachable
from benchmarks.own.labels import labelled
from benchmarks.records import Split
from benchmarks.registry import find_suite, find_task, own_suites
from benchmarks.task import Kind, Suite, Task
from harness.config import ALL, RunConfig
from harness.held_out import Selection, few_shot, hold_out
from harness.viterbi import decoded

_SUBSET_SEED = 20211014
"""Of `--max-train` and `--max-eval`: the same rows in every run, whatever its own seed, so that runs compare."""


TUNING_ROWS = 10_000
"""At most so many rows of a dev split choose a threshold."""

Place = tuple[str, str]
"""Split and language."""


@dataclass(frozen=True)
class TaskRows:
    """The rows of one task.

    Attributes:
        task: its declaration.
        train: language -> training rows; empty for a task that is only evaluated.
        selecting: trained language -> rows that select an epoch and a rate; empty where nothing does.
        tuning: language -> rows on which the threshold of "no answer" is chosen; empty where the task has none.
        evaluation: split and language -> rows to predict.
        limited: splits and languages of which only a part is predicted.
    """

    task: Task
    train: dict[str, Split]
    selecting: dict[str, Split]
    tuning: dict[str, Split]
    evaluation: dict[Place, Split]
    limited: frozenset[Place]


def chosen_suites(config: RunConfig) -> list[Suite]:
    """The suites that a configuration names; with none, those of its task files.

    Raises:
        PolypromptError: an unknown suite, or none.
    """
    own = own_suites(config.task_file)
    names = config.suite or [suite.name for suite in own]
    if not names:
        raise PolypromptError("--suite: name at least one suite; `python -m harness.run --list` shows them")
    return [find_suite(name, own) for name in names]


def chosen_tasks(config: RunConfig) -> list[Task]:
    """The tasks that a configuration names, in suite order.

    Raises:
        PolypromptError: an unknown suite, task or language, or nothing chosen.
    """
    own = own_suites(config.task_file)
    suites = chosen_suites(config)
    tasks = [task for suite in suites for task in suite.tasks]
    if own and not {suite.name for suite in own} & {suite.name for suite in suites}:
        raise PolypromptError(f"--task-file: no task of it is asked for; add {own[0].name} to --suite")
    names = [task.name for task in tasks]
    for name in config.tasks:
        if name not in names:
            suite = find_task(name, own).card.suite  # raises with a "did you mean" when there is no such task at all
            raise PolypromptError(f"--tasks {name}: belongs to suite {suite}, add it to --suite")
    tasks = [task for task in tasks if not config.tasks or task.name in config.tasks]
    for language in config.languages:
        if not any(language in task.card.languages for task in tasks):
            known = ", ".join(sorted({code for task in tasks for code in task.card.languages}))
            raise PolypromptError(f"--languages {language}: no chosen task has it; there are {known}")
    able = {code for task in tasks for code in data.trainable(task, config.files)} if config.train_languages else set()
    for language in config.train_languages:
        if language not in (ALL, *able):
            there = f"there are {', '.join(sorted(able))}" if able else "none is trained"
            raise PolypromptError(f"--train-languages {language}: no chosen task has a training split in it; {there}")
    for place in config.files:
        name, _, split = place.rpartition(".")
        if name not in names or split not in ("train", "dev", "test"):
            raise PolypromptError(f"--files {place}: write TASK.SPLIT=FILE with a chosen task and train, dev or test")
    for name in config.label_words:
        able = [task.name for task in tasks if task.card.kind is Kind.CLASSIFICATION and not task.card.head]
        if name not in able:
            raise PolypromptError(
                f"--label-words {name}: no chosen task of labels; there are {', '.join(able) or 'none'}"
            )
    cards = decoded([task.card for task in tasks], config.decode)
    if config.max_length is not None:
        cards = [card.model_copy(update={"max_length": config.max_length}) for card in cards]
    return [replace(task, card=card) for task, card in zip(tasks, cards, strict=True)]


def train_languages(config: RunConfig, task: Task) -> tuple[str, ...]:
    """The languages that a run trains a task in, its usual one first; empty for a task that is only evaluated."""
    able = data.trainable(task, config.files)
    if not config.train_languages:
        return able[:1]
    return able if ALL in config.train_languages else tuple(code for code in able if code in config.train_languages)


def load_rows(config: RunConfig, evaluate: bool = True) -> tuple[list[TaskRows], dict[str, str], list[str]]:
    """All rows that a run needs.

    Args:
        config: of the run. evaluate: False: no split but those of training is opened, and tasks without one are left
            out; for a search, which must not have seen what it will be scored on.

    Returns:
        Rows by task; hash of every file that was read (or "generated:TASK"); what was left out and why, in sentences.

    Raises:
        MissingData: files are missing and `skip_missing` is off; names all of them at once, but for the first one
            alone where the hub cannot be reached.
        DataError: a file is malformed.
    """
    rows: list[TaskRows] = []
    hashes: dict[str, str] = {}
    missing: list[MissingData] = []
    notes: list[str] = []
    chosen = chosen_tasks(config)
    for task in chosen:
        train, held = _training(config, task, train_languages(config, task), hashes, missing)
        if able := data.trainable(task, config.files):
            if lacking := [code for code in config.train_languages if code not in (ALL, *able)]:
                notes.append(f"{task.name}: has no training split in {', '.join(lacking)}")
            if not train:
                continue
            task = _trained(task, train)
        if not evaluate:
            if train:
                train = {language: _part(split, config.max_train) for language, split in train.items()}
                rows.append(TaskRows(task, train, _selecting(config, task, train, held, {}), {}, {}, frozenset()))
            continue
        tuning = _tuning(config, task, train, held, hashes)
        if task.card.head and not any(row.task.name == task.card.head and row.train for row in rows):
            notes.append(f"{task.name}: the head of {task.card.head} answers it, which this run does not train")
            continue
        evaluation: dict[Place, Split] = {}
        for split, language in _places(config, task, notes):
            try:
                evaluation[split, language] = _load(config, task, split, language, hashes)
            except MissingData as error:
                _miss(config, error, missing)
        answers_others = bool(train) and any(other.card.head == task.name for other in chosen)
        if evaluation or answers_others:
            cut = frozenset(place for place, split in evaluation.items() if _is_cut(split, config.max_eval))
            limited = {place: _part(split, config.max_eval) for place, split in evaluation.items()}
            train = {language: _part(split, config.max_train) for language, split in train.items()}
            selecting = _selecting(config, task, train, held, evaluation)
            rows.append(TaskRows(task, train, selecting, tuning, limited, cut))
    if missing and not (config.skip_missing and rows):
        what = [error.what for error in missing]
        advice = dict.fromkeys(one for error in missing for one in error.advice if one != data.SKIP)
        title = "no task has its data:" if config.skip_missing else "--skip-missing goes on without what is missing:"
        raise MissingData("\n  ".join([title, *what, *advice]))
    if not rows:
        raise PolypromptError("nothing to do: " + "; ".join(notes))
    return rows, hashes, [*(error.what for error in missing), *notes]


def load_evaluation(config: RunConfig, task: Task, language: str) -> Split:
    """The reported split of a task in one language, cut as in the run; for checks of an export on real rows."""
    return _part(_load(config, task, task.eval_split, language, {}), config.max_eval)


def _training(
    config: RunConfig, task: Task, languages: Iterable[str], hashes: dict[str, str], missing: list[MissingData]
) -> tuple[dict[str, Split], dict[str, Split]]:
    """By language the rows to train on, and those held out of them; what is not there is added to `missing`."""
    train: dict[str, Split] = {}
    held: dict[str, Split] = {}
    for language in languages:
        try:
            rows = _load(config, task, "train", language, hashes)
        except MissingData as error:
            _miss(config, error, missing)
            continue
        if config.shots is not None:
            rows, held[language] = few_shot(task.card, rows, config.shots, config.shots_seed)
        elif config.selection is Selection.HELD_OUT or _is_tuned_on_train(task):
            rows, held[language] = hold_out(task.card, rows, config.max_train, _SUBSET_SEED)
        train[language] = rows
    return train, held


def _miss(config: RunConfig, error: MissingData, missing: list[MissingData]) -> None:
    """Note what is missing; where nothing will be had, since the hub does not answer, that is said at once."""
    if isinstance(error, Unreachable) and not config.skip_missing:
        raise error
    missing.append(error)


def _tuning(
    config: RunConfig, task: Task, train: Iterable[str], held: Mapping[str, Split], hashes: dict[str, str]
) -> dict[str, Split]:
    """By language the rows to choose a threshold on: in those that are trained, or in all where none is."""
    card = task.card
    if not card.no_answer:
        return {}
    if _is_tuned_on_train(task):
        return dict(held)
    asked = [code for code in card.languages if not config.languages or code in config.languages]
    tuning: dict[str, Split] = {}
    for language in list(train) or ([card.train_language] if card.train_language else asked):
        if language != card.train_language and not task.source.has(task.tuned_on, language):
            continue
        try:
            tuning[language] = _part(_load(config, task, task.tuned_on, language, hashes), TUNING_ROWS)
        except MissingData:
            continue  # the threshold then stays where it is without tuning, which the record shows
    return tuning


def _is_tuned_on_train(task: Task) -> bool:
    return task.card.no_answer and task.tuned_on == "train"


def _trained(task: Task, train: Mapping[str, Split]) -> Task:
    """A task as it is trained: with the labels of its rows, and in a language that it is trained in."""
    rows = tuple(example for split in train.values() for example in split.examples)
    task = labelled(task, Split(rows))
    if task.card.train_language in train:
        return task
    return replace(task, card=task.card.model_copy(update={"train_language": next(iter(train))}))


def _selecting(
    config: RunConfig, task: Task, train: Iterable[str], held: dict[str, Split], reported: Mapping[Place, Split]
) -> dict[str, Split]:
    if config.selection is Selection.HELD_OUT:
        return held
    if config.selection is Selection.PAPER:
        places = {language: (task.eval_split, language) for language in train}
        return {language: reported[place] for language, place in places.items() if place in reported}
    return {}


def _places(config: RunConfig, task: Task, notes: list[str]) -> list[Place]:
    """The splits and languages to predict; what a task does not have is noted where it was asked for by name."""
    wanted = [code for code in task.card.languages if not config.languages or code in config.languages]
    places: list[Place] = []
    reported_first = sorted(config.splits, key=lambda split: split != task.eval_split)
    for split in reported_first or [task.eval_split]:
        there = [code for code in wanted if split == task.eval_split or task.source.has(split, code)]
        if not there:
            notes.append(f"{task.name}: has no {split} split to predict")
        places += [(split, code) for code in there]
    return places


def _load(config: RunConfig, task: Task, split: str, language: str, hashes: dict[str, str]) -> Split:
    loaded = data.load_hashed(task, split, language, config.data_dir, config.files)
    for path, digest in loaded.hashes.items():
        if hashes.setdefault(_name(task, path, config.data_dir), digest) != digest:
            hashes[str(path)] = digest  # files of one name from several places outside of the folder
    if not loaded.hashes:
        digest = hashlib.sha256(repr(loaded.rows).encode("utf-8")).hexdigest()
        source = "generated" if not task.source.files(split, language) else "hub"
        hashes[f"{source}:{task.name}.{split}.{language}"] = digest
    return loaded.rows


def _name(task: Task, path: Path, data_dir: Path | None) -> str:
    """The name of a file within its folder; before it the task's name, where the task has a folder of its own."""
    folder = data.folder_of(task, data_dir)
    name = str(path.relative_to(folder)) if folder is not None and path.is_relative_to(folder) else path.name
    return name if folder == data_dir else f"{task.name}/{name}"


def _is_cut(split: Split, limit: int | None) -> bool:
    return limit is not None and len(split.examples) > limit


def _part(split: Split, limit: int | None) -> Split:
    """At most `limit` rows, spread over the whole file and in its order.

    Rows of a group (the answers to one question) stay together, and candidates of retrieval stay complete.
    """
    if limit is None or len(split.examples) <= limit:
        return split
    members: dict[str, list[int]] = {}
    for row, example in enumerate(split.examples):
        members.setdefault(f"group {example.group}" if example.group else f"row {row}", []).append(row)
    units = list(members.values())
    kept: list[int] = []
    for number in np.random.default_rng(_SUBSET_SEED).permutation(len(units)):
        if len(kept) + len(units[number]) <= limit:
            kept += units[number]
    return replace(split, examples=tuple(split.examples[row] for row in sorted(kept)))
