"""Work in steps, so that several runs go on in turns, in one process and one thread."""

from __future__ import annotations

import functools
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from types import FrameType
from typing import ParamSpec, Self, TypeVar

Found = TypeVar("Found")
Given = ParamSpec("Given")

Steps = Generator[bool, bool | None, Found]
"""Work that hands over between its steps. It tells whether Ctrl-C or SIGTERM has to wait until it hands over again,
and is told whether one of them has come: it then ends with `Interrupted` as soon as nothing is lost."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM was asked for, and a checkpoint was written."""


def in_turns(works: Iterable[Steps[Found]], at_once: int) -> Iterator[tuple[int, Found]]:
    """Do works, so many at a time, a step of each in turn.

    The first signal ends all of them: those that asked it to wait at their next step, the others where they are. The
    second one ends everything at once.

    Args:
        works: not begun. at_once: at most so many are begun and have not ended.

    Yields:
        Place in `works` and what was found, in the order in which they end.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when all have ended.
    """
    todo = enumerate(works)
    running: deque[tuple[int, Steps[Found], bool | None]] = deque()
    interrupted: KeyboardInterrupt | None = None
    with _Signals() as signals:
        try:
            while True:
                ending = signals.came or interrupted is not None
                while not ending and len(running) < at_once and (begun := next(todo, None)):
                    running.append((*begun, None))
                if not running:
                    break
                place, work, waits = running.popleft()
                signals.wait = bool(waits)
                try:
                    if ending and not waits:
                        waits = work.throw(Interrupted())
                    else:
                        waits = work.send(None if waits is None else ending)
                except StopIteration as end:
                    signals.wait = True
                    yield place, end.value
                except KeyboardInterrupt as error:
                    if signals.came and not isinstance(error, Interrupted):
                        raise
                    interrupted = error
                else:
                    running.append((place, work, waits))
                finally:
                    signals.wait = True
            if ending:
                raise interrupted or KeyboardInterrupt
        finally:
            for _, work, _ in running:
                work.close()


def at_a_stretch(make: Callable[Given, Steps[Found]]) -> Callable[Given, Found]:
    """The same without turns: alone, from the beginning to the end."""

    @functools.wraps(make)
    def whole(*arguments: Given.args, **named: Given.kwargs) -> Found:
        [(_, found)] = in_turns([make(*arguments, **named)], 1)
        return found

    return whole


class _Signals:
    """While it is open, Ctrl-C and SIGTERM are exceptions, or a note where work has to come to the end of its step.

    Attributes:
        wait: whether the first one is noted. came: whether it was.
    """

    def __init__(self) -> None:
        self.wait, self.came = True, False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came or not self.wait:
            raise KeyboardInterrupt
        self.came = True
