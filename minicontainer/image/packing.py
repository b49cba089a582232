"""Tar streams written: the files a container has changed as a layer, and archives of blobs.

`tarfile` codes the headers, as PAX; the files are reached through directory descriptors alone.
The same tree or the same blobs give the same bytes.  Not for: reading (`tar`), `export`.
"""

from __future__ import annotations

import os
import stat
import tarfile

from minicontainer import kernel
from minicontainer.errors import ImageError
from minicontainer.image.layer import OPAQUE, WHITEOUT
from minicontainer.primitives import copies, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Write = Callable[[bytes], object]

_PIECE_BYTES = 1 << 18
_BLOCK_BYTES = 512
_RECORD_BYTES = 10240
_OVERLAY = ("trusted.overlay.", "user.overlay.")
# A directory that was renamed or a file whose data is elsewhere: only the overlay can read it.
_UNREADABLE = ("redirect", "metacopy")
_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class Writer:
    """A tar stream handed to `write` piece by piece; `size` counts its bytes so far."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self.size = 0

    def put(self, piece: bytes) -> None:
        """Add raw bytes: of the member whose header was the last."""
        self._write(piece)
        self.size += len(piece)

    def header(self, info: tarfile.TarInfo) -> None:
        """Add a header; `info.size` bytes of data and `pad` must follow."""
        self.put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def pad(self) -> None:
        """Fill the member's last block."""
        self.put(bytes(-self.size % _BLOCK_BYTES))

    def file(self, name: str, data: bytes) -> None:
        """Add a file of an archive: owner, time and mode say nothing."""
        self.header(plain_file(name, len(data)))
        self.put(data)
        self.pad()

    def directory(self, name: str) -> None:
        """Add a directory of an archive."""
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self.header(info)

    def finish(self) -> None:
        """Mark the archive's end, and fill its last record."""
        self.put(bytes(2 * _BLOCK_BYTES))
        self.put(bytes(-self.size % _RECORD_BYTES))


def plain_file(name: str, size: int) -> tarfile.TarInfo:
    """The header of a file of an archive."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def pack(
    directory_fd: int,
    write: Write,
    *,
    root: bool = False,
    skip: Collection[str] = (),
) -> int:
    """Write the upper directory of an overlay as a layer; returns the stream's size in bytes.

    Devices 0:0 become whiteouts, opaque marks opaque whiteouts; sockets are left out.  root:
    describe the top directory as well.  skip: paths (below the top) left out with all they contain.
    Raises ImageError for what only that overlay could read, OSError.
    """
    writer = Writer(write)
    changes = _Changes(writer)
    if root:
        changes.add(directory_fd, ".", "./", os.fstat(directory_fd))
    if _marks(f"/proc/self/fd/{directory_fd}").get("opaque") == b"y":
        writer.file(OPAQUE, b"")
    hidden = ""
    for entry in trees.walk(directory_fd, cross=False):
        if entry.path in skip:
            hidden = entry.path
        if hidden and (entry.path == hidden or entry.path.startswith(f"{hidden}/")):
            continue
        if not entry.leaving:
            changes.add(entry.directory_fd, entry.name, entry.path, entry.status)
    writer.finish()
    return writer.size


class _Changes:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._links: dict[tuple[int, int], str] = {}

    def add(self, directory_fd: int, name: str, path: str, status: os.stat_result) -> None:
        above, _, last = path.rpartition("/")
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self._writer.file(f"{above}/{WHITEOUT}{last}" if above else WHITEOUT + last, b"")
            return
        if stat.S_IFMT(status.st_mode) not in _TYPES:
            return
        if last.startswith(WHITEOUT):
            raise ImageError(f"{path!r} cannot be part of a layer: its name means a deleted file")
        try:
            fd = trees.open_entry(directory_fd, name, kernel.O_PATH, cross=False)
        except FileNotFoundError:
            return
        try:
            self._add_opened(fd, path)
        finally:
            kernel.close(fd)

    def _add_opened(self, fd: int, path: str) -> None:
        status = os.fstat(fd)
        info = _header(path, status)
        if status.st_nlink > 1 and not info.isdir():
            first = self._links.setdefault(trees.identity(status), path)
            if first != path:
                info.type, info.linkname = tarfile.LNKTYPE, first
                self._writer.header(info)
                return
        link = f"/proc/self/fd/{fd}"
        marks = _marks(link)
        for mark in _UNREADABLE:
            if mark in marks:
                raise ImageError(f"{path!r} cannot be packed: its overlay was mounted with {mark}")
        info.pax_headers = {
            **info.pax_headers,
            **{
                f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
                for name, value in copies.read_xattrs(link).items()
            },
        }
        if info.issym():
            info.linkname = os.readlink("", dir_fd=fd)
        if info.isreg():
            self._add_file(info, link)
            return
        self._writer.header(info)
        if info.isdir() and marks.get("opaque") == b"y":
            self._writer.file(f"{path.rstrip('/')}/{OPAQUE}", b"")

    def _add_file(self, info: tarfile.TarInfo, link: str) -> None:
        # A regular file, and pinned: opening it again by its magic link cannot wait or stray.
        fd = kernel.open(link, kernel.O_RDONLY | kernel.O_CLOEXEC)
        try:
            info.size = left = os.fstat(fd).st_size
            self._writer.header(info)
            while left:
                # One that was cut meanwhile ends in zeros.
                piece = os.read(fd, min(left, _PIECE_BYTES)) or bytes(min(left, _PIECE_BYTES))
                self._writer.put(piece)
                left -= len(piece)
            self._writer.pad()
        finally:
            kernel.close(fd)


def _marks(path: str) -> dict[str, bytes]:
    """What an overlay has noted at a file: {"opaque": b"y"}."""
    found = {}
    try:
        for name in os.listxattr(path):
            for prefix in _OVERLAY:
                if name.startswith(prefix):
                    found[name[len(prefix) :]] = os.getxattr(path, name)
    except OSError:  # a file system, or a link, without attributes
        pass
    return found


def _header(path: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    kind = stat.S_IFMT(status.st_mode)
    info.type = _TYPES[kind]
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    seconds, rest = divmod(status.st_mtime_ns, 1_000_000_000)
    info.mtime = seconds
    if rest:
        sign = ""
        if seconds < 0:  # written as -(seconds + fraction)
            sign, seconds, rest = "-", -(seconds + 1), 1_000_000_000 - rest
        info.pax_headers = {"mtime": f"{sign}{seconds}.{rest:09d}"}
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info
