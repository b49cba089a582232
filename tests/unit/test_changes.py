"""engine.changes: an upper directory compared with the layers below it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from minicontainer.engine import changes

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    top = tmp_path / "lower"
    for name in ("etc/conf.d", "usr/bin", "var/lib/deep"):
        (top / name).mkdir(parents=True)
    for name in ("etc/passwd", "etc/conf.d/a", "etc/conf.d/b", "usr/bin/ls", "var/lib/deep/x"):
        (top / name).write_text(name)
    (top / "bin").symlink_to("usr/bin")
    return top


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


def compare(upper: Path, *lower: Path, whole: bool = False) -> list[tuple[str, str]]:
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (upper, *lower)]
    try:
        found = changes.compare(fds[0], fds[1:], whole=whole)
    finally:
        for fd in fds:
            os.close(fd)
    return [(kind, path) for path, kind in sorted(found.items())]


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def test_an_empty_upper_directory_changes_nothing(upper: Path, lower: Path) -> None:
    assert compare(upper, lower) == []


def test_a_directory_on_the_way_to_a_change_is_changed(upper: Path, lower: Path) -> None:
    (upper / "var/lib/deep").mkdir(parents=True)
    (upper / "var/lib/deep/new").write_text("x")
    assert compare(upper, lower) == [
        ("C", "/var"), ("C", "/var/lib"), ("C", "/var/lib/deep"), ("A", "/var/lib/deep/new"),
    ]  # fmt: skip


def test_a_file_that_was_only_copied_up_is_no_change(upper: Path, lower: Path) -> None:
    subprocess.run(["cp", "-a", "--parents", "etc/passwd", "bin", upper], cwd=lower, check=True)
    assert compare(upper, lower) == []
    os.utime(upper / "etc/passwd", (1, 1))
    (upper / "bin").unlink()
    (upper / "bin").symlink_to("usr/sbin")
    assert compare(upper, lower) == [("C", "/bin"), ("C", "/etc"), ("C", "/etc/passwd")]


@root_only
def test_owners_modes_and_capabilities_count(upper: Path, lower: Path) -> None:
    for name in ("etc", "usr", "var"):
        subprocess.run(["cp", "-a", lower / name, upper], check=True)
    os.chown(upper / "etc/passwd", 1, 0)
    (upper / "var/lib").chmod(0o700)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(upper / "usr/bin/ls", "security.capability", capability)
    assert compare(upper, lower) == [
        ("C", "/etc"), ("C", "/etc/passwd"), ("C", "/usr"), ("C", "/usr/bin"), ("C", "/usr/bin/ls"),
        ("C", "/var"), ("C", "/var/lib"),
    ]  # fmt: skip


@root_only
def test_a_whiteout_deletes_only_what_is_there(upper: Path, lower: Path) -> None:
    (upper / "etc").mkdir()
    whiteout(upper / "etc/passwd")
    whiteout(upper / "etc/never")
    whiteout(upper / "var")
    assert compare(upper, lower) == [("C", "/etc"), ("D", "/etc/passwd"), ("D", "/var")]


@root_only
@pytest.mark.parametrize("mark", ["trusted.overlay.opaque", "user.overlay.opaque"])
def test_an_opaque_directory_deletes_what_it_lacks(upper: Path, lower: Path, mark: str) -> None:
    (upper / "etc/conf.d").mkdir(parents=True)
    (upper / "etc/conf.d/a").write_text("changed")
    os.setxattr(upper / "etc", mark, b"y")
    # What lies in an opaque directory hides the layers as well, without a mark of its own.
    assert compare(upper, lower) == [
        ("C", "/etc"), ("C", "/etc/conf.d"), ("C", "/etc/conf.d/a"), ("D", "/etc/conf.d/b"),
        ("D", "/etc/passwd"),
    ]  # fmt: skip


@root_only
def test_layers_hide_each_other(tmp_path: Path, upper: Path, lower: Path) -> None:
    middle = tmp_path / "middle"
    (middle / "etc/conf.d").mkdir(parents=True)
    (middle / "etc/conf.d/c").write_text("c")
    os.setxattr(middle / "etc/conf.d", "trusted.overlay.opaque", b"y")
    whiteout(middle / "usr")
    (upper / "etc/conf.d").mkdir(parents=True)
    (upper / "etc/conf.d/a").write_text("again")
    whiteout(upper / "etc/conf.d/b")
    whiteout(upper / "etc/conf.d/c")
    (upper / "usr/bin").mkdir(parents=True)
    assert compare(upper, middle, lower) == [
        ("C", "/etc"), ("C", "/etc/conf.d"), ("A", "/etc/conf.d/a"), ("D", "/etc/conf.d/c"),
        ("A", "/usr"), ("A", "/usr/bin"),
    ]  # fmt: skip


def test_kinds_that_replace_each_other(upper: Path, lower: Path) -> None:
    (upper / "bin").mkdir()
    (upper / "bin" / "new").write_text("")
    (upper / "usr").write_text("")
    assert compare(upper, lower) == [("C", "/bin"), ("A", "/bin/new"), ("C", "/usr")]


def test_links_of_the_lower_tree_are_not_followed(upper: Path, lower: Path) -> None:
    (upper / "bin").mkdir()
    (upper / "bin" / "ls").write_text("usr/bin/ls")
    assert ("A", "/bin/ls") in compare(upper, lower)


def test_empty_mount_points_are_hidden_and_others_not(upper: Path, lower: Path) -> None:
    for name in ("proc", "sys", "dev/pts", "dev/shm", "etc"):
        (upper / name).mkdir(parents=True)
    for name in ("etc/hosts", "etc/resolv.conf"):
        (upper / name).write_text("")
    (upper / "etc/hostname").write_text("written by the container")
    assert compare(upper, lower) == [("C", "/etc"), ("A", "/etc/hostname")]
    (upper / "etc/hostname").unlink()
    assert compare(upper, lower) == []
    subprocess.run(["rm", "-r", lower / "etc"], check=True)
    assert compare(upper, lower) == []


def test_a_copied_tree_is_compared_as_a_whole(tmp_path: Path, lower: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", lower, copy], check=True)
    assert compare(copy, lower, whole=True) == []
    (copy / "etc/passwd").unlink()
    (copy / "etc/new").write_text("")
    subprocess.run(["rm", "-r", copy / "var", copy / "bin"], check=True)
    assert compare(copy, lower, whole=True) == [
        ("D", "/bin"), ("C", "/etc"), ("A", "/etc/new"), ("D", "/etc/passwd"), ("D", "/var"),
    ]  # fmt: skip


@root_only
@pytest.mark.parametrize("options", ["", ",redirect_dir=off,metacopy=off"])
def test_a_real_overlay_is_read_as_it_shows_itself(
    tmp_path: Path, upper: Path, lower: Path, options: str
) -> None:
    if subprocess.run(["grep", "-qw", "overlay", "/proc/filesystems"], check=False).returncode:
        pytest.skip("the kernel has no overlay file system")
    base = Path(os.environ.get("MC_TEST_DIR", "/var/tmp")) / f"mc-changes-{os.getpid()}"
    base.mkdir()
    try:
        for name in ("up", "work", "merged"):
            (base / name).mkdir()
        script = (
            f"mount -t overlay -o lowerdir={lower},upperdir={base}/up,workdir={base}/work{options}"
            f" none {base}/merged && cd {base}/merged && rm -r etc && mkdir etc && echo x > etc/n"
            " && mv var/lib/deep var/lib/moved && rm usr/bin/ls && : >> bin/../conf"
        )
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], check=True
        )
        found = compare(base / "up", lower)
    finally:
        subprocess.run(["rm", "-r", base], check=True)
    assert [change for change in found if "moved" not in change[1]] == [
        ("C", "/etc"), ("D", "/etc/conf.d"), ("A", "/etc/n"), ("D", "/etc/passwd"), ("C", "/usr"),
        ("C", "/usr/bin"), ("D", "/usr/bin/ls"), ("A", "/usr/conf"), ("C", "/var"),
        ("C", "/var/lib"), ("D", "/var/lib/deep"),
    ]  # fmt: skip
    assert ("A", "/var/lib/moved") in found
