"""Key/value prefixes in the attention of a transformers encoder, through its attention interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from benchmarks.errors import PolypromptError
from harness import products

IMPLEMENTATION = "polyprompt"
"""Name under which `attend` and `key_mask` are registered in transformers."""

Record = list[tuple[nn.Module, Tensor, Tensor]]
"""What `attend` writes down of each layer: its module, keys and values, both `[batch, head, seq, head_dim]`."""


@dataclass(frozen=True)
class Prefix:
    """The prefix of one forward pass.

    Attributes:
        tensor: `[layer, 2, batch or 1, head, slot, head_dim]` over the prompted layers only; 2 = key, value.
        layers: indices of those layers in the encoder, ascending.
        gated: False: keys and values are concatenated in front of the layer's own (P-Tuning v2, arXiv 2110.07602,
            section 3). True: the prefix has a softmax of its own and its result is added,
            `softmax(q K) V + softmax(q Pk) Pv` (LLaMA-Adapter, arXiv 2303.16199, section 3.2), with the gate, which
            starts at zero, already folded into the values: a prefix of zero values changes nothing.
        shifted: the positions of the row start behind the prefix instead of at 0.
        watch: told, of each layer with a prefix, its index and the weights that its slots get,
            `[batch, head, queries, slot]`, padding included; None: nobody looks, which is faster.
    """

    tensor: Tensor
    layers: tuple[int, ...]
    gated: bool = False
    shifted: bool = False
    watch: Callable[[int, Tensor], None] | None = None

    @property
    def slots(self) -> int:
        """Prompt length."""
        return self.tensor.shape[4]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    prefix: Prefix | None = None,
    record: Record | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention of one layer, with its part of a prefix. Called by transformers, never directly.

    `prefix` and `record` are keywords of the model's forward, which transformers hands down to every layer. Activation
    checkpointing must be non-reentrant: the reentrant kind drops the gradient of a tensor that arrives by keyword.

    Args:
        module: the attention module that asks.
        query, key, value: `[batch, head, seq, head_dim]`.
        attention_mask: from `key_mask`: `[batch, 1, 1, seq]`, True where a key may be seen; None when all may.
        scaling: factor on the products; None means `1 / sqrt(head_dim)`.
        dropout: probability with which an attention weight is dropped; 0 outside training.
        prefix: keys and values that every row sees besides its own.
        record: a list that gets this layer's module, keys and values.

    Returns:
        `[batch, seq, head, head_dim]`, and None in place of the attention weights.
    """
    if record is not None:
        record.append((module, key, value))
    layer = -1 if prefix is None else module.layer_number  # it is found out by a pass without a prefix
    mixed = prompted(layer, query, key, value, attention_mask, prefix, scaling, dropout)
    return mixed.transpose(1, 2).contiguous(), None


def prompted(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    prefix: Prefix | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    bias: Tensor | None = None,
) -> Tensor:
    """The attention of one layer with its part of a prefix, where it has one.

    Args:
        layer: its number. query, key, value, mask, scaling, dropout: as for `mix`. prefix: as for `attend`.
        bias: as for `mix`, of the layer's own keys; those of a prefix have none.

    Returns:
        `[batch, head, seq, head_dim]`
    """
    if prefix is None or layer not in prefix.layers:
        return mix(query, key, value, mask, scaling, dropout, bias)
    pair = prefix.tensor[prefix.layers.index(layer)].to(key.dtype)  # autocast leaves a prefix in fp32
    front_key, front_value = pair.expand(-1, key.shape[0], -1, -1, -1)
    if prefix.watch is not None:
        prefix.watch(layer, slot_weights(query, key, front_key, mask, prefix.gated, scaling, bias))
    if prefix.gated:
        own = mix(query, key, value, mask, scaling, dropout, bias)
        return own + mix(query, front_key, front_value, None, scaling, dropout)
    if mask is not None:
        mask = F.pad(mask, (front_key.shape[2], 0), value=True)
    if bias is not None:
        bias = F.pad(bias, (front_key.shape[2], 0))
    key, value = torch.cat([front_key, key], 2), torch.cat([front_value, value], 2)
    return mix(query, key, value, mask, scaling, dropout, bias)


def slot_weights(
    query: Tensor,
    key: Tensor,
    front: Tensor,
    mask: Tensor | None,
    gated: bool,
    scaling: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The attention weights of a prefix, beside those of a layer's own keys; where it is gated, by itself.

    Args:
        query, key, mask, scaling, bias: as for `mix`. front: keys of the prefix, `[batch, head, slot, head_dim]`.
        gated: the prefix has a softmax of its own.

    Returns:
        `[batch, head, seq, slot]`
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    fronts = scale * (query @ front.transpose(-1, -2)).float()
    if gated:
        return fronts.softmax(-1)
    own = scale * (query @ key.transpose(-1, -2)).float()
    own = own if bias is None else own + bias
    own = own if mask is None else own.masked_fill(~mask, -torch.inf)
    return torch.cat([fronts, own], -1).softmax(-1)[..., : front.shape[2]]


def mix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(scaling * query key^T + bias) value, by the way that is fastest where the tensors are.

    Args:
        query: `[batch, head, seq, head_dim]`. key, value: `[batch, head, keys, head_dim]`.
        mask: `[batch, 1, 1, keys]`, True where a key may be seen; None when all may.
        scaling: factor on the products; None means `1 / sqrt(head_dim)`.
        dropout: probability with which an attention weight is dropped.
        bias: `[batch, head, seq, keys]`; None: there is none.

    Returns:
        `[batch, head, seq, head_dim]`
    """
    if dropout == 0 and products.are_faster(query, key):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return products.attention(query, key, value, mask, scale, bias)
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling)


def key_mask(attention_mask: Tensor | None = None, **_: object) -> Tensor | None:
    """The mask that `attend` gets. Called by transformers once a forward pass, never directly.

    Without a mask function under the same name transformers hands on no mask at all, and padding is attended to.

    Args:
        attention_mask: `[batch, seq]`, non-zero where a token is real; None when nothing is padded.

    Returns:
        `[batch, 1, 1, seq]`, boolean; None for None.
    """
    return None if attention_mask is None else attention_mask[:, None, None, :].bool()


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, key_mask)


def number_layers(model: PreTrainedModel) -> None:
    """Give each attention module of an encoder its index, `layer_number`, in the order of one recorded forward pass.

    Args:
        model: an encoder; from here on its attention is `attend`.

    Raises:
        PolypromptError: the model does not call the attention interface exactly once for each of its layers.
    """
    model.set_attn_implementation(IMPLEMENTATION)
    record: Record = []
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), record=record)
    modules = [module for module, _, _ in record]
    if len(set(modules)) != model.config.num_hidden_layers or len(modules) != model.config.num_hidden_layers:
        raise PolypromptError(
            f"{type(model).__name__} has {model.config.num_hidden_layers} layers but asks the attention interface of "
            f"transformers for {len(modules)}: it cannot carry a prefix in every layer"
        )
    for number, module in enumerate(modules):
        module.layer_number = number
