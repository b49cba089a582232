"""The reader of a container's log: what `minicontainer logs` shows.

Reads the files `logs` writes, oldest first, by descriptor: a rotation meanwhile loses nothing.
Lines that are no entry (torn by a crash or a full disk) are skipped.
"""

from __future__ import annotations

import json
import os
import time

from minicontainer import kernel
from minicontainer.engine import logs
from minicontainer.errors import InvalidState, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from minicontainer.paths import Paths

    class Container(Protocol):
        """What is needed of `records.Container`."""

        paths: Paths
        id: str

        @property
        def options(self) -> dict[str, Any]: ...
        @property
        def status(self) -> str: ...
        @property
        def monitored(self) -> bool: ...
        def refresh(self) -> object: ...

    Entry = tuple[str, bytes, str]

_READ_BYTES = 1 << 16
_POLL_SECONDS = 0.1
_ALIVE = ("running", "paused", "restarting")


def entries(
    container: Container,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: int | None = None,
    until: int | None = None,
) -> Iterator[Entry]:
    """(stream, output, time) of each entry of the container's log, in the order of writing.

    stream: "stdout" or "stderr"; time: RFC 3339 in UTC with nine digits.
    tail: only the last so many lines (an entry that does not end in a newline is a piece of the
    next one's line); since, until: nanoseconds since the epoch, both inclusive.
    follow: go on until the container has ended and everything is read, or until `until`.
    Raises InvalidState for a container that keeps no log.
    """
    if container.options.get("log_driver") == "none":
        raise InvalidState("configured logging driver does not support reading: none")
    since_text = logs.timestamp(since) if since is not None else ""
    until_text = logs.timestamp(until) if until is not None else "~"
    files = _Files(container.paths.log(container.id))
    try:
        if tail is not None:
            files.seek_tail(tail, until_text)
        for entry in _followed(files, container, until) if follow else files.entries():
            if entry[2] > until_text:
                return
            if entry[2] >= since_text:
                yield entry
    finally:
        files.close()


def _followed(files: _Files, container: Container, until: int | None) -> Iterator[Entry]:
    while True:
        # Asked before reading: what was written until the end is then read for certain.
        ended = not _is_alive(container) or (until is not None and time.time_ns() > until)
        yield from files.entries()
        while files.advance():
            yield from files.entries()
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _is_alive(container: Container) -> bool:
    try:
        container.refresh()
    except NotFound:
        return False
    # A monitor that has not ended may write more, or start the container again.
    return container.monitored or container.status in _ALIVE


class _Files:
    """The log's open files, oldest first, and a position in the first of them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open = _open_files(path, None)
        self._rest = b""

    def close(self) -> None:
        for fd in self._open:
            kernel.close(fd)
        self._open = []

    def entries(self) -> Iterator[Entry]:
        """What follows, up to the end of the last open file, which stays open."""
        while self._open:
            while data := os.read(self._open[0], _READ_BYTES):
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                for line in lines:
                    entry = parse(line)
                    if entry is not None:
                        yield entry
            if len(self._open) == 1:
                return
            self._drop_first()

    def advance(self) -> bool:
        """Open the files that came after the one read last; False if there are none."""
        if not self._open:
            self._open = _open_files(self._path, None)
            return bool(self._open)
        newer = _open_files(self._path, os.fstat(self._open[0]))
        if not newer:
            return False
        self._open += newer
        return True

    def _drop_first(self) -> None:
        kernel.close(self._open.pop(0))
        self._rest = b""

    def seek_tail(self, count: int, until: str) -> None:
        """Move to where the last `count` lines not later than `until` begin."""
        index, offset = _tail_start(self._open, count, until)
        for _ in range(index):
            self._drop_first()
        if self._open:
            os.lseek(self._open[0], offset, os.SEEK_SET)


def parse(line: bytes) -> Entry | None:
    """The entry in a line of the file, or None for a line that is none."""
    try:
        found = json.loads(line)
        stream, text, stamp = found["stream"], found["log"], found["time"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(stream, str) and isinstance(text, str) and isinstance(stamp, str)):
        return None
    return stream, text.encode("utf-8", "replace"), stamp


def _open_files(path: str, after: os.stat_result | None) -> list[int]:
    """The log's files, oldest first; with `after`, only those newer than that file.

    Opened newest first: a rotation in between shows a file twice, and never hides one.
    """
    found: list[int] = []
    seen: set[tuple[int, int]] = set()
    last = (after.st_dev, after.st_ino) if after is not None else None
    index = missing = 0
    # While a rotation goes on, one number of the row is vacant.
    while missing < 2:
        try:
            fd = kernel.open(logs.rotated(path, index), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            missing += 1
            continue
        finally:
            index += 1
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if identity == last or identity in seen:
            kernel.close(fd)
            if identity == last:
                break
            continue
        seen.add(identity)
        found.append(fd)
    return found[::-1]


def _tail_start(files: list[int], count: int, until: str) -> tuple[int, int]:
    """(index of the file, offset) where the last `count` lines begin."""
    position = (len(files) - 1, os.fstat(files[-1]).st_size) if files else (0, 0)
    ended: set[str] = set()
    for index in range(len(files) - 1, -1, -1):
        for offset, line in _lines_backwards(files[index]):
            entry = parse(line)
            if entry is None or entry[2] > until:
                continue
            stream, data, _ = entry
            if data.endswith(b"\n") or stream not in ended:
                ended.add(stream)
                count -= 1
            if count < 0:
                return position
            position = (index, offset)
    return position


def _lines_backwards(fd: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of each complete line of a file, the last one first."""
    end = os.fstat(fd).st_size
    rest = b""
    complete = False
    while end > 0:
        start = max(0, end - _READ_BYTES)
        lines = (os.pread(fd, end - start, start) + rest).split(b"\n")
        offset = start + sum(map(len, lines)) + len(lines) - 1
        for line in lines[:0:-1]:
            offset -= len(line)
            if complete:
                yield offset, line
            complete = True
            offset -= 1
        rest = lines[0]
        end = start
    if complete:
        yield 0, rest
