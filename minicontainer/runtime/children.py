"""A container's process as a child of ours: what names it, and its end.

Apart from `lifecycle`, since `exec` needs no more of it.
"""

from __future__ import annotations

import errno
import os

from minicontainer import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
else:
    from minicontainer.tuples import namedtuple

# pidfd is -1 before Linux 5.3, console_fd (the terminal's master) -1 without a terminal.
Process = namedtuple("Process", "pid start_time pidfd console_fd")


def reap(pid: int) -> int:
    """Wait for a child and give its wait status; 0 when it is none of ours."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def open_pidfd(pid: int) -> int:
    """A descriptor of the process; -1 before Linux 5.3. Raises ProcessLookupError."""
    try:
        return kernel.pidfd_open(pid)
    except OSError as failure:
        if failure.errno != errno.ENOSYS:
            raise
        return -1
