"""diff and export: what a container has changed, and all of its files as an archive."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.runner import Engine, wait_until
from tests.support.users import UserEngine, scratch_is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root


def export(engine: Engine, name: str) -> dict[str, tarfile.TarInfo]:
    """The members of a container's export, by name."""
    result = engine.run("export", name, text=False)
    assert result.returncode == 0, result.stderr
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        return {info.name: info for info in tar}


def changed(engine: Engine, script: str, *flags: str) -> list[str]:
    """The lines of `diff` after a script, which are the same while it runs and afterwards."""
    engine.detach("--name", "box", *flags, command=["sh", "-c", f"{script}; echo done; sleep 1000"])
    wait_until(lambda: "done" in engine.ok("logs", "box"))
    lines = engine.ok("diff", "box").splitlines()
    engine.ok("stop", "-t", "0", "box")
    assert engine.ok("diff", "box").splitlines() == lines
    return lines


def test_a_container_that_changed_nothing_shows_nothing(engine: Engine) -> None:
    # The rootfs has neither /etc/hosts nor /etc/resolv.conf: made for our mounts, they are hidden.
    assert changed(engine, "true", "--shm-size", "1m") == []
    engine.ok("create", "--name", "new", "--rootfs", engine.rootfs, "true")
    assert engine.ok("diff", "new") == ""


def test_additions_changes_and_deletions(engine: Engine) -> None:
    script = (
        "echo x >> /etc/group; mkdir -p /new/deep; echo y > /new/deep/file; rm /etc/notexec;"
        "chmod 700 /usr/bin; ln -sf other /bin/ls; rm -r /home/app; rmdir /var/tmp"
    )
    assert changed(engine, script) == [
        "C /bin",
        "C /bin/ls",
        "C /etc",
        "C /etc/group",
        "D /etc/notexec",
        "C /home",
        "D /home/app",
        "A /new",
        "A /new/deep",
        "A /new/deep/file",
        "C /usr",
        "C /usr/bin",
        "C /var",
        "D /var/tmp",
    ]


def test_a_replaced_directory_shows_what_is_gone_from_it(engine: Engine) -> None:
    script = "cp -a /etc /e; rm -r /etc/[a-z]*d /usr; mkdir -m 755 /usr /usr/lib; rm -r /e"
    assert changed(engine, script) == [
        "C /etc",
        "D /etc/passwd",
        "C /usr",
        "D /usr/bin",
        "A /usr/lib",
    ]


def test_what_was_only_touched_by_opening_is_no_change(engine: Engine) -> None:
    # Opened for writing, the file was copied up; nothing was written.
    assert changed(engine, ": >> /etc/group; touch /kept; rm /kept") == []


def test_kinds_that_replace_each_other_are_changes(engine: Engine) -> None:
    script = "rm /etc/notexec; mkdir /etc/notexec; rm -r /var/tmp; echo > /var/tmp"
    assert changed(engine, script) == ["C /etc", "C /etc/notexec", "C /var", "C /var/tmp"]


def test_volumes_are_mount_points_only(engine: Engine, tmp_path: Path) -> None:
    assert changed(
        engine, "echo > /data/x; echo > /t/y", "-v", f"{tmp_path}:/data", "--tmpfs", "/t"
    ) == [
        "A /data",
        "A /t",
    ]


def test_control_characters_of_names_are_bytes_in_a_pipe(engine: Engine) -> None:
    assert changed(engine, r"touch $(printf '/a\033[1m')") == ["A /a\x1b[1m"]


# --------------------------------------------------------------------- a copied root


def test_a_copied_root_is_compared_as_a_whole(engine: Engine) -> None:
    """Where overlays are refused (here: an upper on a tmpfs without them) the root is a copy."""
    engine.ok(
        "create",
        "--name",
        "box",
        "--rootfs",
        engine.rootfs,
        "sh",
        "-c",
        "echo x > /new; rm /etc/group",
    )
    home = Path(engine.root) / "containers" / engine.inspect("box")["Id"]
    subprocess.run(["cp", "-a", engine.rootfs, home / "copy"], check=True)
    engine.ok("start", "-a", "box")
    assert engine.inspect("box")["Driver"] == "copy"
    assert engine.ok("diff", "box").splitlines() == ["C /etc", "D /etc/group", "A /new"]
    assert {"new", "etc/passwd"} < export(engine, "box").keys()
    engine.ok("cp", "box:/new", str(home / "out"))
    assert (home / "out").read_text() == "x\n"


# --------------------------------------------------------------------- export


@pytest.mark.parametrize("state", ["running", "stopped", "never started"])
def test_an_export_has_all_files_and_no_mounts(engine: Engine, tmp_path: Path, state: str) -> None:
    (tmp_path / "secret").write_text("of the volume")
    flags = ("-v", f"{tmp_path}:/home", "--tmpfs", "/tmp")
    script = "echo x > /new; echo y > /tmp/gone; ln /new /hard; mknod /fifo p; rm /etc/group"
    if state == "never started":
        engine.ok("create", "--name", "box", *flags, "--rootfs", engine.rootfs, "true")
    else:
        engine.detach("--name", "box", *flags, command=["sh", "-c", f"{script}; sleep 1000"])
        look = "test -e /etc/group || echo gone"
        wait_until(lambda: engine.ok("exec", "box", "sh", "-c", look))
        if state == "stopped":
            engine.ok("stop", "-t", "0", "box")
    members = export(engine, "box")
    # What a volume covers is in the export, not what it shows.
    assert "home/app" in members and "home/secret" not in members and "tmp/gone" not in members
    assert {"proc", "sys", "dev"} < members.keys()
    assert not [name for name in members if name.startswith(("proc/", "sys/"))]
    assert members["home/app"].uid == 1000
    assert members["bin/ls"].issym() and members["bin/busybox"].isreg()
    assert members["bin/sh"].linkname == "bin/busybox" and members["bin/sh"].islnk()
    if state != "never started":
        assert members["hard"].isreg() and members["new"].islnk()
        assert members["fifo"].isfifo()
        assert "etc/group" not in members


def test_an_export_becomes_a_rootfs(engine: Engine, tmp_path: Path) -> None:
    engine.ok(
        "run", "--name", "box", "--rootfs", engine.rootfs, "sh", "-c", "echo changed > /etc/motd"
    )
    target = tmp_path / "rootfs"
    target.mkdir(mode=0o755)
    engine.ok("export", "-o", str(tmp_path / "box.tar"), "box")
    subprocess.run(["tar", "-x", "-C", target, "-f", tmp_path / "box.tar"], check=True)
    engine.rootfs = str(target)
    assert engine.sh("cat /etc/motd; whoami") == "changed\nroot\n"


def test_a_large_file_streams(engine: Engine) -> None:
    engine.ok("run", "--name", "box", "--rootfs", engine.rootfs, "truncate", "-s", "300M", "/big")
    with engine.popen("export", "box", stderr=None) as process:
        assert process.stdout is not None
        peak = 0
        while process.stdout.read(1 << 20):
            with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
                found = [line for line in file if line.startswith("VmHWM")]
            peak = max([peak, *(int(line.split()[1]) for line in found)])
        assert process.wait(10) == 0
    assert peak < 60_000


def test_a_full_disk_leaves_no_archive(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "true")
    target = Path(engine.base) / "small"
    target.mkdir()
    script = (
        f'mount -t tmpfs -o size=100k none {target} && "$@"; code=$?; ls -A {target}; exit $code'
    )
    argv = engine.argv("export", "-o", str(target / "box.tar"), "box")
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *argv],
        env=engine.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and result.stdout == ""
    assert "ENOSPC" in result.stderr and "Traceback" not in result.stderr


def test_unknown_containers_are_one_clear_error(engine: Engine) -> None:
    assert "No such container: nobody" in engine.fails(1, "diff", "nobody")
    assert "No such container: nobody" in engine.fails(1, "export", "nobody")


@pytest.mark.parametrize("subids", [False, True], ids=["one id", "a range of ids"])
def test_an_ordinary_user_exports_and_compares(
    make_engine: Callable[..., Engine], subids: bool
) -> None:
    if not scratch_is_open() or (subids and not shutil.which("newuidmap")):
        pytest.skip("needs an open scratch directory and newuidmap")
    engine = make_engine(UserEngine, subids=subids)
    own = os.path.join(engine.base, "rootfs")
    subprocess.run(["cp", "-a", engine.rootfs, own], check=True)
    subprocess.run(["chown", "-hR", "31415:31415", own], check=True)
    engine.rootfs = own
    script = "echo x > /new; rm /etc/group; rm -r /usr; mkdir /usr; mkdir /o; echo > /o/f"
    if subids:
        script += "; chown -R 1000:1000 /o; chmod 700 /o"
    assert changed(engine, script) == [
        "C /etc",
        "D /etc/group",
        "A /new",
        "A /o",
        "A /o/f",
        "C /usr",
        "D /usr/bin",
    ]
    members = export(engine, "box")
    assert "new" in members and "etc/group" not in members and "usr/bin" not in members
    assert members["o"].uid == 1000 * subids and "o/f" in members
    engine.ok("start", "box")
    assert "o/f" in export(engine, "box")
    assert "MB" in engine.ok("ps", "-a", "--size")


def test_an_ordinary_user_exports_the_hosts_tree(user_engine: Engine) -> None:
    """Without overlays of / each top directory of the host is an overlay of its own."""
    engine = user_engine
    engine.rootfs = "/"
    script = "echo x > /tmp/new; rm -f /tmp/never; cd /; echo done"
    engine.detach("--name", "box", "--tmpfs", "/mnt", command=["sh", "-c", f"{script}; sleep 1000"])
    wait_until(lambda: "done" in engine.ok("logs", "box"))
    assert "A /tmp/new" in engine.ok("diff", "box").splitlines()
    process = engine.popen("export", "box", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
        names = []
        # It ends at the first file that this user may not read.
        with contextlib.suppress(tarfile.ReadError):
            for info in tar:
                names.append(info.name)
                if len(names) == 500:
                    break
    process.stdout.close()
    process.wait(20)
    assert any("/" in name for name in names)
