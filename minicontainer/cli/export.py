"""`export`: the files of a container as a tar archive."""

from __future__ import annotations

import os
import stat

from minicontainer import kernel
from minicontainer.cli import containers, output, values
from minicontainer.cli.options import Command, Option, Refusal
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.options import Values
    from minicontainer.engine.records import Container
    from minicontainer.paths import Paths


def export(paths: Paths, flags: Values, arguments: list[str]) -> int:
    """Write the archive to standard output, or with -o to a file that appears when complete."""
    from minicontainer.engine import files

    target = flags["output"]
    if target is None and os.isatty(output.STDOUT):
        raise Refusal(
            "refusing to write a tar archive to a terminal", hint="use -o FILE or redirect"
        )
    container = containers.find(paths, arguments[0])
    if target is None:
        files.export(container, output.STDOUT)
    elif _is_special(target):
        with step("open %s", target):
            fd = kernel.open(target, kernel.O_WRONLY | kernel.O_CLOEXEC)
        try:
            files.export(container, fd)
        finally:
            kernel.close(fd)
    else:
        _to_file(container, target)
    return 0


def _is_special(path: str) -> bool:
    """Whether `path` is a device, pipe or socket, which is written to and not replaced."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _to_file(container: Container, target: str) -> None:
    from minicontainer.engine import files

    new = f"{target}.{os.getpid()}.partial"
    flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_EXCL | kernel.O_CLOEXEC
    with step("write %s", target):
        fd = kernel.open(new, flags, 0o600)
    try:
        files.export(container, fd)
        with step("write %s", target):
            kernel.rename(new, target)
    except BaseException:
        kernel.unlink(new)
        raise
    finally:
        kernel.close(fd)


COMMANDS = (
    Command(
        "export",
        "[OPTIONS] CONTAINER",
        "Write a container's files as a tar archive",
        (Option("-o, --output", values.path, "write to FILE", "FILE"),),
        perform=export,
        minimum=1,
        maximum=1,
    ),
)
