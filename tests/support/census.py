"""What there is on the machine that an engine could have left there.

`take()` gives one plain value that JSON can hold, for a pair of roots; two of them are compared.
Things are ours by the state directories: mounts below them, files in them, processes that carry
their path in the command line, the environment or what their root is made from, and the cgroups
such processes sit in or that stand empty.  Other engines on the same machine are not counted.

Not counted either: the layout's own skeleton, what lies in `trash/`, and the locks of the store.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

# What an engine that has never run anything may keep in its roots.
SKELETON = re.compile(
    r"version|(containers|names|tmp|trash|volumes|images|layers|locks|oci|netns|leases)"
    r"|images/(oci-layout|index\.json|blobs(/sha256)?)|trash/.*|locks/(store|network)[^/]*"
)
# Programs that come and go by themselves inside a census of open files.
TRANSIENT = re.compile(r"/proc/\d+/|/dev/(null|urandom)|anon_inode:\[(eventpoll|pidfd)\]")


def octal_unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def read(path: str) -> str:
    """The text of a file of /proc or /sys; empty if it has gone."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def mounts(roots: Iterable[str], pid: str = "self") -> list[str]:
    """`mount point fstype source` of each mount at or below one of `roots`."""
    found = []
    for line in read(f"/proc/{pid}/mountinfo").splitlines():
        fields = line.split(" ")
        target = octal_unescape(fields[4])
        if any(target == root or target.startswith(root + "/") for root in roots):
            dash = fields.index("-")
            found.append(f"{target} {fields[dash + 1]} {fields[dash + 2]}")
    return sorted(found)


def describe(path: str) -> str:
    """Kind, mode and contents of one file in a few words."""
    facts = os.lstat(path)
    mode = f"{stat.filemode(facts.st_mode)} {facts.st_uid}:{facts.st_gid}"
    if stat.S_ISLNK(facts.st_mode):
        return f"{mode} -> {os.readlink(path)}"
    if stat.S_ISREG(facts.st_mode):
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read(1 << 20)).hexdigest()[:16]
        return f"{mode} {facts.st_size} {digest}"
    return mode


def tree(root: str) -> list[str]:
    """`name: kind and contents` of each thing below `root` that is not its skeleton."""
    found = []
    for directory, children, names in os.walk(root):
        for name in children + names:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, root)
            if SKELETON.fullmatch(relative):
                continue
            try:
                found.append(f"{relative}: {describe(path)}")
            except OSError:  # it went while we looked
                continue
    return sorted(found)


def roots_of_mounts(name: str) -> str:
    """What /proc/NAME/mountinfo says the root and the overlays of a process are made from.

    Not where anything is mounted: a file system that a test mounted below our state is in the
    table of every process of the host, and they are not ours for that.
    """
    found = []
    for line in read(f"/proc/{name}/mountinfo").splitlines():
        fields = line.split(" ")
        if fields[4] == "/" or " - overlay " in line:
            found += [fields[3], *fields[5:]]
    return " ".join(found)


def processes(roots: Iterable[str], marks: Iterable[str]) -> dict[int, str]:
    """pid -> command of each process of ours but this one and those that led to it."""
    ours = [*roots, *marks]
    skip = set()
    pid = os.getpid()
    while pid > 1:
        skip.add(pid)
        pid = int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in skip:
            continue
        text = read(f"/proc/{name}/cmdline")
        everything = text + read(f"/proc/{name}/environ") + roots_of_mounts(name)
        if any(mark in everything for mark in ours):
            state = read(f"/proc/{name}/stat").rpartition(")")[2].split()[:1]
            found[int(name)] = text.replace("\0", " ").strip() or f"[{state}]"
    return found


def cgroup_mounts() -> list[str]:
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            found.append(octal_unescape(fields[4]))
    return sorted(set(found))


def cgroups() -> dict[str, list[int]]:
    """directory -> pids, of every group in or under one named `minicontainer…`."""
    found = {}
    for mount in cgroup_mounts():
        for directory, _, _ in os.walk(mount):
            if "/minicontainer" in directory[len(mount) :]:
                pids = read(os.path.join(directory, "cgroup.procs")).split()
                found[directory] = [int(pid) for pid in pids]
    return found


def own_cgroups(processes_of_ours: Iterable[int]) -> list[str]:
    """The groups that hold one of our processes, or none at all."""
    ours = set(processes_of_ours)
    return sorted(
        directory
        for directory, pids in cgroups().items()
        if os.path.basename(directory) != "minicontainer" and (not pids or ours & set(pids))
    )


def links() -> list[str]:
    try:
        return sorted(os.listdir("/sys/class/net"))
    except OSError:
        return []


def loops(roots: Iterable[str]) -> list[str]:
    """Loop devices whose backing file lies below one of `roots`."""
    found = []
    for name in os.listdir("/sys/block") if os.path.isdir("/sys/block") else []:
        backing = read(f"/sys/block/{name}/loop/backing_file").strip()
        if backing and any(backing.startswith(root + "/") for root in roots):
            found.append(f"{name} {backing}")
    return sorted(found)


def descriptors() -> list[str]:
    """What the open files of this process are, as sorted names."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if not TRANSIENT.match(name):
            found.append(name)
    return sorted(found)


def take(roots: Iterable[str], marks: Iterable[str] = ()) -> dict[str, Any]:
    """The census for state directories `roots`; `marks` are further strings that are only ours."""
    roots = list(roots)
    ours = processes(roots, marks)
    return {
        "mounts": mounts(roots),
        "files": [f"{root}/{entry}" for root in roots for entry in tree(root)],
        "processes": sorted(f"{pid} {command}" for pid, command in ours.items()),
        "cgroups": own_cgroups(ours),
        "links": links(),
        "loops": loops(roots),
        "descriptors": descriptors(),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for each thing that came or went."""
    lines = []
    for kind in before:
        old, new = list(before[kind]), list(after[kind])
        for thing in list(new):
            if thing in old:
                old.remove(thing)
                new.remove(thing)
        lines += [f"{kind}: left behind: {thing}" for thing in new]
        lines += [f"{kind}: vanished: {thing}" for thing in old if kind not in ("cgroups", "links")]
    return lines


def settle(
    before: dict[str, Any], roots: Iterable[str], marks: Iterable[str] = (), seconds: float = 2.0
) -> list[str]:
    """The differences that are left after the kernel had `seconds` to free what it frees late.

    An empty cgroup may be another engine's, about to be filled: it counts if it stays all the time.
    """
    roots, marks = list(roots), list(marks)
    deadline = time.monotonic() + seconds
    always: set[str] | None = None
    while True:
        left = differences(before, take(roots, marks))
        always = set(left) if always is None else always & set(left)
        left = [line for line in left if line in always or not line.startswith("cgroups:")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
