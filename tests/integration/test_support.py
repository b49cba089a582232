"""The tests' own footing: that a leak is seen, a terminal is one, and a user is not root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support import census
from tests.support.runner import Engine, wait_until
from tests.support.terminal import Terminal
from tests.support.users import UID, UserEngine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

pytestmark = pytest.mark.root


def test_foreground_container_leaves_nothing(engine: Engine) -> None:
    assert engine.sh("echo out; echo $((6 * 7))") == "out\n42\n"
    assert engine.containers() == []
    assert engine.leftovers() == []


@pytest.mark.lifecycle
def test_detached_container_is_seen_and_removed(engine: Engine) -> None:
    container_id = engine.detach("--name", "d")
    assert engine.containers() == [container_id]
    assert engine.status("d") == "running"
    assert os.readlink(f"/proc/{engine.pid('d')}/exe") == "/bin/sleep"
    kinds = {line.partition(":")[0] for line in engine.leftovers(0)}
    assert {"files", "processes"} <= kinds
    assert engine.close() == []


def test_census_sees_each_kind_of_leak(engine: Engine) -> None:
    os.makedirs(f"{engine.root}/containers/left")
    os.makedirs(f"{engine.root}/trash/bounded-elsewhere")
    subprocess.run(["mount", "-t", "tmpfs", "left", f"{engine.root}/containers/left"], check=True)
    stray = subprocess.Popen(["sleep", "100"], env=engine.env)
    descriptor = os.open("/etc/passwd", os.O_RDONLY)
    try:
        left = engine.leftovers(0)
        assert f"mounts: left behind: {engine.root}/containers/left tmpfs left" in left
        assert any(line.startswith("files: left behind") and "/left:" in line for line in left)
        assert f"processes: left behind: {stray.pid} sleep 100" in left
        assert "descriptors: left behind: /etc/passwd" in left
        assert not [line for line in left if "bounded" in line]
    finally:
        os.close(descriptor)
        stray.kill()
        stray.wait()
        subprocess.run(["umount", f"{engine.root}/containers/left"], check=True)
        os.rmdir(f"{engine.root}/containers/left")
    assert engine.leftovers(0) == []


@pytest.mark.cgroup
def test_census_sees_an_empty_cgroup(engine: Engine) -> None:
    mount = next(path for path in census.cgroup_mounts() if os.access(path, os.W_OK))
    group = os.path.join(mount, "minicontainer-left", "0" * 64)
    os.makedirs(group)
    try:
        assert f"cgroups: left behind: {group}" in engine.leftovers(0)
    finally:
        os.rmdir(group)
        os.rmdir(os.path.dirname(group))


def test_terminal_is_one() -> None:
    script = "trap 'stty size; exit 7' WINCH; tty; stty size; read word; echo got $word; "
    script += "while :; do sleep 0.1; done"
    with Terminal(["sh", "-c", script], rows=31, columns=97) as terminal:
        terminal.expect(r"/dev/pts/\d+")
        terminal.expect("31 97")
        terminal.line("hello")
        terminal.expect("got hello")
        terminal.resize(20, 40)
        terminal.expect("20 40")
        assert terminal.wait() == 7
        assert terminal.is_restored() and not terminal.is_raw()


def test_terminal_says_what_it_saw_instead() -> None:
    with Terminal(["sh", "-c", "echo this"]) as terminal:
        with pytest.raises(AssertionError, match="this"):
            terminal.expect("that")
        assert terminal.wait() == 0


def test_user_is_ordinary(user_engine: UserEngine) -> None:
    command = user_engine.user.argv(
        ["sh", "-c", "id -u; id -un; echo ~; grep Eff /proc/self/status"]
    )
    shown = subprocess.run(
        command, env=user_engine.env, stdout=subprocess.PIPE, text=True, check=True
    )
    assert shown.stdout.split() == [
        str(UID),
        "mctester",
        user_engine.user.home,
        "CapEff:",
        "0" * 16,
    ]
    version = user_engine.ok("version")
    assert version.startswith("minicontainer version ")


def test_user_with_subordinate_ids_has_them(make_engine: Callable[..., UserEngine]) -> None:
    user = make_engine(UserEngine, subids=True).user
    script = "unshare --user --map-auto --map-root-user cat /proc/self/uid_map"
    shown = subprocess.run(
        user.argv(["sh", "-c", script]), stdout=subprocess.PIPE, text=True, check=True
    )
    assert shown.stdout.split()[:5] == ["0", str(UID), "1", "1", "700000"]


def test_engine_that_dies_is_cleaned_away(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    engine.detach(command=["sleep", "1000"])
    for pid in engine.processes():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not engine.processes(), "the end of all processes")
    assert engine.status(engine.containers()[0]) == "exited"
    assert engine.close() == []


def test_program_under_test_is_this_checkout(engine: Engine) -> None:
    if os.environ.get("MC_BINARY"):
        return
    assert engine.command == [sys.executable, "-m", "minicontainer"]
    where = "import minicontainer; print(minicontainer.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", where],
        env=engine.env,
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    assert shown.stdout.strip() == f"{top}/minicontainer/__init__.py"
