"""A program for tests of the monitor: supervises, relays or pumps a shell command, no container.

    python -m tests.support.supervised REPORT '{"mode": "local", "command": "echo hello", …}'

Modes: local (the foreground), detached (our streams unused), relayed (a forked monitor and its
relay, as `run -it`), attach (to the socket of another), pump (as `exec`).  What the task was asked
to do is appended to REPORT, a JSON array a line; the exit code is what the call gave, 200 for an
Error, 201 for detaching.
"""

from __future__ import annotations

import json
import os
import sys
from collections import namedtuple

from minicontainer import kernel
from minicontainer.engine import attach, logs, monitor
from minicontainer.engine.pipes import close_all, open_pipes
from minicontainer.errors import CommandNotFound, Error
from minicontainer.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

Process = namedtuple("Process", "pid start_time pidfd console_fd")

ERROR, DETACHED = 200, 201


class Report:
    """The file with what happened, one JSON array a line."""

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, *facts: Any) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        os.write(fd, (json.dumps(facts) + "\n").encode())
        os.close(fd)


class Task:
    """Runs `command` with sh: what `monitor.supervise` is given in place of a container."""

    def __init__(self, settings: dict[str, Any], report: Report) -> None:
        self.settings = settings
        self.report = report
        self.launches = 0

    def launch(self, stdin_fd: int, stdout_fd: int, stderr_fd: int) -> Process:
        self.launches += 1
        if self.launches == self.settings.get("fails_at"):
            raise CommandNotFound("no such command")
        process = spawn(self.settings, (stdin_fd, stdout_fd, stderr_fd))
        self.report.add("launch", process.pid)
        return process

    def finished(self, process: Process, wait_status: int) -> int:
        code = exit_code(wait_status)
        log = self.settings.get("log")
        self.report.add("finished", code, os.path.getsize(log) if log else 0)
        close_all((process.pidfd, process.console_fd))
        return code

    def stopping(self) -> bool:
        return os.path.exists(self.settings.get("stop_file", "/nonexistent"))

    def policy(self) -> dict[str, Any]:
        policy: dict[str, Any] = self.settings.get("policy", {"name": "no", "maximum": 0})
        return policy

    def restarting(self, count: int, delay: float) -> None:
        self.report.add("restarting", count, delay)

    def ended(self, code: int) -> None:
        self.report.add("ended", code)


def spawn(settings: dict[str, Any], fds: Sequence[int]) -> Process:
    """Fork the command, with these streams or on a terminal of its own."""
    master, slave = os.openpty() if settings.get("tty") else (-1, -1)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if slave >= 0:
            kernel.set_controlling_terminal(slave)
            fds = (slave, slave, slave)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        for signal in (kernel.SIGPIPE, kernel.SIGXFSZ):
            kernel.reset_signal(signal)
        kernel.unblock_all_signals()
        os.execv("/bin/sh", ["sh", "-c", settings["command"]])
    close_all((slave,))
    pidfd = kernel.pidfd_open(pid) if settings.get("pidfd", True) else -1
    return Process(pid, 0, pidfd, master)


def exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Container:
    """What `attach.attach` is given in place of a record."""

    id = "c" * 12
    status = "running"
    exit_code = 77

    def __init__(self, settings: dict[str, Any]) -> None:
        self.options = {"tty": settings.get("tty"), "interactive": settings.get("stdin")}
        self.paths = Paths(settings["base"], settings["base"])

    def refresh(self) -> None:
        self.status = "exited"


def supervise(settings: dict[str, Any], report: Report, *, signals: bool, **connection: Any) -> int:
    path = settings.get("log")
    log = logs.LogWriter(path, settings.get("max_size"), 3) if path else None

    def reported(failure: Error | None) -> None:
        report.add("report", None if failure is None else str(failure))

    return monitor.supervise(
        Task(settings, report),
        tty=bool(settings.get("tty")),
        open_stdin=bool(settings.get("stdin")),
        log=log,
        attach_path=settings.get("attach_path"),
        signals=signals,
        report=reported,
        **connection,
    )


def relayed(settings: dict[str, Any], report: Report) -> int | None:
    own_fd, client_fd = kernel.socketpair(kernel.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setsid()
            os.close(own_fd)
            report.add("monitor", os.getpid())
            supervise(settings, report, signals=False, client_fd=client_fd)
            code = 0
        finally:
            os._exit(code)
    os.close(client_fd)
    try:
        return attach.relay(
            own_fd,
            tty=bool(settings.get("tty")),
            stdin=bool(settings.get("stdin")),
            detach_keys=settings.get("detach_keys"),
            forward=settings.get("forward", True),
        )
    finally:
        report.add("relayed")


def pumped(settings: dict[str, Any], report: Report) -> int | None:
    theirs, ours = (-1, -1, -1), (-1, -1, -1)
    if not settings.get("tty"):
        theirs, ours = open_pipes(bool(settings.get("stdin")))
    process = spawn(settings, theirs)
    close_all(theirs)
    status = attach.pump(
        process,
        streams=ours,
        tty=bool(settings.get("tty")),
        stdin=bool(settings.get("stdin")),
        detach_keys=settings.get("detach_keys"),
    )
    return None if status is None else exit_code(status)


def act(settings: dict[str, Any], report: Report) -> int | None:
    mode = settings["mode"]
    if mode == "local":
        local = monitor.LocalStreams(0 if settings.get("stdin") else -1, 1, 2)
        return supervise(settings, report, signals=settings.get("signals", True), local=local)
    if mode == "detached":
        return supervise(settings, report, signals=False)
    if mode == "relayed":
        return relayed(settings, report)
    if mode == "attach":
        return attach.attach(
            Container(settings),
            stdin=bool(settings.get("stdin")),
            detach_keys=settings.get("detach_keys"),
            sig_proxy=settings.get("sig_proxy", True),
        )
    return pumped(settings, report)


def main() -> int:
    report = Report(sys.argv[1])
    try:
        code = act(json.loads(sys.argv[2]), report)
    except Error as failure:
        report.add("error", str(failure), failure.exit_code)
        return ERROR
    return DETACHED if code is None else code


if __name__ == "__main__":
    sys.exit(main())
