"""`namedtuple` for the start path: `collections` and what it imports cost two milliseconds.

The same constructor, `_fields`, `_replace`, `_asdict` and representation; a test compares the two.
Checkers read the real one:

    if TYPE_CHECKING:
        from collections import namedtuple
    else:
        from minicontainer.tuples import namedtuple
"""

from __future__ import annotations

import sys
from _operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def namedtuple(name: str, field_names: str, *, defaults: tuple[Any, ...] = ()) -> type[Any]:
    """A tuple class whose items can be read by name. `field_names` are separated by blanks."""
    fields = tuple(field_names.split())
    count = len(fields)
    preset = dict(zip(fields[count - len(defaults) :], defaults))

    def new(cls: type[Any], *values: Any, **named: Any) -> Any:
        if not named and len(values) == count:
            return tuple.__new__(cls, values)
        given = {**preset, **dict(zip(fields, values)), **named}
        if len(values) > count or len(given) != count or not given.keys() <= set(fields):
            raise TypeError(f"{name} takes {', '.join(fields)}")
        return tuple.__new__(cls, [given[field] for field in fields])

    def replaced(self: Any, **changes: Any) -> Any:
        return type(self)(**{**dict(zip(fields, self)), **changes})

    def as_dict(self: Any) -> dict[str, Any]:
        return dict(zip(fields, self))

    def shown(self: Any) -> str:
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in zip(fields, self))})"

    def state(self: Any) -> tuple[Any, ...]:
        return tuple(self)

    body: dict[str, Any] = {
        "__slots__": (),
        "__module__": sys._getframe(1).f_globals.get("__name__", "__main__"),
        "_fields": fields,
        "__new__": new,
        "_replace": replaced,
        "_asdict": as_dict,
        "__repr__": shown,
        "__getnewargs__": state,
    }
    for index, field in enumerate(fields):
        body[field] = property(itemgetter(index))
    return type(name, (tuple,), body)
