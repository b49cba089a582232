"""HTTP connections that cannot be made to wait, read or remember without end.

`http.client` on sockets of which every read is metered: silence, dripping, headers and bodies have
limits, and another thread may break everything off.  Connections are kept for the next request to
the same host.  No retries, no redirects, no credentials: those are the client's.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import threading
import time

from minicontainer import __version__
from minicontainer.errors import RegistryError
from minicontainer.image.registry import certificates, hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any, Mapping

    from minicontainer.image.registry.hosts import Settings, Url

LARGEST_HEADERS = 64 << 10
# The fewest bytes in a time of `stall_seconds`, all of it spent waiting, that still count as life.
FEWEST_BYTES = 4096
_BUFFER = 64 << 10
_AGENT = f"minicontainer/{__version__}"


class TooMuch(http.client.HTTPException):
    """More came than any honest server would send."""


class Cancelled(Exception):
    """The pull was broken off while this thread was at it."""


class Meter(io.RawIOBase):
    """A socket to read from, with an eye on how much comes and how fast."""

    def __init__(self, sock: Any, stall_seconds: float, cancelled: threading.Event) -> None:
        super().__init__()
        self._socket = sock
        self._cancelled = cancelled
        # Holds the socket open when http.client closes its own end early.
        self._raw = sock.makefile("rb", buffering=0)
        self._stall = stall_seconds
        self._deadline: float | None = time.monotonic() + stall_seconds
        self._left = LARGEST_HEADERS + _BUFFER
        self._waited = 0.0
        self._came = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def expect(self, limit: int) -> None:
        """From now on a body comes, of at most `limit` bytes on the wire."""
        self._deadline = None
        self._left = limit
        self._waited, self._came = 0.0, 0
        self._socket.settimeout(self._stall)

    def readinto(self, view: Any) -> int:
        """Bytes as they come. A failure in a body looks like its end; `failure` has it then.

        What was read just before it would be lost otherwise, with the buffer it was going to fill.
        """
        if self._deadline is not None:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0.001))
            return self._take(view)
        try:
            return 0 if self.failure else self._take(view)
        except OSError as failure:
            self.failure = failure
            return 0

    def _take(self, view: Any) -> int:
        if self._left <= 0:
            raise TooMuch("it sends more than it may")
        if self._cancelled.is_set():
            raise ConnectionAbortedError("cancelled")
        before = time.monotonic()
        count = self._raw.readinto(view) or 0
        self._left -= count
        self._came += count
        self._waited += time.monotonic() - before
        if self._deadline is None and self._waited > self._stall:
            if self._came < FEWEST_BYTES:
                raise TimeoutError(f"only {self._came} bytes in {self._waited:.0f} seconds")
            self._waited, self._came = 0.0, 0
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client` asks a socket for."""
        return io.BufferedReader(self, _BUFFER)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Connection(http.client.HTTPConnection):
    """A connection whose responses are metered; `tls` None for plain http."""

    meter: Meter

    def __init__(
        self,
        url: Url,
        settings: Settings,
        tls: ssl.SSLContext | None,
        cancelled: threading.Event,
        *,
        inward: bool,
    ) -> None:
        self._proxy = hosts.proxy_for(url.scheme, url.host, url.port, settings)
        host, port = (self._proxy.host, self._proxy.port) if self._proxy else (url.host, url.port)
        super().__init__(host, port, timeout=settings.stall_seconds)
        self._url = url
        self._tls = tls
        self._inward = inward or self._proxy is not None
        self._stall = settings.stall_seconds
        self._cancelled = cancelled
        if self._proxy and tls:
            self.set_tunnel(url.host, url.port, self._proxy_headers())
        self.response_class = self._metered  # type: ignore[assignment]

    def connect(self) -> None:
        super().connect()
        if not self._inward and hosts.is_inward(self.sock.getpeername()[0]):
            self.close()
            where = hosts.url_text(self._url, query=False)
            raise RegistryError(f"{where} leads into this machine: refused", url=where)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._url.host)

    def send_request(
        self, method: str, url: Url, headers: Mapping[str, str], body: bytes | None
    ) -> http.client.HTTPResponse:
        """The response to a request for a URL of this connection's host, its headers read."""
        target, sent = url.target, dict(headers)
        sent.setdefault("User-Agent", _AGENT)
        if self._proxy and not self._tls:
            target = hosts.url_text(url)
            sent.update(self._proxy_headers())
        self.request(method, target, body, sent)
        return self.getresponse()

    def interrupt(self) -> None:
        """Make a read or write of another thread fail at once."""
        sock = self.sock or getattr(getattr(self, "meter", None), "_socket", None)
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _proxy_headers(self) -> dict[str, str]:
        if not self._proxy or not self._proxy.authorization:
            return {}
        encoded = base64.b64encode(self._proxy.authorization.encode()).decode("ascii")
        return {"Proxy-Authorization": f"Basic {encoded}"}

    def _metered(self, sock: Any, *arguments: Any, **named: Any) -> http.client.HTTPResponse:
        self.meter = Meter(sock, self._stall, self._cancelled)
        return http.client.HTTPResponse(self.meter, *arguments, **named)  # type: ignore[arg-type]


class Response:
    """A status, headers and a body that is still to be read. Close it."""

    def __init__(self, wire: Wire, key: tuple[Any, ...], connection: Connection, url: Url) -> None:
        self.url = url
        self._wire = wire
        self._key = key
        self._connection = connection
        self._response: http.client.HTTPResponse

    def begin(self, method: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self._response = self._connection.send_request(method, self.url, headers, body)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def length(self) -> int | None:
        """What Content-Length says."""
        text = self.header("Content-Length")
        plain = text.isascii() and text.isdigit() and len(text) < 20
        return int(text) if plain and "chunked" not in self.header("Transfer-Encoding") else None

    def header(self, name: str) -> str:
        """A header, "" if there is none; several of the name joined by commas."""
        return ", ".join(self._response.headers.get_all(name) or [])

    def expect(self, size: int) -> None:
        """Say how large the body may be; chunks and trailers come on top."""
        self._connection.meter.expect(2 * size + (1 << 20))

    def readinto(self, view: memoryview) -> int:
        """Bytes of the body, 0 at its end, which may be an early one."""
        meter = self._connection.meter
        try:
            count = self._response.readinto(view)
        except http.client.IncompleteRead:
            count = 0
            if meter.failure is None:
                raise
        if not count and meter.failure is not None:
            raise meter.failure
        return count

    def read_document(self, limit: int) -> bytes:
        """The whole body. Raises TooMuch, before reading, if it is larger than `limit`."""
        if (self.length or 0) > limit:
            raise TooMuch(f"it announces {self.length} bytes, {limit} are the most")
        self._connection.meter.expect(limit + (1 << 20))
        pieces, size, view = [], 0, memoryview(bytearray(_BUFFER))
        while True:
            count = self.readinto(view)
            if not count:
                break
            size += count
            if size > limit:
                raise TooMuch(f"it sends more than {limit} bytes")
            pieces.append(bytes(view[:count]))
        if self.length is not None and size < self.length:
            raise http.client.IncompleteRead(b"", self.length - size)
        return b"".join(pieces)

    def drain(self) -> None:
        """Read a short body away, so that the connection can be used again; then close."""
        try:
            if (self.length or 0) <= _BUFFER:
                self.read_document(_BUFFER)
        except (OSError, http.client.HTTPException):
            pass
        self.close()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        done = self._response.isclosed() and not self._response.will_close
        self._response.close()
        self._wire.release(self._key, self._connection, reusable=done)

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


class Wire:
    """All connections of one pull. Usable by several threads; close it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._idle: dict[tuple[Any, ...], list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def request(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        name: str = "",
        verify: bool = True,
        inward: bool = False,
    ) -> Response:
        """Ask one host once.

        name: its directory in certs.d; verify: its certificate; inward: it may be this machine.
        Raises OSError (ssl.SSLError among them), HTTPException, Cancelled, Error.
        """
        key = (*url[:3], verify, inward, name)
        for _ in range(2):
            connection, is_new = self._acquire(key, url, name, verify=verify, inward=inward)
            response = Response(self, key, connection, url)
            try:
                response.begin(method, headers, body)
                return response
            except BaseException as failure:
                self.release(key, connection, reusable=False)
                if self.cancelled.is_set():
                    raise Cancelled from failure
                # A kept connection may have been closed by the server meanwhile.
                stale = isinstance(failure, (ConnectionError, http.client.BadStatusLine))
                if is_new or not stale:
                    raise
        raise ConnectionResetError("the connection is closed before any answer")

    def check(self) -> None:
        """Raises Cancelled if the pull was broken off."""
        if self.cancelled.is_set():
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Sleep, unless the pull is broken off. Raises Cancelled."""
        if self.cancelled.wait(seconds):
            raise Cancelled

    def cancel(self) -> None:
        """Make every request of every thread fail now."""
        self.cancelled.set()
        with self._lock:
            for connection in self._busy:
                connection.interrupt()

    def close(self) -> None:
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def release(self, key: tuple[Any, ...], connection: Connection, *, reusable: bool) -> None:
        """Take a connection back."""
        with self._lock:
            self._busy.discard(connection)
            if reusable and not self.cancelled.is_set() and connection.sock is not None:
                self._idle.setdefault(key, []).append(connection)
                return
        connection.close()

    def _acquire(
        self, key: tuple[Any, ...], url: Url, name: str, *, verify: bool, inward: bool
    ) -> tuple[Connection, bool]:
        tls = self._context(name or url.host, verify=verify) if url.scheme == "https" else None
        with self._lock:
            if self.cancelled.is_set():
                raise Cancelled
            kept = self._idle.get(key)
            if kept:
                connection = kept.pop()
            else:
                connection = Connection(url, self.settings, tls, self.cancelled, inward=inward)
            self._busy.add(connection)
            return connection, connection.sock is None

    def _context(self, name: str, *, verify: bool) -> ssl.SSLContext:
        with self._lock:
            found = self._contexts.get((name, verify))
            if found is None:
                found = certificates.context(name, self.settings.certificates, verify=verify)
                self._contexts[name, verify] = found
            return found
