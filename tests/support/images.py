"""Layers and images made in memory, and what is compared of a tree."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path

from minicontainer.image.store import Image, Store
from minicontainer.paths import Paths
from minicontainer.primitives import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI = "application/vnd.oci.image."
KINDS = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
Member = "tuple[tarfile.TarInfo, bytes]"


def member(
    name: str,
    data: bytes = b"",
    *,
    kind: str = "file",
    xattrs: dict[str, str] | None = None,
    **fields: object,
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a tar archive: owned by us, made at the second 1000."""
    info = tarfile.TarInfo(name)
    info.type = KINDS[kind]
    info.mode = 0o755 if kind == "directory" else 0o644
    info.uid, info.gid, info.mtime = os.geteuid(), os.getegid(), 1000
    info.size = len(data)
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind="directory", **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind="symlink", linkname=target)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind="link", linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A plain tar archive, names exactly as given."""
    parts = []
    for info, data in members:
        parts.append(info.tobuf(form, "utf-8", "surrogateescape"))  # type: ignore[arg-type]
        parts.append(data + bytes(-len(data) % 512))
    return b"".join(parts) + bytes(1024)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def facts(top: Path | str) -> dict[str, tuple[object, ...]]:
    """What two equal trees share: all but directories' sizes, times of access, inode numbers."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], str] = {}
    fd = os.open(top, os.O_RDONLY)
    for entry in trees.walk(fd):
        status = entry.status
        path = f"{top}/{entry.path}"
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        found[entry.path] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            content,
            ""
            if stat.S_ISDIR(status.st_mode)
            else inodes.setdefault(trees.identity(status), entry.path),
            tuple(
                (name, os.getxattr(path, name, follow_symlinks=False))
                for name in sorted(os.listxattr(path, follow_symlinks=False))
            ),
        )
    os.close(fd)
    return found


def new_store(top: Path, **options: Any) -> Store:
    """An empty store below `top`, which does not wait for the disk."""
    options.setdefault("durable", False)
    store = Store(Paths(str(top / "root"), str(top / "run")), **options)
    store.prepare()
    return store


class Made:
    """An image as bytes: its blobs, and what names them."""

    def __init__(
        self, layers: list[bytes], *, packed: bool = True, docker: bool = False, **config: Any
    ) -> None:
        base = "application/vnd.docker." if docker else OCI
        self.layers = layers
        self.blobs: dict[str, bytes] = {}
        self.config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-06T07:08:09Z",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            **config,
        }
        kind = ("image.rootfs.diff.tar" if docker else "layer.v1.tar") + (
            (".gzip" if docker else "+gzip") if packed else ""
        )
        described = []
        for layer in layers:
            blob = gzip.compress(layer, 1, mtime=0) if packed else layer
            described.append(self._blob(base + kind, blob))
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": base + ("distribution.manifest.v2+json" if docker else "manifest.v1+json"),
            "config": self._blob(
                base + ("container.image.v1+json" if docker else "config.v1+json"),
                json.dumps(self.config).encode(),
            ),
            "layers": described,
        }
        self.descriptor = self._blob(
            str(self.manifest["mediaType"]), json.dumps(self.manifest).encode()
        )

    def _blob(self, media_type: str, data: bytes) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def add(self, store: Store, *names: str) -> Image:
        """Put it into a store, as a pull would."""
        with store.hold():
            for name, data in self.blobs.items():
                store.put(data, name)
            layers: Any = self.manifest["layers"]
            for described, layer in zip(layers, self.layers):
                store.unpack(described["digest"], described["mediaType"], digest(layer))
            return store.add_image(self.descriptor, list(names))

    def layout(self, *names: str) -> dict[str, bytes]:
        """The files of an OCI layout."""
        entries = [
            {**self.descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
            for name in names
        ]
        index = {"schemaVersion": 2, "manifests": entries or [self.descriptor]}
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{f"blobs/sha256/{name[7:]}": data for name, data in self.blobs.items()},
        }


def archive(files: dict[str, bytes]) -> bytes:
    """A tar archive of files."""
    return tar(*(member(name, data) for name, data in files.items()))


def names_in(data: bytes) -> dict[str, bytes]:
    """The files of a tar archive as `tarfile` finds them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        return {
            one.name: reader.read() if (reader := found.extractfile(one)) else b"" for one in found
        }
