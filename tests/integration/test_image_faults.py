"""Pulls from a registry that makes mistakes: one clear line, the right behaviour, a clean store."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from minicontainer.errors import DigestMismatch, Error, ImageError, RegistryError, UnsupportedMedia
from minicontainer.image import auth, media, pull, reference
from minicontainer.image.registry import Settings
from minicontainer.image.store import Store
from minicontainer.paths import Paths
from tests.support import registry as support
from tests.support.registry import Registry

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.urandom(400_000)
SETTINGS = Settings(
    places=auth.Places("", {}, "/nonexistent", ""),
    retry_seconds=0.01,
    stall_seconds=0.5,
    certificates=(),
)


@pytest.fixture(autouse=True)
def no_credentials_of_the_host(monkeypatch):
    monkeypatch.setattr(auth, "files", lambda places: [])


@pytest.fixture
def server():
    with Registry() as made:
        fill(made)
        yield made


def fill(server):
    """x/y:latest with a small layer and a large one, whose digest is `server.large`."""
    server.add_image("x/y", "latest", [support.tar_of({"a": b"b"}), support.tar_of({"big": DATA})])
    server.large = next(name for name, data in server.blobs.items() if len(data) > 300_000)


@pytest.fixture
def store(tmp_path):
    return Store(Paths(str(tmp_path / "root"), str(tmp_path / "run")), durable=False)


def bring(store, server, settings=SETTINGS):
    wanted = reference.parse(f"{server.name}/x/y:latest")
    return pull.pull(store, wanted, None, settings, lambda event: None)


def assert_complete(store, server):
    image = store.find(f"{server.name}/x/y:latest")
    with open(os.path.join(image.layers[0], "big"), "rb") as file:
        assert file.read() == DATA
    assert store.check() == []
    assert os.listdir(store.paths.tmp) == []


def assert_clean(store):
    """No image, no blob, no layer: nothing but blobs that a later pull can go on with."""
    assert store.images() == []
    assert os.listdir(f"{store.paths.images}/blobs/sha256") == []
    assert os.listdir(store.paths.layers) == []
    left = os.listdir(store.paths.tmp)
    assert all(name.startswith("partial-") for name in left), left
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("layer-")]


def wrong_digest(server):
    server.fault(server.large, support.status(200, bytes(len(server.blobs[server.large]))))


def wrong_manifest_digest(server):
    _, data = server.manifests["x/y:latest"]
    headers = {"Content_Type": media.OCI_MANIFEST, "Docker_Content_Digest": "sha256:" + "0" * 64}
    server.fault("/manifests/", support.status(200, data, **headers))


def token_realm_by_http(server):
    challenge = 'Bearer realm="http://registry.example/token",service="x"'
    body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}'
    server.fault("/manifests/", support.status(401, body, WWW_Authenticate=challenge))


def loop_of_401(server):
    challenge = f'Bearer realm="{server.url}/token",service="x"'
    server.fault("/v2/", support.status(401, b"{}", WWW_Authenticate=challenge))


def unknown_layer_type(server):
    manifest = json.loads(server.manifests["x/y:latest"][1])
    manifest["layers"][0]["mediaType"] = "application/vnd.example.layer.v9"
    server.add_manifest("x/y", "latest", manifest, media.OCI_MANIFEST)


def nested_indexes(server):
    platform = {"os": "linux", "architecture": media.platform().architecture}
    entry = json.loads(json.dumps(server.add_image("x/y", "", [])))
    for _ in range(200):
        entries = [{**entry, "platform": platform}]
        document = {"schemaVersion": 2, "manifests": entries}
        entry = server.add_manifest("x/y", "latest", document, media.OCI_INDEX)


def large(fault):
    return lambda server: server.fault(server.large, fault)


def manifests(fault):
    return lambda server: server.fault("/manifests/", fault)


REFUSED = {
    "wrong digest": (wrong_digest, DigestMismatch, "the digest of the bytes is"),
    "wrong digest of the manifest": (wrong_manifest_digest, DigestMismatch, "its header says"),
    "short body": (large(support.short_body(1000)), RegistryError, "ended early|timed out|reset"),
    "slow drip": (large(support.drip(0.02, 6)), RegistryError, "timed out: only"),
    "401 loop": (loop_of_401, RegistryError, "denied|refuses the tokens"),
    "429 for long": (
        manifests(support.status(429, Retry_After="86400")),
        RegistryError,
        "toomanyrequests.*86400 seconds",
    ),
    "500 for ever": (manifests(support.status(500)), RegistryError, "500 internal server error"),
    "redirect to plain http": (
        large(support.redirect("http://registry.example")),
        RegistryError,
        "plain http: refused",
    ),
    "redirect in a circle": (large(support.redirect("")), RegistryError, "5 redirects"),
    "token realm by http": (token_realm_by_http, RegistryError, "plain http: refused"),
    "endless body": (large(support.endless_chunks()), DigestMismatch, "more comes than"),
    "endless manifest": (manifests(support.endless_chunks()), RegistryError, "more than"),
    "endless headers": (manifests(support.endless_headers), RegistryError, "."),
    "reset for ever": (large(support.reset), RegistryError, "reset|ended|closed"),
    "unknown media type": (unknown_layer_type, UnsupportedMedia, "unknown layer type"),
    "unknown manifest type": (
        manifests(support.status(200, b"{}", Content_Type="text/html")),
        UnsupportedMedia,
        "unknown manifest type 'text/html'",
    ),
    "huge content length": (
        large(support.status(200, b"x", Content_Length=str(1 << 50))),
        DigestMismatch,
        "its manifest says",
    ),
    "gzip by the transport": (
        manifests(support.status(200, gzip.compress(b"{}"), Content_Encoding="gzip")),
        RegistryError,
        "encoded",
    ),
    "nested indexes": (nested_indexes, ImageError, "indexes in indexes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line_and_a_clean_store(store, server, name):
    arrange, kind, text = REFUSED[name]
    arrange(server)
    before = time.monotonic()
    with pytest.raises(Error, match=text) as refused:
        bring(store, server)
    assert isinstance(refused.value, kind)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500
    assert time.monotonic() - before < 25
    assert_clean(store)
    # The next pull, from a registry that has come to its senses, needs no repair first.
    server._faults.clear()
    fill(server)
    bring(store, server)
    assert_complete(store, server)


SURVIVED = {
    "500 once": lambda server: server.fault("/v2/", support.status(500), times=1),
    "503 on a blob": lambda server: server.fault(server.large, support.status(503), times=2),
    "429 with Retry-After": lambda server: server.fault(
        "/manifests/", support.status(429, Retry_After="1"), times=1
    ),
    "reset in the middle": lambda server: server.fault(
        server.large, support.cut_off(150_000), times=3
    ),
    "short bodies": lambda server: server.fault(server.large, support.short_body(9000), times=2),
    "silence once": lambda server: server.fault(server.large, support.silence(1.5), times=1),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_passing_trouble_is_survived(store, server, name):
    SURVIVED[name](server)
    bring(store, server)
    assert_complete(store, server)


def test_a_redirect_to_another_host_carries_no_credentials(store, tmp_path):
    with Registry("127.0.0.2") as other, Registry(user=("me", "secret")) as server:
        fill(server)
        other.blobs.update(server.blobs)
        settings = SETTINGS._replace(credential=auth.Credential("me", "secret", "", "the test"))
        server.fault(server.large, support.redirect(other.url))
        bring(store, server, settings)
        assert_complete(store, server)
        assert other.requests
        assert all("Authorization" not in request.headers for request in other.requests)


PULL = """
import sys
from minicontainer.image import auth, pull, reference
from minicontainer.image.registry import Settings
from minicontainer.image.store import Store
from minicontainer.paths import Paths
places = auth.Places("", {"XDG_RUNTIME_DIR": "/nonexistent"}, "/nonexistent", "")
settings = Settings(places=places, certificates=(), retry_seconds=0.1)
print(flush=True)
wanted = reference.parse(sys.argv[3])
pull.pull(Store(Paths(*sys.argv[1:3])), wanted, None, settings, lambda event: None)
"""


def test_pulls_killed_at_any_moment_are_continued(tmp_path, server):
    """SIGKILL leaves nothing but partial blobs, and the next pull goes on from there."""
    paths = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    chance = random.Random(20261123)
    for delay in [chance.uniform(0.0, 0.4) for _ in range(8)]:
        server._faults.clear()
        server.fault(server.large, support.cut_off(200_000), times=2)
        command = [sys.executable, "-c", PULL, paths.root, paths.runroot, f"{server.name}/x/y"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=TOP) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        store = Store(paths, durable=False)
        assert [image.broken for image in store.images() if image.broken] == []
        assert store.check() == []
    server._faults.clear()
    bring(store, server)
    store.collect(set())
    assert_complete(store, server)
