"""Work in turns: whose step is next, and what becomes of all when a signal comes or one of them fails."""

from __future__ import annotations

import os
import signal

import pytest

from harness.turns import Interrupted, at_a_stretch, in_turns


def work(name, steps, seen, waits=True, signal_at=None, fails_at=None):
    """Notes each step, and how it ended."""
    try:
        for step in range(steps):
            if step == signal_at:
                os.kill(os.getpid(), signal.SIGINT)
            if step == fails_at:
                raise ValueError(name)
            seen.append(f"{name}{step}")
            if (yield waits):
                seen.append(f"{name} saved")
                raise Interrupted
        return name
    finally:
        seen.append(f"{name} ended")


def test_each_has_a_step_in_turn_and_no_more_are_begun_than_asked_for():
    seen = []
    works = [work("a", 3, seen), work("b", 1, seen), work("c", 2, seen)]
    assert list(in_turns(works, 2)) == [(1, "b"), (0, "a"), (2, "c")]
    assert seen == ["a0", "b0", "a1", "b ended", "a2", "c0", "a ended", "c1", "c ended"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_all_where_nothing_is_lost(number):
    before = signal.getsignal(number)
    seen = []
    works = [work("a", 9, seen), work("b", 9, seen, signal_at=1), work("c", 9, seen, waits=False), work("d", 9, seen)]
    with pytest.raises(Interrupted):
        list(in_turns(works, 3))
    assert "b1" in seen, "it was in the middle of a step"
    assert seen[5:] == ["c ended", "a saved", "a ended", "b saved", "b ended"], "c has nothing to save, d was not begun"
    assert signal.getsignal(number) == before


def test_a_signal_outside_of_steps_comes_at_once_and_the_others_save():
    seen = []
    works = [work("a", 9, seen), work("b", 9, seen, waits=False, signal_at=1)]
    with pytest.raises(KeyboardInterrupt):
        list(in_turns(works, 2))
    assert seen == ["a0", "b0", "a1", "b ended", "a saved", "a ended"]


def test_the_second_signal_ends_everything():
    seen = []
    works = [work("a", 9, seen, signal_at=1), work("b", 9, seen), work("c", 9, seen)]

    def saves_slowly():
        yield True
        os.kill(os.getpid(), signal.SIGINT)
        seen.append("never")

    with pytest.raises(KeyboardInterrupt) as error:
        list(in_turns([works[0], saves_slowly(), works[1]], 3))
    assert not isinstance(error.value, Interrupted)
    assert "never" not in seen
    assert not [what for what in seen if "saved" in what]


def test_a_mistake_is_not_hidden_and_the_others_let_go():
    seen = []
    works = [work("a", 9, seen), work("b", 9, seen, fails_at=1)]
    with pytest.raises(ValueError, match="b"):
        list(in_turns(works, 2))
    assert sorted(seen[-2:]) == ["a ended", "b ended"]


def test_alone_it_is_an_ordinary_function():
    seen = []
    assert at_a_stretch(work)("a", 2, seen) == "a"
    with pytest.raises(Interrupted):
        at_a_stretch(work)("b", 5, seen, signal_at=2)
    assert seen == ["a0", "a1", "a ended", "b0", "b1", "b2", "b saved", "b ended"]
