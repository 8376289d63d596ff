"""Attention of packed rows by the compiled kernel: no padding, no copies of heads, prefixes read where they lie."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.compiled import compiled_part

INTERFACE = 1
"""Of the compiled part that is called here."""

_TYPES = {torch.float32: 0, torch.bfloat16: 1}


@dataclass(frozen=True)
class Packed:
    """Where rows lie that follow each other without padding.

    Attributes:
        starts: first piece of each row, and behind the last one the number of all, [rows + 1], int64.
        places: of all pieces in the padded batch, flattened, [pieces]; None where nothing is padded.
        shape: rows and pieces of the padded batch.
    """

    starts: Tensor
    places: Tensor | None
    shape: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int], mask: Tensor | None) -> Packed:
        """Of a batch.

        Args:
            shape: rows and pieces. mask: `[batch, 1, 1, seq]`, True where a piece is real, behind each other from the
                first; None when all are.
        """
        rows, seq = shape
        if mask is None:
            return cls(torch.arange(0, (rows + 1) * seq, seq), None, shape)
        real = mask[:, 0, 0]
        starts = torch.zeros(rows + 1, dtype=torch.int64)
        torch.cumsum(real.sum(1), 0, out=starts[1:])
        return cls(starts, real.flatten().nonzero().squeeze(1), shape)

    def pack(self, states: Tensor) -> Tensor:
        """[batch, seq, hidden] to [pieces, hidden]."""
        flat = states.flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def unpack(self, states: Tensor) -> Tensor:
        """[pieces, hidden] to [batch, seq, hidden], zero where nothing is."""
        if self.places is not None:
            states = states.new_zeros(self.shape[0] * self.shape[1], states.shape[1]).index_copy(0, self.places, states)
        return states.view(*self.shape, -1)


def takes(states: Tensor, heads: int) -> bool:
    """Whether the kernel is there and computes with such states, `[..., hidden]`, of so many heads."""
    even = states.shape[-1] % (2 * heads) == 0
    return states.device.type == "cpu" and states.dtype in _TYPES and even and module() is not None


def attention(
    states: Tensor,
    asked: Tensor | None,
    rows: Packed,
    heads: int,
    prefix: Tensor | None,
    scale: float | None = None,
    own: bool = True,
) -> Tensor:
    """softmax(scale * query [prefix key; key]^T) [prefix value; value] of each row, with gradients.

    Args:
        states: queries, keys and values side by side, `[pieces, 3 * hidden]`; with `asked` keys and values alone.
        asked: queries of one piece a row, `[rows, hidden]`; None: all pieces ask.
        rows: where they lie. heads: how many.
        prefix: `[2, batch or 1, head, slot, head_dim]`, in any precision; None: there is none.
        scale: factor on the products; None means `1 / sqrt(head_dim)`.
        own: False: the prefix is all that is seen.

    Returns:
        `[pieces or rows, hidden]`
    """
    hidden = states.shape[-1] // (3 if asked is None else 2)
    how = _How(rows, heads, (hidden // heads) ** -0.5 if scale is None else scale, own)
    found: Tensor = _Attention.apply(states.contiguous(), asked, prefix, how)
    return found


class _How(NamedTuple):
    """What is no tensor of `attention`."""

    rows: Packed
    heads: int
    scale: float
    own: bool


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, asked: Tensor | None, prefix: Tensor | None, how: _How) -> Tensor:
        narrow = None if prefix is None else prefix.detach().to(states.dtype).contiguous()
        call = _Call(states, None if asked is None else asked.contiguous(), narrow, how)
        wanted = any(ctx.needs_input_grad)
        mixed = states.new_empty(call.queries, call.hidden)
        logsum = states.new_empty(how.heads if wanted else 0, call.queries, dtype=torch.float32)
        call.forward(mixed, logsum)
        if wanted:
            ctx.save_for_backward(states, asked, narrow, mixed, logsum)
            ctx.how = how
        return mixed

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        states, asked, prefix, mixed, logsum = ctx.saved_tensors
        call = _Call(states, asked, prefix, ctx.how)
        of_states = torch.empty_like(states) if ctx.how.own else torch.zeros_like(states)
        of_asked = None if asked is None else torch.empty_like(asked)
        of_prefix = None if prefix is None else torch.zeros(prefix.shape)
        call.backward(mixed, logsum, above.contiguous(), of_states, of_asked, of_prefix)
        return of_states, of_asked, of_prefix, None


class _Call:
    """One call of the kernel; keeps alive what it gets the addresses of."""

    def __init__(self, states: Tensor, asked: Tensor | None, prefix: Tensor | None, how: _How) -> None:
        rows, heads, scale, own = how
        count, pieces = len(rows.starts) - 1, len(states)
        self._states, self._asked, self._prefix = states, asked, prefix
        self.hidden = states.shape[1] // (3 if asked is None else 2)
        self.queries = pieces if asked is None else count
        self._asks = rows.starts if asked is None else torch.arange(count + 1)
        self._sees = rows.starts if own else torch.zeros(count + 1, dtype=torch.int64)
        banks, slots = (0, 0) if prefix is None else (prefix.shape[1], prefix.shape[3])
        self._bank = torch.arange(count) if banks > 1 else torch.zeros(count, dtype=torch.int64)
        self._settings = (
            _TYPES[states.dtype],
            (count, heads, self.hidden // heads, slots, banks),
            (*self._parts(states, asked), _address(prefix)),
            self._strides(states, asked),
            (
                *(_address(part) for part in (self._asks, self._sees, self._bank)),
                self.queries,
                pieces if own else 0,
            ),
            scale,
        )

    def forward(self, mixed: Tensor, logsum: Tensor) -> None:
        _native().forward(*self._settings, _address(mixed), _address(logsum) if len(logsum) else 0, _parallel())

    def backward(
        self,
        mixed: Tensor,
        logsum: Tensor,
        above: Tensor,
        of_states: Tensor,
        of_asked: Tensor | None,
        of_prefix: Tensor | None,
    ) -> None:
        parts = self._parts(of_states, of_asked)
        gradients = (_address(above), *parts, _address(of_prefix))
        strides = self._strides(of_states, of_asked)
        addresses = _address(mixed), _address(logsum), _parallel()
        _native().backward(*self._settings, *addresses, gradients, strides)

    def _parts(self, states: Tensor, asked: Tensor | None) -> tuple[int, int, int]:
        """Addresses of queries, keys and values."""
        start, step = states.data_ptr(), self.hidden * states.element_size()
        if asked is None:
            return start, start + step, start + 2 * step
        return asked.data_ptr(), start, start + step

    def _strides(self, states: Tensor, asked: Tensor | None) -> tuple[int, int]:
        return states.shape[1] if asked is None else asked.shape[1], states.shape[1]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def module() -> ModuleType | None:
    """The compiled part; None where it was not built, or with another version of this file."""
    return compiled_part("INTERFACE", INTERFACE)


def instructions() -> str:
    """Those that the kernel computes with; "none" where it is not there."""
    return "none" if module() is None else str(_native().instructions())


def _native() -> ModuleType:
    found = module()
    assert found is not None
    return found


@cache
def _parallel() -> int:
    """Address of the function that runs work on torch's own threads: others would wait for the same cores."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib[gi]*omp*")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "GOMP_parallel"):  # LLVM's and Intel's have it too
            return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0
    return 0
