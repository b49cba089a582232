"""exec: a further process in a running container, with the container's confinement.

    parent                          stage (a fork, invisible to the container)
    fork ─────────────────────────▶ joins the cgroup, then user, ipc, uts, net, cgroup, mnt and,
                                    for its children, pid; looks the user up; becomes it
    ◀──────────────── READY, pid    forks the command's process, which alone is in the pid
    becomes its parent (subreaper)  namespace, and ends
    ◀─ end of file: it runs. A FAILURE record instead: it does not

All privilege is dropped before the fork, so that no process of ours is ever visible inside with
more than the container's own capabilities (CONFINEMENT X3).
"""

from __future__ import annotations

import os

from minicontainer import kernel, steps
from minicontainer.errors import CommandNotInvocable, Error, InvalidState
from minicontainer.kernel import procfs
from minicontainer.primitives import devices, namespaces
from minicontainer.runtime import process as last_hop
from minicontainer.runtime import state as facts
from minicontainer.runtime import sync
from minicontainer.runtime.children import Process, reap
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from minicontainer.primitives.cgroups import Group


class Request:
    """What to run and in which container: all that the stage needs, gathered before the fork."""

    def __init__(
        self,
        state: dict[str, Any],
        process: dict[str, Any],
        *,
        group: Group | None,
        user: str | None,
        groups: list[str],
        streams: tuple[int, int, int],
    ) -> None:
        self.state = state
        self.process = process
        self.group = group
        self.user = user
        self.groups = groups
        self.streams = streams
        self.namespaces: list[tuple[str, int]] = []
        self.channel_fd = -1


def execute(request: Request, meanwhile: Callable[[], object] = bool) -> Process:
    """Start the process; the caller becomes its parent. Raises InvalidState when the container
    is not running, and whatever Error the stage met.

    meanwhile: called once, while the stage is at work.
    """
    request.namespaces = namespaces.open_all(request.state["pid"], list(namespaces.KINDS))
    if not facts.is_alive(request.state):
        raise InvalidState("the container is not running")
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    parent_end, request.channel_fd = kernel.socketpair()
    try:
        with step("fork into the container"):
            stage_pid = kernel.fork()
        if stage_pid == 0:
            _stage(request, parent_end)
        kernel.close(request.channel_fd)
        request.channel_fd = -1
        meanwhile()
        return _follow(parent_end, stage_pid)
    finally:
        for fd in (parent_end, request.channel_fd, *(fd for _, fd in request.namespaces)):
            if fd >= 0:
                kernel.close(fd)


def _follow(channel: int, stage_pid: int) -> Process:
    pid, console_fd = 0, -1
    while True:
        kind, payload, fds = sync.receive(channel)
        if kind == sync.READY:
            pid, console_fd = int(payload), fds[0] if fds else -1
        elif kind == sync.FAILURE:
            reap(stage_pid)
            if pid:
                reap(pid)
            raise sync.decode_failure(payload)
        else:
            break
    reap(stage_pid)
    if not pid:
        raise InvalidState("the container ended while the command was being started")
    try:
        pidfd = kernel.pidfd_open(pid)
    except OSError:  # before Linux 5.3, or the command has ended already
        pidfd = -1
    return Process(pid, procfs.start_time(pid), pidfd, console_fd)


def _stage(request: Request, parent_end: int) -> NoReturn:
    steps.role = "stage"
    try:
        sync.forbid_imports()
        kernel.close(parent_end)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        if request.group is not None:
            request.group.join()
        _join(request.namespaces)
        process = last_hop.identify(request.process, request.user, request.groups)
        user = process["user"]
        _enter_directory(process.get("cwd", "/"))
        master_fd, slave_fd = _terminal(process)
        if slave_fd < 0:
            last_hop.use_streams(request.streams)
            last_hop.own_streams(user["uid"], user["gid"])
        else:
            kernel.fchown(slave_fd, user["uid"], -1)
        last_hop.set_limits(process)
        last_hop.new_keyring(request.state["id"])
        # seccomp without no_new_privs is loaded here: it needs CAP_SYS_ADMIN.
        last_hop.become(process)
        path = last_hop.find_command(process["args"][0], process["env"])
        _fork_command(request, process, path, slave_fd, master_fd)
    except BaseException as failure:  # the parent's stack must not unwind in this process
        _report(request.channel_fd, failure)
    finally:
        os._exit(125)


def _enter_directory(cwd: str) -> None:
    """The working directory was chosen for this command: it is the command that cannot run."""
    try:
        last_hop.enter_directory(cwd)
    except Error as failure:
        raise CommandNotInvocable(str(failure)) from failure


def _fork_command(
    request: Request, process: dict[str, Any], path: str, slave_fd: int, master_fd: int
) -> NoReturn:
    with step("fork in the container's pid namespace"):
        pid = kernel.fork()
    if pid:
        fds = (master_fd,) if master_fd >= 0 else ()
        sync.send(request.channel_fd, sync.READY, str(pid), fds)
        os._exit(0)
    kernel.setsid()
    if slave_fd >= 0:
        with step("take the terminal"):
            last_hop.take_terminal(slave_fd, process)
    last_hop.reset_signals()
    # seccomp with no_new_privs is loaded here, as the last thing.
    last_hop.close_above(request.channel_fd)
    last_hop.execute(path, process, process["args"][0])


def _join(joined: list[tuple[str, int]]) -> None:
    """The user namespace first, as it gives the right to the others; mnt last, as it changes
    what every path means; pid counts for children only."""
    order = {"user": 0, "mount": 2}
    for kind, fd in sorted(joined, key=lambda entry: order.get(entry[0], 1)):
        with step("join the container's %s namespace", kind):
            kernel.setns(fd, namespaces.KINDS[kind][0])
        if kind == "user":
            kernel.setresgid(0, 0, 0)
            kernel.setresuid(0, 0, 0)


def _terminal(process: dict[str, Any]) -> tuple[int, int]:
    if not process.get("terminal"):
        return -1, -1
    with step("open a terminal of the container"):
        root_fd = kernel.open("/", kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
        try:
            return devices.open_terminal(root_fd)
        finally:
            kernel.close(root_fd)


def _report(channel_fd: int, failure: BaseException) -> None:
    try:
        sync.send(channel_fd, sync.FAILURE, sync.encode_failure(failure))
    except OSError:
        pass  # the parent is gone: nobody is left to be told
