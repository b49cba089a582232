"""Relay, attach and pump on real terminals, pipes and sockets; a shell in place of a container."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from minicontainer.engine import frames
from tests.support import supervised
from tests.support.runner import TOP, wait_until
from tests.support.supervision import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

ECHO = "stty raw -echo; echo ready; cat -v"
TERMINAL_MODES = ["relayed", "pump"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.close()


@pytest.fixture
def listening(run: Run) -> str:
    """The settings' attach_path, and where `attach.attach` looks for it."""
    directory = run.base / "containers" / supervised.Container.id
    directory.mkdir(parents=True)
    return str(directory / "attach")


# ------------------------------------------------------------------------- a terminal


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_terminal_is_raw_meanwhile_and_restored_after(run: Run, mode: str) -> None:
    terminal = run.on_terminal(mode, "echo ready; read line; echo got $line; exit 5")
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.line("hello")
    terminal.expect("got hello")
    assert terminal.wait() == 5
    assert terminal.is_restored()


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_control_characters_go_to_the_command(run: Run, mode: str) -> None:
    terminal = run.on_terminal(mode, ECHO)
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.send("\x03\x1a\x1c\x04\x13\x11")
    terminal.expect(r"\^C\^Z\^\\\^D\^S\^Q")


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_window_size_is_set_and_followed(run: Run, mode: str) -> None:
    terminal = run.on_terminal(
        mode, "trap 'stty size' WINCH; sleep .5; stty size; while :; do sleep .1; done"
    )
    terminal.expect("24 80")
    terminal.resize(50, 132)
    terminal.expect("50 132")


@pytest.mark.parametrize("mode", TERMINAL_MODES)
@pytest.mark.parametrize(
    ("keys", "typed"),
    [(None, "\x10\x11"), ("ctrl-a,b", "\x01b"), ("q", "q")],
    ids=["default", "two", "one"],
)
def test_detach_keys_leave_and_restore(run: Run, mode: str, keys: str | None, typed: str) -> None:
    terminal = run.on_terminal(mode, ECHO, detach_keys=keys)
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.send("x")
    terminal.expect("x")
    for key in typed:
        terminal.send(key)
    assert terminal.wait() == supervised.DETACHED
    assert terminal.is_restored()


def test_command_runs_on_after_detaching(run: Run) -> None:
    file = run.base / "alive"
    terminal = run.on_terminal("relayed", f"echo ready; sleep 1; echo more; touch {file}; exit 4")
    terminal.expect("ready")
    terminal.send("\x10\x11")
    assert terminal.wait() == supervised.DETACHED
    assert run.wait_for("ended") == [[4]]
    assert file.exists()
    assert "more" in run.logged()


def test_empty_detach_keys_detach_never(run: Run) -> None:
    terminal = run.on_terminal("relayed", ECHO, detach_keys="")
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.send("\x10\x11")
    terminal.expect(r"\^P\^Q")


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_terminal_is_restored_after_term(run: Run, mode: str) -> None:
    """Forwarded, as each signal is; the end is the command's."""
    terminal = run.on_terminal(mode, "trap 'exit 9' TERM; echo ready; while :; do sleep .1; done")
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.process.terminate()
    assert terminal.wait() == 9
    assert terminal.is_restored()


def test_unforwarded_term_ends_the_relay_with_the_terminal_restored(run: Run) -> None:
    terminal = run.on_terminal("relayed", "echo ready; sleep 30", forward=False)
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.process.terminate()
    assert terminal.wait() == -signal.SIGTERM
    assert terminal.is_restored()
    ((pid,),) = run.facts("launch")
    os.kill(pid, 0)


def test_terminal_is_restored_when_the_monitor_dies(run: Run) -> None:
    terminal = run.on_terminal("relayed", "echo ready; sleep 30")
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    os.kill(run.facts("monitor")[0][0], signal.SIGKILL)
    assert terminal.wait() == supervised.ERROR
    assert terminal.is_restored()
    assert "lost the connection" in run.facts("error")[0][0]


def test_hangup_reaches_the_command_and_ends_the_relay(run: Run) -> None:
    file = run.base / "hup"
    command = f"trap 'touch {file}; exit 8' HUP; echo ready; while :; do sleep .1; done"
    terminal = run.on_terminal("relayed", command)
    terminal.expect("ready")
    terminal.process.send_signal(signal.SIGHUP)
    assert terminal.wait() in (8, -signal.SIGHUP)
    wait_until(file.exists)
    assert terminal.is_restored()


def test_stopped_relay_continues_raw(run: Run) -> None:
    terminal = run.on_terminal("relayed", ECHO)
    terminal.expect("ready")
    wait_until(terminal.is_raw)
    terminal.process.send_signal(signal.SIGSTOP)
    termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)
    terminal.resize(33, 99)
    terminal.process.send_signal(signal.SIGCONT)
    wait_until(terminal.is_raw)
    terminal.send("\x03")
    terminal.expect(r"\^C")


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_terminal_output_is_complete(run: Run, mode: str) -> None:
    terminal = run.on_terminal(mode, "seq 20000; exit 3")
    assert terminal.wait() == 3
    assert terminal.output == "".join(f"{number}\r\n" for number in range(1, 20001))


@pytest.mark.parametrize("mode", TERMINAL_MODES)
def test_terminal_that_nobody_has_open_is_waited_for(run: Run, mode: str) -> None:
    """pid 1 of a container may close its console and open it again, as systemd does."""
    terminal = run.on_terminal(
        mode, "tty=$(tty); exec <&- >&- 2>&-; sleep .5; exec <$tty >$tty; echo again"
    )
    assert terminal.wait() == 0
    assert terminal.output == "again\r\n"


def test_restarted_command_has_the_size(run: Run) -> None:
    terminal = run.on_terminal(
        "relayed",
        "sleep .3; stty size; exit 1",
        policy={"name": "on-failure", "maximum": 1},
    )
    terminal.resize(30, 90)
    assert terminal.wait() == 1
    assert terminal.output.endswith("30 90\r\n30 90\r\n")


def test_terminal_without_input_keeps_its_modes(run: Run) -> None:
    terminal = run.on_terminal("relayed", "echo ready; exec sleep 30", stdin=False)
    terminal.expect("ready")
    assert terminal.is_restored()
    terminal.send("\x03")
    assert terminal.wait() == 130


# ----------------------------------------------------------------------- no terminal


@pytest.mark.parametrize("mode", ["relayed", "pump"])
def test_pipes_pass_every_byte_and_stay_apart(run: Run, mode: str) -> None:
    data = bytes(range(256)) * 2000 + b"\x10\x11"
    code, out, error = run.run(mode, "cat; echo err >&2; exit 3", input=data, stdin=True)
    assert (code, out, error) == (3, data, b"err\n")


@pytest.mark.parametrize("mode", ["relayed", "pump"])
def test_terminal_wanted_where_there_is_none(run: Run, mode: str) -> None:
    code, out, _ = run.run(mode, "tty -s && echo yes", tty=True)
    assert (code, out) == (0, b"yes\r\n")


def test_exec_into_head_ends(run: Run) -> None:
    process = run.start("pump", "yes; echo status $? >&2")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=10) == 0
    assert process.stderr.read() == b"status 141\n"


def test_endless_feeder_of_exec_ends(run: Run) -> None:
    shell = " ".join(f"'{word}'" for word in run.argv("pump", "head -1", stdin=True))
    done = subprocess.run(
        ["bash", "-c", f"yes | {shell}; echo ${{PIPESTATUS[*]}}"],
        cwd=TOP,
        capture_output=True,
        timeout=30,
    )
    assert done.stdout == b"y\n141 0\n"


def test_relay_whose_reader_left_ends_by_sigpipe(run: Run) -> None:
    process = run.start("relayed", "yes")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=10) == -signal.SIGPIPE
    ((pid,),) = run.facts("launch")
    os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_exec_forwards(run: Run, number: int) -> None:
    command = f"trap 'echo got; exit 3' {int(number)}; echo ready; while :; do sleep .1; done"
    process = run.start("pump", command)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == b"got\n"
    assert process.returncode == 3


def test_failed_restart_is_the_relays_error(run: Run) -> None:
    policy = {"name": "always", "maximum": 0}
    assert run.run("relayed", "exit 1", policy=policy, fails_at=2)[0] == supervised.ERROR
    assert run.facts("error") == [["no such command", 127]]


# ----------------------------------------------------------------------------- attach


def test_attach_shows_output_and_gives_the_exit_code(run: Run, listening: str) -> None:
    run.start("detached", "read line; echo got $line; exit 6", stdin=True, attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    client = run.start("attach", base=str(run.base), stdin=True)
    assert client.communicate(b"hello\n", timeout=10) == (b"got hello\n", b"")
    assert client.returncode == 6
    wait_until(lambda: not os.path.exists(listening))


def test_end_of_an_attached_input_is_not_the_containers(run: Run, listening: str) -> None:
    run.start("detached", "cat; echo end", stdin=True, attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    first = run.start("attach", base=str(run.base), stdin=True)
    assert first.stdin is not None and first.stdout is not None
    first.stdin.write(b"one\n")
    first.stdin.close()
    assert first.stdout.readline() == b"one\n"
    second = run.start("attach", base=str(run.base), stdin=True)
    assert second.stdin is not None
    second.stdin.write(b"two\n")
    second.stdin.flush()
    assert first.stdout.readline() == b"two\n"


def test_attach_forwards_signals(run: Run, listening: str) -> None:
    command = "trap 'exit 3' INT; while :; do echo tick; sleep .1; done"
    run.start("detached", command, attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    client = run.start("attach", base=str(run.base))
    assert client.stdout is not None
    client.stdout.readline()
    client.send_signal(signal.SIGINT)
    assert client.wait(timeout=10) == 3


def test_attach_without_proxy_dies_of_its_signal(run: Run, listening: str) -> None:
    run.start("detached", "while :; do echo tick; sleep .1; done", attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    client = run.start("attach", base=str(run.base), sig_proxy=False)
    assert client.stdout is not None
    client.stdout.readline()
    client.send_signal(signal.SIGINT)
    assert client.wait(timeout=10) == -signal.SIGINT
    assert run.facts("finished") == []


def test_attached_clients_stay_through_a_restart(run: Run, listening: str) -> None:
    policy = {"name": "on-failure", "maximum": 2}
    run.start("detached", "sleep .4; echo run; exit 1", policy=policy, attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    client = run.start("attach", base=str(run.base))
    assert client.communicate(timeout=10)[0] == b"run\n" * 3
    assert client.returncode == 1


def test_attach_draws_the_screen_again(run: Run, listening: str) -> None:
    command = "trap 'echo drawn $(stty size)' WINCH; while :; do sleep .1; done"
    run.start("detached", command, tty=True, attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    for _ in range(2):
        terminal = run.on_terminal("attach", base=str(run.base))
        terminal.expect("drawn 24 80")
        terminal.send("\x10\x11")
        assert terminal.wait() == 0


def test_stopped_client_makes_the_container_wait_a_dead_one_does_not(
    run: Run, listening: str
) -> None:
    command = "read line; head -c 2000000 /dev/zero; echo written >&2"
    monitor = run.start("detached", command, stdin=True, log=None, attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    stopped = run.start("attach", base=str(run.base))
    time.sleep(0.3)
    stopped.send_signal(signal.SIGSTOP)
    feeder = run.start("attach", base=str(run.base), stdin=True)
    assert feeder.stdin is not None
    feeder.stdin.write(b"\n")
    feeder.stdin.flush()
    time.sleep(0.5)
    assert run.facts("finished") == []
    stopped.kill()
    assert len(feeder.communicate(timeout=10)[0]) == 2_000_000
    assert monitor.wait(timeout=10) == 0


def test_nonsense_on_the_socket_is_dropped(run: Run, listening: str) -> None:
    run.start("detached", "sleep 30", attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    header = struct.Struct(">BI")
    for nonsense in (
        header.pack(frames.STDIN, 0xFFFFFFFF),
        frames.encode(frames.RESIZE, b"x"),
        frames.encode(frames.SIGNAL, b"\0"),
        frames.encode(frames.SIGNAL, b"\xff"),
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listening)
            client.sendall(nonsense)
            client.settimeout(10)
            assert client.recv(1) == b""
    assert run.facts("finished") == []


@pytest.mark.root
def test_strangers_cannot_attach(run: Run, listening: str) -> None:
    run.start("detached", "sleep 30", attach_path=listening)
    wait_until(lambda: os.path.exists(listening))
    assert os.stat(listening).st_mode & 0o777 == 0o600
    os.chmod(listening, 0o666)
    code = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.settimeout(5); sys.exit(0 if s.recv(1) == b'' else 1)"
    )
    for directory in [Path(listening).parent, *Path(listening).parents]:
        if str(directory).startswith(str(run.base.parents[1])):
            os.chmod(directory, 0o755)
    done = subprocess.run(["python3", "-c", code, listening], user=65534, timeout=10)
    assert done.returncode == 0


def test_container_that_just_ended_gives_its_recorded_code(run: Run, listening: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(listening)
        server.listen()
        client = run.start("attach", base=str(run.base))
        server.accept()[0].close()
        assert client.wait(timeout=10) == 77


def test_lost_monitor_is_named(run: Run, listening: str) -> None:
    assert run.run("attach", "", base=str(run.base))[0] == supervised.ERROR
    assert "has lost its monitor" in run.facts("error")[0][0]
