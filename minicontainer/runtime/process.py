"""The last steps of every process that enters a container, whether its first or by exec.

Used by `init` and `enter` alike, inside the container's root: who the process is to be, where its
command lies, its standard streams, and the way from Python to the command.  Imports nothing inside
functions; what is called here runs in a forked child.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import kernel
from minicontainer.errors import CommandNotFound, CommandNotInvocable, Error
from minicontainer.primitives import capabilities, credentials
from minicontainer.steps import errno_text, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Process = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def identify(process: Process, user: str | None, groups: list[str]) -> Process:
    """`process` with numeric ids and HOME filled in, looked up in the root we stand in.

    user: name|uid[:group|gid], "" for root; groups: further ones. Another user than root then has
    no capabilities. None takes ids and capabilities of `process` as they are (OCI).
    Raises Error for a name that is not in the container's passwd or group file.
    """
    given = process.get("user", {})
    root_fd = kernel.open("/", kernel.O_PATH | kernel.O_DIRECTORY | kernel.O_CLOEXEC)
    try:
        passwd = credentials.read_database(root_fd, "etc/passwd")
        group = credentials.read_database(root_fd, "etc/group")
    finally:
        kernel.close(root_fd)
    if user is not None:
        uid, gid, others, home = credentials.resolve_user(user or None, groups, passwd, group)
        allowed = process.get("capabilities") or {}
        kept = _SETS if uid == 0 else ("bounding",)
        process = {**process, "capabilities": {name: allowed.get(name) for name in kept}}
    else:
        uid, gid = given.get("uid", 0), given.get("gid", 0)
        home = credentials.home_of(uid, passwd)
        others = given.get("additionalGids", [])
    env = [entry for entry in process.get("env", ()) if entry != "HOME="]
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={home or '/'}")
    ids = {**given, "uid": uid, "gid": gid, "additionalGids": others}
    return {**process, "user": ids, "env": env}


def enter_directory(cwd: str) -> None:
    """chdir to the working directory, made (0755 root) where missing; it must lie in the root."""
    with step("enter the working directory %s", cwd):
        if not os.path.isdir(cwd):
            current = ""
            for name in cwd.split("/"):
                current = f"{current}/{name}" if name else current
                if current and not os.path.isdir(current):
                    kernel.mkdir(current, 0o755)
        kernel.chdir(cwd)
    # CVE-2024-21626: a descriptor of the host as working directory shows no path from our root.
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise Error(f"the working directory {cwd} is outside the container's root")


def own_streams(uid: int, gid: int) -> None:
    """Give the standard streams to the user, so that it can reopen them; not /dev/null."""
    for fd in (0, 1, 2):
        try:
            found = os.fstat(fd)
            null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)
            if not null and found.st_uid != uid:
                kernel.fchown(fd, uid, -1 if stat.S_ISCHR(found.st_mode) else gid)
        except OSError as failure:
            if failure.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS, errno.EBADF):
                raise


def set_limits(process: Process) -> None:
    """Apply `process.rlimits`, `oomScoreAdj` excepted: that needs the host's /proc."""
    for limit in process.get("rlimits") or ():
        number = getattr(kernel, limit["type"])
        with step("limit %s to %s:%s", limit["type"], limit["soft"], limit["hard"]):
            kernel.setrlimit(number, (_limit(limit["soft"]), _limit(limit["hard"])))


def _limit(value: int) -> int:
    return -1 if value >= 2**63 - 1 else value


def new_keyring(container_id: str) -> None:
    """A session keyring of the container's own, which its owner may search: keyctl(2)."""
    try:
        key = kernel.join_session_keyring(f"_ses.{container_id}")
        possessor_all, user_search = 0x3F000000, 0x000B0000
        kernel.keyctl(kernel.KEYCTL_SETPERM, key, possessor_all | user_search)
    except OSError as failure:
        # Not built in, filtered by an outer container, or its quota of keys is used up.
        if failure.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT, errno.EACCES):
            raise


def become(process: Process) -> None:
    """Drop to the user and capabilities of `process`, in the order CONFINEMENT C2 demands."""
    user = process.get("user", {})
    wanted = process.get("capabilities") or {}
    credentials.become(
        user.get("uid", 0),
        user.get("gid", 0),
        user.get("additionalGids") or [],
        user.get("umask", 0o022),
        {name: capabilities.mask(wanted.get(name) or ()) for name in _SETS},
        no_new_privs=bool(process.get("noNewPrivileges")),
    )


def find_command(name: str, env: list[str]) -> str:
    """The path of the command as execvp(3) would find it, in the container, as its user.

    Raises CommandNotFound or CommandNotInvocable in the words that engines look for.
    """
    if "/" in name:
        _check(name, name)
        return name
    path = next((entry[5:] for entry in env if entry.startswith("PATH=")), DEFAULT_PATH)
    refused = None
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            _check(candidate, name)
            return candidate
        except CommandNotFound:
            continue
        except CommandNotInvocable as failure:
            refused = refused or failure
    if refused is not None and name:
        raise refused
    raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def _check(path: str, name: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as failure:
        text = errno_text(failure.errno or 0).partition(" (")[0]
        raise CommandNotFound(f'exec: "{name}": stat {path}: {text}') from None
    except OSError as failure:
        text = errno_text(failure.errno or 0).partition(" (")[0]
        raise CommandNotInvocable(f'exec: "{name}": stat {path}: {text}') from None
    if stat.S_ISDIR(mode):
        raise CommandNotInvocable(f'exec: "{name}": is a directory: permission denied')
    if not os.access(path, os.X_OK):
        raise CommandNotInvocable(f'exec: "{name}": permission denied')


def reset_signals() -> None:
    """Every signal deliverable and at its default: a shell or nohup(1) may have had us ignore
    some, and CPython itself ignores SIGPIPE and SIGXFSZ."""
    for signal in kernel.ignored_signals():
        kernel.reset_signal(signal)
    kernel.unblock_all_signals()


def take_terminal(slave_fd: int, process: Process) -> None:
    """Make the terminal, in `consoleSize`, the controlling one of our session and our streams."""
    kernel.set_controlling_terminal(slave_fd)
    size = process.get("consoleSize")
    if size:
        kernel.set_window_size(slave_fd, size["height"], size["width"])
    use_streams((slave_fd, slave_fd, slave_fd))


def use_streams(streams: tuple[int, int, int]) -> None:
    """Install three descriptors as 0, 1 and 2, also when they overlap those numbers."""
    lifted = [kernel.dup(fd) if fd < 3 and fd != index else fd for index, fd in enumerate(streams)]
    for index, fd in enumerate(lifted):
        if fd == index:
            kernel.set_inheritable(fd, True)
        else:
            kernel.dup2(fd, index)


def close_above(*kept: int) -> None:
    """Close every descriptor above 2 but those `kept`: a close-on-exec one is still open while
    execve walks its path (CVE-2024-21626)."""
    first = 3
    for fd in (*sorted(kept), 2**32):
        if first < fd:
            try:
                kernel.close_range(first, fd - 1)
            except OSError as failure:
                if failure.errno != errno.ENOSYS:  # before Linux 5.9
                    raise
                os.closerange(first, min(fd, 65536))
        first = max(first, fd + 1)


def execute(path: str, process: Process, name: str) -> NoReturn:
    """Replace this process by the command. Raises CommandNotFound or CommandNotInvocable."""
    env = dict(entry.split("=", 1) for entry in process.get("env", ()) if "=" in entry)
    try:
        kernel.execve(path, process["args"], env)
    except OSError as failure:
        text = errno_text(failure.errno or 0)
        kind = CommandNotFound if failure.errno == errno.ENOENT else CommandNotInvocable
        hint = None
        if failure.errno == errno.ENOENT:
            hint = "the file exists: the interpreter or loader that it names does not"
        elif failure.errno == errno.ENOEXEC:
            hint = "not a program of this machine, or a script without its #! line"
        raise kind(f'exec: "{name}": {text.partition(" (")[0]}', hint=hint) from None
    raise AssertionError("execve returned")
