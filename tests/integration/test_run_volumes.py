"""-v, --mount, --tmpfs, --read-only and --shm-size."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager

import pytest

from tests.support.inside import mount_at, mount_table, mounts_in, mounts_of
from tests.support.runner import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

pytestmark = pytest.mark.root

QUIET = {"nosuid", "nodev", "noexec"}


@pytest.fixture
def source(engine: Engine) -> str:
    """A directory of the host with one file in it."""
    path = f"{engine.base}/source"
    os.mkdir(path)
    with open(f"{path}/file", "w", encoding="ascii") as file:
        file.write("the host's\n")
    return path


@contextmanager
def tmpfs_on(path: str, propagation: str) -> Iterator[None]:
    """A mount at `path` on the host, with a propagation type."""
    subprocess.run(["mount", "-t", "tmpfs", "mc-test", path], check=True)
    try:
        subprocess.run(["mount", f"--make-{propagation}", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "--recursive", path], check=True)


# -v


@pytest.mark.parametrize("flag", ["-v", "--volume"])
def test_volume_is_read_and_written(engine: Engine, source: str, flag: str) -> None:
    script = "cat /data/file; echo inside > /data/new"
    assert engine.sh(script, flag, f"{source}:/data") == "the host's\n"
    with open(f"{source}/new", encoding="ascii") as file:
        assert file.read() == "inside\n"


def test_volume_may_be_one_file(engine: Engine, source: str) -> None:
    flags = ["-v", f"{source}/file:/etc/motd", "-v", f"{source}/file:/new/place:ro"]
    script = "cat /etc/motd /new/place; echo more >> /etc/motd; echo x >> /new/place || echo ro"
    assert engine.sh(script, *flags) == "the host's\n" * 2 + "ro\n"
    with open(f"{source}/file", encoding="ascii") as file:
        assert file.read() == "the host's\nmore\n"
    assert not os.path.exists(f"{engine.rootfs}/etc/motd")


def test_volume_may_be_a_socket(engine: Engine, source: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{source}/s")
        assert engine.sh("test -S /run/s && echo yes", "-v", f"{source}/s:/run/s") == "yes\n"


def test_read_only_volume_refuses_every_write(engine: Engine, source: str) -> None:
    script = "touch /data/x; rm /data/file; echo >> /data/file; chmod 777 /data; ls /data"
    words = ["run", "--rm", "-v", f"{source}:/data:ro", "--rootfs", engine.rootfs, "sh", "-c"]
    done = engine.run(*words, script)
    assert done.stdout == "file\n"
    assert done.stderr.count("Read-only file system") == 4


def test_read_only_covers_what_is_mounted_below(engine: Engine, source: str) -> None:
    os.mkdir(f"{source}/below")
    with tmpfs_on(f"{source}/below", "private"):
        script = "touch /data/below/x || echo refused"
        assert engine.sh(script, "-v", f"{source}:/data:ro") == "refused\n"


def test_volume_shows_what_is_mounted_below(engine: Engine, source: str) -> None:
    os.mkdir(f"{source}/below")
    with tmpfs_on(f"{source}/below", "private"):
        with open(f"{source}/below/deep", "w", encoding="ascii"):
            pass
        assert engine.sh("ls /data/below", "-v", f"{source}:/data") == "deep\n"


def test_missing_volume_directory_is_made(engine: Engine, source: str) -> None:
    path = f"{source}/made/on the way"
    engine.sh("touch /data/x", "-v", f"{path}:/data")
    assert os.listdir(path) == ["x"]
    assert os.stat(path).st_mode & 0o7777 == 0o755


def test_relative_volume_begins_at_the_callers_directory(engine: Engine, source: str) -> None:
    words = ["run", "--rm", "-v", "./source:/data", "--rootfs", engine.rootfs, "ls", "/data"]
    assert engine.ok(*words, cwd=engine.base) == "file\n"


def test_volume_through_a_link_of_the_host(engine: Engine, source: str) -> None:
    os.symlink(source, f"{engine.base}/link")
    assert engine.sh("ls /data", "-v", f"{engine.base}/link:/data") == "file\n"


def test_volume_replaces_one_of_our_files(engine: Engine, source: str) -> None:
    script = "cat /etc/hosts; grep -c ' /etc/hosts ' /proc/self/mountinfo"
    assert engine.sh(script, "-v", f"{source}/file:/etc/hosts") == "the host's\n1\n"


def test_nested_volumes_do_not_hide_each_other(engine: Engine, source: str) -> None:
    os.mkdir(f"{source}/inner")
    flags = ["-v", f"{source}/inner:/data/a/b", "-v", f"{source}:/data/a", "--tmpfs", "/data"]
    assert engine.sh("ls /data /data/a; touch /data/a/b/deep", *flags) == (
        "/data:\na\n\n/data/a:\nb\nfile\ninner\n"
    )
    assert os.listdir(f"{source}/inner") == ["deep"]


def test_volume_source_with_odd_characters(engine: Engine) -> None:
    path = f"{engine.base}/a b,c\\ü"
    os.mkdir(path)
    engine.sh("touch /d/x", "-v", f"{path}:/d")
    assert os.listdir(path) == ["x"]


def test_volume_replaces_a_device(engine: Engine) -> None:
    script = "stat -c '%t:%T' /dev/random /dev/urandom"
    assert engine.sh(script, "-v", "/dev/urandom:/dev/random").split() == ["1:9", "1:9"]


def test_volume_replaces_all_of_dev(engine: Engine) -> None:
    script = "stat -c '%t:%T' /dev/null; ls /dev | wc -l"
    number, count = engine.sh(script, "-v", "/dev:/dev").split()
    assert number == "1:3" and int(count) == len(os.listdir("/dev"))


def test_volume_replaces_shared_memory(engine: Engine, source: str) -> None:
    assert engine.sh("ls /dev/shm", "-v", f"{source}:/dev/shm") == "file\n"


# Propagation


def test_volume_is_private_by_default(engine: Engine, source: str) -> None:
    with tmpfs_on(source, "shared"):
        os.mkdir(f"{source}/sub")
        engine.detach("--name", "p", "-v", f"{source}:/data")
        subprocess.run(["mount", "-t", "tmpfs", "late", f"{source}/sub"], check=True)
        assert "late" not in engine.ok("exec", "p", "cat", "/proc/mounts")
        assert mount_at(mounts_of(engine.pid("p")), "/data").propagation == []
        engine.ok("rm", "-f", "p")


def test_slave_volume_sees_later_mounts_of_the_host(engine: Engine, source: str) -> None:
    with tmpfs_on(source, "shared"):
        os.mkdir(f"{source}/sub")
        flags = ["-v", f"{source}:/data:rslave", "--cap-add", "SYS_ADMIN"]
        engine.detach("--name", "p", *flags)
        subprocess.run(["mount", "-t", "tmpfs", "late", f"{source}/sub"], check=True)
        assert "late /data/sub tmpfs" in engine.ok("exec", "p", "cat", "/proc/mounts")
        engine.ok("exec", "p", "sh", "-c", "mkdir /data/in; mount -t tmpfs inner /data/in")
        assert "inner" not in read_mounts()
        engine.ok("rm", "-f", "p")


def test_shared_volume_shows_the_containers_mounts_to_the_host(engine: Engine, source: str) -> None:
    with tmpfs_on(source, "shared"):
        os.mkdir(f"{source}/sub")
        flags = ["-v", f"{source}:/data:rshared", "--cap-add", "SYS_ADMIN"]
        engine.detach("--name", "p", *flags)
        engine.ok("exec", "p", "mount", "-t", "tmpfs", "inner", "/data/sub")
        assert f"inner {source}/sub tmpfs" in read_mounts()
        engine.ok("rm", "-f", "p")


def test_mounts_of_a_container_never_reach_the_host(engine: Engine) -> None:
    mark = os.path.basename(engine.base)
    engine.detach("--name", "p", "--cap-add", "SYS_ADMIN")
    engine.ok("exec", "p", "mount", "-t", "tmpfs", mark, "/tmp")
    assert mark in engine.ok("exec", "p", "cat", "/proc/mounts")
    assert mark not in read_mounts()


def read_mounts() -> str:
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return file.read()


# --mount


def test_bind_mount(engine: Engine, source: str) -> None:
    script = "cat /d/file; touch /d/x || echo refused"
    flags = ["--mount", f"type=bind,source={source},target=/d,readonly"]
    assert engine.sh(script, *flags) == "the host's\nrefused\n"


def test_bind_mount_takes_every_spelling(engine: Engine, source: str) -> None:
    fields = f'"src={source}",type=bind,dst=/d,bind-propagation=rslave,readonly=false'
    table = mounts_in(engine, "--mount", fields)
    assert mount_at(table, "/d").root.endswith("/source")
    assert "rw" in mount_at(table, "/d").options


def test_bind_mount_may_leave_out_what_is_below(engine: Engine, source: str) -> None:
    os.mkdir(f"{source}/below")
    with tmpfs_on(f"{source}/below", "private"):
        with open(f"{source}/below/deep", "w", encoding="ascii"):
            pass
        fields = f"type=bind,source={source},target=/d,bind-nonrecursive"
        assert engine.sh("ls /d /d/below", "--mount", fields) == "/d:\nbelow\nfile\n\n/d/below:\n"


def test_bind_mount_does_not_make_its_source(engine: Engine) -> None:
    missing = f"{engine.base}/missing"
    fields = f"type=bind,source={missing},target=/d"
    said = engine.fails(125, "run", "--mount", fields, "--rootfs", engine.rootfs, "true")
    assert f"bind source path does not exist: {missing}" in said
    assert not os.path.exists(missing)


def test_tmpfs_mount(engine: Engine) -> None:
    fields = "type=tmpfs,target=/d,tmpfs-size=2m,tmpfs-mode=1750"
    script = "stat -c %a /d; df -k /d | tail -n 1; touch /d/x; cat /proc/self/mountinfo"
    mode, size, *table = engine.sh(script, "--mount", fields).splitlines()
    assert mode == "1750"
    assert size.split()[1] == "2048"
    mount = mount_at(mount_table("\n".join(table)), "/d")
    assert mount.fstype == "tmpfs" and mount.options >= {"rw", *QUIET}


# --tmpfs


def test_tmpfs_is_empty_memory(engine: Engine, source: str) -> None:
    table = mounts_in(engine, "--tmpfs", "/home")
    assert mount_at(table, "/home").fstype == "tmpfs"
    assert mount_at(table, "/home").options >= {"rw", *QUIET}
    assert engine.sh("ls /home; stat -c %a /home", "--tmpfs", "/home") == "1777\n"


def test_tmpfs_options_are_applied(engine: Engine) -> None:
    options = "/d:size=1m,mode=0700,uid=1000,gid=50,exec,nr_inodes=20"
    script = "stat -c '%a %u %g' /d; df -k /d | tail -n 1; cp /bin/busybox /d/true 2>&1; "
    script += "cat /proc/self/mountinfo"
    lines = engine.sh(script, "--tmpfs", options).splitlines()
    assert lines[0] == "700 1000 50"
    assert lines[1].split()[1] == "1024"
    assert "No space left" in lines[2]
    mount = mount_at(mount_table("\n".join(lines[3:])), "/d")
    assert "noexec" not in mount.options and "nosuid" in mount.options
    assert "nr_inodes=20" in mount.data


def test_read_only_tmpfs(engine: Engine) -> None:
    assert engine.sh("touch /d/x || echo refused", "--tmpfs", "/d:ro") == "refused\n"


# --read-only


def test_read_only_root_refuses_writes_and_keeps_devices_writable(engine: Engine) -> None:
    script = "for d in / /etc /bin /tmp /home; do touch $d/x 2>/dev/null && echo $d; done; "
    script += "for d in /dev/shm /dev /t; do touch $d/x && echo $d; done; echo x > /dev/null"
    assert engine.sh(script, "--read-only", "--tmpfs", "/t") == "/dev/shm\n/dev\n/t\n"


def test_read_only_root_keeps_volumes_writable(engine: Engine, source: str) -> None:
    engine.sh("touch /data/x", "--read-only", "-v", f"{source}:/data")
    assert sorted(os.listdir(source)) == ["file", "x"]


def test_read_only_root_has_its_files_in_etc(engine: Engine) -> None:
    script = "cat /etc/hostname; echo x > /etc/hostname || echo refused"
    assert engine.sh(script, "--read-only", "--hostname", "h") == "h\nrefused\n"


def test_working_directory_is_made_on_a_read_only_root(engine: Engine) -> None:
    assert engine.sh("pwd", "--read-only", "-w", "/made") == "/made\n"


# --shm-size


def test_shared_memory_has_64_megabytes(engine: Engine) -> None:
    assert engine.sh("df -k /dev/shm | tail -n 1").split()[1] == "65536"


@pytest.mark.parametrize(("size", "kilobytes"), [("1m", "1024"), ("8MiB", "8192"), ("2g", 2 << 20)])
def test_shared_memory_has_the_size_asked_for(engine: Engine, size: str, kilobytes: object) -> None:
    shown = engine.sh("df -k /dev/shm | tail -n 1", "--shm-size", size)
    assert shown.split()[1] == str(kilobytes)
