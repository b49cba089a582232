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


def test_a_stale_cgroup_goes_and_a_strangers_stays(engine: Engine) -> None:
    remains(engine)
    hierarchy = Path("/sys/fs/cgroup/memory")
    if not hierarchy.is_dir():
        hierarchy = Path("/sys/fs/cgroup")
    stale, used = (hierarchy / "minicontainer" / secrets.token_hex(32) for _ in range(2))
    stale.mkdir(parents=True)
    used.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            (used / "cgroup.procs").write_text(str(process.pid))
            assert f"Removed: cgroup /minicontainer/{stale.name}" in engine.ok("prune")
            assert not stale.exists() and used.exists()
        finally:
            process.kill()
            process.wait()
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
