"""The grammar of `config.json`: what each member may be, taken alone.

It is data: a table of members to checks, put together from a few small ones.  A check gets a value
and its JSON pointer (RFC 6901) and returns, or raises SpecError.  Not for: rules between members
(`spec`), nor for `linux.seccomp`, which its compiler judges.
https://github.com/opencontainers/runtime-spec: config.md, config-linux.md.
"""

from __future__ import annotations

import os

from minicontainer.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Check = Callable[[Any, str], None]

RLIMITS = (
    "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC",
    "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
)  # fmt: skip


def check(config: Any) -> None:
    """Refuse, with a SpecError, a configuration with a member that is not what it must be."""
    _CONFIG(config, "")


def refuse(pointer: str, reason: str) -> NoReturn:
    """Raise the SpecError for the value at `pointer`."""
    raise SpecError(f"{pointer or '/'}: {reason}")


def escaped(name: str) -> str:
    """A member's name as part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _text(value: Any, pointer: str) -> None:
    if type(value) is not str:
        refuse(pointer, "must be a string")
    if "\0" in value:
        refuse(pointer, "must not contain a zero byte")
    if not value.isascii():
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            refuse(pointer, "is not valid Unicode")


def _some_text(value: Any, pointer: str) -> None:
    _text(value, pointer)
    if not value:
        refuse(pointer, "must not be empty")


def _path(value: Any, pointer: str) -> None:
    _text(value, pointer)
    if not value.startswith("/"):
        refuse(pointer, "must be an absolute path")


def _flag(value: Any, pointer: str) -> None:
    if type(value) is not bool:
        refuse(pointer, "must be true or false")


def _integer(low: int, high: int) -> Check:
    def check(value: Any, pointer: str) -> None:
        if type(value) is not int:
            refuse(pointer, "must be an integer")
        if not low <= value <= high:
            refuse(pointer, f"must be from {low} to {high}")

    return check


def _one_of(*words: str) -> Check:
    def check(value: Any, pointer: str) -> None:
        if type(value) is not str or value not in words:
            refuse(pointer, f"must be one of {', '.join(words)}")

    return check


def _list(item: Check, what: str = "a list") -> Check:
    def check(value: Any, pointer: str) -> None:
        if type(value) is not list:
            refuse(pointer, f"must be {what}")
        for index, member in enumerate(value):
            item(member, f"{pointer}/{index}")

    return check


def _map(item: Check) -> Check:
    def check(value: Any, pointer: str) -> None:
        if type(value) is not dict:
            refuse(pointer, "must be an object")
        for name, member in value.items():
            _some_text(name, pointer)
            item(member, f"{pointer}/{escaped(name)}")

    return check


def _object(members: dict[str, Check], *required: str) -> Check:
    """Members that are not in the table are ignored, as the specification demands."""

    def check(value: Any, pointer: str) -> None:
        if type(value) is not dict:
            refuse(pointer, "must be an object")
        for name in required:
            if name not in value:
                refuse(f"{pointer}/{name}", "is required")
        for name, member in value.items():
            known = members.get(name)
            if known is not None:
                known(member, f"{pointer}/{name}")

    return check


def _version(value: Any, pointer: str) -> None:
    _text(value, pointer)
    numbers = value.split("-")[0].split("+")[0].split(".")
    if numbers[0] != "1" or len(numbers) != 3 or not all(part.isdecimal() for part in numbers):
        refuse(pointer, f"version {value} is not 1.x.y")


def _arguments(value: Any, pointer: str) -> None:
    if type(value) is not list or not value or not all(type(word) is str for word in value):
        refuse(pointer, "must be a non-empty list of strings")
    _TEXTS(value, pointer)


def _variable(value: Any, pointer: str) -> None:
    _text(value, pointer)
    if value.find("=") < 1:
        refuse(pointer, "must be NAME=VALUE")


def _unified(value: Any, pointer: str) -> None:
    _TEXT_MAP(value, pointer)
    for name in value:
        if "/" in name or name in (".", ".."):
            refuse(f"{pointer}/{escaped(name)}", "is not the name of a file")


def _rlimit(value: Any, pointer: str) -> None:
    _RLIMIT(value, pointer)
    if value["soft"] > value["hard"]:
        refuse(f"{pointer}/soft", f"{value['soft']} is above the hard limit {value['hard']}")


def _device(value: Any, pointer: str) -> None:
    _DEVICE(value, pointer)
    for name in () if value["type"] == "p" else ("major", "minor"):
        if name not in value:
            refuse(f"{pointer}/{name}", "is required")


_ID = _integer(0, 2**32 - 2)
_INT64 = _integer(-(2**63), 2**63 - 1)
_UINT64 = _integer(0, 2**64 - 1)
_UINT32 = _integer(0, 2**32 - 1)
_TEXT_MAP = _map(_text)
_TEXTS = _list(_text, "a list of strings")
_PATHS = _list(_path, "a list of absolute paths")
_VARIABLES = _list(_variable, "a list of strings")
_MAPPINGS = _list(
    _object(
        {"containerID": _ID, "hostID": _ID, "size": _integer(1, 2**32 - 1)},
        "containerID",
        "hostID",
        "size",
    )
)
_RLIMIT = _object(
    {"type": _one_of(*RLIMITS), "soft": _UINT64, "hard": _UINT64}, "type", "soft", "hard"
)
_DEVICE = _object(
    {
        "path": _path,
        "type": _one_of("c", "b", "u", "p"),
        "major": _integer(0, 2**12 - 1),
        "minor": _integer(0, 2**20 - 1),
        "fileMode": _UINT32,
        "uid": _ID,
        "gid": _ID,
    },
    "path",
    "type",
)
_PROCESS = _object(
    {
        "terminal": _flag,
        "consoleSize": _object({"height": _integer(0, 65535), "width": _integer(0, 65535)}),
        "user": _object(
            {
                "uid": _ID,
                "gid": _ID,
                "umask": _integer(0, 0o777),
                "additionalGids": _list(_ID, "a list of numbers"),
            }
        ),
        "args": _arguments,
        "env": _VARIABLES,
        "cwd": _path,
        "capabilities": _object(
            dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _TEXTS)
        ),
        "rlimits": _list(_rlimit),
        "noNewPrivileges": _flag,
        "oomScoreAdj": _integer(-1000, 1000),
        "apparmorProfile": _text,
        "selinuxLabel": _text,
    },
    "args",
    "cwd",
)
_MOUNT = _object(
    {
        "destination": _path,
        "type": _text,
        "source": _text,
        "options": _TEXTS,
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
    },
    "destination",
)
_NAMESPACE = _object(
    {
        "type": _one_of("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"),
        "path": _path,
    },
    "type",
)
_MEMORY = _object(
    {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _INT64),
        "swappiness": _UINT64,
        "disableOOMKiller": _flag,
        "useHierarchy": _flag,
        "checkBeforeUpdate": _flag,
    }
)
_CPU = _object(
    {
        **dict.fromkeys(("shares", "period", "burst", "realtimePeriod"), _UINT64),
        **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _INT64),
        "cpus": _text,
        "mems": _text,
    }
)
_DEVICE_RULE = _object(
    {
        "allow": _flag,
        "type": _one_of("a", "b", "c", "u", "p"),
        "major": _INT64,
        "minor": _INT64,
        "access": _text,
    },
    "allow",
)
_RESOURCES = _object(
    {
        "devices": _list(_DEVICE_RULE),
        "memory": _MEMORY,
        "cpu": _CPU,
        "pids": _object({"limit": _INT64}, "limit"),
        "blockIO": _object({"weight": _integer(0, 65535), "leafWeight": _integer(0, 65535)}),
        "hugepageLimits": _list(
            _object({"pageSize": _some_text, "limit": _UINT64}, "pageSize", "limit")
        ),
        "network": _object({"classID": _UINT32}),
        "rdma": _map(_object({"hcaHandles": _UINT32, "hcaObjects": _UINT32})),
        "unified": _unified,
    }
)
_HOOKS = _list(
    _object(
        {
            "path": _path,
            "args": _TEXTS,
            "env": _VARIABLES,
            "timeout": _integer(1, 2**31 - 1),
        },
        "path",
    )
)
_LINUX = _object(
    {
        "namespaces": _list(_NAMESPACE),
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
        "timeOffsets": _map(_object({"secs": _INT64, "nanosecs": _UINT32})),
        "devices": _list(_device),
        "cgroupsPath": _text,
        "resources": _RESOURCES,
        "rootfsPropagation": _one_of(
            *("private", "shared", "slave", "unbindable"),
            *("rprivate", "rshared", "rslave", "runbindable"),
        ),
        "sysctl": _TEXT_MAP,
        "maskedPaths": _PATHS,
        "readonlyPaths": _PATHS,
        "mountLabel": _text,
    }
)
_CONFIG = _object(
    {
        "ociVersion": _version,
        "root": _object({"path": _some_text, "readonly": _flag}, "path"),
        "process": _PROCESS,
        "hostname": _text,
        "domainname": _text,
        "mounts": _list(_MOUNT),
        "hooks": _object(
            dict.fromkeys(
                (
                    "prestart",
                    "createRuntime",
                    "createContainer",
                    "startContainer",
                    "poststart",
                    "poststop",
                ),
                _HOOKS,
            )
        ),
        "annotations": _TEXT_MAP,
        "linux": _LINUX,
    },
    "ociVersion",
    "root",
    "process",
    "linux",
)
