"""What the monitor and its clients say to each other over a stream socket.

A frame is a type (one byte), the length of the payload (four, big-endian), the payload:

    client -> monitor   STDIN data, STDIN_EOF, RESIZE rows columns, SIGNAL number
    monitor -> client   STDOUT data, STDERR data, ERROR text, EXIT code (always the last)

`Connection` is either end of it in a `polling.Loop`.
"""

from __future__ import annotations

import os
import select
from struct import Struct

from minicontainer import kernel
from minicontainer.engine.polling import CHUNK_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minicontainer.engine.polling import Loop

STDIN, STDIN_EOF, RESIZE, SIGNAL = 1, 2, 3, 4
STDOUT, STDERR, ERROR, EXIT = 17, 18, 19, 20

# Of a payload; nobody sends longer ones, so one who does speaks something else.
LONGEST_BYTES = 1 << 20

_HEADER = Struct(">BI")
_SIZE = Struct(">HH")
_CODE = Struct(">i")


def encode(kind: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def resize(rows: int, columns: int) -> bytes:
    """The payload of RESIZE."""
    return _SIZE.pack(rows & 0xFFFF, columns & 0xFFFF)


def parse_resize(payload: bytes) -> tuple[int, int]:
    """(rows, columns). ValueError for a payload of another length."""
    if len(payload) != _SIZE.size:
        raise ValueError("RESIZE of a wrong length")
    rows, columns = _SIZE.unpack(payload)
    return rows, columns


def parse_signal(payload: bytes) -> int:
    """The number of a signal. ValueError for anything else."""
    if len(payload) != 1 or not 0 < payload[0] <= kernel.SIGRTMAX:
        raise ValueError("SIGNAL of no known number")
    return payload[0]


def exit_code(code: int) -> bytes:
    """The payload of EXIT."""
    return _CODE.pack(code)


def parse_exit_code(payload: bytes) -> int:
    """ValueError for a payload of another length."""
    if len(payload) != _CODE.size:
        raise ValueError("EXIT of a wrong length")
    return int(_CODE.unpack(payload)[0])


class Decoder:
    """Frames out of bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The (kind, payload) of each frame completed by `data`.

        Raises ValueError for a frame of more than LONGEST_BYTES; no use to go on after that.
        """
        self._rest += data
        frames: list[tuple[int, bytes]] = []
        position = 0
        while len(self._rest) - position >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest, position)
            if length > LONGEST_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            start = position + _HEADER.size
            if len(self._rest) - start < length:
                break
            position = start + length
            frames.append((kind, bytes(self._rest[start:position])))
        del self._rest[:position]
        return frames


class Connection:
    """A port for one end: `receive(self, kind, payload)` for each frame, and once `lost(self)`.

    Owns the socket.  Receives only while `may_receive()`; `full` asks those who send to pause.
    A ValueError of `receive` ends the connection, as bytes that are no frame do.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        receive: Callable[[Connection, int, bytes], None],
        lost: Callable[[Connection], None],
        may_receive: Callable[[], bool],
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._loop = loop
        self._receive = receive
        self._lost = lost
        self._may_receive = may_receive
        self._decoder = Decoder()
        self._queue = bytearray()
        self._unheard = False
        self.open = True
        loop.add(self)

    @property
    def full(self) -> bool:
        return len(self._queue) >= CHUNK_BYTES

    @property
    def idle(self) -> bool:
        """Everything has been sent."""
        return not self._queue

    def send(self, kind: int, payload: bytes = b"") -> None:
        if self.open and not self._unheard:
            self._queue += encode(kind, payload)

    def wanted(self) -> int:
        reading = select.POLLIN if self._unheard or self._may_receive() else 0
        return reading | (select.POLLOUT if self._queue else 0)

    def ready(self, happened: int) -> None:
        if happened & select.POLLOUT:
            self._write()
        if happened & ~select.POLLOUT:
            self._read()

    def _write(self) -> None:
        try:
            del self._queue[: kernel.write(self.fd, self._queue[:CHUNK_BYTES])]
        except BlockingIOError:
            return
        except OSError:
            # The other end is closed; what it said before, EXIT perhaps, is still to be read.
            self._unheard = True
            self._queue.clear()

    def _read(self) -> None:
        try:
            data = kernel.read(self.fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            for kind, payload in self._decoder.feed(data):
                if self.open:
                    self._receive(self, kind, payload)
        except ValueError:
            data = b""
        if not data:
            self._lose()

    def _lose(self) -> None:
        if self.open:
            self.close()
            self._lost(self)

    def close(self) -> None:
        """Close the socket and throw away what was not sent; may be repeated."""
        if self.open:
            self.open = False
            self._queue.clear()
            self._loop.remove(self)
            kernel.close(self.fd)
