"""Advice for a failed system call: what to change so that it succeeds.

Looked up only once something has failed.  A row is either the sentence itself or a function that
looks at the machine first and has nothing to say where its own reason does not hold.  The first
row that has something to say wins: a call's own rows before those of all calls.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional, Union

    Row = Union[str, Callable[[str, str], Optional[str]]]

# The kernel that brought each call.
_SINCE = {
    "bpf": "3.18",
    "close_range": "5.9",
    "execveat": "3.19",
    "fsconfig": "5.2",
    "fsmount": "5.2",
    "fsopen": "5.2",
    "memfd_create": "3.17",
    "mount_setattr": "5.12",
    "move_mount": "5.2",
    "open_pty_peer": "4.13",
    "open_tree": "5.2",
    "openat2": "5.6",
    "pidfd_getfd": "5.6",
    "pidfd_open": "5.3",
    "pidfd_send_signal": "5.1",
    "renameat2": "3.15",
    "seccomp": "3.17",
}
_NAMESPACES = {
    "CLONE_NEWUSER": "user",
    "CLONE_NEWPID": "pid",
    "CLONE_NEWNS": "mnt",
    "CLONE_NEWUTS": "uts",
    "CLONE_NEWIPC": "ipc",
    "CLONE_NEWNET": "net",
    "CLONE_NEWCGROUP": "cgroup",
    "CLONE_NEWTIME": "time",
}


def advice(attempt: str, call: str, number: int) -> str | None:
    """What to do about `call` failing with errno `number` while doing `attempt`, or None."""
    name = call.partition("(")[0]
    for key in ((name, number), ("", number)):
        for row in _TABLE.get(key, ()):
            sentence = row if isinstance(row, str) else row(attempt, call)
            if sentence is not None:
                return sentence
    return None


def _setting(name: str) -> str | None:
    """What /proc/sys says, None if this kernel has no such setting."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None


def _unprivileged_clone(attempt: str, call: str) -> str | None:
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
    return None


def _apparmor(attempt: str, call: str) -> str | None:
    if os.geteuid() != 0 and _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces here: run as root, or"
            " sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return None


def _not_root(attempt: str, call: str) -> str | None:
    return "this needs root" if os.geteuid() != 0 else None


def _namespace_limit(attempt: str, call: str) -> str | None:
    for flag, kind in _NAMESPACES.items():
        limit = _setting(f"user/max_{kind}_namespaces") if flag in call else None
        if limit == "0":
            return f"{kind} namespaces are switched off: raise user.max_{kind}_namespaces"
    kinds = [kind for flag, kind in _NAMESPACES.items() if flag in call] or ["*"]
    return f"a limit is reached: raise {' or '.join(f'user.max_{k}_namespaces' for k in kinds)}"


def _since(attempt: str, call: str) -> str | None:
    name = call.partition("(")[0]
    if name not in _SINCE:
        return None
    return (
        f"{name} needs Linux {_SINCE[name]} or later, this is {os.uname().release};"
        " inside another container its seccomp profile may be what refuses it"
    )


def _file_system(attempt: str, call: str) -> str | None:
    """ENODEV of a mount: which kind of file system it was is the third argument."""
    words = call.split('"')
    kind = words[5] if call.startswith("mount(") and len(words) > 5 else ""
    return f"the kernel has no file system {kind}: modprobe {kind}" if kind else None


def _overlay(attempt: str, call: str) -> str | None:
    if "overlay" not in call and "overlay" not in attempt:
        return None
    return (
        "overlayfs refuses these directories (an overlay on an overlay, or an upper directory on"
        " a file system without whiteouts and xattrs): move the state with --root"
    )


def _kinds(attempt: str, call: str) -> str | None:
    """A bind whose two ends differ; the attempt is `bind SOURCE on TARGET`."""
    if attempt.startswith("bind ") and " on " in attempt:
        return "a directory can only be shown on a directory, a file on a file"
    return None


def _read_only(attempt: str, call: str) -> str | None:
    if attempt.startswith(("mount ", "bind ", "enter the working directory")):
        return None  # inside the container, which lies elsewhere
    return "the file system is read-only; --root and --runroot move the state"


def _pty(attempt: str, call: str) -> str | None:
    return "pseudo-terminals are used up: raise kernel.pty.max" if "ptmx" in call else None


def _cgroup(attempt: str, call: str) -> str | None:
    if "cgroup" not in call and "cgroup" not in attempt:
        return None
    return "the control group still has processes, or is not a leaf"


_MOUNT_RIGHT = (
    "mounting needs CAP_SYS_ADMIN; inside another container that one must be started privileged"
)
_PIVOT = (
    "the new root must be a mount point, neither it nor its parent shared; nobody can pivot away"
    " from the initial ramfs"
)

_TABLE: dict[tuple[str, int], tuple[Row, ...]] = {
    ("unshare", errno.EPERM): (
        _unprivileged_clone,
        _apparmor,
        _not_root,
        "namespaces need CAP_SYS_ADMIN; an outer container's seccomp profile may forbid them",
    ),
    ("unshare", errno.ENOSPC): (_namespace_limit,),
    ("unshare", errno.EUSERS): ("namespaces are nested too deeply (32 levels)",),
    ("unshare", errno.EINVAL): ("this kernel is built without one of these namespaces",),
    ("unshare", errno.ENOMEM): ("the pid namespace's first process has already ended",),
    ("setns", errno.EPERM): (_not_root, "the namespace belongs to another user namespace"),
    ("setns", errno.EINVAL): ("the process has several threads, or the kernel cannot join this",),
    ("setns", errno.ENOMEM): ("the container's first process has already ended",),
    ("mount", errno.EPERM): (_not_root, _MOUNT_RIGHT),
    ("mount", errno.EACCES): (_not_root, "the source is on a read-only device or mount"),
    ("mount", errno.ENODEV): (_file_system,),
    ("mount", errno.EINVAL): (_overlay,),
    ("mount", errno.ENOSPC): ("there are too many mounts: raise fs.mount-max",),
    ("mount", errno.EBUSY): ("the source is mounted elsewhere, or the target is in use",),
    ("mount", errno.ESTALE): ("the upper directory was used with other layers before",),
    ("mount", errno.ELOOP): (_overlay, "too many symbolic links in the path"),
    ("fsconfig", errno.EPERM): (_not_root, _MOUNT_RIGHT),
    ("fsconfig", errno.EINVAL): (_overlay,),
    ("fsconfig", errno.ESTALE): ("the upper directory was used with other layers before",),
    ("fsopen", errno.EPERM): (_not_root, _MOUNT_RIGHT),
    ("fsopen", errno.ENODEV): ("the kernel has no such file system: modprobe it",),
    ("fsmount", errno.EPERM): (_not_root, _MOUNT_RIGHT),
    ("open_tree", errno.EPERM): (_not_root, _MOUNT_RIGHT),
    ("move_mount", errno.EPERM): (_not_root, _MOUNT_RIGHT),
    ("mount_setattr", errno.EINVAL): ("the file system or mount does not support this attribute",),
    ("umount2", errno.EBUSY): ("a process still uses the mount",),
    ("umount2", errno.EINVAL): ("it is not a mount point, or is locked by its user namespace",),
    ("pivot_root", errno.EINVAL): (_PIVOT,),
    ("pivot_root", errno.EBUSY): ("the new root is on the current root's mount",),
    ("mknod", errno.EPERM): ("device nodes need CAP_MKNOD in the initial user namespace",),
    ("mknodat", errno.EPERM): ("device nodes need CAP_MKNOD in the initial user namespace",),
    ("sethostname", errno.EPERM): ("the UTS namespace belongs to another user namespace",),
    ("capset", errno.EPERM): ("a capability was asked for that this process does not have",),
    ("setgroups", errno.EPERM): ("in a user namespace groups need newgidmap and /etc/subgid",),
    ("setresuid", errno.EINVAL): ("the uid is not mapped in the user namespace",),
    ("setresgid", errno.EINVAL): ("the gid is not mapped in the user namespace",),
    ("setresuid", errno.EAGAIN): ("the user's limit of processes (RLIMIT_NPROC) is reached",),
    ("setrlimit", errno.EPERM): ("raising a hard limit needs CAP_SYS_RESOURCE",),
    ("setrlimit", errno.EINVAL): ("the soft limit must not be above the hard one",),
    ("fork", errno.EAGAIN): ("a limit of processes is reached: RLIMIT_NPROC, pids.max or pid_max",),
    ("fork", errno.ENOMEM): ("no memory is left, or the pid namespace has ended",),
    ("seccomp", errno.EINVAL): ("the kernel does not take this seccomp program or flag",),
    ("seccomp", errno.EACCES): ("a filter needs no_new_privs or CAP_SYS_ADMIN",),
    ("bpf", errno.EPERM): ("device filters need CAP_BPF or CAP_SYS_ADMIN",),
    ("keyctl", errno.EDQUOT): ("the quota of keys is used up: raise kernel.keys.maxkeys",),
    ("join_session_keyring", errno.EDQUOT): (
        "the quota of keys is used up: raise kernel.keys.maxkeys",
    ),
    ("rmdir", errno.EBUSY): (_cgroup,),
    ("write_file", errno.EBUSY): (_cgroup,),
    ("write_file", errno.EINVAL): ("the kernel does not take this value",),
    ("write_file", errno.EPERM): (_not_root,),
    ("write_file", errno.EOPNOTSUPP): ("the control group is threaded, or not a domain",),
    ("unix_connect", errno.ECONNREFUSED): ("the process that listened there has ended",),
    ("open_pty_peer", errno.EIO): ("the terminal's other side is locked or has hung up",),
    ("open_pty_peer", errno.ENOTTY): (_since,),
    ("open", errno.ENOSPC): (_pty, "the disk is full"),
    ("", errno.ENOSYS): (_since, "the kernel lacks this call, or a seccomp profile refuses it"),
    ("", errno.ENOSPC): ("the disk is full, or its inodes are used up (df, df -i)",),
    ("", errno.EDQUOT): ("the disk quota is used up",),
    ("", errno.EISDIR): (_kinds,),
    ("", errno.ENOTDIR): (_kinds,),
    ("", errno.EROFS): (_read_only,),
    ("", errno.EMFILE): ("too many open files: raise RLIMIT_NOFILE (ulimit -n)",),
    ("", errno.ENFILE): ("the machine has too many open files: raise fs.file-max",),
    ("", errno.ENOMEM): ("no memory is left, or the control group's limit is reached",),
    ("", errno.EACCES): (_not_root,),
    ("", errno.EPERM): (_not_root,),
    ("", errno.EIO): ("the device reports an error: see dmesg",),
}
