"""Bundles that get tasks, lose them, and share the weights of their encoder."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_export import CARDS, make_run

import exporters.add
import exporters.export
import exporters.inspect
import exporters.list
import exporters.remove
import exporters.store
import exporters.verify
from benchmarks.errors import PolypromptError
from benchmarks.files import write_atomic
from benchmarks.records import Example
from benchmarks.results import Manifest, read_model, write_model
from exporters.add import add
from exporters.bundle import open_bundle, read_card
from exporters.export import export
from exporters.precision import Precision
from exporters.remove import remove
from exporters.session import Session
from harness.backbone import load_backbone
from harness.lock import locked
from harness.placement import Placement
from harness.sharing import PromptBank

NAMES = {card.name: f"{card.name}-2" for card in CARDS}
KEPT = ("model.onnx", "backbone.bin", "tokenizer.json", "tasks.safetensors")
TEXTS = [Example(str(number), text) for number, text in enumerate(("w7 w8 w9", "w10", "w11 w12 w13 w14 w15"))]


def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Runs over one encoder, whose prompts have 3 slots in layers 0 and 2, and 6 in layer 1."""
    first, second = (make_run(tmp_path_factory.mktemp("run"), "ptuning-v2") for _ in range(2))
    torch.manual_seed(9)
    PromptBank(torch.randn(1, 1, 2, 4, 6, 8), {"": 0}, Placement(layers=(1,))).write(second)
    manifest = read_model(second / "manifest.json", Manifest)
    write_model(second / "manifest.json", manifest.model_copy(update={"run": "second"}))
    return first, second


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs over one encoder with prompts of other layers and lengths; each has its bundle in `export`."""
    first, second = two_runs(tmp_path_factory)
    for run in (first, second):
        export(run, run / "export", atol=1e-4, rows=2)
    return first, second


@pytest.fixture
def bundle(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(runs[0] / "export", tmp_path / "bundle")
    return tmp_path / "bundle"


def names(folder: Path) -> list[str]:
    return [task.card.name for task in open_bundle(folder).tasks]


def scores(session: Session, task: str) -> np.ndarray:
    return np.array([row.scores for row in session.predict(task, TEXTS)])


OLD = [card.name for card in CARDS]
TOPIC = "demo-topic"


def test_a_run_is_added_and_nothing_else_changes(runs: tuple[Path, Path], bundle: Path) -> None:
    before = {name: ((bundle / name).stat(), (bundle / name).read_bytes()) for name in KEPT}
    tasks, seconds = add(bundle, runs[1], NAMES, atol=1e-4, rows=2)
    assert seconds < 1  # far more than it is on a machine that does nothing else
    assert names(bundle) == [*OLD, *NAMES.values()]
    assert {(task.slots, *task.prompt_layers) for task in tasks} == {(6, 1)}
    for name, (status, content) in before.items():
        assert os.path.samestat((bundle / name).stat(), status)
        assert (bundle / name).read_bytes() == content
    parity = open_bundle(bundle).parity["onnxruntime"]
    assert list(parity.tasks) == [*OLD, *NAMES.values()]
    assert all(part.difference < 1e-4 for part in parity.tasks.values())
    together, first, second = (
        Session(folder, engine="onnxruntime") for folder in (bundle, runs[0] / "export", runs[1] / "export")
    )
    np.testing.assert_allclose(scores(together, TOPIC), scores(first, TOPIC), atol=1e-5)
    np.testing.assert_allclose(scores(together, NAMES[TOPIC]), scores(second, TOPIC), atol=1e-5)
    assert np.abs(scores(first, TOPIC) - scores(second, TOPIC)).max() > 1e-3


def test_a_running_session_takes_the_new_tasks(runs: tuple[Path, Path], bundle: Path) -> None:
    session = Session(bundle, engine="onnxruntime")
    runtime, before = session._engine, scores(session, TOPIC)
    add(bundle, runs[1], NAMES, rows=0)
    assert NAMES[TOPIC] not in session.tasks
    session.refresh()
    assert session._engine is runtime
    np.testing.assert_allclose(
        scores(session, NAMES[TOPIC]), scores(Session(runs[1] / "export", engine="onnxruntime"), TOPIC), atol=1e-5
    )
    np.testing.assert_allclose(scores(session, TOPIC), before, atol=1e-6)
    remove(bundle, OLD)
    session.refresh()
    assert list(session.tasks) == list(NAMES.values())
    np.testing.assert_allclose(
        scores(session, NAMES[TOPIC]), scores(Session(runs[1] / "export", engine="onnxruntime"), TOPIC), atol=1e-5
    )


def test_a_session_refuses_another_graph(runs: tuple[Path, Path], bundle: Path) -> None:
    session = Session(bundle, engine="onnxruntime")
    write_atomic(bundle / "tokenizer.json", (bundle / "tokenizer.json").read_text() + "\n")
    card = json.loads((bundle / "bundle.json").read_text())
    card["files"]["tokenizer.json"] = exporters.bundle.stored(bundle / "tokenizer.json").model_dump()
    write_atomic(bundle / "bundle.json", json.dumps(card))
    with pytest.raises(PolypromptError, match=r"tokenizer\.json: was replaced; open a new session"):
        session.refresh()


def test_tasks_are_removed(runs: tuple[Path, Path], bundle: Path) -> None:
    whole = sorted(path.name for path in bundle.iterdir())
    add(bundle, runs[1], NAMES, rows=0)
    kept = [name for name in OLD if name not in ("demo-names", "demo-translation")]
    before = scores(Session(bundle, engine="onnxruntime"), TOPIC)
    remove(bundle, ["demo-names", "demo-translation", *list(NAMES.values())[1:]])
    assert names(bundle) == [*kept, next(iter(NAMES.values()))]
    np.testing.assert_allclose(scores(Session(bundle, engine="onnxruntime"), TOPIC), before, atol=1e-6)
    remove(bundle, [next(iter(NAMES.values()))])
    assert list(open_bundle(bundle).parity["onnxruntime"].tasks) == kept
    assert len(list(bundle.iterdir())) == len(whole), "the files of what is gone are gone"
    with pytest.raises(PolypromptError, match="did you mean demo-topic"):
        remove(bundle, ["demo-topics"])
    with pytest.raises(PolypromptError, match="no task would be left"):
        remove(bundle, kept)
    assert names(bundle) == kept


def changed(run: Path, folder: Path, **manifest: object) -> Path:
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("export"))
    about = json.loads((folder / "manifest.json").read_text())
    for name, value in manifest.items():
        about[name] = about[name] | value if isinstance(value, dict) else value
    (folder / "manifest.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"backbone": {"sha256": "ab" * 32}}, r"second does not fit .*: its encoder is backbone \(abababababab\)"),
        ({"method": "fine-tune"}, "fine-tune trains the encoder itself"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(runs, bundle: Path, tmp_path: Path, manifest, reason: str) -> None:
    with pytest.raises(PolypromptError, match=reason):
        add(bundle, changed(runs[1], tmp_path / "run", **manifest), NAMES, rows=0)
    assert names(bundle) == OLD


@pytest.mark.parametrize(
    ("placement", "reason"),
    [
        ({"gated": True}, "gated prompts or shifted positions"),
        ({"positions": "shifted"}, "gated prompts or shifted positions"),
        ({"layers": None}, "prompts in the input"),
    ],
)
def test_prompts_of_another_kind_are_refused(runs, bundle: Path, tmp_path: Path, placement, reason: str) -> None:
    run = changed(runs[1], tmp_path / "run")
    bank = torch.randn(1, 6, 32) if "layers" in placement else torch.randn(1, 1, 2, 4, 6, 8)
    PromptBank(bank, {"": 0}, Placement(**{"layers": (1,), **placement})).write(run)
    with pytest.raises(PolypromptError, match=reason):
        add(bundle, run, NAMES, rows=0)


def test_a_name_is_there_once(runs: tuple[Path, Path], bundle: Path) -> None:
    with pytest.raises(PolypromptError, match=f"a task {OLD[0]} already.*--name {OLD[0]}=NEW"):
        add(bundle, runs[1], rows=0)
    with pytest.raises(PolypromptError, match="--name other: second has demo-"):
        add(bundle, runs[1], {"other": "new"}, rows=0)


def test_what_differs_from_the_original_is_not_added(runs, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = exporters.add.Trained.tensors

    def wrong(*arguments):
        found = tensors(*arguments)
        return found | {"layer.1.prefix_key": found["layer.1.prefix_key"] * 1.1}

    monkeypatch.setattr(exporters.add.Trained, "tensors", wrong)
    before = sorted(path.name for path in bundle.iterdir())
    with pytest.raises(PolypromptError, match="differs from the original"):
        add(bundle, runs[1], NAMES, atol=1e-4, rows=2)
    assert names(bundle) == OLD
    assert sorted(path.name for path in bundle.iterdir()) == before
    assert list(bundle.parent.iterdir()) == [bundle]


class Killed(BaseException):
    """Stands for a signal that ends the process."""


def test_killed_at_any_moment_it_has_the_old_tasks_or_the_new_ones(runs, bundle: Path, monkeypatch) -> None:
    rename, found = Path.replace, []
    for at in range(9):
        calls = 0

        def counted(path: Path, target: Path, at: int = at) -> Path:
            nonlocal calls
            calls += 1
            if calls > at:
                raise Killed
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", counted)
            try:
                add(bundle, runs[1], NAMES, rows=0)
            except Killed:
                found.append(names(bundle))
                continue
        break
    assert found == [OLD, OLD]
    assert names(bundle) == [*OLD, *NAMES.values()]
    assert len(list(bundle.glob("tasks*"))) == 2, "nothing of the attempts is left"


def test_two_do_not_change_it_at_once(runs: tuple[Path, Path], bundle: Path) -> None:
    with locked(bundle), pytest.raises(PolypromptError, match="another process is changing it; try again"):
        add(bundle, runs[1], NAMES, rows=0)
    with locked(bundle), pytest.raises(PolypromptError, match="another process is changing it"):
        remove(bundle, [TOPIC])
    assert names(bundle) == OLD


# --- shared weights -------------------------------------------------------------------------------------------------


def test_bundles_of_one_encoder_share_its_file(runs: tuple[Path, Path]) -> None:
    first, second = (run / "export" / "backbone.bin" for run in runs)
    assert first.samefile(second)
    assert first.stat().st_mode & 0o222 == 0, "nobody writes into what others have too"


def test_weights_of_its_own_are_read_by_onnx_too(
    runs: tuple[Path, Path], tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package onnx refuses files with several links, so an export that finds this bundle alone does not link it."""
    monkeypatch.setenv("POLYPROMPT_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "one" / "b"
    status, _, error = command(exporters.export, runs[0], "--out", out, "--rows", 1, "--copy-weights")
    assert status == 0, error
    export(runs[1], tmp_path / "two" / "b", rows=1)
    weights = out / "backbone.bin"
    assert weights.stat().st_nlink == 1
    assert weights.read_bytes() == (tmp_path / "two" / "b" / "backbone.bin").read_bytes()
    model = onnx.load(out / "model.onnx")
    word = next(tensor for tensor in model.graph.initializer if tensor.name == "word")
    table = load_backbone(str(runs[0].parent / "backbone")).words.weight
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(word), table.detach())
    with pytest.raises(onnx.checker.ValidationError, match="hard link"):
        onnx.load(runs[1] / "export" / "model.onnx")
    open_bundle(out)


def test_where_no_link_is_possible_it_is_copied(runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    export(runs[0], tmp_path / "copy", rows=1)
    assert not (tmp_path / "copy" / "backbone.bin").samefile(runs[0] / "export" / "backbone.bin")
    assert (tmp_path / "copy" / "backbone.bin").read_bytes() == (runs[0] / "export" / "backbone.bin").read_bytes()


def test_a_damaged_file_is_not_linked(runs, tmp_path: Path, bundle: Path) -> None:
    weights = bundle / "backbone.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    weights.chmod(0o444)
    for run in runs:
        (run / "export" / "backbone.bin").touch()
    exporters.store.remember(weights, open_bundle(runs[0] / "export").files["backbone.bin"].sha256)
    export(runs[0], tmp_path / "new", rows=1)
    assert not (tmp_path / "new" / "backbone.bin").samefile(weights)
    open_bundle(tmp_path / "new")


def test_a_hash_is_remembered_until_the_file_is_touched(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    sha256 = exporters.store.sha256
    monkeypatch.setattr(exporters.store, "LARGE", 4096)
    monkeypatch.setattr(exporters.store, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    for settled, times in ((1e9, 2), (-1, 1)):
        monkeypatch.setattr(exporters.store, "SETTLED", settled)
        hashed.clear()
        open_bundle(bundle)
        open_bundle(bundle)
        assert hashed.count("backbone.bin") == times
    status, weights = (bundle / "backbone.bin").stat(), bundle / "backbone.bin"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))  # as somebody does who hides it
    with pytest.raises(PolypromptError, match=r"backbone\.bin: damaged"):
        open_bundle(bundle)


# --- the commands ---------------------------------------------------------------------------------------------------


def test_the_commands(runs: tuple[Path, Path], bundle: Path, command) -> None:
    given = [part for pair in NAMES.items() for part in ("--name", "=".join(pair))]
    status, out, err = command(exporters.add, bundle, runs[1], *given, "--no-verify")
    assert (status, err) == (0, "")
    assert f"added {', '.join(NAMES.values())} in " in out
    assert "not compared with PyTorch" in out
    status, out, _ = command(exporters.list, bundle, "--json")
    assert [task["task"] for task in json.loads(out)] == [*OLD, *NAMES.values()]
    assert {task["slots"] for task in json.loads(out)} == {3, 6}
    status, out, _ = command(exporters.list, bundle)
    assert "6 in layers 1-1" in out
    assert "second (demo-topic)" in out
    status, out, _ = command(exporters.inspect, bundle, "--json")
    about = json.loads(out)
    assert about["bytes"] == sum((bundle / name).stat().st_size for name in about["files"])
    assert about["graph"]["outputs"]["embedding"] == ["wholes", 32]
    status, out, _ = command(exporters.inspect, bundle)
    assert (status, "room for prompts in 3 layers" in out) == (0, True)
    status, out, _ = command(exporters.verify, bundle, "--run", runs[1], "--rows", 2, "--json")
    assert list(json.loads(out)["parity"]["onnxruntime"]["tasks"]) == list(NAMES.values())
    status, out, _ = command(exporters.remove, bundle, *NAMES.values())
    assert (status, names(bundle)) == (0, OLD)
    status, _, err = command(exporters.verify, bundle, "--run", runs[1])
    assert status == 2
    assert "no task came from the run second" in err
    status, _, err = command(exporters.add, bundle, runs[1], "--name", "x")
    assert "--name x: the run has several tasks; write TASK=x" in err


def test_verify_hashes_everything(bundle: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.bundle, "known_sha256", lambda path: pytest.fail("looked up"))
    assert command(exporters.verify, bundle)[:2] == (0, f"{bundle}: {len(read_card(bundle).files)} files are whole\n")
    assert read_card(bundle).version == 2


def test_points_that_may_be_lost_in_a_narrow_bundle(runs: tuple[Path, Path], tmp_path: Path, command) -> None:
    """What is not in fp32 is bound by points, and on more rows; `--atol` says nothing about it."""
    bundle = tmp_path / "narrow"
    export(runs[0], bundle, rows=2, precision=Precision.INT4, max_drop=1000)
    few = ("--rows", 2, "--atol", 1e-9)
    renamed = [part for pair in NAMES.items() for part in ("--name", "=".join(pair))]
    for module, more in ((exporters.add, (runs[1], *renamed)), (exporters.verify, ("--run", runs[0]))):
        status, _, err = command(module, bundle, *more, *few, "--max-drop", -200)
        assert (status, "more than --max-drop -200 allows" in err) == (2, True), err
        status, _, err = command(module, bundle, *more, *few, "--max-drop", 1000)
        assert status == 0, err
    assert names(bundle) == [*NAMES, *NAMES.values()]
    assert {one.max_drop for one in read_card(bundle).parity.values()} == {1000}
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporters.add, "samples_of", lambda *given: asked.append(given[3]) or exit_with())
        for folder in (bundle, runs[0] / "export"):
            command(exporters.verify, folder, "--run", runs[0])
    assert asked == [256, 32]


def exit_with() -> None:
    raise PolypromptError("enough")
