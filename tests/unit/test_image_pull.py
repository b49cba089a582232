"""Pulls into a real store: what must be there afterwards, and what must not."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time

import pytest

from minicontainer import steps
from minicontainer.errors import DigestMismatch, Error, ImageError, NotFound, RegistryError
from minicontainer.image import auth, media, platforms, pull, reference
from minicontainer.image.registry import Settings
from minicontainer.image.store import Store
from minicontainer.paths import Paths
from tests.support import registry as support
from tests.support.registry import Registry

BIG = os.urandom(300_000)
QUICK = Settings(
    places=auth.Places("", {"XDG_RUNTIME_DIR": "/nonexistent"}, "/nonexistent", ""),
    retry_seconds=0.01,
    stall_seconds=1.0,
    certificates=(),
)


@pytest.fixture(autouse=True)
def no_credentials_of_the_host(monkeypatch):
    monkeypatch.setattr(auth, "files", lambda places: [])


@pytest.fixture
def server():
    with Registry() as made:
        yield made


@pytest.fixture
def store(tmp_path):
    return Store(Paths(str(tmp_path / "root"), str(tmp_path / "run")), user=True, durable=False)


def layers(count=3, filler=b""):
    return [
        support.tar_of({f"file{number}": b"%d" % number + filler, "same": b"%d" % number})
        for number in range(count)
    ]


def bring(store, server, name="x/y:latest", platform=None, settings=QUICK):
    """The image, and the progress as text."""
    events = []
    wanted = reference.parse(f"{server.name}/{name}")
    image = pull.pull(store, wanted, platform, settings, events.append)
    return image, events


def states(events, name):
    found = [event["status"] for event in events if event.get("id") == name]
    return [state for number, state in enumerate(found) if found[number - 1 : number] != [state]]


def is_untouched(store):
    """Whether a refused image has left nothing but blobs to be continued."""
    assert store.images() == []
    assert os.listdir(f"{store.paths.images}/blobs/sha256") == []
    assert not os.path.isdir(store.paths.layers) or os.listdir(store.paths.layers) == []
    left = os.listdir(store.paths.tmp)
    assert all(name.startswith("partial-") for name in left), left
    assert threading.active_count() < 20
    return True


def read(image, name):
    for layer in image.layers:
        path = os.path.join(layer, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                return file.read()
    raise FileNotFoundError(name)


def test_an_image_comes_complete(store, server):
    descriptor = server.add_image("x/y", "latest", layers())
    image, events = bring(store, server)
    assert image.digest == descriptor["digest"]
    assert image.names == [f"{server.name}/x/y:latest"]
    assert image.repo_digests == [f"{server.name}/x/y@{descriptor['digest']}"]
    assert len(image.layers) == 3
    assert (read(image, "same"), read(image, "file0")) == (b"2", b"0")
    for digest, data in server.blobs.items():
        assert store.read_blob(digest, 1 << 20) == data
    assert store.find(f"{server.name}/x/y").id == image.id
    assert events[0] == {"id": "latest", "status": "Pulling from x/y"}
    for layer in image.manifest["layers"]:
        seen = states(events, layer["digest"][7:19])
        assert seen[0] == "Pulling fs layer" and seen[-1] == "Pull complete"
        for state in ("Downloading", "Verifying Checksum", "Download complete", "Extracting"):
            assert state in seen
    assert [event["status"] for event in events[-2:]] == [
        f"Digest: {descriptor['digest']}",
        f"Status: Downloaded newer image for {server.name}/x/y:latest",
    ]
    assert os.listdir(store.paths.tmp) == []


def test_a_second_pull_fetches_nothing(store, server):
    server.add_image("x/y", "latest", layers())
    bring(store, server)
    asked = len(server.asked("/blobs/"))
    _, events = bring(store, server)
    assert len(server.asked("/blobs/")) == asked
    assert sum(event["status"] == "Already exists" for event in events) == 3
    assert events[-1]["status"].startswith("Status: Image is up to date for")


def test_a_tag_that_moved_takes_the_name_along(store, server):
    server.add_image("x/y", "latest", layers(2))
    old, _ = bring(store, server)
    server.add_image("x/y", "latest", layers(3))
    new, events = bring(store, server)
    assert events[-1]["status"].startswith("Status: Downloaded newer image")
    assert sum(event["status"] == "Already exists" for event in events) == 2
    assert store.find(f"{server.name}/x/y").id == new.id != old.id
    assert store.find(old.id).names == []


def test_by_digest_and_by_both(store, server):
    descriptor = server.add_image("x/y", "latest", layers(1))
    image, events = bring(store, server, f"x/y@{descriptor['digest']}")
    assert image.names == [f"{server.name}/x/y@{descriptor['digest']}"]
    assert events[0]["id"] == descriptor["digest"]
    image, _ = bring(store, server, f"x/y:1@{descriptor['digest']}")
    assert image.names == [f"{server.name}/x/y@{descriptor['digest']}"]
    assert store.find(f"{server.name}/x/y@{descriptor['digest']}").id == image.id


def make_index(server, *platforms_, kind=media.OCI_INDEX, tag="latest"):
    entries = []
    for platform in platforms_:
        words = dict(zip(("os", "architecture", "variant"), platform.split("/")))
        described = {key: value for key, value in words.items() if key != "variant"}
        layer = [support.tar_of({"platform": platform.encode()})]
        entries.append({**server.add_image("x/y", "", layer, **described), "platform": words})
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    return server.add_manifest("x/y", tag, document, kind), entries


@pytest.mark.parametrize("kind", media.INDEXES)
def test_the_hosts_platform_is_chosen_from_an_index(store, server, kind):
    host = platforms.host()
    mine = f"linux/{host.architecture}"
    descriptor, entries = make_index(server, "linux/sparc", mine, "unknown/unknown", kind=kind)
    image, events = bring(store, server)
    assert image.digest == entries[1]["digest"]
    assert read(image, "platform") == mine.encode()
    # The index is what the registry has under the name.
    assert image.repo_digests == [f"{server.name}/x/y@{descriptor['digest']}"]
    assert events[-2]["status"] == f"Digest: {descriptor['digest']}"
    other, _ = bring(store, server, platform=platforms.parse("linux/sparc"))
    assert read(other, "platform") == b"linux/sparc"
    with pytest.raises(ImageError, match=r"no matching manifest for linux/mips.*linux/sparc"):
        bring(store, server, platform=platforms.parse("linux/mips"))
    by_digest, _ = bring(store, server, f"x/y@{descriptor['digest']}")
    assert by_digest.digest == entries[1]["digest"]


def test_indexes_in_indexes_come_to_an_end(store, server):
    entry = server.add_image("x/y", "", layers(1))
    for _ in range(10):
        platform = {"os": "linux", "architecture": platforms.host().architecture}
        entries = [{**entry, "platform": platform}]
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        entry = server.add_manifest("x/y", "latest", document, media.OCI_INDEX)
    with pytest.raises(ImageError, match="indexes in indexes"):
        bring(store, server)
    assert is_untouched(store)


def test_a_foreign_image_is_a_warning_or_an_error(store, server, monkeypatch):
    said = []
    monkeypatch.setattr(steps, "warner", said.append)
    server.add_image("x/y", "latest", layers(1), architecture="sparc")
    with pytest.raises(ImageError, match="is for linux/sparc, not linux/mips"):
        bring(store, server, platform=platforms.parse("linux/mips"))
    assert is_untouched(store)
    assert bring(store, server)[0].config["architecture"] == "sparc"
    assert len(said) == 1 and "linux/sparc" in said[0]


def test_equal_layers_are_fetched_once(store, server):
    same = layers(1)[0]
    server.add_image("x/y", "latest", [same, layers(2)[1], same, same])
    image, _ = bring(store, server)
    digest = image.manifest["layers"][0]["digest"]
    assert len(server.asked(digest)) == 1
    assert read(image, "same") == b"0"


def test_many_layers(store, server):
    server.add_image("x/y", "latest", layers(60))
    image, events = bring(store, server)
    assert len(image.layers) == 60
    assert sum(event["status"] == "Pull complete" for event in events) == 60
    assert any(event["status"] == "Waiting" for event in events)


def test_plain_layers_and_no_layers(store, server):
    plain = layers(1)[0]
    config = json.dumps(support.config_of([support.digest_of(plain)])).encode()
    manifest = {
        "schemaVersion": 2,
        "config": server.add_blob(config, media.DOCKER_CONFIG),
        "layers": [server.add_blob(plain, media.DOCKER_LAYER)],
    }
    server.add_manifest("x/y", "latest", manifest, media.DOCKER_MANIFEST)
    assert read(bring(store, server)[0], "same") == b"0"
    server.add_image("x/y", "empty", [])
    assert bring(store, server, "x/y:empty")[0].layers == []


def test_a_pull_broken_off_is_continued(store, server):
    server.add_image("x/y", "latest", [support.tar_of({"big": BIG}), layers(1)[0]])
    (big,) = [digest for digest, data in server.blobs.items() if len(data) > 200_000]
    server.fault(big, support.cut_off(100_000), times=1)
    server.fault(big, support.status(404), times=1)
    with pytest.raises(RegistryError, match="404"):
        bring(store, server)
    assert is_untouched(store)
    assert os.path.getsize(f"{store.paths.tmp}/partial-{big[7:]}") == 100_000
    server.requests.clear()
    image, _ = bring(store, server)
    assert read(image, "big") == BIG
    assert [request.headers.get("Range") for request in server.asked(big)] == ["bytes=100000-"]


def test_a_damaged_partial_blob_is_fetched_anew(store, server):
    server.add_image("x/y", "latest", [support.tar_of({"big": BIG})])
    (big,) = [digest for digest, data in server.blobs.items() if len(data) > 200_000]
    for damaged in (b"x" * 5000, b"x" * len(server.blobs[big]), b"x" * 900_000):
        store.prepare()
        with open(f"{store.paths.tmp}/partial-{big[7:]}", "wb") as file:
            file.write(damaged)
        image, _ = bring(store, server)
        assert read(image, "big") == BIG
        store.remove(image)
        store.collect(set())


def corrupt(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_wrong_content_is_refused(store, server, which):
    descriptor = server.add_image("x/y", "latest", layers(1))
    manifest = json.loads(server.manifests["x/y:latest"][1])
    wrong = manifest["layers"][0]["digest"] if which == "layer" else manifest["config"]["digest"]
    name = "x/y:latest"
    if which == "manifest":
        name = f"x/y@{descriptor['digest']}"
        kind, data = server.manifests[f"x/y:{descriptor['digest']}"]
        server.manifests[f"x/y:{descriptor['digest']}"] = (
            kind,
            data.replace(b'"layers"', b'"layerz"'),
        )
    else:
        server.blobs[wrong] = corrupt(server.blobs[wrong])
    with pytest.raises(DigestMismatch):
        bring(store, server, name)
    assert is_untouched(store)
    with pytest.raises(NotFound):
        store.find(f"{server.name}/x/y")


def publish(server, layer_members=None, config_members=None, **members):
    """An image whose documents say what they should not."""
    layer = layers(1)[0]
    packed = gzip.compress(layer, mtime=0)
    config = support.config_of([support.digest_of(layer)], **(config_members or {}))
    descriptor = {**server.add_blob(packed, f"{media.OCI_LAYER}+gzip"), **(layer_members or {})}
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": server.add_blob(json.dumps(config).encode(), media.OCI_CONFIG),
        "layers": [descriptor],
        **members,
    }
    server.add_manifest("x/y", "latest", manifest, media.OCI_MANIFEST)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"layer_members": {"size": 5}}, "its manifest says 5"),
        ({"layer_members": {"mediaType": "application/vnd.x"}}, "unknown layer type"),
        ({"layer_members": {"urls": ["http://x"], "mediaType": "x"}}, "unknown layer type"),
        (
            {"config_members": {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}},
            "dif",
        ),
        ({"config_members": {"rootfs": {"type": "layers", "diff_ids": []}}}, "0 diff_ids"),
        ({"config_members": {"created": "never"}}, "not a time"),
        ({"manifests": []}, "both an index"),
        ({"mediaType": media.DOCKER_MANIFEST}, "its header"),
    ],
)
def test_contradictions_are_refused(store, server, arguments, reason):
    publish(server, **arguments)
    with pytest.raises(ImageError, match=reason):
        bring(store, server)
    assert is_untouched(store)


def test_bytes_that_are_no_layer_are_refused(store, server):
    for data in (b"hello" * 1000, gzip.compress(b"hello" * 1000), b"\x1f\x8b" + b"x" * 100):
        config = support.config_of([support.digest_of(data)])
        manifest = {
            "schemaVersion": 2,
            "config": server.add_blob(json.dumps(config).encode(), media.OCI_CONFIG),
            "layers": [server.add_blob(data, media.OCI_LAYER)],
        }
        server.add_manifest("x/y", "latest", manifest, media.OCI_MANIFEST)
        with pytest.raises(ImageError):
            bring(store, server)
        assert is_untouched(store)


def test_one_bad_layer_stops_the_others(store, server):
    server.add_image("x/y", "latest", layers(8))
    manifest = json.loads(server.manifests["x/y:latest"][1])
    bad = manifest["layers"][1]["digest"]
    for layer in manifest["layers"]:
        if layer["digest"] != bad:
            server.fault(layer["digest"], support.drip(0.05, 10))
    server.blobs[bad] = corrupt(server.blobs[bad])
    before = time.monotonic()
    with pytest.raises(DigestMismatch):
        bring(store, server, settings=QUICK._replace(stall_seconds=30))
    assert time.monotonic() - before < 5
    assert is_untouched(store)


def test_an_interrupt_stops_at_once_and_leaves_the_store_clean(store, server):
    server.add_image("x/y", "latest", layers(4))
    for digest in list(server.blobs):
        if len(server.blobs[digest]) < 100_000 and digest != _config_digest(server):
            server.fault(digest, support.drip(0.05, 10))

    def interrupt(event):
        if event["status"] == "Downloading":
            raise KeyboardInterrupt

    before, threads = time.monotonic(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        wanted = reference.parse(f"{server.name}/x/y")
        pull.pull(store, wanted, None, QUICK._replace(stall_seconds=30), interrupt)
    assert time.monotonic() - before < 5
    assert is_untouched(store)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("layer-")], (names, threads)


def _config_digest(server):
    return json.loads(server.manifests["x/y:latest"][1])["config"]["digest"]


def test_what_does_not_fit_the_disk_is_refused_at_once(store, server):
    publish(server, layer_members={"size": 1 << 60})
    with pytest.raises(ImageError, match="need 1152921504606846976 bytes"):
        bring(store, server)
    assert is_untouched(store)


def test_two_pulls_at_once_share_the_work(tmp_path, server):
    """Two stores on one directory are two processes: locks are of open files."""
    paths = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    server.add_image("x/y", "latest", layers(12, BIG[:50_000]))
    failures: list[BaseException] = []
    ids = []

    def run():
        try:
            store = Store(paths, user=True, durable=False)
            ids.append(bring(store, server)[0].id)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not failures and len(set(ids)) == 1 and len(ids) == 4
    for digest in server.blobs:
        if digest != _config_digest(server):
            assert len(server.asked(digest)) == 1
    store = Store(paths, user=True)
    assert len(store.images()) == 1
    assert os.listdir(paths.tmp) == []


def test_an_error_of_the_listener_stops_the_pull(store, server):
    server.add_image("x/y", "latest", layers(2))

    def broken_pipe(event):
        if event["status"] == "Download complete":
            raise BrokenPipeError

    with pytest.raises((BrokenPipeError, Error)):
        pull.pull(store, reference.parse(f"{server.name}/x/y"), None, QUICK, broken_pipe)
    assert is_untouched(store)
