"""`python -m tests.official.submit_xtreme XTREME`: our XTREME submissions, scored here and by XTREME's own evaluate.py.

The gold labels of XTREME's example submission, some of them changed, become the predictions of a run; the run is made a
submission by `python -m benchmarks.submit`, which evaluate.py scores; its scores are held against ours of the run.
XTREME is a checkout or a git directory of https://github.com/google-research/xtreme; nothing of it is part of this
project. Without an argument it is the folder that the environment variable POLYPROMPT_XTREME names, else `xtreme`
beside the project. The exit status is 1 when a score differs by more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from tabulate import tabulate

from benchmarks.errors import PolypromptError, run_command
from benchmarks.records import Prediction
from benchmarks.registry import find_suite
from benchmarks.results import predictions_path, write_predictions
from benchmarks.scoring import score
from benchmarks.task import Kind, TaskCard
from tests.fake_runs import write_run

TOLERANCE = 1e-9
"""Points; evaluate.py computes F1 from precision and recall, which rounds otherwise."""

THEIRS = {"f1": "f1", "f1_seqeval": "f1", "f1_mlqa": "f1", "em": "exact_match", "em_mlqa": "exact_match"}
"""Our name of a metric -> evaluate.py's, where these differ."""

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Line:
    """One number, computed twice, in points."""

    task: str
    language: str
    metric: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        return abs(self.ours - self.theirs)


def find_xtreme() -> Path | None:
    """A folder of XTREME, where there is one."""
    folder = Path(os.environ.get("POLYPROMPT_XTREME", ROOT.parent / "xtreme"))
    return folder if folder.is_dir() else None


def compare(xtreme: Path) -> list[Line]:
    """Every number of evaluate.py that we have too.

    Raises:
        PolypromptError: it is no XTREME, the submission was refused, or evaluate.py fails.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        checkout = xtreme if (xtreme / "evaluate.py").is_file() else _check_out(xtreme, folder / "checkout")
        labels = checkout / "mock_test_data" / "labels"
        run, submission, output = folder / "run", folder / "submission", folder / "scores.json"
        ours = _write_run(run, labels)
        _python(ROOT, "-m", "benchmarks.submit", str(run), "--suite", "xtreme", "--out", str(submission))
        places = ("--prediction_folder", submission, "--label_folder", labels, "--output_file", output)
        _python(checkout, "-W", "ignore", "evaluate.py", *map(str, places))
        theirs = json.loads(output.read_text())
        return [
            Line(task, language, metric, value, theirs[task][THEIRS.get(metric, metric)][language])
            for (task, language), scores in ours.items()
            for metric, value in scores.items()
            if THEIRS.get(metric, metric) in theirs[task]
        ]


def _check_out(repository: Path, folder: Path) -> Path:
    command = ["git", "-C", str(repository), "archive", "HEAD"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise PolypromptError(f"{repository}: neither a checkout nor a git directory of XTREME")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _python(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PolypromptError(f"{' '.join(arguments)} failed: {done.stderr.strip()}")


def _write_run(run: Path, labels: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Write a run whose predictions are labels with mistakes; returns our scores of each task and language."""
    cards = [task.card for task in find_suite("xtreme").tasks]
    write_run(run, cards, languages=())
    scores = {}
    for card in cards:
        for language in card.languages:
            rng = random.Random(f"{card.name}.{language}")
            rows = _mistaken(card, list(_gold(card, labels, language)), rng)
            write_predictions(run / predictions_path(card.name, language, "test"), rows)
            scores[card.name, language] = score(card, rows, language)
    return scores


def _gold(card: TaskCard, labels: Path, language: str) -> Iterator[Prediction]:
    """The labels, as predictions that are all right."""
    path = labels / card.name / f"test-{language}.{'json' if card.kind is Kind.SPAN else 'tsv'}"
    text = path.read_text(encoding="utf-8")
    if card.kind is Kind.SPAN:
        for article in json.loads(text)["data"]:
            for question in (question for paragraph in article["paragraphs"] for question in paragraph["qas"]):
                accepted = tuple(answer["text"] for answer in question["answers"])
                yield Prediction(question["id"], accepted[0], accepted)
    elif card.kind is Kind.TAGGING:
        filled = (group for is_word, group in groupby(map(str.strip, text.split("\n")), bool) if is_word)
        for number, sentence in enumerate(filled):
            tags = tuple(sentence)
            yield Prediction(str(number), tags, tags)
    elif card.no_answer:
        for pair in text.splitlines():
            sentence, partner = pair.split("\t")
            yield Prediction(sentence, partner, partner)
        yield Prediction(f"{language}-none-1", "", "")  # sentences without a partner; one will be given one
        yield Prediction(f"{language}-none-2", "", "")
    else:
        for number, label in enumerate(text.split()):
            yield Prediction(str(number), label, label)


def _mistaken(card: TaskCard, rows: list[Prediction], rng: random.Random) -> list[Prediction]:
    """The same with mistakes, among them near ones: words more and less, other cases, articles and marks."""
    known = card.labels or tuple(dict.fromkeys(str(row.value) for row in rows))
    changed = []
    for row in rows:
        value = row.value
        if isinstance(value, tuple):
            value = tuple(rng.choice(known) if rng.random() < 0.25 else tag for tag in value)
        elif card.kind is Kind.SPAN:
            words = str(value).split()
            forms = (f"The {value}.".upper(), " ".join(words[1:]), f"{value} und noch etwas 中", "", "der a 的", value)
            value = rng.choice(forms)
        elif rng.random() < 0.4:
            value = rng.choice(known)
        changed.append(replace(row, value=value))
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xtreme", nargs="?", type=Path, default=find_xtreme(), help="of google-research/xtreme")
    xtreme = parser.parse_args().xtreme
    if xtreme is None:
        raise PolypromptError("no XTREME here; name its folder, or let POLYPROMPT_XTREME name it")
    lines = compare(xtreme)
    rows = [(line.task, line.language, line.metric, line.ours, line.theirs, f"{line.difference:.1e}") for line in lines]
    headers = ("task", "language", "metric", "ours", "theirs", "difference")
    print(tabulate(rows, headers, floatfmt=".6f", disable_numparse=[5]))
    worst = max(line.difference for line in lines)
    print(f"\n{len(lines)} numbers, the largest difference is {worst:.1e} points")
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(run_command(main))
