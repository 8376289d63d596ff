"""`python -m harness.prune RUN --bytes N`: keep of a finished run's prompt the layers and slots that are attended to.

How much of the attention of real tokens each slot gets is measured on held-out rows of the training split. Layers with
the largest sum are kept, and of each its own slots: the number of a slot says nothing, so layers keep different ones.
How many of each fill the budget best is decided by the score on the same rows. Reported rows are read once, at the end.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.errors import PolypromptError, run_command
from benchmarks.results import Manifest, Results, read_model, write_model
from harness.attention import Prefix
from harness.backbone import SoftPrompt
from harness.batches import evaluation_batches
from harness.config import RunConfig, load_config, refuse_begun, save_config
from harness.data import TaskRows, load_rows
from harness.device import Device, find_device
from harness.evaluate import PIECES, evaluate
from harness.feature_cache import CachedEncoder
from harness.features import TextEncoder, pad
from harness.held_out import Selection
from harness.learn import validation_score
from harness.lock import locked
from harness.model import PromptedModel
from harness.placement import Positions
from harness.readout import mask_pieces
from harness.report import score_table
from harness.screen import Screen
from harness.sharing import PromptBank
from harness.store import READOUT, load_run, save_weights
from harness.trials import stored_bytes

_DRAW_SEED = 20211014
"""Of the slots that are kept by chance, for comparison."""


@dataclass(frozen=True)
class Cut:
    """What may be kept.

    Attributes:
        layers: indices in the encoder, ascending. slots: of each of them. size: bytes of prompts and heads.
        score: on the held-out rows, points. by_chance: the same for as many slots of the same layers, drawn by chance.
    """

    layers: tuple[int, ...]
    slots: int
    size: int
    score: float
    by_chance: float


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run with a prompt in the layers")
    parser.add_argument("--bytes", type=int, required=True, metavar="N", help="of prompts and heads, at most")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of runs (default: that of RUN)")
    parser.add_argument("--name", help="name of the new run (default: RUN-pruned-N)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    flags = parser.parse_args()
    name = flags.name or f"{flags.run.resolve().name}-pruned-{flags.bytes}"
    found = prune(flags.run, flags.bytes, flags.out or flags.run.resolve().parent, name, Screen())
    if flags.json:
        print(json.dumps(found, indent=2))
        return 0
    lines = [
        (f"{cut['bytes']:,}", len(cut["layers"]), cut["slots"], f"{cut['score']:.2f}", f"{cut['by_chance']:.2f}")
        for cut in found["cuts"]
    ]
    headers = ("bytes", "layers", "slots", "held-out", "slots by chance")
    print(tabulate(lines, headers=headers, disable_numparse=True, colalign=("right",) * 5))
    results = read_model(Path(found["folder"]) / "results.json", Results)
    print(f"\n{score_table(results.records)}\n\nrun folder: {found['folder']}")
    return 0


def prune(folder: Path, size: int, out: Path, name: str, screen: Screen) -> dict[str, Any]:
    """Prune the prompt of a run, and score what is left as a run of its own.

    Args:
        folder: of the run. size: bytes of prompts and heads at most. out, name: of the new run.
        screen: shows progress.

    Returns:
        "folder" of the new run; "cuts" of falling size, the last one being the one that was kept; "mass": layer -> the
        weight of each slot, falling, the mean over rows, tokens and heads.

    Raises:
        PolypromptError: the run has no prompt that can be pruned, or the budget is too small.
    """
    model, manifest = load_run(folder), read_model(folder / "manifest.json", Manifest)
    config = load_config(folder / "config.toml")
    bank = model.prompt
    if not isinstance(bank, PromptBank) or bank.placement.layers is None:
        raise PolypromptError(f"{folder}: has no prompt in the layers; a run of --method ptuning-v2 has one")
    if bank.placement.positions is Positions.SHIFTED:
        reason = "the positions of its rows begin behind the prompt, and would be others behind a shorter one"
        raise PolypromptError(f"{folder}: --positions shifted: {reason}")
    # The name is that of the folder, whatever settings it was made with.
    pruned = config.model_copy(update={"out": out.absolute(), "name": name})
    refuse_begun(pruned)
    device = find_device(config.precision)
    rows, _, _ = load_rows(config.model_copy(update={"selection": Selection.HELD_OUT}), evaluate=False)
    if not any(split.examples for task in rows for split in task.selecting.values()):
        raise PolypromptError(f"{folder}: its training rows are too few to hold some out, so nothing can be measured")
    encoder = _encoder(model, rows, config)
    model = model.to(device.torch)
    model.backbone.settle(device.dtype)
    heads = stored_bytes(model) - bank.bank.nbytes
    of_slot = bank.bank.nbytes // (len(bank.placement.layers) * bank.slots)
    if size < heads + of_slot:
        raise PolypromptError(f"--bytes {size}: the heads take {heads} and a slot {of_slot}; give {heads + of_slot}")
    masses = slot_masses(model, rows, encoder, device)
    cuts: list[Cut] = []
    kept = bank
    with screen.bar("budgets", len(budgets := _ladder(heads + bank.bank.nbytes, size))) as bar:
        for budget in budgets:
            tried = []
            for layers, slots in _shapes(bank, masses, (budget - heads) // of_slot):
                chosen, drawn = (_pruned(bank, by, layers, slots) for by in (masses, _chance(masses)))
                scores = []
                for prompt in (chosen, drawn):
                    model.prompt = prompt.to(device.torch)
                    scores.append(validation_score(model, rows, encoder, device))
                tried.append((Cut(layers, slots, heads + chosen.bank.nbytes, *scores), chosen))
            best, kept = max(tried, key=lambda one: (one[0].score, -one[0].size))
            cuts.append(best)
            bar.step(f"{best.size} bytes: {best.score:.2f}")
    model.prompt = kept.to(device.torch)
    pruned = pruned.model_copy(
        update={"prompt_length": kept.slots, "prompt_layers": ",".join(map(str, kept.placement.layers or ()))}
    )
    command = shlex.join(
        ["python", "-m", "harness.prune", str(folder), "--bytes", f"{size}", "--out", str(out), "--name", name]
    )
    _write(folder, model, manifest, pruned, command, device, screen)
    mass = {
        f"{layer}": [round(float(value), 6) for value in masses[:, number].mean(0).sort(descending=True).values]
        for number, layer in enumerate(bank.placement.layers)
    }
    shown = [
        {"bytes": cut.size, "layers": list(cut.layers), "slots": cut.slots, "score": cut.score,
         "by_chance": cut.by_chance}
        for cut in cuts
    ]  # fmt: skip
    return {"folder": str(pruned.folder), "cuts": shown, "mass": mass}


def slot_masses(model: PromptedModel, rows: Sequence[TaskRows], encoder: TextEncoder, device: Device) -> Tensor:
    """What share of the attention each slot gets, on the rows that select.

    Of a gated prefix, whose softmax is its own, the weight is times the length of the slot's value, the gate in it.

    Returns:
        `[prompt, layer, slot]`, the mean over rows, heads and the tokens that attend; of a prompt of no row here 0.
    """
    bank = model.prompt
    assert isinstance(bank, PromptBank) and bank.placement.layers is not None
    place = {layer: number for number, layer in enumerate(bank.placement.layers)}
    sums = torch.zeros(len(bank.bank), len(place), bank.slots, dtype=torch.float64)
    counts = torch.zeros(len(bank.bank), len(place), 1, dtype=torch.float64)
    worth = bank.bank[:, :, 1].float().norm(dim=-1) if bank.placement.gated else None  # [prompt, layer, head, slot]
    for task in rows:
        card = task.task.card
        for language, split in task.selecting.items():
            row = bank.row(card.answered_by, language)
            if row is None:
                continue
            features = encoder.features(card, split.examples)
            for batch in evaluation_batches(features, PIECES):
                ids, lengths, types = device.tensors(pad([features[n] for n in batch], model.backbone.pad_id))
                real = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])[:, None, :, None]

                def watch(layer: int, weights: Tensor, real: Tensor = real, row: int = row) -> None:
                    alone = weights.shape[2] == 1  # the last layer, of which one token is read
                    seen = weights if alone else weights * real
                    if worth is not None:
                        seen = seen * worth[row, place[layer]][:, None]
                    queries = len(weights) if alone else int(real.sum())
                    sums[row, place[layer]] += seen.sum((0, 1, 2)).double().cpu()
                    counts[row, place[layer]] += queries * weights.shape[1]

                model.prompt = _Watched(bank, watch)
                with torch.inference_mode(), device.autocast():
                    model.outputs(card, ids, lengths, types, language)
                model.prompt = bank
    return sums / counts.clamp(min=1)


class _Watched(nn.Module):
    """A bank whose prefixes tell what is attended to."""

    def __init__(self, bank: PromptBank, watch: Any) -> None:
        super().__init__()
        self._bank, self._watch = bank, watch
        self.placement, self.slots = bank.placement, bank.slots

    def forward(self, task: str, language: str = "") -> Prefix | SoftPrompt | None:
        """See `PromptBank.forward`."""
        prefix = self._bank(task, language)
        return replace(prefix, watch=self._watch) if isinstance(prefix, Prefix) else prefix


def _ladder(whole: int, asked: int) -> list[int]:
    """Budgets from the whole down to the one that is asked for, each half of the one before."""
    budgets = [whole]
    while budgets[-1] // 2 > asked:
        budgets.append(budgets[-1] // 2)
    return budgets if whole <= asked else [*budgets, asked]


def _shapes(bank: PromptBank, masses: Tensor, most: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """For each number of layers those with the largest mass, and how many slots of each find room; or everything."""
    layers = bank.placement.layers or ()
    order = masses.mean(0).sum(-1).argsort(descending=True, stable=True).tolist()
    if most >= len(layers) * bank.slots:
        yield layers, bank.slots
        return
    for count in range(1, len(layers) + 1):
        slots = min(bank.slots, most // count)
        if slots:
            yield tuple(sorted(layers[number] for number in order[:count])), slots


def _pruned(bank: PromptBank, masses: Tensor, layers: Sequence[int], slots: int) -> PromptBank:
    """The slots with the largest mass of some layers, in their old order."""
    there = list(bank.placement.layers or ())
    parts = [
        torch.stack(
            [
                bank.bank[row, number][:, :, masses[row, number].topk(slots).indices.sort().values.to(bank.bank.device)]
                for number in map(there.index, layers)
            ]
        )
        for row in range(len(bank.bank))
    ]
    return PromptBank(torch.stack(parts), bank.rows, bank.placement.model_copy(update={"layers": tuple(layers)}))


def _chance(masses: Tensor) -> Tensor:
    return torch.rand(masses.shape, generator=torch.Generator().manual_seed(_DRAW_SEED))


def _encoder(model: PromptedModel, rows: Sequence[TaskRows], config: RunConfig) -> CachedEncoder:
    backbone = model.backbone
    masks = mask_pieces(config.head, backbone, [task.task.card for task in rows])
    return CachedEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, model.max_positions, masks)


def _write(
    source: Path,
    model: PromptedModel,
    manifest: Manifest,
    config: RunConfig,
    command: str,
    device: Device,
    screen: Screen,
) -> None:
    """An ordinary run folder: everything but the training is there."""
    with locked(config.folder):
        rows, hashes, _ = load_rows(config)
        save_config(config, config.folder / "config.toml")
        save_weights(model, config.folder)
        if (source / READOUT).exists():
            shutil.copyfile(source / READOUT, config.folder / READOUT)
        records, thresholds = evaluate(config.folder, model, _encoder(model, rows, config), rows, device, screen)
        bank = model.prompt
        assert isinstance(bank, PromptBank)
        stored = bank.bank.numel() + sum(weight.numel() for weight in model.heads.parameters())
        everything = sum(weight.numel() for weight in model.backbone.parameters()) + stored
        layers = bank.placement.layers or ()
        facts: Mapping[str, Any] = {
            "run": config.folder.name,
            "command": command,
            "prompt": f"{bank.slots} slots in {len(layers)} layers ({config.prompt_layers}), pruned from {source.name}",
            "trainable": stored,
            "share": 100 * stored / everything,
            "thresholds": thresholds,
            "data": hashes,
        }
        write_model(config.folder / "manifest.json", manifest.model_copy(update=facts))
        results = Results(
            run=config.folder.name,
            method=manifest.method,
            backbone=manifest.backbone.name,
            seed=manifest.seed,
            records=records,
        )
        write_model(config.folder / "results.json", results)


if __name__ == "__main__":
    sys.exit(run_command(main))
