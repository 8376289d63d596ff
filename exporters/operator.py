"""Where the compiled operator PackedPrefixAttention lies, for each engine that it was built for."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.errors import PolypromptError

DOMAIN, NAME, VERSION = "polyprompt", "PackedPrefixAttention", 1
"""The operator in a graph, and the opset of its domain."""

REQUIRED = "POLYPROMPT_NATIVE"
"""Set to 1 where what pip can build must be there, to "all" where ONNX Runtime's operator must be too: their absence is
an error."""


@cache
def openvino_extension() -> Path | None:
    """The library for `openvino.Core.add_extension`.

    Returns:
        None where it was not built, or for another version of OpenVINO than is installed, or OpenVINO is not there.

    Raises:
        PolypromptError: it is not there, though the environment says that it must be.
    """
    try:
        release = version("openvino")
    except PackageNotFoundError:
        return None
    return _library(f"polyprompt_openvino-{release}.so", f"built against openvino {release}", ("1", "all"))


@cache
def onnxruntime_library() -> Path | None:
    """The library for `SessionOptions.register_custom_ops_library`.

    Returns:
        None where it was not built.

    Raises:
        PolypromptError: it is not there, though the environment says that it must be.
    """
    return _library("polyprompt_onnxruntime.so", "built where tools/ort-headers has put the headers of it", ("all",))


def _library(name: str, how: str, required: Collection[str]) -> Path | None:
    """Of what was installed, beside the houses; in a source tree the installed one as well.

    Args:
        required: values of the environment's variable under which it must be there.
    """
    spec = find_spec("polyprompt_native")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).with_name(name)
        if path.exists():
            return path
    asked = os.environ.get(REQUIRED)
    if asked in required:
        raise PolypromptError(f"{REQUIRED}={asked}: {name} is not there; it is {how}")
    return None
