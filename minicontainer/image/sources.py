"""Archives and directories as sets of named files, read where they lie, never extracted.

A tar archive is indexed in one pass over its headers; one that is compressed or comes through a
pipe is first copied, plain, into a file without a name.  Links inside an archive lead to its own
members.  Not for: what the files mean (`archive`).
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import ImageError
from minicontainer.image import compression, layer, tar
from minicontainer.primitives import copies
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
else:
    from minicontainer.tuples import namedtuple

# A file inside a source: `size` bytes from `offset` of the descriptor.
_Span = namedtuple("_Span", "offset size")

_READ = kernel.O_RDONLY | kernel.O_NONBLOCK | kernel.O_NOCTTY | kernel.O_CLOEXEC
_PIECE_BYTES = 1 << 20
_MOST_LINKS = 10


class File:
    """One file of a source, read from its beginning; close it, or use it in a `with`."""

    def __init__(self, fd: int, span: _Span) -> None:
        self._fd = kernel.dup(fd)
        self._at, self._end = span.offset, span.offset + span.size
        self.size: int = span.size

    def __enter__(self) -> File:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            kernel.close(self._fd)
            self._fd = -1

    def read(self, size: int = _PIECE_BYTES) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises ImageError if it has become shorter."""
        piece = os.pread(self._fd, min(size, self._end - self._at), self._at)
        if not piece and self._at < self._end:
            raise ImageError("the archive is cut off")
        self._at += len(piece)
        return piece


class Directory:
    """The files below a directory; no link is followed and nothing but regular files is opened."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def open(self, name: str) -> File | None:
        """The file `name`, None if there is none."""
        parts = _parts(name)
        fd = kernel.open(".", kernel.O_PATH | kernel.O_DIRECTORY, dir_fd=self._fd)
        try:
            for part in parts[:-1]:
                flags = kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_NOFOLLOW
                below = kernel.open(part, flags, dir_fd=fd)
                kernel.close(fd)
                fd = below
            file_fd = kernel.open(parts[-1], _READ | kernel.O_NOFOLLOW, dir_fd=fd)
        except OSError as failure:
            if failure.errno == errno.ELOOP:
                raise ImageError(f"{name!r} is not a regular file") from None
            if failure.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None
        finally:
            kernel.close(fd)
        try:
            status = os.fstat(file_fd)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name!r} is not a regular file")
            return File(file_fd, _Span(0, status.st_size))
        finally:
            kernel.close(file_fd)

    def close(self) -> None:
        """Let go of the directory."""
        kernel.close(self._fd)


class Archive:
    """The files of a plain tar archive that can be read at any place."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._files: dict[tuple[str, ...], _Span] = {}
        self._links: dict[tuple[str, ...], tuple[str, ...]] = {}
        try:
            self._index()
        except BaseException:
            kernel.close(fd)
            raise

    def _index(self) -> None:
        reader = _Seeking(self._fd)
        while (member := reader.next()) is not None:
            name = layer.split(member.name)
            self._files.pop(name, None)
            self._links.pop(name, None)
            if member.kind == tar.FILE and member.sparse is None:
                self._files[name] = _Span(reader.position, member.size)
            elif member.kind == tar.LINK:
                self._links[name] = layer.split(member.link)
            elif member.kind == tar.SYMLINK:
                self._links[name] = _beside(name, os.fsdecode(member.link))

    def open(self, name: str) -> File | None:
        """The file `name`, or what a link of that name leads to; None if there is none."""
        found = _parts(name)
        for _ in range(_MOST_LINKS):
            if found in self._files:
                return File(self._fd, self._files[found])
            if found not in self._links:
                return None
            found = self._links[found]
        raise ImageError(f"{name!r} is a link that leads in circles")

    def close(self) -> None:
        """Let go of the archive."""
        kernel.close(self._fd)


class _Seeking(tar.Reader):
    """A reader that jumps over the data of members."""

    def __init__(self, fd: int) -> None:
        super().__init__(lambda size: os.read(fd, min(size, 1 << 16)))
        self._file_fd = fd
        self._file_size = os.fstat(fd).st_size
        os.lseek(fd, 0, os.SEEK_SET)

    def skip(self) -> None:
        rest = self._left + self._padding
        if rest <= len(self._buffer) - self._at:
            super().skip()
            return
        target = self.position + rest
        if target > self._file_size:
            raise ImageError("the tar archive is cut off")
        os.lseek(self._file_fd, target, os.SEEK_SET)
        self._bytes = target
        self._buffer, self._at = b"", 0
        self._left = self._padding = 0


def open_path(path: str, staging: str) -> Archive | Directory:
    """The archive or the directory at `path`. Raises ImageError, KernelError."""
    with step("open %s", path):
        fd = kernel.open(path, _READ)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        return Directory(fd)
    try:
        return open_stream(fd, staging)
    finally:
        kernel.close(fd)


def open_path_as_file(path: str) -> int | None:
    """A descriptor of what is at `path`, a pipe perhaps; None for a directory."""
    with step("open %s", path):
        fd = kernel.open(path, kernel.O_RDONLY | kernel.O_NOCTTY | kernel.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        kernel.close(fd)
        return None
    return fd


def open_stream(fd: int, staging: str) -> Archive:
    """The archive that can be read from `fd`, which stays open.

    staging: a directory on whose file system it is copied if need be.
    """
    if stat.S_ISREG(os.fstat(fd).st_mode):
        first = os.pread(fd, 512, 0)
        if compression.kind(first) == "plain" and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            # Opened anew: a position of its own.
            return Archive(kernel.open(f"/proc/self/fd/{fd}", kernel.O_RDONLY | kernel.O_CLOEXEC))
    os.set_blocking(fd, True)
    with compression.Stream(lambda size: os.read(fd, size)) as stream:
        return Archive(copied(stream.read, staging))


def copied(read: Callable[[int], bytes], staging: str) -> int:
    """A descriptor of a nameless file with all that `read` gives."""
    most = layer.limits_for(staging).bytes
    total = 0
    with step("copy the archive to %s", staging):
        fd = nameless(staging)
        try:
            while piece := read(compression.PIECE_BYTES):
                total += len(piece)
                if total > most:
                    raise ImageError(f"the archive is larger than the {most} bytes that are free")
                copies.write_all(fd, piece)
            return fd
        except BaseException:
            kernel.close(fd)
            raise


def nameless(directory: str) -> int:
    """A descriptor of a new file that vanishes with it."""
    flags = kernel.O_RDWR | kernel.O_CLOEXEC
    try:
        return kernel.open(directory, flags | kernel.O_TMPFILE, 0o600)
    except OSError:  # not on every file system
        path = f"{directory}/archive-{os.urandom(8).hex()}"
        fd = kernel.open(path, flags | kernel.O_CREAT | kernel.O_EXCL, 0o600)
        kernel.unlink(path)
        return fd


def _parts(name: str) -> tuple[str, ...]:
    parts = layer.split(os.fsencode(name))
    if not parts:
        raise ImageError(f"{name!r:.200} names no file of the archive")
    return parts


def _beside(name: tuple[str, ...], target: str) -> tuple[str, ...]:
    """What a symbolic link of that name leads to."""
    if target.startswith("/"):
        return layer.split(os.fsencode(target))
    return layer.split(os.fsencode("/".join((*name[:-1], target))))
