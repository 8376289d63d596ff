"""Text to rows of piece ids, the same in training and in deployment; needs numpy and tokenizers only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from benchmarks.records import PLACEHOLDER, Example
from benchmarks.task import Kind, TaskCard

Ints = NDArray[np.int32]

WORD_MARK = "*"
"""Stands in front of a marked word and behind it."""

MARK = "\u2581"
"""SentencePiece's mark for the beginning of a word."""

MASK_POSITION = 1
"""Where a task that is answered at a mask has it: right behind the first piece, where no truncation reaches it."""

_NO_MASKS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Feature:
    """One row for the encoder: a text, a pair, one alternative of a choice, or one window of a long input.

    Attributes:
        example: index of its example in the sequence that was encoded. Rows of an example are neighbours.
        input_ids: piece ids with special tokens, [seq].
        type_ids: 0 for the first text, 1 for the second where the tokenizer tells them apart, [seq].
        words: tagging: index of each word that is read in this row, [words]. A word in the overlap of two windows is
            read in the one that shows more of its surroundings.
        positions: tagging: where the first piece of each of those words is (one with text, not the mark of a word's
            beginning alone), [words].
        spans: span extraction: begin and end of each piece in the context, in characters, (-1, -1) for pieces that
            are not in the context, [seq, 2].
    """

    example: int
    input_ids: Ints
    type_ids: Ints
    words: Ints | None = None
    positions: Ints | None = None
    spans: Ints | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows padded on the right to the longest one.

    Attributes:
        input_ids: [rows, seq]. type_ids: [rows, seq]. lengths: real pieces of each row, [rows].
    """

    input_ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


def pad(features: Sequence[Feature], pad_id: int) -> Rows:
    """Stack rows of different lengths, padding on the right."""
    lengths = np.array([len(feature) for feature in features], np.int64)
    shape = (len(features), int(lengths.max(initial=0)))
    input_ids, type_ids = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    for row, feature in enumerate(features):
        input_ids[row, : len(feature)] = feature.input_ids
        type_ids[row, : len(feature)] = feature.type_ids
    return Rows(input_ids, type_ids, lengths)


class TextEncoder:
    """Turns examples of every kind of task into rows.

    Args:
        tokenizer: with the post-processor that adds special tokens. Its truncation is set here: do not share it.
        pad_id: piece that fills rows up.
        token_types: True when the backbone was trained with a second token type for the second text of a pair.
        max_positions: longest row that the backbone takes; cuts `TaskCard.max_length`.
        masks: tasks that are answered at a mask -> its piece, which each of their rows gets at `MASK_POSITION`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        pad_id: int,
        token_types: bool,
        max_positions: int,
        masks: Mapping[str, int] = _NO_MASKS,
    ) -> None:
        self.tokenizer = tokenizer
        self.pad_id = pad_id
        self.token_types = token_types
        self.max_positions = max_positions
        self.masks = masks
        self.tokenizer.no_padding()

    def way(self, card: TaskCard) -> tuple[Hashable, ...]:
        """How the rows of a task are made: two tasks with the same way have the same rows for the same texts."""
        kind = card.kind if card.kind in (Kind.CHOICE, Kind.TAGGING, Kind.SPAN) else None  # the others read alike
        return kind, card.max_length, card.stride, self.max_positions, self.masks.get(card.name)

    def features(self, card: TaskCard, examples: Sequence[Example]) -> list[Feature]:
        """Encode examples, in order.

        Classification, regression and retrieval give one row an example, cut to `card.max_length` pieces (the longer
        text of a pair first). Multiple choice gives one row an alternative. Tagging and span extraction give as many
        overlapping windows as are needed to read everything (SQuAD's document stride), so labels are never cut.
        """
        limit = min(card.max_length, self.max_positions)
        if card.kind is Kind.TAGGING:
            return self._tagging(examples, limit, min(card.stride, limit // 4))
        if card.kind is Kind.SPAN:
            return self._span(examples, limit, min(card.stride, limit // 4))
        mask = self.masks.get(card.name)
        self.tokenizer.enable_truncation(limit if mask is None else limit - 1)
        if card.kind is Kind.CHOICE:
            owners = [index for index, example in enumerate(examples) for _ in example.choices]
            texts: list[str | tuple[str, str]] = [(e.text, _asked(e, choice)) for e in examples for choice in e.choices]
        else:
            owners = list(range(len(examples)))
            texts = [e.text if e.text_pair is None else (e.text, e.text_pair) for e in examples]
        rows = self.tokenizer.encode_batch(texts)
        return [self._row(owner, row, mask) for owner, row in zip(owners, rows, strict=True)]

    def _row(self, example: int, row: Encoding, mask: int | None) -> Feature:
        input_ids, types = np.array(row.ids, np.int32), self._types(row)
        if mask is not None:
            input_ids, types = np.insert(input_ids, MASK_POSITION, mask), np.insert(types, MASK_POSITION, 0)
        return Feature(example, input_ids, types)

    def _types(self, row: Encoding) -> Ints:
        return np.array(row.type_ids, np.int32) if self.token_types else np.zeros(len(row.ids), np.int32)

    def _tagging(self, examples: Sequence[Example], limit: int, stride: int) -> list[Feature]:
        # Of a marked sentence the second text is the marked word, which each window needs: the sentence keeps room.
        sentences = [
            list(example.tokens)
            if example.marked is None
            else _marked(example.tokens, example.marked, self._short(example.tokens[example.marked], limit // 4))
            for example in examples
        ]
        pair = any(example.marked is not None for example in examples)
        self.tokenizer.enable_truncation(limit, stride=stride, strategy="only_first" if pair else "longest_first")
        features: list[Feature] = []
        for index, first in enumerate(self.tokenizer.encode_batch(sentences, is_pretokenized=True)):
            windows = [first, *first.overflowing]
            marked = examples[index].marked
            owner: dict[int, tuple[float, int, int]] = {}  # word -> (pieces around it, window, position)
            for number, window in enumerate(windows):
                for read, position, room in _word_starts(window, number > 0, number + 1 < len(windows)):
                    word = read if marked is None else _without_marks(read, marked)
                    if word is not None and (word not in owner or room > owner[word][0]):
                        owner[word] = (room, number, position)
            for number, window in enumerate(windows):
                mine = [(word, place) for word, (_, where, place) in sorted(owner.items()) if where == number]
                words, positions = np.array(mine, np.int32).reshape(-1, 2).T
                row = np.array(window.ids, np.int32)
                features.append(Feature(index, row, self._types(window), words=words, positions=positions))
        return features

    def _span(self, examples: Sequence[Example], limit: int, stride: int) -> list[Feature]:
        questions = [self._short(example.text, limit // 2) for example in examples]
        self.tokenizer.enable_truncation(limit, stride=stride, strategy="only_second")
        pairs = [(question, e.text_pair or "") for question, e in zip(questions, examples, strict=True)]
        features: list[Feature] = []
        for index, first in enumerate(self.tokenizer.encode_batch(pairs)):
            for window in (first, *first.overflowing):
                spans = np.array(window.offsets, np.int32).reshape(-1, 2)
                spans[np.array([sequence != 1 for sequence in window.sequence_ids], bool)] = -1
                row = np.array(window.ids, np.int32)
                features.append(Feature(index, row, self._types(window), spans=spans))
        return features

    def _short(self, text: str, limit: int) -> str:
        """The text that each window repeats, cut to `limit` pieces, so that there is room for the other one."""
        if len(text.encode("utf-8")) <= limit:  # a piece has at least one byte
            return text
        self.tokenizer.no_truncation()
        offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= limit else text[: offsets[limit - 1][1]]


def _asked(example: Example, choice: str) -> str:
    """The second text of an alternative of a multiple choice."""
    if example.text_pair is None:
        return choice
    if PLACEHOLDER in example.text_pair:
        return example.text_pair.replace(PLACEHOLDER, choice)
    return f"{example.text_pair} {choice}"


def _marked(tokens: Sequence[str], at: int, again: str) -> tuple[list[str], list[str]]:
    """The words of a sentence with the marked one between two marks, and that word again as a second text.

    P-Tuning v2's code gives the second text alone, which does not tell two occurrences apart.
    """
    return [*tokens[:at], WORD_MARK, tokens[at], WORD_MARK, *tokens[at + 1 :]], [again]


def _without_marks(read: int, marked: int) -> int | None:
    """Index in the sentence of a word of `_marked`; None for the marks themselves."""
    if read in (marked, marked + 2):
        return None
    return read if read < marked else read - 1 if read == marked + 1 else read - 2


def _word_starts(window: Encoding, cut_left: bool, cut_right: bool) -> list[tuple[int, int, float]]:
    """Word of the first text, position of its first piece with text, and pieces between it and the nearest cut."""
    starts: list[tuple[int, int, float]] = []
    previous: int | None = None
    tokens = window.tokens
    words = [word if text == 0 else None for word, text in zip(window.word_ids, window.sequence_ids, strict=True)]
    end = 2 + max((position for position, word in enumerate(words) if word is not None), default=0)
    for position, word in enumerate(words):
        first = word is not None and word != previous
        # SentencePiece gives most Chinese and Japanese words a first piece that is the mark alone: it is the same in
        # front of every word and says nothing of this one.
        behind_mark = word is not None and not first and starts[-1][1] == position - 1 and tokens[position - 1] == MARK
        if word is not None and (first or behind_mark):
            room = min(position if cut_left else np.inf, end - position if cut_right else np.inf)
            starts[len(starts) - behind_mark :] = [(word, position, float(room))]
        previous = word if word is not None else previous
    # A window may begin inside a word; that word begins in the window before, which overlaps this one.
    return starts[1:] if cut_left else starts
