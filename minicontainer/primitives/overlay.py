"""The container's own view of its image: lower layers below, all writes in an upper directory.

The overlay is mounted in the container's mount namespace only, so there is nothing on the host to
leak.  Documentation/filesystems/overlayfs.rst of the kernel is the source.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import SnapshotError
from minicontainer.steps import kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
else:
    from minicontainer.tuples import namedtuple

# lower: directories, the topmost first; volatile: upper is thrown away, do not sync it;
# user: mounted in a user namespace (attributes as user.overlay.*).
Snapshot = namedtuple("Snapshot", "lower upper work volatile user")

# Never part of a split root: the container gets its own, or (lost+found) nobody can read it.
_OWN = {"proc", "sys", "dev", "lost+found"}

_MOST_OPTIONS = 4000  # bytes, of the page that mount(2) copies

# A full or failing disk: a copy of the files would fail there just the same.
_NO_REFUSAL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM)


def mount(snapshot: Snapshot, target: str) -> None:
    """Mount `snapshot` on the directory `target`.

    Raises SnapshotError where the kernel or the file system refuses overlays.
    """
    try:
        _mount(snapshot, target)
        return
    except OSError as failure:
        refused = failure
    if snapshot.lower == ["/"] and refused.errno in (errno.EINVAL, errno.EPERM) and snapshot.user:
        # In a user namespace the mounts below / are locked to it: each directory on its own.
        _mount_split(snapshot, target)
        return
    error = kernel_error("mount the container's overlay", refused)
    if refused.errno in _NO_REFUSAL:
        raise error from refused
    raise SnapshotError(
        str(error), errno=refused.errno or 0, syscall="mount", hint=error.hint
    ) from refused


def _mount(snapshot: Snapshot, target: str) -> None:
    options = [
        "lowerdir=" + ":".join(_escape(path, "\\:,") for path in snapshot.lower),
        "upperdir=" + _escape(snapshot.upper, "\\,"),
        "workdir=" + _escape(snapshot.work, "\\,"),
    ]
    if snapshot.user:
        options.append("userxattr")
    if snapshot.volatile:
        _forget_volatile(snapshot.work)
    if sum(len(os.fsencode(option)) + 1 for option in options) > _MOST_OPTIONS:
        _mount_by_descriptor(snapshot, target)
        return
    if snapshot.volatile:
        try:
            kernel.mount("overlay", target, "overlay", 0, ",".join([*options, "volatile"]))
            _check_writable(target)
            return
        except OSError as failure:
            if failure.errno != errno.EINVAL:  # before Linux 5.10
                raise
    kernel.mount("overlay", target, "overlay", 0, ",".join(options))
    _check_writable(target)


def _check_writable(target: str) -> None:
    """Where it cannot make its work directory, the kernel mounts read-only and says so only in
    its log."""
    if os.statvfs(target).f_flag & os.ST_RDONLY:
        failure = OSError(errno.EROFS, os.strerror(errno.EROFS), target)
        failure.detail = "its work directory cannot be made: is the disk full?"  # type: ignore[attr-defined]
        raise failure


def _mount_by_descriptor(snapshot: Snapshot, target: str) -> None:
    """The same through a file system context, one layer a call: mount(2) takes a page of options.

    `lowerdir+` is of Linux 6.5.
    """
    context_fd = kernel.fsopen("overlay")
    try:
        for path in snapshot.lower:
            kernel.fsconfig(context_fd, kernel.FSCONFIG_SET_STRING, "lowerdir+", path, 0)
        settings = [("upperdir", snapshot.upper), ("workdir", snapshot.work)]
        for key, value in settings:
            kernel.fsconfig(context_fd, kernel.FSCONFIG_SET_STRING, key, value, 0)
        for flag, wanted in (("userxattr", snapshot.user), ("volatile", snapshot.volatile)):
            if wanted:
                kernel.fsconfig(context_fd, kernel.FSCONFIG_SET_FLAG, flag, None, 0)
        kernel.fsconfig(context_fd, kernel.FSCONFIG_CMD_CREATE, None, None, 0)
        mount_fd = kernel.fsmount(context_fd)
    finally:
        kernel.close(context_fd)
    kernel.move_mount(mount_fd, "", kernel.AT_FDCWD, target, kernel.MOVE_MOUNT_F_EMPTY_PATH)
    kernel.close(mount_fd)


def _escape(path: str, special: str) -> str:
    for character in special:
        path = path.replace(character, "\\" + character)
    return path


def _forget_volatile(work: str) -> None:
    """A volatile upper may be mounted again only without this mark; ours is used until removal."""
    try:
        kernel.rmdir(f"{work}/work/incompat/volatile")
    except FileNotFoundError:
        pass


def _mount_split(snapshot: Snapshot, target: str) -> None:
    """An overlay for each top directory of the host's tree, upon the upper directory itself."""
    kernel.mount(snapshot.upper, target, None, kernel.MS_BIND, None)
    for entry in os.scandir("/"):
        if entry.name in _OWN:
            continue
        here = f"{target}/{entry.name}"
        if entry.is_symlink():
            if not os.path.lexists(here):
                kernel.symlink(os.readlink(entry.path), here)
        elif entry.is_dir():
            _mount_part(snapshot, entry.name, here, stat.S_IMODE(entry.stat().st_mode))


def _mount_part(snapshot: Snapshot, name: str, here: str, mode: int) -> None:
    if not os.path.lexists(here):
        kernel.mkdir(here, 0o755)
        kernel.chmod(here, mode & 0o1777)
    if not os.access(f"/{name}", os.R_OK | os.X_OK):
        return  # as it could not be seen into, an empty one of the container's own is of more use
    work = f"{snapshot.work}/{name}"
    if not os.path.isdir(work):
        kernel.mkdir(work, 0o755)
    part = snapshot._replace(
        lower=[f"/{name}"], upper=f"{snapshot.upper}/{name}", work=work, volatile=False
    )
    try:
        _mount(part, here)
    except OSError as failure:
        # Mounts below it are locked too: shown as it is, not writable.
        if failure.errno not in (errno.EINVAL, errno.EPERM, errno.EACCES):
            raise
        try:
            _bind_read_only(f"/{name}", here)
        except PermissionError:
            pass


def _bind_read_only(source: str, here: str) -> None:
    kernel.mount(source, here, None, kernel.MS_BIND | kernel.MS_REC, None)
    flags = kernel.AT_RECURSIVE
    try:
        kernel.mount_setattr(kernel.AT_FDCWD, here, flags, kernel.MOUNT_ATTR_RDONLY)
    except OSError:
        kernel.umount2(here, kernel.MNT_DETACH)
        raise
