"""Tags of words as a sequence that can be: the best one under the constraints that the names of the tags make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError
from benchmarks.task import Decoding, Kind, TaskCard
from harness.compiled import compiled_part

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

IMPOSSIBLE = -1e30
"""Stands for a score of minus infinity, so that of sequences that all have one the one with fewest is found."""

TOGETHER = 1 << 20
"""Scores of words and tags that are searched at once in numpy: bounds the memory, 9 bytes each."""

DECODING = 1
"""Interface of the compiled part that is called here."""


@dataclass(frozen=True, eq=False)
class Constraints:
    """What may stand where.

    Attributes:
        first, last: tags that a sentence may begin and end with, [labels].
        follows: whether a tag (second axis) may stand behind another (first axis), [labels, labels].
    """

    first: Bools
    last: Bools
    follows: Bools

    @cached_property
    def sets(self) -> tuple[NDArray[np.int32], Ints, Ints]:
        """The different sets of tags that tags may follow: few, since all tags that begin something have one.

        Returns:
            Number of the set of each tag, [labels]; all sets one behind the other, each in ascending order; and where
            each begins in that, with the end behind them, [sets + 1].
        """
        known: dict[bytes, int] = {}
        columns = [self.follows[:, label] for label in range(len(self.first))]
        number = [known.setdefault(column.tobytes(), len(known)) for column in columns]
        members = [np.flatnonzero(columns[number.index(found)]) for found in known.values()]
        starts = np.cumsum([0, *map(len, members)])
        return np.array(number, np.int32), np.concatenate(members), starts


@cache
def constraints(labels: tuple[str, ...]) -> Constraints | None:
    """What the names of tags say of their order.

    Args:
        labels: "O" and, of each type, BIO: "B-" and "I-", or IOBES: "B-", "I-", "E-" and "S-" (any may be lacking).

    Returns:
        BIO: "I-" stands behind "B-" or "I-" of its type alone. IOBES: "I-" and "E-" do, and what was begun by "B-" is
        ended by "E-" of its type. None: tags of another kind, or none of them may stand alone.
    """
    parts = [label.partition("-") for label in labels]
    if not all(label == "O" or (part[0] in set("BIES") and part[2]) for label, part in zip(labels, parts, strict=True)):
        return None
    prefixes, types = np.array([part[0] for part in parts]), [part[2] for part in parts]
    if "B" not in prefixes and "S" not in prefixes:
        return None
    closed = bool(np.isin(prefixes, ["E", "S"]).any())
    begins, inside = np.isin(prefixes, ["O", "B", "S"]), np.isin(prefixes, ["I", "E"])
    opened = np.isin(prefixes, ["B", "I"])
    ends = ~opened if closed else np.ones_like(opened)
    same = np.array([[one == other for other in types] for one in types])
    follows = (ends[:, None] & begins) | (opened[:, None] & inside & same)
    return Constraints(begins, ends, follows) if bool((begins & ends).any()) else None


def constraints_of(card: TaskCard) -> Constraints:
    """Of a task.

    Raises:
        PolypromptError: the names of its tags say nothing of their order.
    """
    found = constraints(card.labels) if card.kind is Kind.TAGGING else None
    if found is None:
        raise PolypromptError(f"task {card.name}: its labels are no BIO or IOBES tags, which `viterbi` needs")
    return found


def decoded(cards: Sequence[TaskCard], decoding: Decoding) -> list[TaskCard]:
    """The cards of tasks with another way to choose tags, as far as it is for them.

    Raises:
        PolypromptError: it is for none of them.
    """
    able = [card.kind is Kind.TAGGING and constraints(card.labels) is not None for card in cards]
    if decoding == "viterbi" and not any(able):
        names = ", ".join(card.name for card in cards)
        raise PolypromptError(f"--decode viterbi: no task of BIO or IOBES tags is among {names}; leave it away")
    changed = [card.model_copy(update={"decoding": decoding}) for card in cards]
    return [new if may else card for new, card, may in zip(changed, cards, able, strict=True)]


def best(logits: Floats, starts: Ints, allowed: Constraints, threads: int = 1) -> Ints:
    """The tags of each sentence whose scores have the greatest sum among all sequences that can be.

    Where the tags with the highest score of each word can stand together they are what is found. Of sequences with
    equal sums it is the one with the first tag of those labels in the last word in which they differ.

    Args:
        logits: of the words of all sentences, one sentence behind the other, [words, labels]; -inf: cannot be.
        starts: first word of each sentence, and behind the last one the number of all words, [sentences + 1].
        allowed: what may stand where.
        threads: of the compiled part.

    Returns:
        Labels, [words].

    Raises:
        PolypromptError: a score is not a number, or plus infinity.
    """
    _check(logits, starts, allowed)
    logits, starts = np.ascontiguousarray(logits, np.float32), np.ascontiguousarray(starts, np.int64)
    found, native = np.empty(len(logits), np.int64), compiled()
    if native is None:
        return best_by_numpy(logits, starts, allowed)
    limits = allowed.follows, allowed.first, allowed.last
    native.viterbi(logits, starts, *limits, *allowed.sets, IMPOSSIBLE, found, threads)
    return found


def best_by_numpy(logits: Floats, starts: Ints, allowed: Constraints) -> Ints:
    """The same without the compiled part: only sentences in which the best tags cannot stand together are searched."""
    _check(logits, starts, allowed)
    tags = logits.argmax(1)
    wrong = np.zeros(len(logits), bool)
    wrong[1:] = ~allowed.follows[tags[:-1], tags[1:]]
    begin, end = starts[:-1], starts[1:]
    there = begin < end
    wrong[begin[there]] = ~allowed.first[tags[begin[there]]]
    wrong[end[there] - 1] |= ~allowed.last[tags[end[there] - 1]]
    sentences = np.unique(np.searchsorted(starts, np.flatnonzero(wrong), "right") - 1)
    lengths = end[sentences] - begin[sentences]
    for part in _parts(lengths, logits.shape[1]):
        rows, steps = begin[sentences[part]], lengths[part]
        words = rows[:, None] + np.minimum(np.arange(steps[0]), steps[:, None] - 1)
        paths = _search(logits[words], steps, allowed)
        real = np.arange(steps[0]) < steps[:, None]
        tags[words[real]] = paths[real]
    return tags


def _parts(lengths: Ints, labels: int) -> Iterator[Ints]:
    """Sentences by length, the longest first, as many at once as fit."""
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        size = max(1, TOGETHER // int(lengths[order[start]] * labels))
        yield order[start : start + size]
        start += size


def _search(logits: Floats, lengths: Ints, allowed: Constraints) -> Ints:
    """Viterbi's algorithm on rows that are padded on the right, [rows, words, labels]; the longest come first."""
    rows, words, labels = logits.shape
    scores = _scores(logits)
    number, members, starts = allowed.sets
    sizes = np.diff(starts)
    before = np.zeros((words, rows, labels), np.int16)
    sums = np.where(allowed.first, scores[:, 0], -np.inf)
    top, source = np.full((rows, len(sizes)), -np.inf), np.zeros((rows, len(sizes)), np.int16)
    alike = [
        (where, np.stack([members[starts[one] : starts[one + 1]] for one in where]))
        for where in (np.flatnonzero(sizes == size) for size in np.unique(sizes[sizes > 0]))
    ]
    for word in range(1, words):
        going = int(np.searchsorted(-lengths, -word))  # rows that have this word
        for where, sets in alike:
            asked = sums[:going, sets]
            place = asked.argmax(2)
            top[:going, where] = asked.max(2)
            source[:going, where] = sets[np.arange(len(where)), place]
        sums[:going] = top[:going, number] + scores[:going, word]
        before[word, :going] = source[:going, number]
    path = np.zeros((rows, words), np.int64)
    tags = np.where(allowed.last, sums, -np.inf).argmax(1)
    path[np.arange(rows), lengths - 1] = tags
    for word in range(words - 1, 0, -1):
        going = int(np.searchsorted(-lengths, -word))
        path[:going, word - 1] = before[word, np.arange(going), path[:going, word]]
    return path


def _scores(logits: Floats) -> NDArray[np.float64]:
    """Scores under the best of each word, so that the best tags have the sum 0 exactly and all others less."""
    wide = logits.astype(np.float64)
    most = wide.max(-1, keepdims=True)
    wide[np.broadcast_to(np.isinf(most), wide.shape)] = most[np.isinf(most)] = 0  # such a word says nothing
    return np.maximum(wide - most, IMPOSSIBLE)


def _check(logits: Floats, starts: Ints, allowed: Constraints) -> None:
    if logits.ndim != 2 or logits.shape[1] != len(allowed.first):
        raise ValueError(f"logits {logits.shape} are not [words, {len(allowed.first)}]")
    if not len(starts) or starts[0] != 0 or starts[-1] != len(logits) or bool((np.diff(starts) < 0).any()):
        raise ValueError(f"starts do not go from 0 to {len(logits)}")
    if not bool((logits < np.inf).all()):
        raise PolypromptError("a score of a tag is not a number or plus infinity; the model cannot be used")


def compiled() -> ModuleType | None:
    """The compiled part; None where it was not built, or with another version of this file."""
    return compiled_part("DECODING", DECODING)
