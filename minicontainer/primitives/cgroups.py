"""Control groups on cgroup v2, v1 and hybrid hosts: limits, freezing, killing, counting.

    layout = detect()
    group = create(layout, "/minicontainer/ID", config["linux"]["resources"])
    group.join()                # by the forked child itself, before anything else
    group.kill(); group.delete()

A group is one path, the same in every hierarchy and counted from what is mounted there (the root
of the cgroup namespace, or the delegated group of an ordinary user).  The path is all there is to
store: `open_group` finds the rest.  A limit that cannot be kept is an Error, never silence.

Not for: the device filter, systemd's API, /sys/fs/cgroup inside the container.
cgroups(7), cgroup_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import time

from minicontainer import kernel
from minicontainer.errors import CleanupError, Error, KernelError
from minicontainer.primitives import cgroup_files, cgroup_limits, cgroup_processes
from minicontainer.primitives.cgroup_layout import Layout, detect
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from minicontainer.primitives.cgroup_limits import Asked
    from minicontainer.primitives.cgroup_processes import Part

__all__ = ["Group", "Layout", "children", "create", "detect", "open_group"]

DELETE_SECONDS = 2.0


def create(
    layout: Layout,
    path: str,
    resources: dict[str, Any],
    *,
    strict: bool = True,
    tolerate: Iterable[str] = (),
) -> Group:
    """Make the group `path` with the limits of `resources` (OCI's linux.resources).

    A limit the host cannot keep is an Error, unless it is named in `tolerate` (the names of
    `cgroup_limits.LIMITS`) or `strict` is false: then `Group.unenforced` names it.
    Where it fails, what it made is gone again, but for parents.
    """
    _check_path(path)
    asked = cgroup_limits.asked(resources)
    group = Group(layout, path, _parts(layout, path, asked))
    try:
        with step("create the cgroup %s", path):
            for part in group.parts:
                part.make()
        group.limit(asked, resources.get("unified") or {}, True, strict, tuple(tolerate))
    except BaseException:
        for directory in [directory for part in group.parts for directory in part.made]:
            try:
                kernel.rmdir(directory)
            except OSError:
                pass
        raise
    return group


def open_group(layout: Layout, path: str) -> Group:
    """The existing group `path`; one that is gone has no processes and can be deleted again."""
    _check_path(path)
    return Group(layout, path, _parts(layout, path, None))


def children(layout: Layout, path: str) -> list[str]:
    """The names of the groups directly below `path`, in any hierarchy."""
    names: set[str] = set()
    for point in {*layout.controllers.values(), *([layout.unified] if layout.unified else [])}:
        try:
            names.update(entry.name for entry in os.scandir(point + path) if entry.is_dir())
        except FileNotFoundError:
            continue
    return sorted(names)


def _check_path(path: str) -> None:
    # Also not "/": a group that is not ours to kill and delete.
    components = path.split("/")
    if components.pop(0) or {"", ".", ".."} & {*components, path} or "\n" in path:
        raise Error(f'cgroup path "{path}": must be absolute and normal, like /minicontainer/NAME')


def _parts(layout: Layout, path: str, asked: Asked | None) -> list[Part]:
    """The group's halves on v1 and v2; `asked` is None for a group that exists."""
    parts: list[Part] = []
    if layout.controllers:
        from minicontainer.primitives.cgroup_v1 import Legacy

        legacy = Legacy(layout.controllers, path)
        if asked is None:
            legacy.keep_existing()
        if legacy.directories:
            parts.append(legacy)
    if layout.unified and _wants_unified(layout, path, asked):
        from minicontainer.primitives.cgroup_v2 import Unified

        parts.append(Unified(layout.unified, path))
    return parts


def _wants_unified(layout: Layout, path: str, asked: Asked | None) -> bool:
    """On hybrid hosts v2 is left out where v1 has all we need.

    To let a process join it the kernel waits for a grace period, milliseconds long.
    """
    if asked is None:
        return os.access(layout.unified + path, os.F_OK)
    needed = {cgroup_limits.controller_of(name) for name in asked} | {"freezer"}
    return layout.mode != "hybrid" or bool(needed - layout.controllers.keys())


class Group:
    """One control group: the same path in all hierarchies of a layout."""

    def __init__(self, layout: Layout, path: str, parts: list[Part]) -> None:
        self.layout = layout
        self.path = path
        self.parts = parts
        self.unenforced: list[str] = []

    def directories(self) -> dict[str, str]:
        """controller -> the group's directory on the host; "unified" stands for cgroup v2."""
        found: dict[str, str] = {}
        for part in self.parts:
            found.update(part.named_directories())
        return found

    def join(self) -> None:
        """Move the calling process, which must have one thread, into the group."""
        if not self.parts and self.layout.mode != "none":
            raise Error(f"join the cgroup {self.path}: it does not exist")
        with step("join the cgroup %s", self.path):
            for part in self.parts:
                part.join()

    # ------------------------------------------------------------------------- limits

    def update(self, resources: dict[str, Any], *, tolerate: Iterable[str] = ()) -> None:
        """Change the limits that `resources` names; the others stay.

        Error where the host cannot keep one, or memory in use cannot be brought below it.
        """
        asked = cgroup_limits.asked(resources)
        self.limit(asked, resources.get("unified") or {}, False, True, tuple(tolerate))

    def limit(
        self,
        asked: Asked,
        raw: dict[str, str],
        fresh: bool,
        strict: bool,
        tolerate: tuple[str, ...],
    ) -> None:
        """Write limits: see `create` and `update`, which are made of this."""
        writes, lacking = self._plan(asked, fresh)
        writes += self._plan_raw(raw)
        lacking += _write_all(writes, asked)
        for name in lacking:
            if cgroup_limits.is_unlimited(name, asked[name]) or name in tolerate:
                continue
            if strict:
                raise self._unenforceable(name, asked[name])
            self.unenforced.append(name)

    def _plan(self, asked: Asked, fresh: bool) -> tuple[list[tuple[str, str, str]], list[str]]:
        """(limit, file, text) to write in order, and the limits no controller is there for."""
        writes: list[tuple[str, str, str]] = []
        left = dict(asked)
        for part in self.parts if asked else ():
            mine = _governed(part, left)
            if len(mine) < len(left):
                part.enable()
                mine = _governed(part, left)
            for name in ("cpus", "mems"):
                if name in mine:
                    cgroup_limits.check_list(name, mine[name], part.accepted(name))
            if not fresh and mine.get("memory", cgroup_limits.UNLIMITED) > 0:
                part.shrink_memory(mine["memory"])
            writes += part.writes(mine, fresh)
            left = {name: value for name, value in left.items() if name not in mine}
        return writes, list(left)

    def _plan_raw(self, raw: dict[str, str]) -> list[tuple[str, str, str]]:
        """The writes for `unified`: file name -> text, as they are."""
        directory = self.directories().get("unified")
        for name in raw:
            if "/" in name or name.startswith("cgroup.") or "." not in name:
                raise Error(f'linux.resources.unified: "{name}" is not a file of a controller')
            if directory is None:
                raise Error(f"set {name}: it needs cgroup v2, and this host has {self.layout.mode}")
        return [(name, f"{directory}/{name}", text) for name, text in raw.items()]

    def _unenforceable(self, name: str, value: Any) -> Error:
        controller = cgroup_limits.controller_of(name)
        attempt = cgroup_limits.sentence(name, value)
        for part in self.parts:
            if controller in part.controllers():
                what = "swap accounting" if name == "swap" else f"this limit of {controller}"
                hint = "start the kernel with swapaccount=1" if name == "swap" else None
                return Error(f"{attempt}: the kernel of this host lacks {what}", hint=hint)
            refusal = part.refusal(controller)
            if refusal is not None:
                reason, hint = refusal
                what = f"the {controller} controller cannot be enabled for {self.path}"
                return Error(f"{attempt}: {what}: {reason}", hint=hint)
        return Error(
            f"{attempt}: the {controller} controller is not available on this host",
            hint=_missing_hint(self.layout, controller),
        )

    # ------------------------------------------------------------------------ processes

    def pids(self) -> list[int]:
        """The processes in the group and below it, as far as our pid namespace names them."""
        for part in self.parts:
            speaker = part.speaker()
            if speaker is not None:
                return sorted(cgroup_files.members(speaker) - {0})
        return []

    def empty(self) -> bool:
        """Whether no living process is in the group, in any hierarchy."""
        return not cgroup_processes.members(self.parts)

    def frozen(self) -> bool:
        """Whether the freezer has stopped all processes of the group."""
        part = cgroup_processes.freezer(self.parts)
        return part is not None and part.frozen()

    def freeze(self) -> None:
        """Stop all processes; returns when they are stopped, Error if they resist for 5 s."""
        part = cgroup_processes.freezer(self.parts)
        if part is None:
            raise Error(
                f"freeze the cgroup {self.path}: the freezer controller is not available",
                hint=_missing_hint(self.layout, "freezer"),
            )
        cgroup_processes.freeze(part, self.path)

    def thaw(self) -> None:
        """Let the processes run again."""
        part = cgroup_processes.freezer(self.parts)
        if part is not None:
            with step("thaw the cgroup %s", self.path):
                part.thaw()

    def kill(self) -> None:
        """Kill all processes of the group; returns when it is empty, Error after 5 s."""
        cgroup_processes.kill(self.parts, self.path)

    def delete(self) -> None:
        """Remove the group and all groups below it; it may be gone already.

        Waits up to 2 s for processes that are dying; CleanupError with what could not be removed.
        """
        deadline = time.monotonic() + DELETE_SECONDS
        causes: list[BaseException] = []
        for part in self.parts:
            for directory in part.all_directories():
                try:
                    with step("remove the cgroup %s", directory):
                        cgroup_files.remove(directory, deadline)
                except KernelError as failure:
                    causes.append(failure)
        if causes:
            left = cgroup_processes.members(self.parts)
            who = f"; it has the processes {cgroup_processes.some(left)}" if left else ""
            raise CleanupError(f"{causes[0]}{who}", causes)

    # ------------------------------------------------------------------------- facts

    def oom_killed(self) -> bool:
        """Whether the kernel killed a process of the group for want of memory."""
        return any(part.oom_kills() for part in self.parts)

    def stats(self) -> dict[str, int]:
        """What is used: memory_usage, memory_limit, blkio_read, blkio_write in bytes, cpu_ns, pids.

        memory_usage leaves out the inactive file cache; memory_limit is the host's memory where
        there is no limit; online_cpus is that of the host.  What is not counted is 0.
        """
        found = dict.fromkeys(
            ("memory_usage", "memory_limit", "cpu_ns", "pids", "blkio_read", "blkio_write"), 0
        )
        for part in reversed(self.parts):
            found.update(part.stats())
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if not 0 < found["memory_limit"] < total:
            found["memory_limit"] = total
        found["online_cpus"] = os.cpu_count() or 1
        return found


# --------------------------------------------------------------------------- writing limits


def _governed(part: Part, limits: Asked) -> Asked:
    """Those of `limits` whose controller governs this half of the group."""
    there = part.controllers()
    return {n: value for n, value in limits.items() if cgroup_limits.controller_of(n) in there}


def _write_all(writes: list[tuple[str, str, str]], asked: Asked) -> list[str]:
    """Write in order; returns the limits whose file this kernel does not have.

    A write may be refused because of its partner's old value: memory must stay below memory+swap
    and quota below the parent's share of period, whichever way both change.  Hence a second round.
    """
    lacking: list[str] = []
    again: list[tuple[str, str, str]] = []
    for final, batch in ((False, writes), (True, again)):
        for write in batch:
            name, file, text = write
            try:
                with step("%s", _sentence(name, text, asked)):
                    kernel.write_file(file, text)
            except KernelError as failure:
                if failure.errno == errno.ENOENT and name in asked:
                    lacking.append(name)
                elif failure.errno == errno.EINVAL and not final:
                    again.append(write)
                else:
                    if failure.errno == errno.EBUSY and name in ("memory", "swap"):
                        failure.hint = "more than that is in use; end some of the processes first"
                    raise
    return lacking


def _sentence(name: str, text: str, asked: Asked) -> str:
    return cgroup_limits.sentence(name, asked[name]) if name in asked else f"set {name} to {text}"


def _missing_hint(layout: Layout, controller: str) -> str:
    """What to do for a controller that is not there, from what the kernel says of it."""
    if os.geteuid() != 0:
        if layout.unified:
            return (
                "it was not delegated to this user; the administrator can do that by "
                f"Delegate={controller} in the unit user@.service"
            )
        return (
            "an ordinary user has limits only in a group that was delegated to them: try it in "
            "systemd-run --user --scope -p Delegate=yes COMMAND"
        )
    # name, hierarchy, number of groups, enabled
    lines = cgroup_files.read_or_empty("/proc/cgroups").splitlines()
    enabled = {fields[0]: fields[-1] for fields in map(str.split, lines)}.get(controller)
    if enabled == "0":
        return f"the kernel was started without it; start it with cgroup_enable={controller}"
    if enabled is None:
        return "this kernel was built without it"
    if layout.mode == "v2":
        return f"write +{controller} to cgroup.subtree_control of all groups above {layout.unified}"
    point = f"/sys/fs/cgroup/{controller}"
    return f"mount it: mkdir -p {point} && mount -t cgroup -o {controller} none {point}"
