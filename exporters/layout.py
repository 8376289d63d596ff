"""One ordinary folder a task, as Hugging Face's tools expect it: Optimum, Transformers.js, sentence-transformers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.records import Example
from benchmarks.results import BackboneCard
from benchmarks.task import Kind, TaskCard
from exporters.bundle import MODEL, TOKENIZER, TaskParity, VocabularyReport
from exporters.engines.onnxruntime import cpu_card
from exporters.graph import Graph
from exporters.session import Encoded, Floats, Place
from exporters.single import DATA
from harness.features import MASK_POSITION, Feature, TextEncoder, pad

CARD = "folders.json"
"""Beside the folders: what each of them is, and how well it agrees with the original."""

WEB = "onnx"
"""The folder in which Transformers.js looks for the graph; Optimum looks beside config.json."""

ONE_FILE = 2**31 - 2**24
"""Bytes of weights up to which the graph holds them itself: protobuf ends at 2 GiB."""

ROWS_A_BATCH = 16

NMT_DROPPED = "\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f"
NMT_SPACES = "\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd"
"""Characters that the step Nmt of the library tokenizers drops, and those that it makes spaces of."""

ARCHITECTURES: Mapping[Kind, str] = {
    Kind.CLASSIFICATION: "ForSequenceClassification",
    Kind.REGRESSION: "ForSequenceClassification",
    Kind.CHOICE: "ForMultipleChoice",
    Kind.TAGGING: "ForTokenClassification",
    Kind.SPAN: "ForQuestionAnswering",
    Kind.RETRIEVAL: "Model",
}
"""Ending of the class of transformers that a folder stands for."""


class FolderCard(BaseModel):
    """One folder.

    Attributes:
        task: its name. language: the only one it is for; "": all, or all that have no folder of their own.
        parity: agreement with PyTorch on real rows.
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    language: str
    parity: TaskParity


class FoldersCard(BaseModel):
    """folders.json.

    Attributes:
        run, method: where they come from. backbone: the encoder.
        engine: name and version of the runtime that was compared. atol: largest absolute difference that was allowed.
        folders: by name. vocabulary: what trimming left of it; None: it is whole.
    """

    model_config = ConfigDict(extra="forbid")

    schema_name: Literal["polyprompt-folders"] = "polyprompt-folders"
    version: Literal[1] = 1
    run: str
    method: str
    backbone: BackboneCard
    engine: str
    atol: float
    folders: dict[str, FolderCard]
    vocabulary: VocabularyReport | None = Field(default=None, exclude_if=lambda report: report is None)


@dataclass(frozen=True)
class Contents:
    """What goes into a folder.

    Attributes:
        card: the task. graph: of `exporters.single`.
        config: config.json of the encoder. architecture: its class in transformers, such as "BertModel".
        tokenizer: content of tokenizer.json. pad_id: the piece that fills rows up. mask_id: the mask piece, if any.
        token_types: pieces of the second text of a pair are marked.
        hidden: width of its states. longest: pieces of the longest row that a tokenizer may make.
        masked: the task is answered at the mask piece, which the graph puts into each row.
        threshold: of "no answer", see `benchmarks.thresholds`.
    """

    card: TaskCard
    graph: Graph
    config: Mapping[str, Any]
    architecture: str
    tokenizer: str
    pad_id: int
    mask_id: int | None
    token_types: bool
    hidden: int
    longest: int
    masked: bool = False
    threshold: float | None = None


def write_folder(folder: Path, contents: Contents) -> None:
    """Write the files of one task into a new folder."""
    folder.mkdir()
    one_file = contents.graph.backbone.bytes < ONE_FILE
    _write_graph(folder, contents.graph, one_file)
    write_atomic(folder / TOKENIZER, _plain_tokenizer(contents.tokenizer))
    config = _config(contents)
    if not one_file:
        config["transformers.js_config"] = {"use_external_data_format": True}
    tokenizer_config = _tokenizer_config(contents)
    special = {name: piece for name, piece in tokenizer_config.items() if name.endswith("_token")}
    files: dict[str, Any] = {
        "config.json": config,
        "tokenizer_config.json": tokenizer_config,
        "special_tokens_map.json": special,
    }
    if contents.card.kind is Kind.RETRIEVAL:
        files |= _sentence_transformers(contents)
    for name, content in files.items():
        write_atomic(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _write_graph(folder: Path, graph: Graph, one_file: bool) -> None:
    """The graph in both places; the weights are on disk once."""
    model = graph.model
    if one_file:
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        graph.backbone.inline(model.graph.initializer)
    write_atomic(folder / WEB / MODEL, model.SerializeToString(deterministic=True))
    if one_file:
        _link(folder / WEB / MODEL, folder / MODEL)
        return
    write_atomic(folder / WEB / DATA, graph.backbone.write)
    above = onnx.ModelProto()
    above.CopyFrom(model)
    for tensor in above.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = f"{WEB}/{DATA}"
    write_atomic(folder / MODEL, above.SerializeToString(deterministic=True))


def _link(there: Path, here: Path) -> None:
    try:
        os.link(there, here)
    except OSError:  # a file system without hard links
        shutil.copyfile(there, here)


def _config(contents: Contents) -> dict[str, Any]:
    card = contents.card
    ending = ARCHITECTURES[card.kind]
    config = dict(contents.config) | {
        "architectures": [contents.architecture.removesuffix("Model") + ending],
        "pad_token_id": contents.pad_id,
    }
    labels: Sequence[str] = ()
    if card.kind in (Kind.CLASSIFICATION, Kind.TAGGING):
        labels = card.labels
    elif card.kind is Kind.REGRESSION:
        labels = ("LABEL_0",)
    if labels:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
    if card.kind is Kind.CLASSIFICATION:
        config["problem_type"] = "single_label_classification"
    if card.kind is Kind.REGRESSION:
        config["problem_type"] = "regression"
    if contents.threshold is not None:
        config["no_answer_threshold"] = contents.threshold
    return config


def _tokenizer_config(contents: Contents) -> dict[str, Any]:
    raw, tokenizer = json.loads(contents.tokenizer), Tokenizer.from_str(contents.tokenizer)
    model, normalizer = raw["model"], raw["normalizer"] or {}
    around = tokenizer.encode("").tokens
    special = {
        "unk_token": model.get("unk_token") or _piece(tokenizer, model.get("unk_id")),
        "pad_token": _piece(tokenizer, contents.pad_id),
        "mask_token": _piece(tokenizer, contents.mask_id),
    }
    if around:
        special |= {"cls_token": around[0], "sep_token": around[-1]}
    config: dict[str, Any] = {name: piece for name, piece in sorted(special.items()) if piece is not None}
    types = ["token_type_ids"] if contents.token_types else []
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": contents.longest,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": model["type"] == "WordPiece",
    }
    if model["type"] == "WordPiece" and normalizer.get("type") == "BertNormalizer" and contents.token_types:
        # Transformers.js gives token types for this class and not for the general one.
        config |= {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
    return config


def _plain_tokenizer(content: str) -> str:
    """tokenizer.json with the step Nmt (control characters) spelled out, which Transformers.js does not know."""
    raw = json.loads(content)
    normalizer = raw["normalizer"] or {}
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    if not any(step.get("type") == "Nmt" for step in steps):
        return content
    spelled = [
        {"type": "Replace", "pattern": {"Regex": f"[{characters}]"}, "content": by}
        for characters, by in ((NMT_DROPPED, ""), (NMT_SPACES, " "))
    ]
    plain = [part for step in steps for part in (spelled if step.get("type") == "Nmt" else [step])]
    raw["normalizer"] = {"type": "Sequence", "normalizers": plain}
    return json.dumps(raw, ensure_ascii=False)


def _piece(tokenizer: Tokenizer, number: int | None) -> str | None:
    return None if number is None else tokenizer.id_to_token(number)


def _sentence_transformers(contents: Contents) -> dict[str, Any]:
    """What tells sentence-transformers, and servers of embeddings, to take unit vectors of means."""
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return {
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (path, name) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": contents.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
        },
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": contents.longest, "do_lower_case": False},
    }


class TaskFolder:
    """An opened folder: ONNX Runtime, and what the folder's own files say. It runs what `exporters.verify` compares.

    Args:
        folder: written by `write_folder`. card: its task.
        mask_id: the piece at which the task is answered, which the graph puts into each row.

    Attributes:
        tasks: the name of the task -> its card.
    """

    def __init__(self, folder: Path, card: TaskCard, mask_id: int | None = None) -> None:
        self.tasks = {card.name: card}
        config, about = (json.loads((folder / name).read_bytes()) for name in ("config.json", "tokenizer_config.json"))
        self._pad_id: int = config["pad_token_id"]
        self._masked = mask_id is not None
        self._encoder = TextEncoder(
            Tokenizer.from_file(str(folder / TOKENIZER)),
            self._pad_id,
            "token_type_ids" in about["model_input_names"],
            about["model_max_length"] + self._masked,
            {} if mask_id is None else {card.name: mask_id},
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._runtime = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the classes of onnxruntime's errors are not public
            raise PolypromptError(
                f"{folder / MODEL}: ONNX Runtime cannot open it ({str(error).splitlines()[0]})"
            ) from None
        self._inputs = {value.name for value in self._runtime.get_inputs()}
        self.engine = cpu_card()

    def run(self, examples: Mapping[Place, Sequence[Example]]) -> dict[Place, Encoded]:
        """Encode examples and run the graph on them, in batches with every other row padded on the left.

        Args:
            examples: task and language -> its examples.

        Returns:
            The same places with their rows and outputs.
        """
        results = {}
        for (name, language), rows in examples.items():
            card = self.tasks[name]
            features = self._encoder.features(card, rows)
            outputs: list[Floats] = []
            for start in range(0, len(features), ROWS_A_BATCH):
                outputs += self._run_batch(card.kind, features[start : start + ROWS_A_BATCH])
            results[name, language] = Encoded(features, outputs)
        return results

    def _run_batch(self, kind: Kind, features: Sequence[Feature]) -> list[Floats]:
        padded = pad(features, self._pad_id)
        length = padded.input_ids.shape[1]
        feeds: dict[str, NDArray[np.int64]] = {
            "input_ids": padded.input_ids,
            "attention_mask": (np.arange(length) < padded.lengths[:, None]).astype(np.int64),
            "token_type_ids": padded.type_ids,
        }
        feeds = {name: rows for name, rows in feeds.items() if name in self._inputs}
        if self._masked:
            feeds = {name: np.delete(rows, MASK_POSITION, 1) for name, rows in feeds.items()}
        begins = np.where(np.arange(len(features)) % 2, length - padded.lengths, 0)
        for rows in feeds.values():
            for row, begin in zip(rows, begins, strict=True):
                row[:] = np.roll(row, begin)
        if kind is Kind.CHOICE:  # all rows as the choices of one question: they are scored alone
            feeds = {name: rows[None] for name, rows in feeds.items()}
        names = [value.name for value in self._runtime.get_outputs()]
        found = dict(zip(names, self._runtime.run(names, feeds), strict=True))
        if kind is Kind.RETRIEVAL:
            return list(found["sentence_embedding"])
        if kind is Kind.CHOICE:
            return list(found["logits"].T)
        logits = np.stack([found["start_logits"], found["end_logits"]], -1) if kind is Kind.SPAN else found["logits"]
        if kind not in (Kind.SPAN, Kind.TAGGING):
            return list(logits)
        places = zip(logits, begins, padded.lengths, strict=True)
        return [row[begin : begin + size] for row, begin, size in places]
