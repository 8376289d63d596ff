"""The graph over the compiled operator against the standard graph, PyTorch and an operator written in numpy."""

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from operator_graph import operator_graph
from test_add import two_runs
from test_graph import ALL, mixed_batch, original, rows_asked
from test_operator import case
from test_packed import FAST, ROWS, SLOW, differences
from test_session import examples

import exporters.engines
import exporters.export
import exporters.inspect
import exporters.precision
import exporters.verify
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.results import write_model
from exporters import operator
from exporters.batching import Pace
from exporters.bundle import CARD, Form, Parity, open_bundle, read_card, read_tasks
from exporters.engines import has_operator, has_streams, installed, open_engine, run_side_by_side, streams_of
from exporters.export import export, graph_of
from exporters.graph import build_graph
from exporters.native_form import build_native
from exporters.precision import Precision, in_precision
from exporters.session import Session


class PackedPrefixAttention(OpRun):
    """The operator row by row and head by head, in double precision."""

    op_domain = "polyprompt"

    def _run(self, query, pair, prefix_key, prefix_value, query_starts, key_starts, prompt, lengths, heads, scale):
        hidden = prefix_key.shape[2]
        query, pair = query[:, :hidden], pair[:, -2 * hidden :]
        mixed = np.zeros(query.shape)
        for row, number in enumerate(prompt):
            queries = slice(*query_starts[row : row + 2])
            own = pair[slice(*key_starts[row : row + 2])]
            slots = lengths[number]
            keys = np.concatenate([prefix_key[number, :slots], own[:, :hidden]]).astype(float)
            values = np.concatenate([prefix_value[number, :slots], own[:, hidden:]]).astype(float)
            for head in np.split(np.arange(hidden), heads):
                scores = query[queries][:, head].astype(float) @ keys[:, head].T * scale
                weights = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
                mixed[queries, head[0] : head[-1] + 1] = weights / weights.sum(1, keepdims=True) @ values[:, head]
        return (mixed.astype(np.float32),)


WITH_OPERATOR = [name for name in installed() if has_operator(name)]


@pytest.mark.parametrize(
    ("family", "layers", "gated", "pooling", "positions"),
    [
        ("bert", ALL, False, "cls", "own"),
        ("bert", (0, 2), True, "cls", "own"),
        ("bert", (0, 2), True, "mean", "own"),
        ("roberta", (1,), False, "mean", "shifted"),
        ("electra", (), False, "cls", "own"),
        ("distilbert", (0, 2), False, "cls", "shifted"),
    ],
)
def test_answers_are_those_of_pytorch(family, layers, gated, pooling, positions, tmp_path: Path) -> None:
    model = tiny_prompted(family, layers, gated, pooling, positions=positions)
    card = tiny_bundle(tmp_path / "bundle", model)
    feeds = mixed_batch(model, len(CARDS))
    rows = rows_asked(card, feeds["task_id"])
    rows = {name: some[::-1].copy() for name, some in rows.items()}  # in any order
    feeds |= rows | read_tasks(tmp_path / "bundle", card)[1]
    graph = graph_of(model, build_native)
    graph.backbone.inline(graph.model.graph.initializer)
    computed = ReferenceEvaluator(graph.model, new_ops=[PackedPrefixAttention])
    outputs = computed.run(None, {name: feeds[name] for name in computed.input_names})
    found = {"reference": dict(zip(computed.output_names, outputs, strict=True))}
    onnx.save(graph.model, tmp_path / "native.onnx")
    for name in WITH_OPERATOR:
        engine = open_engine(name, tmp_path / "native.onnx", native=True)
        found[name] = engine.run(computed.output_names, {name: feeds[name] for name in computed.input_names})
    for name, row in product(found, range(len(feeds["task_id"]))):
        task = card.tasks[feeds["task_id"][row]]
        output = found[name][task.output][list(rows[card.rows_of(task)]).index(row)]
        if output.ndim == 2:
            output = output[: feeds["lengths"][row]]
        wanted, most = original(model, task.card, feeds, row), 0.3 if name.endswith("bf16") else 1e-4
        np.testing.assert_allclose(
            output[..., : task.columns], wanted, rtol=0, atol=most, err_msg=f"{name} {task.card.name}"
        )


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
def test_all_graphs_have_one_file_of_weights(precision: Precision, tmp_path: Path) -> None:
    model = tiny_prompted("roberta")
    files = []
    for name, graph in (("padded", graph_of(model)), ("native", graph_of(model, build_native))):
        with (tmp_path / name).open("wb") as file:
            in_precision(graph, precision).backbone.write(file)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("name", WITH_OPERATOR)
def test_embeddings_in_blocks_of_int4(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pieces behind each other, where the padded graph has rows of them: the same outputs."""
    monkeypatch.setattr(exporters.precision, "LARGE", 1000)
    model = tiny_prompted("bert")
    card = tiny_bundle(tmp_path / "bundle", model)
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(tmp_path / "bundle", card)[1]
    outputs = {task.output for task in card.tasks if task.output != "token_logits"}
    found = []
    for form, build in (("padded", build_graph), ("native", build_native)):
        graph = in_precision(graph_of(model, build), Precision.INT4)
        graph.backbone.inline(graph.model.graph.initializer)
        assert "word.int4" in {one.name for one in graph.model.graph.initializer}
        onnx.save(graph.model, tmp_path / f"{form}.onnx")
        engine = open_engine(name, tmp_path / f"{form}.onnx", native=form == "native")
        found.append(engine.run(outputs, {one.name: feeds[one.name] for one in graph.model.graph.input}))
    for output in outputs:
        most = 0.3 if name.endswith("bf16") else 1e-4
        np.testing.assert_allclose(found[1][output], found[0][output], rtol=0, atol=most, err_msg=output)


# --- in a session ---------------------------------------------------------------------------------------------------

needs_operator = pytest.mark.skipif(not WITH_OPERATOR, reason="the operator was not compiled")


def with_native(folder: Path, pace: Pace = FAST, streams: Pace | None = None, **more: object) -> None:
    """Reports as if the native form had been verified with these paces."""
    card = read_card(folder)
    parity = {}
    for name in installed():
        found = Parity(
            engine=Session(folder, engine=name).engine, atol=None, max_drop=None, difference=0, drop=0, milliseconds=1,
            tasks={}, pace=SLOW,
        )  # fmt: skip
        parity[name] = found.model_copy(update={"native": found.model_copy(update={"pace": pace, "streams": streams})})
    write_model(folder / CARD, card.model_copy(update={"parity": parity, **more}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "bundle"
    tiny_bundle(folder, tiny_prompted("bert", (0, 2)))
    with_native(folder)
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing was compiled."""
    for name in ("openvino_extension", "onnxruntime_library"):
        monkeypatch.setattr(exporters.engines, name, lambda: None)


@pytest.mark.parametrize("engine", installed())
def test_tasks_of_all_kinds_in_one_batch(engine: str, bundle: Path) -> None:
    if not has_operator(engine):
        pytest.skip("the operator was not compiled for this engine")
    native, padded = Session(bundle, engine=engine), Session(bundle, engine=engine, packed=False)
    assert native.forms == ("padded", "native")
    short = {("mood", ""): [Example("0", ""), Example("1", "w8"), Example("2", "w8 w9 w10")]}  # [CLS] [SEP] alone
    for rows in (ROWS, short, {("names", ""): examples("names")}, {("pairs", ""): examples("pairs")[:1]}):
        assert differences(native, padded, rows) < (0.3 if engine.endswith("bf16") else 1e-4)
    assert set(native.batches) == {"native"}  # the pace says that it is better always
    assert set(padded.batches) == {"padded"}


@needs_operator
def test_the_form_packed_opens_one_graph(bundle: Path) -> None:
    with_native(bundle, form=Form.PACKED)
    session = Session(bundle, engine=WITH_OPERATOR[0])
    session.run(ROWS)
    assert session.forms == ("native",) == tuple(session._engines)
    assert Session(bundle, engine=WITH_OPERATOR[0], packed=False).forms == ("padded",)
    about = exporters.inspect.inspected(bundle)
    assert (about["form"], about["here"]["forms"]) == ("packed", ["padded", "native"])


@pytest.mark.parametrize("form", [Form.MIXED, Form.PACKED])
def test_without_the_operator_the_answers_are_the_same(form: Form, bundle: Path, monkeypatch) -> None:
    with_native(bundle, form=form)
    before = Session(bundle, engine="onnxruntime")
    before.run(ROWS)
    absent(monkeypatch)
    session = Session(bundle, engine="onnxruntime")
    assert differences(session, before) < 1e-4
    assert session.forms == ("padded",)
    assert exporters.inspect.inspected(bundle)["here"]["forms"] == ["padded"]
    with pytest.raises(PolypromptError, match=r"native\.onnx: needs the compiled operator"):
        open_engine("onnxruntime", bundle / "native.onnx", native=True)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", installed())
def test_what_is_malformed_is_an_error_of_the_engine(engine: str, threads: int, bundle: Path) -> None:
    if not has_operator(engine):
        pytest.skip("the operator was not compiled for this engine")
    card = open_bundle(bundle)
    tensors = read_tasks(bundle, card)[1]
    feeds = mixed_batch(tiny_prompted("bert", (0, 2)), len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"])
    opened = open_engine(engine, bundle / "native.onnx", threads, native=True)
    for change in (
        {"task_prompt": tensors["task_prompt"] + 7},
        {"prompt_lengths": tensors["prompt_lengths"] + 7},
        {"layer.0.prefix_value": tensors["layer.0.prefix_value"][:, :2]},
    ):
        opened.keep(tensors | {name: np.ascontiguousarray(array) for name, array in change.items()})
        with pytest.raises(Exception, match=r"PackedPrefixAttention|[Ii]nvalid"):
            opened.run(["sequence_logits"], feeds)
    opened.keep(tensors)
    assert np.isfinite(opened.run(["sequence_logits"], feeds)["sequence_logits"]).all()


def test_onnxruntime_takes_no_size_for_another(bundle: Path, capfd) -> None:
    """It says so where two tensors should have shared a place and have other sizes."""
    library = operator.onnxruntime_library()
    if library is None:
        pytest.skip("the operator was not compiled for ONNX Runtime")
    card = open_bundle(bundle)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(bundle / "native.onnx", options, providers=["CPUExecutionProvider"])
    feeds = mixed_batch(tiny_prompted("bert", (0, 2)), len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(bundle, card)[1]
    given = {value.name for value in session.get_inputs()}
    session.run(None, {name: array for name, array in feeds.items() if name in given})
    assert "ismatch" not in capfd.readouterr().err


def test_in_bf16_the_operator_gets_bf16(bundle: Path) -> None:
    """Not compiled: the plugin turns bf16 into fp32 on a processor that has none. Computed by the nodes themselves."""
    if operator.openvino_extension() is None:
        pytest.skip("the operator was not compiled for OpenVINO")
    import openvino

    from exporters.engines.narrow import narrow
    from exporters.engines.openvino import core, extend, tensor_of

    extend(operator.openvino_extension())
    model = core().read_model(bundle / "native.onnx")
    narrow(model)
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == operator.NAME]
    assert len(found) == 3
    for node in found:
        types = [one.get_element_type().get_type_name() for one in node.inputs()]
        assert types == 4 * ["bf16"] + 4 * ["i64"] and node.get_output_element_type(0).get_type_name() == "bf16"
        # queries, keys and values that lie in one tensor are converted once
        assert len({one.get_source_output().get_node().get_friendly_name() for one in node.inputs()[:4]}) in (3, 4)
    assert {one.get_element_type().get_type_name() for one in model.outputs} == {"f32"}
    heads, width = 2, 32
    values = {}
    for kind in ("f32", "bf16"):
        alone = core().read_model(operator_graph(heads, width**-0.5).SerializeToString())
        if kind == "bf16":
            narrow(alone)
        feeds = case([5, 0, 40], heads, width, [7, 1])
        types = [port.get_element_type() for port in alone.inputs]
        assert [one.get_type_name() for one in types[:4]] == 4 * [kind]  # nothing else reads them
        inputs = [tensor_of(array, one) for array, one in zip(feeds.values(), types, strict=True)]
        output = openvino.Tensor(openvino.Type.f32, openvino.Shape([len(feeds["query"]), heads * width]))
        assert alone.evaluate([output], inputs)
        values[kind] = np.array(output.data)
    difference = np.abs(values["f32"] - values["bf16"]).max()
    assert 1e-4 < difference < 2e-2  # of bf16, and not of fp32


# --- in an export ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs over one encoder whose prompts have other lengths."""
    return two_runs(tmp_path_factory)


@needs_operator
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_an_export_verifies_and_measures_it(precision: Precision, runs, tmp_path: Path) -> None:
    card = export(runs[0], tmp_path / "b", 1e-4, 6, form=Form.PACKED, precision=precision, max_drop=100)
    assert ("openvino-native.onnx" in card.files) == (precision is Precision.INT8)
    for name in WITH_OPERATOR:
        report = card.parity[name].native
        assert list(report.tasks) == list(card.parity[name].tasks)
        assert report.pace.opening > report.pace.batch > 0
        assert (report.streams is not None and report.streams.streams > 1) == has_streams(name)
        assert Session(tmp_path / "b", engine=name).forms == ("native",)
    assert exporters.inspect.inspected(tmp_path / "b")["forms"]["native"] == WITH_OPERATOR


def test_the_form_packed_wants_the_operator(runs, tmp_path: Path, monkeypatch, command) -> None:
    absent(monkeypatch)
    status, _, error = command(exporters.export, runs[0], "--out", tmp_path / "b", "--form", "packed")
    assert status == 2
    assert "--form packed: the compiled operator is not there" in error
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("engine", [name for name in WITH_OPERATOR if name != "onnxruntime"])
def test_parts_of_a_batch_are_computed_side_by_side(engine: str, bundle: Path) -> None:
    with_native(
        bundle, streams=FAST.model_copy(update={"piece": FAST.piece / 2, "batch": FAST.batch / 2, "streams": 2})
    )
    session, one = Session(bundle, 2, engine=engine), Session(bundle, 1, engine=engine)
    padded = Session(bundle, 2, engine=engine, packed=False)
    most = 0.3 if engine.endswith("bf16") else 1e-4
    assert differences(session, padded) < most and differences(one, padded) < most
    assert "native-streams" in session.forms and "native-streams" not in one.forms
    assert session.batches["native-streams"] and one.batches["native"]
    assert {form: streams_of(opened) for form, opened in session._engines.items()} == {"padded": 1, "native-streams": 2}
    assert {streams_of(opened) for opened in one._engines.values()} == {1}


@pytest.mark.parametrize("engine", [name for name in WITH_OPERATOR if name != "onnxruntime"])
def test_a_malformed_part_is_an_error_and_waits_for_the_others(engine: str, bundle: Path) -> None:
    card = open_bundle(bundle)
    tensors = read_tasks(bundle, card)[1]
    feeds = mixed_batch(tiny_prompted("bert", (0, 2)), len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"])
    opened = open_engine(engine, bundle / "native.onnx", 2, native=True, streams=True)
    opened.keep(tensors)
    feeds["task_prompt"] = tensors["task_prompt"]
    wrong = feeds | {"task_prompt": tensors["task_prompt"] + 7}
    (wanted,) = run_side_by_side(opened, [(["sequence_logits"], feeds)])
    kept = wanted["sequence_logits"].copy()
    for parts in ([feeds, wrong], [wrong, feeds], [wrong, wrong]):
        with pytest.raises(RuntimeError):
            run_side_by_side(opened, [(["sequence_logits"], part) for part in parts])
        for found in run_side_by_side(opened, 2 * [(["sequence_logits"], feeds)]):
            np.testing.assert_allclose(found["sequence_logits"], kept, atol=1e-6)
