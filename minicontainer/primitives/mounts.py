"""Mounting by descriptor: nothing here resolves a path below a container's root.

A bind is a detached clone (open_tree(2)) that gets its attributes before it is attached
(move_mount(2)), so there is no moment at which it is writable and should not be.  On kernels
before 5.2 the classic calls do the same through /proc/self/fd; before 5.12 the attributes are set
by a remount right after attaching.  A new file system is mounted with mount(2) on
/proc/self/fd/N, one call on every kernel.

Option words: mount(8), and "Linux mount options" of the OCI runtime specification.
"""

from __future__ import annotations

import errno
import os

from minicontainer import kernel
from minicontainer.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
else:
    from minicontainer.tuples import namedtuple

# word -> (set, clear) of MS_ flags; the attributes of a bind are derived from them.
_FLAGS = {
    "defaults": (0, 0),
    "ro": (kernel.MS_RDONLY, 0),
    "rw": (0, kernel.MS_RDONLY),
    "nosuid": (kernel.MS_NOSUID, 0),
    "suid": (0, kernel.MS_NOSUID),
    "nodev": (kernel.MS_NODEV, 0),
    "dev": (0, kernel.MS_NODEV),
    "noexec": (kernel.MS_NOEXEC, 0),
    "exec": (0, kernel.MS_NOEXEC),
    "sync": (kernel.MS_SYNCHRONOUS, 0),
    "async": (0, kernel.MS_SYNCHRONOUS),
    "dirsync": (kernel.MS_DIRSYNC, 0),
    "mand": (kernel.MS_MANDLOCK, 0),
    "nomand": (0, kernel.MS_MANDLOCK),
    "noatime": (kernel.MS_NOATIME, kernel.MS_RELATIME | kernel.MS_STRICTATIME),
    "atime": (0, kernel.MS_NOATIME),
    "nodiratime": (kernel.MS_NODIRATIME, 0),
    "diratime": (0, kernel.MS_NODIRATIME),
    "relatime": (kernel.MS_RELATIME, kernel.MS_NOATIME | kernel.MS_STRICTATIME),
    "norelatime": (0, kernel.MS_RELATIME),
    "strictatime": (kernel.MS_STRICTATIME, kernel.MS_NOATIME | kernel.MS_RELATIME),
    "nostrictatime": (0, kernel.MS_STRICTATIME),
    "nosymfollow": (kernel.MS_NOSYMFOLLOW, 0),
    "symfollow": (0, kernel.MS_NOSYMFOLLOW),
    "silent": (kernel.MS_SILENT, 0),
    "loud": (0, kernel.MS_SILENT),
    "iversion": (kernel.MS_I_VERSION, 0),
    "noiversion": (0, kernel.MS_I_VERSION),
}
_PROPAGATION = {
    "private": kernel.MS_PRIVATE,
    "shared": kernel.MS_SHARED,
    "slave": kernel.MS_SLAVE,
    "unbindable": kernel.MS_UNBINDABLE,
}
_IGNORED = {"auto", "noauto", "user", "nouser", "_netdev", "z", "Z", "nocopy"}
# What mount_setattr can change on a mount, by the MS_ flag that means the same.
_ATTRIBUTES = {
    kernel.MS_RDONLY: kernel.MOUNT_ATTR_RDONLY,
    kernel.MS_NOSUID: kernel.MOUNT_ATTR_NOSUID,
    kernel.MS_NODEV: kernel.MOUNT_ATTR_NODEV,
    kernel.MS_NOEXEC: kernel.MOUNT_ATTR_NOEXEC,
    kernel.MS_NODIRATIME: kernel.MOUNT_ATTR_NODIRATIME,
    kernel.MS_NOSYMFOLLOW: kernel.MOUNT_ATTR_NOSYMFOLLOW,
}

# bind: None, "bind" or "rbind"; flags/clear and recursive_set/recursive_clear: MS_ bits;
# propagation: MS_ bits with MS_REC or 0; data: what the file system itself reads; optional
# (nofail): left out where the root's owner lets us make no target.
Options = namedtuple(
    "Options", "bind flags clear recursive_set recursive_clear propagation data copy_up optional"
)


def parse_options(words: list[str]) -> Options:
    """The meaning of a mount's option words; raises SpecError for contradictory ones."""
    bind, flags, clear, recursive_set, recursive_clear, propagation = None, 0, 0, 0, 0, 0
    data = []
    copy_up = optional = False
    for word in words:
        plain = word[1:] if word.startswith("r") else ""
        if word in ("bind", "rbind"):
            bind = word
        elif word in _FLAGS:
            on, off = _FLAGS[word]
            flags, clear = (flags | on) & ~off, (clear | off) & ~on
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif plain in _PROPAGATION:
            propagation = _PROPAGATION[plain] | kernel.MS_REC
        elif plain in _FLAGS and _FLAGS[plain] != (0, 0):
            on, off = _FLAGS[plain]
            recursive_set = (recursive_set | on) & ~off
            recursive_clear = (recursive_clear | off) & ~on
        elif word == "tmpcopyup":
            copy_up = True
        elif word == "nofail":
            optional = True
        elif word not in _IGNORED:
            data.append(word)
    if bind and data:
        raise SpecError(f"/mounts: unknown option for a bind mount: {data[0]}")
    text = ",".join(data)
    return Options(
        bind, flags, clear, recursive_set, recursive_clear, propagation, text, copy_up, optional
    )


def fd_path(fd: int) -> str:
    """A path that names exactly what `fd` holds, for calls that take no descriptor."""
    return f"/proc/self/fd/{fd}"


def mount_on(fd: int, fstype: str, source: str, flags: int = 0, data: str | None = None) -> None:
    """Mount a new file system on the directory `fd`. Raises OSError as mount(2)."""
    kernel.mount(source, fd_path(fd), fstype, flags, data or None)


def make_private() -> None:
    """Cut this mount namespace off from its origin: nothing propagates either way."""
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE, None)


def clone(source: str, *, dirfd: int = -100, recursive: bool = True) -> int:
    """A detached copy of the mount at `source` (or of what `dirfd` holds, with ""), as descriptor.

    Raises OSError; ENOSYS before Linux 5.2.
    """
    flags = kernel.OPEN_TREE_CLONE | kernel.OPEN_TREE_CLOEXEC
    if recursive:
        flags |= kernel.AT_RECURSIVE
    if not source:
        flags |= kernel.AT_EMPTY_PATH
    return kernel.open_tree(dirfd, source, flags)


def attach(tree_fd: int, target_fd: int) -> None:
    """Put a detached tree on top of what `target_fd` holds."""
    kernel.move_mount(
        tree_fd,
        "",
        target_fd,
        "",
        kernel.MOVE_MOUNT_F_EMPTY_PATH | kernel.MOVE_MOUNT_T_EMPTY_PATH,
    )


def set_attributes(
    tree_fd: int, set_flags: int, clear_flags: int, propagation: int = 0, *, recursive: bool
) -> None:
    """Change MS_ flags of a detached tree, and its propagation type (MS_SHARED …) unless it is 0.

    Raises OSError; ENOSYS before Linux 5.12.
    """
    on = off = 0
    for flag, attribute in _ATTRIBUTES.items():
        if set_flags & flag:
            on |= attribute
        if clear_flags & flag:
            off |= attribute
    for flag, attribute in (
        (kernel.MS_NOATIME, kernel.MOUNT_ATTR_NOATIME),
        (kernel.MS_STRICTATIME, kernel.MOUNT_ATTR_STRICTATIME),
        (kernel.MS_RELATIME, kernel.MOUNT_ATTR_RELATIME),
    ):
        if set_flags & flag:
            on |= attribute
            off |= kernel.MOUNT_ATTR__ATIME
    if on or off or propagation:
        flags = kernel.AT_EMPTY_PATH | (kernel.AT_RECURSIVE if recursive else 0)
        kernel.mount_setattr(tree_fd, "", flags, on, off, propagation)


def prepare_bind(source: str, options: Options, *, dirfd: int = -100) -> int:
    """A detached tree for the bind mount of `source` with all its attributes set.

    Raises OSError; ENOSYS when the kernel has no detached mounts or cannot set their attributes.
    """
    whole = options.bind != "bind"
    tree_fd = clone(source, dirfd=dirfd, recursive=whole)
    propagation = options.propagation or kernel.MS_PRIVATE | kernel.MS_REC
    kind = propagation & ~kernel.MS_REC
    on, off = options.recursive_set, options.recursive_clear
    try:
        if whole and propagation & kernel.MS_REC:
            set_attributes(tree_fd, on, off, kind, recursive=True)
            kind = 0
        elif on or off:
            set_attributes(tree_fd, on, off, recursive=True)
        set_attributes(tree_fd, options.flags, options.clear, kind, recursive=False)
    except BaseException:
        kernel.close(tree_fd)
        raise
    return tree_fd


def bind_by_path(source: str, reopen, options: Options) -> None:  # type: ignore[no-untyped-def]
    """Bind `source` with mount(2), for kernels without detached mounts (before 5.12).

    `reopen()` gives a new descriptor of the target each time: after mounting, the old one still
    means what lies beneath.
    """
    recursive = 0 if options.bind == "bind" else kernel.MS_REC
    target_fd = reopen()
    try:
        kernel.mount(source, fd_path(target_fd), None, kernel.MS_BIND | recursive, None)
    finally:
        kernel.close(target_fd)
    target_fd = reopen()
    try:
        target = fd_path(target_fd)
        kernel.mount(None, target, None, options.propagation or kernel.MS_PRIVATE | recursive, None)
        flags = options.flags | options.recursive_set
        if flags or options.clear:
            kept = _current_flags(target_fd)
            wanted = (kept | flags) & ~options.clear
            kernel.mount(None, target, None, kernel.MS_REMOUNT | kernel.MS_BIND | wanted, None)
    finally:
        kernel.close(target_fd)


def _current_flags(fd: int) -> int:
    """The MS_ flags a mount has now: a remount that drops a locked one is refused."""
    shown = os.fstatvfs(fd).f_flag
    same = {
        os.ST_RDONLY: kernel.MS_RDONLY,
        os.ST_NOSUID: kernel.MS_NOSUID,
        os.ST_NODEV: kernel.MS_NODEV,
        os.ST_NOEXEC: kernel.MS_NOEXEC,
        os.ST_NOATIME: kernel.MS_NOATIME,
        os.ST_NODIRATIME: kernel.MS_NODIRATIME,
        os.ST_RELATIME: kernel.MS_RELATIME,
    }
    return sum(flag for bit, flag in same.items() if shown & bit)


def supports_detached(failure: OSError) -> bool:
    """False when `failure` means that the kernel lacks the new mount calls."""
    return failure.errno not in (errno.ENOSYS,)
