"""Another engine for what is not trained: the same states and scores, and when it is taken, refused and kept."""

import re
import time
from dataclasses import replace
from importlib.metadata import EntryPoint
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from test_trunk import CARD, prepare
from tiny import HEADS, HIDDEN, LAYERS, tiny_model, tiny_tokenizer

from benchmarks import data
from benchmarks.records import Example, Split
from benchmarks.registry import find_task
from benchmarks.results import InferenceCard, Manifest, Results, read_model, read_predictions
from benchmarks.scoring import score
from benchmarks.task import Kind, Task
from harness import engines
from harness.attention import Prefix
from harness.backbone import Backbone, Trunk, load_backbone
from harness.data import TaskRows
from harness.device import find_device
from harness.encoder import FrozenEncoder
from harness.evaluate import predict
from harness.features import TextEncoder
from harness.heads import Pooling
from harness.inference import Inference, Part
from harness.model import PromptedModel
from harness.placement import Placement
from harness.screen import Screen
from harness.sharing import PromptBank
from harness.trunk import FOLDER, TrunkCache

SLOTS = 3
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra `cpu`")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def plug(monkeypatch):
    """Makes engines the only ones that packages here declare."""

    def put(**places):
        found = [EntryPoint(name, place, engines.GROUP) for name, place in places.items()]
        monkeypatch.setattr(engines, "entry_points", lambda group: [one for one in found if one.group == group])

    return put


class Fake:
    """Our own layers in fp32 behind the interface of other engines."""

    name, identity, wrong, calls = "fake", "fake 1", 0.0, 0

    def compile(self, backbone, part, bf16, threads):
        encoder = FrozenEncoder(backbone.model, torch.float32)

        def run(feeds):
            type(self).calls += 1
            states, lengths = torch.from_numpy(feeds["states"]), torch.from_numpy(feeds["lengths"])
            mask = (torch.arange(states.shape[1]) < lengths[:, None])[:, None, None]
            names = [[f"layer.{n}.prefix_{kind}" for kind in ("key", "value")] for n in part.prompted]
            pairs = [[torch.from_numpy(feeds[n]).unflatten(2, (HEADS, -1)).transpose(1, 2) for n in p] for p in names]
            prefix = Prefix(torch.stack([torch.stack(pair) for pair in pairs]), part.prompted) if pairs else None
            read = int(feeds["read"][0]) if part.reads else None
            return (encoder.run(states, mask, prefix, part.first, part.end, read) + self.wrong).numpy()

        return run


class Wrong(Fake):
    name, wrong = "wrong", 0.02


class Absent:
    def __init__(self):
        raise ImportError("No module named 'abacus'")


def weigh(monkeypatch, speed):
    """Every engine is as fast as is said here, and the work is worth it."""
    timed = engines._Judge._timed

    def slow(self, work, batch, inference=None):
        states, _ = timed(self, work, batch, inference)
        return states, 1.0 if inference is None else 1 / speed[inference.name]

    monkeypatch.setattr(engines._Judge, "_timed", slow)


def manifest(folder):
    return read_model(folder / "manifest.json", Manifest)


def batch(backbone, longest=9):
    random = np.random.default_rng(0)
    lengths = np.array([longest, 4, 7, 1])
    ids = random.integers(5, 60, (4, longest))
    types = (np.arange(longest) > longest // 2).astype(np.int64) * np.ones((4, 1), np.int64)
    return torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(types)


@needs_openvino
@pytest.mark.parametrize(
    ("family", "layers"),
    [("bert", (0, 1, 2)), ("roberta", (0, 2)), ("electra", (2,)), ("distilbert", ()), ("bert", (1,))],
)
def test_openvino_computes_what_transformers_does(family, layers):
    from exporters.inference import OpenVino

    torch.manual_seed(1)
    backbone = Backbone("tiny", tiny_model(family), tiny_tokenizer(family))
    prefix = Prefix(torch.randn(len(layers), 2, 1, HEADS, SLOTS, HIDDEN // HEADS), layers) if layers else None
    ids, lengths, types = batch(backbone)
    other = Backbone("tiny", tiny_model(family), tiny_tokenizer(family), engine="transformers")
    first = min(layers, default=1)
    with torch.inference_mode():
        wanted = other(ids, lengths, types, prefix)
        below = tiny_model(family)(
            inputs_embeds=None,
            input_ids=ids,
            attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            position_ids=torch.arange(ids.shape[1])[None] + backbone.first_position,
            **({"token_type_ids": types} if backbone.token_types else {}),
            output_hidden_states=True,
        ).hidden_states[first]
    parts = [Part.of(prefix, begin, LAYERS, reads) for begin in (0, first) for reads in (False, True)]
    parts += [Part(0, first)] if first else []
    compiled = {part: OpenVino().compile(backbone, part, False, 1) for part in parts}
    called = []
    watched = {part: lambda feeds, p=part: called.append(p) or compiled[p](feeds) for part in parts}
    inference = Inference("openvino", "", watched, torch.float32)
    with torch.inference_mode():
        trunk = Trunk(backbone.trunk(ids, lengths, types, first, 0, inference), first) if first else None
        for row, length in enumerate(lengths.tolist()):
            for begin in (None, trunk):
                found = backbone(ids, lengths, types, prefix, None, begin, inference)
                torch.testing.assert_close(found[row, :length], wanted[row, :length], atol=2e-5, rtol=1e-4)
                for read in range(length):
                    found = backbone(ids, lengths, types, prefix, read, begin, inference)
                    torch.testing.assert_close(found[row], wanted[row, read : read + 1], atol=2e-5, rtol=1e-4)
            if trunk is not None:
                torch.testing.assert_close(trunk.states[row, :length], below[row, :length], atol=2e-5, rtol=1e-4)
    assert set(called) == set(parts)


def test_what_our_own_engine_alone_computes():
    backbone = Backbone("tiny", tiny_model("bert"), tiny_tokenizer("bert"))

    def never(feeds):
        raise AssertionError("asked for")

    class All(dict):
        def get(self, part, default=None):
            return never

    inference = Inference("fake", "", All(), torch.float32)
    tensor = torch.randn(1, 2, 1, HEADS, SLOTS, HIDDEN // HEADS)
    ids, lengths, types = batch(backbone)
    wanted = Backbone("tiny", tiny_model("bert"), tiny_tokenizer("bert"))
    backbone(ids, lengths, types, Prefix(tensor, (1,)), inference=inference)  # gradients are on
    with torch.inference_mode():
        for prefix in (Prefix(tensor, (1,), gated=True), Prefix(tensor.expand(-1, -1, 4, -1, -1, -1), (1,))):
            found = backbone(ids, lengths, types, prefix, inference=inference)
            assert torch.equal(found, wanted(ids, lengths, types, prefix))
        with torch.autocast("cpu", torch.bfloat16):  # another precision than it was made for
            backbone(ids, lengths, types, Prefix(tensor, (1,)), inference=inference)
        with pytest.raises(AssertionError, match="asked for"):
            backbone(ids, lengths, types, Prefix(tensor, (1,)), inference=inference)


OPTIONS = ("--max-steps", 3, "--max-train", 24, "--max-eval", 12, "--languages", "en,de", "--tracker", "none")


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        ("fake", ("--prompt-layers", "top:1")),
        *(
            pytest.param("openvino", more, marks=needs_openvino)
            for more in (
                (),
                ("--prompt-layers", "top:1"),
                ("--method", "linear-probe", "--pooling", "mean"),
                ("--method", "prompt-tuning"),
            )
        ),
    ],
)
def test_a_run_scores_the_same_both_ways(engine, more, tiny_run, plug, tmp_path):
    plug(fake="test_inference:Fake", openvino="exporters.inference:OpenVino")
    for name in ("own", engine):
        options = (*OPTIONS, "--precision", "fp32", "--out", tmp_path, "--name", name, "--inference", name)
        status, _, error = tiny_run(*options, *more)
        assert status == 0, error
    card = manifest(tmp_path / engine).inference
    assert manifest(tmp_path / "own").inference is None
    assert (card.engine, card.own_error) == (engine, 0.0)
    assert card.error < 1e-4
    assert f"inference by {engine}: {engine} is " in error
    records, others = (read_model(tmp_path / name / "results.json", Results).records for name in ("own", engine))
    assert len({find_task(record.task).card.kind for record in records}) == 6
    for one, other in zip(records, others, strict=True):
        mine, its = (read_predictions(tmp_path / name / one.predictions) for name in ("own", engine))
        same = [row.value == pytest.approx(its_row.value, abs=1e-3) for row, its_row in zip(mine, its, strict=True)]
        if find_task(one.task).card.kind is not Kind.RETRIEVAL:  # vectors of random encoders are alike to the last bit
            assert all(same)
            assert one.scores == pytest.approx(other.scores, abs=0.01)
        for row, its_row in zip(mine, its, strict=True):
            np.testing.assert_allclose(row.scores, its_row.scores, atol=2e-3)


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name",
    ["mrpc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wnut17", "squadshifts", "tatoeba", "copa"))],
)
def test_real_rows_of_every_kind(name, precision, shared, plug):
    plug(openvino="exporters.inference:OpenVino")
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("needs a processor with bf16")
    task = find_task(name)
    language = "de" if name == "tatoeba" else "en"
    split = data.load(task, task.eval_split, language, shared / "data")
    rows = {"copa": 100, "tatoeba": 1000}.get(name, 40)  # of retrieval and choice an example has several
    split = replace(split, examples=split.examples[:rows])
    backbone, device = load_backbone("minilm-l6-en"), find_device(precision, cpu=True)
    torch.manual_seed(0)
    tensor = torch.randn(1, backbone.layers, 2, backbone.heads, 16, backbone.head_dim)
    bank = PromptBank(tensor, {"": 0}, Placement(layers=tuple(range(backbone.layers))))
    model = PromptedModel(backbone, bank, [task.card], Pooling.CLS).eval()
    backbone.settle(device.dtype)
    texts = TextEncoder(backbone.tokenizer, backbone.pad_id, backbone.token_types, backbone.max_positions)
    own = predict(model, texts, task.card, split, device, language)
    task_rows = TaskRows(task, {}, {}, {}, {(task.eval_split, language): split}, frozenset())
    ahead = engines.Ahead(model, [], [task_rows], texts, 0, 1.0, device)
    inference, card = engines.choose("openvino", None, ahead, Screen(quiet=True))
    model.inference = inference
    found = predict(model, texts, task.card, split, device, language)
    if precision == "fp32":
        for one, other in zip(own, found, strict=True):
            assert one.value == other.value
            np.testing.assert_allclose(one.scores, other.scores, atol=2e-3)
    else:
        assert card.error < 1.5 * card.own_error
        mine, its = (next(iter(score(task.card, rows, language).values())) for rows in (own, found))
        assert mine == pytest.approx(its, abs=4)  # three of 100 rows; of the others more pieces are looked at


def test_wrong_states_are_refused_by_name(tiny_run, plug, tmp_path, monkeypatch):
    plug(wrong="test_inference:Wrong")
    options = (*OPTIONS, "--out", tmp_path)
    for precision in ("fp32", "bf16"):
        status, _, error = tiny_run(*options, "--name", precision, "--precision", precision, "--inference", "wrong")
        assert status == 2
        assert re.search("--inference wrong: its states in layers 0 to 2 are wrong: they differ from", error)
        assert "Traceback" not in error
    monkeypatch.setattr(engines, "WORTH", 0.0)
    weigh(monkeypatch, {"wrong": 9.0})
    status, _, error = tiny_run(*options, "--name", "auto", "--precision", "fp32")
    assert status == 0, error
    card = manifest(tmp_path / "auto").inference
    assert card.engine == "own"
    assert "--inference wrong: its states" in card.why
    assert "--inference own" in manifest(tmp_path / "auto").command


def test_auto_without_another_engine(tiny_run, plug, tmp_path):
    for number, places in enumerate([{}, {"abacus": "test_inference:Absent"}, {"abacus": "no_such_module:X"}]):
        plug(**places)
        status, _, error = tiny_run(*OPTIONS, "--out", tmp_path, "--name", f"{number}")
        assert status == 0, error
        assert manifest(tmp_path / f"{number}").inference is None
        assert "inference" not in error + manifest(tmp_path / f"{number}").command
    status, _, error = tiny_run(*OPTIONS, "--out", tmp_path, "--name", "x", "--inference", "abacus")
    assert (status, error.count("\n")) == (2, error.count("\n"))
    assert "--inference abacus: not installed (No module named 'no_such_module')" in error
    status, _, error = tiny_run(*OPTIONS, "--out", tmp_path, "--name", "y", "--inference", "openvino")
    assert status == 2
    assert "--inference openvino: no package here brings this engine; there are auto, own, abacus" in error


@pytest.mark.parametrize(("speed", "chosen"), [(1.05, "own"), (1.5, "fake")])
def test_auto_needs_a_clear_margin(speed, chosen, tiny_run, plug, tmp_path, monkeypatch):
    plug(fake="test_inference:Fake")
    options = (*OPTIONS, "--out", tmp_path, "--precision", "fp32")
    status, _, error = tiny_run(*options, "--name", "small")
    assert status == 0, error
    assert "too little to compile another engine for" in manifest(tmp_path / "small").inference.why
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "another"))
    weigh(monkeypatch, {"fake": speed})
    for name, now in (("first", speed), ("noise", 2.55 - speed)):
        weigh(monkeypatch, {"fake": now})
        before = Fake.calls
        status, _, error = tiny_run(*options, "--name", name)
        assert status == 0, error
        card = manifest(tmp_path / name).inference
        assert (card.engine, f"fake is {speed:.2f} times as fast as our own engine" in card.why) == (chosen, True)
        assert ("measured for an earlier run" in card.why) == (name == "noise")
        assert f"--inference {chosen}" in manifest(tmp_path / name).command
        assert (Fake.calls > before) == (chosen == "fake" or name == "first")


def test_what_compiles_longer_than_it_saves(tiny_run, plug, tmp_path, monkeypatch):
    plug(fake="test_inference:Fake")
    weigh(monkeypatch, {"fake": 1.5})
    compile_ = Fake.compile
    monkeypatch.setattr(Fake, "compile", lambda *arguments: time.sleep(1) or compile_(*arguments))
    monkeypatch.setattr(engines, "WORTH", 0.0)
    pieces = engines._pieces
    monkeypatch.setattr(engines, "_pieces", lambda work: pieces(work) / 1000)
    status, _, error = tiny_run(*OPTIONS, "--out", tmp_path, "--name", "x", "--precision", "fp32")
    assert status == 0, error
    card = manifest(tmp_path / "x").inference
    assert card.engine == "own"
    assert "; that would save 0.0 s" in card.why


def test_a_resumed_run_keeps_its_engine(tiny_run, plug, tmp_path, monkeypatch, interrupted_at):
    plug(fake="test_inference:Fake")
    options = (*OPTIONS, "--out", tmp_path, "--name", "x", "--precision", "fp32")
    weigh(monkeypatch, {"fake": 1.5})
    with interrupted_at(2):
        assert tiny_run(*options)[0] == 130
    began = read_model(tmp_path / "x" / "checkpoints" / "inference.json", InferenceCard)
    assert began.engine == "fake"
    monkeypatch.setenv("POLYPROMPT_CACHE", "off")
    weigh(monkeypatch, {"fake": 0.5})
    plug(other="test_inference:Fake")
    status, _, error = tiny_run(*options, "--resume")
    assert status == 2
    assert "--inference fake: the run began with this engine, and it is not here" in error
    plug(fake="test_inference:Fake")
    before = Fake.calls
    status, _, error = tiny_run(*options, "--resume")
    assert status == 0, error
    assert manifest(tmp_path / "x").inference == began
    assert Fake.calls > before


def test_the_trunk_knows_who_computed_it(empty_cache):
    model, features, device, _ = prepare()
    everything = list(range(len(features)))
    own = TrunkCache(model, device, 1.0).rows(features, None).batch(everything, device).states
    part = Part(0, LAYERS - 1)
    compiled = {part: Fake().compile(model.backbone, part, False, 1)}
    model.inference = Inference("fake", "fake 1", compiled, torch.float32)
    before = Fake.calls
    other = TrunkCache(model, device, 1.0).rows(features, None).batch(everything, device).states
    torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)
    assert Fake.calls > before
    assert len(list((empty_cache / FOLDER).iterdir())) == 2
    model.inference = Inference("fake", "fake 2", compiled, torch.float32)
    TrunkCache(model, device, 1.0).rows(features, None)
    assert len(list((empty_cache / FOLDER).iterdir())) == 3
    model.inference = Inference("fake", "fake 3", {}, torch.float32)  # it cannot compute this part
    TrunkCache(model, device, 1.0).rows(features, None)
    assert len(list((empty_cache / FOLDER).iterdir())) == 3


def test_encoders_that_are_trained_or_not_ours_stay(plug):
    plug(fake="test_inference:Fake")

    def choice(asked="fake", **settings):
        model, _, device, _ = prepare(**settings)
        task = Task(CARD, source=None, title="", licence="", url="", how_to_get="")
        rows = Split([Example(f"{n}", text="w5 w6", label="a") for n in range(4)])
        rows = [TaskRows(task, {}, {}, {}, {("dev", "en"): rows}, frozenset())]
        texts = TextEncoder(model.backbone.tokenizer, 0, model.backbone.token_types, 30)
        return engines.choose(asked, None, engines.Ahead(model, [], rows, texts, 1, 0, device), Screen(True))

    assert choice()[0].name == "fake"
    for settings in ({"method": "fine-tune", "prompt_layers": "all"}, {"init": "zero-gated"}, {"family": "deberta-v2"}):
        assert choice(**settings) == (None, None), settings
