"""Batches and mixtures: complete, repeatable, short on padding, true to their shares."""

from collections import Counter

import numpy as np
import pytest

from harness.batches import TrainingRows, evaluation_batches
from harness.features import Feature
from harness.mixture import Sampling, course, schedule, shares


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


def lengths_of(training, lengths, epoch_batches):
    return sorted(sorted(lengths[row] for row in flat(training, number)) for number in range(epoch_batches))


def test_batches_of_a_budget_by_hand():
    """All in one window: from the shortest on, as long as rows times longest is at most 10."""
    lengths = [5, 2, 9, 3, 12, 2, 7, 4]
    training = TrainingRows(rows_of(lengths), False, None, [0], pieces=10)
    assert lengths_of(training, lengths, 5) == [[2, 2, 3], [4, 5], [7], [9], [12]]
    assert sorted(training.counts(8)) == [1, 1, 1, 2, 3]
    assert training.per_epoch == len(training) == 8
    # Alternatives are high: 2 x 4, and with the next three (2 + 3) x 5 = 25, and with two more 7 x 6.
    lengths, owners = [3, 4, 5, 1, 2, 6, 6], [0, 0, 1, 1, 1, 2, 2]
    training = TrainingRows(rows_of(lengths, owners), True, None, [0], pieces=25)
    assert lengths_of(training, lengths, 2) == [[1, 2, 3, 4, 5], [6, 6]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pieces", [60, 500, 4000])
def test_a_budget_is_kept_and_every_unit_comes_once_an_epoch(pieces, seed):
    random = np.random.default_rng(seed)
    owners = np.repeat(np.arange(400), random.integers(1, 5, 400))
    lengths = random.integers(3, 120, len(owners))
    features = rows_of(lengths, owners)
    training = TrainingRows(features, True, None, [seed], pieces)
    counts = training.counts(3 * 400)
    assert counts.sum() == 3 * 400
    forward = [training.rows(number) for number in range(len(counts))]
    assert [len(batch) for batch in forward] == counts.tolist()
    epochs = np.searchsorted(counts.cumsum(), np.arange(0, 3) * 400, side="right").tolist()
    epochs[0] = 0
    for first, end in zip(epochs, [*epochs[1:], len(counts)], strict=True):
        came = sorted(row for batch in forward[first:end] for unit in batch for row in unit)
        assert came == list(range(len(owners)))
    for batch in forward:
        rows = [row for unit in batch for row in unit]
        assert len(batch) == 1 or len(rows) * lengths[rows].max() <= pieces
        assert len(batch) <= training.most
    again = TrainingRows(features, True, None, [seed], pieces)
    assert [again.rows(number) for number in reversed(range(len(counts)))] == forward[::-1]
    assert all(np.array_equal(again.counts(total), counts[: len(again.counts(total))]) for total in (1, 399, 401, 1000))


def test_little_of_a_budget_is_padding():
    """Beside rows in a random order, each batch again as full as the budget allows."""
    budget = 1500
    training = TrainingRows(rows_of(LENGTHS), False, None, [0], budget)
    sorted_batches = [LENGTHS[flat(training, number)] for number in range(len(training.counts(len(LENGTHS))))]
    mixed: list[list[int]] = [[]]
    for length in np.random.default_rng(1).permutation(LENGTHS).tolist():
        if (len(mixed[-1]) + 1) * max([*mixed[-1], length]) > budget:
            mixed.append([])
        mixed[-1].append(length)

    def padded(batches):
        return 1 - LENGTHS.sum() / sum(len(batch) * max(batch) for batch in batches)

    assert padded(sorted_batches) < 0.06 < 0.3 < padded(mixed)
    assert len(sorted_batches) < 0.8 * len(mixed)


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


def given(*counts):
    """What batches count, of each task, as `course` asks for it."""
    return [lambda total, c=c: np.array(c[: np.searchsorted(np.cumsum(c), total) + 1], np.int64) for c in counts]


def test_a_course_by_hand():
    """Task 0 has batches of 2, task 1 one of 3: each comes when what is due to its task is more than it gave."""
    due = np.array([0, 1, 0, 0, 1, 0], np.int32)
    plan = course(due, given([2, 2, 2], [3, 3]), 4, None)
    assert plan.tasks.tolist() == [0, 1, 0]
    assert plan.seen.tolist() == [0, 2, 5, 7]
    assert (plan.total, [plan.epochs(step) for step in range(4)]) == (6, [0, 0, 1, 1])
    plan = course(due, given([2, 2, 2], [3, 3]), 4, 2)
    assert (plan.tasks.tolist(), plan.seen.tolist(), plan.total) == ([0, 1], [0, 2, 5], 5)
    assert len(course(due[:0], given([], []), 4, 0)) == 0


def test_the_course_of_batches_of_a_fixed_size_is_the_schedule():
    tasks = [TrainingRows(rows_of(LENGTHS[:count]), False, 4, [count]) for count in (30, 101, 260)]
    due = schedule(shares((30, 101, 260), Sampling.SQUARE_ROOT, 1), 500, 3)
    plan = course(due, [task.counts for task in tasks], sum(task.per_epoch for task in tasks), None)
    assert np.array_equal(plan.tasks, due)
    assert np.array_equal(plan.seen, np.arange(501))
    assert (plan.total, plan.epoch) == (500, 8 + 26 + 65)


@pytest.mark.parametrize("sampling", Sampling)
def test_a_budget_leaves_the_shares_of_examples_alone(sampling):
    """Rows of one task are ten times as long as another's, so that a batch of it has a tenth of the examples."""
    sizes, scale = (300, 90, 200), (1, 10, 3)
    random = np.random.default_rng(0)
    features = [rows_of(random.integers(5, 20, size) * by) for size, by in zip(sizes, scale, strict=True)]
    tasks = [TrainingRows(rows, False, None, [number], 600) for number, rows in enumerate(features)]
    share = shares(sizes, sampling, 3.0)
    plan = course(schedule(share, 5 * 590, 7), [task.counts for task in tasks], 590, None)
    assert plan.seen[-2] < plan.total == 5 * 590 <= plan.seen[-1]
    examples = np.zeros(3)
    for step, task in enumerate(plan.tasks):
        examples[task] += len(tasks[task].rows(int((plan.tasks[:step] == task).sum())))
        assert examples.sum() == plan.seen[step + 1]
        assert np.abs(examples - share * examples.sum()).max() < sum(task.most for task in tasks)
    np.testing.assert_allclose(examples / examples.sum(), share, atol=0.02)
