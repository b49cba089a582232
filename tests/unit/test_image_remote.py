"""TLS with client certificates, tunnels of proxies, files at URLs, and registries.conf."""

from __future__ import annotations

import shutil
import socket
import sys
import threading

import pytest

from minicontainer.errors import Error, RegistryError
from minicontainer.image import auth
from minicontainer.image.registry import Client, RemoteFile, Settings, hosts, registries_conf
from tests.support import registry as support
from tests.support.registry import Registry

PLACES = auth.Places("", {}, "/nonexistent", "")
QUICK = Settings(places=PLACES, retry_seconds=0.01, stall_seconds=1.0, certificates=())


@pytest.fixture(autouse=True)
def no_credentials_of_the_host(monkeypatch):
    monkeypatch.setattr(auth, "files", lambda places: [])


def certificates(tmp_path, authority, name, *, client=False):
    """Settings with a directory of certs.d for the host `name`."""
    directory = tmp_path / "certs.d" / name
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(authority.certificate, directory / "private.crt")
    if client:
        shutil.copy(authority.client_certificate, directory / "me.cert")
        shutil.copy(authority.client_key, directory / "me.key")
    return QUICK._replace(certificates=(str(tmp_path / "certs.d"),))


def test_client_certificates_are_shown(tmp_path):
    authority = support.make_authority(str(tmp_path))
    with Registry(authority=authority, client_certificates=True) as server:
        server.add_image("x/y", "latest", [])
        for client, expected in ((False, "TLS fails|reset|ended|closed"), (True, "")):
            settings = certificates(tmp_path, authority, server.name, client=client)
            asked = Client(server.name, "x/y", settings)
            if expected:
                with pytest.raises(RegistryError, match=expected):
                    asked.manifest("latest")
            else:
                assert asked.manifest("latest")
            asked.close()


def test_a_proxys_tunnel_leads_to_a_registry_with_tls(tmp_path, monkeypatch):
    authority = support.make_authority(str(tmp_path), names=("registry.example",))
    tunnels = []
    with Registry(authority=authority) as server, Registry() as proxy:
        server.add_image("x/y", "latest", [])

        def tunnel(handler):
            tunnels.append((handler.path, handler.headers.get("Proxy-Authorization")))
            handler.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection((server.host, server.port)) as target:
                relay(handler.connection, target)
            handler.close_connection = True

        monkeypatch.setattr(support.Handler, "do_CONNECT", tunnel, raising=False)
        settings = certificates(tmp_path, authority, "registry.example:5000")
        settings = settings._replace(proxies={"https-proxy": f"http://u:p@{proxy.name}"})
        client = Client("registry.example:5000", "x/y", settings)
        assert client.manifest("latest")
        client.close()
        assert tunnels == [("registry.example:5000", "Basic dTpw")]
        assert "Proxy-Authorization" not in server.requests[0].headers


def relay(left, right):
    """Bytes in both directions until one side ends."""

    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    thread = threading.Thread(target=copy, args=(left, right), daemon=True)
    thread.start()
    copy(right, left)
    thread.join(5)


def whole(url, settings=QUICK):
    with RemoteFile(url, settings) as file:
        pieces = []
        while piece := file.read(1000):
            pieces.append(piece)
        return b"".join(pieces)


def test_files_at_urls():
    data = b"0123456789" * 1000
    with Registry() as server, Registry("127.0.0.2") as other:
        server.fault("/plain", support.status(200, data))
        server.fault("/away", support.redirect(other.url))
        other.fault("/away", support.status(200, data))
        server.fault("/loop", support.redirect(""))
        server.fault("/cut", support.status(200, data, Content_Length="20000"))
        server.fault("/etc", support.redirect("file://"))
        assert whole(f"{server.url}/plain") == data
        assert whole(f"{server.url}/away") == data
        for path, reason in [
            ("/missing", "404"),
            ("/loop", "redirects"),
            ("/cut", "timed out|ended early"),
            ("/etc/passwd", "not followed"),
        ]:
            with pytest.raises(RegistryError, match=reason):
                whole(server.url + path, QUICK._replace(stall_seconds=0.3))
    with pytest.raises(RegistryError, match="connection refused"):
        whole(f"{server.url}/plain")
    with pytest.raises(RegistryError, match="not followed"):
        whole("ftp://a.io/x")


CONF = """
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "quay.io"
blocked = false
[[registry.mirror]]
location = "m.io/cache"
[[registry.mirror]]
location = "n.io:5000"
insecure = true
[[registry]]
prefix = "bad.io"
location = "bad.io"
blocked = true
[[registry]]
location = "plain.io"
insecure = true
[[registry]]
prefix = "quay.io/team"
location = "elsewhere.io/team"
blocked = true
"""


def test_registries_conf_adds_to_the_configuration(tmp_path):
    path = tmp_path / "registries.conf"
    path.write_text(CONF)
    (tmp_path / "registries.conf.d").mkdir()
    (tmp_path / "registries.conf.d/a.conf").write_text(
        '[[registry]]\nlocation="x.io"\nblocked=true'
    )
    (tmp_path / "registries.conf.d/ignored").write_text("[[")
    settings = QUICK._replace(mirrors={"quay.io": ["https://own.io"]})
    if sys.version_info < (3, 11):  # no TOML parser, so nothing is added
        assert registries_conf.add(settings, str(path)) == settings
        return
    settings = registries_conf.add(settings, str(path))
    names = [endpoint.name for endpoint in hosts.endpoints("quay.io", settings)]
    assert names == ["own.io", "m.io", "n.io:5000", "quay.io"]
    assert [endpoint.may_http for endpoint in hosts.endpoints("quay.io", settings)] == [
        *(False, False, True, False)
    ]
    assert hosts.endpoints("plain.io", settings)[0].may_http
    for name in ("bad.io", "x.io"):
        with pytest.raises(RegistryError, match="blocked"):
            hosts.endpoints(name, settings)
    path.write_text("[[")
    with pytest.raises(Error, match=r"registries\.conf cannot be understood"):
        registries_conf.add(settings, str(path))


def test_without_registries_conf_nothing_is_added(tmp_path):
    assert registries_conf.add(QUICK, str(tmp_path / "none")) == QUICK
