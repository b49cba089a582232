"""`cp`: files into and out of a container, as paths or as a tar stream."""

from __future__ import annotations

import os

from minicontainer.cli import containers, output
from minicontainer.cli.options import Command, Refusal, flag
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def copy(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Copy between the host and one container."""
    source, destination = map(split, arguments)
    if source[0] is not None and destination[0] is not None:
        raise UsageError("copying between containers is not supported")
    reference = source[0] if destination[0] is None else destination[0]
    if reference is None:
        raise UsageError("one of the two must be CONTAINER:PATH")
    if destination[1] == "-" and destination[0] is None and os.isatty(output.STDOUT):
        raise Refusal("a tar archive is not for a terminal", hint="redirect it: > FILE")
    from minicontainer.engine import files

    files.copy(
        containers.find(paths, reference),
        source[1],
        destination[1],
        to_container=destination[0] is not None,
        follow_link=flags["follow_link"],
        archive=flags["archive"],
        quiet=flags["quiet"],
    )
    return 0


def split(text: str) -> tuple[str | None, str]:
    """(container or None, path) of `CONTAINER:PATH`, `PATH` or `-`.

    What begins with / or . is a path of the host, whatever colons it has.
    """
    reference, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        if not text:
            raise UsageError("expected CONTAINER:PATH, a path, or -")
        return None, text
    if not reference or not path:
        raise UsageError(f"'{text}': expected CONTAINER:PATH, both parts needed")
    return reference, path


COMMANDS = (
    Command(
        "cp",
        "[OPTIONS] CONTAINER:SRC DEST|-  or  SRC|- CONTAINER:DEST",
        "Copy files between a container and the host",
        (
            flag("-a, --archive", "keep owners"),
            flag("-L, --follow-link", "copy what a symbolic link in SRC points to"),
            flag("-q, --quiet", "no progress"),
        ),
        perform=copy,
        minimum=2,
        maximum=2,
    ),
)
