"""Reading one repository: manifests and blobs, from a mirror or the registry itself.

Distribution specification v1.1, the pull half.  Retries, redirects and fall-backs live here; what
comes is not trusted by anybody before its digest was computed.
"""

from __future__ import annotations

import random
import threading

from minicontainer.errors import DigestMismatch, Error, RegistryError
from minicontainer.image import media
from minicontainer.image.reference import Reference, familiar_name
from minicontainer.image.registry import failures, hosts
from minicontainer.image.registry.tokens import Authorizer
from minicontainer.image.registry.wire import Cancelled, TooMuch, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
    from collections.abc import Iterator
    from typing import Any

    from minicontainer.image.registry.hosts import Endpoint, Settings, Url
    from minicontainer.image.registry.wire import Response
else:
    from minicontainer.tuples import namedtuple

# As it came: media_type is the header's, digest that of Docker-Content-Digest, "" if there is none.
Document = namedtuple("Document", "data media_type digest")

MOST_REDIRECTS = 5
MOST_RETRIES = 5
_MIRROR_RETRIES = 1
_LONGEST_PAUSE = 30.0


class _Host:
    """An endpoint with what was learnt about it: its scheme and what authorization it wants."""

    def __init__(self, endpoint: Endpoint, authorizer: Authorizer) -> None:
        self.endpoint = endpoint
        self.authorizer = authorizer
        self.scheme = ""  # not known yet
        self.lock = threading.Lock()

    def url(self, scheme: str, target: str) -> Url:
        port = self.endpoint.port or {"http": 80, "https": 443}[scheme]
        return hosts.Url(scheme, self.endpoint.host, port, target)


class Client:
    """One repository of one registry, for several threads. Close it."""

    def __init__(self, registry: str, repository: str, settings: Settings) -> None:
        self.wire = Wire(settings)
        self.name = familiar_name(Reference(registry, repository, "", ""))
        self._repository = repository
        self._settings = settings
        self._hosts = [
            _Host(endpoint, Authorizer(self.wire, endpoint, endpoint.prefix + repository))
            for endpoint in hosts.endpoints(registry, settings)
        ]

    def manifest(self, reference: str) -> Document:
        """The manifest or index of a tag or digest, of whatever kind the registry has it."""

        def read(response: Response) -> Document:
            if response.header("Content-Encoding").strip().lower() not in ("", "identity"):
                raise RegistryError(f"the manifest of {self.name} comes encoded, unasked: refused")
            kind = response.header("Content-Type").partition(";")[0].strip().lower()
            media.refuse_manifest_type(None if kind in _VAGUE else kind)
            data = response.read_document(media.LARGEST_DOCUMENT)
            digest = response.header("Docker-Content-Digest").strip()
            return Document(data, None if kind in _VAGUE else kind, digest)

        accept = {"Accept": media.ACCEPT}
        found = self._first(f"manifests/{reference}", accept, read)
        assert isinstance(found, Document)
        return found

    def blob(self, digest: str, size: int, start: int = 0) -> Response:
        """A response whose body is the blob from byte `start` on; close it.

        The server may not know about ranges: what precedes `start` is then already read away.
        Raises DigestMismatch if the size announced is another one.
        """

        def check(response: Response) -> Response:
            _check_range(response, digest, size, start)
            return response

        headers = {"Range": f"bytes={start}-"} if start else {}
        found: Response = self._first(f"blobs/{digest}", headers, check, keep=True)
        return found

    def ping(self) -> None:
        """Raises RegistryError unless the registry lets us in with the credentials we have."""
        host = self._hosts[-1]
        with self._persist(host, "/v2/", {}) as response:
            if response.status != 200:
                code, message = failures.describe(response)
                text = f"unauthorized: {message or 'incorrect username or password'}"
                if response.status not in (401, 403):
                    text = f"{host.endpoint.name} answers {response.status} to a login: {message}"
                raise RegistryError(text, status=response.status, code=code)

    def close(self) -> None:
        self.wire.close()

    def _first(self, path: str, headers: dict[str, str], read: Any, *, keep: bool = False) -> Any:
        """What `read` makes of the answer of the first endpoint that has one."""
        for host in self._hosts:
            target = f"/v2/{host.endpoint.prefix}{self._repository}/{path}"
            try:
                return self._read(host, target, headers, read, keep=keep)
            except Cancelled:
                raise
            except Error:
                if not host.endpoint.is_mirror:
                    raise
        raise AssertionError("the registry itself is always the last endpoint")

    def _read(
        self, host: _Host, target: str, headers: dict[str, str], read: Any, *, keep: bool
    ) -> Any:
        attempts = self._pauses(host)
        while True:
            response = self._persist(host, target, headers)
            try:
                if response.status not in (200, 206):
                    raise failures.from_response("GET", response, self.name)
                found = read(response)
            except failures.BROKEN as failure:
                response.close()
                if not failures.is_passing(failure) or not self._wait(attempts, None):
                    raise failures.from_exception("GET", response.url, failure) from failure
            except BaseException:
                response.close()
                raise
            else:
                if not keep:
                    response.close()
                return found

    def _persist(self, host: _Host, target: str, headers: dict[str, str]) -> Response:
        """An answer that trying again would not change."""
        attempts = self._pauses(host)
        while True:
            try:
                response = self._exchange(host, target, headers)
            except failures.BROKEN as failure:
                if failures.is_passing(failure) and self._wait(attempts, None):
                    continue
                url = host.url(host.scheme or "https", target)
                raise failures.from_exception("GET", url, failure) from failure
            if response.status not in failures.RETRIED:
                return response
            asked = failures.retry_after(response)
            if asked is not None and asked > self._settings.longest_wait:
                return response
            if not self._wait(attempts, asked):
                return response
            response.drain()

    def _pauses(self, host: _Host) -> Iterator[float]:
        """Longer and longer seconds to wait between attempts, as many as there may be."""
        pause = self._settings.retry_seconds
        for _ in range(_MIRROR_RETRIES if host.endpoint.is_mirror else MOST_RETRIES):
            yield pause * random.uniform(0.75, 1.25)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _wait(self, attempts: Iterator[float], asked: float | None) -> bool:
        pause = next(attempts, None)
        if pause is None:
            return False
        self.wire.pause(pause if asked is None else asked)
        return True

    def _exchange(self, host: _Host, target: str, headers: dict[str, str]) -> Response:
        """One answer: authorized if the registry wants that, redirects followed."""
        for _ in range(3):  # without, with the old, with a new token
            sent = host.authorizer.header()
            authorization = {"Authorization": sent} if sent else {}
            response = self._open(host, target, {**headers, **authorization})
            origin = response.url
            response = self._follow(host, response, headers)
            if response.status != 401 or not hosts.same_origin(response.url, origin):
                return response
            try:
                again = host.authorizer.answer(response, sent)
            except BaseException:
                response.close()
                raise
            if not again:
                return response
            response.drain()
        raise RegistryError(
            f"{host.endpoint.name} refuses the tokens that it asks for", method="GET", status=401
        )

    def _open(self, host: _Host, target: str, headers: dict[str, str]) -> Response:
        """The answer of the endpoint itself, by https or where that may be by http."""
        if host.scheme:
            return self._send(host, host.url(host.scheme, target), headers)
        with host.lock:
            try:
                response = self._send(host, host.url("https", target), headers)
                host.scheme = "https"
            except failures.BROKEN as failure:
                if not host.endpoint.may_http or not failures.is_no_tls(failure):
                    raise
                # A token that was meant for TLS cannot be among the headers yet.
                response = self._send(host, host.url("http", target), headers)
                host.scheme = "http"
            return response

    def _send(self, host: _Host, url: Url, headers: dict[str, str]) -> Response:
        endpoint = host.endpoint
        return self.wire.request(
            "GET", url, headers, name=endpoint.name, verify=endpoint.verify, inward=True
        )

    def _follow(self, host: _Host, response: Response, headers: dict[str, str]) -> Response:
        """Where redirects end. Credentials stay with the host they were for."""
        origin = response.url
        for _ in range(MOST_REDIRECTS):
            if response.status not in failures.REDIRECTS:
                return response
            response.drain()
            location = response.header("Location")
            if not location:
                raise RegistryError(f"{self.name}: a redirect without Location", status=502)
            url = hosts.parse_url(location, response.url)
            hosts.check_followed(url, origin, self._settings, "the redirect to")
            same = hosts.same_origin(url, origin)
            sent = host.authorizer.header() if same else ""
            authorization = {"Authorization": sent} if sent else {}
            response = self.wire.request(
                "GET",
                url,
                {**headers, **authorization},
                name=host.endpoint.name if same else "",
                verify=host.endpoint.verify or not same,
                inward=url.host == origin.host or hosts.is_loopback(origin.host),
            )
        if response.status in failures.REDIRECTS:
            response.close()
            raise RegistryError(f"{self.name}: more than {MOST_REDIRECTS} redirects", status=502)
        return response


# What servers say that do not know what they serve.
_VAGUE = ("", "application/json", "text/plain", media.OCTETS)


def _check_range(response: Response, digest: str, size: int, start: int) -> None:
    """See that the body is the blob from `start` on, of the size that its descriptor gives."""
    coming = size
    if response.status == 206:
        coming = size - start
        place = response.header("Content-Range").replace(" ", "").lower()
        if not place.startswith(f"bytes{start}-") or not place.endswith((f"/{size}", "/*")):
            raise DigestMismatch(f"{digest}: the registry sends another range than was asked for")
    if response.length is not None and response.length != coming:
        raise DigestMismatch(
            f"{digest}: the registry has {response.length} bytes of it, its manifest says {coming}"
        )
    response.expect(coming)
    if response.status == 200 and start:
        _skip(response, start)


def _skip(response: Response, count: int) -> None:
    view = memoryview(bytearray(min(count, 1 << 18)))
    while count:
        came = response.readinto(view[: min(count, len(view))])
        if not came:
            raise failures.early_end(count)
        count -= came


__all__ = ["Cancelled", "Client", "Document", "TooMuch"]
