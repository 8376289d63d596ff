"""Attention as plain products, forward and back, against torch's own kernel in double precision."""

import pytest
import torch
from torch.nn import functional

from harness import products

SCALE = 0.3


def tensors(batch, seq, keys, dtype):
    torch.manual_seed(0)
    shapes = [(batch, 4, seq, 8), (batch, 4, keys, 8), (batch, 4, keys, 8), (batch, 4, seq, 8)]
    *inputs, grad = (torch.randn(shape).to(dtype) for shape in shapes)
    return [tensor.requires_grad_() for tensor in inputs], grad


def backed(attention, inputs, grad):
    mixed = attention(*inputs)
    mixed.backward(grad)
    return [mixed.detach(), *(tensor.grad for tensor in inputs)]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("masked", ["no", "rows", "one"])
@pytest.mark.parametrize("chunk", [products.CHUNK, 4 * 7 * 9 * 2, 1], ids=["whole", "in twos", "row by row"])
def test_values_and_gradients(dtype, error, masked, chunk, monkeypatch):
    monkeypatch.setattr(products, "CHUNK", chunk)
    inputs, grad = tensors(5, 7, 9, dtype)
    mask = {
        "no": None,
        "rows": torch.arange(9) < torch.tensor([9, 1, 5, 3, 8])[:, None, None, None],
        "one": (torch.arange(9) < 6)[None, None, None],
    }[masked]
    double = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = backed(
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, mask, scale=SCALE), double, grad.double()
    )
    got = backed(lambda q, k, v: products.attention(q, k, v, mask, SCALE), inputs, grad)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).abs().max() < error * theirs.abs().max()


def test_weights_of_long_rows_are_not_kept(monkeypatch):
    """What is saved for the way back grows with the length, not with its square."""

    def saved(seq):
        sizes = []
        inputs, _ = tensors(2, seq, seq, torch.bfloat16)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()), lambda _: None):
            products.attention(*inputs, None, SCALE)
        return sum(sizes)

    monkeypatch.setattr(products, "CHUNK", 4 * 64 * 64)
    assert saved(128) == 2 * saved(64)
    assert saved(8) > saved(64) / 8, "those of short rows are"
