"""DeBERTa-v2 and v3: against transformers, against a loop over rows, heads and pieces, and through whole runs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_graph
import torch
from bundles import CARDS, tiny_prompted
from safetensors.torch import load_file
from test_graph import Engine, check, run_onnxruntime, run_openvino
from test_layout import check as check_folders
from tiny import DEBERTA_V3, HEADS, HIDDEN, LAYERS, SHAPE, VOCABULARY, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2ForMaskedLM, DebertaV2Model
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from benchmarks.errors import PolypromptError
from benchmarks.results import Manifest, read_model, read_predictions
from benchmarks.task import TaskCard
from exporters.bundle import BundleCard, read_tasks
from exporters.export import export
from harness import encoder, products
from harness.attention import Prefix
from harness.backbone import Backbone, SoftPrompt, Trunk, load_backbone
from harness.config import load_config
from harness.distances import Distances
from harness.heads import HeadKind, Pooling
from harness.methods import METHODS
from harness.model import PromptedModel
from harness.readout import make_readout
from harness.store import load_run

SEQ = 23
LENGTHS = torch.tensor([SEQ, 1, 9, 17])
VARIANTS = {
    "v3": {},
    "maps of their own": {"share_att_key": False},
    "c2p alone": {"pos_att_type": "c2p", "share_att_key": False},
    "p2c alone": {"pos_att_type": "p2c"},
    "no buckets": {"position_buckets": -1},
    "cut distances": {"position_buckets": -1, "max_relative_positions": 6},
    "buckets up to 12": {"max_relative_positions": 12},
    "table not normalised": {"norm_rel_ebd": "none"},
    "v2 with positions and types": {"position_biased_input": True, "type_vocab_size": 2},
    "no distances": {"relative_attention": False},
    "relu and a large epsilon": {"hidden_act": "relu", "layer_norm_eps": 0.1},
}
PREFIXED = [LAYERS - 1, 0]


def backbone_of(**settings: object) -> tuple[Backbone, DebertaV2Model]:
    """A tiny backbone, and an untouched copy of its model."""
    model = tiny_model("deberta-v2", **settings)
    return Backbone("tiny", model, tiny_tokenizer("deberta-v2")), copy.deepcopy(model)


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def pair(request: pytest.FixtureRequest) -> tuple[Backbone, DebertaV2Model]:
    return backbone_of(**request.param)


def rows(lengths: Tensor = LENGTHS) -> tuple[Tensor, Tensor]:
    """Random rows and marks of their texts; behind a row's end stand words, which nothing may read."""
    generator = torch.Generator().manual_seed(1)
    seq = int(lengths.max())
    ids = torch.randint(5, VOCABULARY, (len(lengths), seq), generator=generator)
    return ids, (torch.arange(seq) >= lengths[:, None] // 2).long()


def random_prefix(batch: int = 1, gated: bool = False, layers: tuple[int, ...] = (0, LAYERS - 1)) -> Prefix:
    generator = torch.Generator().manual_seed(2)
    return Prefix(torch.randn(len(layers), 2, batch, HEADS, 5, HIDDEN // HEADS, generator=generator), layers, gated)


def bucket(distance: int, config: dict[str, object]) -> int:
    """The row of the table of relative positions, by the words of the paper's code, in plain arithmetic."""
    longest = config["max_relative_positions"]
    longest = config["max_position_embeddings"] if longest < 1 else longest
    buckets, half = config["position_buckets"], config["position_buckets"] // 2
    span = buckets if buckets > 0 else longest
    if buckets > 0 and abs(distance) > half:
        steps = math.log(abs(distance) / half) / math.log((longest - 1) / half) * (half - 1)
        distance = int(math.copysign(math.ceil(round(steps, 6)) + half, distance))
    return min(max(distance + span, 0), 2 * span - 1)


def by_hand(model: DebertaV2Model, ids: Tensor, types: Tensor, prefix: Prefix | None = None) -> Tensor:
    """One row without padding, head by head and pair by pair, in float64: states [length, hidden]. With gradients."""
    model, config = copy.deepcopy(model).double(), model.config.to_dict()
    tables, stack, width = model.embeddings, model.encoder, HIDDEN // HEADS
    x = tables.word_embeddings.weight[ids]
    if config["position_biased_input"]:
        x = x + tables.position_embeddings.weight[: len(ids)]
    if config["type_vocab_size"]:
        x = x + tables.token_type_embeddings.weight[types]
    x = tables.LayerNorm(x)
    far = None
    if config["relative_attention"]:
        far = stack.rel_embeddings.weight
        far = stack.LayerNorm(far) if config["norm_rel_ebd"] == "layer_norm" else far
    parts = config["pos_att_type"]
    divisor = math.sqrt((1 + len(parts)) * width)
    index = [[bucket(i - j, config) for j in range(len(x))] for i in range(len(x))]
    for number, layer in enumerate(stack.layer):
        own = layer.attention.self
        heads = []
        for head in range(HEADS):
            of_head = slice(head * width, (head + 1) * width)
            query, key, value = (m(x)[:, of_head] for m in (own.query_proj, own.key_proj, own.value_proj))
            scores = query @ key.T
            if far is not None:
                maps = (own.key_proj, own.query_proj) if config["share_att_key"] else None
                far_key = (maps[0] if maps else own.pos_key_proj)(far)[:, of_head] if "c2p" in parts else None
                far_query = (maps[1] if maps else own.pos_query_proj)(far)[:, of_head] if "p2c" in parts else None
                added = torch.zeros_like(scores)
                if far_key is not None:
                    added = added + torch.stack([query[i] @ far_key[own_row].T for i, own_row in enumerate(index)])
                if far_query is not None:
                    added = added + torch.stack([(key * far_query[own_row]).sum(1) for own_row in index])
                scores = scores + added
            scores, extra = scores / divisor, 0.0
            if prefix is not None and number in prefix.layers:
                front = prefix.tensor[prefix.layers.index(number), :, 0, head].double()
                to_prefix = query @ front[0].T / divisor
                if prefix.gated:
                    extra = torch.softmax(to_prefix, -1) @ front[1]
                else:
                    scores, value = torch.cat([to_prefix, scores], 1), torch.cat([front[1], value])
            heads.append(torch.softmax(scores, -1) @ value + extra)
        after = layer.attention.output
        x = after.LayerNorm(x + after.dense(torch.cat(heads, 1)))
        inner = layer.intermediate.dense(x)
        inner = nn.functional.gelu(inner) if config["hidden_act"] == "gelu" else nn.functional.relu(inner)
        x = layer.output.LayerNorm(x + layer.output.dense(inner))
    return x


def marks(backbone: Backbone, types: Tensor) -> dict[str, Tensor]:
    return {"token_type_ids": types} if backbone.token_types else {}


@torch.no_grad()
def test_states_are_those_of_transformers(pair: tuple[Backbone, DebertaV2Model]) -> None:
    backbone, model = pair
    for lengths in (LENGTHS, torch.full_like(LENGTHS, backbone.max_positions)):
        ids, types = rows(lengths)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        expected = model(input_ids=ids, attention_mask=mask, **marks(backbone, types)).last_hidden_state
        got = backbone(ids, lengths, types)
        torch.testing.assert_close(got[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
        backbone.engine = "transformers"
        other = backbone(ids, lengths, types)
        backbone.engine = "own"
        torch.testing.assert_close(other[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize(("buckets", "longest"), [(256, 512), (8, 42), (2, 42), (320, 512), (64, 77), (0, 42), (0, 6)])
def test_rows_of_distances_are_those_of_transformers(buckets: int, longest: int) -> None:
    """Also of distances beyond the longest, which have its row."""
    length, span = longest + 30, buckets or longest
    states = torch.zeros(1, length, 1)
    expected = build_relative_position(states, states, buckets or -1, longest)[0] + span
    places = torch.arange(length)
    table = torch.from_numpy(Distances((), 1.0, span, buckets, longest, False, False).rows())
    found = table[(places[:, None] - places).clamp(-longest, longest) + longest]
    assert torch.equal(found, expected.clamp(0, 2 * span - 1))


@pytest.mark.parametrize("gated", [False, True])
def test_prefix_and_its_gradient_are_those_of_the_loop(pair: tuple[Backbone, DebertaV2Model], gated: bool) -> None:
    backbone, model = pair
    ids, types = rows()
    ours, theirs = random_prefix(gated=gated), random_prefix(gated=gated)
    for prefix in (ours, theirs):
        prefix.tensor.requires_grad_()
    got, total = backbone(ids, LENGTHS, types, ours), 0.0
    for row, length in enumerate(LENGTHS.tolist()):
        expected = by_hand(model, ids[row, :length], types[row, :length] * backbone.token_types, theirs)
        torch.testing.assert_close(got[row, :length].double(), expected, atol=1e-5, rtol=1e-5)
        total = total + (expected.sin() * torch.arange(HIDDEN)).sum()
    plain = backbone(ids, LENGTHS, types)
    assert (got[0] - plain[0]).abs().max() > 1e-2
    real = torch.arange(SEQ) < LENGTHS[:, None]
    (got[real].sin() * torch.arange(HIDDEN)).sum().backward()
    total.backward()
    assert (ours.tensor.grad.abs().amax((2, 3, 4, 5)) > 1e-2).all()
    torch.testing.assert_close(ours.tensor.grad, theirs.tensor.grad, atol=2e-4, rtol=2e-4)
    assert all(weight.grad is None for weight in backbone.parameters())


def test_a_row_of_prefixes_and_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix a row; attention in parts, as long rows have it, and by torch's own kernel."""
    backbone, model = backbone_of()
    ids, types = rows()
    prefixes = random_prefix(len(LENGTHS))
    found = []
    for chunk in (products.CHUNK, 2 * HEADS * SEQ * (SEQ + 5), 0):
        monkeypatch.setattr(products, "CHUNK", chunk)
        tensor = prefixes.tensor.clone().requires_grad_()
        monkeypatch.setattr(products, "are_faster", lambda *_: chunk > 0)  # noqa: B023 (read in this turn alone)
        states = backbone(ids, LENGTHS, types, Prefix(tensor, prefixes.layers))
        real = torch.arange(SEQ) < LENGTHS[:, None]
        states[real].sin().sum().backward()
        found.append((states[real].detach(), tensor.grad))
        for row, length in enumerate(LENGTHS.tolist()):
            expected = by_hand(
                model, ids[row, :length], types[row], Prefix(tensor[:, :, row : row + 1], prefixes.layers)
            )
            torch.testing.assert_close(states[row, :length].double(), expected, atol=1e-5, rtol=1e-5)
    for states, gradient in found[1:]:
        torch.testing.assert_close(states, found[0][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, found[0][1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("read", [0, 1, 8])
def test_only_what_is_read(pair: tuple[Backbone, DebertaV2Model], read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, _ = pair
    ids, types = rows()
    seen = []
    norm = encoder.Norm.__call__
    monkeypatch.setattr(encoder.Norm, "__call__", lambda self, x: seen.append(x.shape[1]) or norm(self, x))
    found = []
    for only in (read, None):
        prefix = random_prefix()
        prefix.tensor.requires_grad_()
        states = backbone(ids, LENGTHS, types, prefix, only)
        states = states if only is not None else states[:, read : read + 1]
        there = read < LENGTHS
        (states[there].sin() * torch.arange(HIDDEN)).sum().backward()
        found.append((states[there].detach(), prefix.tensor.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert seen[: 2 * LAYERS] == [SEQ] * 2 * (LAYERS - 1) + [1, 1]


def test_the_trunk_ends_where_the_prompt_begins(pair: tuple[Backbone, DebertaV2Model]) -> None:
    backbone, _ = pair
    ids, types = rows()
    prefix = random_prefix(layers=(LAYERS - 1,))
    trunk = Trunk(backbone.trunk(ids, LENGTHS, types, LAYERS - 1), LAYERS - 1)
    whole, kept = (backbone(ids, LENGTHS, types, prefix, trunk=t) for t in (None, trunk))
    torch.testing.assert_close(kept, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_keys_and_values_are_those_of_contents(pair: tuple[Backbone, DebertaV2Model]) -> None:
    """`--init kv`: what the maps of a layer make of what enters it, without a distance."""
    backbone, model = pair
    ids, types = rows()
    found = backbone.keys_values(ids, LENGTHS, types)
    assert found.shape == (LAYERS, 2, len(LENGTHS), HEADS, SEQ, HIDDEN // HEADS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = {name: value[row : row + 1, :length] for name, value in marks(backbone, types).items()}
        states = model(input_ids=ids[row : row + 1, :length], output_hidden_states=True, **alone).hidden_states
        for number, (layer, entering) in enumerate(zip(model.encoder.layer, states, strict=False)):
            for kind, linear in enumerate((layer.attention.self.key_proj, layer.attention.self.value_proj)):
                expected = linear(entering[0]).view(length, HEADS, -1).transpose(0, 1)
                got = found[number, kind, row, :, :length]
                torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_vectors_in_front_stand_in_the_row(pair: tuple[Backbone, DebertaV2Model]) -> None:
    """Unlike keys and values they have places, as in the module of transformers."""
    backbone, model = pair
    ids, types = rows()
    vectors = torch.randn(1, 5, HIDDEN, generator=torch.Generator().manual_seed(3))
    inputs = torch.cat([vectors.expand(len(ids), -1, -1), model.embeddings.word_embeddings(ids)], 1)
    mask = (torch.arange(SEQ + 5) < LENGTHS[:, None] + 5).long()
    places = torch.arange(SEQ + 5)[None]
    front = {name: nn.functional.pad(value, (5, 0)) for name, value in marks(backbone, types).items()}
    expected = model(inputs_embeds=inputs, attention_mask=mask, position_ids=places, **front).last_hidden_state[:, 5:]
    got = backbone(ids, LENGTHS, types, SoftPrompt(vectors, shifted=True))
    real = mask[:, 5:].bool()
    torch.testing.assert_close(got[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"share_att_key": False}], ids=["shared maps", "maps of their own"])
def test_one_precision_alone(settings: dict[str, object]) -> None:
    """bf16: near to fp32, and the same whether the fp32 weights are kept beside it or not."""
    (both, _), (alone, _) = backbone_of(**settings), backbone_of(**settings)
    ids, types = rows()
    exact = both(ids, LENGTHS, types, random_prefix())
    with torch.autocast("cpu", torch.bfloat16):
        expected = both(ids, LENGTHS, types, random_prefix())
        alone.settle(torch.bfloat16)
        assert torch.equal(alone(ids, LENGTHS, types, random_prefix()), expected)
    real = torch.arange(SEQ) < LENGTHS[:, None]
    assert ((expected - exact)[real].abs() < 0.15).float().mean() > 0.99


def test_checkpointed_activations_give_the_same_gradient() -> None:
    backbone, _ = backbone_of()
    ids, types = rows()
    gradients = []
    for on in (False, True):
        backbone.checkpoint_activations(on)
        prefix = random_prefix()
        prefix.tensor.requires_grad_()
        backbone(ids, LENGTHS, types, prefix)[:, 0].sum().backward()
        gradients.append(prefix.tensor.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_masked_lm_head_of_the_legacy_layout_is_read(legacy: bool, tmp_path: Path) -> None:
    peer = DebertaV2ForMaskedLM(DebertaV2Config(**{**SHAPE, **DEBERTA_V3, "legacy": legacy})).eval()
    with torch.no_grad():
        for weight in peer.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)) * 0.2)
    peer.save_pretrained(tmp_path)
    tiny_tokenizer("deberta-v2").save(str(tmp_path / "tokenizer.json"))
    backbone, card = load_backbone(str(tmp_path)), CARDS[0]
    words = {"bad": "w40", "good": "w41", "so-so": "w42"}
    if not legacy:
        with pytest.raises(PolypromptError, match="no masked-LM head"):
            make_readout(HeadKind.VERBALISER, backbone, [card], {card.name: words})
        return
    readout = make_readout(HeadKind.VERBALISER, backbone, [card], {card.name: words})
    model = PromptedModel(backbone, None, [card], Pooling.CLS, readout)
    ids = torch.tensor([[2, 4, 9, 10, 3]])
    with torch.no_grad():
        wanted = peer(input_ids=ids).logits[:, 1, [40, 41, 42]]
    torch.testing.assert_close(model.outputs(card, ids, torch.tensor([5])), wanted, rtol=0, atol=1e-4)


# Whole runs


def folder_of(folder: Path, **settings: object) -> Path:
    tiny_model("deberta-v2", **settings).save_pretrained(folder)
    tiny_tokenizer("deberta-v2").save(str(folder / "tokenizer.json"))
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("deberta"))


OPTIONS = (
    "--languages",
    "en",
    "--max-train",
    24,
    "--max-eval",
    9,
    "--batch",
    8,
    "--max-steps",
    6,
    "--precision",
    "fp32",
)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *((method, ()) for method in METHODS),
        ("ptuning-v2", ("--prompt-layers", "top:1", "--init", "normal")),
        ("ptuning-v2", ("--init", "zero-gated", "--checkpoint-activations")),
        ("prompt-tuning", ("--engine", "transformers")),
        ("fine-tune", ("--checkpoint-activations",)),
    ],
)
def test_every_method_trains_and_is_loaded_again(
    method: str, more: tuple[str, ...], folder: Path, tiny_run: Run, tmp_path: Path
) -> None:
    status, _, error = tiny_run(
        "--backbone", folder, "--method", method, *OPTIONS, "--out", tmp_path, "--name", "run", *more
    )
    assert status == 0, error
    run = tmp_path / "run"
    assert read_model(run / "manifest.json", Manifest).steps == 6
    model, bare = load_run(run), load_backbone(str(folder), load_config(run / "config.toml").engine)
    ids, types = rows()
    changed = not torch.equal(model.backbone(ids, LENGTHS, types), bare(ids, LENGTHS, types))
    assert changed is (method in ("lora", "bitfit", "fine-tune"))
    if method == "lora":
        names = set(load_file(run / "adapter" / "adapter_model.safetensors"))
        assert sum("query_proj" in name for name in names) == sum("value_proj" in name for name in names) == 2 * LAYERS
    if method == "bitfit":
        assert all(name.endswith(".bias") for name in load_file(run / "backbone.safetensors"))


def test_the_trunk_cache_changes_no_answer(
    folder: Path, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    options = ("--backbone", folder, "--tasks", "demo-topic", "--prompt-layers", "top:1", *OPTIONS, "--out", tmp_path)
    assert tiny_run(*options, "--name", "kept")[0] == 0
    assert any((tmp_path / "cache" / "trunk").iterdir())
    assert tiny_run(*options, "--name", "computed", "--cache-gb", 0)[0] == 0
    one, other = (
        read_predictions(tmp_path / name / "predictions" / "demo-topic.en.test.jsonl.gz")
        for name in ("kept", "computed")
    )
    for row, twin in zip(one, other, strict=True):
        assert row.scores == pytest.approx(twin.scores, abs=1e-4)


def test_another_range_of_distances_is_another_trunk(
    tiny_run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights under another setting: what was kept for one is not the other's."""
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    other = folder_of(tmp_path / "other", max_relative_positions=12)
    assert load_backbone(str(other)).card.sha256 == load_backbone(str(folder)).card.sha256
    counts = []
    for name, backbone in (("one", folder), ("two", other), ("three", folder)):
        options = ("--tasks", "demo-topic", "--prompt-layers", "top:1", *OPTIONS, "--out", tmp_path, "--name", name)
        assert tiny_run("--backbone", backbone, *options)[0] == 0
        counts.append(len(list((tmp_path / "cache" / "trunk").iterdir())))
    assert counts[1] > counts[0]
    assert counts[2] == counts[1]


# What is refused


def test_transformers_takes_no_keys_and_values(folder: Path, tiny_run: Run, tmp_path: Path) -> None:
    status, _, error = tiny_run("--backbone", folder, *OPTIONS, "--out", tmp_path, "--engine", "transformers")
    assert status != 0
    assert error.count("error: ") == 1
    assert "no place for keys and values in the attention of deberta-v2" in error
    backbone, _ = backbone_of()
    backbone.engine = "transformers"
    with pytest.raises(PolypromptError, match="no place for keys and values"):
        backbone(*rows()[:1], LENGTHS, None, random_prefix())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conv_kernel_size": 3}, "a convolution behind the first layer"),
        ({"pos_att_type": "p2p|c2p"}, r"pos_att_type p2p\|c2p"),
        ({"embedding_size": 16}, "embeddings of another width"),
        ({"position_buckets": 9}, "position_buckets 9 over 42 distances"),
        ({"position_buckets": 100}, "position_buckets 100 over 42 distances"),
        ({"pos_att_type": 3}, "not the configuration of such an encoder"),
    ],
)
def test_what_is_not_computed_is_refused_before_its_weights_are_read(
    folder: Path, settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text()) | settings
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PolypromptError, match=message) as caught:
        load_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


# Exports


ALL = tuple(range(LAYERS))


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_graph_answers_mixed_tasks_of_every_kind(settings: dict[str, object], tmp_path: Path) -> None:
    if "hidden_act" in settings:
        settings = settings | {"hidden_act": "gelu"}
    check(tiny_prompted("deberta-v2", **settings), tmp_path / "b", run_onnxruntime, 1e-4)


@pytest.mark.parametrize("engine", [run_onnxruntime, run_openvino])
@pytest.mark.parametrize(
    ("layers", "more"),
    [
        (ALL, {}),
        ((), {}),
        ((1,), {"pooling": "mean"}),
        ((0, 2), {"gated": True}),
        (None, {}),
        (None, {"pooling": "mean", "positions": "shifted"}),
        (None, {"positions": "shifted", "position_biased_input": True, "type_vocab_size": 2}),
        (ALL, {"positions": "shifted", "position_biased_input": True}),
    ],
)
def test_the_graph_has_every_placement(
    layers: tuple[int, ...] | None, more: dict[str, object], engine: Engine, tmp_path: Path
) -> None:
    check(tiny_prompted("deberta-v2", layers, **more), tmp_path / "b", engine, 1e-4)


@pytest.mark.parametrize("layers", [(0, 2), None])
def test_prompts_of_unlike_lengths(
    layers: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a prefix is shorter the gap is filled with keys that have moved: their distances move with them."""
    model, lengths = tiny_prompted("deberta-v2", layers), [5, 2, 0]
    bank = model.prompt

    def cut(card: TaskCard, language: str = "") -> Prefix | SoftPrompt | None:
        row = bank.row(card.answered_by)
        tensor = bank.bank[row, ..., : lengths[row], :]
        if lengths[row] == 0:
            return None
        return SoftPrompt(tensor[None]) if layers is None else Prefix(tensor[:, :, None], layers)

    def shorter(folder: Path, card: BundleCard) -> tuple[object, dict[str, np.ndarray]]:
        parts, tensors = read_tasks(folder, card)
        return parts, tensors | {"prompt_lengths": np.minimum(tensors["prompt_lengths"], lengths)}

    assert {bank.row(card.answered_by) for card in CARDS} == {0, 1, 2}
    monkeypatch.setattr(model, "prompt_of", cut)
    monkeypatch.setattr(test_graph, "read_tasks", shorter)
    check(model, tmp_path / "b", run_onnxruntime, 1e-4)


@pytest.mark.parametrize(
    ("layers", "more"),
    [((0, 2), {}), ((1,), {"gated": True, "share_att_key": False}), ((), {"pooling": "mean"}), (None, {})],
)
def test_an_ordinary_folder_a_task(layers: tuple[int, ...] | None, more: dict[str, object], tmp_path: Path) -> None:
    """Real pieces anywhere in a row: distances are those between the pieces without what is padding."""
    check_folders(tiny_prompted("deberta-v2", layers, **more), tmp_path / "f")


@pytest.mark.parametrize(("method", "more"), [("ptuning-v2", ()), ("lora", ()), ("prompt-tuning", ())])
def test_a_run_is_exported(method: str, more: tuple[str, ...], folder: Path, tiny_run: Run, tmp_path: Path) -> None:
    options = ("--backbone", folder, "--method", method, *OPTIONS, "--out", tmp_path, "--name", "run", *more)
    assert tiny_run(*options)[0] == 0
    assert export(tmp_path / "run", tmp_path / "bundle", atol=1e-4, rows=6).parity["onnxruntime"].difference < 1e-4
