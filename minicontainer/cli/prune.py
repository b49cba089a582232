"""`prune`: remove what nothing refers to."""

from __future__ import annotations

import os

from minicontainer.cli import containers, output, tables, times
from minicontainer.cli.options import Command, Option, Refusal, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_WARNING = "This will remove all stopped containers with their files and logs."
_QUESTION = b"Are you sure you want to continue? [y/N] "


def prune(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Remove leftovers, with -a stopped containers too, and tell what went."""
    if flags["all"] and not flags["force"] and not flags["dry_run"] and not agreed(_WARNING):
        raise Refusal("nothing was removed")
    from minicontainer.engine import prune as engine

    containers.check_layout(paths)
    removed = engine.prune(
        paths,
        all_containers=flags["all"],
        dry_run=flags["dry_run"],
        filters=flags["filter"],
    )
    if not removed:
        output.line("Nothing to clean.")
        return 0
    word = "Would remove" if flags["dry_run"] else "Removed"
    for kind, name, _ in removed:
        output.line(f"{word}: {kind} {name}")
    total = tables.decimal_size(sum(size for _, _, size in removed))
    output.line(f"Total reclaim{'able' if flags['dry_run'] else 'ed'} space: {total}")
    return 0


def agreed(warning: str) -> bool:
    """Ask; True when one line of standard input says yes."""
    output.message(f"WARNING! {warning}")
    output.write(_QUESTION, output.STDERR)
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < 100:
        byte = os.read(0, 1)
        if not byte:
            break
        answer += byte
    return answer.strip().lower() in (b"y", b"yes")


def _condition(text: str) -> tuple[str, object]:
    """`until=TIME` as seconds since 1970, or `label=KEY[=VALUE]`."""
    key, _, value = text.partition("=")
    if key == "until":
        return key, times.moment(value)
    if key in ("label", "label!") and value:
        return key, value
    raise ValueError("accepted: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]")


COMMANDS = (
    Command(
        "prune",
        "[OPTIONS]",
        "Remove what nothing refers to",
        (
            flag("-a, --all", "stopped containers too"),
            flag("-f, --force", "do not ask"),
            flag("--dry-run", "tell only what would be removed"),
            Option(
                "--filter", _condition, "until=TIME, label=KEY[=VALUE]", "KEY=VALUE", repeat=True
            ),
        ),
        perform=prune,
        maximum=0,
    ),
)
