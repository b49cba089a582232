"""image.corrections: an overlay of the layers shows the attributes that one tree would have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.image.store import Image, Store
from tests.support import images
from tests.support.images import Made, directory, link, member, symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from typing import Iterator

    Members = list[tuple[tarfile.TarInfo, bytes]]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NAME = "docker.io/library/x:latest"
BASE = [
    directory("./", mode=0o711, mtime=1),
    directory("usr/", mode=0o750, uid=5, gid=6, mtime=11, xattrs={"user.a": "b"}),
    directory("usr/bin/", mode=0o2755, mtime=12),
    member("usr/bin/old"),
    directory("opt/", mode=0o1777, mtime=13),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return images.new_store(tmp_path)


@pytest.fixture
def show(tmp_path: Path, store: Store) -> Iterator[object]:
    """A function that makes an image of layers, and the place where it is seen."""
    seen = tmp_path / "seen"
    (tmp_path / "empty").mkdir()
    seen.mkdir()

    def mount(*layers: Members) -> Path:
        image = Made([images.tar(*members) for members in layers]).add(store, NAME)
        options = "lowerdir=" + ":".join([*image.layers, str(tmp_path / "empty")])
        kernel.mount("overlay", str(seen), "overlay", 0, options)
        return seen

    yield mount
    kernel.umount2(str(seen), 0)


def worn(path: Path) -> tuple[int, int, int, float]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime


def test_directories_named_in_passing_keep_what_they_had(show: object) -> None:
    top = show(BASE, [member("usr/bin/new")])  # type: ignore[operator]
    assert worn(top / "usr") == (0o750, 5, 6, 11)
    assert os.getxattr(top / "usr", "user.a") == b"b"
    assert worn(top / "usr/bin") == (0o2755, 0, 0, 12)
    assert sorted(os.listdir(top / "usr/bin")) == ["new", "old"]
    assert worn(top)[0] == 0o711


def test_what_is_described_again_counts(show: object) -> None:
    top = show(BASE, [directory("usr/", mode=0o700, mtime=50), member("usr/bin/new")])  # type: ignore[operator]
    assert worn(top / "usr") == (0o700, 0, 0, 50)
    assert worn(top / "usr/bin") == (0o2755, 0, 0, 12)


def test_the_last_description_below_counts(show: object) -> None:
    top = show(BASE, [member("opt/x")], [directory("opt/", mode=0o701)], [member("opt/y")])  # type: ignore[operator]
    assert worn(top / "opt")[0] == 0o701
    assert sorted(os.listdir(top / "opt")) == ["x", "y"]


def test_what_was_deleted_or_replaced_in_between_does_not(show: object) -> None:
    top = show(  # type: ignore[operator]
        [*BASE, directory("a/", mode=0o700), directory("b/c/", mode=0o700)],
        [member(".wh.usr"), member("opt", b"a file"), symlink("a", "b"), member("b/.wh..wh..opq")],
        [member("usr/bin/new"), member("opt/x"), member("a/x"), member("b/c/x")],
    )
    for name in ("usr", "usr/bin", "opt", "a", "b/c"):
        assert worn(top / name)[:3] == (0o755, 0, 0), name
    assert os.listdir(top / "usr/bin") == ["new"]


def test_no_corrections_where_none_are_needed(store: Store) -> None:
    described = [directory("./", mode=0o700), directory("usr/"), member("usr/x")]
    image = Made([images.tar(*BASE), images.tar(*described)]).add(store, NAME)
    assert len(image.layers) == 2
    assert len(os.listdir(store.paths.layers)) == 2
    nothing = Made([images.tar(*BASE), images.tar(directory("./"), member("own/x"))])
    image = nothing.add(store, NAME)
    assert len(image.layers) == len(image.layers) == 2


def image_of(store: Store, *layers: Members) -> Image:
    return Made([images.tar(*members) for members in layers]).add(store, NAME)


def test_they_are_made_once_and_go_with_the_image(store: Store) -> None:
    image = image_of(store, BASE, [member("usr/bin/new")])
    before = [*image.layers]
    assert image.layers == before and len(before) == 3
    inode = os.stat(before[0]).st_ino
    assert os.stat(store.find("x").layers[0]).st_ino == inode
    assert store.check() == []
    assert store.collect(set()) == []
    store.remove(image)
    assert store.collect(image.layer_ids) and len(os.listdir(store.paths.layers)) == 3
    store.collect(set())
    assert os.listdir(store.paths.layers) == []


def test_links_of_a_layer_do_not_lead_out(store: Store, tmp_path: Path) -> None:
    host = tmp_path / "host"
    (host / "bin").mkdir(parents=True)
    os.chmod(host, 0o777)
    before = images.facts(host)
    image = image_of(
        store,
        [symlink("usr", str(host)), directory("x/"), link("y", "usr")],
        [member("usr/bin/new"), member("x/f")],
    )
    assert len(image.layers) >= 2
    assert images.facts(host) == before
