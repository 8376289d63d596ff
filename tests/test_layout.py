"""Ordinary folders of single tasks, read as their files say with nothing but ONNX Runtime, beside PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from bundles import CARDS, tiny_manifest, tiny_prompted
from tiny import FAMILIES, LAYERS, VOCABULARY

from benchmarks.task import Kind, TaskCard
from exporters.export import contents_of
from exporters.layout import write_folder
from harness.model import PromptedModel

ALL = tuple(range(LAYERS))

Layers = tuple[int, ...] | None


def write_all(folder: Path, model: PromptedModel, cards: list[TaskCard] = CARDS) -> None:
    folder.mkdir()
    for contents in contents_of(model, tiny_manifest(model, cards)):
        write_folder(folder / contents.card.name, contents)


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def rows_of(kind: Kind, outputs: dict[str, np.ndarray]) -> np.ndarray:
    """What PyTorch gives for each row, from the outputs of a folder."""
    if kind is Kind.RETRIEVAL:
        return outputs["sentence_embedding"]
    if kind is Kind.SPAN:
        return np.stack([outputs["start_logits"], outputs["end_logits"]], -1)
    return outputs["logits"].reshape(-1, 1) if kind is Kind.CHOICE else outputs["logits"]


def scattered(lengths: Sequence[int], width: int) -> np.ndarray:
    """A mask a row: real pieces on the left, on the right, in the middle, and with holes."""
    draw = np.random.default_rng(7)
    mask = np.zeros((len(lengths), width), np.int64)
    for number, length in enumerate(lengths):
        begin = (0, width - length, (width - length) // 2)[number % 3]
        mask[number, begin : begin + length] = 1
        if number % 4 == 3:
            mask[number] = 0
            mask[number, draw.choice(width, length, replace=False)] = 1
    return mask


def check(model: PromptedModel, folder: Path, cards: list[TaskCard] = CARDS) -> None:
    write_all(folder, model, cards)
    draw = np.random.default_rng(3)
    lengths = [19, 1, 7, 12, 2, 19, 5, 3, 18, 11, 4, 9]
    mask = scattered(lengths, 19)
    feeds = {"input_ids": draw.integers(0, VOCABULARY, mask.shape), "attention_mask": mask}
    if model.backbone.token_types:
        feeds["token_type_ids"] = draw.integers(0, 2, mask.shape)
    for card in cards:
        shape = (3, 4, -1) if card.kind is Kind.CHOICE else mask.shape
        found = run(folder / card.name / "model.onnx", {name: rows.reshape(shape) for name, rows in feeds.items()})
        if card.kind is Kind.CHOICE:
            assert found["logits"].shape == (3, 4)
        for number, row in enumerate(rows_of(card.kind, found)):
            real = mask[number] == 1
            ids, types = (
                torch.from_numpy(feeds[name][number, real][None]) if name in feeds else None
                for name in ("input_ids", "token_type_ids")
            )
            wanted = model.outputs(card, ids, torch.tensor([lengths[number]]), types)[0].numpy()
            mine = row[real] if card.kind in (Kind.TAGGING, Kind.SPAN) else row
            np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-4, err_msg=f"{card.name} {number}")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_kind_with_real_pieces_anywhere(family: str, pooling: str, tmp_path: Path) -> None:
    check(tiny_prompted(family, pooling=pooling), tmp_path / "f")


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("layers", [(), (1,), (0, 2)])
def test_prompted_layers_and_gates(layers: Layers, gated: bool, tmp_path: Path) -> None:
    check(tiny_prompted("bert", layers, gated), tmp_path / "f")


@pytest.mark.parametrize("layers", [None, (0, 2)])
@pytest.mark.parametrize("family", ["xlm-roberta", "electra"])
def test_vectors_in_front_and_shifted_positions(family: str, layers: Layers, tmp_path: Path) -> None:
    check(tiny_prompted(family, layers, pooling="mean", positions="shifted"), tmp_path / "shifted")
    check(tiny_prompted(family, layers, positions="own"), tmp_path / "own")
