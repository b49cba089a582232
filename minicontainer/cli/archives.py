"""`load`, `save` and `import`: images into and out of files."""

from __future__ import annotations

import os

from minicontainer.cli import output, values
from minicontainer.cli.options import Command, Option, Refusal, flag
from minicontainer.cli.pull import AUTHFILE, INSECURE, PLATFORM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.cli.options import Values
    from minicontainer.image.platforms import Platform
    from minicontainer.image.store import Image
    from minicontainer.paths import Paths

_STDIN = 0
_FORMATS = {"docker": "docker-archive", "oci": "oci-archive"}


def load(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Bring in every image of an archive, and say what they are called."""
    from minicontainer.cli import progress
    from minicontainer.engine import images
    from minicontainer.image import archive

    source: str | int = _STDIN if flags["input"] is None else flags["input"]
    if source == _STDIN and os.isatty(_STDIN):
        raise Refusal("refusing to read an archive from a terminal", hint="use -i FILE or redirect")
    bars = os.isatty(output.STDOUT) and not flags["quiet"]
    show = progress.to(output.STDOUT) if bars else None
    store = images.open_store(paths)
    for name, image in archive.load(store, source, _platform(flags["platform"]), show):
        if name:
            output.line(f"Loaded image: {images.familiar(name)}")
        else:
            output.line(f"Loaded image ID: {image.id}")
    return 0


def save(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Write images to standard output, or with -o to a file that appears when complete."""
    from minicontainer.engine import images
    from minicontainer.image import saving

    target: str | int = output.STDOUT if flags["output"] is None else flags["output"]
    form: str = _FORMATS.get(flags["format"]) or flags["format"]
    if target == output.STDOUT:
        if form == "oci-dir":
            raise Refusal("a directory cannot be written to a pipe", hint="use -o DIRECTORY")
        if os.isatty(output.STDOUT):
            raise Refusal(
                "refusing to write an archive to a terminal", hint="use -o FILE or redirect"
            )
    store = images.look_into(paths)
    wanted = _platform(flags["platform"])
    chosen: dict[str, tuple[Image, list[str]]] = {}
    for text in arguments:
        image = store.find(text)
        _check_platform(image, text, wanted)
        names = chosen.setdefault(image.digest, (image, []))[1]
        name = images.name_meant(image, text)
        if name and name not in names:
            names.append(name)
    if isinstance(target, str) and os.path.exists(target) and not _is_replaceable(target):
        with open(target, "wb", buffering=0) as file:  # a device or a named pipe
            saving.save(store, list(chosen.values()), file.fileno(), form, plain=flags["plain"])
    else:
        saving.save(store, list(chosen.values()), target, form, plain=flags["plain"])
    return 0


def _is_replaceable(path: str) -> bool:
    return os.path.isfile(path) or os.path.isdir(path)


def _check_platform(image: Image, text: str, wanted: Platform | None) -> None:
    from minicontainer.image import platforms

    offered = platforms.of(image.config)
    if wanted and offered and not platforms.runs(offered, wanted):
        raise Refusal(
            f"the image {text} is for {platforms.text(offered)}, not {platforms.text(wanted)}",
            hint="pull it with that --platform first",
        )


def import_(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Make an image of a tarball of files, and print its id."""
    from minicontainer.engine import images
    from minicontainer.image import reference, tarball

    source = arguments[0]
    name = None
    if len(arguments) > 1:
        wanted = reference.parse(arguments[1])
        if wanted.digest:
            raise Refusal("an image that is made here has no digest yet: give a name and a tag")
        name = reference.canonical(wanted)
    if source == "-" and os.isatty(_STDIN):
        raise Refusal("refusing to read a tarball from a terminal")
    store = images.open_store(paths)
    platform = _platform(flags["platform"])

    def make(origin: Any) -> Image:
        return tarball.import_tarball(
            store, origin, name, flags["change"], flags["message"], platform, source
        )

    if source.startswith(("http://", "https://")):
        from minicontainer.image import registry

        how = images.settings(authfile=flags["authfile"] or "", insecure=flags["insecure"])
        with registry.RemoteFile(source, how) as file:
            image = make(file.read)
    else:
        image = make(_STDIN if source == "-" else source)
    output.line(image.id)
    return 0


def _platform(text: str | None) -> Platform | None:
    from minicontainer.image import platforms

    return platforms.parse(text) if text else None


COMMANDS = (
    Command(
        "import",
        "[OPTIONS] FILE|URL|- [NAME[:TAG]]",
        "Make an image of a tarball of files",
        (
            Option(
                "-c, --change", str, "apply an instruction of a Dockerfile, CMD or ENV, say",
                "INSTRUCTION", repeat=True,
            ),
            Option("-m, --message", str, "keep a comment in the image's history", "TEXT"),
            PLATFORM,
            INSECURE,
            AUTHFILE,
        ),
        perform=import_,
        minimum=1,
        maximum=2,
    ),
    Command(
        "load",
        "[OPTIONS]",
        "Bring in images from an archive or an OCI directory",
        (
            Option("-i, --input", values.path, "read it from FILE, not standard input", "FILE"),
            flag("-q, --quiet", "do not show how far it is"),
            PLATFORM,
        ),
        perform=load,
        maximum=0,
    ),
    Command(
        "save",
        "[OPTIONS] IMAGE...",
        "Write images to an archive",
        (
            Option("-o, --output", values.path, "write to FILE, not standard output", "FILE"),
            Option(
                "--format",
                values.choice("docker-archive", "oci-archive", "oci-dir", "docker", "oci"),
                "docker-archive, oci-archive or oci-dir",
                "FORMAT",
                default="docker-archive",
            ),
            flag("--plain", "inflate the layers, for loaders that cannot"),
            PLATFORM,
        ),
        perform=save,
        minimum=1,
    ),
)  # fmt: skip
