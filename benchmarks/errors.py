"""Errors that a user can act on: one sentence that names the file, line or option and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class PolypromptError(Exception):
    """Something a user can mend. The message is shown alone, without a traceback."""


class DataError(PolypromptError):
    """A file of a benchmark is not as its official format says; the message begins with `file:line:`."""


class MissingData(PolypromptError):
    """A file that a task needs is not there; the message names every place looked at and how to get it.

    Attributes:
        what: what is missing, in which places it was looked for.
        advice: sentences on how to get it or go on without it.
    """

    def __init__(self, what: str, *advice: str) -> None:
        super().__init__(" ".join([f"{what}.", *advice]) if advice else what)
        self.what = what
        self.advice = advice


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a name that does not exist: the known one that is like it, else all of them."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def run_command(command: Callable[[], int]) -> int:
    """Run a command line and turn a `PolypromptError`, or a file that the system refuses, into one line on stderr.

    Args:
        command: the body of a program; returns its exit status.

    Returns:
        The status of `command`; 2 for an error, 130 for Ctrl-C.
    """
    try:
        return command()
    except PolypromptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`): not an error of ours
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None or error.strerror is None:  # of the program, not of a place that was named to it
            raise
        print(f"error: {error.filename}: {error.strerror}; name another place, or make room there", file=sys.stderr)
        return 2
