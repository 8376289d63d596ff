"""Attention as plain matrix products: on processors faster than torch's fused kernel, above all on the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 21
"""Attention weights that are held at once: so many stay in the processor's caches."""


def are_faster(query: Tensor, key: Tensor) -> bool:
    """Whether this way is faster than torch's own kernel: on processors, but in fp32 for short rows alone."""
    return query.device.type == "cpu" and (query.dtype == torch.bfloat16 or _rows(query, key) >= len(query))


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, bias: Tensor | None = None
) -> Tensor:
    """softmax(scale * query key^T + bias) value, with gradients.

    Weights of rows that are too long for the caches are computed in parts, and computed again on the way back, so that
    memory grows with the length and not with its square.

    Args:
        query: `[batch, head, seq, head_dim]`. key, value: `[batch, head, keys, head_dim]`, in the same precision.
        mask: `[batch or 1, 1, 1, keys]`, True where a key may be seen; None when all may. Each row must see one.
        scale: factor on the products. bias: `[batch, head, seq, keys]`; None: there is none.

    Returns:
        `[batch, head, seq, head_dim]`
    """
    if mask is not None:
        where = torch.zeros(mask.shape, dtype=query.dtype, device=query.device) if bias is None else bias
        bias = where.masked_fill(~mask, -torch.inf)
    return _Attention.apply(query, key, value, bias, scale)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        ctx.scale, ctx.rows = scale, _rows(query, key)
        mixed, kept = torch.empty_like(query), None
        for part in _parts(query, ctx.rows):
            kept = _weights(query[part], key[part], _bias_of(bias, part), scale)
            mixed[part] = _matmul(kept, value[part])
        # those of a batch that is one part are kept
        ctx.save_for_backward(query, key, value, bias, kept if ctx.rows >= len(query) else None)
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, kept = ctx.saved_tensors
        grad, grads = grad.contiguous(), [torch.empty_like(tensor) for tensor in (query, key, value)]
        of_bias = torch.empty_like(bias) if ctx.needs_input_grad[3] else None
        for part in _parts(query, ctx.rows):
            weights = kept
            if weights is None:
                weights = _weights(query[part], key[part], _bias_of(bias, part), ctx.scale)
            grads[2][part] = _matmul(weights.transpose(-1, -2), grad[part])
            above = _matmul(grad[part], value[part].transpose(-1, -2))
            scores = torch.ops.aten._softmax_backward_data(above, weights, -1, weights.dtype)
            grads[0][part] = _matmul(scores, key[part], ctx.scale)
            grads[1][part] = _matmul(scores.transpose(-1, -2), query[part], ctx.scale)
            if of_bias is not None:
                of_bias[part] = scores
        return *grads, of_bias, None


def _rows(query: Tensor, key: Tensor) -> int:
    """Rows of a batch whose weights are held at once."""
    return max(1, CHUNK // (query.shape[1] * query.shape[2] * key.shape[2]))


def _parts(query: Tensor, rows: int) -> list[slice]:
    return [slice(begin, begin + rows) for begin in range(0, len(query), rows)]


def _bias_of(bias: Tensor | None, part: slice) -> Tensor | None:
    return bias if bias is None or len(bias) == 1 else bias[part]


def _weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = _matmul(query, key.transpose(-1, -2), scale, bias)
    return torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)


def _matmul(left: Tensor, right: Tensor, scale: float = 1.0, bias: Tensor | None = None) -> Tensor:
    """scale * left right + bias, over batch and heads."""
    flat, shape = left.flatten(0, 1), (*left.shape[:3], right.shape[3])
    if bias is None:
        start, beta = left.new_empty(()), 0
    else:  # the product begins with it: much faster than an addition afterwards
        start, beta = bias.expand(*shape[:2], -1, -1).flatten(0, 1).expand(-1, *shape[2:]), 1
    return torch.baddbmm(start, flat, right.flatten(0, 1), beta=beta, alpha=scale).view(shape)
