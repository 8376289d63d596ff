"""The packed graph against the padded one: the same answers from fewer pieces."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted
from test_add import NAMES, two_runs
from test_batching import in_parts
from test_graph import ALL, mixed_batch, rows_asked
from test_session import examples

import exporters.inspect
import exporters.opening
import exporters.pace
import exporters.predict
from benchmarks.errors import PolypromptError
from benchmarks.records import Example
from benchmarks.results import write_model
from exporters.add import add
from exporters.batching import PARTS, Pace
from exporters.bundle import CARD, BundleCard, Parity, open_bundle, read_card, read_tasks
from exporters.engines import has_operator, has_streams, installed, open_engine, streams_of
from exporters.export import blueprint_of, export, graph_of
from exporters.packed import build_packed, can_pack
from exporters.precision import Precision, in_precision
from exporters.remove import remove
from exporters.session import Session


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "deberta-v2"])
@pytest.mark.parametrize(
    ("layers", "gated", "pooling"),
    [
        (ALL, False, "cls"),
        ((1,), False, "mean"),
        ((), False, "cls"),
        ((0, 2), True, "cls"),
        (None, False, "cls"),
    ],
)
def test_answers_are_those_of_the_padded_graph(family, layers, gated, pooling, tmp_path: Path) -> None:
    model = tiny_prompted(family, layers, gated, pooling)
    folder = tmp_path / "bundle"
    card = tiny_bundle(folder, model)
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(folder, open_bundle(folder))[1]
    packed = graph_of(model, build_packed)
    (folder / "other.onnx").write_bytes(packed.model.SerializeToString())
    outputs = []
    for name in ("model.onnx", "other.onnx"):
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        given = {value.name for value in session.get_inputs()}
        outputs.append(session.run(None, {key: value for key, value in feeds.items() if key in given}))
    lengths = feeds["lengths"][feeds["whole_rows"]]
    for padded, found in zip(*outputs, strict=True):
        if padded.ndim == 3:  # behind a row's end there is no answer
            for one, other, length in zip(padded, found, lengths, strict=True):
                np.testing.assert_allclose(one[:length], other[:length], rtol=0, atol=1e-4)
        else:
            np.testing.assert_allclose(padded, found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_both_graphs_have_one_file_of_weights(family: str, precision: Precision, tmp_path: Path) -> None:
    model = tiny_prompted(family)
    files = []
    for name, graph in (("padded", graph_of(model)), ("packed", graph_of(model, build_packed))):
        graph = in_precision(graph, precision)
        with (tmp_path / name).open("wb") as file:
            graph.backbone.write(file)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_pieces_that_are_not_there_are_not_computed(tmp_path: Path) -> None:
    """Of the products with the weights of a layer's second half the rows are counted."""
    model = tiny_prompted()
    graph = graph_of(model, build_packed)
    node = next(node for node in graph.model.graph.node if node.name.startswith("layer.0.ffn_in"))
    graph.model.graph.output.add(name=node.output[0])
    folder = tmp_path / "bundle"
    card = tiny_bundle(folder, model)
    (folder / "other.onnx").write_bytes(graph.model.SerializeToString())
    feeds = mixed_batch(model, len(CARDS))
    feeds |= rows_asked(card, feeds["task_id"]) | read_tasks(folder, open_bundle(folder))[1]
    session = onnxruntime.InferenceSession(folder / "other.onnx", providers=["CPUExecutionProvider"])
    computed = session.run([node.output[0]], feeds)[0].shape[:-1]
    assert computed == (1, feeds["lengths"].sum()) < (1, feeds["input_ids"].size)


LENGTHS = [
    [23],
    [1],
    [5, 5, 5],
    [1, 23],
    [1, 1, 23],
    [8, 15, 23, 23],
    [4, 8, 16, 24],
    [3, 7, 8, 15, 16, 23],
    [9, 23, 1],
    [23, 1, 9, 2],
]


def batch_with(lengths: list[int], card: BundleCard) -> dict[str, np.ndarray]:
    """Rows of all tasks in turn that are so long."""
    feeds = mixed_batch(tiny_prompted("bert", (0, 2)), len(CARDS), len(lengths) + 2, max(lengths))
    feeds = {name: value[: len(lengths)] for name, value in feeds.items()} | {"lengths": np.array(lengths)}
    return feeds | rows_asked(card, feeds["task_id"])


@pytest.mark.parametrize("engine", installed())
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_a_batch_may_have_any_parts(lengths: list[int], engine: str, made: Path) -> None:
    """Also such that no row is in some of them, and rows that do not come by length."""
    card = open_bundle(made)
    feeds, found = batch_with(lengths, card), []
    names = [name for name, rows in (("sequence_logits", "sequence_rows"), ("token_logits", "whole_rows"))
             if len(feeds[rows])]  # fmt: skip
    for name in ("model.onnx", "packed.onnx"):
        opened = open_engine(engine, made / name)
        opened.keep(read_tasks(made, card)[1])
        found.append({name: value.copy() for name, value in opened.run(names, feeds).items()})
    for name in names:
        real = (
            [slice(None)] * len(lengths)
            if name != "token_logits"
            else [slice(lengths[row]) for row in feeds["whole_rows"]]
        )
        for one, other, rows in zip(*(outputs[name] for outputs in found), real, strict=False):
            np.testing.assert_allclose(one[rows], other[rows], rtol=0, atol=0.3 if engine.endswith("bf16") else 1e-4)


@pytest.mark.parametrize("lengths", [one for one in LENGTHS if one == sorted(one)], ids=str)
def test_attention_pads_parts_to_their_own_longest_row(lengths: list[int], made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "bundle")
    model = onnx.load(made / "packed.onnx", load_external_data=False)
    names = [f"part.{number}.layer.0.attention" for number in range(PARTS)]
    for name in names:
        model.graph.output.add(name=name)
    (tmp_path / "bundle" / "other.onnx").write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "other.onnx", providers=["CPUExecutionProvider"])
    card = open_bundle(made)
    outputs = session.run(names, batch_with(lengths, card) | read_tasks(made, card)[1])
    wanted = [(len(part), part[-1]) if part else (1, 1) for part in in_parts(lengths)]
    assert [output.shape[:2] for output in outputs] == wanted


SLOW, FAST = Pace(batch=10, piece=10), Pace(batch=10, piece=1)


def with_parity(folder: Path, packed: Pace | None, engines: list[str] | None = None, padded: Pace = SLOW) -> BundleCard:
    """Write reports into a bundle as if these paces had been measured, and none of the native form and of streams;
    without a packed one it was not verified."""
    card = read_card(folder)
    parity = {}
    for name in engines or installed():
        found = card.parity.get(name) or Parity(
            engine=Session(folder, engine=name).engine, atol=None, max_drop=None, difference=0, drop=0, milliseconds=1,
            tasks={},
        )  # fmt: skip
        other = None if packed is None else found.model_copy(update={"pace": packed, "packed": None, "native": None})
        parity[name] = found.model_copy(update={"pace": padded, "packed": other, "native": None})
    card = card.model_copy(update={"parity": parity})
    write_model(folder / CARD, card)
    return card


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "bundle"
    tiny_bundle(folder, tiny_prompted("bert", (0, 2)))
    with_parity(folder, FAST)
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


ROWS = {(card.name, ""): examples(card.name) for card in CARDS}


def differences(session: Session, other: Session, rows: dict = ROWS) -> float:
    """Largest, over all rows; also against the other one row by row."""
    found, wanted = session.run(rows), other.run(rows)
    worst = [0.0]
    for place, examples_ in rows.items():
        pairs = list(zip(found[place].outputs, wanted[place].outputs, strict=True))
        alone = [output for example in examples_ for output in other.run({place: [example]})[place].outputs]
        pairs += zip(found[place].outputs, alone, strict=True)
        worst += [float(np.abs(mine - theirs).max()) for mine, theirs in pairs]
    return max(worst)


@pytest.mark.parametrize("engine", installed())
def test_a_session_packs_tasks_of_all_kinds_in_one_batch(engine: str, bundle: Path) -> None:
    packing, padding = Session(bundle, engine=engine), Session(bundle, engine=engine, packed=False)
    assert packing.forms == ("padded", "packed")
    assert padding.forms == ("padded",)
    assert differences(packing, padding) < (0.3 if engine.endswith("bf16") else 1e-4)
    assert packing.batches["packed"] > 0
    assert padding.batches["packed"] == 0 < padding.batches["padded"]


@pytest.mark.parametrize("engine", [name for name in installed() if name.startswith("openvino")])
def test_parts_of_a_batch_are_computed_in_streams(engine: str, bundle: Path) -> None:
    card = with_parity(bundle, Pace(batch=1000, piece=10), padded=Pace(batch=1000, piece=10))
    side_by_side = {"streams": Pace(batch=1, piece=1, streams=2)}

    def written(**native: Parity) -> None:
        parity = {
            name: report.model_copy(update={"packed": report.packed.model_copy(update=side_by_side), **native})
            for name, report in card.parity.items()
        }
        write_model(bundle / CARD, card.model_copy(update={"parity": parity}))

    written()
    streams, one = Session(bundle, 2, engine=engine), Session(bundle, 1, engine=engine)
    padding = Session(bundle, 2, engine=engine, packed=False)
    assert streams.forms == ("padded", "packed", "packed-streams") and one.forms == ("padded", "packed")
    assert differences(streams, padding) < (0.3 if engine.endswith("bf16") else 1e-4)
    assert streams.batches["packed-streams"] > 0 and not streams.batches["padded"]
    assert {form: streams_of(opened) for form, opened in streams._engines.items()} == {"padded": 1, "packed-streams": 2}
    # a second copy of the packed graph is no use beside the native one
    native = card.parity[engine].packed.model_copy(update=side_by_side)
    written(native=native)
    beside = "native-streams" if has_operator(engine) else "packed-streams"
    assert [form for form in Session(bundle, 2, engine=engine).forms if form.endswith("streams")] == [beside]


def test_rows_of_one_length_are_not_packed(bundle: Path) -> None:
    session = Session(bundle, engine="onnxruntime")
    texts = [Example(str(number), f"w{7 + number} w8 w9") for number in range(5)]
    session.run({("mood", ""): texts, ("degree", ""): texts})
    assert session.batches == {"padded": 1}


def test_only_what_was_verified_is_packed(bundle: Path, command) -> None:
    with_parity(bundle, None)
    session = Session(bundle, engine="onnxruntime")
    session.run(ROWS)
    assert session.forms == ("padded",)
    assert session.batches["packed"] == 0
    assert open_bundle(bundle).parity["onnxruntime"].packed is None
    assert command(exporters.inspect, bundle)[1].count("packed in no engine that was compared") == 1
    with_parity(bundle, FAST, ["onnxruntime"])
    for engine in set(installed()) - {"onnxruntime"}:
        assert Session(bundle, engine=engine).forms == ("padded",)


def test_the_second_graph_is_opened_when_it_would_have_paid(bundle: Path) -> None:
    with_parity(bundle, FAST.model_copy(update={"opening": 1e9}))
    gains = Session(bundle, engine="onnxruntime")
    lengths = [5, 9, 17, 30, 40]
    gains._plan(lengths)
    saved = gains._missed
    assert saved > 0
    with_parity(bundle, FAST.model_copy(update={"opening": 2.5 * saved}))
    session = Session(bundle, engine="onnxruntime")
    packs = [any(batch.form == "packed" for batch in session._plan(lengths)) for _ in range(4)]
    assert packs == [False, False, True, True]


def test_a_graph_that_was_replaced_meanwhile_is_refused_by_name(bundle: Path) -> None:
    session = Session(bundle, engine="onnxruntime")
    content = bytearray((bundle / "packed.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "packed.onnx").write_bytes(content)
    with pytest.raises(PolypromptError, match=r"packed\.onnx: damaged"):
        session.run(ROWS)


def test_a_bundle_without_other_graphs_opens(bundle: Path) -> None:
    """As they were before there were any."""
    card, others = read_card(bundle), ("packed.onnx", "native.onnx")
    files = {name: stored for name, stored in card.files.items() if name not in others}
    parity = {name: one.model_copy(update={"packed": None, "pace": None}) for name, one in card.parity.items()}
    write_model(bundle / CARD, card.model_copy(update={"files": files, "parity": parity}))
    for name in others:
        (bundle / name).unlink()
    assert '"pace"' not in (bundle / CARD).read_text()
    session = Session(bundle, engine="onnxruntime")
    session.run(ROWS)
    assert session.forms == ("padded",)
    assert exporters.inspect.inspected(bundle)["forms"] == {"padded": list(parity)}


def test_a_card_with_paces_of_an_earlier_version_is_read(bundle: Path) -> None:
    about = json.loads((bundle / CARD).read_text())
    for report in about["parity"].values():
        report["pace"]["place"] = 1.0
        report["queued"] = {"batch": 1.0, "piece": 1.0, "place": 1.0, "streams": 2}
    (bundle / CARD).write_text(json.dumps(about))
    session = Session(bundle, engine="onnxruntime")
    session.run(ROWS)
    assert session.forms == ("padded", "packed") and session.batches["packed"]


def test_what_cannot_be_packed() -> None:
    for layers, number, possible in ((ALL, 3, True), ((), 3, True), (None, 3, False), (ALL, 1, False)):
        assert can_pack(blueprint_of(tiny_prompted(layers=layers)), number) == possible


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs over one encoder whose prompts have other lengths; the first one has a bundle."""
    first, second = two_runs(tmp_path_factory)
    export(first, first / "export", atol=1e-4, rows=6)
    return first, second


def test_an_export_verifies_and_measures_the_packed_form(runs: tuple[Path, Path]) -> None:
    card = open_bundle(runs[0] / "export")
    assert "packed.onnx" in card.files
    assert card.parity["onnxruntime"].packed is not None
    for report in card.parity.values():
        assert list(report.packed.tasks) == list(report.tasks)
        assert report.engine.precision == "bf16" or report.packed.difference < 1e-4
        for pace in (report.pace, report.packed.pace):
            assert pace.opening > pace.batch > 0
    for name, report in card.parity.items():
        for form in (report.packed, report.native) if has_operator(name) and report.native else (report.packed,):
            assert (form.streams is not None and form.streams.streams > 1) == has_streams(name)
    about = exporters.inspect.inspected(runs[0] / "export")
    native = [name for name in card.parity if has_operator(name)]
    # A run that hardly learned may lose more than a point of six rows in bf16; then it says so and leaves the form out.
    native = [name for name in native if not name.endswith("bf16") or card.parity[name].native]
    assert about["forms"] == {"padded": list(card.parity), "packed": list(card.parity), "native": native}


@pytest.mark.parametrize("engine", installed())
def test_tasks_come_and_go_in_a_session_that_packs(engine: str, runs: tuple[Path, Path], tmp_path: Path) -> None:
    most = 0.3 if engine.endswith("bf16") else 1e-4
    bundle = shutil.copytree(runs[0] / "export", tmp_path / "bundle")
    with_parity(bundle, FAST, ["onnxruntime", engine])
    session = Session(bundle, engine=engine)
    rows = {("demo-topic", ""): examples("mood"), ("demo-names", ""): examples("names")}
    session.run(rows)
    packed = session._engines["packed"]
    assert packed is not None
    add(bundle, runs[1], NAMES, atol=1e-4, rows=2)
    assert list(read_card(bundle).parity[engine].packed.tasks)[-1] == list(NAMES.values())[-1]
    session.refresh()
    mixed = rows | {(NAMES[name], ""): asked for (name, _), asked in rows.items()}  # prompts of 3 and 6 slots
    before = session.batches["packed"]
    assert differences(session, Session(bundle, engine=engine, packed=False), mixed) < most
    assert session.batches["packed"] > before
    remove(bundle, ["demo-topic"])
    session.refresh()
    left = {place: asked for place, asked in mixed.items() if place[0] != "demo-topic"}
    assert differences(session, Session(bundle, engine=engine, packed=False), left) < most
    assert session._engines["packed"] is packed
    assert "demo-topic" not in read_card(bundle).parity[engine].packed.tasks


def test_the_option(bundle: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def opened(*arguments: object) -> Session:
        asked.append(arguments)
        return Session(*arguments)

    monkeypatch.setattr(exporters.opening, "Session", opened)
    for options in ((), ("--no-packed", "--threads", 3, "--engine", "onnxruntime")):
        status, _, error = command(exporters.predict, bundle, "--task", "mood", "w7", *options)
        assert status == 0, error
    assert asked == [(bundle, None, "cpu", "auto", True), (bundle, 3, "cpu", "onnxruntime", False)]
    for wrong in ("0", "-1", "two"):
        status, _, error = command(exporters.predict, bundle, "--task", "mood", "w7", "--threads", wrong)
        assert (status, error) == (2, f"error: --threads {wrong}: must be a number of at least 1\n")


def test_a_pace_is_what_an_engine_takes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine for which a clock goes on as a pace says, and by what other work on the machine adds at times."""
    wanted = {
        "model.onnx": Pace(batch=2000, piece=100, pair=1),
        "packed.onnx": Pace(batch=4000, piece=70, pair=3),
        "native.onnx": Pace(batch=3000, piece=60, pair=2),
    }
    now = 0.0

    def take(microseconds: float) -> None:
        nonlocal now
        now += microseconds / 1e6

    class Slow:
        def __init__(self, file: str) -> None:
            self.pace, self.runs = wanted[file], 0

        def keep(self, tensors: object) -> None:
            pass

        def disturbed(self, microseconds: float) -> None:
            self.runs += 1
            take(microseconds * (2 if self.runs % 5 == 0 else 1))

        def counted(self, lengths: np.ndarray) -> tuple[int, int]:
            """Pieces and pairs of a batch."""
            rows = sorted(lengths.tolist())
            if self.pace == wanted["model.onnx"]:
                return len(rows) * rows[-1], len(rows) * rows[-1] ** 2
            parts = in_parts(rows) if self.pace == wanted["packed.onnx"] else [[row] for row in rows]
            return sum(rows), sum(len(part) * part[-1] ** 2 for part in parts if part)

        def run(self, names: object, feeds: dict[str, np.ndarray]) -> None:
            pieces, pairs = self.counted(feeds["lengths"])
            self.disturbed(self.pace.batch + self.pace.piece * pieces + self.pace.pair * pairs)

    class InStreams(Slow):
        """Two parts, each on half of the threads; it is done when the later one is."""

        streams = 2

        def run_side_by_side(self, batches: list[tuple[object, dict[str, np.ndarray]]]) -> None:
            parts = [self.counted(feeds["lengths"]) for _, feeds in batches]
            taken = max(2 * self.pace.piece * pieces + 2 * self.pace.pair * pairs for pieces, pairs in parts)
            self.disturbed(self.pace.batch + taken)

    def opened(name: str, path: Path, second: bool, native: bool, streams: bool) -> Slow:
        assert not second  # so small an encoder may be there several times
        assert native == (path.name == "native.onnx")
        take(70_000)
        return (InStreams if streams else Slow)(path.name)

    monkeypatch.setattr(exporters.pace, "open_engine", opened)
    monkeypatch.setattr(exporters.pace, "time", SimpleNamespace(perf_counter=lambda: now))
    card = open_bundle(bundle)
    forms = ["padded", "packed", "native", "packed-streams", "native-streams"]
    measured = exporters.pace.measure(exporters.pace.Graphs(bundle, card, "onnxruntime"), forms)
    assert [found.streams for found in measured.values()] == [1, 1, 1, 2, 2]
    for form, found in measured.items():
        pace = dict(zip(("padded", "packed", "native"), wanted.values(), strict=True))[form.removesuffix("-streams")]
        assert found.opening == 70_000
        for part in ("batch", "piece", "pair"):
            assert getattr(found, part) == pytest.approx(getattr(pace, part), rel=0.005), (
                form,
                part,
            )  # parts have other parts


def test_a_pace_has_the_least_relative_errors(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an engine that takes the more for a place the more places there are, which no pace says."""
    now, runs = 0.0, []

    def run(names: object, feeds: dict[str, np.ndarray]) -> None:
        nonlocal now
        rows, longest = feeds["input_ids"].shape
        runs.append((rows * longest, rows * longest**2, (rows * longest) ** 1.3))
        now += runs[-1][-1] / 1e6

    engine = SimpleNamespace(keep=lambda tensors: None, run=run)
    monkeypatch.setattr(exporters.pace, "open_engine", lambda *_, **__: engine)
    monkeypatch.setattr(exporters.pace, "time", SimpleNamespace(perf_counter=lambda: now))
    graphs = exporters.pace.Graphs(bundle, open_bundle(bundle), "onnxruntime")
    pace = exporters.pace.measure(graphs, ["padded"])["padded"]

    def error(batch: float, piece: float, pair: float) -> float:
        return sum(((batch + piece * places + pair * pairs) / taken - 1) ** 2 for places, pairs, taken in runs)

    found = pace.batch, pace.piece, pace.pair
    moved = [[value * by if part == place else value for part, value in enumerate(found)]
             for place in range(3) for by in (0.99, 1.01)]  # fmt: skip
    others = [(0.01, *found[1:]), (*found[:2], pace.pair + 1e-4), *(other for other in moved if tuple(other) != found)]
    assert pace.batch == 0 and error(*found) < min(error(*other) for other in others)
