"""Restart policies kept by the monitor."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.runner import Engine, wait_until

pytestmark = [pytest.mark.root, pytest.mark.lifecycle]


def restarts(engine: Engine, name: str = "c") -> int:
    return int(engine.inspect(name)["RestartCount"])


def test_failure_is_tried_again_up_to_the_maximum(engine: Engine) -> None:
    engine.detach(
        "--name", "c", "--restart", "on-failure:2", command=("sh", "-c", "echo run; exit 3")
    )
    wait_until(lambda: engine.status("c") == "exited" and restarts(engine) == 2)
    assert engine.ok("logs", "c") == "run\n" * 3
    assert engine.inspect("c")["State"]["ExitCode"] == 3


def test_success_is_not_tried_again(engine: Engine) -> None:
    engine.detach("--name", "c", "--restart", "on-failure", command=("true",))
    engine.wait_for("c", "exited")
    time.sleep(0.3)
    assert restarts(engine) == 0


def test_always_goes_on_until_it_is_stopped(engine: Engine) -> None:
    engine.detach("--name", "c", "--restart", "always", command=("sh", "-c", "exit 0"))
    wait_until(lambda: restarts(engine) >= 2)
    engine.ok("stop", "c")
    assert engine.status("c") == "exited"
    count = restarts(engine)
    time.sleep(1)
    assert (engine.status("c"), restarts(engine)) == ("exited", count)


def test_waiting_container_is_restarting(engine: Engine) -> None:
    engine.detach("--name", "c", "--restart", "always", command=("sh", "-c", "exit 1"))
    wait_until(lambda: restarts(engine) >= 3)
    engine.wait_for("c", "restarting")


def test_container_that_is_killed_starts_again_with_the_same_files(engine: Engine) -> None:
    script = "echo x >> /count; wc -l < /count; sleep 100"
    engine.detach("--name", "c", "--restart", "unless-stopped", command=("sh", "-c", script))
    wait_until(lambda: engine.ok("logs", "c").split() == ["1"])
    os.kill(engine.pid("c"), signal.SIGKILL)
    wait_until(lambda: engine.ok("logs", "c").split() == ["1", "2"])
    engine.wait_for("c", "running")
    assert restarts(engine) == 1


def test_removal_ends_the_restarts(engine: Engine) -> None:
    engine.detach("--name", "c", "--restart", "always", command=("sh", "-c", "exit 1"))
    wait_until(lambda: restarts(engine) >= 1)
    engine.ok("rm", "-f", "c")
    time.sleep(0.5)
    assert engine.containers() == []
    assert engine.processes() == {}


def test_foreground_stays_through_restarts(engine: Engine) -> None:
    done = engine.run(
        "run", "--restart", "on-failure:2", "--rootfs", engine.rootfs, "sh", "-c", "echo a; exit 4"
    )
    assert (done.returncode, done.stdout) == (4, "a\n" * 3)


def test_update_changes_the_policy_of_the_next_run(engine: Engine) -> None:
    engine.detach("--name", "c", command=("false",))
    engine.wait_for("c", "exited")
    engine.ok("update", "--restart", "on-failure:1", "c")
    engine.ok("start", "c")
    wait_until(lambda: engine.status("c") == "exited" and restarts(engine) == 1)
