"""Calls of the door as text, the way strace spells them: flag names, not numbers.

One table, `SIGNATURES`, says what each argument of each acting name of the door is.  It serves
the errors (`OSError.call`) and the trace, and is the list of names that `trace.enable` rebinds.
Nothing here runs before a call has failed or is being traced.
"""

from __future__ import annotations

import os

from minicontainer.kernel import constants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Kinds of argument: path (a string, NULL), data (bytes or a string, shortened), int, dirfd, mode
# (octal), type (mode with a file type), dev, sig, pid.  `A_` is a set of flags named A_*, several
# prefixes are joined by `|`; `=A_` is one value named A_*.
SIGNATURES = {
    "accept": "int",
    "bpf": "=BPF_PROG_|BPF_MAP_|BPF_OBJ_|BPF_LINK_ data",
    "bpf_load": "=BPF_PROG_TYPE_ size path",
    "block_signals": "sigs",
    "capset": "caps caps caps",
    "chdir": "path",
    "chmod": "path mode",
    "chown": "path int int",
    "close": "int",
    "close_range": "int int CLOSE_RANGE_",
    "copy_file_range": "int int int",
    "dup": "int",
    "dup2": "int int",
    "execve": "path argv env",
    "execveat": "dirfd path argv env AT_",
    "fchdir": "int",
    "fchmod": "int mode",
    "fchown": "int int int",
    "flock": "int LOCK_",
    "fork": "",
    "fsconfig": "int =FSCONFIG_ path data int",
    "fsmount": "int FSMOUNT_ MOUNT_ATTR_",
    "fsopen": "path FSOPEN_",
    "fsync": "int",
    "ftruncate": "int int",
    "ignore_signal": "sig",
    "join_session_keyring": "path",
    "keyctl": "=KEYCTL_ int int int int",
    "kill": "int sig",
    "killpg": "int sig",
    "lchown": "path int int",
    "link": "path path",
    "loopback_up": "",
    "memfd_create": "path MFD_",
    "mkdir": "path mode",
    "mkfifo": "path mode",
    "mknod": "path type dev",
    "mount": "path path path MS_ data",
    "mount_setattr": "dirfd path AT_ MOUNT_ATTR_ MOUNT_ATTR_ MS_ int",
    "move_mount": "dirfd path dirfd path MOVE_MOUNT_",
    "netlink_open": "=NETLINK_ROUTE|NETLINK_NETFILTER",
    "open": "path O_ mode",
    "open_pty_peer": "int O_",
    "open_tree": "dirfd path OPEN_TREE_|AT_",
    "openat2": "dirfd path O_ mode RESOLVE_",
    "personality": "int",
    "pidfd_open": "int PIDFD_",
    "pidfd_send_signal": "int sig int",
    "pipe2": "O_C|O_N|O_D",
    "pivot_root": "path path",
    "posix_spawn": "path argv env",
    "prctl": "prctl int int int int",
    "removexattr": "path path",
    "rename": "path path",
    "renameat2": "dirfd path dirfd path RENAME_",
    "replace": "path path",
    "reset_signal": "sig",
    "rmdir": "path",
    "sched_setaffinity": "int int",
    "seccomp": "=SECCOMP_SET_|SECCOMP_GET_ SECCOMP_FILTER_FLAG_ size",
    "send": "int data",
    "send_message": "int data optional",
    "sendfile": "int int int int",
    "set_controlling_terminal": "int",
    "set_inheritable": "int int",
    "set_window_size": "int int int",
    "setdomainname": "path",
    "setgroups": "int",
    "sethostname": "path",
    "setns": "int CLONE_",
    "setpgid": "int int",
    "setpriority": "int int int",
    "setresgid": "int int int",
    "setresuid": "int int int",
    "setrlimit": "=RLIMIT_ int",
    "setsid": "",
    "setxattr": "path path data int",
    "shutdown": "int =SHUT_",
    "signalfd": "sigs O_C|O_N",
    "socketpair": "=SOCK_",
    "symlink": "path path",
    "syncfs": "int",
    "tcsetattr": "int int skip",
    "truncate": "path int",
    "umask": "mode",
    "umount2": "path MNT_|UMOUNT_",
    "unblock_all_signals": "",
    "unix_connect": "path =SOCK_",
    "unix_listen": "path int mode =SOCK_",
    "unlink": "path",
    "unlock_pty": "int",
    "unshare": "CLONE_",
    "utime": "path int",
    "waitid": "=P_ int int",
    "waitpid": "int int",
    "write": "int data",
    "write_file": "path data optional",
}
# Reading calls: named in errors, not in the trace.
READING = {
    "bpf_query": "=BPF_PROG_|BPF_MAP_|BPF_OBJ_|BPF_LINK_ data",
    "capget": "int",
    "get_window_size": "int",
    "getrlimit": "=RLIMIT_",
    "getxattr": "path path",
    "ignored_signals": "",
    "listxattr": "path",
    "peer_credentials": "int",
    "pty_number": "int",
    "read_signalfd": "int",
    "receive_message": "int int int",
    "recv": "int int",
    "statfs_type": "path",
    "tcgetattr": "int",
}
# os.* take the directory of a relative path by keyword: which argument it stands before.
_DIRECTORY = {
    ("dir_fd", "symlink"): 1,
    ("dir_fd", ""): 0,
    ("src_dir_fd", ""): 0,
    ("dst_dir_fd", ""): 1,
}
# Flags that the door adds by itself: (which argument, what).
_ALWAYS = {
    "fsmount": (1, constants.FSMOUNT_CLOEXEC),
    "fsopen": (1, constants.FSOPEN_CLOEXEC),
    "memfd_create": (1, constants.MFD_CLOEXEC),
    "open": (1, constants.O_CLOEXEC),
    "open_pty_peer": (1, constants.O_CLOEXEC),
    "open_tree": (2, constants.OPEN_TREE_CLOEXEC),
    "openat2": (2, constants.O_CLOEXEC),
    "pipe2": (0, constants.O_CLOEXEC),
    "signalfd": (1, constants.O_CLOEXEC),
}
_SHORT = 48
_MANY = 16

# Names with a prefix that mean something else than the others of that prefix.
_ELSEWHERE = {
    "PR_": ("PR_CAP_AMBIENT_",),
    "SIG": ("SIGRT",),
    "CAP_": ("CAP_LAST",),
    "BPF_PROG_": ("BPF_PROG_TYPE",),
}

_names: dict[str, list[tuple[int, str]]] = {}


def call(name: str, values: Sequence[object], keywords: Mapping[str, object] = {}) -> str:
    """The call as text: `mount("proc", "/x", "proc", MS_NOSUID|MS_NODEV, NULL)`."""
    kinds = (SIGNATURES.get(name) or READING.get(name) or "").split()
    if name in _ALWAYS:
        values = _completed(values, *_ALWAYS[name])
    words = []
    for kind, value in zip(kinds, values):
        if kind != "optional" or value not in (None, (), []):
            words.append(argument(kind, value))
    if name == "prctl":
        words = _prctl(words, values)
    inserted = 0
    for keyword, value in keywords.items():
        place = _DIRECTORY.get((keyword, name), _DIRECTORY.get((keyword, "")))
        if place is None:
            words.append(f"{keyword}={argument('int', value)}")
        elif value is not None:
            words.insert(place + inserted, argument("dirfd", value))
            name = name if inserted else {"unlink": "unlinkat", "rmdir": "unlinkat"}.get(name, name)
            name = name if name.endswith("at") else name + "at"
            inserted += 1
    return f"{name}({', '.join(words)})"


def _completed(values: Sequence[Any], index: int, flag: int) -> list[Any]:
    """The arguments with a flag that the door adds to what it is given."""
    complete = list(values)
    if index < len(complete) and isinstance(complete[index], int):
        complete[index] |= flag
    return complete


def _prctl(words: list[str], values: Sequence[Any]) -> list[str]:
    """The arguments that an operation has, in its own words."""
    option = values[0]
    if option in (constants.PR_CAPBSET_DROP, constants.PR_CAPBSET_READ):
        return [words[0], choice("CAP_", values[1])]
    if option == constants.PR_CAP_AMBIENT:
        which = [] if values[1] == constants.PR_CAP_AMBIENT_CLEAR_ALL else [values[2]]
        return [words[0], *(choice("PR_CAP_AMBIENT_", v) for v in values[1:2])] + [
            choice("CAP_", v) for v in which
        ]
    if option == constants.PR_SET_PDEATHSIG:
        return [words[0], choice("SIG", values[1])]
    least = 2 if words[0].startswith("PR_SET_") else 1
    while len(words) > least and words[-1] == "0":
        del words[-1]
    return words


def argument(kind: str, value: object) -> str:
    """One argument as text."""
    if value is None:
        return "NULL"
    if isinstance(value, (str, bytes, bytearray)):
        return f"{len(value)} bytes" if kind == "size" else quoted(value)
    if kind == "argv" and isinstance(value, (list, tuple)):
        return f"[{', '.join(quoted(word) for word in value)}]"
    if kind == "env":
        return f"{{{len(value)} variables}}"  # type: ignore[arg-type]
    if kind == "skip":
        return "..."
    if kind == "sigs":
        return _signals(set(value))  # type: ignore[call-overload]
    if not isinstance(value, int) or isinstance(value, bool):
        return str(value)
    if kind == "int" or kind == "path" or kind == "data":
        return str(value)
    return _integer(kind, value)


def _integer(kind: str, value: int) -> str:
    if kind == "dirfd":
        return "AT_FDCWD" if value == constants.AT_FDCWD else str(value)
    if kind == "mode":
        return f"0{value:o}"
    if kind == "type":
        form = choice("S_IF", value & constants.S_IFMT) if value & constants.S_IFMT else ""
        return f"{form}{'|' if form else ''}0{value & 0o7777:o}"
    if kind == "dev":
        return f"makedev({os.major(value)}, {os.minor(value)})"
    if kind == "caps":
        return capabilities(value)
    if kind == "sig":
        return choice("SIG", value)
    if kind == "prctl":
        return choice("PR_", value)
    if kind.startswith("="):
        return choice(kind[1:], value)
    if "_" in kind:
        return flags(kind, value)
    return str(value)


def quoted(text: str | bytes | bytearray) -> str:
    """A C string literal, shortened as strace does."""
    if isinstance(text, str):
        shown = text
        more = ""
    else:
        shown = bytes(text[:_SHORT]).decode("latin-1")
        more = "..." if len(text) > _SHORT else ""
    escaped = "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escape(c)) for c in shown)
    return f'"{escaped}"{more}'


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\", "\0": "\\0"}


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _named(prefix: str) -> list[tuple[int, str]]:
    """The constants with a prefix as (value, name), those of several bits first."""
    if prefix not in _names:
        found = [
            (value, name)
            for name, value in vars(constants).items()
            if name.startswith(prefix) and not name.endswith(("_MASK", "_ATIME", "_ACCMODE"))
        ]
        found.sort(key=lambda pair: (-bin(pair[0]).count("1"), pair[0]))
        _names[prefix] = found
    return _names[prefix]


def choice(prefixes: str, value: int) -> str:
    """The one name for a value, or the number."""
    for prefix in prefixes.split("|"):
        for known, name in _named(prefix):
            if known == value and not name.startswith(_ELSEWHERE.get(prefix, ())):
                return name
    if prefixes == "SIG" and value >= constants.SIGRTMIN:
        return f"SIGRTMIN+{value - constants.SIGRTMIN}".replace("+0", "")
    return str(value)


def _signals(numbers: set[int]) -> str:
    """A set of signals; of a large one those that are not in it, as strace does."""
    mark = ""
    if len(numbers) > _MANY:
        # 32 and 33 are the C library's own.
        numbers = set(range(1, constants.SIGRTMAX + 1)) - numbers - {32, 33}
        mark = "~"
    return f"{mark}[{' '.join(choice('SIG', number)[3:] for number in sorted(numbers))}]"


def capabilities(mask: int) -> str:
    """A mask of capabilities by name; most of them at once are more readable as a number."""
    names = [choice("CAP_", bit) for bit in range(64) if mask >> bit & 1]
    return "|".join(names) if 0 < len(names) <= _MANY else f"{mask:#x}"


def flags(prefixes: str, value: int) -> str:
    """The names of a set of flags, joined by `|`; what has no name follows in hex."""
    words = []
    if prefixes == "O_":
        words.append((-1, ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[value & 3]))
        value &= ~3
    for prefix in prefixes.split("|"):
        for known, name in _named(prefix):
            if known > 0 and value & known == known:
                words.append((known, name))
                value &= ~known
    words.sort()
    names = [name for _, name in words]
    if value or not names:
        names.append(f"{value:#x}" if value else "0")
    return "|".join(names)
