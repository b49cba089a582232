"""Device nodes, the links of /dev and the container's console.

Everything is made through the descriptor of the container's own /dev.  Where mknod(2) is refused
(a user namespace), the host's node of the same number is bound instead, after checking that it is
that device: a link planted at /dev/null must not become the mask or the console (CVE-2025-31133).
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives import inroot, mounts

LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Device = dict[str, Any]


def make(root_fd: int, dev_fd: int, device: Device, *, bind: bool) -> None:
    """Make one node of `linux.devices`; below /dev through `dev_fd`, elsewhere beneath the root.

    bind: take the host's node, because a user namespace cannot mknod. Raises OSError, Error.
    """
    directory, _, name = device["path"].rpartition("/")
    if directory == "/dev":
        parent_fd = kernel.dup(dev_fd)
    else:
        parent_fd = inroot.directory_in_root(root_fd, directory or "/")
    try:
        if bind:
            _bind_node(parent_fd, name, device)
        else:
            _make_node(parent_fd, name, device)
    finally:
        kernel.close(parent_fd)


def _make_node(parent_fd: int, name: str, device: Device) -> None:
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    kind = TYPES[device["type"]]
    mode = device.get("fileMode", 0o666)
    try:
        kernel.mknod(name, kind | mode, number, dir_fd=parent_fd)
    except FileExistsError:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != kind or found.st_rdev != number:
            raise
    owner = (device.get("uid", 0), device.get("gid", 0))
    if owner != (0, 0):
        kernel.chown(name, *owner, dir_fd=parent_fd, follow_symlinks=False)


def _bind_node(parent_fd: int, name: str, device: Device) -> None:
    source: str = device.get("source") or device["path"]
    found = os.stat(source)
    if (os.major(found.st_rdev), os.minor(found.st_rdev)) != (device["major"], device["minor"]):
        raise Error(f"{source} of the host is not device {device['major']}:{device['minor']}")
    target_fd = inroot.file_in_root(parent_fd, name)
    try:
        kernel.mount(source, mounts.fd_path(target_fd), None, kernel.MS_BIND, None)
    finally:
        kernel.close(target_fd)


def link(dev_fd: int) -> None:
    """Make the usual symbolic links; what the image or a mount put there stays."""
    for name, target in LINKS:
        try:
            kernel.symlink(target, name, dir_fd=dev_fd)
        except FileExistsError:
            pass


def open_null() -> int:
    """An O_PATH descriptor of the host's /dev/null, verified to be character device 1:3."""
    fd = kernel.open("/dev/null", kernel.O_PATH | kernel.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
        kernel.close(fd)
        raise Error("/dev/null of the host is not character device 1:3")
    return fd


def open_terminal(root_fd: int) -> tuple[int, int]:
    """A new pseudo-terminal of the container's own devpts: (master, slave).

    Raises Error when what lies at /dev/pts is not a devpts of this kernel.
    """
    ptmx_fd = inroot.open_in_root(root_fd, "dev/pts/ptmx", kernel.O_RDWR | kernel.O_NOCTTY)
    if kernel.statfs_type(ptmx_fd) != kernel.DEVPTS_SUPER_MAGIC:
        kernel.close(ptmx_fd)
        raise Error("/dev/pts of the container is not a devpts file system")
    kernel.unlock_pty(ptmx_fd)
    flags = kernel.O_RDWR | kernel.O_NOCTTY | kernel.O_CLOEXEC
    try:
        slave_fd = kernel.open_pty_peer(ptmx_fd, flags)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.ENOTTY):  # before Linux 4.13
            kernel.close(ptmx_fd)
            raise
        slave_fd = inroot.open_in_root(root_fd, f"dev/pts/{kernel.pty_number(ptmx_fd)}", flags)
    return ptmx_fd, slave_fd


def bind_console(dev_fd: int, slave_fd: int) -> None:
    """Make /dev/console the container's own terminal."""
    target_fd = inroot.file_in_root(dev_fd, "console", 0o620)
    try:
        kernel.mount(
            mounts.fd_path(slave_fd), mounts.fd_path(target_fd), None, kernel.MS_BIND, None
        )
    finally:
        kernel.close(target_fd)
