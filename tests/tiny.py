"""Random encoders of every supported family, small enough for a test, with a word-level tokenizer."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

LAYERS, HEADS, HIDDEN, VOCABULARY = 3, 4, 32, 60
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 42,
}
DEBERTA_V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "max_relative_positions": -1,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
"""What the published configurations of DeBERTa-v3 say, but for the number of buckets."""
ROBERTA_LIKE = {"type_vocab_size": 1, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
CLASSES = {
    "bert": (BertModel, BertConfig, {}),
    "roberta": (RobertaModel, RobertaConfig, ROBERTA_LIKE),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, ROBERTA_LIKE),
    "electra": (ElectraModel, ElectraConfig, {"embedding_size": 16}),
    "distilbert": (DistilBertModel, DistilBertConfig, {}),
    "camembert": (CamembertModel, CamembertConfig, ROBERTA_LIKE),
}
FAMILIES = tuple(CLASSES)
"""Those whose attention goes through the interface of transformers."""

CLASSES |= {"deberta-v2": (DebertaV2Model, DebertaV2Config, DEBERTA_V3)}


def tiny_model(family: str, **settings: object) -> PreTrainedModel:
    """A random encoder whose weights are large enough that every part of it shows in the output."""
    make_model, make_config, more = CLASSES[family]
    torch.manual_seed(0)
    pooler = {} if family in ("electra", "distilbert", "deberta-v2") else {"add_pooling_layer": False}
    model = make_model(make_config(**{**SHAPE, **more, **settings}), **pooler)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def tiny_tokenizer(family: str) -> Tokenizer:
    """Words `w5` to `w59`, and special pieces where the family has them."""
    if family in ("roberta", "xlm-roberta", "camembert"):
        first, last, between, second = "<s>", "</s>", "</s> </s>", "$B"
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    else:
        first, last, between, second = "[CLS]", "[SEP]", "[SEP]", "$B:1"
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = special + [f"w{i}" for i in range(len(special), VOCABULARY)]
    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=next(s for s in special if "unk" in s.lower())))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} {second} {last}" + (":1" if second == "$B:1" else ""),
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    return tokenizer
