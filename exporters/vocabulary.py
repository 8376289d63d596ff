"""A tokenizer with fewer pieces that segments every text whose pieces are all kept as the whole one does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.errors import PolypromptError

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A piece that stands for one byte of a character that is no piece."""

State = dict[str, Any]
"""A part of tokenizer.json."""


class Trimmed(NamedTuple):
    """A tokenizer after trimming.

    Attributes:
        tokenizer: the smaller one.
        kept: number of each of its pieces in the whole vocabulary, ascending, [pieces]: the rows of the word
            embeddings that belong to it.
    """

    tokenizer: Tokenizer
    kept: NDArray[np.int64]


def trim(tokenizer: Tokenizer, used: Iterable[int]) -> Trimmed:
    """Leave out the pieces that are not used.

    Kept besides are special and added pieces, single characters and bytes, the unknown piece, and by algorithm:

    - Unigram: the piece of the lowest score, from which that of unknown characters is reckoned. What is left out lies
      on no best path, so the best path stays the best one.
    - WordPiece: nothing more. The longest match at each place is a kept piece, so it stays the longest. A word stays
      unknown because every character of a kept piece is a piece alone: one that is none is in no kept piece.
    - BPE: the parts of kept pieces, down to characters, by every merge that makes them. The merges that a text goes
      through make parts of its final pieces, so they are there, in the old order, among fewer others.

    Args:
        tokenizer: the whole one, whose truncation and padding are off; not changed.
        used: numbers of pieces to keep.

    Raises:
        PolypromptError: another algorithm, or a vocabulary for which the above does not hold.
    """
    state: State = json.loads(tokenizer.to_str())
    model = state["model"]
    if model["type"] not in _CUTS:
        raise PolypromptError(
            f"the vocabulary of a {model['type']} tokenizer cannot be trimmed; supported: {', '.join(_CUTS)}"
        )
    numbers: dict[str, int] = tokenizer.get_vocab()
    pieces = {number: piece for piece, number in numbers.items()}
    keep = {pieces[number] for number in used}
    added = {token["content"] for token in state["added_tokens"]}
    keep |= added
    keep.update(tokenizer.encode("", "").tokens)  # what the post-processor puts around texts
    keep.update(piece for piece in numbers if _is_single(piece, model))
    if model.get("unk_token") in numbers:
        keep.add(model["unk_token"])
    cut = _CUTS[model["type"]](model, keep, added)
    kept = sorted(numbers[piece] for piece in keep)
    after = {pieces[number]: place for place, number in enumerate(kept)}
    state["model"] = model | cut(after)
    state["added_tokens"] = [token | {"id": after[token["content"]]} for token in state["added_tokens"]]
    state["post_processor"] = _renumbered(state["post_processor"], after)
    smaller = Tokenizer.from_str(json.dumps(state))
    if smaller.get_vocab() != after:
        raise PolypromptError("the vocabulary cannot be trimmed: its added pieces do not stand behind all others")
    return Trimmed(smaller, np.array(kept, np.int64))


Cut = Callable[[Mapping[str, int]], State]
"""Makes the changed parts of a model from the numbers of the kept pieces."""


def _unigram(model: State, keep: set[str], added: set[str]) -> Cut:
    scores: dict[str, float] = dict(model["vocab"])
    keep.add(min(scores, key=scores.__getitem__))
    unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    if unknown is not None:
        keep.add(unknown)
    return lambda after: {
        "vocab": [(piece, scores[piece]) for piece in after if piece in scores],
        "unk_id": None if unknown is None else after[unknown],
    }


def _word_piece(model: State, keep: set[str], added: set[str]) -> Cut:
    prefix = model["continuing_subword_prefix"]
    for piece in keep - added - {model["unk_token"]}:
        inner = piece.startswith(prefix) and piece != prefix
        characters = piece.removeprefix(prefix) if inner else piece
        alone = [prefix * (inner or place > 0) + character for place, character in enumerate(characters)]
        absent = next((character for character in alone if character not in model["vocab"]), None)
        if absent is not None:
            raise PolypromptError(
                f"the vocabulary cannot be trimmed: it has the piece {piece!r} but not {absent!r}, so words that are "
                "unknown now might not be after it"
            )
    return lambda after: {"vocab": {piece: after[piece] for piece in model["vocab"] if piece in after}}


def _bpe(model: State, keep: set[str], added: set[str]) -> Cut:
    hidden = len(model["continuing_subword_prefix"] or "")
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    results = [left + right[hidden:] for left, right in merges]
    parts: dict[str, set[str]] = {}
    for merge, result in zip(merges, results, strict=True):
        parts.setdefault(result, set()).update(merge)
    open_pieces = list(keep)
    while open_pieces:
        new = parts.get(open_pieces.pop(), set()) - keep
        keep |= new
        open_pieces += new
    return lambda after: {
        "vocab": {piece: after[piece] for piece in model["vocab"] if piece in after},
        "merges": [list(merge) for merge, result in zip(merges, results, strict=True) if result in after],
    }


def _word_level(model: State, keep: set[str], added: set[str]) -> Cut:
    return lambda after: {"vocab": {piece: after[piece] for piece in model["vocab"] if piece in after}}


_CUTS: Mapping[str, Callable[[State, set[str], set[str]], Cut]] = {
    "Unigram": _unigram,
    "WordPiece": _word_piece,
    "BPE": _bpe,
    "WordLevel": _word_level,
}
"""Algorithm -> takes model, kept and added pieces, adds what it needs to the kept ones, and says what then changes."""


def _is_single(piece: str, model: State) -> bool:
    """One character, wherever in a word it may stand, or one byte."""
    inside = piece.removeprefix(model.get("continuing_subword_prefix") or "")
    inside = inside.removesuffix(model.get("end_of_word_suffix") or "")
    return len(piece) == 1 or len(inside) == 1 or BYTE.fullmatch(piece) is not None


def _renumbered(processor: State | None, after: Mapping[str, int]) -> State | None:
    """A post-processor with the new numbers of its pieces."""
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in processor:
        changed["processors"] = [_renumbered(part, after) for part in processor["processors"]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: token | {"ids": [after[piece] for piece in token["tokens"]]}
            for name, token in processor["special_tokens"].items()
        }
    for place in {"sep", "cls"} & processor.keys():
        piece = processor[place][0]
        changed[place] = [piece, after[piece]]
    return changed
