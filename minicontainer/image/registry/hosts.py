"""Which hosts are asked for an image, and on what terms: mirrors, plain http, proxies.

Pure decisions over settings and names; nothing here opens a connection.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urljoin, urlsplit

from minicontainer.errors import RegistryError, UsageError
from minicontainer.image.auth import Places
from minicontainer.image.reference import HUB, is_registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Mapping
    from typing import Any
else:
    from minicontainer.tuples import namedtuple

CERTIFICATES = ("/etc/minicontainer/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")

# insecure: --insecure, for whatever host; insecure_registries: hosts, host:port, CIDR; mirrors:
# registry -> URLs; proxies: the table of the configuration or None; certificates: directories of
# certs.d; parallel: layers at once; stall_seconds: the longest silence; retry_seconds: the first
# pause; longest_wait: the most that Retry-After may ask for; credential: instead of a search.
Settings = namedtuple(
    "Settings",
    "places insecure insecure_registries blocked mirrors proxies certificates parallel"
    " stall_seconds retry_seconds longest_wait credential",
    defaults=(
        Places("", {}, "", ""),
        False,
        (),
        (),
        {},
        None,
        CERTIFICATES,
        3,
        60.0,
        0.5,
        60.0,
        None,
    ),
)

# name: as in certs.d and auth files; prefix: before the repository; may_http: plain http will do.
Endpoint = namedtuple("Endpoint", "name host port prefix is_mirror may_http verify")

# target: path and query.
Url = namedtuple("Url", "scheme host port target")

Proxy = namedtuple("Proxy", "host port authorization")  # user:password or ""

_PORTS = {"http": 80, "https": 443}
_HUB_HOST = "registry-1.docker.io"
LONGEST_URL = 16 << 10


def settings_from(
    configuration: Mapping[str, Any], places: Places, *, insecure: bool = False
) -> Settings:
    """The settings in a configuration with the keys of Docker's daemon.json."""
    mirrors = {HUB: list(configuration.get("registry-mirrors") or [])}
    for registry, urls in (configuration.get("mirrors") or {}).items():
        mirrors.setdefault(registry, []).extend(urls)
    return Settings(
        places=places,
        insecure=insecure,
        insecure_registries=tuple(configuration.get("insecure-registries") or ()),
        mirrors=mirrors,
        proxies=configuration.get("proxies"),
        parallel=max(1, int(configuration.get("max-concurrent-downloads") or 3)),
    )


def endpoints(registry: str, settings: Settings) -> list[Endpoint]:
    """Whom to ask for images of `registry`, in order; the registry itself is the last."""
    if any(_names_host(pattern, registry) for pattern in settings.blocked):
        raise RegistryError(f"the registry {registry} is blocked by the configuration")
    found = [_mirror(url, settings) for url in settings.mirrors.get(registry, ())]
    host, port = split_host(_HUB_HOST if registry == HUB else registry)
    return [*found, _endpoint(registry, host, port, "", False, settings)]


def _mirror(url: str, settings: Settings) -> Endpoint:
    scheme, separator, rest = url.partition("://")
    name, _, prefix = (rest if separator else scheme).strip("/").partition("/")
    if not is_registry(name) or (separator and scheme not in _PORTS):
        raise UsageError(f"mirror {url!r}: not a URL of a registry")
    host, port = split_host(name)
    endpoint = _endpoint(name, host, port, f"{prefix}/" if prefix else "", True, settings)
    if scheme == "http" and separator:
        if not endpoint.may_http:
            raise UsageError(f"mirror {url!r} is plain http", hint="add it to insecure-registries")
        return endpoint._replace(port=port or 80)
    return endpoint


def _endpoint(
    name: str, host: str, port: int | None, prefix: str, is_mirror: bool, settings: Settings
) -> Endpoint:
    insecure = settings.insecure or is_insecure(host, port, settings)
    return Endpoint(
        name, host, port, prefix, is_mirror, insecure or is_loopback(host), not insecure
    )


def split_host(text: str) -> tuple[str, int | None]:
    """Host (an IPv6 address without brackets) and port of a registry's name."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port[1:]) if port else None
    host, _, port = text.partition(":")
    return host, int(port) if port else None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its very name or address."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and bool(address.is_loopback)


def is_inward(host: str) -> bool:
    """Whether `host` is this machine or link-local (where clouds keep their secrets)."""
    address = _address(host)
    if address is None:
        return is_loopback(host)
    kinds = ("is_loopback", "is_link_local", "is_unspecified", "is_multicast")
    return any(getattr(address, kind) for kind in kinds)


def is_insecure(host: str, port: int | None, settings: Settings) -> bool:
    """Whether the configuration lets `host` be asked without TLS, or with any certificate."""
    return any(_fits(entry, host, port) for entry in settings.insecure_registries)


def _fits(pattern: str, host: str, port: int | None) -> bool:
    """Whether a host, host:port, address or CIDR of a configuration means this host."""
    network = _network(pattern)
    address = _address(host)
    if network is not None:
        return address is not None and bool(address in network)
    if not is_registry(pattern):
        return False
    wanted_host, wanted_port = split_host(pattern)
    return wanted_host.lower() == host.lower() and wanted_port in (None, port)


def _names_host(pattern: str, registry: str) -> bool:
    host, port = split_host(registry)
    return pattern == registry or _fits(pattern, host, port)


def _address(host: str) -> Any:
    """An IPv4Address or IPv6Address (the mapped IPv4 one, if it is one), None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


# URLs


def parse_url(text: str, base: Url | None = None) -> Url:
    """The http or https URL in `text`, relative to `base`. Raises RegistryError."""
    shown = repr(text.rpartition("@")[2][:100])  # no passwords
    if len(text) > LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise RegistryError(f"a registry names a malformed URL: {shown}")
    try:
        parts = urlsplit(urljoin(url_text(base), text) if base else text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RegistryError(f"a registry names a malformed URL: {shown}") from None
    bracketed = f"[{host}]" if ":" in host else host
    if parts.scheme not in _PORTS or not is_registry(bracketed) or parts.username is not None:
        raise RegistryError(f"a registry names a URL that is not followed: {shown}")
    target = parts.path or "/"
    return Url(
        parts.scheme,
        host,
        port or _PORTS[parts.scheme],
        f"{target}?{parts.query}" if parts.query else target,
    )


def url_text(url: Url, *, query: bool = True) -> str:
    """The URL as text; without the query for messages, where it may be a signature."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port == _PORTS[url.scheme] else f":{url.port}"
    target = url.target if query else url.target.partition("?")[0]
    return f"{url.scheme}://{host}{port}{target}"


def authority(url: Url) -> str:
    """Host and, unless it is that of https, port: the name of a directory in certs.d."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return host if url.port == 443 else f"{host}:{url.port}"


def same_origin(left: Url, right: Url) -> bool:
    """Whether both are one server, so that one's credentials may go to the other."""
    return tuple(left[:3]) == tuple(right[:3])


def check_followed(url: Url, origin: Url, settings: Settings, what: str) -> None:
    """Raises RegistryError if a registry at `origin` may not send us to `url`.

    Plain http only to hosts that may have it; from a public host never to this machine or to
    link-local addresses.
    """
    shown = url_text(url, query=False)
    same_host = url.host == origin.host
    if is_inward(url.host) and not (same_host or is_loopback(origin.host)):
        raise RegistryError(f"{what} {shown} leads from {origin.host} into this machine: refused")
    may_http = is_loopback(url.host) or settings.insecure
    if url.scheme == "http" and not (may_http or is_insecure(url.host, url.port, settings)):
        raise RegistryError(
            f"{what} {shown} is plain http: refused",
            hint=f"if that is meant, add {url.host} to insecure-registries",
        )


# Proxies


def proxy_for(scheme: str, host: str, port: int, settings: Settings) -> Proxy | None:
    """The proxy for a connection, None for a direct one. Raises UsageError for a bad setting."""
    if is_loopback(host):
        return None
    environment = settings.places.environment
    table = settings.proxies or {}
    configured = table.get(f"{scheme}-proxy", "")
    excluded = table.get("no-proxy", "")
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
        configured = configured or environment.get(name, "")
    for name in ("no_proxy", "NO_PROXY"):
        excluded = excluded or environment.get(name, "")
    if not configured or is_excluded(host, port, excluded):
        return None
    return _parse_proxy(configured)


def is_excluded(host: str, port: int, no_proxy: str) -> bool:
    """Whether a NO_PROXY list covers `host`: *, host and below, .suffix, host:port, CIDR."""
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*" or _fits(entry, host, port):
            return True
        name, _, only = entry.rpartition(":")
        if name and only.isdigit() and "]" not in only:
            if int(only) != port:
                continue
            entry = name
        if host.endswith(entry if entry.startswith(".") else f".{entry}"):
            return True
    return False


def _parse_proxy(text: str) -> Proxy:
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        where = f"{parts.scheme}://{parts.hostname or ''}"
        raise UsageError(f"the proxy {where} cannot be used: only http://HOST:PORT is spoken")
    user = unquote(parts.username or "")
    return Proxy(parts.hostname, port, f"{user}:{unquote(parts.password or '')}" if user else "")
