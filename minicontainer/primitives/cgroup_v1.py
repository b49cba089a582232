"""A group in the cgroup v1 hierarchies: Documentation/admin-guide/cgroup-v1 of the kernel.

One group is one directory of the same path in each hierarchy; a hierarchy may carry several
controllers (`cpu,cpuacct`).  `Legacy` offers what `cgroup_v2.Unified` offers; `cgroups.Group` is
made of them and is what others use.
"""

from __future__ import annotations

import os

from minicontainer import kernel
from minicontainer.primitives import cgroup_files, cgroup_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.primitives.cgroup_limits import Asked

FILES = {
    "memory": "memory.limit_in_bytes",
    "swap": "memory.memsw.limit_in_bytes",
    "reservation": "memory.soft_limit_in_bytes",
    "shares": "cpu.shares",
    "period": "cpu.cfs_period_us",
    "quota": "cpu.cfs_quota_us",
    "cpus": "cpuset.cpus",
    "mems": "cpuset.mems",
    "pids": "pids.max",
}
# Written once, where we make a parent of groups: nested memory is counted in the parent (the
# default since 5.11), and a new cpuset starts with its parent's CPUs and nodes instead of none.
_PARENT_SETTINGS = {
    "memory": ("memory.use_hierarchy", "1"),
    "cpuset": ("cgroup.clone_children", "1"),
}
# Whose list of processes speaks for the group, in order of preference.
_SPEAKERS = ("freezer", "pids", "memory", "devices", "cpu", "systemd")


class Legacy:
    """The group's directory in each hierarchy that is mounted; see the module."""

    def __init__(self, mounts: dict[str, str], path: str) -> None:
        self.mounts = mounts
        self.path = path
        self.made: list[str] = []
        self.directories = {name: point + path for name, point in mounts.items()}

    def all_directories(self) -> list[str]:
        """One a hierarchy."""
        return list(dict.fromkeys(self.directories.values()))

    def named_directories(self) -> dict[str, str]:
        """controller -> directory; co-mounted ones share one."""
        return dict(self.directories)

    def keep_existing(self) -> None:
        """Forget the hierarchies in which the group is not there."""
        self.directories = {n: d for n, d in self.directories.items() if os.access(d, os.F_OK)}

    def make(self) -> None:
        """Make the directories that are not there, ready for processes."""
        for point in dict.fromkeys(self.mounts.values()):
            if cgroup_files.make(point, self.path, self._prepare_parent):
                self.made.append(point + self.path)
        if "cpuset" in self.directories:
            for name in ("cpuset.cpus", "cpuset.mems"):
                _inherit(self.directories["cpuset"], name)

    def _prepare_parent(self, directory: str) -> None:
        for controller, (name, text) in _PARENT_SETTINGS.items():
            point = self.mounts.get(controller)
            if point and directory.startswith(f"{point}/"):
                try:
                    kernel.write_file(f"{directory}/{name}", text)
                except OSError:
                    pass  # of kernels without this file or with this default

    def enable(self) -> None:
        """Nothing: a mounted controller governs all groups of its hierarchy."""

    def controllers(self) -> set[str]:
        return set(self.directories)

    def refusal(self, controller: str) -> tuple[str, str | None] | None:
        """None: see `enable`."""
        return None

    def join(self) -> None:
        """Move the calling thread, the only one of its process, into the group.

        `tasks`, because for `cgroup.procs` the kernel waits 5 to 10 ms for a grace period.
        """
        for directory in self.all_directories():
            try:
                kernel.write_file(f"{directory}/tasks", "0")
            except OSError:
                # systemd's own hierarchy has no controller: it only tells systemd of us.
                if directory != self.directories.get("systemd"):
                    raise

    def accepted(self, name: str) -> str:
        """The list a `cpus` or `mems` limit must stay within."""
        parent = self.directories["cpuset"].rpartition("/")[0]
        kind = "cpus" if name == "cpus" else "mems"
        return cgroup_files.read_or_empty(
            f"{parent}/cpuset.effective_{kind}"
        ) or cgroup_files.read_or_empty(f"{parent}/cpuset.{kind}")

    def writes(self, limits: Asked, fresh: bool) -> list[tuple[str, str, str]]:
        """(limit, file, text) in order for `limits`; `fresh` where nothing runs in it yet."""
        return [
            (
                name,
                f"{self.directories[cgroup_limits.controller_of(name)]}/{FILES[name]}",
                "max" if name == "pids" and value == cgroup_limits.UNLIMITED else str(value),
            )
            for name, value in limits.items()
        ]

    def shrink_memory(self, limit: int) -> None:
        """Nothing: here the kernel itself reclaims, and refuses with EBUSY if it cannot."""

    def speaker(self) -> str | None:
        """The directory whose list of processes is taken for the group's."""
        for name in (*_SPEAKERS, *self.directories):
            if name in self.directories:
                return self.directories[name]
        return None

    def can_freeze(self) -> bool:
        return "freezer" in self.directories

    def frozen(self) -> bool:
        return self._freezer_state() == "FROZEN"

    def _freezer_state(self) -> str:
        return cgroup_files.read_or_empty(f"{self.directories['freezer']}/freezer.state")

    def begin_freeze(self) -> None:
        """Ask for all processes to be frozen; also again, for those that were missed."""
        kernel.write_file(f"{self.directories['freezer']}/freezer.state", "FROZEN")

    def thaw(self) -> None:
        """Let the processes run, those of nested groups that were frozen apart included."""
        for directory in cgroup_files.subtree(self.directories["freezer"]):
            kernel.write_file(f"{directory}/freezer.state", "THAWED")

    def kill_all(self) -> bool:
        """False: cgroup v1 has no such thing."""
        return False

    def oom_kills(self) -> int:
        """How many processes the kernel killed for want of memory (Linux 4.13 on, else 0)."""
        if "memory" not in self.directories:
            return 0
        return sum(
            cgroup_files.flat(f"{directory}/memory.oom_control").get("oom_kill", 0)
            for directory in cgroup_files.subtree(self.directories["memory"])
        )

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = {}
        where = self.directories
        if "memory" in where:
            memory = cgroup_files.flat(f"{where['memory']}/memory.stat")
            usage = cgroup_files.number(f"{where['memory']}/memory.usage_in_bytes")
            found["memory_usage"] = max(0, usage - memory.get("total_inactive_file", 0))
            found["memory_limit"] = memory.get("hierarchical_memory_limit", 0)
        if "cpuacct" in where:
            found["cpu_ns"] = cgroup_files.number(f"{where['cpuacct']}/cpuacct.usage")
        if "pids" in where:
            found["pids"] = cgroup_files.number(f"{where['pids']}/pids.current")
        if "blkio" in where:
            found["blkio_read"], found["blkio_write"] = _transferred(where["blkio"])
        return found


def _inherit(directory: str, name: str) -> str:
    """The value of a cpuset file, first copied from the parent's where it is empty.

    A process cannot join a cpuset that has no CPUs or nodes; the parent may be as new as we are.
    """
    text = cgroup_files.read(f"{directory}/{name}")
    if not text:
        text = _inherit(directory.rpartition("/")[0], name)
        kernel.write_file(f"{directory}/{name}", text)
    return text


def _transferred(directory: str) -> tuple[int, int]:
    """Bytes read and written: lines `8:0 Read 4096`, one a device and operation."""
    name = "blkio.throttle.io_service_bytes"
    text = cgroup_files.read_or_empty(f"{directory}/{name}_recursive")
    totals = {"Read": 0, "Write": 0}
    for line in (text or cgroup_files.read_or_empty(f"{directory}/{name}")).splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in totals:
            totals[fields[1]] += int(fields[2])
    return totals["Read"], totals["Write"]
