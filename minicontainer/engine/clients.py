"""The clients attached to a container, as its monitor sees them, and the socket where they come.

Everybody who may connect is the owner of the container already: the socket lies in a directory of
mode 0700, and the peer must be root or ourselves all the same.  unix(7).
"""

from __future__ import annotations

import os
import select

from minicontainer import kernel
from minicontainer.engine import frames, streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from minicontainer.engine.polling import Loop

    class Target(Protocol):
        """Where what the clients say goes."""

        def feed(self, data: bytes) -> None: ...
        def end_input(self) -> None: ...
        def resize(self, rows: int, columns: int) -> None: ...
        def forward(self, signal: int) -> None: ...


_MOST = 64
_OUTPUT = {streams.STDOUT: frames.STDOUT, streams.STDERR: frames.STDERR}


class Clients:
    """All attached clients. What they say is passed to `target` while `may_receive()`."""

    def __init__(self, loop: Loop, target: Target, may_receive: Callable[[], bool]) -> None:
        self._loop = loop
        self._target = target
        self._may_receive = may_receive
        self._connections: list[frames.Connection] = []
        self._owner: frames.Connection | None = None
        self._listener: _Listener | None = None
        self._path: str | None = None

    def add_owner(self, fd: int) -> None:
        """A client whose end of input is the container's; takes over the socket."""
        self._owner = self._add(fd)

    def listen(self, path: str) -> None:
        """Accept clients at `path` from now on; what a dead monitor left there is replaced."""
        _unlink(path)
        fd = kernel.unix_listen(path)
        self._path = path
        self._listener = _Listener(self._loop, fd, self._accepted)

    def stop_listening(self) -> None:
        """Accept those who are waiting already, and nobody more; may be repeated."""
        if self._listener is not None:
            self._listener.ready(select.POLLIN)
            self._listener.close()
            self._listener = None
        if self._path is not None:
            _unlink(self._path)
            self._path = None

    @property
    def full(self) -> bool:
        return any(connection.full for connection in self._connections)

    @property
    def idle(self) -> bool:
        return all(connection.idle for connection in self._connections)

    def deliver(self, number: int, data: bytes) -> None:
        """Send output, number being streams.STDOUT or STDERR."""
        for connection in self._connections:
            connection.send(_OUTPUT[number], data)

    def say_end(self, exit_code: int, failure: str | None) -> None:
        """Send the last words; `failure` says why the container could not go on."""
        for connection in self._connections:
            if failure is not None:
                connection.send(frames.ERROR, failure.encode("utf-8", "replace"))
            connection.send(frames.EXIT, frames.exit_code(exit_code))

    def close(self) -> None:
        """Close all; may be repeated."""
        self.stop_listening()
        for connection in self._connections:
            connection.close()
        self._connections = []

    def _add(self, fd: int) -> frames.Connection:
        connection = frames.Connection(
            self._loop, fd, self._received, self._lost, self._may_receive
        )
        self._connections.append(connection)
        return connection

    def _accepted(self, fd: int) -> None:
        trusted = kernel.peer_credentials(fd)[1] in (0, os.geteuid())
        if trusted and len(self._connections) < _MOST:
            self._add(fd)
        else:
            kernel.close(fd)

    def _lost(self, connection: frames.Connection) -> None:
        self._connections.remove(connection)

    def _received(self, connection: frames.Connection, kind: int, payload: bytes) -> None:
        if kind == frames.STDIN:
            self._target.feed(payload)
        elif kind == frames.STDIN_EOF:
            # Of the others it means only that they have no more to say: more may attach.
            if connection is self._owner:
                self._target.end_input()
        elif kind == frames.RESIZE:
            self._target.resize(*frames.parse_resize(payload))
        elif kind == frames.SIGNAL:
            self._target.forward(frames.parse_signal(payload))


class _Listener:
    """A port for the socket at which clients attach: `accepted(fd)` for each."""

    def __init__(self, loop: Loop, fd: int, accepted: Callable[[int], None]) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._loop = loop
        self._accepted = accepted
        self._open = True
        loop.add(self)

    def wanted(self) -> int:
        return select.POLLIN

    def ready(self, happened: int) -> None:
        while self._open:
            try:
                fd = kernel.accept(self.fd)
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors. Rather no further clients than a loop without rest.
                self.close()
                return
            self._accepted(fd)

    def close(self) -> None:
        """May be repeated."""
        if self._open:
            self._open = False
            self._loop.remove(self)
            kernel.close(self.fd)


def _unlink(path: str) -> None:
    try:
        kernel.unlink(path)
    except FileNotFoundError:
        return
