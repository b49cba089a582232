"""Images made here: of a tarball of files (`import`), of an image and a changed layer (`commit`).

The tarball is kept as it came, packed or not, and verified as any layer is.
"""

from __future__ import annotations

import os
import time

from minicontainer import kernel
from minicontainer.errors import ImageError
from minicontainer.image import archive, blobs, instructions, media, packing, platforms, sources
from minicontainer.image.store import Image, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from minicontainer.image.platforms import Platform

    Document = dict[str, Any]

CREATED = "org.opencontainers.image.created"
_GZIP_LEVEL = 6


def import_tarball(
    store: Store,
    source: str | int | Callable[[int], bytes],
    name: str | None,
    changes: list[str],
    message: str | None = None,
    platform: Platform | None = None,
    origin: str = "-",
) -> Image:
    """An image of one layer, which is the tarball: tar, plain or by gzip, zstd, bzip2, xz.

    source: a path, a descriptor, or what reads so many bytes.  name: canonical.  changes: as in a
    Dockerfile.  origin: for the history.  Raises ImageError, UsageError, KernelError.
    """
    config = instructions.apply({}, changes)
    store.prepare()
    with store.hold():
        if callable(source):
            layer = archive.keep_layer(store, source, media.OCI_LAYER)
        else:
            fd = _opened(source)
            try:
                layer = archive.keep_layer(store, lambda size: os.read(fd, size), media.OCI_LAYER)
            finally:
                if fd != source:
                    kernel.close(fd)
        diff_id = store.unpack(layer["digest"], layer["mediaType"], None)
        return _made(
            store,
            name,
            {"config": config, **_platform(platform)},
            [(layer, diff_id)],
            {"created_by": "", "comment": message or f"Imported from {origin}"},
        )


def commit_layer(
    store: Store,
    parent: Image | None,
    upper_fd: int,
    name: str | None,
    changes: list[str],
    *,
    config: Document | None = None,
    message: str = "",
    author: str = "",
    created_by: str = "",
    skip: Collection[str] = (),
) -> Image:
    """An image of `parent` and the upper directory of a container's overlay as one more layer.

    config: the `config` member to begin with, None for the parent's.  skip: paths in the upper
    directory that are not the image's.  Raises ImageError, UsageError, KernelError.
    """
    base: Document = parent.config if parent else {**_platform(None), "history": []}
    begin = (base.get("config") or {}) if config is None else config
    made = {**base, "config": instructions.apply(begin, changes)}
    if author:
        made["author"] = author
    with store.hold():
        layers = list(zip(parent.manifest["layers"], parent.diff_ids)) if parent else []
        layers.append(_packed(store, upper_fd, skip))
        entry = {"created_by": created_by, "comment": message, "author": author}
        return _made(store, name, made, layers, entry)


def _packed(store: Store, upper_fd: int, skip: Collection[str]) -> tuple[Document, str]:
    """The layer of an upper directory, by gzip, staged and unpacked: (descriptor, diffID)."""
    import zlib

    hashed = blobs.new_hash()
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    with store.writer() as writer:

        def write(piece: bytes) -> None:
            hashed.update(piece)
            writer.write(packer.compress(piece))

        packing.pack(upper_fd, write, skip=skip)
        writer.write(packer.flush())
        digest, size = writer.finish()
    diff_id = f"sha256:{hashed.hexdigest()}"
    media_type = f"{media.OCI_LAYER}+gzip"
    store.unpack(digest, media_type, diff_id)
    return {"mediaType": media_type, "digest": digest, "size": size}, diff_id


def _made(
    store: Store,
    name: str | None,
    base: Document,
    layers: list[tuple[Document, str]],
    history: dict[str, str],
) -> Image:
    """Write config and manifest of an image and give it its name."""
    import json

    now = _now()
    config = {
        **base,
        "created": now,
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
        "history": [
            *(base.get("history") or ()),
            {"created": now, **{key: value for key, value in history.items() if value}},
        ],
    }
    data = json.dumps(config, ensure_ascii=False).encode("utf-8", "surrogatepass")
    media.parse_config(data, len(layers))
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": store.put(data), "size": len(data)},
        "layers": [_as_oci(layer) for layer, _ in layers],
        "annotations": {CREATED: now},
    }
    return archive.add_manifest(store, manifest, [name] if name else [])


def _as_oci(layer: Document) -> Document:
    """A descriptor with OCI's name for its media type, for one manifest speaks one language."""
    media_type = layer["mediaType"]
    if media_type.startswith(media.DOCKER_LAYER):
        media_type = media.OCI_LAYER + media_type[len(media.DOCKER_LAYER) :].replace(".", "+")
    return {"mediaType": media_type, "digest": layer["digest"], "size": layer["size"]}


def _opened(source: str | int) -> int:
    if isinstance(source, int):
        return source
    opened = sources.open_path_as_file(source)
    if opened is None:
        raise ImageError(f"{source} is a directory, not a tarball")
    return opened


def _platform(platform: Platform | None) -> Document:
    found = platform or platforms.host()
    # Without a level of amd64: the files of a tarball ask for no more than the first.
    variant = found.variant if found.architecture != "amd64" or platform else ""
    described = {"architecture": found.architecture, "os": found.os}
    return {**described, "variant": variant} if variant else described


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
