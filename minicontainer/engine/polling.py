"""One poll(2) for everything a process waits for, and the ports it calls when they are ready.

A `Reader` takes bytes from a descriptor while those who get them keep up; a `Writer` holds what a
descriptor does not take yet; `Signals` reads signals.  Nothing here grows without limit: a reader
rests while a writer behind it is full, so that a slow consumer in the end makes the producer wait,
exactly as a pipe would.  poll(2), signalfd(2), signal(7).
"""

from __future__ import annotations

import os
import select

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Port(Protocol):
        """Something a loop waits for."""

        fd: int

        def wanted(self) -> int:
            """The poll(2) events awaited now; 0 for none."""

        def ready(self, happened: int) -> None:
            """Called with the events that came; must bear one that is already over."""


CHUNK_BYTES = 1 << 16
# At most this much is left in a pipe when its writers have died (/proc/sys/fs/pipe-max-size).
_PIPE_LONGEST = 1 << 20

_TERMINATING = (kernel.SIGHUP, kernel.SIGINT, kernel.SIGQUIT, kernel.SIGTERM)
_NOT_FORWARDED = (
    kernel.SIGKILL,
    kernel.SIGSTOP,
    kernel.SIGCHLD,
    kernel.SIGPIPE,
    kernel.SIGURG,
    kernel.SIGWINCH,
    kernel.SIGTSTP,
)


def is_terminating(signal: int) -> bool:
    """Whether the signal asks a program to end."""
    return signal in _TERMINATING


def forwarded_signals(*, terminal: bool) -> tuple[int, ...]:
    """The signals that a foreground command passes on to its container (INTERFACES A.4).

    Those ignored since our start stay ignored: nohup(1) means the container too.
    terminal: we read from a terminal; then TTIN and TTOU keep their meaning for job control.
    """
    # CPython itself ignores XFSZ, for the sake of an EFBIG.
    kept = {*_NOT_FORWARDED, *kernel.ignored_signals()} - {kernel.SIGXFSZ}
    if terminal:
        kept |= {kernel.SIGTTIN, kernel.SIGTTOU}
    numbers = (*range(1, 32), *range(kernel.SIGRTMIN, kernel.SIGRTMAX + 1))
    return tuple(number for number in numbers if number not in kept)


class Loop:
    """Ports, and one poll(2) for all of them."""

    def __init__(self) -> None:
        self._poll = kernel.poll()
        self._ports: dict[int, Port] = {}
        self._awaited: dict[int, int] = {}

    def add(self, port: Port) -> None:
        self._ports[port.fd] = port

    def remove(self, port: Port) -> None:
        """Forget the port, which must happen before its descriptor is closed; may be repeated."""
        if self._ports.get(port.fd) is port:
            del self._ports[port.fd]
            if self._awaited.pop(port.fd, 0):
                self._poll.unregister(port.fd)

    def turn(self, timeout_seconds: float | None = None) -> None:
        """Wait until something is ready or the time is over, and call those that are."""
        for fd, port in self._ports.items():
            wanted = port.wanted()
            if wanted == self._awaited.get(fd, 0):
                continue
            # One that awaits nothing is left out: poll would report its hang-up again and again.
            if wanted:
                self._poll.register(fd, wanted)
                self._awaited[fd] = wanted
            else:
                self._poll.unregister(fd)
                del self._awaited[fd]
        timeout = None if timeout_seconds is None else max(0, int(timeout_seconds * 1000) + 1)
        for fd, happened in self._poll.poll(timeout):
            ready = self._ports.get(fd)
            if ready is not None:
                ready.ready(happened)


class Reader:
    """A port that hands on what its descriptor brings: `take(data)`, and once `ended()`.

    Reads only while `may_take()`.  Any failure to read counts as the end: of a terminal, EIO is.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        take: Callable[[bytes], None],
        ended: Callable[[], None],
        may_take: Callable[[], bool],
    ) -> None:
        self.fd = fd
        self._loop = loop
        self._take = take
        self._ended = ended
        self._may_take = may_take
        self.open = True
        loop.add(self)

    def wanted(self) -> int:
        return select.POLLIN if self._may_take() else 0

    def ready(self, happened: int) -> None:
        self._read()

    def _read(self) -> int:
        try:
            data = kernel.read(self.fd, CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.stop()
            self._ended()
        return len(data)

    def drain(self) -> None:
        """Take what is there already, welcome or not, from a descriptor that does not block."""
        left = _PIPE_LONGEST
        while self.open and left > 0:
            count = self._read()
            if not count:
                return
            left -= count

    def stop(self) -> None:
        """Read no more; the descriptor stays open. May be repeated."""
        if self.open:
            self.open = False
            self._loop.remove(self)


class Writer:
    """A port that writes to its descriptor what it is given, as fast as that takes it.

    `full` asks those who give to pause.  Once nobody reads the other end, what is given is thrown
    away, and `broken()` has been called.
    """

    def __init__(
        self, loop: Loop, fd: int, broken: Callable[[], None], chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self.fd = fd
        self._loop = loop
        self._broken = broken
        self._chunk_bytes = chunk_bytes
        self._queue = bytearray()
        self._ending = False
        self.open = True
        loop.add(self)

    @property
    def full(self) -> bool:
        return len(self._queue) >= CHUNK_BYTES

    @property
    def idle(self) -> bool:
        """Everything given has been written."""
        return not self._queue

    def write(self, data: bytes) -> None:
        if self.open and not self._ending:
            self._queue += data

    def wanted(self) -> int:
        return select.POLLOUT if self._queue else 0

    def ready(self, happened: int) -> None:
        try:
            written = kernel.write(self.fd, self._queue[: self._chunk_bytes])
        except BlockingIOError:
            return
        except OSError:
            self.close()
            self._broken()
            return
        del self._queue[:written]
        if self._ending and not self._queue:
            self.close()

    def end(self) -> None:
        """Close the descriptor as soon as everything is written."""
        self._ending = True
        if not self._queue:
            self.close()

    def close(self) -> None:
        """Close the descriptor and throw away what was not written; may be repeated."""
        if self.open:
            self.stop()
            kernel.close(self.fd)

    def stop(self) -> None:
        """Throw away what was not written; the descriptor stays open. May be repeated."""
        self.open = False
        self._queue.clear()
        self._loop.remove(self)


class Signals:
    """A port for signals, which are blocked from now on: `take(number)` for each that comes."""

    def __init__(self, loop: Loop, signals: Iterable[int], take: Callable[[int], None]) -> None:
        wanted = tuple(signals)
        # Where the caller ignored it, children would vanish without a status.
        if kernel.SIGCHLD in wanted:
            kernel.reset_signal(kernel.SIGCHLD)
        kernel.block_signals(wanted)
        self.fd = kernel.signalfd(wanted, os.O_NONBLOCK)
        self._loop = loop
        self._take = take
        loop.add(self)

    def wanted(self) -> int:
        return select.POLLIN

    def ready(self, happened: int) -> None:
        while True:
            try:
                signal = kernel.read_signalfd(self.fd)
            except BlockingIOError:
                return
            self._take(signal)

    def close(self) -> None:
        """Have signals delivered again; those that came and were not taken are dropped.

        Unblocks all there are: nothing of ours runs with signals blocked otherwise.
        """
        if self.fd < 0:
            return
        self._loop.remove(self)
        self._take = nothing
        self.ready(select.POLLIN)
        kernel.close(self.fd)
        self.fd = -1
        kernel.unblock_all_signals()


def nothing(*_: object) -> None:
    return None
