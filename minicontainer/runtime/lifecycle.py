"""The parent's side of a container's life: create, start, kill, delete.

`create` returns once the first process has built everything and waits for `start`; the order of
the two sides is drawn in `sync`.
"""

from __future__ import annotations

import errno
import os

from minicontainer import kernel
from minicontainer.errors import Error, InvalidState
from minicontainer.kernel import procfs
from minicontainer.primitives import namespaces
from minicontainer.runtime import init, sync
from minicontainer.runtime.children import Process, open_pidfd, reap
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Creation", "Process", "create", "reap", "remove_fifos", "start"]

FIFO, CONTROL = "exec.fifo", "control.fifo"


class Creation:
    """A container being created: forked, and building everything while the caller goes on.

    Ends with `finish` or `abandon`, one of which must be called.
    """

    def __init__(self, launch: init.Launch, state_dir: str) -> None:
        """Fork the container's first process.

        state_dir: an existing directory, 0700, for the two FIFOs. The caller's descriptors that a
        lock lives on go into launch.inherited. Raises KernelError; then no process is left.
        """
        self._launch = launch
        self._state_dir = state_dir
        self._channel, launch.channel_fd = kernel.socketpair()
        self._pids: list[int] = []
        try:
            with step("make the start FIFOs in %s", state_dir):
                _open_fifos(launch, state_dir)
            self._pids.append(_fork(launch, self._channel))
        except BaseException:
            self.abandon()
            raise
        kernel.close(launch.channel_fd)
        launch.channel_fd = -1

    @property
    def pid(self) -> int:
        """The first process, 0 while a user namespace is being entered for it."""
        return 0 if self._launch.owned else self._pids[-1]

    def finish(self) -> Process:
        """Wait until the process stands ready. Raises the Error that it met; then it is gone."""
        pids = self._pids
        try:
            console_fd = _follow(self._launch, self._channel, pids)
            process = Process(
                pids[-1], procfs.start_time(pids[-1]), open_pidfd(pids[-1]), console_fd
            )
        except BaseException:
            self.abandon()
            raise
        self._close()
        return process

    def abandon(self) -> None:
        """Kill what was made of it."""
        for pid in self._pids:
            _end(pid)
        remove_fifos(self._state_dir)
        self._close()

    def _close(self) -> None:
        launch = self._launch
        for fd in (self._channel, launch.channel_fd, launch.fifo_fd, launch.control_fd):
            if fd >= 0:
                kernel.close(fd)
        self._channel = launch.channel_fd = launch.fifo_fd = launch.control_fd = -1


def create(launch: init.Launch, state_dir: str) -> Process:
    """Fork the container's first process and wait until it stands ready: see `Creation`."""
    return Creation(launch, state_dir).finish()


def start(state_dir: str) -> None:
    """Let a created container's command run; returns when it does.

    Raises InvalidState when nothing waits there, and what only execve can tell.
    """
    try:
        fifo_fd = kernel.open(f"{state_dir}/{FIFO}", kernel.O_WRONLY | kernel.O_NONBLOCK)
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ENXIO):
            raise InvalidState("the container is not waiting to be started") from None
        raise
    control_fd = -1
    try:
        control_fd = kernel.open(f"{state_dir}/{CONTROL}", kernel.O_RDONLY | kernel.O_NONBLOCK)
        kernel.write(fifo_fd, b"\n")
        record = _read_to_end(control_fd)
    finally:
        kernel.close(fifo_fd)
        if control_fd >= 0:
            kernel.close(control_fd)
    remove_fifos(state_dir)
    if record:
        raise sync.decode_failure(record.decode("utf-8", "surrogateescape"))


def remove_fifos(state_dir: str) -> None:
    """Remove what `create` left for `start`; may be repeated."""
    for name in (FIFO, CONTROL):
        try:
            kernel.unlink(f"{state_dir}/{name}")
        except FileNotFoundError:
            pass


def _open_fifos(launch: init.Launch, state_dir: str) -> None:
    """Both are opened for reading and writing, so that waiting is a read and names no path."""
    remove_fifos(state_dir)
    fds = []
    for name in (FIFO, CONTROL):
        kernel.mkfifo(f"{state_dir}/{name}", 0o600)
        fds.append(kernel.open(f"{state_dir}/{name}", kernel.O_RDWR | kernel.O_CLOEXEC))
    launch.fifo_fd, launch.control_fd = fds


def _fork(launch: init.Launch, parent_end: int) -> int:
    pid_namespace: int | str | None = None
    if launch.owned:
        # The stage's child is orphaned to us: we must be there to inherit it.
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    elif launch.flags & kernel.CLONE_NEWPID:
        pid_namespace = "new"
    path = next((path for kind, path in launch.joined if kind == "pid"), None)
    if path is not None and not launch.owned:
        with step("join the pid namespace %s", path):
            pid_namespace = namespaces.open_path(path)
    with step("fork the container's first process"):
        pid = namespaces.fork_into(pid_namespace)
    if pid == 0:
        launch.inherited.append(parent_end)
        if launch.owned:
            init.stage(launch)
        init.main(launch)
    if isinstance(pid_namespace, int):
        kernel.close(pid_namespace)
    return pid


def _follow(launch: init.Launch, channel: int, pids: list[int]) -> int:
    """Serve the child until it is ready; the terminal's master or -1."""
    while True:
        kind, payload, fds = sync.receive(channel)
        if kind == sync.READY:
            return fds[0] if fds else -1
        if kind == sync.MAPS:
            _write_maps(int(payload), launch.config["linux"])
            sync.send(channel, sync.MAPS)
        elif kind == sync.PID:
            reap(pids.pop())
            pids.append(int(payload))
        elif kind == sync.FAILURE:
            raise sync.decode_failure(payload)
        else:
            raise Error(_obituary(pids))


def _obituary(pids: list[int]) -> str:
    status = reap(pids.pop()) if pids else 0
    how = f"killed by signal {status & 0x7F}" if status & 0x7F else f"ended with {status >> 8}"
    return f"the container's first process was {how} while being set up"


def _end(pid: int) -> None:
    try:
        kernel.kill(pid, kernel.SIGKILL)
    except ProcessLookupError:
        pass
    reap(pid)


def _read_to_end(fd: int) -> bytes:
    poller = kernel.poll()
    poller.register(fd, 0x1)  # POLLIN; the end of the file comes as POLLHUP
    record = b""
    while True:
        poller.poll()
        piece = os.read(fd, 65536)
        if not piece:
            return record
        record += piece


def _write_maps(pid: int, linux: dict[str, Any]) -> None:
    """Map the ids of a new user namespace: user_namespaces(7).

    With our own privilege where we have it; else one id by ourselves, more by newuidmap(1).
    """
    uids, gids = linux.get("uidMappings", []), linux.get("gidMappings", [])
    if os.geteuid() != 0 and (len(uids) > 1 or uids[0]["size"] > 1):
        for program, mappings in (("newuidmap", uids), ("newgidmap", gids)):
            _run_mapper(program, pid, mappings)
        return
    if os.geteuid() != 0:
        with step("forbid setgroups in the user namespace"):
            kernel.write_file(f"/proc/{pid}/setgroups", "deny")
    for name, mappings in (("uid_map", uids), ("gid_map", gids)):
        with step("map ids: %s", name):
            kernel.write_file(f"/proc/{pid}/{name}", _map_text(mappings))


def _map_text(mappings: list[dict[str, int]]) -> str:
    return "".join(
        f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings
    )


def _run_mapper(program: str, pid: int, mappings: list[dict[str, int]]) -> None:
    numbers = _map_text(mappings).split()
    with step("map ids with %s", program):
        child = os.posix_spawnp(program, [program, str(pid), *numbers], os.environ)
    if reap(child) != 0:
        raise Error(
            f"{program} refused to map the ids of the container",
            hint="compare /etc/subuid and /etc/subgid with the ranges asked for",
        )
