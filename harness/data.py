"""The rows of a run: which tasks, splits and languages are there, cut to what was asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.errors import MissingData, PolypromptError
from benchmarks.files import sha256
from benchmarks.records import Split
from benchmarks.registry import find_suite, find_task
from benchmarks.task import Task
from harness.config import RunConfig

_SUBSET_SEED = 20211014
"""Of `--max-train` and `--max-eval`: the same rows in every run, whatever its own seed, so that runs compare."""


@dataclass(frozen=True)
class TaskRows:
    """The rows of one task.

    Attributes:
        task: its declaration.
        train: training rows; None for a task that is only evaluated.
        evaluation: language -> rows of the reported split.
        limited: languages of which only a part is evaluated.
    """

    task: Task
    train: Split | None
    evaluation: dict[str, Split]
    limited: frozenset[str]


def chosen_tasks(config: RunConfig) -> list[Task]:
    """The tasks that a configuration names, in suite order.

    Raises:
        PolypromptError: an unknown suite, task or language, or nothing chosen.
    """
    if not config.suite:
        raise PolypromptError("--suite: name at least one suite; `python -m harness.run --list` shows them")
    tasks = [task for name in config.suite for task in find_suite(name).tasks]
    names = [task.name for task in tasks]
    for name in config.tasks:
        if name not in names:
            suite = find_task(name).card.suite  # raises with a "did you mean" when there is no such task at all
            raise PolypromptError(f"--tasks {name}: belongs to suite {suite}, add it to --suite")
    tasks = [task for task in tasks if not config.tasks or task.name in config.tasks]
    for language in config.languages:
        if not any(language in task.card.languages for task in tasks):
            known = ", ".join(sorted({code for task in tasks for code in task.card.languages}))
            raise PolypromptError(f"--languages {language}: no chosen task has it; there are {known}")
    for place in config.files:
        name, _, split = place.rpartition(".")
        if name not in names or split not in ("train", "dev", "test"):
            raise PolypromptError(f"--files {place}: write TASK.SPLIT=FILE with a chosen task and train, dev or test")
    return tasks


def load_rows(config: RunConfig) -> tuple[list[TaskRows], dict[str, str], list[str]]:
    """All rows that a run needs.

    Returns:
        Rows by task; hash of every file that was read (or "generated:TASK"); what was left out and why, in sentences.

    Raises:
        MissingData: files are missing and `skip_missing` is off; names all of them at once.
        DataError: a file is malformed.
    """
    rows: list[TaskRows] = []
    hashes: dict[str, str] = {}
    missing: list[MissingData] = []
    for task in chosen_tasks(config):
        train: Split | None = None
        evaluation: dict[str, Split] = {}
        wanted = [code for code in task.card.languages if not config.languages or code in config.languages]
        try:
            if task.card.train_language is not None:
                train = _load(config, task, "train", task.card.train_language, hashes)
        except MissingData as error:
            missing.append(error)
            continue
        for language in wanted:
            try:
                evaluation[language] = _load(config, task, task.eval_split, language, hashes)
            except MissingData as error:
                missing.append(error)
        if evaluation:
            cut = frozenset(code for code, split in evaluation.items() if _is_cut(split, config.max_eval))
            limited = {code: _part(split, config.max_eval) for code, split in evaluation.items()}
            rows.append(TaskRows(task, None if train is None else _part(train, config.max_train), limited, cut))
    if missing and not (config.skip_missing and rows):
        what = [error.what for error in missing]
        advice = list(
            dict.fromkeys(error.advice.replace(" --skip-missing goes on without it.", "") for error in missing)
        )
        title = "no task has its data:" if config.skip_missing else "--skip-missing goes on without what is missing:"
        raise MissingData("\n  ".join([title, *what, *advice]))
    return rows, hashes, [error.what for error in missing]


def load_evaluation(config: RunConfig, task: Task, language: str) -> Split:
    """The reported split of a task in one language, cut as in the run; for checks of an export on real rows."""
    return _part(_load(config, task, task.eval_split, language, {}), config.max_eval)


def _load(config: RunConfig, task: Task, split: str, language: str, hashes: dict[str, str]) -> Split:
    loaded = data.load(task, split, language, config.data_dir, config.files)
    used = data.used_files(task, split, language, config.data_dir, config.files)
    for path in used:
        hashes.setdefault(_name(path, config.data_dir), sha256(path))
    if not used:
        digest = hashlib.sha256(repr(loaded).encode("utf-8")).hexdigest()
        source = "generated" if not task.source.files(split, language) else "hub"
        hashes[f"{source}:{task.name}.{split}.{language}"] = digest
    return loaded


def _name(path: Path, data_dir: Path | None) -> str:
    inside = data_dir is not None and path.is_relative_to(data_dir)
    return str(path.relative_to(data_dir)) if inside and data_dir is not None else path.name


def _is_cut(split: Split, limit: int | None) -> bool:
    return limit is not None and len(split.examples) > limit


def _part(split: Split, limit: int | None) -> Split:
    """At most `limit` rows, spread over the whole file and in its order; candidates of retrieval stay complete."""
    if limit is None or len(split.examples) <= limit:
        return split
    kept = np.random.default_rng(_SUBSET_SEED).choice(len(split.examples), limit, replace=False)
    return replace(split, examples=tuple(split.examples[row] for row in sorted(kept)))
