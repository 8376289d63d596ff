"""Prompts from and to other programs, beside peft itself and the layout of the P-Tuning v2 code written out here."""

import gzip
import json
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_methods import folder_of
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, VOCABULARY, tiny_model, tiny_tokenizer
from torch import nn
from transformers import AutoModel, AutoModelForTokenClassification, BertConfig, BertModel, DynamicCache

import exporters.peft
from benchmarks.errors import PolypromptError
from benchmarks.registry import find_task
from benchmarks.task import Kind
from exporters.peft import export_adapter
from harness import interchange
from harness.backbone import load_backbone
from harness.config import make_config
from harness.execute import execute
from harness.interchange import convert, read_foreign
from harness.model import PromptedModel
from harness.screen import Screen
from harness.store import load_run

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

SLOTS = 5
CACHED = [family for family in FAMILIES if family != "distilbert"]  # it takes no past keys and values
NAMES = find_task("demo-names").card
LENGTHS = torch.tensor([9, 4, 1, 7])


def rows(pad_id: int, vocabulary: int = VOCABULARY):
    """Random rows, their mask and the marks of their texts."""
    real = torch.arange(9) < LENGTHS[:, None]
    ids = torch.randint(5, vocabulary, real.shape, generator=torch.Generator().manual_seed(1)).masked_fill(
        ~real, pad_id
    )
    return ids, real.long(), ((torch.arange(9) >= LENGTHS[:, None] // 2) & real).long()


def run_of(backbone: Path, out: Path, name: str = "run", **settings) -> Path:
    given = {"suite": ["demo"], "languages": ["en", "de"], "max_train": 24, "max_eval": 6, "batch": 8, "max_steps": 3}
    given |= {"backbone": str(backbone), "precision": "fp32", "out": out, "name": name, "selection": "last"}
    execute(make_config(given | settings, "test"), False, Screen(True))
    return out / name


def theirs_on_tokens(folder: Path, adapter: Path, labels: int, family: str) -> torch.Tensor:
    """What peft gives for the random rows with an adapter around a class for tokens."""
    base = AutoModelForTokenClassification.from_pretrained(folder, num_labels=labels)
    model = peft.PeftModel.from_pretrained(base, adapter).eval()
    ids, mask, types = rows(base.config.pad_token_id)
    marks = {"token_type_ids": types} if family in ("bert", "electra") else {}
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, **marks).logits


@torch.no_grad()
def ours_on_tokens(model: PromptedModel, card=NAMES) -> torch.Tensor:
    ids, _, types = rows(model.backbone.pad_id)
    return model.outputs(card, ids, LENGTHS, types)


def assert_close(got: torch.Tensor, expected: torch.Tensor, atol: float = 5e-5) -> None:
    for row, (one, other) in enumerate(zip(got, expected, strict=True)):
        torch.testing.assert_close(one[: LENGTHS[row]], other[: LENGTHS[row]], rtol=0, atol=atol)


def peft_config(kind: str, family: str) -> peft.PeftConfig:
    settings = {"task_type": "TOKEN_CLS", "num_virtual_tokens": SLOTS}
    settings |= {"num_layers": LAYERS, "num_attention_heads": HEADS}
    if kind == "prompt":
        return peft.PromptTuningConfig(token_dim=16 if family == "electra" else HIDDEN, **settings)
    return peft.PrefixTuningConfig(token_dim=HIDDEN, prefix_projection=kind == "projected", **settings)


def adapter_of(kind: str, family: str, backbone: Path, out: Path) -> Path:
    """An adapter that peft saved, with random weights everywhere."""
    torch.manual_seed(3)
    base = AutoModelForTokenClassification.from_pretrained(backbone, num_labels=len(NAMES.labels))
    model = peft.get_peft_model(base, peft_config(kind, family))
    for name, weight in model.named_parameters():
        if "prompt_encoder" in name or "classifier" in name:
            nn.init.normal_(weight)
    model.save_pretrained(out)
    return out


CASES = [
    *((kind, family) for kind in ("prefix", "prompt") for family in CACHED),
    *(("projected", "bert"), ("prompt", "distilbert")),
]


@pytest.mark.parametrize(("kind", "family"), CASES)
def test_an_adapter_of_peft_gives_the_same_logits_here(kind, family, tmp_path):
    """From peft's folder through the command, a run that trains nothing, and back from disk."""
    backbone = folder_of(family, tmp_path / "backbone")
    adapter = adapter_of(kind, family, backbone, tmp_path / "adapter")
    about = convert(adapter, load_backbone(str(backbone)), tmp_path / "start", NAMES)
    assert about["head"].startswith("with its head, in the order O, B-")
    settings = {"method": about["method"], "start_from": tmp_path / "start", "max_steps": 0, "tasks": ["demo-names"]}
    model = load_run(run_of(backbone, tmp_path, **settings))
    expected = theirs_on_tokens(backbone, adapter, len(NAMES.labels), family)
    got = ours_on_tokens(model)
    front = SLOTS if kind == "prompt" else 0
    assert_close(got, expected[:, front:])
    assert got.std() > 0.5, "logits near zero would be close to anything"
    assert model.max_positions == model.backbone.max_positions - SLOTS


@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("kind", ["tagging", "span", "sequence"])
def test_a_checkpoint_of_ptuning_v2_gives_the_same_logits_here(kind, mlp, tmp_path):
    """The forward pass of the authors' classes for BERT, with their names of weights, written out here."""
    backbone = tmp_path / "backbone"
    folder_of("bert", backbone)
    torch.manual_seed(4)
    bert = BertModel(BertConfig.from_pretrained(backbone))  # with a pooler
    bert.load_state_dict(tiny_model("bert").state_dict(), strict=False)
    nn.init.normal_(bert.pooler.dense.weight, std=0.2)
    bert.eval().save_pretrained(backbone)
    task = {"tagging": "demo-names", "span": "demo-answers", "sequence": "demo-topic"}[kind]
    card = find_task(task).card
    head = nn.Linear(HIDDEN, len(card.labels) or 2)
    width = 2 * LAYERS * HIDDEN
    embedding = nn.Embedding(SLOTS, HIDDEN if mlp else width)
    trans = nn.Sequential(nn.Linear(HIDDEN, 20), nn.Tanh(), nn.Linear(20, width)) if mlp else nn.Identity()
    for part in (head, embedding, trans):
        for weight in part.parameters():
            nn.init.normal_(weight)
    state = {f"bert.{name}": weight for name, weight in bert.state_dict().items()}
    state |= {f"prefix_encoder.embedding.{name}": weight for name, weight in embedding.state_dict().items()}
    state |= {f"prefix_encoder.trans.{name}": weight for name, weight in trans.state_dict().items()}
    state |= {f"{'qa_outputs' if kind == 'span' else 'classifier'}.{n}": w for n, w in head.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")

    ids, mask, types = rows(0)
    with torch.no_grad():
        past = trans(embedding(torch.arange(SLOTS).expand(len(ids), -1)))
        past = past.view(len(ids), SLOTS, 2 * LAYERS, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4).split(2)
        longer = torch.cat([torch.ones(len(ids), SLOTS), mask], 1)
        cache = DynamicCache([(pair[0], pair[1]) for pair in past])
        out = bert(input_ids=ids, attention_mask=longer, token_type_ids=types, past_key_values=cache)
        expected = head(out.pooler_output if kind == "sequence" else out.last_hidden_state)

    about = convert(tmp_path / "model.safetensors", load_backbone(str(backbone)), tmp_path / "start", card)
    settings = {"start_from": tmp_path / "start", "max_steps": 0, "tasks": [task]}
    model = load_run(run_of(backbone, tmp_path, **settings, head="pooler" if kind == "sequence" else "linear"))
    got = ours_on_tokens(model, card)
    if kind == "sequence":
        assert about["head"].endswith("score it with --head pooler")
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    else:
        assert_close(got, expected, 3e-4)  # a prefix so large makes attention steep
    assert got.std() > 0.5


@pytest.fixture(scope="module")
def shifted(tmp_path_factory) -> Path:
    """A run of all tasks with a prompt that peft can express."""
    folder = tmp_path_factory.mktemp("shifted")
    settings = {"positions": "shifted", "prompt_length": SLOTS, "retrieval_prompt": True}
    return run_of(folder_of("bert", folder / "backbone"), folder, **settings)


@pytest.mark.parametrize("task", ["demo-topic", "demo-count", "demo-choice", "demo-names", "demo-answers"])
def test_peft_gives_the_same_logits_for_every_kind(shifted, task, tmp_path):
    about = export_adapter(shifted, tmp_path / "adapter", task)
    assert about["difference"] < 1e-5
    model, card = load_run(shifted), find_task(task).card
    expected = ours_on_tokens(model, card)
    got = theirs_on_tokens(shifted.parent / "backbone", tmp_path / "adapter", expected.shape[-1], "bert")
    if card.kind in (Kind.TAGGING, Kind.SPAN):
        assert_close(got, expected)
    else:
        assert about["read"] == "logits of the first piece"
        torch.testing.assert_close(got[:, 0], expected, rtol=0, atol=1e-5)
    own = read_foreign(tmp_path / "adapter", model.backbone).bank
    assert torch.equal(own.bank[0], model.prompt.bank[model.prompt.row(task)]), "and back again"


def test_peft_gives_the_same_vectors(shifted, tmp_path):
    about = export_adapter(shifted, tmp_path / "adapter", "demo-translation")
    assert (about["class"], about["labels"]) == ("AutoModel", [])
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(shifted.parent / "backbone"), tmp_path / "adapter")
    ids, mask, _ = rows(0)
    with torch.no_grad():
        states = model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors = torch.stack([state[:length].mean(0) for state, length in zip(states, LENGTHS, strict=True)])
        ours = load_run(shifted).outputs(find_task("demo-translation").card, ids, LENGTHS, torch.zeros_like(ids))
    torch.testing.assert_close(vectors / vectors.norm(dim=1, keepdim=True), ours, rtol=0, atol=1e-5)


EXPORTS = [
    *(("ptuning-v2", family, {"positions": "shifted"}) for family in CACHED),
    *(("prompt-tuning", family, {"positions": "shifted"}) for family in FAMILIES),
    *(("lora", family, {}) for family in FAMILIES),
    ("ptuning-v2", "bert", {"positions": "shifted", "sharing": "separate", "pooling": "mean"}),
]


@pytest.mark.parametrize(("method", "family", "settings"), EXPORTS)
def test_every_method_that_peft_knows(method, family, settings, tmp_path):
    backbone = folder_of(family, tmp_path / "backbone")
    run = run_of(backbone, tmp_path, method=method, prompt_length=SLOTS, tasks=["demo-names", "demo-topic"], **settings)
    export_adapter(run, tmp_path / "adapter", "demo-names")
    got = theirs_on_tokens(backbone, tmp_path / "adapter", len(NAMES.labels), family)
    assert_close(got[:, SLOTS if method == "prompt-tuning" else 0 :], ours_on_tokens(load_run(run)))
    assert export_adapter(run, tmp_path / "adapter", "demo-topic")["difference"] < 1e-5, "an older one is replaced"


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_heads_behind_a_pooler(family, tmp_path):
    """RoBERTa's class has a dense layer and tanh before its head, which a pooler fits into; ELECTRA's has a GELU."""
    backbone = folder_of(family, tmp_path / "backbone")
    if family == "bert":
        BertModel(BertConfig.from_pretrained(backbone)).save_pretrained(backbone)
    run = run_of(backbone, tmp_path, positions="shifted", tasks=["demo-topic"], head="pooler")
    if family == "electra":
        with pytest.raises(PolypromptError, match="no class of electra with a head behind"):
            export_adapter(run, tmp_path / "adapter")
        return
    about = export_adapter(run, tmp_path / "adapter")
    assert (about["class"], about["read"]) == ("AutoModelForSequenceClassification", "logits")
    assert about["difference"] < 1e-5


def test_minilm_both_ways(shared, tmp_path):
    backbone = shared / "models" / "minilm-l6-en"
    settings = {"prompt_length": 16, "positions": "shifted", "tasks": ["demo-names"], "languages": ["en"]}
    run = run_of(backbone, tmp_path, **settings)
    about = export_adapter(run, tmp_path / "adapter")
    assert about["difference"] < 1e-5
    convert(tmp_path / "adapter", load_backbone(str(backbone)), tmp_path / "start", NAMES)
    back = run_of(backbone, tmp_path, "back", start_from=tmp_path / "start", max_steps=0, tasks=["demo-names"])
    for name in ("prompt.safetensors", "heads.safetensors"):
        old, new = load_file(run / name), load_file(back / name)
        assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old), name


REFUSED = [
    ({}, "train it with --positions shifted"),
    ({"positions": "shifted", "prompt_layers": "top:1"}, "this is a prompt in some layers alone"),
    ({"positions": "shifted", "init": "zero-gated"}, "this is a gate"),
    ({"method": "bitfit"}, "peft knows prompts and LoRA"),
    ({"method": "linear-probe"}, "peft knows prompts and LoRA"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_peft_cannot_express_is_said_in_one_sentence(settings, message, tmp_path):
    run = run_of(folder_of("bert", tmp_path / "backbone"), tmp_path, tasks=["demo-topic"], **settings)
    with pytest.raises(PolypromptError, match=message):
        export_adapter(run, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_with_which_peft_computes_something_else_is_not_written(shifted, tmp_path, monkeypatch):
    form_of = exporters.peft.form_of

    def wrong(model, card):
        form = form_of(model, card)
        form.weights["classifier.bias"].add_(0.01)
        return exporters.peft.Form(form.type, {name: tensor + 0.01 for name, tensor in form.weights.items()}, form.read)

    monkeypatch.setattr(exporters.peft, "form_of", wrong)
    with pytest.raises(PolypromptError, match="peft computes other values"):
        export_adapter(shifted, tmp_path / "adapter", "demo-topic")
    assert not (tmp_path / "adapter").exists()


def test_distilbert_takes_no_prefix_in_peft(tmp_path):
    backbone = folder_of("distilbert", tmp_path / "backbone")
    run = run_of(backbone, tmp_path, tasks=["demo-topic"], positions="shifted")
    with pytest.raises(PolypromptError, match="does not work on distilbert"):
        export_adapter(run, tmp_path / "adapter")


def test_the_commands(shifted, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "adapter")
    monkeypatch.setattr(sys, "argv", ["peft", str(shifted), "--out", out])
    with pytest.raises(PolypromptError, match="name one with --task; there are demo-topic"):
        exporters.peft.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--task", "demo-names"])
    assert exporters.peft.main() == 0
    assert "AutoModelForTokenClassification; read logits of each piece" in capsys.readouterr().out
    arguments = [out, "--backbone", str(shifted.parent / "backbone"), "--out", str(tmp_path / "start")]
    monkeypatch.setattr(sys, "argv", ["interchange", *arguments, "--task", "demo-names"])
    assert interchange.main() == 0
    assert "--method ptuning-v2 --start-from" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json"])
    assert interchange.main() == 0
    assert json.loads(capsys.readouterr().out)["slots"] == SLOTS
    assert sorted(path.name for path in (tmp_path / "start").iterdir()) == ["heads.safetensors", "prompt.safetensors"]


def test_files_that_are_no_prompt_of_this_encoder_are_refused(tmp_path):
    backbone = load_backbone(str(folder_of("bert", tmp_path / "backbone")))
    adapter = adapter_of("prefix", "bert", tmp_path / "backbone", tmp_path / "adapter")

    def refused(path: Path, message: str) -> None:
        with pytest.raises(PolypromptError, match=message):
            read_foreign(path, backbone)

    refused(tmp_path / "nothing", "no such file or folder")
    refused(tmp_path / "backbone", r"no adapter_config\.json there")
    refused(tmp_path / "backbone" / "config.json", "not a whole safetensors file")
    refused(tmp_path / "backbone" / "model.safetensors", r"no tensor prefix_encoder\.embedding\.weight there")
    for old in (False, True):
        torch.save(
            {"prefix_encoder.embedding.weight": torch.zeros(2, 2)},
            tmp_path / "p.bin",
            _use_new_zipfile_serialization=not old,
        )
        refused(tmp_path / "p.bin", r"a pickle, which can run code .*save_file\(torch\.load\(FILE, weights_only=True\)")
    config = json.loads((adapter / "adapter_config.json").read_text())

    def changed(message: str, **more) -> None:
        (adapter / "adapter_config.json").write_text(json.dumps(config | more))
        refused(adapter, message)

    changed("an adapter of type LORA; only prompts", peft_type="LORA")
    changed("an encoder with a decoder", num_transformer_submodules=2)
    changed("5 slots, but adapter_config.json says 7", num_virtual_tokens=7)
    changed("not the configuration of a prompt", num_virtual_tokens="many")
    changed("it is of another encoder", peft_type="PROMPT_TUNING")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    changed("not a whole|no adapter_model.safetensors there")
    torch.save({}, adapter / "adapter_model.bin")
    changed("adapter_model.bin: a pickle")


def test_heads_that_ours_cannot_be_are_left_out(tmp_path):
    """A sequence class of another family reads layers that were trained with it, and this BERT has no pooler."""
    topic = find_task("demo-topic").card
    for family in ("bert", "roberta"):
        backbone = load_backbone(str(folder_of(family, tmp_path / family)))
        adapter = adapter_of("prefix", family, tmp_path / family, tmp_path / f"{family}-adapter")
        about = convert(adapter, backbone, tmp_path / "start", topic)
        assert "is not the pooler in the checkpoint" in about["head"]
        about = convert(adapter, backbone, tmp_path / "start", find_task("demo-answers").card)
        assert about["head"] == "no head for demo-answers in it"
        other = NAMES.model_copy(update={"labels": NAMES.labels[:3]})
        about = convert(adapter, backbone, tmp_path / "start", other)
        assert about["head"] == "its head is left out: it has 7 labels, and demo-names 3"
        assert not (tmp_path / "start" / "heads.safetensors").exists()


def predictions(run: Path) -> dict[str, bytes]:
    files = (run / "predictions").glob("*.gz")
    return {path.name: gzip.decompress(path.read_bytes()) for path in files}


STARTS = [
    ({}, {}),
    ({"init": "zero-gated", "prompt_layers": "0,2", "positions": "shifted"}, {}),
    ({"sharing": "low-rank"}, {"sharing": "separate"}),
    ({"sharing": "separate"}, {"sharing": "separate"}),
    ({"method": "prompt-tuning"}, {"method": "prompt-tuning", "sharing": "low-rank"}),
]


@pytest.mark.parametrize(("first", "second"), STARTS)
def test_a_run_that_starts_from_another_and_trains_nothing_predicts_the_same(first, second, tmp_path):
    backbone = folder_of("bert", tmp_path / "backbone")
    tasks = {"tasks": ["demo-topic", "demo-names", "demo-count"]}
    one = run_of(backbone, tmp_path, "one", prompt_length=SLOTS, **tasks, **first)
    two = run_of(backbone, tmp_path, "two", start_from=one, max_steps=0, **tasks, **second)
    assert predictions(one) == predictions(two)
    three = run_of(backbone, tmp_path, "three", start_from=one, **tasks, **second)
    assert predictions(one) != predictions(three), "training goes on from there"
    assert "begun as that of one" in (two / "manifest.json").read_text()


WRONG = [
    ({"prompt_length": 4}, "--prompt-length 4: leave it out, .* says 5"),
    ({"prompt_layers": "all"}, "--prompt-layers all: leave it out, .* says 0,1,2"),
    ({"init": "normal"}, "--init normal: leave it out"),
    ({"method": "prompt-tuning"}, "its prompt is for --method ptuning-v2"),
    ({"method": "lora"}, "its prompt is for --method ptuning-v2"),
    ({"start_from": Path("nowhere")}, "nowhere/prompt.safetensors: not the prompts of a run"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_that_contradict_the_start_are_refused(shifted, settings, message):
    with pytest.raises(PolypromptError, match=message):
        make_config({"suite": ["demo"], "start_from": shifted} | settings, "test")


def test_a_start_is_known_by_what_it_says(shifted, tmp_path):
    config = make_config({"suite": ["demo"], "start_from": shifted}, "test")
    assert (config.prompt_length, config.prompt_layers, config.positions) == (SLOTS, "0,1,2", "shifted")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("prompt.safetensors", "heads.safetensors"):
        (copy / name).write_bytes((shifted / name).read_bytes())
    assert make_config({"suite": ["demo"], "start_from": copy}, "test").identity == config.identity
    heads = load_file(copy / "heads.safetensors")
    save_file({name: tensor + 1 for name, tensor in heads.items()}, copy / "heads.safetensors")
    assert make_config({"suite": ["demo"], "start_from": copy}, "test").identity != config.identity


def test_a_start_for_another_encoder_or_without_a_common_prompt(shifted, tmp_path):
    small = tmp_path / "small"
    config = BertConfig.from_pretrained(shifted.parent / "backbone")
    config.num_attention_heads = 2
    BertModel(config).save_pretrained(small)
    tiny_tokenizer("bert").save(str(small / "tokenizer.json"))
    with pytest.raises(PolypromptError, match="it is of another encoder"):
        run_of(small, tmp_path, start_from=shifted)
    backbone = shifted.parent / "backbone"
    tasks = {"tasks": ["demo-topic", "demo-names"]}
    separate = run_of(backbone, tmp_path, "separate", sharing="separate", **tasks)
    with pytest.raises(PolypromptError, match="none for demo-topic, demo-names together"):
        run_of(backbone, tmp_path, "shared", start_from=separate, **tasks)
    heads = load_file(separate / "heads.safetensors")
    save_file(heads | {"demo-topic.weight": torch.zeros(2, 2)}, separate / "heads.safetensors")
    with pytest.raises(PolypromptError, match="its heads do not fit"):
        run_of(backbone, tmp_path, "heads", start_from=separate, tasks=["demo-topic"])
