"""`top`: the processes of a container."""

from __future__ import annotations

from minicontainer.cli import containers, output, tables
from minicontainer.cli.options import NOT_YET, Command, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_COLUMNS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def top(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """List the processes as the host numbers them."""
    from minicontainer.engine import stats

    if len(arguments) > 1:
        raise Refusal(f"options of ps: {NOT_YET}")
    rows = stats.top(containers.find(paths, arguments[0]))
    body = [[tables.one_line(str(row[name])) for name in _COLUMNS] for row in rows]
    output.show(tables.layout([_COLUMNS, *body]))
    return 0


COMMANDS = (
    Command(
        "top",
        "CONTAINER",
        "List the processes of a container",
        perform=top,
        minimum=1,
        flags_first=True,
    ),
)
