"""`update`: change the limits or the restart policy of containers, running or not."""

from __future__ import annotations

from minicontainer.cli import containers, run_options
from minicontainer.cli.options import Command
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_TABLE = (*run_options.LIMITS, run_options.RESTART)


def update(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Change what was given, leave the rest."""
    changes = {option.key: flags[option.key] for option in _TABLE if flags[option.key] is not None}
    if not changes:
        raise UsageError("nothing to change", hint="give at least one flag, such as --memory 256m")
    from minicontainer.engine import control

    return containers.each(
        paths, arguments, lambda container: control.update(container, dict(changes))
    )


COMMANDS = (
    Command(
        "update",
        "[OPTIONS] CONTAINER...",
        "Change limits and restart policy of one or more containers",
        _TABLE,
        perform=update,
        minimum=1,
    ),
)
