"""A frozen encoder without waste: straight from its weights, any range of layers, only for the pieces that are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from harness import kernel
from harness.anatomy import FAMILIES
from harness.attention import Prefix, prompted
from harness.disentangled import Table
from harness.distances import Distances
from harness.kernel import Packed

PACKED = 1 << 27
"""Weights of all layers up to which each product gets copies of its own, in the order that the processor reads fastest:
training is some percent faster then, and a weight takes four bytes more, which large encoders need for other things."""


@dataclass(frozen=True)
class Linear:
    """`x @ weight^T + bias`: weight [out, in], bias [out].

    Attributes:
        packed: the weight as oneDNN reads it fastest, for products forward and back; None: it is not.
    """

    weight: Tensor
    bias: Tensor
    packed: tuple[Tensor, Tensor] | None = None

    def __call__(self, states: Tensor, plus: Tensor | None = None) -> Tensor:
        """[..., in] to [..., out], and `plus` added to it."""
        if self.packed is not None:
            return _Packed.apply(states.contiguous(), plus, self.bias, *self.packed)
        product = functional.linear(states, self.weight, self.bias)
        return product if plus is None else plus + product

    def beside(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The product, and the states for a way around it; on the way back both gradients are added in one pass."""
        if self.packed is not None and torch.is_grad_enabled():
            return _PackedBeside.apply(states, self.bias, *self.packed)
        return self(states), states

    def pack(self) -> Linear:
        """The same with a packed weight."""
        reorder = torch.ops.mkldnn._reorder_linear_weight
        return Linear(
            self.weight, self.bias, (reorder(self.weight.contiguous()), reorder(self.weight.t().contiguous()))
        )

    def rows(self, begin: int, end: int) -> Linear:
        """A part of the outputs."""
        return Linear(self.weight[begin:end], self.bias[begin:end])


def _packed_product(states: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None) -> Tensor:
    if plus is None:
        return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return torch.ops.mkldnn._linear_pointwise.binary(states, plus, weight, bias, "add")


class _Packed(torch.autograd.Function):
    """A product with a frozen weight that oneDNN has packed, and something added to it."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, plus: Tensor | None, bias: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.back, ctx.plus = back, plus is not None
        return _packed_product(states, forth, bias, plus)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous()
        below = _packed_product(grad, ctx.back, None, None)
        return below, grad if ctx.plus else None, None, None, None


class _PackedBeside(torch.autograd.Function):
    """A product as above, and what went into it."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, bias: Tensor, forth: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        ctx.back = back
        return _packed_product(states.contiguous(), forth, bias, None), states

    @staticmethod
    def backward(ctx: Any, grad: Tensor, around: Tensor) -> tuple[Tensor | None, ...]:
        return _packed_product(grad.contiguous(), ctx.back, None, around.contiguous()), None, None, None


class _Heads(torch.autograd.Function):
    """[batch, seq, parts * hidden] to so many times [batch, head, seq, head_dim], in one pass each way."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
        batch, seq, width = states.shape
        ctx.shape = (batch, seq, parts, heads, width // (parts * heads))
        return tuple(part.contiguous() for part in states.view(ctx.shape).permute(2, 0, 3, 1, 4).unbind(0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        whole = grads[0].new_empty(ctx.shape)
        for place, grad in zip(whole.permute(2, 0, 3, 1, 4).unbind(0), grads, strict=True):
            place.copy_(grad)
        return whole.flatten(2), None, None


@dataclass(frozen=True)
class Norm:
    """Layer normalisation: scale [width], shift [width]."""

    scale: Tensor
    shift: Tensor
    epsilon: float

    def __call__(self, states: Tensor) -> Tensor:
        """[..., width] to the same"""
        return functional.layer_norm(states, self.scale.shape, self.scale, self.shift, self.epsilon)


@dataclass(frozen=True)
class Layer:
    """One layer, normalised after each half.

    Attributes:
        qkv: queries, keys and values side by side. query, key_value: its parts, for queries of few pieces.
        table: what it makes of distances; None where its attention does not look at them.
    """

    qkv: Linear
    query: Linear
    key_value: Linear
    attention_output: Linear
    attention_norm: Norm
    ffn_in: Linear
    ffn_out: Linear
    ffn_norm: Norm
    table: Table | None

    def behind(self, mixed: Tensor, states: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """What comes behind the attention: `mixed` is its result, `states` what entered the layer, `[..., hidden]`."""
        states = self.attention_norm(self.attention_output(mixed, states))
        inner, states = self.ffn_in.beside(states)
        return self.ffn_norm(self.ffn_out(activation(inner), states))

    def pack(self, last: bool) -> Layer:
        """The same with packed weights; those of `query` and `key_value` in the last layer, which may need them."""
        names = ["qkv", "attention_output", "ffn_in", "ffn_out", *(("query", "key_value") if last else ())]
        return replace(self, **{name: getattr(self, name).pack() for name in names})


class FrozenEncoder:
    """An encoder whose layers' weights are kept in one precision, which is that of its hidden states too.

    Autocast would convert frozen weights in every pass again. Nothing is dropped out.

    Args:
        model: of one of `harness.anatomy.FAMILIES`; weights that have the precision already are shared with it.
        precision: of the layers. Embeddings are summed and normalised in that of the model.
        alone: leave the model no other copy of these weights than this one; it cannot compute any more by itself.
    """

    @torch.inference_mode(False)  # made during an evaluation, it may be trained through later
    def __init__(self, model: PreTrainedModel, precision: torch.dtype, alone: bool = False) -> None:
        family = FAMILIES[model.config.model_type]
        settings = {ours: getattr(model.config, theirs) for ours, theirs in family.settings.items()}
        self.precision = precision
        self.heads: int = settings["heads"]
        self.activation = ACT2FN[settings["activation"]]
        distances = Distances.of(model.config.to_dict()) if family.disentangled else None
        modules = dict(model.named_modules())

        def part(name: str, number: int = 0) -> nn.Module:
            return modules[family.modules[name].format(number)]

        def optional(name: str) -> nn.Module | None:
            return modules.get(family.modules[name]) if name in family.modules else None

        def linear(number: int, *names: str) -> Linear:
            parts = [part(name, number) for name in names]
            if len(parts) == 1:
                made = Linear(parts[0].weight.detach().to(precision), parts[0].bias.detach().to(precision))
            else:
                weight, bias = (torch.cat([getattr(p, kind).detach() for p in parts]) for kind in ("weight", "bias"))
                made = Linear(weight.to(precision), bias.to(precision))
            begin = 0
            for module in parts if alone else ():
                end = begin + len(module.bias)
                module.weight.data, module.bias.data = made.weight[begin:end], made.bias[begin:end]
                begin = end
            return made

        def norm(number: int, name: str) -> Norm:
            module = part(name, number)
            return Norm(module.weight.detach().to(precision), module.bias.detach().to(precision), module.eps)

        def layer(number: int) -> Layer:
            # in front of what may take the weights' precision away
            table = distances and Table.of(distances, partial(part, number=number), self.heads, precision)
            qkv = linear(number, "query", "key", "value")
            hidden = len(qkv.bias) // 3
            return Layer(
                qkv,
                qkv.rows(0, hidden),
                qkv.rows(hidden, 3 * hidden),
                linear(number, "attention_output"),
                norm(number, "attention_norm"),
                linear(number, "ffn_in"),
                linear(number, "ffn_out"),
                norm(number, "ffn_norm"),
                table,
            )

        self.layers = [layer(number) for number in range(settings["layers"])]
        if self._may_pack():
            self.layers = [one.pack(last=one is self.layers[-1]) for one in self.layers]
        self.word, self.embedding_norm = part("word"), part("embedding_norm")
        self.position, self.token_type, self.projection = map(optional, ("position", "token_type", "projection"))

    def _may_pack(self) -> bool:
        first = self.layers[0]
        weights = sum(part.weight.numel() for part in (first.qkv, first.attention_output, first.ffn_in, first.ffn_out))
        there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        if not there or self.precision is not torch.bfloat16 or first.qkv.weight.device.type != "cpu":
            return False
        return torch.ops.mkldnn._is_mkldnn_bf16_supported() and weights * len(self.layers) <= PACKED

    def embed(self, words: Tensor, positions: Tensor, type_ids: Tensor | None) -> Tensor:
        """What enters the first layer.

        Args:
            words: word embeddings, `[batch, seq, embedding]`, and vectors in front of them, where there are some.
            positions: rows of the position table, `[seq]`. type_ids: `[batch, seq]`; None: all are of the first text.

        Returns:
            `[batch, seq, hidden]`
        """
        states = words if self.position is None else words + self.position(positions)
        if self.token_type is not None:
            states = states + (self.token_type.weight[0] if type_ids is None else self.token_type(type_ids))
        states = self.embedding_norm(states)
        return (states if self.projection is None else self.projection(states)).to(self.precision)

    def run(
        self,
        states: Tensor,
        mask: Tensor | None,
        prefix: Prefix | None = None,
        first: int = 0,
        end: int | None = None,
        read: int | None = None,
        again: bool = False,
        record: list[tuple[Tensor, Tensor]] | None = None,
        below: list[Tensor] | None = None,
    ) -> Tensor:
        """Some layers.

        Args:
            states: what enters the first of them, `[batch, seq, hidden]`.
            mask: `[batch, 1, 1, seq]`, True where a piece is real; None when all are.
            prefix: keys and values that every row sees besides its own.
            first: the first layer. end: the one behind the last; None: of all.
            read: the only piece whose state is asked for: the last layer then computes no other. None: all are.
            again: keep only what enters each layer, and compute the rest again on the way back.
            record: a list that gets keys and values of each layer, both `[batch, head, seq, head_dim]`.
            below: a list that gets what enters each layer, `[batch, seq, hidden]`.

        Returns:
            `[batch, seq, hidden]`, with `read` `[batch, 1, hidden]`.
        """
        numbers = range(len(self.layers))[first:end]
        if not numbers:
            return states if read is None else states[:, read : read + 1]
        rows = None
        watched = record is not None or (prefix is not None and prefix.watch is not None)
        if not watched and self.layers[0].table is None and kernel.takes(states, self.heads):
            rows = Packed.of((states.shape[0], states.shape[1]), mask)
            states = rows.pack(states)
        with torch.autocast(states.device.type, enabled=False):
            for number in numbers:
                if below is not None:
                    below.append(states if rows is None else rows.unpack(states))
                last = read if number == numbers[-1] else None
                if rows is None:
                    layer, inputs = self._layer, (number, states, mask, prefix, last, record)
                else:
                    layer, inputs = self._packed_layer, (number, states, rows, prefix, last)
                states = checkpoint(layer, *inputs, use_reentrant=False) if again else layer(*inputs)
        if rows is None:
            return states
        return rows.unpack(states) if read is None else states[:, None]

    def _layer(
        self,
        number: int,
        states: Tensor,
        mask: Tensor | None,
        prefix: Prefix | None,
        read: int | None,
        record: list[tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        layer, (batch, _, hidden) = self.layers[number], states.shape
        if read is None:
            qkv, states = layer.qkv.beside(states)
            query, key, value = _Heads.apply(qkv, 3, self.heads)
        else:
            key, value = _Heads.apply(layer.key_value(states), 2, self.heads)
            # In one piece: torch would make a product a row of it, and copy the weight for each.
            asked, states = layer.query.beside(states[:, read : read + 1].contiguous())
            (query,) = _Heads.apply(asked, 1, self.heads)
        if record is not None:
            record.append((key, value))
        bias, scaling = None, None
        if layer.table is not None:
            bias, scaling = layer.table.bias(query, key, read), layer.table.distances.scaling
        mixed = prompted(number, query, key, value, mask, prefix, scaling, bias=bias)
        return layer.behind(mixed.transpose(1, 2).reshape(batch, -1, hidden), states, self.activation)

    def _packed_layer(
        self, number: int, states: Tensor, rows: Packed, prefix: Prefix | None, read: int | None
    ) -> Tensor:
        """The same for rows without padding, `[pieces, hidden]`; with `read` `[batch, hidden]`."""
        layer, asked = self.layers[number], None
        if read is None:
            inner, states = layer.qkv.beside(states)
        else:
            inner = layer.key_value(states)
            places = torch.minimum(rows.starts[:-1] + read, rows.starts[1:] - 1)
            asked, states = layer.query.beside(states.index_select(0, places))
        front = None if prefix is None or number not in prefix.layers else prefix.tensor[prefix.layers.index(number)]
        gated = front is not None and prefix is not None and prefix.gated
        mixed = kernel.attention(inner, asked, rows, self.heads, None if gated else front)
        if gated:
            mixed = mixed + kernel.attention(inner, asked, rows, self.heads, front, own=False)
        return layer.behind(mixed, states, self.activation)
