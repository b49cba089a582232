"""`start`: bring created or ended containers to life."""

from __future__ import annotations

from minicontainer.cli import containers, filters, output, process_options
from minicontainer.cli.options import Command, Option, Refusal, WrongArguments, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.engine.records import Container
    from minicontainer.paths import Paths


def start(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Start the containers named, or with --all those that fit; with -a the command's status."""
    if bool(arguments) == flags["all"]:
        raise WrongArguments("name containers, or give --all")
    if flags["filter"] and not flags["all"]:
        raise WrongArguments("--filter needs --all")
    if flags["attach"] or flags["interactive"]:
        if len(arguments) != 1:
            raise Refusal("you cannot start and attach multiple containers at once")
        return _attached(paths, flags, arguments[0])
    from minicontainer.engine import run as engine

    if flags["all"]:
        return _all(paths, flags)
    return containers.each(paths, arguments, lambda container: engine.start(paths, container))


def _attached(paths: Paths, flags: Values, reference: str) -> int:
    from minicontainer.engine import run as engine

    container = containers.find(paths, reference)
    tty = bool(container.options.get("tty"))
    process_options.require_terminal(interactive=flags["interactive"], tty=tty)
    return engine.start_attached(
        paths,
        container,
        stdin=flags["interactive"],
        detach_keys=flags["detach_keys"],
        sig_proxy=flags["sig_proxy"],
    )


def _all(paths: Paths, flags: Values) -> int:
    """Start every container that fits the filters, is not alive and was not stopped for good."""
    from minicontainer.engine import run as engine

    def begin(container_id: str) -> None:
        engine.start(paths, containers.find(paths, container_id))
        output.line(container_id[:12])

    chosen = filters.choose(containers.load(paths), flags["filter"])
    return containers.attempt([one.id for one in reversed(chosen) if _wants_start(one)], begin)


def _wants_start(container: Container) -> bool:
    if container.status not in ("created", "exited"):
        return False
    policy = container.options.get("restart") or {}
    return not (policy.get("name") == "unless-stopped" and container.last.get("manual_stop"))


COMMANDS = (
    Command(
        "start",
        "[OPTIONS] CONTAINER...",
        "Start one or more stopped containers",
        (
            flag("-a, --attach", "show its output, pass signals on, end with its exit code"),
            flag("-i, --interactive", "attach standard input as well"),
            process_options.DETACH_KEYS,
            process_options.SIG_PROXY,
            flag("--all", "every container that does not run, oldest first"),
            Option(
                "--filter", filters.condition, "with --all: restart-policy=always, label=...",
                "KEY=VALUE", repeat=True,
            ),
        ),
        perform=start,
        own_status=True,
    ),
)  # fmt: skip
