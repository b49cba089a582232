"""engine.prune: the trash, and what counts as garbage."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from minicontainer.engine import prune, records
from minicontainer.errors import KernelError
from minicontainer.paths import Paths

ID, OTHER = "a1" * 32, "b2" * 32


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    records.prepare(found)
    return found


def fill(directory: str) -> None:
    os.makedirs(f"{directory}/upper/d")
    with open(f"{directory}/upper/d/file", "wb") as file:
        file.write(b"x" * 1000)


def test_the_trash_is_emptied_up_to_a_limit(paths: Paths) -> None:
    for name in "abc":
        fill(f"{paths.trash}/{name}")
    prune.reap_trash(paths, 2)
    assert os.listdir(paths.trash) == ["c"]
    prune.reap_trash(paths)
    prune.reap_trash(paths)
    assert os.listdir(paths.trash) == []


def test_no_trash_is_no_error(tmp_path: Path) -> None:
    nowhere = Paths(str(tmp_path / "none"), str(tmp_path / "none"))
    prune.reap_trash(nowhere)
    prune.reap_in_background(nowhere)


def test_the_background_reaper_lets_go_of_everything(paths: Paths) -> None:
    for name in "abc":
        fill(f"{paths.trash}/{name}")
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    before = os.listdir("/proc/self/fd")
    prune.reap_in_background(paths)
    assert os.listdir("/proc/self/fd") == before
    os.close(writing)
    started = time.monotonic()
    assert os.read(reading, 1) == b""  # at once or when it is done; it never holds the pipe
    os.close(reading)
    while os.listdir(paths.trash) and time.monotonic() - started < 10:
        time.sleep(0.01)
    assert os.listdir(paths.trash) == []
    os.wait()


def test_only_one_reaper_works_in_the_background(paths: Paths) -> None:
    fill(f"{paths.trash}/a")
    fd = os.open(paths.trash, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    prune.reap_in_background(paths)
    with pytest.raises(ChildProcessError):
        os.wait()
    assert os.listdir(paths.trash) == ["a"]
    os.close(fd)


def test_what_has_a_record_or_a_maker_is_no_garbage(paths: Paths) -> None:
    os.mkdir(paths.container(ID))
    with open(paths.record(ID), "w") as file:
        file.write("damaged")
    os.symlink(ID, paths.name("taken"))
    os.mkdir(f"{paths.tmp}/{OTHER}")
    os.symlink(OTHER, paths.name("coming"))
    fd = os.open(f"{paths.tmp}/{OTHER}", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    mine = [one for one in prune._found(paths) if one.kind != "cgroup"]
    assert mine == []
    os.close(fd)
    mine = [one for one in prune._found(paths) if one.kind != "cgroup"]
    assert [(one.kind, one.name) for one in mine] == [("staging", OTHER[:12]), ("name", "coming")]


def test_a_file_in_tmp_is_garbage_only_when_it_is_old(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink(ID, f"{paths.tmp}/name-1-x")
    assert not prune._is_abandoned(f"{paths.tmp}/name-1-x")
    monkeypatch.setattr(prune, "_STALE_SECONDS", -1.0)
    assert prune._is_abandoned(f"{paths.tmp}/name-1-x")


def test_what_cannot_be_deleted_is_an_error_after_the_rest(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        fill(f"{paths.trash}/{name}")
    unlink, refused = prune.trees.kernel.unlink, []

    def refuse_once(name: str, **more: int) -> None:
        if name == "file" and not refused:
            refused.append(name)
            raise PermissionError(1, "refused")
        unlink(name, **more)

    monkeypatch.setattr(prune.trees.kernel, "unlink", refuse_once)
    with pytest.raises(KernelError, match="empty the trash"):
        prune.reap_trash(paths)
    assert os.listdir(paths.trash) == ["a"]
