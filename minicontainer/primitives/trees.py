"""Directory trees by descriptor: walked, measured, removed.

A place in a tree is one open directory; it moves down by a single name that must not be a symbolic
link, and up by `..`, which must lead back to where it came from.  So nothing outside the tree is
ever read or changed, whatever a container renames or links meanwhile, and depth costs no
descriptors.  Not for: paths that somebody wrote (`inroot`); how files are copied (`copies`).
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable, Collection, Iterator
    from types import TracebackType
else:
    from minicontainer.tuples import namedtuple

# path: below the top, without a leading slash; directory_fd: valid until the next entry is asked
# for; status: of the entry itself; leaving: a directory's second visit, after all it contains.
Entry = namedtuple("Entry", "path directory_fd name status leaving")

_ITSELF = kernel.O_NOFOLLOW | kernel.O_CLOEXEC
# A FIFO must not make us wait, a terminal not become ours; openat2 refuses both with O_PATH.
_AT_ONCE = kernel.O_NONBLOCK | kernel.O_NOCTTY
# Vanished, replaced by something else, a mount point.
_NOT_ENTERED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)


class Place:
    """An open directory that moves through a tree; `fd` is where it is now.

    cross: whether `down` may enter a directory on which something is mounted.
    """

    __slots__ = ("_cross", "_trail", "fd")

    def __init__(self, top_fd: int, *, cross: bool = True) -> None:
        self._cross = cross
        self._trail: list[tuple[int, int]] = []
        self.fd = kernel.open(".", kernel.O_RDONLY | kernel.O_DIRECTORY, dir_fd=top_fd)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        kernel.close(self.fd)
        self.fd = -1

    def down(self, name: str) -> None:
        """Enter the directory `name`.

        Raises OSError: ENOTDIR or ELOOP if it is something else, EXDEV if it is a mount point and
        must not be entered.
        """
        here = identity(os.fstat(self.fd))
        self._move(open_entry(self.fd, name, kernel.O_DIRECTORY, cross=self._cross))
        self._trail.append(here)

    def up(self) -> None:
        """Go back to the directory that `down` left. Raises OSError ESTALE if it was moved away."""
        above = kernel.open("..", kernel.O_RDONLY | kernel.O_DIRECTORY, dir_fd=self.fd)
        self._move(above)
        if identity(os.fstat(above)) != self._trail.pop():
            raise OSError(errno.ESTALE, "a directory was moved while it was being visited")

    def _move(self, fd: int) -> None:
        kernel.close(self.fd)
        self.fd = fd


def identity(status: os.stat_result) -> tuple[int, int]:
    """What tells one file from all others that exist now: (device, inode)."""
    return status.st_dev, status.st_ino


def open_entry(directory_fd: int, name: str, flags: int, *, cross: bool = True) -> int:
    """A descriptor of the entry `name` itself, opened without waiting.

    Raises OSError: ELOOP for a symbolic link (but for O_PATH), EXDEV for a mount point unless
    `cross`.
    """
    flags |= _ITSELF if flags & kernel.O_PATH else _ITSELF | _AT_ONCE
    if cross:
        return kernel.open(name, flags, dir_fd=directory_fd)
    try:
        return kernel.openat2(directory_fd, name, flags, 0, kernel.RESOLVE_NO_XDEV)
    except OSError as failure:
        # EPERM: another engine's system call filter around us does not know openat2.
        if failure.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    fd = kernel.open(name, flags, dir_fd=directory_fd)
    if _mount_id(fd) != _mount_id(directory_fd):
        kernel.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd


def _mount_id(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


def walk(
    top_fd: int,
    *,
    cross: bool = True,
    skip: Collection[tuple[int, int]] = (),
    lenient: bool = False,
) -> Iterator[Entry]:
    """Every entry below the directory `top_fd`, in the order of names, a directory before and
    after what it contains.

    skip: identities of directories that are shown but not entered; so are mount points unless
    `cross`, and what we may not read if `lenient`.  What vanishes meanwhile is left out.
    Raises OSError for what cannot be read.
    """
    closed = (errno.EACCES, *_NOT_ENTERED) if lenient else _NOT_ENTERED
    with Place(top_fd, cross=cross) as place:
        waiting = [_names(place.fd)]
        entered: list[Entry] = []
        while waiting:
            if not waiting[-1]:
                waiting.pop()
                if entered:
                    place.up()
                    yield entered.pop()._replace(directory_fd=place.fd, leaving=True)
                continue
            name = waiting[-1].pop()
            entry = _look(place.fd, name, entered[-1].path if entered else "")
            if entry is None:
                continue
            yield entry
            if not stat.S_ISDIR(entry.status.st_mode):
                continue
            if identity(entry.status) not in skip and _enter(place, name, closed):
                entered.append(entry)
                waiting.append(_names(place.fd))
            else:
                yield entry._replace(leaving=True)


def _names(fd: int) -> list[str]:
    """The names in a directory, to be taken from the end."""
    return sorted(os.listdir(fd), reverse=True)


def _look(directory_fd: int, name: str, above: str) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Entry(f"{above}/{name}" if above else name, directory_fd, name, status, False)


def _enter(place: Place, name: str, closed: tuple[int, ...]) -> bool:
    try:
        place.down(name)
    except OSError as failure:
        if failure.errno not in closed:
            raise
        return False
    return True


def measure(top_fd: int, *, cross: bool = False) -> int:
    """The bytes of all files below the directory `top_fd`, each counted once.

    What is in directories that we may not read does not count.
    """
    seen = set()
    total = 0
    for entry in walk(top_fd, cross=cross, lenient=True):
        if stat.S_ISDIR(entry.status.st_mode):
            continue
        if entry.status.st_nlink > 1:
            if identity(entry.status) in seen:
                continue
            seen.add(identity(entry.status))
        total += entry.status.st_size
    return total


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove the entry `name` of a directory and all below it; what is gone counts as removed.

    Never enters a mount. Goes on past what cannot be removed, then raises the first OSError.
    """
    first: OSError | None = None
    waiting = [[name]]
    with Place(parent_fd, cross=False) as place:
        while waiting:
            if waiting[-1]:
                try:
                    if not _remove(place, waiting[-1][-1]):
                        waiting.append(os.listdir(place.fd))
                        continue
                except OSError as failure:
                    first = first or failure
                waiting[-1].pop()
                continue
            waiting.pop()
            if waiting:
                place.up()
                try:
                    _unlink(place.fd, waiting[-1].pop(), kernel.rmdir)
                except OSError as failure:
                    first = first or failure
    if first:
        raise first


def _remove(place: Place, name: str) -> bool:
    """Whether `name` is gone; if not, it is a directory with contents and has been entered."""
    try:
        _unlink(place.fd, name, kernel.unlink)
        return True
    except IsADirectoryError:
        pass
    try:
        _unlink(place.fd, name, kernel.rmdir)
        return True
    except OSError as failure:
        if failure.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    try:
        _enter_for_removal(place, name)
    except FileNotFoundError:
        return True
    return False


def _enter_for_removal(place: Place, name: str) -> None:
    try:
        place.down(name)
    except PermissionError:
        _permit(place.fd, name)
        place.down(name)


def _unlink(directory_fd: int, name: str, act: Callable[..., None]) -> None:
    try:
        act(name, dir_fd=directory_fd)
    except FileNotFoundError:
        pass
    except PermissionError as failure:
        # EACCES: a directory that its owner may not write; EPERM is final.
        if failure.errno != errno.EACCES:
            raise
        kernel.fchmod(directory_fd, 0o700)
        act(name, dir_fd=directory_fd)


def _permit(directory_fd: int, name: str) -> None:
    """Let its owner read and change the directory `name`."""
    fd = open_entry(directory_fd, name, kernel.O_PATH | kernel.O_DIRECTORY)
    try:
        kernel.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        kernel.close(fd)


def copy_tree(
    source_fd: int,
    destination_fd: int,
    *,
    one_file_system: bool = True,
    skip: Collection[tuple[int, int]] = (),
) -> None:
    """Make the directory `destination_fd` an exact copy of `source_fd`, itself included.

    Owners, modes, times, extended attributes, hard links, devices and holes are kept.  Of mount
    points (if `one_file_system`) and of the directories in `skip` only the directory is made.
    Raises OSError.
    """
    from minicontainer.primitives import copies

    manner = copies.EXACT
    copies.copy(source_fd, destination_fd, manner, cross=not one_file_system, skip=skip)
    with Place(source_fd) as top:
        wear = copies.attributes(f"/proc/self/fd/{top.fd}", os.fstat(top.fd), manner)
        copies.dress(destination_fd, wear)
