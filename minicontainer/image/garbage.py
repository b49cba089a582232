"""What no image reaches is removed; what is damaged is found, by reading all of it.

Reachable is what index.json names: manifests, through indexes that other programs may have made,
their configs and layers, and the unpacked layers of their diffIDs.  Not for: staging in tmp/ and
the trash (`engine.prune`).
"""

from __future__ import annotations

import os
import stat

from minicontainer import kernel
from minicontainer.errors import Error, ImageError
from minicontainer.image import corrections, locks, media
from minicontainer.image.blobs import hex_of, new_hash
from minicontainer.image.reference import is_hex
from minicontainer.image.store import Image, Store
from minicontainer.primitives import commits, trees
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable, Collection, Iterable
    from typing import Any
else:
    from minicontainer.tuples import namedtuple

# kind: "index", "image", "blob" or "layer"; name: what of it; problem: one line.
Finding = namedtuple("Finding", "kind name problem")

_PATIENCE_SECONDS = 2.0
_DIRECTORY = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_NOFOLLOW | kernel.O_CLOEXEC
_PIECE_BYTES = 1 << 20
_DEEPEST_INDEX = 4


class Reached:
    """What the index leads to: digests of blobs with their sizes, and diffIDs of layers.

    without: digests of manifests that count as gone.
    """

    def __init__(self, store: Store, without: Collection[str] = ()) -> None:
        self._store = store
        self.blobs: dict[str, int | None] = {}
        self.layers: set[str] = set()
        self.findings: list[Finding] = []
        for entry in store.entries():
            if entry.get("digest") not in without:
                self._visit(entry, 0)

    def _visit(self, descriptor: dict[str, Any], depth: int) -> None:
        name = str(descriptor.get("digest"))
        try:
            media.check_descriptor(descriptor, "manifest")
            if name in self.blobs:
                return
            self.blobs[name] = descriptor["size"]
            data = self._store.blobs.read(name, media.LARGEST_DOCUMENT, verify=False)
            document = media.parse_manifest(data, descriptor["mediaType"])
            if "manifests" not in document:
                self._manifest(document)
            elif depth < _DEEPEST_INDEX:
                for entry in document["manifests"]:
                    # An index need not be complete: other platforms were not fetched.
                    if self._store.has_blob(entry["digest"]):
                        self._visit(entry, depth + 1)
        except (Error, OSError) as failure:
            self.findings.append(Finding("image", name, str(failure)))

    def _manifest(self, document: dict[str, Any]) -> None:
        parts = [document["config"], *document["layers"]]
        for part in parts:
            self.blobs[part["digest"]] = part["size"]
        config = self._store.blobs.read(
            document["config"]["digest"], media.LARGEST_DOCUMENT, verify=False
        )
        diff_ids = media.parse_config(config, len(parts) - 1)["rootfs"]["diff_ids"]
        self.layers.update(diff_ids)
        self.layers.add(corrections.identifier(diff_ids))


def collect(store: Store, in_use: set[str] | Callable[[], set[str]]) -> list[tuple[str, str, int]]:
    """Remove what nothing reaches: [(kind, name, bytes)]; nothing while an image is being made.

    in_use: or what says it, called when nobody can bring or take an image any more. Layers go to
    the trash, for deleting them takes its time. Raises ImageError for an index that cannot be read,
    for then everything would seem unreachable.
    """
    store.prepare()
    fd = _exclusively(store)
    if fd is None:
        return []
    try:
        blobs, layers = _unreached(store, in_use if isinstance(in_use, set) else in_use())
        removed = [("blob", digest, _remove_blob(store, digest)) for digest in blobs]
        removed += [("layer", diff_id, _remove_layer(store, diff_id)) for diff_id in layers]
        return removed
    finally:
        kernel.close(fd)


def collectable(
    store: Store, in_use: set[str], without: Collection[str] = ()
) -> list[tuple[str, str, int]]:
    """What `collect` would remove if the manifests `without` were gone from the index."""
    blobs, layers = _unreached(store, in_use, without)
    found = [("blob", digest, _blob_size(store, digest)) for digest in blobs]
    return found + [("layer", diff_id, _layer_size(store, diff_id)) for diff_id in layers]


def _unreached(
    store: Store, in_use: set[str], without: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The blobs and the layers that nothing reaches."""
    reached = Reached(store, without)
    blobs = [one for one in _blobs(store) if one not in reached.blobs and one not in in_use]
    layers = [one for one in _layers(store) if one not in reached.layers and one not in in_use]
    return blobs, layers


def _exclusively(store: Store) -> int | None:
    """The lock that every `hold` shares; None while there are some."""
    fd = kernel.open(f"{store.paths.images}/blobs", _DIRECTORY)
    patience = locks.Patience("bringing an image", _PATIENCE_SECONDS)
    try:
        while not locks.attempt(fd, kernel.LOCK_EX):
            patience.wait()
    except Error:
        kernel.close(fd)
        return None
    return fd


def _blobs(store: Store) -> list[str]:
    return [f"sha256:{name}" for name in _names(store.blobs.directory) if is_hex(name, 64)]


def _layers(store: Store) -> list[str]:
    return [f"sha256:{name}" for name in _names(store.paths.layers) if is_hex(name, 64)]


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _remove_blob(store: Store, digest: str) -> int:
    path = store.blob_path(digest)
    with step("remove %s", path):
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            _to_trash(store, path)
        else:
            kernel.unlink(path)
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _blob_size(store: Store, digest: str) -> int:
    status = os.lstat(store.blob_path(digest))
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _remove_layer(store: Store, diff_id: str) -> int:
    size = _layer_size(store, diff_id)
    _to_trash(store, f"{store.paths.layers}/{hex_of(diff_id)}")
    return size


def _layer_size(store: Store, diff_id: str) -> int:
    try:
        layer = store.layers.load(diff_id)
    except ImageError:
        return 0
    return int(layer.record["bytes"]) if layer else 0


def _to_trash(store: Store, path: str) -> None:
    with step("move %s to the trash", path):
        os.makedirs(store.paths.trash, 0o711, exist_ok=True)
        name = f"{os.path.basename(path)}-{os.urandom(4).hex()}"
        kernel.rename(path, f"{store.paths.trash}/{name}")


def check(store: Store, *, repair: bool = False) -> list[Finding]:
    """Everything that is wrong, every blob and layer read.

    repair: what is damaged is moved to images/damaged/; the next pull brings it again, a layer is
    unpacked again when it is needed.
    """
    store.prepare()
    with store.hold():
        try:
            reached = Reached(store)
        except ImageError as failure:
            return [Finding("index", "index.json", str(failure))]
        found = [*_check_layout(store), *reached.findings]
        damaged = []
        for digest in _blobs(store):
            problem = _blob_problem(store, digest, reached.blobs.get(digest))
            if problem:
                found.append(Finding("blob", digest, problem))
                damaged.append(store.blob_path(digest))
        for digest in sorted(set(reached.blobs) - set(_blobs(store))):
            found.append(Finding("blob", digest, "an image needs it, and it is missing"))
        for diff_id, problem in _layer_problems(store):
            found.append(Finding("layer", diff_id, problem))
            damaged.append(f"{store.paths.layers}/{hex_of(diff_id)}")
        if repair:
            _set_aside(store, damaged)
        return found


def _check_layout(store: Store) -> Iterable[Finding]:
    path = f"{store.paths.images}/oci-layout"
    try:
        with open(path, "rb") as file:
            version = media.read_json(file.read(4096), "oci-layout").get("imageLayoutVersion")
        if version != "1.0.0":
            yield Finding("index", "oci-layout", f"has version {version!r}")
    except (OSError, ImageError) as failure:
        yield Finding("index", "oci-layout", str(failure))
    for image in store.images():
        if image.broken:
            yield Finding("image", ", ".join(image.names) or image.digest, image.broken)


def _blob_problem(store: Store, digest: str, size: int | None) -> str:
    """What is wrong with a blob, "" if nothing is."""
    try:
        fd = store.open_blob(digest)
    except (ImageError, OSError) as failure:
        return str(failure)
    try:
        hashed, total = new_hash(), 0
        while piece := os.read(fd, _PIECE_BYTES):
            hashed.update(piece)
            total += len(piece)
    finally:
        kernel.close(fd)
    found = f"sha256:{hashed.hexdigest()}"
    if found != digest:
        return f"its content is {found}"
    return f"has {total} bytes, a manifest says {size}" if size not in (None, total) else ""


def _layer_problems(store: Store) -> Iterable[tuple[str, str]]:
    """Unpacked layers that differ from their blobs, or have lost their record."""
    for diff_id in _layers(store):
        try:
            layer = store.layers.load(diff_id)
            problem = "has no record" if layer is None else ""
        except ImageError as failure:
            layer, problem = None, str(failure)
        if layer:
            problem = _tree_problem(store, layer)
        if problem:
            yield diff_id, problem


def _tree_problem(store: Store, layer: Any) -> str:
    """What tells the layer's files from those in its blob, "" if nothing does."""
    from minicontainer.image import compare

    digest = layer.record.get("blob")
    if not isinstance(digest, str) or not store.has_blob(digest):
        return ""  # of an image that went; the collector will see to it
    try:
        return compare.difference(store, digest, layer.path)
    except (ImageError, OSError) as failure:
        return str(failure)


def _set_aside(store: Store, paths: list[str]) -> None:
    if not paths:
        return
    home = f"{store.paths.images}/damaged"
    with step("set damaged files aside in %s", home):
        os.makedirs(home, 0o700, exist_ok=True)
        for path in paths:
            kernel.rename(path, f"{home}/{os.path.basename(path)}-{os.urandom(4).hex()}")
        commits.sync(home)


def discard_damaged(store: Store) -> list[tuple[str, str, int]]:
    """Remove what `check` has set aside: [("damaged", name, bytes)]."""
    home = f"{store.paths.images}/damaged"
    removed = []
    for name in _names(home):
        fd = kernel.open(home, _DIRECTORY)
        try:
            size = os.lstat(f"{home}/{name}").st_size
            trees.remove_tree(fd, name)
        finally:
            kernel.close(fd)
        removed.append(("damaged", name, size))
    return removed


def unused(images: list[Image]) -> list[Image]:
    """Those without a name: dangling."""
    return [image for image in images if not image.names]
