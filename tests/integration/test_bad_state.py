"""State directories that cannot be used: full, read-only, of another version, damaged."""

from __future__ import annotations

import contextlib
import os
import subprocess
from contextlib import contextmanager

import pytest

from tests.support import census
from tests.support.runner import Engine, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

pytestmark = pytest.mark.root


@contextmanager
def disk(path: str, options: str = "") -> Iterator[None]:
    """A small file system of its own at `path`, made if missing."""
    os.makedirs(path, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"mode=755{options}", "mc-test", path]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def remount(path: str, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def fill(directory: str) -> str:
    """Use up the space of a file system; the file to remove for getting it back."""
    path = f"{directory}/filler"
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return path


def traces(engine: Engine) -> list[str]:
    """What a container that could not be made has left behind, wherever it might."""
    found = engine.containers()
    for name in ("names", "tmp"):
        path = f"{engine.root}/{name}"
        found += [f"{name}/{entry}" for entry in os.listdir(path)] if os.path.isdir(path) else []
    running = f"{engine.runroot}/containers"
    found += os.listdir(running) if os.path.isdir(running) else []
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not engine.processes(), "the end of its processes", 2)
    found += list(engine.processes().values())
    return found + [line for line in census.mounts(engine.roots) if " mc-test" not in line]


def one_line(engine: Engine, code: int, *words: str) -> str:
    """The sentence of the error, checked as in `fails`; nothing of a container is there after."""
    said = engine.fails(code, *words)
    assert [line for line in said.splitlines() if not line.startswith("Hint: ")][1:] == [], said
    assert traces(engine) == []
    return said


# A full disk


@pytest.mark.parametrize("flags", [["--rm"], [], ["-d"]])
def test_full_disk_in_the_state_directory(engine: Engine, flags: list[str]) -> None:
    with disk(engine.root, ",size=64k"):
        engine.ok("run", "--rm", "--rootfs", engine.rootfs, "true")
        filler = fill(engine.root)
        said = one_line(engine, 125, "run", *flags, "--rootfs", engine.rootfs, "true")
        assert "no space left on device (ENOSPC)" in said
        assert "Hint: the disk is full" in said
        assert engine.ok("ps", "-a", "-q") == ""
        os.unlink(filler)
        assert engine.sh("echo again") == "again\n"


def test_state_directory_without_inodes(engine: Engine) -> None:
    """Whichever of its files cannot be made, the start ends cleanly."""
    words = ["run", "--rm", "--name", "n", "--rootfs", engine.rootfs, "true"]
    codes = []
    for inodes in range(2, 30):
        with disk(engine.root, f",nr_inodes={inodes}"):
            codes.append(ends_cleanly(engine, *words))
    assert 125 in codes and codes[-1] == 0


def test_volatile_directory_without_inodes(engine: Engine) -> None:
    words = ["run", "--rm", "--name", "n", "--rootfs", engine.rootfs, "true"]
    codes = []
    for inodes in range(2, 12):
        with disk(engine.runroot, f",nr_inodes={inodes}"):
            codes.append(ends_cleanly(engine, *words))
    assert 125 in codes and codes[-1] == 0


def ends_cleanly(engine: Engine, *words: str) -> int:
    done = engine.run(*words)
    if done.returncode:
        assert done.returncode == 125, done
        assert "(ENOSPC)" in done.stderr or "is the disk full?" in done.stderr, done
        lines = [line for line in done.stderr.splitlines() if not line.startswith("Hint: ")]
        assert len(lines) == 1 and lines[0].startswith("Error: "), done
    assert traces(engine) == []
    return int(done.returncode)


def test_full_volatile_directory(engine: Engine) -> None:
    with disk(engine.runroot, ",size=16k"):
        engine.ok("run", "--rm", "--rootfs", engine.rootfs, "true")
        filler = fill(engine.runroot)
        said = one_line(engine, 125, "run", "-d", "--rm", "--rootfs", engine.rootfs, "sleep", "9")
        assert "no space left on device" in said
        os.unlink(filler)
        engine.sh("true")


def test_disk_that_fills_up_does_not_end_a_container(engine: Engine) -> None:
    with disk(engine.root, ",size=512k"):
        script = "while [ ! -e /v/go ]; do sleep 0.05; done; yes | head -c 300000; exit 5"
        os.mkdir(f"{engine.base}/v")
        flags = ["--name", "c", "-v", f"{engine.base}/v:/v"]
        engine.detach(*flags, command=["sh", "-c", script])
        filler = fill(engine.root)
        open(f"{engine.base}/v/go", "w").close()
        wait_until(lambda: engine.status("c") == "exited", "its end", 20)
        assert engine.ok("ps", "-a", "--format", "{{.Names}}") == "c\n"
        engine.ok("rm", "c")
        os.unlink(filler)
        assert engine.containers() == []


# A read-only one


@pytest.mark.parametrize("flags", [["--rm"], ["-d"]])
def test_read_only_state_directory(engine: Engine, flags: list[str]) -> None:
    with disk(engine.root):
        engine.sh("true")
        remount(engine.root, "ro")
        said = one_line(engine, 125, "run", *flags, "--rootfs", engine.rootfs, "true")
        assert "read-only file system (EROFS)" in said and "--root" in said
        assert "CONTAINER ID" in engine.ok("ps", "-a")
        remount(engine.root, "rw")
        assert engine.sh("echo again") == "again\n"


def test_read_only_state_directory_that_is_new(engine: Engine) -> None:
    with disk(engine.root, ",ro"):
        said = one_line(engine, 125, "run", "--rm", "--rootfs", engine.rootfs, "true")
        assert "read-only file system (EROFS)" in said
        assert engine.ok("ps", "-q") == ""


def test_containers_on_a_read_only_disk_can_be_looked_at(engine: Engine) -> None:
    with disk(engine.root):
        engine.run("run", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", "echo said; exit 3")
        remount(engine.root, "ro")
        assert engine.ok("ps", "-a", "--format", "{{.Names}}") == "c\n"
        assert engine.ok("logs", "c") == "said\n"
        assert engine.inspect("c")["State"]["ExitCode"] == 3
        for verb in ("rm", "start"):
            assert "read-only file system" in engine.fails(1, verb, "c")
        assert "read-only file system" in engine.fails(1, "rename", "c", "d")
        remount(engine.root, "rw")
        engine.ok("rm", "c")


def test_read_only_volatile_directory(engine: Engine) -> None:
    with disk(engine.runroot, ",ro"):
        said = one_line(engine, 125, "run", "--rm", "--rootfs", engine.rootfs, "true")
        assert "read-only file system (EROFS)" in said


def test_state_directory_that_cannot_be_made(engine: Engine) -> None:
    engine.root = "/proc/minicontainer"
    said = engine.fails(125, "run", "--rm", "--rootfs", engine.rootfs, "true")
    assert "make the state directory /proc/minicontainer" in said
    engine.root = f"{engine.base}/lib"


def test_state_directory_that_is_a_file(engine: Engine) -> None:
    with open(engine.root, "w", encoding="ascii"):
        pass
    said = engine.fails(125, "run", "--rm", "--rootfs", engine.rootfs, "true")
    assert engine.root in said and "(E" in said
    os.unlink(engine.root)


# Of another version, or not ours

LOOKING = (["ps"], ["inspect", "x"], ["logs", "x"], ["prune", "--force"], ["rm", "--all"])


@pytest.mark.parametrize("version", ["2\n", "99", "", "one\n", "\0\xff"])
def test_unknown_state_version_is_refused(engine: Engine, version: str) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "true")
    path = f"{engine.root}/version"
    with open(path, "w", encoding="latin-1") as file:
        file.write(version)
    before = census.tree(engine.root)
    said = engine.fails(125, "run", "--rootfs", engine.rootfs, "true")
    assert f"{engine.root} has layout version" in said and "knows only 1" in said
    for words in LOOKING:
        assert "has layout version" in engine.fails(1, *words)
    assert census.tree(engine.root) == before
    with open(path, "w", encoding="ascii") as file:
        file.write("1\n")
    engine.ok("rm", "c")


def test_directory_of_another_program_is_refused(engine: Engine) -> None:
    os.makedirs(f"{engine.root}/overlay2/layer")
    said = engine.fails(125, "run", "--rm", "--rootfs", engine.rootfs, "true")
    assert "holds something else (overlay2)" in said and "--root" in said
    assert os.listdir(engine.root) == ["overlay2"]
    os.removedirs(f"{engine.root}/overlay2/layer")


def test_empty_directories_are_adopted(engine: Engine) -> None:
    os.makedirs(f"{engine.root}/overlay2")
    os.makedirs(f"{engine.root}/lost+found")
    engine.sh("true")
    os.rmdir(f"{engine.root}/overlay2")
    os.rmdir(f"{engine.root}/lost+found")


# Damaged records: one broken container is no reason to lose sight of the others


@pytest.mark.parametrize(
    "text", ["{", "null", "[]", '{"version": 1}', '{"options": {}}', "\0" * 101, "{" * 100_000]
)
def test_damaged_record_is_shown_and_can_be_removed(engine: Engine, text: str) -> None:
    whole = engine.ok("create", "--name", "whole", "--rootfs", engine.rootfs, "true").strip()
    broken = engine.ok("create", "--name", "broken", "--rootfs", engine.rootfs, "true").strip()
    with open(f"{engine.root}/containers/{broken}/container.json", "w", encoding="ascii") as file:
        file.write(text)
    assert set(engine.ok("ps", "-a", "-q", "--no-trunc").split()) == {whole, broken}
    assert "broken" in engine.fails(1, "start", broken)
    engine.ok("rm", "-f", broken)
    assert engine.containers() == [whole]
    engine.ok("rm", "whole")


@pytest.mark.parametrize("torn", ["missing", "empty"])
def test_record_that_never_reached_the_disk_is_no_container(engine: Engine, torn: str) -> None:
    container_id = engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "true").strip()
    path = f"{engine.root}/containers/{container_id}/container.json"
    os.unlink(path)
    if torn == "empty":
        open(path, "w").close()
    assert engine.ok("ps", "-a", "-q") == ""
    assert "No such container" in engine.fails(1, "start", "c")
    engine.sh("true", "--name", "c")
    engine.ok("prune", "--force")
    assert engine.leftovers() == []


@pytest.mark.parametrize("name", ["config.json", "last.json"])
def test_missing_record_is_one_clear_line(engine: Engine, name: str) -> None:
    words = ["run", "--name", "c", "--rootfs", engine.rootfs, "true"]
    engine.ok(*words)
    container_id = engine.containers()[0]
    os.unlink(f"{engine.root}/containers/{container_id}/{name}")
    done = engine.run("start", "-a", container_id)
    assert done.returncode == 0 or done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    engine.ok("rm", "-f", container_id)


def test_damaged_state_is_one_clear_line(engine: Engine) -> None:
    container_id = engine.detach("--name", "c")
    path = f"{engine.runroot}/containers/{container_id}/state.json"
    with open(path, encoding="ascii") as file:
        text = file.read()
    with open(path, "w", encoding="ascii") as file:
        file.write(text[: len(text) // 2])
    assert "state.json is damaged" in engine.fails(1, "exec", container_id, "true")
    assert container_id in engine.ok("ps", "-a", "--no-trunc")
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    engine.ok("rm", "-f", "c")
