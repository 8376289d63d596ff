"""Records as columns of Arrow and back, by the types that their fields declare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa


def to_batch(hint: Any, value: Any) -> pa.RecordBatch:
    """A value as Arrow.

    Texts are stored once each, however often they come. An optional value is a list of at most one, so None and () stay
    apart.

    Args:
        hint: the type of the value: str, int, float, bool, a numpy array, a dataclass of such fields, a tuple or list
            of one such type, or one such type or None.
        value: of that type; arrays of one field agree in dtype and in all but their first axis.

    Raises:
        TypeError: a type that is none of these.
        ValueError, OverflowError: the value does not fit: an integer beyond 64 bits, arrays of unlike shapes.
    """
    return pa.record_batch({"value": _encode(hint, [value])})


def from_batch(hint: Any, batch: pa.RecordBatch) -> Any:
    """The value that `to_batch` was given, with the same type; arrays in it are views of the batch, not writable."""
    return _decode(hint, batch.column(0))[0]


def _encode(hint: Any, values: Sequence[Any]) -> pa.Array:
    kind, inner = _shape(hint)
    if kind is str:
        number = {text: code for code, text in enumerate(dict.fromkeys(values))}
        codes = list(map(number.__getitem__, values))
        # Bytes, for JSON can hold lone surrogates, which are text to Python and not to Arrow.
        texts = pa.array([text.encode("utf-8", "surrogatepass") for text in number], pa.large_binary())
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), texts)
    if kind in _NUMBERS:
        return pa.array(values, _NUMBERS[kind])
    if kind is np.ndarray:
        return _list([len(value) for value in values], _encode_arrays(values))
    if kind is NoneType:
        present = [value for value in values if value is not None]
        return _list([value is not None for value in values], _encode(inner, present))
    if kind in (tuple, list):
        return _list([len(value) for value in values], _encode(inner, [part for value in values for part in value]))
    columns = {name: _encode(of, [getattr(value, name) for value in values]) for name, of in _fields(hint).items()}
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def _decode(hint: Any, array: pa.Array) -> Sequence[Any]:
    kind, inner = _shape(hint)
    if kind is str:
        texts = [text.decode("utf-8", "surrogatepass") for text in array.dictionary.to_pylist()]
        return [texts[code] for code in array.indices.to_numpy().tolist()]
    if kind in _NUMBERS:
        numbers: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return numbers
    if isinstance(array, pa.StructArray):
        columns = [_decode(of, array.field(name)) for name, of in _fields(hint).items()]
        return list(map(hint, *columns))
    bounds = pairwise(array.offsets.to_numpy().tolist())
    if kind is np.ndarray:
        flat = _decode_arrays(array.values)
        return [flat[start:end] for start, end in bounds]
    parts = _decode(inner, array.values)
    if kind is NoneType:
        return [parts[start] if start < end else None for start, end in bounds]
    parts = kind(parts)
    return [parts[start:end] for start, end in bounds]


def _encode_arrays(values: Sequence[np.ndarray[Any, Any]]) -> pa.Array:
    if len({value.dtype for value in values}) > 1:
        raise ValueError("the arrays of a field differ in dtype")
    flat = np.concatenate(values) if values else np.zeros(0, np.int32)
    array = pa.array(flat.reshape(-1))
    for size in reversed(flat.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def _decode_arrays(array: pa.Array) -> np.ndarray[Any, Any]:
    shape = [-1]
    while isinstance(array, pa.FixedSizeListArray):
        shape.append(array.type.list_size)
        array = array.values
    flat: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    return flat.reshape(shape)


def _list(lengths: Sequence[int], values: pa.Array) -> pa.Array:
    offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


_NUMBERS = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


@cache
def _shape(hint: Any) -> tuple[Any, Any]:
    """The kind of a type, and the type inside: NoneType stands for "or None"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType) and len(inner) == 2 and NoneType in inner:
        return NoneType, inner[inner[0] is NoneType]
    if (origin is tuple and inner[1:] == (...,)) or origin is list:
        return origin, inner[0]
    if hint is str or hint in _NUMBERS:
        return hint, None
    if origin is np.ndarray:
        return origin, None
    if dataclasses.is_dataclass(hint):
        return hint, None
    raise TypeError(f"{hint}: values of this type have no column; `benchmarks.columns.to_batch` says which have")


@cache
def _fields(record: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}
