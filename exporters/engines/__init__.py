"""What computes an exported graph: ONNX Runtime or OpenVINO, behind one small interface."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from benchmarks.errors import PolypromptError
from exporters.engines.interface import Engine, EngineCard, run_side_by_side, streams_of
from exporters.operator import onnxruntime_library, openvino_extension

__all__ = [
    "AUTO",
    "ENGINES",
    "PROVIDERS",
    "Engine",
    "EngineCard",
    "has_operator",
    "has_streams",
    "installed",
    "open_engine",
    "pieces_a_batch",
    "run_side_by_side",
    "streams_of",
]

AUTO = "auto"
"""In place of an engine's name: the fastest one that is installed and verified for the bundle."""

ENGINES = ("onnxruntime", "openvino", "openvino-bf16")
"""The first computes on every machine. The others need the extra `cpu`, the last also a processor with bf16."""

PROVIDERS = ("cpu", "cuda")
"""Where ONNX Runtime computes; OpenVINO is used on the CPU alone."""


def installed(provider: str = "cpu") -> list[str]:
    """The engines that can compute here, in the order of `ENGINES`."""
    if provider != "cpu" or find_spec("openvino") is None:
        return [ENGINES[0]]
    from exporters.engines.openvino import has_bf16

    return [name for name in ENGINES if name != "openvino-bf16" or has_bf16()]


def has_operator(name: str) -> bool:
    """Whether the operator of `exporters.native_form` is there for an engine."""
    return (onnxruntime_library() if name == ENGINES[0] else openvino_extension()) is not None


def has_streams(name: str, threads: int | None = None) -> bool:
    """Whether an engine can compute parts of a batch side by side with so many threads; None: one a core."""
    if name == ENGINES[0] or find_spec("openvino") is None:
        return False
    from exporters.engines.openvino import STREAMS, cores

    return (threads or cores()) >= STREAMS


def pieces_a_batch(name: str, provider: str = "cpu") -> int:
    """How many pieces, in the padded form places, a batch of several rows has at most: enough for a full load.

    What layers hand on should stay in a processor's caches, the more so in ONNX Runtime, which goes through it more
    often; `python -m tests.speed.inference --only size` measures it. On CUDA nothing was measured.
    """
    return (1024 if name == ENGINES[0] else 2048) if provider == "cpu" else 4096


def open_engine(
    name: str,
    model: Path,
    threads: int | None = None,
    provider: str = "cpu",
    longest: int | None = None,
    second: bool = False,
    native: bool = False,
    streams: bool = False,
) -> Engine:
    """Open an ONNX file.

    Args:
        name: one of `ENGINES`.
        model: the file; tensors that it refers to lie beside it.
        threads: None: one a core.
        provider: one of `PROVIDERS`.
        longest: pieces up to which rows may be filled up; None: any number.
        second: another graph over the same weights is open; no copy of them is made where the engine can do without.
        native: the graph has the project's own operator.
        streams: compute as many batches side by side as the engine can, each on a share of the threads.

    Raises:
        PolypromptError: no such engine, provider or operator, not to be had here, or it cannot open the file.
    """
    if provider not in PROVIDERS:
        raise PolypromptError(f"--provider {provider}: unknown; choose one of {', '.join(PROVIDERS)}")
    if name not in ENGINES:
        raise PolypromptError(f"--engine {name}: unknown; choose one of {', '.join((AUTO, *ENGINES))}")
    if native and (provider != "cpu" or not has_operator(name)):
        raise PolypromptError(f"{model}: needs the compiled operator, which is not there for {name} on {provider}")
    if name == "onnxruntime":
        from exporters.engines.cuda import open_cuda
        from exporters.engines.onnxruntime import open_cpu

        library = onnxruntime_library() if native else None
        return open_cpu(model, threads, second, library) if provider == "cpu" else open_cuda(model, longest)
    if provider != "cpu":
        raise PolypromptError(f"--engine {name}: computes on the CPU alone; --provider {provider} is for onnxruntime")
    if find_spec("openvino") is None:
        raise PolypromptError(f"--engine {name}: OpenVINO is not installed; install the extra `cpu`")
    from exporters.engines.openvino import OpenVino

    extension = openvino_extension() if native else None
    return OpenVino(model, threads, name == "openvino-bf16", extension, side_by_side=streams)
