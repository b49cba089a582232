"""Media types, and the door at which manifests, indexes and image configs are checked.

What passes `parse_manifest` and `parse_config` can be stored and listed for ever: every number is
in its range, every string can be encoded, every digest is well-formed, and nothing is both an
index and a manifest (CVE-2021-41190).  Formats: OCI image-spec 1.1, Docker image manifest v2.2.
"""

from __future__ import annotations

from minicontainer.errors import ImageError, UnsupportedMedia
from minicontainer.image import platforms
from minicontainer.image.platforms import Platform, select
from minicontainer.image.reference import is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Platform",
    "check_descriptor",
    "is_index",
    "is_manifest",
    "layer_kind",
    "parse_config",
    "parse_manifest",
    "platform",
    "read_json",
    "select",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
OCTETS = "application/octet-stream"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
LAYERS = (
    *(OCI_LAYER + ending for ending in ("", "+gzip", "+zstd")),
    *(DOCKER_LAYER + ending for ending in ("", ".gzip", ".zstd")),
)
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"

# The largest manifest, index or config that is read, in bytes.
LARGEST_DOCUMENT = 4 << 20
MOST_LAYERS = 500
MOST_MANIFESTS = 10_000
DEEPEST = 100
LARGEST_NUMBER = (1 << 63) - 1

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_REFUSED_PACKING = ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))


def platform() -> Platform:
    """What this host runs natively."""
    return platforms.host()


def is_index(media_type: str) -> bool:
    return media_type in INDEXES


def is_manifest(media_type: str) -> bool:
    return media_type in MANIFESTS


def layer_kind(media_type: str, first_bytes: bytes) -> str:
    """`tar`, `gzip` or `zstd`: how a layer is packed, which its first 512 bytes decide.

    Raises UnsupportedMedia for media types that are no layers of ours and for other contents.
    """
    check_layer_type(media_type)
    if first_bytes.startswith(_GZIP):
        return "gzip"
    # zstd data may begin with a skippable frame: 184D2A50 to 184D2A5F.
    skippable = first_bytes[1:4] == b"\x2a\x4d\x18" and first_bytes[:1] >= b"\x50"
    if first_bytes.startswith(_ZSTD) or (skippable and first_bytes[0] <= 0x5F):
        return "zstd"
    for magic, name in _REFUSED_PACKING:
        if first_bytes.startswith(magic):
            raise UnsupportedMedia(f"the layer is packed by {name}, which no image layer may be")
    if first_bytes.strip(b"\0") and first_bytes[257:262] != b"ustar":
        if not _is_old_tar(first_bytes):
            raise UnsupportedMedia(f"the layer is neither tar, gzip nor zstd ({media_type})")
    return "tar"


def check_layer_type(media_type: str) -> None:
    """Raises UnsupportedMedia, with the reason, for a layer of another type than `LAYERS`."""
    if media_type in LAYERS:
        return
    if media_type.startswith(_FOREIGN):
        raise UnsupportedMedia(f"a foreign layer ({media_type}) must come from elsewhere: refused")
    if media_type.endswith("+encrypted"):
        raise UnsupportedMedia(f"an encrypted layer ({media_type}) cannot be read")
    raise UnsupportedMedia(f"unknown layer type {_shown(media_type)}")


def parse_manifest(data: bytes, media_type: str | None = None) -> dict[str, Any]:
    """The manifest or index in `data`, as it stands but checked.

    media_type: what it was announced as; None if nobody said.  `is_index(manifest_type(…))` tells
    which of the two it is.  Raises ImageError, UnsupportedMedia.
    """
    refuse_manifest_type(media_type)
    document = read_json(data, "manifest")
    kind = manifest_type(document, media_type)
    if document.get("schemaVersion") != 2:
        raise ImageError(f"the manifest has schemaVersion {document.get('schemaVersion')!r}, not 2")
    if is_index(kind):
        _check_index(document)
    else:
        _check_manifest(document)
    return document


def refuse_manifest_type(media_type: str | None) -> None:
    """Raises UnsupportedMedia for what is announced as neither manifest nor index."""
    if media_type is None or media_type in MANIFESTS or media_type in INDEXES:
        return
    if media_type.startswith(_SCHEMA1):
        raise UnsupportedMedia(
            "the image has a schema 1 manifest, which is obsolete",
            hint="push it again with any tool of the last years",
        )
    raise UnsupportedMedia(f"unknown manifest type {_shown(media_type)}")


def manifest_type(document: dict[str, Any], announced: str | None = None) -> str:
    """The media type of a parsed manifest or index. Raises ImageError where signs contradict."""
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        refuse_manifest_type(_SCHEMA1)
    manifest_like = "layers" in document or "config" in document
    if manifest_like and "manifests" in document:
        raise ImageError("the document is both an index and a manifest: refused")
    inside = document.get("mediaType")
    if inside is not None and not isinstance(inside, str):
        raise ImageError("the manifest's mediaType is not a string")
    refuse_manifest_type(inside)
    if inside and announced and inside != announced:
        raise ImageError(f"the manifest says it is {inside}, its header {announced}: refused")
    kind = inside or announced or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if is_index(kind) != ("manifests" in document):
        raise ImageError(f"the content of the manifest is not that of {kind}")
    return kind


def parse_config(data: bytes, layers: int | None = None) -> dict[str, Any]:
    """The image config in `data`, as it stands but checked.

    layers: how many its manifest has. Raises ImageError.
    """
    # Only whoever parses a config needs the long list of its members.
    from minicontainer.image import configs

    document = read_json(data, "image config")
    configs.check(document)
    found = len(document["rootfs"]["diff_ids"])
    if layers is not None and found != layers:
        raise ImageError(f"the image config has {found} diff_ids, its manifest {layers} layers")
    return document


def read_json(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises ImageError for anything that could not be kept.

    That is: too large, not UTF-8, a key twice, a number beyond 64 bits, NaN, lone surrogates,
    nesting beyond 100.
    """
    import json

    if len(data) > LARGEST_DOCUMENT:
        raise ImageError(f"the {what} is larger than {LARGEST_DOCUMENT >> 20} MiB")
    try:
        document = json.loads(
            data.decode("utf-8"),
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
        _check_tree(document, 0)
    except RecursionError:
        raise ImageError(f"the {what} is nested too deeply") from None
    except ValueError as failure:  # also JSONDecodeError, UnicodeError
        raise ImageError(f"the {what} is not acceptable JSON: {failure}") from None
    if not isinstance(document, dict):
        raise ImageError(f"the {what} is not a JSON object")
    return document


def check_descriptor(value: Any, what: str) -> None:
    """Raises ImageError unless `value` has mediaType, digest and size as they must be."""
    if not isinstance(value, dict):
        raise ImageError(f"the descriptor of the {what} is not an object")
    media_type, digest, size = (value.get(key) for key in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str) or not media_type or len(media_type) > 255:
        raise ImageError(f"the descriptor of the {what} has no mediaType")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ImageError(f"the digest of the {what} is not sha256: and 64 digits: {digest!r:.100}")
    if type(size) is not int or not 0 <= size <= LARGEST_NUMBER:
        raise ImageError(f"the size of the {what} is not a number of bytes: {size!r:.100}")
    annotations = value.get("annotations")
    if annotations is not None:
        _check_annotations(annotations, what)


def _check_manifest(document: dict[str, Any]) -> None:
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise ImageError("the manifest has no layers")
    if len(layers) > MOST_LAYERS:
        raise ImageError(f"the image has {len(layers)} layers; {MOST_LAYERS} are the most")
    config = document.get("config")
    check_descriptor(config, "image config")
    assert isinstance(config, dict)
    if config["mediaType"] not in CONFIGS:
        raise UnsupportedMedia(
            f"not a container image: its config is {_shown(config['mediaType'])}"
        )
    if config["size"] > LARGEST_DOCUMENT:
        raise ImageError(f"the image config is larger than {LARGEST_DOCUMENT >> 20} MiB")
    for number, layer in enumerate(layers, 1):
        check_descriptor(layer, f"layer {number}")
        check_layer_type(layer["mediaType"])
    if sum(layer["size"] for layer in layers) > LARGEST_NUMBER:
        raise ImageError("the sizes of the layers add up to more than 64 bits")
    if document.get("annotations") is not None:
        _check_annotations(document["annotations"], "manifest")


def _check_index(document: dict[str, Any]) -> None:
    manifests = document.get("manifests")
    if not isinstance(manifests, list):
        raise ImageError("the manifests of the index are not a list")
    if len(manifests) > MOST_MANIFESTS:
        raise ImageError(f"the index has {len(manifests)} entries; {MOST_MANIFESTS} are the most")
    for number, descriptor in enumerate(manifests, 1):
        check_descriptor(descriptor, f"manifest {number}")
        described = descriptor.get("platform")
        if described is not None and not isinstance(described, dict):
            raise ImageError(f"the platform of manifest {number} is not an object")
    if document.get("annotations") is not None:
        _check_annotations(document["annotations"], "index")


def _check_annotations(value: Any, what: str) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ImageError(f"the annotations of the {what} are not strings by name")


def _check_tree(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate could be stored but never printed
    elif isinstance(value, list):
        for item in value:
            _check_tree(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode("utf-8")
            _check_tree(item, depth + 1)


def _integer(text: str) -> int:
    # By length first: converting a million digits takes Python 3.9 minutes.
    if len(text) > 20 or abs(number := int(text)) > LARGEST_NUMBER:
        raise ValueError(f"the number {text[:20]}… is beyond 64 bits")
    return number


def _real(text: str) -> float:
    if len(text) > 100 or abs(number := float(text)) > 1e300:
        raise ValueError(f"the number {text[:20]}… is out of range")
    return number


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return members


def _is_old_tar(block: bytes) -> bool:
    """Whether `block` is a tar header without a magic number: its checksum says so."""
    try:
        recorded = int(block[148:156].strip(b"\0 "), 8)
    except ValueError:
        return False
    return len(block) >= 512 and recorded == sum(block[:148]) + 8 * 32 + sum(block[156:512])


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
