"""The best spans of windows, beside all spans tried one by one."""

import numpy as np
import pytest

from benchmarks.errors import PolypromptError
from harness import spans
from harness.spans import MAX_ANSWER_PIECES, best_spans


def by_hand(window, count):
    """All spans in the order of their scores; of equal ones the shortest first, then the first."""
    found = [
        (-(window[first, 0] + window[last, 1]), last - first, first)
        for first in range(len(window))
        for last in range(first, min(first + MAX_ANSWER_PIECES, len(window)))
    ]
    real = sorted(span for span in found if span[0] < np.inf)
    total = np.exp(np.float64(real[0][0]) - np.array([span[0] for span in real], np.float64)).sum() if real else 0
    return [(first, first + more, -score) for score, more, first in real[:count]], total


def check(windows, count):
    for window, got in zip(windows, best_spans(windows, count), strict=True):
        wanted, total = by_hand(window, count)
        assert list(zip(got.begins.tolist(), got.ends.tolist(), got.scores, strict=True)) == wanted
        assert got.total == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("seed", range(4))
def test_as_all_spans_tried(seed, count, monkeypatch):
    """Windows of no, one and many pieces, in parts; whole numbers, so that many spans are equal; what cannot be."""
    monkeypatch.setattr(spans, "TOGETHER", 150)
    random = np.random.default_rng(seed)
    windows = [random.normal(size=(length, 2)).astype(np.float32) * 4 for length in [0, 1, 2, 29, 30, 31, 75, 0, 5]]
    check(windows, count)
    check([np.rint(window / 3).astype(np.float32) for window in windows], count)
    for window in windows:
        window[random.random(window.shape) < 0.6] = -np.inf
    check(windows, count)


def test_the_best_begin_lies_far_behind_the_best_end():
    """No span has both, and exp() of what is left would be zero beside them."""
    window = np.zeros((60, 2), np.float32)
    window[:, 0] = np.linspace(-3, 3, 60)
    window[0, 1] = window[59, 0] = 500
    window[59, 1] = -900
    window[:, 0] -= np.where(np.arange(60) < 1, 700, 0)
    check([window, window[::-1].copy(), np.where(window == 500, 30, window).astype(np.float32)], 5)


def test_nothing_to_find():
    assert best_spans([]) == []
    [one, other] = best_spans([np.zeros((0, 2), np.float32), np.full((3, 2), -np.inf, np.float32)], 3)
    assert (len(one.scores), one.total, len(other.scores), other.total) == (0, 0, 0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_number_is_refused(bad, side):
    window = np.zeros((4, 2), np.float32)
    window[2, side] = bad
    with pytest.raises(PolypromptError, match="not a number"):
        best_spans([np.zeros((9, 2), np.float32), window])
