"""`rmi` and `tag`: names of images, and the images that lose their last one."""

from __future__ import annotations

from minicontainer.cli import containers, output
from minicontainer.cli.options import Command, Refusal, flag
from minicontainer.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.paths import Paths


def remove(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Remove names, and images with their last name, and tell what went."""
    from minicontainer.engine import images

    def one(text: str) -> None:
        try:
            lines = images.remove(paths, text, force=flags["force"], prune=not flags["no_prune"])
        except NotFound as failure:
            if not flags["force"]:
                raise
            output.warning(str(failure))
            return
        for line in lines:
            output.line(line)

    return containers.attempt(arguments, one)


def tag(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Give an image one more name, which another image may lose."""
    from minicontainer.engine import images
    from minicontainer.image import reference

    source, target = arguments
    wanted = reference.parse(target)
    if wanted.digest:
        raise Refusal("refusing to create a tag with a digest reference")
    image = images.look_into(paths).find(source)
    images.open_store(paths).tag(image, reference.canonical(wanted))
    return 0


COMMANDS = (
    Command(
        "rmi",
        "[OPTIONS] IMAGE...",
        "Remove one or more images",
        (
            flag("-f, --force", "though containers use it; it is no error if it is gone"),
            flag("--no-prune", "leave its layers to prune"),
        ),
        perform=remove,
        minimum=1,
    ),
    Command(
        "tag",
        "IMAGE NAME[:TAG]",
        "Give an image one more name",
        perform=tag,
        minimum=2,
        maximum=2,
    ),
)
