"""image.packing: what a container changed becomes a layer that gives the same tree again."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.errors import ImageError
from minicontainer.image import packing
from tests.support import images
from tests.support.images import directory, link, member, symlink
from tests.unit.test_image_layer import apply, root_only


def pack(top: Path, **options: object) -> bytes:
    parts: list[bytes] = []
    fd = os.open(top, os.O_RDONLY)
    try:
        size = packing.pack(fd, parts.append, **options)  # type: ignore[arg-type]
    finally:
        os.close(fd)
    data = b"".join(parts)
    assert len(data) == size
    return data


@root_only
def test_layer_packed_and_applied_again_is_the_same_tree(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000" + "00" * 12).decode("utf-8", "surrogateescape")
    first = tmp_path / "first"
    apply(
        first,
        images.tar(
            directory("./", mode=0o711, mtime=3),
            member("d/.wh.gone"),
            member("o/.wh..wh..opq"),
            member("o/f", b"x" * 700_000, uid=5, gid=2**31, mode=0o4755, mtime=1234.5),
            link("o/hard", "o/f"),
            symlink("soft", "/" + "t" * 300),
            member("n" * 250, xattrs={"user.a": "b=\nü", "security.capability": capability}),
            member("tty", kind="character", devmajor=5, devminor=0),
            member("pipe", kind="fifo", mode=0o622),
            directory("empty/", mtime=-5),
        ),
    )
    os.utime(first / "pipe", ns=(-1_500_000_000, -1_500_000_000))
    data = pack(first, root=True)
    apply(tmp_path / "second", data)
    assert images.facts(tmp_path / "second") == images.facts(first)
    top = os.stat(tmp_path / "second")
    assert (stat.S_IMODE(top.st_mode), top.st_mtime) == (0o711, 3)
    assert pack(tmp_path / "second", root=True) == data


@root_only
def test_changes_made_through_an_overlay_become_whiteouts() -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for one in ("lower", "upper", "work", "merged"):
            (top / one).mkdir()
        apply(
            top / "lower",
            images.tar(member("d/a"), member("d/b"), member("e/x"), member("f"), member("skip/me")),
        )
        options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
        kernel.mount("overlay", str(top / "merged"), "overlay", 0, options)
        try:
            merged = top / "merged"
            (merged / "d/a").unlink()
            (merged / "e/x").unlink()
            (merged / "e").rmdir()
            (merged / "e").mkdir()
            (merged / "e/new").write_bytes(b"new")
            (merged / "f").unlink()
            (merged / "skip/more").write_bytes(b"1")
        finally:
            kernel.umount2(str(top / "merged"), 0)
        found = images.names_in(pack(top / "upper", skip=("skip",)))
        assert sorted(found) == [".wh.f", "d", "d/.wh.a", "e", "e/.wh..wh..opq", "e/new"]
        assert found["e/new"] == b"new"


@root_only
def test_name_that_would_mean_a_deletion_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.x").write_bytes(b"")
    with pytest.raises(ImageError, match="deleted file"):
        pack(tmp_path)


@root_only
@pytest.mark.parametrize("mark", ["redirect", "metacopy"])
def test_what_only_the_overlay_can_read_is_refused(tmp_path: Path, mark: str) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", f"trusted.overlay.{mark}", b"/x")
    with pytest.raises(ImageError, match=mark):
        pack(tmp_path)
