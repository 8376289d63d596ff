"""A study in a storage that several processes share: who takes which trial, none lost, none done twice.

What Optuna keeps is the study: trials, their parameters, what was measured. Its journals know no heartbeat, so this is
here, and the same for every storage. A trial has a slot: its number, which it keeps when the process that had it ends
and another one takes it over under a new number.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import optuna
import psutil
from optuna.distributions import BaseDistribution
from optuna.exceptions import (
    DuplicatedStudyError,
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalRedisBackend
from optuna.trial import FrozenTrial, TrialState

from benchmarks.errors import PolypromptError
from harness.space import Value

JOURNAL = "search.journal"
"""The default storage, in the folder of runs."""

BEAT_SECONDS = 15.0
"""Time between signs of life of a trial."""

GRACE_SECONDS = 120.0
"""A trial of another machine without a sign of life for so long is taken to be lost. Of the same machine the process
is looked for, so what was killed there is known at once."""

ORIGIN, FIRST, GIVEN_BACK, SURPLUS, NOTE = "origin", "first", "given-back", "surplus", "note"
DEFAULT = "default"
"""Who proposed the default settings."""

_OWNER, _BEAT = "owner", "beat"
_REDUCTION = 3
_TRIES = 3

optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Plain(BaseJournalBackend):
    """A journal without the snapshots that Optuna pickles: who can write to the server could run code here."""

    def __init__(self, journal: BaseJournalBackend) -> None:
        self._journal = journal

    def read_logs(self, log_number_from: int) -> Any:
        """See Optuna."""
        return self._journal.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See Optuna."""
        self._journal.append_logs(logs)


def open_storage(url: str | None, out: Path) -> BaseStorage:
    """Where studies are kept.

    Args:
        url: a database (postgresql://, mysql://, sqlite:///), redis://, or the path of a journal file; None: a journal
            file in `out`.

    Raises:
        PolypromptError: it cannot be reached, or what talks to it is not installed.
    """
    try:
        if url is None or "://" not in url:
            path = out / JOURNAL if url is None else Path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path)))
        if url.startswith(("redis://", "rediss://", "unix://")):
            with warnings.catch_warnings():  # that Optuna's part for Redis may change
                warnings.simplefilter("ignore", ExperimentalWarning)
                return JournalStorage(_Plain(JournalRedisBackend(url, prefix="polyprompt")))
        return _database(_driver(url))
    except ImportError as error:
        advice = 'pip install "polyprompt[search-servers]"'
        raise PolypromptError(f"--storage {_without_password(url)}: {error}; {advice}".replace("\n", " ")) from None
    except Exception as error:  # each driver has errors of its own
        reason = " ".join(str(error).split())[:300]
        raise PolypromptError(f"--storage {_without_password(url)}: cannot be opened: {reason}") from None


def _database(url: str) -> RDBStorage:
    """A database; of several processes that make its tables at the same time, one does, and the others look again."""
    for left in reversed(range(_TRIES)):
        try:
            # An idle connection may have been closed by the server, which is asked before it is used.
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except Exception:
            if not left:
                raise
            time.sleep(1)
    raise AssertionError


def is_of_storage(error: BaseException) -> bool:
    """Whether a server or a file went away."""
    return isinstance(error, StorageInternalError | OSError) or type(error).__module__.partition(".")[0] == "redis"


def _driver(url: str) -> str:
    """The driver of the extra, where none is named."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _without_password(url: str | None) -> str:
    kind, _, rest = (url or JOURNAL).partition("://")
    return f"{kind}://{rest.rpartition('@')[2]}" if rest else kind


class ByNumber(BaseSampler):
    """A sampler whose draws follow from the number of the trial and the trials before it alone.

    A process that begins again, and each of several, would else repeat the same draws.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._of: tuple[int, BaseSampler] | None = None

    def _at(self, trial: FrozenTrial) -> BaseSampler:
        if self._of is None or self._of[0] != trial.number:
            digest = hashlib.sha256(f"{self._seed} {trial.number}".encode()).digest()
            self._of = trial.number, self._make(int.from_bytes(digest[:4], "big"))
        return self._of[1]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See Optuna."""
        return self._at(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna."""
        return self._at(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See Optuna."""
        return self._at(trial).sample_independent(study, trial, param_name, param_distribution)


def make_sampler(name: str, seed: int, startup: int) -> BaseSampler:
    """ "tpe": multivariate, with the trials that are under way taken for bad ones; after `startup` trials. "random"."""
    if name == "random":
        return ByNumber(RandomSampler, seed)

    def tpe(own: int) -> BaseSampler:
        return TPESampler(seed=own, multivariate=True, constant_liar=True, n_startup_trials=startup)

    return ByNumber(tpe, seed)


def make_pruner(name: str, most: int) -> BasePruner:
    """ "asha", "hyperband" or "none". most: measurements of a trial that is not stopped."""
    if name == "asha":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION)
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(1, most), reduction_factor=_REDUCTION)
    return NopPruner()


OBJECTIVES = {"score": "maximize", "bytes": "minimize", "latency": "minimize"}
"""What may be sought, and which way."""


@dataclass(frozen=True)
class Asked:
    """What is asked of the search of a task, beside the settings of its trials.

    Attributes:
        trials, budget: how many, or how many seconds; one of them. space: file that narrows what is varied.
        storage: see `open_storage`. objectives: names in `OBJECTIVES`, the score first.
        seeds: of the winner; 0: it is not trained. side_by_side: trials at a time in this process.
        sampler, pruner: by name. folds: of cross-validation; 0: the rows that select are held out.
    """

    trials: int | None
    budget: float | None
    space: Path | None
    storage: str | None
    objectives: tuple[str, ...]
    seeds: int
    side_by_side: int
    sampler: str
    pruner: str
    folds: int


@dataclass(frozen=True)
class Proposal:
    """Settings to begin with. origin: where they are from. point: in the space that is searched."""

    origin: str
    point: Mapping[str, Value]


class Search:
    """A study that goes on until it has so many trials, or took so long.

    Args:
        storage: where it is kept. name: in there.
        space: what is drawn. directions: "maximize" or "minimize" for each objective.
        sampler, pruner: of trials.
        trials: so many slots, whoever fills them; None: no bound.
        budget: seconds in which somebody works on it; None: no bound.
        about: user attributes of a new study. proposals: what a new study begins with.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        space: Mapping[str, BaseDistribution],
        directions: Sequence[str],
        sampler: BaseSampler,
        pruner: BasePruner,
        trials: int | None,
        budget: float | None,
        about: Mapping[str, Any],
        proposals: Sequence[Proposal] = (),
    ) -> None:
        self._space, self._trials, self._budget = dict(space), trials, budget
        common: dict[str, Any] = {"storage": storage, "sampler": sampler, "pruner": pruner, "study_name": name}
        try:
            self.study = optuna.create_study(directions=list(directions), **common)
        except DuplicatedStudyError:
            self.study = optuna.load_study(**common)
        else:  # of several processes one alone has made it
            for key, value in about.items():
                self.study.set_user_attr(key, value)
            for proposal in proposals:
                self.study.enqueue_trial(dict(proposal.point), {ORIGIN: proposal.origin})
        host = platform.node()
        boot = Path("/proc/sys/kernel/random/boot_id")
        self._host = f"{host} {boot.read_text().strip()}" if boot.exists() else host

    @property
    def trials(self) -> list[FrozenTrial]:
        """All of them as they are now, by number."""
        return self.study.get_trials(deepcopy=False)

    def ask(self) -> Taken | None:
        """The next trial, which is this process's own from here on; None when there is none to begin."""
        while not self._is_over():
            trial = self.study.ask(self._space)
            me = psutil.Process()
            trial.set_user_attr(_OWNER, [self._host, me.pid, me.create_time()])
            trial.set_user_attr(_BEAT, time.time())
            taken = Taken(self, trial)
            if self._trials is None or slot(self._frozen(trial)) in self._slots()[: self._trials]:
                return taken
            trial.set_user_attr(SURPLUS, True)  # another process was faster
            taken.tell(TrialState.FAIL)
        return None

    def recover(self) -> None:
        """Give trials of processes that are gone to others."""
        trials = self.trials
        taken_over = {slot(trial): trial.number for trial in trials}  # ascending, so the last of each slot
        long_ago = datetime.now() - timedelta(seconds=GRACE_SECONDS)
        for trial in trials:
            if trial.state is TrialState.RUNNING and self._is_lost(trial):
                self._give_back(trial)
                continue
            # Who gave it back may have been killed before the trial was enqueued again.
            last = taken_over[slot(trial)] == trial.number
            if last and _is_given_back(trial) and trial.datetime_complete and trial.datetime_complete < long_ago:
                self._enqueue(trial)

    def leave(self) -> None:
        """Give back what this process has, and has perhaps not begun with."""
        for trial in self.trials:
            if trial.state is TrialState.RUNNING and self._is_mine(trial):
                self._give_back(trial)

    def others(self) -> int:
        """How many trials are under way in other processes."""
        return sum(trial.state is TrialState.RUNNING and not self._is_mine(trial) for trial in self.trials)

    def spent(self) -> float:
        """Seconds in which somebody worked on it: of the time that several did together, once."""
        spans = []
        for trial in self.trials:
            if trial.datetime_start is not None:
                lost = trial.state is TrialState.RUNNING and self._is_lost(trial)
                beat = datetime.fromtimestamp(trial.user_attrs.get(_BEAT, trial.datetime_start.timestamp()))
                spans.append((trial.datetime_start, trial.datetime_complete or (beat if lost else datetime.now())))
        seconds, until = 0.0, None
        for begin, end in sorted(spans):
            begin = begin if until is None else max(begin, until)
            if end > begin:
                seconds += (end - begin).total_seconds()
                until = end
        return seconds

    def _is_over(self) -> bool:
        self.recover()
        if self._budget is not None and self.spent() >= self._budget:
            return True
        if self._trials is None:
            return False
        slots = self._slots()
        if len(slots) < self._trials:
            return False
        open_slots = set(slots[: self._trials])
        return not any(trial.state is TrialState.WAITING and slot(trial) in open_slots for trial in self.trials)

    def _slots(self) -> list[int]:
        return sorted({slot(trial) for trial in self.trials if not trial.user_attrs.get(SURPLUS)})

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self.trials[trial.number]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        host, pid, _ = trial.user_attrs.get(_OWNER, ("", 0, 0))
        return host == self._host and pid == os.getpid()

    def _is_lost(self, trial: FrozenTrial) -> bool:
        host, pid, began = trial.user_attrs.get(_OWNER, ("", 0, 0.0))
        if host == self._host:
            try:
                process = psutil.Process(pid)
                if process.status() == psutil.STATUS_ZOMBIE:  # it ended, and whoever started it has not looked yet
                    return True
                return abs(process.create_time() - began) > 1
            except psutil.Error:
                return True
        started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - trial.user_attrs.get(_BEAT, started) > GRACE_SECONDS

    def _give_back(self, trial: FrozenTrial) -> None:
        """End a trial, and have its settings tried again; of several processes that want to, one does."""
        storage, place = self.study._storage, trial._trial_id
        try:
            storage.set_trial_user_attr(place, GIVEN_BACK, True)
            storage.set_trial_state_values(place, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return
        self._enqueue(trial)

    def _enqueue(self, trial: FrozenTrial) -> None:
        point = trial.params or trial.system_attrs.get("fixed_params", {})
        origin = trial.user_attrs.get(ORIGIN, "sampler")
        self.study.enqueue_trial(dict(point), {ORIGIN: origin, FIRST: slot(trial)})


class Taken:
    """A trial that this process does.

    Attributes:
        number: its own. slot: that of the trial that it goes on with. params: what was drawn. origin: who proposed it.
    """

    def __init__(self, search: Search, trial: optuna.Trial) -> None:
        self._search, self._trial = search, trial
        self._beaten = time.monotonic()
        self._measured: set[int] = set()
        self.number = trial.number
        frozen = search._frozen(trial)
        self.slot = slot(frozen)
        self.origin = str(frozen.user_attrs.get(ORIGIN, "sampler"))
        self.params: dict[str, Value] = dict(trial.params)

    def beat(self) -> None:
        """A sign of life, to be called often."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            self.note(_BEAT, time.time())

    def note(self, key: str, value: Any) -> None:
        """Write something down, unless another process has taken the trial over."""
        try:
            self._trial.set_user_attr(key, value)
        except UpdateFinishedTrialError:
            raise TakenOver from None

    def measured(self, step: int, value: float) -> bool:
        """Write down a measurement; whether to stop here. With several objectives nothing is stopped."""
        if len(self._search.study.directions) > 1:
            return False
        try:
            if step not in self._measured:  # a training that goes on may come by once more
                self._trial.report(value, step)
            self._measured.add(step)
            return self._trial.should_prune()
        except UpdateFinishedTrialError:
            raise TakenOver from None

    def before(self) -> dict[int, float]:
        """What was measured of the same settings in a process that is gone."""
        attempts = [trial for trial in self._search.trials if slot(trial) == self.slot and trial.number < self.number]
        return dict(attempts[-1].intermediate_values) if attempts else {}

    def tell(self, state: TrialState, values: Sequence[float] | None = None) -> None:
        """End it."""
        try:
            self._search.study.tell(self._trial, values, state)
        except (UpdateFinishedTrialError, ValueError):  # it was taken over; what was found is found there again
            if self._search._frozen(self._trial).state is TrialState.RUNNING:
                raise

    def give_back(self) -> None:
        """End it, and leave its settings to whoever goes on."""
        self._search._give_back(self._search._frozen(self._trial))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        """A trial that nobody told is given back, whatever ended it; but for an error, which would come again."""
        if kind is not None and self._search._frozen(self._trial).state is TrialState.RUNNING:
            if issubclass(kind, Exception):
                self.tell(TrialState.FAIL)
            else:
                self.give_back()


class TakenOver(Exception):
    """Another process goes on with this trial, since nothing was heard of this one for long."""


def slot(trial: FrozenTrial) -> int:
    """The number of the trial that a trial stands for: its own, or that of the one that was given back."""
    return int(trial.user_attrs.get(FIRST, trial.number))


def _is_given_back(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and bool(trial.user_attrs.get(GIVEN_BACK))


def state_of(trial: FrozenTrial) -> str:
    """As `benchmarks.searches.TrialRecord` has it."""
    if trial.state is TrialState.FAIL:
        return "given-back" if trial.user_attrs.get(GIVEN_BACK) or trial.user_attrs.get(SURPLUS) else "failed"
    return str(trial.state.name.lower())
