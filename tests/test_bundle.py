"""A bundle is complete and whole, or refused by the name of what is wrong."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from bundles import CARDS, tiny_bundle, tiny_prompted

from benchmarks.errors import PolypromptError
from benchmarks.files import sha256
from exporters.bundle import complete_or_absent, open_bundle
from exporters.tensors import ALIGNMENT

FILES = ("model.onnx", "packed.onnx", "native.onnx", "backbone.bin", "tasks.safetensors", "tokenizer.json")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "bundle", tiny_prompted())
    return tmp_path / "bundle"


def sign_again(bundle: Path, name: str) -> None:
    """Make bundle.json agree with a file that was changed, as a forger would."""
    card = json.loads((bundle / "bundle.json").read_text())
    card["files"][name] = {"bytes": (bundle / name).stat().st_size, "sha256": sha256(bundle / name)}
    (bundle / "bundle.json").write_text(json.dumps(card))


def refer_elsewhere(bundle: Path, key: str, value: str, graph: str = "model.onnx") -> None:
    model = onnx.load(bundle / graph, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "word")
    next(entry for entry in tensor.external_data if entry.key == key).value = value
    (bundle / graph).write_bytes(model.SerializeToString())
    sign_again(bundle, graph)


def test_a_whole_bundle_opens(bundle: Path) -> None:
    card = open_bundle(bundle)
    assert [task.card for task in card.tasks] == CARDS
    assert sorted(card.files) == sorted(FILES)
    assert {task.slots for task in card.tasks} == {5}


def test_tensors_read_back_as_they_are_and_aligned(bundle: Path) -> None:
    weights = tiny_prompted().backbone.model.state_dict()
    bundle = shutil.copytree(bundle, bundle.parent / "copy")  # onnx reads no file with several links
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            assert entry.key != "offset" or int(entry.value) % ALIGNMENT == 0
    tensors = {t.name: onnx.numpy_helper.to_array(t, str(bundle)) for t in model.graph.initializer}
    assert (tensors["word"] == weights["embeddings.word_embeddings.weight"].numpy()).all()
    layer = "encoder.layer.2.intermediate.dense.weight"
    assert (tensors["layer.2.ffn_in.weight"] == weights[layer].numpy().T).all()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_by_name(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(PolypromptError, match=f"{name}: damaged"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(PolypromptError, match=f"{name}: missing"):
        open_bundle(bundle)


def test_a_file_cut_short_is_refused_by_name(bundle: Path) -> None:
    content = (bundle / "tasks.safetensors").read_bytes()
    (bundle / "tasks.safetensors").write_bytes(content[:-1])
    with pytest.raises(PolypromptError, match=r"tasks\.safetensors: damaged"):
        open_bundle(bundle)


@pytest.mark.parametrize("graph", ["model", "packed", "native"])
@pytest.mark.parametrize("place", ["../backbone.bin", "/etc/passwd", "..", "", "a\\b"])
def test_a_tensor_outside_of_the_folder_is_refused(bundle: Path, place: str, graph: str) -> None:
    refer_elsewhere(bundle, "location", place, f"{graph}.onnx")
    with pytest.raises(PolypromptError, match=rf"{graph}\.onnx: refers to .* not a file in the bundle's folder"):
        open_bundle(bundle)


def test_a_tensor_in_a_file_without_a_hash_is_refused(bundle: Path) -> None:
    (bundle / "other.bin").write_bytes((bundle / "backbone.bin").read_bytes())
    refer_elsewhere(bundle, "location", "other.bin")
    with pytest.raises(PolypromptError, match=r"refers to 'other\.bin'"):
        open_bundle(bundle)


@pytest.mark.parametrize(("key", "value"), [("offset", "-64"), ("offset", "99999999"), ("length", "99999999")])
def test_a_tensor_beyond_the_end_of_its_file_is_refused(bundle: Path, key: str, value: str) -> None:
    refer_elsewhere(bundle, key, value)
    with pytest.raises(PolypromptError, match=r"tensor word lies beyond the end of backbone\.bin"):
        open_bundle(bundle)


def test_a_place_that_is_no_number_is_refused(bundle: Path) -> None:
    refer_elsewhere(bundle, "offset", "many")
    with pytest.raises(PolypromptError, match="tensor word"):
        open_bundle(bundle)


def test_a_card_that_lists_a_file_outside_is_refused(bundle: Path) -> None:
    card = json.loads((bundle / "bundle.json").read_text())
    card["files"]["../secret"] = card["files"]["tasks.safetensors"]
    (bundle / "bundle.json").write_text(json.dumps(card))
    with pytest.raises(PolypromptError, match=r"bundle\.json: refers to '\.\./secret'"):
        open_bundle(bundle)


def test_not_a_graph(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"not a graph")
    sign_again(bundle, "model.onnx")
    with pytest.raises(PolypromptError, match=r"model\.onnx: not an ONNX file"):
        open_bundle(bundle)


def test_a_card_of_another_version_is_refused(bundle: Path) -> None:
    card = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(card | {"version": 99}))
    with pytest.raises(PolypromptError, match=r"bundle\.json: version"):
        open_bundle(bundle)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(PolypromptError, match=r"no bundle\.json"):
        open_bundle(tmp_path)


def test_the_backbone_file_does_not_depend_on_tasks_or_prompt(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "a", tiny_prompted())
    tiny_bundle(tmp_path / "b", tiny_prompted(layers=(1,), gated=True, pooling="mean", cards=CARDS[:1]), CARDS[:1])
    tiny_bundle(tmp_path / "c", tiny_prompted(layers=(), cards=CARDS[-1:]), CARDS[-1:])
    contents = {(tmp_path / name / "backbone.bin").read_bytes() for name in "abc"}
    assert len(contents) == 1
    assert (tmp_path / "a" / "tasks.safetensors").read_bytes() != (tmp_path / "b" / "tasks.safetensors").read_bytes()


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "a", tiny_prompted())
    tiny_bundle(tmp_path / "b", tiny_prompted())
    for name in (*FILES, "bundle.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_refused_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), complete_or_absent(tmp_path / "new") as folder:
        (folder / "model.onnx").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_keeps_the_old_bundle(bundle: Path) -> None:
    with pytest.raises(RuntimeError), complete_or_absent(bundle):
        raise RuntimeError
    open_bundle(bundle)
    assert list(bundle.parent.iterdir()) == [bundle]


def test_an_old_bundle_is_replaced_as_a_whole(bundle: Path) -> None:
    (bundle / "left-over").write_text("")
    with complete_or_absent(bundle) as folder:
        (folder / "bundle.json").write_text("{}")
    assert [path.name for path in bundle.iterdir()] == ["bundle.json"]
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(PolypromptError, match=r"has no bundle\.json"), complete_or_absent(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
