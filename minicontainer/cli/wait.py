"""`wait`: block until containers end, and print their exit codes."""

from __future__ import annotations

from minicontainer.cli import containers, output, values
from minicontainer.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.engine.records import Container
    from minicontainer.paths import Paths


def wait(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print the exit code of each container, a line each, once it has ended."""
    from minicontainer.engine import control

    def await_end(container: Container) -> None:
        output.line(str(control.wait(container, flags["condition"])))

    return containers.each(paths, arguments, await_end, echo=False)


COMMANDS = (
    Command(
        "wait",
        "[OPTIONS] CONTAINER...",
        "Wait until containers stop, then print their exit codes",
        (
            Option(
                "--condition", values.choice("not-running", "next-exit", "removed"),
                "not-running, next-exit or removed", "WORD", default="not-running",
            ),
        ),
        perform=wait,
        minimum=1,
    ),
)  # fmt: skip
