"""`info`: the state of the engine and of the host."""

from __future__ import annotations

from minicontainer.cli import output, tables
from minicontainer.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_LINES = (
    ("Version", "Version"), ("Containers", "Containers"), (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"), (" Stopped", "ContainersStopped"), ("Storage", "Driver"),
    ("Cgroup mode", "CgroupMode"), ("Cgroup controllers", "CgroupControllers"),
    ("Logging driver", "LoggingDriver"), ("Security", "SecurityOptions"),
    ("Rootless", "Rootless"), ("Kernel", "KernelVersion"), ("Operating system", "OperatingSystem"),
    ("Architecture", "Architecture"), ("CPUs", "NCPU"), ("Memory", "MemTotal"),
    ("Host name", "Name"), ("Python", "Python"), ("Root directory", "RootDir"),
    ("Volatile directory", "RunDir"),
)  # fmt: skip


def info(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print the facts, a line each."""
    from minicontainer.engine import host

    facts = host.facts(paths)
    form = flags["format"]
    if form == "json":
        import json

        output.line(json.dumps(facts, ensure_ascii=False, separators=(",", ":")))
    elif form:
        from minicontainer.cli import template

        output.line(template.render(template.parse(form), facts))
    else:
        output.show("".join(f"{label}: {_text(key, facts[key])}\n" for label, key in _LINES))
        for text in facts["Warnings"]:
            output.warning(text)
    return 0


def _text(key: str, value: Any) -> str:
    if key == "MemTotal":
        return tables.binary_size(value)
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, list) else str(value)


COMMANDS = (
    Command(
        "info",
        "[OPTIONS]",
        "Show the state of the engine and of the host",
        (Option("-f, --format", str, "json, or a template", "FORMAT"),),
        perform=info,
        maximum=0,
    ),
)
