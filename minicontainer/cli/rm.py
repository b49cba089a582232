"""`rm`: remove containers, with their files and logs."""

from __future__ import annotations

from minicontainer.cli import containers, output
from minicontainer.cli.options import Command, WrongArguments, flag
from minicontainer.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_ENDED = ("created", "exited", "dead", "broken")


def remove(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Remove the containers named, or with --all the stopped ones (with -f the running too)."""
    if bool(arguments) == flags["all"]:
        raise WrongArguments('"minicontainer rm" requires the names of containers, or --all')
    from minicontainer.engine import control

    force, volumes = flags["force"], flags["volumes"]

    def one(reference: str) -> None:
        try:
            control.remove(containers.find(paths, reference, broken=True), force, volumes)
        except NotFound as failure:
            if flags["all"]:  # somebody else was faster
                return
            if not force:
                raise
            output.warning(str(failure))
            return
        output.line(reference[:12] if flags["all"] else reference)

    if flags["all"]:
        arguments = [
            container.id
            for container in containers.load(paths)
            if force or container.status in _ENDED
        ]
    return containers.attempt(arguments, one)


COMMANDS = (
    Command(
        "rm",
        "[OPTIONS] CONTAINER... | --all",
        "Remove one or more containers",
        (
            flag("-f, --force", "kill it if it runs; it is no error if it is gone"),
            flag("-v, --volumes", "its anonymous volumes too"),
            flag("-a, --all", "every stopped container, with -f every container"),
        ),
        perform=remove,
    ),
)
