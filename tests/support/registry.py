"""A registry that makes mistakes when told to: http.server on loopback, a thread a connection.

Blobs and manifests are held in memory.  A fault is a function that gets the request's handler and
answers in place of the registry; what was asked for is kept in `requests`.  Everything it sends is
bounded, and it ends with the test.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.parse
from collections import namedtuple

from minicontainer.image import media

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable

    Fault = Callable[["Handler"], None]

Request = namedtuple("Request", "method path headers body")
Authority = namedtuple(
    "Authority", "certificate server_certificate server_key client_certificate client_key"
)

MOST_ENDLESS_BYTES = 64 << 20


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar archive of regular files, always the same for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def config_of(diff_ids: list[str], **members: Any) -> dict[str, Any]:
    """An image config for this host with as many layers."""
    platform = media.platform()
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **members,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    registry: Registry

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        self.registry.requests.append(request)
        fault = self.registry.next_fault(self.path)
        if fault is not None:
            fault(self)
        elif self.path.startswith("/token"):
            self.registry.give_token(self, body)
        elif self.registry.admits(self):
            self.registry.answer(self)

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole response; underscores in the names of headers mean hyphens."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send(body)

    def send(self, data: bytes) -> bool:
        """Whether the client still takes what is sent."""
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return False
        return True

    def hang_up(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        try:
            self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of no seconds
        except OSError:
            pass
        self.connection.close()

    def log_message(self, *unused: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *unused: object) -> None:
        pass


class Registry:
    """One server; use it in a `with`.

    host: 127.0.0.x, several are several hosts.  authority: for TLS.  user: (name, password) that
    Basic wants.  tokens: the name and password for which the realm gives bearer tokens, "" any.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        authority: Authority | None = None,
        client_certificates: bool = False,
        user: tuple[str, str] | None = None,
        tokens: tuple[str, str] | None = None,
    ) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}  # repository:reference
        self.blobs: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.challenge = ""  # in place of the one that fits
        self.token_seconds = 300
        self._faults: list[list[Any]] = []
        self._user, self._tokens = user, tokens
        self._issued: dict[str, float] = {}
        self._count = 0
        handler = type("Bound", (Handler,), {"registry": self})
        self._server = _Server((host, 0), handler)
        self.host, self.port = host, self._server.server_address[1]
        self.scheme = "http"
        if authority is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.server_certificate, authority.server_key)
            if client_certificates:
                context.load_verify_locations(authority.certificate)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.name}"

    def __enter__(self) -> Registry:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # Contents

    def add_blob(self, data: bytes, media_type: str = media.OCTETS) -> dict[str, Any]:
        """The descriptor of a blob that is there now."""
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_manifest(
        self, repository: str, tag: str, document: dict[str, Any], media_type: str
    ) -> dict[str, Any]:
        """The descriptor of a manifest that is there now, by tag ("": none) and by digest."""
        data = json.dumps(document).encode()
        digest = digest_of(data)
        for reference in (tag, digest):
            if reference:
                self.manifests[f"{repository}:{reference}"] = (media_type, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_image(
        self, repository: str, tag: str, layers: Iterable[bytes], **config: Any
    ) -> dict[str, Any]:
        """The descriptor of an image of tar archives, packed by gzip."""
        descriptors, diff_ids = [], []
        for layer in layers:
            packed = gzip.compress(layer, 1, mtime=0)
            descriptors.append(self.add_blob(packed, f"{media.OCI_LAYER}+gzip"))
            diff_ids.append(digest_of(layer))
        document = json.dumps(config_of(diff_ids, **config)).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": self.add_blob(document, media.OCI_CONFIG),
            "layers": descriptors,
        }
        return self.add_manifest(repository, tag, manifest, media.OCI_MANIFEST)

    # Mistakes

    def fault(self, part: str, fault: Fault, times: int = 1 << 30) -> None:
        """Let `fault` answer the next `times` requests whose path contains `part`."""
        self._faults.append([part, fault, times])

    def next_fault(self, path: str) -> Fault | None:
        for entry in self._faults:
            if entry[0] in path and entry[2] > 0:
                entry[2] -= 1
                found: Fault = entry[1]
                return found
        return None

    def asked(self, part: str) -> list[Request]:
        """The requests so far whose path contains `part`."""
        return [request for request in self.requests if part in request.path]

    # Answers

    def admits(self, handler: Handler) -> bool:
        """Whether the request is authorized; if not it has been answered."""
        given = handler.headers.get("Authorization") or ""
        kind, _, value = given.partition(" ")
        if self._user and not (kind == "Basic" and _decoded(value) == ":".join(self._user)):
            self.refuse(handler, 'Basic realm="fault registry"')
            return False
        if self._tokens is not None:
            if not (kind == "Bearer" and self._issued.get(value, 0.0) > time.monotonic()):
                service = 'service="fault registry",scope="repository:x/y:pull"'
                self.refuse(handler, f'Bearer realm="{self.url}/token",{service}')
                return False
        return True

    def refuse(self, handler: Handler, challenge: str) -> None:
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
        handler.answer(401, body.encode(), WWW_Authenticate=self.challenge or challenge)

    def give_token(self, handler: Handler, body: bytes) -> None:
        given = handler.headers.get("Authorization") or ""
        wanted = ":".join(self._tokens or ("", ""))
        form = urllib.parse.parse_qs(body.decode())
        by_grant = form.get("refresh_token") == [wanted.partition(":")[2]]
        if wanted != ":" and not by_grant and _decoded(given.partition(" ")[2]) != wanted:
            handler.answer(401, b'{"details": "incorrect username or password"}')
            return
        self._count += 1
        token = f"token-{self._count}"
        self._issued[token] = time.monotonic() + self.token_seconds
        reply = {"token": token, "expires_in": self.token_seconds}
        handler.answer(200, json.dumps(reply).encode(), Content_Type="application/json")

    def answer(self, handler: Handler) -> None:
        path = handler.path.partition("?")[0]
        if path == "/v2/":
            handler.answer(200, b"{}")
        elif "/manifests/" in path:
            self._answer_manifest(handler, path)
        elif "/blobs/" in path:
            self._answer_blob(handler, path.rpartition("/")[2])
        else:
            handler.answer(404)

    def _answer_manifest(self, handler: Handler, path: str) -> None:
        repository, _, reference = path[len("/v2/") :].partition("/manifests/")
        found = self.manifests.get(f"{repository}:{reference}")
        if found is None:
            text = {"code": "MANIFEST_UNKNOWN", "message": "no such manifest here"}
            handler.answer(404, json.dumps({"errors": [text]}).encode())
            return
        media_type, data = found
        handler.answer(200, data, Content_Type=media_type, Docker_Content_Digest=digest_of(data))

    def _answer_blob(self, handler: Handler, digest: str) -> None:
        data = self.blobs.get(digest)
        if data is None:
            handler.answer(404, b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "no blob"}]}')
            return
        wanted = (handler.headers.get("Range") or "").partition("bytes=")[2].partition("-")[0]
        if wanted:
            start = int(wanted)
            place = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.answer(206, data[start:], Content_Range=place)
        else:
            handler.answer(200, data)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode()
    except ValueError:
        return ""


# Faults


def status(number: int, body: bytes = b"", **headers: str) -> Fault:
    return lambda handler: handler.answer(number, body, **headers)


def cut_off(after: int) -> Fault:
    """Announce the whole blob, send the first bytes, and reset the connection."""

    def fault(handler: Handler) -> None:
        data = handler.registry.blobs[handler.path.rpartition("/")[2]]
        handler.answer(200, data[:after], Content_Length=str(len(data)))
        time.sleep(0.05)  # what was sent shall arrive
        handler.hang_up()

    return fault


def short_body(missing: int) -> Fault:
    """Announce the whole blob and end the connection, in good order, too early."""

    def fault(handler: Handler) -> None:
        data = handler.registry.blobs[handler.path.rpartition("/")[2]]
        handler.answer(200, data[: len(data) - missing], Content_Length=str(len(data)))
        handler.close_connection = True

    return fault


def drip(seconds: float, total: float = 15.0) -> Fault:
    """The blob a byte at a time, for `total` seconds at most."""

    def fault(handler: Handler) -> None:
        data = handler.registry.blobs[handler.path.rpartition("/")[2]]
        handler.answer(200, b"", Content_Length=str(len(data)))
        for position in range(min(len(data), int(total / seconds))):
            if not handler.send(data[position : position + 1]):
                return
            time.sleep(seconds)
        handler.close_connection = True

    return fault


def drip_headers(seconds: float, total: float = 15.0) -> Fault:
    def fault(handler: Handler) -> None:
        handler.send(b"HTTP/1.1 200 OK\r\n")
        for number in range(int(total / seconds)):
            if not handler.send(b"X-%d: x\r\n" % number):
                return
            time.sleep(seconds)
        handler.close_connection = True

    return fault


def endless_chunks(chunk: bytes = b"x" * 65536) -> Fault:
    """A body in chunks that does not end before the client does."""

    def fault(handler: Handler) -> None:
        handler.answer(200, b"", Transfer_Encoding="chunked")
        for _ in range(MOST_ENDLESS_BYTES // len(chunk)):
            if not handler.send(b"%x\r\n%s\r\n" % (len(chunk), chunk)):
                return
        handler.close_connection = True

    return fault


def endless_headers(handler: Handler) -> None:
    handler.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(MOST_ENDLESS_BYTES >> 10):
        if not handler.send(b"X-%d: %s\r\n" % (number, b"x" * 1000)):
            return
    handler.close_connection = True


def silence(seconds: float) -> Fault:
    def fault(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def redirect(to: str, number: int = 307) -> Fault:
    """Send the client to the same path below another URL."""
    return lambda handler: handler.answer(number, Location=f"{to}{handler.path}")


def reset(handler: Handler) -> None:
    handler.hang_up()


# Certificates


def make_authority(directory: str, *, names: Iterable[str] = ("127.0.0.1",)) -> Authority:
    """A private authority, a server's certificate for some names, and one for a client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], check=True, cwd=directory, capture_output=True, timeout=60
        )

    kinds = [f"{'DNS' if name[-1:].isalpha() else 'IP'}:{name}" for name in names]
    with open(os.path.join(directory, "extensions"), "w", encoding="ascii") as file:
        file.write(f"subjectAltName={','.join(['DNS:localhost', *kinds])}\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=Test authority",
            "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    for name in ("server", "client"):
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-days", "2", "-CAcreateserial", "-extfile", "extensions",
                "-out", f"{name}.crt")  # fmt: skip
    made = ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
    return Authority(*(os.path.join(directory, name) for name in made))
