"""`--filter KEY=VALUE` for containers: values of one key are alternatives, keys must all fit."""

from __future__ import annotations

from minicontainer.cli.containers import find
from minicontainer.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

    from minicontainer.engine.records import Container

    Condition = tuple[str, str]

STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead", "broken")


def condition(text: str) -> Condition:
    """The key and value of one --filter. Raises ValueError."""
    key, equals, value = text.partition("=")
    if not equals or key not in KEYS:
        raise ValueError(f"expected KEY=VALUE with a key of {', '.join(KEYS)}")
    if key == "status":
        value = "exited" if value == "stopped" else value
        if value not in STATUSES:
            raise ValueError(f"accepted: {', '.join(STATUSES)}")
    elif key == "exited" and not value.lstrip("-").isdecimal():
        raise ValueError("expected an exit code")
    elif key == "name":
        _pattern(value)
    return key, value


def shows_stopped(conditions: Sequence[Condition]) -> bool:
    """Whether the filters speak of containers that do not run, as if -a had been given."""
    return any(key in ("status", "exited", "before", "since") for key, _ in conditions)


def choose(containers: Sequence[Container], conditions: Sequence[Condition]) -> list[Container]:
    """Those of `containers` that fit. Raises NotFound for an unknown `before` or `since`."""
    tests: dict[str, list[Callable[[Container], bool]]] = {}
    for key, value in conditions:
        tests.setdefault(key, []).append(_test(key, value, containers))
    return [
        container
        for container in containers
        if all(any(test(container) for test in group) for group in tests.values())
    ]


def _test(key: str, value: str, containers: Sequence[Container]) -> Callable[[Container], bool]:
    if key in ("before", "since"):
        return _by_age(key, value, containers)
    return _TESTS[key](value)


def _by_age(key: str, value: str, containers: Sequence[Container]) -> Callable[[Container], bool]:
    if not containers:
        raise NotFound(f"No such container: {value}")
    other = find(containers[0].paths, value)
    moment = _created(other)
    if key == "before":
        return lambda container: _created(container) < moment
    return lambda container: _created(container) > moment


def _created(container: Container) -> str:
    return str(container.record.get("created", ""))


def _label(value: str) -> Callable[[Container], bool]:
    name, equals, wanted = value.partition("=")

    def test(container: Container) -> bool:
        labels = container.options.get("label") or {}
        return name in labels and (not equals or labels[name] == wanted)

    return test


def _name(value: str) -> Callable[[Container], bool]:
    # Docker's names begin with a slash, so that ^/x and ^x both work.
    pattern = _pattern(value)
    return lambda container: bool(
        pattern.search(container.name) or pattern.search(f"/{container.name}")
    )


def _pattern(text: str) -> re.Pattern[str]:
    import re

    try:
        return re.compile(text)
    except re.error as reason:
        raise ValueError(f"no regular expression: {reason}") from None


def _policy(container: Container) -> str:
    return str((container.options.get("restart") or {}).get("name", "no"))


_TESTS: dict[str, Callable[[str], Callable[[Container], bool]]] = {
    "ancestor": lambda value: lambda one: value == one.record.get("image") != "",
    "exited": lambda value: lambda one: one.status == "exited" and one.exit_code == int(value),
    "expose": lambda value: lambda one: False,  # no container has ports yet
    "id": lambda value: lambda one: one.id.startswith(value),
    "label": _label,
    "name": _name,
    "network": lambda value: lambda one: one.options.get("network") == value,
    "publish": lambda value: lambda one: False,
    "restart-policy": lambda value: lambda one: _policy(one) == value,
    "status": lambda value: lambda one: one.status == value,
}
KEYS = tuple(sorted((*_TESTS, "before", "since")))
