"""What an image config may hold, member by member: image-spec config.md and Docker's own.

Each member is as the specification says or null; unknown members may be anything that JSON can
hold.  A config that passes cannot break a listing or a start later on.
"""

from __future__ import annotations

from minicontainer.errors import ImageError
from minicontainer.image.reference import is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_TEXT = 1 << 20
MOST_HISTORY = 10_000
_NANOSECONDS = (1 << 63) - 1
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def check(document: dict[str, Any]) -> None:
    """Raises ImageError that names the first member of an image config that is not acceptable."""
    for name, test in _TOP.items():
        if document.get(name) is not None:
            test(document[name], name)
    if not document.get("architecture") or not document.get("os"):
        raise ImageError("the image config names no architecture and os")
    if document.get("rootfs") is None:
        raise ImageError("the image config has no rootfs")


def _text(value: Any, where: str) -> None:
    """A string that can be an argument, a path, or a line of a table."""
    if not isinstance(value, str):
        raise ImageError(f"{where} of the image config is not a string")
    if "\0" in value or len(value) > LONGEST_TEXT:
        raise ImageError(f"{where} of the image config has a NUL or is longer than 1 MiB")


def _word(value: Any, where: str) -> None:
    _text(value, where)
    if len(value) > 64 or not value.isprintable():
        raise ImageError(f"{where} of the image config is not a word: {value[:40]!r}")


def _flag(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise ImageError(f"{where} of the image config is neither true nor false")


def _number(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value <= _NANOSECONDS:
        raise ImageError(f"{where} of the image config is not a number in range: {value!r:.40}")


def _seconds(value: Any, where: str) -> None:
    if type(value) is not int or not -1 <= value < 1 << 31:
        raise ImageError(f"{where} of the image config is not a number in range: {value!r:.40}")


def _texts(value: Any, where: str) -> None:
    if not isinstance(value, list):
        raise ImageError(f"{where} of the image config is not a list")
    for number, item in enumerate(value):
        _text(item, f"{where}/{number}")


def _map(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise ImageError(f"{where} of the image config is not an object")
    for key in value:
        _text(key, where)


def _labels(value: Any, where: str) -> None:
    _map(value, where)
    for key, item in value.items():
        _text(item, f"{where}/{key[:40]}")


def _ports(value: Any, where: str) -> None:
    _map(value, where)
    for port in value:
        number, _, protocol = port.partition("/")
        low, dash, high = number.partition("-")
        if protocol not in ("", "tcp", "udp", "sctp") or not _is_port(low):
            raise ImageError(f"{where} of the image config has {port[:40]!r}, which is no port")
        if dash and not (_is_port(high) and int(low) <= int(high)):
            raise ImageError(f"{where} of the image config has {port[:40]!r}, which is no port")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536


def _time(value: Any, where: str) -> None:
    """RFC 3339 with a year that `datetime` and people can hold; an empty one is none."""
    _text(value, where)
    if value and not is_time(value):
        raise ImageError(f"{where} of the image config is not a time: {value[:40]!r}")


def is_time(text: str) -> bool:
    """Whether `text` is an RFC 3339 time that exists."""
    date, _, clock = text[:10], text[10:11], text[11:]
    if not (text.isascii() and text[10:11] in ("T", "t", " ") and len(text) <= 40):
        return False
    year, month, day = date[:4], date[5:7], date[8:10]
    if date != f"{year}-{month}-{day}" or not (year + month + day).isdigit() or year == "0000":
        return False
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= _DAYS[int(month) - 1]):
        return False
    return _is_clock(clock)


def _is_clock(clock: str) -> bool:
    hour, minute, second = clock[:2], clock[3:5], clock[6:8]
    if clock[:8] != f"{hour}:{minute}:{second}" or not (hour + minute + second).isdigit():
        return False
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:
        return False
    rest = clock[8:]
    if rest.startswith("."):
        fraction = len(rest) - len(rest[1:].lstrip("0123456789"))
        if fraction < 2:
            return False
        rest = rest[fraction:]
    if rest in ("Z", "z"):
        return True
    hours, minutes = rest[1:3], rest[4:6]
    return (
        rest[:1] in ("+", "-")
        and rest[1:] == f"{hours}:{minutes}"
        and (hours + minutes).isdigit()
        and int(hours) < 24
        and int(minutes) < 60
    )


def _health(value: Any, where: str) -> None:
    _members(value, where, _HEALTH)


def _container(value: Any, where: str) -> None:
    _members(value, where, _CONFIG)


def _members(value: Any, where: str, table: dict[str, Callable[[Any, str], None]]) -> None:
    _map(value, where)
    for name, test in table.items():
        if value.get(name) is not None:
            test(value[name], f"{where}/{name}")


def _history(value: Any, where: str) -> None:
    if not isinstance(value, list) or len(value) > MOST_HISTORY:
        raise ImageError(f"{where} of the image config is not a list of at most {MOST_HISTORY}")
    for number, entry in enumerate(value):
        _members(entry, f"{where}/{number}", _STEP)


def _rootfs(value: Any, where: str) -> None:
    _map(value, where)
    if value.get("diff_ids") is None:  # `FROM scratch` by some builders
        value["diff_ids"] = []
    if value.get("type") != "layers" or not isinstance(value["diff_ids"], list):
        raise ImageError("rootfs of the image config is not a list of layers")
    for diff_id in value["diff_ids"]:
        if not isinstance(diff_id, str) or not is_digest(diff_id):
            raise ImageError(f"a diff_id of the image config is no digest: {diff_id!r:.80}")


_HEALTH: dict[str, Callable[[Any, str], None]] = {
    "Test": _texts,
    "Interval": _number,
    "Timeout": _number,
    "StartPeriod": _number,
    "StartInterval": _number,
    "Retries": _seconds,
}
_CONFIG: dict[str, Callable[[Any, str], None]] = {
    "User": _text,
    "ExposedPorts": _ports,
    "Env": _texts,
    "Entrypoint": _texts,
    "Cmd": _texts,
    "Volumes": _map,
    "WorkingDir": _text,
    "Labels": _labels,
    "StopSignal": _word,
    "StopTimeout": _seconds,
    "Healthcheck": _health,
    "OnBuild": _texts,
    "Shell": _texts,
    "Hostname": _text,
    "Domainname": _text,
    "ArgsEscaped": _flag,
}
_STEP: dict[str, Callable[[Any, str], None]] = {
    "created": _time,
    "created_by": _text,
    "author": _text,
    "comment": _text,
    "empty_layer": _flag,
}
_TOP: dict[str, Callable[[Any, str], None]] = {
    "architecture": _word,
    "os": _word,
    "variant": _word,
    "os.version": _text,
    "created": _time,
    "author": _text,
    "comment": _text,
    "config": _container,
    "rootfs": _rootfs,
    "history": _history,
}
