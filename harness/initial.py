"""Where training begins: prompts from states of real tokens, and heads that already know the mean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.errors import PolypromptError
from benchmarks.task import Kind
from harness.adapt import adapt
from harness.backbone import Backbone
from harness.config import RunConfig
from harness.data import TaskRows
from harness.features import Feature, Rows, pad
from harness.methods import Method, PromptOf
from harness.model import HEADS, PromptedModel
from harness.placement import Init, Placement, Positions, Sharing
from harness.prompt import TrainedPrompt, parse_layers
from harness.readout import Readout
from harness.sharing import LowRank, PromptBank, Prompts
from harness.train import TaskTraining


def max_positions(config: RunConfig, method: Method, backbone: Backbone) -> int:
    """Pieces of the longest row of a run: positions that are shifted leave less room."""
    shifted = method.prompt is not PromptOf.NONE and config.positions is Positions.SHIFTED
    room = backbone.max_positions - (config.prompt_length if shifted else 0)
    if room < 8:
        raise PolypromptError(
            f"--prompt-length {config.prompt_length}: {config.backbone} has {backbone.max_positions} positions, and "
            "with --positions shifted the prompt takes them from the rows"
        )
    return room


def make_model(
    config: RunConfig,
    method: Method,
    backbone: Backbone,
    rows: Sequence[TaskRows],
    training: Sequence[TaskTraining],
    readout: Readout | None = None,
) -> PromptedModel:
    """The model as it is before the first step, decided by the seed.

    Raises:
        PolypromptError: a task is to be learned, and nothing that answers it is trained.
    """
    torch.manual_seed(config.seed)
    prompts = None
    if method.prompt is not PromptOf.NONE and training:
        retrieval = [task_rows.task.name for task_rows in rows if task_rows.task.card.kind is Kind.RETRIEVAL]
        bare = [] if config.retrieval_prompt else retrieval
        prompts = _prompts(config, _placement(config, method, backbone), backbone, training, bare)
    adapt(backbone, method.backbone, config.lora_rank, config.lora_alpha)
    cards = [task_rows.task.card for task_rows in rows]
    model = PromptedModel(backbone, prompts, cards, config.pooling, readout, config.head_layers)
    beside_heads = [name for name, weight in model.named_parameters() if weight.requires_grad and name[:6] != "heads."]
    fixed = [name for name in _by_name(training) if name not in model.heads]
    if fixed and not beside_heads:
        raise PolypromptError(
            f"--method {method.name}: trains heads alone, and --head {config.head} leaves none to train for "
            f"{', '.join(fixed)}; choose a method that trains a prompt or the encoder"
        )
    center_regression(model, training)
    if config.start_from is not None:
        give_heads(config.start_from, model)
    return model


def specialised(model: PromptedModel, training: Sequence[TaskTraining]) -> Prompts:
    """A prompt for each trained task that begins as the one they shared, which stays for the other tasks, frozen."""
    assert isinstance(model.prompt, Prompts)
    shared = model.prompt.shared
    assert shared is not None
    bank = model.prompt.fold([""])
    own = {name: TrainedPrompt(bank.placement, bank.bank[0].clone()) for name in _by_name(training)}
    return Prompts(shared.requires_grad_(False), own, bare=model.prompt.bare)


def _by_name(training: Sequence[TaskTraining]) -> dict[str, list[TaskTraining]]:
    """Name of each trained task -> its rows in each of its languages."""
    tasks: dict[str, list[TaskTraining]] = {}
    for task in training:
        tasks.setdefault(task.task.name, []).append(task)
    return tasks


def _placement(config: RunConfig, method: Method, backbone: Backbone) -> Placement:
    gated = config.init is Init.ZERO_GATED
    if method.prompt is PromptOf.DEEP:
        if backbone.engine == "transformers" or config.shard_backbone:
            backbone.refuse_prefix()
        layers = parse_layers(config.prompt_layers, backbone.layers)
        return Placement(layers=layers, gated=gated, positions=config.positions)
    if gated or config.prompt_layers != "all":
        option = "--init zero-gated" if gated else f"--prompt-layers {config.prompt_layers}"
        raise PolypromptError(f"{option}: needs a prompt in the layers, and that of {method.name} is in the input")
    return Placement(layers=None, positions=config.positions)


def _prompts(
    config: RunConfig, placement: Placement, backbone: Backbone, training: Sequence[TaskTraining], bare: Collection[str]
) -> Prompts:
    """The prompts of a run; those that begin with states of tokens take them from the rows of the tasks they serve.

    Args:
        bare: tasks that get none.
    """

    def prompt(tasks: Sequence[TaskTraining]) -> TrainedPrompt:
        gate = placement.gated
        if config.start_from is not None:
            start = given_states(config.start_from, backbone, tasks)
            gate = False  # it is folded into the values
        elif config.init is Init.KV:
            features = [feature for task in tasks for feature in task.features]
            start = token_states(backbone, features, placement, config.prompt_length, config.seed)
        else:
            start = random_states(backbone, placement, config.prompt_length)
            if config.reparameterise:
                start.zero_()  # what the MLP makes is random already
        return TrainedPrompt(placement, start, gate, config.reparameterise, config.prompt_dropout)

    tasks = _by_name(training)
    if config.sharing is Sharing.SEPARATE:
        return Prompts(None, {name: prompt(rows) for name, rows in tasks.items()}, bare=bare)
    shared = prompt(training)
    if config.sharing is not Sharing.LOW_RANK:
        return Prompts(shared, bare=bare)
    languages = list(dict.fromkeys(task.language for task in training))

    def parts(names: Iterable[str]) -> dict[str, LowRank]:
        return {name: LowRank(shared.shape, config.rank) for name in names}

    # Of one language alone all rows would have its part.
    return Prompts(shared, parts(tasks), parts(languages if len(languages) > 1 else ()), bare)


def given_states(folder: Path, backbone: Backbone, tasks: Sequence[TaskTraining]) -> Tensor:
    """The prompt of a folder that some tasks begin with: that of the task, where it is one; else the common one.

    Raises:
        PolypromptError: there are several and none is common, or it is of another encoder.
    """
    bank = PromptBank.read(folder)
    names = list(_by_name(tasks))
    row = 0 if len(bank.bank) == 1 else bank.row(names[0] if len(names) == 1 else "")
    if row is None:
        raise PolypromptError(
            f"--start-from {folder}: has prompts of {', '.join(bank.rows)}, none for {', '.join(names)} together"
        )
    expected = shape_of(backbone, bank.placement, bank.slots)
    if bank.bank[row].shape != expected:
        raise PolypromptError(
            f"--start-from {folder}: a prompt of shape {list(bank.bank[row].shape)}, and {backbone.card.name} takes "
            f"{list(expected)}: it is of another encoder"
        )
    return bank.bank[row].clone()


def shape_of(backbone: Backbone, placement: Placement, slots: int) -> torch.Size:
    """Of a prompt for an encoder."""
    if placement.layers is None:
        return torch.Size((slots, backbone.words.embedding_dim))
    return torch.Size((len(placement.layers), 2, backbone.heads, slots, backbone.head_dim))


def random_states(backbone: Backbone, placement: Placement, slots: int) -> Tensor:
    """Keys and values from N(0, 1); vectors before the input with the spread of the word embeddings."""
    states = torch.randn(shape_of(backbone, placement, slots))
    return states * backbone.words.weight.std().cpu() if placement.layers is None else states


def token_states(
    backbone: Backbone, features: Sequence[Feature], placement: Placement, slots: int, seed: int
) -> Tensor:
    """The frozen encoder's states of randomly chosen real tokens, one token a slot.

    Args:
        backbone: the encoder, without prompt.
        features: training rows of all tasks; each slot takes a token of one of them, special tokens excluded.
        placement: of the prompt. slots: its length. seed: of the choice.

    Returns:
        As the placement describes it: keys and values of the prompted layers, or word embeddings.
    """
    device = next(backbone.parameters()).device
    states = []
    for rows, position in _tokens(features, slots, seed, backbone.pad_id):
        ids, lengths, types = (torch.from_numpy(a).to(device) for a in (rows.input_ids, rows.lengths, rows.type_ids))
        if placement.layers is None:
            states.append(backbone.words(ids)[0, position].detach())
        else:
            states.append(backbone.keys_values(ids, lengths, types)[list(placement.layers), :, 0, :, position])
    return torch.stack(states, -2).cpu()


def _tokens(features: Sequence[Feature], slots: int, seed: int, pad_id: int) -> Iterator[tuple[Rows, int]]:
    """A row, and the position of a token in it, for each slot."""
    random = np.random.default_rng([seed, 2])
    for feature in [features[row] for row in random.integers(len(features), size=slots)]:
        seq = len(feature)
        yield pad([feature], pad_id), int(random.integers(1, seq - 1)) if seq > 2 else 0


def center_regression(model: PromptedModel, training: Sequence[TaskTraining]) -> None:
    """Start the heads of regression tasks at the mean of their training targets, so that no step is spent on it."""
    for name, rows in _by_name(training).items():
        if rows[0].task.card.kind is Kind.REGRESSION:
            mean = float(np.mean([target for task in rows for target in task.targets]))
            torch.nn.init.constant_(model.heads[name].bias, mean)


def give_heads(folder: Path, model: PromptedModel) -> None:
    """Put the heads of a folder in the place of those of the same tasks.

    Raises:
        PolypromptError: the file is damaged, or a head has another shape.
    """
    if not (folder / HEADS).is_file():
        return
    try:
        state = load_file(folder / HEADS)
        for name, head in model.heads.items():
            if f"{name}.weight" in state:
                head.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise PolypromptError(f"--start-from {folder}: its heads do not fit those of the run: {reason}") from None
