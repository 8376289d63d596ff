"""Runs in the form that is published: `python -m leaderboard.distil RUNS... --out results/runs`.

A published run is a folder that the board reads like any other: what it used, its scores, and predictions from which
they are computed again. What the board does not need is left out, and so is every word of the data: where answers are
texts, signs stand for their words (`veil`). Runs of one task each that are alike but for the task become one run of all
these tasks, since a method is judged over them together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.errors import PolypromptError, run_command
from benchmarks.files import sha256, write_atomic
from benchmarks.progress import bar
from benchmarks.results import (
    Manifest,
    ResultRecord,
    Results,
    SelectionCard,
    predictions_path,
    read_model,
    read_predictions,
    write_model,
    write_predictions,
)
from benchmarks.scoring import chance, score
from benchmarks.task import TaskCard
from leaderboard.runs import INCIDENTAL, run_folders
from leaderboard.veil import is_veiled, veiled, veiled_card

OF_TASKS = frozenset({"suite", "tasks", "files", "skip_missing", "languages"})
"""Settings in which runs of one task each may differ and still be one method's."""


@dataclass(frozen=True)
class Source:
    """A run as it was left.

    Attributes:
        folder: where it lies. manifest, results: its files. settings: of its config.toml.
    """

    folder: Path
    manifest: Manifest
    results: Results
    settings: dict[str, Any]

    @property
    def alone(self) -> bool:
        """Whether it was trained on one task, or none."""
        return len(self.manifest.trained) <= 1

    @property
    def method(self) -> str:
        """What it has in common with runs of other tasks and seeds of the same method, as a text."""
        facts = self.manifest.model_dump(mode="json", include={"method", "prompt", "precision", "backbone"})
        asked = {key: value for key, value in self.settings.items() if key not in INCIDENTAL}
        tasks = [] if self.alone else sorted(self.manifest.trained)
        kept = {key: value for key, value in asked.items() if key not in OF_TASKS}
        return json.dumps([facts, kept, self.alone, tasks], sort_keys=True, default=str)


def read_source(folder: Path) -> Source:
    """A finished run.

    Raises:
        PolypromptError: a file is missing or malformed.
    """
    try:
        settings = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolypromptError(f"{folder}/config.toml: no such file; is {folder} a finished run folder?") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolypromptError(f"{folder}/config.toml: {error}") from None
    manifest = read_model(folder / "manifest.json", Manifest)
    return Source(folder, manifest, read_model(folder / "results.json", Results), settings)


def gathered(sources: Iterable[Source]) -> list[list[Source]]:
    """Runs that become one: those of one task each and of one method and seed, by task; any other one by itself.

    Raises:
        PolypromptError: two of them are of the same task.
    """
    groups: dict[tuple[str, int], list[Source]] = {}
    for source in sorted(sources, key=lambda source: source.manifest.run):
        groups.setdefault((source.method, source.manifest.seed), []).append(source)
    for group in groups.values():
        seen: dict[tuple[str, str, str], Source] = {}
        for source in group:
            for record in source.results.records:
                other = seen.setdefault((record.task, record.language, record.split), source)
                if other is not source:
                    raise PolypromptError(
                        f"{other.folder} and {source.folder} are alike and both of {record.task}: name one of them"
                    )
    return list(groups.values())


def distil(group: Sequence[Source], code: str, out: Path, seconds: bool = True) -> Path:
    """Write one published run.

    Args:
        group: of `gathered`. code: what its manifest says of the code. out: folder of runs.
        seconds: say what training took.

    Returns:
        The folder; one that was there is replaced.

    Raises:
        PolypromptError: predictions are missing, or not those that were scored, or cannot be published without text.
    """
    name = _name(group[0])
    cards = {card.name: veiled_card(card) if is_veiled(card) else card for one in group for card in one.manifest.tasks}
    out.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=out))
    try:
        records = [_record(one, record, cards, aside) for one in group for record in one.results.records]
        first = group[0].results
        results = Results(run=name, method=first.method, backbone=first.backbone, seed=first.seed, records=records)
        write_atomic(aside / "config.toml", _settings(group))
        write_model(aside / "results.json", results)
        write_model(aside / "manifest.json", _manifest(group, name, code, list(cards.values()), seconds))
        aside.chmod(0o755)
        if (out / name).exists():
            shutil.rmtree(out / name)
        aside.rename(out / name)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return out / name


def _record(source: Source, record: ResultRecord, cards: Mapping[str, TaskCard], out: Path) -> ResultRecord:
    if record.task not in cards:
        raise PolypromptError(f"{source.folder}/results.json: {record.task!r} is not among the tasks of manifest.json")
    card, place = cards[record.task], source.folder / record.predictions
    path = predictions_path(record.task, record.language, record.split)
    for folder, file in ((source.folder, place), (out, out / path)):
        if not file.resolve().is_relative_to(folder.resolve()):
            raise PolypromptError(f"{source.folder}/results.json: {file} is outside of the run folder")
    rows = read_predictions(place)
    if sha256(place) != record.sha256:
        raise PolypromptError(f"{place}: not the predictions that were scored; `python -m harness.rescore` scores them")
    if is_veiled(card):
        rows = veiled(card, rows, record.language)
    if not card.no_answer:  # whose threshold is held against them
        rows = [replace(row, scores=()) for row in rows]
    write_predictions(out / path, rows)
    found, guess = (_rounded(of(card, rows, record.language)) for of in (score, chance))
    for metric, value in found.items():
        if abs(value - record.scores.get(metric, value)) > 1e-3:
            raise PolypromptError(
                f"{source.folder}/results.json: {metric} of {record.task}, {record.language} is "
                f"{record.scores[metric]}, and {value} by its predictions; `python -m harness.rescore` scores them"
            )
    return record.model_copy(
        update={
            "scores": found,
            "chance": guess,
            "signatures": {name: text for name, text in record.signatures.items() if name in found},
            "predictions": path,
            "sha256": sha256(out / path),
        }
    )


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def _manifest(group: Sequence[Source], name: str, code: str, tasks: list[TaskCard], seconds: bool) -> Manifest:
    """What the runs used together: sums of what they took, means of what one of them trained."""
    parts = [source.manifest for source in group]
    first, several = parts[0], len(parts) > 1
    memory = [part.train_memory for part in parts if part.train_memory is not None]
    chosen = [part.selection for part in parts if part.selection]
    selection = chosen[0] if chosen else None
    if several and chosen:
        rows = {task: count for one in chosen for task, count in one.rows.items()}
        rate = chosen[0].learning_rate
        selection = SelectionCard(rule=chosen[0].rule, rows=rows, measured={}, learning_rate=rate, step=0)
    return first.model_copy(
        update={
            "run": name,
            "created": max(part.created for part in parts),
            "command": "\n".join(part.command for part in parts),
            "code": code,
            "prompt": _prompt(first.prompt) if several else first.prompt,
            "tasks": tasks,
            "trained": _joined(part.trained for part in parts),
            "trainable": round(sum(part.trainable for part in parts) / len(parts)),
            "share": sum(part.share for part in parts) / len(parts),
            "selection": selection,
            "thresholds": _joined(part.thresholds for part in parts),
            "limits": _joined(part.limits for part in parts),
            "data": dict(sorted(_joined(part.data for part in parts).items())),
            "steps": sum(part.steps for part in parts),
            "examples_seen": sum(part.examples_seen for part in parts),
            "train_seconds": _sum(part.train_seconds for part in parts) if seconds else None,
            "evaluate_seconds": _sum(part.evaluate_seconds for part in parts) if seconds else None,
            "train_memory": max(memory, default=None),
            "interruptions": sum(part.interruptions for part in parts),
        }
    )


def _sum(parts: Iterable[float | None]) -> float | None:
    """None where a part is not known."""
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)


def _prompt(of_one: str) -> str:
    """What heads the row of runs of one task each."""
    return "each task alone" if of_one in ("", "none") else f"{of_one}, each task alone"


def _joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return reduce(lambda one, other: one | other, parts, {})


def _settings(group: Sequence[Source]) -> str:
    """config.toml: the settings that the runs have in common, of tasks all that they have, and the seed."""
    kept = {key: value for key, value in group[0].settings.items() if key not in INCIDENTAL - {"seed"}}
    for key in ("suite", "tasks"):
        kept[key] = list(dict.fromkeys(name for source in group for name in source.settings.get(key, [])))
    kept["files"] = _joined(source.settings.get("files", {}) for source in group)
    return tomli_w.dumps(kept)


def _name(source: Source) -> str:
    manifest = source.manifest
    sharing = "alone" if source.alone else str(source.settings.get("sharing", "shared"))
    encoder = re.sub(r"[^a-z0-9-]+", "-", Path(manifest.backbone.name).name.lower())
    mark = hashlib.sha256(source.method.encode()).hexdigest()[:6]
    return f"{manifest.method}-{sharing}-{encoder}-{mark}-s{manifest.seed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.distil", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", required=True, type=Path, help="folder of the published runs")
    parser.add_argument("--no-seconds", action="store_true", help="leave out how long training took")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    folders = sorted({folder for path in options.runs for folder in run_folders(path)})
    if not folders:
        raise PolypromptError(f"{', '.join(map(str, options.runs))}: no finished run; name folders that hold some")
    groups = gathered(read_source(folder) for folder in folders)
    code: dict[str, set[str]] = {}  # seeds of one method are one row of the board if they say the same of it
    for group in groups:
        code.setdefault(group[0].method, set()).update(source.manifest.code for source in group)
    written = []
    with bar("Publishing", len(groups)) as begin:
        for group in groups:
            begin(_name(group[0]))
            written.append(distil(group, ", ".join(sorted(code[group[0].method])), options.out, not options.no_seconds))
    if options.json:
        print(json.dumps([str(folder) for folder in written], indent=2))
    else:
        size = sum(file.stat().st_size for folder in written for file in folder.rglob("*") if file.is_file())
        print(f"{len(folders)} runs as {len(written)} in {options.out}, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
