"""`images`: the images there are."""

from __future__ import annotations

import time

from minicontainer.cli import image_filters, output, tables, times
from minicontainer.cli.options import Command, Option, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.image.store import Image
    from minicontainer.paths import Paths

_NONE = "<none>"
_HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_DIGESTS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
_RAW = (
    ("repository", "Repository"), ("tag", "Tag"), ("image_id", "ID"),
    ("created_at", "CreatedAt"), ("virtual_size", "Size"),
)  # fmt: skip


def images(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """List images, the newest first, a line for each name."""
    from minicontainer.engine import images as engine

    store = engine.look_into(paths)
    conditions = list(flags["filter"])
    if arguments:
        conditions.append(("reference", arguments[0]))
    found = image_filters.choose(store, store.images(), conditions)
    if flags["quiet"]:
        for image, _ in found:
            output.line(_id(image, full=flags["no_trunc"]))
        return 0
    now = time.time()
    form = flags["format"] or ""
    counts: dict[str, int] = {}
    if ".Containers" in form or form == "json":
        counts = _counts(paths)
    rows = [row(image, name, now, full=flags["no_trunc"], counts=counts) for image, name in found]
    columns = _DIGESTS if flags["digests"] else _COLUMNS
    tables.listing(rows, _HEADINGS, columns, form, _RAW)
    return 0


def row(
    image: Image, name: str, now: float, *, full: bool, counts: dict[str, int]
) -> dict[str, Any]:
    """The fields of an image under one of its names, all as text."""
    from minicontainer.engine import images as engine

    shown = engine.familiar(name) if name else ""
    repository = image_filters.repository(shown)
    tag = shown.partition("@")[0][len(repository) + 1 :]
    created = engine.moment(image.created)
    size = tables.decimal_size(engine.size(image))
    return {
        "Repository": repository or _NONE,
        "Tag": tag or _NONE,
        "Digest": _digest(image, name) or _NONE,
        "ID": _id(image, full=full),
        "CreatedSince": times.ago(created, now) if created else "N/A",
        "CreatedAt": times.local(created) if created else "N/A",
        "Size": size,
        "VirtualSize": size,
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": str(counts.get(image.id, 0)),
    }


def _id(image: Image, *, full: bool) -> str:
    text = image.id or image.digest
    return text if full else text[7:19]


def _digest(image: Image, name: str) -> str:
    """What the registry of this name calls the image."""
    repository = image_filters.repository(name)
    for one in image.repo_digests:
        if one.partition("@")[0] == repository:
            return one.partition("@")[2]
    return ""


def _counts(paths: Paths) -> dict[str, int]:
    from minicontainer.engine import records

    found: dict[str, int] = {}
    for container in records.load_all(paths):
        image_id = str(container.record.get("image_id") or "")
        found[image_id] = found.get(image_id, 0) + 1
    return found


COMMANDS = (
    Command(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        (
            flag("-a, --all", "all of them, as without"),
            flag("-q, --quiet", "ids alone"),
            flag("--digests", "what registries call them, too"),
            flag("--no-trunc", "full ids"),
            Option("--format", str, "table, json, raw, or a template", "FORMAT"),
            Option(
                "-f, --filter", image_filters.condition, "only what fits: dangling=true, label=a=b",
                "KEY=VALUE", repeat=True,
            ),
        ),
        perform=images,
        maximum=1,
    ),
)  # fmt: skip
