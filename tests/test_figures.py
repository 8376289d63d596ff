"""The figures of `tests.official.figures` cannot flatter: what is compared, what is counted, and when it fails."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tests.official.figures import difference, kept, pieces, same_predictions, shown, trained

FINE = {"largest difference": 0.0, "same predictions": True}


def test_one_bit_is_a_difference():
    weights = {"a": torch.zeros(3, 2), "b": torch.full((4,), 0.1)}
    other = {name: weight.clone() for name, weight in weights.items()}
    assert difference(weights, other) == 0
    other["b"].view(torch.int32)[2] ^= 1
    assert difference(weights, other) == pytest.approx(2**-27)
    other["a"].view(torch.int32)[1, 1] ^= 1
    other["b"] = weights["b"]
    assert 0 < difference(weights, other) == pytest.approx(2**-149, abs=0), "the smallest number that there is"
    other["a"][0, 0] = -3
    assert difference(weights, other) == difference(other, weights) == 3
    other["a"][2, 0] = math.nan
    assert math.isnan(difference(weights, other))


@pytest.mark.parametrize("other", [{}, {"a": torch.zeros(2)}, {"b": torch.zeros(3)}, {"a": torch.zeros(1, 3)}])
def test_other_tensors_are_not_compared(other):
    with pytest.raises(ValueError, match="not the same tensors"):
        difference({"a": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="not the same tensors"):
        difference({}, {})


def test_weights_of_all_files_count(tmp_path):
    (tmp_path / "lora").mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "heads.safetensors")
    save_file({"w": torch.ones(3)}, tmp_path / "lora" / "adapter.safetensors")
    assert sorted(map(len, trained(tmp_path).values())) == [2, 3]


def test_predictions_are_compared_by_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "predictions").mkdir(parents=True)
    one, two = tmp_path / "one", tmp_path / "two"
    assert not same_predictions(one, two), "of nothing, nothing can be said"
    (one / "predictions" / "x").write_bytes(b"ab")
    assert not same_predictions(one, two)
    (two / "predictions" / "x").write_bytes(b"ab")
    assert same_predictions(one, two)
    (two / "predictions" / "x").write_bytes(b"ac")
    assert not same_predictions(one, two)


def test_padding_has_no_logits():
    rows = pieces(torch.arange(36.0).view(4, 9, 1))
    assert [len(row) for row in rows.values()] == [9, 4, 1, 7]


@pytest.mark.parametrize(
    ("row", "good"),
    [
        (FINE, True),
        (FINE | {"largest difference": 1e-45}, False),
        (FINE | {"largest difference": math.nan}, False),
        (FINE | {"same predictions": False}, False),
        ({"difference, exported": 1e-5, "difference, imported": 1e-5}, True),
        ({"difference, exported": 1e-5, "difference, imported": 1e-3}, False),
        ({"difference, exported": math.nan, "difference, imported": 0.0}, False),
    ],
)
def test_what_is_not_as_promised_ends_with_an_error(row, good):
    assert kept(row) is good


def test_small_differences_are_not_shown_as_none():
    assert shown({"x": 1.2e-9, "y": 0.0, "z": [3, 4]}) == {"x": "1.2e-09", "y": "0", "z": "3, 4"}
