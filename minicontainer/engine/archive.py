"""Tar streams: a container's files written as one, one applied inside a container's root.

`tarfile` codes and decodes headers; the files themselves are reached through directory descriptors
alone, and nothing is ever unpacked by path.  Owners are numbers, no name service is asked.  Written
as PAX (pax(1)), extended attributes as SCHILY.xattr.NAME.  Not for: layers of images.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections import namedtuple

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives import copies, inroot, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

_XATTR = "SCHILY.xattr."
_BUFFER_BYTES = 1 << 18
# Read before its header is written, so that the size is right; what a file without a size may have.
_SMALL_BYTES, _UNSIZED_BYTES = 1 << 16, 1 << 24
_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
_KINDS = {code: kind for kind, code in _TYPES.items()}

# What a hostile or broken stream may make us hold or make.
MOST_ENTRIES = 1_000_000
_PATH_MAX = 4096
_HEADER_BYTES = 1 << 20
_SPECIAL = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Writer:
    """A tar stream on a descriptor; a `with` block that fails leaves it visibly cut off."""

    def __init__(self, write_fd: int) -> None:
        self._links: dict[tuple[int, int], str] = {}
        self._output = _Output(write_fd)
        settings: Any = {"fileobj": self._output, "copybufsize": _BUFFER_BYTES}
        self._tar: Any = tarfile.open(
            mode="w|",
            bufsize=_BUFFER_BYTES,
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            **settings,
        )

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        if kind is None:
            self._tar.close()
        # Its destructor would write the rest of its buffer, at any time.
        self._output.closed = True

    def tree(
        self,
        top_fd: int,
        prefix: str = "",
        *,
        cross: bool = True,
        skip: Collection[tuple[int, int]] = (),
    ) -> None:
        """Add all that the directory `top_fd` contains, named below `prefix`.

        cross, skip: as in `trees.walk`. Sockets are left out, and what vanishes meanwhile.
        """
        for entry in trees.walk(top_fd, cross=cross, skip=skip):
            if not entry.leaving:
                try:
                    self.entry(entry.directory_fd, entry.name, prefix + entry.path, cross=cross)
                except FileNotFoundError:
                    continue

    def entry(self, directory_fd: int, name: str, member: str, *, cross: bool = True) -> None:
        """Add one entry of a directory, without what a directory contains, under the name `member`.

        A file on which something is mounted is added empty unless `cross`.
        """
        try:
            fd = trees.open_entry(directory_fd, name, kernel.O_PATH, cross=cross)
        except OSError as failure:
            if failure.errno != errno.EXDEV:
                raise
            status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            self._add(_header(member, status))
            return
        try:
            self._add_opened(fd, member)
        finally:
            kernel.close(fd)

    def _add_opened(self, fd: int, member: str) -> None:
        status = os.fstat(fd)
        if stat.S_IFMT(status.st_mode) not in _TYPES:
            return
        info = _header(member, status)
        path = f"/proc/self/fd/{fd}"
        if status.st_nlink > 1 and not info.isdir():
            first = self._links.setdefault(trees.identity(status), member)
            if first != member:
                info.type, info.linkname = tarfile.LNKTYPE, first
                self._add(info)
                return
        info.pax_headers = {
            _XATTR + name: value.decode("utf-8", "surrogateescape")
            for name, value in copies.read_xattrs(path).items()
        }
        if info.issym():
            info.linkname = os.readlink("", dir_fd=fd)
        if not info.isreg():
            self._add(info)
            return
        # A regular file, and pinned: opening it again by its magic link cannot wait or stray.
        source_fd = kernel.open(path, kernel.O_RDONLY | kernel.O_CLOEXEC)
        try:
            self._add_file(info, source_fd, status.st_size)
        finally:
            kernel.close(source_fd)

    def _add_file(self, info: tarfile.TarInfo, source_fd: int, size: int) -> None:
        source = _Source(source_fd)
        if size <= _SMALL_BYTES:
            source.kept = source.take(_SMALL_BYTES + 1)
            if len(source.kept) > _SMALL_BYTES:  # of procfs, or growing
                source.kept += source.take(_UNSIZED_BYTES)
            size = len(source.kept)
        info.size = size
        self._add(info, source)

    def _add(self, info: tarfile.TarInfo, source: _Source | None = None) -> None:
        self._tar.addfile(info, source)
        self._tar.members.clear()  # it would keep every header it ever wrote


class _Output:
    """What `tarfile` writes to: a descriptor, each piece in full."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.closed = False

    def write(self, piece: bytes) -> int:
        if self.closed:
            return len(piece)
        try:
            copies.write_all(self._fd, piece)
        except BrokenPipeError:
            error = Error("nobody reads the archive any more")
            error.exit_code = 128 + kernel.SIGPIPE
            raise error from None
        return len(piece)


class _Source:
    """The bytes of a file as `tarfile` wants them: exactly as many as the header says.

    One that was cut meanwhile ends in zeros.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.kept = b""

    def take(self, length: int) -> bytes:
        """Up to `length` bytes; fewer at the end of the file."""
        parts = []
        while length:
            part = os.read(self._fd, length)
            if not part:
                break
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def read(self, length: int) -> bytes:
        piece, self.kept = self.kept[:length], self.kept[length:]
        piece += self.take(length - len(piece))
        return piece + bytes(length - len(piece))


def _header(member: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member)
    kind = stat.S_IFMT(status.st_mode)
    info.type = _TYPES[kind]
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = status.st_mtime_ns // 1_000_000_000
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


class _Member(tarfile.TarInfo):
    """A header, refused where `tarfile` would take it for the end or read without bound."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            member: _Member = super().frombuf(buf, encoding, errors)
        except (tarfile.EmptyHeaderError, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as failure:
            raise Error(f"this is not a tar archive, or a damaged one: {failure}") from None
        if member.size < 0 or (member.type in _SPECIAL and member.size > _HEADER_BYTES):
            raise Error(f"the archive has a header of impossible size: {member.size} bytes")
        return member


def unpack(read_fd: int, root_fd: int, top: str) -> None:
    """Apply a tar stream, plain or compressed, to the directory `top` inside a root.

    Links met on the way lead wherever they lead inside that root.  Owners are the archive's.
    Raises Error for an archive that is refused, OSError; what came before has been applied then.
    """
    target = _Target(root_fd, top)
    try:
        with open(read_fd, "rb", buffering=_BUFFER_BYTES, closefd=False) as stream:
            tar = tarfile.open(
                fileobj=stream,
                mode="r|*",
                tarinfo=_Member,
                encoding="utf-8",
                errors="surrogateescape",
            )
            count = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                count += 1
                if count > MOST_ENTRIES:
                    raise Error(f"the archive has more than {MOST_ENTRIES} entries")
                target.apply(tar, member)
            while stream.read(_BUFFER_BYTES):  # padding: who writes it must not meet a closed pipe
                pass
        target.finish()
    except (tarfile.TarError, EOFError, RecursionError) as failure:
        raise Error(f"the archive cannot be read: {failure}") from None
    except OSError as failure:
        if failure.errno is None:  # of a decompressor
            raise Error(f"the archive cannot be read: {failure}") from None
        raise
    finally:
        target.close()


_DirectoryTimes = namedtuple("_DirectoryTimes", "parts times")


class _Target:
    """The directory inside a root that members are applied to."""

    def __init__(self, root_fd: int, top: str) -> None:
        self._root_fd = root_fd
        self._top = top
        self._parent: tuple[str, ...] | None = None
        self._parent_fd = -1
        self._times: list[_DirectoryTimes] = []

    def apply(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Make what one header describes, in place of what has that name."""
        parts = _parts(member.name)
        if not parts:
            return
        directory_fd, name = self._directory(parts[:-1]), parts[-1]
        if member.islnk():
            self._link(member, directory_fd, name)
        elif member.isdir():
            copies.make_directory(directory_fd, name)
            fd = trees.open_entry(directory_fd, name, kernel.O_DIRECTORY)
            wear = _attributes(member, stat.S_IFDIR)
            try:
                copies.dress(fd, wear)
            finally:
                kernel.close(fd)
            self._times.append(_DirectoryTimes(parts, wear.times))
        elif member.isreg():
            _write_file(tar, member, directory_fd, name)
        elif member.type in _KINDS:
            self._parent = None  # it may have led through the link that is replaced now
            wear = _attributes(member, _KINDS[member.type])
            copies.make_special(
                directory_fd, name, wear, target=_text(member.linkname), device=_device(member)
            )
        else:
            raise Error(f"{member.name}: entries of type {member.type!r} are not supported")

    def finish(self) -> None:
        """Set the times of directories, which making files in them has changed."""
        for parts, times in reversed(self._times):
            try:
                fd = trees.open_entry(self._directory(parts[:-1]), parts[-1], kernel.O_DIRECTORY)
            except FileNotFoundError:
                continue
            try:
                kernel.utime(fd, ns=times)
            finally:
                kernel.close(fd)

    def close(self) -> None:
        """Let go of the directory in use."""
        self._parent = None
        if self._parent_fd >= 0:
            kernel.close(self._parent_fd)
            self._parent_fd = -1

    def _directory(self, parts: tuple[str, ...]) -> int:
        if self._parent != parts:
            self.close()
            path = "/".join((self._top, *parts))
            self._parent_fd = inroot.directory_in_root(self._root_fd, path)
            self._parent = parts
        return self._parent_fd

    def _link(self, member: tarfile.TarInfo, directory_fd: int, name: str) -> None:
        first = _parts(member.linkname)
        if not first:
            raise Error(f"{member.name}: a hard link to nothing")
        path = "/".join((self._top, *first[:-1]))
        flags = kernel.O_PATH | kernel.O_DIRECTORY
        first_fd = inroot.open_in_root(self._root_fd, path, flags)
        try:
            copies.make_room(directory_fd, name)
            kernel.link(
                first[-1],
                name,
                src_dir_fd=first_fd,
                dst_dir_fd=directory_fd,
                follow_symlinks=False,
            )
        finally:
            kernel.close(first_fd)


def _parts(name: str) -> tuple[str, ...]:
    """The components of a member's name. Raises Error for one that is refused."""
    parts = tuple(part for part in _text(name).split("/") if part not in ("", "."))
    if ".." in parts:
        raise Error(f'the archive is refused: "{name}" leads out of it')
    return parts


def _text(name: str) -> str:
    if "\0" in name or len(os.fsencode(name)) >= _PATH_MAX:
        raise Error(f"the archive is refused: it has a name like {name[:60]!r}")
    return name


def _attributes(member: tarfile.TarInfo, kind: int) -> copies.Attributes:
    if not (0 <= member.uid < 2**32 - 1 and 0 <= member.gid < 2**32 - 1):
        raise Error(f"{member.name}: impossible owner {member.uid}:{member.gid}")
    # NaN and infinity, too, are not between these.
    moment = member.mtime if -(2**40) < member.mtime < 2**40 else 0
    nanoseconds = int(moment * 1_000_000_000) if isinstance(moment, float) else moment * 10**9
    xattrs = {
        key[len(_XATTR) :]: value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR) and copies.is_portable(key[len(_XATTR) :])
    }
    times = (nanoseconds, nanoseconds)
    return copies.Attributes(kind | member.mode & 0o7777, (member.uid, member.gid), xattrs, times)


def _device(member: tarfile.TarInfo) -> int:
    if member.type not in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        return 0
    if not (0 <= member.devmajor < 2**12 and 0 <= member.devminor < 2**20):
        raise Error(f"{member.name}: impossible device {member.devmajor}:{member.devminor}")
    if member.type == tarfile.CHRTYPE and not member.devmajor and not member.devminor:
        raise Error(f"{member.name}: character device 0:0 is the mark of a deleted file")
    return os.makedev(member.devmajor, member.devminor)


def _write_file(
    tar: tarfile.TarFile, member: tarfile.TarInfo, directory_fd: int, name: str
) -> None:
    wear = _attributes(member, stat.S_IFREG)
    fd, fresh = copies.create(directory_fd, name)
    try:
        source = tar.fileobject(tar, member)
        while piece := source.read(_BUFFER_BYTES):
            copies.write_all(fd, piece)
        if fresh:
            copies.dress(fd, wear)
    finally:
        kernel.close(fd)
