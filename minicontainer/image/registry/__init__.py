"""The registry client: the only part of the program that speaks HTTP.

    hosts         which hosts, on what terms: mirrors, plain http, proxies (pure)
    certificates  TLS contexts, certs.d
    wire          metered connections                failures  errors in one line
    tokens        the Authorization header           client    manifests and blobs
    remote        a file at a URL                    registries_conf  settings of containers-*

Authentication data is `image/auth.py`'s, what to do with the bytes `image/pull.py`'s.
"""

from __future__ import annotations

from minicontainer.image.auth import Credential, Places
from minicontainer.image.registry import failures
from minicontainer.image.registry.client import Cancelled, Client, Document
from minicontainer.image.registry.hosts import Settings, settings_from
from minicontainer.image.registry.remote import RemoteFile

__all__ = [
    "Cancelled",
    "Client",
    "Credential",
    "Document",
    "Places",
    "RemoteFile",
    "Settings",
    "check_login",
    "failures",
    "settings_from",
]


def check_login(registry: str, username: str, password: str, settings: Settings) -> None:
    """Raises RegistryError unless the registry takes the username and password."""
    credential = Credential(username, password, "", "the command line")
    client = Client(registry, "", settings._replace(credential=credential, mirrors={}))
    try:
        client.ping()
    finally:
        client.close()
