"""`port`: the published ports of a container (none before there are bridge networks)."""

from __future__ import annotations

from minicontainer.cli import containers, mounts
from minicontainer.cli.options import Command, Refusal
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def port(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print nothing; a port that is asked for is not published."""
    container = containers.find(paths, arguments[0])
    if len(arguments) == 2:
        number, _, protocol = arguments[1].partition("/")
        if not mounts.is_number(number) or protocol not in ("", "tcp", "udp", "sctp"):
            raise UsageError(f'invalid port "{arguments[1]}": expected NUMBER[/tcp|udp|sctp]')
        wanted = f"{number}/{protocol or 'tcp'}"
        raise Refusal(f"no public port '{wanted}' published for {container.name}")
    return 0


COMMANDS = (
    Command(
        "port",
        "CONTAINER [PORT[/PROTOCOL]]",
        "List the published ports of a container",
        perform=port,
        minimum=1,
        maximum=2,
    ),
)
