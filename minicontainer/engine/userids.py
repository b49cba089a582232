"""Acting on files of all the ids that an ordinary user's containers have: user_namespaces(7).

Such files belong to the user or to ids that /etc/subuid gives to them, so only a process in a user
namespace with the same ids may read, change and delete them all.  Root needs none of this.
"""

from __future__ import annotations

import errno
import os

from minicontainer import kernel
from minicontainer.errors import Error, InvalidState
from minicontainer.runtime import spec
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minicontainer.engine.records import Container

    Linux = dict[str, Any]


def join(container: Container) -> None:
    """Become root of the running container's user namespace, if an ordinary user made it.

    There is no way back, and the process must have one thread: for commands that then end.
    """
    if os.geteuid() == 0 or not container.running:
        return
    with step("join the user namespace of container %s", container.name):
        fd = kernel.open(f"/proc/{container.pid}/ns/user", kernel.O_RDONLY | kernel.O_CLOEXEC)
        try:
            kernel.setns(fd, kernel.CLONE_NEWUSER)
        finally:
            kernel.close(fd)


def mappings(config_path: str) -> Linux:
    """The members of `linux` in a config.json that say which ids a container has; {} for none."""
    if os.geteuid() == 0:
        return {}
    try:
        linux: Linux = spec.load(config_path).get("linux") or {}
    except (Error, OSError):
        return {}
    return {key: linux[key] for key in ("uidMappings", "gidMappings") if linux.get(key)}


def has_ranges(linux: Linux) -> bool:
    """Whether a container with these mappings may have files that are not the user's own."""
    count: int = sum(entry["size"] for entry in linux.get("uidMappings") or ())
    return count > 1


def enter(linux: Linux, flags: int = 0) -> None:
    """Become root of a new user namespace with the mappings of an OCI configuration.

    flags: CLONE_NEW* of further namespaces, which belong to it. There is no way back.
    """
    own = os.getpid()
    reading, writing = kernel.pipe2()
    helper = -1
    if has_ranges(linux):
        # newuidmap(1) must be run outside of the namespace, and after it was made.
        helper = kernel.fork()
        if helper == 0:
            _map_when_told(own, linux, reading, writing)
    kernel.close(reading)
    try:
        with step("make a user namespace for this command"):
            _unshare(flags)
            if helper < 0:
                _map_own_id(linux)
    finally:
        kernel.close(writing)
        status = kernel.waitpid(helper, 0)[1] if helper > 0 else 0
    if status:
        raise Error(
            "newuidmap or newgidmap refused to map the ids of the container",
            hint="compare /etc/subuid and /etc/subgid with the ranges in its config.json",
        )


def call(linux: Linux, act: Callable[[], None]) -> None:
    """Call `act` in a child with these ids. Raises OSError with its errno where it failed."""
    child = kernel.fork()
    if child == 0:
        code = errno.EIO
        try:
            enter(linux)
            act()
            code = 0
        except Error as failure:
            code = getattr(failure, "errno", 0) or errno.EPERM
        except OSError as failure:
            code = failure.errno or errno.EIO
        finally:
            os._exit(code)
    code = kernel.waitpid(child, 0)[1] >> 8
    if code:
        raise OSError(code, os.strerror(code))


def _unshare(flags: int) -> None:
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | flags)
    except OSError as failure:
        if failure.errno == errno.EINVAL:
            raise InvalidState("this needs a process with one thread") from failure
        raise


def _map_own_id(linux: Linux) -> None:
    kernel.write_file("/proc/self/setgroups", "deny")
    for name, key in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
        kernel.write_file(f"/proc/self/{name}", " ".join(_numbers(linux[key])))


def _numbers(entries: list[dict[str, int]]) -> list[str]:
    keys = ("containerID", "hostID", "size")
    return [str(entry[key]) for entry in entries for key in keys]


def _map_when_told(pid: int, linux: Linux, reading: int, writing: int) -> None:
    """In the helper: map the ids of process `pid` once it has its namespace, and end."""
    try:
        kernel.close(writing)
        os.read(reading, 1)
        for program, key in (("newuidmap", "uidMappings"), ("newgidmap", "gidMappings")):
            argv = [program, str(pid), *_numbers(linux[key])]
            child = os.posix_spawnp(program, argv, os.environ)
            if kernel.waitpid(child, 0)[1]:
                return
        os._exit(0)
    finally:
        os._exit(1)
