"""`help`: the verbs, or one verb and its flags; all from the tables."""

from __future__ import annotations

from minicontainer import cli
from minicontainer.cli import options, output
from minicontainer.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.cli.options import Option, Values
    from minicontainer.paths import Paths

_FLAGS_WIDTH = 44


def help(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print the overview, or the help of the verb named."""
    if not arguments:
        output.show(overview())
        return 0
    command, _ = cli.find(arguments)
    return show(command)


def show(command: Command) -> int:
    """Print the help of one verb."""
    output.show(text(command))
    return 0


def overview() -> str:
    """What `minicontainer help` prints."""
    lines = [f"Usage:  {cli.GLOBAL.usage}", "", "Run containers.", "", "Commands:"]
    for verb in cli.VERBS:
        command, _ = cli.find([verb])
        lines.append(f"  {verb:<10} {command.summary}")
    lines += ["", "Global options:", *_table((*cli.GLOBAL.options, *options.COMMON)), ""]
    lines.append("`minicontainer help COMMAND` shows the options of a command.")
    return "\n".join(lines) + "\n"


def text(command: Command) -> str:
    """What `minicontainer help VERB` prints."""
    lines = [f"Usage:  {command.usage}", "", command.summary]
    if command.options:
        lines += ["", "Options:", *_table(command.options)]
    lines += ["", "Options of every command:", *_table(options.COMMON)]
    return "\n".join(lines) + "\n"


def _table(table: Sequence[Option]) -> list[str]:
    lines = []
    for flags, meaning in options.rows(table):
        gap = "  " if len(flags) <= _FLAGS_WIDTH else f"\n  {'':{_FLAGS_WIDTH}}  "
        lines.append(f"  {flags:<{_FLAGS_WIDTH if gap == '  ' else 0}}{gap}{meaning}")
    return lines


COMMANDS = (
    Command(
        "help",
        "[COMMAND]",
        "Show the commands, or the options of one",
        perform=help,
        maximum=2,
    ),
)
