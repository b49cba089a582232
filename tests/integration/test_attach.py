"""Terminals of real containers: run -it, detach keys, attach, exec -it, start -a."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.runner import Engine, wait_until
from tests.support.terminal import Terminal

pytestmark = pytest.mark.root

DETACH = "\x10\x11"


def shell(engine: Engine, *flags: str) -> Terminal:
    """A shell in a container named c, on a terminal; its prompt has come."""
    terminal = engine.pty(
        "run", "-it", "--name", "c", *flags, "--rootfs", engine.rootfs, "sh", "-c", "PS1='> ' sh -i"
    )
    terminal.expect("> ")
    wait_until(terminal.is_raw)
    return terminal


def test_shell_on_a_terminal_works_and_gives_its_code(engine: Engine) -> None:
    terminal = shell(engine)
    terminal.line("tty; echo $((6 * 7)) $TERM")
    terminal.expect(r"/dev/(pts/0|console)\r\n42 xterm")
    terminal.line("exit 23")
    assert terminal.wait() == 23
    assert terminal.is_restored()
    assert engine.inspect("c")["State"]["ExitCode"] == 23


def test_window_size_is_there_at_the_start_and_follows(engine: Engine) -> None:
    # The trap first: what is printed says that it is set.
    script = "trap 'stty size' WINCH; stty size; while :; do sleep .1; done"
    flags = ("run", "-it", "--rm", "--rootfs", engine.rootfs)
    terminal = engine.pty(*flags, "sh", "-c", script, rows=37, columns=111)
    terminal.expect(r"\A37 111\r\n")
    terminal.resize(50, 132)
    terminal.expect("50 132")
    terminal.close()


def test_interrupt_key_goes_to_the_foreground_of_the_container(engine: Engine) -> None:
    terminal = shell(engine, "--rm")
    terminal.line("trap 'echo trapped' INT; sleep 50; echo after")
    time.sleep(0.3)
    terminal.send("\x03")
    terminal.expect("trapped")
    terminal.line("exit 0")
    assert terminal.wait() == 0


def test_detached_container_runs_on_and_can_be_attached_again(engine: Engine) -> None:
    terminal = shell(engine)
    terminal.line("marker=here")
    terminal.expect("> ")
    terminal.send(DETACH)
    assert terminal.wait() == 0
    assert terminal.is_restored()
    assert engine.status("c") == "running"
    again = engine.pty("attach", "c")
    wait_until(again.is_raw)
    again.line("echo $marker")
    again.expect("here\r\n")
    again.line("exit 4")
    assert again.wait() == 4
    assert again.is_restored()


def test_detach_keys_can_be_chosen(engine: Engine) -> None:
    terminal = shell(engine, "--detach-keys", "ctrl-a,x")
    terminal.send(DETACH)
    terminal.line("echo still")
    terminal.expect("still\r\n")
    terminal.send("\x01x")
    assert terminal.wait() == 0
    assert engine.status("c") == "running"


def test_wrong_detach_keys_are_refused_before_anything_starts(engine: Engine) -> None:
    flags = ("run", "-it", "--detach-keys", "ctrl-1", "--rootfs", engine.rootfs, "true")
    with engine.pty(*flags) as terminal:
        assert terminal.wait() == 125
        assert terminal.is_restored()
        assert "detach" in terminal.output
    assert engine.containers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_terminal_is_restored_after_a_signal(engine: Engine, number: int) -> None:
    script = f"trap 'exit 9' {int(number)}; echo ready; while :; do sleep .1; done"
    flags = ("run", "-it", "--name", "c", "--rootfs", engine.rootfs)
    terminal = engine.pty(*flags, "sh", "-c", script)
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.process.send_signal(number)
    terminal.wait()
    assert terminal.is_restored()
    engine.wait_for("c", "exited")
    assert engine.inspect("c")["State"]["ExitCode"] == 9


def test_terminal_is_restored_when_the_command_is_killed(engine: Engine) -> None:
    terminal = shell(engine)
    engine.ok("kill", "c")
    assert terminal.wait() == 137
    assert terminal.is_restored()


def test_removal_is_done_when_a_terminal_run_returns(engine: Engine) -> None:
    flags = ("run", "-it", "--rm", "--rootfs", engine.rootfs)
    terminal = engine.pty(*flags, "true")
    assert terminal.wait() == 0
    assert engine.containers() == []


def test_input_that_is_no_terminal_is_refused(engine: Engine) -> None:
    error = engine.fails(1, "run", "-it", "--rootfs", engine.rootfs, "true")
    assert "the input device is not a TTY" in error
    assert engine.containers() == []


def test_terminal_without_input_works_anywhere(engine: Engine) -> None:
    done = engine.run("run", "-t", "--rm", "--rootfs", engine.rootfs, "sh", "-c", "tty; exit 5")
    assert done.returncode == 5
    assert done.stdout.startswith("/dev/")
    assert done.stdout.endswith("\r\n")


def test_detached_terminal_container_waits_for_attach(engine: Engine) -> None:
    engine.detach("-it", "--name", "c", command=("sh", "-c", "PS1='> ' sh -i"))
    terminal = engine.pty("attach", "c")
    terminal.line("echo $((40 + 2))")
    terminal.expect("42\r\n")
    terminal.line("exit 3")
    assert terminal.wait() == 3


def test_attach_without_terminal_gives_output_and_code(engine: Engine) -> None:
    engine.detach("-i", "--name", "c", command=("sh", "-c", "read line; echo got $line; exit 6"))
    done = engine.run("attach", "c", input="hello\n")
    assert (done.returncode, done.stdout) == (6, "got hello\n")


def test_attach_forwards_signals(engine: Engine) -> None:
    script = "trap 'exit 8' TERM; while :; do echo tick; sleep .1; done"
    engine.detach("--name", "c", command=("sh", "-c", script))
    client = engine.popen("attach", "c")
    assert client.stdout is not None
    client.stdout.readline()
    client.terminate()
    assert client.wait(timeout=10) == 8


def test_attach_to_a_stopped_container_is_refused(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "true")
    assert "is not running" in engine.fails(1, "attach", "c")


def test_attach_without_a_monitor_says_so(engine: Engine) -> None:
    engine.detach("--name", "c")
    with open(f"/proc/{engine.pid('c')}/status") as file:
        parent = next(int(line.split()[1]) for line in file if line.startswith("PPid:"))
    os.kill(parent, signal.SIGKILL)
    time.sleep(0.1)
    assert "monitor" in engine.fails(1, "attach", "c")


def test_two_clients_see_the_same(engine: Engine) -> None:
    engine.detach("-i", "--name", "c", command=("cat",))
    clients = [engine.popen("attach", "c") for _ in range(2)]
    time.sleep(0.5)
    first = clients[0]
    assert first.stdin is not None
    first.stdin.write(b"hello\n")
    first.stdin.flush()
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == b"hello\n"


def test_attach_socket_is_for_the_owner_alone(engine: Engine) -> None:
    container_id = engine.detach()
    directory = os.path.join(engine.runroot, "containers", container_id)
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(directory, "attach")).st_mode & 0o777 == 0o600


def test_start_attached_shows_output_and_gives_the_code(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", "echo hi; exit 7")
    done = engine.run("start", "-a", "c")
    assert (done.returncode, done.stdout) == (7, "hi\n")


def test_start_attached_with_input(engine: Engine) -> None:
    engine.ok("create", "-i", "--name", "c", "--rootfs", engine.rootfs, "cat")
    assert engine.ok("start", "-ai", "c", input="hello") == "hello"


def test_exec_on_a_terminal(engine: Engine) -> None:
    engine.detach("--name", "c")
    script = "stty size; tty -s && echo yes; read x; exit $x"
    terminal = engine.pty("exec", "-it", "c", "sh", "-c", script)
    terminal.expect("24 80\r\nyes")
    wait_until(terminal.is_raw)
    terminal.line("11")
    assert terminal.wait() == 11
    assert terminal.is_restored()


def test_exec_streams_stay_apart_and_binary(engine: Engine) -> None:
    engine.detach("--name", "c")
    data = bytes(range(256)) * 500
    done = engine.run(
        "exec", "-i", "c", "sh", "-c", "cat; echo err >&2; exit 3", input=data, text=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, data, b"err\n")


def test_exec_forwards_interrupt(engine: Engine) -> None:
    engine.detach("--name", "c")
    script = "trap 'echo got; exit 5' INT; echo ready; while :; do sleep .1; done"
    process = engine.popen("exec", "c", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0] == b"got\n"
    assert process.returncode == 5
