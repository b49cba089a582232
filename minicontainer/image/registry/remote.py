"""A file at an http or https URL, read once from beginning to end: what `import URL` reads.

No credentials, no retries; proxies, limits on silence and certificates as for registries.
"""

from __future__ import annotations

from minicontainer.errors import RegistryError
from minicontainer.image.registry import failures, hosts
from minicontainer.image.registry.wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.image.registry.hosts import Settings, Url
    from minicontainer.image.registry.wire import Response

_MOST_REDIRECTS = 5
_MOST_BYTES = 1 << 50


class RemoteFile:
    """The file at `text`; use it in a `with`, and `read` from it.

    Raises RegistryError for everything that goes wrong, a file cut off included.
    """

    def __init__(self, text: str, settings: Settings) -> None:
        self._settings = settings
        self._wire = Wire(settings)
        self._done = 0
        try:
            self._response = self._open(hosts.parse_url(text))
        except BaseException:
            self._wire.close()
            raise
        self._response.expect(self._response.length or _MOST_BYTES)

    @property
    def size(self) -> int | None:
        """Its bytes, None if the server does not say."""
        return self._response.length

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        view = memoryview(bytearray(size))
        url = self._response.url
        try:
            count = self._response.readinto(view)
            self._done += count
            if not count and self.size is not None and self._done < self.size:
                raise failures.early_end(self.size - self._done)
        except failures.BROKEN as failure:
            raise failures.from_exception("GET", url, failure) from failure
        return bytes(view[:count])

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(self, *unused: object) -> None:
        self._response.close()
        self._wire.close()

    def _open(self, url: Url) -> Response:
        origin = url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._ask(
                url, inward=url.host == origin.host or hosts.is_inward(origin.host)
            )
            if response.status == 200:
                return response
            location = response.header("Location")
            if response.status not in failures.REDIRECTS or not location:
                with response:
                    raise failures.from_response("GET", response, hosts.url_text(url, query=False))
            response.drain()
            url = hosts.parse_url(location, url)
            if url.scheme == "https" or origin.scheme == "https":
                hosts.check_followed(url, origin, self._settings, "the redirect to")
        raise RegistryError(f"more than {_MOST_REDIRECTS} redirects from {origin.host}")

    def _ask(self, url: Url, *, inward: bool) -> Response:
        insecure = self._settings.insecure
        verify = not insecure and not hosts.is_insecure(url.host, url.port, self._settings)
        name = hosts.authority(url)
        try:
            return self._wire.request("GET", url, {}, name=name, verify=verify, inward=inward)
        except failures.BROKEN as failure:
            raise failures.from_exception("GET", url, failure) from failure
