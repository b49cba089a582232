"""The json-file writer: what lines look like, how files rotate, what a full disk costs."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.engine import logs
from tests.support.child import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def writer(directory: Path, max_size: int | None = None, max_file: int = 3) -> logs.LogWriter:
    return logs.LogWriter(str(directory / "log"), max_size, max_file)


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def texts(path: Path, stream: str = "stdout") -> list[str]:
    return [entry["log"] for entry in entries(path) if entry["stream"] == stream]


def written(directory: Path, *chunks: bytes) -> list[str]:
    log = writer(directory)
    for chunk in chunks:
        log.write("stdout", chunk)
    log.close()
    return texts(directory / "log")


def test_line_is_exactly_dockers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "time_ns", lambda: 1795430756143698672)
    log = writer(tmp_path)
    log.write("stdout", b"out\n")
    log.write("stderr", b'a "b" \\n \t\x00\x1b\n')
    log.close()
    assert (tmp_path / "log").read_text() == (
        '{"log":"out\\n","stream":"stdout","time":"2026-11-23T10:45:56.143698672Z"}\n'
        '{"log":"a \\"b\\" \\\\n \\t\\u0000\\u001b\\n","stream":"stderr",'
        '"time":"2026-11-23T10:45:56.143698672Z"}\n'
    )


def test_file_is_for_the_group_to_read_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        writer(tmp_path).close()
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_line_waits_for_its_end(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"error")
    assert texts(tmp_path / "log") == ["one\n"]
    log.write("stdout", b"o\n")
    assert texts(tmp_path / "log") == ["one\n", "two\n"]
    log.flush()
    assert texts(tmp_path / "log", "stderr") == ["error"]
    log.close()


@pytest.mark.parametrize("length", [16383, 16384])
def test_line_of_sixteen_kib_is_whole(tmp_path: Path, length: int) -> None:
    line = b"x" * length + b"\n"
    assert written(tmp_path, line[:100], line[100:]) == [line.decode()]


def test_longer_line_is_cut_and_only_its_last_piece_ends(tmp_path: Path) -> None:
    pieces = written(tmp_path, b"a\n" + b"x" * 40000, b"y\nb\n")
    assert [len(piece) for piece in pieces] == [2, 16384, 16384, 40000 - 2 * 16384 + 2, 2]
    assert [piece.endswith("\n") for piece in pieces] == [True, False, False, True, True]


def test_no_character_is_cut_in_two(tmp_path: Path) -> None:
    text = "x" + "€" * 20000
    pieces = written(tmp_path, *(text.encode()[at : at + 4097] for at in range(0, 60001, 4097)))
    assert "".join(pieces) == text


def test_bad_utf8_is_replaced(tmp_path: Path) -> None:
    assert written(tmp_path, b"a\xff\xc3\nb\x80\n") == ["a\ufffd\ufffd\n", "b\ufffd\n"]


def test_bad_utf8_without_end_is_cut_all_the_same(tmp_path: Path) -> None:
    assert "".join(written(tmp_path, b"\x80" * 50000)) == "\ufffd" * 50000


CHUNKS = st.binary(max_size=40) | st.sampled_from(
    [b"\n" * 3000, b"\\n" * 9000, b"\xe2\x82", b"\xac"]
)


@given(st.lists(CHUNKS, max_size=12))
def test_lines_come_back_whatever_they_hold(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    path = Path(f"/dev/shm/minicontainer-test-{os.getpid()}")
    log = logs.LogWriter(str(path), None, 1)
    try:
        for chunk in chunks:
            log.write("stdout", chunk)
        log.close()
        found = entries(path)
    finally:
        path.unlink()
    lines = [entry["log"] for entry in found]
    assert "".join(lines) == data.decode("utf-8", "replace")
    assert all("\n" not in line[:-1] for line in lines)
    assert all(line.endswith("\n") or len(line.encode()) > 16380 for line in lines[:-1])
    assert log.dropped == 0


def test_files_rotate_and_stay_below_their_size(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=1000)
    for number in range(100):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    lines = [text for name in reversed(names) for text in texts(tmp_path / name)]
    assert lines == [f"line {number}\n" for number in range(100 - len(lines), 100)]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_flood_in_one_chunk_rotates_too(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=5000)
    log.write("stdout", b"y\n" * 4000)
    log.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 5000
    assert log.dropped == 0


def test_single_file_begins_anew(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=500, max_file=1)
    for number in range(50):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert texts(tmp_path / "log")[-1] == "line 49\n"
    assert (tmp_path / "log").stat().st_size <= 500


def test_line_longer_than_a_file_has_a_file_of_its_own(tmp_path: Path) -> None:
    log = writer(tmp_path, max_size=200)
    for text in (b"short\n", b"x" * 1000 + b"\n", b"after\n"):
        log.write("stdout", text)
    log.close()
    assert [texts(tmp_path / name)[0][:5] for name in ("log.2", "log.1", "log")] == [
        "short",
        "xxxxx",
        "after",
    ]


def test_former_log_is_continued(tmp_path: Path) -> None:
    assert written(tmp_path, b"one\n") == ["one\n"]
    assert written(tmp_path, b"two\n") == ["one\n", "two\n"]


def test_torn_line_of_a_crash_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"log":"one\\n","stream":"std')
    log = writer(tmp_path)
    log.write("stdout", b"two\n")
    log.close()
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert len(lines) == 3
    assert json.loads(lines[1])["log"] == "two\n"


def test_link_in_place_of_the_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="log"):
        writer(tmp_path)


def test_full_file_system_drops_lines_and_counts_them(tmp_path: Path) -> None:
    """RLIMIT_FSIZE cuts a write as a full disk does; CPython ignores SIGXFSZ."""

    def act() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        log = writer(tmp_path)
        log.write("stdout", b"line\n" * 100)
        dropped = log.dropped
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        log.write("stdout", b"after\n")
        log.close()
        return dropped, log.dropped

    dropped, at_last = in_child(act)
    lines = texts(tmp_path / "log")
    assert lines[-1] == "after\n"
    assert len(lines) - 1 + dropped == 100
    assert 0 < dropped == at_last


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_failure_of_any_call_is_borne(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    log = writer(tmp_path, max_size=300)
    log.write("stdout", b"before\n")
    for name in ("write", "rename", "ftruncate"):
        monkeypatch.setattr(logs.kernel, name, failing)
    log.write("stdout", b"lost\n" * 7)
    log.write("stdout", b"x" * 400 + b"\n")
    monkeypatch.undo()
    log.write("stdout", b"after\n")
    log.close()
    assert texts(tmp_path / "log") == ["before\n", "after\n"]
    assert log.dropped == 8


def test_torn_line_that_cannot_be_taken_back_is_ended_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer(tmp_path)
    whole = logs.kernel.write

    def half(fd: int, data: bytes) -> int:
        return whole(fd, data[: len(data) // 2])

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(logs.kernel, "write", half)
    monkeypatch.setattr(logs.kernel, "ftruncate", failing)
    log.write("stdout", b"torn\n")
    monkeypatch.undo()
    log.write("stdout", b"after\n")
    log.close()
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert json.loads(lines[1])["log"] == "after\n"
    assert log.dropped == 1


def test_timestamps_sort_as_moments_do() -> None:
    assert logs.timestamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert logs.timestamp(1_000_000_001) == "1970-01-01T00:00:01.000000001Z"
    moments = [0, 1, 999_999_999, 10**9, 1795430756143698672]
    assert sorted(map(logs.timestamp, moments)) == list(map(logs.timestamp, moments))
