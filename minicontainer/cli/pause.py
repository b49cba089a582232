"""`pause` and `unpause`: freeze all processes of containers, and let them go on."""

from __future__ import annotations

from minicontainer.cli import containers
from minicontainer.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def pause(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Freeze each container."""
    from minicontainer.engine import control

    return containers.each(paths, arguments, control.pause)


def unpause(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Thaw each container."""
    from minicontainer.engine import control

    return containers.each(paths, arguments, control.unpause)


COMMANDS = (
    Command(
        "pause",
        "CONTAINER...",
        "Pause all processes of one or more containers",
        perform=pause,
        minimum=1,
    ),
    Command(
        "unpause",
        "CONTAINER...",
        "Let the processes of paused containers go on",
        perform=unpause,
        minimum=1,
    ),
)
