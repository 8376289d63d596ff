"""What the families of encoders call their parts: one set of names for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_BERT = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "attention_output": "encoder.layer.{}.attention.output.dense",
    "attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "ffn_in": "encoder.layer.{}.intermediate.dense",
    "ffn_out": "encoder.layer.{}.output.dense",
    "ffn_norm": "encoder.layer.{}.output.LayerNorm",
}
_DISTILBERT = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "query": "transformer.layer.{}.attention.q_lin",
    "key": "transformer.layer.{}.attention.k_lin",
    "value": "transformer.layer.{}.attention.v_lin",
    "attention_output": "transformer.layer.{}.attention.out_lin",
    "attention_norm": "transformer.layer.{}.sa_layer_norm",
    "ffn_in": "transformer.layer.{}.ffn.lin1",
    "ffn_out": "transformer.layer.{}.ffn.lin2",
    "ffn_norm": "transformer.layer.{}.output_layer_norm",
}
_DEBERTA = _BERT | {
    "query": "encoder.layer.{}.attention.self.query_proj",
    "key": "encoder.layer.{}.attention.self.key_proj",
    "value": "encoder.layer.{}.attention.self.value_proj",
    "distance": "encoder.rel_embeddings",
    "distance_norm": "encoder.LayerNorm",
    "distance_key": "encoder.layer.{}.attention.self.pos_key_proj",
    "distance_query": "encoder.layer.{}.attention.self.pos_query_proj",
}
_SETTINGS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
}


@dataclass(frozen=True)
class Family:
    """What a family calls its parts. All are normalised after each half of a layer.

    Attributes:
        modules: our name of a module -> its name in the model and its state dict ({}: number of the layer).
        settings: our name of a setting -> its name in config.json.
        disentangled: attention looks at the distance of two pieces (`harness.disentangled`), and in transformers it is
            not reached through the attention interface, so that no keys and values can be put in there.
    """

    modules: Mapping[str, str]
    settings: Mapping[str, str]
    disentangled: bool = False


FAMILIES: Mapping[str, Family] = {
    "bert": Family(_BERT, _SETTINGS),
    "roberta": Family(_BERT, _SETTINGS),
    "xlm-roberta": Family(_BERT, _SETTINGS),
    "electra": Family(_BERT | {"projection": "embeddings_project"}, _SETTINGS),
    "distilbert": Family(_DISTILBERT, {"layers": "n_layers", "heads": "n_heads", "activation": "activation"}),
    "camembert": Family(_BERT, _SETTINGS),
    "deberta-v2": Family(_DEBERTA, _SETTINGS, disentangled=True),
}
"""By model type."""

DEFAULT_EPSILON = 1e-12
"""Of the layer normalisation where the configuration has none: a constant in the code of DistilBERT."""
