"""Disentangled attention (DeBERTa, arXiv 2006.03654): what the distance of two pieces adds to their score.

The score of a query and a key is a sum of products over sqrt(parts * head_dim): content with content, as everywhere;
`c2p`, the query with the key that the layer makes of their distance; `p2c`, the key with the query that it makes of it.
The last two go into attention as a bias.

A prefix stands nowhere in the row and has no distance to a piece, so its keys are scored by content alone, under the
same divisor, as in the code of P-Tuning v2. A distance made up for it would only be a constant vector in each of its
products, which a trained key takes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.errors import PolypromptError

PARTS = ("c2p", "p2c")


@dataclass(frozen=True)
class Distances:
    """How pieces are told apart by where they stand.

    Attributes:
        parts: those of `PARTS` that are scored. scaling: factor on every product.
        span: the table has `2 * span` rows, that of distance 0 in the middle; it has none when nothing is scored.
        buckets: this many rows each way: one a distance up to the half of them, the others wider and wider up to a
            distance of `longest`; 0: one a distance.
        shared: distances go through the layer's own maps of contents to queries and keys, not through maps of theirs.
        normed: the table is normalised first.
    """

    parts: tuple[str, ...]
    scaling: float
    span: int
    buckets: int
    longest: int
    shared: bool
    normed: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Distances:
        """Those of an encoder, from its config.json; what is not there has the default of transformers.

        Raises:
            PolypromptError: it has parts that are not computed here.
        """
        asked = config.get("pos_att_type") or ()
        asked = [name.strip() for name in asked.lower().split("|")] if isinstance(asked, str) else asked
        hidden, buckets = config.get("hidden_size", 1536), max(config.get("position_buckets", -1), 0)
        for wrong, what in (
            (set(asked) - set(PARTS), f"pos_att_type {'|'.join(asked)}"),
            (config.get("conv_kernel_size", 0) > 0, "a convolution behind the first layer (conv_kernel_size)"),
            (config.get("embedding_size", hidden) != hidden, "embeddings of another width than its states"),
            (buckets == 1, "position_buckets 1"),
        ):
            if wrong:
                raise PolypromptError(f"a {config['model_type']} encoder with {what} is not supported")
        longest = config.get("max_relative_positions", -1)
        if longest < 1:
            longest = config.get("max_position_embeddings", 512)
        head_dim = hidden // config.get("num_attention_heads", 24)
        return cls(
            parts=tuple(part for part in PARTS if part in asked) if config.get("relative_attention") else (),
            scaling=((1 + len(set(asked))) * head_dim) ** -0.5,
            span=buckets or longest,
            buckets=buckets,
            longest=longest,
            shared=bool(config.get("share_att_key")),
            normed="layer_norm" in config.get("norm_rel_ebd", "none").lower().split("|"),
        )

    def rows(self, distances: Tensor) -> Tensor:
        """The row of the table of each distance, query minus key."""
        found = distances
        middle = self.buckets // 2
        if self.buckets:
            far = distances.abs().clamp(min=middle)
            share = torch.log(far / middle) / torch.log(torch.tensor((self.longest - 1) / middle))
            bucket = torch.ceil(share * (middle - 1)).long() + middle
            found = torch.where(distances.abs() <= middle, distances, distances.sign() * bucket)
        return (found + self.span).clamp(0, 2 * self.span - 1)


@dataclass(frozen=True)
class Table:
    """What a layer makes of the rows of the table, [head, 2 * span, head_dim], scaled; None: it is not scored.

    Attributes:
        distances: which row is whose. keys: for `c2p`. queries: for `p2c`.
    """

    distances: Distances
    keys: Tensor | None
    queries: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, distances: Distances, part: Callable[[str], nn.Module], heads: int, precision: torch.dtype) -> Table:
        """That of a layer.

        Args:
            part: a module of the layer, or of all of them, by its name in `harness.anatomy`.
            heads: of the layer. precision: of what it makes.
        """

        def made(name: str) -> Tensor:
            table = part("distance").weight[: 2 * distances.span]
            if distances.normed:
                table = part("distance_norm")(table)
            mapped = part(name if distances.shared else f"distance_{name}")(table) * distances.scaling
            return mapped.unflatten(1, (heads, -1)).transpose(0, 1).contiguous().to(precision)

        keys, queries = (made(n) if p in distances.parts else None for n, p in (("key", "c2p"), ("query", "p2c")))
        return cls(distances, keys, queries)

    def bias(self, query: Tensor, key: Tensor, read: int | None) -> Tensor | None:
        """What is added to the scores of a layer.

        Args:
            query: `[batch, head, seq, head_dim]`, or with `read` only that of this piece, `[batch, head, 1, head_dim]`.
            key: `[batch, head, seq, head_dim]`.

        Returns:
            `[batch, head, seq, seq]`, with `read` `[batch, head, 1, seq]`; None where no distance is scored.
        """
        seq, found = key.shape[2], []
        if read is not None:
            rows = self.distances.rows(read - torch.arange(seq, device=key.device))
            if self.keys is not None:
                found.append(query @ self.keys[:, rows].transpose(-1, -2))
            if self.queries is not None:
                found.append((key * self.queries[:, rows]).sum(-1)[:, :, None])
            return sum(found) if found else None
        # Of all pieces at once: each with all 2 * seq - 1 distances (and one more), of which it has seq.
        steps = torch.arange(-seq, seq, device=key.device) + 1
        if self.keys is not None:
            found.append(_aligned(query @ self.keys[:, self.distances.rows(-steps)].transpose(-1, -2)))
        if self.queries is not None:
            scores = key @ self.queries[:, self.distances.rows(steps)].transpose(-1, -2)
            found.append(_aligned(scores).transpose(-1, -2))
        return sum(found) if found else None


def _aligned(scores: Tensor) -> Tensor:
    """Scores of each piece by the step to another one, to scores by that other one's place.

    Args:
        scores: `[batch, head, seq, 2 * seq]`, of steps from -(seq - 1) to seq.

    Returns:
        `[batch, head, seq, seq]`: of piece i the steps from -i to seq - 1 - i. In a row that is one shorter, that of
        the next piece begins one step earlier.
    """
    seq = scores.shape[2]
    return scores.flatten(2)[..., seq - 1 : -1].unflatten(2, (seq, 2 * seq - 1))[..., :seq]
