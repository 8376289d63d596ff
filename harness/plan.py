"""The jobs of a sweep file: a grid of settings without its exceptions, a few more, each with every seed."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmarks
import harness
from benchmarks import cache, data
from benchmarks.errors import MissingData, PolypromptError, did_you_mean
from benchmarks.files import sha256
from benchmarks.own.python import is_of_others, refuse_python
from benchmarks.task import Task, TaskCard
from harness.config import RunConfig, make_config, read_settings
from harness.data import chosen_tasks, train_languages
from harness.methods import find_method
from harness.seeds import with_seeds

EACH = "each"
"""In place of a list of tasks: a job for each of them that is trained."""

_OWN_KEYS = ("seeds", "code", "grid", "except", "job")
_NAMED_TASKS = 3  # so many are in the name of a folder, of more the suites are
_CODE = [Path(house.__file__).parent for house in (benchmarks, harness) if house.__file__]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        config: its settings. Its name ends with a hash of all that decides its result: settings, bytes of the data
            files, code. So a folder of this name that is complete is this job done, and one that is not is it begun.
        choice: the settings in which jobs of the sweep differ, as they are shown.
    """

    config: RunConfig
    choice: Mapping[str, str]


def read_plan(path: Path) -> list[Job]:
    """The jobs of a sweep file (docs/sweeps.md), those of the first seed first; equal ones once.

    Raises:
        PolypromptError: names the file and the key.
    """
    common = read_settings(path)
    own = {key: common.pop(key) for key in _OWN_KEYS if key in common}
    seeds = own.get("seeds", 1)
    if type(seeds) is not int or seeds < 1:
        raise PolypromptError(f"{path}: seeds {seeds!r}: write a whole number, at least 1")
    code = own.get("code")
    if not (code is None or isinstance(code, str)):
        raise PolypromptError(f"{path}: code {code!r}: write a text")
    _check_keys(path, "", common, _OWN_KEYS)
    base = make_config(common, str(path))
    if is_of_others(path):
        refuse_python(base.task_file, path)
    axes = _axes(path, common, own.get("grid", {}))
    more = _entries(path, "job", own.get("job", []))
    chosen = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if more and not axes:
        chosen = []  # the jobs are listed, there is no grid beside them
    configs = [(make_config(common | choice, f"{path}: [grid]"), choice) for choice in chosen]
    for number, entry in enumerate(_entries(path, "except", own.get("except", [])), 1):
        source = f"{path}: [[except]] {number}"
        kept = [
            (config, choice)
            for config, choice in configs
            if make_config(common | choice | entry, source).identity != config.identity
        ]
        if len(kept) == len(configs):
            raise PolypromptError(f"{source}: no job of the grid has these settings")
        configs = kept
    configs += [
        (make_config(common | choice, f"{path}: [[job]] {number}"), choice)
        for number, entry in enumerate(more, 1)
        for choice in _each_of(path, common, entry, number)
    ]
    try:
        jobs = _jobs(configs, seeds, code or cache.source_hash(*_CODE))
    except PolypromptError as error:
        raise PolypromptError(f"{path}: {error}") from None
    if not jobs:
        raise PolypromptError(f"{path}: plans no job")
    return jobs


def _check_keys(path: Path, where: str, table: Iterable[str], more: tuple[str, ...] = ()) -> None:
    known = {name for name in RunConfig.model_fields if name not in ("name", "task_file_sha256")}
    for key in table:
        if key == "name":
            raise PolypromptError(f"{path}: {where}name: the folders of a sweep are named after what is in them")
        if key not in known:
            hint = did_you_mean(key.replace("_", "-"), sorted(name.replace("_", "-") for name in (*known, *more)))
            raise PolypromptError(f"{path}: {where}{key.replace('_', '-')} is no setting; {hint}")


def _entries(path: Path, key: str, tables: object) -> list[dict[str, Any]]:
    """The tables `[[key]]`, with the names of settings checked."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise PolypromptError(f"{path}: {key}: write each as a table under [[{key}]]")
    entries = [{name.replace("-", "_"): value for name, value in table.items()} for table in tables]
    for number, entry in enumerate(entries, 1):
        _check_keys(path, f"[[{key}]] {number}: ", entry)
    return entries


def _axes(path: Path, common: dict[str, Any], grid: object) -> dict[str, list[Any]]:
    """Setting -> its values, in the order of the file."""
    if not isinstance(grid, dict):
        raise PolypromptError(f"{path}: grid: write its keys under [grid]")
    axes = {key.replace("-", "_"): values for key, values in grid.items()}
    _check_keys(path, "[grid] ", axes)
    for key, values in axes.items():
        if key == "tasks" and values == EACH:
            axes[key] = _each(path, common, "[grid]")
        elif not isinstance(values, list) or not values:
            raise PolypromptError(f"{path}: [grid] {key.replace('_', '-')} = {values!r}: write a list of values")
    return axes


def _each_of(path: Path, common: dict[str, Any], entry: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a table `[[job]]` stands for: one job, or with `tasks = "each"` one for each task that is trained."""
    if entry.get("tasks") != EACH:
        return [entry]
    others = {key: value for key, value in entry.items() if key != "tasks"}
    return [entry | {"tasks": tasks} for tasks in _each(path, common | others, f"[[job]] {number}")]


def _each(path: Path, common: dict[str, Any], where: str) -> list[list[str]]:
    """The chosen tasks that are trained, one by one, each with those that its head answers."""
    try:
        cards = [task.card for task in chosen_tasks(make_config(common, str(path)))]
    except PolypromptError as error:
        raise PolypromptError(f'{path}: {where} tasks = "{EACH}": {error}') from None
    return trained_tasks(cards)


def trained_tasks(cards: Sequence[TaskCard]) -> list[list[str]]:
    """Names of the tasks that are trained, one by one, each with those that its head answers."""
    trained = [card.name for card in cards if card.train_language is not None and not card.head]
    return [[name, *(card.name for card in cards if card.head == name)] for name in trained]


def _jobs(configs: Iterable[tuple[RunConfig, Mapping[str, Any]]], seeds: int, code: str) -> list[Job]:
    hashed = functools.cache(sha256)
    ordered: list[tuple[int, Job]] = []
    for config, choice in _with_own_languages(list(configs)):
        find_method(config.method)
        tasks = chosen_tasks(config)
        if config.tasks:  # suites of which nothing is asked decide nothing, nor do files of other tasks
            asked = {task.card.suite for task in tasks}
            files = {place: file for place, file in config.files.items() if place.rpartition(".")[0] in config.tasks}
            suites = [name for name in config.suite if name in asked]
            config = config.model_copy(update={"suite": suites, "files": files})
        read = [(*place, hashed(file)) for *place, file in _files(config, tasks)]
        for number, one in enumerate(with_seeds(config, seeds)):
            name = _name(one, cache.key("job", one.identity, code, repr(read))[:8])
            shown = {key.replace("_", "-"): _shown(value) for key, value in choice.items()} | {"seed": str(one.seed)}
            ordered.append((number, Job(one.model_copy(update={"name": name}), shown)))
    once = {job.config.folder: job for _, job in sorted(ordered, key=lambda pair: pair[0])}
    return list(once.values())


def _with_own_languages(
    configs: Sequence[tuple[RunConfig, Mapping[str, Any]]],
) -> Iterator[tuple[RunConfig, Mapping[str, Any]]]:
    """The same without languages that the tasks of a job have not, where tasks of other jobs have them."""
    of_jobs = [
        {code for task in chosen_tasks(config.model_copy(update={"languages": []})) for code in task.card.languages}
        for config, _ in configs
    ]
    others = set().union(*of_jobs)
    for (config, choice), own in zip(configs, of_jobs, strict=True):
        kept = [code for code in config.languages if code in own or code not in others]
        yield config.model_copy(update={"languages": kept or config.languages}), choice


def _files(config: RunConfig, tasks: Iterable[Task]) -> Iterator[tuple[str, str, str, Path]]:
    """Task, split, language and path of every file that is there for the run to read."""
    for task in tasks:
        splits = ("train", task.tuned_on, task.eval_split, *config.splits)
        trained = train_languages(config, task) or (task.card.train_language,)
        for split in dict.fromkeys(splits):
            for language in data.languages(task, split, config.data_dir, config.files):
                evaluated = split != "train" and (not config.languages or language in config.languages)
                if not (evaluated or language in trained):
                    continue
                with suppress(MissingData):  # the run will say so
                    paths = data.used_files(task, split, language, config.data_dir, config.files)
                    yield from ((task.name, split, language, path) for path in paths)


def _name(config: RunConfig, identity: str) -> str:
    named = config.tasks if 0 < len(config.tasks) <= _NAMED_TASKS else config.suite or ["own"]
    words = (".".join(named), config.method, Path(config.backbone).name, f"s{config.seed}", identity)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words)).lstrip("._-")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
