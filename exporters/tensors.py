"""Tensors one behind the other in a file beside an ONNX graph that refers to them."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ALIGNMENT = 64
"""Bytes; a cache line, so that a runtime can use the mapped file in place."""


@dataclass(frozen=True, eq=False)
class Made:
    """A tensor that is made part by part when it is written, so that it is never whole in memory.

    Attributes:
        shape, dtype: of the whole.
        parts: each makes the next rows of it. Any thread may call them, and more than once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Sequence[Callable[[], NDArray[Any]]]

    @property
    def ndim(self) -> int:
        """As of an array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """As of an array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> NDArray[Any]:
        """All of it."""
        return np.concatenate([part() for part in self.parts]).reshape(self.shape)


class TensorFile:
    """Lays tensors out in the order in which they are added; equal tensors in equal order give equal bytes.

    Args:
        name: of the file, in the folder of the graph.

    Attributes:
        bytes: size of the file so far.
        tensors: name -> tensor, in order.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes = 0
        self.tensors: dict[str, NDArray[Any] | Made] = {}
        self._offsets: list[int] = []

    def add(self, name: str, array: NDArray[Any] | Made) -> TensorProto:
        """Append a tensor.

        Args:
            name: of the initialiser in the graph.
            array: of any type that ONNX has, and any shape; it is read by `content`.

        Returns:
            The initialiser, which holds no data but where to find it.
        """
        offset = -(-self.bytes // ALIGNMENT) * ALIGNMENT
        self.bytes = offset + array.nbytes
        self.tensors[name] = array
        self._offsets.append(offset)
        tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def inline(self, tensors: Iterable[TensorProto]) -> None:
        """Put the data into the initialisers that refer to this file, so that nothing refers to it any more."""
        for tensor in tensors:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place.get("location") == self.name:
                array = self.tensors[tensor.name]
                array = array.whole() if isinstance(array, Made) else array
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def write(self, file: BinaryIO) -> None:
        """Write `content`."""
        for part in self.content():
            file.write(part)

    def content(self) -> Iterator[memoryview]:
        """Every tensor as little-endian rows, with zeros in the gaps, part by part.

        Parts are made by as many threads as there are cores, a few parts ahead.
        """
        threads = os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[Future[memoryview]] = deque()
            for make in self._makers():
                ahead.append(pool.submit(make))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _makers(self) -> Iterator[Callable[[], memoryview]]:
        position = 0
        for offset, array in zip(self._offsets, self.tensors.values(), strict=True):
            if offset > position:
                yield partial(_rows, partial(np.zeros, offset - position, np.uint8))
            for part in array.parts if isinstance(array, Made) else [partial(np.asarray, array)]:
                yield partial(_rows, part)
            position = offset + array.nbytes


def _rows(part: Callable[[], NDArray[Any]]) -> memoryview:
    array = part()
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
