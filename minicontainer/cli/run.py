"""`run` and `create`: a container from a root file system and a command."""

from __future__ import annotations

from minicontainer.cli import output, process_options, run_options
from minicontainer.cli.options import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def run(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Run it; the command's own exit code, or with -d 0 and the id on standard output."""
    options = run_options.collect(flags, arguments)
    _show_pulls(options)
    if not options["detach"]:
        process_options.require_terminal(interactive=options["interactive"], tty=options["tty"])
    from minicontainer.engine import run as engine

    if not options["detach"]:
        return engine.run(paths, options)
    output.line(engine.run_detached(paths, options))
    return 0


def create(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Make it and print its id; `start` will start it."""
    options = run_options.collect(flags, arguments)
    _show_pulls(options)
    from minicontainer.engine import run as engine

    output.line(engine.create(paths, options))
    return 0


def _show_pulls(options: dict[str, Any]) -> None:
    """Have the progress of a pull on standard error, where it does not mix with the output."""
    if options["image"] and not options["quiet"]:
        from minicontainer.cli import progress
        from minicontainer.engine import images

        images.listener = progress.to(output.STDERR)


_SYNOPSIS = "[OPTIONS] IMAGE [COMMAND [ARG...]] | --rootfs DIR COMMAND [ARG...]"
COMMANDS = (
    Command(
        "run",
        _SYNOPSIS,
        "Run a command in a new container",
        run_options.TABLE,
        perform=run,
        flags_first=True,
        later=run_options.LATER,
        failure_code=125,
        own_status=True,
    ),
    Command(
        "create",
        _SYNOPSIS,
        "Create a container without starting it",
        run_options.CREATE_TABLE,
        perform=create,
        flags_first=True,
        later=run_options.LATER,
    ),
)
