"""Connecting the caller to a running process until it ends, or the caller detaches.

    attach   to a running container, over the socket of its monitor
    relay    the same over a socket that is connected already (`run -it`)
    pump     to a child of ours, without a monitor (`exec`)

The terminal has its old modes when these return, by whatever way, and also when a signal ends us.
What a monitor and its clients say to each other is in `frames`.
"""

from __future__ import annotations

import os
import time

from minicontainer import kernel
from minicontainer.engine import frames, polling
from minicontainer.engine import streams as standard
from minicontainer.engine.caller import Caller, follow_signal
from minicontainer.engine.pipes import close_all
from minicontainer.errors import Error, InvalidState, NotFound
from minicontainer.primitives import terminal
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from minicontainer.paths import Paths

    class Container(Protocol):
        """What is needed of `records.Container`."""

        paths: Paths
        id: str

        @property
        def options(self) -> dict[str, Any]: ...
        @property
        def status(self) -> str: ...
        @property
        def exit_code(self) -> int: ...
        def refresh(self) -> object: ...

    class Process(Protocol):
        """What is needed of `lifecycle.Process`; -1 for a descriptor it has not."""

        @property
        def pid(self) -> int: ...
        @property
        def pidfd(self) -> int: ...
        @property
        def console_fd(self) -> int: ...


# How long a monitor may take for the last of what we say.
_FAREWELL_SECONDS = 2.0
# INTERFACES A.4.
_EXEC_SIGNALS = (kernel.SIGINT, kernel.SIGTERM, kernel.SIGHUP, kernel.SIGQUIT)


class ConnectionLost(Error):
    """The monitor is gone and did not say how the container ended."""


def attach(container: Container, *, stdin: bool, detach_keys: str | None, sig_proxy: bool) -> int:
    """Connect our streams to a running container's; its exit code, 0 after detaching.

    Raises InvalidState for a container that does not run or has no monitor any more.
    """
    if container.status not in ("running", "paused", "restarting"):
        raise InvalidState(f"container {container.id[:12]} is not running")
    with step("attach to container %s", container.id[:12]):
        try:
            fd = kernel.unix_connect(container.paths.attach(container.id))
        except (FileNotFoundError, ConnectionRefusedError):
            raise InvalidState(
                f"container {container.id[:12]} has lost its monitor",
                hint="it runs on; stop it, or look inside with exec",
            ) from None
    options = container.options
    try:
        code = relay(
            fd,
            tty=bool(options.get("tty")),
            stdin=stdin and bool(options.get("interactive")),
            detach_keys=detach_keys,
            forward=sig_proxy,
            redraw=True,
        )
    except ConnectionLost:
        code = _recorded_code(container)
        if code is None:
            raise
    return code or 0


def _recorded_code(container: Container) -> int | None:
    """The exit code on record, for a container that ended just while we attached."""
    try:
        container.refresh()
    except NotFound:
        return None
    return container.exit_code if container.status == "exited" else None


def console_size() -> dict[str, int] | None:
    """The size of our terminal as `process.consoleSize` of a config; None without one."""
    found = terminal.size(terminal.of_streams())
    return None if found is None else {"height": found[0], "width": found[1]}


def relay(
    fd: int,
    *,
    tty: bool,
    stdin: bool,
    detach_keys: str | None = None,
    forward: Callable[[int], None] | bool | None = None,
    redraw: bool = False,
) -> int | None:
    """Be the client of a monitor over `fd`, which is closed; the container's exit code.

    None after detaching.  forward: what passes signals on, True to leave that to the monitor.
    Without it a terminating signal ends this process, as does HUP from a terminal that is gone
    and PIPE, when nobody reads our output any more; the container runs on.
    redraw: make full-screen programs in the container draw their screen again.
    Raises Error with the monitor's words when it could not go on, ConnectionLost without any.
    """
    loop = polling.Loop()
    remote = _Remote(loop, fd)
    passing = remote.signal if forward is True else forward if callable(forward) else None
    try:
        caller = _remote_caller(loop, remote, tty, stdin, detach_keys, passing)
        with caller:
            remote.open(caller)
            caller.show_size(redraw=redraw)
            while remote.talks and caller.left is None:
                loop.turn()
            remote.flush(loop)
            caller.finish()
    finally:
        remote.close()
    if remote.exit_code is not None:
        if remote.error is not None:
            raise _as_error(remote.error, remote.exit_code)
        return remote.exit_code
    if caller.left is None:
        raise ConnectionLost("lost the connection to the container's monitor")
    if caller.left:
        follow_signal(caller.left)
    return None


def _remote_caller(
    loop: polling.Loop,
    remote: _Remote,
    tty: bool,
    stdin: bool,
    detach_keys: str | None,
    passing: Callable[[int], None] | None,
) -> Caller:
    from_terminal = stdin and os.isatty(0)

    def forward(signal: int) -> None:
        if passing is not None:
            passing(signal)
        if signal == kernel.SIGHUP and from_terminal:
            caller.leave(signal)

    def reader_gone(number: int) -> None:
        if number == standard.STDOUT:
            caller.leave(kernel.SIGPIPE)

    signals = polling.forwarded_signals(terminal=from_terminal)
    caller = Caller(
        loop,
        remote,
        tty=tty,
        stdin=stdin,
        detach_keys=detach_keys,
        signals=filter(polling.is_terminating, signals) if passing is None else signals,
        forward=None if passing is None else forward,
        reader_gone=reader_gone,
    )
    return caller


def _as_error(text: str, exit_code: int) -> Error:
    failure = Error(text)
    failure.exit_code = exit_code
    return failure


def pump(
    process: Process,
    *,
    streams: tuple[int, int, int] = (-1, -1, -1),
    tty: bool,
    stdin: bool,
    detach_keys: str | None = None,
    forward: Callable[[int], None] | None = None,
) -> int | None:
    """Connect our streams to a child of ours until it ends; its wait status.

    None after detaching: it lives on, but its terminal is hung up.
    streams: our ends of its stdin (-1 without), stdout and stderr, where it has no terminal.
    forward: what passes INT, TERM, HUP and QUIT on, by default straight to the child.
    All descriptors are closed, those of `process` too.
    """

    def send(signal: int) -> None:
        if process.pidfd >= 0:
            kernel.pidfd_send_signal(process.pidfd, signal)
        else:
            kernel.kill(process.pid, signal)

    loop = polling.Loop()
    child = _Child(loop, process, streams)
    taken = set(_EXEC_SIGNALS) & set(polling.forwarded_signals(terminal=False))
    try:
        caller = Caller(
            loop,
            child.streams,
            tty=tty,
            stdin=stdin,
            detach_keys=detach_keys,
            signals=taken | {kernel.SIGCHLD},
            forward=forward or send,
            reader_gone=child.streams.hang_up,
            child_changed=child.check,
        )
        with caller:
            child.open(caller)
            caller.show_size()
            while child.status is None and caller.left is None:
                loop.turn()
            child.streams.drain()
            caller.finish()
    finally:
        child.streams.close()
        close_all((process.pidfd,))
    return child.status


class _Remote:
    """A container behind a connection to its monitor."""

    def __init__(self, loop: polling.Loop, fd: int) -> None:
        self._connection = frames.Connection(loop, fd, self._received, self._lost, self._may)
        self._caller: Caller | None = None
        self._is_lost = False
        self.exit_code: int | None = None
        self.error: str | None = None

    def open(self, caller: Caller) -> None:
        """Show to `caller` from now on what the container writes."""
        self._caller = caller

    def close(self) -> None:
        self._connection.close()

    @property
    def talks(self) -> bool:
        """More may come."""
        return self.exit_code is None and not self._is_lost

    def flush(self, loop: polling.Loop) -> None:
        """Close, having sent what waits: what was typed before the detach keys, a signal."""
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while self.talks and not self._connection.idle and time.monotonic() < deadline:
            loop.turn(_FAREWELL_SECONDS)
        self.close()

    @property
    def takes_input(self) -> bool:
        return self._connection.open

    @property
    def input_full(self) -> bool:
        return self._connection.full

    def feed(self, data: bytes) -> None:
        self._connection.send(frames.STDIN, data)

    def end_input(self) -> None:
        self._connection.send(frames.STDIN_EOF)

    def resize(self, rows: int, columns: int) -> None:
        self._connection.send(frames.RESIZE, frames.resize(rows, columns))

    def signal(self, number: int) -> None:
        self._connection.send(frames.SIGNAL, bytes((number,)))

    def _may(self) -> bool:
        return self._caller is not None and not self._caller.local.full

    def _received(self, connection: frames.Connection, kind: int, payload: bytes) -> None:
        if self._caller is None:
            return
        if kind == frames.STDOUT:
            self._caller.local.write(standard.STDOUT, payload)
        elif kind == frames.STDERR:
            self._caller.local.write(standard.STDERR, payload)
        elif kind == frames.ERROR:
            self.error = payload.decode("utf-8", "replace")
        elif kind == frames.EXIT:
            self.exit_code = frames.parse_exit_code(payload)

    def _lost(self, connection: frames.Connection) -> None:
        self._is_lost = True


class _Child:
    """A child of ours and its streams."""

    def __init__(self, loop: polling.Loop, process: Process, pipes: tuple[int, int, int]) -> None:
        self._pid = process.pid
        self._caller: Caller | None = None
        self.status: int | None = None
        self.streams = standard.Streams(
            loop, pipes, process.console_fd, self._deliver, self._may_deliver
        )

    def open(self, caller: Caller) -> None:
        """Show to `caller` what the child writes; it may have ended before anybody looked."""
        self._caller = caller
        self.check()

    def check(self) -> None:
        """Note how it ended, if it did."""
        if self.status is None:
            pid, status = kernel.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.status = status

    def _may_deliver(self) -> bool:
        return self._caller is not None and not self._caller.local.full

    def _deliver(self, number: int, data: bytes) -> None:
        if self._caller is not None:
            self._caller.local.write(number, data)
