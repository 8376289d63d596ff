"""The search of one task: its space, its trials side by side, its winner, and the file that tells of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from benchmarks.errors import PolypromptError
from benchmarks.registry import find_task
from benchmarks.results import Results, read_model, read_predictions, write_model
from benchmarks.searches import SearchRecord, TrialRecord, WinnerRecord
from benchmarks.task import TaskCard
from harness.backbone import Backbone
from harness.config import RunConfig, make_config
from harness.data import TaskRows
from harness.device import find_device
from harness.heads import HeadKind
from harness.intervals import interval
from harness.jobs import PAUSE, State, side_by_side
from harness.jobs import all_of as all_jobs
from harness.methods import Method, PromptOf, find_method
from harness.plan import Job
from harness.presets import presets
from harness.prompt import parse_layers
from harness.readout import make_readout
from harness.screen import Screen
from harness.seeds import with_seeds
from harness.shared import Shared
from harness.space import (
    KNOWN,
    Space,
    default_space,
    described,
    distributions,
    fixed_by,
    point,
    read_space,
    settings_of,
)
from harness.study import (
    DEFAULT,
    NOTE,
    OBJECTIVES,
    ORIGIN,
    Asked,
    Proposal,
    Search,
    Taken,
    TakenOver,
    is_of_storage,
    make_pruner,
    make_sampler,
    open_storage,
    state_of,
)
from harness.tracking import TrackerName
from harness.trials import Found, trial_by_steps
from harness.turns import Steps, in_turns

FILE = "search.json"
"""In the folder of a study."""

_FOLDER, _TRIALS = "search", "trials"
_ABOUT, _SETTINGS, _FOUND, _CURVE = "about", "settings", "found", "curve"

_WARM = 6
"""Proposals at most that a study begins with, and at most a third of its trials."""

_RELEASED = 2
"""Presets at most among them: all were found for encoders that are larger than most."""

_STARTUP = 10
"""Trials at most before the sampler has enough to go by; at most a third of all."""

_IMPORTANT = 8
"""Trials that the importance of settings takes at least."""


def search(settings: Mapping[str, Any], asked: Asked, screen: Screen) -> SearchRecord:
    """Search one task, or several that share a prompt, or go on with it.

    Args:
        settings: of a run, as given; they are those of every trial and are not varied. asked: of the search.
        screen: shows progress.

    Returns:
        What was found, as search.json has it.

    Raises:
        PolypromptError: see its message.
        KeyboardInterrupt: after Ctrl-C, when the trials under way are given back.
    """
    study = _Study(settings, asked, screen)
    try:
        study.go_on()
    except BaseException as error:
        with suppress(Exception):  # what went wrong first is what is told
            study.leave()
        if is_of_storage(error):
            raise PolypromptError(
                f"the storage was lost ({error}); once it is back, the same command goes on"
            ) from None
        raise
    record = study.record()
    study.write(record)
    if record.choice is None:
        raise PolypromptError(f"{study.folder / FILE}: no trial came to its end: {_first_note(record)}")
    if asked.seeds:
        record = record.model_copy(update={"winner": study.winner(record.choice)})
        study.write(record)
    return record


class _Study:
    """What a search has beside its trials."""

    def __init__(self, settings: Mapping[str, Any], asked: Asked, screen: Screen) -> None:
        quiet = {"tracker": TrackerName.NONE.value, "inference": "own"}
        self._given, self._asked, self._screen = dict(settings), asked, screen
        self._settings = self._given | quiet
        self._config = make_config(self._settings, "command line")
        self._method = find_method(self._config.method)
        self._device = find_device(self._config.precision)
        self._shared = Shared(1 << 30, asked.side_by_side, evaluate=False)
        rows, hashes, missing = self._shared.rows(self._config)
        for sentence in missing:
            screen.say(f"left out: {sentence}")
        self._rows = rows
        cards = [task.task.card for task in rows]
        backbone = self._shared.backbone(self._config)
        self._space = self._made_space(cards, backbone)
        self._name = self._identity(hashes)
        self.folder = self._config.out / _FOLDER / self._name
        storage = open_storage(asked.storage, self._config.out)
        epochs = self._config.epochs or self._method.epochs
        startup = _STARTUP if asked.trials is None else max(1, min(_STARTUP, asked.trials // 3))
        about = {
            "tasks": [card.name for card in cards],
            "kinds": sorted({card.kind.value for card in cards}),
            "backbone": backbone.card.sha256,
            "method": self._method.name,
        }
        self._search = Search(
            storage,
            self._name,
            distributions(self._space),
            [OBJECTIVES[name] for name in asked.objectives],
            make_sampler(asked.sampler, self._config.seed, startup),
            make_pruner(asked.pruner if len(asked.objectives) == 1 else "none", asked.folds or int(np.ceil(epochs))),
            asked.trials,
            asked.budget,
            {_ABOUT: about},
            [] if asked.sampler == "random" else self._proposals(storage, about, cards),
        )

    def go_on(self) -> None:
        """Do trials until there are enough, and wait for those of other processes."""
        title = f"trials of {' '.join(self._config.tasks)}"
        with self._screen.bar(title, self._asked.trials or round(self._asked.budget or 0), self._done()) as bar:
            shown = self._done()

            def tell() -> None:
                nonlocal shown
                done = self._done()
                bar.step(self._best_so_far(), done - shown)
                shown = done

            while True:
                for _ in in_turns(self._works(tell), self._asked.side_by_side):
                    pass
                if not self._search.others():
                    with suppress(OSError):  # of another process, or there was none
                        (self.folder / _TRIALS).rmdir()
                    return
                time.sleep(PAUSE)
                self._search.recover()
                tell()

    def leave(self) -> None:
        """End in the middle of it."""
        self._search.leave()
        self.write(self.record(whole=False))

    def _done(self) -> int:
        """Trials that have ended; where time is the bound, seconds."""
        if self._asked.trials is None:
            return round(self._search.spent())
        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self._search.trials)

    def _works(self, tell: Callable[[], None]) -> Iterator[Steps[None]]:
        while (taken := self._search.ask()) is not None:
            yield self._trial(taken, tell)

    def _trial(self, taken: Taken, tell: Callable[[], None]) -> Steps[None]:
        """A trial from beginning to end, whatever end it takes."""
        chosen = settings_of(self._space, taken.params)
        curve: dict[int, float] = {}
        with suppress(TakenOver), taken:
            taken.note(_SETTINGS, chosen)
            config = make_config(self._settings | chosen, f"trial {taken.number}")
            place = self.folder / _TRIALS / f"{taken.slot}"
            if taken.slot == taken.number:  # what is there is of a study that was removed
                shutil.rmtree(place, ignore_errors=True)
            if place.exists():  # the training goes on, and does not measure again what it measured then
                for step, value in taken.before().items():
                    curve[step] = value
                    taken.measured(step, value)

            def measured(step: int, value: float) -> None:
                curve[step] = value
                if taken.measured(step, value) and taken.origin != DEFAULT:  # others are compared with it at the end
                    raise optuna.TrialPruned

            timed = "latency" in self._asked.objectives
            try:
                found = yield from trial_by_steps(
                    config, self._shared, self._device, place, self._asked.folds, timed, measured, taken.beat
                )
            except optuna.TrialPruned:
                taken.tell(TrialState.PRUNED)
            except PolypromptError as error:
                taken.note(NOTE, " ".join(str(error).split()))
                # A loss that is not finite says that these settings are bad; another error says nothing of them.
                taken.tell(TrialState.PRUNED if "the loss of task" in str(error) else TrialState.FAIL)
            else:
                taken.note(_CURVE, list(curve.items()))
                about = {"seconds": found.seconds, "size": found.size, "latency": found.latency}
                taken.note(_FOUND, about | {"error": found.error})
                taken.tell(TrialState.COMPLETE, [_value(found, name) for name in self._asked.objectives])
            shutil.rmtree(place, ignore_errors=True)
            tell()
            self.write(self.record(whole=False))

    def _best_so_far(self) -> str:
        scores = [trial.values[0] for trial in self._search.trials if trial.state is TrialState.COMPLETE]
        return f"best {max(scores):.2f}" if scores else ""

    def record(self, whole: bool = True) -> SearchRecord:
        """What is known now; what takes seconds to find out only as a whole."""
        trials, asked = self._search.trials, self._asked
        front = {trial.number for trial in self._search.study.best_trials} if len(asked.objectives) > 1 else set()
        metrics = [next(iter(task.task.card.metrics)) for task in self._rows]
        importance, step = self._importance() if whole else ({}, None)
        return SearchRecord(
            study=self._name,
            tasks=self._config.tasks,
            backbone=self._config.backbone,
            method=self._method.name,
            metric=metrics[0] if len(metrics) == 1 else f"mean of {', '.join(metrics)}",
            objectives=list(asked.objectives),
            space=described(self._space),
            sampler=asked.sampler,
            pruner=asked.pruner if len(asked.objectives) == 1 else "none",
            folds=asked.folds,
            trials=[self._trial_record(trial, trial.number in front) for trial in trials],
            importance=importance,
            importance_after=step,
            seconds=round(self._search.spent(), 1),
        )

    def write(self, record: SearchRecord) -> None:
        """Write search.json; a winner that is there stays until there is another one."""
        path = self.folder / FILE
        if record.winner is None and path.exists():
            record = record.model_copy(update={"winner": read_model(path, SearchRecord).winner})
        write_model(path, record)

    def _trial_record(self, trial: FrozenTrial, pareto: bool) -> TrialRecord:
        attributes = trial.user_attrs
        found = attributes.get(_FOUND, {})
        drawn = trial.params or trial.system_attrs.get("fixed_params", {})
        known = set(distributions(self._space)) <= set(drawn)
        settings = attributes.get(_SETTINGS) or (settings_of(self._space, drawn) if known else {})
        curve = [*map(tuple, attributes.get(_CURVE, ()))] or sorted(trial.intermediate_values.items())
        complete = trial.state is TrialState.COMPLETE
        return TrialRecord(
            number=trial.number,
            state=state_of(trial),
            origin=attributes.get(ORIGIN, "sampler"),
            settings={name.replace("_", "-"): value for name, value in settings.items()},
            score=trial.values[0] if complete else curve[-1][1] if curve else None,
            error=found.get("error"),
            curve=curve,
            values=dict(zip(self._asked.objectives, trial.values, strict=True)) if complete else {},
            seconds=found.get("seconds"),
            size=found.get("size"),
            latency=found.get("latency"),
            pareto=pareto,
            note=attributes.get(NOTE, ""),
        )

    def _importance(self) -> tuple[dict[str, float], int | None]:
        """The share of each setting, and the epoch after which scores are compared, None: those of complete trials.

        Where too many were stopped early, these and the others are compared by what they all had after some epoch (in
        few-shot: fold), the last one that enough of them reached.
        """
        scores, step = {t.number: t.values[0] for t in self._search.trials if t.state is TrialState.COMPLETE}, None
        measured = {
            trial.number: dict(trial.intermediate_values)
            for trial in self._search.trials
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        }
        if len(scores) < _IMPORTANT:
            often = Counter(step for values in measured.values() for step in values)
            step = max((step for step, count in often.items() if count >= _IMPORTANT), default=None)
            scores = {} if step is None else {n: values[step] for n, values in measured.items() if step in values}
        if len(set(scores.values())) < 2:
            return {}, None
        compared = optuna.create_study(direction="maximize")  # of nothing but complete trials of one score each
        for trial in self._search.trials:
            if trial.number in scores:
                compared.add_trial(
                    optuna.trial.create_trial(
                        params=trial.params, distributions=trial.distributions, value=scores[trial.number]
                    )
                )
        shares = get_param_importances(compared, evaluator=FanovaImportanceEvaluator(seed=0))
        return {name.replace("_", "-"): round(share, 4) for name, share in shares.items()}, step

    def winner(self, best: TrialRecord) -> WinnerRecord:
        """Train a trial again with several seeds, which is the first time that reported rows are read.

        Raises:
            PolypromptError: a run failed.
            KeyboardInterrupt: after Ctrl-C; the same command goes on.
        """
        assert best.score is not None
        chosen = {name.replace("-", "_"): value for name, value in best.settings.items()}
        config = make_config(self._given | chosen, "the winner")
        runs = with_seeds(config, self._asked.seeds)
        jobs = [Job(run, {"seed": f"{run.seed}"}) for run in runs]
        with self._screen.bar("runs of the winner", len(runs)) as bar:
            for job, outcome in all_jobs(jobs, side_by_side(self._asked.side_by_side, self._screen), self._screen):
                bar.step(job.config.folder.name)
                if outcome.state is State.FAILED:
                    raise PolypromptError(f"{job.config.folder}: {outcome.error}")
        scores, half = _dev_scores(runs, self._rows)
        mean = float(np.mean(list(scores.values())))
        return WinnerRecord(
            trial=best.number,
            search_score=best.score,
            settings=best.settings,
            runs=[run.folder.name for run in runs],
            seeds=scores,
            score=mean,
            low=mean - half,
            high=mean + half,
            optimism=best.score - mean,
        )

    def _made_space(self, cards: Sequence[TaskCard], backbone: Backbone) -> Space:
        config = self._config
        poolers = words = False
        with suppress(PolypromptError):
            pooler = make_readout(HeadKind.POOLER, backbone, cards, {})
            poolers = pooler is not None and not pooler.drawn
        if config.label_words:
            with suppress(PolypromptError):
                words = make_readout(HeadKind.VERBALISER, backbone, cards, config.label_words) is not None
        space = default_space(self._method, backbone.layers, cards, poolers, words)
        fixed = {name: part for name, part in fixed_by(self._given).items() if name in space}
        space |= fixed
        if self._asked.space is not None:
            space = read_space(self._asked.space, space, fixed)
            for text in space["prompt_layers"].values if "prompt_layers" in space else ():
                try:
                    parse_layers(text, backbone.layers)
                except PolypromptError as error:
                    reason = str(error).removeprefix("--")
                    raise PolypromptError(f"{self._asked.space}: {reason}") from None
        return space

    def _identity(self, hashes: Mapping[str, str]) -> str:
        """A name with a hash of all that decides what a trial finds, and of the space."""
        asked = self._asked
        text = [self._config.identity, hashes, described(self._space), asked.objectives, asked.folds]
        text += [asked.sampler, asked.pruner]
        digest = hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()[:8]
        words = ["+".join(self._config.tasks[:3]), Path(self._config.backbone).name, self._method.name, digest]
        return re.sub(r"[^A-Za-z0-9+._-]+", "_", "-".join(words)).lstrip("._-")

    def _proposals(self, storage: BaseStorage, about: Mapping[str, Any], cards: Sequence[TaskCard]) -> list[Proposal]:
        """What a new study begins with: the default, what was best for other tasks, what others released."""
        method = self._method
        default = {name: getattr(self._config, name) for name in KNOWN} | {"learning_rate": method.learning_rate}
        sought = [(DEFAULT, default), *_earlier(storage, self._name, about), *_released(cards, method)]
        most = _WARM if self._asked.trials is None else max(1, min(_WARM, self._asked.trials // 3))
        return proposals(self._space, sought)[:most]


def proposals(space: Space, sought: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Proposal]:
    """Known settings as points of a space, each once.

    Args:
        sought: origin and settings, the default ones first; what the others do not name, since another kind of task
            or an older study did not vary it, is as in those.
    """
    first = sought[0][1]
    points: dict[str, Proposal] = {}
    for origin, known in sought:
        named = {name: value for name, value in known.items() if value is not None}
        if "learning_rate" in named:
            named.setdefault("head_learning_rate", named["learning_rate"])
        place = point(space, {**first, **named})
        if not set(distributions(space)) - set(place):
            points.setdefault(json.dumps(place, sort_keys=True), Proposal(origin, place))
    return list(points.values())


def _earlier(storage: BaseStorage, name: str, about: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The best settings of other studies of the same encoder and method: first of tasks of the same kind, then new."""
    found: list[tuple[bool, float, str, dict[str, Any]]] = []
    for summary in storage.get_all_studies():
        of = summary.user_attrs.get(_ABOUT, {})
        alike = all(of.get(key) == about[key] for key in ("backbone", "method"))
        if summary.study_name == name or not alike:
            continue
        complete = storage.get_all_trials(summary._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        if complete:
            best = max(complete, key=lambda trial: trial.values[0])
            when = max(trial.datetime_complete.timestamp() for trial in complete if trial.datetime_complete)
            other = of["kinds"] != about["kinds"]
            found.append((other, -when, summary.study_name, best.user_attrs.get(_SETTINGS, {})))
    return [(f"study {study}", dict(known)) for _, _, study, known in sorted(found, key=lambda one: one[:3])]


def _released(cards: Sequence[TaskCard], method: Method) -> list[tuple[str, dict[str, Any]]]:
    """Some presets of this method: of these tasks, then of tasks of the same kinds."""
    if method.prompt is not PromptOf.DEEP:
        return []
    names, kinds = {card.name for card in cards}, {card.kind for card in cards}
    found = []
    for preset in presets().values():
        of = [find_task(name).card for name in preset.settings.get("tasks", [])]
        same = any(card.name in names or card.name.rpartition("-")[2] in names for card in of)
        if same or kinds & {card.kind for card in of}:
            known = {key.replace("-", "_"): value for key, value in preset.settings.items()}
            defaults = {name: RunConfig.model_fields[name].default for name in KNOWN}
            found.append((not same, preset.name, defaults | known))
    return [(f"preset {name}", known) for _, name, known in sorted(found, key=lambda one: one[:2])][:_RELEASED]


def _value(found: Found, objective: str) -> float:
    values = {"score": found.score, "bytes": found.size, "latency": found.latency}
    return float(values[objective])


def _dev_scores(runs: Sequence[RunConfig], rows: Sequence[TaskRows]) -> tuple[dict[int, float], float]:
    """Seed -> the mean over tasks of the main metric in the languages that were trained; half of its 95 % interval.

    Tasks are the user's own choice, so their intervals are those of a mean: independent, a task by itself.
    """
    by_seed: dict[int, list[float]] = {run.seed: [] for run in runs}
    halves: list[float] = []
    for task in rows:
        card, languages = task.task.card, set(task.train)
        records = [
            [
                record
                for record in read_model(run.folder / "results.json", Results).records
                if record.task == card.name and record.split == task.task.eval_split
            ]
            for run in runs
        ]
        trained = [[one for one in found if one.language in languages] or found for found in records]
        if not all(trained):
            raise PolypromptError(
                f"{card.name}: its {task.task.eval_split} split has no labels; --seeds 0 searches only"
            )
        for run, found in zip(runs, trained, strict=True):
            by_seed[run.seed].append(float(np.mean([one.main[1] for one in found])))
        parts = [
            interval(
                card,
                [
                    [row for row in read_predictions(run.folder / one.predictions) if row.gold is not None]
                    for run, one in zip(runs, same, strict=True)
                ],
                same[0].language,
            )
            for same in zip(*trained, strict=True)
        ]
        halves.append(float(np.linalg.norm(parts)) / len(parts))
    return {seed: float(np.mean(found)) for seed, found in by_seed.items()}, float(np.linalg.norm(halves)) / len(halves)


def _first_note(record: SearchRecord) -> str:
    return next((trial.note for trial in record.trials if trial.note), "nothing is known of why; ask for more trials")
