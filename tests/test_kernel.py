"""The compiled kernel: attention of packed rows, forward and back, against a loop over rows in double precision."""

import os
from itertools import product

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from harness import kernel
from harness.attention import Prefix, key_mask
from harness.encoder import FrozenEncoder
from harness.kernel import Packed

native = kernel.module()
pytestmark = pytest.mark.native
needs = pytest.mark.skipif(native is None, reason="the compiled part is not installed; `pip install .` builds it")
INSTRUCTIONS = ("avx512bf16", "avx512", "avx2", "portable")
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2}


def test_it_is_there_where_it_must_be():
    """The tests of tox install a wheel: without the compiled part they would pass by the slower way, unseen."""
    if os.environ.get("POLYPROMPT_NATIVE") in ("1", "all"):
        assert native is not None


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request):
    if native is None:
        pytest.skip("the compiled part is not installed; `pip install .` builds it")
    before = native.instructions()
    if not native.use(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    assert native.use(before)


def by_hand(states, asked, lengths, heads, prefix, own):
    """Row by row, head by head."""
    mixed, begin = [], 0
    for row, length in enumerate(lengths):
        parts = states[begin : begin + length].chunk(3 if asked is None else 2, 1)
        begin += length
        query = parts[0] if asked is None else asked[row : row + 1]
        key, value = (part if own else part[:0] for part in parts[-2:])
        width, found = query.shape[1] // heads, []
        for head in range(heads):
            q, k, v = (part[:, head * width : (head + 1) * width] for part in (query, key, value))
            if prefix is not None:
                bank = row if prefix.shape[1] > 1 else 0
                k, v = torch.cat([prefix[0, bank, head], k]), torch.cat([prefix[1, bank, head], v])
            found.append(torch.softmax(q @ k.T / width**0.5, -1) @ v if len(k) else torch.zeros_like(q))
        mixed.append(torch.cat(found, 1))
    return torch.cat(mixed)


def case(lengths, heads, width, slots, banks, one_asks, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    states = draw(sum(lengths), (2 if one_asks else 3) * heads * width)
    asked = draw(len(lengths), heads * width) if one_asks else None
    prefix = draw(2, banks, heads, slots, width) if slots else None
    return states, asked, prefix, draw(len(lengths) if one_asks else sum(lengths), heads * width)


def far_apart(*given):
    """The same with scores that are hundreds apart; in heads of 64 numbers they are multiples of 8, and some equal."""
    states, asked, prefix, grad = case(*given)
    keys = states[:, : -given[1] * given[2]]
    for large in (keys, asked, None if prefix is None else prefix[0]):
        if large is not None:
            large.clamp_(-2, 2).round_().mul_(8)
    return states, asked, prefix, grad


def check(lengths, heads, width, slots, banks, one_asks, dtype, own=True, made=case):
    states, asked, prefix, grad = made(lengths, heads, width, slots, banks, one_asks, dtype)
    there = [tensor is not None for tensor in (states, asked, prefix)]

    def leaves(change):
        return [None if tensor is None else change(tensor).requires_grad_() for tensor in (states, asked, prefix)]

    ours, double = leaves(torch.clone), leaves(torch.Tensor.double)
    rows = Packed(torch.tensor([0, *lengths]).cumsum(0), None, (1, 1))
    got = kernel.attention(ours[0], ours[1], rows, heads, ours[2], own=own)
    wanted = by_hand(double[0], double[1], lengths, heads, double[2], own)
    grads = [
        torch.autograd.grad(mixed, [leaf for leaf, is_there in zip(inputs, there, strict=True) if is_there], above)
        if mixed.requires_grad
        else ()
        for mixed, inputs, above in ((got, ours, grad), (wanted, double, grad.double()))
    ]
    for mine, theirs in zip((got, *grads[0]), (wanted, *grads[1]), strict=True):
        # the gradient of a query that sees one key is nothing but rounding
        largest = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double() / largest, theirs / largest, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
@pytest.mark.parametrize("one_asks", [False, True], ids=["all ask", "one asks"])
def test_values_and_gradients(instructions, dtype, one_asks):
    """Rows of no, one and many pieces, beyond a block of queries; heads from 2 numbers to more than a vector's."""
    for width, slots in product((32, 64, 80, 128, 2, 22), (0, 1, 17)):
        check([70, 1, 65], 2, width, slots, 1, one_asks, dtype)
        check([5, 64], 1, width, slots, 2, one_asks, dtype)
    check([3, 200], 2, 32, 256, 2, one_asks, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
def test_rows_without_pieces(instructions, dtype):
    check([4, 0, 3, 0], 2, 32, 5, 4, False, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
@pytest.mark.parametrize("one_asks", [False, True], ids=["all ask", "one asks"])
def test_a_prefix_may_be_all_that_is_seen(instructions, dtype, one_asks):
    states, asked, prefix, grad = case([4, 9], 2, 32, 5, 1, one_asks, dtype)
    states.requires_grad_()
    rows = Packed(torch.tensor([0, 4, 13]), None, (1, 1))
    got = kernel.attention(states, asked, rows, 2, prefix, own=False)
    double = None if asked is None else asked.double()
    wanted = by_hand(states.detach().double(), double, [4, 9], 2, prefix.double(), own=False)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=TOLERANCE[dtype])
    (found,) = torch.autograd.grad(got, states, grad)
    assert not found[:, -2 * 64 :].any(), "keys and values that nobody saw"


@needs
def test_numbers_that_are_large_or_none():
    """Scores of hundreds do not overflow, and what is no number is not hidden."""
    states = torch.zeros(2, 3 * 32)
    states[:, :64], states[1, 64:] = 40.0, 1.0
    rows = Packed(torch.tensor([0, 2]), None, (1, 2))
    torch.testing.assert_close(kernel.attention(states, None, rows, 1, None), torch.full((2, 32), 0.5))
    states[0, 64] = torch.nan
    assert kernel.attention(states.bfloat16(), None, rows, 1, None)[:, 0].isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
def test_scores_far_below_zero(instructions, dtype):
    """With these, what stands behind the keys in a vector would be no number on the way back."""
    states = torch.full((3, 3 * 32), 4.0)
    states[:, 32:64] = -4.0
    states[:, 64:] = torch.arange(3.0)[:, None]
    states = states.to(dtype).requires_grad_()
    mixed = kernel.attention(states, None, Packed(torch.tensor([0, 3]), None, (1, 3)), 1, None)
    mixed.sum().backward()
    torch.testing.assert_close(mixed.float(), torch.ones(3, 32), rtol=0, atol=TOLERANCE[dtype])
    assert states.grad[:, :64].isfinite().all()
    torch.testing.assert_close(states.grad[:, 64:].float(), torch.ones(3, 32), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
@pytest.mark.parametrize("one_asks", [False, True], ids=["all ask", "one asks"])
def test_scores_far_apart(instructions, dtype, one_asks):
    """What is too far below the largest score counts nothing; where all are, the largest is still one of them."""
    check([70, 1, 65, *range(2, 30)], 2, 64, 17, 1, one_asks, dtype, made=far_apart)
    if not one_asks:
        check([3, 200], 2, 64, 256, 2, one_asks, dtype, made=far_apart)
    below = torch.full((3, 2 * 64), 16.0, dtype=dtype)
    below[1:, :64], below[1:, 64:] = 24.0, 0.0
    rows, asked = Packed(torch.tensor([0, 3]), None, (1, 3)), -below[:1, :64]
    states = below if one_asks else torch.cat([asked.expand(3, 64), below], 1)
    mixed = kernel.attention(states, asked if one_asks else None, rows, 1, None)
    torch.testing.assert_close(mixed.float(), torch.full_like(mixed, 16.0).float(), rtol=0, atol=16 * TOLERANCE[dtype])


def test_halves_become_bf16_with_an_even_end(instructions):
    """The mean of two neighbours lies half way between them."""
    values = 1 + torch.tensor([[0, 1], [1, 2]]) / 128
    states = torch.cat([torch.zeros(2, 2, dtype=torch.float64), values], 1).bfloat16()
    asked = torch.zeros(1, 2).bfloat16()
    mixed = kernel.attention(states, asked, Packed(torch.tensor([0, 2]), None, (1, 2)), 1, None)
    assert mixed.tolist() == values.mean(0).bfloat16()[None].tolist() == [[1.0, 1 + 2 / 128]]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
def test_nothing_comes_back_out_of_a_thread_s_memory(instructions, dtype):
    """Odd numbers of rows and slots, behind a call that leaves no numbers in all of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for slots, lengths in ((17, [7, 65, 3]), (3, [5, 1])):
            states, _, prefix, _ = case([200], 1, 80, 64, 1, False, dtype)
            none = [(leaf * torch.nan).requires_grad_() for leaf in (states, prefix)]
            spoilt = kernel.attention(none[0], None, Packed(torch.tensor([0, 200]), None, (1, 1)), 1, none[1])
            torch.autograd.grad(spoilt, none, torch.full_like(spoilt, torch.nan))
            check(lengths, 1, 80, slots, 1, False, dtype)
    finally:
        torch.set_num_threads(before)


@needs
def test_the_result_does_not_depend_on_the_threads():
    """Bit for bit, the sums over rows for the prefix too."""
    lengths = [31, 7, 64, 12, 90, 3, 3, 41]
    states, _, prefix, grad = case(lengths, 3, 32, 16, 1, False, torch.bfloat16)
    rows, before, found = Packed(torch.tensor([0, *lengths]).cumsum(0), None, (1, 1)), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            leaves = states.clone().requires_grad_(), prefix.clone().requires_grad_()
            mixed = kernel.attention(leaves[0], None, rows, 3, leaves[1])
            found.append((mixed.detach(), *torch.autograd.grad(mixed, leaves, grad)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


@needs
@pytest.mark.parametrize(
    ("starts", "word"),
    [([0, 3, 2, 5], "follow"), ([1, 3, 5], "follow"), ([0, 3, 6], "follow"), ([0, -1, 5], "follow")],
)
def test_rows_that_are_not_there_are_refused(starts, word):
    with pytest.raises(ValueError, match=word):
        kernel.attention(torch.zeros(5, 96), None, Packed(torch.tensor(starts), None, (1, 1)), 1, None)


@needs
def test_a_prefix_that_is_not_there_is_refused():
    """Two prefixes for three rows: the third row's is beyond the end."""
    rows = Packed(torch.tensor([0, 1, 2, 5]), None, (1, 1))
    with pytest.raises(ValueError, match="prefix"):
        kernel.attention(torch.zeros(5, 96), None, rows, 1, torch.zeros(2, 2, 1, 4, 32))


def test_packing_and_unpacking():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool()
    states = torch.arange(18.0).view(3, 3, 2)
    rows = Packed.of((3, 3), mask[:, None, None])
    assert rows.starts.tolist() == [0, 2, 5, 6]
    packed = rows.pack(states)
    assert packed.tolist() == states[mask].tolist()
    assert rows.unpack(packed).tolist() == (states * mask[..., None]).tolist()
    assert Packed.of((2, 4), None).starts.tolist() == [0, 4, 8]


@needs
@pytest.mark.parametrize("gated", [False, True], ids=["in front", "gated"])
@pytest.mark.parametrize("read", [None, 0, 1])
@pytest.mark.parametrize("banks", [1, 3])
@pytest.mark.parametrize("precision", TOLERANCE, ids=["fp32", "bf16"])
def test_an_encoder_with_it_and_without(gated, read, banks, precision, monkeypatch):
    """States and gradients of the prefix are the same as by padded rows."""
    torch.manual_seed(1)
    config = BertConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=96, vocab_size=11)
    encoder = FrozenEncoder(BertModel(config, add_pooling_layer=False).eval(), precision)
    states, lengths = torch.randn(3, 9, 64).to(precision), torch.tensor([9, 2, 5])
    mask = key_mask(torch.arange(9) < lengths[:, None])
    start, weights = torch.randn(2, 2, banks, 2, 4, 32), torch.randn(16, 64)
    found = []
    for takes in (kernel.takes, lambda *_: False):
        monkeypatch.setattr(kernel, "takes", takes)
        prefix = start.clone().requires_grad_()
        result = encoder.run(states, mask, Prefix(prefix, (0, 2), gated), read=read)
        real = result if read is not None else result[mask[:, 0, 0]]
        (real.flatten(0, -2).float() * weights[: real[..., 0].numel()]).sum().backward()
        found.append((real, prefix.grad))
    for ours, theirs in zip(*found, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=TOLERANCE[precision])


@needs
def test_activations_may_be_computed_again():
    torch.manual_seed(2)
    config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, vocab_size=11)
    encoder = FrozenEncoder(BertModel(config, add_pooling_layer=False).eval(), torch.float32)
    states, start = torch.randn(2, 5, 64), nn.Parameter(torch.randn(2, 2, 1, 2, 4, 32))
    grads = []
    for again in (False, True):
        start.grad = None
        encoder.run(states, None, Prefix(start, (0, 1)), again=again)[..., :7].square().sum().backward()
        grads.append(start.grad)
    assert torch.equal(*grads)
