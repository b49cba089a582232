"""Lists as people and scripts see them: columns, `--format`, sizes."""

from __future__ import annotations

from minicontainer.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_CELL = 10  # the least width of a column, the gap after it included
_GAP = 3
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def layout(rows: Sequence[Sequence[str]]) -> str:
    """The rows as aligned columns, a line each; the first row is usually the headings."""
    widths = [0] * max((len(row) for row in rows), default=0)
    for row in rows:
        for column, cell in enumerate(row):
            widths[column] = max(widths[column], cells(cell) + _GAP, _CELL)
    lines = []
    for row in rows:
        padded = [cell + " " * (widths[i] - cells(cell)) for i, cell in enumerate(row)]
        lines.append("".join(padded).rstrip() + "\n")
    return "".join(lines)


def listing(
    rows: Sequence[Mapping[str, Any]],
    headings: Mapping[str, str],
    columns: Sequence[str],
    form: str | None,
    raw: Sequence[tuple[str, str]] = (),
) -> None:
    """Print `rows`, each a mapping from field to value, as `form` (the text of --format) asks.

    `headings` names every field there is, `columns` those of the plain table, `raw` the lines of
    the form `raw` as (label, field).
    """
    if not form or form == "table":
        table = [[headings[name] for name in columns]]
        table += [[one_line(str(row[name])) for name in columns] for row in rows]
        output.show(layout(table))
    elif form == "json":
        for row in rows:
            output.line(json_line({name: row[name] for name in sorted(headings)}))
    elif form == "raw":
        for row in rows:
            output.line("".join(f"{label}: {row[name]}\n" for label, name in raw))
    elif form.startswith("table "):
        _table_of(rows, headings, form[len("table ") :].strip())
    else:
        from minicontainer.cli import template

        parsed = template.parse(form)
        for row in rows:
            output.line(template.render(parsed, row))


def _table_of(rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str], form: str) -> None:
    from minicontainer.cli import template

    parsed = template.parse(form)
    first = {**headings, "Label": lambda key: str(key)}
    lines = [template.render(parsed, first)]
    lines += [template.render(parsed, row) for row in rows]
    output.show(layout([one_line(line, "\t").split("\t") for line in lines]))


def json_line(value: Mapping[str, Any]) -> str:
    """`value` as one line of JSON whose values are all strings; methods are left out."""
    import json

    plain = {key: str(item) for key, item in value.items() if not callable(item)}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def one_line(text: str, keep: str = "") -> str:
    """`text` without what would break the columns: line breaks and controls as escapes."""
    return output.printable(text, keep=keep)


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    joined = sum(unicodedata.combining(character) != 0 for character in text)
    return len(text) + wide - joined


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` cells, its end replaced by `…` if it is longer."""
    if cells(text) <= limit:
        return text
    while text and cells(text) > limit - 1:
        text = text[:-1]
    return text + "…"


def quote(text: str) -> str:
    """`text` in double quotes, controls and quotes escaped as Go does."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{output.printable(escaped, keep="")}"'


def decimal_size(count: float) -> str:
    """Bytes with factor 1000 in three digits: `0B`, `328kB`, `1.98MB`."""
    return _scaled(count, 1000, _DECIMAL, 3)


def binary_size(count: float) -> str:
    """Bytes with factor 1024 in four digits: `328KiB`, `1.945GiB`."""
    return _scaled(count, 1024, _BINARY, 4)


def _scaled(count: float, factor: int, units: tuple[str, ...], digits: int) -> str:
    power = 0
    value = float(count)
    # Rounded first: 999999 is 1MB, not 1e+03kB.
    while float(f"{value:.{digits}g}") >= factor and power < len(units) - 1:
        value /= factor
        power += 1
    shown = f"{value:.{digits}g}"
    return f"{shown if 'e' not in shown else f'{value:.0f}'}{units[power]}"
