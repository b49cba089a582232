"""engine.archive: tar streams out of a tree and into one."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from minicontainer.engine import archive
from minicontainer.errors import Error
from tests.unit.test_copies import facts, source  # noqa: F401
from tests.unit.test_trees import as_user, open_directory  # noqa: F401

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def pack(top: Path, prefix: str = "") -> bytes:
    fd = os.open(top, os.O_RDONLY)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            with archive.Writer(writing) as writer:
                writer.tree(fd, prefix)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    os.close(fd)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    assert os.waitpid(pid, 0)[1] == 0
    return data


def unpack(data: bytes, root: Path, top: str = "/") -> None:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    read_fd = os.memfd_create("archive")
    try:
        os.write(read_fd, data)
        os.lseek(read_fd, 0, os.SEEK_SET)
        archive.unpack(read_fd, root_fd, top)
    finally:
        os.close(read_fd)
        os.close(root_fd)


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.uid, info.gid = os.geteuid(), os.getegid()
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def stream(*members: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in members:
            if info.isreg():
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def whole_seconds(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {
        path: (*one[:3], int(str(one[3])) // 10**9, *one[4:])
        for path, one in found.items()
        if not stat.S_ISSOCK(int(str(one[0])))
    }


def test_a_tree_survives_being_packed_and_unpacked(source: Path, target: Path) -> None:  # noqa: F811
    if os.geteuid() == 0:
        os.chown(source / "link", 7, 8, follow_symlinks=False)
        os.chown(source / "d" / "file", 1234, 4321)
        os.chmod(source / "d" / "file", 0o6755)
        os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        capability = bytes.fromhex("0100000200200000000000000000000000000000")
        os.setxattr(source / "empty", "security.capability", capability)
    os.setxattr(source / "empty", "user.note", b"\x00\xff\n=")
    long = source / ("n" * 200) / ("m" * 200)
    long.mkdir(parents=True)
    (long / "f").write_text("deep")
    unpack(pack(source), target)
    assert whole_seconds(facts(target)) == whole_seconds(facts(source))


def test_gnu_tar_reads_what_we_write(source: Path, target: Path) -> None:  # noqa: F811
    data = pack(source, "top/")
    subprocess.run(["tar", "-x", "-C", target], input=data, check=True)
    assert whole_seconds(facts(target / "top")) == whole_seconds(facts(source))
    listing = subprocess.run(
        ["tar", "-t", "--quoting-style=literal"], input=data, capture_output=True, check=True
    )
    lines = listing.stdout.split(b"\n")
    assert lines[:2] == [b"top/bad\xffname", b"top/d/"]


def test_we_read_what_gnu_tar_writes(source: Path, target: Path) -> None:  # noqa: F811
    with open(source / "sparse", "wb") as file:
        file.write(b"begin")
        file.truncate(1 << 20)
    (source / ("n" * 150)).write_text("a long name")
    (source / "socket").unlink()
    for options in (["--format=gnu", "--sparse"], ["--format=pax"], ["--format=gnu", "-z"]):
        packed = subprocess.run(
            ["tar", "-c", *options, "-C", source, "."], capture_output=True, check=True
        )
        inner = target / "".join(options)
        inner.mkdir()
        unpack(packed.stdout, target, f"/{inner.name}")
        assert whole_seconds(facts(inner)) == whole_seconds(facts(source))


def test_owners_are_numbers_and_names_are_not_looked_up(source: Path) -> None:  # noqa: F811
    with tarfile.open(fileobj=io.BytesIO(pack(source))) as tar:
        for info in tar:
            assert (info.uname, info.gname) == ("", "")
            assert info.uid == os.geteuid()


def test_a_cut_archive_is_visible_as_such_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    fd = os.open(tmp_path, os.O_RDONLY)
    write_fd = os.memfd_create("archive")
    with pytest.raises(ZeroDivisionError):
        with archive.Writer(write_fd) as writer:
            writer.tree(fd)
            raise ZeroDivisionError
    written = os.pread(write_fd, 1 << 20, 0)
    assert not written.endswith(bytes(1024))
    os.close(fd)
    os.close(write_fd)


def test_a_reader_that_leaves_ends_the_writing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (1 << 20))
    reading, writing = os.pipe()
    os.close(reading)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Error) as caught:
        with archive.Writer(writing) as writer:
            writer.tree(fd)
    assert caught.value.exit_code == 141
    os.close(fd)
    os.close(writing)


def test_a_file_that_shrinks_or_has_no_size_keeps_the_stream_whole(tmp_path: Path) -> None:
    fd = os.open("/proc/self", os.O_RDONLY)
    write_fd = os.memfd_create("archive")
    with archive.Writer(write_fd) as writer:
        writer.entry(fd, "limits", "limits")
        writer.entry(fd, "comm", "comm")
    os.close(fd)
    with open(write_fd, "rb") as data:
        data.seek(0)
        with tarfile.open(fileobj=data) as tar:
            limits = tar.extractfile("limits")
            assert limits is not None
            assert limits.read().startswith(b"Limit ")
            assert tar.getnames() == ["limits", "comm"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "..", "a/.."])
def test_names_that_lead_out_are_refused(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(Error, match="leads out of it"):
        unpack(stream(member(name)), target)
    assert sorted(os.listdir(tmp_path)) == ["target"]


def test_absolute_names_stay_inside(tmp_path: Path, target: Path) -> None:
    unpack(stream(member("/etc/../x".replace("..", "y")), member("//top")), target)
    assert (target / "etc" / "y" / "x").exists() and (target / "top").exists()


def test_links_in_the_archive_stay_inside_the_root(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for link in (str(outside), "../outside", "/", "../../../../.."):
        unpack(
            stream(member("link", tarfile.SYMTYPE, linkname=link), member("link/evil/file")), target
        )
    assert os.listdir(outside) == []
    assert (target / "evil" / "file").exists()  # where / and ../.. lead inside the root
    assert not os.path.exists("/evil")


def test_members_follow_links_of_the_root_inside_it(target: Path) -> None:
    (target / "usr" / "lib").mkdir(parents=True)
    (target / "lib").symlink_to("/usr/lib")
    unpack(stream(member("lib/file")), target)
    assert (target / "usr" / "lib" / "file").exists()
    assert (target / "lib").is_symlink()


def test_a_link_that_is_a_members_last_name_is_replaced(tmp_path: Path, target: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (target / "link").symlink_to("../kept")
    unpack(stream(member("link")), target)
    assert (tmp_path / "kept").read_text() == "kept"
    assert (target / "link").read_text() == "x" and not (target / "link").is_symlink()


def test_hard_links_cannot_reach_out(tmp_path: Path, target: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(Error, match="leads out"):
        unpack(stream(member("h", tarfile.LNKTYPE, linkname="../secret")), target)
    (target / "up").symlink_to("..")
    with pytest.raises(FileNotFoundError):
        unpack(stream(member("h", tarfile.LNKTYPE, linkname="up/secret")), target)
    assert os.listdir(target) == ["up"]


def test_a_directory_and_another_kind_do_not_replace_each_other(target: Path) -> None:
    (target / "d").mkdir()
    with pytest.raises(Error, match="cannot overwrite directory"):
        unpack(stream(member("d")), target)
    (target / "f").write_text("")
    with pytest.raises(Error, match="cannot overwrite non-directory"):
        unpack(stream(member("f", tarfile.DIRTYPE)), target)


@pytest.mark.parametrize(
    "bad",
    [
        member("x", uid=2**32),
        member("x", tarfile.CHRTYPE, devmajor=0, devminor=0),
        member("x" * 5000),
        member("x", tarfile.SYMTYPE, pax_headers={"linkpath": "y\0z"}),
        member("x", b"Z", size=0),
    ],
    ids=["owner", "whiteout", "name", "nul", "type"],
)
def test_impossible_entries_are_refused(target: Path, bad: tarfile.TarInfo) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(bad)
    with pytest.raises(Error):
        unpack(data.getvalue(), target)
    assert os.listdir(target) == []


def test_marks_of_an_overlay_are_not_taken_from_an_archive(target: Path) -> None:
    info = member("d", tarfile.DIRTYPE)
    info.pax_headers = {
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.kept": "y",
    }
    unpack(stream(info), target)
    assert os.listxattr(target / "d") == ["user.kept"]


def test_strange_times_are_survived(target: Path) -> None:
    for moment in ("nan", "inf", "-1e300", "1e300", "-5"):
        info = member("f")
        info.pax_headers = {"mtime": moment}
        unpack(stream(info), target)
    assert os.stat(target / "f").st_mtime == -5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"not a tar archive" * 1000,
        stream(member("a"), content=b"y" * 5000)[:3000],
        gzip.compress(stream(member("a"), content=os.urandom(5000)))[:2000],
        stream(member("a")) + b"junk" * 1000,
    ],
    ids=["empty", "byte", "text", "cut", "cut-gzip", "junk-after-end"],
)
def test_damaged_archives_are_one_clear_error(target: Path, data: bytes) -> None:
    if data.endswith(b"junk"):
        unpack(data, target)  # after the end mark anything may come
        return
    with pytest.raises(Error, match="archive"):
        unpack(data, target)


def test_a_header_that_is_damaged_in_the_middle_is_not_taken_for_the_end(target: Path) -> None:
    data = bytearray(stream(member("a"), member("b")))
    data[1024 + 150] ^= 0xFF  # the checksum of the second header
    with pytest.raises(Error, match="damaged"):
        unpack(bytes(data), target)


def test_a_monstrous_header_is_refused_before_it_is_read(target: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1 << 40
    with pytest.raises(Error, match="impossible size"):
        unpack(info.tobuf(tarfile.GNU_FORMAT), target)


def test_endless_long_names_are_refused(target: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1
    one = info.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)
    with pytest.raises(Error, match="archive"):
        unpack(one * 5000, target)


def test_too_many_entries_are_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    unpack(stream(*(member(name) for name in "abc")), target)
    with pytest.raises(Error, match="more than 3"):
        unpack(stream(*(member(name) for name in "abcd")), target)


def test_unpacking_leaves_no_descriptors(target: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    unpack(stream(member("d/e/f"), member("g")), target)
    with pytest.raises(Error):
        unpack(stream(member("d/e/f"), member("..")), target)
    assert len(os.listdir("/proc/self/fd")) == before
