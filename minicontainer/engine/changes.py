"""diff: what a container has changed in its root file system.

With an overlay all of it is in the upper directory: files, whiteouts (character device 0:0) and
opaque directories (an extended attribute), as the kernel's overlayfs.rst says.  A copied root is
compared with its source as a whole, which is the same as every directory being opaque.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack

from minicontainer import kernel
from minicontainer.engine import userids
from minicontainer.primitives import trees
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.engine.records import Container

ADDED, CHANGED, DELETED = "A", "C", "D"

# Made for our mounts, empty, where the image lacks them: no change of the container's.
_MOUNT_POINTS = (
    "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/dev", "/proc", "/sys",
    "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc",
)  # fmt: skip
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def diff(container: Container) -> list[tuple[str, str]]:
    """(A, C or D, absolute path) of every change, ordered by path.

    A directory counts as changed also when something in it is.
    """
    copy = container.paths.copy(container.id)
    copied = os.path.isdir(copy)
    upper = copy if copied else container.paths.upper(container.id)
    flags = kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_CLOEXEC
    # In a user namespace owners are mapped: not those of the source.
    owners = os.geteuid() == 0
    linux = userids.mappings(container.paths.config(container.id))
    if userids.has_ranges(linux):
        userids.enter(linux)
    with step("compare the files of container %s", container.name), ExitStack() as stack:
        fds = []
        for path in (upper, *container.lower):
            fds.append(kernel.open(path, flags))
            stack.callback(kernel.close, fds[-1])
        found = compare(fds[0], fds[1:], whole=copied, owners=owners)
    return [(found[path], path) for path in sorted(found)]


def compare(
    upper_fd: int, lower_fds: Sequence[int], *, whole: bool, owners: bool = True
) -> dict[str, str]:
    """path -> A, C or D: what the upper directory changes in the layers, topmost first.

    whole: the upper directory is all there is now; what it lacks has been deleted.
    owners: whether another owner is a change.
    """
    found: dict[str, str] = {}
    filled = set()  # files that are not empty
    hidden = [whole]  # for each open directory, whether it hides what the layers have there
    with _Lower(lower_fds) as lower:
        if whole:
            _add_deleted(upper_fd, lower, "", found)
        for entry in trees.walk(upper_fd, cross=False):
            path, new = f"/{entry.path}", entry.status
            if entry.leaving:
                hidden.pop()
                lower.up()
                continue
            old = lower.look(entry.name)
            if _is_whiteout(new) and not whole:
                if old is not None:
                    found[path] = DELETED
                continue
            if old is None:
                found[path] = ADDED
            elif _differs(entry, lower.fd, old, owners):
                found[path] = CHANGED
            if stat.S_ISDIR(new.st_mode):
                lower.down(entry.name)
                hidden.append(_enter(entry, hidden[-1], lower, path, found))
            elif new.st_size:
                filled.add(path)
    return _with_parents(_without_mount_points(found, filled))


def _enter(
    entry: trees.Entry, hidden: bool, lower: _Lower, path: str, found: dict[str, str]
) -> bool:
    """Whether the directory hides what the layers have there; notes what that deletes."""
    fd = trees.open_entry(entry.directory_fd, entry.name, kernel.O_DIRECTORY)
    try:
        if hidden or _is_opaque(fd):
            _add_deleted(fd, lower, path, found)
            return True
    finally:
        kernel.close(fd)
    return False


def _add_deleted(upper_fd: int, lower: _Lower, path: str, found: dict[str, str]) -> None:
    with trees.Place(upper_fd) as upper:
        kept = set(os.listdir(upper.fd))
    for name in lower.names() - kept:
        found[f"{path}/{name}"] = DELETED


def _without_mount_points(found: dict[str, str], filled: set[str]) -> dict[str, str]:
    left = dict(found)
    for path in _MOUNT_POINTS:
        if left.get(path, DELETED) != DELETED and path not in filled:
            if not any(other.startswith(f"{path}/") for other in left):
                del left[path]
    return left


def _with_parents(found: dict[str, str]) -> dict[str, str]:
    parents = {}
    for path in found:
        above = os.path.dirname(path)
        while above != "/" and above not in parents:
            parents[above] = CHANGED
            above = os.path.dirname(above)
    return {**parents, **found}


class _Lower:
    """The layers below an upper directory, topmost first, moving through the tree along with it.

    `fd` is the layer's directory in which `look` found what it told last.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        # For each level the layers that have a directory there and are not hidden by a higher one.
        self._levels = [[trees.Place(fd, cross=False) for fd in fds]]
        self._all = self._levels[0]
        self.fd = -1

    def __enter__(self) -> _Lower:
        return self

    def __exit__(self, *failure: object) -> None:
        for place in self._all:
            kernel.close(place.fd)

    def look(self, name: str) -> os.stat_result | None:
        """The status of the entry `name`, None if the layers show none."""
        for place in self._levels[-1]:
            try:
                status = os.stat(name, dir_fd=place.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            self.fd = place.fd
            return None if _is_whiteout(status) else status
        return None

    def names(self) -> set[str]:
        """The names of the entries that the layers show in the present directory."""
        names = {name for place in self._levels[-1] for name in os.listdir(place.fd)}
        return {name for name in names if self.look(name) is not None}

    def down(self, name: str) -> None:
        """Enter the directory `name`, which need not be one there."""
        entered: list[trees.Place] = []
        for place in self._levels[-1]:
            try:
                place.down(name)
            except OSError as failure:
                if failure.errno == errno.ENOENT:
                    continue
                # EACCES: an ordinary user's container did not see into it either.
                if failure.errno in (errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES):
                    break
                raise
            entered.append(place)
            if _is_opaque(place.fd):
                break
        self._levels.append(entered)

    def up(self) -> None:
        """Go back to the directory that `down` left."""
        for place in self._levels.pop():
            place.up()


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError as failure:
            if failure.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def _differs(entry: trees.Entry, old_fd: int, old: os.stat_result, owners: bool) -> bool:
    """Whether an entry is no longer what the directory `old_fd` has under its name."""
    new: os.stat_result = entry.status
    new_fd: int = entry.directory_fd
    name: str = entry.name
    if (new.st_mode, new.st_rdev) != (old.st_mode, old.st_rdev):
        return True
    if owners and (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    if stat.S_ISLNK(new.st_mode):
        return os.readlink(name, dir_fd=new_fd) != os.readlink(name, dir_fd=old_fd)
    if (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
        return True
    return _capability(new_fd, name) != _capability(old_fd, name)


def _capability(directory_fd: int, name: str) -> bytes:
    path = f"/proc/self/fd/{directory_fd}/{name}"
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError as failure:
        if failure.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
    return b""
