"""prune: what killed commands left behind goes, what is in use stays."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.runner import Engine
from tests.support.users import UserEngine, scratch_is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root


def remains(engine: Engine) -> Path:
    """The root directory of an engine that has run once."""
    engine.ok("ps")
    engine.ok("create", "--name", "kept", "--rootfs", engine.rootfs, "true")
    return Path(engine.root)


def test_nothing_to_clean(engine: Engine) -> None:
    assert engine.ok("prune") == "Nothing to clean.\n"
    remains(engine)
    assert engine.ok("prune") == "Nothing to clean.\n"
    engine.detach("--name", "running")
    assert engine.ok("prune", "--all", "--force", "--filter", "label=none") == "Nothing to clean.\n"
    assert engine.status("running") == "running"


def test_remains_of_killed_commands_go(engine: Engine) -> None:
    root = remains(engine)
    dead = secrets.token_hex(32)
    staged = root / "tmp" / dead
    (staged / "upper" / "d").mkdir(parents=True)
    (staged / "upper" / "d" / "f").write_bytes(b"x" * 3000)
    (staged / "upper" / "d").chmod(0)
    (root / "names" / "ghost").symlink_to(dead)
    trash = root / "trash" / secrets.token_hex(32)
    (trash / "upper").mkdir(parents=True)
    (trash / "upper" / "f").write_bytes(b"x" * 500)
    state = Path(engine.runroot) / "containers" / secrets.token_hex(32)
    state.mkdir(mode=0o700)
    (state / "exit").write_text("")
    listed = engine.ok("prune", "--dry-run").splitlines()
    assert staged.exists() and trash.exists() and state.exists()
    lines = engine.ok("prune").splitlines()
    assert lines == [
        f"Removed: staging {dead[:12]}",
        "Removed: name ghost",
        f"Removed: state {state.name[:12]}",
        f"Removed: trash {trash.name[:12]}",
        "Total reclaimed space: 3.5kB",
    ]
    assert [line.replace("Would remove", "Removed") for line in listed[:-1]] == lines[:-1]
    for path in (staged, trash, state):
        assert not path.exists()
    assert os.listdir(root / "names") == ["kept"]
    assert engine.ok("prune") == "Nothing to clean.\n"


def test_what_somebody_is_making_stays(engine: Engine) -> None:
    root = remains(engine)
    busy = root / "tmp" / secrets.token_hex(32)
    busy.mkdir()
    (root / "names" / "coming").symlink_to(busy.name)
    fd = os.open(busy, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert engine.ok("prune") == "Nothing to clean.\n"
        assert busy.exists() and (root / "names" / "coming").is_symlink()
    finally:
        os.close(fd)
    assert engine.ok("prune").splitlines()[:2] == [
        f"Removed: staging {busy.name[:12]}",
        "Removed: name coming",
    ]


def test_a_stale_cgroup_goes_and_those_of_others_stay(engine: Engine) -> None:
    """Stale: its volatile directory is ours and nobody is in it. An empty one without such a
    directory may belong to another engine that is about to start a container in it."""
    remains(engine)
    hierarchy = Path("/sys/fs/cgroup/memory")
    if not hierarchy.is_dir():
        hierarchy = Path("/sys/fs/cgroup")
    groups = [hierarchy / "minicontainer" / secrets.token_hex(32) for _ in range(3)]
    stale, used, others = groups
    for group in groups:
        group.mkdir(parents=True)
    for group in (stale, used):
        (Path(engine.runroot) / "containers" / group.name).mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            (used / "cgroup.procs").write_text(str(process.pid))
            assert f"Removed: cgroup /minicontainer/{stale.name}" in engine.ok("prune")
            assert not stale.exists() and used.exists() and others.exists()
        finally:
            process.kill()
            process.wait()
            others.rmdir()
            for _ in range(100):
                try:
                    used.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)


def test_all_takes_stopped_containers_and_asks_first(engine: Engine) -> None:
    for name in ("one", "two"):
        engine.ok("run", "--name", name, "--rootfs", engine.rootfs, "sh", "-c", "echo x > /f")
    engine.ok("create", "--name", "never", "--rootfs", engine.rootfs, "true")
    engine.detach("--name", "running")
    engine.detach("--name", "paused")
    engine.ok("pause", "paused")
    result = engine.run("prune", "--all", input="n\n")
    assert result.returncode == 1 and "[y/N]" in result.stderr + result.stdout
    out = engine.ok("prune", "--all", input="y\n")
    removed = {
        line.split()[-1] for line in out.splitlines() if line.startswith("Removed: container")
    }
    assert removed == {"one", "two", "never"}
    assert sorted(engine.ok("ps", "-a", "--format", "{{.Names}}").split()) == ["paused", "running"]
    assert os.listdir(Path(engine.root) / "trash") == []


def test_filters_choose_among_the_containers(engine: Engine) -> None:
    for name, label in (("old", "a=1"), ("marked", "a=2"), ("plain", "b")):
        engine.ok("create", "--name", name, "-l", label, "--rootfs", engine.rootfs, "true")

    def would_go(*filters: str) -> set[str]:
        flags = [word for one in filters for word in ("--filter", one)]
        lines = engine.ok("prune", "--all", "--dry-run", *flags).splitlines()
        return {line.split()[-1] for line in lines if " container " in line}

    assert would_go() == {"old", "marked", "plain"}
    assert would_go("label=a") == {"old", "marked"}
    assert would_go("label=a=2") == {"marked"}
    assert would_go("label!=a") == {"plain"}
    assert would_go("until=1h") == set()
    assert would_go("until=0s") == {"old", "marked", "plain"}
    assert would_go("until=0s", "label=b") == {"plain"}


def test_a_broken_container_is_pruned_with_all(engine: Engine) -> None:
    root = remains(engine)
    container_id = engine.inspect("kept")["Id"]
    (root / "containers" / container_id / "container.json").write_text("{")
    assert f"container {container_id[:12]}" in engine.ok("prune", "--all", "--force")
    assert os.listdir(root / "containers") == []
    assert engine.ok("prune").startswith(("Nothing", "Removed: name"))
    assert os.listdir(root / "names") == []


@pytest.mark.parametrize("lost", ["empty", "missing"])
def test_what_a_crash_of_the_host_left_of_a_start_is_garbage(engine: Engine, lost: str) -> None:
    """`run` writes without waiting for the disk: the files of a young container may be lost."""
    root = remains(engine)
    engine.ok("run", "--name", "young", "--rootfs", engine.rootfs, "sh", "-c", "echo x > /f")
    directory = root / "containers" / engine.inspect("young")["Id"]
    for name in ("container.json", "config.json", "last.json"):
        (directory / name).unlink()
        if lost == "empty":
            (directory / name).touch()
    assert engine.ok("ps", "-a", "--format", "{{.Names}}").split() == ["kept"]
    assert "No such container" in engine.fails(1, "rm", "young")
    engine.ok("create", "--name", "young", "--rootfs", engine.rootfs, "true")
    assert f"unfinished {directory.name[:12]}" in engine.ok("prune", "--dry-run")
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert engine.ok("prune") == "Nothing to clean.\n"
    finally:
        os.close(fd)
    assert f"Removed: unfinished {directory.name[:12]}\n" in engine.ok("prune")
    assert sorted(os.listdir(root / "names")) == ["kept", "young"]
    assert len(os.listdir(root / "containers")) == 2 and not os.listdir(root / "trash")


@pytest.mark.parametrize("verb", ["run", "run -d"])
def test_run_waits_for_no_disk_before_the_command_runs(engine: Engine, verb: str) -> None:
    engine.ok("create", "--rootfs", engine.rootfs, "true")
    trace = os.path.join(engine.base, "trace")
    flags = ["--name", "box", "--rootfs", engine.rootfs]
    engine.ok(f"--trace={trace}", *verb.split(), *flags, "true")
    engine.ok("wait", "box")
    with open(trace, encoding="utf-8") as file:
        calls = file.read().replace(engine.inspect("box")["Id"], "ID").splitlines()
    os.unlink(trace)
    started = next(number for number, line in enumerate(calls) if "] execve(" in line)
    synced = next(number for number, line in enumerate(calls) if "] fsync(" in line)
    assert started < synced
    supervisor = calls[synced].partition(" fsync")[0]
    opened = [line for line in calls[started:] if line.startswith(f"{supervisor} open(")]
    assert [line.split('"')[1].replace(engine.root, "") for line in opened[-5:-1]] == [
        "/containers/ID/config.json",
        "/containers/ID/container.json",
        "/containers/ID",
        "/containers",
    ]


def test_create_returns_once_the_record_is_on_the_disk(engine: Engine) -> None:
    engine.ok("ps")
    trace = os.path.join(engine.base, "trace")
    engine.ok(f"--trace={trace}", "create", "--rootfs", engine.rootfs, "true")
    with open(trace, encoding="utf-8") as file:
        calls = [line.partition("] ")[2] for line in file]
    os.unlink(trace)
    written = [n for n, line in enumerate(calls) if line.startswith("write(") and "{" in line]
    assert len(written) == 2
    assert all(calls[number + 1].startswith("fsync(") for number in written)
    assert any("/containers" in line for line in calls[written[-1] :] if line.startswith("open("))


def test_a_damaged_entry_does_not_stop_the_rest(engine: Engine) -> None:
    root = remains(engine)
    (root / "trash" / "a" / "mounted").mkdir(parents=True)
    (root / "trash" / "b").mkdir()
    script = 'mount -t tmpfs none "$1/trash/a/mounted" && shift && "$@"'
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(root), *engine.argv("prune")],
        env=engine.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Removed: trash b" in result.stdout and "Removed: trash a" not in result.stdout
    assert "Warning: not removed: " in result.stderr and "EBUSY" in result.stderr
    assert (root / "trash" / "a" / "mounted").exists() and not (root / "trash" / "b").exists()


def test_files_of_removed_containers_are_deleted_whatever_they_are(engine: Engine) -> None:
    script = "mkdir /d; cd /d; for i in $(seq 300); do mkdir d; cd d; done; chmod 0 /d /d/d"
    engine.ok("run", "--name", "box", "--rootfs", engine.rootfs, "sh", "-c", script)
    engine.ok("rm", "box")
    assert os.listdir(Path(engine.root) / "trash") == []


@pytest.mark.parametrize("subids", [False, True], ids=["one id", "a range of ids"])
def test_an_ordinary_user_gets_rid_of_every_file(
    make_engine: Callable[..., Engine], subids: bool
) -> None:
    """Files of subordinate ids, and directories closed to their owner."""
    if not scratch_is_open() or (subids and not shutil.which("newuidmap")):
        pytest.skip("needs an open scratch directory and newuidmap")
    engine = make_engine(UserEngine, subids=subids)
    own = os.path.join(engine.base, "rootfs")
    subprocess.run(["cp", "-a", engine.rootfs, own], check=True)
    subprocess.run(["chown", "-hR", "31415:31415", own], check=True)
    engine.rootfs = own
    script = "mkdir -p /d/e; echo > /d/e/f; chmod 0 /d/e"
    if subids:
        script += "; mkdir /o; echo > /o/f; chown -R 1000:1000 /o; chmod 700 /o"
    engine.ok("run", "--name", "box", "--rootfs", engine.rootfs, "sh", "-c", script)
    engine.ok("rm", "box")
    assert os.listdir(Path(engine.root) / "trash") == []
