"""Engines against each other, what a bundle chooses, and the conditions of GPU kernels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import tiny_bundle, tiny_prompted
from test_session import examples

import exporters.bench
import exporters.session
from benchmarks.errors import PolypromptError
from benchmarks.results import write_model
from exporters.bundle import CARD, open_bundle
from exporters.engines import ENGINES, Engine, installed, open_engine
from exporters.engines.cuda import BoundRuntime, block, padded, without_flash
from exporters.engines.onnxruntime import cpu_card, has_byte_products, open_session
from exporters.session import Session
from exporters.verify import verify, verify_engines


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    tiny_bundle(folder, tiny_prompted())
    return folder


ROWS = {(name, ""): examples(name) for name in ("mood", "names", "pairs")}


def outputs(session: Session) -> list[np.ndarray]:
    return [output for encoded in session.run(ROWS).values() for output in encoded.outputs]


def test_engines_agree_and_say_what_they_are(bundle: Path) -> None:
    wanted = outputs(Session(bundle, threads=1, engine="onnxruntime"))
    for name in installed():
        session = Session(bundle, threads=1, engine=name)
        most = 0.3 if name.endswith("bf16") else 1e-4
        found = outputs(session)
        assert max(np.abs(one - other).max() for one, other in zip(found, wanted, strict=True)) < most
        assert session.engine.precision == ("bf16" if name.endswith("bf16") else "fp32")
        assert session.engine.name == name.removesuffix("-bf16")
        assert session.engine.version in str(session.engine)


def test_runtimes_get_the_threads_and_the_precision_that_were_asked_for(bundle: Path) -> None:
    session = open_session(bundle / "model.onnx", "CPUExecutionProvider", {}, 3)
    assert session.get_session_options().intra_op_num_threads == 3
    opened = Session(bundle, threads=3, engine="onnxruntime")._engine
    assert opened._session.get_session_options().intra_op_num_threads == 3
    for name, precision in (("openvino", "float"), ("openvino-bf16", "bfloat16")):
        if name in installed():
            compiled = Session(bundle, threads=1, engine=name)._engine._compiled
            assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
            assert precision in str(compiled.get_property("INFERENCE_PRECISION_HINT"))


def test_buffers_on_a_device_give_the_same(bundle: Path) -> None:
    """The blocks that CUDA graphs need, on the CPU: no row sees the rows and pieces that fill a block up."""
    runtime = open_session(bundle / "model.onnx", "CPUExecutionProvider", {}, 1)
    session = Session(bundle, engine=BoundRuntime(runtime, cpu_card(), "cpu", 40))
    for _ in range(2):  # the second time in the same buffers
        for one, other in zip(outputs(session), outputs(Session(bundle, engine="onnxruntime")), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_blocks() -> None:
    assert [block(rows, length) for rows, length in ((1, 1), (3, 16), (4, 17), (33, 200))] == [
        (1, 16),
        (4, 16),
        (4, 32),
        (64, 256),
    ]
    assert block(3, 17, 20) == (4, 20)
    assert block(3, 30, 20) == (4, 30)
    assert padded("lengths", np.array([7, 9, 2]), (4, 16)).tolist() == [7, 9, 2, 1]
    assert padded("task_id", np.array([7, 9, 2]), (4, 16)).tolist() == [7, 9, 2, 0]
    assert padded("whole_rows", np.array([1, 2, 0]), (8, 16)).tolist() == [1, 2, 0, 0]
    assert padded("input_ids", np.ones((3, 5), np.int64), (4, 16)).sum() == 15


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ("flags\t: fpu avx2 avx512_vnni avx512_bf16\n", True),
        ("flags\t: fpu avx2 avx_vnni\n", True),
        ("flags\t: fpu avx2 avx512f avx_vnni_int8\n", False),
        (None, False),
    ],
)
def test_exact_int8_is_asked_for_only_where_it_costs(
    flags: str | None, there: bool, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "cpuinfo", []
    if flags is not None:
        path.write_text(flags)
    assert has_byte_products(path) is there

    class Recorded(onnxruntime.InferenceSession):
        def __init__(self, model: Path, options: onnxruntime.SessionOptions, *rest: object, **more: object) -> None:
            opened.append(options)
            super().__init__(model, options, *rest, **more)

    monkeypatch.setattr(exporters.engines.onnxruntime, "has_byte_products", lambda: there)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    open_engine("onnxruntime", bundle / "model.onnx", 1)
    if there:
        with pytest.raises(RuntimeError):
            opened[0].get_session_config_entry("session.x64quantprecision")
    else:
        assert opened[0].get_session_config_entry("session.x64quantprecision") == "1"


@pytest.mark.parametrize(("hidden", "precision", "copies"), [(768, "fp32", 2), (1280, "fp32", 1), (1280, "int8", 2)])
def test_light_weights_are_copied_for_each_graph(
    hidden: int, precision: str, copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def recorded(*args: object, second: bool, **more: object) -> Engine:
        asked.append(second)
        return open_engine(*args, second=second, **more)

    folder = tmp_path / "bundle"
    card = tiny_bundle(folder, tiny_prompted())
    backbone = card.backbone.model_copy(update={"layers": 12, "hidden": hidden})
    write_model(folder / CARD, card.model_copy(update={"precision": precision, "backbone": backbone}))
    monkeypatch.setattr(exporters.session, "open_engine", recorded)
    session = Session(folder, engine="onnxruntime")
    for form in ("padded", "packed"):
        session._open(form)
    assert asked.count(False) == copies and len(asked) == 2


def test_auto_takes_the_fastest_that_is_verified(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(bundle, engine="onnxruntime")
    assert exporters.session.fastest(open_bundle(bundle)) == "onnxruntime"  # nothing is verified
    wanted = session.run({("mood", ""): ROWS["mood", ""]})["mood", ""].outputs
    report = verify(session, lambda card, features, language: wanted, {"mood": {"": ROWS["mood", ""]}})
    times = {"onnxruntime": 2.0, "openvino": 3.0, "openvino-bf16": 1.0}
    reports = {name: report.model_copy(update={"milliseconds": time}) for name, time in times.items()}
    card = open_bundle(bundle).model_copy(update={"parity": reports})
    monkeypatch.setattr(exporters.session, "installed", lambda provider: list(ENGINES))
    assert exporters.session.fastest(card) == "openvino-bf16"
    del reports["openvino-bf16"]
    assert exporters.session.fastest(card.model_copy(update={"parity": reports})) == "onnxruntime"
    monkeypatch.setattr(exporters.session, "installed", lambda provider: ["openvino"])
    assert exporters.session.fastest(card) == "openvino"


def test_an_engine_that_loses_points_is_left_out(bundle: Path) -> None:
    """A reference that answers otherwise in every row: the first engine must agree, the others may be left out."""
    rows = {"mood": {"": ROWS["mood", ""]}}
    session = Session(bundle, engine="onnxruntime")
    same = lambda card, features, language: session.run({("mood", ""): ROWS["mood", ""]})["mood", ""].outputs  # noqa: E731
    reports, left_out = verify_engines(bundle, same, rows, 1e-4, 100)
    assert list(reports) == [name for name in installed() if name in reports]
    assert not left_out
    with pytest.raises(PolypromptError, match="--max-drop 1 allows"):
        turned = lambda card, features, language: [np.roll(o, 1) for o in same(card, features, language)]  # noqa: E731
        verify_engines(bundle, turned, rows, None, 1)


@pytest.mark.parametrize(
    ("engine", "provider", "message"),
    [
        ("abacus", "cpu", "--engine abacus: unknown"),
        ("onnxruntime", "abacus", "--provider abacus: unknown"),
        ("openvino", "cuda", "--engine openvino: computes on the CPU alone"),
    ],
)
def test_what_is_not_there(engine: str, provider: str, message: str, bundle: Path) -> None:
    with pytest.raises(PolypromptError, match=message):
        open_engine(engine, bundle / "model.onnx", 1, provider)


def test_openvino_that_is_not_installed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.engines, "find_spec", lambda name: None)
    assert installed() == ["onnxruntime"]
    with pytest.raises(PolypromptError, match="--engine openvino: OpenVINO is not installed; install the extra `cpu`"):
        open_engine("openvino", bundle / "model.onnx")


@pytest.mark.skipif("openvino" not in installed(), reason="needs the extra `cpu`")
def test_a_signal_after_engines_have_gone(bundle: Path) -> None:
    code = f"""
import pathlib, signal
from exporters.engines import open_engine
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts behind itself ignore it
one, other = (open_engine("openvino", pathlib.Path({str(bundle / "model.onnx")!r}), 1) for _ in range(2))
del one
del other
try:
    signal.raise_signal(signal.SIGINT)  # in this thread: a signal to the process may reach one of the engine's
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_graph(engine: str, tmp_path: Path) -> None:
    if engine not in installed():
        pytest.skip("needs the extra `cpu`")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(PolypromptError, match=r"model\.onnx: .* cannot open it"):
        open_engine(engine, tmp_path / "model.onnx")


def test_what_is_against_flash_attention(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    assert without_flash(model) == ["queries, keys and values are not float16"]
    for node in model.graph.node:
        if node.op_type == "Attention":
            node.input[3], node.input[4] = "lengths", "lengths"
            node.input[6] = ""
    found = without_flash(model)
    assert found[1:] == ["it has a mask", "it has a past", "it has no nonpad_kv_seqlen"]


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_the_bench(engine: str, bundle: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine not in ("auto", *installed()):
        pytest.skip("needs the extra `cpu`, or a processor with bf16")
    monkeypatch.setattr(exporters.bench, "SECONDS", 0.05)
    options = [bundle, "--batch", "1,2", "--length", "8", "--threads", 1, "--engine", engine]
    status, out, error = command(exporters.bench, *options)
    assert status == 0, error
    used = "onnxruntime" if engine == "auto" else engine  # nothing is verified
    assert out.startswith(used.removesuffix("-bf16"))
    assert ("bf16" in out) == engine.endswith("bf16")
    found = json.loads(command(exporters.bench, *options, "--json")[1])
    assert found["engine"]["name"] == used.removesuffix("-bf16")
    assert [(row["batch"], row["length"]) for row in found["times"]] == [(1, 8), (2, 8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--provider", "cuda"), "--provider cuda: not to be had here"),
        (("--provider", "cuda", "--engine", "openvino"), "--engine openvino: computes on the CPU alone"),
        (("--batch", "0"), "--batch 0: must be numbers such as 1,8,32"),
        (("--length", "8,43"), "--length 8,43: rows of this bundle have 42 pieces at most"),
    ],
)
def test_what_the_bench_refuses(options: tuple[str, ...], message: str, bundle: Path, command) -> None:
    if options[-1] == "cuda" and Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    status, out, error = command(exporters.bench, bundle, "--length", 8, *options)
    assert (status, out) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
