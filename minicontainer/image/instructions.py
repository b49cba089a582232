"""Changes to an image config in the words of a Dockerfile, as `import` and `commit` take them.

CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR.  Not for:
building; no instruction here runs anything.
"""

from __future__ import annotations

from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 3600 * 10**9
_CHECK_TIMES = {
    "--interval": "Interval",
    "--timeout": "Timeout",
    "--start-period": "StartPeriod",
    "--start-interval": "StartInterval",
}


def apply(config: Config, changes: list[str]) -> Config:
    """The `config` member of an image config with each change made. Raises UsageError."""
    found = {**config}
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        act = _INSTRUCTIONS.get(word.upper())
        if act is None:
            raise UsageError(f"{word!r} is not an instruction that changes an image")
        if not rest.strip():
            raise UsageError(f"{word.upper()} needs an argument")
        act(found, rest.strip())
    return found


def _cmd(config: Config, text: str) -> None:
    config["Cmd"] = _command(text)


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _command(text)
    # What the image gave as arguments was meant for its own entry point.
    config.pop("Cmd", None)


def _env(config: Config, text: str) -> None:
    pairs = _pairs(text, "ENV")
    names = {name for name, _ in pairs}
    kept = [one for one in config.get("Env") or () if one.partition("=")[0] not in names]
    config["Env"] = kept + [f"{name}={value}" for name, value in dict(pairs).items()]


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text, "LABEL"))}


def _expose(config: Config, text: str) -> None:
    ports = {**(config.get("ExposedPorts") or {})}
    for word in text.split():
        number, _, protocol = word.partition("/")
        first, _, last = number.partition("-")
        if not first.isdigit() or not (last or first).isdigit() or len(first + last) > 10:
            raise UsageError(f"EXPOSE: {word!r} is not a port")
        if not 0 < int(first) <= int(last or first) < 65536:
            raise UsageError(f"EXPOSE: {word!r} is not a port")
        if (protocol or "tcp").lower() not in ("tcp", "udp", "sctp"):
            raise UsageError(f"EXPOSE: {protocol!r} is not tcp, udp or sctp")
        for port in range(int(first), int(last or first) + 1):
            ports[f"{port}/{(protocol or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    paths = _json_words(text) or _words(text)
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _workdir(config: Config, text: str) -> None:
    import os.path

    config["WorkingDir"] = os.path.normpath(
        os.path.join(config.get("WorkingDir") or "/", *_words(text)[:1])
    )


def _user(config: Config, text: str) -> None:
    config["User"] = text


def _stop_signal(config: Config, text: str) -> None:
    config["StopSignal"] = text


def _on_build(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _health_check(config: Config, text: str) -> None:
    check: dict[str, Any] = {}
    words = text.split()
    while words and words[0].startswith("--"):
        name, _, value = words.pop(0).partition("=")
        if name == "--retries" and value.isdigit() and len(value) < 10:
            check["Retries"] = int(value)
        elif name in _CHECK_TIMES:
            check[_CHECK_TIMES[name]] = _nanoseconds(value)
        else:
            raise UsageError(f"HEALTHCHECK: {name}={value} is not an option")
    kind = words[0].upper() if words else ""
    if kind == "NONE":
        check["Test"] = ["NONE"]
    elif kind == "CMD" and len(words) > 1:
        rest = text[text.upper().index("CMD") + 3 :].strip()
        exact = _json_words(rest)
        check["Test"] = ["CMD", *exact] if exact else ["CMD-SHELL", rest]
    else:
        raise UsageError("HEALTHCHECK is NONE, or CMD and a command")
    config["Healthcheck"] = check


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(text: str) -> list[str]:
    """A JSON array as it is, anything else for the shell."""
    exact = _json_words(text)
    return ["/bin/sh", "-c", text] if exact is None else exact


def _json_words(text: str) -> list[str] | None:
    import json

    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        return None
    return found


def _words(text: str) -> list[str]:
    import shlex

    try:
        return shlex.split(text)
    except ValueError as failure:
        raise UsageError(f"{text!r}: {failure}") from None


def _pairs(text: str, instruction: str) -> list[tuple[str, str]]:
    """`a=b c="d e"`, or the old `a the rest`."""
    first, _, rest = text.partition(" ")
    if "=" not in first:
        if not rest.strip():
            raise UsageError(f"{instruction} needs a name and a value")
        return [(first, rest.strip())]
    found = []
    for word in _words(text):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{instruction}: {word!r} is not name=value")
        found.append((name, value))
    return found


def _nanoseconds(text: str) -> int:
    """A duration such as 1m30s."""
    total = 0.0
    rest = text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        unit = len(rest[digits:]) - len(rest[digits:].lstrip("nuµmsh"))
        number, name = rest[:digits], rest[digits : digits + unit]
        if name not in _UNITS or number.count(".") > 1 or not number.strip("."):
            raise UsageError(f"HEALTHCHECK: {text!r} is not a duration")
        total += float(number) * _UNITS[name]
        rest = rest[digits + unit :]
    if not text or total >= 1 << 62:
        raise UsageError(f"HEALTHCHECK: {text!r} is not a duration")
    return int(total)
