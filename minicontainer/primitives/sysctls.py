"""Names of kernel parameters: sysctl(8), and which namespace each belongs to."""

from __future__ import annotations


def path_of(name: str) -> str | None:
    """The file of a sysctl below /proc/sys, or None for a name with an empty or dotted component.

    As sysctl(8): the first of `.` and `/` separates, the other one is literal, so that
    `net.ipv4.conf.eth0/1.rp_filter` is about the interface eth0.1.
    """
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and not 0 <= slash < dot:
        name = name.translate({ord("."): "/", ord("/"): "."})
    components = name.split("/")
    if len(components) < 2 or not {"", ".", ".."}.isdisjoint(components):
        return None
    return name


def namespace_of(name: str) -> str | None:
    """The type of namespace that a sysctl belongs to, None for those of the whole machine."""
    path = path_of(name) or ""
    if path.startswith("net/"):
        return "network"
    if path.startswith(("kernel/msg", "kernel/shm", "fs/mqueue/")):
        return "ipc"
    if path in ("kernel/sem", "kernel/sem_next_id"):
        return "ipc"
    if path == "kernel/domainname":
        return "uts"
    return None
