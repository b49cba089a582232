"""`stats`: what containers use, once or again and again."""

from __future__ import annotations

import os
import time

from minicontainer.cli import containers, output, tables
from minicontainer.cli.options import Command, Option, flag
from minicontainer.errors import Error, InvalidState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.engine.records import Container
    from minicontainer.paths import Paths

_INTERVAL_SECONDS = 1.0
_HOME_AND_CLEAR = b"\x1b[H\x1b[J"
_HEADINGS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


def stats(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Show the use of resources; on a terminal the picture is refreshed in place."""
    form = flags["format"]
    previous = _snapshots(_chosen(paths, flags, arguments))
    while True:
        time.sleep(_INTERVAL_SECONDS)
        chosen = _chosen(paths, flags, arguments)
        current = _snapshots(chosen)
        rows = [_row(one, previous, current, full=flags["no_trunc"]) for one in chosen]
        if not flags["no_stream"] and os.isatty(output.STDOUT):
            output.write(_HOME_AND_CLEAR)
        tables.listing(rows, _HEADINGS, _COLUMNS, form)
        if flags["no_stream"]:
            return 0
        previous = current


def _chosen(paths: Paths, flags: Values, arguments: list[str]) -> list[Container]:
    """The containers named; without names those that run, with -a all."""
    if arguments:
        return [containers.find(paths, reference) for reference in arguments]
    found = containers.load(paths)
    return found if flags["all"] else [one for one in found if one.status in ("running", "paused")]


def _snapshots(chosen: list[Container]) -> dict[str, dict[str, Any]]:
    """The raw counters of those that run, by id; one that ends meanwhile is left out."""
    from minicontainer.engine import stats as engine

    found = {}
    for container in chosen:
        try:
            found[container.id] = engine.snapshot(container)
        except (InvalidState, FileNotFoundError):
            continue
        except Error:
            if container.running:
                raise
    return found


def _row(
    container: Container,
    previous: dict[str, dict[str, Any]],
    current: dict[str, dict[str, Any]],
    *,
    full: bool,
) -> dict[str, str]:
    from minicontainer.engine import stats as engine

    shown = container.id if full else container.id[:12]
    row = {"Container": shown, "ID": shown, "Name": container.name}
    if container.id not in current:
        nothing = {"MemUsage": "-- / --", "NetIO": "-- / --", "BlockIO": "-- / --"}
        return {**dict.fromkeys(_HEADINGS, "--"), **nothing, **row}
    now = current[container.id]
    used = engine.compute(previous.get(container.id, now), now)
    row["CPUPerc"] = f"{used['cpu_percent']:.2f}%"
    row["MemPerc"] = f"{used['memory_percent']:.2f}%"
    row["MemUsage"] = " / ".join(
        tables.binary_size(used[key] or 0) for key in ("memory_usage", "memory_limit")
    )
    row["NetIO"] = _both(used, "net_rx", "net_tx")
    row["BlockIO"] = _both(used, "block_read", "block_write")
    row["PIDs"] = str(used["pids"])
    return row


def _both(used: dict[str, Any], first: str, second: str) -> str:
    return f"{tables.decimal_size(used[first] or 0)} / {tables.decimal_size(used[second] or 0)}"


COMMANDS = (
    Command(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use of the host",
        (
            flag("-a, --all", "stopped ones too"),
            flag("--no-stream", "once, then end"),
            flag("--no-trunc", "full ids"),
            Option("--format", str, "table, json, or a template", "FORMAT"),
        ),
        perform=stats,
    ),
)
