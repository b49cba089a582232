"""Files that change whole or not at all: written beside their place, then renamed onto it."""

from __future__ import annotations

import os

from minicontainer import kernel


def replace(path: str, text: str, *, durable: bool = False, mode: int = 0o600) -> None:
    """Replace the file `path`: a reader sees the old text or the new one, never a part.

    durable: it is on the disk when this returns. Raises OSError; the old text is then intact.
    Several may replace it at once: the last one stays.
    """
    new = f"{path}.{os.urandom(4).hex()}.new"
    flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_TRUNC | kernel.O_CLOEXEC
    fd = kernel.open(new, flags, mode)
    try:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[kernel.write(fd, data) :]
        if durable:
            kernel.fsync(fd)
        kernel.rename(new, path)
    except OSError:
        kernel.unlink(new)
        raise
    finally:
        kernel.close(fd)
    if durable:
        sync(os.path.dirname(path) or ".")


def sync(path: str) -> None:
    """Put a file's bytes, or a directory's entries, on the disk."""
    fd = kernel.open(path, kernel.O_RDONLY | kernel.O_CLOEXEC)
    try:
        kernel.fsync(fd)
    finally:
        kernel.close(fd)
