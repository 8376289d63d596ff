"""The trained prompt: layers, beginnings, folding."""

import pytest
import torch
from tiny import HEADS, HIDDEN, LAYERS, tiny_model, tiny_tokenizer

from benchmarks.errors import PolypromptError
from harness.backbone import Backbone
from harness.features import Feature
from harness.initial import token_states
from harness.placement import Placement
from harness.prompt import TrainedPrompt, parse_layers
from harness.sharing import LowRank, PromptBank, Prompts

HEAD_DIM = HIDDEN // HEADS


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", tiny_model("bert"), tiny_tokenizer("bert"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", (0, 1, 2, 3, 4, 5)),
        ("top:2", (4, 5)),
        ("bottom:2", (0, 1)),
        ("3-5", (3, 4, 5)),
        ("0,2,4-5", (0, 2, 4, 5)),
        ("5,5,1", (1, 5)),
    ],
)
def test_layers(text, expected):
    assert parse_layers(text, 6) == expected


@pytest.mark.parametrize("text", ["6", "top:0", "top:7", "2-1", "x", "", "1,,2", "-1", "0-6"])
def test_bad_layers_are_refused(text):
    with pytest.raises(PolypromptError, match="--prompt-layers"):
        parse_layers(text, 6)


def deep(layers, start=None, gated=False, **options):
    """A trained deep prompt that begins at given or random states."""
    start = torch.randn(len(layers), 2, HEADS, 5, HEAD_DIM) if start is None else start
    return TrainedPrompt(Placement(layers=layers, gated=gated), start, gate=gated, **options)


@pytest.mark.parametrize("reparameterise", [False, True])
@pytest.mark.parametrize("kind", ["deep", "gated", "input"])
def test_folding_keeps_the_outputs(backbone, kind, reparameterise):
    torch.manual_seed(1)
    if kind == "input":
        start = torch.randn(5, HIDDEN)
        prompt = TrainedPrompt(Placement(layers=None), start, reparameterise=reparameterise, dropout=0.3)
    else:
        prompt = deep((0, 2), gated=kind == "gated", reparameterise=reparameterise, dropout=0.3)
    if prompt.gate is not None:
        torch.nn.init.normal_(prompt.gate)  # as after training
    ids, lengths = torch.randint(5, 60, (3, 9)), torch.tensor([9, 4, 7])
    prompts = Prompts(prompt)
    bank = prompts.fold(["a", "b"])
    assert bank.bank.shape == (1, *prompt.shape), "tasks that share a prompt share its row"
    assert (bank.slots, bank.placement) == (5, prompt.placement)
    assert prompt.training, "folding must not leave the prompt in evaluation mode"
    with torch.no_grad():
        expected = backbone(ids, lengths, prompt=prompts.eval()("a"))
        got = backbone(ids, lengths, prompt=bank("b"))
    for row, length in enumerate(lengths):
        torch.testing.assert_close(got[row, :length], expected[row, :length], rtol=0, atol=1e-6)


def test_the_mlp_makes_each_slot_from_its_own_embedding():
    """Keys before values, layer by layer, heads side by side: the layout of the authors' code, written out here."""
    prompt = deep((0, 1), torch.zeros(2, 2, HEADS, 5, HEAD_DIM), reparameterise=True)
    into, _, out = prompt.mlp
    assert prompt.slots.shape == (5, HIDDEN)
    tensor = prompt.tensor()
    for slot in range(5):
        row = out.weight @ torch.tanh(into.weight @ prompt.slots[slot] + into.bias) + out.bias
        for number, part in enumerate(row.split(HIDDEN)):
            layer, kind = divmod(number, 2)
            torch.testing.assert_close(tensor[layer, kind, :, slot].flatten(), part)


def test_zero_gated_begins_as_the_bare_backbone_and_a_zero_prefix_does_not(backbone):
    ids, lengths = torch.randint(5, 60, (2, 9)), torch.tensor([9, 9])
    gated, zeros = deep((0, 1, 2), gated=True), deep((0, 1, 2), torch.zeros(3, 2, HEADS, 5, HEAD_DIM))
    with torch.no_grad():
        bare = backbone(ids, lengths)
        assert torch.equal(backbone(ids, lengths, prompt=Prompts(gated)("t")), bare)
        assert (backbone(ids, lengths, prompt=Prompts(zeros)("t")) - bare).abs().max() > 1e-2


def test_the_gate_learns_although_it_begins_at_zero(backbone):
    prompt = deep((1,), gated=True)
    backbone(torch.randint(5, 60, (2, 9)), torch.tensor([9, 9]), prompt=Prompts(prompt)("t")).square().sum().backward()
    assert prompt.gate.grad.abs().min() > 0


def test_states_of_real_tokens_are_keys_and_values_of_the_encoder(backbone):
    """Every slot must be the projection, written out here, of some real token of some row."""
    torch.manual_seed(2)
    rows = [torch.randint(5, 60, (size,)) for size in (4, 7, 9)]
    features = [Feature(n, row.numpy().astype("int32"), 0 * row.numpy().astype("int32")) for n, row in enumerate(rows)]
    states = token_states(backbone, features, Placement(layers=(0, 2)), 6, seed=3)
    assert states.shape == (2, 2, HEADS, 6, HEAD_DIM)
    model = backbone.model
    allowed = []
    for row in rows:
        with torch.no_grad():
            hidden = model(row[None], output_hidden_states=True).hidden_states
        layer_states = []
        for layer in (0, 2):
            attention = model.encoder.layer[layer].attention.self
            with torch.no_grad():
                pair = [attention.key(hidden[layer])[0], attention.value(hidden[layer])[0]]
            layer_states.append(torch.stack(pair))
        allowed.append(torch.stack(layer_states)[:, :, 1:-1])  # special tokens stand at both ends
    tokens = torch.cat(allowed, 2)  # [layer, 2, token, hidden]
    got = states.permute(0, 1, 3, 2, 4).flatten(3)  # [layer, 2, slot, hidden]
    distance = (got[:, :, :, None] - tokens[:, :, None]).abs().amax((0, 1, 4))
    assert distance.min(1).values.max() < 1e-5
    assert LAYERS == 3
    words = token_states(backbone, features, Placement(layers=None), 6, seed=3)
    table = model.embeddings.word_embeddings.weight[torch.cat([row[1:-1] for row in rows])]
    assert words.shape == (6, HIDDEN)
    assert all((table == word).all(1).any() for word in words)


def test_kv_and_reparameterisation_together_begin_near_the_states():
    torch.manual_seed(0)
    states = 10 * torch.randn(1, 2, HEADS, 4, HEAD_DIM)
    prompt = deep((0,), states, reparameterise=True)
    assert torch.nn.functional.cosine_similarity(prompt.tensor().flatten(), states.flatten(), dim=0) > 0.98


def test_each_task_and_language_gets_its_own_sum(backbone):
    """Low rank: shared prompt, part of the task, part of the language, added by hand here."""
    torch.manual_seed(4)
    shape = (2, 2, HEADS, 5, HEAD_DIM)
    parts = {name: LowRank(shape, 2) for name in ("a", "b", "de")}
    shared = deep((0, 2))
    prompts = Prompts(shared, {"a": parts["a"], "b": parts["b"]}, {"de": parts["de"]})
    assert torch.equal(prompts("a", "de").tensor[:, :, 0], shared.slots), "parts begin at zero"
    for part in parts.values():
        torch.nn.init.normal_(part.states)

    def delta(name: str) -> torch.Tensor:
        part, result = parts[name], torch.zeros(shape)
        for slot in range(5):
            flat = sum(part.slots[slot, r] * part.states[r] for r in range(2))
            result[:, :, :, slot] = flat.view(2, 2, HEADS, HEAD_DIM)
        return result

    bank = prompts.fold(["a", "b", "untrained"])
    expected = {
        ("a", ""): shared.slots + delta("a"),
        ("a", "de"): shared.slots + delta("a") + delta("de"),
        ("b", "fr"): shared.slots + delta("b"),
        ("untrained", ""): shared.slots,
        ("untrained", "de"): shared.slots + delta("de"),
    }
    for (task, language), tensor in expected.items():
        for made in (prompts(task, language), bank(task, language)):
            torch.testing.assert_close(made.tensor[:, :, 0], tensor.detach(), rtol=0, atol=1e-6)


def test_a_task_without_a_prompt_is_left_alone():
    prompts = Prompts(None, {"a": deep((0,))})
    for made in (prompts, prompts.fold(["a", "retrieval"])):
        assert made("retrieval") is None
        assert made("a") is not None


def test_a_task_that_reads_the_encoder_as_it_is(tmp_path):
    """Beside a shared prompt, which all others get; stored and read again."""
    prompts = Prompts(deep((0,)), {"a": LowRank((1, 2, HEADS, 5, HEAD_DIM), 2)}, bare=["retrieval"])
    folded = prompts.fold(["a", "retrieval", "b"])
    folded.write(tmp_path)
    for made in (prompts, folded, PromptBank.read(tmp_path)):
        assert made("retrieval") is None
        assert made("retrieval", "de") is None
        assert None not in (made("a"), made("b"), made("another"))
    assert len(folded.bank) == 2
