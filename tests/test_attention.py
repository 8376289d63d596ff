"""Our attention against a loop over rows and heads that knows neither masks nor batches, for every family."""

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny import FAMILIES, HEADS, HIDDEN, LAYERS, VOCABULARY, tiny_model, tiny_tokenizer
from torch import nn
from transformers import AlbertConfig, AlbertModel

import harness.attention
from benchmarks.errors import PolypromptError
from harness import encoder, kernel
from harness.attention import Prefix, attend, key_mask, number_layers
from harness.backbone import Backbone, SoftPrompt

ENGINES = ("own", "transformers")


@pytest.fixture(autouse=True, params=["compiled", "products"])
def way(request, monkeypatch):
    """How a frozen encoder's attention is computed."""
    if request.param == "products":
        monkeypatch.setattr(kernel, "takes", lambda *_: False)
    elif kernel.module() is None:
        pytest.skip("the compiled part is not installed")
    return request.param


LENGTHS = torch.tensor([9, 4, 1, 7])
SEQ = 9


def make(family, engine="own"):
    """A tiny backbone, and an untouched copy of its model."""
    model = tiny_model(family)
    return Backbone(family, model, tiny_tokenizer(family), engine=engine), copy.deepcopy(model)


@pytest.fixture(scope="module", params=product(FAMILIES, ENGINES), ids="-".join)
def pair(request):
    backbone, model = make(*request.param)
    model.set_attn_implementation("eager")
    return backbone, model


def rows(pad_id, lengths=LENGTHS, seq=SEQ):
    """Random rows `[batch, seq]` and the marks of their texts, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (len(lengths), seq), generator=generator)
    types = (torch.arange(seq) >= lengths[:, None] // 2).long().expand_as(ids)
    padding = torch.arange(seq) >= lengths[:, None]
    return ids.masked_fill(padding, pad_id), types.masked_fill(padding, 0)


def random_prefix(layers, batch, slots=5):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(len(layers), 2, batch, HEADS, slots, HIDDEN // HEADS, generator=generator)


def random_vectors(backbone, slots=5):
    return torch.randn(1, slots, backbone.words.embedding_dim, generator=torch.Generator().manual_seed(3))


def parts(model):
    """The linear maps and norms of each layer, in the order: q, k, v, out, norm, in, out, norm."""
    if model.config.model_type == "distilbert":
        for layer in model.transformer.layer:
            attention, ffn = layer.attention, layer.ffn
            yield (
                *(attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin, layer.sa_layer_norm),
                *(ffn.lin1, ffn.lin2, layer.output_layer_norm),
            )
    else:
        for layer in model.encoder.layer:
            own, after = layer.attention.self, layer.attention.output
            yield (
                *(own.query, own.key, own.value, after.dense, after.LayerNorm),
                *(layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm),
            )


def embed(model, ids, types, prompt):
    """The embeddings of one row piece by piece, behind the vectors of a soft prompt, `[seq, hidden]`."""
    tables = model.embeddings
    first = 2 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0  # behind that of padding
    begin = first + (prompt.slots if prompt is not None and prompt.shifted else 0)
    words = tables.word_embeddings.weight[ids]
    pieces = [(word, begin + n, kind) for n, (word, kind) in enumerate(zip(words, types, strict=True))]
    if isinstance(prompt, SoftPrompt):
        pieces = [
            (v.double(), first + (n if prompt.shifted else 0), 0) for n, v in enumerate(prompt.tensor[0])
        ] + pieces
    x = torch.stack([word + tables.position_embeddings.weight[position] for word, position, _ in pieces])
    if hasattr(tables, "token_type_embeddings"):
        x = x + torch.stack([tables.token_type_embeddings.weight[kind] for _, _, kind in pieces])
    x = tables.LayerNorm(x)
    return model.embeddings_project(x) if model.config.model_type == "electra" else x


@torch.no_grad()
def by_hand(model, ids, lengths, types, prompt=None):
    """Each row alone, without its padding, head by head, in float64.

    Returns: per row the states `[length, hidden]`, and keys and values `[layer, 2, head, length, head_dim]`.
    """
    model = copy.deepcopy(model).double()
    width = HIDDEN // HEADS
    prefix, soft = (prompt if isinstance(prompt, kind) else None for kind in (Prefix, SoftPrompt))
    states, caches = [], []
    for row, length in enumerate(lengths.tolist()):
        kinds = [0] * length if types is None else types[row, :length].tolist()
        x = embed(model, ids[row, :length], kinds, prompt)
        cache = []
        for number, (q, k, v, out, norm, inner, outer, last_norm) in enumerate(parts(model)):
            heads, keys, values = [], [], []
            for head in range(HEADS):
                own = slice(head * width, (head + 1) * width)
                query, key, value = q(x)[:, own], k(x)[:, own], v(x)[:, own]
                keys.append(key)
                values.append(value)
                added = 0.0
                if prefix is not None and number in prefix.layers:
                    front = prefix.tensor[prefix.layers.index(number)].double()
                    front = front[:, row if front.shape[1] > 1 else 0, head]
                    if prefix.gated:
                        added = torch.softmax(query @ front[0].T / width**0.5, -1) @ front[1]
                    else:
                        key, value = torch.cat([front[0], key]), torch.cat([front[1], value])
                heads.append(torch.softmax(query @ key.T / width**0.5, -1) @ value + added)
            cache.append(torch.stack([torch.stack(keys), torch.stack(values)]))
            x = norm(x + out(torch.cat(heads, -1)))
            x = last_norm(x + outer(nn.functional.gelu(inner(x))))
        states.append(x if soft is None else x[soft.slots :])
        caches.append(torch.stack(cache))
    return states, caches


def count_attention(monkeypatch):
    """A list that gets the mask of every attention from here on, or the places of the real pieces."""
    masks = []
    mix, packed = harness.attention.mix, kernel.attention

    def spy(query, key, value, mask, *args, **options):
        masks.append(mask)
        return mix(query, key, value, mask, *args, **options)

    def packed_spy(states, asked, rows, *args, **options):
        masks.append(rows.places)
        return packed(states, asked, rows, *args, **options)

    monkeypatch.setattr(harness.attention, "mix", spy)
    monkeypatch.setattr(kernel, "attention", packed_spy)
    return masks


def assert_rows(got, expected):
    """Real pieces only: `[batch, seq, hidden]` against a list of `[length, hidden]`."""
    for row, want in zip(got, expected, strict=True):
        torch.testing.assert_close(row[: len(want)].double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_prefix_equals_the_loop(pair, gated, shifted):
    backbone, model = pair
    for layers, batch, padded in product([(0, 2), (1,), (0, 1, 2)], [1, len(LENGTHS)], [False, True]):
        lengths = LENGTHS if padded else torch.full_like(LENGTHS, SEQ)
        ids, types = rows(backbone.pad_id, lengths)
        prefix = Prefix(random_prefix(layers, batch), layers, gated, shifted)
        expected, _ = by_hand(model, ids, lengths, types if backbone.token_types else None, prefix)
        plain, _ = by_hand(model, ids, lengths, types if backbone.token_types else None)
        got = backbone(ids, lengths, types, prefix)
        assert_rows(got, expected)
        assert (got[0] - plain[0]).abs().max() > 1e-2  # the prefix does something, so the comparison means something


@pytest.mark.parametrize("shifted", [False, True])
def test_soft_prompt_equals_the_loop(pair, shifted):
    backbone, model = pair
    for padded in (False, True):
        lengths = LENGTHS if padded else torch.full_like(LENGTHS, SEQ)
        ids, types = rows(backbone.pad_id, lengths)
        prompt = SoftPrompt(random_vectors(backbone), shifted)
        expected, _ = by_hand(model, ids, lengths, types if backbone.token_types else None, prompt)
        plain, _ = by_hand(model, ids, lengths, types if backbone.token_types else None)
        got = backbone(ids, lengths, types, prompt)
        assert got.shape == (*ids.shape, HIDDEN)
        assert_rows(got, expected)
        assert (got[0] - plain[0]).abs().max() > 1e-2


def test_a_row_fits_behind_a_shifted_prompt_or_is_refused(pair):
    backbone, _ = pair
    longest = torch.full((1, backbone.max_positions), 7)
    for prompt in (Prefix(random_prefix((0,), 1), (0,)), SoftPrompt(random_vectors(backbone))):
        lengths = torch.tensor([backbone.max_positions])
        assert backbone(longest, lengths, None, prompt).shape[1] == backbone.max_positions
        shifted = replace(prompt, shifted=True)
        assert backbone(longest[:, 5:], lengths - 5, None, shifted).shape[1] == backbone.max_positions - 5
        with pytest.raises(PolypromptError, match="behind a prompt of 5"):
            backbone(longest[:, 4:], lengths - 4, None, shifted)


def test_without_prefix_equals_transformers(pair):
    backbone, model = pair
    for lengths in (LENGTHS, torch.full_like(LENGTHS, SEQ)):
        ids, types = rows(backbone.pad_id, lengths)
        marks = {"token_type_ids": types} if backbone.token_types else {}
        mask = (torch.arange(SEQ) < lengths[:, None]).long()
        expected = model(input_ids=ids, attention_mask=mask, **marks).last_hidden_state
        assert_rows(backbone(ids, lengths, types), [e[:n].double() for e, n in zip(expected, lengths, strict=True)])


@pytest.mark.parametrize("gated", [None, False, True, "input"])
def test_padding_changes_no_real_piece(pair, gated):
    backbone, _ = pair
    ids, types = rows(backbone.pad_id)
    prefix = None if gated is None else Prefix(random_prefix((0, 1), 1), (0, 1), gated)
    if gated == "input":
        prefix = SoftPrompt(random_vectors(backbone))
    together = backbone(ids, LENGTHS, types, prefix)
    wider = torch.cat([ids, ids.new_full((len(ids), 6), 7)], 1)  # padded with a word instead of the pad piece
    padded = backbone(wider, LENGTHS, torch.cat([types, types.new_ones(len(ids), 6)], 1), prefix)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = backbone(ids[row : row + 1, :length], LENGTHS[row : row + 1], types[row : row + 1, :length], prefix)
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(padded[row, :length], alone[0], atol=1e-5, rtol=1e-5)


def test_keys_and_values_equal_the_loop(pair):
    backbone, model = pair
    ids, types = rows(backbone.pad_id)
    got = backbone.keys_values(ids, LENGTHS, types)
    assert got.shape == (LAYERS, 2, len(LENGTHS), HEADS, SEQ, HIDDEN // HEADS)
    assert not got.requires_grad
    _, expected = by_hand(model, ids, LENGTHS, types if backbone.token_types else None)
    for row, want in enumerate(expected):
        torch.testing.assert_close(got[:, :, row, :, : want.shape[3]].double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_gradient_reaches_the_prefix_alone(pair, gated):
    backbone, _ = pair
    ids, types = rows(backbone.pad_id)
    tensor = random_prefix((0, 2), 1).requires_grad_()
    backbone(ids, LENGTHS, types, Prefix(tensor, (0, 2), gated))[:, 0].sum().backward()
    assert tensor.grad is not None
    assert (tensor.grad.abs().amax(dim=(2, 3, 4, 5)) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_gradient_reaches_the_soft_prompt_alone(pair):
    backbone, _ = pair
    ids, types = rows(backbone.pad_id)
    tensor = random_vectors(backbone).requires_grad_()
    backbone(ids, LENGTHS, types, SoftPrompt(tensor))[:, 0].sum().backward()
    assert (tensor.grad.abs().amax(2) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("engine", ENGINES)
def test_checkpointing_keeps_the_gradient(engine, monkeypatch):
    calls = count_attention(monkeypatch)
    backbone, _ = make("bert", engine)
    calls.clear()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ids, types = rows(backbone.pad_id)
    gradients, counts = [], []
    for checkpointing in (False, True):
        backbone.train()
        backbone.checkpoint_activations(checkpointing)
        tensor = random_prefix((0, 1, 2), 1).requires_grad_()
        backbone(ids, LENGTHS, types, Prefix(tensor, (0, 1, 2)))[:, 0].sum().backward()
        gradients.append(tensor.grad)
        counts.append(len(calls))
    assert counts == [LAYERS, 3 * LAYERS]  # the second time every layer ran again on the way back
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_encoder_that_predicted_first_is_trained_through(precision, engine):
    backbone, _ = make("bert", engine)
    ids, types = rows(backbone.pad_id)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        with torch.inference_mode():
            backbone(ids, LENGTHS, types)
        tensor = random_prefix((0, 1, 2), 1).requires_grad_()
        backbone(ids, LENGTHS, types, Prefix(tensor, (0, 1, 2)))[:, 0].float().sum().backward()
    assert tensor.grad.any()


def test_gate_at_zero_is_the_identity():
    backbone, _ = make("bert")
    ids, types = rows(backbone.pad_id)
    tensor = random_prefix((0, 1, 2), 1)
    tensor[:, 1] = 0
    plain = backbone(ids, LENGTHS, types)
    torch.testing.assert_close(backbone(ids, LENGTHS, types, Prefix(tensor, (0, 1, 2), True)), plain)
    assert not torch.allclose(backbone(ids, LENGTHS, types, Prefix(tensor, (0, 1, 2), False)), plain, atol=1e-2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gated", [False, True])
def test_runs_under_autocast(gated, engine):
    backbone, _ = make("roberta", engine)
    ids, _ = rows(backbone.pad_id)
    prefix = Prefix(random_prefix((0, 1, 2), 1), (0, 1, 2), gated)
    with torch.autocast("cpu", torch.bfloat16):
        got = backbone(ids, LENGTHS, prompt=prefix)
    expected = backbone(ids, LENGTHS, prompt=prefix)
    assert ((got - expected).abs()[0] < 0.15).float().mean() > 0.99


def test_honours_scaling_and_dropout():
    module = nn.Module()
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=torch.Generator().manual_seed(3)).unbind()
    even, _ = attend(module, query, key, value, None, scaling=0.0)  # equal products: the mean of the values
    torch.testing.assert_close(even, value.mean(2, keepdim=True).expand(-1, -1, 6, -1).transpose(1, 2))
    nothing, _ = attend(module, query, key, value, None, dropout=1.0)
    assert not nothing.any()

    module.layer_number = 0
    prefix = Prefix(torch.stack([key, value])[None], (0,), gated=True)
    twice, _ = attend(module, query, key, value, None, scaling=0.0, prefix=prefix)
    torch.testing.assert_close(twice, 2 * even)
    nothing, _ = attend(module, query, key, value, None, dropout=1.0, prefix=prefix)
    assert not nothing.any()


def test_no_padding_needs_no_mask():
    assert key_mask(attention_mask=None) is None
    mask = key_mask(attention_mask=torch.tensor([[1, 1, 0]]))
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[[[True, True, False]]]]


def test_unpadded_rows_reach_attention_without_a_mask(monkeypatch):
    backbone, _ = make("distilbert")
    seen = count_attention(monkeypatch)
    ids, _ = rows(backbone.pad_id)
    backbone(ids, torch.full_like(LENGTHS, SEQ))
    assert seen == [None] * LAYERS
    backbone(ids, LENGTHS)
    assert all(mask is not None for mask in seen[LAYERS:])


def test_layers_are_numbered_in_their_order(pair):
    backbone, _ = pair
    stack = backbone.model.transformer if backbone.card.family == "distilbert" else backbone.model.encoder
    for number, layer in enumerate(stack.layer):
        assert [m.layer_number for m in layer.modules() if hasattr(m, "layer_number")] == [number]


def test_shared_layers_are_refused():
    model = AlbertModel(
        AlbertConfig(vocab_size=30, embedding_size=8, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)
    )
    with pytest.raises(PolypromptError, match="prefix in every layer"):
        number_layers(model)


@pytest.mark.parametrize("read", [0, 1, 8])
def test_only_what_is_read(pair, read):
    """The state of one piece, and what it makes of the gradient, are those of a pass that computes all pieces."""
    backbone, _ = pair
    ids, types = rows(backbone.pad_id)
    prefixes = [Prefix(random_prefix((0, 2), 1).requires_grad_(), (0, 2)) for _ in range(2)]
    alone = backbone(ids, LENGTHS, types, prefixes[0], read)
    together = backbone(ids, LENGTHS, types, prefixes[1])[:, read : read + 1]
    assert alone.shape == (len(ids), 1, HIDDEN)
    there = read < LENGTHS
    torch.testing.assert_close(alone[there], together[there])
    for states, weight in ((alone, 1.0), (together, 1.0)):
        (states[there] * weight).sin().sum().backward()
    torch.testing.assert_close(prefixes[0].tensor.grad, prefixes[1].tensor.grad)
    if read == 8:
        short = backbone(ids[:, :3], LENGTHS.clamp(max=3), types[:, :3], read=read)
        assert len(short) == len(ids), "rows that have no such piece"


def test_the_last_layer_computes_only_what_is_read(monkeypatch, way):
    backbone, _ = make("bert")
    ids, types = rows(backbone.pad_id)
    seen = []
    norm = encoder.Norm.__call__
    monkeypatch.setattr(
        encoder.Norm, "__call__", lambda self, states: seen.append(states.numel() // HIDDEN) or norm(self, states)
    )
    backbone(ids, LENGTHS, types, read=0)
    pieces = int(LENGTHS.sum()) if way == "compiled" else len(LENGTHS) * SEQ
    assert seen == [pieces] * 2 * (LAYERS - 1) + [len(LENGTHS)] * 2


def test_weights_that_are_trained_are_not_copied():
    """As long as weights are trained a pass sees them as they are; later the copies are made anew."""
    backbone, _ = make("bert")
    ids, types = rows(backbone.pad_id)
    with torch.autocast("cpu", torch.bfloat16):
        before = backbone(ids, LENGTHS, types)
        for change in (True, False):
            backbone.model.requires_grad_(change)
            backbone.look()
            with torch.no_grad():
                if change:
                    backbone.model.get_parameter("encoder.layer.1.output.dense.weight").mul_(3)
            after = backbone(ids, LENGTHS, types)
            assert (after[0] - before[0]).abs().max() > 0.5


def test_weights_are_kept_once():
    """In bf16 alone: the same answers as with the fp32 weights beside them, in half of the layers' memory."""
    for family in ("bert", "distilbert"):
        both, _ = make(family)
        alone, _ = make(family)
        ids, types = rows(both.pad_id)
        layers = [name for name, _ in both.model.named_parameters() if ".layer." in name]
        with torch.autocast("cpu", torch.bfloat16):
            expected = both(ids, LENGTHS, types)
            alone.settle(torch.bfloat16)
            assert torch.equal(alone(ids, LENGTHS, types), expected)
            copies = alone.frozen()
        weights = [alone.model.get_parameter(name) for name in layers]
        linear = [weight for name, weight in zip(layers, weights, strict=True) if "norm" not in name.lower()]
        assert {weight.dtype for weight in linear} == {torch.bfloat16}
        held = {weight.data_ptr() for layer in copies.layers for weight in (layer.qkv.weight, layer.ffn_in.weight)}
        assert held <= {weight.data_ptr() for weight in linear}, "the model's weights are these and no others"
        with pytest.raises(AssertionError, match="one precision"):
            alone(ids, LENGTHS, types)


@pytest.mark.parametrize("read", [None, 0])
def test_packed_weights_give_the_same(read, monkeypatch):
    """Packed or not: states and gradients to within a rounding of bf16."""
    found = []
    for most in (encoder.PACKED, 0):
        monkeypatch.setattr(encoder, "PACKED", most)
        backbone, _ = make("bert")
        ids, types = rows(backbone.pad_id)
        prefix = Prefix(random_prefix((0, 1, 2), 1).requires_grad_(), (0, 1, 2))
        with torch.autocast("cpu", torch.bfloat16):
            states = backbone(ids, LENGTHS, types, prefix, read)
            packed = [layer.ffn_in.packed for layer in backbone.frozen().layers]
        if most and packed[0] is None:
            pytest.skip("this processor computes no bf16")
        assert all((one is not None) is bool(most) for one in packed)
        states[0].sum().backward()
        found.append((states[0].detach(), prefix.tensor.grad))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() < 0.02 * other.abs().max()
