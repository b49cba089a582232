"""Images out of archives and into them: OCI layouts and Docker archives, packed or as directories.

What is written is one tar that is both: blobs as received, sorted, without times or owners, so that
the same images give the same bytes.  What is read is verified as if a registry had sent it.
image-spec image-layout.md; moby image/spec v1.2 for `manifest.json`.  Not for: plain tarballs of
files (`tarball`).
"""

from __future__ import annotations

import os

from minicontainer.errors import ImageError
from minicontainer.image import compression, media, platforms, reference, sources
from minicontainer.image.index import REF_NAME
from minicontainer.image.store import Image, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable, Iterator
    from typing import Any

    from minicontainer.image.platforms import Platform
    from minicontainer.image.sources import Archive, Directory, File

    Document = dict[str, Any]
    Progress = Callable[[Document], None]
else:
    from minicontainer.tuples import namedtuple

IMAGE_NAME = "io.containerd.image.name"
_DEEPEST_INDEX = 4
_MOST_IMAGES = 1000
_LARGEST_LIST = 16 << 20

# name: canonical, or None.
Loaded = namedtuple("Loaded", "name image")


def load(
    store: Store,
    source: str | int,
    platform: Platform | None = None,
    progress: Progress | None = None,
) -> list[Loaded]:
    """Bring every image of an archive or a directory into the store, in its order.

    source: a path, or a descriptor to read from.  platform: which image of an index; None for the
    host's.  progress: called with `{"id", "status"}`.  Raises ImageError, KernelError; the store is
    as before then, but for images that were complete.
    """
    store.prepare()
    staging = store.paths.tmp
    if isinstance(source, int):
        opened: Archive | Directory = sources.open_stream(source, staging)
    else:
        opened = sources.open_path(source, staging)
    try:
        with store.hold():
            loading = _Loading(store, opened, platform or platforms.host(), progress)
            index = _document(opened, "index.json")
            if index is not None:
                return list(loading.layout(index))
            listed = _list(opened, "manifest.json")
            if listed is not None:
                return list(loading.docker(listed))
    finally:
        opened.close()
    raise ImageError(
        "the archive has neither index.json nor manifest.json: it is no image archive",
        hint="a tarball of files is brought in by `minicontainer import`",
    )


class _Loading:
    def __init__(
        self,
        store: Store,
        source: Archive | Directory,
        platform: Platform,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._source = source
        self._platform = platform
        self._progress = progress

    # -------------------------------------------------------------------------- OCI layout

    def layout(self, index: Document) -> Iterator[Loaded]:
        """The images that index.json lists."""
        entries = index.get("manifests")
        if not isinstance(entries, list) or len(entries) > _MOST_IMAGES:
            raise ImageError(f"index.json lists no images, or more than {_MOST_IMAGES}")
        for entry in entries:
            media.check_descriptor(entry, "image")
        if not _names_anything(entries) and len(entries) > 1:
            # One image in several platforms, written without an index of their own.
            if all(platforms.of(entry.get("platform") or {}) for entry in entries):
                entries = [media.select({"manifests": entries}, self._platform)]
        for entry in entries:
            yield self._entry(entry)

    def _entry(self, entry: Document) -> Loaded:
        descriptor = self._choose(entry)
        manifest = self._manifest(descriptor)
        config_blob = manifest["config"]
        config = media.parse_config(self._document_blob(config_blob), len(manifest["layers"]))
        for part in manifest["layers"]:
            self._blob(part)
        self._unpack(manifest["layers"], config["rootfs"]["diff_ids"])
        name = _name_of(entry)
        return Loaded(name, self._store.add_image(descriptor, [name] if name else []))

    def _choose(self, descriptor: Document) -> Document:
        """The manifest's descriptor, through indexes where there are some."""
        for _ in range(_DEEPEST_INDEX):
            if not media.is_index(descriptor["mediaType"]):
                return descriptor
            data = self._bytes(descriptor)
            document = media.parse_manifest(data, descriptor["mediaType"])
            present = [one for one in document["manifests"] if self._has(one["digest"])]
            descriptor = media.select({"manifests": present}, self._platform)
        raise ImageError(f"the archive has indexes in indexes, {_DEEPEST_INDEX} deep")

    def _manifest(self, descriptor: Document) -> Document:
        data = self._document_blob(descriptor)
        manifest = media.parse_manifest(data, descriptor["mediaType"])
        if "manifests" in manifest:
            raise ImageError(f"{descriptor['digest']} is an index and was announced as a manifest")
        return manifest

    def _has(self, digest: str) -> bool:
        file = self._source.open(_blob_name(digest))
        if file:
            file.close()
        return file is not None

    def _bytes(self, descriptor: Document) -> bytes:
        """A small blob of the archive, verified when it is put into the store."""
        file = self._source.open(_blob_name(descriptor["digest"]))
        if file is None:
            if self._store.has_blob(descriptor["digest"], descriptor["size"]):
                return self._store.read_blob(descriptor["digest"], media.LARGEST_DOCUMENT)
            raise ImageError(f"the archive lacks blob {descriptor['digest']}")
        with file:
            data = _all_of(file, descriptor["digest"])
        if len(data) != descriptor["size"]:
            raise ImageError(
                f"blob {descriptor['digest']} has {len(data)} bytes, not {descriptor['size']}"
            )
        self._store.put(data, descriptor["digest"])
        return data

    def _document_blob(self, descriptor: Document) -> bytes:
        return self._bytes(descriptor)

    def _blob(self, descriptor: Document) -> None:
        """Copy a blob of the archive into the store, unless that has it."""
        digest, size = descriptor["digest"], descriptor["size"]
        if self._store.has_blob(digest, size):
            return
        file = self._source.open(_blob_name(digest))
        if file is None:
            raise ImageError(f"the archive lacks blob {digest}")
        with file, self._store.writer(digest, size) as writer:
            if not writer.present:
                writer.restart()
                while piece := file.read():
                    writer.write(piece)
            writer.finish()

    def _unpack(self, layers: list[Document], diff_ids: list[str]) -> None:
        for part, diff_id in zip(layers, diff_ids):
            if self._progress:
                self._progress({"id": part["digest"][7:19], "status": "Loading layer"})
            self._store.unpack(part["digest"], part["mediaType"], diff_id)

    # ---------------------------------------------------------------------- Docker archive

    def docker(self, listed: list[Any]) -> Iterator[Loaded]:
        """The images that manifest.json lists."""
        if len(listed) > _MOST_IMAGES:
            raise ImageError(f"manifest.json lists more than {_MOST_IMAGES} images")
        for item in listed:
            if not isinstance(item, dict):
                raise ImageError("manifest.json holds something that is no image")
            names = [_canonical(name) for name in _strings(item, "RepoTags")]
            image = self._docker_image(item, names)
            yield from [Loaded(name, image) for name in names] or [Loaded(None, image)]

    def _docker_image(self, item: Document, names: list[str]) -> Image:
        config_name = item.get("Config")
        if not isinstance(config_name, str):
            raise ImageError("manifest.json names no Config")
        file = self._source.open(config_name)
        if file is None:
            raise ImageError(f"the archive lacks {config_name!r}")
        with file:
            config_data = _all_of(file, config_name)
        members = _strings(item, "Layers")
        config = media.parse_config(config_data, len(members))
        config_digest = self._store.put(config_data)
        stem = os.path.basename(config_name).partition(".")[0]
        if reference.is_hex(stem, 64) and config_digest != f"sha256:{stem}":
            raise ImageError(f"the content of {config_name!r} is {config_digest}")
        layers = [self._docker_layer(name) for name in members]
        self._unpack(layers, config["rootfs"]["diff_ids"])
        manifest = {
            "schemaVersion": 2,
            "mediaType": media.DOCKER_MANIFEST,
            "config": {
                "mediaType": media.DOCKER_CONFIG,
                "digest": config_digest,
                "size": len(config_data),
            },
            "layers": layers,
        }
        return add_manifest(self._store, manifest, names)

    def _docker_layer(self, name: str) -> Document:
        file = self._source.open(name)
        if file is None:
            raise ImageError(f"the archive lacks {name!r}")
        with file:
            return keep_layer(self._store, file.read, media.DOCKER_LAYER)


def keep_layer(store: Store, read: Callable[[int], bytes], media_type: str) -> Document:
    """Stage a layer of unknown digest, as it is; its descriptor.

    media_type: of a plain layer, DOCKER_LAYER or OCI_LAYER.  What no image may be packed by (bzip2,
    xz) is kept plain.
    """
    joint = "." if media_type == media.DOCKER_LAYER else "+"
    probe = _Peeked(read)
    kind = compression.kind(probe.first_bytes)
    take: Callable[[int], bytes] = probe.read
    with store.writer() as writer:
        if kind in ("bzip2", "xz"):
            with compression.Stream(probe.read) as stream:
                while piece := stream.read():
                    writer.write(piece)
        else:
            while piece := take(compression.PIECE_BYTES):
                writer.write(piece)
        digest, size = writer.finish()
    if kind in ("gzip", "zstd"):
        media_type += joint + kind
    return {"mediaType": media_type, "digest": digest, "size": size}


class _Peeked:
    """A source whose first bytes can be looked at."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._kept = b""
        while len(self._kept) < 512 and (piece := read(1 << 16)):
            self._kept += piece
        self.first_bytes = self._kept[:512]

    def read(self, size: int) -> bytes:
        if not self._kept:
            return self._read(size)
        piece, self._kept = self._kept[:size], self._kept[size:]
        return piece


def add_manifest(
    store: Store, manifest: Document, names: list[str], annotations: dict[str, str] | None = None
) -> Image:
    """Put a manifest that we wrote into the store, and what is staged with it."""
    import json

    data = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
    media.parse_manifest(data, manifest["mediaType"])
    digest = store.put(data)
    descriptor = {"mediaType": manifest["mediaType"], "digest": digest, "size": len(data)}
    return store.add_image(descriptor, names, annotations)


def _document(source: Archive | Directory, name: str) -> Document | None:
    file = source.open(name)
    if file is None:
        return None
    with file:
        return media.read_json(_all_of(file, name), name)


def _list(source: Archive | Directory, name: str) -> list[Any] | None:
    """A JSON list, read as strictly as an object."""
    file = source.open(name)
    if file is None:
        return None
    with file:
        data = _all_of(file, name)
    found = media.read_json(b'{"list":' + data + b"}", name)["list"]
    if not isinstance(found, list):
        raise ImageError(f"{name} is not a list")
    return found


def _all_of(file: File, name: str) -> bytes:
    if file.size > media.LARGEST_DOCUMENT:
        raise ImageError(f"{name} is larger than {media.LARGEST_DOCUMENT >> 20} MiB")
    parts = []
    while piece := file.read():
        parts.append(piece)
    return b"".join(parts)


def _blob_name(digest: str) -> str:
    if not reference.is_digest(digest):
        raise ImageError(f"{digest!r:.100} is not a sha256 digest")
    return f"blobs/sha256/{digest[7:]}"


def _strings(item: Document, key: str) -> list[str]:
    found = item.get(key) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ImageError(f"{key} of manifest.json is not a list of names")
    return found


def _names_anything(entries: list[Document]) -> bool:
    return any(_name_of(entry) for entry in entries)


def _name_of(entry: Document) -> str | None:
    """The canonical name in an entry of index.json, None for a mere tag or nothing."""
    annotations = entry.get("annotations") or {}
    for key in (IMAGE_NAME, REF_NAME):
        text = annotations.get(key)
        if text and (key == IMAGE_NAME or "/" in text or ":" in text):
            return _canonical(text)
    return None


def _canonical(text: str) -> str:
    from minicontainer.errors import UsageError

    try:
        return reference.canonical(reference.parse(text))
    except UsageError as failure:
        raise ImageError(f"the archive has an image with an impossible name: {failure}") from None
