"""Batches of rows of different lengths against every way to cut them."""

import itertools
import random

import pytest

from exporters.batching import Form, Pace, plan, shares


def in_parts(rows: list[int]) -> list[list[int]]:
    """Rows of a packed batch as attention pads them: up to a third of the longest, up to two thirds, and longer."""
    limits = [0, rows[-1] / 3, rows[-1] * 2 / 3, rows[-1]]
    return [[row for row in rows if low < row <= high] for low, high in itertools.pairwise(limits)]


def costs(rows: list[int], paces: dict[Form, Pace]) -> dict[Form, float]:
    """Of a batch in each form that there is for it."""
    longest, found = rows[-1], {}
    for form, pace in paces.items():
        pieces, pairs = sum(rows), sum(row * row for row in rows)
        if form == "padded":
            pieces, pairs = len(rows) * longest, len(rows) * longest**2
        elif form.startswith("packed"):
            pairs = sum(len(part) * part[-1] ** 2 for part in in_parts(rows) if part)
        pieces, pairs = max(pieces, pace.streams * longest), max(pairs, pace.streams * longest**2)
        if form != "packed" or sum(rows) < len(rows) * longest:
            found[form] = pace.batch + pace.piece * pieces + pace.pair * pairs
    return found


PACKED: list[dict[Form, Pace]] = [
    {},
    {"packed": Pace(batch=9, piece=1.1, pair=0.02)},
    {"packed": Pace(batch=70, piece=1)},
    {"packed-streams": Pace(batch=20, piece=0.9, pair=0.02, streams=2)},
]
SLOW = Pace(batch=10_000, piece=1)
NATIVE: list[dict[Form, Pace]] = [
    {},
    {"native": Pace(batch=50, piece=1.2, pair=0.02)},
    {"native-streams": Pace(batch=5, piece=0.9, pair=0.01, streams=2)},
]


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("overhead", [0, 5, 30, 100])
def test_no_other_plan_costs_less(overhead: int, packed: dict[Form, Pace], native: dict[Form, Pace]) -> None:
    draw, forms = random.Random(overhead), set()
    paces: dict[Form, Pace] = {"padded": Pace(batch=overhead, piece=1, pair=1e-3), **packed, **native}
    for _ in range(50):
        lengths = sorted(draw.choices(range(1, 40), k=draw.randint(1, 9)))
        places = [place for place in range(1, len(lengths)) if lengths[place - 1] != lengths[place]]
        every = (cuts for count in range(len(places) + 1) for cuts in itertools.combinations(places, count))
        found = plan(lengths, 10_000, paces)
        assert [row for batch in found.batches for row in range(len(lengths))[batch.rows]] == list(range(len(lengths)))
        cheapest = (
            sum(
                min(costs(lengths[begin:end], paces).values())
                for begin, end in itertools.pairwise([0, *cuts, len(lengths)])
            )
            for cuts in every
        )
        assert found.cost == pytest.approx(min(cheapest))
        forms |= {batch.form for batch in found.batches}
        # what is said to be cheapest is what is done
        assert found.cost == pytest.approx(sum(costs(lengths[rows], paces)[form] for rows, form in found.batches))
    assert native or not packed or overhead < 30 or packed.keys() <= forms
    assert not native or packed or overhead < 50 or native.keys() <= forms


def test_no_batch_is_larger_than_allowed() -> None:
    lengths = sorted(random.Random(1).choices(range(1, 300), k=500))
    padded = Pace(batch=10_000, piece=1)
    forms: list[Form] = ["packed", "native", "packed-streams", "native-streams"]
    for other in [{}, *({form: Pace(batch=1, piece=0.5)} for form in forms)]:
        batches = plan(lengths, 256, {"padded": padded, **other}).batches
        assert {batch.form for batch in batches} <= {"padded", *other}
        assert [row for batch in batches for row in range(500)[batch.rows]] == list(range(500))
        for batch in batches:
            rows = lengths[batch.rows]
            assert len(rows) == 1 or (sum(rows) if batch.form != "padded" else len(rows) * rows[-1]) <= 256
            assert batch.form != "packed" or rows[0] < rows[-1]
    assert plan([], 256, {"padded": padded}).batches == []
    assert [batch.rows for batch in plan([600], 256, {"padded": padded}).batches] == [slice(0, 1)]


def test_batches_without_padding_are_full() -> None:
    lengths = sorted(random.Random(2).choices(range(1, 300), k=500))
    batches = plan(lengths, 4096, {"native": Pace(batch=5_000, piece=1)}).batches
    sizes = [sum(lengths[batch.rows]) for batch in batches]
    assert len(sizes) <= 1 - (-sum(lengths) // 4096)
    assert min(sizes) > 3000


def test_parts_of_a_batch_are_about_equal_and_each_is_paid_for() -> None:
    """Rows of one length, of which six fill a batch: 13 take three batches, of four or five rows."""
    pace = Pace(batch=100, piece=1)
    forms: list[Form] = ["padded", "native"]
    for form in forms:
        found = plan([10] * 13, 60, {form: pace})
        assert found.batches == [(slice(*rows), form) for rows in itertools.pairwise([0, 4, 8, 13])]
        assert found.cost == 3 * 100 + 130
    # Rows of which one is longer, since what is not padded is not packed.
    assert plan([10] * 12 + [20], 60, {"padded": SLOW, "packed": pace}).cost == 3 * 100 + 140


def test_parts_behind_other_batches() -> None:
    """Short rows of one length are cheapest padded, longer ones not, and both are too many for one batch."""
    lengths = [4] * 400 + list(range(60, 240, 6))
    paces: dict[Form, Pace] = {"padded": Pace(batch=200, piece=0.4), "native": Pace(batch=200, piece=0.42)}
    batches = plan(lengths, 1000, paces).batches
    assert [row for batch in batches for row in range(430)[batch.rows]] == list(range(430))
    assert batches[2] == (slice(400, 410), "native"), "filled from its own first row on"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 40])
def test_shares_hold_each_row_once_and_about_as_many_pieces(rows: int, count: int) -> None:
    draw = random.Random(rows)
    lengths = [draw.randrange(1, 500) for _ in range(rows)]
    parts = shares(lengths, count)
    assert sorted(row for part in parts for row in part) == list(range(rows))
    assert len(parts) == max(1, min(count, rows))
    assert all(part == sorted(part) for part in parts)
    pieces = [sum(lengths[row] for row in part) for part in parts]
    # Were one longer than another by more than its shortest row, that row would have gone there.
    for one, part in zip(pieces, parts, strict=True):
        assert one - min((lengths[row] for row in part), default=0) <= min(pieces)
