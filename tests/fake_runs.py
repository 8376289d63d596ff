"""Run folders without a model: real schemas and real files, predictions drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.files import sha256, write_atomic
from benchmarks.records import Prediction
from benchmarks.results import (
    BackboneCard,
    Manifest,
    ResultRecord,
    Results,
    predictions_path,
    write_model,
    write_predictions,
)
from benchmarks.scoring import chance, score
from benchmarks.task import Kind, TaskCard

WORDS = "alpha beta gamma delta epsilon zeta eta theta".split()


def draw(card: TaskCard, language: str, skill: float, seed: int, rows: int = 60) -> list[Prediction]:
    """Predictions that are right with probability `skill`; the gold values do not depend on the seed."""
    gold_rng = random.Random(f"{card.name}.{language}")
    rng = random.Random(f"{card.name}.{language}.{skill}.{seed}")
    predictions = []
    for number in range(rows):
        right = rng.random() < skill
        match card.kind:
            case Kind.REGRESSION:
                gold = round(gold_rng.uniform(0, 5), 1)
                value = skill * gold + (1 - skill) * rng.uniform(0, 5)
                scores: tuple[float, ...] = ()
            case Kind.TAGGING:
                gold = tuple(gold_rng.choice(card.labels) for _ in range(gold_rng.randint(3, 12)))
                value = tuple(tag if rng.random() < skill else rng.choice(card.labels) for tag in gold)
                scores = (0.5,) * len(gold)
            case Kind.SPAN:
                gold = (" ".join(gold_rng.choices(WORDS, k=3)), " ".join(gold_rng.choices(WORDS, k=2)))
                value = gold[0] if right else " ".join(rng.choices(WORDS, k=2))
                scores = (0.7, -1.0)
            case Kind.RETRIEVAL:
                gold = str(number)
                value = gold if right else str(rng.randrange(rows))
                scores = (0.8, float(rows))
            case _:
                labels = card.labels or ("0", "1")
                gold = gold_rng.choice(labels)
                value = gold if right else rng.choice(labels)
                scores = tuple(1 / len(labels) for _ in labels)
        predictions.append(Prediction(f"{language}-{number}", value, gold, scores))
    return predictions


def write_run(
    folder: Path,
    cards: Sequence[TaskCard],
    *,
    method: str = "ptuning-v2",
    backbone: str = "xlm-roberta-base",
    prompt: str = "16 slots in layers 0-11, init kv",
    seed: int = 0,
    skill: float = 0.6,
    rows: int = 60,
    languages: Sequence[str] | None = None,
    limited: bool = False,
    splits: Mapping[str, str] | None = None,
    config: str | None = None,
    **facts: object,
) -> Path:
    """Write a run folder; `facts` replace fields of the manifest.

    Returns:
        The folder.
    """
    records = []
    for card in cards:
        for language in card.languages if languages is None else languages:
            split = (splits or {}).get(card.name, "test")
            predictions = draw(card, language, skill, seed, rows)
            path = predictions_path(card.name, language, split)
            write_predictions(folder / path, predictions)
            records.append(
                ResultRecord(
                    task=card.name,
                    suite=card.suite,
                    language=language,
                    split=split,
                    examples=rows,
                    limited=limited,
                    scores={name: round(value, 4) for name, value in score(card, predictions).items()},
                    chance={name: round(value, 4) for name, value in chance(card, predictions).items()},
                    predictions=path,
                    sha256=sha256(folder / path),
                )
            )
    trainable = {"ptuning-v2": 301_056, "linear-probe": 6_144, "fine-tune": 278_049_792}.get(method, 12_288)
    manifest = Manifest(
        run=folder.name,
        created="2031-05-06T07:08:09Z",
        command=f"python -m harness.run --suite demo --backbone {backbone} --method {method} --seed {seed}",
        code="0.1.0 1a2b3c4d",
        packages={"numpy": "2.0.0", "torch": "2.8.0"},
        processor="a processor",
        precision="fp32",
        method=method,
        seed=seed,
        prompt=prompt,
        backbone=BackboneCard(
            name=backbone,
            family="xlm-roberta",
            sha256="ab" * 32,
            parameters=278_043_648,
            layers=12,
            heads=12,
            hidden=768,
        ),
        tasks=list(cards),
        trainable=trainable,
        share=100 * trainable / (278_043_648 + trainable),
        data={f"data/{card.name}.tsv": "cd" * 32 for card in cards},
        limits={"max_eval": rows} if limited else {},
        steps=1000,
        examples_seen=32_000,
        train_seconds=123.4 + seed,
        evaluate_seconds=12.3,
        interruptions=0,
    )
    write_model(folder / "manifest.json", Manifest.model_validate(manifest.model_dump() | facts))
    results = Results(run=folder.name, method=method, backbone=backbone, seed=seed, records=records)
    write_model(folder / "results.json", results)
    write_atomic(folder / "config.toml", config or f'method = "{method}"\nseed = {seed}\n')
    return folder


def write_runs(folder: Path, cards: Sequence[TaskCard], splits: Mapping[str, str], seeds: int) -> Path:
    """Runs of a small board: seeds of one row, another row, one with two tasks in one language, one with fewer rows.

    Args:
        folder: for them. cards: of tasks, one of them, with several languages, is called "many".
        splits: task -> split. seeds: how many.
    """
    some = [cards[0], next(card for card in cards if card.name == "many")]
    for seed in range(seeds):
        write_run(folder / f"prompt-s{seed}", cards, seed=seed, skill=0.85, splits=splits)
    write_run(folder / "tuned", cards, method="fine-tune", skill=0.5, splits=splits)
    write_run(folder / "part", some, method="bitfit", languages=["en"], skill=0.9, splits=splits)
    write_run(folder / "short", cards, method="linear-probe", rows=20, limited=True, splits=splits)
    return folder
