"""`pull`: bring an image from a registry."""

from __future__ import annotations

from minicontainer.cli import output, progress, values
from minicontainer.cli.options import Command, Option, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def pull(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Bring the image, tell how far it is, and print its whole name."""
    from minicontainer.engine import images
    from minicontainer.image import reference

    wanted = reference.parse(arguments[0])
    if ":" not in arguments[0].rpartition("/")[2] and not wanted.digest and not flags["quiet"]:
        output.line("Using default tag: latest")
    show = (lambda event: None) if flags["quiet"] else progress.to(output.STDOUT)
    how = images.settings(authfile=flags["authfile"] or "", insecure=flags["insecure"])
    images.pull(paths, arguments[0], flags["platform"], show, how)
    output.line(reference.canonical(wanted))
    return 0


AUTHFILE = Option("--authfile", values.path, "look for credentials in FILE alone", "FILE")
INSECURE = flag("--insecure", "plain HTTP, or TLS with any certificate, will do")
PLATFORM = Option("--platform", str, "for this platform: os[/arch[/variant]]", "PLATFORM")
COMMANDS = (
    Command(
        "pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Bring an image from a registry",
        (flag("-q, --quiet", "print only the name at the end"), PLATFORM, INSECURE, AUTHFILE),
        perform=pull,
        minimum=1,
        maximum=1,
        later={"-a": "", "--all-tags": ""},
    ),
)
