"""Images as the verbs use them: the store of one pair of roots, and which containers need what.

A container's record names the image (`image_id`) and the layers (`layers`, diffIDs) it stands on;
they stay while it exists, whatever becomes of the image's names.  The store itself is `image`'s.
"""

from __future__ import annotations

import os

from minicontainer.engine import records, times
from minicontainer.errors import Conflict, ImageError, NotFound, UsageError
from minicontainer.image import platforms, reference
from minicontainer.image.store import Image, Store
from minicontainer.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from minicontainer.engine.records import Container
    from minicontainer.image.auth import Places
    from minicontainer.image.platforms import Platform
    from minicontainer.image.registry import Settings

    Facts = dict[str, Any]
    Progress = Callable[[Facts], None]

# Told what `for_run` pulls; the command line puts its own here.
listener: Progress | None = None


def open_store(paths: Paths) -> Store:
    """The store to write to; the state directory is made if it is missing, refused if foreign."""
    records.prepare(paths)
    return Store(paths)


def look_into(paths: Paths) -> Store:
    """The store to read from; nothing is made."""
    if os.path.lexists(paths.version):
        records.prepare(paths)
    return Store(paths)


# ---------------------------------------------------------------------------- who needs what


def in_use(containers: Iterable[Container]) -> set[str]:
    """The image ids and diffIDs that containers stand on."""
    found: set[str] = set()
    for container in containers:
        found.update(text for text in container.record.get("layers") or () if text)
        found.add(str(container.record.get("image_id") or ""))
    return found - {""}


def users(paths: Paths, image: Image) -> list[Container]:
    """The containers made from an image, the running ones first."""
    if not image.id:
        return []
    found = [one for one in records.load_all(paths) if one.record.get("image_id") == image.id]
    return sorted(found, key=lambda one: not (one.running or one.monitored))


def collect(paths: Paths, store: Store) -> list[tuple[str, str, int]]:
    """Remove the layers and blobs that neither an image nor a container needs."""
    # Asked under the collector's lock: a container may have been made since.
    return store.collect(lambda: in_use(records.load_all(paths)))


# ------------------------------------------------------------------------------- registries


def places(authfile: str = "") -> Places:
    """Where this process looks for credentials."""
    from minicontainer.image.auth import Places

    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        home = _home_of(os.geteuid())
    caller = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    caller_home = _home_of(int(caller)) if caller.isascii() and caller.isdigit() else ""
    return Places(authfile, os.environ, home, "" if caller_home == home else caller_home)


def _home_of(user: int) -> str:
    """A user's home directory on this host; "" if there is none."""
    import pwd

    try:
        return pwd.getpwuid(user).pw_dir.rstrip("/")
    except (KeyError, OverflowError):
        return ""


def settings(*, authfile: str = "", insecure: bool = False) -> Settings:
    """How registries are spoken to."""
    from minicontainer.image.registry import registries_conf, settings_from

    return registries_conf.add(settings_from({}, places(authfile), insecure=insecure))


def pull(
    paths: Paths,
    text: str,
    platform: str | None,
    progress: Progress,
    how: Settings | None = None,
) -> Image:
    """Bring the image that `text` names. Raises UsageError, RegistryError, ImageError."""
    from minicontainer.image import pull as pulling

    wanted = reference.parse(text)
    chosen = platforms.parse(platform) if platform else None
    return pulling.pull(open_store(paths), wanted, chosen, how or settings(), progress)


def for_run(paths: Paths, options: Facts, progress: Progress | None = None) -> Image:
    """The image of a new container; pulled as `options["pull"]` says.

    progress: told of a pull; by default `listener`.  Hold the store until the container has its
    record, lest the layers be collected meanwhile.
    """
    text, policy = options["image"], options.get("pull") or "missing"
    progress = progress or listener or (lambda event: None)
    platform = platforms.parse(options["platform"]) if options.get("platform") else None
    if policy != "always":
        found = _present(paths, text, platform)
        if found is not None:
            return found
    wanted = reference.parse(text)
    if policy == "never":
        raise NotFound(f"No such image: {text}", hint="without --pull never it would be pulled")
    if policy == "missing":
        progress({"status": f"Unable to find image '{reference.familiar(wanted)}' locally"})
    return pull(paths, text, options.get("platform"), progress)


def _present(paths: Paths, text: str, platform: Platform | None) -> Image | None:
    try:
        image = look_into(paths).find(text)
    except NotFound:
        return None
    if image.broken:
        raise ImageError(
            f"the image {text} cannot be used: {image.broken}",
            hint="pull it again, or remove it with minicontainer rmi",
        )
    offered = platforms.of(image.config)
    if platform and offered and not platforms.runs(offered, platform):
        return None
    return image


# --------------------------------------------------------------------------------- removing


def remove(paths: Paths, text: str, *, force: bool = False, prune: bool = True) -> list[str]:
    """Take the name `text` away, and the image with its last name; lines that say what went.

    An image with containers is refused unless forced; one whose containers run keeps its place,
    without a name.  Raises NotFound, Conflict.
    """
    store = look_into(paths)
    image = store.find(text)
    name = name_meant(image, text)
    if name and len(image.names) > 1:
        store.untag(name)
        return [f"Untagged: {reference.familiar(reference.parse(name))}"]
    _check_names(image, text, name, force=force)
    needing = users(paths, image)
    running = [one for one in needing if one.running or one.monitored]
    if needing and not force:
        raise _in_use(image, text, name, needing[0])
    if running and not image.names:
        raise _in_use(image, text, name, running[0])
    lines = [f"Untagged: {familiar(one)}" for one in image.names]
    if running:
        for one in image.names:
            store.untag(one)
        return lines
    store.remove(image)
    for other in store.images():  # the same image, its layers packed otherwise
        if image.id and other.id == image.id and not other.names:
            store.remove(other)
    lines += [f"Untagged: {familiar(one)}" for one in image.repo_digests if image.names]
    lines.append(f"Deleted: {image.id or image.digest}")
    if prune:
        lines += [f"Deleted: {one}" for kind, one, _ in collect(paths, store) if kind == "layer"]
        _empty_trash(paths)
    return list(dict.fromkeys(lines))


def name_meant(image: Image, text: str) -> str:
    """The name of the image that `text` is, "" if it is an id."""
    if text in image.names:
        return text
    try:
        wanted = reference.parse(text)
    except UsageError:
        return ""
    name = reference.canonical(wanted)
    if name in image.names:
        return name
    if wanted.digest:
        for one in image.names:
            if one.startswith((f"{reference.name(wanted)}:", f"{reference.name(wanted)}@")):
                return one
    return ""


def _check_names(image: Image, text: str, name: str, *, force: bool) -> None:
    """Refuse an id that several repositories name."""
    repositories = {_repository(one) for one in image.names}
    if not name and not force and len(repositories) > 1:
        raise Conflict(
            f"conflict: unable to delete {text} (must be forced) - image is referenced in multiple "
            "repositories",
            hint="remove the names one by one, or use -f",
        )


def _repository(name: str) -> str:
    return name.partition("@")[0].rpartition(":")[0] or name


def _in_use(image: Image, text: str, name: str, container: Container) -> Conflict:
    running = container.running or container.monitored
    image_id, user = image.id[7:19], container.id[:12]
    if running and not image.names:
        reason = "(cannot be forced) - image is being used by running container"
        return Conflict(f"conflict: unable to delete {image_id} {reason} {user}")
    verb = "remove repository reference" if name else "delete"
    state = "running" if running else "stopped"
    return Conflict(
        f"conflict: unable to {verb} {f'{text!r}' if name else image_id} (must force) - "
        f"{state} container {user} is using its image {image_id}",
        hint=f"remove the container with minicontainer rm {user}, or use -f",
    )


def familiar(name: str) -> str:
    """A canonical name as people write it; another program's name as it is."""
    try:
        return reference.familiar(reference.parse(name))
    except UsageError:
        return name


def _empty_trash(paths: Paths) -> None:
    from minicontainer.engine import prune

    prune.reap_in_background(paths)


# ---------------------------------------------------------------------------------- looking


def inspect(store: Store, image: Image) -> Facts:
    """What `inspect` shows of an image, in the shape of Docker's Engine API."""
    config = image.config
    top = [store.layer_path(one) for one in dict.fromkeys(reversed(image.diff_ids))]
    data = {
        "LowerDir": ":".join(path for path in top[1:] if path),
        "UpperDir": top[0] if top else "",
    }
    return {
        "Id": image.id or image.digest,
        "RepoTags": [familiar(name) for name in image.names if "@" not in name],
        "RepoDigests": [familiar(name) for name in image.repo_digests],
        "Parent": "",
        "Comment": _comment(config),
        "Created": image.created or times.ZERO,
        "DockerVersion": "",
        "Author": config.get("author") or "",
        "Config": {**_NO_CONFIG, **(config.get("config") or {})},
        "Architecture": config.get("architecture") or "",
        "Variant": config.get("variant") or "",
        "Os": config.get("os") or "",
        "Size": size(image),
        "GraphDriver": {"Data": data, "Name": "overlay"},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": times.ZERO},
        "Descriptor": image.descriptor,
        **({"Broken": image.broken} if image.broken else {}),
    }


_NO_CONFIG: Facts = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def _comment(config: Facts) -> str:
    history = config.get("history") or []
    return str(history[-1].get("comment") or "") if history else ""


def moment(stamp: str) -> float:
    """Seconds since 1970 of a time in an image's config, of any zone; 0.0 for none or nonsense."""
    offset = 0
    zone = stamp[-6:]
    try:
        if zone[:1] in ("+", "-") and zone[3:4] == ":":
            offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * (60 if zone[0] == "+" else -60)
            stamp = stamp[:-6]
        return max(0.0, times.seconds(stamp) - offset)
    except ValueError:
        return 0.0


def size(image: Image) -> int:
    """Bytes of an image's unpacked files; what is damaged counts nothing."""
    try:
        return image.size
    except ImageError:
        return 0


def history(store: Store, image: Image) -> list[Facts]:
    """The steps that made an image, the newest first: created, created_by, comment, size."""
    left = list(image.diff_ids)
    found = []
    for entry in image.config.get("history") or [{} for _ in left]:
        bytes_of = 0
        if not entry.get("empty_layer") and left:
            bytes_of = _layer_size(store, left.pop(0))
        found.append({**entry, "size": bytes_of})
    found += [{"size": _layer_size(store, diff_id)} for diff_id in left]
    return found[::-1]


def _layer_size(store: Store, diff_id: str) -> int:
    try:
        layer = store.layers.load(diff_id)
    except ImageError:
        return 0
    return int(layer.record["bytes"]) if layer else 0
