"""`history`: the steps that made an image."""

from __future__ import annotations

import time

from minicontainer.cli import output, tables, times
from minicontainer.cli.options import Command, Option, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_STEP_CELLS = 45
_HEADINGS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")


def history(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """List the steps, the newest first; only the whole image has an id."""
    from minicontainer.engine import images as engine

    store = engine.look_into(paths)
    image = store.find(arguments[0])
    now, full = time.time(), flags["no_trunc"]
    rows = []
    for number, entry in enumerate(engine.history(store, image)):
        image_id = "<missing>" if number else image.id if full else image.id[7:19]
        rows.append(_row(entry, image_id, now, flags))
    if flags["quiet"]:
        for one in rows:
            output.line(one["ID"])
        return 0
    columns = (
        _COLUMNS
        if flags["human"]
        else tuple("CreatedAt" if name == "CreatedSince" else name for name in _COLUMNS)
    )
    tables.listing(rows, _HEADINGS, columns, flags["format"])
    return 0


def _row(entry: dict[str, Any], image_id: str, now: float, flags: Values) -> dict[str, Any]:
    from minicontainer.engine import images as engine

    made = str(entry.get("created_by") or "").replace("\t", " ")
    created = engine.moment(str(entry.get("created") or ""))
    size = entry["size"]
    return {
        "ID": image_id,
        "CreatedSince": times.ago(created, now) if created else "N/A",
        "CreatedAt": times.local(created) if created else "N/A",
        "CreatedBy": made if flags["no_trunc"] else tables.shorten(made, _STEP_CELLS),
        "Size": tables.decimal_size(size) if flags["human"] else str(size),
        "Comment": str(entry.get("comment") or ""),
    }


COMMANDS = (
    Command(
        "history",
        "[OPTIONS] IMAGE",
        "Show how an image was made",
        (
            Option("--format", str, "table, json, or a template", "FORMAT"),
            flag("-H, --human", "sizes and ages for people", default=True),
            flag("--no-trunc", "full ids and steps"),
            flag("-q, --quiet", "ids alone"),
        ),
        perform=history,
        minimum=1,
        maximum=1,
    ),
)
