"""Stopping and killing all processes of one control group, whatever they do meanwhile.

Works on the parts of a group (`cgroup_v1.Legacy`, `cgroup_v2.Unified`); `cgroups.Group` is what
others use.  A pid read from a group is signalled only after a pidfd of it is held and the group
still lists it: another process that got the number meanwhile is never hit.  pidfd_open(2).
"""

from __future__ import annotations

import errno
import time

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives import cgroup_files
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from minicontainer.primitives.cgroup_v1 import Legacy
    from minicontainer.primitives.cgroup_v2 import Unified

    Part = Union[Legacy, Unified]

KILL_SECONDS = 5.0
FREEZE_SECONDS = 5.0
_BATCH = 256  # pidfds held at a time


def members(parts: list[Part]) -> set[int]:
    """The living processes in any hierarchy; 0 stands for those our pid namespace cannot name."""
    found: set[int] = set()
    for part in parts:
        for directory in part.all_directories():
            found |= cgroup_files.members(directory)
    return found


def some(pids: set[int]) -> str:
    """The first few of `pids` for an error."""
    shown = " ".join(str(pid) if pid else "(of another pid namespace)" for pid in sorted(pids)[:10])
    return f"{shown} …" if len(pids) > 10 else shown


def freezer(parts: list[Part]) -> Part | None:
    """The part of the group that can stop its processes."""
    return next((part for part in parts if part.can_freeze()), None)


def freeze(part: Part, path: str) -> None:
    """Stop all processes; Error, with all of them running again, if some resist for 5 s."""
    deadline, pause = time.monotonic() + FREEZE_SECONDS, 0.0005
    with step("freeze the cgroup %s", path):
        part.begin_freeze()
        while not part.frozen():
            if time.monotonic() > deadline:
                part.thaw()
                raise Error(f"freeze the cgroup {path}: its processes do not stop")
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            # v1 misses processes that were just being forked until it is told again.
            part.begin_freeze()


def kill(parts: list[Part], path: str) -> None:
    """Kill all processes; returns when none is left, Error naming those left after 5 s."""
    deadline, pause = time.monotonic() + KILL_SECONDS, 0.001
    with step("kill the processes of the cgroup %s", path):
        while True:
            left = members(parts)
            if not left:
                return
            if time.monotonic() > deadline:
                raise Error(f"kill the processes of the cgroup {path}: left are {some(left)}")
            killed = [part.kill_all() for part in parts]
            if not all(killed):
                _kill_stopped(parts)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)


def _kill_stopped(parts: list[Part]) -> None:
    """Signal each process while none of them can run, so that none can fork away."""
    part = freezer(parts)
    if part is not None:
        part.begin_freeze()
    try:
        left = sorted(members(parts) - {0})
        for start in range(0, len(left), _BATCH):
            _signal(parts, left[start : start + _BATCH])
    finally:
        if part is not None:
            part.thaw()


def _signal(parts: list[Part], pids: list[int]) -> None:
    held: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                held[pid] = kernel.pidfd_open(pid)
            except ProcessLookupError:
                continue
            except OSError as failure:
                if failure.errno != errno.ENOSYS:  # before Linux 5.3 the number must do
                    raise
                kernel.kill(pid, kernel.SIGKILL)
        ours = members(parts) if held else set()
        for pid in held.keys() & ours:
            try:
                kernel.pidfd_send_signal(held[pid], kernel.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        for fd in held.values():
            kernel.close(fd)
