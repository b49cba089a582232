"""Readers of /proc: what a pid was, which mounts there are, which namespaces.

Man page: proc(5).  A process that is gone gives None where the result allows it, else
FileNotFoundError or ProcessLookupError; nothing here changes anything.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


def read(path: str) -> bytes:
    """A whole file of /proc, whose size is not known beforehand."""
    fd = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot; None if it is gone.

    With the pid it names one process for good: pids are used again, pairs of them are not.
    """
    fields = stat(pid)
    return None if fields is None else int(fields[19])


def state(pid: int) -> str | None:
    """One letter (R S D T Z X…), None if the process is gone."""
    fields = stat(pid)
    return None if fields is None else fields[0]


def parent(pid: int) -> int | None:
    """The parent's pid, 0 if it is outside this pid namespace; None if the process is gone."""
    fields = stat(pid)
    return None if fields is None else int(fields[1])


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (the state) on; None if it is gone."""
    try:
        text = read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may have blanks and parentheses of its own.
    return text[text.rindex(b")") + 2 :].decode("ascii").split()


def boot_id() -> str:
    """A name for the time since the machine was started; read once."""
    if not _boot_id:
        _boot_id.append(read("/proc/sys/kernel/random/boot_id").decode("ascii").strip())
    return _boot_id[0]


_boot_id: list[str] = []


def namespace_inode(pid: int | str, kind: str) -> int:
    """The number that names a namespace: kind is mnt, pid, net, uts, ipc, user, cgroup, time."""
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def read_status(pid: int | str = "self") -> dict[str, str]:
    """The lines of /proc/PID/status by name: CapEff, NSpid, Seccomp, Uid…"""
    lines = os.fsdecode(read(f"/proc/{pid}/status")).splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


class Mount:
    """One line of mountinfo; paths are unescaped."""

    __slots__ = (
        "device",
        "fstype",
        "mount_id",
        "options",
        "parent_id",
        "propagation",
        "root",
        "source",
        "super_options",
        "target",
    )

    def __init__(self, line: str) -> None:
        before, _, after = line.partition(" - ")
        mount_id, parent_id, device, root, target, options, *optional = before.split(" ")
        fstype, source, super_options = [*after.split(" ", 2), "", ""][:3]
        self.mount_id: Final = int(mount_id)
        self.parent_id: Final = int(parent_id)
        self.device: Final = device
        self.root: Final = unescaped(root)
        self.target: Final = unescaped(target)
        self.options: Final = options.split(",")
        self.propagation: Final = optional  # shared:N, master:N, propagate_from:N, unbindable
        self.fstype: Final = fstype
        self.source: Final = unescaped(source)
        self.super_options: Final = super_options.split(",")

    def __repr__(self) -> str:
        return f"<{self.fstype} {self.source} at {self.target}>"


def mountinfo(pid: int | str = "self") -> list[Mount]:
    """The mounts that a process sees, in the order they were made. proc_pid_mountinfo(5)"""
    text = os.fsdecode(read(f"/proc/{pid}/mountinfo"))
    return [Mount(line) for line in text.split("\n") if line]


def unescaped(field: str) -> str:
    r"""A field of mountinfo, where blanks and backslashes are written \040 and \134."""
    first, *rest = field.split("\\")
    if not rest:
        return field
    pieces = [chr(int(piece[:3], 8)) + piece[3:] for piece in rest]
    return first + "".join(pieces)
