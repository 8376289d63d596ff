"""How pieces of a row are told apart by their distance in disentangled attention (DeBERTa). Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        longest = config.get("max_relative_positions", -1)
        if longest < 1:
            longest = config.get("max_position_embeddings", 512)
        for wrong, what in (
            (set(asked) - set(PARTS), f"pos_att_type {'|'.join(asked)}"),
            (config.get("conv_kernel_size", 0) > 0, "a convolution behind the first layer (conv_kernel_size)"),
            (config.get("embedding_size", hidden) != hidden, "embeddings of another width than its states"),
            (buckets % 2 or buckets >= max(1, 2 * longest - 2), f"position_buckets {buckets} over {longest} distances"),
        ):
            if wrong:
                raise PolypromptError(f"a {config['model_type']} encoder with {what} is not supported")
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

    def rows(self) -> NDArray[np.int64]:
        """The row of the table of each distance, query minus key, from -longest to longest; [2 * longest + 1].

        What is farther apart has the row of the farthest.
        """
        distance = np.arange(-self.longest, self.longest + 1)
        found = distance
        if self.buckets:
            # In the order and the precision of transformers: where a step ends hangs on the last bit.
            middle = self.buckets // 2
            far = np.maximum(np.abs(distance), middle)
            share = np.log((far / middle).astype(np.float32)) / np.log(np.float32((self.longest - 1) / middle))
            bucket = np.ceil(share * np.float32(middle - 1)).astype(np.int64) + middle
            found = np.where(np.abs(distance) <= middle, distance, np.sign(distance) * bucket)
        return np.clip(found + self.span, 0, 2 * self.span - 1)
