"""`rename`: give a container another name."""

from __future__ import annotations

from minicontainer.cli import containers, values
from minicontainer.cli.options import Command
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def rename(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Rename the first argument to the second."""
    from minicontainer.engine import control

    reference, new_name = arguments
    try:
        new_name = values.name(new_name)
    except ValueError as reason:
        raise UsageError(f'invalid container name "{new_name}": {reason}') from None
    control.rename(containers.find(paths, reference), new_name)
    return 0


COMMANDS = (
    Command(
        "rename",
        "CONTAINER NEW_NAME",
        "Rename a container",
        perform=rename,
        minimum=2,
        maximum=2,
    ),
)
