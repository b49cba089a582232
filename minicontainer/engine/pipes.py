"""The descriptors of a process's standard streams, made before there is anything to read them."""

from __future__ import annotations

import os

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Three = tuple[int, int, int]
    # (the process's own ends, our ends)
    Pipes = tuple[Three, Three]


def open_pipes(open_stdin: bool) -> Pipes:
    """Descriptors for a process's standard streams: (its own ends, our ends).

    Without `open_stdin` it reads /dev/null, and our end is -1.  All are close-on-exec.
    """
    opened: list[int] = []
    try:
        if open_stdin:
            opened += kernel.pipe2()
        else:
            opened += (kernel.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1)
        opened += kernel.pipe2()
        opened += kernel.pipe2()
    except BaseException:
        close_all(opened)
        raise
    stdin_r, stdin_w, stdout_r, stdout_w, stderr_r, stderr_w = opened
    return (stdin_r, stdout_w, stderr_w), (stdin_w, stdout_r, stderr_r)


def close_all(fds: Iterable[int]) -> None:
    """Close those that are descriptors."""
    for fd in fds:
        if fd >= 0:
            kernel.close(fd)
