"""Bringing an image from a registry into the store: several layers at once, each one checked.

Nothing has a name before everything it reaches is in the store, so a pull may be killed at any
moment: what it had is garbage, or a partial blob from which the next one goes on.  The caller's
`progress` is called in the caller's own thread with events in Docker's words: `{"id", "status",
"current", "total"}`, the last two only where there is something to count.
"""

from __future__ import annotations

import os

from minicontainer import steps
from minicontainer.errors import DigestMismatch, ImageError, NotFound
from minicontainer.image import media, platforms, reference
from minicontainer.image.blobs import digest_of
from minicontainer.image.download import Downloads, fetch
from minicontainer.image.registry import Client
from minicontainer.image.store import REPO_DIGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Callable
    from typing import Any

    from minicontainer.image.platforms import Platform
    from minicontainer.image.reference import Reference
    from minicontainer.image.registry import Settings
    from minicontainer.image.store import Image, Store

    Progress = Callable[[dict[str, Any]], None]
else:
    from minicontainer.tuples import namedtuple

# descriptor: mediaType, digest, size of the manifest; origin: the digest the registry has for the
# reference, which is that of an index if it was one.
Resolved = namedtuple("Resolved", "data manifest descriptor origin")

DEEPEST_INDEX = 4
# Kept free on the disk: what a pull may not fill.
RESERVE_BYTES = 16 << 20


def pull(
    store: Store,
    wanted: Reference,
    platform: Platform | None,
    settings: Settings,
    progress: Progress,
) -> Image:
    """The image that `wanted` names, complete in the store and under its name.

    platform: None for the host's own, where a foreign image costs a warning only.
    Raises RegistryError, ImageError, KernelError; KeyboardInterrupt stops every thread first.
    """
    store.prepare()
    progress({"id": wanted.tag or wanted.digest, "status": f"Pulling from {wanted.repository}"})
    client = Client(wanted.registry, wanted.repository, settings)
    try:
        with store.hold():
            resolved = resolve(client, wanted, platform or platforms.host())
            config_data = _config_data(client, store, resolved.manifest["config"])
            config = media.parse_config(config_data, len(resolved.manifest["layers"]))
            _check_platform(config, platform, reference.familiar(wanted))
            _layers(client, store, resolved, config, settings.parallel, progress)
            store.put(config_data, resolved.manifest["config"]["digest"])
            store.put(resolved.data, resolved.descriptor["digest"])
            before = _digest_in_store(store, wanted)
            image = store.add_image(
                resolved.descriptor,
                [name_in_store(wanted)],
                {REPO_DIGEST: f"{reference.name(wanted)}@{resolved.origin}"},
            )
    finally:
        client.close()
    progress({"status": f"Digest: {resolved.origin}"})
    fresh = "Image is up to date" if before == image.digest else "Downloaded newer image"
    progress({"status": f"Status: {fresh} for {reference.familiar(wanted)}"})
    return image


def name_in_store(wanted: Reference) -> str:
    """What the image will be called: a digest beats a tag, as in Docker."""
    return reference.canonical(wanted._replace(tag="") if wanted.digest else wanted)


def resolve(client: Client, wanted: Reference, platform: Platform) -> Resolved:
    """The manifest for `platform`, through an index if the reference names one."""
    asked, expected, origin = wanted.digest or wanted.tag, wanted.digest, ""
    announced: dict[str, Any] = {}
    for _ in range(DEEPEST_INDEX):
        found = client.manifest(asked)
        digest = digest_of(found.data)
        _check_digest(found, digest, expected, announced)
        origin = origin or digest
        document = media.parse_manifest(found.data, found.media_type)
        kind = media.manifest_type(document, found.media_type)
        if announced and announced["mediaType"] != kind:
            raise ImageError(f"{digest} is {kind}, its index says {announced['mediaType']}")
        if not media.is_index(kind):
            descriptor = {"mediaType": kind, "digest": digest, "size": len(found.data)}
            return Resolved(found.data, document, descriptor, origin)
        announced = media.select(document, platform)
        asked = expected = announced["digest"]
    raise ImageError(f"{reference.familiar(wanted)}: indexes in indexes, {DEEPEST_INDEX} deep")


def _check_digest(found: Any, digest: str, expected: str, announced: dict[str, Any]) -> None:
    """See that a manifest is the one asked for, and the one that its own header says."""
    if expected and digest != expected:
        raise DigestMismatch(f"the manifest {expected} comes with the content of {digest}")
    if reference.is_digest(found.digest) and digest != found.digest:
        raise DigestMismatch(f"the manifest's content is {digest}, its header says {found.digest}")
    if announced and announced["size"] != len(found.data):
        raise DigestMismatch(
            f"the manifest {digest} has {len(found.data)} bytes, its index says {announced['size']}"
        )


def _config_data(client: Client, store: Store, descriptor: dict[str, Any]) -> bytes:
    """The bytes of the image config, verified; not yet in the store, for they may be poison."""
    digest, size = descriptor["digest"], descriptor["size"]
    if store.has_blob(digest, size):
        return store.read_blob(digest, media.LARGEST_DOCUMENT)
    pieces: list[bytes] = []
    fetch(client, digest, size, 0, lambda view: pieces.append(bytes(view)))
    data = b"".join(pieces)
    found = digest_of(data)
    if found != digest:
        raise DigestMismatch(f"the image config {digest} comes with the content of {found}")
    return data


def _check_platform(config: dict[str, Any], asked: Platform | None, name: str) -> None:
    offered = platforms.of(config)
    wanted = asked or platforms.host()
    if offered is None or platforms.runs(offered, wanted):
        return
    text = f"is for {platforms.text(offered)}, not {platforms.text(wanted)}"
    if asked is not None:
        raise ImageError(f"the image {name} {text}")
    steps.warn(f"the image {name} {text}: it runs only where the kernel can emulate that")


def _digest_in_store(store: Store, wanted: Reference) -> str:
    """The manifest digest that the name has now, "" if the store does not know it."""
    try:
        return str(store.find(name_in_store(wanted)).digest)
    except NotFound:
        return ""


def _layers(
    client: Client,
    store: Store,
    resolved: Resolved,
    config: dict[str, Any],
    parallel: int,
    progress: Progress,
) -> None:
    """Every layer of the manifest in the store, unpacked."""
    missing: list[tuple[dict[str, Any], str]] = []
    seen = set()
    for layer, diff_id in zip(resolved.manifest["layers"], config["rootfs"]["diff_ids"]):
        if (layer["digest"], diff_id) in seen:
            continue
        seen.add((layer["digest"], diff_id))
        name = short(layer["digest"])
        if store.has_blob(layer["digest"], layer["size"]) and store.layer_path(diff_id):
            progress({"id": name, "status": "Already exists"})
            continue
        progress({"id": name, "status": "Pulling fs layer"})
        missing.append((layer, diff_id))
    _check_space(store, [layer for layer, _ in missing])
    for layer, _ in missing[parallel:]:
        progress({"id": short(layer["digest"]), "status": "Waiting"})
    if missing:
        Downloads(client, store, missing, parallel).run(progress)


def _check_space(store: Store, layers: list[dict[str, Any]]) -> None:
    """Refuse what cannot fit before an hour of downloading."""
    needed = sum(layer["size"] for layer in layers if not store.has_blob(layer["digest"]))
    try:
        facts = os.statvfs(store.paths.tmp)
    except OSError:
        return  # writing will say it
    free = facts.f_bavail * facts.f_frsize
    if needed > max(0, free - RESERVE_BYTES):
        raise ImageError(
            f"the layers need {needed} bytes and there are {free} free below {store.paths.root}",
            hint="minicontainer prune frees what nothing uses",
        )


def short(digest: str) -> str:
    """What a layer is called in progress lines."""
    return digest[7:19]
