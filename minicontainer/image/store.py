"""The image store: an OCI image layout that other tools can read, and its layers unpacked.

    images/oci-layout  images/index.json  images/blobs/sha256/<hex>   layers/<hex of diffID>/

A name in index.json (`org.opencontainers.image.ref.name`, canonical) implies all the blobs that it
reaches: it is written last.  What no entry reaches is garbage, not damage.  Locks: `hold` (shared)
on images/blobs keeps the collector away, index.json changes under a lock on images/.
"""

from __future__ import annotations

import os

from minicontainer import jsontext, kernel
from minicontainer.errors import Error, ImageError, NotFound
from minicontainer.image import index, locks, reference
from minicontainer.image.blobs import Blobs, BlobWriter
from minicontainer.image.unpacked import Layers
from minicontainer.paths import Paths
from minicontainer.primitives import commits
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Document = dict[str, Any]

REPO_DIGEST = index.REPO_DIGEST

LARGEST_INDEX = 64 << 20
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_LAYOUT = '{"imageLayoutVersion": "1.0.0"}\n'


class Image:
    """One image of the store, read once: its manifest and what the index says of it.

    `id`: digest of the config; `digest`: of the manifest; `names`: canonical; `repo_digests`:
    `name@digest` as registries have it; `size`: bytes of the unpacked files; `broken`: why it
    cannot be used, or None; such an image has only what could be read of it.
    """

    def __init__(self, store: Store, entries: list[Document]) -> None:
        self._store = store
        self.entries = entries
        self.descriptor = {key: value for key, value in entries[0].items() if key != "annotations"}
        self.digest = str(self.descriptor.get("digest", ""))
        self.names = [name for name in map(index.name_of, entries) if name]
        found = [
            text
            for entry in entries
            for text in index.annotation(entry, index.REPO_DIGEST).split(",")
        ]
        self.repo_digests = [text for text in dict.fromkeys(found) if text]
        self.id = ""
        self.manifest: Document = {}
        self.config: Document = {}
        self.broken: str | None = None
        try:
            self._load()
        except (Error, OSError) as failure:
            self.broken = str(failure)

    def _load(self) -> None:
        from minicontainer.image import media

        limit = media.LARGEST_DOCUMENT
        media.check_descriptor(self.descriptor, "image")
        data = self._store.blobs.read(self.digest, limit, verify=False)
        manifest = media.parse_manifest(data, self.descriptor["mediaType"])
        if media.is_index(media.manifest_type(manifest, self.descriptor["mediaType"])):
            raise ImageError("it is an index of several images, made by another program")
        config_digest = manifest["config"]["digest"]
        config = self._store.blobs.read(config_digest, limit, verify=False)
        self.config = media.parse_config(config, len(manifest["layers"]))
        self.manifest, self.id = manifest, config_digest

    @property
    def created(self) -> str:
        """RFC 3339, empty if the config does not say."""
        return str(self.config.get("created") or "")

    @property
    def diff_ids(self) -> list[str]:
        """Of its layers, the lowest first."""
        found: list[str] = self.config["rootfs"]["diff_ids"] if self.config else []
        return found

    @property
    def layer_ids(self) -> set[str]:
        """What a container made from it stands on, for `collect`: diffIDs and corrections."""
        from minicontainer.image import corrections

        return {*self.diff_ids, corrections.identifier(self.diff_ids)}

    @property
    def size(self) -> int:
        """Bytes of its unpacked files, layers that occur twice counted once."""
        found = (self._store.layers.load(diff_id) for diff_id in dict.fromkeys(self.diff_ids))
        return sum(layer.record["bytes"] for layer in found if layer)

    @property
    def layers(self) -> list[str]:
        """The directories of its layers, the topmost first, as an overlay wants them.

        Those that are missing are unpacked first. A layer that occurs twice counts where it is
        topmost, which is what it amounts to; what an opaque top directory hides is left out. Above
        them all there may be one with corrected directories (`corrections`). Raises ImageError.
        """
        stack = self.stack()
        top = self._store.layers.correct(self.diff_ids, stack)
        return [layer.path for layer in ([top] if top else []) + stack]

    def stack(self) -> list[Any]:
        """Its own layers as named tuples `Layer(path, record)`, the topmost first."""
        if self.broken:
            raise ImageError(f"the image cannot be used: {self.broken}")
        found = []
        for diff_id in dict.fromkeys(reversed(self.diff_ids)):
            layer = self._store.layers.load(diff_id)
            if layer is None or not os.path.isdir(layer.path):
                self._store.complete(self)
                layer = self._store.layers.load(diff_id)
                assert layer
            found.append(layer)
            if layer.record.get("opaque"):
                break
        return found


class Store:
    """The images and layers below one pair of roots; threads may share it.

    user: whether layers are for overlays mounted by an unprivileged user; None: as this process.
    durable: whether what was committed survives a power failure.
    """

    def __init__(self, paths: Paths, *, user: bool | None = None, durable: bool = True) -> None:
        from _thread import RLock

        self.paths = paths
        self.user = _is_user() if user is None else user
        self._durable = durable
        self.blobs = Blobs(paths)
        self.layers = Layers(paths, self.blobs, user=self.user, durable=durable)
        self._guard = RLock()
        self._holders = 0
        self._hold_fd = -1

    # ------------------------------------------------------------------- blobs and layers

    def prepare(self) -> None:
        """Make the store's directories where they are missing."""
        if os.path.exists(f"{self.paths.images}/index.json"):
            return
        with step("make the image store %s", self.paths.images):
            for path in (self.blobs.directory, self.paths.layers, self.paths.tmp):
                os.makedirs(path, 0o711, exist_ok=True)
            commits.replace(f"{self.paths.images}/oci-layout", _LAYOUT, durable=True, mode=0o644)
            fd = self._lock_index()
            try:
                if not os.path.exists(f"{self.paths.images}/index.json"):
                    self._write_index([])
            finally:
                kernel.close(fd)

    def hold(self) -> _Hold:
        """A `with` block during which nothing is collected, by whatever process.

        What was staged in it and not committed is dropped at its end: layers are removed, blobs
        remain as partial ones.  May be nested.
        """
        return _Hold(self)

    def has_blob(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there or staged, in its `size`."""
        return self.blobs.has(digest, size)

    def blob_path(self, digest: str) -> str:
        """Where the blob is or will be."""
        return self.blobs.path(digest)

    def open_blob(self, digest: str) -> int:
        """A descriptor of the blob. Raises ImageError when it is missing."""
        return self.blobs.open(digest)

    def read_blob(self, digest: str, limit: int) -> bytes:
        """The verified bytes of a blob of at most `limit`. Raises ImageError."""
        return self.blobs.read(digest, limit)

    def put(self, data: bytes, digest: str | None = None) -> str:
        """Stage a small blob; returns its digest. Raises DigestMismatch if that is not `digest`."""
        self.prepare()
        return self.blobs.put(data, digest)

    def writer(
        self,
        digest: str | None = None,
        size: int | None = None,
        wait: Callable[[], None] | None = None,
    ) -> BlobWriter:
        """A writer of one blob: `Blobs.writer`."""
        self.prepare()
        return self.blobs.writer(digest, size, wait)

    def unpack(
        self,
        digest: str,
        media_type: str,
        diff_id: str | None,
        progress: Callable[[int], None] | None = None,
        wait: Callable[[], None] | None = None,
    ) -> str:
        """Unpack a blob unless its layer is there: `Layers.unpack`. Returns the diffID."""
        self.prepare()
        return self.layers.unpack(digest, media_type, diff_id, progress, wait)

    def layer_path(self, diff_id: str) -> str | None:
        """The directory of an unpacked layer, None if it is not there."""
        return self.layers.path(diff_id)

    def complete(self, image: Image) -> None:
        """Unpack again what of an image's layers is missing."""
        with self.hold():
            for layer, diff_id in zip(image.manifest["layers"], image.diff_ids):
                self.layers.unpack(layer["digest"], layer["mediaType"], diff_id)
            self._commit()

    def _commit(self) -> None:
        """Put everything staged into place, on the disk first."""
        if self.layers.staged():
            if self._durable:
                self.layers.sync()
            self.blobs.commit(synced=True)
            self.layers.commit()
        elif self.blobs.staged():
            self.blobs.commit(synced=not self._durable)

    def _drop(self) -> None:
        self.layers.drop()
        self.blobs.drop()

    # ------------------------------------------------------------------------------ images

    def images(self) -> list[Image]:
        """Every image, the newest first, broken ones too."""
        found = [Image(self, entries) for entries in index.grouped(self._read_index())]
        return sorted(found, key=lambda image: image.created, reverse=True)

    def find(self, text: str) -> Image:
        """The image of a name, a name with a digest, or the unique beginning of an id.

        Raises NotFound, Error for the beginning of several ids.
        """
        entries = self._read_index()
        found = self._by_name(entries, text) or self._by_id(entries, text)
        if found is None:
            raise NotFound(f"No such image: {text}")
        return found

    def _by_name(self, entries: list[Document], text: str) -> Image | None:
        try:
            wanted = reference.parse(text)
        except Error:
            return None
        name = reference.canonical(wanted)
        for entry in entries:
            if index.name_of(entry) in (name, text):  # other programs may give it any name
                return self._load(entries, entry)
        if wanted.digest:
            return self._by_digest(entries, reference.name(wanted), wanted.digest)
        return None

    def _by_digest(self, entries: list[Document], name: str, digest: str) -> Image | None:
        """The image that a registry calls, or that is here called, `name@digest`."""
        for entry in entries:
            whole = index.name_of(entry).partition("@")[0]
            here = whole.rpartition(":")[0]
            same = entry.get("digest") == digest and name in (
                here,
                index.name_of(entry).split("@")[0],
            )
            if same or f"{name}@{digest}" in _repo_digests(entry):
                return self._load(entries, entry)
        return None

    def _by_id(self, entries: list[Document], text: str) -> Image | None:
        digits = text[7:] if text.startswith("sha256:") else text
        if not digits or not reference.is_hex(digits, len(digits)) or len(digits) > 64:
            return None
        images = [Image(self, group) for group in index.grouped(entries)]
        fitting = [image for image in images if image.id[7:].startswith(digits) and image.id]
        if not fitting and len(digits) == 64:
            fitting = [image for image in images if image.digest == f"sha256:{digits}"]
        if not fitting:  # a broken image can still be removed by the digest of its manifest
            fitting = [
                image for image in images if image.broken and image.digest[7:].startswith(digits)
            ]
        ids = {image.id or image.digest for image in fitting}
        if len(ids) > 1:
            raise Error(
                f"{text} is the beginning of several image ids",
                hint="give more digits: " + " ".join(sorted(one[7:19] for one in ids)[:4]),
            )
        return sorted(fitting, key=lambda image: not image.names)[0] if fitting else None

    def _load(self, entries: list[Document], entry: Document) -> Image:
        return Image(self, index.same(entries, entry))

    def add_image(
        self,
        descriptor: Document,
        names: list[str],
        annotations: dict[str, str] | None = None,
    ) -> Image:
        """Commit what is staged and give the manifest of `descriptor` its names.

        names: canonical; a name that another image has moves here. annotations: for the entries.
        Raises ImageError unless every blob that the manifest reaches is there.
        """
        self.prepare()
        plain = {key: descriptor[key] for key in ("mediaType", "digest", "size")}
        with self.hold():
            self._check_complete(plain)
            self._commit()
            fd = self._lock_index()
            try:
                entries = self._read_index()
                for name in names or [""]:
                    entries = index.named(entries, plain, name, annotations or {})
                self._write_index(entries)
            finally:
                kernel.close(fd)
        return Image(self, index.same(entries, plain))

    def _check_complete(self, descriptor: Document) -> None:
        image = Image(self, [descriptor])
        if image.broken:
            raise ImageError(image.broken)
        for part in (descriptor, image.manifest["config"], *image.manifest["layers"]):
            if not self.has_blob(part["digest"], part["size"]):
                raise ImageError(
                    f"blob {part['digest']} is missing from the store or of another size",
                    hint="pull or load the image again",
                )

    def tag(self, image: Image, name: str) -> Image:
        """Give an image one more canonical name, which another may lose."""
        return self.add_image(image.descriptor, [name])

    def untag(self, name: str) -> bool:
        """Take a canonical name away; whether there was such a name. The image stays."""
        self.prepare()
        fd = self._lock_index()
        try:
            entries = self._read_index()
            if all(index.name_of(entry) != name for entry in entries):
                return False
            self._write_index(index.unnamed(entries, name))
            return True
        finally:
            kernel.close(fd)

    def remove(self, image: Image) -> list[str]:
        """Take an image out of the index; the names it had. Its bytes go with the next collect."""
        self.prepare()
        fd = self._lock_index()
        try:
            entries = self._read_index()
            gone = [entry for old in image.entries for entry in index.same(entries, old)]
            self._write_index([entry for entry in entries if entry not in gone])
            return [name for name in map(index.name_of, gone) if name]
        finally:
            kernel.close(fd)

    def collect(self, in_use: set[str] | Callable[[], set[str]]) -> list[tuple[str, str, int]]:
        """Remove the blobs and layers that no image reaches: [(kind, name, bytes)].

        in_use: diffIDs and digests to keep besides, or what finds them under the lock. Removes
        nothing while another process brings an image.
        """
        from minicontainer.image import garbage

        return garbage.collect(self, in_use)

    def check(self, *, repair: bool = False) -> list[Any]:
        """What is wrong in the store, every byte read: `garbage.Finding`s.

        repair: set damaged blobs and layers aside, so that they are fetched or made again.
        """
        from minicontainer.image import garbage

        return garbage.check(self, repair=repair)

    # ------------------------------------------------------------------------------- index

    def entries(self) -> list[Document]:
        """The entries of index.json as they are."""
        return self._read_index()

    def _lock_index(self) -> int:
        return locks.directory(self.paths.images, kernel.LOCK_EX, "changing the image store")

    def _read_index(self) -> list[Document]:
        path = f"{self.paths.images}/index.json"
        try:
            with open(path, "rb") as file:
                document = jsontext.loads(file.read(LARGEST_INDEX))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as failure:
            raise ImageError(f"{path} cannot be read: {failure}") from None
        manifests = document.get("manifests") if isinstance(document, dict) else None
        if manifests is not None and not isinstance(manifests, list):
            raise ImageError(f"{path} has no list of manifests")
        return [entry for entry in manifests or () if isinstance(entry, dict)]

    def _write_index(self, entries: list[Document]) -> None:
        path = f"{self.paths.images}/index.json"
        document = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": entries}
        with step("write %s", path):
            text = jsontext.dumps(document, indent=2) + "\n"
            commits.replace(path, text, durable=self._durable, mode=0o644)


class _Hold:
    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        store = self._store
        store.prepare()
        with store._guard:
            if store._holders == 0:
                path = f"{store.paths.images}/blobs"
                store._hold_fd = locks.directory(path, kernel.LOCK_SH, "removing unused images")
            store._holders += 1

    def __exit__(self, *failure: object) -> None:
        store = self._store
        with store._guard:
            store._holders -= 1
            if store._holders == 0:
                try:
                    store._drop()
                finally:
                    kernel.close(store._hold_fd)
                    store._hold_fd = -1


def _repo_digests(entry: Document) -> list[str]:
    return index.annotation(entry, REPO_DIGEST).split(",")


def _is_user() -> bool:
    """Whether overlays of this process must keep their marks as user.overlay.*"""
    if os.geteuid() != 0:
        return True
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False
