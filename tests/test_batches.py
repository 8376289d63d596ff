"""Batches and mixtures: complete, repeatable, short on padding, true to their shares."""

from collections import Counter

import numpy as np
import pytest

from harness.batches import TrainingRows, evaluation_batches
from harness.features import Feature
from harness.mixture import Sampling, schedule, shares


def rows_of(lengths, owners=None):
    owners = range(len(lengths)) if owners is None else owners
    return [
        Feature(owner, np.zeros(length, np.int32), np.zeros(length, np.int32))
        for owner, length in zip(owners, lengths, strict=True)
    ]


def flat(training, number):
    return [row for unit in training.rows(number) for row in unit]


LENGTHS = np.random.default_rng(0).integers(3, 120, 1003)


def test_an_epoch_has_every_row_once():
    training = TrainingRows(rows_of(LENGTHS), False, 16, [0])
    for epoch in range(2):
        numbers = range(epoch * training.per_epoch, (epoch + 1) * training.per_epoch)
        assert sorted(row for number in numbers for row in flat(training, number)) == list(range(1003))


def test_a_batch_is_found_again_by_its_number_alone():
    training = TrainingRows(rows_of(LENGTHS), False, 16, [0])
    forward = [training.rows(number) for number in range(200)]
    again = TrainingRows(rows_of(LENGTHS), False, 16, [0])
    assert [again.rows(number) for number in reversed(range(200))] == forward[::-1]
    assert TrainingRows(rows_of(LENGTHS), False, 16, [1]).rows(0) != forward[0]
    assert forward[:63] != forward[63:126], "epochs are shuffled differently"


def test_little_padding():
    training = TrainingRows(rows_of(LENGTHS), False, 16, [0])
    batches = [LENGTHS[flat(training, number)] for number in range(training.per_epoch)]
    computed = sum(len(batch) * batch.max() for batch in batches)
    shuffled = np.random.default_rng(1).permutation(LENGTHS)
    unsorted = sum(len(part) * part.max() for part in np.array_split(shuffled, len(batches)))
    assert computed < 1.1 * LENGTHS.sum() < 0.7 * unsorted


def test_alternatives_stay_together():
    owners = np.repeat(np.arange(50), 4)
    training = TrainingRows(rows_of(LENGTHS[:200], owners), True, 8, [0])
    assert len(training) == 50
    for number in range(training.per_epoch):
        assert set(Counter(owners[flat(training, number)]).values()) == {4}


def test_evaluation_reads_all_rows_within_the_budget():
    features = rows_of([*LENGTHS, 900])
    batches = list(evaluation_batches(features, 512))
    assert sorted(row for batch in batches for row in batch) == list(range(1004))
    assert all(len(batch) == 1 or len(batch) * max(len(features[r]) for r in batch) <= 512 for batch in batches)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling.PROPORTIONAL, (100, 400, 2500)),
        (Sampling.SQUARE_ROOT, (10, 20, 50)),
        (Sampling.TEMPERATURE, (100**0.2, 400**0.2, 2500**0.2)),
        (Sampling.UNIFORM, (1, 1, 1)),
    ],
)
def test_shares(sampling, expected):
    np.testing.assert_allclose(shares((100, 400, 2500), sampling, 5.0), np.array(expected) / sum(expected))


@pytest.mark.parametrize("seed", range(5))
def test_no_task_strays_from_its_share(seed):
    share = shares((30, 400, 2500, 90), Sampling.SQUARE_ROOT, 1)
    order = schedule(share, 3000, seed)
    counts = np.cumsum(order[:, None] == np.arange(4), 0)
    expected = np.arange(1, 3001)[:, None] * share
    assert np.abs(counts - expected).max() < 4
    assert (order != schedule(share, 3000, seed + 1)).any()
    for period in range(1, 50):
        assert (order[period:] != order[:-period]).any()
