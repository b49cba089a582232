"""engine.stats: what two snapshots mean, and what /proc says of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from minicontainer.engine import stats

NOTHING = {
    "time_ns": 0, "cpu_ns": 0, "memory_usage": 0, "memory_limit": 0, "block_read": 0,
    "block_written": 0, "net_rx": 0, "net_tx": 0, "pids": 0,
}  # fmt: skip


def test_each_busy_cpu_counts_a_hundred() -> None:
    later = {**NOTHING, "time_ns": 10**9, "cpu_ns": 25 * 10**8}
    assert stats.compute(NOTHING, later)["cpu_percent"] == 250.0


def test_two_equal_snapshots_are_no_division_by_zero() -> None:
    found = stats.compute(NOTHING, NOTHING)
    assert (found["cpu_percent"], found["memory_percent"]) == (0.0, 0.0)


def test_a_counter_that_started_anew_is_not_negative() -> None:
    before = {**NOTHING, "cpu_ns": 10**9}
    assert stats.compute(before, {**NOTHING, "time_ns": 10**9})["cpu_percent"] == 0.0


def test_memory_is_a_part_of_its_limit() -> None:
    found = stats.compute(NOTHING, {**NOTHING, "memory_usage": 25, "memory_limit": 200})
    assert found["memory_percent"] == 12.5


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "?"), (34816, "pts/0"), (34816 + 7, "pts/7"), (35072, "pts/256"), (1025, "tty1"),
     (1088, "ttyS0"), (0x501, "5,1")],
)  # fmt: skip
def test_terminals_by_their_numbers(number: int, name: str) -> None:
    assert stats.terminal(number) == name


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00"), (59, "00:00:59"), (3661, "01:01:01"), (90_061, "1-01:01:01")],
)
def test_cpu_times(seconds: int, text: str) -> None:
    assert stats._clock(seconds) == text


def test_starts_are_times_of_day_and_then_days() -> None:
    now = time.time()
    assert len(stats._start(now)) == 5 and stats._start(now)[2] == ":"
    day = time.localtime(now - 3 * 86400)
    assert stats._start(now - 3 * 86400) == time.strftime("%b%d", day)


def test_a_row_describes_a_real_process() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            deadline = time.monotonic() + 5
            booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
            while True:
                row = stats._row(process.pid, booted)
                if (row and row["CMD"] == "sleep 1000") or time.monotonic() > deadline:
                    break
            assert row is not None and row["CMD"] == "sleep 1000"
            assert row["UID"] == ("root" if os.geteuid() == 0 else str(os.geteuid()))
            assert (row["PID"], row["PPID"]) == (str(process.pid), str(os.getpid()))
        finally:
            process.kill()
    assert stats._row(process.pid, booted) is None


def test_descendants_are_found_at_any_depth() -> None:
    script = (
        "import os, time\nfor _ in range(3):\n    if os.fork():\n        break\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 10
            while len(stats._descendants(process.pid)) < 4 and time.monotonic() < deadline:
                time.sleep(0.02)
            found = stats._descendants(process.pid)
            assert len(found) == 4 and found[0] == process.pid
            used = stats._added_up(found)
            assert used["pids"] == 4 and used["memory_usage"] > 1 << 20
        finally:
            os.killpg(process.pid, 9)


def test_network_counters_leave_loopback_out() -> None:
    received, sent = stats._network(os.getpid())
    assert received >= 0 and sent >= 0
    assert stats._network(2**22 + 1) == (0, 0)
