"""The part of `config.json` that is the container's file tree: mounts, devices, masks.

Pure, and used by `bundle` alone.  The tables are those of CONFINEMENT, section 1.  What the
options mean to mount(2) is for `primitives/mounts` to say, where they land for `rootfs`.
"""

from __future__ import annotations

import os

from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minicontainer.paths import Paths
    from minicontainer.runtime.spec import Device, DeviceRule, Mount

    Facts = Mapping[str, Any]

SHM_BYTES = 64 << 20
TTY_GROUP = 5
ETC_FILES = ("resolv.conf", "hosts", "hostname")

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# name, major, minor: character devices, 0666 root:root
_NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
# What the device cgroup lets a container open: those, console, ptmx and every pts.
_OPENED: tuple[tuple[int, int | None], ...] = (
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
    (136, None),
)

_QUIET = ("nosuid", "noexec", "nodev")
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_FLAGS = (
    "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync",
    "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime",
)  # fmt: skip
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
# Words for SELinux and for copying an image's files into a volume: nothing to do for a bind.
_IGNORED = ("z", "Z", "nocopy", "rw")


def mounts(
    container_id: str,
    options: Facts,
    paths: Paths,
    host: Facts,
    own: Mapping[str, bool],
) -> list[Mount]:
    """`mounts`, in the order they are made: the system's, our files in /etc, the user's.

    own: type -> whether it is a new namespace, for those not shared with the host. A mount of the
    user's takes the place of ours with the same destination; one at /dev, of all below it.
    """
    chosen = _user_mounts(options, host)
    taken = {mount["destination"] for mount in chosen}
    system = [
        _proc(own),
        _tmpfs("/dev", "nosuid", "noexec", "strictatime", "mode=755", "size=65536k"),
        _pts(own, host),
        *_shared_memory(options, host, own),
        *_sys(options, host, own),
    ]
    ours = [
        mount
        for mount in [*system, *_etc_files(container_id, options, paths, host)]
        if mount["destination"] not in taken
        and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    return ours + chosen


def _tmpfs(destination: str, *options: str) -> Mount:
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": list(options),
    }


def _bind(source: str, destination: str, *options: str) -> Mount:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": list(options),
    }


def _special(fstype: str, destination: str, *options: str) -> Mount:
    return {
        "destination": destination,
        "type": fstype,
        "source": fstype,
        "options": list(options),
    }


def _owned(kind: str, own: Mapping[str, bool]) -> bool:
    """Whether our user namespace owns that namespace: both are new, or joined together."""
    return "user" not in own or (kind in own and (own[kind] or not own["user"]))


def _proc(own: Mapping[str, bool]) -> Mount:
    if not _owned("pid", own):
        # proc can be mounted only by the owner of the pid namespace it shows.
        return _bind("/proc", "/proc", "rbind", *_QUIET)
    return _special("proc", "/proc", *_QUIET)


def _pts(own: Mapping[str, bool], host: Facts) -> Mount:
    options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if "user" not in own or any(
        0 <= TTY_GROUP - entry["containerID"] < entry["size"]
        for entry in host.get("gid_mappings") or ()
    ):
        options.append(f"gid={TTY_GROUP}")
    return _special("devpts", "/dev/pts", *options)


def _shared_memory(options: Facts, host: Facts, own: Mapping[str, bool]) -> list[Mount]:
    """/dev/shm and /dev/mqueue: of the ipc namespace that the container is in."""
    found = []
    if "ipc" not in own:
        found.append(_bind("/dev/shm", "/dev/shm", "rbind", *_QUIET))
    elif host.get("shm"):
        found.append(_bind(host["shm"], "/dev/shm", "bind", *_QUIET))
    elif options.get("ipc") != "none":
        size = options.get("shm_size") or SHM_BYTES
        found.append(_tmpfs("/dev/shm", *_QUIET, "mode=1777", f"size={size}"))
    if _owned("ipc", own):
        found.append(_special("mqueue", "/dev/mqueue", *_QUIET))
    elif "ipc" not in own and host.get("mqueue"):
        found.append(_bind("/dev/mqueue", "/dev/mqueue", "rbind", *_QUIET))
    return found


def _sys(options: Facts, host: Facts, own: Mapping[str, bool]) -> list[Mount]:
    """/sys and, in it, the cgroups; each can be mounted by the owner of its namespace only."""
    ro, rro = ((), ()) if options.get("privileged") else (("ro",), ("rro",))
    if not _owned("network", own):
        found = [_bind("/sys", "/sys", "rbind", *rro, *_QUIET)]
    else:
        found = [_special("sysfs", "/sys", *ro, *_QUIET)]
    mode = host.get("cgroup_mode")
    if not host.get("rootless") or (mode == "v2" and own.get("cgroup")):
        found.append(_special("cgroup", "/sys/fs/cgroup", *ro, *_QUIET))
    else:
        found.append(_bind("/sys/fs/cgroup", "/sys/fs/cgroup", "rbind", *rro, *_QUIET))
    return found


def _etc_files(container_id: str, options: Facts, paths: Paths, host: Facts) -> list[Mount]:
    directory = paths.etc(container_id)
    words = ["bind", "rprivate", *(("ro",) if options.get("read_only") else ())]
    if host.get("rootless"):
        words.append("nofail")  # somebody else's /etc, in which we can make no target
    return [_bind(f"{directory}/{name}", f"/etc/{name}", *words) for name in ETC_FILES]


def _user_mounts(options: Facts, host: Facts) -> list[Mount]:
    """The user's mounts, those nearer the root first, so that none hides another."""
    found: dict[str, Mount] = {}
    for wanted in options.get("mounts") or ():
        destination = _destination(wanted["destination"])
        if destination in found:
            raise UsageError(f"Duplicate mount point: {destination}")
        words = wanted.get("options") or []
        if wanted["type"] == "tmpfs":
            found[destination] = _tmpfs(destination, *_tmpfs_options(destination, words))
        elif wanted["type"] == "bind":
            binding = _bind_options(destination, words, bool(host.get("recursive_readonly")))
            found[destination] = _bind(_source(wanted), destination, *binding)
        else:
            raise UsageError(f"mount type {wanted['type']}: not supported yet: {destination}")
    return sorted(found.values(), key=lambda mount: mount["destination"].count("/"))


def _destination(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"invalid mount path: '{path}' must be absolute")
    cleaned = "/" + os.path.normpath(path).lstrip("/")
    if cleaned == "/":
        raise UsageError("invalid mount path: the destination can't be '/'")
    return cleaned


def _source(wanted: Facts) -> str:
    source: str = wanted.get("source") or ""
    if not source.startswith("/"):
        raise UsageError(f"invalid mount source: '{source}' must be absolute")
    return source


def _bind_options(destination: str, words: list[str], recursive_readonly: bool) -> list[str]:
    """Docker's words for a volume as OCI's: recursive, private and, with `ro`, all of it."""
    kind, propagation, rest = "rbind", "rprivate", []
    for word in words:
        if word in ("bind", "rbind"):
            kind = word
        elif word in _PROPAGATION:
            propagation = word
        elif word in _FLAGS or word == "rro":
            rest.append(word)
        elif word not in _IGNORED:
            raise UsageError(f'invalid mount option "{word}" for {destination}')
    if recursive_readonly and kind == "rbind":
        rest = ["rro" if word == "ro" else word for word in rest]
    return [kind, propagation, *(word for word in rest if word not in _IGNORED)]


def _tmpfs_options(destination: str, words: list[str]) -> list[str]:
    """The user's words upon `nosuid,nodev,noexec`; a later one replaces its opposite."""
    chosen = dict.fromkeys(_QUIET)
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in _TMPFS_VALUES and value:
            chosen = {other: None for other in chosen if not other.startswith(f"{key}=")}
        elif word in _FLAGS:
            chosen.pop(_opposite(word), None)
        else:
            raise UsageError(f'invalid tmpfs option "{word}" for {destination}')
        chosen[word] = None
    return [word for word in chosen if word != "rw"]


def _opposite(word: str) -> str:
    pairs = {"ro": "rw", "rw": "ro", "sync": "async", "async": "sync"}
    return pairs.get(word) or (word[2:] if word.startswith("no") else f"no{word}")


def root_propagation(options: Facts) -> str:
    """`linux.rootfsPropagation`: as open as the most open volume needs it."""
    asked = {
        word.lstrip("r")
        for wanted in options.get("mounts") or ()
        for word in wanted.get("options") or ()
        if word in _PROPAGATION
    }
    for propagation in ("shared", "slave"):
        if propagation in asked:
            return f"r{propagation}"
    return "rprivate"


def devices(
    options: Facts, host: Facts, in_user_namespace: bool
) -> tuple[list[Device], list[DeviceRule]]:
    """`linux.devices` and the rules of `linux.resources.devices`, where the last match decides."""
    found: dict[str, Device] = {}
    for name, major, minor in _NODES:
        found[f"/dev/{name}"] = _node(f"/dev/{name}", major, minor)
    if options.get("privileged"):
        for device in host.get("devices") or ():
            found.setdefault(device["path"], device)
    rules = _device_rules()
    for wanted in options.get("device") or ():
        for device in _wanted_devices(wanted, host, in_user_namespace):
            found[device["path"]] = device
            rules.append(_allow(device["type"], device["major"], device["minor"], wanted))
    rules += [_parse_rule(text) for text in options.get("device_cgroup_rule") or ()]
    if options.get("privileged"):
        rules = [{"allow": True, "access": "rwm"}]
    return list(found.values()), rules


def _node(path: str, major: int, minor: int) -> Device:
    return {
        "path": path,
        "type": "c",
        "major": major,
        "minor": minor,
        "fileMode": 0o666,
        "uid": 0,
        "gid": 0,
    }


def _wanted_devices(wanted: Facts, host: Facts, in_user_namespace: bool) -> list[Device]:
    """The devices at a host path, or below it if it is a directory, at their place inside."""
    source = wanted["host"]
    at_source = (host.get("device_nodes") or {}).get(source)
    if not at_source:
        raise UsageError(f'--device "{source}": no such device on the host')
    found = []
    for device in at_source:
        inside: Device = device.copy()
        inside["path"] = wanted["container"] + device["path"][len(source) :]
        if in_user_namespace:
            inside["source"] = device["path"]
        found.append(inside)
    return found


def _allow(kind: str, major: int, minor: int, wanted: Facts) -> DeviceRule:
    return {
        "allow": True,
        "type": kind,
        "major": major,
        "minor": minor,
        "access": wanted["permissions"],
    }


def _device_rules() -> list[DeviceRule]:
    rules: list[DeviceRule] = [
        {"allow": False, "access": "rwm"},
        # Any node can be made; what can be opened is a matter of the rules that follow.
        {"allow": True, "type": "b", "access": "m"},
        {"allow": True, "type": "c", "access": "m"},
    ]
    for major, minor in _OPENED:
        rule: DeviceRule = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def _parse_rule(text: str) -> DeviceRule:
    """`c 10:200 rwm`, `a *:* rw`."""
    words = text.split(" ")
    numbers = words[1].split(":") if len(words) == 3 else []
    if (
        len(numbers) != 2
        or words[0] not in ("a", "b", "c")
        or not all(number == "*" or (number.isascii() and number.isdigit()) for number in numbers)
        or not words[2]
        or set(words[2]) - set("rwm")
    ):
        raise UsageError(f"invalid device cgroup format '{text}'")
    rule: DeviceRule = {"allow": True, "type": words[0], "access": words[2]}
    if numbers[0] != "*":
        rule["major"] = int(numbers[0])
    if numbers[1] != "*":
        rule["minor"] = int(numbers[1])
    return rule
