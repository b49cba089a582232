"""Attributes of directories that a layer names only in passing, taken from the layers below.

A layer that brings usr/bin/tool need not describe usr/bin; in a single tree the directory keeps
what an earlier layer gave it, but in an overlay the topmost layer's directory counts.  Where that
differs, an image gets one more layer on top, which holds nothing but such directories, right ones.
It is made once for each sequence of layers and collected with the last image that has it.
"""

from __future__ import annotations

import os
import stat

from minicontainer import kernel
from minicontainer.image.blobs import digest_of
from minicontainer.image.layer import opaque_attribute
from minicontainer.primitives import copies, trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from typing import Any
else:
    from minicontainer.tuples import namedtuple

# layer: number in the stack, the topmost is 0; explicit: whether that layer describes it.
_Found = namedtuple("_Found", "layer explicit")

_DIRECTORY = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
# What a hostile image can make us look at; beyond it the corrections are not complete.
_MOST_PATHS = 10_000
_MOST_LOOKS = 1_000_000


def identifier(diff_ids: list[str]) -> str:
    """What the corrections of a sequence of layers are called among the layers."""
    return digest_of("\n".join(["corrections", *diff_ids]).encode())


def may_be_needed(records: list[dict[str, Any]]) -> bool:
    """Whether layers with these records, the topmost first, could need corrections."""
    if any(record.get("implicit") for record in records[:-1]):
        return True
    return not records[0].get("root") and any(record.get("root") for record in records[1:])


def make(stack: list[Any], directory_fd: int, user: bool) -> int:
    """Fill the empty directory with what the layers need; returns how many directories.

    stack: `Layer`s, the topmost first. Raises OSError.
    """
    fds = [kernel.open(layer.path, _DIRECTORY) for layer in stack]
    try:
        return _Corrections(stack, fds, opaque_attribute(user)).write(directory_fd)
    finally:
        for fd in fds:
            kernel.close(fd)


class _Corrections:
    def __init__(self, stack: list[Any], fds: list[int], opaque: str) -> None:
        self._fds = fds
        self._opaque = opaque
        self._implicit = [set(_texts(layer.record.get("implicit"))) for layer in stack]
        self._rooted = [bool(layer.record.get("root")) for layer in stack]
        self._known: dict[str, _Found | None] = {}
        self._looks = 0

    def write(self, directory_fd: int) -> int:
        """Make the directories that need it, with those above them."""
        paths = sorted(set().union(*self._implicit))[:_MOST_PATHS]
        wrong = [path for path in paths if self._is_wrong(path)]
        root = next((number for number, rooted in enumerate(self._rooted) if rooted), 0)
        with_parents = {
            "/".join(path.split("/")[:count])
            for path in wrong
            for count in range(1, path.count("/") + 2)
        }
        for path in sorted(with_parents):
            kernel.mkdir(path, 0o700, dir_fd=directory_fd)
        # What they contain first, for it changes their times.
        for path in sorted(with_parents, reverse=True):
            found = self._find(path)
            assert found
            self._copy(found.layer, path, directory_fd)
        self._copy(root, "", directory_fd)
        return len(with_parents) + (1 if root else 0)

    def _is_wrong(self, path: str) -> bool:
        """Whether an overlay shows made-up attributes where a layer below has given some."""
        found = self._find(path)
        return found is not None and found.explicit and found.layer > self._first(path)

    def _first(self, path: str) -> int:
        for number in range(len(self._fds)):
            if self._look(number, path)[0] == "directory":
                return number
        return len(self._fds)

    def _find(self, path: str) -> _Found | None:
        """Which layer's attributes the directory should have; None if the image has none."""
        if path not in self._known:
            self._known[path] = self._search(path)
        return self._known[path]

    def _search(self, path: str) -> _Found | None:
        made_up = None
        for number, implicit in enumerate(self._implicit):
            kind, last = self._look(number, path)
            if kind == "other":
                break
            if kind == "directory":
                if path not in implicit:
                    return _Found(number, True)
                made_up = made_up or _Found(number, False)
            if last:
                break
        return made_up

    def _look(self, number: int, path: str) -> tuple[str, bool]:
        """What a layer has at `path` ("directory", "other", "nothing"), and whether it hides what
        the layers below have there."""
        self._looks += 1
        if self._looks > _MOST_LOOKS:
            return "other", True
        hides = False
        with trees.Place(self._fds[number]) as place:
            for part in path.split("/"):
                try:
                    status = os.stat(part, dir_fd=place.fd, follow_symlinks=False)
                except FileNotFoundError:
                    return "nothing", hides
                if not stat.S_ISDIR(status.st_mode):
                    return "other", True
                place.down(part)
                hides = hides or self._is_opaque(place.fd)
        return "directory", hides

    def _is_opaque(self, fd: int) -> bool:
        try:
            return os.getxattr(fd, self._opaque) == b"y"
        except OSError:
            return False

    def _copy(self, number: int, path: str, directory_fd: int) -> None:
        """Give the directory the attributes that a layer's has."""
        with trees.Place(self._fds[number]) as source, trees.Place(directory_fd) as target:
            for part in path.split("/") if path else ():
                source.down(part)
                target.down(part)
            wear = copies.attributes(
                f"/proc/self/fd/{source.fd}", os.fstat(source.fd), copies.EXACT
            )
            copies.dress(target.fd, wear)


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
