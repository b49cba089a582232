"""Debian's docker-registry on a loopback port, and the token server that its token auth needs."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from tests.support.registry import Authority

SERVICE = "minicontainer tests"
ISSUER = "the tests' token server"
_START_SECONDS = 20.0


def missing_programs(*names: str) -> list[str]:
    return [name for name in names if not shutil.which(name)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def docker_registry(
    directory: str,
    *,
    authority: Authority | None = None,
    htpasswd: str = "",
    tokens: TokenServer | None = None,
) -> Iterator[str]:
    """The `host:port` of a registry that keeps its images below `directory`.

    htpasswd: the file of users; tokens: the server that gives out tokens.
    """
    port = free_port()
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": os.path.join(directory, "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if authority is not None:
        config["http"]["tls"] = {  # type: ignore[index]
            "certificate": authority.server_certificate,
            "key": authority.server_key,
        }
    if htpasswd:
        config["auth"] = {"htpasswd": {"realm": "minicontainer tests", "path": htpasswd}}
    if tokens is not None:
        config["auth"] = {
            "token": {
                "realm": tokens.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": tokens.certificate,
            }
        }
    path = os.path.join(directory, "config.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)  # which is YAML
    with open(os.path.join(directory, "log"), "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", path],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait_for(process, port, os.path.join(directory, "log"), tls=authority is not None)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: str, *, tls: bool) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        if tls:
            unchecked = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=5, context=unchecked
            )
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    with open(log, encoding="utf-8", errors="replace") as file:
        raise AssertionError(f"docker-registry does not start: {file.read()[-2000:]}")


def write_htpasswd(path: str, user: str, password: str) -> str:
    """A file of one user, as docker-registry wants it (bcrypt); returns the path."""
    subprocess.run(
        ["htpasswd", "-Bbc", "-C", "4", path, user, password], check=True, capture_output=True
    )
    return path


class TokenServer:
    """Gives signed tokens to one user; use it in a `with`. Needs openssl."""

    def __init__(self, directory: str, user: str, password: str, seconds: int = 300) -> None:
        self._key = os.path.join(directory, "token.key")
        self.certificate = os.path.join(directory, "token.crt")
        self._wanted = f"{user}:{password}"
        self.seconds = seconds
        self.asked: list[str] = []
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=token", "-keyout", self._key, "-out", self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        handler = type("Bound", (_TokenHandler,), {"tokens": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, query: dict[str, list[str]], authorization: str) -> dict[str, Any] | None:
        """The reply to who shows the right password, None to others."""
        given = authorization.partition(" ")[2]
        if base64.b64decode(given).decode() != self._wanted:
            return None
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.rsplit(":", 2)[-3:]
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        return {"token": self._sign(access), "expires_in": self.seconds}

    def _sign(self, access: list[dict[str, Any]]) -> str:
        with open(self.certificate, encoding="ascii") as file:
            chain = "".join(file.read().split("-----")[2].split())
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
        claims = {
            "iss": ISSUER,
            "sub": "tests",
            "aud": SERVICE,
            "exp": now + self.seconds,
            "nbf": now - 10,
            "iat": now,
            "jti": os.urandom(8).hex(),
            "access": access,
        }
        text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=text.encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        return f"{text}.{_encoded(signed.stdout)}"


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    tokens: TokenServer

    def do_GET(self) -> None:
        self.tokens.asked.append(self.path)
        query = urllib.parse.parse_qs(self.path.partition("?")[2])
        reply = self.tokens.answer(query, self.headers.get("Authorization") or "")
        body = json.dumps(reply or {"details": "incorrect username or password"}).encode()
        self.send_response(200 if reply else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused: object) -> None:
        pass


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
