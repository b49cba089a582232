"""`version`: what this program is and what it runs on."""

from __future__ import annotations

from minicontainer.cli import output, tables
from minicontainer.cli.options import Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths

_SHOWN = (
    ("Python", "Python"), ("Kernel", "KernelVersion"), ("Machine", "Architecture"),
    ("Cgroup mode", "CgroupMode"), ("Storage", "Driver"),
)  # fmt: skip


def version(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print the version, and of what it stands on."""
    from minicontainer.engine import host

    facts = host.versions()
    form = flags["format"]
    if form == "json":
        output.line(tables.json_line(facts))
    elif form:
        from minicontainer.cli import template

        output.line(template.render(template.parse(form), facts))
    else:
        output.line(f"minicontainer version {facts['Version']}")
        for label, key in _SHOWN:
            output.line(f"{label + ':':<13} {facts[key]}")
    return 0


COMMANDS = (
    Command(
        "version",
        "[OPTIONS]",
        "Show the version",
        (Option("-f, --format", str, "json, or a template", "FORMAT"),),
        perform=version,
        maximum=0,
    ),
)
