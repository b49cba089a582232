"""A container's life from create to rm: one verb after the other, by name, id and prefix."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from tests.support.runner import Engine, wait_until

# Those marked `lifecycle` meet cgroups, so that they run on v2 as well.
pytestmark = pytest.mark.root

# Ends with 7 when it is asked to; says when it can be asked.
OBEDIENT = ("sh", "-c", "trap 'exit 7' TERM; trap 'exit 8' USR1; echo ready; sleep 1000 & wait")
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; sleep 1000")
COUNTER = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.01; done")


def ready(engine: Engine, name: str, *flags: str, command: tuple[str, ...] = OBEDIENT) -> str:
    """The id of a running container that has installed its signal handlers."""
    container_id = engine.detach("--name", name, *flags, command=command)
    engine.wait_for_output(name, "ready")
    return container_id


def made(engine: Engine, *names: str) -> None:
    """Containers that were never started."""
    for name in names:
        engine.ok("create", "--name", name, "--rootfs", engine.rootfs, "sleep", "1000")


def ended(engine: Engine, *names: str) -> None:
    """Containers that have run and ended."""
    for name in names:
        engine.ok("run", "--name", name, "--rootfs", engine.rootfs, "true")


# ------------------------------------------------------------------------------- create, start


@pytest.mark.lifecycle
def test_create_runs_nothing(engine: Engine) -> None:
    told = engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "sleep", "1000")
    assert re.fullmatch(r"[0-9a-f]{64}\n", told)
    assert engine.containers() == [told.strip()]
    assert engine.status("c") == "created"
    assert engine.processes() == {}


@pytest.mark.lifecycle
def test_start_runs_what_was_created(engine: Engine) -> None:
    made(engine, "c")
    assert engine.ok("start", "c") == "c\n"
    assert engine.status("c") == "running"
    with open(f"/proc/{engine.pid('c')}/cmdline") as file:
        assert file.read() == "sleep\x001000\0"


def test_start_of_a_running_container_does_nothing(engine: Engine) -> None:
    engine.detach("--name", "c")
    pid = engine.pid("c")
    assert engine.ok("start", "c") == "c\n"
    assert engine.pid("c") == pid


def test_start_tries_every_name(engine: Engine) -> None:
    made(engine, "a", "b")
    done = engine.run("start", "a", "nobody", "b")
    assert (done.returncode, done.stdout) == (1, "a\nb\n")
    assert done.stderr == "Error: No such container: nobody\n"
    assert [engine.status(name) for name in "ab"] == ["running", "running"]


def test_started_again_it_finds_its_files_and_goes_on_with_its_log(engine: Engine) -> None:
    script = "echo x >> /f; wc -l < /f"
    engine.ok("run", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", script)
    assert engine.ok("start", "-a", "c") == "2\n"
    assert engine.ok("logs", "c") == "1\n2\n"


@pytest.mark.lifecycle
def test_start_attached_gives_output_and_exit_code(engine: Engine) -> None:
    script = "echo out; echo err >&2; exit 5"
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "sh", "-c", script)
    done = engine.run("start", "-a", "c")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")


def test_start_interactive_passes_input(engine: Engine) -> None:
    engine.ok("create", "-i", "--name", "c", "--rootfs", engine.rootfs, "cat")
    done = engine.run("start", "-ai", "c", input="hello")
    assert (done.returncode, done.stdout) == (0, "hello")


def test_start_of_a_command_that_is_not_there_says_so_and_keeps_the_container(
    engine: Engine,
) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, "nowhere")
    assert 'exec: "nowhere"' in engine.fails(1, "start", "c")
    assert engine.fails(127, "start", "-a", "c").startswith('Error: exec: "nowhere"')
    assert engine.status("c") in ("created", "exited")
    assert engine.processes() == {}


def test_start_of_a_paused_container_is_refused(engine: Engine) -> None:
    engine.detach("--name", "c")
    engine.ok("pause", "c")
    assert "paused" in engine.fails(1, "start", "c")


# ------------------------------------------------------------------------------------- stop


@pytest.mark.lifecycle
def test_stop_asks_with_term(engine: Engine) -> None:
    ready(engine, "c")
    assert engine.ok("stop", "c") == "c\n"
    state = engine.inspect("c")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 7, 0)
    assert state["FinishedAt"] > state["StartedAt"]


def test_stop_signal_can_be_chosen_at_the_stop(engine: Engine) -> None:
    ready(engine, "c")
    engine.ok("stop", "--signal", "USR1", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 8


@pytest.mark.lifecycle
def test_stop_kills_after_the_timeout(engine: Engine) -> None:
    ready(engine, "c", command=STUBBORN)
    began = time.monotonic()
    engine.ok("stop", "-t", "1", "c")
    assert 1 <= time.monotonic() - began < 8
    assert engine.inspect("c")["State"]["ExitCode"] == 137


def test_stop_with_no_time_at_all_kills(engine: Engine) -> None:
    ready(engine, "c")
    engine.ok("stop", "--time=0", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 137


def test_stop_can_wait_for_ever(engine: Engine) -> None:
    script = "trap 'sleep 0.5; exit 9' TERM; echo ready; sleep 1000 & wait"
    ready(engine, "c", "--stop-timeout", "0", command=("sh", "-c", script))
    engine.ok("stop", "-t", "-1", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 9


def test_stop_of_a_stopped_container_is_done_already(engine: Engine) -> None:
    made(engine, "new")
    ended(engine, "old")
    assert engine.ok("stop", "new", "old") == "new\nold\n"
    assert engine.status("new") == "created"


@pytest.mark.lifecycle
def test_stop_reaches_a_paused_container(engine: Engine) -> None:
    ready(engine, "c")
    engine.ok("pause", "c")
    engine.ok("stop", "c")
    assert engine.inspect("c")["State"]["ExitCode"] == 7


def test_stop_of_several_stops_all_but_the_unknown(engine: Engine) -> None:
    ready(engine, "a")
    ready(engine, "b")
    done = engine.run("stop", "a", "nobody", "b")
    assert (done.returncode, done.stdout) == (1, "a\nb\n")
    assert [engine.status(name) for name in "ab"] == ["exited", "exited"]


@pytest.mark.lifecycle
def test_stop_leaves_no_process(engine: Engine) -> None:
    ready(engine, "c", command=("sh", "-c", "sleep 1000 & sleep 1000 & " + OBEDIENT[2]))
    engine.ok("stop", "c")
    wait_until(lambda: engine.processes() == {}, "the end of monitor and container")


# ------------------------------------------------------------------------------------- kill


@pytest.mark.lifecycle
def test_kill_kills(engine: Engine) -> None:
    ready(engine, "c")
    assert engine.ok("kill", "c") == "c\n"
    engine.wait_for("c", "exited")
    assert engine.inspect("c")["State"]["ExitCode"] == 137


def test_kill_takes_any_spelling_of_a_signal(engine: Engine) -> None:
    script = "n=0; trap 'n=$((n+1)); echo got $n' USR2; echo ready; while :; do sleep .02; done"
    ready(engine, "c", command=("sh", "-c", script))
    for count, word in enumerate(["USR2", "SIGUSR2", "12", "sigusr2"], 1):
        engine.ok("kill", "--signal", word, "c")
        engine.wait_for_output("c", f"got {count}\n")


def test_kill_sends_real_time_signals(engine: Engine) -> None:
    number = signal.SIGRTMIN + 3
    ready(
        engine, "c", command=("sh", "-c", f"trap 'exit 9' {number}; echo ready; sleep 1000 & wait")
    )
    engine.ok("kill", "-s", "RTMIN+3", "c")
    assert engine.ok("wait", "c") == "9\n"


def test_kill_of_a_container_that_does_not_run_is_an_error(engine: Engine) -> None:
    made(engine, "c")
    assert "Container c is not running" in engine.fails(1, "kill", "c")


def test_kill_with_an_unknown_signal_is_refused(engine: Engine) -> None:
    made(engine, "c")
    assert 'invalid argument "NOPE"' in engine.fails(125, "kill", "-s", "NOPE", "c")


# ------------------------------------------------------------------------------------- wait


def test_wait_tells_the_code_of_each(engine: Engine) -> None:
    for code in "03":
        engine.run(
            "run", "--name", f"c{code}", "--rootfs", engine.rootfs, "sh", "-c", f"exit {code}"
        )
    assert engine.ok("wait", "c3", "c0") == "3\n0\n"


@pytest.mark.lifecycle
def test_wait_blocks_until_the_end(engine: Engine) -> None:
    ready(engine, "c")
    waiting = engine.popen("wait", "c")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    engine.ok("kill", "-s", "TERM", "c")
    assert waiting.communicate(timeout=20)[0] == b"7\n"
    assert waiting.returncode == 0


def test_wait_has_the_code_of_a_container_that_removes_itself(engine: Engine) -> None:
    ready(engine, "c", "--rm")
    waiting = engine.popen("wait", "c")
    time.sleep(0.3)
    engine.ok("kill", "-s", "TERM", "c")
    assert waiting.communicate(timeout=20)[0] == b"7\n"
    wait_until(lambda: engine.containers() == [], "its removal")


def test_wait_for_the_removal(engine: Engine) -> None:
    ended(engine, "c")
    waiting = engine.popen("wait", "--condition", "removed", "c")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.4)
    engine.ok("rm", "c")
    assert waiting.communicate(timeout=20)[0] == b"0\n"


# ------------------------------------------------------------------------------ restart, rename


@pytest.mark.lifecycle
def test_restart_is_a_stop_and_a_start(engine: Engine) -> None:
    container_id = ready(engine, "c")
    before = engine.inspect("c")["State"]
    assert engine.ok("restart", "c") == "c\n"
    after = engine.inspect("c")["State"]
    assert engine.inspect("c")["Id"] == container_id
    assert after["Status"] == "running"
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]
    assert not os.path.exists(f"/proc/{before['Pid']}")


def test_restart_starts_one_that_does_not_run(engine: Engine) -> None:
    made(engine, "c")
    engine.ok("restart", "c")
    assert engine.status("c") == "running"


def test_restart_with_no_time_kills(engine: Engine) -> None:
    ready(engine, "c", command=STUBBORN)
    began = time.monotonic()
    engine.ok("restart", "-t", "0", "c")
    assert time.monotonic() - began < 8


def test_rename_gives_another_name(engine: Engine) -> None:
    engine.detach("--name", "old")
    assert engine.ok("rename", "old", "new") == ""
    assert engine.inspect("new")["Name"] == "/new"
    engine.fails(1, "inspect", "old")
    made(engine, "old")


def test_rename_to_a_name_in_use_is_a_conflict(engine: Engine) -> None:
    made(engine, "a", "b")
    message = engine.fails(1, "rename", "a", "b")
    assert 'Conflict. The container name "/b" is already in use by container' in message
    assert engine.inspect("a")["Name"] == "/a"


def test_rename_to_no_name_is_refused(engine: Engine) -> None:
    made(engine, "a")
    for name in ("", "-x", "a/b", "ä", "x" * 129):
        engine.fails(125, "rename", "--", "a", name)
    assert engine.inspect("a")["Name"] == "/a"


# ------------------------------------------------------------------------------- pause, unpause


@pytest.mark.lifecycle
def test_paused_container_stands_still(engine: Engine) -> None:
    container_id = engine.detach("--name", "c", command=COUNTER)
    path = f"{engine.root}/containers/{container_id}/upper/count"
    wait_until(lambda: os.path.exists(path) and os.path.getsize(path), "a count")
    assert engine.ok("pause", "c") == "c\n"
    assert engine.status("c") == "paused"
    assert engine.inspect("c")["State"]["Running"] is True
    with open(path) as file:
        before = file.read()
        time.sleep(0.2)
        file.seek(0)
        assert file.read() == before
    assert engine.ok("unpause", "c") == "c\n"
    assert engine.status("c") == "running"

    def count() -> str:
        with open(path) as file:
            return file.read()

    wait_until(lambda: count() not in (before, ""), "further counts")


@pytest.mark.lifecycle
def test_pause_and_unpause_want_the_opposite_state(engine: Engine) -> None:
    engine.detach("--name", "c")
    made(engine, "new")
    assert "is not paused" in engine.fails(1, "unpause", "c")
    assert "is not running" in engine.fails(1, "pause", "new")
    engine.ok("pause", "c")
    assert "already paused" in engine.fails(1, "pause", "c")


@pytest.mark.lifecycle
def test_paused_container_can_be_removed_by_force(engine: Engine) -> None:
    engine.detach("--name", "c")
    engine.ok("pause", "c")
    engine.ok("rm", "-f", "c")
    assert engine.processes() == {}


@pytest.mark.lifecycle
def test_paused_container_can_be_killed(engine: Engine) -> None:
    engine.detach("--name", "c")
    engine.ok("pause", "c")
    engine.ok("kill", "c")
    assert engine.ok("wait", "c") == "137\n"


# --------------------------------------------------------------------------------------- rm


@pytest.mark.lifecycle
def test_rm_removes_those_it_can(engine: Engine) -> None:
    ended(engine, "a", "b")
    engine.detach("--name", "up")
    done = engine.run("rm", "a", "nobody", "up", "b")
    assert (done.returncode, done.stdout) == (1, "a\nb\n")
    assert "Error: No such container: nobody\n" in done.stderr
    assert "Error: cannot remove container up: container is running\n" in done.stderr
    assert re.search(r"Hint: stop it first, or force", done.stderr)
    assert len(engine.containers()) == 1


def test_rm_by_force_takes_a_running_one(engine: Engine) -> None:
    engine.detach("--name", "up")
    assert engine.ok("rm", "--force", "up") == "up\n"
    assert engine.containers() == []
    assert engine.processes() == {}


def test_rm_all_takes_the_stopped(engine: Engine) -> None:
    made(engine, "new")
    ended(engine, "old")
    running = engine.detach("--name", "up")
    told = engine.ok("rm", "--all").split()
    assert len(told) == 2 and all(re.fullmatch(r"[0-9a-f]{12}", word) for word in told)
    assert engine.containers() == [running]


@pytest.mark.lifecycle
def test_rm_all_by_force_takes_the_rest(engine: Engine) -> None:
    made(engine, "new")
    engine.detach("--name", "up")
    engine.detach("--name", "ice")
    engine.ok("pause", "ice")
    assert len(engine.ok("rm", "-af").split()) == 3
    assert engine.containers() == []
    assert engine.ok("rm", "-af") == ""


def test_rm_twice_is_an_error_and_by_force_a_word(engine: Engine) -> None:
    made(engine, "c")
    engine.ok("rm", "c")
    assert "No such container: c" in engine.fails(1, "rm", "c")
    done = engine.run("rm", "-f", "c")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Warning: No such container: c\n"


def test_rm_needs_a_name_or_all(engine: Engine) -> None:
    engine.fails(1, "rm")
    engine.fails(1, "rm", "--all", "c")


# ------------------------------------------------------------------------------------ names


def test_every_verb_takes_a_name_an_id_and_a_prefix(engine: Engine) -> None:
    container_id = ready(engine, "c")
    for reference in ("c", "/c", container_id, container_id[:12], container_id[:3]):
        assert engine.inspect(reference)["Id"] == container_id
    steps = [
        ("exec", (container_id[:5], "true")),
        ("top", (container_id[:6],)),
        ("logs", (container_id[:7],)),
        ("port", (container_id[:8],)),
        ("diff", (container_id[:9],)),
        ("stats", ("--no-stream", container_id[:10])),
        ("update", ("--pids-limit", "99", container_id[:5])),
        ("pause", (container_id[:6],)),
        ("unpause", (container_id[:7],)),
        ("rename", (container_id[:8], "d")),
        ("restart", ("-t0", container_id[:9])),
        ("stop", ("-t0", container_id[:10])),
        ("wait", (container_id[:11],)),
        ("start", (container_id[:12],)),
        ("kill", (container_id[:13],)),
        ("wait", (container_id[:14],)),
        ("export", ("-o", f"{engine.base}/out.tar", container_id[:14])),
        ("rm", (container_id[:15],)),
    ]
    for verb, arguments in steps:
        engine.ok(verb, *arguments)
    os.unlink(f"{engine.base}/out.tar")
    assert engine.containers() == []


def test_ambiguous_prefix_is_an_error_that_shows_the_ids(engine: Engine) -> None:
    seen: dict[str, str] = {}
    while True:
        told = engine.ok("create", "--rootfs", engine.rootfs, "true").strip()
        if told[0] in seen:
            break
        seen[told[0]] = told
    message = engine.fails(1, "inspect", told[0])
    assert "beginning of several" in message
    assert told[:12] in message and seen[told[0]][:12] in message


def test_name_wins_over_the_prefix_of_an_id(engine: Engine) -> None:
    made(engine, "a")
    prefix = engine.inspect("a")["Id"][:6]
    made(engine, prefix)
    assert engine.inspect(prefix)["Name"] == f"/{prefix}"


def test_reference_to_nothing_is_an_error(engine: Engine) -> None:
    made(engine, "a")
    for reference in ("nobody", "0" * 64, "..", "a/../a", "", "\n"):
        assert "No such container" in engine.fails(1, "stop", reference)


def test_name_taken_is_a_conflict_and_leaves_nothing(engine: Engine) -> None:
    container_id = engine.detach("--name", "c")
    for verb in ("run", "create"):
        code = 125 if verb == "run" else 1
        message = engine.fails(code, verb, "--name", "c", "--rootfs", engine.rootfs, "true")
        expected = f'The container name "/c" is already in use by container "{container_id}"'
        assert f"Conflict. {expected}" in message
    assert engine.containers() == [container_id]
    assert os.listdir(f"{engine.root}/tmp") == []


@pytest.mark.lifecycle
def test_of_eight_that_want_one_name_exactly_one_gets_it(engine: Engine) -> None:
    argv = ("run", "-d", "--name", "same", "--rootfs", engine.rootfs, "sleep", "1000")
    racing = [engine.popen(*argv) for _ in range(8)]
    ends = [(*process.communicate(timeout=50), process.returncode) for process in racing]
    winners = [out.decode().strip() for out, _, code in ends if code == 0]
    assert len(winners) == 1
    assert engine.containers() == winners
    assert engine.inspect("same")["Id"] == winners[0]
    losers = [(error, code) for _, error, code in ends if code != 0]
    assert all(code == 125 and b"Conflict. The container name" in error for error, code in losers)
    assert os.listdir(f"{engine.root}/tmp") == []
