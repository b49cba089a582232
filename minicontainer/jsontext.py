"""JSON for our own records: a writer that imports nothing, a reader that is strict.

`json` costs five milliseconds to import (it pulls `re` and `enum`), more than a third of a whole
start; so the writer does without it, and the reader uses the C half of it directly (0.1 ms).  They
write what `json.dumps` with `ensure_ascii=False` writes and read what `json.loads` reads; tests
compare them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def string(text: str) -> str:
    """`text` as a JSON string literal, non-ASCII kept, lone surrogates escaped."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    literal = _encode(text)
    try:
        literal.encode()
        return literal
    except UnicodeEncodeError:
        return "".join(
            f"\\u{ord(character):04x}" if "\ud800" <= character <= "\udfff" else character
            for character in literal
        )


def _encode(text: str) -> str:
    try:
        from _json import encode_basestring
    except ImportError:  # another Python implementation
        import json

        return json.dumps(text, ensure_ascii=False)
    return encode_basestring(text)


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` (dict with str keys, list, tuple, str, int, float, bool, None) as JSON text.

    Raises TypeError for anything else, ValueError for an infinite float and NaN.
    """
    return _dump(value, "" if indent is None else "\n", indent or 0)


def _dump(value: Any, newline: str, indent: int) -> str:
    if isinstance(value, str):
        return string(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        if value - value:  # not a number, for infinity and NaN
            raise ValueError(f"{value} is not JSON")
        return repr(value)
    if not isinstance(value, (dict, list, tuple)):
        raise TypeError(f"not JSON: {type(value).__name__}")
    inner = newline + " " * indent if newline else ""
    comma = "," + (inner or " ")
    if isinstance(value, dict):
        items = [f"{string(key)}: {_dump(item, inner, indent)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        items = [_dump(item, inner, indent) for item in value]
        opening, closing = "[", "]"
    if not items:
        return opening + closing
    return f"{opening}{inner}{comma.join(items)}{newline}{closing}"


def loads(text: bytes | str) -> Any:
    """The value in `text` (UTF-8). Raises ValueError for bad JSON, NaN, nesting beyond reason."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        scan = _scanner()
        value, end = scan(text, len(text) - len(text.lstrip(_BLANKS)))
    except StopIteration as failure:
        raise ValueError(f"no JSON value at character {failure.value}") from None
    except SystemError:  # the C half takes its exception from json.decoder, if that is loaded
        raise ValueError("not JSON") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:].strip(_BLANKS):
        raise ValueError(f"more than one JSON value: the first ends at character {end}")
    return value


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    """(text, where a value begins) -> (value, where it ends), of `json` but not from there."""
    try:
        from _json import make_scanner
    except ImportError:  # another Python implementation
        import json

        return json.JSONDecoder(parse_constant=_refuse).raw_decode
    scanner: Callable[[str, int], tuple[Any, int]] = make_scanner(_Rules)  # type: ignore[arg-type]
    return scanner


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Rules:
    """What the scanner asks: json.JSONDecoder has the same."""

    strict = True  # no control characters in strings
    object_hook = object_pairs_hook = array_hook = None  # the last since 3.15
    parse_float, parse_int = float, int
    parse_constant = staticmethod(_refuse)


_BLANKS = " \t\n\r"
