"""Ordinary folders of single tasks, read as their files say with nothing but ONNX Runtime, beside PyTorch."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import CARDS, tiny_manifest, tiny_prompted
from test_export import make_run
from test_readout import MOOD, checkpoint, encoder_of, model_of
from tiny import FAMILIES, LAYERS, VOCABULARY, tiny_model, tiny_tokenizer
from tokenizers import Regex, Tokenizer, normalizers

import exporters.export
import exporters.layout
import exporters.single
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import find_suite
from benchmarks.task import Kind, TaskCard
from exporters.export import contents_of, export, export_folders
from exporters.layout import CARD, NMT_DROPPED, NMT_SPACES, FoldersCard, write_folder
from exporters.session import Session
from harness.backbone import Backbone
from harness.device import find_device
from harness.evaluate import compute
from harness.heads import HeadKind, Pooling
from harness.model import PromptedModel
from harness.placement import Placement
from harness.sharing import PromptBank

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


@pytest.mark.parametrize("layers", [(), ALL, None])
def test_distances_are_counted_over_real_pieces(layers: Layers, tmp_path: Path) -> None:
    check(tiny_prompted("deberta-v2", layers), tmp_path / "f")


@pytest.mark.parametrize("asked", [HeadKind.POOLER, HeadKind.VERBALISER])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_heads_behind_frozen_layers_and_the_mask_that_the_graph_adds(
    family: str, asked: HeadKind, tmp_path: Path
) -> None:
    checkpoint(family, tmp_path / "checkpoint")
    model = model_of(tmp_path / "checkpoint", asked)
    write_all(tmp_path / "f", model)
    examples = [Example("1", "w5 w6 w7 w20"), Example("2", "w40")]
    wanted = compute(model, MOOD, encoder_of(model).features(MOOD, examples), find_device("fp32", cpu=True))
    found = ask(tmp_path / "f" / "mood", [(example.text,) for example in examples])["logits"]
    np.testing.assert_allclose(found, np.stack(wanted), rtol=0, atol=1e-4)
    about = json.loads((tmp_path / "f" / "mood" / "tokenizer_config.json").read_text())
    assert about["model_max_length"] == 40 - (asked is HeadKind.VERBALISER)


def ask(folder: Path, texts: Sequence[tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Rows of a folder as its files say, by hand: the tokenizer, padding on the left, the inputs that the graph has."""
    config, about = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "tokenizer_config"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(about["model_max_length"])
    tokenizer.enable_padding(direction="left", pad_id=config["pad_token_id"], pad_token=about["pad_token"])
    rows = tokenizer.encode_batch([text if len(text) == 2 else text[0] for text in texts])
    feeds = {
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": np.array([row.attention_mask for row in rows]),
        "token_type_ids": np.array([row.type_ids for row in rows]),
    }
    feeds = {name: feeds[name] for name in about["model_input_names"]}
    if config["architectures"][0].endswith("ForMultipleChoice"):
        feeds = {name: rows[None] for name, rows in feeds.items()}
    return run(folder / "model.onnx", feeds)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_folder_answers_as_the_bundle_by_its_own_files_alone(family: str, tmp_path: Path) -> None:
    made = make_run(tmp_path, "ptuning-v2", family)
    export(made, tmp_path / "bundle", rows=2)
    card = export_folders(made, tmp_path / "folders", atol=1e-4, rows=6)
    stored = json.loads((tmp_path / "folders" / CARD).read_text())
    assert FoldersCard.model_validate(stored) == card
    assert list(card.folders) == [task.name for task in find_suite("demo").tasks]
    session = Session(tmp_path / "bundle", engine="onnxruntime")
    for task in find_suite("demo").tasks:
        kind, folder = task.card.kind, tmp_path / "folders" / task.name
        # Of texts that are the same in a tiny vocabulary any one may be the nearest.
        assert card.folders[task.name].parity.agreement == 1 or kind is Kind.RETRIEVAL
        if kind is Kind.RETRIEVAL:
            found = ask(folder, [("w7 w9",), ("w30",)])["sentence_embedding"]
            np.testing.assert_allclose(found, session.embed(["w7 w9", "w30"], task.name), rtol=0, atol=1e-4)
            continue
        texts = {Kind.CHOICE: ("w7 w9 w11", None), Kind.SPAN: ("w7", "w9 w11 w30 w31 w8")}
        text, pair = texts.get(kind, ("w7 w9 w30", None))
        choices = ("w20", "w21 w22", "w40") if kind is Kind.CHOICE else ()
        tokens = tuple(text.split()) if kind is Kind.TAGGING else ()
        answer = session.answer([(task.name, Example("1", text, pair, choices, tokens))])[0]
        rows = [(text, choice) for choice in choices] or [(text, pair) if pair else (text,)]
        found, value = ask(folder, rows), answer.prediction.value
        labels = json.loads((folder / "config.json").read_text()).get("id2label")
        if kind is Kind.CLASSIFICATION:
            assert labels[str(found["logits"][0].argmax())] == value
        elif kind is Kind.REGRESSION:
            np.testing.assert_allclose(found["logits"][0, 0], value, rtol=0, atol=1e-4)
        elif kind is Kind.CHOICE:
            assert found["logits"].shape == (1, 3)
            assert str(found["logits"].argmax()) == value
        elif kind is Kind.TAGGING:
            assert tuple(labels[str(place)] for place in found["logits"][0, 1:-1].argmax(-1)) == value
        else:
            first = 2 + (family == "bert") + 2 * (family != "bert")  # behind "w7" and what is around it
            places = range(first, first + 5)
            spans = [(begin, end) for begin in places for end in places if begin <= end]
            start, stop = found["start_logits"][0], found["end_logits"][0]
            begin, end = max(spans, key=lambda span: start[span[0]] + stop[span[1]])
            assert " ".join(pair.split()[begin - first : end - first + 1]) == answer.prediction.best


def test_config_and_tokenizer_say_what_other_tools_ask_for(tmp_path: Path) -> None:
    write_all(tmp_path / "f", tiny_prompted("xlm-roberta"))
    config = json.loads((tmp_path / "f" / "mood" / "config.json").read_text())
    assert config["architectures"] == ["XLMRobertaForSequenceClassification"]
    assert (config["model_type"], config["pad_token_id"]) == ("xlm-roberta", 1)
    assert config["label2id"] == {"bad": 0, "good": 1, "so-so": 2}
    special = json.loads((tmp_path / "f" / "mood" / "special_tokens_map.json").read_text())
    assert special == {
        "cls_token": "<s>",
        "mask_token": "<mask>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    }
    assert (tmp_path / "f" / "mood" / "model.onnx").samefile(tmp_path / "f" / "mood" / "onnx" / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "f" / "names" / "model.onnx"), full_check=True)


def test_weights_beside_a_graph_that_cannot_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.layout, "ONE_FILE", 0)
    check(tiny_prompted("bert"), tmp_path / "f")
    folder = tmp_path / "f" / "mood"
    assert json.loads((folder / "config.json").read_text())["transformers.js_config"] == {
        "use_external_data_format": True
    }
    feeds = {name: np.ones((1, 5), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    above, below = run(folder / "model.onnx", feeds), run(folder / "onnx" / "model.onnx", feeds)
    np.testing.assert_array_equal(above["logits"], below["logits"])
    big = [path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 30_000]
    assert sorted(big) == ["model.onnx_data"]


def test_a_language_with_a_prompt_of_its_own_gets_a_folder(tmp_path: Path) -> None:
    backbone = Backbone("tiny", tiny_model("bert"), tiny_tokenizer("bert"))
    torch.manual_seed(3)
    bank = torch.randn(2, 1, 2, backbone.heads, 4, backbone.head_dim)
    prompt = PromptBank(bank, {"mood": 0, "mood@de": 1}, Placement(layers=(1,)))
    model = PromptedModel(backbone, prompt, [MOOD], Pooling.CLS)
    torch.nn.init.normal_(model.heads["mood"].weight)
    ids = torch.tensor([[2, 9, 10, 3]])
    feeds = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 4), np.int64)}
    feeds["token_type_ids"] = np.zeros((1, 4), np.int64)
    found = []
    for number, contents in enumerate(contents_of(model, tiny_manifest(model, [MOOD]))):
        write_folder(tmp_path / str(number), contents)
        found.append(run(tmp_path / str(number) / "model.onnx", feeds)["logits"])
    with torch.no_grad():
        wanted = [model.outputs(MOOD, ids, torch.tensor([4]), None, code).numpy() for code in ("", "de")]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_control_characters_are_handled_as_by_the_step_that_is_spelled_out() -> None:
    spelled = [normalizers.Replace(Regex(f"[{what}]"), by) for what, by in ((NMT_DROPPED, ""), (NMT_SPACES, " "))]
    plain, known = normalizers.Sequence(spelled), normalizers.Nmt()
    for number in [*range(1, 0xD800), *range(0xE000, 0x11000)]:
        text = f"a{chr(number)}b"
        assert plain.normalize_str(text) == known.normalize_str(text), hex(number)


def test_folders_that_differ_are_refused_and_the_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path, "linear-probe")
    command = ["export", str(made), "--layout", "transformers", "--rows", "2"]
    monkeypatch.setattr(sys, "argv", command)
    assert exporters.export.main() == 0
    assert "demo-topic" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    assert exporters.export.main() == 0
    before = FoldersCard.model_validate(json.loads(capsys.readouterr().out))
    monkeypatch.setattr(exporters.single, "LOWEST", 0.0)  # what is not real is attended to
    with pytest.raises(PolypromptError, match=r"--atol 0\.001 allows; nothing was written"):
        exporters.export.main()
    assert FoldersCard.model_validate(json.loads((made / "transformers" / CARD).read_text())) == before
    with pytest.raises(PolypromptError, match="exists and has no folders"):
        export_folders(made, tmp_path, rows=2)
