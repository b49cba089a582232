"""Signals, by number, without the module `signal` and its enumerations.

Man pages: sigprocmask(2), signalfd(2), signal(7).
"""

from __future__ import annotations

import os

from minicontainer.kernel import constants
from minicontainer.kernel.libc import number, syscall, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable
else:
    import _signal

__all__ = [
    "block_signals",
    "ignore_signal",
    "ignored_signals",
    "read_signalfd",
    "reset_signal",
    "signal_number",
    "signalfd",
    "unblock_all_signals",
]

_signalfd4 = syscall("ipLi")


def signal_number(name: str) -> int:
    """The number of `TERM`, `SIGTERM`, `15`, `RTMIN+3`. ValueError for anything else."""
    word = name.strip().upper()
    if word.isascii() and word.isdigit() and 0 < int(word) <= constants.SIGRTMAX:
        return int(word)
    word = word[3:] if word.startswith("SIG") else word
    for base, sign in (("RTMIN", "+"), ("RTMAX", "-")):
        if word == base:
            return int(vars(constants)[f"SIG{base}"])
        offset = word[len(base) + 1 :]
        if word.startswith(base + sign) and offset.isascii() and offset.isdigit():
            found = int(vars(constants)[f"SIG{base}"]) + int(sign + offset)
            if constants.SIGRTMIN <= found <= constants.SIGRTMAX:
                return found
    known = vars(constants).get(f"SIG{word}")
    if known is None:
        raise ValueError(f"invalid signal: {name}")
    return int(known)


def signalfd(signals: Iterable[int], flags: int = 0) -> int:
    """A descriptor to read blocked signals from; `flags` may have O_NONBLOCK. signalfd(2)"""
    mask = words((sum(1 << (signal - 1) for signal in signals),), 8)
    return _signalfd4(constants.SYS_signalfd4, -1, mask, len(mask), flags | constants.O_CLOEXEC)


def read_signalfd(fd: int) -> int:
    """The number of the next signal. BlockingIOError where there is none and none is awaited."""
    return number(os.read(fd, 128)[:4])


def block_signals(signals: Iterable[int]) -> None:
    """Block these signals too, for this thread and what it executes."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, signals)


def unblock_all_signals() -> None:
    """Leave no signal blocked."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def ignored_signals() -> list[int]:
    """The signals that this process ignores, by inheritance or because CPython wants it so."""
    ignored = _signal.SIG_IGN
    return [int(one) for one in _signal.valid_signals() if _signal.getsignal(one) == ignored]


def reset_signal(signal: int) -> None:
    """Give a signal its default effect."""
    _signal.signal(signal, _signal.SIG_DFL)


def ignore_signal(signal: int) -> None:
    """Have a signal ignored."""
    _signal.signal(signal, _signal.SIG_IGN)
