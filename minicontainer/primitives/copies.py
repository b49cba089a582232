"""Copying files and what they wear: owner, mode, times, extended attributes, links, holes.

Both ends are reached through directory descriptors and single names.  A source is first held by an
O_PATH descriptor, so that what was looked at is what is read and no FIFO or device is opened; at
the destination nothing is written through a link.  Not for: who may copy what (`engine.files`).

Set-id bits survive only where the owner does, as in cp(1): a stranger's program must not become a
privileged one by being copied.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives.trees import Entry, Place, identity, open_entry, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Collection
else:
    from minicontainer.tuples import namedtuple

# owner: (uid, gid) for every copy, or None for the source's; xattrs: whether extended attributes
# and file capabilities come along; device_mode: which permission bits a device node may keep.
Manner = namedtuple("Manner", "owner xattrs device_mode")

EXACT = Manner(None, True, 0o7777)

# mode: with the file type; owner: (uid, gid); times: (access, modification) in nanoseconds.
Attributes = namedtuple("Attributes", "mode owner xattrs times")

_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_PIECE_BYTES = 1 << 20


def copy(
    source_fd: int,
    destination_fd: int,
    manner: Manner,
    *,
    cross: bool = True,
    skip: Collection[tuple[int, int]] = (),
) -> list[str]:
    """Copy all that the directory `source_fd` contains into the directory `destination_fd`.

    Directories are merged, other entries replaced.  Returns the paths of device nodes that we may
    not make and that were left out.  Raises OSError; Error where a directory and another kind of
    file stand against each other.
    """
    links: dict[tuple[int, int], str] = {}
    left_out = []
    with Place(destination_fd) as place:
        for entry in walk(source_fd, cross=cross, skip=skip):
            if stat.S_ISDIR(entry.status.st_mode):
                if entry.leaving:
                    _dress_directory(place.fd, entry, manner)
                    place.up()
                else:
                    make_directory(place.fd, entry.name)
                    place.down(entry.name)
                continue
            first = links.get(identity(entry.status))
            if first is not None and _link(destination_fd, first, place.fd, entry.name):
                continue
            try:
                copy_entry(
                    entry.directory_fd, entry.name, place.fd, entry.name, manner, cross=cross
                )
            except FileNotFoundError:  # it vanished from the source
                continue
            except PermissionError:
                if not (stat.S_ISCHR(entry.status.st_mode) or stat.S_ISBLK(entry.status.st_mode)):
                    raise
                left_out.append(entry.path)
                continue
            if entry.status.st_nlink > 1:
                links[identity(entry.status)] = entry.path
    return left_out


def copy_entry(
    source_directory_fd: int,
    source_name: str,
    directory_fd: int,
    name: str,
    manner: Manner,
    *,
    cross: bool = True,
) -> None:
    """Copy one entry that is not a directory; what has the name `name` already is replaced.

    A file on which something is mounted becomes an empty one unless `cross`. Raises OSError.
    """
    try:
        source = open_entry(source_directory_fd, source_name, kernel.O_PATH, cross=cross)
    except OSError as failure:
        if failure.errno != errno.EXDEV:
            raise
        kernel.close(create(directory_fd, name)[0])
        return
    try:
        status = os.fstat(source)
        if stat.S_ISREG(status.st_mode):
            _copy_file(source, status, directory_fd, name, manner)
        else:
            _copy_special(source, status, directory_fd, name, manner)
    finally:
        kernel.close(source)


def make_directory(directory_fd: int, name: str) -> None:
    """See that `name` is a directory. Raises Error when it is something else."""
    try:
        kernel.mkdir(name, 0o700, dir_fd=directory_fd)
    except FileExistsError:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise Error(f'cannot overwrite non-directory "{name}" with directory') from None


def make_room(directory_fd: int, name: str) -> None:
    """See that no entry has the name `name`. Raises Error when a directory has it, OSError."""
    try:
        kernel.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise Error(f'cannot overwrite directory "{name}" with non-directory') from None


def dress(target: int | str, wear: Attributes) -> None:
    """Give a new file its attributes; set-id bits only if it could get its owner as well.

    target: a descriptor, or the /proc/self/fd path of one.  An owner or an extended attribute that
    this user cannot give or this file system not keep is no error.
    """
    # chown clears set-id bits and capabilities, so it comes first; anything changes the times.
    mode = wear.mode
    try:
        kernel.chown(target, *wear.owner)
    except OSError as failure:
        # EINVAL: an id that this user namespace does not map.
        if failure.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP):
            raise
        mode = _without_set_id(mode)
    if not stat.S_ISLNK(mode):
        kernel.chmod(target, stat.S_IMODE(mode))
    for name, value in wear.xattrs.items():
        _write_xattr(target, name, value)
    kernel.utime(target, ns=wear.times)


def attributes(path: str, status: os.stat_result, manner: Manner) -> Attributes:
    """What a copy of `status`, reached by `path`, is to wear."""
    mode = status.st_mode
    theirs = (status.st_uid, status.st_gid)
    if manner.owner not in (None, theirs):
        mode = _without_set_id(mode)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        mode &= ~0o7777 | manner.device_mode
    return Attributes(
        mode,
        manner.owner or theirs,
        read_xattrs(path) if manner.xattrs else {},
        (status.st_atime_ns, status.st_mtime_ns),
    )


def _without_set_id(mode: int) -> int:
    return mode if stat.S_ISDIR(mode) else mode & ~(stat.S_ISUID | stat.S_ISGID)


def read_xattrs(path: str) -> dict[str, bytes]:
    """The extended attributes that belong to a file wherever it is: `user.*`, access lists, file
    capabilities; never those by which an overlay marks its own. xattr(7)."""
    found = {}
    try:
        for name in os.listxattr(path):
            if is_portable(name):
                found[name] = os.getxattr(path, name)
    except OSError as failure:
        if failure.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EACCES, errno.EPERM):
            raise
    return found


def is_portable(name: str) -> bool:
    """Whether an extended attribute may be copied."""
    if name.startswith("user."):
        return not name.startswith("user.overlay.")
    return name == "security.capability" or name in _ACLS


def _write_xattr(target: int | str, name: str, value: bytes) -> None:
    """Set an extended attribute, if file system and privilege allow."""
    try:
        kernel.setxattr(target, name, value)
    except OSError as failure:
        if failure.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
            raise


def copy_bytes(source_fd: int, destination_fd: int, size: int) -> None:
    """Copy the bytes of a regular file of `size` bytes into an empty one, holes as holes.

    A size of 0 may be procfs, which does not know its sizes: then all there is to read.
    """
    if size == 0:
        _copy_unsized(source_fd, destination_fd)
        return
    position = 0
    while position < size:
        begin, end = _next_data(source_fd, position, size)
        while begin < end:
            copied = _copy_piece(source_fd, destination_fd, begin, min(end - begin, _PIECE_BYTES))
            if not copied:  # it was cut meanwhile
                break
            begin += copied
        position = end
    if os.fstat(destination_fd).st_size < size:
        kernel.ftruncate(destination_fd, size)


def _copy_unsized(source_fd: int, destination_fd: int) -> None:
    while True:
        piece = os.read(source_fd, _PIECE_BYTES)
        write_all(destination_fd, piece)
        # A size after all: a common file that somebody is just writing, perhaps for ever.
        if not piece or os.fstat(source_fd).st_size:
            return


def _next_data(fd: int, position: int, size: int) -> tuple[int, int]:
    """Where the next bytes that are no hole begin and end; both `size` when there are none."""
    try:
        begin = os.lseek(fd, position, os.SEEK_DATA)
        end = os.lseek(fd, begin, os.SEEK_HOLE)
    except OSError as failure:
        if failure.errno == errno.ENXIO:
            return size, size
        if failure.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        return position, size
    return min(begin, size), min(end, size)


def _copy_piece(source_fd: int, destination_fd: int, position: int, length: int) -> int:
    try:  # within one file system it may share the blocks instead
        copied = kernel.copy_file_range(source_fd, destination_fd, length, position, position)
        if copied:
            return copied
    except OSError as failure:
        if failure.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    piece = os.pread(source_fd, length, position)
    os.lseek(destination_fd, position, os.SEEK_SET)
    write_all(destination_fd, piece)
    return len(piece)


def write_all(fd: int, piece: bytes) -> None:
    """Write all of `piece`."""
    view = memoryview(piece)
    while view:
        view = view[kernel.write(fd, view) :]


def _copy_file(
    source: int, status: os.stat_result, directory_fd: int, name: str, manner: Manner
) -> None:
    path = f"/proc/self/fd/{source}"
    # It is a regular file and pinned: opening it again by its magic link cannot wait or stray.
    source_fd = kernel.open(path, kernel.O_RDONLY | kernel.O_CLOEXEC)
    try:
        fd, fresh = create(directory_fd, name)
        try:
            copy_bytes(source_fd, fd, status.st_size)
            if fresh:
                dress(fd, attributes(path, status, manner))
        finally:
            kernel.close(fd)
    finally:
        kernel.close(source_fd)


def create(directory_fd: int, name: str) -> tuple[int, bool]:
    """A descriptor of an empty regular file `name`, and whether it is a new one.

    One on which something is mounted cannot be replaced: it is emptied, to be written where it is.
    """
    flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_EXCL | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
    for _ in range(16):
        try:
            return kernel.open(name, flags, 0o600, dir_fd=directory_fd), True
        except FileExistsError:
            pass
        try:
            make_room(directory_fd, name)
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise
            return _open_mounted(directory_fd, name), False
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _open_mounted(directory_fd: int, name: str) -> int:
    fd = open_entry(directory_fd, name, kernel.O_WRONLY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        kernel.close(fd)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
    kernel.ftruncate(fd, 0)
    return fd


def _copy_special(
    source: int, status: os.stat_result, directory_fd: int, name: str, manner: Manner
) -> None:
    target = os.readlink("", dir_fd=source) if stat.S_ISLNK(status.st_mode) else ""
    wear = attributes(f"/proc/self/fd/{source}", status, manner)
    make_special(directory_fd, name, wear, target=target, device=status.st_rdev)


def make_special(
    directory_fd: int, name: str, wear: Attributes, *, target: str = "", device: int = 0
) -> None:
    """Make a symbolic link to `target`, a device node, FIFO or socket, and dress it.

    Raises OSError ESTALE when it was replaced before it was dressed.
    """
    kind = stat.S_IFMT(wear.mode)
    make_room(directory_fd, name)
    if kind == stat.S_IFLNK:
        kernel.symlink(target, name, dir_fd=directory_fd)
    else:
        kernel.mknod(name, kind | 0o600, device, dir_fd=directory_fd)
    fd = open_entry(directory_fd, name, kernel.O_PATH)
    try:
        made = os.fstat(fd)
        if stat.S_IFMT(made.st_mode) != kind or made.st_rdev != device:
            raise OSError(errno.ESTALE, "replaced while it was being copied", name)
        dress(f"/proc/self/fd/{fd}", wear)
    finally:
        kernel.close(fd)


def _dress_directory(fd: int, entry: Entry, manner: Manner) -> None:
    try:
        source = open_entry(entry.directory_fd, entry.name, kernel.O_PATH | kernel.O_DIRECTORY)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        dress(fd, attributes("", entry.status, manner._replace(xattrs=False)))
        return
    try:
        dress(fd, attributes(f"/proc/self/fd/{source}", entry.status, manner))
    finally:
        kernel.close(source)


def _link(top_fd: int, path: str, directory_fd: int, name: str) -> bool:
    """Whether `name` could be made another name of the file copied to `path` before."""
    *above, last = path.split("/")
    try:
        with Place(top_fd) as place:
            for directory in above:
                place.down(directory)
            make_room(directory_fd, name)
            kernel.link(
                last, name, src_dir_fd=place.fd, dst_dir_fd=directory_fd, follow_symlinks=False
            )
    except OSError as failure:
        # It is copied then: too many links, moved away, a directory that we may not read.
        if failure.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOENT):
            return False
        if failure.errno in (errno.ENOTDIR, errno.ELOOP, errno.EBUSY):
            return False
        raise
    return True
