"""The two sides of a container's standard streams: its own (`Streams`) and ours (`Local`).

Either is a handful of ports of `polling`; the monitor and the clients `attach` and `exec` put them
together.  pipe(7), pty(7), ioctl_tty(2).
"""

from __future__ import annotations

import os
import stat

from minicontainer import kernel
from minicontainer.engine import polling
from minicontainer.engine.pipes import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
else:
    from minicontainer.tuples import namedtuple

# Our own streams a foreground container is connected to, -1 for those it is not.
LocalStreams = namedtuple("LocalStreams", "stdin stdout stderr")

STDOUT, STDERR = 1, 2

# A pipe that poll(2) calls writable takes this much without blocking.
_PIPE_ATOMIC = 4096


class Streams:
    """The container's side of its standard streams: our ends of its pipes, or its terminal.

    Owns the descriptors.  `deliver(number, data)` gets its output, number being STDOUT or STDERR
    (a terminal has the first alone), while `may_deliver()`.
    """

    def __init__(
        self,
        loop: polling.Loop,
        pipes: tuple[int, int, int],
        console_fd: int,
        deliver: Callable[[int, bytes], None],
        may_deliver: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._console_fd = console_fd
        self._held_fd = -1
        stdin_fd, stdout_fd, stderr_fd = pipes
        if console_fd >= 0:
            # While nobody in the container has the terminal open, reading from it fails, and that
            # state would not end the wait of poll; so we are one who has it open.
            self._held_fd = _peer(console_fd)
            stdin_fd, stdout_fd = kernel.dup(console_fd), console_fd
        self._input: polling.Writer | None = None
        if stdin_fd >= 0:
            os.set_blocking(stdin_fd, False)
            self._input = polling.Writer(loop, stdin_fd, polling.nothing)
        self._outputs: dict[int, polling.Reader] = {}
        for number, fd in ((STDOUT, stdout_fd), (STDERR, stderr_fd)):
            if fd >= 0:
                os.set_blocking(fd, False)
                self._outputs[number] = self._output(number, fd, deliver, may_deliver)

    def _output(
        self,
        number: int,
        fd: int,
        deliver: Callable[[int, bytes], None],
        may_deliver: Callable[[], bool],
    ) -> polling.Reader:
        def take(data: bytes) -> None:
            deliver(number, data)

        return polling.Reader(self._loop, fd, take, polling.nothing, may_deliver)

    @property
    def takes_input(self) -> bool:
        """Whether input still reaches anybody."""
        return self._input is not None and self._input.open

    @property
    def input_full(self) -> bool:
        return self._input is not None and self._input.full

    def feed(self, data: bytes) -> None:
        """Give it input; dropped where it has none or reads no more."""
        if self._input is not None:
            self._input.write(data)

    def end_input(self) -> None:
        """Its input ends behind what it was given. A terminal's never does."""
        if self._input is not None and self._console_fd < 0:
            self._input.end()

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, if it has one."""
        if self._console_fd >= 0:
            try:
                kernel.set_window_size(self._console_fd, rows, columns)
            except OSError:
                return

    def hang_up(self, number: int) -> None:
        """Read one output no more: its writers get SIGPIPE; those on a terminal, SIGHUP."""
        if self._console_fd >= 0:
            self.close()
            return
        reader = self._outputs.pop(number, None)
        if reader is not None:
            reader.stop()
            kernel.close(reader.fd)

    def drain(self) -> None:
        """Deliver the output that is there already, without waiting for more."""
        for reader in list(self._outputs.values()):
            reader.drain()

    def close(self) -> None:
        """Close all; may be repeated."""
        if self._input is not None:
            self._input.close()
        for reader in self._outputs.values():
            reader.stop()
            kernel.close(reader.fd)
        self._outputs = {}
        close_all((self._held_fd,))
        self._held_fd = self._console_fd = -1


def _peer(console_fd: int) -> int:
    try:
        return kernel.open_pty_peer(console_fd, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return -1


class Local:
    """Our own standard streams: input is taken, output is written.

    `take(data)` gets input while `may_take()`, `ended()` tells its end; `broken(number)` that
    nobody reads an output any more, which then counts as written.
    """

    def __init__(
        self,
        loop: polling.Loop,
        fds: LocalStreams,
        *,
        take: Callable[[bytes], None],
        ended: Callable[[], None],
        may_take: Callable[[], bool],
        broken: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._input = (
            polling.Reader(loop, fds.stdin, take, ended, may_take) if fds.stdin >= 0 else None
        )
        self._reopened: list[int] = []
        self._outputs: dict[int, polling.Writer] = {}
        for number, fd in ((STDOUT, fds.stdout), (STDERR, fds.stderr)):
            if fd >= 0:
                self._outputs[number] = self._output(number, fd, broken)

    def _output(self, number: int, fd: int, broken: Callable[[int], None]) -> polling.Writer:
        own_fd, chunk_bytes = _reopen(fd)
        if own_fd != fd:
            self._reopened.append(own_fd)

        def lost() -> None:
            broken(number)

        return _Borrowed(self._loop, own_fd, lost, chunk_bytes)

    @property
    def full(self) -> bool:
        return any(writer.full for writer in self._outputs.values())

    @property
    def idle(self) -> bool:
        return all(writer.idle for writer in self._outputs.values())

    def write(self, number: int, data: bytes) -> None:
        writer = self._outputs.get(number)
        if writer is not None:
            writer.write(data)

    def stop_input(self) -> None:
        """Take no more input; may be repeated."""
        if self._input is not None:
            self._input.stop()

    def close(self) -> None:
        """Let go of the streams, which stay open; may be repeated."""
        self.stop_input()
        for writer in self._outputs.values():
            writer.stop()
        close_all(self._reopened)
        self._reopened = []


class _Borrowed(polling.Writer):
    """A writer whose descriptor is somebody else's to close."""

    def close(self) -> None:
        self.stop()


def _reopen(fd: int) -> tuple[int, int]:
    """(descriptor, bytes for one write) with which writing to the file of `fd` does not block us.

    O_NONBLOCK on `fd` itself would hit all who share it, the caller's shell among them; so pipes
    and terminals are opened once more.  Where that is refused, small writes must do.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return fd, _PIPE_ATOMIC
    # Opening a pty's master, /dev/ptmx, would make another pty.
    is_master = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(5, 2)
    if stat.S_ISFIFO(found.st_mode) or (os.isatty(fd) and not is_master):
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return kernel.open(f"/proc/self/fd/{fd}", flags), polling.CHUNK_BYTES
        except OSError:
            return fd, _PIPE_ATOMIC
    return fd, _PIPE_ATOMIC if stat.S_ISSOCK(found.st_mode) else polling.CHUNK_BYTES
