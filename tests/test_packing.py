"""Weights that are narrowed part by part while they are written: compiled and in numpy the same bytes."""

import hashlib
import io
import os
import tracemalloc
from functools import partial

import numpy as np
import onnx
import pytest

from exporters import precision
from exporters.export import graph_of
from exporters.precision import BLOCK, TRIED, Precision, blocks_by_numpy, in_precision, quantise_blocks
from exporters.store import put
from exporters.tensors import ALIGNMENT, Made, TensorFile
from tests.bundles import tiny_prompted


@pytest.fixture(params=["compiled", "numpy"])
def way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(precision, "compiled", lambda: None)
    elif precision.compiled() is None:
        pytest.skip("the compiled part was not built")
    return request.param


def by_hand(block):
    """Values and scale of one block, number by number."""
    largest = max(block, key=abs)
    found = []
    for part in TRIED:
        scale = np.float32(largest * part) / np.float32(-8) or np.float32(1)
        values = [min(max(round(float(one / scale)), -8), 7) for one in block]
        squares = [np.square(np.float32(value * scale - one)) for value, one in zip(values, block, strict=True)]
        lanes = [((squares[n] + squares[8 + n]) + squares[16 + n]) + squares[24 + n] for n in range(8)]
        error = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
        found.append((error, len(found), scale, [value + 8 for value in values]))
    return min(found)[2:]


@pytest.mark.parametrize("seed", range(3))
def test_blocks_number_by_number(way, seed):
    """Zeros, one large number, equal ones with either sign, tiny and huge ones; a last block that is not full."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(7, 2 * BLOCK + 5 * seed)).astype(np.float32)
    rows[0, :BLOCK], rows[1], rows[2, 3] = 0, np.sign(rows[1]), 100
    rows[3], rows[4] = rows[3] * np.float32(1e-38), rows[4] * np.float32(1e15)
    rows[5] = np.rint(rows[5] * 4)
    found = quantise_blocks(rows)
    full = np.pad(rows, ((0, 0), (0, -rows.shape[1] % BLOCK))).reshape(7, -1, BLOCK)
    for blocks, values, scales in zip(full, found.values, found.scales, strict=True):
        for block, value, scale in zip(blocks, values, scales, strict=True):
            wanted = by_hand(block)
            assert (scale, value.tolist()) == wanted


def test_the_compiled_part_makes_what_numpy_makes():
    if precision.compiled() is None:
        pytest.skip("the compiled part was not built")
    random = np.random.default_rng(1)
    for _ in range(20):
        rows, blocks = random.integers(0, 40), random.integers(1, 30)
        weights = random.standard_t(2, (rows, blocks * BLOCK)) * 10.0 ** random.integers(-9, 9)
        weights = weights.astype(np.float32)
        if random.random() < 0.3:
            weights = np.rint(weights)
        found = quantise_blocks(weights)
        values, scales = blocks_by_numpy(weights.reshape(rows, blocks, BLOCK))
        assert np.array_equal(found.values, values)
        assert np.array_equal(found.scales, scales)


def test_the_compiled_part_refuses_what_does_not_fit():
    native = precision.compiled()
    if native is None:
        pytest.skip("the compiled part was not built")
    weights, values, scales = (
        np.zeros((2, 3, 32), np.float32),
        np.zeros((2, 3, 32), np.uint8),
        np.zeros((2, 3), np.float32),
    )
    native.quantise_blocks(weights, TRIED, values, scales)
    for bad in (
        (weights[:, :2].copy(), TRIED, values, scales),
        (weights, TRIED, values[:1], scales),
        (weights, TRIED, values, scales[:, :2].copy()),
        (weights[..., :31].copy(), TRIED, values, scales),
        (weights, TRIED, values[..., :31].copy(), scales),
    ):
        with pytest.raises(ValueError, match="not of"):
            native.quantise_blocks(*bad)


@pytest.mark.parametrize("narrow", [Precision.FP16, Precision.INT8, Precision.INT4])
def test_parts_make_the_whole(way, narrow, monkeypatch):
    """A graph's file has the same bytes whatever the size of the parts, and each time that it is written."""
    monkeypatch.setattr(precision, "LARGE", 1)
    model = tiny_prompted()
    files = []
    for rows in (1 << 20, 3):
        monkeypatch.setattr(precision, "ROWS", rows)
        graph = in_precision(graph_of(model), narrow)
        for _ in range(2):
            file = io.BytesIO()
            graph.backbone.write(file)
            assert len(file.getvalue()) == graph.backbone.bytes
            files.append(file.getvalue())
    assert len(set(files)) == 1
    places = {tensor.name: tensor for tensor in graph.model.graph.initializer if tensor.external_data}
    inside = onnx.ModelProto()
    inside.CopyFrom(graph.model)
    graph.backbone.inline(inside.graph.initializer)
    whole = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in inside.graph.initializer}
    for name, tensor in places.items():
        place = {entry.key: entry.value for entry in tensor.external_data}
        start = int(place["offset"])
        assert start % ALIGNMENT == 0
        assert files[0][start : start + int(place["length"])] == whole[name].tobytes()
        assert list(whole[name].shape) == list(tensor.dims)


def test_it_is_never_whole_in_memory(tmp_path):
    """64 MB in parts of 1 MB, which each of two threads makes a few ahead."""
    file = TensorFile("weights.bin")
    file.add("small", np.ones((3, 5), np.float32).T)
    parts = [partial(np.full, (1 << 18,), number, np.float32) for number in range(64)]
    file.add("large", Made((64, 1 << 18), np.dtype(np.float32), parts))
    tracemalloc.start()
    digest = put(file, tmp_path, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (2 + 3 * (os.cpu_count() or 1)) << 20
    content = (tmp_path / "weights.bin").read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    assert np.array_equal(np.frombuffer(content[64:], np.float32).reshape(64, -1)[:, 7], np.arange(64))


def test_a_part_that_fails_leaves_nothing(tmp_path):
    file = TensorFile("weights.bin")

    def fail():
        raise MemoryError

    file.add("one", Made((2,), np.dtype(np.float32), [partial(np.zeros, 1, np.float32), fail]))
    with pytest.raises(MemoryError):
        put(file, tmp_path, None)
    assert not list(tmp_path.iterdir())
