"""`inspect`: everything known about containers and images, as JSON in Docker's shape."""

from __future__ import annotations

from minicontainer.cli import containers, output, values
from minicontainer.cli.options import Command, Option, flag
from minicontainer.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def inspect(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Print an array of what was found; with -f the template's text, a line each."""
    found: list[dict[str, Any]] = []
    form = flags["format"]
    nodes = None
    if form and form != "json":
        from minicontainer.cli import template

        nodes = template.parse(form)

    def one(reference: str) -> None:
        facts = _facts(paths, reference, flags)
        if nodes is None:
            found.append(facts)
        else:
            output.line(template.render(nodes, facts))

    try:
        return containers.attempt(arguments, one)
    finally:
        if nodes is None:
            _show(found, indent=None if form == "json" else 4)


def _facts(paths: Paths, reference: str, flags: Values) -> dict[str, Any]:
    """What is known of the container of that name or, if there is none, of the image."""
    if flags["type"] != "image":
        try:
            container = containers.find(paths, reference)
        except NotFound:
            if flags["type"] == "container":
                raise
        else:
            from minicontainer.engine import inspect as engine

            return engine.container(container, flags["size"])
    from minicontainer.engine import images

    store = images.look_into(paths)
    try:
        return images.inspect(store, store.find(reference))
    except NotFound:
        if flags["type"] == "image":
            raise
        raise NotFound(f"No such object: {reference}") from None


def _show(found: list[dict[str, Any]], *, indent: int | None) -> None:
    import json

    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(found, ensure_ascii=False, indent=indent, separators=separators)
    output.line(text)


COMMANDS = (
    Command(
        "inspect",
        "[OPTIONS] NAME...",
        "Show everything about containers and images",
        (
            Option("-f, --format", str, "json, or a template", "FORMAT"),
            Option("--type", values.choice("container", "image"), "container or image", "TYPE"),
            flag("-s, --size", "sizes of the files"),
        ),
        perform=inspect,
        minimum=1,
    ),
)
