"""`python -m tests.official.xtreme CHECKOUT`: XTREME's example submission, scored here and by its own evaluate.py.

CHECKOUT is a checkout of https://github.com/google-research/xtreme; nothing of it is part of this project. Without an
argument it is the folder that the environment variable POLYPROMPT_XTREME names, else `xtreme` beside the project. The
exit status is 1 when a score differs by more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Prediction
from benchmarks.results import ResultRecord
from benchmarks.scoring import average, score
from benchmarks.suites.xtreme import SUITE
from benchmarks.task import Kind, TaskCard

TOLERANCE = 1e-9
"""Points; evaluate.py computes F1 from precision and recall, which rounds otherwise."""

NAMES = {
    "xnli": {"accuracy": "accuracy"},
    "pawsx": {"accuracy": "accuracy"},
    "udpos": {"f1": "f1_seqeval"},
    "panx": {"f1": "f1"},
    "xquad": {"f1": "f1", "exact_match": "em"},
    "mlqa": {"f1": "f1_mlqa", "exact_match": "em_mlqa"},
    "tydiqa": {"f1": "f1", "exact_match": "em"},
    "bucc2018": {"f1": "f1"},
    "tatoeba": {"accuracy": "accuracy"},
}
"""Task -> evaluate.py's name of a metric -> ours."""

AVERAGES = {
    "classification": "classification",
    "tagging": "structured",
    "qa": "qa",
    "retrieval": "retrieval",
    "all_task": "average",
}
"""evaluate.py's name of an average -> ours."""


@dataclass(frozen=True)
class Line:
    """One number, computed twice, in points; `task` is "average" for those over tasks."""

    task: str
    language: str
    metric: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        return abs(self.ours - self.theirs)


def find_checkout() -> Path | None:
    """The checkout of XTREME, where there is one."""
    beside = Path(__file__).resolve().parents[3] / "xtreme"
    folder = Path(os.environ.get("POLYPROMPT_XTREME", beside))
    return folder if (folder / "evaluate.py").is_file() else None


def compare(checkout: Path) -> list[Line]:
    """Every score of the example submission and every average, both ways.

    Raises:
        PolypromptError: evaluate.py fails, or scores other languages than we do.
    """
    theirs = _evaluate(checkout)
    lines: list[Line] = []
    records: list[ResultRecord] = []
    for task in SUITE.tasks:
        card = task.card
        for name, metric in NAMES[task.name].items():
            if set(theirs[task.name][name]) != set(card.languages):
                raise PolypromptError(
                    f"{task.name}: evaluate.py has the languages {', '.join(theirs[task.name][name])}"
                )
        for language in card.languages:
            scores = score(card, list(_predictions(card, checkout / "mock_test_data", language)), language)
            records.append(_record(card, language, scores))
            for name, metric in NAMES[task.name].items():
                lines.append(Line(task.name, language, metric, scores[metric], theirs[task.name][name][language]))
    for name, ours in average(SUITE, records).items():
        (their_name,) = (key for key, value in AVERAGES.items() if value == name)
        lines.append(Line("average", "", name, ours if ours is not None else float("nan"), theirs[their_name]))
    return lines


def _evaluate(checkout: Path) -> dict[str, Any]:
    data = checkout / "mock_test_data"
    with TemporaryDirectory() as folder:
        output = Path(folder) / "scores.json"
        command = [sys.executable, "-W", "ignore", "evaluate.py", "--output_file", str(output)]
        places = ["--prediction_folder", str(data / "predictions"), "--label_folder", str(data / "labels")]
        done = subprocess.run([*command, *places], cwd=checkout, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PolypromptError(f"{checkout / 'evaluate.py'} failed: {done.stderr.strip().splitlines()[-1]}")
        return dict(json.loads(output.read_text()))


def _predictions(card: TaskCard, data: Path, language: str) -> Iterator[Prediction]:
    end = "json" if card.kind is Kind.SPAN else "tsv"
    gold, given = (data / side / card.name / f"test-{language}.{end}" for side in ("labels", "predictions"))
    if card.kind is Kind.SPAN:
        answers = json.loads(given.read_text("utf-8"))
        for article in json.loads(gold.read_text("utf-8"))["data"]:
            for question in (question for paragraph in article["paragraphs"] for question in paragraph["qas"]):
                accepted = tuple(answer["text"] for answer in question["answers"])
                yield Prediction(question["id"], answers[question["id"]], accepted)
    elif card.no_answer:
        right, found = (
            dict(line.split("\t") for line in path.read_text().split("\n") if line) for path in (gold, given)
        )
        for name in right | found:
            yield Prediction(name, found.get(name, ""), right.get(name, ""))
    else:
        read: Callable[[Path], Sequence[str | tuple[str, ...]]] = _tags if card.kind is Kind.TAGGING else _lines
        for number, (label, value) in enumerate(zip(read(gold), read(given), strict=True)):
            yield Prediction(str(number), value, label)


def _lines(path: Path) -> list[str]:
    return path.read_text().split()


def _tags(path: Path) -> list[tuple[str, ...]]:
    lines = [line.strip() for line in path.read_text().split("\n")]
    return [tuple(sentence) for filled, sentence in groupby(lines, bool) if filled]


def _record(card: TaskCard, language: str, scores: dict[str, float]) -> ResultRecord:
    return ResultRecord(
        task=card.name,
        suite=card.suite,
        language=language,
        split="test",
        examples=1,
        limited=False,
        scores=scores,
        chance={},
        predictions="",
        sha256="",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=find_checkout(), help="of google-research/xtreme")
    checkout = parser.parse_args().checkout
    if checkout is None or not (checkout / "evaluate.py").is_file():
        raise PolypromptError("no checkout of XTREME; name its folder, or let POLYPROMPT_XTREME name it")
    lines = compare(checkout)
    rows = [(line.task, line.language, line.metric, line.ours, line.theirs, f"{line.difference:.1e}") for line in lines]
    headers = ("task", "language", "metric", "ours", "theirs", "difference")
    print(tabulate(rows, headers, floatfmt=".6f", disable_numparse=[5]))
    worst = max(line.difference for line in lines)
    print(f"\n{len(lines)} numbers, the largest difference is {worst:.1e} points")
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(run_command(main))
