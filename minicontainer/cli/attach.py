"""`attach`: connect this terminal to the streams of a running container."""

from __future__ import annotations

from minicontainer.cli import containers, process_options
from minicontainer.cli.options import Command, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def attach(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Attach; the container's exit code, or 0 after detaching."""
    from minicontainer.engine import attach as engine

    container = containers.find(paths, arguments[0])
    stdin = not flags["no_stdin"] and bool(container.options.get("interactive"))
    tty = bool(container.options.get("tty"))
    process_options.require_terminal(interactive=stdin, tty=tty)
    return engine.attach(
        container, stdin=stdin, detach_keys=flags["detach_keys"], sig_proxy=flags["sig_proxy"]
    )


COMMANDS = (
    Command(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach to a running container",
        (
            process_options.DETACH_KEYS,
            flag("--no-stdin", "leave standard input alone"),
            process_options.SIG_PROXY,
        ),
        perform=attach,
        minimum=1,
        maximum=1,
        own_status=True,
    ),
)
