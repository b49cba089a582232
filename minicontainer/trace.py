"""`--trace` and `--explain`: the program tells which system calls it makes, as strace would.

`enable` rebinds the acting names of the door to wrappers that call the old ones and write a line;
forked children inherit them, so their story is told too, by `steps.role` and pid.  Where nothing
is enabled nothing of this exists: this module is not even imported.

    ▸ give the container its own root
    [init 4711] pivot_root(".", ".") = 0 <38us>
          why: swaps the root mount of this namespace; ...

The writer's descriptor lies high, out of the way of those the program counts on, and is
close-on-exec.  The traced `close_range` and `close` leave it open, so that a child that closes
everything is heard until its execve.
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer import kernel, steps
from minicontainer.kernel import decode, netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_HIGH = 1000
_enabled: list[tuple[Any, str, Any]] = []
_pid = 0


class Writer:
    """Writes each text with one write(2) to a high, close-on-exec copy of a descriptor."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        import fcntl

        soft, _ = kernel.getrlimit(kernel.RLIMIT_NOFILE)
        lowest = _HIGH if soft < 0 or soft > _HIGH + 8 else max(soft - 8, 3)
        self.fd = int(fcntl.fcntl(fd, kernel.F_DUPFD_CLOEXEC, lowest))

    def __call__(self, text: str) -> None:
        """Write; a reader that went away does not stop what is told."""
        try:
            os.write(self.fd, text.encode("utf-8", "surrogateescape"))
        except OSError:
            pass


def writer(path: str | None = None) -> Writer:
    """A writer to a file, replaced if it exists, or to standard error."""
    if path is None:
        return Writer(2)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    try:
        return Writer(fd)
    finally:
        os.close(fd)


def enable(write: Callable[[str], object], *, explain: bool = False) -> None:
    """Have every act through the door told to `write`, one line a call.

    With `explain` the steps' sentences stand above the calls they lead to, and the first call of
    each kind says why it is made.
    """
    disable()
    _identify()
    explained: set[str] | None = set() if explain else None
    own_fd = getattr(write, "fd", -1)
    for name in decode.SIGNATURES:
        function = _keeping(name, getattr(kernel, name), own_fd)
        _rebind(kernel, name, _traced(name, function, write, explained))
    _rebind(netlink, "exchange", _traced("exchange", netlink.exchange, write, explained))
    if explain:
        _rebind(steps, "listener", lambda sentence: write(f"▸ {sentence}\n"))


def disable() -> None:
    """Give the door its own functions back."""
    while _enabled:
        module, name, function = _enabled.pop()
        setattr(module, name, function)


def _identify() -> None:
    """Learn the pid by which the outside knows this process: that of the /proc it still sees."""
    global _pid
    try:
        _pid = int(os.readlink("/proc/self"))
    except (OSError, ValueError):
        _pid = os.getpid()


def _rebind(module: Any, name: str, function: Any) -> None:
    _enabled.append((module, name, getattr(module, name)))
    setattr(module, name, function)


def _keeping(name: str, function: Callable[..., Any], own_fd: int) -> Callable[..., Any]:
    """The function, or for those that close descriptors one that leaves ours open."""
    if own_fd < 0 or name not in ("close", "close_range"):
        return function

    def close(fd: int) -> None:
        if fd != own_fd:
            function(fd)

    def close_range(first: int, last: int, flags: int = 0) -> None:
        if flags & kernel.CLOSE_RANGE_CLOEXEC or not first <= own_fd <= last:
            function(first, last, flags)
            return
        if first < own_fd:
            function(first, own_fd - 1, flags)
        if own_fd < last:
            function(own_fd + 1, last, flags)

    return close if name == "close" else close_range


def _traced(
    name: str,
    function: Callable[..., Any],
    write: Callable[[str], object],
    explained: set[str] | None,
) -> Callable[..., Any]:
    def act(*arguments: Any, **keywords: Any) -> Any:
        if name in ("execve", "execveat"):  # there is no afterwards to tell of
            write(_line(_text(name, function, arguments, keywords), "?", None, name, explained))
        begun = time.perf_counter_ns()
        try:
            result = function(*arguments, **keywords)
        except OSError as failure:
            took = time.perf_counter_ns() - begun
            call = getattr(failure, "call", "") or _text(name, function, arguments, keywords)
            write(_line(call, _failure(failure), took, name, explained))
            raise
        took = time.perf_counter_ns() - begun
        if name == "fork" and result == 0:  # of the two that return the parent tells of it
            _identify()
        else:
            call = _text(name, function, arguments, keywords)
            write(_line(call, _result(name, result), took, name, explained))
        return result

    return act


def _text(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> str:
    """The call as text, the arguments left out filled in where the function says them."""
    if name == "exchange":
        return netlink.describe(*arguments[1:])
    code = function.__code__
    parameters = code.co_varnames[: code.co_argcount]
    if not parameters:
        return decode.call(name, arguments, keywords)
    defaults = function.__defaults__ or ()
    missing = parameters[len(arguments) :]
    left_out = dict(zip(reversed(parameters), reversed(defaults)))
    values = [keywords.get(parameter, left_out.get(parameter)) for parameter in missing]
    return decode.call(name, [*arguments, *values])


def _failure(failure: OSError) -> str:
    number = failure.errno or 0
    detail = getattr(failure, "detail", "")
    words = f"-1 {errno.errorcode.get(number, number)} ({os.strerror(number)})"
    return f"{words} {decode.quoted(detail)}" if detail else words


def _result(name: str, result: object) -> str:
    if result is None:
        return "0"
    if isinstance(result, bool) or not isinstance(result, int):
        return repr(result)
    return f"0{result:o}" if name == "umask" else str(result)


def _line(call: str, result: str, took: int | None, name: str, explained: set[str] | None) -> str:
    time_taken = "" if took is None else f" <{took // 1000}us>"
    line = f"[{steps.role} {_pid}] {call} = {result}{time_taken}\n"
    if explained is None or name in explained or name not in WHY:
        return line
    explained.add(name)
    return f"{line}      why: {WHY[name]}\n"


WHY = {
    "bpf_load": "gives the kernel a small program that decides which devices may be opened",
    "capset": "gives up the powers of root that the container must not have",
    "close_range": "keeps what we have open from being inherited by the container's program",
    "exchange": "asks the kernel to change the network of the namespace this socket was born in",
    "execve": "replaces us by the container's program; all that was set up stays in force",
    "execveat": "as execve, but of a descriptor, so that no path can be swapped under us",
    "fchdir": "stands on a directory by its descriptor, whatever its path has become",
    "flock": "keeps two commands from changing the same thing at once",
    "fork": "makes the process that becomes the container; it starts as a copy of this one",
    "fsconfig": "tells the new file system its parameters one by one, then creates it",
    "fsmount": "makes a mount of it that is attached nowhere yet and goes away by itself",
    "fsopen": "begins a file system without a mount point; errors come with words",
    "join_session_keyring": "leaves the caller's keys behind: keyrings are not in any namespace",
    "memfd_create": "a file without a name or disk, which can be sealed against changes",
    "mknod": "makes a device node: the number says which driver answers when it is opened",
    "mount": "puts a file system into this mount namespace, or changes how one is seen",
    "mount_setattr": "makes mounts read-only, nosuid or private, a whole tree at once",
    "move_mount": "attaches a mount that until now existed only as a descriptor",
    "open_tree": "takes a copy of a mount as a descriptor: a bind mount not yet attached",
    "openat2": "opens a path that cannot lead out of its root, whatever symbolic links say",
    "pidfd_open": "a descriptor of a process: unlike a number it never names another one",
    "pidfd_send_signal": "signals exactly that process, even if its number is used again",
    "pivot_root": "swaps the root mount of this namespace; with old and new stacked the old one"
    " can be detached",
    "prctl": "changes an attribute of this process, such as no_new_privs, which only grows",
    "seccomp": "installs the list of system calls the container may make; it cannot be taken off",
    "set_controlling_terminal": "makes ctrl-c and hang-up of this terminal reach the container",
    "setgroups": "replaces the caller's supplementary groups, which may open the host's files",
    "sethostname": "names the machine, seen in this UTS namespace only",
    "setns": "joins a namespace that exists already",
    "setresgid": "becomes the group the command shall run as",
    "setresuid": "becomes the user the command shall run as; the capabilities go with root",
    "setrlimit": "bounds what the process and all it starts may use",
    "setsid": "starts a session of its own, so that no terminal of the host controls it",
    "socketpair": "the line on which parent and child tell each other how far they are",
    "umount2": "takes a mount out of this namespace; with MNT_DETACH at once, even if in use",
    "unshare": "moves this process into namespaces of its own: from here it sees and changes"
    " private copies",
    "write_file": "the kernel's control files take a setting as text, in one write",
}
