"""The log's reader: tail, time bounds, following across rotations."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from minicontainer.engine import logs, logview
from minicontainer.errors import InvalidState, NotFound
from minicontainer.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

SECOND = 1_000_000_000


class Container:
    """What the reader asks of a container."""

    def __init__(self, base: Path) -> None:
        self.paths = Paths(str(base), str(base))
        self.id = "c" * 64
        self.options: dict[str, Any] = {}
        self.status = "exited"
        self.monitored = False
        self.on_refresh: Callable[[], None] = lambda: None
        self.log = Path(self.paths.log(self.id))
        self.log.parent.mkdir(parents=True)

    def refresh(self) -> None:
        self.on_refresh()

    def write(self, *lines: tuple[str, str, int], index: int = 0) -> None:
        """Entries (stream, text, seconds since the epoch) of one of the files."""
        with open(logs.rotated(str(self.log), index), "a") as file:
            for stream, text, seconds in lines:
                entry = {"log": text, "stream": stream, "time": logs.timestamp(seconds * SECOND)}
                file.write(json.dumps(entry) + "\n")

    def texts(self, **options: Any) -> list[str]:
        return [data.decode() for _, data, _ in logview.entries(self, **options)]


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def numbered(first: int, last: int) -> list[tuple[str, str, int]]:
    return [("stdout", f"{number}\n", number) for number in range(first, last)]


def test_entry_has_stream_bytes_and_time(container: Container) -> None:
    container.write(("stderr", "oh é\n", 5))
    assert list(logview.entries(container)) == [
        ("stderr", "oh é\n".encode(), "1970-01-01T00:00:05.000000000Z")
    ]


def test_no_log_yet_is_an_empty_one(container: Container) -> None:
    assert container.texts() == []
    assert container.texts(tail=3) == []


def test_container_without_log_is_refused(container: Container) -> None:
    container.options["log_driver"] = "none"
    with pytest.raises(InvalidState, match="does not support reading"):
        container.texts()


def test_oldest_file_comes_first(container: Container) -> None:
    container.write(*numbered(0, 3), index=2)
    container.write(*numbered(3, 6), index=1)
    container.write(*numbered(6, 9))
    assert container.texts() == [f"{number}\n" for number in range(9)]


def test_torn_and_foreign_lines_are_skipped(container: Container) -> None:
    container.write(("stdout", "one\n", 1))
    with open(container.log, "a") as file:
        file.write('garbage\n{"log":1}\n[1]\n{"log":1,"stream":"stdout","time":"x"}\n\n')
    container.write(("stdout", "two\n", 2))
    with open(container.log, "a") as file:
        file.write('{"log":"torn\\n","stream":"std')
    assert container.texts() == ["one\n", "two\n"]
    assert container.texts(tail=1) == ["two\n"]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 9, 100])
def test_tail_counts_across_files(container: Container, count: int) -> None:
    container.write(*numbered(0, 3), index=2)
    container.write(*numbered(3, 6), index=1)
    container.write(*numbered(6, 9))
    assert (
        container.texts(tail=count) == [f"{number}\n" for number in range(9)][9 - min(9, count) :]
    )


def test_tail_of_a_large_file_reads_little(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.write(*numbered(0, 50_000))
    read: list[int] = []
    whole = os.pread

    def counted(fd: int, count: int, offset: int) -> bytes:
        data = whole(fd, count, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert container.texts(tail=2000) == [f"{number}\n" for number in range(48_000, 50_000)]
    assert sum(read) < 300_000


def test_tail_counts_a_cut_line_once(container: Container) -> None:
    container.write(
        ("stdout", "zero\n", 1),
        ("stdout", "x" * 16384, 2),
        ("stderr", "error\n", 2),
        ("stdout", "x" * 10 + "\n", 3),
        ("stdout", "last", 4),
    )
    assert [len(text) for text in container.texts(tail=2)] == [11, 4]
    assert [len(text) for text in container.texts(tail=4)] == [5, 16384, 6, 11, 4]


def test_time_bounds_are_inclusive(container: Container) -> None:
    container.write(*numbered(0, 10))
    assert container.texts(since=3 * SECOND, until=5 * SECOND) == ["3\n", "4\n", "5\n"]
    assert container.texts(since=3 * SECOND + 1, until=5 * SECOND - 1) == ["4\n"]
    assert container.texts(tail=2, until=5 * SECOND) == ["4\n", "5\n"]


def test_follow_reads_what_a_running_container_writes_until_its_end(container: Container) -> None:
    container.status = "running"
    container.write(*numbered(0, 2))
    found: list[bytes] = []
    follower = threading.Thread(
        target=lambda: found.extend(e[1] for e in logview.entries(container, follow=True))
    )
    follower.start()
    time.sleep(0.2)
    container.write(*numbered(2, 4))
    time.sleep(0.3)
    assert found == [b"0\n", b"1\n", b"2\n", b"3\n"]
    container.write(*numbered(4, 5))
    container.status = "exited"
    follower.join(5)
    assert not follower.is_alive()
    assert found == [b"%d\n" % number for number in range(5)]


def test_follow_waits_for_the_end_of_a_line(container: Container) -> None:
    line = json.dumps({"log": "a\n", "stream": "stdout", "time": "t"})
    states = iter(["running", "running", "exited"])

    def step() -> None:
        container.status = next(states)
        with open(container.log, "a") as file:
            file.write(line[:10] if container.status == "running" else line[20:] + "\n")
            if container.status == "running":
                container.on_refresh = finish

    def finish() -> None:
        container.status = "exited"
        with open(container.log, "a") as file:
            file.write(line[10:] + "\n")

    container.on_refresh = step
    assert container.texts(follow=True) == ["a\n"]


@pytest.mark.parametrize("max_file", [1, 2, 3])
def test_follow_across_rotations_misses_nothing(container: Container, max_file: int) -> None:
    """Each rotation comes while the reader is between two of its reads."""
    container.status = "running"
    writer = logs.LogWriter(str(container.log), 2000, max_file)
    rounds = iter(range(40))
    total = 0

    def step() -> None:
        nonlocal total
        if next(rounds, None) is None:
            writer.close()
            container.status = "exited"
            return
        # Not more than the files hold: what was dropped before anybody read it is lost.
        for _ in range(10):
            writer.write("stdout", b"%d\n" % total)
            total += 1

    container.on_refresh = step
    assert container.texts(follow=True) == [f"{number}\n" for number in range(400)]


def test_follow_with_tail_goes_on_from_there(container: Container) -> None:
    container.write(*numbered(0, 10))
    container.status = "running"

    def step() -> None:
        container.write(*numbered(10, 12))
        container.status = "exited"

    container.on_refresh = step
    assert container.texts(follow=True, tail=0) == ["10\n", "11\n"]


def test_follow_ends_with_a_container_that_was_removed(container: Container) -> None:
    container.status = "running"
    container.write(*numbered(0, 1))

    def gone() -> None:
        raise NotFound("no such container")

    container.on_refresh = gone
    assert container.texts(follow=True) == ["0\n"]


def test_follow_ends_when_the_time_is_over(container: Container) -> None:
    container.status = "running"
    container.write(*numbered(0, 1))
    assert container.texts(follow=True, until=time.time_ns() + SECOND // 4) == ["0\n"]


def test_reading_leaves_no_descriptor_open(container: Container) -> None:
    container.write(*numbered(0, 3), index=1)
    container.write(*numbered(3, 9))
    before = os.listdir("/proc/self/fd")
    container.texts()
    container.texts(tail=7)
    next(iter(logview.entries(container)))
    assert os.listdir("/proc/self/fd") == before
