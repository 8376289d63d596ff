"""The frozen encoder with its tokenizer: loaded by name, run with or without a prefix."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, HTTPError, RepositoryNotFoundError
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from benchmarks.errors import PolypromptError
from benchmarks.results import BackboneCard
from harness.anatomy import FAMILIES
from harness.attention import Prefix, Record, key_mask, number_layers
from harness.distances import Distances
from harness.embedded import EMBEDDED, locate, read_e5s1
from harness.encoder import FrozenEncoder
from harness.inference import Inference

POOLED = ("bert", "roberta", "xlm-roberta", "camembert")
POSITIONS_AFTER_PAD = ("roberta", "xlm-roberta", "camembert")
MASKS = ("[MASK]", "<mask>")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class SoftPrompt:
    """Vectors in front of the word embeddings of one forward pass (arXiv 2104.08691, section 2).

    They are of the first text. Unless `shifted` they all stand at position 0, the row's own first: what that adds to
    each is a constant, which a trained vector takes in.

    Attributes:
        tensor: `[batch or 1, slot, embedding]`; the embedding of ELECTRA may be narrower than its hidden states.
        shifted: they take the positions from 0, and those of the row start behind them.
    """

    tensor: Tensor
    shifted: bool = False

    @property
    def slots(self) -> int:
        """Prompt length."""
        return self.tensor.shape[1]


@dataclass(frozen=True)
class Trunk:
    """How far a pass was computed before: the states in front of a layer, which no prompt below it changes.

    Attributes:
        states: `[batch, seq, hidden]`. layers: how many they went through.
    """

    states: Tensor
    layers: int


class Backbone(nn.Module):
    """A frozen encoder and its tokenizer. Rows are padded on the right.

    Attributes:
        model: the encoder without a pooler, fp32, `requires_grad` off, in evaluation mode; its attention is `attend`,
            but with disentangled attention it is its own.
        tokenizer: neither truncates nor pads.
        card: name, family, hash and shape.
        pad_id: the piece that fills up short rows.
        token_types: True when the tokenizer marks the second text of a pair with 1 and the encoder reads such marks.
        max_positions: pieces of the longest row that the encoder takes, special tokens included.
        disentangled: see `harness.anatomy.Family`; keys and values can then enter a frozen encoder alone, and only one
            that `harness.encoder` computes.
        engine: what computes it while it is frozen: "own" (`harness.encoder`) or "transformers".
        mask_id: the piece that masks another one; None where the tokenizer has none.
        source: the folder that it was loaded from, where more than the encoder may lie; None for other sources.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        source: Path | None = None,
        engine: str = "own",
    ) -> None:
        """Freeze an encoder and put our attention in.

        Args:
            name: as the card is to show it.
            model: an encoder of one of `FAMILIES`; changed in place.
            tokenizer: its tokenizer; changed in place.
            source, engine: see the attributes.

        Raises:
            PolypromptError: tokenizer and encoder do not fit each other, or the encoder cannot carry a prefix.
        """
        super().__init__()
        config = model.config
        pieces, rows = tokenizer.get_vocab_size(), model.get_input_embeddings().num_embeddings
        if pieces > rows:
            raise PolypromptError(f"{name}: its tokenizer has {pieces} pieces, its weights {rows}: they do not match")
        self.model = model.requires_grad_(False).eval()
        self.disentangled = FAMILIES[config.model_type].disentangled
        if not self.disentangled:
            number_layers(model)
        self.tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.source = source
        self.engine = engine
        self._again = False
        self._settled = False
        self._trained = False
        self._encoders: dict[tuple[torch.device, torch.dtype], FrozenEncoder] = {}
        self.pad_id: int = config.pad_token_id or 0
        masks = (tokenizer.token_to_id(mask) for mask in MASKS)
        self.mask_id: int | None = next((number for number in masks if number is not None), None)
        self.first_position = self.pad_id + 1 if config.model_type in POSITIONS_AFTER_PAD else 0
        self.max_positions: int = config.max_position_embeddings - self.first_position
        self.token_types = getattr(config, "type_vocab_size", 0) > 1 and any(tokenizer.encode("a", "b").type_ids)
        self.card = BackboneCard(
            name=name,
            family=config.model_type,
            sha256=_hash(model),
            parameters=model.num_parameters(),
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            hidden=config.hidden_size,
        )

    def train(self, mode: bool = True) -> Self:
        """As every module; and `look` at the weights."""
        super().train(mode)
        self.look()
        return self

    def look(self) -> None:
        """See whether weights are trained, which no pass asks anew; copies of such ones are dropped."""
        self._trained = any(weight.requires_grad for weight in self.model.parameters())
        if self._trained:
            self._encoders.clear()

    def checkpoint_activations(self, on: bool) -> None:
        """Keep only what enters each layer during a pass, and compute the rest again on the way back.

        A layer of transformers looks at its own `training` flag; setting it there alone leaves all dropout as it is.
        """
        self._again = on
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.gradient_checkpointing = on
                module.training = on or module.training
                # The reentrant kind drops the gradient of the prefix, which arrives by keyword.
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    @property
    def settings(self) -> str:
        """What decides the states besides the weights: a part of the names of what is kept of them."""
        config = self.model.config.to_dict()
        known = {ours: config.get(theirs) for ours, theirs in FAMILIES[self.card.family].settings.items()}
        return f"{known} {Distances.of(config) if self.disentangled else ''}"

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.card.layers

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.card.heads

    @property
    def hidden(self) -> int:
        """Width of a hidden state."""
        return self.card.hidden

    @property
    def head_dim(self) -> int:
        """Width of a key or value of one head."""
        return self.card.hidden // self.card.heads

    @property
    def words(self) -> nn.Embedding:
        """The word embeddings."""
        return self.model.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        type_ids: Tensor | None = None,
        prompt: Prefix | SoftPrompt | None = None,
        read: int | None = None,
        trunk: Trunk | None = None,
        inference: Inference | None = None,
        below: bool = False,
    ) -> Tensor:
        """Run the encoder: a frozen one by `FrozenEncoder`, another one, or one that is sharded, by transformers.

        Args:
            input_ids: `[batch, seq]`; what stands behind a row's length does not matter.
            lengths: `[batch]`, real pieces of each row. Best kept on the CPU: the device is then not waited for.
            type_ids: `[batch, seq]`, which text of a pair a piece is of; not used unless `token_types`.
            prompt: keys and values, or vectors, that every row sees besides its own.
            read: the only piece whose state is asked for; None: all are.
            trunk: what the lower layers make of these rows; None: it is computed. No prompt may be in those layers.
            inference: computes what it can of a frozen encoder, where no gradient is asked for.
            below: side by side with what enters each layer, from the first one on; without `read` and `trunk`.

        Returns:
            Hidden states of the last layer in fp32, `[batch, seq, hidden]`, of the pieces alone; without meaning behind
            a row's length. With `read` `[batch, 1, hidden]`; without meaning in rows that are shorter. With `below`
            `[batch, seq, (layers + 1) * hidden]`, the last layer behind the others.

        Raises:
            PolypromptError: the rows are longer than the encoder's positions.
        """
        if self.engine == "transformers" or isinstance(self, FSDPModule) or self._trained:
            states = self._run(input_ids, lengths, type_ids, prompt, None, below)
            return states if read is None else states[:, read : read + 1]
        front = prompt.slots if isinstance(prompt, SoftPrompt) else 0
        trunk = trunk or Trunk(self._embedded(input_ids, type_ids, prompt), 0)
        prefix = prompt if isinstance(prompt, Prefix) else None
        place = None if read is None else front + min(read, input_ids.shape[1] - 1)
        if below:
            entered: list[Tensor] = []
            mask = key_mask(self._mask(input_ids, lengths, front))
            states = self.frozen().run(trunk.states, mask, prefix, again=self._again, below=entered)
            states = torch.cat([*entered, states], -1)
        else:
            states = self._through(trunk, self.layers, input_ids, lengths, prefix, front, place, inference)
        return (states if read is not None else states[:, front:]).float()

    def refuse_prefix(self) -> None:
        """Of an encoder that transformers is to compute.

        Raises:
            PolypromptError: it would leave the prefix out, without a word.
        """
        if self.disentangled:
            raise PolypromptError(
                f"{self.card.name}: transformers has no place for keys and values in the attention of "
                f"{self.card.family}; leave --engine transformers and --shard-backbone away"
            )

    @torch.no_grad()
    def trunk(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        type_ids: Tensor | None,
        layers: int,
        shift: int = 0,
        inference: Inference | None = None,
    ) -> Tensor:
        """The lower layers of a frozen encoder, without gradients.

        Args:
            input_ids, lengths, type_ids, inference: as for `forward`.
            layers: how many. shift: how far the positions of the pieces are shifted.

        Returns:
            What enters the layer above them, `[batch, seq, hidden]`, in the precision that holds here.
        """
        states = self._embedded(input_ids, type_ids, None, shift)
        return self._through(Trunk(states, 0), layers, input_ids, lengths, inference=inference)

    def _through(
        self,
        before: Trunk,
        end: int,
        input_ids: Tensor,
        lengths: Tensor,
        prefix: Prefix | None = None,
        front: int = 0,
        read: int | None = None,
        inference: Inference | None = None,
    ) -> Tensor:
        """The layers behind those of `before`, by the engine that is for such a pass."""
        states, first = before.states, before.layers
        if inference is not None and not torch.is_grad_enabled():
            found = inference.run(states, lengths + front, prefix, first, end, read)
            if found is not None:
                return found
        mask = key_mask(self._mask(input_ids, lengths, front))
        return self.frozen().run(states, mask, prefix, first, end, read, self._again)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """A block in which the frozen encoder computes by itself in fp32, with its weights as they are; for checks."""
        place = self.words.weight.device, torch.float32
        kept = place in self._encoders
        try:
            if not kept:
                self._encoders[place] = FrozenEncoder(self.model, torch.float32)
            yield
        finally:
            if not kept:
                self._encoders.pop(place, None)

    def _embedded(
        self, input_ids: Tensor, type_ids: Tensor | None, prompt: Prefix | SoftPrompt | None, shift: int | None = None
    ) -> Tensor:
        positions, type_ids = self._places(input_ids, type_ids, prompt, shift)
        words = self._vectors(input_ids, prompt)
        return self.frozen().embed(words, positions, type_ids if self.token_types else None)

    def frozen(self) -> FrozenEncoder:
        """The encoder in the precision that holds here, autocast's where it is on. Its weights may not change."""
        device = self.words.weight.device
        autocast = torch.is_autocast_enabled(device.type)
        precision = torch.get_autocast_dtype(device.type) if autocast else torch.float32
        if (device, precision) not in self._encoders:
            assert not self._settled, f"only one precision is kept, and not {precision}"
            self._encoders[device, precision] = FrozenEncoder(self.model, precision)
        return self._encoders[device, precision]

    def settle(self, precision: torch.dtype) -> None:
        """Keep the layers' weights in one precision alone, so that they take no more memory than that.

        Args:
            precision: in which the frozen encoder computes from here on; after bf16 no other one is possible.
        """
        if self.engine == "own" and not self._trained:
            self._encoders = {(self.words.weight.device, precision): FrozenEncoder(self.model, precision, alone=True)}
            self._settled = precision is not torch.float32

    @torch.no_grad()
    def keys_values(self, input_ids: Tensor, lengths: Tensor, type_ids: Tensor | None = None) -> Tensor:
        """Keys and values of every layer, without gradients.

        Args:
            input_ids, lengths, type_ids: as for `forward`.

        Returns:
            `[layer, 2, batch, head, seq, head_dim]`, 2 = key, value; without meaning behind a row's length.
        """
        if self.disentangled:
            pairs: list[tuple[Tensor, Tensor]] = []
            mask = key_mask(self._mask(input_ids, lengths, 0))
            self.frozen().run(self._embedded(input_ids, type_ids, None), mask, record=pairs)
            return torch.stack([torch.stack(pair) for pair in pairs])
        record: Record = []
        self._run(input_ids, lengths, type_ids, None, record)
        return torch.stack([torch.stack([key, value]) for _, key, value in record])

    def _run(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        type_ids: Tensor | None,
        prompt: Prefix | SoftPrompt | None,
        record: Record | None,
        below: bool = False,
    ) -> Tensor:
        positions, type_ids = self._places(input_ids, type_ids, prompt)
        front = prompt.slots if isinstance(prompt, SoftPrompt) else 0
        prefix = prompt if isinstance(prompt, Prefix) else None
        if prefix is not None:
            self.refuse_prefix()
        found = self.model(
            **({"inputs_embeds": self._vectors(input_ids, prompt)} if front else {"input_ids": input_ids}),
            attention_mask=self._mask(input_ids, lengths, front),
            # Given outright: RoBERTa's own rule counts pieces that differ from the pad piece, and so trips over a row
            # whose text has that piece. For all other rows the two agree.
            position_ids=positions[None],
            prefix=prefix,
            record=record,
            **({"token_type_ids": type_ids} if self.token_types else {}),
            **({"output_hidden_states": True} if below else {}),
        )
        states: Tensor = torch.cat(found.hidden_states, -1) if below else found.last_hidden_state
        return states[:, front:]

    def _places(
        self,
        input_ids: Tensor,
        type_ids: Tensor | None,
        prompt: Prefix | SoftPrompt | None,
        shift: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of the position table and types, of vectors in front of the pieces too; shift: None: the prompt's."""
        length, slots = input_ids.shape[1], 0 if prompt is None else prompt.slots
        if shift is None:
            shift = slots if prompt is not None and prompt.shifted else 0
        if length + shift > self.max_positions:
            behind = f" behind a prompt of {shift}" if shift else ""
            raise PolypromptError(
                f"a row of {length} pieces{behind}, but {self.card.name} takes {self.max_positions} at most"
            )
        places = torch.arange(length, device=input_ids.device)
        positions = places + shift
        if isinstance(prompt, SoftPrompt):
            first = torch.arange(slots, device=input_ids.device) if shift else places.new_zeros(slots)
            positions = torch.cat([first, positions])
            type_ids = None if type_ids is None else functional.pad(type_ids, (slots, 0))
        return positions + self.first_position, type_ids

    def _vectors(self, input_ids: Tensor, prompt: Prefix | SoftPrompt | None) -> Tensor:
        """Word embeddings, behind the vectors of a prompt."""
        words: Tensor = self.words(input_ids)
        return (
            torch.cat([prompt.tensor.expand(len(words), -1, -1), words], 1) if isinstance(prompt, SoftPrompt) else words
        )

    def _mask(self, input_ids: Tensor, lengths: Tensor, front: int) -> Tensor | None:
        """Which pieces are real, `[batch, front + seq]`; None where all are: attention without a mask is faster."""
        length = input_ids.shape[1]
        if not bool((lengths < length).any()):
            return None
        places = torch.arange(length, device=input_ids.device)
        return functional.pad(places < lengths.to(input_ids.device)[:, None], (front, 0), value=True)


def load_backbone(name: str, engine: str = "own") -> Backbone:
    """Load a frozen encoder and its tokenizer.

    Args:
        name: a key of `harness.embedded.EMBEDDED`, a Hugging Face folder, or the id of a model on the hub.
        engine: see `Backbone`.

    Raises:
        PolypromptError: no such model, an unsupported family (found out before any weights are loaded), or a
            configuration, safetensors weights or tokenizer that is missing or damaged.
    """
    source, shown = Path(name).expanduser(), name
    if name in EMBEDDED:
        source = locate(name)
    elif source.is_dir():
        shown = source.resolve().name
    elif source.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PolypromptError(
            f"{name}: no such folder; a backbone is a folder, a hub id or one of: {', '.join(EMBEDDED)}"
        )
    else:
        _check_config(name, _download(name, ["config.json"]))
        source = _download(
            name, ["config.json", "model*.safetensors*", "tokenizer*", "*vocab*", "merges.txt", "*.model"]
        )
    with _quiet():
        if source.is_file():
            return Backbone(shown, *read_e5s1(source), engine=engine)
        return Backbone(shown, *_read_folder(name, source), source, engine)


def pretrained(
    auto: type[AutoModel] | type[AutoModelForMaskedLM], name: str, folder: Path, **more: object
) -> tuple[PreTrainedModel, list[str]]:
    """A model from a folder with safetensors weights, in fp32.

    Args:
        auto: the class of transformers that reads it. name: for errors. folder: with config.json.
        more: arguments of the model.

    Returns:
        The model, and the names of its weights that the folder lacks or has in another shape: random ones stand there.

    Raises:
        PolypromptError: the configuration or the weights cannot be loaded.
    """
    try:
        with _quiet():
            model, report = auto.from_pretrained(
                folder,
                config=AutoConfig.from_pretrained(folder, trust_remote_code=False),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are among those that are returned
                **more,
            )
    except Exception as error:  # a wrong value in a configuration ends in anything from KeyError to AssertionError
        raise PolypromptError(f"{name}: its configuration or weights cannot be loaded ({_reason(error)})") from None
    return model, sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])


def _download(name: str, patterns: list[str]) -> Path:
    """The folder of a hub model with the files that match, from the cache where the hub is out of reach."""
    near = difflib.get_close_matches(name, EMBEDDED, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"names that need no download: {', '.join(EMBEDDED)}"
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except GatedRepoError:
        raise PolypromptError(f"{name}: the hub keeps this model for users who accepted its terms; log in") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise PolypromptError(f"{name}: no folder, and no public model on the hub, has this name; {hint}") from None
    except (OSError, HTTPError):
        raise PolypromptError(
            f"{name}: no folder has this name, and the hub, where it might be, cannot be reached; {hint}"
        ) from None


def _check_config(name: str, folder: Path) -> str:
    """The family of a model, or why it cannot be used."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        family = config["model_type"]
    except FileNotFoundError:
        raise PolypromptError(f"{name}: no config.json there; a backbone is a Hugging Face folder") from None
    except (ValueError, KeyError, TypeError):
        raise PolypromptError(f"{path}: not the configuration of a model: no JSON object with a model_type") from None
    if family not in FAMILIES:
        raise PolypromptError(f"{name}: the family {family} is not supported; supported: {', '.join(FAMILIES)}")
    if config.get("is_decoder") or config.get("position_embedding_type", "absolute") != "absolute":
        raise PolypromptError(f"{name}: only encoders with absolute positions are supported, see {path.name}")
    if FAMILIES[family].disentangled:
        try:
            Distances.of(config)
        except PolypromptError as error:
            raise PolypromptError(f"{name}: {error}") from None
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise PolypromptError(f"{path}: not the configuration of such an encoder ({_reason(error)})") from None
    return str(family)


def _read_folder(name: str, folder: Path) -> tuple[PreTrainedModel, Tokenizer]:
    family = _check_config(name, folder)
    if not any(folder.glob("*.safetensors")):
        raise PolypromptError(
            f"{name}: no *.safetensors there; other weights may hold code and are not read: convert them with "
            "save_pretrained of transformers"
        )
    if not any((folder / file).is_file() for file in VOCABULARIES):
        raise PolypromptError(f"{name}: no tokenizer there; one of these files is needed: {', '.join(VOCABULARIES)}")
    model, wrong = pretrained(AutoModel, name, folder, **({"add_pooling_layer": False} if family in POOLED else {}))
    if wrong:
        raise PolypromptError(f"{name}: {len(wrong)} of its weights are absent or of another shape, {wrong[0]} first")
    return model, _read_tokenizer(name, folder)


def _read_tokenizer(name: str, folder: Path) -> Tokenizer:
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        fast = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return fast.backend_tokenizer
    except Exception as error:  # the Rust library raises plain Exception
        raise PolypromptError(f"{name}: its tokenizer cannot be loaded ({_reason(error)})") from None


def _hash(model: PreTrainedModel) -> str:
    """SHA-256 over name, shape and fp32 values of each parameter, sorted by name: the file format does not matter."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {list(parameter.shape)}\n".encode())
        digest.update(parameter.detach().float().cpu().flatten().numpy())
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting on weights that are left out on purpose, such as the pooler's."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
