"""exec: a further command in a running container.

This process relays its streams; in the background another one stays with it until it ends.
"""

from __future__ import annotations

import os

from minicontainer import kernel, steps
from minicontainer.engine import records
from minicontainer.engine.pipes import open_pipes
from minicontainer.errors import Error, InvalidState, UsageError
from minicontainer.runtime import enter, sync
from minicontainer.runtime import process as last_hop
from minicontainer.runtime.children import reap
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from minicontainer.engine.records import Container
    from minicontainer.runtime.children import Process


def execute(container: Container, request: dict[str, Any]) -> int:
    """Run a command in the container and give its exit code; with "detach" 0 once it runs.

    request: command, tty, interactive, detach, env, workdir, user, privileged, detach_keys.
    """
    if not container.running or container.state is None:
        raise InvalidState(f"Container {container.name} is not running")
    if container.status == "paused":
        raise InvalidState(
            f"Container {container.name} is paused", hint="unpause the container before exec"
        )
    streams, ours = _streams(request)
    entry = enter.Request(
        container.state,
        _process(container, request),
        group=container.group(),
        user=request.get("user") or container.options.get("user") or "",
        groups=[] if request.get("user") else container.options.get("group_add") or [],
        streams=streams,
    )
    try:
        if request.get("detach"):
            _start_in_background(entry, request)
            return 0
        process = enter.execute(entry, _prepare_relay)
    except Error as failure:
        raise _as_exec(failure) from failure.__cause__
    finally:
        for fd in streams:
            kernel.close(fd)
    return _relay(process, ours, request)


def _as_exec(failure: Error) -> Error:
    """An unknown user is 126 in exec, 125 in run."""
    if isinstance(failure, UsageError):
        failure.exit_code = 126
    return failure


def _process(container: Container, request: dict[str, Any]) -> dict[str, Any]:
    """The container's own process, with the command and what the caller changed."""
    config = records.config(container)
    process = {**config["process"], "args": request["command"], "terminal": bool(request["tty"])}
    env = process["env"] + (
        [] if config["process"].get("terminal") or not request["tty"] else ["TERM=xterm"]
    )
    process["env"] = merge_env(env, request.get("env") or [])
    if request["tty"]:
        from minicontainer.engine import attach

        process["consoleSize"] = attach.console_size()
    if request.get("workdir"):
        process["cwd"] = request["workdir"]
    if request.get("privileged"):
        from minicontainer.primitives import capabilities

        names = capabilities.names(capabilities.bounding())
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    return process


def merge_env(base: list[str], changes: list[str]) -> list[str]:
    """`base` with each K=V of `changes` in the place of its K, and a bare K removed."""
    merged = {}
    for entry in [*base, *changes]:
        key, equals, _ = entry.partition("=")
        if equals:
            merged[key] = entry
        else:
            merged.pop(key, None)
    return list(merged.values())


def _streams(request: dict[str, Any]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The command's three descriptors and our ends of them (-1: none)."""
    if request.get("detach") or request.get("tty"):
        null_fd = kernel.open("/dev/null", kernel.O_RDWR | kernel.O_CLOEXEC)
        return (null_fd, kernel.dup(null_fd), kernel.dup(null_fd)), (-1, -1, -1)
    return open_pipes(bool(request.get("interactive")))


def _start_in_background(entry: enter.Request, request: dict[str, Any]) -> None:
    """Start the command as the child of a process that stays for it: to reap it, without which
    the container cannot end, should the host's init reap nothing; and to hold its terminal."""
    own_end, far_end = kernel.socketpair()
    with step("fork the keeper of the command"):
        pid = kernel.fork()
    if pid == 0:
        kernel.close(own_end)
        _be_keeper(entry, request, far_end)
    kernel.close(far_end)
    try:
        kind, payload, _ = sync.receive(own_end)
    finally:
        kernel.close(own_end)
    if kind == sync.FAILURE:
        reap(pid)
        raise sync.decode_failure(payload)
    if kind != sync.READY:
        raise Error("the keeper of the command ended before the command had started")


def _be_keeper(entry: enter.Request, request: dict[str, Any], channel: int) -> NoReturn:
    steps.role = "keeper"
    try:
        kernel.setsid()
        process = enter.execute(entry, lambda: None)
        last_hop.close_above(channel, process.pidfd, process.console_fd)
        null_fd = kernel.open("/dev/null", kernel.O_RDWR | kernel.O_CLOEXEC)
        last_hop.use_streams((null_fd, null_fd, null_fd))
        kernel.chdir("/")
        sync.send(channel, sync.READY)
        kernel.close(channel)
        if process.console_fd < 0:
            reap(process.pid)
        else:
            _relay(process, (-1, -1, -1), {**request, "interactive": False})
    except BaseException as failure:  # the caller's stack must not unwind in this process
        try:
            sync.send(channel, sync.FAILURE, sync.encode_failure(failure))
        except OSError:
            pass
    finally:
        os._exit(0)


def _prepare_relay() -> None:
    """Import what relays the streams: a millisecond that the stage works in as well."""
    from minicontainer.engine import attach  # noqa: F401


def _relay(process: Process, ours: tuple[int, int, int], request: dict[str, Any]) -> int:
    from minicontainer.engine import attach

    status = attach.pump(
        process,
        streams=ours,
        tty=bool(request["tty"]),
        stdin=bool(request.get("interactive")),
        detach_keys=request.get("detach_keys"),
    )
    if status is None:  # detached
        return 0
    return 128 + (status & 0x7F) if status & 0x7F else os.WEXITSTATUS(status)
