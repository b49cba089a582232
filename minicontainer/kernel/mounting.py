"""Mounts and file system contexts.

Man pages: mount(2), umount2(2), pivot_root(2), open_tree(2), move_mount(2), fsopen(2),
fsconfig(2), fsmount(2), mount_setattr(2), openat2(2), statfs(2), syncfs(2).
"""

from __future__ import annotations

import os

from minicontainer.kernel import constants
from minicontainer.kernel.libc import library, number, output, syscall, text, words

__all__ = [
    "fsconfig",
    "fsmount",
    "fsopen",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "openat2",
    "pivot_root",
    "renameat2",
    "statfs_type",
    "syncfs",
    "umount2",
]

_mount = library("mount", "sssLs")
_umount2 = library("umount2", "si")
_pivot_root = syscall("ss")
_open_tree = syscall("isI")
_move_mount = syscall("isisI")
_fsopen = syscall("sI")
_fsconfig = syscall("iIspi")
_fsmount = syscall("iII")
_mount_setattr = syscall("isIpL")
_openat2 = syscall("ispL")
_statfs = library("statfs", "sp")
_fstatfs = library("fstatfs", "ip")
_syncfs = library("syncfs", "i")
_renameat2 = syscall("isisI")


def mount(
    source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None
) -> None:
    """Mount, bind, move or change a mount, as the flags say. mount(2)"""
    _mount(text(source), text(target), text(fstype), flags, text(data))


def umount2(target: str, flags: int = 0) -> None:
    """Take a mount away. umount2(2)"""
    _umount2(text(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace, the old one at `put_old`."""
    _pivot_root(constants.SYS_pivot_root, text(new_root), text(put_old))


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """A descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy (5.2)."""
    return _open_tree(
        constants.SYS_open_tree, dirfd, text(path), flags | constants.OPEN_TREE_CLOEXEC
    )


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """Attach a detached mount, or move an attached one (5.2)."""
    _move_mount(constants.SYS_move_mount, from_fd, text(from_path), to_fd, text(to_path), flags)


def fsopen(fstype: str, flags: int = constants.FSOPEN_CLOEXEC) -> int:
    """A descriptor of a new file system context (5.2)."""
    return _fsopen(constants.SYS_fsopen, text(fstype), flags | constants.FSOPEN_CLOEXEC)


def fsconfig(fd: int, command: int, key: str | None, value: str | bytes | None, aux: int) -> None:
    """One parameter or command of a context; a failure's `detail` is the context's log (5.2)."""
    data = text(value) if isinstance(value, str) else value
    try:
        _fsconfig(constants.SYS_fsconfig, fd, command, text(key), data, aux)
    except OSError as failure:
        failure.detail = _log(fd)  # type: ignore[attr-defined]
        raise


def fsmount(fd: int, flags: int = constants.FSMOUNT_CLOEXEC, attributes: int = 0) -> int:
    """A descriptor of the detached mount of a created context (5.2)."""
    try:
        return _fsmount(constants.SYS_fsmount, fd, flags | constants.FSMOUNT_CLOEXEC, attributes)
    except OSError as failure:
        failure.detail = _log(fd)  # type: ignore[attr-defined]
        raise


def _log(fd: int) -> str:
    """What a file system context has to say; each read takes one message out of it."""
    messages = []
    try:
        while message := os.read(fd, 1024):
            # `e overlay: ...`: the letter is the severity.
            messages.append(message.decode("utf-8", "replace").strip().partition(" ")[2])
    except OSError:  # ENODATA: that was all; EBADF: it was not a context
        pass
    return "; ".join(messages)


def mount_setattr(
    fd: int,
    path: str,
    flags: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change the attributes of a mount, with AT_RECURSIVE of all below it (5.12)."""
    attributes = words((attr_set, attr_clr, propagation, userns_fd), 8)
    _mount_setattr(constants.SYS_mount_setattr, fd, text(path), flags, attributes, len(attributes))


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """A descriptor of `path`, resolved within the limits of `resolve` (5.6)."""
    how = words((flags | constants.O_CLOEXEC, mode, resolve), 8)
    return _openat2(constants.SYS_openat2, dirfd, text(path), how, len(how))


def renameat2(olddirfd: int, old: str, newdirfd: int, new: str, flags: int) -> None:
    """Rename without replacing, or exchange two names (3.15)."""
    _renameat2(constants.SYS_renameat2, olddirfd, text(old), newdirfd, text(new), flags)


def statfs_type(where: int | str) -> int:
    """The magic number (*_MAGIC) of the file system of a path or descriptor."""
    answer = bytearray(256)
    if isinstance(where, int):
        _fstatfs(where, output(answer))
    else:
        _statfs(text(where), output(answer))
    # f_type is the first field; long or int, the magic is in its first four bytes on every
    # machine we know (of the big-endian ones only s390x, where it is an int).
    return number(answer[:4])


def syncfs(fd: int) -> None:
    """Write out the file system of a descriptor."""
    _syncfs(fd)
