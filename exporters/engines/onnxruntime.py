"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnxruntime import OrtValue

from benchmarks.errors import PolypromptError
from exporters.engines.interface import Arrays, EngineCard

SILENT, WARNINGS = 4, 2
"""Levels of ONNX Runtime's log."""

FLAGS = Path("/proc/cpuinfo")


class OnnxRuntime:
    """An ONNX file in ONNX Runtime's CPU provider.

    Args:
        session: the opened file.
        card: what computes it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, card: EngineCard) -> None:
        self.card = card
        self._session = session
        self._inputs = {value.name for value in session.get_inputs()}
        self._kept: dict[str, OrtValue] = {}

    def keep(self, tensors: Arrays) -> None:
        """See `Engine`."""
        self._kept = values({name: array for name, array in tensors.items() if name in self._inputs})

    def run(self, names: Collection[str], feeds: Arrays) -> dict[str, NDArray[Any]]:
        """See `Engine`."""
        fed = values({name: array for name, array in feeds.items() if name in self._inputs})
        found = self._session.run_with_ort_values(list(names), self._kept | fed)
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}


def open_cpu(model: Path, threads: int | None, second: bool = False, operators: Path | None = None) -> OnnxRuntime:
    """Open a file.

    Args:
        second: compute with the weights as they lie in the file, which all graphs of a process share. Otherwise the
            runtime keeps a copy of its own in the order in which its products read them.

    Raises:
        PolypromptError: it is no file for ONNX Runtime.
    """
    session = open_session(model, "CPUExecutionProvider", {}, threads, not second, operators)
    return OnnxRuntime(session, cpu_card(threads))


@cache
def has_byte_products(flags: Path = FLAGS) -> bool:
    """Whether the processor has products of four int8 numbers at once (VNNI). False where the system does not say.

    Args:
        flags: what the system says of the processor.
    """
    try:
        return bool({"avx512_vnni", "avx_vnni"} & set(flags.read_text().split()))
    except OSError:
        return False


def cpu_card(threads: int | None = None) -> EngineCard:
    """What the CPU provider is."""
    return EngineCard(
        name="onnxruntime",
        version=onnxruntime.__version__,
        device="cpu",
        threads=threads,
        precision="fp32",
        attention="the provider's own operator",
    )


def open_session(
    model: Path,
    provider: str,
    settings: Mapping[str, str],
    threads: int | None,
    reorder: bool = True,
    operators: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Open a file with one provider and no other to fall back on.

    Args:
        reorder: copy weights into the order in which products read them.
        operators: library of operators that the graph has.

    Raises:
        PolypromptError: it is no file for ONNX Runtime, or the provider is not to be had.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT  # what goes wrong is said below, once
    # Threads that wait for more work keep their cores busy for a while, which another graph of the bundle may need.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Processors without products of four int8 numbers at once add up pairs in 16 bits, where large ones overflow. What
    # avoids that is much slower on those that have them, and the runtime does not look.
    if not has_byte_products():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not reorder:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    got: list[str] = onnxruntime.get_available_providers()
    if provider in got:
        onnxruntime.set_default_logger_severity(SILENT)  # a session's own level does not cover libraries
        try:
            if operators is not None:
                options.register_custom_ops_library(str(operators))
            session = onnxruntime.InferenceSession(model, options, [(provider, dict(settings))], enable_fallback=0)
        except Exception as error:  # the classes of onnxruntime's errors are not public
            raise PolypromptError(f"{model}: ONNX Runtime cannot open it ({str(error).splitlines()[0]})") from None
        finally:
            onnxruntime.set_default_logger_severity(WARNINGS)
        got = session.get_providers()
        if provider in got:  # it falls back with a line of its log where the libraries of CUDA are not there
            return session
    short = provider.removesuffix("ExecutionProvider").lower()
    raise PolypromptError(f"--provider {short}: not to be had here; ONNX Runtime offers {', '.join(got)}")


def values(arrays: Arrays) -> dict[str, OrtValue]:
    """Arrays as the runtime takes them, in place."""
    return {name: OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
