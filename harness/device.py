"""Where a model computes, and in which precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from harness.features import Rows


@dataclass(frozen=True)
class Device:
    """A device with its precision.

    Precision is kept here and not in `accelerate`, which allows one a process: a process may hold several runs.

    Attributes:
        accelerator: finds the device and carries gradients back.
        precision: "fp32", or "bf16": products under autocast, weights and sums in fp32.
    """

    accelerator: Accelerator
    precision: str

    @property
    def torch(self) -> torch.device:
        """The device as torch calls it."""
        return self.accelerator.device

    @property
    def title(self) -> str:
        """Name of the GPU, or of the processor with the number of threads."""
        if self.torch.type == "cuda":
            return torch.cuda.get_device_name(self.torch)
        name = torch.cpu.get_capabilities().get("cpu_name") or self.torch.type
        return f"{name}, {torch.get_num_threads()} threads"

    def tensors(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Padded rows on the device: `input_ids` [rows, seq], `lengths` [rows], `type_ids` [rows, seq]."""
        ids, lengths, types = (
            torch.from_numpy(array).to(self.torch) for array in (rows.input_ids, rows.lengths, rows.type_ids)
        )
        return ids, lengths, types

    @property
    def rank(self) -> int:
        """Number of this process among those that train together."""
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """How many processes train together."""
        return self.accelerator.num_processes

    def sum(self, number: float) -> float:
        """The sum of a number over all processes."""
        if self.world == 1:
            return number
        return float(self.accelerator.reduce(torch.tensor(number, dtype=torch.float64, device=self.torch)))

    def sum_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes, in one message: few parameters are trained."""
        if self.world == 1:
            return
        flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights])
        total = self.accelerator.reduce(flat)
        for weight, part in zip(weights, total.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)

    def autocast(self) -> torch.autocast:
        """A block in which the precision holds."""
        return torch.autocast(self.torch.type, torch.bfloat16, enabled=self.precision == "bf16")


def find_device(precision: str = "auto", cpu: bool = False) -> Device:
    """The device of this process.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 where the device multiplies bf16 matrices itself.
        cpu: stay on the processor even where there is a GPU.
    """
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    if precision == "auto":
        precision = "bf16" if computes_bf16(accelerator.device) else "fp32"
    return Device(accelerator, precision)


def computes_bf16(device: torch.device) -> bool:
    """True when the device multiplies bf16 matrices itself; elsewhere bf16 is emulated and slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
