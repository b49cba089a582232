"""The functions of `--format` templates, and how Go prints, compares and tests values."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Dicts whose keys are the user's; a missing key is no mistake there.
FREE = frozenset(
    (
        "Labels", "Annotations", "Sysctls", "Tmpfs", "Ports", "PortBindings", "ExposedPorts",
        "Volumes", "Networks",
    )
)  # fmt: skip
_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d{0,4})(?:\.(?P<digits>\d{1,3}))?(?P<verb>.)")
_MISSING_ARGUMENT = "%!{}(MISSING)"


class Mapping(dict):  # type: ignore[type-arg]
    """A dict with free keys, such as labels."""


class _NoValue:
    def __bool__(self) -> bool:
        return False


NO_VALUE = _NoValue()


def call(name: str, arguments: list[Any]) -> Any:
    """The result of the function `name`. Raises TypeError where the arguments do not fit."""
    function, least, most = FUNCTIONS[name]
    if len(arguments) < least or (most >= 0 and len(arguments) > most):
        wanted = str(least) if least == most else f"{least} to {most}" if most >= 0 else f"{least}+"
        raise TypeError(f"{name} takes {wanted} arguments, not {len(arguments)}")
    return function(*arguments)


def text(value: Any) -> str:
    """`value` as Go's templates print it."""
    if isinstance(value, str):
        return value
    if value is None or value is NO_VALUE:
        return "<no value>"
    return _inner(value)


def _inner(value: Any) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        pairs = [(key, item) for key, item in sorted(value.items()) if not callable(item)]
        return f"map[{' '.join(f'{key}:{_inner(item)}' for key, item in pairs)}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(_inner(item) for item in value)}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def truth(value: Any) -> bool:
    """Whether `if` takes `value` as true: not zero, not empty."""
    return bool(value)


def kind(value: Any) -> str:
    """What sort of thing `value` is, for error messages."""
    if value is None or value is NO_VALUE:
        return "nothing"
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, (list, tuple)) else "an object")


def _json(value: Any) -> str:
    import json

    if value is NO_VALUE:
        return "null"
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise IndexError(f"index {text(key)} is out of range")
            value = value[key]
        else:
            raise TypeError(f"cannot index {kind(value)}")
    return value


def _length(value: Any) -> int:
    if not isinstance(value, (str, dict, list, tuple)):
        raise TypeError(f"len of {kind(value)}")
    return len(value.encode("utf-8", "replace")) if isinstance(value, str) else len(value)


def _equal(first: Any, *others: Any) -> bool:
    return any(_comparable(first, other) and first == other for other in others)


def _comparable(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return True
    if not isinstance(first, (str, bool, int, float)) or isinstance(second, (dict, list, tuple)):
        raise TypeError("eq compares plain values only")
    if type(first) is not type(second) and not (_is_number(first) and _is_number(second)):
        raise TypeError(f"cannot compare {kind(first)} with {kind(second)}")
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _less(first: Any, second: Any) -> bool:
    if isinstance(first, bool) or not isinstance(first, (str, int, float)):
        raise TypeError(f"{kind(first)} has no order")
    _comparable(first, second)
    return bool(first < second)


def _print(*values: Any) -> str:
    """As Go's Sprint: a space between two operands when neither is a string."""
    shown = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            shown += " "
        shown += text(value) if isinstance(value, str) else _inner(value)
    return shown


def _println(*values: Any) -> str:
    return " ".join(value if isinstance(value, str) else _inner(value) for value in values) + "\n"


def _printf(form: str, *values: Any) -> str:
    rest = list(values)

    def replace(match: re.Match[str]) -> str:
        verb = match["verb"]
        if verb == "%":
            return "%"
        if not rest:
            return _MISSING_ARGUMENT.format(verb)
        shown = _formatted(verb, match["digits"], rest.pop(0), "+" in match["flags"])
        width = int(match["width"] or 0)
        if "-" in match["flags"]:
            return shown.ljust(width)
        return shown.zfill(width) if "0" in match["flags"] else shown.rjust(width)

    if not isinstance(form, str):
        raise TypeError("printf begins with a string")
    shown = _VERB.sub(replace, form)
    extra = ", ".join(_inner(value) for value in rest)
    return f"{shown}%!(EXTRA {extra})" if rest else shown


def _formatted(verb: str, digits: str | None, value: Any, plus: bool) -> str:
    """`value` as one verb of fmt.Printf shows it."""
    if verb in "sv":
        shown = value if isinstance(value, str) else _inner(value)
        return shown if digits is None or verb == "v" else shown[: int(digits)]
    if verb == "q" and isinstance(value, str):
        from minicontainer.cli import tables

        return tables.quote(value)
    if verb == "t" and isinstance(value, bool):
        return _inner(value)
    if verb == "d" and type(value) is int:
        return f"{value:+d}" if plus else str(value)
    if verb in "xXob" and type(value) is int:
        return format(value, verb)
    if verb in "feg" and _is_number(value):
        return format(value, f".{digits or (6 if verb != 'g' else 12)}{verb}")
    if verb == "x" and isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").hex()
    return f"%!{verb}({_inner(value)})"


def _join(first: Any, second: Any) -> str:
    # Go's templates have join LIST SEP; piped, the list comes last.
    items, separator = (second, first) if isinstance(first, str) else (first, second)
    if items is None:
        return ""
    if not isinstance(items, (list, tuple)) or not isinstance(separator, str):
        raise TypeError("join takes a list and a string")
    return separator.join(text(item) for item in items)


def _split(value: Any, separator: Any) -> list[str]:
    value, separator = _string(value), _string(separator)
    return value.split(separator) if separator else list(value)


def _pad(value: Any, before: Any, after: Any) -> str:
    return " " * min(int(before), 4096) + _string(value) + " " * min(int(after), 4096)


def _truncate(value: Any, length: Any) -> str:
    return _string(value)[: max(0, int(length))]


def _title(value: Any) -> str:
    return re.sub(r"\b\w", lambda match: match.group().upper(), _string(value))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {kind(value)}")
    return value


# name -> function, least and most number of arguments (-1: any). `and`, `or` are in `template`.
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "eq": (_equal, 2, -1),
    "ge": (lambda first, second: not _less(first, second), 2, 2),
    "gt": (lambda first, second: _less(second, first), 2, 2),
    "index": (_index, 1, -1),
    "join": (_join, 2, 2),
    "json": (_json, 1, 1),
    "le": (lambda first, second: not _less(second, first), 2, 2),
    "len": (_length, 1, 1),
    "lower": (lambda value: _string(value).lower(), 1, 1),
    "lt": (_less, 2, 2),
    "ne": (lambda first, second: not _equal(first, second), 2, 2),
    "not": (lambda value: not truth(value), 1, 1),
    "pad": (_pad, 3, 3),
    "print": (_print, 0, -1),
    "printf": (_printf, 1, -1),
    "println": (_println, 0, -1),
    "split": (_split, 2, 2),
    "title": (_title, 1, 1),
    "truncate": (_truncate, 2, 2),
    "upper": (lambda value: _string(value).upper(), 1, 1),
}
