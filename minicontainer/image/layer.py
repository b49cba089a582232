"""A layer's tar stream applied to a directory, in the form an overlay wants: hostile until proved.

Everything is reached through descriptors below the layer's own directory, where links lead no
further than that directory, and single names; no path of the archive reaches an acting call.
Whiteouts become character devices 0:0, opaque directories an extended attribute: they speak of the
layers below, never of what the same layer brings.  image-spec layer.md, overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from minicontainer import kernel
from minicontainer.errors import ImageError
from minicontainer.image import tar
from minicontainer.primitives import copies, inroot, trees
from minicontainer.steps import kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
else:
    from minicontainer.tuples import namedtuple

# bytes: of regular files, without holes; root: whether the archive describes the top directory
# itself; opaque: whether the layer hides all layers below it; implicit: directories that it only
# names in passing (their attributes are made up).
Applied = namedtuple("Applied", "bytes entries root opaque implicit")

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."

_ENCODING = sys.getfilesystemencoding()
_CREATE = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_EXCL | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
_DIRECTORY = kernel.O_PATH | kernel.O_DIRECTORY
_KINDS = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_LARGEST_ID = (1 << 32) - 2
_FARTHEST_SECONDS = 1 << 40
_MOST_OPEN = 64
# Of the directories of one layer: what is remembered of them, and what is recorded.
_MOST_CHARACTERS = 64 << 20
_MOST_IMPLICIT_CHARACTERS = 1 << 20
_RESERVE_BYTES = 64 << 20


def opaque_attribute(user: bool) -> str:
    """The extended attribute by which an overlay (of a user's own namespace) knows an opaque
    directory; its value is `y`."""
    return "user.overlay.opaque" if user else "trusted.overlay.opaque"


def limits_for(directory: str) -> tar.Limits:
    """The usual limits, and no more bytes than the file system has free, less a reserve."""
    free = os.statvfs(directory)
    available = free.f_bavail * free.f_frsize - _RESERVE_BYTES
    return tar.LIMITS._replace(bytes=max(available, 0))


def apply(
    read: Callable[[int], bytes],
    directory_fd: int,
    limits: tar.Limits = tar.LIMITS,
    user: bool = False,
) -> Applied:
    """Unpack a plain tar stream into the empty directory `directory_fd`; reads to its end.

    user: for an overlay mounted by an unprivileged user: attributes are user.overlay.*, owners and
    devices that may not be made are left out.
    Raises ImageError for a layer that is refused, KernelError naming the entry; the directory is
    half filled then.
    """
    reader = tar.Reader(read, limits)
    layer = _Layer(directory_fd, reader, limits.entries, user)
    name = b""
    try:
        while (member := reader.next()) is not None:
            name = member.name
            layer.add(member)
        name = b"the directories' attributes"
        layer.finish()
        reader.drain()
    except OSError as failure:
        raise kernel_error(f"unpack {os.fsdecode(name)!r}", failure) from failure
    finally:
        layer.close()
    return Applied(layer.bytes, reader.entries, layer.root, layer.opaque, layer.implicit)


def split(name: bytes) -> tuple[str, ...]:
    """The components of an archive's name, cleaned. Raises ImageError for one that leads out."""
    text = name.decode(_ENCODING, "surrogateescape")
    if ".." not in text:
        return tuple([part for part in text.split("/") if part not in ("", ".")])
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts and not text.startswith("/"):
                raise ImageError(f"the layer is refused: {text!r} leads out of it")
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


class _BelowFile(ImageError):
    """A name that leads through a file."""


class _Layer:
    """The directory that members are added to."""

    def __init__(self, top_fd: int, reader: tar.Reader, most: int, user: bool) -> None:
        self._top_fd = top_fd
        self._reader = reader
        self._room = most
        self._user = user
        self._opaque_attribute = opaque_attribute(user)
        kernel.fchmod(top_fd, 0o700)
        top = os.fstat(top_fd)
        self._owner = top.st_uid, top.st_gid
        self._open: dict[str, int] = {}
        # Set last: files made in a directory change its times, and its mode may forbid to make any.
        self._directories: dict[str, copies.Attributes] = {}
        self.bytes = 0
        self.root = self.opaque = False
        self.implicit: list[str] = []
        self._characters = 0

    def add(self, member: tar.Member) -> None:
        """Make what one header describes, in place of what this layer had under that name."""
        parts = split(member.name)
        if not parts:
            if member.kind == tar.DIRECTORY:
                self._remember("", self._attributes(member, stat.S_IFDIR))
                self.root = True
            return
        name = parts[-1]
        if WHITEOUT in member.name.decode(_ENCODING, "surrogateescape"):
            if self._is_mark(parts):
                return
        above = "/".join(parts[:-1])
        if member.kind == tar.FILE:
            self._file(member, self._parent(above), above, name)
        elif member.kind == tar.DIRECTORY:
            self._directory(member, self._parent(above), above, name)
        elif member.kind == tar.LINK:
            self._link(member, above, name)
        else:
            self._special(member, self._parent(above), above, name)

    def finish(self) -> None:
        """Give directories their attributes, what they contain first."""
        self._directories.setdefault(
            "", copies.Attributes(stat.S_IFDIR | 0o755, self._owner, {}, (0, 0))
        )
        for path in sorted(self._directories, reverse=True):
            flags = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_NOFOLLOW
            try:
                fd = inroot.open_in_root(self._top_fd, path, flags)
            except OSError as failure:
                # Something else has taken its place since.
                if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                continue
            try:
                self._dress(fd, self._directories[path])
            finally:
                kernel.close(fd)

    def close(self) -> None:
        """Let go of the directories in use."""
        while self._open:
            kernel.close(self._open.popitem()[1])

    # ------------------------------------------------------------------------- directories

    def _parent(self, path: str) -> int:
        """A descriptor of the directory `path`, made where missing; valid until the next one."""
        fd = self._open.get(path)
        if fd is not None:
            return fd
        try:
            fd = inroot.open_in_root(self._top_fd, path, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            fd = self._make_parents(path)
        if len(self._open) >= _MOST_OPEN:
            kernel.close(self._open.pop(next(iter(self._open))))
        self._open[path] = fd
        return fd

    def _make_parents(self, path: str) -> int:
        fd = self._walk(path)
        if fd is None:
            # A link of this layer: followed inside of it, and made to lead somewhere.
            self._count()
            return inroot.directory_in_root(self._top_fd, path, 0o755)
        return fd

    def _walk(self, path: str) -> int | None:
        """A descriptor of the directory `path`, made where missing; None if a link is in the way.

        Raises _BelowFile if a file is.
        """
        fd = kernel.open(".", _DIRECTORY, dir_fd=self._top_fd)
        done = ""
        for part in path.split("/") if path else ():
            done = f"{done}/{part}" if done else part
            try:
                below = self._enter(fd, part, done)
            finally:
                kernel.close(fd)
            if below is None:
                return None
            fd = below
        return fd

    def _enter(self, fd: int, name: str, path: str) -> int | None:
        """A descriptor of the directory `name` in `fd`, made where missing; None for a link."""
        try:
            return kernel.open(name, _DIRECTORY | kernel.O_NOFOLLOW, dir_fd=fd)
        except FileNotFoundError:
            hidden = False
        except NotADirectoryError:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return None
            if not _is_whiteout(status):
                raise _BelowFile(
                    f"the layer is refused: {path!r} is a file and a directory"
                ) from None
            kernel.unlink(name, dir_fd=fd)
            hidden = True
        kernel.mkdir(name, 0o700, dir_fd=fd)
        below = kernel.open(name, _DIRECTORY | kernel.O_NOFOLLOW, dir_fd=fd)
        if hidden:
            self._hide_below(below)
        self._note_implicit(path)
        return below

    def _note_implicit(self, path: str) -> None:
        self._count()
        self._remember(path, copies.Attributes(stat.S_IFDIR | 0o755, self._owner, {}, (0, 0)))
        if self._characters < _MOST_IMPLICIT_CHARACTERS:
            self.implicit.append(path)

    def _count(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise ImageError("the layer is refused: it has too many directories")

    def _directory(self, member: tar.Member, fd: int, above: str, name: str) -> None:
        path = f"{above}/{name}" if above else name
        try:
            kernel.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                self._clear(fd, above, name)
                kernel.mkdir(name, 0o700, dir_fd=fd)
                # What it replaces has hidden a directory of the layers below.
                self._hide_below(self._parent(path))
        self._remember(path, self._attributes(member, stat.S_IFDIR))

    def _remember(self, path: str, wear: copies.Attributes) -> None:
        self._characters += len(path)
        if self._characters > _MOST_CHARACTERS:
            raise ImageError("the layer is refused: the names of its directories are too long")
        self._directories[path] = wear

    def _clear(self, fd: int, above: str, name: str) -> None:
        """Remove what this layer has as `name`, a whole directory too."""
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            trees.remove_tree(fd, name)
            self._directories.pop(f"{above}/{name}" if above else name, None)
        else:
            kernel.unlink(name, dir_fd=fd)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            # Others may have been reached through it. This one is still in use.
            for path in [path for path in self._open if self._open[path] != fd]:
                kernel.close(self._open.pop(path))

    # ----------------------------------------------------------------------------- whiteouts

    def _is_mark(self, parts: tuple[str, ...]) -> bool:
        """Whether the name says what the layers below lose; that is made then."""
        for part in parts[:-1]:
            if part.startswith(_AUFS):
                return True
            if part.startswith(WHITEOUT):
                raise ImageError(f"the layer is refused: {part!r} is a directory and a whiteout")
        name, above = parts[-1], "/".join(parts[:-1])
        if not name.startswith(WHITEOUT):
            return False
        if name == OPAQUE or not name.startswith(_AUFS):
            self._mark(above, name)
        return True

    def _mark(self, above: str, name: str) -> None:
        try:
            fd = self._walk(above)
        except _BelowFile:
            fd = None
        if fd is None:
            # The file or link of this layer has hidden already what is to be hidden.
            return
        try:
            if name == OPAQUE:
                self._hide_below(fd)
                self.opaque = self.opaque or not above
            else:
                self._whiteout(fd, name[len(WHITEOUT) :])
        finally:
            kernel.close(fd)

    def _whiteout(self, fd: int, name: str) -> None:
        if name in ("", ".", ".."):
            raise ImageError(f"the layer is refused: {WHITEOUT + name!r} is a whiteout of nothing")
        try:
            kernel.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
            kernel.utime(name, ns=(0, 0), dir_fd=fd, follow_symlinks=False)
        except FileExistsError:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                below = kernel.open(name, _DIRECTORY | kernel.O_NOFOLLOW, dir_fd=fd)
                try:
                    self._hide_below(below)
                finally:
                    kernel.close(below)

    def _hide_below(self, fd: int) -> None:
        kernel.setxattr(f"/proc/self/fd/{fd}", self._opaque_attribute, b"y")

    # --------------------------------------------------------------------------------- files

    def _file(self, member: tar.Member, fd: int, above: str, name: str) -> None:
        wear = self._attributes(member, stat.S_IFREG)
        try:
            file_fd = kernel.open(name, _CREATE, 0o600, dir_fd=fd)
        except FileExistsError:
            self._clear(fd, above, name)
            file_fd = kernel.open(name, _CREATE, 0o600, dir_fd=fd)
        try:
            if member.sparse is not None:
                self._write_sparse(file_fd, member)
            else:
                take = self._reader.take
                while piece := take():
                    written = kernel.write(file_fd, piece)
                    if written < len(piece):
                        copies.write_all(file_fd, piece[written:])
                self.bytes += member.size
            self._dress(file_fd, wear)
        finally:
            kernel.close(file_fd)

    def _write_sparse(self, fd: int, member: tar.Member) -> None:
        kernel.ftruncate(fd, member.size)
        for offset, length in member.sparse or ():
            os.lseek(fd, offset, os.SEEK_SET)
            self.bytes += length
            while length:
                piece = self._reader.take(min(length, 1 << 18))
                if not piece:
                    raise ImageError("the tar archive is cut off")
                copies.write_all(fd, piece)
                length -= len(piece)

    def _link(self, member: tar.Member, above: str, name: str) -> None:
        first = split(member.link)
        where = f"{os.fsdecode(member.name)!r} is a hard link to {os.fsdecode(member.link)!r}"
        if not first or first[-1].startswith(WHITEOUT):
            raise ImageError(f"the layer is refused: {where}")
        parts = (*above.split("/"), name) if above else (name,)
        if parts == first:
            return
        fd = self._parent(above)
        try:
            first_fd = inroot.open_in_root(self._top_fd, "/".join(first[:-1]), _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError(f"the layer is refused: {where}, which is not in it") from None
        try:
            self._make_link(first_fd, first[-1], fd, above, name)
        except (FileNotFoundError, PermissionError):
            raise ImageError(f"the layer is refused: {where}, which is no file in it") from None
        finally:
            kernel.close(first_fd)

    def _make_link(self, first_fd: int, first: str, fd: int, above: str, name: str) -> None:
        for _ in range(2):
            try:
                kernel.link(first, name, src_dir_fd=first_fd, dst_dir_fd=fd, follow_symlinks=False)
                return
            except FileExistsError:
                old = os.stat(name, dir_fd=fd, follow_symlinks=False)
                new = os.stat(first, dir_fd=first_fd, follow_symlinks=False)
                if trees.identity(old) == trees.identity(new):
                    return
                self._clear(fd, above, name)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), first)

    def _special(self, member: tar.Member, fd: int, above: str, name: str) -> None:
        """A symbolic link, device or FIFO."""
        kind = _KINDS.get(member.kind, stat.S_IFLNK)
        wear = self._attributes(member, kind)
        for attempt in range(2):
            try:
                if kind == stat.S_IFLNK:
                    target = member.link.decode(_ENCODING, "surrogateescape")
                    kernel.symlink(target, name, dir_fd=fd)
                else:
                    kernel.mknod(name, kind | 0o600, _device(member), dir_fd=fd)
                break
            except FileExistsError:
                if attempt:
                    raise
                self._clear(fd, above, name)
            except PermissionError:
                if self._user and kind != stat.S_IFLNK:
                    return
                raise
        self._own(name, wear, fd)
        if kind != stat.S_IFLNK:
            kernel.chmod(name, stat.S_IMODE(wear.mode), dir_fd=fd)
        kernel.utime(name, ns=wear.times, dir_fd=fd, follow_symlinks=False)

    # ---------------------------------------------------------------------------- attributes

    def _attributes(self, member: tar.Member, kind: int) -> copies.Attributes:
        if not (0 <= member.uid <= _LARGEST_ID and 0 <= member.gid <= _LARGEST_ID):
            raise ImageError(
                f"the layer is refused: {os.fsdecode(member.name)!r} has the impossible owner "
                f"{member.uid}:{member.gid}"
            )
        moment = member.mtime
        if not -_FARTHEST_SECONDS < moment // 1_000_000_000 < _FARTHEST_SECONDS:
            moment = 0
        return copies.Attributes(
            kind | member.mode, (member.uid, member.gid), member.xattrs, (moment, moment)
        )

    def _dress(self, fd: int, wear: copies.Attributes) -> None:
        """Give an open file or directory its attributes."""
        # chown clears set-id bits and capabilities, so it comes first; anything changes the times.
        mode = stat.S_IMODE(wear.mode)
        if wear.owner != self._owner:
            try:
                kernel.fchown(fd, *wear.owner)
            except OSError as failure:
                if not self._user or failure.errno not in (errno.EPERM, errno.EINVAL):
                    raise
                mode &= 0o1777 if not stat.S_ISDIR(wear.mode) else 0o7777
        kernel.fchmod(fd, mode)
        for name, value in wear.xattrs.items():
            if copies.is_portable(name):
                self._set_attribute(fd, name, value)
        kernel.utime(fd, ns=wear.times)

    def _set_attribute(self, fd: int, name: str, value: bytes) -> None:
        if "\0" in name:
            raise ImageError("the layer is refused: an extended attribute with a NUL in its name")
        try:
            kernel.setxattr(fd, name, value)
        except OSError as failure:
            # A file system without such attributes may lose all but the powers of a program.
            if failure.errno == errno.ENOTSUP and name != "security.capability":
                return
            if not self._user or failure.errno != errno.EPERM:
                raise

    def _own(self, name: str, wear: copies.Attributes, fd: int) -> None:
        if wear.owner == self._owner:
            return
        try:
            kernel.chown(name, *wear.owner, dir_fd=fd, follow_symlinks=False)
        except OSError as failure:
            if not self._user or failure.errno not in (errno.EPERM, errno.EINVAL):
                raise


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _device(member: tar.Member) -> int:
    if member.kind == tar.FIFO:
        return 0
    major, minor = member.device
    name = os.fsdecode(member.name)
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ImageError(f"the layer is refused: {name!r} is the impossible device {major}:{minor}")
    if member.kind == tar.CHARACTER and (major, minor) == (0, 0):
        raise ImageError(
            f"the layer is refused: {name!r} is the device 0:0, a deletion in disguise"
        )
    return os.makedev(major, minor)
