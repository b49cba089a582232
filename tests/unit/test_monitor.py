"""The monitor's loop with real processes, pipes, terminals and signals; a shell for a container."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import supervised
from tests.support.runner import TOP
from tests.support.supervision import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.close()


def rss_kib(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))


# ------------------------------------------------------------------------- foreground


def test_streams_stay_apart_and_the_exit_code_is_the_commands(run: Run) -> None:
    assert run.run("local", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert run.logged() == "out\n"
    assert run.logged("stderr") == "err\n"
    assert run.facts("report") == [[None]]
    assert run.facts("ended") == [[7]]


def test_death_by_signal_is_128_and_its_number(run: Run) -> None:
    assert run.run("local", "kill -KILL $$")[0] == 137


def test_log_is_complete_when_the_end_is_recorded(run: Run) -> None:
    run.run("local", "printf unfinished")
    assert run.logged() == "unfinished"
    assert run.facts("finished") == [[0, os.path.getsize(run.log)]]


def test_stdin_passes_every_byte_and_its_end(run: Run) -> None:
    data = bytes(range(256)) * 4096
    code, out, _ = run.run("local", "cat", input=data, stdin=True)
    assert (code, out) == (0, data)


def test_stdin_is_empty_without_interactive(run: Run) -> None:
    assert run.run("local", "cat; echo end", input=b"never read")[1] == b"end\n"


def test_input_is_half_closed(run: Run) -> None:
    code, out, _ = run.run("local", "cat >/dev/null; echo after", input=b"x", stdin=True)
    assert (code, out) == (0, b"after\n")


def test_reader_that_leaves_ends_an_endless_writer(run: Run) -> None:
    process = run.start("local", "yes; echo status $? >&2")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=10) == 0
    assert process.stderr.read() == b"status 141\n"


def test_command_that_leaves_ends_an_endless_feeder(run: Run) -> None:
    shell = " ".join(f"'{word}'" for word in run.argv("local", "head -1", stdin=True, pidfd=False))
    done = subprocess.run(
        ["bash", "-c", f"yes | {shell}; echo ${{PIPESTATUS[*]}}"],
        cwd=TOP,
        capture_output=True,
        timeout=30,
    )
    assert done.stdout == b"y\n141 0\n"


def test_command_that_closes_its_input_does_not_hang(run: Run) -> None:
    code, out, _ = run.run(
        "local", "exec <&-; sleep .3; echo done", input=b"x" * 1_000_000, stdin=True
    )
    assert (code, out) == (0, b"done\n")


def test_our_own_descriptors_stay_blocking(run: Run) -> None:
    read_fd, write_fd = os.pipe()
    process = run.start("local", "echo hello", popen={"stdout": write_fd})
    process.wait(timeout=10)
    assert os.get_blocking(write_fd)
    assert os.read(read_fd, 100) == b"hello\n"
    os.close(read_fd)
    os.close(write_fd)


def test_output_goes_to_a_file_where_it_belongs(run: Run) -> None:
    path = run.base / "out"
    with open(path, "ab") as file:
        file.write(b"before\n")
        file.flush()
        run.start("local", "echo one; echo two", popen={"stdout": file}).wait(timeout=10)
        file.write(b"after\n")
    assert path.read_bytes() == b"before\none\ntwo\nafter\n"


def test_closed_output_does_no_harm(run: Run) -> None:
    argv = run.argv("local", "echo hello; exit 4")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *argv], cwd=TOP, capture_output=True, timeout=30
    )
    assert done.returncode in (4, 141)
    assert b"Traceback" not in done.stderr


def test_slow_reader_makes_the_command_wait_and_gets_all(run: Run) -> None:
    process = run.start("local", "head -c 3000000 /dev/zero; echo written >&2", log=None)
    assert process.stdout is not None and process.stderr is not None
    time.sleep(0.5)
    os.set_blocking(process.stderr.fileno(), False)
    assert process.stderr.read() is None, "the command did not wait"
    assert len(process.stdout.read()) == 3_000_000
    assert process.wait(timeout=10) == 0


def test_memory_stays_flat_through_a_flood(run: Run) -> None:
    flood = "sleep .5; head -c 20M /dev/zero; yes | head -c 5M; echo; sleep 2"
    process = run.start("local", flood, max_size=1_000_000, popen={"stdout": subprocess.DEVNULL})
    run.wait_for("launch")
    before = rss_kib(process.pid)
    highest = 0
    while process.poll() is None:
        try:
            highest = max(highest, rss_kib(process.pid))
        except (ProcessLookupError, StopIteration):
            break
        time.sleep(0.02)
    assert process.wait() == 0
    assert highest - before < 3000, f"{before} KiB before, {highest} KiB at most"
    assert sum(path.stat().st_size for path in run.base.glob("log*")) <= 3_000_000


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, 40])
def test_signals_are_forwarded(run: Run, number: int, pidfd: bool) -> None:
    command = f"trap 'echo got; exit 3' {int(number)}; echo ready; while :; do sleep .1; done"
    process = run.start("local", command, pidfd=pidfd)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == b"got\n"
    assert process.returncode == 3


def test_ignored_signals_are_not_forwarded(run: Run) -> None:
    """nohup(1) is for the container too."""

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = "trap 'echo hup' HUP; echo ready; read line; echo end"
    process = run.start("local", command, stdin=True, popen={"preexec_fn": nohup})
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.communicate(b"\n", timeout=10)[0] == b"end\n"


def test_unforwarded_signals_keep_their_effect_in_the_foreground(run: Run) -> None:
    process = run.start("local", "echo ready; sleep 30", signals=False)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_ignored_sigchld_of_the_caller_loses_no_status(run: Run) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    process = run.start("local", "exit 9", popen={"preexec_fn": ignore})
    assert process.wait(timeout=10) == 9


def test_orphans_are_reaped(run: Run) -> None:
    orphans = "for i in $(seq 200); do (sh -c 'true' &) ; done; echo made; sleep 2"
    process = run.start("local", orphans)
    assert process.stdout is not None
    assert process.stdout.readline() == b"made\n"
    time.sleep(1)
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    assert len(Path(path).read_text().split()) == 1
    process.communicate()
    assert process.returncode == 0


def test_end_is_not_delayed_by_a_survivor_that_holds_the_pipe(run: Run) -> None:
    process = run.start("local", "sleep 20 & echo $!; exit 5")
    assert process.stdout is not None
    survivor = int(process.stdout.readline())
    assert process.wait(timeout=5) == 5
    os.kill(survivor, signal.SIGKILL)


def test_failure_to_launch_is_reported_and_raised(run: Run) -> None:
    assert run.run("local", "true", fails_at=1)[0] == supervised.ERROR
    assert run.facts("report") == [["no such command"]]
    assert run.facts("ended") == [[127]]
    assert run.facts("error") == [["no such command", 127]]


# --------------------------------------------------------------------------- detached


def test_detached_monitor_keeps_the_log(run: Run) -> None:
    process = run.start("detached", "echo one; echo two >&2")
    assert process.communicate(timeout=10) == (b"", b"")
    assert run.logged() == "one\n"
    assert run.logged("stderr") == "two\n"


def test_detached_monitor_bears_hangup_and_interrupt(run: Run) -> None:
    process = run.start("detached", "sleep .5; exit 6")
    run.wait_for("launch")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
        process.send_signal(number)
    assert process.wait(timeout=10) == 6


def test_term_of_a_detached_monitor_stops_without_restart(run: Run) -> None:
    process = run.start("detached", "sleep 30", policy={"name": "always", "maximum": 0})
    run.wait_for("launch")
    process.terminate()
    assert process.wait(timeout=10) == 143
    assert run.facts("restarting") == []


# --------------------------------------------------------------------------- restarts


def test_restarts_on_failure_up_to_the_maximum(run: Run) -> None:
    policy = {"name": "on-failure", "maximum": 2}
    code, out, _ = run.run("local", "echo run; exit 3", policy=policy)
    assert (code, out) == (3, b"run\n" * 3)
    assert run.facts("restarting") == [[1, 0.1], [2, 0.2]]
    assert len(run.facts("finished")) == 3
    assert run.facts("ended") == [[3]]
    assert run.facts("report") == [[None]]


def test_success_is_not_restarted_on_failure(run: Run) -> None:
    assert run.run("local", "exit 0", policy={"name": "on-failure", "maximum": 0})[0] == 0
    assert run.facts("restarting") == []


def test_manual_stop_ends_the_wait_for_a_restart(run: Run) -> None:
    stop_file = run.base / "stop"
    process = run.start(
        "detached",
        "exit 1",
        policy={"name": "always", "maximum": 0},
        stop_file=str(stop_file),
    )
    run.wait_for("restarting", 3)
    stop_file.touch()
    assert process.wait(timeout=10) == 1


def test_terminating_signal_ends_the_wait_for_a_restart(run: Run) -> None:
    process = run.start("local", "exit 1", policy={"name": "always", "maximum": 0})
    run.wait_for("restarting", 5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 1


def test_failed_restart_ends_the_supervision(run: Run) -> None:
    policy = {"name": "always", "maximum": 0}
    assert run.run("local", "exit 1", policy=policy, fails_at=2)[0] == 127
    assert run.facts("ended") == [[127]]
    assert run.facts("report") == [[None]]


def test_input_that_ended_has_ended_for_the_restarted_too(run: Run) -> None:
    policy = {"name": "on-failure", "maximum": 1}
    code, out, _ = run.run("local", "cat; exit 2", input=b"once", stdin=True, policy=policy)
    assert (code, out) == (2, b"once")
