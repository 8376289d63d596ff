"""search.json: what a search tried, what it found and how sure that is. `python -m benchmarks.searches`: its schema."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.errors import run_command

Setting = bool | int | float | str


class TrialRecord(BaseModel):
    """One trial of a search.

    Attributes:
        number: in its study. state: "complete", "pruned" (stopped early, or it diverged), "failed" (an error, see
            `note`), "given-back" (its process ended; the same settings are tried again under another number),
            "running", "waiting".
        origin: who proposed it: "default", "preset NAME", "study NAME", "sampler".
        settings: of the run that it stands for, as in a settings file.
        score: on the held-out rows of the training split, points; of a pruned one the last measurement.
        error: the standard error of `score`, since other rows might have been held out; None where it is not known.
        curve: (epoch, score) as it was measured; in few-shot (fold, mean over the folds so far).
        values: objective -> value, in the order of the objectives; empty unless the trial is complete.
        seconds: of training. size: bytes of prompt and heads as stored. latency: milliseconds a row.
        pareto: no other trial is better in one objective and as good in all others.
        note: why it ended early.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    number: int = Field(ge=0)
    state: Literal["complete", "pruned", "failed", "given-back", "running", "waiting"]
    origin: str = "sampler"
    settings: dict[str, Setting] = {}
    score: float | None = None
    error: float | None = Field(None, ge=0)
    curve: list[tuple[int, float]] = []
    values: dict[str, float] = {}
    seconds: float | None = None
    size: int | None = None
    latency: float | None = None
    pareto: bool = False
    note: str = ""


class WinnerRecord(BaseModel):
    """The trial that was chosen, trained again.

    Attributes:
        trial: its number. search_score: what the search saw of it on held-out rows; of the best, of many looks at them.
        settings: of its runs. runs: names of their folders, one a seed. seeds: seed -> dev score, points.
        score: the mean over seeds. low, high: its 95 % interval, over other seeds and other rows.
        optimism: `search_score` less `score`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    trial: int = Field(ge=0)
    search_score: float
    settings: dict[str, Setting]
    runs: list[str]
    seeds: dict[int, float]
    score: float
    low: float
    high: float
    optimism: float


class SearchRecord(BaseModel):
    """search.json.

    Attributes:
        study: its name in the storage. tasks, backbone, method: what was searched.
        metric: what a score is: the main metric, of several tasks the mean of theirs.
        objectives: what was sought, the score first. space: setting -> {low, high, log}, or a list of values.
        sampler, pruner: by name. folds: of cross-validation in few-shot; 0: a held-out part of train.
        trials: by number.
        importance: setting -> its share of the variance of trials' scores (fANOVA); empty for too few trials.
        importance_after: the last epoch (or fold) after which enough trials were measured, whose scores this is about;
            None: it is about the scores of complete trials, of which there were enough.
        seconds: that somebody worked on it. winner: None as long as nobody trained it again.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_name: Literal["polyprompt-search"] = "polyprompt-search"
    version: Literal[1] = 1
    study: str
    tasks: list[str]
    backbone: str
    method: str
    metric: str
    objectives: list[Literal["score", "bytes", "latency"]]
    space: dict[str, dict[str, bool | int | float] | list[Setting]]
    sampler: str
    pruner: str
    folds: int = 0
    trials: list[TrialRecord]
    importance: dict[str, float] = {}
    importance_after: int | None = None
    seconds: float = 0.0
    winner: WinnerRecord | None = None

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best score, the first of equals."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.score is not None]
        return max(complete, key=lambda trial: trial.score or 0.0, default=None)

    @property
    def choice(self) -> TrialRecord | None:
        """The trial to train again: the default settings, unless the best trial is more than its standard error better.

        That is the one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3)
        with the default for the simplest model: the best of many scores on few rows is often the luckiest.
        """
        best = self.best
        default = next(
            (trial for trial in self.trials if trial.origin == "default" and trial.state == "complete"), None
        )
        if best is None or default is None or default.score is None or best.score is None or best.error is None:
            return best
        return default if default.score >= best.score - best.error else best

    @property
    def kept(self) -> str | None:
        """Why the default settings were chosen although another trial had a better score; None: they were not."""
        best, choice = self.best, self.choice
        if best is None or choice is None or choice is best or best.score is None or best.error is None:
            return None
        return (
            f"the default settings stay: the best of the other trials had {best.score:.2f}, which is less than its "
            f"standard error of {best.error:.2f} above their {choice.score:.2f}"
        )


def search_schema() -> dict[str, Any]:
    """The schema of the current version, JSON Schema 2020-12."""
    schema = SearchRecord.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "search.json"}


def main() -> int:
    """Print it."""
    print(json.dumps(search_schema(), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
