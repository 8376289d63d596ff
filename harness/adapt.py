"""Weights of the encoder that are trained: chosen, named as they are stored, and merged into the encoder.

peft takes more than a second to import and LoRA alone needs it, so it is imported where it is used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from torch import Tensor

from harness.backbone import Backbone
from harness.methods import Weights

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig

QUERY_VALUE = ("query", "value", "q_lin", "v_lin", "query_proj", "value_proj")
"""What the families call the maps to queries and values, DistilBERT and DeBERTa last."""

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter, by the names that peft looks for."""

WRAPPED = "base_model.model."
"""In front of every name in an adapter of peft: its own classes around the encoder."""


def adapt(backbone: Backbone, weights: Weights, rank: int, alpha: float) -> None:
    """Let the weights that a method trains require gradients, and no others; put LoRA's in.

    Args:
        backbone: changed in place. weights: which.
        rank: of LoRA's two factors. alpha: their product is scaled by alpha / rank (arXiv 2106.09685, section 4.1).
    """
    for name, weight in backbone.model.named_parameters():
        weight.requires_grad_(weights is Weights.ALL or (weights is Weights.BIASES and name.endswith(".bias")))
    if weights is Weights.LORA:
        from peft import inject_adapter_in_model

        inject_adapter_in_model(lora_config(backbone, rank, alpha), backbone.model)
    backbone.look()


def lora_config(backbone: Backbone, rank: int, alpha: float) -> LoraConfig:
    """What peft is to know of the adapter of an encoder, see `adapt`."""
    from peft import LoraConfig, TaskType

    leaves = {name.rpartition(".")[2] for name, _ in backbone.model.named_modules()}
    return LoraConfig(
        base_model_name_or_path=backbone.card.name,
        task_type=TaskType.FEATURE_EXTRACTION,
        r=rank,
        lora_alpha=alpha,
        target_modules=[name for name in QUERY_VALUE if name in leaves],
    )


def lora_of(backbone: Backbone) -> LoraConfig | None:
    """The configuration of the adapter in an encoder; None where there is none."""
    configs = getattr(backbone.model, "peft_config", None)
    return None if configs is None else configs["default"]


def adapter_json(config: PeftConfig) -> str:
    """adapter_config.json of an adapter that is ready to predict; equal ones are equal bytes."""
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    return json.dumps(plain | {"inference_mode": True}, indent=2, sort_keys=True) + "\n"


def lora_state(backbone: Backbone) -> dict[str, Tensor]:
    """The weights of the adapter in an encoder under the names that peft stores them by."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(backbone.model, save_embedding_layers=False)
    return {WRAPPED + name: weight for name, weight in state.items()}


def load_lora(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Put stored weights into the adapter that `adapt` made.

    Raises:
        ValueError: they are those of another encoder, or of another rank.
    """
    from peft import set_peft_model_state_dict

    shapes = [{name: weight.shape for name, weight in weights.items()} for weights in (lora_state(backbone), state)]
    if shapes[0] != shapes[1]:
        raise ValueError("the adapter has weights of other names or shapes than the encoder")
    set_peft_model_state_dict(backbone.model, state)


def trained_state(backbone: Backbone) -> dict[str, Tensor]:
    """The encoder's own weights that are trained, by their names in it."""
    return {name: weight.detach() for name, weight in backbone.model.named_parameters() if weight.requires_grad}


def load_trained_state(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """Put stored weights in the place of those that `adapt` chose.

    Raises:
        ValueError: some are missing, or there are others.
    """
    expected = trained_state(backbone).keys()
    if expected != state.keys():
        raise ValueError(f"weights of the encoder differ from the method's, {min(expected ^ state.keys())} first")
    backbone.model.load_state_dict(state, strict=False)


def merge(backbone: Backbone) -> None:
    """Add LoRA's products to the weights that they adapt, so that the encoder is a plain one again; else nothing."""
    if lora_of(backbone) is None:
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            backbone.model.set_submodule(name, module.get_base_layer())
    del backbone.model.peft_config
    backbone.look()
