"""The life of a started container: wait for it, copy its streams, keep its log, start it again.

`supervise` runs in the process whose child the container is: `run` itself in the foreground, a
forked process of its own (the monitor) when the container is detached or may become so.  It reads
what the container writes and gives it, in the order of reading, to

    the log            always; a slow disk makes the container wait, a failing one loses lines
    our own streams    in the foreground (`local`)
    attached clients   over the socket at `attach_path` (clients, frames)

and reads no further while any of these has more than 64 KiB still to take: like Docker, an attached
client that stops reading makes the container wait; one that is gone is dropped.  So memory does
not depend on how much is written, nor on how long its lines are.

Signals are read from a descriptor in the same loop.  In the foreground each catchable one goes to
the container's first process (INTERFACES A.4).  A detached monitor passes on TERM alone, and takes
it as the wish to stop: the restart policy no longer applies (so `systemctl stop` of a unit works);
HUP, INT and QUIT mean nothing to it.

Not here: how a container is made and taken down, which is the task's.  prctl(2), waitpid(2).
"""

from __future__ import annotations

import os
import time

from minicontainer import kernel
from minicontainer.engine import clients, polling, streams
from minicontainer.engine.pipes import close_all, open_pipes
from minicontainer.errors import Error
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from minicontainer.engine.logs import LogWriter
    from minicontainer.engine.pipes import Pipes

    class Process(Protocol):
        """The container's first process; -1 for a descriptor it has not. The task closes them."""

        @property
        def pid(self) -> int: ...
        @property
        def pidfd(self) -> int: ...
        @property
        def console_fd(self) -> int: ...

    class Task(Protocol):
        """What is supervised, and where the facts about it go."""

        def launch(self, stdin_fd: int, stdout_fd: int, stderr_fd: int) -> Process:
            """Create and start the container; with a terminal the three are -1."""

        def finished(self, process: Any, wait_status: int) -> int:
            """It ended and its log is complete: take it down, record that; its exit code."""

        def stopping(self) -> bool:
            """Whether a manual stop was asked for."""

        def policy(self) -> Mapping[str, Any]:
            """The restart policy as it is now: see `should_restart`."""

        def restarting(self, count: int, delay: float) -> None:
            """It will be started for the `count`-th time again in `delay` seconds."""

        def ended(self, exit_code: int) -> None:
            """It will not be started again; called once, also if it never started."""


LocalStreams = streams.LocalStreams

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 60.0
# A container that ran so long starts anew without the delay of its former failures.
STABLE_SECONDS = 10.0

# How long a client may take for the last output, once the container has ended.
_FAREWELL_SECONDS = 10.0
_STOP_CHECK_SECONDS = 1.0

_LOG_NAMES = {streams.STDOUT: "stdout", streams.STDERR: "stderr"}


def should_restart(
    policy: Mapping[str, Any], exit_code: int, restarts: int, stopping: bool
) -> bool:
    """Whether a container that ended is started again.

    policy: {"name": no|on-failure|always|unless-stopped, "maximum": restarts on failure, 0 for
    any number}; restarts: how often it was already.
    """
    if stopping:
        return False
    if policy["name"] == "on-failure":
        return exit_code != 0 and (not policy["maximum"] or restarts < policy["maximum"])
    return policy["name"] in ("always", "unless-stopped")


def next_delay(last_seconds: float, ran_seconds: float) -> float:
    """Seconds to wait before a restart: 0.1, doubled for each short run in a row, up to 60."""
    if ran_seconds >= STABLE_SECONDS or not last_seconds:
        return FIRST_DELAY_SECONDS
    return min(2 * last_seconds, LONGEST_DELAY_SECONDS)


def supervise(
    task: Task,
    *,
    tty: bool,
    open_stdin: bool,
    log: LogWriter | None,
    attach_path: str | None,
    client_fd: int = -1,
    local: streams.LocalStreams | None = None,
    signals: bool,
    report: Callable[[Error | None], None] | None = None,
    pipes: Pipes | None = None,
) -> int:
    """Start the container, stay with it until it will not run again; its exit code.

    client_fd: a stream socket to a client that is attached from the beginning (`attach.relay`);
    local: our own streams in its place; the end of their input is the end of the container's.
    signals: forward all of them; without it but with `local` they keep their effect on us.
    report: called once, when the container runs or could not be started; then with the Error,
    which is raised as well, after `task.ended`.  pipes: those of `pipes.open_pipes` for the first
    launch, where the task has begun it already.  Takes over `log` and `client_fd`, and the reaping
    of all children.  Signals are blocked meanwhile, also during `task.launch`.
    """
    monitor = _Monitor(task, tty, open_stdin, log)
    monitor.pipes = pipes
    try:
        try:
            with step("start the container"):
                monitor.connect(attach_path, client_fd, local, signals)
                process = monitor.launch()
        except Error as failure:
            monitor.end(failure.exit_code, failure)
            if report is not None:
                report(failure)
            raise
        if report is not None:
            report(None)
        return monitor.run(process)
    finally:
        monitor.close()


class _Monitor:
    """One supervised container: `connect`, `launch`, `run`, `close`, in this order."""

    def __init__(
        self,
        task: Task,
        tty: bool,
        open_stdin: bool,
        log: LogWriter | None,
    ) -> None:
        self._task = task
        self._tty = tty
        self._open_stdin = open_stdin
        self._log = log
        self.pipes: Pipes | None = None
        self._forwards_all = False
        self._loop = polling.Loop()
        self._clients = clients.Clients(self._loop, self, self._may_receive)
        self._signals: polling.Signals | None = None
        self._streams: streams.Streams | None = None
        self._local: streams.Local | None = None
        self._process: Process | None = None
        self._status: int | None = None
        self._size: tuple[int, int] | None = None
        self._input_ended = False
        self._unread: set[int] = set()
        self._stop = False

    def connect(
        self,
        attach_path: str | None,
        client_fd: int,
        local: streams.LocalStreams | None,
        forwards_all: bool,
    ) -> None:
        """Everything but the container itself: signals, clients, our own streams."""
        if client_fd >= 0:
            self._clients.add_owner(client_fd)
        with step("become the reaper of the container's orphans"):
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        self._forwards_all = forwards_all
        with step("take over the signals"):
            taken = {kernel.SIGCHLD}
            if forwards_all or local is None:
                taken.update(polling.forwarded_signals(terminal=_is_terminal(local)))
            self._signals = polling.Signals(self._loop, taken, self._signalled)
        if attach_path is not None:
            with step("listen for clients at %s", attach_path):
                self._clients.listen(attach_path)
        if local is not None:
            self._local = streams.Local(
                self._loop,
                local if self._open_stdin else local._replace(stdin=-1),
                take=self.feed,
                ended=self.end_input,
                may_take=self._takes_input,
                broken=self._reader_gone,
            )

    def launch(self) -> Process:
        """Start the container with new streams."""
        self._status = None
        theirs, ours = (-1, -1, -1), (-1, -1, -1)
        if not self._tty:
            with step("make pipes for the container's streams"):
                theirs, ours = self.pipes or open_pipes(self._open_stdin)
            self.pipes = None
        try:
            process = self._task.launch(*theirs)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        self._process = process
        console_fd = kernel.dup(process.console_fd) if process.console_fd >= 0 else -1
        self._streams = streams.Streams(
            self._loop, ours, console_fd, self._deliver, self._may_deliver
        )
        if self._size is not None:
            self._streams.resize(*self._size)
        if self._input_ended:
            self._streams.end_input()
        for number in self._unread:
            self._reader_gone(number)
        return process

    def run(self, process: Process) -> int:
        """Stay with the container, through restarts, to its end; its exit code."""
        if self._log is not None:
            self._log.warm_up()
        restarts, delay = 0, 0.0
        while True:
            started = time.monotonic()
            exit_code = self._watch(process)
            if not should_restart(self._task.policy(), exit_code, restarts, self._stopping()):
                break
            restarts += 1
            delay = next_delay(delay, time.monotonic() - started)
            self._task.restarting(restarts, delay)
            if not self._wait(delay):
                break
            try:
                process = self.launch()
            except Error as failure:
                self.end(failure.exit_code, failure)
                return failure.exit_code
        self.end(exit_code)
        return exit_code

    def _watch(self, process: Process) -> int:
        while self._status is None:
            self._loop.turn()
        assert self._streams is not None
        # Only what is in the pipes now: with the host's pid namespace others may hold them open.
        self._streams.drain()
        self._streams.close()
        self._streams = None
        if self._log is not None:
            self._log.flush()
        self._process = None
        return self._task.finished(process, self._status)

    def _stopping(self) -> bool:
        return self._stop or self._task.stopping()

    def _wait(self, seconds: float) -> bool:
        """Wait out the delay of a restart; False if a stop was asked for meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._stopping():
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            self._loop.turn(min(left, _STOP_CHECK_SECONDS))
        return False

    def end(self, exit_code: int, failure: Error | None = None) -> None:
        """The last acts: the task's, then those of whoever is still reading."""
        self._clients.stop_listening()
        self._task.ended(exit_code)
        self._clients.say_end(exit_code, None if failure is None else str(failure))
        self._stop = False
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while not self._stop:
            left = deadline - time.monotonic()
            done = self._local is None or self._local.idle
            if done and (left <= 0 or self._clients.idle):
                return
            self._loop.turn(None if left <= 0 else left)

    def close(self) -> None:
        """Let go of everything; may be repeated, and called after any failure."""
        if self._streams is not None:
            self._streams.close()
        if self._local is not None:
            self._local.close()
        self._clients.close()
        if self._log is not None:
            self._log.close()
        if self._signals is not None:
            self._signals.close()

    # ------------------------------------------------------------------------------ output

    def _may_deliver(self) -> bool:
        return not self._clients.full and not (self._local is not None and self._local.full)

    def _deliver(self, number: int, data: bytes) -> None:
        if self._log is not None:
            self._log.write(_LOG_NAMES[number], data)
        if self._local is not None:
            self._local.write(number, data)
        self._clients.deliver(number, data)

    def _reader_gone(self, number: int) -> None:
        # `run … yes | head -1`: what we were told by EPIPE, the container is told by SIGPIPE.
        self._unread.add(number)
        if self._streams is not None and not self._tty:
            self._streams.hang_up(number)

    # ------------------------------------------------------- input, ours and the clients'

    def _takes_input(self) -> bool:
        return self._streams is not None and self._streams.takes_input and self._may_receive()

    def _may_receive(self) -> bool:
        return self._streams is None or not self._streams.input_full

    def feed(self, data: bytes) -> None:
        """Input for the container; lost while it does not run."""
        if self._streams is not None:
            self._streams.feed(data)

    def end_input(self) -> None:
        """The container's input ends here, and that of those it is started anew as."""
        self._input_ended = True
        if self._streams is not None:
            self._streams.end_input()

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal, now and after restarts."""
        self._size = (rows, columns)
        if self._streams is not None:
            self._streams.resize(rows, columns)

    # ----------------------------------------------------------------- signals, children

    def forward(self, signal: int) -> None:
        """Send a signal to the container's first process, if it runs."""
        if self._process is None or self._status is not None:
            return
        try:
            if self._process.pidfd >= 0:
                kernel.pidfd_send_signal(self._process.pidfd, signal)
            else:
                # Our own child, not waited for yet: the number is still its own.
                kernel.kill(self._process.pid, signal)
        except (ProcessLookupError, PermissionError):
            return

    def _signalled(self, signal: int) -> None:
        if signal == kernel.SIGCHLD:
            self._reap()
        elif self._process is not None:
            if self._forwards_all or signal == kernel.SIGTERM:
                self._stop = self._stop or not self._forwards_all
                self.forward(signal)
        elif signal == kernel.SIGTERM or (self._forwards_all and polling.is_terminating(signal)):
            # Nobody to pass it on to: it ends the wait for a restart, or for slow readers.
            self._stop = True

    def _reap(self) -> None:
        """Wait for every child that ended: the container's first process, and its orphans."""
        while True:
            try:
                pid, status = kernel.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._process is not None and pid == self._process.pid:
                self._status = status


def _is_terminal(local: streams.LocalStreams | None) -> bool:
    return local is not None and local.stdin >= 0 and os.isatty(local.stdin)
