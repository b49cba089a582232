"""What the host is and offers, for people: `info` and `version`.

Nothing is made or changed, and no privilege is needed.  The facts that a container is composed from
are in `surroundings`.
"""

from __future__ import annotations

import os

from minicontainer import __version__
from minicontainer.engine import records
from minicontainer.errors import Error
from minicontainer.primitives import cgroups
from minicontainer.steps import errno_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.paths import Paths

# What the flags of `run` need: (controller, what is missing without it).
_WANTED = (
    ("memory", "--memory and --memory-swap"),
    ("cpu", "--cpus and --cpu-shares"),
    ("cpuset", "--cpuset-cpus"),
    ("pids", "--pids-limit"),
)


def versions() -> dict[str, str]:
    """The program, and what it stands on, all as text."""
    import platform

    layout = cgroups.detect()
    machine = os.uname()
    return {
        "Version": __version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "KernelVersion": machine.release,
        "Architecture": machine.machine,
        "CgroupMode": layout.mode,
        "Driver": storage(),
    }


def facts(paths: Paths) -> dict[str, Any]:
    """Everything `info` shows; counts are None where the records cannot be read."""
    layout = cgroups.detect()
    controllers = _controllers(layout)
    counts, complaint = _counts(paths)
    rootless = os.geteuid() != 0
    warnings = [
        f"{flags}: not enforceable, the host has no cgroup controller {name}"
        for name, flags in _WANTED
        if name not in controllers
    ]
    if rootless and not controllers:
        warnings = ["limits are not enforced, as no cgroup is delegated to this user"]
    return {
        **versions(),
        **counts,
        "CgroupControllers": controllers,
        "LoggingDriver": "json-file",
        "Rootless": rootless,
        "SecurityOptions": ["name=cgroupns", *(["name=rootless"] if rootless else [])],
        "OperatingSystem": _distribution(),
        "OSType": "linux",
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": os.uname().nodename,
        "RootDir": paths.root,
        "RunDir": paths.runroot,
        "Warnings": [*complaint, *warnings],
    }


def storage() -> str:
    """overlay, or copy where the kernel has no overlay file system."""
    with open("/proc/filesystems", encoding="ascii") as file:
        if any(line.split()[-1:] == ["overlay"] for line in file):
            return "overlay"
    # Not loaded yet: the first mount will do it.
    module = f"/lib/modules/{os.uname().release}/kernel/fs/overlayfs"
    return "overlay" if os.path.isdir(module) else "copy"


def _controllers(layout: cgroups.Layout) -> list[str]:
    found = set(layout.controllers)
    if layout.unified is not None:
        try:
            with open(f"{layout.unified}/cgroup.controllers", encoding="ascii") as file:
                found.update(file.read().split())
        except OSError:
            pass
    return sorted(found - {"systemd"})


def _counts(paths: Paths) -> tuple[dict[str, int | None], list[str]]:
    """How many containers there are in each state, and why that is not known."""
    try:
        states = [container.status for container in records.load_all(paths)]
    except (Error, OSError) as failure:
        reason = errno_text(failure.errno or 0) if isinstance(failure, OSError) else str(failure)
        names = ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped")
        return dict.fromkeys(names), [f"the containers in {paths.root} are not known: {reason}"]
    running, paused = states.count("running"), states.count("paused")
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
    }, []


def _distribution() -> str:
    """The name of the system in os-release(5)."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, _, value = line.strip().partition("=")
                    if key == "PRETTY_NAME":
                        return value.strip("\"'")
        except OSError:
            continue
    return "Linux"
