"""The standard streams of a foreground container: bytes, ends, broken pipes, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.support.runner import Engine, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lifecycle]

EVERY_BYTE = bytes(range(256)) * 1000


def shell(engine: Engine, pipeline: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pipeline` in bash, in which "$@" is our command with these arguments."""
    return subprocess.run(
        ["bash", "-c", pipeline, "bash", *engine.argv(*arguments)],
        env=engine.env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run(engine: Engine, *words: str) -> list[str]:
    """Arguments of a `run --rm`; flags before "--", the command after it."""
    at = words.index("--")
    return ["run", "--rm", *words[:at], "--rootfs", engine.rootfs, *words[at + 1 :]]


def test_stdout_and_stderr_stay_apart(engine: Engine) -> None:
    done = engine.run(*run(engine, "--", "sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_interactive_passes_every_byte_and_the_end(engine: Engine) -> None:
    done = engine.run(*run(engine, "-i", "--", "cat"), input=EVERY_BYTE, text=False)
    assert (done.returncode, done.stdout) == (0, EVERY_BYTE)


def test_without_interactive_stdin_is_empty(engine: Engine) -> None:
    assert engine.run(*run(engine, "--", "cat"), input="never read").stdout == ""


def test_end_of_stdin_leaves_stdout_open(engine: Engine) -> None:
    command = ("sh", "-c", "cat >/dev/null; echo after")
    assert engine.ok(*run(engine, "-i", "--", *command), input="x") == "after\n"


def test_reader_that_leaves_ends_an_endless_writer(engine: Engine) -> None:
    """In a shell, for pid 1 of a namespace has no default for SIGPIPE."""
    done = shell(
        engine,
        '"$@" | head -1; echo ${PIPESTATUS[*]}',
        *run(engine, "--", "sh", "-c", "yes; exit 5"),
    )
    assert done.stdout == "y\n5 0\n"


def test_command_that_leaves_ends_an_endless_feeder(engine: Engine) -> None:
    done = shell(
        engine,
        'yes | "$@"; echo ${PIPESTATUS[*]}',
        *run(engine, "-i", "--", "head", "-n", "1"),
    )
    assert done.stdout == "y\n141 0\n"


def test_large_output_is_complete_through_a_slow_reader(engine: Engine) -> None:
    process = engine.popen(*run(engine, "--", "head", "-c", "3000000", "/dev/zero"))
    assert process.stdout is not None
    time.sleep(0.5)
    assert len(process.stdout.read()) == 3_000_000
    assert process.wait(timeout=10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, 40])
def test_signals_are_forwarded(engine: Engine, number: int) -> None:
    script = f"trap 'echo got; exit 7' {int(number)}; echo ready; while :; do sleep .1; done"
    process = engine.popen(*run(engine, "--", "sh", "-c", script))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == b"got\n"
    assert process.returncode == 7


def test_without_sig_proxy_the_signal_is_ours_alone(engine: Engine) -> None:
    flags = ["run", "--name", "c", "--sig-proxy=false", "--rootfs", engine.rootfs]
    process = engine.popen(*flags, "sh", "-c", "echo ready; sleep 100")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT
    assert engine.status("c") == "running"
    engine.ok("stop", "-t", "0", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 137


def test_orphans_of_the_container_leave_no_zombie(engine: Engine) -> None:
    """With the host's pid namespace they become children of the monitor."""
    script = "for i in $(seq 50); do (sh -c true &); done; echo made; sleep 2"
    process = engine.popen(*run(engine, "--pid", "host", "--", "sh", "-c", script))
    assert process.stdout is not None
    assert process.stdout.readline() == b"made\n"

    def only_the_container() -> bool:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return len(file.read().split()) == 1

    wait_until(only_the_container)
    process.kill()


def test_killed_foreground_leaves_a_container_that_can_be_removed(engine: Engine) -> None:
    process = engine.popen(
        "run", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", "echo ready; sleep 100"
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    assert engine.status("c") == "running"
    engine.ok("rm", "-f", "c")


def test_monitor_of_a_detached_container_outlives_its_terminal(engine: Engine) -> None:
    with engine.pty("run", "-d", "--name", "c", "--rootfs", engine.rootfs, "sleep", "100") as tty:
        assert tty.wait() == 0
    time.sleep(0.2)
    assert engine.status("c") == "running"


def test_term_of_the_monitor_stops_the_container_for_good(engine: Engine) -> None:
    script = "trap 'exit 9' TERM; while :; do sleep .1; done"
    engine.detach("--name", "c", "--restart", "always", command=("sh", "-c", script))
    first = engine.pid("c")
    with open(f"/proc/{first}/status") as file:
        parent = next(int(line.split()[1]) for line in file if line.startswith("PPid:"))
    time.sleep(0.3)
    os.kill(parent, signal.SIGTERM)
    engine.wait_for("c", "exited")
    assert engine.inspect("c")["State"]["ExitCode"] == 9
    assert engine.inspect("c")["RestartCount"] == 0
