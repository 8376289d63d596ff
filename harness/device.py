"""Where a model computes, in which precision, and with which other processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from benchmarks.errors import PolypromptError
from harness.backbone import Backbone
from harness.features import Rows
from harness.processes import join

Found = TypeVar("Found")


@dataclass(frozen=True)
class Device:
    """A device with its precision.

    Precision is kept here and not in `accelerate`, which allows one a process: a process may hold several runs.

    Attributes:
        state: found the device, and the other processes where a launcher started several.
        precision: "fp32", or "bf16": products under autocast, weights and sums in fp32.
    """

    state: PartialState
    precision: str

    @property
    def torch(self) -> torch.device:
        """The device as torch calls it."""
        return self.state.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def title(self) -> str:
        """Name of the GPU, or of the processor with the number of threads; and how many processes work together."""
        several = "" if self.world == 1 else f", {self.world} processes"
        if self.torch.type == "cuda":
            return torch.cuda.get_device_name(self.torch) + several
        name = torch.cpu.get_capabilities().get("cpu_name") or self.torch.type
        return f"{name}, {torch.get_num_threads()} threads{several}"

    def tensors(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Padded rows on the device: `input_ids` [rows, seq], `lengths` [rows], `type_ids` [rows, seq]."""
        ids, lengths, types = (
            torch.from_numpy(array).to(self.torch) for array in (rows.input_ids, rows.lengths, rows.type_ids)
        )
        return ids, lengths, types

    @property
    def rank(self) -> int:
        """Number of this process among those that work together."""
        return self.state.process_index

    @property
    def world(self) -> int:
        """How many processes work together."""
        return self.state.num_processes

    @property
    def leads(self) -> bool:
        """Whether this process is the first: it alone decides, and writes the files of a run."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        if self.world == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def first(self, decide: Callable[[], Found]) -> Found:
        """What the first process finds, told to all."""
        if self.world == 1:
            return decide()
        found = [decide() if self.leads else None]
        dist.broadcast_object_list(found)
        return found[0]

    def gather(self, part: Found) -> list[Found]:
        """The parts of all processes by rank, in the first one; nothing in the others."""
        if self.world == 1:
            return [part]
        parts = [None] * self.world if self.leads else None
        dist.gather_object(part, parts)
        return parts or []

    def spread(self, weights: Sequence[Tensor]) -> None:
        """Give all processes the weights of the first: two machines may not begin with the very same ones."""
        if self.world > 1:
            for weight in weights:
                dist.broadcast(weight.detach(), 0)

    def sum_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes, in one message: few parameters are trained.

        A weight without a gradient in any process stays without, so that the optimiser leaves it alone.
        """
        if self.world == 1:
            return
        there = self.sum(*(weight.grad is not None for weight in weights))
        used = [weight for weight, count in zip(weights, there, strict=True) if count]
        total = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in used])
        dist.all_reduce(total)
        for weight, part in zip(used, total.split([w.numel() for w in used]), strict=True):
            weight.grad = part.view_as(weight)

    def shard(self, backbone: Backbone) -> None:
        """Leave each process a part of a frozen encoder's weights; those of a layer come together while it computes.

        The exchange is FSDP's (torch.distributed.fsdp.fully_shard). From here on every pass needs all processes: each
        must make as many, see `is_sharded`.

        Args:
            backbone: with all of its weights, on any device; changed in place.

        Raises:
            PolypromptError: this process is alone, or the encoder is trained.
        """
        if self.world == 1:
            raise PolypromptError(
                "--shard-backbone: this process is alone; start several: torchrun --nproc-per-node N -m harness.run ..."
            )
        if any(weight.requires_grad for weight in backbone.parameters()):
            raise PolypromptError("--shard-backbone: only a frozen backbone can be divided; choose another --method")
        # It warns of outputs that are views, for those who would change them in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(self.torch.type, (self.world,))
        layers = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
        for module in (backbone.words, *layers, backbone):
            fully_shard(module, mesh=mesh, reshard_after_forward=True)

    def autocast(self) -> torch.autocast:
        """A block in which the precision holds."""
        return torch.autocast(self.torch.type, torch.bfloat16, enabled=self.precision == "bf16")


def find_device(precision: str = "auto", cpu: bool = False) -> Device:
    """The device of this process.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 where the device multiplies bf16 matrices itself.
        cpu: stay on the processor even where there is a GPU.
    """
    join()
    # Without a GPU accelerate looks for other processes only where it is told to stay on the processor.
    state = PartialState(cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    if precision == "auto":
        precision = "bf16" if computes_bf16(state.device) else "fp32"
    return Device(state, precision)


def is_sharded(backbone: Backbone) -> bool:
    """Whether each process has a part of the weights alone, so that every pass needs all processes."""
    return isinstance(backbone, FSDPModule)


def computes_bf16(device: torch.device) -> bool:
    """True when the device multiplies bf16 matrices itself; elsewhere bf16 is emulated and slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
