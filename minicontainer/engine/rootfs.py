"""A container's files for the verbs that read or write them from outside: cp, export, diff."""

from __future__ import annotations

import os
from contextlib import contextmanager

from minicontainer import kernel
from minicontainer.engine import task, userids
from minicontainer.engine.records import Container
from minicontainer.errors import InvalidState
from minicontainer.primitives import mounts, overlay, rootfs
from minicontainer.runtime import spec
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


@contextmanager
def opened(container: Container, *, volumes: bool = True) -> Iterator[int]:
    """A descriptor of the container's root, with its volumes, running or not.

    Running: the root of its first process, beneath which the caller resolves every path. Stopped:
    this process, which must be a one-shot command, gets a mount namespace of its own in which the
    overlay and the volumes are mounted; they end with it.
    """
    fd = _running_root(container) if container.running else _mounted_root(container, volumes)
    try:
        yield fd
    finally:
        kernel.close(fd)


def _running_root(container: Container) -> int:
    pid = container.pid
    flags = kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_CLOEXEC
    with step("open the root of the running container"):
        fd = kernel.open(f"/proc/{pid}/root", flags)
    if not container.running:
        kernel.close(fd)
        raise InvalidState(f"container {container.name} ended meanwhile")
    return fd


def _mounted_root(container: Container, volumes: bool) -> int:
    snapshot = task.snapshot_of(container.paths, container.record)
    config = spec.load(container.paths.config(container.id))
    _own_mount_namespace(config["linux"])
    binds = [entry for entry in config.get("mounts", ()) if _is_volume(entry)] if volumes else []
    config = {**config, "mounts": binds, "linux": {}, "process": {}}
    with step("clone the volumes"):
        trees = rootfs.prepare_binds(config, container.paths.container(container.id))
    with step("make the mount namespace private"):
        mounts.make_private()
    path = container.paths.copy(container.id)
    if snapshot is not None:
        path = container.paths.rootfs(container.id)
        overlay.mount(snapshot._replace(volatile=False), path)
    root = rootfs.Root(path, False, [])
    for operation in rootfs.plan(config, container.paths.container(container.id), trees):
        if operation.act is not rootfs.make_devices:
            with step("%s", operation.sentence):
                operation.act(root, *operation.arguments)
    return root.fd


def _own_mount_namespace(linux: dict[str, Any]) -> None:
    with step("make a mount namespace for this command"):
        if os.geteuid() == 0:
            kernel.unshare(kernel.CLONE_NEWNS)
        else:
            userids.enter(linux, kernel.CLONE_NEWNS)


def _is_volume(entry: dict[str, object]) -> bool:
    """A user's bind mount whose source is still there; /proc, /sys and /dev are not files."""
    if entry.get("type") != "bind" or not os.path.exists(str(entry["source"])):
        return False
    top = str(entry["destination"]).split("/")[1]
    return top not in ("proc", "sys", "dev")
