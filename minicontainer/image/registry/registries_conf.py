"""What /etc/containers/registries.conf adds: mirrors, insecure and blocked registries.

Read where Python has a TOML parser (3.11).  Whole registries only: an entry for a part of one, and
one whose location is another registry, is passed over; search lists are, on purpose.
Format: containers-registries.conf(5), version 2.
"""

from __future__ import annotations

import os

from minicontainer.errors import Error
from minicontainer.image.reference import is_registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.image.registry.hosts import Settings

PATH = "/etc/containers/registries.conf"
_LARGEST_BYTES = 4 << 20


def add(settings: Settings, path: str = PATH) -> Settings:
    """The settings with what the file and those in `path`.d say; the configuration's own is first.

    Raises Error for a file that cannot be understood.
    """
    import importlib

    try:
        toml = importlib.import_module("tomllib")
    except ImportError:
        return settings
    for name in (path, *_drop_ins(f"{path}.d")):
        for entry in _entries(name, toml):
            settings = _merge(settings, entry)
    return settings


def _drop_ins(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith(".conf")]


def _entries(path: str, toml: Any) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            document = toml.loads(file.read(_LARGEST_BYTES).decode("utf-8"))
    except OSError:  # missing or not ours to read
        return []
    except (ValueError, RecursionError) as failure:
        raise Error(f"{path} cannot be understood: {failure}") from None
    entries = document.get("registry", [])
    return [entry for entry in entries if isinstance(entry, dict)] if entries else []


def _merge(settings: Settings, entry: dict[str, Any]) -> Settings:
    location = entry.get("location", "")
    name = entry.get("prefix") or location
    if not isinstance(name, str) or not is_registry(name) or (location or name) != name:
        return settings
    if entry.get("insecure") is True:
        settings = settings._replace(insecure_registries=(*settings.insecure_registries, name))
    if entry.get("blocked") is True:
        settings = settings._replace(blocked=(*settings.blocked, name))
    for mirror in entry.get("mirror") or ():
        where = mirror.get("location") if isinstance(mirror, dict) else None
        if not isinstance(where, str) or not is_registry(where.partition("/")[0]):
            continue
        if mirror.get("insecure") is True:
            host = where.partition("/")[0]
            settings = settings._replace(insecure_registries=(*settings.insecure_registries, host))
        known = settings.mirrors.get(name, ())
        settings = settings._replace(mirrors={**settings.mirrors, name: [*known, where]})
    return settings
