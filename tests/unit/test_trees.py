"""primitives.trees: walking, measuring and removing trees that somebody else has filled."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Callable, Iterator

import pytest

from minicontainer.primitives import trees

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def as_user(function: Callable[[], None]) -> None:
    """Call `function` as an ordinary user, in a child where we are root."""
    if os.geteuid() != 0:
        function()
        return
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            function()
            os._exit(0)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        text = report.read().decode()
    assert os.waitpid(pid, 0)[1] == 0, text


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that an ordinary user owns and can reach."""
    path = tempfile.mkdtemp()
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    yield Path(path)
    subprocess.run(["chmod", "-R", "u+rwX", path], check=True)
    shutil.rmtree(path)


def remove(parent: Path, name: str) -> None:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        trees.remove_tree(fd, name)
    finally:
        os.close(fd)


def paths(top: Path, **how: object) -> list[str]:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [
            entry.path + ("/" if entry.leaving else "")
            for entry in trees.walk(fd, **how)  # type: ignore[arg-type]
        ]
    finally:
        os.close(fd)


def test_walk_visits_names_in_order_and_directories_twice(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "a").write_text("x")
    (tmp_path / "a").symlink_to("b")
    assert paths(tmp_path) == ["a", "b", "b/a", "b/c", "b/c/", "b/"]


def test_walk_does_not_enter_what_is_to_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    (tmp_path / "out" / "y").mkdir(parents=True)
    skip = {trees.identity(os.stat(tmp_path / "in"))}
    assert paths(tmp_path, skip=skip) == ["in", "in/", "out", "out/y", "out/y/", "out/"]


def test_walk_leaves_out_what_vanishes(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text("")
    fd = os.open(tmp_path, os.O_RDONLY)
    seen = []
    for entry in trees.walk(fd):
        seen.append(entry.path)
        if entry.path == "a":
            (tmp_path / "b").unlink()
    os.close(fd)
    assert seen == ["a", "c"]


def test_walk_never_follows_a_directory_that_became_a_link(tmp_path: Path) -> None:
    (tmp_path / "top" / "d").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("")
    fd = os.open(tmp_path / "top", os.O_RDONLY)
    seen = []
    for entry in trees.walk(fd):
        seen.append(entry.path)
        if entry.path == "d" and not entry.leaving:
            (tmp_path / "top" / "d").rmdir()
            (tmp_path / "top" / "d").symlink_to("../secret")
    os.close(fd)
    assert seen == ["d", "d"]


def test_walk_stops_when_a_directory_is_moved_out_from_under_it(tmp_path: Path) -> None:
    (tmp_path / "top" / "d" / "e").mkdir(parents=True)
    fd = os.open(tmp_path / "top", os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        for entry in trees.walk(fd):
            if entry.path == "d/e" and not entry.leaving:
                (tmp_path / "top" / "d").rename(tmp_path / "moved")
    os.close(fd)
    assert caught.value.errno == errno.ESTALE


def test_walk_closes_its_descriptors_when_left_early(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    fd = os.open(tmp_path, os.O_RDONLY)
    walking = trees.walk(fd)
    next(walking)
    next(walking)
    walking.close()  # type: ignore[attr-defined]
    os.close(fd)
    assert os.listdir("/proc/self/fd") == before


def test_measure_counts_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "d" / "b")
    (tmp_path / "c").write_bytes(b"x" * 10)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert trees.measure(fd) == 1010
    os.close(fd)


def test_remove_takes_every_kind_of_entry_and_may_be_repeated(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_text("x")
    (top / "a" / "link").symlink_to("/etc")
    os.mkfifo(top / "fifo")
    (top / "bad\udcff").write_text("")
    remove(tmp_path, "top")
    assert os.listdir(tmp_path) == []
    remove(tmp_path, "top")


def test_remove_takes_a_file_and_a_link_but_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").write_text("x")
    remove(tmp_path, "link")
    remove(tmp_path, "file")
    assert (tmp_path / "kept" / "file").read_text() == "x"
    assert os.listdir(tmp_path) == ["kept"]


def test_remove_needs_neither_stack_nor_descriptors_for_depth(tmp_path: Path) -> None:
    top_fd = os.open(tmp_path, os.O_RDONLY)
    fd = top_fd
    for _ in range(3000):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        if fd != top_fd:
            os.close(fd)
        fd = below
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        trees.remove_tree(top_fd, "deep")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(top_fd)
    assert os.listdir(tmp_path) == []


def test_remove_opens_directories_that_their_owner_closed(open_directory: Path) -> None:
    def check() -> None:
        top = open_directory / "top"
        (top / "none" / "inner").mkdir(parents=True)
        (top / "none" / "file").write_text("x")
        (top / "readonly").mkdir()
        (top / "readonly" / "file").write_text("x")
        (top / "none" / "inner").chmod(0o000)
        (top / "none").chmod(0o000)
        (top / "readonly").chmod(0o500)
        remove(open_directory, "top")
        assert os.listdir(open_directory) == []

    as_user(check)


def test_remove_goes_on_past_what_it_may_not_remove(open_directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a stranger's file")
    (open_directory / "top" / "b").mkdir(parents=True)
    (open_directory / "top" / "b" / "file").write_text("x")
    (open_directory / "top" / "a").write_text("x")
    (open_directory / "top" / "c").write_text("x")
    os.chown(open_directory / "top", 65534, 65534)

    def check() -> None:
        with pytest.raises(PermissionError):
            remove(open_directory, "top")
        assert sorted(os.listdir(open_directory / "top")) == ["b"]

    as_user(check)


def test_two_removers_of_one_tree_do_not_disturb_each_other(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / "top" / str(number) / "x" / "y").mkdir(parents=True)
        (tmp_path / "top" / str(number) / "file").write_text("x")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            remove(tmp_path, "top")
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == []


IN_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]


@root_only
@pytest.mark.parametrize("mount", ["--bind other top/in", "-t tmpfs none top/in"])
def test_remove_never_enters_a_mount(tmp_path: Path, mount: str) -> None:
    (tmp_path / "top" / "in").mkdir(parents=True)
    (tmp_path / "top" / "after").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    script = (
        f"cd {tmp_path} && mount {mount} && touch top/in/precious && "
        f"! {os.sys.executable} -c "  # type: ignore[attr-defined]
        "'import os; from minicontainer.primitives import trees;"
        'trees.remove_tree(os.open(".", os.O_RDONLY), "top")\' 2> error && '
        "test -e top/in/precious && ! test -e top/after && grep -q EBUSY\\\\\\|busy error"
    )
    answer = subprocess.run(
        [*IN_NAMESPACE, script],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "other" / "precious").exists()


@root_only
def test_walk_sees_a_bind_mount_of_the_same_file_system(tmp_path: Path) -> None:
    (tmp_path / "top" / "in").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    script = (
        f"cd {tmp_path} && mount --bind other top/in && {os.sys.executable} -c "  # type: ignore[attr-defined]
        "'import os; from minicontainer.primitives import trees;"
        'fd = os.open("top", os.O_RDONLY);'
        "print([entry.path for entry in trees.walk(fd, cross=False)],"
        "[entry.path for entry in trees.walk(fd)])'"
    )
    answer = subprocess.run(
        [*IN_NAMESPACE, script],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert answer.stdout.strip() == "['in', 'in'] ['in', 'in/file', 'in']", answer.stderr


def test_an_old_kernel_still_tells_mounts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object) -> int:
        raise OSError(errno.ENOSYS, "openat2")

    monkeypatch.setattr(trees.kernel, "openat2", unknown)
    fd = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            trees.open_entry(fd, "proc", os.O_DIRECTORY, cross=False)
        assert caught.value.errno == errno.EXDEV
        os.close(trees.open_entry(fd, "etc", os.O_DIRECTORY, cross=False))
    finally:
        os.close(fd)
