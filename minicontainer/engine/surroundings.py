"""What the host offers a container, gathered once for `bundle.compose`, which is pure."""

from __future__ import annotations

import os
import stat

from minicontainer.engine import records
from minicontainer.errors import Error, InvalidState, UsageError
from minicontainer.primitives import capabilities, cgroups
from minicontainer.steps import errno_text, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.paths import Paths

# Never made inside a privileged container: the container has its own.
_OWN_DEVICES = {
    "pts",
    "shm",
    "mqueue",
    "console",
    "fd",
    "ptmx",
    "stdin",
    "stdout",
    "stderr",
    "core",
}


def gather(paths: Paths, options: dict[str, Any], layout: cgroups.Layout) -> dict[str, Any]:
    """The facts that `compose` asks for, read from this host now."""
    rootless = os.geteuid() != 0
    uids, gids = _mappings() if rootless else ([], [])
    return {
        "rootless": rootless,
        "uid_mappings": uids,
        "gid_mappings": gids,
        "bounding": capabilities.full() if rootless else capabilities.bounding(),
        "cgroup_mode": layout.mode,
        "cgroup_controllers": sorted(layout.controllers),
        "thermal": _thermal(),
        "devices": _below("/dev") if options.get("privileged") else [],
        "device_nodes": _asked_devices(options),
        "hostname": os.uname().nodename,
        "recursive_readonly": True,
        "shm": _shared_memory(paths, options),
        "mqueue": rootless and options.get("ipc") == "host" and os.path.ismount("/dev/mqueue"),
        "namespaces": _namespaces(paths, options),
        "default_ulimits": [],
    }


def _thermal() -> list[str]:
    base = "/sys/devices/system/cpu"
    try:
        names = [name for name in os.listdir(base) if name[:3] == "cpu" and name[3:].isdigit()]
    except OSError:
        return []
    found = (f"{base}/{name}/thermal_throttle" for name in sorted(names))
    return [path for path in found if os.path.isdir(path)]


def _asked_devices(options: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What each --device finds on the host: one node, or all of a directory."""
    found = {}
    for asked in options.get("device") or ():
        source = asked["host"]
        try:
            status = os.stat(source)
        except OSError as failure:
            raise UsageError(
                f"error gathering device information for {source}: {errno_text(failure.errno or 0)}"
            ) from None
        if stat.S_ISDIR(status.st_mode):
            found[source] = _below(source)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            found[source] = [device(source, status)]
        else:
            raise UsageError(f"{source} is not a device node")
    return found


def _below(directory: str) -> list[dict[str, Any]]:
    """Every device node below a directory of the host, as `linux.devices` wants them."""
    found = []
    pending = [directory]
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.path.count("/") == 2 and entry.name in _OWN_DEVICES:
                continue
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                found.append(device(entry.path, status))
    return sorted(found, key=lambda node: str(node["path"]))


def _shared_memory(paths: Paths, options: dict[str, Any]) -> str:
    """Where /dev/shm of the container whose ipc namespace is shared lies on the host."""
    mode = options.get("ipc") or ""
    if not mode.startswith("container:"):
        return ""
    other = records.find(paths, mode.partition(":")[2])
    return f"/proc/{other.pid}/root/dev/shm" if other.pid else ""


def device(source: str, status: os.stat_result) -> dict[str, Any]:
    """The entry of `linux.devices` for the host's node `source`, shown in the same place."""
    return {
        "path": source,
        "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "source": source,
    }


def _namespaces(paths: Paths, options: dict[str, Any]) -> dict[str, str]:
    """The namespace files behind `--pid container:X` and its like, by kind."""
    found = {}
    for option, kind, name in (
        ("pid", "pid", "pid"),
        ("ipc", "ipc", "ipc"),
        ("uts", "uts", "uts"),
        ("network", "network", "net"),
    ):
        mode = options.get(option) or ""
        if mode.startswith("container:"):
            other = records.find(paths, mode.partition(":")[2])
            if not other.pid:
                raise InvalidState(f"container {other.name} is not running: --{option} needs it")
            found[kind] = f"/proc/{other.pid}/ns/{name}"
            if os.geteuid() != 0:  # only from the user namespace that owns it can it be joined
                found.setdefault("user", f"/proc/{other.pid}/ns/user")
    return found


def rejoined(paths: Paths, options: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """`config` with what it shares with other containers as they run now: they may have been
    started again since it was made, and their old process numbers given to others."""
    found = _namespaces(paths, options)
    if not found:
        return config
    entries = config["linux"]["namespaces"]
    entries = [
        {**entry, "path": found[entry["type"]]} if entry["type"] in found else entry
        for entry in entries
    ]
    memory = _shared_memory(paths, options)
    mounts = [
        {**mount, "source": memory} if memory and mount["destination"] == "/dev/shm" else mount
        for mount in config["mounts"]
    ]
    return {**config, "mounts": mounts, "linux": {**config["linux"], "namespaces": entries}}


def _mappings() -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """Our own id as the container's root, and the range of /etc/subuid where newuidmap is."""
    found = []
    for own, database, program in (
        (os.geteuid(), "/etc/subuid", "newuidmap"),
        (os.getegid(), "/etc/subgid", "newgidmap"),
    ):
        mapping = [{"containerID": 0, "hostID": own, "size": 1}]
        start, size = _subordinate(database) if _in_path(program) else (0, 0)
        if size:
            mapping.append({"containerID": 1, "hostID": start, "size": size})
        found.append(mapping)
    if len(found[0]) != len(found[1]):  # one without the other would need setgroups denied
        found = [mapping[:1] for mapping in found]
    return found[0], found[1]


def _in_path(program: str) -> bool:
    directories = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    return any(os.access(f"{directory}/{program}", os.X_OK) for directory in directories)


def _subordinate(database: str) -> tuple[int, int]:
    """The first range that subuid(5) gives to this user."""
    uid = os.geteuid()
    names = {str(uid), _user_name(uid)}
    try:
        with open(database, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in names and fields[1].isdigit():
                    return int(fields[1]), int(fields[2])
    except FileNotFoundError:
        pass
    return 0, 0


def _user_name(uid: int) -> str:
    try:
        with open("/etc/passwd", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.split(":")
                if len(fields) > 2 and fields[2] == str(uid):
                    return fields[0]
    except FileNotFoundError:
        pass
    return ""


def check_rootfs(path: str) -> str:
    """The absolute path of a root file system directory. Raises Error when it is none."""
    found = os.path.abspath(path) if not path.startswith("/") else os.path.normpath(path)
    with step("open the root file system %s", found):
        if not os.path.isdir(found):
            os.stat(found)
            raise Error(
                f"the root file system {found} is not a directory",
                hint="unpack an archive first: --rootfs takes a directory",
            )
    return found
