"""Cached rows beside those of the encoder itself: equal for every kind, and new ones when anything else would come."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_tokenizer

from benchmarks.records import Example
from benchmarks.task import Kind, TaskCard
from harness.feature_cache import CachedEncoder
from harness.features import Feature, TextEncoder, pad

ROOT = Path(__file__).parents[1]


def card(kind: Kind = Kind.CLASSIFICATION, **more: Any) -> TaskCard:
    return TaskCard(name="task", suite="test", kind=kind, metrics=("accuracy",), **more)


def words(count: int, begin: int = 5) -> str:
    return " ".join(f"w{5 + (begin + n) % 50}" for n in range(count))


PAIRS = [Example("1", words(30), words(25, 7)), Example("2", "w7 w8", ""), Example("3", "w9"), Example("4")]
SENTENCES = [Example("1", tokens=tuple(words(70).split())), Example("2", tokens=("w7",)), Example("3", tokens=(" ",))]
CASES: dict[str, tuple[TaskCard, list[Example]]] = {
    "classification": (card(max_length=20), PAIRS),
    "regression": (card(Kind.REGRESSION), PAIRS[:1]),
    "choice": (card(Kind.CHOICE), [Example("1", "w7", choices=("w8", "w9 w9")), Example("2"), Example("3", "w6")]),
    "tagging": (card(Kind.TAGGING, max_length=16, stride=4), SENTENCES),
    "marked": (card(Kind.TAGGING, max_length=24), [Example("1", tokens=("w7", "w8", "w9"), marked=1)]),
    "span": (card(Kind.SPAN, max_length=24, stride=6), [Example("1", "w7", words(80)), Example("2", "w8", "w9")]),
    "retrieval": (card(Kind.RETRIEVAL), [Example(str(n), words(n)) for n in range(40)]),
    "nothing": (card(Kind.SPAN), []),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    place = tmp_path / "cache"
    monkeypatch.setenv("POLYPROMPT_CACHE", str(place))
    return place


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[TaskCard]:
    """The cards for which rows were really encoded."""
    seen: list[TaskCard] = []
    encode = TextEncoder.features

    def spy(self: TextEncoder, task: TaskCard, examples: Sequence[Example]) -> list[Feature]:
        seen.append(task)
        return encode(self, task, examples)

    monkeypatch.setattr(TextEncoder, "features", spy)
    return seen


def plain(rows: list[Feature]) -> list[list[Any]]:
    """Rows as lists, with the type of each array."""
    values = [[getattr(row, field.name) for field in dataclasses.fields(row)] for row in rows]
    return [
        [(value.dtype, value.shape, value.tolist()) if isinstance(value, np.ndarray) else value for value in row]
        for row in values
    ]


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_the_encoder(encoded: list[TaskCard], case: str) -> None:
    task, examples = CASES[case]
    expected = TextEncoder(tiny_tokenizer("bert"), 0, True, 512).features(task, examples)
    encoded.clear()
    first = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512).features(task, examples)
    second = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512).features(task, examples)
    assert encoded == [task]
    assert plain(expected) == plain(first) == plain(second)
    assert isinstance(second, list)
    assert all(isinstance(row, Feature) for row in second)
    padded, known = pad(second, 3), pad(expected, 3)
    assert np.array_equal(padded.input_ids, known.input_ids)
    assert np.array_equal(padded.type_ids, known.type_ids)


def test_rows_are_views(encoded: list[TaskCard]) -> None:
    encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512)
    encoder.features(card(), PAIRS)
    rows = encoder.features(card(), PAIRS)
    assert len(encoded) == 1
    assert not any(row.input_ids.flags.owndata or row.input_ids.flags.writeable for row in rows)
    [first, second, *_] = [row.input_ids.__array_interface__["data"][0] for row in rows]
    assert second - first == 4 * len(rows[0])  # one flat array


def _vocabulary() -> CachedEncoder:
    tokenizer = tiny_tokenizer("bert")
    tokenizer.add_tokens(["w7 w8"])
    return CachedEncoder(tokenizer, 0, True, 512)


CHANGES: dict[str, Callable[[], CachedEncoder]] = {
    "tokenizer": _vocabulary,
    "padding piece": lambda: CachedEncoder(tiny_tokenizer("bert"), 1, True, 512),
    "token types": lambda: CachedEncoder(tiny_tokenizer("bert"), 0, False, 512),
    "positions": lambda: CachedEncoder(tiny_tokenizer("bert"), 0, True, 19),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_encoder_has_its_own_rows(encoded: list[TaskCard], change: str) -> None:
    CachedEncoder(tiny_tokenizer("bert"), 0, True, 512).features(card(), PAIRS)
    other = CHANGES[change]()
    rows = other.features(card(), PAIRS)
    assert len(encoded) == 2
    expected = TextEncoder(other.tokenizer, other.pad_id, other.token_types, other.max_positions)
    assert plain(rows) == plain(expected.features(card(), PAIRS))


@pytest.mark.parametrize(
    "task",
    [card(max_length=21), card(stride=7), card(Kind.SPAN), card(Kind.REGRESSION)],
    ids=["length", "stride", "kind", "other kind"],
)
def test_another_card_has_its_own_rows(encoded: list[TaskCard], task: TaskCard) -> None:
    encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512)
    encoder.features(card(), PAIRS)
    encoder.features(task, PAIRS)
    encoder.features(card(), PAIRS)  # the truncation that was set for the other one is gone
    assert encoded == [card(), task]


@pytest.mark.parametrize(
    "examples",
    [PAIRS[:3], PAIRS[::-1], [*PAIRS[:3], Example("4", "w5")], [*PAIRS[:3], Example("4", text_pair="")]],
    ids=["fewer", "order", "text", "empty pair"],
)
def test_other_examples_have_their_own_rows(encoded: list[TaskCard], examples: list[Example]) -> None:
    encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512)
    encoder.features(card(), PAIRS)
    rows = encoder.features(card(), examples)
    assert len(encoded) == 2
    assert plain(rows) == plain(TextEncoder(tiny_tokenizer("bert"), 0, True, 512).features(card(), examples))


def test_the_name_does_not_depend_on_what_was_encoded_before(encoded: list[TaskCard]) -> None:
    """The tokenizer's own settings are changed by every call."""
    for before in (card(Kind.SPAN, max_length=32, stride=8), card(Kind.TAGGING, max_length=16), card(max_length=9)):
        encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512)
        TextEncoder.features(encoder, before, SENTENCES)
        encoder.features(card(), PAIRS)
    assert encoded.count(card()) == 1


def test_a_damaged_file_is_made_again(encoded: list[TaskCard], folder: Path) -> None:
    encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512)
    first = plain(encoder.features(card(), PAIRS))
    [path] = folder.iterdir()
    for damage in (lambda raw: raw[: len(raw) // 2], lambda raw: raw.replace(b"\x07\0\0\0", b"\x08\0\0\0")):
        good = path.read_bytes()
        assert damage(good) != good
        path.unlink()
        path.write_bytes(damage(good))
        assert plain(encoder.features(card(), PAIRS)) == first
        assert path.read_bytes() == good
    assert len(encoded) == 3


def test_off(encoded: list[TaskCard], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512)
    assert plain(encoder.features(card(), PAIRS)) == plain(encoder.features(card(), PAIRS))
    assert len(encoded) == 2
    assert not folder.exists()


def test_needs_no_torch() -> None:
    code = "import sys, harness.feature_cache; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
