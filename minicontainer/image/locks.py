"""Locks of the store: flock(2) on its own files and directories, asked for without being stuck.

Waiting polls, so that a thread that waits can be told to stop; it says what it waits for after two
seconds.  A lock ends with its holder, however that ends.
"""

from __future__ import annotations

import time

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.steps import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_SECONDS = 0.05
_SAY_AFTER_SECONDS = 2.0
LONGEST_SECONDS = 60.0


def directory(path: str, operation: int, what: str, seconds: float = LONGEST_SECONDS) -> int:
    """A descriptor of the directory `path`, locked (LOCK_SH or LOCK_EX) until it is closed.

    what: for the message while waiting. Raises Error when it is not to be had in `seconds`.
    """
    fd = kernel.open(path, kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
    try:
        patience = Patience(what, seconds)
        while not attempt(fd, operation):
            patience.wait()
    except BaseException:
        kernel.close(fd)
        raise
    return fd


def attempt(fd: int, operation: int) -> bool:
    """Whether the open file `fd` could be locked at once."""
    try:
        kernel.flock(fd, operation | kernel.LOCK_NB)
        return True
    except BlockingIOError:
        return False


class Patience:
    """Short pauses, with a word to the user when they add up, and an end to them.

    check: called before each pause; what it raises ends the waiting.
    """

    def __init__(
        self, what: str, seconds: float | None, check: Callable[[], None] | None = None
    ) -> None:
        self._what = what
        self._began = time.monotonic()
        self._seconds = seconds
        self._check = check
        self._said = False

    def wait(self) -> None:
        """Pause. Raises Error when the time is over."""
        if self._check:
            self._check()
        waited = time.monotonic() - self._began
        if self._seconds is not None and waited > self._seconds:
            raise Error(f"another process has been {self._what} for {self._seconds:.0f} seconds")
        if waited > _SAY_AFTER_SECONDS and not self._said:
            self._said = True
            warn(f"waiting for another process, which is {self._what}")
        time.sleep(_PAUSE_SECONDS)
