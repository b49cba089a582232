"""Pulls from Debian's docker-registry: http, TLS, htpasswd and tokens; pushed there by skopeo."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from minicontainer.errors import RegistryError
from minicontainer.image import auth, media, platforms, pull, reference
from minicontainer.image.registry import Settings, check_login
from minicontainer.image.store import Store
from minicontainer.paths import Paths
from tests.support import distribution, rootfs
from tests.support import registry as support
from tests.support.distribution import TokenServer, docker_registry

USER, PASSWORD = "me", "s3:cret"

pytestmark = pytest.mark.skipif(
    bool(distribution.missing_programs("docker-registry", "skopeo", "openssl", "htpasswd")),
    reason="needs docker-registry, skopeo, openssl and htpasswd",
)


@pytest.fixture(autouse=True)
def no_credentials_of_the_host(monkeypatch):
    monkeypatch.setattr(auth, "files", lambda places: [places.authfile] if places.authfile else [])


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """An OCI layout with `busybox`, `many` (100 layers) and `index` (two platforms)."""
    directory = tmp_path_factory.mktemp("layout")
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    source = support.Registry()  # never started: it only makes the documents
    busybox = Path(rootfs.busybox()).read_bytes()
    base = support.tar_of({"bin/busybox": busybox, "same": b"base"})
    entries = {
        "busybox": source.add_image("x", "", [base]),
        "many": source.add_image(
            "x", "", [support.tar_of({f"{n}": b"%d" % n, "same": b"%d" % n}) for n in range(100)]
        ),
    }
    manifests = []
    for architecture in (platforms.host().architecture, "sparc"):
        layer = support.tar_of({"platform": architecture.encode()})
        entry = source.add_image("x", "", [base, layer], architecture=architecture)
        manifests.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests}
    entries["index"] = source.add_manifest("x", "", index, media.OCI_INDEX)
    source._server.server_close()
    for digest, data in source.blobs.items():
        (blobs / digest[7:]).write_bytes(data)
    for _, data in source.manifests.values():
        (blobs / support.digest_of(data)[7:]).write_bytes(data)
    listed = [
        {**entry, "annotations": {"org.opencontainers.image.ref.name": name}}
        for name, entry in entries.items()
    ]
    document = {"schemaVersion": 2, "manifests": listed}
    (directory / "index.json").write_text(json.dumps(document))
    return directory, entries


def push(layout, server, name, *options):
    directory, _ = layout
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", *options,
         f"oci:{directory}:{name}", f"docker://{server}/team/{name}:1"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(Paths(str(tmp_path / "root"), str(tmp_path / "run")))


def settings(tmp_path=None, server="", password=PASSWORD, **members):
    authfile = ""
    if tmp_path is not None:
        encoded = base64.b64encode(f"{USER}:{password}".encode()).decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {server: {"auth": encoded}}}))
        authfile = str(tmp_path / "auth.json")
    places = auth.Places(authfile, {}, "/nonexistent", "")
    return Settings(places=places, certificates=(), retry_seconds=0.05)._replace(**members)


def bring(store, server, name, chosen=None):
    wanted = reference.parse(f"{server}/team/{name}:1")
    return pull.pull(store, wanted, None, chosen or settings(), lambda event: None)


def content(image, name):
    for layer in image.layers:
        path = os.path.join(layer, name)
        if os.path.exists(path):
            return Path(path).read_bytes()
    raise FileNotFoundError(name)


def test_http_images_of_every_shape_come_as_pushed(layout, store, tmp_path):
    _, entries = layout
    with docker_registry(str(tmp_path)) as server:
        for name in ("busybox", "many", "index"):
            push(layout, server, name, "--dest-tls-verify=false")
        for name in ("busybox", "many"):
            assert bring(store, server, name).digest == entries[name]["digest"]
        many = store.find(f"{server}/team/many:1")
        assert len(many.layers) == 100 and content(many, "same") == b"99"
        image = bring(store, server, "index")
        assert content(image, "platform") == platforms.host().architecture.encode()
        assert image.repo_digests == [f"{server}/team/index@{entries['index']['digest']}"]
        # The layer that busybox has as well is on the disk once.
        assert store.find(f"{server}/team/busybox:1").layers[-1] == image.layers[-1]
        with pytest.raises(RegistryError, match="manifest unknown"):
            bring(store, server, "other")
        by_digest = reference.parse(f"{server}/team/many@{entries['many']['digest']}")
        found = pull.pull(store, by_digest, None, settings(), lambda event: None)
        assert found.id == many.id
    assert store.check() == []
    # Others read what we keep as it stands.
    inspected = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{store.paths.images}:{many.names[0]}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert support.digest_of(inspected.stdout) == entries["many"]["digest"]


def test_tls_with_a_private_authority(layout, store, tmp_path):
    authority = support.make_authority(str(tmp_path))
    with docker_registry(str(tmp_path), authority=authority) as server:
        trusted = tmp_path / "certs.d" / server
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes(Path(authority.certificate).read_bytes())
        push(layout, server, "busybox", f"--dest-cert-dir={trusted}")
        with pytest.raises(RegistryError, match="certificate is not trusted"):
            bring(store, server, "busybox")
        assert store.images() == []
        chosen = settings(certificates=(str(tmp_path / "certs.d"),))
        assert content(bring(store, server, "busybox", chosen), "same") == b"base"
        again = Store(Paths(str(tmp_path / "insecure"), str(tmp_path / "run")))
        assert bring(again, server, "busybox", settings(insecure=True)).layers


def test_htpasswd(layout, store, tmp_path):
    users = distribution.write_htpasswd(str(tmp_path / "users"), USER, PASSWORD)
    with docker_registry(str(tmp_path), htpasswd=users) as server:
        push(
            layout, server, "busybox", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}"
        )
        with pytest.raises(RegistryError, match="pull access denied"):
            bring(store, server, "busybox")
        with pytest.raises(RegistryError, match="denied"):
            bring(store, server, "busybox", settings(tmp_path, server, "wrong"))
        assert bring(store, server, "busybox", settings(tmp_path, server)).layers
        check_login(server, USER, PASSWORD, settings())
        with pytest.raises(RegistryError, match="unauthorized"):
            check_login(server, USER, "wrong", settings())


def test_tokens_and_their_renewal(layout, store, tmp_path):
    with TokenServer(str(tmp_path), USER, PASSWORD) as tokens:
        with docker_registry(str(tmp_path), tokens=tokens) as server:
            creds = f"--dest-creds={USER}:{PASSWORD}"
            push(layout, server, "many", "--dest-tls-verify=false", creds)
            with pytest.raises(RegistryError, match="pull access denied"):
                bring(store, server, "many")
            with pytest.raises(RegistryError, match="unauthorized: incorrect username"):
                bring(store, server, "many", settings(tmp_path, server, "wrong"))
            tokens.asked.clear()
            assert bring(store, server, "many", settings(tmp_path, server)).layers
            assert len(tokens.asked) == 1
            assert "scope=repository%3Ateam%2Fmany%3Apull" in tokens.asked[0]
            # Tokens that live for two seconds, and a pull that takes longer.
            tokens.seconds = 2
            slow = Store(Paths(str(tmp_path / "slow"), str(tmp_path / "run")))
            wanted = reference.parse(f"{server}/team/many:1")
            tokens.asked.clear()
            chosen = settings(tmp_path, server, parallel=1)
            dawdle(slow, 0.05)
            assert pull.pull(slow, wanted, None, chosen, lambda event: None).layers
            assert len(tokens.asked) > 1
            check_login(server, USER, PASSWORD, settings())


def dawdle(store, seconds):
    """Let every layer take so long at least."""
    unpack = store.unpack

    def slowly(*arguments):
        time.sleep(seconds)
        return unpack(*arguments)

    store.unpack = slowly
