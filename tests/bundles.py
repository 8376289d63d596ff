"""Random prompts and heads with a task of every kind: tiny models and their bundles, and runs over real encoders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from benchmarks.registry import find_suite
from benchmarks.results import Manifest, write_model
from benchmarks.task import Kind, TaskCard
from exporters.bundle import BundleCard, write_bundle
from exporters.export import blueprint_of, describe, graph_of, tensors_of
from exporters.native_form import build_native, can_be_native
from exporters.packed import build_packed, can_pack
from harness.backbone import Backbone, load_backbone
from harness.config import RunConfig, save_config
from harness.heads import HeadLayers, Pooling
from harness.initial import random_states
from harness.model import PromptedModel
from harness.placement import Placement, Positions
from harness.sharing import PromptBank
from harness.store import save_weights
from tests.tiny import LAYERS, tiny_model, tiny_tokenizer

CARDS = [
    TaskCard(name=name, suite="tiny", kind=kind, labels=labels, metrics=("accuracy",), max_length=40, stride=4)
    for name, kind, labels in (
        ("mood", Kind.CLASSIFICATION, ("bad", "good", "so-so")),
        ("degree", Kind.REGRESSION, ()),
        ("cause", Kind.CHOICE, ()),
        ("names", Kind.TAGGING, ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
        ("question", Kind.SPAN, ()),
        ("pairs", Kind.RETRIEVAL, ()),
    )
]


def tiny_prompted(
    family: str = "bert",
    layers: tuple[int, ...] | None = tuple(range(LAYERS)),
    gated: bool = False,
    pooling: str = "cls",
    cards: list[TaskCard] = CARDS,
    positions: str = "own",
    tokenizer: Tokenizer | None = None,
    head_layers: str = "last",
    **settings: object,
) -> PromptedModel:
    """A random prompted model, half of its tasks with a prompt of their own; no layers: without, None: in the input.

    Args:
        tokenizer: None: that of words.
        settings: of the encoder.
    """
    backbone = Backbone("tiny", tiny_model(family, **settings), tokenizer or tiny_tokenizer(family))
    torch.manual_seed(1)
    prompt = None
    if layers != ():
        placement = Placement(layers=layers, gated=gated, positions=Positions(positions))
        bank = torch.stack([random_states(backbone, placement, 5) for _ in range(3)])
        own = [card.name for card in cards[::2]]
        prompt = PromptBank(bank, {"": 0} | {name: 1 + number % 2 for number, name in enumerate(own)}, placement)
    model = PromptedModel(backbone, prompt, cards, Pooling(pooling), head_layers=HeadLayers(head_layers))
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight)
        torch.nn.init.normal_(head.bias)
    return model.requires_grad_(False).eval()


def tiny_manifest(model: PromptedModel, cards: list[TaskCard] = CARDS) -> Manifest:
    """What a run of such a model would say of itself."""
    return Manifest(
        run="tiny",
        created="2000-01-01T00:00:00Z",
        command="",
        code="",
        packages={},
        processor="",
        precision="fp32",
        method="ptuning-v2",
        seed=0,
        prompt="",
        backbone=model.backbone.card,
        tasks=cards,
        trainable=0,
        share=0,
        data={},
        limits={},
        steps=0,
        examples_seen=0,
        train_seconds=0,
        evaluate_seconds=0,
        interruptions=0,
    )


def tiny_bundle(folder: Path, model: PromptedModel, cards: list[TaskCard] = CARDS) -> BundleCard:
    """The model's bundle in a new folder."""
    folder.mkdir()
    card = describe(model, tiny_manifest(model, cards))
    graph = graph_of(model, build_packed) if can_pack(blueprint_of(model), model.backbone.layers) else None
    native = graph_of(model, build_native) if can_be_native(blueprint_of(model), model.backbone.card.family) else None
    tensors, tokenizer = tensors_of(model, cards), model.backbone.tokenizer.to_str()
    return write_bundle(folder, card, graph_of(model), tensors, tokenizer, packed=graph, native=native)


def demo_run(run: Path, name: str) -> PromptedModel:
    """What a finished run of the demo suite over a named encoder leaves, but for its predictions: prompt and heads."""
    cards = [task.card for task in find_suite("demo").tasks]
    backbone = load_backbone(name)
    torch.manual_seed(4)
    shape = (1, backbone.layers, 2, backbone.heads, 5, backbone.head_dim)
    bank = PromptBank(torch.randn(shape), {"": 0}, Placement(layers=tuple(range(backbone.layers))))
    config = RunConfig(suite=["demo"], languages=["en", "de"], backbone=name)
    model = PromptedModel(backbone, bank, cards, config.pooling).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight, std=0.3)
    save_config(config, run / "config.toml")
    write_model(run / "manifest.json", tiny_manifest(model, cards))
    save_weights(model, run)
    return model
