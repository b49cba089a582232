"""An unpacked layer beside its blob: the blob is unpacked once more and the two trees compared.

Names, types, owners, modes, times, links, devices, marks of the overlay and every byte.
"""

from __future__ import annotations

import os
import stat
import time

from minicontainer import kernel
from minicontainer.image import compression, layer
from minicontainer.image.store import Store
from minicontainer.primitives import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
_PIECE_BYTES = 1 << 18


def difference(store: Store, digest: str, path: str) -> str:
    """The first difference between the layer's tree at `path` and its blob, "" for none.

    Raises ImageError when the blob cannot be unpacked, OSError.
    """
    began = time.time_ns()
    name = f"check-{os.urandom(8).hex()}"
    kernel.mkdir(f"{store.paths.tmp}/{name}", 0o700)
    fresh_fd = kernel.open(f"{store.paths.tmp}/{name}", _DIRECTORY)
    kernel.flock(fresh_fd, kernel.LOCK_EX)
    try:
        _unpack(store, digest, fresh_fd)
        kept_fd = kernel.open(path, _DIRECTORY)
        try:
            return compare(fresh_fd, kept_fd, began)
        finally:
            kernel.close(kept_fd)
    finally:
        tmp_fd = kernel.open(store.paths.tmp, _DIRECTORY)
        trees.remove_tree(tmp_fd, name)
        kernel.close(tmp_fd)
        kernel.close(fresh_fd)


def _unpack(store: Store, digest: str, fd: int) -> None:
    blob_fd = store.open_blob(digest)
    try:
        with compression.Stream(lambda size: os.read(blob_fd, size)) as stream:
            layer.apply(stream.read, fd, layer.limits_for(store.paths.tmp), store.user)
    finally:
        kernel.close(blob_fd)


def compare(fresh_fd: int, kept_fd: int, began: int) -> str:
    """The first difference between two trees, "" for none.

    began: directories that were made after this (nanoseconds) were not described by the layer, so
    that their times may differ.
    """
    fresh_links: dict[tuple[int, int], str] = {}
    kept_links: dict[tuple[int, int], str] = {}
    kept = _entering(kept_fd)
    for one in _entering(fresh_fd):
        other = next(kept, None)
        if other is None or other.path.split("/") > one.path.split("/"):
            return f"{one.path!r} is missing"
        if other.path != one.path:
            return f"{other.path!r} is not from the image"
        links = (
            fresh_links.setdefault(trees.identity(one.status), one.path),
            kept_links.setdefault(trees.identity(other.status), other.path),
        )
        if links[0] != links[1]:
            return f"{one.path!r} is linked differently"
        if _facts(one.status, began) != _facts(other.status, began, one.status):
            return f"{one.path!r} has another type, owner, mode, time or size"
        if _insides(one) != _insides(other) or not _same_bytes(one, other):
            return f"{one.path!r} has another content"
    other = next(kept, None)
    return f"{other.path!r} is not from the image" if other else ""


def _entering(fd: int) -> Iterator[trees.Entry]:
    return (entry for entry in trees.walk(fd, cross=False) if not entry.leaving)


def _facts(
    status: os.stat_result, began: int, fresh: os.stat_result | None = None
) -> tuple[int, ...]:
    fresh = fresh or status
    is_directory = stat.S_ISDIR(fresh.st_mode)
    made_up = is_directory and fresh.st_mtime_ns >= began
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        0 if is_directory else status.st_size,
        0 if made_up else status.st_mtime_ns,
    )


def _insides(entry: trees.Entry) -> tuple[str, list[tuple[str, bytes]]]:
    """Where a link leads, and the extended attributes."""
    fd = trees.open_entry(entry.directory_fd, entry.name, kernel.O_PATH)
    try:
        target = os.readlink("", dir_fd=fd) if stat.S_ISLNK(entry.status.st_mode) else ""
        path = f"/proc/self/fd/{fd}"
        try:
            return target, [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
        except OSError:
            return target, []
    finally:
        kernel.close(fd)


def _same_bytes(one: trees.Entry, other: trees.Entry) -> bool:
    if not stat.S_ISREG(one.status.st_mode):
        return True
    one_fd = trees.open_entry(one.directory_fd, one.name, kernel.O_RDONLY)
    other_fd = trees.open_entry(other.directory_fd, other.name, kernel.O_RDONLY)
    try:
        while True:
            piece = os.read(one_fd, _PIECE_BYTES)
            if piece != os.read(other_fd, _PIECE_BYTES):
                return False
            if not piece:
                return True
    finally:
        kernel.close(one_fd)
        kernel.close(other_fd)
