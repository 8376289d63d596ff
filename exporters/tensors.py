"""Tensors one behind the other in a file beside an ONNX graph that refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ALIGNMENT = 64
"""Bytes; a cache line, so that a runtime can use the mapped file in place."""


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
        self.tensors: dict[str, NDArray[Any]] = {}
        self._offsets: list[int] = []

    def add(self, name: str, array: NDArray[Any]) -> TensorProto:
        """Append a tensor.

        Args:
            name: of the initialiser in the graph.
            array: of any type that ONNX has, and any shape; it is read again by `write`.

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
                tensor.CopyFrom(numpy_helper.from_array(self.tensors[tensor.name], tensor.name))

    def write(self, file: BinaryIO) -> None:
        """Write every tensor as little-endian rows, with zeros in the gaps."""
        for part in self.content():
            file.write(part)

    def content(self) -> Iterator[bytes | memoryview]:
        """The same, part by part."""
        position = 0
        for offset, array in zip(self._offsets, self.tensors.values(), strict=True):
            yield bytes(offset - position)
            yield np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
            position = offset + array.nbytes
