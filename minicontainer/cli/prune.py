"""`prune`: remove what nothing refers to."""

from __future__ import annotations

import os

from minicontainer.cli import containers, output, tables, times, values
from minicontainer.cli.options import Command, Option, Refusal, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_WARNINGS = {
    "container": "all stopped containers with their files and logs",
    "image": "all images without at least one container associated to them",
}
_QUESTION = b"Are you sure you want to continue? [y/N] "


def prune(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Remove leftovers, with -a stopped containers and unused images too, and tell what went."""
    only = flags["type"]
    stopped = only == "container" or (flags["all"] and only is None)
    unused = flags["all"] and only != "container"
    warnings = [_WARNINGS["container"]] * stopped + [_WARNINGS["image"]] * unused
    if warnings and not flags["force"] and not flags["dry_run"]:
        if not agreed(f"This will remove {' and '.join(warnings)}."):
            raise Refusal("nothing was removed")
    from minicontainer.engine import prune as engine

    containers.check_layout(paths)
    removed = engine.prune(
        paths,
        all_containers=stopped,
        dry_run=flags["dry_run"],
        filters=flags["filter"],
        all_images=unused,
        garbage=only is None,
        dangling=only != "container",
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
            flag("-a, --all", "stopped containers and unused images too"),
            flag("-f, --force", "do not ask"),
            flag("--dry-run", "tell only what would be removed"),
            Option("--type", values.choice("container", "image"), "only of these", "TYPE"),
            Option(
                "--filter", _condition, "until=TIME, label=KEY[=VALUE]", "KEY=VALUE", repeat=True
            ),
        ),
        perform=prune,
        maximum=0,
    ),
)
