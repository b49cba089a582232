"""The store's blobs: bytes as received, each under its digest, none that was not verified.

A blob is written to tmp/ under a lock and, once its size and digest are right, staged; `commit`
renames what is staged into place, after the file system has written it out.  A known blob that is
cut off, even by a power failure, stays as tmp/partial-<hex> and is continued by the next writer,
who reads it again from its beginning.  image-spec image-layout.md.
"""

from __future__ import annotations

import os
import stat

from minicontainer import kernel
from minicontainer.errors import DigestMismatch, ImageError
from minicontainer.image import locks
from minicontainer.image.reference import is_digest
from minicontainer.paths import Paths
from minicontainer.primitives import commits
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
    from typing import Any
else:
    from minicontainer.tuples import namedtuple

_Staged = namedtuple("_Staged", "fd path size")

_READ = kernel.O_RDONLY | kernel.O_NOFOLLOW | kernel.O_NONBLOCK | kernel.O_CLOEXEC
_PIECE_BYTES = 1 << 20
# Each is an open file until it is committed.
_MOST_STAGED = 100


def hex_of(digest: str) -> str:
    """The digits of a digest. Raises ImageError for what is none: it would become a path."""
    if not is_digest(digest):
        raise ImageError(f"{digest!r:.100} is not a sha256 digest")
    return digest[7:]


class Blobs:
    """The blobs below images/blobs/sha256, and those that are staged. Threads may share it."""

    def __init__(self, paths: Paths) -> None:
        from _thread import RLock

        self._paths = paths
        self._staged: dict[str, _Staged] = {}
        self._guard = RLock()
        self.directory = f"{paths.images}/blobs/sha256"

    def path(self, digest: str) -> str:
        """Where the blob is or will be."""
        return f"{self.directory}/{hex_of(digest)}"

    def find(self, digest: str) -> str | None:
        """Where the blob is now, None if it is not there."""
        with self._guard:
            staged = self._staged.get(digest)
            path = staged.path if staged else self.path(digest)
        try:
            return path if stat.S_ISREG(os.lstat(path).st_mode) else None
        except OSError:
            return None

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there, in its `size`."""
        path = self.find(digest)
        return path is not None and (size is None or os.path.getsize(path) == size)

    def open(self, digest: str) -> int:
        """A descriptor of the blob. Raises ImageError when it is missing or no file."""
        path = self.find(digest)
        try:
            if path is None:
                raise FileNotFoundError
            fd = kernel.open(path, _READ)
        except FileNotFoundError:
            raise ImageError(
                f"blob {digest} is missing from the store", hint="pull or load the image again"
            ) from None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        kernel.close(fd)
        raise ImageError(f"blob {digest} is not a regular file")

    def read(self, digest: str, limit: int, *, verify: bool = True) -> bytes:
        """The blob's bytes. Raises ImageError beyond `limit` bytes, DigestMismatch."""
        fd = self.open(digest)
        try:
            with open(fd, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            kernel.close(fd)
        if len(data) > limit:
            raise ImageError(f"blob {digest} is larger than {limit} bytes")
        if verify:
            check(data, digest)
        return data

    def put(self, data: bytes, digest: str | None = None) -> str:
        """Stage a small blob; returns its digest. Raises DigestMismatch if that is not `digest`."""
        found = digest_of(data)
        if digest not in (None, found):
            raise DigestMismatch(f"the digest of the bytes is {found}, not {digest}")
        with self.writer(found, len(data)) as writer:
            if not writer.present:
                writer.restart()
                writer.write(data)
            writer.finish()
        return found

    def writer(
        self,
        digest: str | None = None,
        size: int | None = None,
        wait: Callable[[], None] | None = None,
    ) -> BlobWriter:
        """A writer of one blob, to be used in a `with`.

        digest, size: what it must turn out to be, as far as known.  wait: called again and again
        while another process or thread writes the same blob; what it raises ends the waiting.
        """
        return BlobWriter(self, self._paths.tmp, digest, size, wait)

    def stage(self, digest: str, staged: _Staged) -> None:
        """Take over a finished file, its descriptor and lock."""
        with self._guard:
            if self.has(digest, staged.size):
                kernel.unlink(staged.path)
                kernel.close(staged.fd)
                return
            self._staged[digest] = staged
            full = len(self._staged) >= _MOST_STAGED
        if full:
            self.commit(synced=False)

    def staged(self) -> int:
        """How many blobs are staged."""
        return len(self._staged)

    def commit(self, *, synced: bool) -> None:
        """Rename what is staged into place. synced: it is on the disk already."""
        with self._guard, step("put blobs into %s", self.directory):
            for staged in () if synced else self._staged.values():
                kernel.fsync(staged.fd)
            for digest in list(self._staged):
                staged = self._staged[digest]
                kernel.rename(staged.path, self.path(digest))
                del self._staged[digest]
                kernel.close(staged.fd)
            commits.sync(self.directory)

    def drop(self) -> None:
        """Let go of what is staged; it can be continued by the next writer."""
        with self._guard:
            while self._staged:
                _, staged = self._staged.popitem()
                if not os.path.basename(staged.path).startswith("partial-"):
                    kernel.unlink(staged.path)
                kernel.close(staged.fd)


class BlobWriter:
    """One blob on its way into the store.

    `present`: somebody else has finished it, there is nothing to do.  Leaving the `with` before
    `finish` keeps what was written if the digest was given, else removes it.
    """

    def __init__(
        self,
        blobs: Blobs,
        directory: str,
        digest: str | None,
        size: int | None,
        wait: Callable[[], None] | None,
    ) -> None:
        self._blobs = blobs
        self._digest, self._size, self._wait = digest, size, wait
        name = f"partial-{hex_of(digest)}" if digest else f"blob-{os.urandom(16).hex()}"
        self._path = f"{directory}/{name}"
        self._fd = -1
        self._written = 0
        self._hash: Any = None
        self.present = False

    def __enter__(self) -> BlobWriter:
        with step("write blob %s", self._path):
            patience = locks.Patience("writing the same blob", None, self._wait)
            while True:
                if self._digest and self._blobs.has(self._digest, self._size):
                    self.present = True
                    return self
                if self._claim():
                    break
                patience.wait()
            try:
                self._resume()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *failure: object) -> None:
        if self._fd >= 0:
            if not self._digest:
                kernel.unlink(self._path)
            self._close()

    def _claim(self) -> bool:
        """Whether the file could be locked, and is still the one of that name."""
        flags = kernel.O_RDWR | kernel.O_CREAT | kernel.O_NOFOLLOW | kernel.O_NONBLOCK
        fd = kernel.open(self._path, flags | kernel.O_CLOEXEC, 0o644)
        try:
            if locks.attempt(fd, kernel.LOCK_EX):
                there = os.stat(self._path, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (os.fstat(fd).st_dev, os.fstat(fd).st_ino):
                    self._fd, fd = fd, -1
                    return True
        except FileNotFoundError:
            pass
        finally:
            if fd >= 0:
                kernel.close(fd)
        return False

    def _resume(self) -> None:
        """Count and hash what an earlier writer has left."""
        self._hash = new_hash()
        there = os.fstat(self._fd).st_size
        if self._size is not None and there > self._size:
            kernel.ftruncate(self._fd, 0)
        while piece := os.read(self._fd, _PIECE_BYTES):
            self._hash.update(piece)
            self._written += len(piece)

    def offset(self) -> int:
        """How many bytes are there already."""
        return self._written

    def restart(self) -> None:
        """Forget the bytes that are there already."""
        kernel.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash, self._written = new_hash(), 0

    def write(self, piece: bytes | memoryview) -> None:
        """Add bytes. Raises DigestMismatch when they are more than announced."""
        if self.present:
            return
        if self._size is not None and self._written + len(piece) > self._size:
            self._discard()
            raise DigestMismatch(
                f"blob {self._digest or ''} is larger than the {self._size} bytes announced"
            )
        with step("write blob %s", self._path):
            view = memoryview(piece)
            while view:
                view = view[kernel.write(self._fd, view) :]
        self._hash.update(piece)
        self._written += len(piece)

    def finish(self) -> tuple[str, int]:
        """Verify and stage the blob; its digest and size.

        Raises DigestMismatch, and keeps nothing then, unless it is merely too short.
        """
        if self.present:
            assert self._digest
            return self._digest, os.path.getsize(self._blobs.find(self._digest) or "")
        found = f"sha256:{self._hash.hexdigest()}"
        if self._size is not None and self._written != self._size:
            raise DigestMismatch(
                f"blob {self._digest or ''} ends after {self._written} of {self._size} bytes"
            )
        if self._digest not in (None, found):
            self._discard()
            raise DigestMismatch(f"the digest of the bytes is {found}, not {self._digest}")
        fd, self._fd = self._fd, -1
        self._blobs.stage(found, _Staged(fd, self._path, self._written))
        return found, self._written

    def _discard(self) -> None:
        kernel.unlink(self._path)
        self._close()

    def _close(self) -> None:
        kernel.close(self._fd)
        self._fd = -1


def new_hash() -> Any:
    """A sha256 to be fed."""
    import hashlib

    return hashlib.sha256()


def digest_of(data: bytes) -> str:
    """`sha256:…` of some bytes."""
    hashed = new_hash()
    hashed.update(data)
    return f"sha256:{hashed.hexdigest()}"


def check(data: bytes, digest: str) -> None:
    """Raises DigestMismatch unless `digest` is that of `data`."""
    found = digest_of(data)
    if found != digest:
        raise DigestMismatch(f"the digest of the bytes is {found}, not {digest}")
