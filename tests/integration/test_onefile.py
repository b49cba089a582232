"""The one-file build runs containers as the package does, on every Python, wherever it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runner import TOP, Engine, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.users import UserEngine

pytestmark = pytest.mark.root

PYTHONS = dict(
    line.split(" ", 1)
    for line in subprocess.run(
        [sys.executable, f"{TOP}/scripts/pythons"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
)


@pytest.fixture(scope="session")
def onefile(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = str(tmp_path_factory.mktemp("onefile") / "drop")
    subprocess.run([sys.executable, f"{TOP}/scripts/build", "-o", target], check=True)
    return target


@pytest.fixture
def dropped(onefile: str, make_engine: Callable[..., Engine], tmp_path: Path) -> Engine:
    """An engine that is a copy of the file under another name."""
    copy = str(shutil.copy(onefile, tmp_path / "another-name"))
    return make_engine(command=[copy], env={"PYTHONPATH": ""})


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("kind", ["file", "package"])
def test_a_container_runs_on_each_python(
    make_engine: Callable[..., Engine], onefile: str, version: str, kind: str
) -> None:
    python = PYTHONS[version]
    if kind == "file":
        engine = make_engine(command=[onefile], env={"MINICONTAINER_PYTHON": python})
    else:
        engine = make_engine(command=[python, "-m", "minicontainer"])
    assert engine.sh("echo hello from $(hostname)", "--rm") == "hello from minicontainer\n"
    engine.detach("--name", "kept", "--memory", "64m")
    assert engine.ok("exec", "kept", "hostname") == "minicontainer\n"
    failing = engine.run("run", "--rm", "--rootfs", engine.rootfs, "sh", "-c", "exit 7")
    assert failing.returncode == 7
    engine.ok("stop", "-t", "0", "kept")
    assert engine.inspect("kept")["State"]["ExitCode"] == 137
    assert f"Python:       {version}." in engine.ok("version")


@pytest.mark.parametrize(
    "words",
    [
        ["version", "--format", "{{.Version}}"],
        ["help"],
        ["run", "--help"],
        ["run", "--rootfs", "/nonexistent", "true"],
        ["run", "--memroy", "1g", "--rootfs", "/", "true"],
        ["ps"],
        ["rm", "nobody"],
        ["nonsense"],
        ["info", "--format", "{{.Kernel}}"],
    ],
)
def test_file_and_package_say_the_same(dropped: Engine, engine: Engine, words: list[str]) -> None:
    ours, theirs = dropped.run(*words), engine.run(*words)
    assert (ours.returncode, ours.stdout, ours.stderr) == (
        theirs.returncode,
        theirs.stdout,
        theirs.stderr,
    )


def test_containers_outlive_the_file(dropped: Engine, onefile: str) -> None:
    """The monitor imports nothing more: a deleted and then replaced file does not trouble it."""
    script = "trap 'echo stopped; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    dropped.detach("--name", "long", command=["sh", "-c", script])
    wait_until(lambda: "up" in dropped.ok("logs", "long"), "its first line")
    os.unlink(dropped.command[0])
    with pytest.raises(FileNotFoundError):
        dropped.run("ps")
    shutil.copy(onefile, dropped.command[0])
    dropped.ok("stop", "long")
    assert dropped.ok("logs", "long") == "up\nstopped\n"
    assert dropped.inspect("long")["State"]["ExitCode"] == 5


def test_a_restart_needs_no_file(dropped: Engine, onefile: str) -> None:
    dropped.detach("--name", "again", "--restart", "on-failure:2", command=["sh", "-c", "exit 3"])
    os.unlink(dropped.command[0])
    shutil.copy(onefile, dropped.command[0])
    wait_until(lambda: dropped.inspect("again")["RestartCount"] == 2, "the second restart")
    dropped.wait_for("again", "exited")
    assert dropped.inspect("again")["State"]["ExitCode"] == 3


@pytest.mark.parametrize("kind", ["dropped", "engine"])
def test_the_working_directory_may_be_deleted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = " ".join(engine.argv("run", "--rm", "--rootfs", engine.rootfs, "hostname"))
    done = subprocess.run(
        ["sh", "-c", f"cd {gone} && rmdir {gone} && exec {command}"],
        env=engine.env,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "minicontainer\n")


def test_the_working_directory_may_be_unreadable(
    onefile: str, user_engine: UserEngine, tmp_path: Path
) -> None:
    """An ordinary user in a directory that is closed to it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    public = shutil.copy(onefile, f"{user_engine.base}/drop")
    os.chmod(public, 0o755)
    user_engine.command = [public]
    command = ("run", "--rm", "--rootfs", user_engine.rootfs, "hostname")
    found = user_engine.run(*command, cwd=str(closed))
    assert (found.returncode, found.stdout) == (0, "minicontainer\n"), found.stderr
