"""Restart policies over time: growing delays, stops, updates, reboots, and starting all again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from tests.support import census
from tests.support.runner import Engine, wait_until

# Those marked `lifecycle` meet cgroups, so that they run on v2 as well.
pytestmark = pytest.mark.root

SLEEP = ("sleep", "1000")


def restarts(engine: Engine, name: str = "c") -> int:
    return int(engine.inspect(name)["RestartCount"])


def kill_everything(engine: Engine) -> None:
    """Monitors and containers die as in a power failure; their groups go as well."""
    pids = engine.processes()
    directories = [path for path, members in census.cgroups().items() if set(members) & set(pids)]
    while engine.processes():
        for pid in engine.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
    for directory in directories:
        wait_until(lambda path=directory: remove_group(path), f"the removal of {directory}")


def remove_group(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def reboot(engine: Engine) -> None:
    """All processes die, /run is empty, and the boot id of the records is another one."""
    kill_everything(engine)
    shutil.rmtree(engine.runroot)
    for container_id in engine.containers():
        path = f"{engine.root}/containers/{container_id}/last.json"
        if os.path.exists(path):
            edit(path, boot_id="00000000-0000-0000-0000-000000000000")


def edit(path: str, **changes: object) -> None:
    with open(path, encoding="utf-8") as file:
        facts = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**facts, **changes}, file)


# ------------------------------------------------------------------------------------ delays


def test_delay_grows(engine: Engine) -> None:
    container_id = engine.detach(
        "--name", "c", "--restart", "on-failure:3", command=("sh", "-c", "echo run; exit 1")
    )
    engine.wait_for("c", "exited")
    path = f"{engine.root}/containers/{container_id}/{container_id}-json.log"
    with open(path) as file:
        times = [json.loads(line)["time"] for line in file]
    seconds = [float(stamp[17:-1]) + 60 * int(stamp[14:16]) for stamp in times]
    gaps = [(later - earlier) % 3600 for earlier, later in zip(seconds, seconds[1:])]
    assert len(gaps) == 3
    for gap, delay in zip(gaps, (0.1, 0.2, 0.4)):
        assert delay <= gap < delay + 3


def test_success_too_is_tried_again_by_always(engine: Engine) -> None:
    engine.detach("--name", "c", "--restart", "always", command=("true",))
    wait_until(lambda: restarts(engine) >= 2, "two restarts")


def test_without_a_policy_nothing_is_tried_again(engine: Engine) -> None:
    engine.run("run", "--name", "c", "--restart", "no", "--rootfs", engine.rootfs, "false")
    assert (engine.status("c"), restarts(engine)) == ("exited", 0)


@pytest.mark.parametrize("policy", ["sometimes", "on-failure:x", "always:3", "on-failure:-1", ""])
def test_policy_that_means_nothing_is_refused(shared_engine: Engine, policy: str) -> None:
    engine = shared_engine
    engine.fails(125, "run", "--restart", policy, "--rootfs", engine.rootfs, "true")


def test_policy_and_rm_exclude_each_other(engine: Engine) -> None:
    options = ("--rm", "--restart", "always", "--rootfs", engine.rootfs)
    assert "exclude each other" in engine.fails(125, "run", *options, "true")
    engine.detach("--name", "c", "--rm")
    assert "--rm" in engine.fails(1, "update", "--restart", "always", "c")


# ----------------------------------------------------------- verbs on one that is restarting


def waiting(engine: Engine, name: str = "c") -> None:
    """A container that has failed so often that it now waits most of the time."""
    options = ("--name", name, "--restart", "always")
    engine.detach(*options, command=("sh", "-c", "echo run; exit 1"))
    wait_until(lambda: restarts(engine, name) >= 3, "three restarts")
    engine.wait_for(name, "restarting")


@pytest.mark.lifecycle
def test_restarting_container_is_listed_as_such_and_can_be_stopped(engine: Engine) -> None:
    waiting(engine)
    status = engine.ok("ps", "--format", "{{.Status}}")
    assert status.startswith("Restarting (1) ")
    engine.ok("stop", "c")
    assert engine.status("c") == "exited"
    wait_until(lambda: engine.processes() == {}, "the end of its monitor")


def test_start_of_a_restarting_container_makes_no_second_one(engine: Engine) -> None:
    waiting(engine)
    engine.ok("start", "c")
    monitors = [command for command in engine.processes().values() if "minicontainer" in command]
    assert len(monitors) == 1


@pytest.mark.lifecycle
def test_removal_of_a_restarting_container_is_final(engine: Engine) -> None:
    waiting(engine)
    assert "is running" in engine.fails(1, "rm", "c")
    engine.ok("rm", "-f", "c")
    assert engine.containers() == []
    assert engine.processes() == {}


@pytest.mark.parametrize("verb", [("stop", "-t", "0"), ("rm", "-f"), ("restart", "-t", "0")])
def test_one_that_fails_at_once_does_not_slip_away(engine: Engine, verb: tuple[str, ...]) -> None:
    """The verb comes at any moment of a restart."""
    options = ("--name", "c", "--restart", "always")
    engine.detach(*options, command=("sh", "-c", "sleep 0.05; exit 1"))
    for pause in (0.11, 0.05, 0.17, 0.0):
        time.sleep(pause)
        engine.ok(*verb, "c")
        if verb[0] == "stop":
            assert engine.status("c") == "exited"
            assert engine.processes() == {}
            engine.ok("start", "c")
        elif verb[0] == "rm":
            assert engine.processes() == {}
            engine.detach(*options, command=("sh", "-c", "sleep 0.05; exit 1"))
    assert len([c for c in engine.processes().values() if "minicontainer" in c]) <= 1


def test_wait_waits_through_the_restarts(engine: Engine) -> None:
    options = ("--name", "c", "--restart", "on-failure:2")
    engine.detach(*options, command=("sh", "-c", "sleep 0.3; exit 3"))
    assert engine.ok("wait", "c") == "3\n"
    assert (engine.status("c"), restarts(engine)) == ("exited", 2)


def test_wait_can_be_for_the_next_end_alone(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--restart", "always", "--rootfs", engine.rootfs, "false")
    waiting = engine.popen("wait", "--condition", "next-exit", "c")
    engine.ok("start", "c")
    assert waiting.communicate(timeout=20)[0] == b"1\n"
    engine.ok("rm", "-f", "c")


def test_kill_with_the_stop_signal_is_final_and_with_another_is_not(engine: Engine) -> None:
    script = "trap 'exit 1' HUP; trap 'exit 2' TERM; echo ready; while :; do sleep .02; done"
    engine.detach("--name", "c", "--restart", "always", command=("sh", "-c", script))
    engine.wait_for_output("c", "ready\n")
    engine.ok("kill", "-s", "HUP", "c")
    engine.wait_for_output("c", "ready\nready\n")
    engine.ok("kill", "-s", "TERM", "c")
    assert engine.ok("wait", "c") == "2\n"
    assert (engine.status("c"), restarts(engine)) == ("exited", 1)


# ------------------------------------------------------------------------------------- update


def test_policy_of_a_running_container_can_be_given(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    engine.ok("update", "--restart", "on-failure:1", "c")
    assert engine.inspect("c")["HostConfig"]["RestartPolicy"] == {
        "Name": "on-failure",
        "MaximumRetryCount": 1,
    }
    os.kill(engine.pid("c"), signal.SIGKILL)
    wait_until(lambda: restarts(engine) == 1, "the restart")
    engine.wait_for("c", "running")
    os.kill(engine.pid("c"), signal.SIGKILL)
    engine.wait_for("c", "exited")


def test_policy_of_a_running_container_can_be_taken_away(engine: Engine) -> None:
    engine.detach("--name", "c", "--restart", "always", command=SLEEP)
    engine.ok("update", "--restart", "no", "c")
    os.kill(engine.pid("c"), signal.SIGKILL)
    engine.wait_for("c", "exited")
    assert restarts(engine) == 0


@pytest.mark.lifecycle
def test_restarted_container_has_the_limits_it_was_updated_to(engine: Engine) -> None:
    script = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max"
    options = ("--name", "c", "--restart", "always", "--pids-limit", "99")
    engine.detach(*options, command=("sh", "-c", f"{script}; exec sleep 1000"))
    engine.wait_for_output("c", "99\n")
    engine.ok("update", "--pids-limit", "98", "c")
    os.kill(engine.pid("c"), signal.SIGKILL)
    engine.wait_for_output("c", "98\n")


# ------------------------------------------------------------------------------------- reboot


@pytest.mark.lifecycle
def test_reboot_is_never_reported_as_running(engine: Engine) -> None:
    engine.detach("--name", "c", command=SLEEP)
    reboot(engine)
    assert engine.ok("ps", "-q") == ""
    state = engine.inspect("c")["State"]
    assert (state["Status"], state["Running"], state["Pid"]) == ("exited", False, 0)
    assert state["ExitCode"] == 255
    assert "restarted" in state["Error"]
    assert engine.ok("ps", "-a", "--format", "{{.Status}}").startswith("Exited (255)")


def test_another_boot_id_means_stopped_though_the_pid_is_alive(engine: Engine) -> None:
    container_id = engine.detach("--name", "c", command=SLEEP)
    pid = engine.pid("c")
    path = f"{engine.runroot}/containers/{container_id}/state.json"
    with open(path) as file:
        boot_id = json.load(file)["boot_id"]
    edit(path, boot_id="00000000-0000-0000-0000-000000000000")
    assert engine.status("c") == "exited"
    engine.fails(1, "kill", "c")
    assert os.path.exists(f"/proc/{pid}")
    edit(path, boot_id=boot_id)
    assert engine.status("c") == "running"


@pytest.mark.lifecycle
def test_after_a_reboot_start_all_brings_back_what_should_run(engine: Engine) -> None:
    for name, policy in (
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("stopped", "unless-stopped"),
        ("failing", "on-failure"),
        ("never", "no"),
    ):
        engine.detach("--name", name, "--restart", policy, command=SLEEP)
    engine.ok("stop", "-t", "0", "stopped")
    reboot(engine)
    told = engine.ok("start", "--all", "--filter", "restart-policy=always")
    assert told == engine.inspect("always")["Id"][:12] + "\n"
    assert engine.ok("ps", "--format", "{{.Names}}") == "always\n"
    engine.ok("start", "--all", "--filter", "restart-policy=unless-stopped")
    assert set(engine.ok("ps", "--format", "{{.Names}}").split()) == {"always", "unless"}
    assert engine.ok("start", "--all", "--filter", "restart-policy=always") == ""


def test_one_stopped_while_it_waited_stays_stopped_after_a_reboot(engine: Engine) -> None:
    options = ("--name", "c", "--restart", "unless-stopped")
    engine.detach(*options, command=("sh", "-c", "exit 1"))
    wait_until(lambda: restarts(engine) >= 2, "two restarts")
    engine.ok("stop", "c")
    reboot(engine)
    assert engine.ok("start", "--all", "--filter", "restart-policy=unless-stopped") == ""


def test_start_all_starts_also_what_was_only_created(engine: Engine) -> None:
    engine.ok("create", "--name", "c", "--rootfs", engine.rootfs, *SLEEP)
    engine.ok("start", "--all")
    assert engine.status("c") == "running"
    engine.fails(1, "start", "--filter", "status=exited")
    engine.fails(1, "start", "--all", "c")


def test_after_a_reboot_everything_works_as_before(engine: Engine) -> None:
    engine.detach("--name", "c", command=("sh", "-c", "echo x >> /f; wc -l < /f; sleep 1000"))
    engine.wait_for_output("c", "1\n")
    reboot(engine)
    engine.ok("start", "c")
    engine.wait_for_output("c", "2\n")
    assert engine.ok("exec", "c", "cat", "/f") == "x\nx\n"
    engine.ok("stop", "-t", "0", "c")
    engine.ok("rm", "c")
