"""A group of cgroup v2: Documentation/admin-guide/cgroup-v2.rst of the kernel.

`Unified` offers what `cgroup_v1.Legacy` offers; `cgroups.Group` is made of them and is what
others use.
"""

from __future__ import annotations

import errno
import os

from minicontainer import kernel
from minicontainer.errors import Error
from minicontainer.primitives import cgroup_files, cgroup_limits
from minicontainer.primitives.cgroup_limits import UNLIMITED
from minicontainer.steps import errno_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.primitives.cgroup_limits import Asked

# What we enable on the way down, where the host has it.
CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset", "hugetlb")
_CROWDED_HINT = (
    "move them into a group of theirs (mkdir init below it, then write each pid to "
    "init/cgroup.procs), or choose another parent"
)


class Unified:
    """The group `path` below the directory `base`; see the module."""

    def __init__(self, base: str, path: str) -> None:
        self.base = base
        self.path = path
        self.directory = base + path
        self.made: list[str] = []
        self._refusals: dict[str, tuple[str, str | None]] = {}

    def all_directories(self) -> list[str]:
        return [self.directory]

    def named_directories(self) -> dict[str, str]:
        """The directory, under the name `unified`."""
        return {"unified": self.directory}

    def make(self) -> None:
        """Make the directory, with the controllers of the host as far as they can be enabled."""
        if cgroup_files.make(self.base, self.path, _nothing_to_prepare):
            self.made.append(self.directory)
        self.enable()

    def enable(self) -> None:
        """Enable each controller from `base` down to the group's parent, as far as that works.

        What does not is remembered for `refusal`.
        """
        host = set(cgroup_files.read(f"{self.base}/cgroup.controllers").split())
        wanted = host - self.controllers()
        lacking = [name for name in CONTROLLERS if name in wanted]
        if not lacking:
            return
        directory = self.base
        for component in self.path.split("/")[1:]:
            self._enable_in(directory, lacking)
            directory = f"{directory}/{component}"

    def _enable_in(self, directory: str, lacking: list[str]) -> None:
        control = f"{directory}/cgroup.subtree_control"
        enabled = cgroup_files.read(control).split()
        names = [name for name in lacking if name not in enabled]
        # The kernel itself refuses (EBUSY) but for cpu, cpuset and pids: these turn the group into
        # the root of a threaded subtree, where no process can join the groups below.
        if names and _is_crowded(directory):
            crowded = (f"the group {directory} has processes of its own", _CROWDED_HINT)
            self._refusals = {**dict.fromkeys(names, crowded), **self._refusals}
            return
        for name in names:
            # One at a time: the kernel takes all names of a write or none.
            try:
                kernel.write_file(control, f"+{name}")
            except OSError as failure:
                reason = (
                    f'write_file("{control}", "+{name}"): {errno_text(failure.errno or 0)}',
                    None,
                )
                self._refusals.setdefault(name, reason)

    def controllers(self) -> set[str]:
        """The controllers that govern the group."""
        return set(cgroup_files.read_or_empty(f"{self.directory}/cgroup.controllers").split())

    def refusal(self, controller: str) -> tuple[str, str | None] | None:
        """Why `enable` could not have a controller of the host: the reason, and a hint."""
        return self._refusals.get(controller)

    def join(self) -> None:
        """Move the calling process into the group.

        Where the container shares its resources out among groups of its own, as a systemd in it
        does, the group itself may have no processes: then into the first below it that has some.
        """
        try:
            kernel.write_file(f"{self.directory}/cgroup.procs", "0")
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise
            for nested in cgroup_files.subtree(self.directory)[1:]:
                if cgroup_files.read_or_empty(f"{nested}/cgroup.procs"):
                    kernel.write_file(f"{nested}/cgroup.procs", "0")
                    return
            raise

    def accepted(self, name: str) -> str:
        """The list a `cpus` or `mems` limit must stay within."""
        parent = self.directory.rpartition("/")[0]
        return cgroup_files.read_or_empty(f"{parent}/cpuset.{name}.effective")

    def writes(self, limits: Asked, fresh: bool) -> list[tuple[str, str, str]]:
        """(limit, file, text) in order for `limits`; `fresh` where nothing runs in it yet.

        Where a file holds more than one limit, what is not asked for stays as it is.
        """
        maximum, bandwidth = UNLIMITED, ("max", "100000")
        if not fresh:
            maximum = cgroup_files.number(f"{self.directory}/memory.max", UNLIMITED)
            quota, _, period = cgroup_files.read_or_empty(f"{self.directory}/cpu.max").partition(
                " "
            )
            bandwidth = (quota or "max", period or "100000")
        return [
            (name, f"{self.directory}/{file}", text)
            for name, file, text in encode(limits, maximum, bandwidth)
        ]

    def shrink_memory(self, limit: int) -> None:
        """Reclaim memory down to `limit` bytes, or raise an Error; nothing is killed.

        cgroup v1 refuses a limit below what cannot be reclaimed; memory.max would kill for it.
        """
        high = f"{self.directory}/memory.high"
        if cgroup_files.number(f"{self.directory}/memory.current") <= limit:
            return
        before = cgroup_files.read(high)
        kernel.write_file(high, str(limit))
        try:
            usage = cgroup_files.number(f"{self.directory}/memory.current")
        finally:
            kernel.write_file(high, before)
        if usage > limit:
            raise Error(
                f"set the memory limit to {limit}: {usage} bytes stay in use",
                hint="choose a greater limit or end some of the processes first",
            )

    def speaker(self) -> str | None:
        return self.directory

    def can_freeze(self) -> bool:
        return os.access(f"{self.directory}/cgroup.freeze", os.F_OK)

    def frozen(self) -> bool:
        return self._events().get("frozen") == 1

    def populated(self) -> bool:
        return self._events().get("populated") == 1

    def _events(self) -> dict[str, int]:
        return cgroup_files.flat(f"{self.directory}/cgroup.events")

    def begin_freeze(self) -> None:
        kernel.write_file(f"{self.directory}/cgroup.freeze", "1")

    def thaw(self) -> None:
        kernel.write_file(f"{self.directory}/cgroup.freeze", "0")

    def kill_all(self) -> bool:
        """Kill all processes of the group and of those below it; False before Linux 5.14."""
        try:
            kernel.write_file(f"{self.directory}/cgroup.kill", "1")
        except FileNotFoundError:
            return False
        return True

    def oom_kills(self) -> int:
        """How many processes the kernel killed for want of memory, nested groups included."""
        return cgroup_files.flat(f"{self.directory}/memory.events").get("oom_kill", 0)

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = {}
        enabled = self.controllers()
        cpu = cgroup_files.flat(f"{self.directory}/cpu.stat")
        if "usage_usec" in cpu:
            found["cpu_ns"] = 1000 * cpu["usage_usec"]
        if "memory" in enabled:
            memory = cgroup_files.flat(f"{self.directory}/memory.stat")
            usage = cgroup_files.number(f"{self.directory}/memory.current")
            found["memory_usage"] = max(0, usage - memory.get("inactive_file", 0))
            found["memory_limit"] = cgroup_files.number(f"{self.directory}/memory.max")
        if "pids" in enabled:
            found["pids"] = cgroup_files.number(f"{self.directory}/pids.current")
        if "io" in enabled:
            text = cgroup_files.read_or_empty(f"{self.directory}/io.stat")
            found["blkio_read"] = sum_of(text, "rbytes")
            found["blkio_write"] = sum_of(text, "wbytes")
        return found


def _nothing_to_prepare(directory: str) -> None:
    """Controllers are enabled for the whole path at once."""


def _is_crowded(directory: str) -> bool:
    """Whether the "no internal processes" rule forbids the group to share out resources."""
    return bool(
        os.access(f"{directory}/cgroup.type", os.F_OK)  # all groups but the root have a type
        and cgroup_files.read_or_empty(f"{directory}/cgroup.procs")
    )


def encode(limits: Asked, maximum: int, bandwidth: tuple[str, str]) -> list[tuple[str, str, str]]:
    """(limit, file name, text) for `limits`, given what memory.max and cpu.max hold now."""
    writes: list[tuple[str, str, str]] = []
    for name, value in limits.items():
        if name == "memory":
            writes.append((name, "memory.max", _or_max(int(value))))
        elif name == "swap":
            memory = int(limits.get("memory", maximum))
            writes.append((name, "memory.swap.max", _swap_alone(int(value), memory)))
        elif name == "reservation":
            # v1's soft limit and memory.low agree in what is reclaimed first: what is above it.
            writes.append((name, "memory.low", str(max(0, int(value)))))
        elif name == "shares":
            writes.append((name, "cpu.weight", str(cgroup_limits.weight(int(value)))))
        elif name == "pids":
            writes.append((name, "pids.max", _or_max(int(value))))
        elif name in ("cpus", "mems"):
            writes.append((name, f"cpuset.{name}", str(value)))
    if "quota" in limits or "period" in limits:
        quota = _or_max(int(limits["quota"])) if "quota" in limits else bandwidth[0]
        text = f"{quota} {limits.get('period', bandwidth[1])}"
        writes.append(("quota" if "quota" in limits else "period", "cpu.max", text))
    return writes


def _or_max(value: int) -> str:
    return "max" if value == UNLIMITED else str(value)


def _swap_alone(total: int, memory: int) -> str:
    """memory.swap.max, which counts swap alone, for a limit of memory and swap together."""
    if total == UNLIMITED:
        return "max"
    if memory == UNLIMITED:
        raise Error(f"set the memory+swap limit to {total}: it needs a memory limit as well")
    return str(max(0, total - memory))


def sum_of(text: str, key: str) -> int:
    """The sum of `key=number` over the lines of io.stat, one a device."""
    return sum(
        int(field[len(key) + 1 :])
        for line in text.splitlines()
        for field in line.split()
        if field.startswith(f"{key}=")
    )
