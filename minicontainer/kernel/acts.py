"""The acting calls of `os` under the door's names.

They behave exactly as those of `os`, with the same arguments; a failure also has `call`.
Descriptors they make are close-on-exec (PEP 446), but for `dup2`, which makes standard streams.
"""

from __future__ import annotations

import os

from minicontainer.kernel import constants, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])

__all__ = [
    "chdir",
    "chmod",
    "chown",
    "close",
    "copy_file_range",
    "dup",
    "dup2",
    "execve",
    "fchdir",
    "fchmod",
    "fchown",
    "fork",
    "fsync",
    "ftruncate",
    "getxattr",
    "kill",
    "killpg",
    "lchown",
    "link",
    "listxattr",
    "mkdir",
    "mkfifo",
    "mknod",
    "open",
    "pipe2",
    "posix_spawn",
    "read",
    "removexattr",
    "rename",
    "replace",
    "rmdir",
    "sched_setaffinity",
    "sendfile",
    "set_inheritable",
    "setgroups",
    "setpgid",
    "setpriority",
    "setresgid",
    "setresuid",
    "setsid",
    "setxattr",
    "symlink",
    "truncate",
    "umask",
    "unlink",
    "utime",
    "waitid",
    "waitpid",
    "write",
    "write_file",
]


def _named(function: _F) -> _F:
    """The function, its OSErrors carrying the call as text."""

    def act(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except OSError as failure:
            failure.call = decode.call(function.__name__, arguments, keywords)  # type: ignore
            raise

    return act  # type: ignore[return-value]


# For bytes on their way through: a BlockingIOError there is no failure and is not put in words.
read = os.read

chdir = _named(os.chdir)
chmod = _named(os.chmod)
chown = _named(os.chown)
close = _named(os.close)
copy_file_range = _named(os.copy_file_range)
dup = _named(os.dup)
dup2 = _named(os.dup2)
execve = _named(os.execve)
fchdir = _named(os.fchdir)
fchmod = _named(os.fchmod)
fchown = _named(os.fchown)
fork = _named(os.fork)
fsync = _named(os.fsync)
ftruncate = _named(os.ftruncate)
getxattr = _named(os.getxattr)
kill = _named(os.kill)
killpg = _named(os.killpg)
lchown = _named(os.lchown)
link = _named(os.link)
listxattr = _named(os.listxattr)
mkdir = _named(os.mkdir)
mkfifo = _named(os.mkfifo)
mknod = _named(os.mknod)
open = _named(os.open)
posix_spawn = _named(os.posix_spawn)
removexattr = _named(os.removexattr)
rename = _named(os.rename)
replace = _named(os.replace)
rmdir = _named(os.rmdir)
sched_setaffinity = _named(os.sched_setaffinity)
sendfile = _named(os.sendfile)
set_inheritable = _named(os.set_inheritable)
setgroups = _named(os.setgroups)
setpgid = _named(os.setpgid)
setpriority = _named(os.setpriority)
setresgid = _named(os.setresgid)
setresuid = _named(os.setresuid)
setsid = _named(os.setsid)
setxattr = _named(os.setxattr)
symlink = _named(os.symlink)
truncate = _named(os.truncate)
umask = _named(os.umask)
unlink = _named(os.unlink)
utime = _named(os.utime)
waitid = _named(os.waitid)
waitpid = _named(os.waitpid)
write = _named(os.write)


def pipe2(flags: int = 0) -> tuple[int, int]:
    """The (reading, writing) ends of a pipe."""
    return os.pipe2(flags | constants.O_CLOEXEC)


def write_file(path: str, data: str | bytes, dir_fd: int | None = None) -> None:
    """Write an existing file in one call, as the kernel's control files want it."""
    fd = open(path, constants.O_WRONLY, dir_fd=dir_fd)
    try:
        write(fd, os.fsencode(data) if isinstance(data, str) else data)
    except OSError as failure:
        failure.call = decode.call("write_file", (path, data))  # type: ignore[attr-defined]
        raise
    finally:
        os.close(fd)
