"""Reading what /proc says of a container's processes, whether from inside or from the host."""

from __future__ import annotations

import os
from collections import namedtuple

from tests.support.census import octal_unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable

    from tests.support.runner import Engine

# options: those of the mount; data: those of the file system; both as sets of words.
Mount = namedtuple("Mount", "target root options propagation fstype source data")

DEFAULT_CAPABILITIES = 0x00000000800405FB
NAMESPACES = ("mnt", "pid", "uts", "ipc", "net", "cgroup")


def status(text: str) -> dict[str, str]:
    """/proc/PID/status as a table; the values without blanks around them."""
    rows = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in rows}


def status_of(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return status(file.read())


def mount_table(text: str) -> list[Mount]:
    """/proc/PID/mountinfo, in its order."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        dash = fields.index("-")
        found.append(
            Mount(
                octal_unescape(fields[4]),
                octal_unescape(fields[3]),
                frozenset(fields[5].split(",")),
                fields[6:dash],
                fields[dash + 1],
                octal_unescape(fields[dash + 2]),
                frozenset(fields[dash + 3].split(",")),
            )
        )
    return found


def mounts_of(pid: int) -> list[Mount]:
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return mount_table(file.read())


def mount_at(table: Iterable[Mount], target: str) -> Mount:
    """The topmost mount at `target`; AssertionError if there is none."""
    found = [mount for mount in table if mount.target == target]
    assert found, f"nothing is mounted at {target}"
    return found[-1]


def mounts_in(engine: Engine, *flags: str) -> list[Mount]:
    """The mount table inside a new container."""
    return mount_table(engine.sh("cat /proc/self/mountinfo", *flags))


def namespaces_of(pid: int | str) -> dict[str, str]:
    """kind -> `kind:[inode]` of a process's namespaces."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES}


def capabilities(of: dict[str, str]) -> dict[str, int]:
    """CapInh, CapPrm, CapEff, CapBnd and CapAmb out of a status, as masks."""
    return {name: int(value, 16) for name, value in of.items() if name.startswith("Cap")}
