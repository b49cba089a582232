"""primitives.copies: a copy is its source in everything but place."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from minicontainer.errors import Error
from minicontainer.primitives import copies, trees
from tests.unit.test_trees import as_user, open_directory  # noqa: F401

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MINE = copies.Manner((os.geteuid(), os.getegid()), False, 0o600)


def copy(source: Path, destination: Path, manner: copies.Manner = copies.EXACT) -> list[str]:
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    destination_fd = os.open(destination, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return copies.copy(source_fd, destination_fd, manner)
    finally:
        os.close(source_fd)
        os.close(destination_fd)


def copy_tree(source: Path, destination: Path, **how: object) -> None:
    source_fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    destination_fd = os.open(destination, os.O_RDONLY | os.O_DIRECTORY)
    try:
        trees.copy_tree(source_fd, destination_fd, **how)  # type: ignore[arg-type]
    finally:
        os.close(source_fd)
        os.close(destination_fd)


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """What an exact copy must share with its source."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    fd = os.open(top, os.O_RDONLY)
    for entry in trees.walk(fd):
        status = entry.status
        path = top / entry.path
        content = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        found[entry.path] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            content,
            inodes.setdefault(status.st_ino, entry.path),
            tuple(
                sorted(
                    (name, os.getxattr(path, name, follow_symlinks=False))
                    for name in os.listxattr(path, follow_symlinks=False)
                )
            ),
        )
    os.close(fd)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "d" / "closed").mkdir(parents=True)
    (top / "d" / "file").write_bytes(b"content\n" * 50_000)
    (top / "empty").write_bytes(b"")
    os.link(top / "d" / "file", top / "hard")
    (top / "link").symlink_to("d/nowhere")
    (top / "bad\udcffname").write_bytes(b"x")
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "socket", 0o600 | stat.S_IFSOCK)
    (top / "d" / "file").chmod(0o4751)
    (top / "d" / "closed").chmod(0o1500)
    os.utime(top / "d" / "file", ns=(1_000_000_000_123_456_789, 999_999_999_987_654_321))
    os.utime(top / "link", ns=(1, 1_234_567_890_000_000_001), follow_symlinks=False)
    os.utime(top / "d", ns=(1, 77_000_000_001))
    return top


def test_copy_tree_keeps_everything(source: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    source.chmod(0o711)
    os.utime(source, ns=(5, 123_456_789))
    copy_tree(source, tmp_path / "copy")
    assert facts(tmp_path / "copy") == facts(source)
    top = os.stat(tmp_path / "copy")
    assert (stat.S_IMODE(top.st_mode), top.st_mtime_ns) == (0o711, 123_456_789)


@root_only
def test_copy_tree_as_root_keeps_owners_devices_and_attributes(
    source: Path, tmp_path: Path
) -> None:
    os.chown(source / "d" / "file", 1234, 4321)
    os.chmod(source / "d" / "file", 0o6755)
    os.chown(source / "link", 7, 8, follow_symlinks=False)
    os.chown(source / "d" / "closed", 7, 8)
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chown(source / "null", 9, 9)
    os.mknod(source / "loop", 0o640 | stat.S_IFBLK, os.makedev(7, 200))
    os.setxattr(source / "empty", "user.note", b"\x00\xff")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source / "hard", "security.capability", capability)
    (tmp_path / "copy").mkdir()
    copy_tree(source, tmp_path / "copy")
    found = facts(tmp_path / "copy")
    assert found == facts(source)
    assert found["hard"][-1] == (("security.capability", capability),)
    assert found["link"][1:3] == (7, 8)


@root_only
def test_marks_of_an_overlay_are_not_copied(tmp_path: Path) -> None:
    for name in ("source", "copy"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "d").mkdir()
    os.setxattr(tmp_path / "source" / "d", "trusted.overlay.opaque", b"y")
    os.setxattr(tmp_path / "source" / "d", "user.overlay.opaque", b"y")
    os.setxattr(tmp_path / "source" / "d", "user.kept", b"y")
    copy_tree(tmp_path / "source", tmp_path / "copy")
    assert os.listxattr(tmp_path / "copy" / "d") == ["user.kept"]


def test_an_ordinary_user_copies_what_he_may(open_directory: Path) -> None:  # noqa: F811
    if os.geteuid() == 0:
        (open_directory / "device").mkdir()
        os.mknod(open_directory / "device" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (open_directory / "device" / "roots").write_text("x")
        (open_directory / "device" / "roots").chmod(0o4755)

    def check() -> None:
        top = open_directory / "source"
        (top / "d").mkdir(parents=True)
        (top / "d" / "file").write_text("x")
        (top / "d").chmod(0o500)
        (open_directory / "copy").mkdir()
        copy_tree(top, open_directory / "copy")
        assert facts(open_directory / "copy") == facts(top)
        if (open_directory / "device").exists():
            (open_directory / "other").mkdir()
            assert copy(open_directory / "device", open_directory / "other") == ["null"]
            assert os.listdir(open_directory / "other") == ["roots"]
            status = os.stat(open_directory / "other" / "roots")
            assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (65534, 0o755)

    as_user(check)


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "copy").mkdir()
    with open(tmp_path / "source" / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"middle")
        file.truncate(1 << 30)
    copy_tree(tmp_path / "source", tmp_path / "copy")
    status = os.stat(tmp_path / "copy" / "sparse")
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 < 1 << 22
    with open(tmp_path / "copy" / "sparse", "rb") as file:
        file.seek((3 << 20) - 1)
        assert file.read(8) == b"\0middle\0"


def test_bytes_are_copied_without_copy_file_range(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*arguments: object) -> int:
        raise OSError(errno.EXDEV, "other file systems")

    monkeypatch.setattr(copies.kernel, "copy_file_range", unknown)
    (tmp_path / "copy").mkdir()
    copy_tree(source, tmp_path / "copy")
    assert facts(tmp_path / "copy") == facts(source)


def test_files_without_a_size_are_read_to_their_end(tmp_path: Path) -> None:
    fd = os.open("/proc/self", os.O_RDONLY)
    copy_fd = os.open(tmp_path, os.O_RDONLY)
    copies.copy_entry(fd, "limits", copy_fd, "limits", MINE)
    os.close(fd)
    os.close(copy_fd)
    assert (tmp_path / "limits").read_text().startswith("Limit ")


def test_a_copy_into_a_filled_directory_merges(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    (target / "d").mkdir(parents=True)
    (target / "d" / "kept").write_text("kept")
    (target / "d" / "file").write_text("old")
    (target / "empty").symlink_to("/etc/passwd")
    (target / "link").write_text("a file")
    copy(source, target)
    assert (target / "d" / "kept").read_text() == "kept"
    assert (target / "d" / "file").stat().st_size == 400_000
    assert (target / "empty").read_bytes() == b"" and not (target / "empty").is_symlink()
    assert os.readlink(target / "link") == "d/nowhere"


def test_a_directory_and_another_kind_do_not_replace_each_other(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    (target / "empty").mkdir(parents=True)
    with pytest.raises(Error, match='cannot overwrite directory "empty" with non-directory'):
        copy(source, target)
    (target / "empty").rmdir()
    (target / "other").mkdir()
    subprocess.run(["rm", "-rf", target / "d"], check=True)
    (target / "d").symlink_to("other")
    with pytest.raises(Error, match='cannot overwrite non-directory "d" with directory'):
        copy(source, target)
    assert os.listdir(target / "other") == []


@root_only
def test_set_id_bits_do_not_survive_a_change_of_owner(tmp_path: Path) -> None:
    for name in ("source", "copy"):
        (tmp_path / name).mkdir()
    for name, owner in (("mine", 0), ("theirs", 1000)):
        (tmp_path / "source" / name).write_text("x")
        os.chown(tmp_path / "source" / name, owner, owner)
        (tmp_path / "source" / name).chmod(0o6755)
    os.mknod(tmp_path / "source" / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(tmp_path / "source" / "null", 0o666)
    copy(tmp_path / "source", tmp_path / "copy", MINE)
    modes = {
        name: stat.S_IMODE(os.stat(tmp_path / "copy" / name).st_mode)
        for name in ("mine", "theirs", "null")
    }
    assert modes == {"mine": 0o6755, "theirs": 0o755, "null": 0o600}
    assert os.stat(tmp_path / "copy" / "theirs").st_uid == 0


@root_only
def test_mounts_of_the_source_become_empty(tmp_path: Path) -> None:
    for name in ("source/in", "copy", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "x").write_text("secret")
    (tmp_path / "source" / "file").write_text("covered")
    script = (
        f"cd {tmp_path} && mount --bind other source/in && mount --bind other/x source/file && "
        f"{os.sys.executable} -c "  # type: ignore[attr-defined]
        "'import os; from minicontainer.primitives import trees;"
        'trees.copy_tree(os.open("source", os.O_RDONLY), os.open("copy", os.O_RDONLY))\''
    )
    answer = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert os.listdir(tmp_path / "copy" / "in") == []
    assert (tmp_path / "copy" / "file").read_bytes() == b""


@pytest.mark.parametrize("direction", ["source", "copy"])
def test_a_swapped_directory_leads_nowhere_else(tmp_path: Path, direction: str) -> None:
    """One side swaps a directory and a link to a secret all the time: nothing passes through."""
    for name in ("source/d/e", "copy/d/e", "secret/e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "e" / "key").write_text("secret")
    for number in range(20):
        (tmp_path / "source" / "d" / "e" / str(number)).write_text("x")
    side = tmp_path / direction
    (side / "other").symlink_to(tmp_path / "secret")
    before = facts(tmp_path / "secret")
    stop = threading.Event()

    def swap() -> None:
        from minicontainer import kernel

        fd = os.open(side, os.O_RDONLY)
        while not stop.is_set():
            kernel.renameat2(fd, "d", fd, "other", kernel.RENAME_EXCHANGE)
        os.close(fd)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(150):
            try:
                copy(tmp_path / "source", tmp_path / "copy", MINE)
            except (OSError, Error):
                pass
    finally:
        stop.set()
        thread.join()
    assert facts(tmp_path / "secret") == before
    found = subprocess.run(
        ["find", tmp_path / "copy", "-name", "key"], capture_output=True, check=True
    )
    assert found.stdout == b""
