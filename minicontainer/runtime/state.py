"""What the runtime knows of a container between two commands: facts, never a status.

A process is identified by boot id, pid and start time (field 22 of /proc/PID/stat), so that a
reused pid or a reboot can never be taken for a running container.
"""

from __future__ import annotations

import os

from minicontainer import jsontext, kernel
from minicontainer.errors import Error
from minicontainer.kernel import procfs
from minicontainer.primitives import commits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]


def save(directory: str, state: State) -> None:
    """Replace the state in `directory` whole: a reader sees the old one or the new one."""
    commits.replace(f"{directory}/state.json", jsontext.dumps(state))


def load(directory: str) -> State | None:
    """The saved state, or None when there is none. Raises Error when it is damaged."""
    try:
        with open(f"{directory}/state.json", "rb") as file:
            text = file.read(1 << 20)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        state = jsontext.loads(text)
        if not isinstance(state, dict) or not isinstance(state["pid"], int):
            raise ValueError("not a state record")
    except (ValueError, KeyError) as failure:
        raise Error(f"{directory}/state.json is damaged: {failure}") from None
    return state


def identity(pid: int) -> State:
    """The facts that tell `pid` from every other process."""
    return {"pid": pid, "start_time": procfs.start_time(pid), "boot_id": procfs.boot_id()}


def is_alive(state: State | None, prefix: str = "") -> bool:
    """Whether the process that `state` names (monitor: prefix "monitor_") still runs."""
    if not state or not state.get(f"{prefix}pid") or state.get("boot_id") != procfs.boot_id():
        return False
    return process_alive(state[f"{prefix}pid"], state.get(f"{prefix}start_time"))


def process_alive(pid: int, start_time: int | None) -> bool:
    """Whether `pid` is the process that began at `start_time` and is not a zombie."""
    fields = procfs.stat(pid)
    return fields is not None and int(fields[19]) == start_time and fields[0] not in "ZX"


def status(directory: str, state: State | None) -> str:
    """OCI's status: created, running or stopped (the caller asks the cgroup about paused)."""
    if not is_alive(state):
        return "stopped"
    return "created" if os.path.exists(f"{directory}/exec.fifo") else "running"


def signal(state: State, number: int) -> bool:
    """Send a signal to the container's first process; False when it is gone.

    A pidfd is opened first and the identity compared after: no other process can be hit.
    """
    if not is_alive(state):
        return False
    try:
        pidfd = kernel.pidfd_open(state["pid"])
    except ProcessLookupError:
        return False
    except OSError:  # before Linux 5.3: the check above is the best there is
        return _kill(state["pid"], number)
    try:
        if not is_alive(state):
            return False
        kernel.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        kernel.close(pidfd)
    return True


def _kill(pid: int, number: int) -> bool:
    try:
        kernel.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
