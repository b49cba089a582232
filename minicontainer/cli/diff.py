"""`diff`: what a container has changed in its root file system."""

from __future__ import annotations

from minicontainer.cli import containers, output
from minicontainer.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def diff(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print `A /path` for what was added, C for changed, D for deleted."""
    from minicontainer.engine import files

    changes = files.diff(containers.find(paths, arguments[0]))
    output.show("".join(f"{kind} {path}\n" for kind, path in changes))
    return 0


COMMANDS = (
    Command(
        "diff",
        "CONTAINER",
        "List what a container has changed in its files",
        perform=diff,
        minimum=1,
        maximum=1,
    ),
)
