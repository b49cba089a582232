"""The writer of a container's log: Docker's json-file, rotated.

A line of the file is one line of output (or one piece of at most 16 KiB of it):

    {"log":"out\\n","stream":"stdout","time":"2026-11-23T10:45:56.143698672Z"}

Writing never raises and never stops the container: a slow disk makes it wait, a failing one loses
lines, which are counted in `dropped`.  The file never holds more than `max_size` bytes, unless one
single line is longer.  The reader is `logview`; this module is on the start path.
"""

from __future__ import annotations

import os
import time

from minicontainer import jsontext, kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# The longest piece of a line in one entry, in bytes; Docker's figure.
PIECE_BYTES = 16384

# Short lines grow about fortyfold on their way into the file, so they are formatted a little at a
# time: what one step makes of them stays in the processor's cache, and memory stays flat.
_BLOCK_BYTES = 2048

_SECOND = 1_000_000_000


def rotated(path: str, index: int) -> str:
    """The path of the log's `index`-th predecessor; 0 is the log itself."""
    return f"{path}.{index}" if index else path


def timestamp(nanoseconds: int) -> str:
    """A moment since the epoch as RFC 3339 in UTC with nine digits: texts sort as moments do."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


class LogWriter:
    """The open log of a container, for one writing process.

    max_size: bytes of one file, None for no limit; max_file: how many files, at least one.
    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: str, max_size: int | None, max_file: int) -> None:
        self.dropped = 0
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._partial = {"stdout": b"", "stderr": b""}
        self._clock = (0, "")
        self._fd = -1
        self._size = 0
        self._torn = False
        self._open()

    def _open(self) -> None:
        # Not write-only: a crash may have torn the last line, which one read shows.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = kernel.open(self._path, flags, 0o640)
        found = os.fstat(self._fd)
        if found.st_mode & 0o777 != 0o640:
            kernel.fchmod(self._fd, 0o640)
        self._size = found.st_size
        self._torn = found.st_size > 0 and os.pread(self._fd, 1, found.st_size - 1) != b"\n"

    def warm_up(self) -> None:
        """Import what writing needs, as long as the interpreter's files are those we run."""
        _entries(b"\n", "stdout", self._now())

    def write(self, stream: str, data: bytes) -> None:
        """Append output of `stream` ("stdout" or "stderr") read just now; an unended line waits."""
        data = self._partial[stream] + data
        stamp = self._now()
        start = 0
        for end in _blocks(data):
            self._append(_entries(data[start:end], stream, stamp))
            start = end
        self._partial[stream] = data[start:]

    def flush(self) -> None:
        """Append what is left of lines that did not end; after this nothing more is waiting."""
        for stream, rest in self._partial.items():
            self._partial[stream] = b""
            if rest:
                self._append(_entries(rest, stream, self._now()))

    def close(self) -> None:
        """Flush and close; may be repeated."""
        if self._fd >= 0:
            self.flush()
            kernel.close(self._fd)
            self._fd = -1

    def _now(self) -> str:
        seconds, rest = divmod(time.time_ns(), _SECOND)
        if seconds != self._clock[0]:
            self._clock = (seconds, timestamp(seconds * _SECOND)[:20])
        return f"{self._clock[1]}{rest:09d}Z"

    def _append(self, entries: bytes) -> None:
        """Write whole lines, as many to each file as fit; those that cannot be written are lost."""
        while entries:
            if self._torn and not self._mend():
                self.dropped += entries.count(b"\n")
                return
            end = len(entries)
            if self._max_size is not None and self._size + end > self._max_size:
                end = entries.rfind(b"\n", 0, max(0, self._max_size - self._size)) + 1
                if not end and self._size:
                    if self._rotate():
                        continue
                    self.dropped += entries.count(b"\n")
                    return
                end = end or entries.index(b"\n") + 1
            self._write(entries[:end])
            entries = entries[end:]

    def _write(self, lines: bytes) -> None:
        try:
            written = kernel.write(self._fd, lines)
        except OSError:
            written = 0
        self._size += written
        self.dropped += lines.count(b"\n", written)
        torn = written - lines.rfind(b"\n", 0, written) - 1 if written else 0
        if torn:
            self._take_back(torn)

    def _take_back(self, torn: int) -> None:
        """Remove the beginning of a line whose end did not fit."""
        try:
            kernel.ftruncate(self._fd, self._size - torn)
            self._size -= torn
        except OSError:
            self._torn = True

    def _mend(self) -> bool:
        """End a torn line, which readers then skip; False if the file system refuses."""
        try:
            self._size += kernel.write(self._fd, b"\n")
        except OSError:
            return False
        self._torn = False
        return True

    def _rotate(self) -> bool:
        """Shift the files by one, the oldest is lost; False if the file system refuses."""
        try:
            if self._max_file == 1:
                kernel.unlink(self._path)
            for index in range(self._max_file - 1, 0, -1):
                try:
                    kernel.rename(rotated(self._path, index - 1), rotated(self._path, index))
                except FileNotFoundError:
                    continue
            old_fd = self._fd
            self._open()
            kernel.close(old_fd)
            return True
        except OSError:
            return False


def _blocks(data: bytes) -> Iterator[int]:
    """Where to cut `data`: after newlines, or in a line over 16 KiB between two characters."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + _BLOCK_BYTES) + 1
        if not end:
            end = data.find(b"\n", start + _BLOCK_BYTES, start + PIECE_BYTES + 1) + 1
        if not end:
            if len(data) - start <= PIECE_BYTES:
                return
            end = _character_start(data, start + PIECE_BYTES)
        yield end
        start = end


def _character_start(data: bytes, position: int) -> int:
    """`position`, or up to three bytes before it, where a UTF-8 character begins."""
    for back in range(4):
        if data[position - back] & 0xC0 != 0x80:
            return position - back
    return position


def _entries(block: bytes, stream: str, stamp: str) -> bytes:
    """The lines of the file for a block of output: its lines, or one piece without a newline.

    The whole block is escaped at once and the entries are cut afterwards: every step runs at the
    speed of memory, where a loop over lines would cost a second for each million of them.
    """
    text = jsontext.string(block.decode("utf-8", "replace"))[1:-1]
    # An escaped newline must not be confused with an escaped backslash before an n.  A NUL stands
    # for the latter meanwhile: those of the output have become \u0000.
    backslashes = "\\\\" in text
    if backslashes:
        text = text.replace("\\\\", "\0")
    ending = f'","stream":"{stream}","time":"{stamp}"}}\n'
    if text.endswith("\\n"):
        lines = text[:-2].replace("\\n", f'\\n{ending}{{"log":"')
        text = f'{{"log":"{lines}\\n{ending}'
    else:
        text = f'{{"log":"{text}{ending}'
    return (text.replace("\0", "\\\\") if backslashes else text).encode()
