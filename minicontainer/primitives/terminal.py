"""The caller's terminal: raw mode that is always given back, and its size.

The container's own terminal, a pty of its devpts, is none of this module's business.
termios(3), ioctl_tty(2).
"""

from __future__ import annotations

import os
import termios

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_INPUT = (
    termios.IGNBRK
    | termios.BRKINT
    | termios.PARMRK
    | termios.ISTRIP
    | termios.INLCR
    | termios.IGNCR
    | termios.ICRNL
    | termios.IXON
)
_LOCAL = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


class raw:  # noqa: N801 - used as a statement: `with raw(fd):`
    """Within the block the terminal `fd` passes every byte both ways, unchanged and at once.

    Its former modes come back on every way out of the block.  A descriptor that is no terminal,
    or no longer one, is left alone.
    """

    __slots__ = ("_fd", "_saved")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = None if not os.isatty(fd) else kernel.tcgetattr(fd)

    def __enter__(self) -> raw:
        self.renew()
        return self

    def renew(self) -> None:
        """Set the raw mode again: whoever had the terminal while we were stopped changed it."""
        if self._saved is None:
            return
        iflag, oflag, cflag, lflag, ispeed, ospeed, characters = self._saved
        characters = list(characters)
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        modes = [iflag & ~_INPUT, oflag & ~termios.OPOST, cflag, lflag & ~_LOCAL, ispeed, ospeed]
        self._set([*modes, characters])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In the background the terminal is another job's, in the modes which that job has set.
        if self._saved is not None and not _in_background(self._fd):
            self._set(self._saved)

    def _set(self, modes: list[object]) -> None:
        try:
            # Not TCSADRAIN: a terminal whose other end stopped reading would hold us for ever.
            kernel.tcsetattr(self._fd, termios.TCSANOW, modes)
        except (OSError, termios.error):
            self._saved = None


def _in_background(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:
        return False


def of_streams() -> int:
    """Which of our standard streams is the terminal we run on; -1 if none is."""
    return next((fd for fd in (0, 1) if os.isatty(fd)), -1)


def size(fd: int) -> tuple[int, int] | None:
    """(rows, columns) of a terminal; None for anything else, and for one that has no size yet."""
    try:
        rows, columns = kernel.get_window_size(fd)
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


def copy_size(from_fd: int, to_fd: int) -> None:
    """Give the terminal `to_fd` the size of `from_fd`; nothing happens where one is no terminal."""
    found = size(from_fd)
    if found is not None:
        try:
            kernel.set_window_size(to_fd, *found)
        except OSError:
            return
