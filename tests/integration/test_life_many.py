"""Many containers, one after the other and at once: nothing is left, nothing is mixed up."""

from __future__ import annotations

import os
import re

import pytest

from tests.support import census
from tests.support.runner import Engine, wait_until

pytestmark = pytest.mark.root


def test_fifty_in_sequence_leave_nothing(engine: Engine) -> None:
    before = census.take(engine.roots, [engine.mark])
    for number in range(50):
        told = engine.ok("run", "--rm", "--rootfs", engine.rootfs, "echo", str(number))
        assert told == f"{number}\n"
    assert census.settle(before, engine.roots, [engine.mark]) == []


def test_twenty_at_once_leave_nothing(engine: Engine) -> None:
    before = census.take(engine.roots, [engine.mark])
    script = "hostname; exit $(($0 % 7))"
    many = [
        engine.popen(
            *("run", "--rm", "--hostname", f"h{number}", "--memory", "64m"),
            *("--rootfs", engine.rootfs, "sh", "-c", script, str(number)),
        )
        for number in range(20)
    ]
    ends = [(*process.communicate(timeout=50), process.returncode) for process in many]
    assert ends == [(f"h{number}\n".encode(), b"", number % 7) for number in range(20)]
    engine.close_streams()
    assert census.settle(before, engine.roots, [engine.mark]) == []


def test_twenty_detached_at_once_are_listed_and_removed(engine: Engine) -> None:
    before = census.take(engine.roots, [engine.mark])
    argv = ("run", "-d", "--rootfs", engine.rootfs, "sleep", "1000")
    many = [engine.popen(*argv) for _ in range(20)]
    ids = [process.communicate(timeout=50)[0].decode().strip() for process in many]
    assert all(re.fullmatch(r"[0-9a-f]{64}", container_id) for container_id in ids)
    assert set(engine.ok("ps", "-q", "--no-trunc").split()) == set(ids)
    names = engine.ok("ps", "--format", "{{.Names}}").split()
    assert len(set(names)) == 20
    removals = [engine.popen("rm", "-f", container_id) for container_id in ids]
    ends = [(*process.communicate(timeout=50), process.returncode) for process in removals]
    assert ends == [(f"{container_id}\n".encode(), b"", 0) for container_id in ids]
    engine.close_streams()
    assert census.settle(before, engine.roots, [engine.mark]) == []


def test_self_removing_containers_that_end_at_once_leave_nothing(engine: Engine) -> None:
    before = census.take(engine.roots, [engine.mark])
    for _ in range(8):
        engine.detach("--rm", command=("sh", "-c", "echo x > /file; sleep 0.1"))
    wait_until(lambda: engine.containers() == [], "the removal of all")
    assert census.settle(before, engine.roots, [engine.mark]) == []


def test_different_verbs_on_one_container_at_once_do_not_deadlock(engine: Engine) -> None:
    engine.detach("--name", "c")
    verbs = (
        *(("stop", "-t", "0", "c"), ("start", "c"), ("restart", "-t", "0", "c"), ("kill", "c")),
        *(("inspect", "c"), ("ps", "-a"), ("update", "--pids-limit", "99", "c"), ("start", "c")),
        *(("rename", "c", "d"), ("rename", "d", "c"), ("exec", "c", "true"), ("logs", "c")),
    )
    racing = [engine.popen(*verb) for verb in verbs * 2]
    for process in racing:
        _, error = process.communicate(timeout=50)
        assert b"Traceback" not in error and b"internal error" not in error, error
    container_id = engine.containers()[0]
    assert engine.status(container_id) in ("running", "exited")
    monitors = [c for c in engine.processes().values() if "minicontainer" in c]
    assert len(monitors) <= 1
    engine.ok("rm", "-f", container_id)
    assert engine.containers() == [] and os.listdir(f"{engine.root}/names") == []


def test_removals_of_one_container_at_once_all_succeed(engine: Engine) -> None:
    engine.detach("--name", "c")
    racing = [engine.popen("rm", "-f", "c") for _ in range(6)]
    ends = [(process.communicate(timeout=50)[1], process.returncode) for process in racing]
    assert [code for _, code in ends] == [0] * 6, ends
    assert engine.containers() == []
