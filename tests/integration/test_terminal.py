"""Terminals when things go wrong, and with exec, start and attach: what test_attach leaves out."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.support.runner import Engine, wait_until
from tests.support.terminal import Terminal

# Those marked `lifecycle` meet cgroups, so that they run on v2 as well.
pytestmark = pytest.mark.root

DETACH = "\x10\x11"
SHELL = ("sh", "-c", "PS1='> ' sh -i")
SIZES = ("sh", "-c", "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep .1; done")


def shell(engine: Engine, *flags: str) -> Terminal:
    """A shell in a container named c, on a terminal; its prompt has come."""
    terminal = engine.pty("run", "-it", "--name", "c", *flags, "--rootfs", engine.rootfs, *SHELL)
    terminal.expect("> ")
    wait_until(terminal.is_raw)
    return terminal


def monitor_of(engine: Engine, name: str) -> int:
    with open(f"/proc/{engine.pid(name)}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("PPid:"))


# ------------------------------------------------------------------------------- accidents


@pytest.mark.lifecycle
def test_killed_relay_leaves_the_container_running_and_attachable(engine: Engine) -> None:
    terminal = shell(engine)
    terminal.line("marker=kept")
    terminal.expect("> ")
    terminal.process.kill()
    assert terminal.wait() == -signal.SIGKILL
    assert engine.status("c") == "running"
    with engine.pty("attach", "c") as again:
        wait_until(again.is_raw)
        again.line("echo $marker")
        again.expect("kept\r\n")
        again.line("exit 6")
        assert again.wait() == 6
        assert again.is_restored()


def test_terminal_that_is_closed_hangs_up_the_command(engine: Engine) -> None:
    script = "trap 'exit 9' HUP; echo ready; while :; do sleep .1; done"
    argv = ("run", "-it", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", script)
    terminal = engine.pty(*argv)
    terminal.expect("ready")
    os.close(terminal.slave)
    os.close(terminal.master)
    terminal.slave = terminal.master = -1
    terminal.process.wait(20)
    engine.wait_for("c", "exited")
    assert engine.inspect("c")["State"]["ExitCode"] == 9


@pytest.mark.lifecycle
def test_terminal_is_restored_when_the_monitor_is_killed(engine: Engine) -> None:
    terminal = shell(engine)
    os.kill(monitor_of(engine, "c"), signal.SIGKILL)
    assert terminal.wait() == 125
    assert "lost the connection" in terminal.output
    assert terminal.is_restored()


def test_terminal_is_restored_when_the_container_is_removed(engine: Engine) -> None:
    terminal = shell(engine)
    engine.ok("rm", "-f", "c")
    assert terminal.wait() == 137
    assert terminal.is_restored()


def test_unforwarded_signal_ends_the_relay_and_not_the_container(engine: Engine) -> None:
    terminal = shell(engine, "--sig-proxy=false")
    terminal.process.terminate()
    assert terminal.wait() == -signal.SIGTERM
    assert terminal.is_restored()
    assert engine.status("c") == "running"


def test_command_that_is_not_there_leaves_the_terminal_as_it_was(engine: Engine) -> None:
    with engine.pty("run", "-it", "--rm", "--rootfs", engine.rootfs, "nowhere") as terminal:
        assert terminal.wait() == 127
        assert 'exec: "nowhere"' in terminal.output
        assert terminal.is_restored()


# ----------------------------------------------------------------- what the container sees


def test_terminal_is_the_controlling_one_of_the_command(engine: Engine) -> None:
    script = "tty; ls -l /dev/console; stat -c %t:%T /dev/console; echo through > /dev/tty; exit 3"
    with engine.pty("run", "-it", "--rm", "--rootfs", engine.rootfs, "sh", "-c", script) as it:
        it.expect(r"/dev/(pts/0|console)\r\n")
        it.expect("88:0\r\n")
        it.expect("through\r\n")
        assert it.wait() == 3


def test_output_may_be_a_pipe_while_input_is_a_terminal(engine: Engine) -> None:
    reader, writer = os.pipe()
    argv = ("run", "-it", "--rm", "--rootfs", engine.rootfs, "sh", "-c", "tty -s && echo yes")
    with engine.pty(*argv, stdout=writer) as terminal:
        os.close(writer)
        assert terminal.wait() == 0
        assert terminal.is_restored()
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"yes\r\n"


def test_interactive_without_a_terminal_leaves_ours_alone(engine: Engine) -> None:
    argv = ("run", "-i", "--rm", "--rootfs", engine.rootfs, "sh", "-c", "read x; echo got $x; tty")
    with engine.pty(*argv) as terminal:
        terminal.line("word")
        terminal.expect("got word\r\n")
        assert not terminal.is_raw()
        terminal.expect("not a tty")
        assert terminal.wait() == 1


def test_end_of_input_key_ends_an_interactive_command(engine: Engine) -> None:
    argv = ("run", "-i", "--rm", "--rootfs", engine.rootfs, "sh", "-c", "cat; echo after")
    with engine.pty(*argv) as terminal:
        terminal.line("word")
        terminal.expect("word\r\nword\r\n")
        terminal.send("\x04")
        terminal.expect("after")
        assert terminal.wait() == 0


def test_three_megabytes_pass_unchanged(engine: Engine) -> None:
    data = os.urandom(3_000_000)
    argv = ("run", "-i", "--rm", "--rootfs", engine.rootfs, "cat")
    assert engine.run(*argv, input=data, text=False).stdout == data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2])
def test_signals_are_forwarded(engine: Engine, number: signal.Signals) -> None:
    script = f"trap 'echo got; exit 7' {number.value}; echo ready; while :; do sleep .05; done"
    process = engine.popen("run", "--rm", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == b"got\n"
    assert process.returncode == 7


# ------------------------------------------------------------------------------------ exec


@pytest.mark.lifecycle
def test_exec_follows_the_window(engine: Engine) -> None:
    engine.detach("--name", "c")
    with engine.pty("exec", "-it", "c", *SIZES, rows=33, columns=99) as terminal:
        terminal.expect("33 99\r\nready")
        terminal.resize(44, 111)
        terminal.expect("44 111")
        terminal.process.terminate()
        assert terminal.wait() == 143
        assert terminal.is_restored()


def test_exec_can_be_left_by_the_detach_keys(engine: Engine) -> None:
    engine.detach("--name", "c")
    with engine.pty("exec", "-it", "--detach-keys", "ctrl-a,d", "c", "cat") as terminal:
        wait_until(terminal.is_raw)
        terminal.send("\x01d")
        assert terminal.wait() == 0
        assert terminal.is_restored()
    assert engine.status("c") == "running"


def test_exec_on_a_terminal_needs_no_input(engine: Engine) -> None:
    engine.detach("--name", "c")
    done = engine.run("exec", "-t", "c", "sh", "-c", "tty; exit 4")
    assert (done.returncode, done.stdout) == (4, "/dev/pts/0\r\n")


def test_exec_terminal_belongs_to_its_user(engine: Engine) -> None:
    engine.detach("--name", "c")
    script = "echo through > $(tty) && stat -c %u $(tty)"
    with engine.pty("exec", "-it", "-u", "app", "c", "sh", "-c", script) as terminal:
        terminal.expect("through\r\n1000\r\n")
        assert terminal.wait() == 0


# --------------------------------------------------------------------------- start, attach


def test_start_attached_on_a_terminal(engine: Engine) -> None:
    engine.ok("create", "-it", "--name", "c", "--rootfs", engine.rootfs, *SHELL)
    with engine.pty("start", "-ai", "c", rows=21, columns=71) as terminal:
        terminal.expect("> ")
        wait_until(terminal.is_raw)
        terminal.line("stty size")
        terminal.expect("21 71\r\n")
        terminal.send(DETACH)
        assert terminal.wait() == 0
        assert terminal.is_restored()
    with engine.pty("start", "-ai", "c") as again:  # it runs already: the same as attach
        wait_until(again.is_raw)
        again.line("exit 8")
        assert again.wait() == 8
        assert again.is_restored()


@pytest.mark.lifecycle
def test_two_terminals_show_one_shell(engine: Engine) -> None:
    engine.detach("-it", "--name", "c", command=SHELL)
    first, second = engine.pty("attach", "c"), engine.pty("attach", "c")
    for terminal in (first, second):
        wait_until(terminal.is_raw)
        terminal.line("")
        terminal.expect("> ")
    first.line("echo $((40 + 2))")
    for terminal in (first, second):
        terminal.expect("42\r\n")
    first.send(DETACH)
    assert first.wait() == 0
    second.line("exit 5")
    assert second.wait() == 5
    assert first.is_restored() and second.is_restored()


def test_attach_gives_the_container_the_size_of_the_terminal(engine: Engine) -> None:
    engine.detach("-it", "--name", "c", command=SIZES)
    engine.wait_for_output("c", "ready")
    with engine.pty("attach", "c", rows=27, columns=83) as terminal:
        terminal.expect("27 83")
        terminal.resize(28, 84)
        terminal.expect("28 84")


def test_attach_without_input_only_looks_on(engine: Engine) -> None:
    script = "(while :; do echo tick; sleep .1; done) & read line; echo got $line; wait"
    engine.detach("-i", "--name", "c", command=("sh", "-c", script))
    client = engine.popen("attach", "--no-stdin", "--sig-proxy=false", "c")
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(b"not for it\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"tick\n"
    writer = engine.popen("attach", "c")
    assert writer.stdin is not None
    writer.stdin.write(b"one\n")
    writer.stdin.flush()
    said = next(line for line in client.stdout if line != b"tick\n")
    assert said == b"got one\n"
    client.terminate()
    assert client.wait(20) == -signal.SIGTERM
    assert engine.status("c") == "running"


def test_end_of_an_attached_input_is_not_the_containers(engine: Engine) -> None:
    engine.detach("-i", "--name", "c", command=("cat",))
    with pytest.raises(subprocess.TimeoutExpired):
        engine.run("attach", "c", input="one\n", timeout=1.5)
    engine.wait_for_output("c", "one\n")
    assert engine.status("c") == "running"
