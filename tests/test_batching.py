"""Batches of rows of different lengths against every way to cut them."""

import itertools
import random

import pytest

from exporters.batching import split


def cost(lengths: list[int], cuts: tuple[int, ...], overhead: int) -> int:
    bounds = [0, *cuts, len(lengths)]
    return sum((end - begin) * lengths[end - 1] + overhead for begin, end in itertools.pairwise(bounds))


@pytest.mark.parametrize("overhead", [0, 5, 30, 100])
def test_no_other_cut_costs_less(overhead: int) -> None:
    draw = random.Random(overhead)
    for _ in range(50):
        lengths = sorted(draw.choices(range(1, 40), k=draw.randint(1, 9)))
        places = [place for place in range(1, len(lengths)) if lengths[place - 1] != lengths[place]]
        every = (cuts for count in range(len(places) + 1) for cuts in itertools.combinations(places, count))
        found = split(lengths, 10_000, overhead)
        assert [row for batch in found for row in range(len(lengths))[batch]] == list(range(len(lengths)))
        cuts = tuple(batch.start for batch in found[1:])
        assert cost(lengths, cuts, overhead) == min(cost(lengths, other, overhead) for other in every)


def test_no_batch_is_larger_than_allowed() -> None:
    lengths = sorted(random.Random(1).choices(range(1, 300), k=500))
    for batch in split(lengths, pieces=256, overhead=10_000):
        rows = lengths[batch]
        assert len(rows) * rows[-1] <= 256 or len(rows) == 1
    assert split([], pieces=256) == []
    assert split([600], pieces=256) == [slice(0, 1)]
