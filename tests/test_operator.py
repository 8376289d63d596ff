"""The operator of packed graphs in both engines, against attention row by row in double precision."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from benchmarks.errors import PolypromptError
from exporters import operator
from exporters.engines import installed
from exporters.operator import NAME
from tests.operator_graph import RANKS, operator_graph

pytestmark = pytest.mark.native
Feeds = dict[str, NDArray[Any]]
INSTRUCTIONS = ("avx512bf16", "avx512", "avx2", "portable")
ENGINES = ("onnxruntime", "openvino")
TYPES = {
    "fp32": (TensorProto.FLOAT, np.float32, 2e-6),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16, 2e-2),
    "fp16": (TensorProto.FLOAT16, np.float16, 2e-3),
}
REASONS = {
    "onnxruntime": "the headers of ONNX Runtime were not there when the package was built",
    "openvino": "there is no OpenVINO, or the package was built against another one",
}


def library(engine: str) -> Path | None:
    if engine == "onnxruntime":
        return operator.onnxruntime_library()
    return operator.openvino_extension() if "openvino" in installed() else None


def needed(engine: str) -> Path:
    found = library(engine)
    if found is None:
        pytest.skip(REASONS[engine])
    return found


def expected(engine: str) -> bool:
    return os.environ.get(operator.REQUIRED) in (("all",) if engine == "onnxruntime" else ("1", "all"))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    needed(request.param)
    return str(request.param)


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request: pytest.FixtureRequest, engine: str) -> Iterator[str]:
    native = ctypes.CDLL(str(needed(engine)))
    native.polyprompt_use.restype, native.polyprompt_instructions.restype = ctypes.c_bool, ctypes.c_char_p
    before = native.polyprompt_instructions()
    if not native.polyprompt_use(request.param.encode()):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    assert native.polyprompt_use(before)


@cache
def _core() -> Any:
    from exporters.engines.openvino import core

    core().add_extension(str(needed("openvino")))
    return core()


@cache
def opened(engine: str, heads: int, scale: float, kind: int, ranks: Sequence[int] = RANKS) -> Any:
    model = operator_graph(heads, scale, kind, ranks).SerializeToString()
    if engine == "onnxruntime":
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 2
        options.register_custom_ops_library(str(needed(engine)))
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _core().read_model(model)


def compute(engine: str, feeds: Feeds, heads: int, scale: float, kind: int = TensorProto.FLOAT) -> NDArray[Any]:
    ranks = tuple(array.ndim for array in feeds.values())
    found = opened(engine, heads, scale, kind, ranks)
    if engine == "onnxruntime":
        values = {}
        for name, array in feeds.items():
            if array.dtype == ml_dtypes.bfloat16:
                values[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), kind)
            else:
                values[name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        mixed = found.run_with_ort_values(["mixed"], values)[0]
        return mixed.numpy() if kind != TensorProto.BFLOAT16 else _bf16(mixed)
    import openvino

    (node,) = (node for node in found.get_ops() if node.get_type_name() == NAME)
    # as the plugin calls it, in every type: on processors without bf16 it would turn the graph into fp32
    inputs = [_tensor(array) for array in feeds.values()]
    output = openvino.Tensor(
        inputs[0].element_type, openvino.Shape([len(feeds["query"]), feeds["prefix_key"].shape[-1]])
    )
    assert node.evaluate([output], inputs)
    return np.array(output.data).view(feeds["query"].dtype)


def _bf16(value: onnxruntime.OrtValue) -> NDArray[Any]:
    size = int(np.prod(value.shape()))
    raw = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    return np.array(raw, np.uint16).view(ml_dtypes.bfloat16).reshape(value.shape())


def _tensor(array: NDArray[Any]) -> Any:
    import openvino

    is_bf16 = array.dtype == ml_dtypes.bfloat16
    kind = openvino.Type.bf16 if is_bf16 else openvino.Type(array.dtype)
    shape = openvino.Shape(array.shape)
    if not array.size:
        return openvino.Tensor(kind, shape)
    return openvino.Tensor(array.view(np.uint16) if is_bf16 else array, shape, kind)


def case(
    lengths: Sequence[int],
    heads: int,
    width: int,
    prompt_lengths: Sequence[int],
    number: Any = np.float32,
    slots: int | None = None,
    one_asks: bool = False,
    seed: int = 0,
) -> Feeds:
    """Rows of a fused projection, or of its last layer, where a piece a row asks, with columns that nobody reads."""
    draw, hidden = np.random.default_rng(seed), heads * width
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    slots = max(prompt_lengths) if slots is None else slots

    def numbers(*shape: int) -> NDArray[Any]:
        return draw.standard_normal(shape).astype(number)

    fused = numbers(int(starts[-1]), 3 * hidden)
    return {
        "query": numbers(len(lengths), hidden + 2) if one_asks else fused,
        "key_value": np.ascontiguousarray(fused[:, hidden - 2 :]) if one_asks else fused,
        "prefix_key": numbers(len(prompt_lengths), slots, hidden),
        "prefix_value": numbers(len(prompt_lengths), slots, hidden),
        "query_starts": np.arange(len(lengths) + 1) if one_asks else starts,
        "key_starts": starts,
        "prompt": draw.integers(0, len(prompt_lengths), len(lengths)),
        "prompt_lengths": np.array(prompt_lengths, np.int64),
    }


def by_hand(feeds: Feeds, heads: int, scale: float) -> NDArray[np.float64]:
    query, key_value, prefix_key, prefix_value = (
        feeds[name].astype(np.float64) for name in ("query", "key_value", "prefix_key", "prefix_value")
    )
    hidden = prefix_key.shape[2]
    mixed = np.zeros((len(query), hidden))
    for row, prompt in enumerate(feeds["prompt"]):
        asks = slice(*feeds["query_starts"][row : row + 2])
        sees = slice(*feeds["key_starts"][row : row + 2])
        prompt, slots = (prompt, feeds["prompt_lengths"][prompt]) if prefix_key.shape[1] else (0, 0)
        for columns in np.split(np.arange(hidden), heads):
            key = np.concatenate([prefix_key[prompt, :slots][:, columns], key_value[sees, -2 * hidden :][:, columns]])
            value = np.concatenate([prefix_value[prompt, :slots][:, columns], key_value[sees, -hidden:][:, columns]])
            if len(key) and asks.stop > asks.start:
                scores = scale * query[asks][:, columns] @ key.T
                weights = np.exp(scores - scores.max(1, keepdims=True))
                mixed[asks, columns[0] : columns[-1] + 1] = weights / weights.sum(1, keepdims=True) @ value
    return mixed


def check(engine: str, kind: str, feeds: Feeds, heads: int) -> None:
    onnx_type, number, tolerance = TYPES[kind]
    scale = float(np.float32((feeds["prefix_key"].shape[2] // heads) ** -0.5))
    got = compute(engine, feeds, heads, scale, onnx_type)
    assert got.dtype == number
    wanted = by_hand(feeds, heads, scale)
    tolerance *= max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", TYPES)
def test_values(engine: str, instructions: str, kind: str) -> None:
    """Rows of no, one and many pieces, prompts of no slot, one and many, heads of several widths."""
    number = TYPES[kind][1]
    for width, one_asks in ((32, False), (64, True), (80, False), (128, True), (22, False)):
        check(engine, kind, case([70, 0, 1, 9, 65, 3], 2, width, [0, 1, 17], number, one_asks=one_asks), 2)
    check(engine, kind, case([5, 0, 40], 3, 32, [256, 1], number), 3)
    check(engine, kind, case([130, 2], 1, 64, [0, 5], number, slots=9), 1)


@pytest.mark.parametrize("kind", TYPES)
def test_rows_that_are_computed_in_parts(engine: str, instructions: str, kind: str) -> None:
    """The largest score may lie in any part."""
    for seed, lengths in enumerate(([700, 1], [385, 256, 257], [1100])):
        feeds = case(lengths, 1, 32, [300, 16, 0], TYPES[kind][1], seed=seed)
        feeds["key_value"][::97] *= 3
        check(engine, kind, feeds, 1)


@pytest.mark.parametrize("seed", range(4))
def test_random_shapes(engine: str, seed: int) -> None:
    """More rows with one prompt than are taken at once, and prompts that no row has."""
    draw = np.random.default_rng(seed)
    for turn in range(10):
        heads, width = int(draw.integers(1, 5)), int(draw.choice([1, 3, 8, 32, 33, 64, 80, 128]))
        lengths = draw.integers(0, 40, int(draw.integers(0, 30))).tolist()
        prompts = draw.choice([0, 1, 2, 16, 31], int(draw.integers(1, 4))).tolist()
        check(engine, "fp32", case(lengths, heads, width, prompts, one_asks=bool(turn % 2), seed=seed), heads)


def test_a_layer_without_prefix(engine: str) -> None:
    """Prompts keep their numbers there."""
    feeds = case([4, 9, 0], 2, 32, [0])
    check(engine, "fp32", feeds | {"prompt": np.array([3, 0, 7])}, 2)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"query_starts": [0, 5, 3, 9]}, "do not follow"),
        ({"query_starts": [0, 3, 5, 8]}, "do not follow"),
        ({"query_starts": [1, 3, 5, 9]}, "do not follow"),
        ({"key_starts": [0, 3, 5, 10]}, "do not follow"),
        ({"key_starts": [0, -(2**62), 5, 9]}, "do not follow"),
        ({"key_starts": [0, 9]}, "key_starts"),
        ({"query_starts": []}, "query_starts"),
        ({"prompt": [0, 1, 2]}, "prefix that is not there"),
        ({"prompt": [0, 1, -1]}, "prefix that is not there"),
        ({"prompt": [0]}, "query_starts"),
        ({"prompt_lengths": [1, 6]}, "more slots"),
        ({"prompt_lengths": [-1, 1]}, "more slots"),
        ({"prompt_lengths": [1]}, "prompt_lengths"),
        ({"prefix_key": np.zeros((2, 5, 63))}, "prefix_value"),
        ({"prefix_value": np.zeros((2, 4, 64))}, "prefix_value"),
        ({"prefix_key": np.zeros((2, 5, 63)), "prefix_value": np.zeros((2, 5, 63))}, "heads"),
        ({"prefix_key": np.zeros((2, 5, 0)), "prefix_value": np.zeros((2, 5, 0))}, "heads"),
        ({"query": np.zeros((9, 63))}, "query"),
        ({"query": np.zeros((8, 64))}, "do not follow"),
        ({"key_value": np.zeros((9, 127))}, "key_value"),
        ({"key_value": np.zeros((0, 192))}, "do not follow"),
    ],
)
def test_malformed_inputs_are_errors_of_the_engine(engine: str, change: dict[str, Any], word: str) -> None:
    feeds = case([3, 2, 4], 2, 32, [1, 5])
    kinds = {name: array.dtype for name, array in feeds.items()}
    feeds |= {name: np.asarray(value, kinds[name]) for name, value in change.items()}
    with pytest.raises(Exception, match=word):  # the classes of the engines' errors are not public
        compute(engine, feeds, 2, 0.2)
    check(engine, "fp32", case([3, 2, 4], 2, 32, [1, 5]), 2)


@pytest.mark.parametrize("name", ["query", "prefix_key", "key_starts", "prompt_lengths"])
def test_ranks_are_checked(engine: str, name: str) -> None:
    feeds = case([3, 2, 4], 2, 32, [1, 5])
    feeds[name] = feeds[name][None]
    with pytest.raises(Exception, match="rank"):
        compute(engine, feeds, 2, 0.2)


@pytest.mark.parametrize("heads", [0, -2])
def test_heads_are_counted(engine: str, heads: int) -> None:
    with pytest.raises(Exception, match="heads"):
        compute(engine, case([3], 2, 32, [1]), heads, 0.2)


def test_types_are_checked(engine: str) -> None:
    model = operator_graph(2, 0.2, TensorProto.FLOAT)
    model.graph.input[2].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(Exception, match=r"(?i)type|f16"):
        if engine == "onnxruntime":
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.register_custom_ops_library(str(needed(engine)))
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        else:
            _core().read_model(model.SerializeToString())


@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_computes_a_whole_graph_with_it(threads: int) -> None:
    """Compiled, with sizes that change from run to run, and errors in between."""
    needed("openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = _core().read_model(operator_graph(2, 0.25, TensorProto.FLOAT).SerializeToString())
    compiled = _core().compile_model(model, "CPU", settings)
    for seed, lengths in enumerate(([5, 30, 1], [64] * 20, [], [3])):
        feeds = case(lengths, 2, 32, [16, 0, 3], seed=seed)
        np.testing.assert_allclose(compiled(feeds)["mixed"], by_hand(feeds, 2, 0.25), rtol=0, atol=2e-6)
        request = compiled.create_infer_request()
        # with one thread OpenVINO drops errors of synchronous requests, and later ones can crash
        request.start_async(feeds | {"query_starts": feeds["query_starts"] + 1})
        with pytest.raises(RuntimeError, match="do not follow"):
            request.wait()


def test_a_library_that_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(operator, "find_spec", lambda _: None)
    for find in (operator.onnxruntime_library, operator.openvino_extension):
        monkeypatch.delenv(operator.REQUIRED, raising=False)
        assert find.__wrapped__() is None
    monkeypatch.setenv(operator.REQUIRED, "1")  # pip cannot bring the headers for the other
    assert operator.onnxruntime_library.__wrapped__() is None
    with pytest.raises(PolypromptError, match="is not there"):
        operator.openvino_extension.__wrapped__()
    monkeypatch.setenv(operator.REQUIRED, "all")
    with pytest.raises(PolypromptError, match="tools/ort-headers"):
        operator.onnxruntime_library.__wrapped__()


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_there_where_it_must_be(engine: str) -> None:
    """Else the tests above would be skipped unseen."""
    if not expected(engine):
        pytest.skip(f"{operator.REQUIRED} does not say that it must be there")
    assert library(engine) is not None
