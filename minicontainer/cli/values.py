"""Parsers of single values: text of the command line in, a typed value out.

Each raises ValueError with the reason and what is accepted; `options` adds the flag's name.
Nothing is looked up in a container.  Sizes and numbers are in `quantities`, mounts in `mounts`.
"""

from __future__ import annotations

import os

from minicontainer.cli.quantities import LARGEST, integer, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAME_LIMIT = 128
_VALUE_LIMIT = 65536
ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_CHARACTERS = ALPHANUMERIC | frozenset("_.-")
ULIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
    "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def choice(*words: str) -> Callable[[str], str]:
    """A parser that takes one of `words`."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"accepted: {', '.join(words)}")
        return text

    return parse


def name(text: str) -> str:
    """The name of a container."""
    text = text[1:] if text.startswith("/") else text
    if text[:1] not in ALPHANUMERIC or not _NAME_CHARACTERS.issuperset(text) or not text:
        raise ValueError("only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")
    if len(text) > _NAME_LIMIT:
        raise ValueError(f"at most {_NAME_LIMIT} characters are allowed")
    return text


def hostname(text: str) -> str:
    """A host or domain name as sethostname(2) takes it: up to 64 characters."""
    if text[:1] not in ALPHANUMERIC or not _NAME_CHARACTERS.issuperset(text) or not text:
        raise ValueError(
            "only letters, digits, '-', '.' and '_' are allowed, a letter or digit first"
        )
    if len(text) > 64:
        raise ValueError("at most 64 characters are allowed")
    return text


def pair(text: str) -> tuple[str, str]:
    """`K=V`, or `K` for an empty value."""
    key, _, value = text.partition("=")
    _check_pair(key, value)
    return key, value


def assignment(text: str) -> tuple[str, str]:
    """`K=V`, both parts needed."""
    if "=" not in text:
        raise ValueError("expected KEY=VALUE")
    return pair(text)


def sysctl(text: str) -> tuple[str, str]:
    """`KEY=VALUE` with the key in its dotted spelling."""
    key, value = assignment(text)
    return (key if "." in key.partition("/")[0] else key.replace("/", ".")), value


def pairs_of_file(path: str) -> list[tuple[str, str]]:
    """The labels in a file, a `K=V` or `K` a line; empty lines and `#` comments are left out."""
    return [pair(line) for line in _lines(path)]


def environment(text: str) -> str:
    """`K=V`; for `K` alone the caller's value, or, if the caller has none, `K` (remove it)."""
    key, equals, value = text.partition("=")
    _check_pair(key, value)
    if equals or key not in os.environ:
        return text
    return f"{key}={os.environ[key]}"


def environment_file(path: str) -> list[str]:
    """The variables in a file, `K=V` or `K` a line; `#` comments, no quotes, no expansion."""
    found = []
    for line in _lines(path):
        key = line.partition("=")[0]
        if any(character.isspace() for character in key):
            raise ValueError(f"{path}: the variable '{key}' contains a space")
        try:
            found.append(environment(line))
        except ValueError as reason:
            raise ValueError(f"{path}: {reason}") from None
    return found


def _check_pair(key: str, value: str) -> None:
    if not key:
        raise ValueError("the name is empty; expected NAME=VALUE")
    if len(key) > _VALUE_LIMIT or len(value) > _VALUE_LIMIT:
        raise ValueError(f"longer than {_VALUE_LIMIT} bytes")


def _lines(path: str) -> list[str]:
    """The lines of a small text file that say something, without leading blanks."""
    limit = 1 << 20
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as failure:
        raise ValueError(_reason(failure)) from None
    if len(data) > limit:
        raise ValueError(f"the file is larger than {limit} bytes")
    if b"\0" in data:
        raise ValueError("the file contains a zero byte")
    text = data.decode("utf-8", "surrogateescape")
    lines = (line.rstrip("\r").lstrip() for line in text.lstrip("\ufeff").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _reason(failure: OSError) -> str:
    from minicontainer.steps import errno_text

    return errno_text(failure.errno or 0)


def path(text: str) -> str:
    """A path of the host, made absolute and cleaned."""
    if not text:
        raise ValueError("expected a path")
    if "\0" in text:
        raise ValueError("a path cannot contain a zero byte")
    try:
        return "/" + os.path.abspath(text).lstrip("/")
    except OSError:
        raise ValueError(
            "relative, and the working directory is gone; use an absolute path"
        ) from None


def container_path(text: str) -> str:
    """An absolute path inside the container, cleaned."""
    if not text.startswith("/"):
        raise ValueError(f"'{text}' is not absolute: paths in the container begin with /")
    return "/" + os.path.normpath(text).lstrip("/")


def workdir(text: str) -> str:
    """The directory a command starts in."""
    return container_path(text)


def signal(text: str) -> str:
    """A signal as typed, once it is known to exist: TERM, SIGTERM, 15, RTMIN+3."""
    signal_number(text)
    return text


def signal_number(text: str) -> int:
    """The number of a signal."""
    from minicontainer import kernel

    try:
        return kernel.signal_number(text)
    except ValueError:
        raise ValueError("expected a signal such as TERM, SIGKILL, 9 or RTMIN+1") from None


def user(text: str) -> str | None:
    """`USER[:GROUP]`, looked up later in the container's own files; None for the default."""
    if text.startswith(":") or text.count(":") > 1:
        raise ValueError("expected USER[:GROUP], each a name or a number")
    return text or None


def cgroup_parent(text: str) -> str:
    """A path from the root of the cgroup hierarchies."""
    if ".." in text.split("/") or not text.strip("/"):
        raise ValueError("expected a path such as /jobs, without ..")
    return container_path("/" + text.lstrip("/"))


def address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    raise ValueError("expected an IPv4 or IPv6 address")


def extra_host(text: str) -> str:
    """`NAME:ADDRESS` or `NAME=ADDRESS`, as `NAME:ADDRESS`."""
    separator = "=" if "=" in text else ":"
    host, found, where = text.partition(separator)
    if not host or not found or any(character.isspace() for character in host):
        raise ValueError("expected NAME:ADDRESS")
    if where == "host-gateway":
        raise ValueError("host-gateway needs a bridge network, which is not supported yet")
    return f"{host}:{address(where.strip('[]'))}"


def ulimit(text: str) -> dict[str, object]:
    """`NAME=SOFT[:HARD]` as name, soft and hard; -1 and `unlimited` are -1."""
    limit, equals, numbers = text.partition("=")
    if not equals:
        raise ValueError("expected NAME=SOFT[:HARD]")
    if limit not in ULIMITS:
        raise ValueError(f"unknown limit {limit}; accepted: {', '.join(ULIMITS)}")
    soft_text, colon, hard_text = numbers.partition(":")
    soft = _limit(soft_text)
    hard = _limit(hard_text) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"the soft limit {soft_text} is above the hard limit {hard_text}")
    return {"name": limit, "soft": soft, "hard": hard}


def _limit(text: str) -> int:
    if text == "unlimited":
        return -1
    try:
        return integer(-1, LARGEST)(text)
    except ValueError:
        raise ValueError("expected NAME=SOFT[:HARD] in whole numbers, -1 for unlimited") from None


def restart(text: str) -> dict[str, object]:
    """A restart policy: its name, and how often `on-failure` tries (0: without end)."""
    policy, colon, count = text.partition(":")
    if policy not in ("no", "always", "unless-stopped", "on-failure"):
        raise ValueError("accepted: no, on-failure[:N], always, unless-stopped")
    if not colon:
        return {"name": policy, "maximum": 0}
    if policy != "on-failure":
        raise ValueError(f"only on-failure takes a number of tries, {policy} does not")
    return {"name": policy, "maximum": integer(0, 10**9)(count)}


def detach_keys(text: str) -> str:
    """Keys that detach: single characters or `ctrl-X`, in a comma list; empty turns them off."""
    for key in text.split(",") if text else ():
        control = key[5:] if key.startswith("ctrl-") else ""
        if len(key) != 1 and (
            len(control) != 1 or control not in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
        ):
            raise ValueError("expected characters or ctrl-X (a-z @ [ \\ ] ^ _) in a comma list")
    return text


def namespace(*words: str, container: bool = True) -> Callable[[str], str | None]:
    """A parser of namespace modes: one of `words`, or `container:NAME`; None for `private`."""
    accepted = ", ".join(("private", *words, *(("container:NAME",) if container else ())))

    def parse(text: str) -> str | None:
        if container and text.startswith("container:") and text != "container:":
            return text
        if text not in words and text != "private":
            raise ValueError(f"accepted: {accepted}")
        return None if text == "private" else text

    return parse


def network(text: str) -> str:
    """The network mode; networks with an interface come later."""
    if text not in ("none", "host"):
        raise ValueError("not supported yet; accepted: none, host")
    return text


def log_option(text: str) -> tuple[str, str]:
    """`max-size=SIZE` (factor 1000) or `max-file=COUNT`, the value as a number in digits."""
    key, value = assignment(text)
    if key == "max-size":
        value = str(size(value, 1000))
        if value == "0":
            raise ValueError("max-size is at least 1 byte")
    elif key == "max-file":
        value = str(integer(1, 1000)(value))
    else:
        raise ValueError(f"unknown log option {key}; accepted: max-size, max-file")
    return key, value


def security(text: str) -> str:
    """A security option; what is not built yet is refused."""
    if text in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
        return "no-new-privileges"
    if text in ("no-new-privileges:false", "no-new-privileges=false"):
        return "no-new-privileges=false"
    if text in (
        "seccomp=unconfined",
        "apparmor=unconfined",
        "label=disable",
        "systempaths=unconfined",
    ):
        return text
    accepted = "no-new-privileges[=BOOL], systempaths=unconfined, seccomp=unconfined"
    raise ValueError(f"not supported yet; accepted: {accepted}")


def capabilities(text: str) -> list[str]:
    """Names of capabilities in a comma list, in capitals; `CAP_` in front is dropped."""
    names = [part.strip().upper() for part in text.split(",")]
    if not all(names):
        raise ValueError("expected the name of a capability, or ALL")
    return [part[4:] if part.startswith("CAP_") else part for part in names]
