"""`stop` and `restart`: end containers as they wish to be ended, then by force."""

from __future__ import annotations

from minicontainer.cli import containers, quantities, values
from minicontainer.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def stop(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Send the stop signal, wait, then kill all of the container's processes."""
    from minicontainer.engine import control

    timeout, signal = flags["timeout"], flags["signal"]
    return containers.each(
        paths, arguments, lambda container: control.stop(container, timeout, signal)
    )


def restart(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Stop and start again."""
    from minicontainer.engine import control

    timeout, signal = flags["timeout"], flags["signal"]
    return containers.each(
        paths, arguments, lambda container: control.restart(container, timeout, signal)
    )


_OPTIONS = (
    Option(
        "-t, --timeout, --time", quantities.stop_timeout,
        "seconds until KILL; 0: at once, -1: never", "SECONDS",
    ),
    Option("-s, --signal", values.signal, "instead of the container's stop signal", "SIGNAL"),
)  # fmt: skip
COMMANDS = (
    Command(
        "stop",
        "[OPTIONS] CONTAINER...",
        "Stop one or more running containers",
        _OPTIONS,
        perform=stop,
        minimum=1,
    ),
    Command(
        "restart",
        "[OPTIONS] CONTAINER...",
        "Stop and start one or more containers",
        _OPTIONS,
        perform=restart,
        minimum=1,
    ),
)
