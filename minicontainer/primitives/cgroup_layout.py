"""Which cgroup hierarchies this process can make groups in: cgroups(7), cgroup_namespaces(7).

From /proc/self/mountinfo and /proc/self/cgroup: each v1 controller may be mounted alone, together
with others or not at all, whole or as a part of the hierarchy bound into a container; beside them
or instead of them there is cgroup v2, of which an ordinary user may own a part.
"""

from __future__ import annotations

import os

from minicontainer.primitives import cgroup_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
else:
    from minicontainer.tuples import namedtuple

# mode: "v2", "v1", "hybrid" or "none".  controllers: name -> mount point of its v1 hierarchy.
# unified: the directory on cgroup v2 from which our paths count, or None.
Layout = namedtuple("Layout", "mode controllers unified")

Mount = namedtuple("Mount", "controllers root point device read_only")  # controllers None: v2

V1_CONTROLLERS = frozenset(
    (
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "pids",
        "freezer",
        "devices",
        "blkio",
        "net_cls",
        "net_prio",
        "perf_event",
        "hugetlb",
        "rdma",
        "misc",
    )
)


def detect() -> Layout:
    """The cgroup hierarchies this process can make groups in."""
    mounts = [
        mount for mount in parse_mounts(cgroup_files.read("/proc/self/mountinfo")) if _usable(mount)
    ]
    return choose(mounts, parse_own(cgroup_files.read_or_empty("/proc/self/cgroup")))


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The cgroup mounts among the lines of /proc/PID/mountinfo, in order."""
    found = []
    for line in mountinfo.split("\n"):
        head, separator, tail = line.partition(" - cgroup")
        if not separator:
            continue
        device, root, point, options = head.split(" ")[2:6]
        version, _, super_options = tail.split(" ", 2)
        words = super_options.split(",")
        controllers = None
        if version != "2":
            names = ["systemd" if word == "name=systemd" else word for word in words]
            controllers = tuple(n for n in names if n in V1_CONTROLLERS or n == "systemd")
        read_only = "ro" in words or "ro" in options.split(",")
        found.append(Mount(controllers, _unescape(root), _unescape(point), device, read_only))
    return found


def _unescape(path: str) -> str:
    r"""A path of mountinfo with its octal escapes (`\040`) undone."""
    first, *rest = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def parse_own(text: str) -> dict[str, str]:
    """controller -> our own group, from /proc/self/cgroup; "" stands for cgroup v2."""
    own = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own["systemd" if name == "name=systemd" else name] = path
    return own


def _usable(mount: Mount) -> bool:
    """Whether the mount can be seen, not covered by another one, and allows us to make groups."""
    if mount.read_only:
        return False
    try:
        device = os.stat(mount.point).st_dev
    except OSError:
        return False
    if mount.device != f"{os.major(device)}:{os.minor(device)}":
        return False
    # A v1 hierarchy can be given to a user, but not safely; a part of v2 can (see `delegated`).
    return mount.controllers is None or (os.geteuid() == 0 and os.access(mount.point, os.W_OK))


def choose(mounts: list[Mount], own: dict[str, str]) -> Layout:
    """The layout made of the best mount of each controller.

    Best is one of the whole hierarchy, then one that we are below (a container's bind mount),
    then any other, and last one from outside of our cgroup namespace.
    """
    controllers: dict[str, str] = {}
    unified = None
    for mount in sorted(mounts, key=lambda mount: _rank(mount, own)):
        if mount.controllers is None:
            unified = unified or delegated(mount, own.get("", "/"))
        for name in mount.controllers or ():
            controllers.setdefault(name, mount.point)
    if controllers.keys() - {"systemd"}:
        return Layout("hybrid" if unified else "v1", controllers, unified)
    return Layout("v2" if unified else "none", controllers if unified else {}, unified)


def _rank(mount: Mount, own: dict[str, str]) -> int:
    if mount.root == "/":
        return 0
    if mount.root.startswith("/.."):
        return 3
    name = mount.controllers[0] if mount.controllers else ""
    return 1 if f"{own.get(name, '/')}/".startswith(f"{mount.root}/") else 2


def delegated(mount: Mount, own: str) -> str | None:
    """The highest directory of a cgroup v2 mount in which we may make groups and join them.

    For root that is the mount point.  For others it is the highest writable group above our own:
    the target of a move and what it has in common with its source must be writable
    ("Delegation Containment" in the kernel's cgroup-v2.rst).
    """
    if _is_ours(mount.point):
        return str(mount.point)
    root = mount.root.rstrip("/")
    if not f"{own}/".startswith(f"{root}/"):
        return None
    directory, best = f"{mount.point}{own[len(root) :]}", None
    while directory.startswith(f"{mount.point}/") and _is_ours(directory):
        best = directory
        directory = directory.rpartition("/")[0]
    return best


def _is_ours(directory: str) -> bool:
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)
