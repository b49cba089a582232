"""What is left standing when a process of ours is killed, a pid is reused, or a command fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.support.runner import Engine, wait_until

# Those marked `lifecycle` meet cgroups, so that they run on v2 as well.
pytestmark = pytest.mark.root

SLEEP = ("sleep", "1000")


def state_of(engine: Engine, name: str) -> tuple[str, dict[str, object]]:
    """(path, contents) of state.json."""
    container_id = engine.inspect(name)["Id"]
    path = f"{engine.runroot}/containers/{container_id}/state.json"
    with open(path, encoding="utf-8") as file:
        state: dict[str, object] = json.load(file)
    return path, state


def kill_monitor(engine: Engine, name: str) -> int:
    """Kill the container's monitor; the container's own pid."""
    state = state_of(engine, name)[1]
    monitor = state["monitor_pid"]
    assert isinstance(monitor, int) and isinstance(state["pid"], int)
    os.kill(monitor, signal.SIGKILL)
    wait_until(lambda: is_gone(monitor), "the end of the monitor")
    return state["pid"]


def is_gone(pid: int) -> bool:
    """Whether no such process is alive; a zombie is not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


# ---------------------------------------------------------------------------- killed monitors


@pytest.mark.lifecycle
def test_container_without_its_monitor_runs_on_and_says_so(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    pid = kill_monitor(engine, "c")
    assert engine.pid("c") == pid
    assert engine.ok("ps", "--format", "{{.Names}} {{.State}}") == "c running\n"
    assert engine.ok("exec", "c", "echo", "inside") == "inside\n"
    engine.ok("pause", "c")
    engine.ok("unpause", "c")


@pytest.mark.lifecycle
def test_container_that_ends_unseen_is_exited_with_255(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    os.kill(kill_monitor(engine, "c"), signal.SIGKILL)
    engine.wait_for("c", "exited")
    state = engine.inspect("c")["State"]
    assert (state["Running"], state["Pid"], state["ExitCode"]) == (False, 0, 255)
    assert "monitor was killed" in state["Error"]
    assert engine.ok("ps", "-q") == ""
    assert engine.ok("wait", "c") == "255\n"


def test_wait_does_not_hang_when_the_monitor_is_killed(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    waiting = engine.popen("wait", "c")
    pid = kill_monitor(engine, "c")
    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    assert waiting.communicate(timeout=20)[0] == b"255\n"


@pytest.mark.lifecycle
@pytest.mark.parametrize("verb", [("rm", "-f"), ("stop", "-t", "0"), ("kill",)])
def test_container_without_its_monitor_can_be_ended(engine: Engine, verb: tuple[str, ...]) -> None:
    engine.detach("--name", "c", command=SLEEP)
    pid = kill_monitor(engine, "c")
    engine.ok(*verb, "c")
    wait_until(lambda: is_gone(pid), "its end")
    if verb[0] != "rm":
        engine.wait_for("c", "exited")
        engine.ok("rm", "c")
    assert engine.containers() == []
    wait_until(lambda: engine.leftovers(0) == [], "the end of every trace")


@pytest.mark.lifecycle
def test_container_that_lost_its_monitor_can_be_started_again(engine: Engine) -> None:
    engine.detach("--name", "c", "--memory", "64m", command=("sh", "-c", "echo run; sleep 1000"))
    engine.wait_for_output("c", "run")
    os.kill(kill_monitor(engine, "c"), signal.SIGKILL)
    engine.wait_for("c", "exited")
    engine.ok("start", "c")
    assert engine.status("c") == "running"
    engine.wait_for_output("c", "run\nrun\n")
    engine.ok("stop", "-t0", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 137


def test_self_removing_container_that_lost_its_monitor_is_removed_by_hand(engine: Engine) -> None:
    engine.detach("--name", "c", "--rm", command=SLEEP)
    os.kill(kill_monitor(engine, "c"), signal.SIGKILL)
    engine.wait_for("c", "exited")
    engine.ok("rm", "c")
    wait_until(lambda: engine.leftovers(0) == [], "the end of every trace")


def test_everything_killed_at_once_is_exited(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    for pid in engine.processes():
        os.kill(pid, signal.SIGKILL)
    engine.wait_for("c", "exited")
    engine.ok("rm", "c")


def test_end_is_told_once_it_is_recorded_and_not_before(engine: Engine) -> None:
    """A monitor that is slow, here stopped, makes nobody believe that it was killed."""
    engine.detach("--name", "c", command=SLEEP)
    state = state_of(engine, "c")[1]
    pid, monitor = state["pid"], state["monitor_pid"]
    assert isinstance(pid, int) and isinstance(monitor, int)
    os.kill(monitor, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), "its end")
    facts = engine.inspect("c")["State"]
    assert (facts["Status"], facts["Pid"], facts["ExitCode"]) == ("running", 0, 0)
    assert facts["Error"] == ""
    os.kill(monitor, signal.SIGCONT)
    engine.wait_for("c", "exited")
    assert engine.inspect("c")["State"]["ExitCode"] == 137


def test_first_process_killed_from_outside_is_137(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    os.kill(engine.pid("c"), signal.SIGKILL)
    engine.wait_for("c", "exited")
    assert engine.inspect("c")["State"]["ExitCode"] == 137
    assert engine.inspect("c")["State"]["Error"] == ""


# -------------------------------------------------------------------------------- reused pids


@pytest.fixture
def stranger():
    """A process that is none of ours."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    assert process.poll() is None, "the stranger was killed"
    process.kill()
    process.wait()


def forge(engine: Engine, name: str, **changes: object) -> None:
    path, state = state_of(engine, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**state, **changes}, file)


@pytest.mark.lifecycle
def test_stranger_with_the_pid_of_a_container_is_not_the_container(
    engine: Engine, stranger: subprocess.Popen[bytes]
) -> None:
    engine.detach("--name", "c", command=SLEEP)
    os.kill(kill_monitor(engine, "c"), signal.SIGKILL)
    forge(engine, "c", pid=stranger.pid)
    assert engine.status("c") == "exited"
    assert engine.pid("c") == 0
    assert "is not running" in engine.fails(1, "kill", "c")
    assert "is not running" in engine.fails(1, "exec", "c", "true")
    assert "is not running" in engine.fails(1, "top", "c")
    engine.ok("stop", "c")
    engine.ok("rm", "-f", "c")


def test_stranger_with_the_pid_of_a_monitor_is_not_waited_for(
    engine: Engine, stranger: subprocess.Popen[bytes]
) -> None:
    engine.detach("--name", "c", command=SLEEP)
    pid = kill_monitor(engine, "c")
    forge(engine, "c", monitor_pid=stranger.pid)
    began = time.monotonic()
    engine.ok("stop", "-t", "0", "c")
    assert time.monotonic() - began < 8
    assert is_gone(pid)
    engine.ok("rm", "c")


@pytest.mark.lifecycle
def test_damaged_state_is_one_line_and_can_be_removed(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    path, _ = state_of(engine, "c")
    os.kill(kill_monitor(engine, "c"), signal.SIGKILL)
    with open(path, "w") as file:
        file.write('{"pid": ')
    assert "Broken" in engine.ok("ps", "-a")
    container_id = engine.containers()[0]
    assert "is broken" in engine.fails(1, "start", container_id)
    engine.ok("rm", "-f", container_id)


# ------------------------------------------------------------------------ what run -d answers


@pytest.mark.parametrize(
    ("flags", "command", "code", "sentence"),
    [
        ((), "nowhere", 127, 'exec: "nowhere": executable file not found in $PATH'),
        ((), "/no/such", 127, "no such file or directory"),
        ((), "/etc", 126, "is a directory"),
        ((), "/etc/notexec", 126, "permission denied"),
        (("-u", "stranger"), "true", 125, "no matching entries in passwd file"),
        (("-v", "/proc/version:/etc"), "true", 125, ""),
        (("--sysctl", "kernel.shmmax=x"), "true", 125, "kernel.shmmax"),
    ],
)
def test_detached_start_that_fails_has_the_code_and_no_id(
    engine: Engine, flags: tuple[str, ...], command: str, code: int, sentence: str
) -> None:
    argv = ("run", "-d", "--name", "c", *flags, "--rootfs", engine.rootfs, command)
    done = engine.run(*argv)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr and done.stderr.startswith("Error: ")
    assert engine.processes() == {}
    state = engine.inspect("c")["State"]
    assert (state["Running"], state["Pid"]) == (False, 0)
    assert state["Error"] in done.stderr and state["Error"]
    engine.ok("rm", "c")
    assert not [line for line in engine.leftovers() if line.startswith(("cgroups", "mounts"))]


def test_failed_start_that_removes_itself_is_gone(engine: Engine) -> None:
    for flags in (("-d", "--rm"), ("--rm",)):
        engine.fails(127, "run", *flags, "--name", "c", "--rootfs", engine.rootfs, "nowhere")
        assert engine.containers() == []


def test_interpreter_that_is_missing_is_told_as_such(engine: Engine) -> None:
    script = "printf '#!/no/interpreter\\n' > /x; chmod +x /x; exec /x"
    done = engine.run("run", "--rm", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert done.returncode == 127


def test_restart_policy_does_not_repeat_a_start_that_cannot_be(engine: Engine) -> None:
    options = ("--name", "c", "--restart", "always", "--rootfs", engine.rootfs)
    engine.fails(127, "run", "-d", *options, "nowhere")
    assert engine.processes() == {}
    assert engine.inspect("c")["RestartCount"] == 0


# --------------------------------------------------------------------------------- endings


def test_detached_container_outlives_the_session_it_was_started_in(engine: Engine) -> None:
    argv = engine.argv("run", "-d", "--name", "c", "--rootfs", engine.rootfs, *SLEEP)
    shell = subprocess.Popen(
        ["sh", "-c", '"$@"; echo started; sleep 1000', "sh", *argv],
        env=engine.env,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert shell.stdout is not None
    assert [len(shell.stdout.readline()) for _ in range(2)] == [65, 8]
    os.killpg(shell.pid, signal.SIGHUP)
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    shell.stdout.close()
    monitor = state_of(engine, "c")[1]["monitor_pid"]
    assert isinstance(monitor, int)
    assert os.getsid(monitor) == monitor
    assert engine.status("c") == "running"


def test_detached_monitor_holds_nothing_of_its_callers(engine: Engine) -> None:
    """So that $(minicontainer run -d …) returns, and the directory can be unmounted."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    engine.ok(
        *("run", "-d", "--name", "c", "--rootfs", engine.rootfs, *SLEEP),
        cwd=engine.base,
        pass_fds=[writer],
    )
    os.close(writer)
    assert os.read(reader, 1) == b"", "somebody still has the caller's descriptor"
    os.close(reader)
    monitor = state_of(engine, "c")[1]["monitor_pid"]
    assert os.readlink(f"/proc/{monitor}/cwd") == "/"
    assert {os.readlink(f"/proc/{monitor}/fd/{number}") for number in (0, 1, 2)} == {"/dev/null"}


def test_renamed_container_that_removes_itself_gives_its_name_back(engine: Engine) -> None:
    engine.detach("--name", "old", "--rm", command=SLEEP)
    engine.ok("rename", "old", "new")
    engine.ok("stop", "-t", "0", "new")
    wait_until(lambda: os.listdir(f"{engine.root}/names") == [], "the end of the name")


@pytest.mark.lifecycle
def test_interrupted_start_leaves_nothing_that_cannot_be_removed(engine: Engine) -> None:
    """The command is killed at moments all over its short life."""
    engine.ok("create", "--rootfs", engine.rootfs, "true")  # the layout of the state is there
    for step in range(8):
        process = engine.popen("run", "-d", "--name", f"c{step}", "--rootfs", engine.rootfs, *SLEEP)
        time.sleep(0.015 * step + 0.02)
        process.kill()
        process.wait()
    time.sleep(0.5)
    for status in engine.ok("ps", "-a", "--format", "{{.State}}").split():
        assert status in ("running", "created", "exited")
    engine.ok("rm", "--all", "--force")
    engine.ok("prune", "--force")
    engine.close_streams()
    assert engine.containers() == []
    wait_until(lambda: engine.leftovers(0) == [], "the end of every trace")
