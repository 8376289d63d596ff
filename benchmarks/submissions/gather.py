"""From the stored predictions of a run to the files of a submission: nothing missing, nothing cut, nothing twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import data
from benchmarks.errors import MissingData, PolypromptError
from benchmarks.progress import bar
from benchmarks.registry import find_task
from benchmarks.results import Manifest, Results, predictions_path, read_model, read_predictions
from benchmarks.sources import OfficialSource
from benchmarks.submissions.format import Format, LeftOut, Official, Predicted
from benchmarks.task import Task, TaskCard


@dataclass
class Submission:
    """What is handed in.

    Attributes:
        files: path in the submission -> text.
        left_out: what it lacks and why, in sentences.
    """

    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def gather(run: Path, form: Format, split: str, data_dir: Path | None) -> Submission:
    """Make a submission of the stored predictions of a run.

    Args:
        run: its folder.
        form: how the benchmark takes predictions.
        split: "dev" or "test"; of a task that has no such split, the reported one is taken.
        data_dir: folder with the official files. With it, every prediction is held against its official row.

    Raises:
        PolypromptError: predictions are damaged, or are there for a part of the official rows only.
    """
    manifest, results = read_model(run / "manifest.json", Manifest), read_model(run / "results.json", Results)
    stored, submission = _Stored(run, manifest, results), Submission()
    cards = {card.name: card for card in manifest.tasks if card.suite == form.suite}
    writers = form.tasks or {name: form.kinds[card.kind] for name, card in cards.items() if card.kind in form.kinds}
    with bar("submission", len(writers)) as begin:
        for name, writer in writers.items():
            begin(name)
            if name not in cards:
                submission.left_out.append(f"{name}: not a task of the run")
                continue
            card, task = cards[name], find_task(name)
            for language in task.card.languages:
                there = split if task.source.has(split, language) else task.eval_split
                try:
                    submission.files |= writer(stored.predicted(task, card, language, there, data_dir))
                except LeftOut as error:
                    submission.left_out.append(f"{name} {language} {there}: {error}")
                except MissingData as error:
                    submission.left_out.append(error.what)
    return submission


@dataclass(frozen=True)
class _Stored:
    """A run folder."""

    folder: Path
    manifest: Manifest
    results: Results

    def predicted(self, task: Task, card: TaskCard, language: str, split: str, data_dir: Path | None) -> Predicted:
        """The predictions of a split, one for each official row as far as that can be known."""
        path = self.folder / predictions_path(card.name, language, split)
        if not path.exists():
            raise LeftOut("the run has no predictions of it")
        rows = read_predictions(path)
        ids = [row.id for row in rows]
        official = None if data_dir is None else _official(task, language, split, data_dir)
        if official is not None:
            if ids != [example.id for example in official.examples]:
                raise PolypromptError(
                    f"{path}: its {len(ids)} predictions are not those of the {len(official.examples)} rows of "
                    f"{', '.join(map(str, official.files))}; a submission must be complete"
                )
        elif self._is_cut(card.name, language, split, len(ids)):
            raise PolypromptError(
                f"{path}: holds a part of the official rows (--max-eval); a submission must be complete: run without it"
            )
        elif len(set(ids)) < len(ids):
            raise PolypromptError(f"{path}: an id comes twice; it is no file that a run wrote")
        return Predicted(card, language, split, rows, official)

    def _is_cut(self, task: str, language: str, split: str, count: int) -> bool:
        for record in self.results.records:
            if (record.task, record.language, record.split) == (task, language, split):
                return record.limited
        # There is no record of rows without labels.
        return count >= self.manifest.limits.get("max_eval", count + 1)


def _official(task: Task, language: str, split: str, data_dir: Path) -> Official | None:
    """The official rows; None where there are no files of them."""
    if not isinstance(task.source, OfficialSource):
        return None
    examples = data.load(task, split, language, data_dir).examples
    files = data.used_files(task, split, language, data_dir)
    return Official(examples, files, task.source.splits[split].reader)
