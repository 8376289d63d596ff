"""The tokenizer of a bundle as an OpenVINO graph, for the C++ client: strings in, pieces out, word by word."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import groupby, permutations
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import Model, Output, Type
from openvino import opset15 as ops
from openvino.utils.node_factory import NodeFactory
from tokenizers import Tokenizer, normalizers

from benchmarks.errors import PolypromptError, run_command
from benchmarks.results import write_model
from exporters.bundle import CARD, TOKENIZER, BundleCard, changing, check_file, read_card, stored
from exporters.charsmap import charsmap, without_long_keys
from harness.features import MARK

XML, BIN = "tokenizer.xml", "tokenizer.bin"
"""Files of the graph in a bundle."""

ABOUT = "polyprompt"
"""Key of the graph's own information, a JSON object, see `describe`."""

LOCAL = {"Nmt", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"}
"""Normalizers that look at a character and the marks behind it alone."""

HAN = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B81F}\x{2B920}-\x{2CEAF}"
HAN += r"\x{2F800}-\x{2FA1F}"
"""What BERT's normalizer puts between spaces, as a class of characters."""

PUNCTUATION = r"!-/:-@\[-`{-~\p{P}"
"""What BERT splits off, as a class of characters."""

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What BPE of bytes takes for a word, as GPT-2 does."""

UNUSUAL = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
"""Settings of BPE under which it is not converted."""

CACHED = 20_000
"""Words whose pieces BPE remembers."""

OUTPUTS = (
    *("normal_begins", "normal_ends", "characters", "first_word", "last_word", "word_begins", "word_ends"),
    *("first_piece", "last_piece", "pieces", "sizes"),
)
"""Outputs of the graph.

Of each string where it is in `characters` once it is normalized, and which words it has; of each word where it is there
and which pieces it has; of each piece its id, and how many characters it covers (-1: it is the unknown one), or in BPE
how many bytes.
All ends are exclusive; places are bytes of UTF-8.
"""

Node = list[Output]
"""A tensor of strings in its parts: begins, ends and bytes; in front of these those of rows of words."""

State = dict[str, Any]


def convert(tokenizer: Tokenizer) -> Model:
    """A graph that cuts strings into the same pieces as a tokenizer, without special ones.

    Rows, pairs, truncation and special pieces are the client's part.

    Args:
        tokenizer: WordPiece behind BERT's pre-tokenizer, Unigram behind Metaspace, or BPE of bytes (RoBERTa).

    Raises:
        PolypromptError: it has parts that are not converted; names the first.
    """
    state = json.loads(tokenizer.to_str())
    text = ops.parameter([-1], Type.string, name="text")
    node = ops.string_tensor_unpack(text).outputs()
    for step in _steps(state["normalizer"]):
        node = _normalized(node, step)
    node, words = _words(node, state["pre_tokenizer"])
    # each word a row of its own, so that its pieces are known
    pieces = _pieces([*_rows(words[2]), *words[2:5]], state["model"])
    sizes = ops.gather(ops.constant(_sizes(state["model"], tokenizer)), pieces[2], ops.constant(np.int32(0)))
    found = [*node[:3], *words[:4], *pieces, sizes.output(0)]
    results = [ops.result(output) for output in found]
    for name, result in zip(OUTPUTS, results, strict=True):
        result.output(0).set_names({name})
    model = Model(results, [text], "tokenizer")
    model.set_rt_info(json.dumps(describe(tokenizer, state)), ABOUT)
    return model


def describe(tokenizer: Tokenizer, state: State) -> State:
    """What the client needs to know beside the graph.

    Returns:
        "single" and "pair", rows as lists of pieces [id, type] and texts ["a" or "b", type]; "added", pieces that are
        found in a text as it is; "mark", the piece of a word's beginning alone (-1: none); of BPE also "bytes", with
        "space", whether one is put in front of a text, and "trim", whether spaces belong to no piece.

    Raises:
        PolypromptError: an added piece is looked for in another way.
    """
    for token in state["added_tokens"]:
        if (token["normalized"] and state["normalizer"] is not None) or token["single_word"]:
            raise PolypromptError(
                f"the added piece {token['content']!r} is looked for in normalized text or whole words"
            )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    keys = ("content", "id", "lstrip", "rstrip")
    mark = tokenizer.token_to_id(MARK) if state["model"]["type"] == "Unigram" else None
    found = {
        "version": 1,
        "single": _template(tokenizer, "a"),
        "pair": _template(tokenizer, "a", "b"),
        "added": [{key: token[key] for key in keys} for token in state["added_tokens"]],
        "mark": -1 if mark is None else mark,
    }
    if state["model"]["type"] == "BPE":
        behind = state["post_processor"] or {}
        trim = behind.get("trim_offsets", False) if behind.get("type") in ("RobertaProcessing", "ByteLevel") else False
        found["bytes"] = {"space": state["pre_tokenizer"]["add_prefix_space"], "trim": trim}
    return found


def add_tokenizer(bundle: Path) -> BundleCard:
    """Put the graph of its tokenizer into a bundle.

    Returns:
        The card that was written.

    Raises:
        PolypromptError: no bundle, a damaged tokenizer, or one that is not converted.
    """
    with changing(bundle):
        card = read_card(bundle)
        check_file(bundle / TOKENIZER, card.files[TOKENIZER])
        try:
            model = convert(Tokenizer.from_file(str(bundle / TOKENIZER)))
        except PolypromptError as error:
            raise PolypromptError(f"{bundle / TOKENIZER}: cannot be converted for the client ({error})") from None
        with tempfile.TemporaryDirectory(prefix=".tokenizer.", dir=bundle) as aside:
            openvino.save_model(model, Path(aside) / XML, compress_to_fp16=False)
            files = {name: stored(Path(aside) / name) for name in (BIN, XML)}
            for name in files:
                (Path(aside) / name).replace(bundle / name)
        card = card.model_copy(update={"files": card.files | files})
        write_model(bundle / CARD, card)
    return card


def extension() -> Path:
    """The library of operators for text.

    Raises:
        PolypromptError: it is not installed.
    """
    spec = find_spec("openvino_tokenizers")  # not imported: that changes openvino.Core for the whole process
    if spec is None or not spec.submodule_search_locations:
        raise PolypromptError("openvino-tokenizers is not installed; install the extra `client`")
    return Path(spec.submodule_search_locations[0]) / "lib" / "libopenvino_tokenizers.so"


@cache
def _factory() -> NodeFactory:
    factory = NodeFactory()
    factory.add_extension(extension())
    return factory


def _op(name: str, inputs: Sequence[Output], **attributes: Any) -> Node:
    found: Node = _factory().create(name, list(inputs), attributes).outputs()
    return found


def _bytes(data: bytes) -> Output:
    return ops.constant(np.frombuffer(data, np.uint8).copy()).output(0)


def _strings(texts: Iterable[str | bytes]) -> Node:
    data = [text.encode() if isinstance(text, str) else text for text in texts]
    ends = np.cumsum([len(one) for one in data]).astype(np.int32)
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int32)
    return [ops.constant(begins).output(0), ops.constant(ends).output(0), _bytes(b"".join(data))]


def _rows(begins: Output) -> Node:
    """Begins and ends of rows of one each."""
    count = ops.squeeze(ops.shape_of(begins, Type.i32), ops.constant(np.array([0])))
    first = ops.range(ops.constant(np.int32(0)), count, ops.constant(np.int32(1)), Type.i32)
    return [first.output(0), ops.add(first, ops.constant(np.int32(1))).output(0)]


def _replace(node: Node, pattern: str, by: str) -> Node:
    inputs = [*node, _bytes(pattern.encode()), _bytes(by.encode())]
    return _op("RegexNormalization", inputs, global_replace=True)


def _map(node: Node, table: bytes) -> Node:
    off = dict.fromkeys(
        ["add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces", "case_fold", "nmt"], False
    )
    return _op("CharsMapNormalization", [*node, _bytes(table)], normalization_form="", **off)


def _steps(normalizer: State | None) -> list[State]:
    """Normalizers one after the other; neighbours that look at single characters are together."""
    if normalizer is None:
        return []
    if normalizer["type"] != "Sequence":
        return [normalizer]
    steps = []
    for local, group in groupby(normalizer["normalizers"], key=_is_local):
        found = list(group)
        steps += [{"type": "Local", "normalizers": found}] if local else found
    return steps


def _is_local(step: State) -> bool:
    one = step["type"] == "Replace" and len(step["pattern"].get("String", "")) == 1 and len(step["content"]) <= 1
    return one or step["type"] in LOCAL


def _normalized(node: Node, step: State) -> Node:
    kind = step["type"]
    if kind == "BertNormalizer":
        return _bert(node, step)
    if kind == "Local" or _is_local(step):
        return _map(node, _probed(_normalizer(step), composing=True))
    if kind == "Precompiled":
        return _map(node, without_long_keys(base64.b64decode(step["precompiled_charsmap"])))
    if kind == "Strip":
        node = _replace(node, r"^\s+", "") if step["strip_left"] else node
        return _replace(node, r"\s+$", "") if step["strip_right"] else node
    if kind == "Replace" and "Regex" in step["pattern"]:
        return _replace(node, step["pattern"]["Regex"], step["content"])
    raise PolypromptError(f"the normalizer {kind} is not converted")


def _bert(node: Node, step: State) -> Node:
    none = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    if step["clean_text"]:
        cleaned = normalizers.BertNormalizer(**none | {"clean_text": True})
        found = {char: cleaned.normalize_str(char) for char in _characters()}
        node = _replace(node, _class(char for char, kept in found.items() if not kept), "")
        node = _replace(node, _class(char for char, kept in found.items() if kept == " " != char), " ")
    if step["handle_chinese_chars"]:
        node = _replace(node, f"([{HAN}])", " $1 ")
    strip = step["lowercase"] if step["strip_accents"] is None else step["strip_accents"]
    if not strip and not step["lowercase"]:
        return node
    changed = none | {"strip_accents": strip, "lowercase": step["lowercase"]}
    return _map(node, _probed(normalizers.BertNormalizer(**changed)))


def _normalizer(step: State) -> normalizers.Normalizer:
    """The library's own."""
    if step["type"] == "Local":
        return normalizers.Sequence([_normalizer(part) for part in step["normalizers"]])
    if step["type"] == "Replace":
        return normalizers.Replace(step["pattern"]["String"], step["content"])
    found: normalizers.Normalizer = getattr(normalizers, step["type"])()
    return found


def _probed(normalizer: normalizers.Normalizer, composing: bool = False) -> bytes:
    """A table of what a normalizer makes of each character, and of each with marks that it may melt with."""
    found = {}
    for key in _characters():
        if (value := normalizer.normalize_str(key)) != key:
            found[key] = value
    if composing:
        for key in _sequences():
            value = normalizer.normalize_str(key)
            if value != "".join(found.get(char, char) for char in key):
                found[key] = value
    return charsmap(found)


@cache
def _characters() -> list[str]:
    return [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]


def _sequences() -> Iterator[str]:
    """Strings that normal forms may compose or put into another order."""
    plain: dict[str, list[str]] = {}  # character -> those that are it but for their form
    for char in _characters():
        form = unicodedata.normalize("NFKC", char)
        if len(form) == 1:
            plain.setdefault(form, []).append(char)
    for char in _characters():
        if len(parts := unicodedata.normalize("NFD", char)) == 1:
            continue
        pair = unicodedata.decomposition(char).split()
        if len(pair) == 2:
            first, second = (chr(int(code, 16)) for code in pair)
            yield from (one + mark for one in plain.get(first, [first]) for mark in plain.get(second, [second]))
        if len(parts) > 2 and not "\uac00" <= char <= "\ud7a3":
            for marks in permutations(parts[1:]):
                for cut in range(len(marks)):
                    begin = unicodedata.normalize("NFC", parts[0] + "".join(marks[:cut]))
                    yield from {begin + "".join(marks[cut:]), parts[0] + "".join(marks)}
    marks = [(char, order) for char in _characters() if (order := unicodedata.combining(char))]
    for first, behind in marks:
        for second, before in marks:
            if before < behind and ord(first) >> 8 == ord(second) >> 8:
                yield first + second


def _class(characters: Iterable[str]) -> str:
    """A regular expression for one of them; they ascend."""
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges) + "]"


def _words(node: Node, step: State | None) -> tuple[Node, Node]:
    """The strings as they are split, and their words."""
    kind = None if step is None else step["type"]
    if step is not None and kind == "Metaspace" and step["prepend_scheme"] == "always" and step["split"]:
        mark = step["replacement"]
        node = _replace(_replace(node, " ", mark), f"^([^{mark}])", f"{mark}$1")
        pattern, behaviour, invert = mark, "mergedwithnext", False
    elif kind == "BertPreTokenizer":
        # in one pattern: the operator does not split the last of several words a second time
        pattern, behaviour, invert = rf"[{PUNCTUATION}]|[^\s{PUNCTUATION}]+", "remove", True
    elif step is not None and kind == "ByteLevel" and step["use_regex"]:
        node = _replace(node, "^([^ ])", " $1") if step["add_prefix_space"] else node
        pattern, behaviour, invert = WORDS, "isolate", False
    else:
        raise PolypromptError(f"the pre-tokenizer {kind} is not converted")
    inputs = [*_rows(node[0]), *node, _bytes(pattern.encode())]
    return node, _op("RegexSplit", inputs, behaviour=behaviour, invert=invert, max_splits=-1)


def _pieces(rows: Node, model: State) -> Node:
    if model["type"] == "WordPiece":
        inputs = [*rows, *_strings(_vocabulary(model)), ops.constant(np.int32(_unknown(model))).output(0)]
        prefix = model["continuing_subword_prefix"]
        # the limit is one of bytes there and of characters here
        return _op("WordpieceTokenizer", inputs, suffix_indicator=prefix, max_bytes_per_word=4 * _longest(model))
    if model["type"] == "Unigram" and not model["byte_fallback"] and model["unk_id"] is not None:
        scores = ops.constant(np.array([score for _, score in model["vocab"]], np.float32))
        inputs = [*rows, *_strings(_vocabulary(model)), scores.output(0)]
        unknown = model["unk_id"]
        return _op("UnigramTokenizer", inputs, byte_fallback=False, unk_token_id=unknown, fuse_unk=True)
    if model["type"] == "BPE" and not any(model.get(part) for part in UNUSUAL):
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        sides = [_strings(_as_bytes(pair[side]) for pair in pairs) for side in (0, 1)]
        inputs = [*rows, *_strings(map(_as_bytes, _vocabulary(model))), *sides[0], *sides[1]]
        none = {"unk_token": "", "suffix_indicator": "", "end_suffix": "", "fuse_unk": False, "byte_fallback": False}
        return _op("BPETokenizer", inputs, cache_capacity=CACHED, **none)
    raise PolypromptError(f"the model {model['type']} is not converted")


def _vocabulary(model: State) -> list[str]:
    if model["type"] == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    numbers: Mapping[str, int] = model["vocab"]
    pieces = [""] * (max(numbers.values()) + 1)
    for piece, number in numbers.items():
        pieces[number] = piece
    return pieces


def _as_bytes(piece: str) -> bytes:
    """What a piece of BPE stands for; one that is not written in signs for bytes is text, as special pieces are."""
    signs = _signs()
    known = all(sign in signs for sign in piece)
    return bytes(signs[sign] for sign in piece) if known else piece.encode()


@cache
def _signs() -> dict[str, int]:
    """The signs that GPT-2 has for bytes: Latin-1 where that can be seen, the others from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


def _unknown(model: State) -> int:
    found: int = model["unk_id"] if model["type"] == "Unigram" else model["vocab"][model["unk_token"]]
    return found


def _longest(model: State) -> int:
    found: int = model.get("max_input_chars_per_word", 100)
    return found


def _sizes(model: State, tokenizer: Tokenizer) -> np.ndarray[Any, np.dtype[np.int32]]:
    """How many characters, of BPE bytes, each piece covers, [pieces]."""
    prefix = model.get("continuing_subword_prefix") or ""
    pieces = _vocabulary(model)
    pieces += [""] * (max(tokenizer.get_vocab().values()) + 1 - len(pieces))
    if model["type"] == "BPE":
        return np.array([len(_as_bytes(piece)) for piece in pieces], np.int32)
    sizes = [len(piece) - (len(prefix) if prefix and piece.startswith(prefix) else 0) for piece in pieces]
    sizes[_unknown(model)] = -1
    return np.array(sizes, np.int32)


def _template(tokenizer: Tokenizer, *texts: str) -> list[list[Any]]:
    """A row as it is around texts."""
    row = tokenizer.encode(*texts)
    items: list[list[Any]] = []
    for piece, kind, text in zip(row.ids, row.type_ids, row.sequence_ids, strict=True):
        item = [piece if text is None else "ab"[text], kind]
        if text is None or item not in items:
            items.append(item)
    return items


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exporters.tokenizer", description=__doc__)
    parser.add_argument("bundle", type=Path, help="bundle, or run folder with its export")
    options = parser.parse_args()
    exported = options.bundle / "export"
    inside = not (options.bundle / CARD).is_file() and (exported / CARD).is_file()
    bundle = exported if inside else options.bundle
    card = add_tokenizer(bundle)
    size = sum(card.files[name].bytes for name in (XML, BIN))
    print(f"{bundle}: {XML} and {BIN}, {size / 1e6:.1f} MB; polyprompt-predict can read it")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
