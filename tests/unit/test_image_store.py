"""image.store: what is in it is whole and verified, after whatever failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.errors import DigestMismatch, Error, ImageError, NotFound
from minicontainer.image import blobs
from minicontainer.image.index import REPO_DIGEST
from minicontainer.image.store import Store
from minicontainer.paths import Paths
from tests.support import images
from tests.support.images import Made, digest, member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "docker.io/library/x:latest"
OTHER = "quay.io/y/z:1.0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return images.new_store(tmp_path)


def made(text: bytes = b"content", **how: Any) -> Made:
    return Made([images.tar(member("f", text)), images.tar(member("g", b"common"))], **how)


def tmp(store: Store) -> list[str]:
    return sorted(os.listdir(store.paths.tmp))


# --------------------------------------------------------------------------------- blobs


def test_blob_is_seen_when_finished_and_in_place_when_committed(store: Store) -> None:
    with store.hold():
        with store.writer(digest(b"hello"), 5) as writer:
            writer.write(b"hel")
            assert not store.has_blob(digest(b"hello"))
            writer.write(memoryview(b"lo"))
            assert writer.finish() == (digest(b"hello"), 5)
        assert store.has_blob(digest(b"hello"))
        assert store.read_blob(digest(b"hello"), 5) == b"hello"
        assert not os.path.exists(store.blob_path(digest(b"hello")))
        made().add(store, NAME)
    assert Path(store.blob_path(digest(b"hello"))).read_bytes() == b"hello"
    assert tmp(store) == []


def test_blob_is_continued_where_it_was_cut_off(store: Store) -> None:
    data = os.urandom(100_000)
    with pytest.raises(KeyboardInterrupt), store.writer(digest(data), len(data)) as writer:
        writer.write(data[:60_000])
        raise KeyboardInterrupt
    assert tmp(store) == [f"partial-{digest(data)[7:]}"]
    with store.writer(digest(data), len(data)) as writer:
        assert writer.offset() == 60_000
        writer.write(data[60_000:])
        writer.finish()
    assert store.read_blob(digest(data), 100_000) == data


def test_writer_can_begin_again(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.writer(digest(b"good"), 4) as writer:
        writer.write(b"bad")
        raise ZeroDivisionError
    with store.writer(digest(b"good"), 4) as writer:
        writer.restart()
        assert writer.offset() == 0
        writer.write(b"good")
        writer.finish()


@pytest.mark.parametrize(
    ("data", "size", "kept"), [(b"wrong", 5, False), (b"longer", 5, False), (b"shor", 5, True)]
)
def test_wrong_bytes_are_refused(store: Store, data: bytes, size: int, kept: bool) -> None:
    with pytest.raises(DigestMismatch), store.writer(digest(b"right"), size) as writer:
        writer.write(data)
        writer.finish()
    assert not store.has_blob(digest(b"right"))
    assert bool(tmp(store)) == kept


def test_unknown_blob_leaves_nothing_when_it_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.writer() as writer:
        writer.write(b"x")
        raise ZeroDivisionError
    assert tmp(store) == []


def test_digest_that_would_be_a_path_is_refused(store: Store) -> None:
    for text in ("sha256:../../etc/passwd", "../x", "sha256:" + "g" * 64, "sha512:" + "a" * 128):
        with pytest.raises(ImageError, match="not a sha256 digest"):
            store.writer(text)
        with pytest.raises(ImageError):
            store.read_blob(text, 10)


def test_two_threads_share_one_download(store: Store) -> None:
    data = os.urandom(1000)
    log: list[str] = []

    def bring() -> None:
        with store.writer(digest(data), 1000) as writer:
            if writer.present:
                log.append("present")
                return
            log.append("download")
            time.sleep(0.3)
            writer.write(data)
            writer.finish()

    threads = [threading.Thread(target=bring) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log) == ["download", "present", "present"]


def test_waiting_can_be_called_off(store: Store) -> None:
    with store.writer(digest(b"x"), 1):

        def stop() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), store.writer(digest(b"x"), 1, stop):
            pass


def test_process_that_dies_leaves_its_partial_blob_to_the_next(store: Store) -> None:
    data = os.urandom(50_000)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with store.writer(digest(data), len(data)) as writer:
            writer.write(data[:20_000])
            os.write(writing, b"!")
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
    os.read(reading, 1)
    with store.writer(digest(data), len(data)) as writer:  # waits for the death
        assert writer.offset() == 20_000
        writer.write(data[20_000:])
        writer.finish()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    os.close(reading), os.close(writing)


def test_damaged_partial_blob_is_dropped(store: Store) -> None:
    Path(store.paths.tmp, f"partial-{digest(b'good')[7:]}").write_bytes(b"ba")
    with pytest.raises(DigestMismatch), store.writer(digest(b"good"), 4) as writer:
        writer.write(b"od")
        writer.finish()
    assert tmp(store) == []


def test_partial_blob_that_is_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    os.symlink(tmp_path / "victim", f"{store.paths.tmp}/partial-{digest(b'good')[7:]}")
    with pytest.raises(Error, match="ELOOP"), store.writer(digest(b"good"), 4):
        pass
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_blob_that_is_no_file_is_not_read(store: Store) -> None:
    os.mkfifo(store.blob_path(digest(b"x")))
    assert not store.has_blob(digest(b"x"))
    with pytest.raises(ImageError):
        store.read_blob(digest(b"x"), 1)


def test_damaged_blob_is_noticed_when_read(store: Store) -> None:
    Path(store.blob_path(digest(b"x"))).write_bytes(b"y")
    with pytest.raises(DigestMismatch):
        store.read_blob(digest(b"x"), 1)
    Path(store.blob_path(digest(b"x"))).write_bytes(bytes(100))
    with pytest.raises(ImageError, match="larger than 10"):
        store.read_blob(digest(b"x"), 10)


def test_many_staged_blobs_are_not_as_many_open_files(store: Store) -> None:
    with store.hold():
        for number in range(250):
            store.put(b"%d" % number)
        assert len(os.listdir("/proc/self/fd")) < 150
        assert all(store.has_blob(digest(b"%d" % number)) for number in range(250))


# -------------------------------------------------------------------------------- layers


def test_layer_is_unpacked_once_and_verified(store: Store) -> None:
    image = made()
    seen: list[int] = []
    first: Any = image.manifest["layers"]
    with store.hold():
        for name, data in image.blobs.items():
            store.put(data, name)
        blob, kind = first[0]["digest"], first[0]["mediaType"]
        with pytest.raises(DigestMismatch, match="diffID"):
            store.unpack(blob, kind, digest(b"something else"))
        assert store.unpack(blob, kind, None, seen.append) == digest(image.layers[0])
        assert store.unpack(blob, kind, digest(image.layers[0])) == digest(image.layers[0])
        store.unpack(first[1]["digest"], kind, digest(image.layers[1]))
        found = store.add_image(image.descriptor, [NAME])
    assert seen[-1] == first[0]["size"]
    assert Path(found.layers[0], "g").read_bytes() == b"common"
    assert Path(found.layers[1], "f").read_bytes() == b"content"
    assert found.size == len(b"content" + b"common")
    assert tmp(store) == []


def test_failed_hold_leaves_nothing_but_partial_blobs(store: Store) -> None:
    image = made()
    layer: Any = image.manifest["layers"]
    with pytest.raises(ZeroDivisionError), store.hold():
        store.put(image.blobs[layer[0]["digest"]])
        store.unpack(layer[0]["digest"], layer[0]["mediaType"], None)
        raise ZeroDivisionError
    assert tmp(store) == [f"partial-{layer[0]['digest'][7:]}"]
    assert os.listdir(store.paths.layers) == []


def test_layer_of_a_dead_process_is_made_again(store: Store) -> None:
    image = made()
    home = Path(store.paths.tmp, f"layer-{digest(image.layers[0])[7:]}")
    (home / "tree" / "half").mkdir(parents=True)
    found = image.add(store, NAME)
    assert sorted(os.listdir(found.layers[1])) == ["f"]


def test_layer_of_refused_content_leaves_nothing(store: Store) -> None:
    image = Made([images.tar(member("../x"))])
    with pytest.raises(ImageError, match="leads out"):
        image.add(store, NAME)
    assert os.listdir(store.paths.layers) == [] and store.images() == []


def test_missing_layer_is_unpacked_again_when_needed(store: Store) -> None:
    image = made().add(store, NAME)
    before = images.facts(image.layers[0])
    subprocess.run(["rm", "-r", os.path.dirname(image.layers[0])], check=True)
    assert images.facts(store.find("x").layers[0]) == before
    assert tmp(store) == []


def test_layer_that_occurs_twice_counts_once_on_top(store: Store) -> None:
    one, two = images.tar(member("f", b"1")), images.tar(member("f", b"2"))
    image = Made([one, two, one]).add(store, NAME)
    assert [Path(path, "f").read_bytes() for path in image.layers] == [b"1", b"2"]
    assert image.size == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_opaque_top_hides_all_layers_below(store: Store) -> None:
    layers = [images.tar(member("f")), images.tar(member(".wh..wh..opq"), member("g"))]
    image = Made(layers).add(store, NAME)
    assert [os.listdir(path) for path in image.layers] == [["g"]]


# --------------------------------------------------------------------------------- names


def test_image_is_found_by_name_digest_and_id(store: Store) -> None:
    image = made().add(store, NAME)
    for text in ("x", "x:latest", NAME, image.id, image.id[7:], image.id[7:15], image.digest):
        assert store.find(text).id == image.id, text
    assert store.find(f"x@{image.digest}").names == [NAME]
    for text in ("y", "x:1", "", "sha256:", "0" * 64, "x@" + digest(b""), "a b", "../x", "x" * 300):
        with pytest.raises(NotFound, match="No such image"):
            store.find(text)


def test_beginning_of_two_ids_is_ambiguous(store: Store) -> None:
    seen: dict[str, int] = {}
    for number in range(40):
        image = made(b"%d" % number).add(store)
        if image.id[7] in seen:
            with pytest.raises(Error, match="several image ids"):
                store.find(image.id[7])
            return
        seen[image.id[7]] = number
    raise AssertionError("forty ids with different beginnings")


def test_name_that_moves_leaves_an_image_without_name(store: Store) -> None:
    old = made(b"old").add(store, NAME)
    new = made(b"new").add(store, NAME)
    assert store.find("x").digest == new.digest
    assert store.find(old.id).names == []
    assert len(store.images()) == 2
    assert made(b"old").add(store, OTHER).names == [OTHER]
    assert {tuple(image.names) for image in store.images()} == {(NAME,), (OTHER,)}


def test_tag_and_untag(store: Store) -> None:
    image = made().add(store, NAME)
    assert sorted(store.tag(image, OTHER).names) == sorted([NAME, OTHER])
    assert store.untag(NAME) and not store.untag(NAME)
    assert store.find(image.id).names == [OTHER]
    assert store.untag(OTHER)
    assert store.find(image.id).names == []
    assert store.tag(store.find(image.id), NAME).names == [NAME]
    assert len(store.entries()) == 1


def test_adding_twice_changes_nothing(store: Store) -> None:
    made().add(store, NAME)
    before = Path(store.paths.images, "index.json").read_bytes()
    made().add(store, NAME)
    assert Path(store.paths.images, "index.json").read_bytes() == before


def test_repo_digests_add_up_and_stay_with_the_image(store: Store) -> None:
    image = made()
    image.add(store)
    for repository in ("docker.io/library/x", "docker.io/library/x", "quay.io/x/x"):
        store.add_image(image.descriptor, [NAME], {REPO_DIGEST: f"{repository}@{digest(b'index')}"})
    made(b"new").add(store, NAME)
    old = store.find(f"quay.io/x/x@{digest(b'index')}")
    assert old.repo_digests == [
        f"{r}@{digest(b'index')}" for r in ("docker.io/library/x", "quay.io/x/x")
    ]


def test_image_needs_all_its_blobs(store: Store) -> None:
    image = made()
    for name, data in image.blobs.items():
        if name != image.manifest["layers"][0]["digest"]:  # type: ignore[index]
            store.put(data, name)
    with pytest.raises(ImageError, match="missing from the store"):
        store.add_image(image.descriptor, [NAME])
    assert store.images() == []


# -------------------------------------------------------------------------------- poison


def test_what_cannot_be_read_is_broken_and_can_be_removed(store: Store) -> None:
    good = made().add(store, NAME)
    index = Path(store.paths.images, "index.json")
    document = json.loads(index.read_text())
    fifo, number = digest(b"fifo"), 10**40
    os.mkfifo(store.blob_path(fifo))
    store.put(b'{"schemaVersion":2,"manifests":[]}')
    media = "application/vnd.oci.image.manifest.v1+json"
    poison = [
        {"mediaType": media, "digest": fifo, "size": 5},
        {"mediaType": media, "digest": digest(b"missing"), "size": 5},
        {"mediaType": media, "digest": "sha256:../../../etc/passwd", "size": 5},
        {"mediaType": media, "digest": good.digest, "size": number},
        {"mediaType": 5, "digest": 6, "size": "x", "annotations": ["a"]},
        {"mediaType": media, "digest": good.id, "size": 5, "annotations": {"a": 1}},
        {},
    ]
    document["manifests"] += [*poison, "text", None]
    index.write_text(json.dumps(document))
    found = store.images()
    assert [image.broken for image in found if image.names == [NAME]] == [None]
    broken = [image for image in found if image.broken]
    assert len(broken) >= 5
    assert {finding.kind for finding in store.check()} >= {"image"}
    assert store.find(fifo).broken
    for image in broken:
        store.remove(image)
    assert [image.id for image in store.images()] == [good.id]
    store.collect(set())
    assert store.find("x").layers


def test_unreadable_index_is_one_clear_error_and_nothing_is_collected(store: Store) -> None:
    made().add(store, NAME)
    index = Path(store.paths.images, "index.json")
    for text in ("", "{", '{"manifests": 5}', "[" * 100_000):
        index.write_text(text)
        with pytest.raises(ImageError, match=r"index\.json"):
            store.images()
        with pytest.raises(ImageError, match=r"index\.json"):
            store.collect(set())
        assert [finding.kind for finding in store.check()] == ["index"]
    assert len(os.listdir(store.blobs.directory)) == 4


# ------------------------------------------------------------------------------- garbage


def test_collect_removes_what_nothing_reaches(store: Store) -> None:
    old, new = made(b"old").add(store, NAME), made(b"new").add(store, NAME)
    assert store.collect(set()) == []
    assert store.remove(old) == []
    removed = store.collect(set())
    assert sorted(kind for kind, _, _ in removed) == ["blob", "blob", "blob", "layer"]
    assert ("layer", old.diff_ids[0], 3) in removed
    assert store.find("x").layers and new.layers
    assert len(os.listdir(store.paths.layers)) == 2
    assert store.remove(store.find("x")) == [NAME]
    assert store.collect({new.diff_ids[0]})
    assert os.listdir(store.paths.layers) == [new.diff_ids[0][7:]]
    store.collect(set())
    assert os.listdir(store.paths.layers) == os.listdir(store.blobs.directory) == []


def test_nothing_is_collected_while_an_image_is_brought(tmp_path: Path, store: Store) -> None:
    made().add(store, NAME)
    store.remove(store.find("x"))
    other = images.new_store(tmp_path)
    with other.hold():
        assert store.collect(set()) == []
    assert store.collect(set())


def test_check_reads_every_byte(store: Store) -> None:
    image = made().add(store, NAME)
    assert store.check() == []
    blob = Path(store.blob_path(image.manifest["layers"][0]["digest"]))
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + b"?")
    Path(image.layers[0], "g").write_bytes(b"COMMON")
    found = {(finding.kind, finding.name) for finding in store.check()}
    assert ("blob", image.manifest["layers"][0]["digest"]) in found
    assert ("layer", image.diff_ids[1]) in found
    store.check(repair=True)
    assert not blob.exists()
    assert {finding.kind for finding in store.check()} == {"blob"}
    made().add(store, NAME)
    assert Path(store.find("x").layers[0], "g").read_bytes() == b"common"
    assert store.check() == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda top: os.chmod(top / "f", 0o600),
        lambda top: os.unlink(top / "f"),
        lambda top: (top / "new").write_bytes(b""),
        lambda top: os.utime(top / "f", (5, 5)),
        lambda top: os.setxattr(top / "f", "user.x", b"1"),
        lambda top: os.unlink(top.parent / "layer.json"),
        lambda top: (top.parent / "layer.json").write_text('{"bytes": 1e400}'),
    ],
    ids=["mode", "missing", "added", "time", "attribute", "record", "poisoned record"],
)
def test_check_notices_a_changed_layer(store: Store, damage: Any) -> None:
    image = made().add(store, NAME)
    damage(Path(image.layers[1]))
    assert [finding.kind for finding in store.check()] == ["layer"]
    assert [one.names for one in store.images()] == [[NAME]]


# ---------------------------------------------------------------------------- many at once


def test_many_processes_add_images_and_names(tmp_path: Path) -> None:
    made().add(images.new_store(tmp_path), NAME)
    pids = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                own = images.new_store(tmp_path)
                made(b"%d" % (number % 3)).add(own, f"docker.io/library/n{number}:latest")
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
    store = images.new_store(tmp_path)
    names = {name for image in store.images() for name in image.names}
    assert names == {NAME, *(f"docker.io/library/n{number}:latest" for number in range(8))}
    assert len(os.listdir(store.paths.layers)) == 5
    assert store.check() == [] and tmp(store) == []


def test_killed_at_any_moment_leaves_a_whole_store(tmp_path: Path) -> None:
    big = Made([images.tar(*(member(f"d/{n}", os.urandom(3000)) for n in range(300)))])
    for delay in (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.09):
        pid = os.fork()
        if pid == 0:
            big.add(images.new_store(tmp_path, durable=True), NAME)
            os._exit(0)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        store = images.new_store(tmp_path)
        assert [finding for finding in store.check() if finding.problem] == []
        for name in tmp(store):
            assert name.startswith(("partial-", "layer-"))
    big.add(store, NAME)
    assert store.check() == []
    assert [name for name in tmp(store) if not name.startswith("partial-")] == []


def test_locks_and_descriptors_are_let_go(store: Store) -> None:
    before = len(os.listdir("/proc/self/fd"))
    made().add(store, NAME)
    store.images(), store.check(), store.collect(set())
    with pytest.raises(DigestMismatch), store.hold(), store.writer(digest(b"1"), 1) as writer:
        writer.write(b"2")
        writer.finish()
    assert len(os.listdir("/proc/self/fd")) == before
    fd = kernel.open(f"{store.paths.images}/blobs", kernel.O_RDONLY)
    kernel.flock(fd, kernel.LOCK_EX | kernel.LOCK_NB)
    kernel.close(fd)


def test_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    store = Store(Paths(str(tmp_path / "a"), str(tmp_path / "b")))
    assert store.images() == []
    with pytest.raises(NotFound):
        store.find("x")
    assert not (tmp_path / "a").exists()
    assert blobs.hex_of(digest(b"")) == digest(b"")[7:]
