"""`exec`: run another command in a running container."""

from __future__ import annotations

from minicontainer.cli import containers, process_options
from minicontainer.cli.options import Command, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def execute(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Run the command; its exit code."""
    reference, *command = arguments
    if not flags["detach"]:
        process_options.require_terminal(interactive=flags["interactive"], tty=flags["tty"])
    env = process_options.join_environment(flags)
    from minicontainer.engine import execute as engine

    request = {
        "command": command,
        "tty": flags["tty"],
        "interactive": flags["interactive"],
        "detach": flags["detach"],
        "env": env,
        "workdir": flags["workdir"],
        "user": flags["user"],
        "privileged": flags["privileged"],
        "detach_keys": flags["detach_keys"],
    }
    return engine.execute(containers.find(paths, reference), request)


COMMANDS = (
    Command(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container",
        (
            flag("-d, --detach", "run it in the background"),
            flag("-i, --interactive", "keep standard input open"),
            flag("-t, --tty", "give it a terminal"),
            *process_options.ENVIRONMENT,
            process_options.WORKDIR,
            process_options.USER,
            flag("--privileged", "all capabilities"),
            process_options.DETACH_KEYS,
        ),
        perform=execute,
        minimum=2,
        flags_first=True,
        own_status=True,
    ),
)
