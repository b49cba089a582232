"""image.layer: the right tree comes out, and nothing outside it is ever touched."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import kernel
from minicontainer.errors import Error, ImageError
from minicontainer.image import layer, tar
from tests.support import images
from tests.support.images import directory, link, member, symlink
from tests.unit.test_image_tar import Source
from tests.unit.test_trees import as_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from typing import Iterator

    Members = list[tuple[tarfile.TarInfo, bytes]]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
USER = os.geteuid() != 0
OPAQUE = layer.opaque_attribute(USER)


def apply(
    top: Path, data: bytes, limits: tar.Limits = tar.LIMITS, user: bool = USER
) -> layer.Applied:
    top.mkdir(exist_ok=True)
    fd = os.open(top, os.O_RDONLY)
    try:
        return layer.apply(Source(data, 5000).read, fd, limits, user)
    finally:
        os.close(fd)


def made(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    apply(tmp_path / "layer", images.tar(*members))
    return tmp_path / "layer"


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, OPAQUE) == b"y"
    except OSError as failure:
        assert failure.errno == errno.ENODATA
        return False


# ------------------------------------------------------------------------------- contents


@root_only
@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
def test_tree_is_the_one_that_gnu_tar_packed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d" / "closed").mkdir(parents=True)
    (source / "d" / "file").write_bytes(b"content\n" * 90_000)
    (source / "empty").write_bytes(b"")
    os.link(source / "d" / "file", source / "hard")
    os.symlink("../nowhere", source / "d" / "soft")
    os.link(source / "d" / "soft", source / "soft2", follow_symlinks=False)
    os.mkfifo(source / "pipe")
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(source / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    with open(source / "sparse", "wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"middle")
    (source / ("n" * 200)).mkdir()
    (source / ("n" * 200) / "ü\udcff\n").write_bytes(b"odd")
    os.chown(source / "empty", 12345, 2**31 + 5)
    os.chmod(source / "empty", 0o6751)
    os.setxattr(source / "hard", "user.note", b"\xff\0\n=")
    os.setxattr(
        source / "empty", "security.capability", bytes.fromhex("0100000200040000" + "00" * 12)
    )
    os.utime(source / "d", ns=(1_500_000_000_123_456_789,) * 2)
    os.chmod(source / "d" / "closed", 0)
    os.chmod(source, 0o2751)
    os.utime(source, ns=(77_000_000_001,) * 2)
    data = subprocess.run(
        ["tar", "-cS", "--format=posix", "--xattrs", "--xattrs-include=*", "-f", "-", "-C"]
        + [str(source), "."],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    applied = apply(tmp_path / "layer", data)
    assert images.facts(tmp_path / "layer") == images.facts(source)
    top, expected = os.stat(tmp_path / "layer"), os.stat(source)
    assert (top.st_mode, top.st_mtime_ns) == (expected.st_mode, expected.st_mtime_ns)
    assert (tmp_path / "layer" / "sparse").stat().st_blocks * 512 < 1 << 20
    assert applied.root and not applied.implicit
    assert applied.bytes < 3 << 20


def test_later_entries_replace_earlier_ones(tmp_path: Path) -> None:
    top = made(
        tmp_path,
        member("a", b"old"),
        directory("b/"),
        member("b/c", b"below"),
        symlink("d", "a"),
        member("e", b"first"),
        link("f", "e"),
        member("a", b"new"),
        member("b", b"a file now"),
        directory("d/"),
        member("d/x", b"in a directory"),
        member("e", b"second"),
        symlink("f", "e"),
    )
    assert (top / "a").read_bytes() == b"new"
    assert (top / "b").read_bytes() == b"a file now"
    assert (top / "d" / "x").read_bytes() == b"in a directory"
    assert os.readlink(top / "f") == "e"
    assert (top / "e").read_bytes() == b"second"


def test_hard_links_are_one_file(tmp_path: Path) -> None:
    top = made(
        tmp_path, member("a/b/first", b"x"), link("second", "/a/./b/first"), link("a/x", "second")
    )
    assert (top / "a/b/first").stat().st_nlink == 3
    assert os.path.samefile(top / "second", top / "a/x")


def test_hard_link_to_itself_and_twice(tmp_path: Path) -> None:
    top = made(tmp_path, member("a", b"x"), link("a", "a"), link("b", "a"), link("b", "a"))
    assert (top / "a").stat().st_nlink == 2


@pytest.mark.parametrize("target", ["missing", "d", "d/missing", "", ".wh.a", "a/b"])
def test_hard_link_to_what_is_no_file_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(ImageError, match="hard link"):
        made(tmp_path, directory("d/"), member("a"), link("new", target))


def test_missing_parents_are_made_and_named(tmp_path: Path) -> None:
    applied = apply(tmp_path / "layer", images.tar(member("a/b/c", b"x"), directory("a/")))
    assert applied.implicit == ["a", "a/b"]
    assert not applied.root
    status = (tmp_path / "layer" / "a" / "b").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 0)
    assert (tmp_path / "layer" / "a").stat().st_mtime == 1000


def test_names_are_cleaned(tmp_path: Path) -> None:
    top = made(
        tmp_path, member("/etc/passwd", b"1"), member("./x//y/../z", b"2"), member("/../up", b"3")
    )
    assert (top / "etc/passwd").read_bytes() == b"1"
    assert (top / "x/z").read_bytes() == b"2"
    assert (top / "up").read_bytes() == b"3"


def test_file_below_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a file and a directory"):
        made(tmp_path, member("a"), member("a/b"))


def test_directory_times_are_those_of_the_archive(tmp_path: Path) -> None:
    top = made(tmp_path, directory("d/", mtime=5), directory("d/e/", mtime=6), member("d/e/f"))
    assert (top / "d").stat().st_mtime == 5
    assert (top / "d/e").stat().st_mtime == 6


def test_directory_may_forbid_what_it_contains(tmp_path: Path) -> None:
    top = made(tmp_path, directory("d/", mode=0o500), member("d/f", b"x"))
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o500
    assert (top / "d/f").read_bytes() == b"x"


@root_only
def test_default_access_list_does_not_change_what_is_made_below(tmp_path: Path) -> None:
    acl = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff")
    info, _ = directory("d/")
    info.pax_headers = {
        "SCHILY.xattr.system.posix_acl_default": acl.decode("utf-8", "surrogateescape")
    }
    try:
        top = made(tmp_path, (info, b""), member("d/f", mode=0o666))
    except Error:
        pytest.skip("no access lists here")
    assert stat.S_IMODE((top / "d/f").stat().st_mode) == 0o666


@root_only
def test_chown_comes_before_set_id_bits_and_capabilities(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200040000" + "00" * 12).decode("utf-8", "surrogateescape")
    top = made(
        tmp_path,
        member("su", mode=0o6755, uid=5, gid=6),
        member("cap", uid=5, xattrs={"security.capability": capability}),
    )
    assert stat.S_IMODE((top / "su").stat().st_mode) == 0o6755
    assert os.getxattr(top / "cap", "security.capability")[:4] == bytes.fromhex("01000002")


# ------------------------------------------------------------------------------ whiteouts


@root_only
class TestWhiteouts:
    def test_are_devices_and_marks(self, tmp_path: Path) -> None:
        top = made(
            tmp_path,
            member(".wh.gone"),
            member("d/.wh.x"),
            member("o/.wh..wh..opq"),
            member("o/kept", b"1"),
        )
        assert is_whiteout(top / "gone") and is_whiteout(top / "d/x")
        assert is_opaque(top / "o") and not is_opaque(top / "d")
        assert (top / "o/kept").read_bytes() == b"1"

    def test_speak_of_the_layers_below_only(self, tmp_path: Path) -> None:
        """What the same layer brings stays, whichever comes first."""
        file, mark = member("f", b"new"), member(".wh.f")
        below, dir_mark = member("d/new", b"1"), member(".wh.d")
        for number, order in enumerate(
            [(file, mark, below, dir_mark), (mark, file, dir_mark, below)]
        ):
            (tmp_path / str(number)).mkdir()
            top = made(tmp_path / str(number), *order)
            assert (top / "f").read_bytes() == b"new"
            assert (top / "d/new").read_bytes() == b"1"
            assert is_opaque(top / "d")

    def test_explicit_directory_over_a_whiteout_is_opaque(self, tmp_path: Path) -> None:
        top = made(tmp_path, member(".wh.d"), directory("d/", mode=0o711))
        assert is_opaque(top / "d")
        assert stat.S_IMODE((top / "d").stat().st_mode) == 0o711

    def test_opaque_top_is_reported(self, tmp_path: Path) -> None:
        assert apply(tmp_path / "layer", images.tar(member(".wh..wh..opq"))).opaque

    def test_marks_of_aufs_are_passed_over(self, tmp_path: Path) -> None:
        top = made(tmp_path, member(".wh..wh.plnk/1.2", b"x"), member(".wh..wh.aufs"), member("f"))
        assert os.listdir(top) == ["f"]

    @pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh.x/y"])
    def test_of_nothing_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ImageError):
            made(tmp_path, member(name))
        assert os.listdir(tmp_path) == ["layer"]

    def test_are_not_made_by_other_means(self, tmp_path: Path) -> None:
        forged = {"trusted.overlay.opaque": "y", "user.overlay.opaque": "y"}
        forged = {
            **forged,
            "trusted.overlay.redirect": "/etc",
            "security.selinux": "x",
            "trusted.x": "1",
        }
        top = made(tmp_path, directory("d/", xattrs=forged), member("f", xattrs=forged))
        assert os.listxattr(top / "d") == os.listxattr(top / "f") == []
        with pytest.raises(ImageError, match="0:0"):
            made(tmp_path / "layer", member("c", kind="character"))

    def test_are_user_marks_for_a_user(self, tmp_path: Path) -> None:
        apply(tmp_path / "layer", images.tar(member("o/.wh..wh..opq")), user=True)
        assert os.getxattr(tmp_path / "layer" / "o", "user.overlay.opaque") == b"y"
        assert "trusted.overlay.opaque" not in os.listxattr(tmp_path / "layer" / "o")


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "entry",
    [
        member("../x"),
        member("a/../../x"),
        member("a", uid=2**32 - 1),
        member("a", gid=2**33),
        member("a", uid=-1),
        member("b", kind="block", devmajor=4096, devminor=0),
        member("b", kind="block", devmajor=1, devminor=2**20),
        member("x", xattrs={"user.\0": "y"}),
        link("a", "../../etc/passwd"),
    ],
    ids=lambda entry: f"{entry[0].name}-{entry[0].uid}-{entry[0].devmajor}",
)
def test_is_refused(tmp_path: Path, entry: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(ImageError):
        made(tmp_path, entry)


def test_name_too_long_for_the_file_system_is_named(tmp_path: Path) -> None:
    with pytest.raises(Error, match="unpack 'nnn.*ENAMETOOLONG"):
        made(tmp_path, member("n" * 300))


def test_directories_made_in_passing_count(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="too many directories"):
        apply(
            tmp_path / "layer",
            images.tar(member("a/" * 50 + "f")),
            tar.LIMITS._replace(entries=20),
        )


@root_only
def test_unprivileged_user_unpacks_what_he_may(tmp_path: Path) -> None:
    data = images.tar(
        directory("d/", uid=0, mode=0o555),
        member("d/f", b"x", uid=12, gid=34, mode=0o4755),
        member("null", kind="character", devmajor=1, devminor=3),
        member("o/.wh..wh..opq"),
        directory("closed/", mode=0),
        member("closed/f", b"x"),
    )
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        os.chmod(top, 0o777)
        as_user(lambda: apply(top / "layer", data, user=True))
        assert stat.S_IMODE((top / "layer/d/f").stat().st_mode) == 0o755
        assert stat.S_IMODE((top / "layer/d").stat().st_mode) == 0o555
        assert not (top / "layer/null").exists()
        assert stat.S_IMODE((top / "layer/closed").stat().st_mode) == 0


# --------------------------------------------------------------------------- nothing outside


@contextlib.contextmanager
def guarded() -> Iterator[tuple[Path, Path]]:
    """A layer's directory beside a host's that must stay as it is."""
    with tempfile.TemporaryDirectory() as name:
        host, top = Path(name) / "host", Path(name) / "layer"
        (host / "etc").mkdir(parents=True)
        (host / "etc" / "passwd").write_text("root")
        top.mkdir()
        before = images.facts(name)
        yield host, top
        after = {path: fact for path, fact in images.facts(name).items() if path[:6] != "layer/"}
        after["layer"] = before["layer"]
        assert after == before


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    with guarded() as (host, top):
        for target in (str(host), "../host", "/../../../.." + str(host), "/proc/self/root"):
            for use in (
                [member("l/etc/passwd", b"evil")],
                [member("l/new", b"evil")],
                [directory("l/etc/", mode=0o777)],
                [member("l/.wh.etc")],
                [member("l/etc/.wh..wh..opq")],
                [link("got", "l/etc/passwd")],
                [link("l/etc/new", "mine")],
                [directory("l2/"), symlink("l2/m", target), member("l2/m/etc/passwd", b"evil")],
                [symlink("l/etc/passwd", "evil")],
                [directory("l/", mode=0o777), member("l/x", b"in the layer")],
            ):
                with contextlib.suppress(Error):
                    apply(top, images.tar(member("mine", b"m"), symlink("l", target), *use))
                assert not (top / "got").exists() or not os.path.samefile(
                    top / "got", host / "etc/passwd"
                )
                shutil.rmtree(top)
                top.mkdir()


PART = st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq"])
NAME = st.lists(PART, min_size=1, max_size=4).map("/".join)
TARGET = st.one_of(
    NAME,
    NAME.map(lambda text: f"/{text}"),
    st.sampled_from(["../../host/etc", "/HOST", "HOST/etc"]),
)
ENTRY = st.one_of(
    st.tuples(st.just("file"), NAME, st.just("")),
    st.tuples(st.just("directory"), NAME, st.just("")),
    st.tuples(st.sampled_from(["symlink", "link"]), NAME, TARGET),
    st.tuples(st.sampled_from(["fifo", "character"]), NAME, st.just("")),
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ENTRY, min_size=1, max_size=12))
def test_whatever_the_entries_nothing_outside_changes(
    entries: list[tuple[str, str, str]],
) -> None:
    with guarded() as (host, top):
        members = [
            member(
                name or "a",
                b"evil" if kind == "file" else b"",
                kind=kind,
                linkname=target.replace("HOST", str(host)),
                devmajor=1 if kind == "character" else 0,
            )
            for kind, name, target in entries
        ]
        try:
            apply(top, images.tar(*members))
        except (ImageError, Error):
            pass
        fds = len(os.listdir("/proc/self/fd"))
        with contextlib.suppress(Error):
            apply(top, b"")
        assert len(os.listdir("/proc/self/fd")) == fds


# A layer as a model: path -> content ("dir" for directories), and what it hides.
FLAT = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "d/e", "d"])
LAYER = st.lists(
    st.tuples(st.sampled_from(["file", "dir", "hide", "opaque"]), FLAT),
    max_size=6,
    unique_by=lambda one: one[1],
)


def stacked(layers: list[list[tuple[str, str]]]) -> dict[str, str]:
    """What image-spec says the layers amount to."""
    tree: dict[str, str] = {}
    for number, entries in enumerate(layers):
        hidden: list[str] = []
        for kind, path in entries:
            if kind == "hide":
                hidden += [one for one in tree if one == path or one.startswith(f"{path}/")]
            elif kind == "opaque":
                hidden += [one for one in tree if one.startswith(f"{path}/")]
        for one in hidden:
            tree.pop(one, None)
        for kind, path in entries:
            parents = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 1)]
            directories = [*parents, *([path] if kind in ("dir", "opaque") else [])]
            for above in directories:
                if tree.get(above, "dir") != "dir":
                    del tree[above]
                tree[above] = "dir"
            if kind == "file":
                for one in [one for one in tree if one.startswith(f"{path}/")]:
                    del tree[one]
                tree[path] = f"file {number}"
    return tree


def consistent(entries: list[tuple[str, str]]) -> bool:
    """Whether no entry is below one that this layer says is a file or gone."""
    ends = [path for kind, path in entries if kind in ("file", "hide")]
    return not any(path.startswith(f"{end}/") for _, path in entries for end in ends)


@root_only
@settings(max_examples=60, deadline=None)
@given(st.lists(LAYER.filter(consistent), min_size=1, max_size=4))
def test_overlay_of_the_layers_is_what_the_specification_says(
    layers: list[list[tuple[str, str]]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        tops = []
        for number, entries in enumerate([[], *layers]):
            members = []
            for kind, path in entries:
                above, _, last = path.rpartition("/")
                members.append(
                    {
                        "file": member(path, b"file %d" % (number - 1)),
                        "dir": directory(path),
                        "hide": member(f"{above}/.wh.{last}"),
                        "opaque": member(f"{path}/.wh..wh..opq"),
                    }[kind]
                )
            tops.append(f"{name}/{number}")
            apply(Path(tops[-1]), images.tar(*members))
        os.mkdir(f"{name}/merged")
        kernel.mount(
            "overlay", f"{name}/merged", "overlay", 0, "lowerdir=" + ":".join(reversed(tops))
        )
        try:
            found = {}
            for path in sorted(Path(f"{name}/merged").rglob("*")):
                # The kernel lists whiteouts of nothing where a directory is of one layer only.
                if not os.path.lexists(path):
                    continue
                found[str(path.relative_to(f"{name}/merged"))] = (
                    "dir" if path.is_dir() else path.read_text()
                )
        finally:
            kernel.umount2(f"{name}/merged", 0)
    assert found == stacked(layers)
