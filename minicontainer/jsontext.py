"""JSON for our own records: a writer that imports nothing, a reader that is strict.

`json` costs five milliseconds to import (it pulls `re` and `enum`), more than a third of a whole
start; a start only writes, so writing does without it.  The output is what `json.dumps` with
`ensure_ascii=False` gives; a test compares the two.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def string(text: str) -> str:
    """`text` as a JSON string literal, non-ASCII kept, lone surrogates escaped."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    literal = _encode(text)
    if literal.isascii():
        return literal
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

    Raises TypeError for anything else.
    """
    return _dump(value, "" if indent is None else "\n", indent or 0)


def _dump(value: Any, newline: str, indent: int) -> str:
    if isinstance(value, str):
        return string(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
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
    """The value in `text`. Raises ValueError for bad JSON, NaN, and nesting beyond reason."""
    import json

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
