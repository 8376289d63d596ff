"""Numbers of a run for a program that shows them while it goes on: TensorBoard, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.files import write_atomic
from harness.screen import Screen

if TYPE_CHECKING:  # loads torch, which who only reads settings does without
    from accelerate.tracking import GeneralTracker

Report = Callable[[Mapping[str, float], int], None]
"""Told numbers by name, and the step of which they are."""

FOLDER = "tracking"
"""In a run folder: what trackers write, and under which name they know the run."""

PROJECT = "polyprompt"
"""Under which name a tracker that knows projects shows runs."""


class TrackerName(StrEnum):
    """A tracker. `auto`: TensorBoard where it is installed, else none."""

    AUTO = "auto"
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"
    TRACKIO = "trackio"
    NONE = "none"


class Tracker:
    """Sends numbers to a tracker. When that fails it says so once, and the run goes on without.

    The tracker is started by the first numbers. A run that was interrupted goes on under the name it has there.

    Args:
        name: which. run: the run folder. settings: of the run. screen: hears of a failure.
    """

    def __init__(self, name: TrackerName, run: Path, settings: Mapping[str, object], screen: Screen) -> None:
        if name is TrackerName.AUTO:
            name = TrackerName.TENSORBOARD if find_spec("tensorboard") else TrackerName.NONE
        self._name, self._run, self._settings, self._screen = name, run, settings, screen
        self._wanted = name is not TrackerName.NONE
        self._tracker: GeneralTracker | None = None
        self._closing = ExitStack()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers. Never falls.

        Args:
            values: by name; none: this only starts the tracker. step: of which they are.
        """
        self._attempt(lambda: self._log(values, step))

    def close(self) -> None:
        """Finish what is written."""
        self._attempt(self._closing.close)
        self._wanted = False

    def _log(self, values: Mapping[str, float], step: int) -> None:
        tracker = self._tracker or self._start(step)
        if values:
            tracker.log(dict(values), step=step)

    def _start(self, step: int) -> GeneralTracker:
        known = self._run / FOLDER / f"{self._name}.id"
        before = known.read_text(encoding="utf-8") if known.exists() else None
        known.parent.mkdir(parents=True, exist_ok=True)
        make, id_of = _TRACKERS[self._name]
        tracker = make(self._run, before, step, self._closing)
        self._closing.callback(tracker.finish)
        tracker.start()
        if before is None:
            plain = bool | int | float | str  # some take nothing else
            settings = self._settings.items()
            tracker.store_init_configuration({k: v if isinstance(v, plain) else json.dumps(v) for k, v in settings})
            write_atomic(known, id_of(tracker.tracker))
        self._tracker = tracker
        return tracker

    def _attempt(self, action: Callable[[], None]) -> None:
        if not self._wanted:
            return
        with redirect_stdout(sys.stderr):  # stdout is what a program may read
            try:
                action()
            except Exception as error:  # a tracker may raise anything, and none of it is worth a run
                self._wanted = False
                with suppress(Exception):
                    self._closing.close()
                missing = isinstance(error, ImportError) and not find_spec(self._name)
                reason = f"not installed; pip install {self._name}" if missing else " ".join(str(error).split())
                reason = reason or type(error).__name__
                self._screen.say(f"--tracker {self._name}: {reason}; the run goes on without it")


def _tensorboard(run: Path, before: str | None, step: int, closing: ExitStack) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker

    # What a run wrote after the checkpoint that it goes on from is written again: readers drop the first of both.
    return TensorBoardTracker(FOLDER, run, purge_step=step + 1)


def _wandb(run: Path, before: str | None, step: int, closing: ExitStack) -> GeneralTracker:
    from accelerate.tracking import WandBTracker

    folder = os.environ.get("WANDB_DIR") or str(run / FOLDER)
    again = {} if before is None else {"id": before, "resume": "allow"}
    return WandBTracker(os.environ.get("WANDB_PROJECT") or PROJECT, name=run.name, dir=folder, **again)


def _mlflow(run: Path, before: str | None, step: int, closing: ExitStack) -> GeneralTracker:
    import mlflow
    from accelerate.tracking import MLflowTracker

    artifacts = None
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        folder = (run / FOLDER).absolute()
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        closing.callback(mlflow.set_tracking_uri, None)  # the next run of this process has a place of its own
        artifacts = (folder / "artifacts").as_uri()
    return MLflowTracker(PROJECT, artifacts, run_id=before, run_name=run.name)


def _trackio(run: Path, before: str | None, step: int, closing: ExitStack) -> GeneralTracker:
    import trackio
    from accelerate.tracking import TrackioTracker

    closing.callback(trackio.finish)  # else it finishes the run once more at exit, and says so on stdout
    # It has one place for all runs of a process, so it keeps its own: there `trackio show` finds them side by side.
    return TrackioTracker(PROJECT, name=run.name, resume="never" if before is None else "allow", embed=False)


_Maker = Callable[[Path, str | None, int, ExitStack], "GeneralTracker"]
_TRACKERS: dict[TrackerName, tuple[_Maker, Callable[[Any], str]]] = {
    TrackerName.TENSORBOARD: (_tensorboard, lambda writer: FOLDER),
    TrackerName.WANDB: (_wandb, lambda run: run.id),
    TrackerName.MLFLOW: (_mlflow, lambda run: run.info.run_id),
    TrackerName.TRACKIO: (_trackio, lambda run: run.name),
}
"""How a tracker is made: run folder, its name of the run from before, the step done last, what is done in the end;
and what its name of the run is."""
