"""Disentangled attention (DeBERTa, arXiv 2006.03654): what the distance of two pieces adds to their score.

The score of a query and a key is a sum of products over sqrt(parts * head_dim): content with content, as everywhere;
`c2p`, the query with the key that the layer makes of their distance; `p2c`, the key with the query that it makes of it.
The last two go into attention as a bias.

A prefix stands nowhere in the row and has no distance to a piece, so its keys are scored by content alone, under the
same divisor, as in the code of P-Tuning v2. A distance made up for it would only be a constant vector in each of its
products, which a trained key takes in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.distances import Distances


@dataclass(frozen=True)
class Table:
    """What a layer makes of the rows of the table, [head, 2 * span, head_dim], scaled; None: it is not scored.

    Attributes:
        distances: which row is whose. rows: the same as `Distances.rows`, `[2 * longest + 1]`.
        keys: for `c2p`. queries: for `p2c`.
    """

    distances: Distances
    rows: Tensor
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
            with torch.autocast(table.device.type, enabled=False):  # rounded once, at the end
                if distances.normed:
                    table = part("distance_norm")(table)
                mapped = part(name if distances.shared else f"distance_{name}")(table) * distances.scaling
            return mapped.unflatten(1, (heads, -1)).transpose(0, 1).contiguous().to(precision)

        keys, queries = (made(n) if p in distances.parts else None for n, p in (("key", "c2p"), ("query", "p2c")))
        rows = torch.from_numpy(distances.rows()).to(part("query").weight.device)
        return cls(distances, rows, keys, queries)

    def rows_of(self, distance: Tensor) -> Tensor:
        """The row of each distance, query minus key."""
        longest = self.distances.longest
        return self.rows[distance.clamp(-longest, longest) + longest]

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
            rows = self.rows_of(read - torch.arange(seq, device=key.device))
            if self.keys is not None:
                found.append(query @ self.keys[:, rows].transpose(-1, -2))
            if self.queries is not None:
                found.append((key * self.queries[:, rows]).sum(-1)[:, :, None])
            return sum(found) if found else None
        # Of all pieces at once: each with all 2 * seq - 1 distances (and one more), of which it has seq.
        steps = torch.arange(-seq, seq, device=key.device) + 1
        if self.keys is not None:
            found.append(_aligned(query @ self.keys[:, self.rows_of(-steps)].transpose(-1, -2)))
        if self.queries is not None:
            scores = key @ self.queries[:, self.rows_of(steps)].transpose(-1, -2)
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
