"""The weights of a frozen encoder under one set of names, whatever its family calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import PolypromptError
from exporters.disentangled import Table, make_table
from harness.anatomy import DEFAULT_EPSILON, FAMILIES
from harness.distances import Distances

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Norm:
    """Layer normalisation: scale [width], shift [width]."""

    scale: Floats
    shift: Floats

    def of(self, states: Floats, epsilon: float) -> Floats:
        """Normalised states, [..., width]."""
        centred = states - states.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(epsilon))
        return centred / deviation * self.scale + self.shift


@dataclass(frozen=True)
class Linear:
    """`x @ weight + bias`: weight [in, out], bias [out]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Layer:
    """One transformer layer, normalised after each half.

    Attributes:
        qkv: queries, keys and values side by side, [hidden, 3 * hidden].
        attention_output: [hidden, hidden]. attention_norm: of the sum with the input of the layer.
        ffn_in: [hidden, inner]. ffn_out: [inner, hidden]. ffn_norm: of the sum with the output of the first half.
        table: what it makes of distances; None where its attention does not look at them.
    """

    qkv: Linear
    attention_output: Linear
    attention_norm: Norm
    ffn_in: Linear
    ffn_out: Linear
    ffn_norm: Norm
    table: Table | None = None


@dataclass(frozen=True)
class EncoderWeights:
    """A whole encoder.

    Attributes:
        word: [vocabulary, embedding]. position: [positions, embedding]; None where only distances are looked at.
        first_position: row of `position` of the first piece.
        token_type: [types, embedding]; one row where all pieces are of one type; None where the family has none.
        embedding_norm: of the sum of the three.
        projection: from embedding to hidden width, where they differ (ELECTRA).
        layers: from the input up.
        heads: attention heads a layer.
        epsilon: of the layer normalisation.
        distances: what attention makes of them (DeBERTa); None: nothing.
    """

    word: Floats
    position: Floats | None
    first_position: int
    token_type: Floats | None
    embedding_norm: Norm
    projection: Linear | None
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float
    distances: Distances | None = None

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        return len(self.layers[0].attention_output.bias)

    @property
    def scaling(self) -> float:
        """Factor on the products of queries and keys."""
        return (self.hidden // self.heads) ** -0.5 if self.distances is None else self.distances.scaling

    @property
    def token_types(self) -> bool:
        """True when pieces differ in type, so that the graph asks for it."""
        return self.token_type is not None and len(self.token_type) > 1


def read_weights(
    config: Mapping[str, Any], state: Mapping[str, Floats], first_position: int, token_types: bool
) -> EncoderWeights:
    """Collect the weights of an encoder.

    Args:
        config: of the model, as config.json has it with every default filled in.
        state: name -> float32 array, the state dict of the encoder without any head.
        first_position: position of the first piece; behind the one of padding in RoBERTa and its kin, else 0.
        token_types: whether pieces of the second text of a pair are marked; if not, all have type 0.

    Raises:
        PolypromptError: another family, another activation than exact GELU, or a weight that is not there.
    """
    kind = config["model_type"]
    if kind not in FAMILIES:
        raise PolypromptError(f"cannot export a {kind} encoder; supported: {', '.join(sorted(FAMILIES))}")
    names, disentangled = FAMILIES[kind].modules, FAMILIES[kind].disentangled
    settings = {ours: config[theirs] for ours, theirs in FAMILIES[kind].settings.items()}
    if settings["activation"] != "gelu":
        raise PolypromptError(f"cannot export an encoder with activation {settings['activation']}; supported: gelu")

    def tensor(name: str) -> Floats:
        if name not in state:
            raise PolypromptError(f"cannot export: the {kind} encoder has no weight {name!r}")
        return np.asarray(state[name], np.float32)

    def module(name: str, layer: int) -> tuple[Floats, Floats]:
        full = names[name].format(layer)
        return tensor(f"{full}.weight"), tensor(f"{full}.bias")

    def linear(*parts: str, layer: int = 0) -> Linear:
        weights, biases = zip(*(module(name, layer) for name in parts), strict=True)
        return Linear(np.concatenate(weights).T, np.concatenate(biases))

    def norm(name: str, layer: int = 0) -> Norm:
        return Norm(*module(name, layer))

    def table(name: str) -> Floats | None:
        # Whether DeBERTa has one is a matter of its configuration.
        full = f"{names.get(name)}.weight"
        return None if name not in names or (disentangled and full not in state) else tensor(full)

    heads, distances = settings["heads"], Distances.of(config) if disentangled else None
    far = table("distance")
    if far is not None and distances.normed:
        far = norm("distance_norm").of(far, settings["epsilon"])
    types = table("token_type")
    return EncoderWeights(
        word=tensor(f"{names['word']}.weight"),
        position=table("position"),
        first_position=first_position,
        token_type=types if token_types or types is None else types[:1],
        embedding_norm=norm("embedding_norm"),
        projection=linear("projection") if f"{names.get('projection')}.weight" in state else None,
        layers=tuple(
            Layer(
                qkv=linear("query", "key", "value", layer=layer),
                attention_output=linear("attention_output", layer=layer),
                attention_norm=norm("attention_norm", layer),
                ffn_in=linear("ffn_in", layer=layer),
                ffn_out=linear("ffn_out", layer=layer),
                ffn_norm=norm("ffn_norm", layer),
                table=None if distances is None else make_table(distances, far, heads, partial(module, layer=layer)),
            )
            for layer in range(settings["layers"])
        ),
        heads=heads,
        epsilon=settings.get("epsilon", DEFAULT_EPSILON),
        distances=distances,
    )
