"""stats and top: what containers use, and which processes they have."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.runner import Engine, wait_until

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

HEADINGS = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]


def stats(engine: Engine, *names: str) -> list[dict[str, str]]:
    lines = engine.ok("stats", "--no-stream", "--format", "json", *names).splitlines()
    return [json.loads(line) for line in lines]


def rows(engine: Engine, name: str) -> list[list[str]]:
    heading, *lines = engine.ok("top", name).splitlines()
    assert heading.split() == HEADINGS
    return [line.split(None, 7) for line in lines]


def test_a_busy_cpu_is_a_hundred_percent(engine: Engine) -> None:
    engine.detach("--name", "busy", command=["sh", "-c", "while :; do :; done"])
    engine.detach("--name", "idle")
    found = {row["Name"]: row for row in stats(engine)}
    assert 20.0 < float(found["busy"]["CPUPerc"].rstrip("%")) < 115.0  # others work here, too
    assert float(found["idle"]["CPUPerc"].rstrip("%")) < 5.0
    assert {row["PIDs"] for row in found.values()} == {"1"}


def test_half_a_cpu_is_fifty_percent(engine: Engine) -> None:
    engine.detach("--name", "box", "--cpus", "0.5", command=["sh", "-c", "while :; do :; done"])
    assert 10.0 < float(stats(engine, "box")[0]["CPUPerc"].rstrip("%")) < 60.0


def test_memory_in_use_and_its_limit(engine: Engine) -> None:
    script = "head -c 20000000 /dev/zero > /dev/shm/f; sleep 1000"
    engine.detach("--name", "box", "-m", "100m", command=["sh", "-c", script])
    used = re.compile(r"(\d+(\.\d+)?)MiB / 100MiB")
    row = wait_until(
        lambda: (r := stats(engine, "box")[0]) and used.match(r["MemUsage"]) and r, "20 MB in use"
    )
    match = used.match(row["MemUsage"])
    assert match and 18 < float(match.group(1)) < 30
    assert 18 < float(row["MemPerc"].rstrip("%")) < 30


def test_without_a_limit_the_hosts_memory_is_it(engine: Engine) -> None:
    engine.detach("--name", "box")
    total = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    limit = stats(engine, "box")[0]["MemUsage"].split(" / ")[1]
    assert limit.endswith("GiB") and abs(float(limit[:-3]) - total) < 0.2


def test_stopped_containers_are_shown_only_when_asked_for(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "true")
    assert stats(engine) == []
    assert stats(engine, "--all")[0]["CPUPerc"] == "--"
    assert "No such container" in engine.fails(1, "stats", "--no-stream", "nobody")


def test_top_lists_every_process_of_the_container(engine: Engine) -> None:
    script = "sleep 2000 & (sleep 3000 & sleep 4000 & wait) & wait"
    engine.detach("--name", "box", command=["sh", "-c", script])
    engine.ok("exec", "-d", "-u", "app", "box", "sleep", "5000")
    found = wait_until(lambda: len(r := rows(engine, "box")) == 6 and r, "six processes")
    commands = sorted(row[7] for row in found)
    assert [command for command in commands if command.startswith("sleep")] == [
        "sleep 2000", "sleep 3000", "sleep 4000", "sleep 5000",
    ]  # fmt: skip
    by_command = {row[7]: row for row in found}
    assert by_command["sleep 2000"][0] == "root" and by_command["sleep 5000"][0] == "1000"
    first = str(engine.pid("box"))
    assert by_command["sleep 2000"][2] == first
    for row in found:
        assert os.path.exists(f"/proc/{row[1]}")
        assert re.fullmatch(r"\d\d:\d\d", row[4]) and re.fullmatch(r"\d\d:\d\d:\d\d", row[6])
        assert row[5] == "?"


def test_top_names_the_terminal(engine: Engine) -> None:
    engine.detach("--name", "box", "-t")
    assert rows(engine, "box")[0][5].startswith("pts/")


def test_top_of_a_container_in_the_hosts_pid_namespace_is_its_own(engine: Engine) -> None:
    engine.detach("--name", "box", "--pid", "host")
    assert [row[7] for row in rows(engine, "box")] == ["sleep 1000"]


def test_top_needs_a_running_container(engine: Engine) -> None:
    engine.ok("create", "--name", "box", "--rootfs", engine.rootfs, "true")
    assert "is not running" in engine.fails(1, "top", "box")
    assert "No such container" in engine.fails(1, "top", "nobody")


def test_commands_cannot_move_the_cursor(engine: Engine) -> None:
    engine.detach("--name", "box", command=["sh", "-c", "sleep 1000; : \x1b[2J\n"])
    assert "\x1b" not in engine.ok("top", "box")
