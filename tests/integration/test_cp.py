"""cp: files between the host and containers, running and stopped, as docker-cp(1) has it."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.support.runner import Engine, wait_until
from tests.support.users import UserEngine, scratch_is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, engine: Engine) -> str:
    """The name of a container in each state."""
    if request.param == "running":
        engine.detach("--name", "box")
    else:
        engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "true")
    return "box"


@pytest.fixture
def live(engine: Engine) -> str:
    """The name of a running container."""
    engine.detach("--name", "box")
    return "box"


@pytest.fixture
def host(engine: Engine) -> Path:
    """An empty directory of the host."""
    path = Path(engine.base) / "host"
    path.mkdir()
    return path


@pytest.fixture
def tree(host: Path) -> Path:
    """host/tree: a directory with a file, a link, a hard link and a subdirectory."""
    top = host / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_text("content")
    (top / "file").chmod(0o741)
    os.link(top / "file", top / "sub" / "same")
    (top / "link").symlink_to("../elsewhere")
    os.mkfifo(top / "fifo")
    os.utime(top / "file", ns=(5, 1_234_567_890_123_456_789))
    (top / "sub").chmod(0o750)
    return top


def back(engine: Engine, path: str, host: Path) -> Path:
    """A copy of what the container has at `path`, with owners, to be looked at."""
    target = host / f"back-{time.monotonic_ns()}"
    engine.ok("cp", "-a", f"box:{path}", str(target))
    return target


# --------------------------------------------------------------------- what lands where


def test_a_file_gets_the_name_it_is_given(engine: Engine, box: str, host: Path) -> None:
    (host / "file").write_text("content")
    engine.ok("cp", str(host / "file"), "box:/etc/copied")
    engine.ok("cp", "box:/etc/copied", str(host / "again"))
    assert (host / "again").read_text() == "content"


def test_a_file_goes_into_a_directory(engine: Engine, live: str, host: Path) -> None:
    (host / "file").write_text("content")
    engine.ok("cp", str(host / "file"), "box:/etc")
    engine.ok("cp", str(host / "file"), "box:/home/")
    (host / "in").mkdir()
    engine.ok("cp", "box:/etc/file", str(host / "in"))
    engine.ok("cp", "box:home/file", str(host / "in" / "other"))
    assert {path.name: path.read_text() for path in (host / "in").iterdir()} == {
        "file": "content",
        "other": "content",
    }


def test_a_file_replaces_a_file(engine: Engine, live: str, host: Path) -> None:
    (host / "short").write_text("new")
    (host / "long").write_text("old and longer")
    engine.ok("cp", str(host / "long"), "box:/etc/f")
    engine.ok("cp", str(host / "short"), "box:/etc/f")
    engine.ok("cp", "box:/etc/f", str(host / "long"))
    assert (host / "long").read_text() == "new"


def test_a_directory_becomes_what_is_missing(engine: Engine, live: str, tree: Path) -> None:
    engine.ok("cp", str(tree), "box:/made")
    engine.ok("cp", "box:/made", str(tree.parent / "made"))
    assert sorted(os.listdir(tree.parent / "made")) == ["fifo", "file", "link", "sub"]


def test_a_directory_goes_into_a_directory(engine: Engine, box: str, tree: Path) -> None:
    engine.ok("cp", str(tree), "box:/home")
    (tree.parent / "in").mkdir()
    engine.ok("cp", "box:/home/tree", str(tree.parent / "in"))
    assert os.listdir(tree.parent / "in") == ["tree"]
    assert (tree.parent / "in" / "tree" / "sub" / "same").read_text() == "content"


def test_the_contents_of_a_directory_are_merged(engine: Engine, live: str, tree: Path) -> None:
    engine.ok("cp", f"{tree}/.", "box:/home/app")
    into = tree.parent / "in"
    into.mkdir(mode=0o700)
    (into / "kept").write_text("")
    (into / "file").write_text("old")
    engine.ok("cp", "box:/home/app/.", str(into))
    assert sorted(os.listdir(into)) == ["fifo", "file", "kept", "link", "sub"]
    assert (into / "file").read_text() == "content"
    assert stat.S_IMODE(into.stat().st_mode) == 0o700


def test_the_current_directory_means_its_contents(engine: Engine, live: str, tree: Path) -> None:
    engine.ok("cp", ".", "box:/home/app", cwd=str(tree))
    engine.ok("cp", "box:/home/app/file", "here", cwd=str(tree))
    assert (tree / "here").read_text() == "content"


def test_everything_but_the_owner_is_kept(engine: Engine, box: str, tree: Path) -> None:
    os.chown(tree / "file", 1234, 4321)
    os.setxattr(tree / "sub" / "same", "security.capability", CAPABILITY)
    (tree / "file").chmod(0o6751)
    engine.ok("cp", str(tree), "box:/made")
    found = back(engine, "/made", tree.parent)
    status = (found / "file").stat()
    assert (status.st_uid, status.st_gid) == (0, 0)
    # Not root's before, so no set-id program of root's now, and no capabilities.
    assert stat.S_IMODE(status.st_mode) == 0o751
    assert os.listxattr(found / "file") == []
    assert status.st_mtime_ns == 1_234_567_890_123_456_789
    assert (found / "sub" / "same").stat().st_ino == status.st_ino
    assert os.readlink(found / "link") == "../elsewhere"
    assert stat.S_ISFIFO((found / "fifo").stat().st_mode)
    assert stat.S_IMODE((found / "sub").stat().st_mode) == 0o750


def test_archive_keeps_owners_and_capabilities(engine: Engine, box: str, tree: Path) -> None:
    os.chown(tree / "file", 1234, 4321)
    os.chown(tree / "link", 77, 78, follow_symlinks=False)
    (tree / "file").chmod(0o6751)
    os.setxattr(tree / "file", "security.capability", CAPABILITY)
    engine.ok("cp", "--archive", str(tree), "box:/made")
    found = back(engine, "/made", tree.parent)
    status = (found / "file").stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)
    assert stat.S_IMODE(status.st_mode) == 0o6751
    assert os.getxattr(found / "file", "security.capability") == CAPABILITY
    assert (found / "link").lstat().st_gid == 78


def test_what_comes_out_belongs_to_the_caller(engine: Engine, live: str, host: Path) -> None:
    engine.ok("cp", "box:/home/app", str(host / "app"))
    assert (host / "app").stat().st_uid == 0
    assert back(engine, "/home/app", host).stat().st_uid == 1000


def test_links_are_copied_or_followed_if_so_asked(engine: Engine, box: str, host: Path) -> None:
    engine.ok("cp", "box:/bin/ls", str(host / "link"))
    assert os.readlink(host / "link") == "busybox"
    engine.ok("cp", "-L", "box:/bin/ls", str(host / "program"))
    assert (host / "program").stat().st_size > 100_000
    (host / "to-file").symlink_to("/etc/passwd")
    engine.ok("cp", "--follow-link", str(host / "to-file"), "box:/home")
    engine.ok("cp", "box:/home/to-file", str(host / "text"))
    assert (host / "text").read_text() == Path("/etc/passwd").read_text()


def test_holes_stay_holes(engine: Engine, live: str, host: Path) -> None:
    with open(host / "sparse", "wb") as file:
        file.truncate(200 << 20)
    engine.ok("cp", str(host / "sparse"), "box:/sparse")
    engine.ok("cp", "box:/sparse", str(host / "again"))
    assert (host / "again").stat().st_size == 200 << 20
    assert (host / "again").stat().st_blocks < 1000


def test_special_names_come_through(engine: Engine, live: str, host: Path) -> None:
    names = ["with space", "-rf", "a\nb", "bad\udcff", "ü", "x:y"]
    (host / "names").mkdir()
    for name in names:
        (host / "names" / name).write_text("")
    engine.ok("cp", str(host / "names"), "box:/names")
    engine.ok("cp", "box:/names", str(host / "again"))
    assert sorted(os.listdir(host / "again")) == sorted(names)


# --------------------------------------------------------------------- volumes, mounts, live files


def test_volumes_are_reached(engine: Engine, host: Path) -> None:
    (host / "volume").mkdir()
    (host / "file").write_text("content")
    for state in ("running", "stopped"):
        engine.detach("--name", state, "-v", f"{host}/volume:/data")
        if state == "stopped":
            engine.ok("stop", "-t", "0", state)
        engine.ok("cp", str(host / "file"), f"{state}:/data/{state}")
        engine.ok("cp", f"{state}:/data/{state}", str(host / f"from-{state}"))
    assert sorted(os.listdir(host / "volume")) == ["running", "stopped"]
    assert (host / "from-stopped").read_text() == "content"


def test_a_mounted_file_is_written_in_place(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    (host / "hosts").write_text("1.2.3.4 new\n")
    engine.ok("cp", str(host / "hosts"), "box:/etc/hosts")
    assert engine.ok("exec", "box", "cat", "/etc/hosts") == "1.2.3.4 new\n"


def test_the_whole_root_comes_without_proc_and_sys(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    engine.ok("exec", "box", "sh", "-c", "echo x > /dev/shm/shared; echo y > /made")
    engine.ok("cp", "box:/", str(host / "root"))
    assert (host / "root" / "made").read_text() == "y\n"
    assert [os.listdir(host / "root" / name) for name in ("proc", "sys", "dev")] == [[], [], []]
    engine.ok("cp", "box:/dev/shm/shared", str(host / "shared"))
    assert (host / "shared").read_text() == "x\n"


def test_files_of_proc_are_read_to_their_end(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    engine.ok("cp", "box:/proc/1/cmdline", str(host / "cmdline"))
    assert (host / "cmdline").read_bytes() == b"sleep\x001000\x00"


def test_a_program_in_use_can_be_replaced(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    (host / "sleep").write_text("#!/bin/sh\necho replaced\n")
    (host / "sleep").chmod(0o755)
    engine.ok("cp", str(host / "sleep"), "box:/bin/sleep")
    assert engine.ok("exec", "box", "/bin/sleep", "1") == "replaced\n"


def test_a_stopped_container_starts_with_what_was_copied(engine: Engine, host: Path) -> None:
    (host / "script").write_text("#!/bin/sh\necho copied\n")
    (host / "script").chmod(0o755)
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "/script")
    engine.ok("cp", str(host / "script"), "box:/script")
    assert engine.ok("start", "-a", "box") == "copied\n"


def test_a_copy_never_waits_for_a_fifo(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    engine.ok("exec", "box", "mkfifo", "/tmp/fifo")
    engine.ok("cp", "box:/tmp/fifo", str(host / "fifo"), timeout=10)
    assert stat.S_ISFIFO((host / "fifo").stat().st_mode)
    assert engine.run("cp", "box:/tmp/fifo", "-", text=False, timeout=10).returncode == 0


def test_devices_come_out_for_the_caller_alone(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    engine.ok("cp", "box:/dev/zero", str(host / "zero"))
    status = (host / "zero").stat()
    assert status.st_rdev == os.makedev(1, 5)
    assert stat.S_IMODE(status.st_mode) == 0o600


# --------------------------------------------------------------------- tar streams


def test_a_directory_comes_as_a_tar_stream(engine: Engine, box: str, tree: Path) -> None:
    engine.ok("cp", "-a", str(tree), "box:/made")
    streams = {}
    for path in ("/made", "/made/.", "/made/file"):
        result = engine.run("cp", f"box:{path}", "-", text=False)
        assert result.returncode == 0, result.stderr
        with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
            streams[path] = tar.getmembers()
    names = {path: [info.name for info in members] for path, members in streams.items()}
    below = ["fifo", "file", "link", "sub", "sub/same"]
    assert names["/made"] == ["made", *(f"made/{name}" for name in below)]
    assert names["/made/."] == [".", *(f"./{name}" for name in below)]
    assert names["/made/file"] == ["file"]
    same = streams["/made"][-1]
    assert (same.islnk(), same.linkname) == (True, "made/file")
    assert streams["/made"][2].mode == 0o741


@pytest.mark.parametrize("compression", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_stream_is_unpacked(engine: Engine, compression: str) -> None:
    engine.detach("--name", "box")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=compression) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo("dir/file")
        info.size, info.uid, info.gid, info.mode = 4, 1234, 4321, 0o640
        tar.addfile(info, io.BytesIO(b"text"))
    engine.ok("cp", "-", "box:/home", input=data.getvalue())
    out = engine.ok(
        "exec", "box", "sh", "-c", "cat /home/dir/file; stat -c ' %u:%g %a' $_ /home/dir/file"
    )
    assert out.startswith("text") and "1234:4321 640" in out


def test_a_stream_out_of_one_container_goes_into_another(engine: Engine, tree: Path) -> None:
    for name in ("one", "two"):
        engine.ok("create", "--name", name, "--rootfs", engine.rootfs, "true")
    engine.ok("cp", str(tree), "one:/made")
    with engine.popen("cp", "one:/made", "-") as out:
        assert out.stdout is not None
        into = engine.popen("cp", "-", "two:/home", stdin=out.stdout)
        assert into.wait(30) == 0
        assert out.wait(30) == 0
    engine.ok("cp", "two:/home/made", str(tree.parent / "again"))
    assert (tree.parent / "again" / "sub" / "same").read_text() == "content"


def test_a_reader_that_leaves_ends_the_stream(engine: Engine) -> None:
    engine.detach("--name", "box")
    engine.ok("exec", "box", "sh", "-c", "head -c 8000000 /dev/zero > /big")
    with engine.popen("cp", "box:/big", "-") as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(10) == 1
    for damaged in (b"", b"no archive at all" * 100):
        engine.fails(1, "cp", "-", "box:/home", input=damaged)


# --------------------------------------------------------------------- refusals


def test_what_cannot_be_meant_is_one_clear_error(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    (host / "file").write_text("x")
    (host / "dir").mkdir()
    out, file = str(host / "out"), str(host / "file")
    cases = [
        (("box:/nowhere", out), "Could not find the file /nowhere in container box"),
        (("box:/etc/passwd/x", out), "Could not find the file /etc/passwd in container box"),
        (("box:/etc/passwd/", out), "is not a directory"),
        (("box:/etc/passwd", f"{host}/no/where"), "no such file or directory"),
        (("box:/etc/passwd", f"{host}/missing/"), "does not exist"),
        (("box:/etc", file), "cannot copy a directory to the file"),
        (("box:/nowhere", "-"), "Could not find the file /nowhere in container box"),
        ((f"{host}/none", "box:/"), "no such file or directory"),
        ((file, "box:/no/where"), "Could not find the file /no in container box"),
        ((file, "box:/no/"), "does not exist"),
        ((f"{host}/dir", "box:/etc/passwd"), "cannot copy a directory to the file"),
        ((file, "box:/proc/x"), "proc"),
        (("-", "box:/etc/passwd"), "must be a directory"),
        (("-", "box:/none"), "Could not find the file /none in container box"),
        (("nobody:/x", out), "No such container: nobody"),
    ]
    for arguments, message in cases:
        assert message in engine.fails(1, "cp", *arguments), arguments
    assert sorted(os.listdir(host)) == ["dir", "file"]


def test_a_directory_and_another_kind_do_not_replace_each_other(engine: Engine, host: Path) -> None:
    engine.detach("--name", "box")
    (host / "a" / "etc").mkdir(parents=True)
    (host / "a" / "etc" / "passwd").mkdir()
    assert "cannot overwrite non-directory" in engine.fails(1, "cp", f"{host}/a/.", "box:/")
    assert engine.ok("exec", "box", "head", "-n1", "/etc/passwd").startswith("root:")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_what_is_read_only_stays_so(engine: Engine, host: Path, state: str) -> None:
    (host / "volume").mkdir()
    (host / "file").write_text("x")
    engine.detach("--name", "box", "--read-only", "--tmpfs", "/tmp", "-v", f"{host}/volume:/v:ro")
    engine.detach("--name", "other", "-v", f"{host}/volume:/v:ro")
    if state == "stopped":
        engine.ok("stop", "-t", "0", "box", "other")
    else:
        engine.ok("cp", str(host / "file"), "box:/tmp")
        assert engine.ok("exec", "box", "cat", "/tmp/file") == "x"
    text = engine.fails(1, "cp", str(host / "file"), "box:/etc/file")
    assert "container rootfs is marked read-only" in text
    text = engine.fails(1, "cp", str(host / "file"), "other:/v/file")
    assert "mounted volume is marked read-only" in text
    assert "read-only" in engine.fails(1, "cp", "-", "box:/etc", input=b"")
    assert os.listdir(host / "volume") == []


# --------------------------------------------------------------------- hostile containers


def test_links_of_the_container_lead_nowhere_on_the_host(engine: Engine, host: Path) -> None:
    (host / "secret").write_text("of the host")
    (host / "file").write_text("copied")
    engine.detach("--name", "box")
    deep = "../" * 40
    engine.ok(
        "exec",
        "box",
        "sh",
        "-c",
        f"ln -s {host} /abs; ln -s {deep}{str(host)[1:]} /rel; ln -s {host}/secret /leaf;"
        f"ln -s /proc/1/root{host} /magic; ln -s /proc/self/fd /fds; mkdir -p {host}",
    )
    for name in ("abs/secret", "rel/secret", "leaf/", "magic/secret", "fds/3"):
        engine.fails(1, "cp", f"box:/{name}", str(host / "out"))
    engine.ok("cp", str(host / "file"), "box:/abs/file")
    engine.ok("cp", str(host / "file"), "box:/leaf")
    assert engine.ok("exec", "box", "cat", f"{host}/file", f"{host}/secret") == "copiedcopied"
    assert (host / "secret").read_text() == "of the host"
    assert sorted(os.listdir(host)) == ["file", "secret"]


@pytest.mark.parametrize("direction", ["out", "in"])
def test_links_swapped_while_copying_lead_nowhere(
    engine: Engine, host: Path, direction: str
) -> None:
    """CVE-2018-15664: the container exchanges a directory and a link all the time."""
    secret = host / "secret"
    secret.mkdir()
    (secret / "key").write_text("of the host")
    (host / "tree" / "sub").mkdir(parents=True)
    for number in range(20):
        (host / "tree" / "sub" / f"f{number}").write_text("copied")
    swap = (
        f"mkdir -p /d/a/sub; ln -s {secret} /d/b; echo own > /d/a/sub/key;"
        "while :; do mv /d/a /d/c; mv /d/b /d/a; mv /d/a /d/b; mv /d/c /d/a; done"
    )
    engine.detach("--name", "box", command=["sh", "-c", swap])
    before = sorted(os.listdir(secret))
    for number in range(15):
        if direction == "out":
            engine.run("cp", "box:/d/a", str(host / f"out{number}"))
        else:
            engine.run("cp", f"{host}/tree/.", "box:/d/a")
    assert sorted(os.listdir(secret)) == before
    assert (secret / "key").read_text() == "of the host"
    found = subprocess.run(
        ["grep", "-rl", "of the host", host], capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == [str(secret / "key")]


@pytest.mark.parametrize("subids", [False, True], ids=["one id", "a range of ids"])
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_an_ordinary_user_copies_both_ways(
    make_engine: Callable[..., Engine], subids: bool, state: str
) -> None:
    if not scratch_is_open() or (subids and not shutil.which("newuidmap")):
        pytest.skip("needs an open scratch directory and newuidmap")
    engine = make_engine(UserEngine, subids=subids)
    host = Path(engine.base) / "user" / "home"
    own = os.path.join(engine.base, "rootfs")
    subprocess.run(["cp", "-a", engine.rootfs, own], check=True)
    subprocess.run(["chown", "-hR", "31415:31415", own], check=True)
    engine.rootfs = own
    (host / "file").write_text("content")
    os.chown(host / "file", 31415, 31415)
    # With a range of ids the directory can be closed to all but another of the container's users.
    script = "mkdir /o; echo theirs > /o/f; " + ("chown -R 1000:1000 /o; chmod 700 /o; " * subids)
    engine.detach("--name", "box", command=["sh", "-c", f"{script} echo done; sleep 1000"])
    wait_until(lambda: "done" in engine.ok("logs", "box"))
    if state == "stopped":
        engine.ok("stop", "-t", "0", "box")
    engine.ok("cp", str(host / "file"), "box:/etc/copied")
    engine.ok("cp", "box:/etc/copied", str(host / "again"))
    engine.ok("cp", "box:/o", str(host / "o"))
    assert (host / "again").read_text() == "content"
    assert (host / "o" / "f").read_text() == "theirs\n"
    assert {path.stat().st_uid for path in host.rglob("*")} == {31415}
    engine.ok("cp", "-a", "box:/o", str(host / "archive"))
    assert (host / "archive").stat().st_uid == (700000 + 999 if subids else 31415)
    if state == "running":
        assert engine.ok("exec", "box", "stat", "-c", "%u:%g", "/etc/copied") == "0:0\n"
