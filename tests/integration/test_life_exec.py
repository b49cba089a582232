"""exec: a further command in a running container, as confined as the first."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.support import inside
from tests.support.runner import Engine, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

# Those marked `lifecycle` meet cgroups, so that they run on v2 as well.
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def running(shared_engine: Engine) -> Iterator[Engine]:
    """A container `c` that sleeps; its variable A is 1, its working directory /tmp."""
    shared_engine.detach("--name", "c", "-e", "A=1", "-w", "/tmp", "--hostname", "inner")
    yield shared_engine
    shared_engine.ok("rm", "-f", "c")


# ---------------------------------------------------------------------------------- streams


@pytest.mark.lifecycle
def test_output_and_exit_code_are_the_commands(running: Engine) -> None:
    done = running.run("exec", "c", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")


def test_death_by_signal_is_128_and_its_number(running: Engine) -> None:
    assert running.run("exec", "c", "sh", "-c", "kill -TERM $$").returncode == 143


def test_input_is_empty_unless_interactive(running: Engine) -> None:
    assert running.ok("exec", "c", "cat", input="never read") == ""
    assert running.ok("exec", "-i", "c", "cat", input="read") == "read"


@pytest.mark.lifecycle
def test_every_byte_passes_both_ways(running: Engine) -> None:
    data = os.urandom(3_000_000)
    done = running.run("exec", "-i", "c", "cat", input=data, text=False)
    assert done.stdout == data


def test_end_of_input_reaches_the_command_alone(running: Engine) -> None:
    script = "cat > /dev/null; echo after"
    assert running.ok("exec", "-i", "c", "sh", "-c", script, input="x") == "after\n"


def test_reader_that_leaves_ends_the_command(running: Engine) -> None:
    argv = running.argv("exec", "c", "yes")
    told = subprocess.run(
        ["bash", "-c", '"$@" | head -1; echo ${PIPESTATUS[0]}', "bash", *argv],
        env=running.env,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert told.stdout == b"y\n141\n"
    assert told.stderr == b""


def test_endless_feeder_ends_with_the_command(running: Engine) -> None:
    argv = running.argv("exec", "-i", "c", "head", "-1")
    told = subprocess.run(
        ["bash", "-c", 'yes | "$@"; echo ${PIPESTATUS[*]}', "bash", *argv],
        env=running.env,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert told.stdout == b"y\n141 0\n"


def test_output_of_exec_is_not_in_the_log(running: Engine) -> None:
    running.ok("exec", "c", "echo", "not for the log")
    assert running.ok("logs", "c") == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_go_to_the_command(running: Engine, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 5' {number.value}; echo ready; while :; do sleep 0.05; done"
    process = running.popen("exec", "c", "sh", "-c", script)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (5, b"got\n")
    assert running.status("c") == "running"


# ------------------------------------------------------------------------------- the process


@pytest.mark.lifecycle
def test_it_is_in_all_namespaces_of_the_container(running: Engine) -> None:
    script = "for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done"
    told = running.ok("exec", "c", "sh", "-c", script).split()
    assert told == list(inside.namespaces_of(running.pid("c")).values())
    assert not set(told) & set(inside.namespaces_of("self").values())
    assert running.ok("exec", "c", "hostname") == "inner\n"


@pytest.mark.lifecycle
def test_it_has_the_capabilities_of_the_container_and_no_more(running: Engine) -> None:
    its = inside.status(running.ok("exec", "c", "cat", "/proc/self/status"))
    first = inside.status_of(running.pid("c"))
    assert inside.capabilities(its) == inside.capabilities(first)
    assert inside.capabilities(its)["CapEff"] == inside.DEFAULT_CAPABILITIES
    for name in ("NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "SigBlk", "SigIgn"):
        assert its[name] == first[name], name


def test_privileged_has_them_all(running: Engine) -> None:
    its = inside.status(running.ok("exec", "--privileged", "c", "cat", "/proc/self/status"))
    ours = inside.status_of(os.getpid())
    assert inside.capabilities(its)["CapEff"] == inside.capabilities(ours)["CapBnd"]


def test_it_is_no_child_of_the_first_process(running: Engine) -> None:
    assert running.ok("exec", "c", "sh", "-c", "cut -d' ' -f4 /proc/self/stat") == "0\n"


def test_it_has_the_containers_environment_and_what_is_added(running: Engine) -> None:
    told = running.ok("exec", "-e", "B=2", "-e", "A=3", "c", "env").splitlines()
    assert {"A=3", "B=2", "HOSTNAME=inner", "HOME=/root"} <= set(told)
    assert running.ok("exec", "-e", "A", "c", "sh", "-c", "echo ${A-unset}") == "unset\n"
    assert "A=1" in running.ok("exec", "c", "env").splitlines()


def test_environment_can_come_from_a_file(running: Engine) -> None:
    path = f"{running.base}/variables"
    with open(path, "w") as file:
        file.write("# comment\nX=from file\n")
    assert running.ok("exec", "--env-file", path, "c", "sh", "-c", "echo $X") == "from file\n"
    os.unlink(path)


def test_working_directory_is_the_containers_unless_told(running: Engine) -> None:
    assert running.ok("exec", "c", "pwd") == "/tmp\n"
    assert running.ok("exec", "-w", "/etc", "c", "pwd") == "/etc\n"


def test_user_is_looked_up_in_the_container(running: Engine) -> None:
    assert running.ok("exec", "-u", "app", "c", "id", "-un") == "app\n"
    assert running.ok("exec", "-u", "app:video", "c", "id", "-g") == "44\n"
    assert running.ok("exec", "-u", "4000:77", "c", "sh", "-c", "id -u; id -g") == "4000\n77\n"
    assert (
        running.ok("exec", "-u", "app", "c", "sh", "-c", "echo ~ $HOME").split()[1] == "/home/app"
    )


def test_another_user_has_no_capabilities(running: Engine) -> None:
    its = inside.status(running.ok("exec", "-u", "app", "c", "cat", "/proc/self/status"))
    assert inside.capabilities(its)["CapEff"] == 0


def test_no_descriptor_of_ours_is_left_open(running: Engine) -> None:
    told = running.ok("exec", "c", "sh", "-c", "ls /proc/self/fd").split()
    assert told == ["0", "1", "2", "3"]  # the last is the listing's own


# ------------------------------------------------------------------------------------ errors


@pytest.mark.lifecycle
def test_command_that_is_not_there_is_127(running: Engine) -> None:
    assert 'exec: "nowhere"' in running.fails(127, "exec", "c", "nowhere")
    assert "no such file" in running.fails(127, "exec", "c", "/no/where")
    running.fails(127, "exec", "-d", "c", "nowhere")


@pytest.mark.parametrize("command", ["/etc", "/etc/notexec", "/etc/passwd/x"])
def test_command_that_cannot_be_run_is_126(running: Engine, command: str) -> None:
    code = 127 if command.endswith("/x") else 126
    assert f'exec: "{command}"' in running.fails(code, "exec", "c", command)


def test_unknown_user_is_126(running: Engine) -> None:
    message = running.fails(126, "exec", "-u", "nobody-here", "c", "true")
    assert "no matching entries in passwd file" in message


def test_stopped_container_is_an_error(running: Engine) -> None:
    running.ok("create", "--name", "never", "--rootfs", running.rootfs, "true")
    assert "is not running" in running.fails(1, "exec", "never", "true")
    running.ok("rm", "never")


def test_command_and_container_are_needed(running: Engine) -> None:
    running.fails(1, "exec", "c")
    assert "No such container" in running.fails(1, "exec", "nobody", "true")


def test_terminal_that_is_none_is_refused(running: Engine) -> None:
    assert "the input device is not a TTY" in running.fails(1, "exec", "-it", "c", "true")


def test_flags_after_the_container_belong_to_the_command(running: Engine) -> None:
    assert running.ok("exec", "c", "echo", "-i", "--user", "x") == "-i --user x\n"


# ---------------------------------------------------------------------- its own container


@pytest.mark.lifecycle
def test_paused_container_is_an_error(engine: Engine) -> None:
    engine.detach("--name", "c")
    engine.ok("pause", "c")
    assert "Container c is paused" in engine.fails(1, "exec", "c", "true")


def test_detached_command_runs_on_without_us(engine: Engine) -> None:
    engine.detach("--name", "c")
    began = time.monotonic()
    script = "sleep 0.5; echo done > /proof"
    assert engine.ok("exec", "-d", "c", "sh", "-c", script) == ""
    assert time.monotonic() - began < 5
    wait_until(lambda: engine.run("exec", "c", "cat", "/proof").stdout == "done\n", "the proof")


def test_detached_command_is_reaped_by_a_process_of_ours(engine: Engine) -> None:
    """Where the host's init reaps nothing, the container could not end otherwise."""
    engine.detach("--name", "c")
    engine.ok("exec", "-d", "c", "sleep", "1001")
    lines = engine.ok("top", "c").splitlines()[1:]
    parent = next(line.split()[2] for line in lines if "sleep 1001" in line)
    assert "exec -d c" in engine.processes()[int(parent)]
    engine.ok("stop", "-t", "0", "c")
    wait_until(lambda: engine.processes() == {}, "the end of all processes")


def test_detached_command_keeps_its_terminal(engine: Engine) -> None:
    engine.detach("--name", "c")
    script = "sleep 0.3; head -c 300000 /dev/zero; tty > /proof"
    engine.ok("exec", "-dt", "c", "sh", "-c", script)
    wait_until(lambda: engine.run("exec", "c", "cat", "/proof").stdout == "/dev/pts/0\n", "proof")


@pytest.mark.lifecycle
def test_command_ends_with_the_container(engine: Engine) -> None:
    engine.detach("--name", "c")
    process = engine.popen("exec", "c", "sh", "-c", "echo in; sleep 1000; echo never")
    assert process.stdout is not None and process.stdout.readline() == b"in\n"
    engine.ok("kill", "c")
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (137, b"")


def test_confinement_of_the_container_holds_for_exec(engine: Engine) -> None:
    engine.detach(
        "--name", "c", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--read-only", "-u", "app"
    )
    its = inside.status(engine.ok("exec", "-u", "0", "c", "cat", "/proc/self/status"))
    assert inside.capabilities(its)["CapBnd"] == inside.capabilities(its)["CapEff"] == 1
    assert engine.ok("exec", "c", "id", "-u") == "1000\n"
    assert "Read-only" in engine.run("exec", "-u", "0", "c", "touch", "/x").stderr


def test_killed_client_takes_nothing_but_its_own_command(engine: Engine) -> None:
    engine.detach("--name", "c")
    process = engine.popen("exec", "-i", "c", "cat")
    wait_until(lambda: "cat" in engine.ok("top", "c"), "the command")
    process.kill()
    process.wait()
    wait_until(lambda: "cat" not in engine.ok("top", "c"), "its end, as its input has ended")
    assert engine.status("c") == "running"


def test_many_at_once(engine: Engine) -> None:
    engine.detach("--name", "c")
    many = [engine.popen("exec", "c", "echo", str(number)) for number in range(10)]
    told = [process.communicate(timeout=50)[0] for process in many]
    assert told == [f"{number}\n".encode() for number in range(10)]
