"""`kill`: send a signal to the first process of containers."""

from __future__ import annotations

from minicontainer.cli import containers, values
from minicontainer.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def kill(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Send the signal to each container."""
    from minicontainer.engine import control

    number = values.signal_number(flags["signal"])
    return containers.each(paths, arguments, lambda container: control.kill(container, number))


COMMANDS = (
    Command(
        "kill",
        "[OPTIONS] CONTAINER...",
        "Kill one or more running containers",
        (Option("-s, --signal", values.signal, "signal to send", "SIGNAL", default="KILL"),),
        perform=kill,
        minimum=1,
    ),
)
