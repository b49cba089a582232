"""Making and joining namespaces: namespaces(7), unshare(2), setns(2).

A pid namespace is entered by children only, so the caller unshares (or joins) one, forks, and
returns to its own.  A user namespace must own the others, so there a short-lived stage makes all
of them and forks the container's first process, which the caller inherits as a subreaper.
"""

from __future__ import annotations

import errno
import os

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# OCI's word -> (the kernel's flag, the file below /proc/PID/ns)
KINDS = {
    "user": (kernel.CLONE_NEWUSER, "user"),
    "pid": (kernel.CLONE_NEWPID, "pid"),
    "mount": (kernel.CLONE_NEWNS, "mnt"),
    "uts": (kernel.CLONE_NEWUTS, "uts"),
    "ipc": (kernel.CLONE_NEWIPC, "ipc"),
    "network": (kernel.CLONE_NEWNET, "net"),
    "cgroup": (kernel.CLONE_NEWCGROUP, "cgroup"),
    "time": (kernel.CLONE_NEWTIME, "time"),
}


def wanted(config: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """The flags of the namespaces to make, and (kind, path) of those to join."""
    flags, joined = 0, []
    for entry in config.get("linux", {}).get("namespaces", ()):
        if entry.get("path"):
            joined.append((entry["type"], entry["path"]))
        else:
            flags |= KINDS[entry["type"]][0]
    return flags, joined


def open_path(path: str) -> int:
    """A descriptor of the namespace file `path`."""
    return kernel.open(path, kernel.O_RDONLY | kernel.O_CLOEXEC)


def open_all(pid: int, kinds: list[str]) -> list[tuple[str, int]]:
    """(kind, descriptor) for the namespaces of process `pid` that differ from ours, user first."""
    found = []
    for kind in sorted(kinds, key=lambda name: name != "user"):
        name = KINDS[kind][1]
        try:
            own = os.stat(f"/proc/self/ns/{name}").st_ino
            fd = open_path(f"/proc/{pid}/ns/{name}")
        except FileNotFoundError:  # the kernel has no namespaces of this kind, or pid is gone
            continue
        if os.fstat(fd).st_ino == own:
            kernel.close(fd)
        else:
            found.append((kind, fd))
    return found


def fork_into(pid_namespace: int | str | None) -> int:
    """Fork a child whose pid namespace is a new one ("new"), a given one (descriptor) or ours.

    Returns as fork(2); the caller's own later children are born in its own namespace again.
    """
    if pid_namespace is None:
        return kernel.fork()
    own_fd = open_path("/proc/self/ns/pid")
    try:
        if isinstance(pid_namespace, int):
            kernel.setns(pid_namespace, kernel.CLONE_NEWPID)
        else:
            kernel.unshare(kernel.CLONE_NEWPID)
        try:
            pid = kernel.fork()
        except OSError as failure:
            kernel.setns(own_fd, kernel.CLONE_NEWPID)
            if failure.errno == errno.ENOMEM and isinstance(pid_namespace, int):
                raise ProcessLookupError(errno.ESRCH, "its pid namespace has ended") from failure
            raise
        if pid:
            kernel.setns(own_fd, kernel.CLONE_NEWPID)
        return pid
    finally:
        kernel.close(own_fd)
