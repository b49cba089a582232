"""`ps`: the containers there are."""

from __future__ import annotations

import time

from minicontainer.cli import containers, filters, output, quantities, tables, times
from minicontainer.cli.options import Command, Option, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.engine.records import Container
    from minicontainer.paths import Paths

_COMMAND_CELLS = 20
_HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "State": "STATE",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_RAW = (
    ("container_id", "ID"), ("image", "Image"), ("command", "Command"),
    ("created_at", "CreatedAt"), ("state", "State"), ("status", "Status"), ("names", "Names"),
    ("labels", "Labels"), ("ports", "Ports"),
)  # fmt: skip


def ps(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """List containers, the newest first."""
    chosen = filters.choose(containers.load(paths), flags["filter"])
    last = 1 if flags["latest"] else flags["last"]
    found = [(one, one.status) for one in (chosen[:last] if last >= 0 else chosen)]
    if last < 0 and not (flags["all"] or filters.shows_stopped(flags["filter"])):
        found = [entry for entry in found if entry[1] in ("running", "paused", "restarting")]
    if flags["quiet"]:
        for container, _ in found:
            output.line(container.id if flags["no_trunc"] else container.id[:12])
        return 0
    form = flags["format"] or ""
    sized = flags["size"] or ".Size" in form
    now = time.time()
    rows = [row(one, state, now, full=flags["no_trunc"], sized=sized) for one, state in found]
    tables.listing(
        rows,
        _HEADINGS,
        (*_COLUMNS, "Size") if flags["size"] else _COLUMNS,
        form,
        (*_RAW, ("size", "Size")) if flags["size"] else _RAW,
    )
    return 0


def row(container: Container, state: str, now: float, *, full: bool, sized: bool) -> dict[str, Any]:
    """The fields of one container, all as text."""
    options = container.options
    labels = options.get("label") or {}
    command = " ".join([*(options.get("entrypoint") or []), *(options.get("command") or [])])
    created = _seconds(container.record.get("created"))
    sources = [_volume_name(mount) for mount in options.get("mounts") or [] if mount["source"]]
    return {
        "ID": container.id if full else container.id[:12],
        "Image": container.record.get("image") or "",
        "Command": tables.quote(command if full else tables.shorten(command, _COMMAND_CELLS)),
        "CreatedAt": times.local(created) if created else "",
        "RunningFor": times.ago(created, now) if created else "",
        "Ports": "",
        "State": state,
        "Status": status(container, state, now),
        "Size": _size(container) if sized else "0B",
        "Names": container.name,
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Label": lambda key: labels.get(key, ""),
        "Mounts": ",".join(one if full else tables.shorten(one, 15) for one in sources),
        "LocalVolumes": "0",
        "Networks": options.get("network") or "",
    }


def status(container: Container, state: str, now: float) -> str:
    """The status in words: `Up 5 minutes (Paused)`, `Exited (0) 3 minutes ago`."""
    last = container.last
    if state in ("running", "paused"):
        started = _seconds(last.get("started_at"))
        paused = " (Paused)" if state == "paused" else ""
        return f"Up {times.age(max(0.0, now - started)) if started else ''}".rstrip() + paused
    if state in ("exited", "restarting"):
        finished = _seconds(last.get("finished_at"))
        since = f" {times.ago(finished, now)}" if finished else ""
        return f"{state.capitalize()} ({container.exit_code}){since}"
    if state == "broken":
        return "Broken"
    return state.capitalize()


def _size(container: Container) -> str:
    from minicontainer.engine import inspect

    found = inspect.container(container, True)
    virtual = tables.decimal_size(found.get("SizeRootFs") or 0)
    return f"{tables.decimal_size(found.get('SizeRw') or 0)} (virtual {virtual})"


def _volume_name(mount: dict[str, Any]) -> str:
    return str(mount["source"]) if mount["type"] != "tmpfs" else ""


def _seconds(stamp: object) -> float:
    """Seconds since 1970 of a time in a record; 0 for none, or for one that cannot be read."""
    from minicontainer.engine import times as stamps

    try:
        return stamps.seconds(str(stamp or ""))
    except ValueError:
        return 0.0


COMMANDS = (
    Command(
        "ps",
        "[OPTIONS]",
        "List containers",
        (
            flag("-a, --all", "stopped ones too"),
            flag("-q, --quiet", "ids alone"),
            Option(
                "-n, --last", quantities.integer(-1, 10**9), "the N created last, in any state",
                "N", default=-1,
            ),
            flag("-l, --latest", "the one created last, in any state"),
            flag("-s, --size", "sizes of the files"),
            flag("--no-trunc", "full ids and commands"),
            Option("--format", str, "table, json, raw, or a template", "FORMAT"),
            Option(
                "-f, --filter", filters.condition, "only what fits: status=exited, label=a=b",
                "KEY=VALUE", repeat=True,
            ),
        ),
        perform=ps,
        maximum=0,
    ),
)  # fmt: skip
