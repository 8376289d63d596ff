"""Batches of rows of different lengths against every way to cut them."""

import itertools
import random

import pytest

from exporters.batching import Pace, plan


def cheapest(lengths: list[int], cuts: tuple[int, ...], padded: Pace, packed: Pace | None) -> float:
    """Of these batches, each in the form that costs less."""
    total = 0.0
    for begin, end in itertools.pairwise([0, *cuts, len(lengths)]):
        places, real = (end - begin) * lengths[end - 1], sum(lengths[begin:end])
        costs = [padded.batch + padded.piece * places]
        if packed is not None and real < places:
            costs.append(packed.batch + packed.piece * real + packed.place * places)
        total += min(costs)
    return total


@pytest.mark.parametrize("packed", [None, Pace(batch=9, piece=1.1, place=0.2), Pace(batch=70, piece=1, place=0)])
@pytest.mark.parametrize("overhead", [0, 5, 30, 100])
def test_no_other_plan_costs_less(overhead: int, packed: Pace | None) -> None:
    draw, padded, forms = random.Random(overhead), Pace(batch=overhead, piece=1), set()
    for _ in range(50):
        lengths = sorted(draw.choices(range(1, 40), k=draw.randint(1, 9)))
        places = [place for place in range(1, len(lengths)) if lengths[place - 1] != lengths[place]]
        every = (cuts for count in range(len(places) + 1) for cuts in itertools.combinations(places, count))
        found = plan(lengths, 10_000, padded, packed)
        assert [row for batch in found.batches for row in range(len(lengths))[batch.rows]] == list(range(len(lengths)))
        assert found.cost == pytest.approx(min(cheapest(lengths, cuts, padded, packed) for cuts in every))
        taken = 0.0
        for batch in found.batches:  # what is said to be cheapest is what is done
            rows = lengths[batch.rows]
            forms.add(batch.packed)
            pace = packed if batch.packed else padded
            assert not batch.packed or sum(rows) < len(rows) * rows[-1]
            padding = len(rows) * rows[-1]
            taken += pace.batch + pace.piece * (sum(rows) if batch.packed else padding) + pace.place * padding
        assert taken == pytest.approx(found.cost)
    assert (True in forms) == (packed is not None and overhead >= 30)  # cheap batches leave no padding to pack


def test_no_batch_is_larger_than_allowed() -> None:
    lengths = sorted(random.Random(1).choices(range(1, 300), k=500))
    for packed in (None, Pace(batch=1, piece=0.5)):
        for batch in plan(lengths, 256, Pace(batch=10_000, piece=1), packed).batches:
            rows = lengths[batch.rows]
            assert len(rows) * rows[-1] <= 256 or len(rows) == 1
            assert not batch.packed or rows[0] < rows[-1]
    assert plan([], 256).batches == []
    assert [batch.rows for batch in plan([600], 256).batches] == [slice(0, 1)]
