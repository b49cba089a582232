"""stats and top: what a container uses, and which processes it has.

`snapshot` reads counters, `compute` turns two snapshots into rates.  Sources are the cgroup and
/proc (proc(5)); no name service is asked.
"""

from __future__ import annotations

import os
import time

from minicontainer.errors import InvalidState
from minicontainer.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.engine.records import Container

    Snapshot = dict[str, Any]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY_SECONDS = 86400


def snapshot(container: Container) -> Snapshot:
    """What the container has used until now; feed two of them to `compute`.

    memory_*, block_*, net_* in bytes, cpu_ns, pids, time_ns on the monotonic clock.  Without a
    cgroup only what /proc tells.  Raises InvalidState when the container does not run.
    """
    pid = _running(container)
    group = container.group()
    if group is not None:
        used = group.stats()
    else:
        used = _added_up(_descendants(pid))
    received, sent = _network(pid)
    return {
        "time_ns": time.monotonic_ns(),
        "cpu_ns": used["cpu_ns"],
        "memory_usage": used["memory_usage"],
        "memory_limit": used["memory_limit"],
        "block_read": used["blkio_read"],
        "block_written": used["blkio_write"],
        "net_rx": received,
        "net_tx": sent,
        "pids": used["pids"] or len(_descendants(pid)),
    }


def compute(previous: Snapshot, current: Snapshot) -> Snapshot:
    """Counters and rates at `current`: cpu_percent counts each busy CPU as 100."""
    elapsed = current["time_ns"] - previous["time_ns"]
    busy = max(0, current["cpu_ns"] - previous["cpu_ns"])
    limit = current["memory_limit"]
    return {
        "cpu_percent": 100.0 * busy / elapsed if elapsed > 0 else 0.0,
        "memory_percent": 100.0 * current["memory_usage"] / limit if limit else 0.0,
        "memory_usage": current["memory_usage"],
        "memory_limit": limit,
        "block_read": current["block_read"],
        "block_write": current["block_written"],
        "net_rx": current["net_rx"],
        "net_tx": current["net_tx"],
        "pids": current["pids"],
    }


def top(container: Container) -> list[dict[str, str]]:
    """A row for each process as the host numbers it: UID PID PPID C STIME TTY TIME CMD.

    Raises InvalidState when the container does not run.
    """
    pid = _running(container)
    group = container.group()
    pids = group.pids() if group is not None else []
    if pid not in pids:
        pids = _descendants(pid)
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = (_row(one, booted) for one in sorted(pids))
    return [row for row in rows if row is not None]


def _running(container: Container) -> int:
    pid = container.pid
    if not pid:
        raise InvalidState(f"Container {container.name} is not running")
    return pid


def _row(pid: int, booted: float) -> dict[str, str] | None:
    """One line of `top`; None when the process is gone."""
    try:
        fields = procfs.stat(pid)
        if fields is None:
            return None
        uid = os.stat(f"/proc/{pid}").st_uid
        command = os.fsdecode(procfs.read(f"/proc/{pid}/cmdline")).rstrip("\0").replace("\0", " ")
        if not command:  # a kernel thread, a zombie
            command = f"[{os.fsdecode(procfs.read(f'/proc/{pid}/comm')).strip()}]"
    except (FileNotFoundError, ProcessLookupError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    used = (int(fields[11]) + int(fields[12])) / ticks
    started = booted + int(fields[19]) / ticks
    age = max(time.time() - started, 0.01)
    return {
        "UID": "root" if uid == 0 else str(uid),
        "PID": str(pid),
        "PPID": fields[1],
        "C": str(min(99, int(100 * used / age))),
        "STIME": _start(started),
        "TTY": terminal(int(fields[4])),
        "TIME": _clock(int(used)),
        "CMD": command,
    }


def _start(moment: float) -> str:
    """As ps(1): the time of day, or the day when that was more than a day ago."""
    then = time.localtime(moment)
    if time.time() - moment < _DAY_SECONDS:
        return f"{then.tm_hour:02d}:{then.tm_min:02d}"
    return f"{_MONTHS[then.tm_mon - 1]}{then.tm_mday:02d}"


def _clock(seconds: int) -> str:
    days, rest = divmod(seconds, _DAY_SECONDS)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def terminal(number: int) -> str:
    """The name of a controlling terminal from its device number in /proc/PID/stat: `pts/0`, `?`."""
    major = number >> 8 & 0xFFF
    minor = number & 0xFF | number >> 12 & 0xFFF00
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?" if not number else f"{major},{minor}"


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent by all interfaces of the process's network but loopback."""
    received = sent = 0
    try:
        lines = procfs.read(f"/proc/{pid}/net/dev").decode("ascii", "replace").splitlines()[2:]
    except OSError:  # gone meanwhile
        return 0, 0
    for line in lines:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            numbers = counters.split()
            received += int(numbers[0])
            sent += int(numbers[8])
    return received, sent


def _descendants(pid: int) -> list[int]:
    """A process and all that it has brought forth, but for what was orphaned."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = procfs.parent(int(name))
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def _added_up(pids: list[int]) -> dict[str, int]:
    """What a cgroup would count, as far as /proc shows it for single processes."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    used = {
        "cpu_ns": 0,
        "memory_usage": 0,
        "memory_limit": os.sysconf("SC_PHYS_PAGES") * page_bytes,
        "blkio_read": 0,
        "blkio_write": 0,
        "pids": len(pids),
    }
    for pid in pids:
        fields = procfs.stat(pid)
        if fields is not None:
            used["cpu_ns"] += (int(fields[11]) + int(fields[12])) * tick_ns
            used["memory_usage"] += int(fields[21]) * page_bytes
    return used
