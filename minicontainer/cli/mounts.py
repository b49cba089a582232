"""Parsers of what is put into a container's file system: -v, --mount, --tmpfs, --device.

Each yields a mount as the engine's options have it: type, source, destination, options, and
`create` (a missing directory of the host is made).  Raises ValueError with the reason.
"""

from __future__ import annotations

from minicontainer.cli import quantities, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPAGATION = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_VOLUME_OPTIONS = ("ro", "rw", "z", "Z", "nocopy", *PROPAGATION)
_EXCLUSIVE = (("ro", "rw"), ("z", "Z"), PROPAGATION)
_TMPFS_FLAGS = (
    "ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync",
    "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime",
)  # fmt: skip
_TMPFS_KEYS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks")
_BOOLEANS = {"": True, "true": True, "1": True, "false": False, "0": False}


def volume(text: str) -> dict[str, Any]:
    """A bind from `HOST:CONTAINER[:OPTIONS]`; a missing host directory is made."""
    parts = text.split(":")
    if len(parts) == 1 or not parts[0].startswith(("/", ".")):
        raise ValueError("named volumes are not supported yet; HOST begins with / or .")
    if len(parts) > 3 or not parts[1]:
        raise ValueError("expected HOST:CONTAINER[:OPTIONS]")
    options = parts[2].split(",") if len(parts) == 3 else []
    for option in options:
        if option not in _VOLUME_OPTIONS:
            raise ValueError(f"unknown option '{option}'; accepted: {' '.join(_VOLUME_OPTIONS)}")
    for words in _EXCLUSIVE:
        chosen = {option for option in options if option in words}
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(sorted(chosen))} exclude each other")
    return _mount("bind", values.path(parts[0]), parts[1], options, create=True)


def tmpfs(text: str) -> dict[str, Any]:
    """A tmpfs from `CONTAINER[:OPTIONS]`."""
    destination, colon, listed = text.partition(":")
    options = [_tmpfs_option(option) for option in listed.split(",")] if colon else []
    return _mount("tmpfs", "tmpfs", destination, options)


def mount(text: str) -> dict[str, Any]:
    """A mount from `type=bind|tmpfs,source=...,target=...,...`, fields quoted as in CSV."""
    fields = _fields(text)
    kind = fields.pop("type", "volume")
    destination = _take(fields, "target", "destination", "dst")
    source = _take(fields, "source", "src")
    if destination is None:
        raise ValueError("target is required")
    options = ["ro"] if _boolean(fields, "readonly", "ro") else []
    if kind == "bind":
        if not source:
            raise ValueError("source is required for type=bind")
        options += _bind_options(fields)
        source = values.path(source)
    elif kind == "tmpfs":
        if source:
            raise ValueError("type=tmpfs takes no source")
        options += _tmpfs_fields(fields)
        source = "tmpfs"
    else:
        raise ValueError(f"type={kind}: not supported yet; accepted: bind, tmpfs")
    if fields:
        raise ValueError(f"unexpected key '{min(fields)}' for type={kind}")
    return _mount(kind, source, destination, options)


def device(text: str) -> dict[str, str]:
    """A device from `HOST[:CONTAINER][:rwm]`."""
    parts = text.split(":")
    permissions = "rwm"
    if len(parts) > 1 and _is_access(parts[-1]):
        permissions = parts.pop()
    if len(parts) > 2 or not all(parts):
        raise ValueError("expected HOST[:CONTAINER][:PERMISSIONS], PERMISSIONS of r, w and m")
    if not parts[0].startswith(("/", ".")):
        raise ValueError(f"'{parts[0]}' is not a path; HOST begins with /")
    host = values.path(parts[0])
    return {
        "host": host,
        "container": values.container_path(parts[1]) if len(parts) == 2 else host,
        "permissions": permissions,
    }


def device_rule(text: str) -> str:
    """A rule of the device cgroup: `c 10:200 rwm`, `a *:* rwm`."""
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    halves = numbers.split(":")
    good = all(half == "*" or is_number(half) for half in halves)
    if kind not in ("a", "b", "c") or len(halves) != 2 or not good or not _is_access(access):
        raise ValueError("expected TYPE MAJOR:MINOR ACCESS, such as 'c 10:200 rwm'")
    return text


def is_number(text: str) -> bool:
    """Whether `text` is a number in decimal digits, without a sign."""
    return text.isascii() and text.isdigit()


def _is_access(text: str) -> bool:
    return 0 < len(text) == len(set(text)) and set(text) <= set("rwm")


def _mount(
    kind: str, source: str, destination: str, options: list[str], *, create: bool = False
) -> dict[str, Any]:
    destination = values.container_path(destination)
    if destination == "/":
        raise ValueError("the container's / cannot be mounted over")
    return {
        "type": kind,
        "source": source,
        "destination": destination,
        "options": options,
        "create": create,
    }


def _fields(text: str) -> dict[str, str]:
    """The keys and values of a CSV line; a key alone has an empty value."""
    import _csv

    try:
        cells = next(_csv.reader([text], strict=True), [])
    except _csv.Error as reason:
        raise ValueError(f"not a line of CSV: {reason}") from None
    fields: dict[str, str] = {}
    for cell in cells:
        key, equals, value = cell.partition("=")
        key = key.strip().lower()
        if not equals and key not in ("readonly", "ro", "bind-nonrecursive"):
            raise ValueError(f"'{cell}' is not KEY=VALUE")
        if key in fields:
            raise ValueError(f"the key '{key}' occurs twice")
        fields[key] = value
    return fields


def _take(fields: dict[str, str], *keys: str) -> str | None:
    """The value under the first of `keys` that is there; all of them are taken out."""
    found = [fields.pop(key) for key in keys if key in fields]
    if len(found) > 1:
        raise ValueError(f"only one of {', '.join(keys)} can be given")
    return found[0] if found else None


def _boolean(fields: dict[str, str], *keys: str) -> bool:
    text = _take(fields, *keys)
    if text is None:
        return False
    if text not in _BOOLEANS:
        raise ValueError(f"{keys[0]}={text}: expected true or false")
    return _BOOLEANS[text]


def _bind_options(fields: dict[str, str]) -> list[str]:
    options = ["bind"] if _boolean(fields, "bind-nonrecursive") else []
    propagation = _take(fields, "bind-propagation")
    if propagation is not None:
        if propagation not in PROPAGATION:
            raise ValueError(f"bind-propagation: accepted: {', '.join(PROPAGATION)}")
        options.append(propagation)
    return options


def _tmpfs_fields(fields: dict[str, str]) -> list[str]:
    options = []
    for key in ("size", "mode"):
        value = _take(fields, f"tmpfs-{key}")
        if value is not None:
            options.append(_tmpfs_option(f"{key}={value}"))
    return options


def _tmpfs_option(text: str) -> str:
    """One option of tmpfs(5), its size in bytes or a percentage."""
    key, equals, value = text.partition("=")
    if not equals:
        if key not in _TMPFS_FLAGS:
            raise ValueError(f"unknown tmpfs option '{key}'")
        return key
    if key not in _TMPFS_KEYS:
        raise ValueError(f"unknown tmpfs option '{key}'")
    if key == "size" and not (value.endswith("%") and value[:-1].isdecimal()):
        return f"size={quantities.size(value)}"
    if key == "mode" and (not value or set(value) - set("01234567") or int(value, 8) > 0o1777):
        raise ValueError(f"mode={value}: expected octal digits up to 1777")
    if key in ("uid", "gid") and not is_number(value):
        raise ValueError(f"{key}={value}: expected a number")
    return text
