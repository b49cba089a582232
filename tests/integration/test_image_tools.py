"""Other tools read what we write, and we read what they write: to the same trees and bytes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from minicontainer import kernel
from minicontainer.image import archive, packing, saving, tarball
from minicontainer.image.store import Image, Store
from tests.support import images
from tests.support.images import Made, directory, link, member, symlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.root
NAME = "docker.io/library/x:latest"
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
needs_umoci = pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci")
needs_podman = pytest.mark.skipif(not shutil.which("podman"), reason="needs podman")
CAPABILITY = bytes.fromhex("0100000200040000" + "00" * 12)

LAYERS = [
    images.tar(
        directory("./", mode=0o755, mtime=10),
        directory("d/", mode=0o750, uid=7),
        member("d/a", b"a" * 100_000, mode=0o4755),
        link("d/hard", "d/a"),
        directory("gone/"),
        member("gone/x"),
        directory("replaced/"),
        member("replaced/old"),
        member("file", b"1"),
        symlink("soft", "d/a"),
        member(
            "ping", xattrs={"security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
        ),
        member("tty", kind="character", devmajor=5, devminor=0, mode=0o620, gid=5),
        member("pipe", kind="fifo"),
    ),
    images.tar(
        directory("./", mode=0o711, mtime=20),
        member(".wh.gone"),
        directory("replaced/", mode=0o700, mtime=77),
        member("replaced/.wh..wh..opq"),
        member("replaced/new", b"new"),
        directory("d/", mode=0o755),
        member("d/.wh.a"),
        member("file", b"two", uid=100_000, gid=2**31),
        directory("soft/"),
        member("soft/in", b"a directory now"),
    ),
    images.tar(
        directory("./", mode=0o755, mtime=30),
        directory("gone/"),
        member("gone/y", b"back", mtime=1_234_567_890),
    ),
]


def run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return images.new_store(tmp_path)


@pytest.fixture
def image(store: Store) -> Image:
    return Made(LAYERS).add(store, NAME)


def merged(tmp_path: Path, layers: list[str]) -> dict[str, Any]:
    """The facts of the tree that an overlay of the layers shows."""
    for name in ("empty", "merged"):
        (tmp_path / name).mkdir()
    options = "lowerdir=" + ":".join([*layers, str(tmp_path / "empty")])
    kernel.mount("overlay", str(tmp_path / "merged"), "overlay", 0, options)
    try:
        found: dict[str, Any] = images.facts(tmp_path / "merged")
        found[""] = stat.S_IMODE(os.stat(tmp_path / "merged").st_mode)
        return found
    finally:
        kernel.umount2(str(tmp_path / "merged"), 0)


def umoci_tree(tmp_path: Path, layout: str, tag: str) -> dict[str, Any]:
    run("umoci", "unpack", "--image", f"{layout}:{tag}", str(tmp_path / "bundle"))
    found: dict[str, Any] = images.facts(tmp_path / "bundle" / "rootfs")
    found[""] = stat.S_IMODE(os.stat(tmp_path / "bundle" / "rootfs").st_mode)
    return found


@needs_umoci
def test_tree_is_the_one_that_umoci_unpacks(tmp_path: Path, image: Image) -> None:
    saving.save(image._store, [(image, [NAME])], str(tmp_path / "layout"), "oci-dir")
    assert merged(tmp_path, image.layers) == umoci_tree(
        tmp_path, str(tmp_path / "layout"), "latest"
    )


@needs_umoci
@needs_skopeo
def test_layers_that_umoci_writes(tmp_path: Path, store: Store) -> None:
    """An image made by umoci step by step: files deleted, replaced, linked, with holes."""
    layout = str(tmp_path / "made")
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:t")
    bundle = tmp_path / "work"
    rootfs = bundle / "rootfs"
    run("umoci", "unpack", "--image", f"{layout}:t", str(bundle))

    def repack() -> None:
        run("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:t", str(bundle))

    (rootfs / "usr/bin").mkdir(parents=True)
    (rootfs / "usr/bin/tool").write_bytes(b"x" * 50_000)
    os.chmod(rootfs / "usr/bin/tool", 0o6755)
    os.link(rootfs / "usr/bin/tool", rootfs / "usr/bin/alias")
    os.setxattr(rootfs / "usr/bin/tool", "security.capability", CAPABILITY)
    os.setxattr(rootfs / "usr", "user.note", b"\x01=\n")
    (rootfs / ("n" * 120) / ("m" * 120)).mkdir(parents=True)
    (rootfs / "var/spool/deep").mkdir(parents=True)
    (rootfs / "var/spool/deep/f").write_bytes(b"f")
    with open(rootfs / "holes", "wb") as file:
        file.truncate(30 << 20)
        file.seek(9 << 20)
        file.write(b"data")
    os.symlink("usr/bin", rootfs / "bin")
    (rootfs / "opt").mkdir()
    (rootfs / "opt" / "alias").write_bytes(b"not the one in /usr/bin")
    repack()
    subprocess.run(["rm", "-r", str(rootfs / "var/spool")], check=True)
    (rootfs / "var/spool").write_bytes(b"a file now")
    (rootfs / "usr/bin/tool").unlink()
    os.chown(rootfs / "usr/bin/alias", 33, 44)
    (rootfs / "bin").unlink()
    (rootfs / "bin").mkdir()
    (rootfs / "bin/own").write_bytes(b"1")
    (rootfs / "opt/alias").unlink()
    (rootfs / "opt").rmdir()
    os.symlink("usr/bin", rootfs / "opt")
    repack()
    (rootfs / "var/spool").unlink()
    (rootfs / "var/spool").mkdir()
    (rootfs / "var/spool/again").write_bytes(b"2")
    repack()
    ((_, image),) = archive.load(store, layout)
    assert len(image.stack()) == 3
    ours, theirs = merged(tmp_path, image.layers), umoci_tree(tmp_path, layout, "t")
    assert ours == theirs
    assert store.check() == []


@needs_skopeo
def test_skopeo_reads_the_store_as_it_stands(store: Store, image: Image) -> None:
    found = json.loads(run("skopeo", "inspect", f"oci:{store.paths.images}:{NAME}"))
    assert found["Digest"] == image.digest
    assert found["Layers"] == [layer["digest"] for layer in image.manifest["layers"]]


@needs_umoci
def test_umoci_reads_the_store_as_it_stands(store: Store, image: Image) -> None:
    store.tag(image, "plain")
    run("umoci", "stat", "--image", f"{store.paths.images}:plain", "--json")
    assert NAME in run("umoci", "list", "--layout", store.paths.images)


@needs_skopeo
@pytest.mark.parametrize(
    ("form", "docker"),
    # Before version 1.13 skopeo finds no Docker manifest in an OCI layout.
    [
        ("docker-archive", False),
        ("oci-archive", False),
        ("oci-dir", False),
        ("docker-archive", True),
    ],
)
def test_skopeo_copies_from_what_we_save(
    tmp_path: Path, store: Store, form: str, docker: bool
) -> None:
    image = Made(LAYERS, docker=docker).add(store, NAME)
    out, copy = str(tmp_path / "out"), str(tmp_path / "copy")
    saving.save(store, [(image, [NAME])], out, form)
    source = f"docker-archive:{out}:x:latest"
    if form != "docker-archive":
        source = f"{'oci' if form == 'oci-dir' else 'oci-archive'}:{out}:latest"
    run("skopeo", "copy", "--insecure-policy", source, f"dir:{copy}")
    manifest = json.loads(Path(copy, "manifest.json").read_text())
    assert manifest["config"]["digest"] == image.id
    if form != "docker-archive":
        assert manifest["layers"] == image.manifest["layers"]


@needs_skopeo
@pytest.mark.parametrize(
    "target",
    ["docker-archive:{}:quay.io/x/y:1", "oci-archive:{}:quay.io/x/y:1", "oci:{}:quay.io/x/y:1"],
)
def test_what_skopeo_writes_is_loaded(
    tmp_path: Path, store: Store, image: Image, target: str
) -> None:
    where = str(tmp_path / "copied")
    source = f"oci:{store.paths.images}:{NAME}"
    run("skopeo", "copy", "--insecure-policy", source, target.format(where))
    other = images.new_store(tmp_path / "2")
    ((name, loaded),) = archive.load(other, where)
    assert name == "quay.io/x/y:1"
    assert loaded.diff_ids == image.diff_ids
    for ours, theirs in zip(image.layers, loaded.layers):
        assert images.facts(ours) == images.facts(theirs)
    if not target.startswith("docker"):
        assert loaded.digest == image.digest


@needs_skopeo
def test_what_skopeo_puts_into_the_store_is_an_image_of_it(store: Store, image: Image) -> None:
    layout = store.paths.images
    run(
        "skopeo", "copy", "--insecure-policy", f"oci:{layout}:{NAME}", f"oci:{layout}:quay.io/a/b:2"
    )
    assert store.find("quay.io/a/b:2").id == image.id
    assert sorted(store.find("x").names) == [NAME, "quay.io/a/b:2"]
    assert store.check() == []


@needs_podman
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("plain", [False, True], ids=["packed", "plain"])
def test_podman_loads_what_we_save(
    tmp_path: Path, store: Store, image: Image, form: str, plain: bool
) -> None:
    out = str(tmp_path / "out.tar")
    saving.save(store, [(image, [NAME])], out, form, plain=plain)
    runroot = tempfile.mkdtemp(prefix="mc-")  # podman wants it short
    podman = ["podman", "--root", str(tmp_path / "p"), "--runroot", runroot]
    podman += ["--storage-driver", "vfs"]
    try:
        run(*podman, "load", "-i", out)
        found = json.loads(run(*podman, "image", "ls", "--format", "json", "--no-trunc"))
        assert [one["Id"].replace("sha256:", "") for one in found] == [image.id[7:]]
        if form == "docker-archive":
            assert found[0]["Names"] == [NAME]
    finally:
        subprocess.run(
            [*podman, "rmi", "-fa"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def test_gnu_tar_unpacks_what_we_pack(tmp_path: Path, image: Image) -> None:
    top = tmp_path / "top"
    top.mkdir()
    base = os.open(image.layers[2], os.O_RDONLY)
    out = os.open(tmp_path / "out.tar", os.O_WRONLY | os.O_CREAT)
    packing.pack(base, lambda piece: os.write(out, piece), root=True)
    os.close(out), os.close(base)
    run("tar", "-xpf", str(tmp_path / "out.tar"), "--xattrs", "--xattrs-include=*", "-C", str(top))
    assert images.facts(top) == images.facts(image.layers[2])


def test_tarball_of_gnu_tar_becomes_an_image(tmp_path: Path, store: Store, image: Image) -> None:
    for packer in ("", "z", "j", "J", "--zstd"):
        if packer == "--zstd" and not shutil.which("zstd"):
            continue
        path = str(tmp_path / f"t{packer}")
        options = ["--format=posix", "--xattrs", "--xattrs-include=*", "-C", image.layers[2]]
        flags = ["-c", packer] if packer.startswith("--") else [f"-c{packer}"]
        run("tar", *flags, "-f", path, *options, ".")
        made = tarball.import_tarball(store, path, None, [])
        assert images.facts(made.layers[0]) == images.facts(image.layers[2])


def test_a_hundred_layers(tmp_path: Path, store: Store) -> None:
    layers = [
        images.tar(member(f"f{number}"), member("same", b"%d" % number)) for number in range(100)
    ]
    image = Made(layers).add(store, NAME)
    assert len(image.layers) == 100
    assert Path(image.layers[0], "same").read_bytes() == b"99"
    saving.save(store, [(image, [NAME])], str(tmp_path / "out"))
    other = images.new_store(tmp_path / "2")
    archive.load(other, str(tmp_path / "out"))
    saving.save(other, [(other.find("x"), [NAME])], str(tmp_path / "again"))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "again").read_bytes()
