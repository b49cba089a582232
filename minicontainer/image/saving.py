"""Images written as archives: one tar that is an OCI layout and a Docker archive, or a directory.

Members are sorted and have neither time nor owner, so that the same images give the same bytes; a
file or directory appears by rename, whole.
"""

from __future__ import annotations

import os

from minicontainer import jsontext, kernel
from minicontainer.errors import Conflict, Error, ImageError
from minicontainer.image import compression, media, packing, reference
from minicontainer.image.archive import IMAGE_NAME
from minicontainer.image.blobs import digest_of
from minicontainer.image.index import REF_NAME
from minicontainer.image.store import Image, Store
from minicontainer.primitives import commits, copies, trees
from minicontainer.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Document = dict[str, Any]
    # What gives the pieces of a blob, and its size.
    Blob = tuple[Callable[[Callable[[bytes], None]], None], int]

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_DIRECTORY = kernel.O_RDONLY | kernel.O_DIRECTORY | kernel.O_CLOEXEC
_PIECE_BYTES = 1 << 18
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def save(
    store: Store,
    images: list[tuple[Image, list[str]]],
    target: str | int,
    form: str = "docker-archive",
    *,
    plain: bool = False,
) -> None:
    """Write images with the canonical names that go along (none: an image without a name).

    target: a path, or a descriptor for one tar stream.  form: one of FORMATS.  plain: inflate the
    layers, for loaders that cannot.  Raises ImageError, KernelError; nothing is at the path then.
    """
    if form not in FORMATS:
        raise Error(f"unknown format {form!r}: {', '.join(FORMATS)}")
    with store.hold():
        content = _Content(store, images, plain)
        if form == "oci-dir":
            if isinstance(target, int):
                raise Error("a directory cannot be written to a pipe")
            _write_directory(content, target)
        elif isinstance(target, int):
            _write_archive(content, target, docker=form == "docker-archive")
        else:
            _write_file(content, target, docker=form == "docker-archive")


class _Content:
    """The documents and blobs of an archive."""

    def __init__(self, store: Store, images: list[tuple[Image, list[str]]], plain: bool) -> None:
        self._store = store
        self.blobs: dict[str, Blob] = {}
        entries: list[Document] = []
        self._listed: dict[str, Document] = {}
        self._repositories: dict[str, dict[str, str]] = {}
        for image, names in images:
            if image.broken:
                raise ImageError(f"the image cannot be saved: {image.broken}")
            descriptor, layers = self._plain(image) if plain else self._as_received(image)
            names = [reference.canonical(reference.parse(name)) for name in names]
            entries += [_entry(descriptor, name) for name in names] or [dict(descriptor)]
            self._list(image, names, layers)
        unique = [entry for at, entry in enumerate(entries) if entry not in entries[:at]]
        self._index = unique

    def documents(self, *, docker: bool) -> dict[str, bytes]:
        """The files beside the blobs, by name."""
        index = {
            "schemaVersion": 2,
            "mediaType": media.OCI_INDEX,
            "manifests": self._index,
        }
        found = {"oci-layout": _LAYOUT, "index.json": jsontext.dumps(index).encode()}
        if docker:
            found["manifest.json"] = jsontext.dumps(list(self._listed.values())).encode()
            found["repositories"] = jsontext.dumps(self._repositories).encode()
        return found

    def _as_received(self, image: Image) -> tuple[Document, list[Document]]:
        layers: list[Document] = image.manifest["layers"]
        for part in (image.descriptor, image.manifest["config"], *layers):
            self.blobs[part["digest"]] = self._stored(part["digest"], part["size"])
        return image.descriptor, layers

    def _plain(self, image: Image) -> tuple[Document, list[Document]]:
        """The same image with layers that are not packed: another manifest, the same id."""
        kind = media.manifest_type(image.manifest, image.descriptor["mediaType"])
        layer_type = media.OCI_LAYER if kind == media.OCI_MANIFEST else media.DOCKER_LAYER
        layers = []
        for part, diff_id in zip(image.manifest["layers"], image.diff_ids):
            size = self._inflated_size(part["digest"], diff_id)
            layers.append({"mediaType": layer_type, "digest": diff_id, "size": size})
            self.blobs[diff_id] = self._inflated(part["digest"], diff_id, size)
        manifest = {**image.manifest, "layers": layers}
        data = jsontext.dumps(manifest).encode()
        digest = digest_of(data)
        self.blobs[digest] = lambda write: write(data), len(data)
        config = image.manifest["config"]
        self.blobs[config["digest"]] = self._stored(config["digest"], config["size"])
        return {"mediaType": kind, "digest": digest, "size": len(data)}, layers

    def _list(self, image: Image, names: list[str], layers: list[Document]) -> None:
        """What manifest.json and repositories say of an image."""
        listed = self._listed.setdefault(
            image.id,
            {
                "Config": _blob_name(image.id),
                "RepoTags": [],
                "Layers": [_blob_name(layer["digest"]) for layer in layers],
            },
        )
        for name in names:
            parsed = reference.parse(name)
            if not parsed.tag:  # manifest.json has no word for a digest
                continue
            shown = reference.familiar(parsed._replace(digest=""))
            if shown not in listed["RepoTags"]:
                listed["RepoTags"].append(shown)
            tags = self._repositories.setdefault(reference.familiar_name(parsed), {})
            tags[parsed.tag] = (layers[-1]["digest"] if layers else image.id)[7:]

    def _stored(self, digest: str, size: int) -> Blob:
        if not self._store.has_blob(digest, size):
            raise ImageError(
                f"blob {digest} is missing from the store", hint="pull the image again"
            )

        def give(write: Callable[[bytes], None]) -> None:
            fd = self._store.open_blob(digest)
            left = size
            try:
                while left:
                    piece = os.read(fd, min(left, _PIECE_BYTES))
                    if not piece:
                        raise ImageError(f"blob {digest} is shorter than it was")
                    write(piece)
                    left -= len(piece)
            finally:
                kernel.close(fd)

        return give, size

    def _inflated(self, digest: str, diff_id: str, size: int) -> Blob:
        def give(write: Callable[[bytes], None]) -> None:
            fd = self._store.open_blob(digest)
            try:
                with compression.Stream(lambda most: os.read(fd, most), digest=True) as stream:
                    while piece := stream.read():
                        if stream.produced > size:
                            break
                        write(piece)
                    if stream.produced != size or stream.digest() != diff_id:
                        raise ImageError(f"blob {digest} does not inflate to {diff_id}")
            finally:
                kernel.close(fd)

        return give, size

    def _inflated_size(self, digest: str, diff_id: str) -> int:
        layer = self._store.layers.load(diff_id)
        known = layer.record.get("stream_bytes") if layer else None
        if type(known) is int:
            return known
        fd = self._store.open_blob(digest)
        try:
            with compression.Stream(lambda most: os.read(fd, most)) as stream:
                while stream.read():
                    pass
                return stream.produced
        finally:
            kernel.close(fd)


def _entry(descriptor: Document, name: str) -> Document:
    parsed = reference.parse(name)
    annotations = {IMAGE_NAME: name}
    if parsed.tag:
        annotations[REF_NAME] = parsed.tag
    return {**descriptor, "annotations": annotations}


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _write_archive(content: _Content, fd: int, *, docker: bool) -> None:
    documents = content.documents(docker=docker)
    members: dict[str, Any] = {_blob_name(digest): blob for digest, blob in content.blobs.items()}
    members.update(documents)
    members.update({"blobs/": None, "blobs/sha256/": None})

    def write(piece: bytes) -> None:
        try:
            copies.write_all(fd, piece)
        except BrokenPipeError:
            error = Error("nobody reads the archive any more")
            error.exit_code = 128 + kernel.SIGPIPE
            raise error from None

    writer = packing.Writer(write)
    for name in sorted(members):
        member = members[name]
        if member is None:
            writer.directory(name)
        elif isinstance(member, bytes):
            writer.file(name, member)
        else:
            give, size = member
            writer.header(packing.plain_file(name, size))
            give(writer.put)
            writer.pad()
    writer.finish()


def _write_file(content: _Content, path: str, *, docker: bool) -> None:
    new = f"{path}.{os.urandom(4).hex()}.new"
    with step("write %s", path):
        flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_EXCL | kernel.O_CLOEXEC
        fd = kernel.open(new, flags, 0o644)
        try:
            _write_archive(content, fd, docker=docker)
            kernel.fsync(fd)
            kernel.rename(new, path)
        except BaseException:
            kernel.unlink(new)
            raise
        finally:
            kernel.close(fd)


def _write_directory(content: _Content, path: str) -> None:
    path = path.rstrip("/") or "/"
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise Conflict(f"{path} exists and is not an empty directory")
    new = f"{path}.{os.urandom(4).hex()}.new"
    parent, _, name = os.path.abspath(new).rpartition("/")
    with step("write %s", path):
        kernel.mkdir(new, 0o755)
        try:
            kernel.mkdir(f"{new}/blobs", 0o755)
            kernel.mkdir(f"{new}/blobs/sha256", 0o755)
            for digest, (give, _) in content.blobs.items():
                _write_one(f"{new}/{_blob_name(digest)}", give)
            for file_name, data in content.documents(docker=False).items():
                _write_one(f"{new}/{file_name}", lambda write, data=data: write(data))  # type: ignore[misc]
            commits.sync(new)
            kernel.rename(new, path)
        except BaseException:
            fd = kernel.open(parent or "/", _DIRECTORY)
            trees.remove_tree(fd, name)
            kernel.close(fd)
            raise


def _write_one(path: str, give: Callable[[Callable[[bytes], None]], None]) -> None:
    flags = kernel.O_WRONLY | kernel.O_CREAT | kernel.O_EXCL | kernel.O_CLOEXEC
    fd = kernel.open(path, flags, 0o644)
    try:
        give(lambda piece: copies.write_all(fd, piece))
        kernel.fsync(fd)
    finally:
        kernel.close(fd)
