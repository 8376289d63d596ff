"""Frozen poolers and masked-LM heads beside those of transformers, from the checkpoint to the exported bundle."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import CARDS, tiny_bundle, tiny_manifest
from safetensors.torch import load_file
from test_graph import Arrays, Engine, original, rows_asked, run_onnxruntime, run_openvino
from tiny import CLASSES, FAMILIES, LAYERS, SHAPE, VOCABULARY, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedModel,
)

import exporters.export
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.registry import find_suite, find_task
from benchmarks.results import Manifest, Results, read_model, read_predictions
from benchmarks.task import Kind, TaskCard
from exporters.session import Session
from harness import rescore, run
from harness.backbone import Backbone, load_backbone
from harness.config import load_config, make_config
from harness.data import load_evaluation
from harness.device import find_device
from harness.evaluate import compute, predict
from harness.feature_cache import CachedEncoder
from harness.features import TextEncoder
from harness.heads import HeadKind, Pooling
from harness.model import PromptedModel
from harness.options import command_line, parse
from harness.placement import Placement
from harness.readout import make_readout, mask_pieces, spoken
from harness.sharing import PromptBank
from harness.store import load_run

POOLED = ("bert", "roberta", "xlm-roberta", "camembert")
MOOD = CARDS[0]
WORDS = {"mood": {"bad": "w7", "good": "w30", "so-so": "w11 w12"}}
PIECES = [7, 30, 11]
DEMO = [card for card in (task.card for task in find_suite("demo").tasks) if "en" in card.languages]
SAID = {"city": "w7", "country": "w9", "currency": "w11", "language": "w13"}
SAY = tuple(word for label, said in SAID.items() for word in ("--label-words", f"demo-topic.{label}={said}"))


def checkpoint(family: str, folder: Path, auto: type = AutoModelForMaskedLM, **more: object) -> PreTrainedModel:
    """A tiny checkpoint with a masked-LM head or a pooler, every weight of which shows in the output."""
    _, make_config, settings = CLASSES[family]
    torch.manual_seed(5)
    model = auto.from_config(make_config(**{**SHAPE, **settings, **more}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.eval().save_pretrained(folder)
    tiny_tokenizer(family).save(str(folder / "tokenizer.json"))
    return model


def model_of(folder: Path, asked: HeadKind, cards: list[TaskCard] = CARDS, pooling: str = "cls") -> PromptedModel:
    """A checkpoint with heads of some kind, random where they would be trained, and no prompt."""
    backbone = load_backbone(str(folder))
    readout = make_readout(asked, backbone, cards, WORDS)
    model = PromptedModel(backbone, None, cards, Pooling(pooling), readout)
    torch.manual_seed(6)
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight)
        torch.nn.init.normal_(head.bias)
    return model.requires_grad_(False).eval()


def encoder_of(model: PromptedModel, cards: list[TaskCard] = CARDS) -> TextEncoder:
    backbone = model.backbone
    asked = HeadKind.LINEAR if model.readout is None else model.readout.kind
    numbers = (backbone.pad_id, backbone.token_types, backbone.max_positions)
    return TextEncoder(backbone.tokenizer, *numbers, mask_pieces(asked, backbone, cards))


def special(family: str) -> tuple[int, int, int]:
    """First piece, last piece and mask of the tiny tokenizers."""
    return (0, 2, 4) if "bert" in family and family not in ("bert", "distilbert") else (2, 3, 4)


# Numbers


@pytest.mark.parametrize("family", FAMILIES)
def test_label_words_score_as_in_the_masked_lm_of_transformers(family: str, tmp_path: Path) -> None:
    peer = checkpoint(family, tmp_path)
    model = model_of(tmp_path, HeadKind.VERBALISER)
    features = encoder_of(model).features(MOOD, [Example("1", "w5 w6 w7 w20"), Example("2", "w40")])
    first, last, mask = special(family)
    texts = [[first, mask, 5, 6, 7, 20, last], [first, mask, 40, last]]
    assert [feature.input_ids.tolist() for feature in features] == texts
    outputs = compute(model, MOOD, features, find_device("fp32", cpu=True))
    for text, output in zip(texts, outputs, strict=True):
        with torch.no_grad():
            wanted = peer(input_ids=torch.tensor([text])).logits[0, 1, PIECES]
        torch.testing.assert_close(torch.from_numpy(output), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_the_activation_of_the_configuration(activation: str, tmp_path: Path) -> None:
    for family, setting in (("bert", "hidden_act"), ("distilbert", "activation")):
        peer = checkpoint(family, tmp_path / family, **{setting: activation})
        model = model_of(tmp_path / family, HeadKind.VERBALISER)
        ids = torch.tensor([[2, 4, 9, 10, 3]])
        with torch.no_grad():
            wanted = peer(input_ids=ids).logits[:, 1, PIECES]
        torch.testing.assert_close(model.outputs(MOOD, ids, torch.tensor([5])), wanted, rtol=0, atol=1e-5)


def test_an_output_layer_of_its_own_is_used(tmp_path: Path) -> None:
    """Not the word embeddings, with which most checkpoints share it."""
    peer = checkpoint("bert", tmp_path, tie_word_embeddings=False)
    assert not torch.equal(peer.cls.predictions.decoder.weight, peer.bert.embeddings.word_embeddings.weight)
    readout = make_readout(HeadKind.VERBALISER, load_backbone(str(tmp_path)), [MOOD], WORDS)
    assert torch.equal(readout.words["mood"].weight, peer.cls.predictions.decoder.weight[PIECES])


@pytest.mark.parametrize("family", POOLED)
def test_the_pooler_of_transformers(family: str, tmp_path: Path) -> None:
    peer = checkpoint(family, tmp_path, AutoModel)
    model = model_of(tmp_path, HeadKind.POOLER)
    assert not model.readout.drawn
    ids, lengths = torch.tensor([[0, 9, 10, 12], [0, 30, 31, 1]]), torch.tensor([4, 3])
    mask = torch.arange(4) < lengths[:, None]
    places = model.backbone.first_position + torch.arange(4)[None]
    with torch.no_grad():
        pooled = peer(input_ids=ids, attention_mask=mask, position_ids=places)
    for card in CARDS[:3]:
        wanted = pooled.pooler_output @ model.heads[card.name].weight.T + model.heads[card.name].bias
        torch.testing.assert_close(model.outputs(card, ids, lengths), wanted, rtol=0, atol=1e-5)


def test_kinds_without_labels_to_say_read_the_state_itself(tmp_path: Path) -> None:
    checkpoint("bert", tmp_path)
    ids, lengths = torch.tensor([[2, 9, 10, 12]]), torch.tensor([4])
    for asked, pooling, same in (
        (HeadKind.VERBALISER, "mean", {"degree", "cause", "names", "question", "pairs"}),
        (HeadKind.POOLER, "cls", {"names", "question", "pairs"}),
    ):
        model, plain = model_of(tmp_path, asked, pooling=pooling), model_of(tmp_path, HeadKind.LINEAR, pooling=pooling)
        for name, head in model.heads.items():
            plain.heads[name].load_state_dict(head.state_dict())
        outputs = {card.name: (model.outputs(card, ids, lengths), plain.outputs(card, ids, lengths)) for card in CARDS}
        assert {name for name, (one, other) in outputs.items() if torch.equal(one, other)} == same


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert"])
def test_a_pooler_that_no_checkpoint_has_is_drawn_alike_in_every_run(family: str, tmp_path: Path) -> None:
    checkpoint(family, tmp_path)
    torch.manual_seed(1)
    one = model_of(tmp_path, HeadKind.POOLER).readout
    torch.manual_seed(2)
    other = model_of(tmp_path, HeadKind.POOLER).readout
    assert one.drawn
    assert "random pooler" in str(one)
    assert torch.equal(one.dense.weight, other.dense.weight)
    assert not one.dense.bias.any()
    assert one.dense.weight.std().item() == pytest.approx(0.02, rel=0.1)  # of 1024 numbers
    assert abs(one.dense.weight.mean().item()) < 0.003


def test_a_pretrained_pooler_on_a_real_checkpoint(shared: Path) -> None:
    folder = shared / "models" / "minilm-l6-en"
    peer = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = model_of(folder, HeadKind.POOLER, [CARDS[1]])
    assert str(model.readout) == "heads behind the frozen pooler"
    texts = ["A gripping film.", "Not worth it"]
    features = encoder_of(model).features(CARDS[1], [Example(text, text) for text in texts])
    found = compute(model, CARDS[1], features, find_device("fp32", cpu=True))
    with torch.no_grad():
        pooled = peer(**tokenizer(texts, return_tensors="pt", padding=True)).pooler_output
    head = model.heads["degree"]
    torch.testing.assert_close(torch.from_numpy(np.stack(found)), pooled @ head.weight.T + head.bias, rtol=0, atol=1e-5)


# Words and masks


def bytes_tokenizer() -> Tokenizer:
    """Pieces as in RoBERTa: a space is a part of the piece behind it."""
    merges = [("o", "k"), ("\u0120", "ok"), ("b", "a")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abdko", "\u0120", "ok", "\u0120ok", "ba"]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(pieces[:5])
    return tokenizer


def with_tokenizer(tokenizer: Tokenizer) -> Backbone:
    config = BertConfig(**SHAPE)
    torch.manual_seed(0)
    return Backbone("tiny", BertModel(config, add_pooling_layer=False), tokenizer)


def said(tokenizer: Tokenizer, words: dict[str, str]) -> list[str]:
    card = TaskCard(name="task", suite="s", kind=Kind.CLASSIFICATION, labels=tuple(words), metrics=("accuracy",))
    backbone = with_tokenizer(tokenizer)
    return [tokenizer.id_to_token(piece) for piece in spoken(backbone, card, words).values()]


def test_a_word_is_scored_as_it_stands_inside_a_sentence() -> None:
    assert said(bytes_tokenizer(), {"yes": "ok", "no": "bad"}) == ["\u0120ok", "ba"]
    pieces = [("<unk>", 0.0), ("\u2581", -1.0), ("\u2581ok", -1.0), ("ok", -2.0), ("\u597d", -1.0), ("\u574f", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert said(tokenizer, {"a": "ok", "b": "\u597d", "c": "\u574f"}) == ["\u2581ok", "\u597d", "\u574f"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"nice": "w7"}, r"label-words of mood: no label 'nice'; there are bad, good, so-so"),
        ({"bad": "w7", "good": "hello", "so-so": "w8"}, "the tokenizer of tiny has no piece for 'hello'"),
        ({"bad": "w7", "good": " ", "so-so": "w8"}, "has no piece for ' '"),
        ({"bad": "w7", "good": "w8", "so-so": "w7 w9"}, "of 'bad' and 'so-so' begin with the same piece, 'w7'"),
        ({"bad": "w7", "good": "w8"}, "no piece for 'so-so'"),
    ],
)
def test_words_that_do_not_tell_labels_apart(words: dict[str, str], message: str) -> None:
    with pytest.raises(PolypromptError, match=message):
        spoken(with_tokenizer(tiny_tokenizer("bert")), MOOD, words)


def test_the_mask_stands_behind_the_first_piece_and_is_never_cut() -> None:
    task = MOOD.model_copy(update={"max_length": 12})
    plain = TextEncoder(tiny_tokenizer("bert"), 0, True, 512)
    masked = TextEncoder(tiny_tokenizer("bert"), 0, True, 512, {"mood": 4})
    long, pair = " ".join(["w7"] * 30), ("w8 w9 " * 10, "w10 " * 20)
    examples = [Example("1", long), Example("2", *pair), Example("3", "w9", "w10")]
    shorter = task.model_copy(update={"max_length": 11})
    for row, bare in zip(masked.features(task, examples), plain.features(shorter, examples), strict=True):
        ids, types = bare.input_ids.tolist(), bare.type_ids.tolist()
        assert row.input_ids.tolist() == [ids[0], 4, *ids[1:]]
        assert row.type_ids.tolist() == [0, 0, *types[1:]]
        assert row.input_ids.dtype == row.type_ids.dtype == np.int32
        assert len(row) <= 12
    other = task.model_copy(update={"name": "other"})
    for row, bare in zip(masked.features(other, examples), plain.features(task, examples), strict=True):
        assert row.input_ids.tolist() == bare.input_ids.tolist()


def test_rows_that_are_kept_know_whether_they_have_a_mask() -> None:
    for mask in (None, 4, 8, None):
        encoder = CachedEncoder(tiny_tokenizer("bert"), 0, True, 512, {} if mask is None else {"mood": mask})
        [row] = encoder.features(MOOD, [Example("1", "w5 w6")])
        assert row.input_ids.tolist() == [2, *([] if mask is None else [mask]), 5, 6, 3]


# The exported graph

MIXED = [
    *CARDS,
    TaskCard(name="colour", suite="tiny", kind=Kind.CLASSIFICATION, labels=tuple("rgbxy"), metrics=("accuracy",)),
    MOOD.model_copy(update={"name": "probe", "head": "mood"}),
]
COLOURS = {"colour": {label: f"w{20 + number}" for number, label in enumerate("rgbxy")}}


def prompted(folder: Path, asked: HeadKind, pooling: str, cards: list[TaskCard]) -> PromptedModel:
    backbone = load_backbone(str(folder))
    readout = make_readout(asked, backbone, cards, WORDS | COLOURS)
    torch.manual_seed(7)
    bank = torch.randn(2, LAYERS, 2, backbone.heads, 5, backbone.head_dim)
    prompt = PromptBank(bank, {"": 0, "mood": 1}, Placement(layers=tuple(range(LAYERS))))
    model = PromptedModel(backbone, prompt, cards, Pooling(pooling), readout)
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight)
        torch.nn.init.normal_(head.bias)
    return model.requires_grad_(False).eval()


def batch(model: PromptedModel, card: list[TaskCard], shortest: int, longest: int) -> dict[str, np.ndarray]:
    """Rows of different lengths, tasks in turn, noise behind the end."""
    draw = np.random.default_rng(4)
    rows = 3 * len(card)
    feeds = {
        "input_ids": draw.integers(0, VOCABULARY, (rows, longest)),
        "lengths": draw.integers(shortest, longest + 1, rows),
        "task_id": np.arange(rows) % len(card),
    }
    feeds["lengths"][-1] = longest
    return feeds | ({"token_type_ids": draw.integers(0, 2, (rows, longest))} if model.backbone.token_types else {})


def agree(model: PromptedModel, folder: Path, engine: Engine, cards: list[TaskCard], feeds: Arrays) -> None:
    if not folder.exists():
        tiny_bundle(folder, model, cards)
    card = exporters.export.describe(model, tiny_manifest(model, cards))
    rows = rows_asked(card, feeds["task_id"])
    outputs = engine(folder, feeds | rows)
    for row, number in enumerate(feeds["task_id"]):
        task = card.tasks[number]
        found = outputs[task.output][list(rows[card.rows_of(task)]).index(row)]
        if found.ndim == 2:
            found = found[: feeds["lengths"][row]]
        wanted = original(model, task.card, feeds, row)
        np.testing.assert_allclose(found[..., : task.columns], wanted, rtol=0, atol=1e-4, err_msg=task.card.name)
        if task.card.kind is not Kind.RETRIEVAL:
            assert not found[..., task.columns :].any(), "columns of wider heads must stay empty"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bundle_of_spoken_and_other_tasks(family: str, pooling: str, tmp_path: Path) -> None:
    checkpoint(family, tmp_path)
    model = prompted(tmp_path, HeadKind.VERBALISER, pooling, MIXED)
    agree(model, tmp_path / "b", run_onnxruntime, MIXED, batch(model, MIXED, 3, 15))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bundle_behind_a_pooler(family: str, tmp_path: Path) -> None:
    checkpoint(family, tmp_path, *([AutoModel] if family in POOLED else []))
    model = prompted(tmp_path, HeadKind.POOLER, "cls", MIXED)
    assert model.readout.drawn is (family not in POOLED)
    agree(model, tmp_path / "b", run_onnxruntime, MIXED, batch(model, MIXED, 1, 15))


@pytest.mark.parametrize("asked", [HeadKind.POOLER, HeadKind.VERBALISER])
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_openvino_opens_the_same_files(family: str, asked: HeadKind, tmp_path: Path) -> None:
    checkpoint(family, tmp_path)
    model = prompted(tmp_path, asked, "cls", MIXED)
    agree(model, tmp_path / "b", run_openvino, MIXED, batch(model, MIXED, 3, 15))


@pytest.mark.parametrize("asked", [HeadKind.POOLER, HeadKind.VERBALISER])
def test_a_bundle_of_one_task(asked: HeadKind, tmp_path: Path) -> None:
    checkpoint("bert", tmp_path)
    model = prompted(tmp_path, asked, "cls", [MOOD])
    agree(model, tmp_path / "b", run_onnxruntime, [MOOD], batch(model, [MOOD], 3, 15))


def test_a_batch_of_rows_too_short_for_a_mask(tmp_path: Path) -> None:
    """Rows of one piece can only be of the other tasks."""
    checkpoint("bert", tmp_path)
    model = prompted(tmp_path, HeadKind.VERBALISER, "cls", CARDS)
    feeds = batch(model, CARDS, 1, 1)
    rows = np.flatnonzero(feeds["task_id"])
    agree(model, tmp_path / "b", run_onnxruntime, CARDS, {name: array[rows] for name, array in feeds.items()})


def test_the_encoders_file_does_not_depend_on_the_heads(tmp_path: Path) -> None:
    checkpoint("bert", tmp_path)
    contents = set()
    for asked in HeadKind:
        tiny_bundle(tmp_path / asked, prompted(tmp_path, asked, "cls", CARDS))
        contents.add((tmp_path / asked / "backbone.bin").read_bytes())
    assert len(contents) == 1


# Runs


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT folder with a masked-LM head."""
    folder = tmp_path_factory.mktemp("speaking")
    checkpoint("bert", folder)
    return folder


def small(backbone: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        *("--suite", "demo", "--backbone", backbone, "--languages", "en,zh", "--prompt-length", 3),
        *("--max-train", 24, "--max-eval", 9, "--batch", 8, "--max-steps", 10, "--precision", "fp32"),
        *("--out", out, "--name", "x", *more),
    )


def repeat(folder: Path) -> None:
    """The predictions of a run are made again from what is stored, and by its bundle."""
    model, manifest = load_run(folder), read_model(folder / "manifest.json", Manifest)
    exporters.export.export(folder, folder / "export", atol=1e-4, rows=6)
    session = Session(folder / "export", threads=1, engine="onnxruntime")
    encoder = encoder_of(model, manifest.tasks)
    for card in manifest.tasks:
        if card.kind in (Kind.RETRIEVAL, Kind.SPAN):
            continue
        task = find_task(card.name)
        split = load_evaluation(load_config(folder / "config.toml"), task, "en")
        stored = read_predictions(folder / "predictions" / f"{card.name}.en.{task.eval_split}.jsonl.gz")
        again = predict(model, encoder, card, split, find_device("fp32", cpu=True))
        deployed = session.predict(card.name, split.examples)
        for one, two, three in zip(stored, again, deployed, strict=True):
            np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
            np.testing.assert_allclose(one.scores, three.scores, atol=1e-4)
            if card.kind is Kind.REGRESSION:
                assert one.value == pytest.approx(two.value, abs=1e-5) == pytest.approx(three.value, abs=1e-4)
            else:
                assert one.value == two.value == three.value


def test_a_run_that_speaks(speaking: Path, command, tmp_path: Path) -> None:
    status, _, error = command(run, *small(speaking, tmp_path, "--head", "verbaliser", *SAY))
    assert status == 0, error
    assert "answers of the frozen masked-LM head" in error
    assert "demo-topic: city is said as 'w7', country is said as 'w9'" in error
    folder = tmp_path / "x"
    manifest = read_model(folder / "manifest.json", Manifest)
    assert manifest.prompt.endswith("; answers of the frozen masked-LM head")
    heads = load_file(folder / "heads.safetensors")
    assert {name.split(".")[0] for name in heads} == {"demo-count", "demo-choice", "demo-names", "demo-answers"}
    prefix = load_file(folder / "prompt.safetensors")["prefix"]
    assert manifest.trainable == prefix.numel() + sum(head.numel() for head in heads.values())
    peer = BertForMaskedLM.from_pretrained(speaking)
    frozen = load_file(folder / "readout.safetensors")
    total = manifest.backbone.parameters + manifest.trainable + sum(tensor.numel() for tensor in frozen.values())
    assert manifest.share == pytest.approx(100 * manifest.trainable / total)
    assert torch.equal(frozen["dense.weight"], peer.cls.predictions.transform.dense.weight)
    assert torch.equal(frozen["words.demo-topic.weight"], peer.cls.predictions.decoder.weight[[7, 9, 11, 13]])
    assert torch.equal(frozen["words.demo-topic.bias"], peer.cls.predictions.bias[[7, 9, 11, 13]])
    status, output, _ = command(rescore, folder)
    assert (status, "all equal" in output) == (0, True)
    repeat(folder)


def test_a_run_behind_a_pooler(command, tmp_path: Path) -> None:
    peer = checkpoint("bert", tmp_path / "backbone", AutoModel)
    status, _, error = command(run, *small(tmp_path / "backbone", tmp_path, "--head", "pooler"))
    assert status == 0, error
    assert "heads behind the frozen pooler" in error
    frozen = load_file(tmp_path / "x" / "readout.safetensors")
    assert frozen.keys() == {"dense.weight", "dense.bias"}
    assert torch.equal(frozen["dense.weight"], peer.pooler.dense.weight)
    repeat(tmp_path / "x")


@pytest.mark.parametrize("head", ["pooler", "verbaliser"])
@pytest.mark.parametrize(
    "more",
    [
        ("--method", "ptuning-v2", "--positions", "shifted", "--sharing", "separate"),
        ("--method", "prompt-tuning"),
        ("--method", "bitfit"),
        ("--method", "lora"),
        ("--method", "fine-tune"),
    ],
    ids=lambda more: more[1],
)
def test_every_method_leaves_the_readout_as_it_was(head, more, speaking: Path, command, tmp_path: Path) -> None:
    tasks = ("--tasks", "demo-topic,demo-count", "--languages", "en")
    status, _, error = command(run, *small(speaking, tmp_path, "--head", head, *SAY, *tasks, *more))
    assert status == 0, error
    found = load_file(tmp_path / "x" / "readout.safetensors")
    wanted = make_readout(HeadKind(head), load_backbone(str(speaking)), DEMO, {"demo-topic": SAID}).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    repeat(tmp_path / "x")


def test_a_random_pooler_is_told_of(speaking: Path, command, tmp_path: Path) -> None:
    options = ("--head", "pooler", "--method", "linear-probe", "--tasks", "demo-topic")
    status, _, error = command(run, *small(speaking, tmp_path, *options))
    assert status == 0, error
    told = "heads behind the random pooler (the checkpoint has none)"
    assert told in error
    assert told in read_model(tmp_path / "x" / "manifest.json", Manifest).prompt
    drawn = make_readout(HeadKind.POOLER, load_backbone(str(speaking)), DEMO, {})
    assert torch.equal(load_file(tmp_path / "x" / "readout.safetensors")["dense.weight"], drawn.dense.weight)
    repeat(tmp_path / "x")


@pytest.mark.parametrize("head", ["pooler", "verbaliser"])
def test_an_interrupted_run_ends_with_the_same_bytes(head, speaking, command, tmp_path, interrupted_at) -> None:
    options = ("--head", head, *SAY, "--languages", "en", "--checkpoint-seconds", 100)
    status, _, error = command(run, *small(speaking, tmp_path / "whole", *options))
    assert status == 0, error
    with interrupted_at(4):
        assert command(run, *small(speaking, tmp_path / "parts", *options))[0] == 130
    status, _, error = command(run, *small(speaking, tmp_path / "parts", *options, "--resume"))
    assert status == 0, error
    assert read_model(tmp_path / "parts" / "x" / "manifest.json", Manifest).interruptions == 1
    files = ["prompt", "heads", "readout"]
    for name in [f"{file}.safetensors" for file in files] + ["predictions/demo-topic.en.test.jsonl.gz"]:
        assert (tmp_path / "whole" / "x" / name).read_bytes() == (tmp_path / "parts" / "x" / name).read_bytes(), name


def test_the_recorded_command_holds_the_words() -> None:
    words = {"demo-topic": {"city": "w7", "a.b=c": "w8"}, "sst2": {"negative": "not good"}}
    settings = {"suite": ["demo", "glue"], "head": "verbaliser", "label_words": words}
    config = make_config(settings, "here")
    _, again = parse(shlex.split(command_line(config))[3:])
    assert make_config(again, "again") == config


def test_words_in_a_settings_file(speaking: Path, command, tmp_path: Path) -> None:
    lines = ['suite = ["demo"]', 'tasks = ["demo-topic"]', 'languages = ["en"]', 'head = "verbaliser"', "max-train = 8"]
    words = [f'{label} = "{word}"' for label, word in SAID.items()]
    (tmp_path / "mine.toml").write_text("\n".join([*lines, "[label-words.demo-topic]", *words]))
    options = ("--config", tmp_path / "mine.toml", "--backbone", speaking, "--max-eval", 4, "--max-steps", 2)
    status, _, error = command(run, *options, "--out", tmp_path, "--name", "x")
    assert status == 0, error
    assert load_run(tmp_path / "x").readout.said == {"demo-topic": SAID}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "verbaliser", *SAY), "has no masked-LM head in its checkpoint; use --head linear or pooler"),
        (("--head", "magic"), "--head 'magic'"),
        (("--head", "pooler", "--pooling", "mean"), "--head 'pooler': a pooler reads the first piece"),
        (("--head", "verbaliser", "--label-words", "city=w7"), "write TASK.LABEL=WORD"),
        (("--head", "verbaliser", "--label-words", "demo-topics.city=w7"), "demo-topics: no chosen task of labels"),
        (("--head", "verbaliser", "--label-words", "demo-count.city=w7"), "there are demo-topic"),
    ],
)
def test_a_bad_request_gets_one_clear_error(options, message: str, backbone: Path, command, tmp_path: Path) -> None:
    status, output, error = command(run, *small(backbone, tmp_path, *options))
    assert (status, output) == (2, "")
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "x" / "config.toml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label-words", "demo-topic.town=w7"), "no label 'town'; there are city, country, currency, language"),
        (SAY[:6], "no piece for 'language'"),
        ((*SAY, "--method", "linear-probe"), "--method linear-probe: trains heads alone"),
    ],
)
def test_words_and_methods_that_do_not_fit(options, message: str, speaking: Path, command, tmp_path: Path) -> None:
    options = (*small(speaking, tmp_path), "--head", "verbaliser", *options)
    status, output, error = command(run, *options)
    assert (status, output) == (2, "")
    assert message in error
    assert "Traceback" not in error


def test_a_run_whose_readout_is_gone_or_of_another_kind(speaking: Path, command, tmp_path: Path) -> None:
    options = ("--head", "pooler", "--tasks", "demo-topic", "--languages", "en")
    assert command(run, *small(speaking, tmp_path, *options))[0] == 0
    file = tmp_path / "x" / "readout.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:-9], (tmp_path / "x" / "heads.safetensors").read_bytes()):
        file.write_bytes(damaged)
        with pytest.raises(PolypromptError, match="missing or damaged"):
            load_run(tmp_path / "x")
    file.unlink()
    with pytest.raises(PolypromptError, match="missing or damaged"):
        load_run(tmp_path / "x")
    file.write_bytes(whole)
    assert load_run(tmp_path / "x").readout.kind is HeadKind.POOLER


def test_the_head_of_a_real_checkpoint(shared: Path, command, tmp_path: Path) -> None:
    """SST-2 said as bad and good: the numbers of BertForMaskedLM before training, better than chance after it."""
    folder = shared / "models" / "bert-tiny-splade-en"
    words = ("--label-words", "sst2.negative=bad", "--label-words", "sst2.positive=good")
    status, _, error = command(
        run,
        *("--suite", "glue", "--tasks", "sst2", "--data-dir", shared / "data", "--backbone", folder),
        *("--head", "verbaliser", *words, "--precision", "fp32", "--max-train", 3200, "--max-eval", 200),
        *("--max-steps", 100, "--out", tmp_path, "--name", "x"),
    )
    assert status == 0, error
    assert "sst2: negative is said as 'bad', positive is said as 'good'" in error
    repeat(tmp_path / "x")

    peer = BertForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load_run(tmp_path / "x")
    model.prompt = None
    card = read_model(tmp_path / "x" / "manifest.json", Manifest).tasks[0]
    text = "a gripping and often touching film"
    ids = tokenizer(f"[MASK] {text}", return_tensors="pt")
    with torch.no_grad():
        wanted = peer(**ids).logits[0, 1, tokenizer.convert_tokens_to_ids(["bad", "good"])]
    features = encoder_of(model, [card]).features(card, [Example("1", text)])
    found = compute(model, card, features, find_device("fp32", cpu=True))[0]
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-5)
    [record] = read_model(tmp_path / "x" / "results.json", Results).records
    assert record.scores["accuracy"] > record.chance["accuracy"] + 5
