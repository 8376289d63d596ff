"""An encoder of texts that tokenizes the same rows once on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tokenizers

from benchmarks import cache
from benchmarks.records import Example
from benchmarks.task import TaskCard
from harness import features
from harness.features import Feature, TextEncoder


class CachedEncoder(TextEncoder):
    """A `TextEncoder` whose rows are kept in `benchmarks.cache`; arrays that come from there are not writable."""

    def features(self, card: TaskCard, examples: Sequence[Example]) -> list[Feature]:
        """See `TextEncoder.features`."""
        encode = super().features
        if cache.folder() is None:
            return encode(card, examples)
        asked = cache.content_hash(tuple[Example, ...], examples)
        name = cache.key("features", self._identity, card.model_dump_json(), f"{self.masks.get(card.name)}", asked)
        return cache.through(name, list[Feature], lambda: encode(card, examples))

    @cached_property
    def _identity(self) -> str:
        """All of this encoder that decides what a row is; the truncation is set anew for each card."""
        self.tokenizer.no_truncation()
        tokenizer = hashlib.sha256(self.tokenizer.to_str().encode("utf-8")).hexdigest()
        code = cache.source_hash(Path(features.__file__))
        numbers = f"{self.pad_id} {self.token_types} {self.max_positions}"
        return f"{tokenizer} {tokenizers.__version__} {numbers} {code}"
