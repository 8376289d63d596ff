"""Leave out of a vocabulary what given languages and texts do not use, and measure on real rows what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from benchmarks import data
from benchmarks.errors import PolypromptError, did_you_mean
from benchmarks.readers.text import read_lines
from benchmarks.records import Example, Split
from benchmarks.results import Manifest
from benchmarks.scoring import score
from benchmarks.task import Task, TaskCard
from benchmarks.thresholds import with_threshold
from exporters.bundle import KeptPieces, TrimmedScore, VocabularyReport
from exporters.table import table
from exporters.vocabulary import Trimmed, trim
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import load_evaluation
from harness.device import find_device
from harness.evaluate import predict
from harness.features import Ints, TextEncoder
from harness.heads import HeadKind
from harness.model import PromptedModel
from harness.readout import mask_pieces
from harness.screen import Bar, Screen

SCORED = 200
"""Default of `--score-rows`: enough to see a loss of a few points, few enough for a processor."""

OTHERS = 8
"""At most so many languages of a task that are not kept are measured."""

ROWS = 4096
"""Rows that are tokenized at a time."""

ENDLESS = 1 << 20
"""Pieces of a row that is not cut."""

Counts = NDArray[np.int64]
"""How often each piece occurs, [pieces]."""


@dataclass(frozen=True)
class Keep:
    """What the vocabulary is to serve.

    Attributes:
        languages: all rows of the run's tasks in them. texts: all lines of these files.
        rows: at most so many rows of a task and language are scored with both vocabularies.
    """

    languages: Sequence[str] = ()
    texts: Sequence[Path] = ()
    rows: int = SCORED

    def __bool__(self) -> bool:
        return bool(self.languages or self.texts)


EVERYTHING = Keep()
"""The whole vocabulary."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Rows of one task, split and language; `measured`: what becomes of them is reported."""

    task: Task
    split: str
    language: str
    measured: bool


def trim_model(
    model: PromptedModel, config: RunConfig, manifest: Manifest, tasks: Sequence[Task], keep: Keep
) -> VocabularyReport:
    """Trim the tokenizer and the word embeddings of a model together, in place.

    Args:
        model: of a finished run. config, manifest, tasks: of the same run. keep: what the pieces are chosen by.

    Returns:
        What was kept and what it costs.

    Raises:
        PolypromptError: a language that no task has or no row is there in, a file that is not there, or a tokenizer
            that cannot be trimmed.
    """
    places = _places(config, tasks, keep)
    tokenizer = Tokenizer.from_str(model.backbone.tokenizer.to_str())
    uncut = _encoder(model.backbone, ENDLESS, {})
    used = _count(tokenizer, _ids_of_texts(tokenizer, keep.texts))
    elsewhere = used.copy()
    coverage: dict[str, Counts] = {}
    with Screen().bar("pieces in use", len(places)) as bar:
        for place in places:
            counts = _count(tokenizer, _ids_of_rows(uncut, place.task, _load(config, place)))
            if place.language in keep.languages:
                used += counts
                elsewhere += 0 if place.measured else counts
            if place.measured:
                coverage[place.language] = coverage.get(place.language, 0) + counts
            bar.step(f"{place.task.name} {place.language} {place.split}")
    needed = _needed(model)
    trimmed = trim(tokenizer, needed | _pieces(used))
    without = trim(tokenizer, needed | _pieces(elsewhere))
    table = model.backbone.words.weight
    rows = {place: _labelled(config, place, keep.rows) for place in places if place.measured}
    rows = {place: split for place, split in rows.items() if split.examples}
    with Screen().bar("scores, whole and trimmed", 2 * len(rows)) as bar:
        whole = _encoder(model.backbone, model.max_positions, _masks(model, manifest))
        full = _scores(model, manifest, whole, rows, bar)
        changed = {place: _changed(whole, place.task.card, split, trimmed.kept) for place, split in rows.items()}
        _shrink(model.backbone, trimmed)
        small = _encoder(model.backbone, model.max_positions, _masks(model, manifest))
        after = _scores(model, manifest, small, rows, bar)
    scores: dict[str, dict[str, TrimmedScore]] = {}
    for place, (metric, value) in full.items():
        scores.setdefault(place.task.name, {})[place.language] = TrimmedScore(
            split=place.split,
            rows=len(rows[place].examples),
            changed=changed[place],
            metric=metric,
            full=value,
            trimmed=after[place][1],
        )
    return VocabularyReport(
        languages=list(keep.languages),
        texts=[path.name for path in keep.texts],
        pieces=len(trimmed.kept),
        of=len(table),
        saved_bytes=(len(table) - len(trimmed.kept)) * table.shape[1] * table.element_size(),
        coverage={
            language: KeptPieces(
                pieces=int(counts.sum()), kept=_share(counts, trimmed.kept), new_text=_share(counts, without.kept)
            )
            for language, counts in coverage.items()
        },
        scores=scores,
    )


def trimming_report(report: VocabularyReport) -> str:
    """For a person to read: what was kept, by language, and what it does to scores."""
    kept = [
        (language, row.pieces, f"{100 * row.kept:.2f} %", f"{100 * row.new_text:.2f} %")
        for language, row in report.coverage.items()
    ]
    scores = [
        (task, language, row.split, row.rows, row.changed, row.metric, f"{row.full:.1f}", f"{row.trimmed:.1f}")
        for task, languages in report.scores.items()
        for language, row in languages.items()
    ]
    kept_table = table(
        {"language": "left", "pieces of dev rows": "right", "kept": "right", "of new text": "right"}, kept
    )
    places = {"task": "left", "language": "left", "split": "left", "rows": "right", "changed": "right"}
    score_table = table({**places, "metric": "left", "whole": "right", "trimmed": "right"}, scores)
    parts = [
        kept_table,
        score_table,
        f"vocabulary: {report.pieces:,} of {report.of:,} pieces kept ({100 * report.pieces / report.of:.1f} %), "
        f"{report.saved_bytes / 1e6:.1f} MB of fp32 embeddings saved",
    ]
    return "\n\n".join(parts)


def _places(config: RunConfig, tasks: Sequence[Task], keep: Keep) -> list[_Place]:
    """All rows of the languages to keep, and the dev (else the reported) rows of some others, as far as they are there.

    Raises:
        PolypromptError: see `trim_model`.
    """
    for path in keep.texts:
        if not path.is_file():
            raise PolypromptError(f"--keep-from {path}: no such file")
    known = {code for task in tasks for code in (*task.card.languages, task.card.train_language) if code}
    for language in keep.languages:
        if language not in known:
            hint = did_you_mean(language, sorted(known))
            raise PolypromptError(f"--keep-languages {language}: no task of the run has it; {hint}")
    places: list[_Place] = []
    for task in tasks:
        there = {split: _there(config, task, split) for split in ("train", "dev", "test")}
        reported = dict.fromkeys([*there["dev"], *there[task.eval_split]])
        others = [code for code in reported if code not in keep.languages]
        others = [code for code in others if not config.languages or code in config.languages][:OTHERS]
        for split, languages in there.items():
            for language in languages:
                shown = split == ("dev" if language in there["dev"] else task.eval_split)
                if language in keep.languages or (language in others and shown):
                    places.append(_Place(task, split, language, shown))
    for language in keep.languages:
        if not any(place.language == language for place in places):
            folders = {data.folder_of(task, config.data_dir) for task in tasks}
            where = ", ".join(str(folder or "the hub") for folder in folders)
            raise PolypromptError(f"--keep-languages {language}: no row of the run's tasks in it is there, in {where}")
    return places


def _there(config: RunConfig, task: Task, split: str) -> list[str]:
    """The languages in which a split is there."""
    codes = data.languages(task, split, config.data_dir, config.files)
    given = f"{task.name}.{split}" in config.files
    return [code for code in codes if given or task.source.has(split, code)]


def _load(config: RunConfig, place: _Place) -> Split:
    return data.load(place.task, place.split, place.language, config.data_dir, config.files)


def _labelled(config: RunConfig, place: _Place, limit: int) -> Split:
    """The rows to score, spread over the split; none where it is not labelled."""
    task = replace(place.task, eval_split=place.split)
    split = load_evaluation(config.model_copy(update={"max_eval": limit}), task, place.language)
    return split if any(example.gold is not None for example in split.examples) else Split(())


def _encoder(backbone: Backbone, longest: int, masks: Mapping[str, int]) -> TextEncoder:
    """Of the vocabulary as it is now, for rows of so many pieces."""
    tokenizer = Tokenizer.from_str(backbone.tokenizer.to_str())  # of its own: the encoder sets its truncation
    return TextEncoder(tokenizer, backbone.pad_id, backbone.token_types, longest, masks)


def _masks(model: PromptedModel, manifest: Manifest) -> dict[str, int]:
    asked = HeadKind.LINEAR if model.readout is None else model.readout.kind
    return mask_pieces(asked, model.backbone, manifest.tasks)


def _needed(model: PromptedModel) -> set[int]:
    """The pieces that stand in rows, or for labels, whatever the texts are."""
    backbone = model.backbone
    said = {} if model.readout is None else model.readout.said
    labels = {backbone.tokenizer.token_to_id(piece) for words in said.values() for piece in words.values()}
    return labels | {backbone.pad_id} | ({backbone.mask_id} if backbone.mask_id is not None else set())


def _shrink(backbone: Backbone, trimmed: Trimmed) -> None:
    number = {int(old): new for new, old in enumerate(trimmed.kept)}
    rows = backbone.words.weight[torch.from_numpy(trimmed.kept)]
    backbone.model.set_input_embeddings(nn.Embedding.from_pretrained(rows))
    config = backbone.model.config
    special = {name: value for name, value in config.to_dict().items() if name.endswith("_token_id")}
    config.update({"vocab_size": len(rows)} | {name: number.get(value) for name, value in special.items()})
    backbone.tokenizer = trimmed.tokenizer
    backbone.pad_id = number[backbone.pad_id]
    backbone.mask_id = None if backbone.mask_id is None else number[backbone.mask_id]


def _ids_of_rows(encoder: TextEncoder, task: Task, split: Split) -> Iterator[Ints]:
    """Piece ids of rows that are not cut, those of candidates too; many rows at a time."""
    card = task.card.model_copy(update={"max_length": ENDLESS})
    examples = [*split.examples, *(Example("", text=text) for text in split.candidates)]
    for start in range(0, len(examples), ROWS):
        yield np.concatenate([row.input_ids for row in encoder.features(card, examples[start : start + ROWS])])


def _ids_of_texts(tokenizer: Tokenizer, texts: Sequence[Path]) -> Iterator[Ints]:
    """Piece ids of the lines of files, many at a time."""
    for path in texts:
        lines = read_lines(path)
        for start in range(0, len(lines), ROWS):
            rows = tokenizer.encode_batch_fast(lines[start : start + ROWS])
            yield np.concatenate([np.array(row.ids, np.int32) for row in rows])


def _count(tokenizer: Tokenizer, ids: Iterable[Ints]) -> Counts:
    """How often each piece occurs, but for those that are put around every text."""
    counts = np.zeros(max(tokenizer.get_vocab().values()) + 1, np.int64)
    for part in ids:
        counts += np.bincount(part, minlength=len(counts))
    counts[tokenizer.encode("", "").ids] = 0
    return counts


def _pieces(counts: Counts) -> set[int]:
    return set(counts.nonzero()[0].tolist())


def _share(counts: Counts, kept: Counts) -> float:
    """Of the running pieces, those that are kept, 0..1."""
    return float(counts[kept].sum() / max(1, counts.sum()))


def _changed(encoder: TextEncoder, card: TaskCard, split: Split, kept: Counts) -> int:
    """Examples with a piece that is not kept."""
    features = encoder.features(card, split.examples)
    return len({feature.example for feature in features if not np.isin(feature.input_ids, kept).all()})


def _scores(
    model: PromptedModel, manifest: Manifest, encoder: TextEncoder, rows: Mapping[_Place, Split], bar: Bar
) -> dict[_Place, tuple[str, float]]:
    """The main metric and its value for each place."""
    scores = {}
    device = find_device("fp32", cpu=True)
    for place, split in rows.items():
        card, language = place.task.card, place.language
        predictions = predict(model, encoder, card, split, device, language)
        known = manifest.thresholds.get(card.name, {})
        threshold = known.get(language, known.get(card.train_language or ""))
        if threshold is not None:
            predictions = with_threshold(card, predictions, threshold)
        metric, value = next(iter(score(card, predictions, language).items()))
        scores[place] = metric, round(value, 4)
        bar.step(f"{card.name} {language} {metric} {value:.1f}")
    return scores
