"""Unpacked layers: layers/<hex of the diffID>/tree in overlay form, layer.json what it is.

A layer is unpacked in tmp/ under a lock, verified, staged, and renamed into place by `commit`;
one that exists is complete.  Identical layers of all images are one directory.
"""

from __future__ import annotations

import errno
import os

from minicontainer import jsontext, kernel
from minicontainer.errors import DigestMismatch, ImageError
from minicontainer.image import locks, media
from minicontainer.image.blobs import Blobs, hex_of
from minicontainer.paths import Paths
from minicontainer.primitives import commits, trees
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
else:
    from minicontainer.tuples import namedtuple

_Staged = namedtuple("_Staged", "fd path")
# record: layer.json, {"bytes","stream_bytes","entries","root","opaque","implicit","blob"}.
Layer = namedtuple("Layer", "path record")

_DIRECTORY = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
_MOST_STAGED = 100
_LARGEST_RECORD = 4 << 20


class Layers:
    """The layers below layers/, and those that are staged. Threads may share it."""

    def __init__(self, paths: Paths, blobs: Blobs, *, user: bool, durable: bool) -> None:
        from _thread import RLock

        self._paths = paths
        self._blobs = blobs
        self._user, self._durable = user, durable
        self._staged: dict[str, _Staged] = {}
        self._guard = RLock()

    def path(self, diff_id: str) -> str | None:
        """The directory of a layer, None if it is not unpacked (or only staged)."""
        path = f"{self._paths.layers}/{hex_of(diff_id)}/tree"
        return path if os.path.isdir(path) else None

    def has(self, diff_id: str) -> bool:
        """Whether the layer is there or staged."""
        with self._guard:
            return diff_id in self._staged or self.path(diff_id) is not None

    def load(self, diff_id: str) -> Layer | None:
        """A layer with its record, None if it is not unpacked. Raises ImageError if damaged."""
        home = f"{self._paths.layers}/{hex_of(diff_id)}"
        try:
            with open(f"{home}/layer.json", "rb") as file:
                record = jsontext.loads(file.read(_LARGEST_RECORD))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as failure:
            raise ImageError(f"layer {diff_id} has a damaged record: {failure}") from None
        if not isinstance(record, dict) or type(record.get("bytes")) is not int:
            raise ImageError(f"layer {diff_id} has a damaged record")
        return Layer(f"{home}/tree", record)

    def unpack(
        self,
        digest: str,
        media_type: str,
        diff_id: str | None,
        progress: Callable[[int], None] | None = None,
        wait: Callable[[], None] | None = None,
    ) -> str:
        """Unpack a blob and stage the layer, unless it is there; returns its diffID.

        diff_id: what it must turn out to be, None if nobody said.  progress: called with the bytes
        of the blob read so far.  wait: as for `Blobs.writer`.
        Raises DigestMismatch, ImageError for a layer that is refused, KernelError.
        """
        hexadecimal = hex_of(diff_id) if diff_id else os.urandom(16).hex()
        home = f"{self._paths.tmp}/layer-{hexadecimal}"
        patience = locks.Patience("unpacking the same layer", None, wait)
        while True:
            if diff_id and self.has(diff_id):
                return diff_id
            home_fd = self._claim(home)
            if home_fd is not None:
                break
            patience.wait()
        try:
            found = self._fill(home, home_fd, digest, media_type, diff_id, progress)
        except BaseException:
            self._remove(home)
            kernel.close(home_fd)
            raise
        self._stage(found, _Staged(home_fd, home))
        return found

    def _claim(self, home: str) -> int | None:
        """A locked descriptor of the new, empty directory `home`; None while another has it."""
        with step("make %s", home):
            try:
                kernel.mkdir(home, 0o700)
            except FileExistsError:
                pass
            try:
                fd = kernel.open(home, _DIRECTORY)
            except FileNotFoundError:
                return None
            if locks.attempt(fd, kernel.LOCK_EX):
                try:
                    there = os.stat(home, follow_symlinks=False)
                    if trees.identity(there) == trees.identity(os.fstat(fd)):
                        for name in os.listdir(fd):  # of somebody who died
                            trees.remove_tree(fd, name)
                        return fd
                except FileNotFoundError:
                    pass
            kernel.close(fd)
        return None

    def _fill(
        self,
        home: str,
        home_fd: int,
        digest: str,
        media_type: str,
        diff_id: str | None,
        progress: Callable[[int], None] | None,
    ) -> str:
        from minicontainer.image import compression, layer

        kernel.mkdir("tree", 0o700, dir_fd=home_fd)
        tree_fd = kernel.open("tree", _DIRECTORY, dir_fd=home_fd)
        blob_fd = self._blobs.open(digest)
        try:
            read = _counted(blob_fd, progress)
            with compression.Stream(read, digest=True) as stream:
                media.layer_kind(media_type, stream.first_bytes)
                with compression.ReadAhead(stream.read) as ahead:
                    limits = layer.limits_for(home)
                    applied = layer.apply(ahead.read, tree_fd, limits, self._user)
        finally:
            kernel.close(blob_fd)
            kernel.close(tree_fd)
        found = stream.digest()
        if diff_id not in (None, found):
            raise DigestMismatch(f"layer {digest} has the diffID {found}, not {diff_id}")
        record = {**applied._asdict(), "stream_bytes": stream.produced, "blob": digest}
        with step("write %s/layer.json", home):
            commits.replace(f"{home}/layer.json", jsontext.dumps(record) + "\n")
        return found

    def correct(self, diff_ids: list[str], stack: list[Layer]) -> Layer | None:
        """The layer that goes on top of a stack to correct it, made if need be; None for none.

        diff_ids: of the image; its layers are in place.  A layer is staged for `commit` when it is
        made, and an empty one stands for none. Raises KernelError.
        """
        from minicontainer.image import corrections

        if not stack or not corrections.may_be_needed([layer.record for layer in stack]):
            return None
        name = corrections.identifier(diff_ids)
        found = self.load(name)
        if found is None:
            self._make_corrections(name, stack)
            found = self.load(name)
        return found if found and found.record["entries"] else None

    def _make_corrections(self, name: str, stack: list[Layer]) -> None:
        from minicontainer.image import corrections

        home = f"{self._paths.tmp}/layer-{hex_of(name)}"
        patience = locks.Patience("correcting the same layers", locks.LONGEST_SECONDS)
        while (home_fd := self._claim(home)) is None:
            if self.has(name):
                return
            patience.wait()
        try:
            with step("correct the directories of layers in %s", home):
                kernel.mkdir("tree", 0o700, dir_fd=home_fd)
                tree_fd = kernel.open("tree", _DIRECTORY, dir_fd=home_fd)
                try:
                    count = corrections.make(stack, tree_fd, self._user)
                finally:
                    kernel.close(tree_fd)
                record = {"bytes": 0, "entries": count, "root": True, "corrections": True}
                commits.replace(f"{home}/layer.json", jsontext.dumps(record) + "\n")
        except BaseException:
            self._remove(home)
            kernel.close(home_fd)
            raise
        self._stage(name, _Staged(home_fd, home))
        if self._durable:
            self.sync()
        self.commit()

    def _stage(self, diff_id: str, staged: _Staged) -> None:
        with self._guard:
            if self.has(diff_id):
                self._remove(staged.path)
                kernel.close(staged.fd)
                return
            self._staged[diff_id] = staged
            full = len(self._staged) >= _MOST_STAGED
        if full:
            self.sync()
            self.commit()

    def staged(self) -> int:
        """How many layers are staged."""
        return len(self._staged)

    def sync(self) -> None:
        """Put the whole file system on the disk: one call for thousands of files."""
        with step("write out %s", self._paths.tmp):
            fd = kernel.open(self._paths.tmp, _DIRECTORY)
            try:
                kernel.syncfs(fd)
            finally:
                kernel.close(fd)

    def commit(self) -> None:
        """Rename what is staged into place; `sync` comes before."""
        with self._guard, step("put layers into %s", self._paths.layers):
            for diff_id in list(self._staged):
                staged = self._staged[diff_id]
                try:
                    kernel.rename(staged.path, f"{self._paths.layers}/{hex_of(diff_id)}")
                except OSError as failure:
                    if failure.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                    self._remove(staged.path)
                del self._staged[diff_id]
                kernel.close(staged.fd)
            commits.sync(self._paths.layers)

    def drop(self) -> None:
        """Remove what is staged."""
        with self._guard:
            while self._staged:
                _, staged = self._staged.popitem()
                self._remove(staged.path)
                kernel.close(staged.fd)

    def _remove(self, home: str) -> None:
        parent, _, name = home.rpartition("/")
        with step("remove %s", home):
            fd = kernel.open(parent, _DIRECTORY)
            try:
                trees.remove_tree(fd, name)
            finally:
                kernel.close(fd)


def _counted(fd: int, progress: Callable[[int], None] | None) -> Callable[[int], bytes]:
    """A function that reads from `fd` and tells `progress` how far it has come."""
    done = 0

    def read(size: int) -> bytes:
        nonlocal done
        piece = os.read(fd, size)
        done += len(piece)
        if progress and piece:
            progress(done)
        return piece

    return read
