"""Terminals and pseudo-terminals.

Man pages: ioctl_tty(2), pts(4), termios(3).  Only `tcgetattr` and `tcsetattr` import anything
(the C module termios), so they are for the side that stays in its own file system.
"""

from __future__ import annotations

from minicontainer.kernel import constants
from minicontainer.kernel.libc import library, number, output, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "get_window_size",
    "open_pty_peer",
    "pty_number",
    "set_controlling_terminal",
    "set_window_size",
    "tcgetattr",
    "tcsetattr",
    "unlock_pty",
]

_ioctl = library("ioctl", "iLp")


def get_window_size(fd: int) -> tuple[int, int]:
    """The (rows, columns) of a terminal."""
    size = bytearray(8)
    _ioctl(fd, constants.TIOCGWINSZ, output(size))
    return number(size[:2]), number(size[2:4])


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Set the size of a terminal; its foreground processes get SIGWINCH."""
    _ioctl(fd, constants.TIOCSWINSZ, words((rows, columns, 0, 0), 2))


def set_controlling_terminal(fd: int) -> None:
    """Make the terminal the controlling one of this session leader."""
    _ioctl(fd, constants.TIOCSCTTY, 0)


def unlock_pty(fd: int) -> None:
    """Let the other side of a /dev/ptmx descriptor be opened."""
    _ioctl(fd, constants.TIOCSPTLCK, words((0,), 4))


def pty_number(fd: int) -> int:
    """The number of the other side below /dev/pts."""
    answer = bytearray(4)
    _ioctl(fd, constants.TIOCGPTN, output(answer))
    return number(answer)


def open_pty_peer(fd: int, flags: int) -> int:
    """A descriptor of the other side, by no path at all (4.13)."""
    return _ioctl(fd, constants.TIOCGPTPEER, flags | constants.O_CLOEXEC)


def tcgetattr(fd: int) -> list[Any]:
    """The attributes of a terminal, as the module termios has them."""
    import termios

    return termios.tcgetattr(fd)


def tcsetattr(fd: int, when: int, attributes: list[Any]) -> None:
    """Set the attributes of a terminal; `when` is 0 now, 1 drained, 2 flushed."""
    import termios

    termios.tcsetattr(fd, when, attributes)
