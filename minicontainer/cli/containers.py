"""The containers named on a command line: each is tried, whatever happened to the others."""

from __future__ import annotations

import os

from minicontainer.cli import output
from minicontainer.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from minicontainer.engine.records import Container
    from minicontainer.paths import Paths


class SomeFailed(Error):
    """Of several arguments some failed; each cause is reported, in order."""

    exit_code = 1

    def __init__(self, causes: list[Exception]) -> None:
        super().__init__(f"{len(causes)} failed")
        self.causes = causes


def find(paths: Paths, reference: str, *, broken: bool = False) -> Container:
    """The container of an id, name or id prefix; with `broken` also one whose record is damaged."""
    from minicontainer.engine import records

    check_layout(paths)
    container = records.find(paths, reference)
    if container.broken and not broken:
        short = container.id[:12]
        raise Error(
            f"container {short} is broken: {container.broken}",
            hint=f"minicontainer rm -f {short} removes it",
        )
    return container


def load(paths: Paths) -> list[Container]:
    """Every container there is, the newest first, broken ones too."""
    from minicontainer.engine import records

    check_layout(paths)
    return records.load_all(paths)


def check_layout(paths: Paths) -> None:
    """Refuse a state directory of another version; make nothing where there is none."""
    from minicontainer.engine import records

    if os.path.lexists(paths.version):
        records.prepare(paths)


def each(
    paths: Paths,
    references: Iterable[str],
    action: Callable[[Container], object],
    *,
    echo: bool = True,
) -> int:
    """Do `action` to each container, and with `echo` print what the user called it.

    Returns 0; raises SomeFailed after the last one if some failed.
    """

    def act(reference: str) -> None:
        action(find(paths, reference))
        if echo:
            output.line(reference)

    return attempt(references, act)


def attempt(references: Iterable[str], action: Callable[[str], object]) -> int:
    """Call `action` with each reference. Returns 0; raises SomeFailed at the end if some failed."""
    causes: list[Exception] = []
    for reference in references:
        try:
            action(reference)
        except (Error, OSError) as failure:
            causes.append(failure)
    if causes:
        raise SomeFailed(causes)
    return 0
